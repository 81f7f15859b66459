"""Mode counts, precision and recall, anisotropy, inception score, Fréchet distance."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import erf
from sklearn.neighbors import KNeighborsClassifier

from skebm.metrics import (
    anisotropy,
    anisotropy_index,
    features,
    frechet_distance,
    inception_score,
    mode_count,
    prd_f_beta,
)
from tests.closed_forms import assert_estimate, assert_mean
from tests.generators import gen

# -- modes -----------------------------------------------------------------------------------------


def first_column(X):
    return np.asarray(X)[:, 0].astype(int)


def rows_of(*counts):
    return np.repeat(np.arange(len(counts)), counts)[:, None].astype(float)


def test_kl_of_known_counts():
    result = mode_count(rows_of(2, 0, 1, 1), first_column, 4)
    np.testing.assert_array_equal(result.counts, [2, 0, 1, 1])
    assert result.n_modes == 3 and type(result.n_modes) is int
    truth = 0.5 * math.log(0.5 / 0.25)  # the two quarters add 0
    assert result.kl == pytest.approx(truth, abs=1e-14) and type(result.kl) is float
    even = mode_count(rows_of(7, 7, 7), first_column, 3)
    assert (even.n_modes, even.kl) == (3, 0.0)
    assert mode_count(rows_of(0, 9), first_column, 8).kl == pytest.approx(math.log(8), abs=1e-14)


def test_kl_against_a_target():
    X = rows_of(3, 1)
    result = mode_count(X, first_column, 2, target=[3, 3])
    assert result.kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-14)
    assert mode_count(X, first_column, 2, target=[0.75, 0.25]).kl == pytest.approx(0, abs=1e-14)
    assert mode_count(X, first_column, 2, target=[1, 0]).kl == math.inf
    assert mode_count(rows_of(4, 0), first_column, 2, target=[1, 0]).kl == 0


def test_kl_of_a_sample_from_the_target_has_its_known_bias():
    rng, target = np.random.RandomState(0), np.array([0.1] * 4 + [0.2] * 3)
    values = []
    for _ in range(400):
        labels = rng.choice(7, size=1000, p=target)[:, None]
        values.append(2 * 1000 * mode_count(labels, first_column, 7, target=target).kl)
    assert_mean(values, 6, largest_stderr=0.2)  # chi-square with k - 1 degrees of freedom


def test_min_share_is_a_share_of_all_rows():
    X = rows_of(90, 7, 3)
    found = [mode_count(X, first_column, 3, min_share=m).n_modes for m in (0, 0.03, 0.07, 0.071, 1)]
    assert found == [3, 3, 2, 1, 0]  # 7 of 100 is not less than 0.07
    assert mode_count(rows_of(1, 0, 5), first_column, 3).n_modes == 2


def test_known_centers():
    # of 200 rows: 100 at the first, 2 at the second, 1 at the third, 97 far from all
    X = np.concatenate([np.zeros(100), [4.9, 5.1], [10.0], np.full(97, 7.5)])[:, None]
    result = mode_count(X, centers=[[0.0], [5.0], [10.0], [20.0]], radius=0.5)
    np.testing.assert_array_equal(result.counts, [100, 2, 1, 0])
    assert result.counts.dtype == np.int64
    assert result.n_modes == 2  # one of 200 is less than 1 %
    p = np.array([100, 2, 1]) / 103
    assert result.kl == pytest.approx((p * np.log(4 * p)).sum(), abs=1e-13)
    assert mode_count(X, None, 2, centers=[[0.0], [9.0]]).counts.sum() == 200
    assert mode_count(X, centers=[[0.0], [5.0], [10.0]], radius=0.5, min_share=0).n_modes == 3
    nowhere = mode_count(X, centers=[[90.0], [95.0]], radius=1)
    assert nowhere.n_modes == 0 and math.isnan(nowhere.kl)


def test_a_fitted_classifier_and_its_classes():
    knn = KNeighborsClassifier(1).fit([[0.0], [1.0], [2.0]], ["five", "one", "two"])
    result = mode_count(rows_of(3, 2, 0), knn)
    np.testing.assert_array_equal(result.counts, [3, 2, 0])
    coded = KNeighborsClassifier(1).fit([[0.0], [1.0]], [0, 3])
    np.testing.assert_array_equal(mode_count(rows_of(3, 2), coded).counts, [3, 2])
    np.testing.assert_array_equal(mode_count(rows_of(3, 2), coded, 5).counts, [3, 0, 0, 2, 0])


def test_stacked_digits_are_one_label():
    images = np.array([[1, 2], [1, 2], [9, 9], [0, 3]]).reshape(4, 2, 1, 1)

    def two_digits(X):
        return X[:, :, 0, 0] @ [10, 1]

    result = mode_count(images, two_digits, 100)
    assert result.n_modes == 3 and result.counts[[12, 99, 3]].tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"classifier": None}, ValueError, "classifier or from centers, got neither"),
        ({"centers": [[0.0]]}, ValueError, "classifier or from centers, got both"),
        ({"classifier": 3}, TypeError, "classifier must be callable .*, got int"),
        ({"n_modes": None}, ValueError, "n_modes must be an integer, got None"),
        ({"n_modes": 2.5}, TypeError, "n_modes must be an integer >= 1, got 2.5"),
        ({"n_modes": 2}, ValueError, "labels from 0 to 1, got 2"),
        ({"classifier": np.ravel}, ValueError, "must return integers, got float64"),
        ({"classifier": np.asarray}, ValueError, r"shape \(6,\), got \(6, 1\)"),
        ({"radius": 1.0}, ValueError, "radius must be None .*, got 1.0"),
        ({"min_share": 1.5}, ValueError, "min_share must be .*<= 1, got 1.5"),
        ({"target": [1, 1]}, ValueError, r"target must have shape \(3,\), got \(2,\)"),
        ({"target": [1, -1, 1]}, ValueError, "target must hold weights >= 0.*got -1 to 1"),
        ({"target": [0, 0, 0]}, ValueError, "target .*not all 0, got 0 to 0"),
        ({"classifier": None, "centers": [[0.0]]}, ValueError, "n_modes must be 1.*got 3"),
    ],
)
def test_bad_mode_counts_are_named(changes, error, message):
    arguments = {"classifier": first_column, "n_modes": 3, **changes}
    with pytest.raises(error, match=message):
        mode_count(rows_of(3, 2, 1), **arguments)


# -- precision and recall --------------------------------------------------------------------------


def clusters(*counts, seed=0):
    """Rows in tight clusters that are far apart, in columns of their own."""
    label = np.repeat(np.arange(len(counts)), counts)
    return 100 * np.eye(len(counts))[label] + np.random.RandomState(seed).randn(len(label), 1)


def test_the_curve_of_known_histograms():
    real, fake = clusters(50, 50, 0), clusters(100, 0, 0, seed=1)
    result = prd_f_beta(real, fake, n_clusters=2, n_angles=20_001, n_runs=2, random_state=0)
    slopes = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 20_001))
    np.testing.assert_allclose(result.precision, np.minimum(0.5 * slopes, 1), rtol=1e-9)
    np.testing.assert_allclose(result.recall, np.minimum(0.5, 1 / slopes), rtol=1e-9)
    # the largest of both is at slope 2: precision 1, recall 1/2
    assert result.f_recall == pytest.approx(65 * 0.5 / (64 + 0.5), abs=1e-4)
    assert result.f_precision == pytest.approx((1 + 1 / 64) * 0.5 / (1 / 64 + 0.5), abs=1e-4)
    plain = prd_f_beta(real, fake, beta=1, n_clusters=2, n_angles=20_001, n_runs=1, random_state=0)
    assert plain.f_recall == plain.f_precision == pytest.approx(2 / 3, abs=1e-4)


def test_dropped_modes_cost_recall_and_foreign_rows_cost_precision():
    real, fake = clusters(40, 40, 40, 40, 0), clusters(0, 80, 40, 20, 20, seed=1)
    p, q = np.array([40, 40, 40, 40, 0]) / 160, np.array([0, 80, 40, 20, 20]) / 160
    result = prd_f_beta(real, fake, n_clusters=5, n_runs=3, random_state=0)
    slopes = np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 1001))
    truth = [sum(min(s * a, b) for a, b in zip(p, q, strict=True)) for s in slopes]
    np.testing.assert_allclose(result.precision, truth, rtol=1e-9)
    assert result.precision[-1] == pytest.approx(140 / 160)  # fake rows where real ones are
    assert result.recall[0] == pytest.approx(0.75)  # real rows where fake ones are
    swapped = prd_f_beta(fake, real, n_clusters=5, n_runs=3, random_state=0)
    assert swapped.f_recall == pytest.approx(result.f_precision, abs=1e-8)
    assert swapped.f_precision == pytest.approx(result.f_recall, abs=1e-8)


def test_equal_samples_give_one_and_disjoint_ones_give_zero():
    X = np.random.RandomState(0).randn(200, 3)
    same = prd_f_beta(X, X[::-1], n_runs=2, random_state=0)
    assert (same.f_recall, same.f_precision) == pytest.approx((1, 1), abs=1e-12)
    apart = prd_f_beta(clusters(50, 50, 0), clusters(0, 0, 100), n_clusters=3, random_state=0)
    assert (apart.f_recall, apart.f_precision) == (0, 0)
    assert not apart.precision.any() and not apart.recall.any()


def test_the_larger_sample_is_cut_to_the_size_of_the_smaller(monkeypatch):
    seen, inner = [], features._histograms

    def spy(real, fake, n_clusters, rng):
        seen.append((real, fake))
        return inner(real, fake, n_clusters, rng)

    monkeypatch.setattr(features, "_histograms", spy)
    real, fake = clusters(300, 300), clusters(40, 40)
    prd_f_beta(real, fake, n_clusters=2, n_runs=3, random_state=0)
    assert [(len(r), len(f)) for r, f in seen] == [(80, 80)] * 3
    assert len(np.unique(seen[0][0], axis=0)) == 80  # without replacement
    assert not np.array_equal(seen[0][0], seen[1][0])  # another draw each run


def test_runs_are_averaged_and_repeat_with_the_seed():
    rng = np.random.RandomState(0)
    real, fake = rng.randn(100, 2), rng.randn(100, 2) + 0.5
    before = np.random.get_state()[1].copy()
    state = np.random.RandomState(3)
    singles = [prd_f_beta(real, fake, n_runs=1, random_state=state) for _ in range(3)]
    both = prd_f_beta(real, fake, n_runs=3, random_state=3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    assert np.ptp([s.f_recall for s in singles]) > 0
    np.testing.assert_allclose(both.recall, np.mean([s.recall for s in singles], axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"fake": [[0.0]]}, ValueError, "fake must have 2 columns, got 1"),
        ({"real": [[0.0, np.nan]]}, ValueError, "real contains NaN"),
        ({"beta": 0.5}, ValueError, "beta must be a number >= 1, got 0.5"),
        ({"n_clusters": 21}, ValueError, "n_clusters must be .*<= 20, got 21"),
        ({"n_angles": 2}, ValueError, "n_angles must be an integer >= 3, got 2"),
        ({"n_runs": 0}, ValueError, "n_runs must be an integer >= 1, got 0"),
        ({"n_runs": 1.5}, TypeError, "n_runs must be an integer >= 1, got 1.5"),
    ],
)
def test_bad_prd_arguments_are_named(changes, error, message):
    X = np.random.RandomState(0).randn(10, 2)
    with pytest.raises(error, match=message):
        prd_f_beta(**{"real": X, "fake": X, **changes})


# -- anisotropy ------------------------------------------------------------------------------------


def linear(W, **kwargs):
    W = torch.as_tensor(np.asarray(W), dtype=torch.float64)
    layer = torch.nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64, **kwargs)
    layer.weight.data.copy_(W)
    return layer


class Square(torch.nn.Module):
    """(z1^2 / 2, z2): the columns of J have the lengths |z1| and 1."""

    def forward(self, z):
        return torch.stack([z[:, 0] ** 2 / 2, z[:, 1]], dim=1)


class Mixed(torch.nn.Module):
    """All that generators are made of; images out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.PReLU(), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
        )
        self.up = torch.nn.ConvTranspose2d(2, 3, 2, stride=2)

    def forward(self, z):
        return torch.tanh(self.up(self.hidden(z).reshape(-1, 2, 2, 2)))


@pytest.fixture
def mixed():
    with torch.random.fork_rng():
        module = Mixed()
        module(torch.randn(64, 3, generator=gen(0)))  # running statistics that are not 0 and 1
    return module


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (7, 1), (2, 4)])
def test_anisotropy_of_a_linear_generator_is_the_spread_of_its_columns(shape):
    W = np.random.RandomState(0).randn(*shape)
    lengths = np.linalg.norm(W, axis=0)
    index = anisotropy_index(linear(W), shape[1], n_samples=20, random_state=0)
    assert index.value == pytest.approx(lengths.std(), abs=1e-13)
    assert index.ratio == pytest.approx(lengths.std() / lengths.mean(), abs=1e-13)
    assert (index.stderr, index.ratio_stderr) == pytest.approx((0, 0), abs=1e-14)
    assert all(type(value) is float for value in index)
    double = anisotropy_index(linear(2 * W), shape[1], n_samples=20, random_state=0)
    assert double.value == pytest.approx(2 * index.value, abs=1e-13)
    assert double.ratio == pytest.approx(index.ratio, abs=1e-13)


def test_anisotropy_of_an_orthogonal_generator_is_zero():
    Q = np.linalg.qr(np.random.RandomState(0).randn(6, 4))[0]
    index = anisotropy_index(linear(3 * Q), 4, n_samples=10, random_state=0)
    assert (index.value, index.ratio) == pytest.approx((0, 0), abs=1e-14)


def test_anisotropy_averages_over_standard_normal_latents():
    inside, below = erf(1 / math.sqrt(2)), math.sqrt(2 / math.pi) * (1 - math.exp(-0.5))
    truth = 0.5 * (2 * (inside - below) + math.sqrt(2 / math.pi) - 1)  # E | |z| - 1 | / 2
    index = anisotropy_index(Square(), 2, n_samples=20_000, random_state=0)
    assert_estimate(index.value, index.stderr, truth, largest_stderr=0.0025)
    z = np.abs(np.random.RandomState(0).randn(400_000))
    ratio = np.abs(z - 1) / (z + 1)
    error = math.hypot(index.ratio_stderr, ratio.std() / math.sqrt(len(z)))
    assert_estimate(index.ratio, error, ratio.mean(), largest_stderr=0.0025)


def test_anisotropy_agrees_with_the_whole_jacobian(mixed, monkeypatch):
    index = anisotropy_index(mixed, 3, n_samples=20, random_state=0)
    monkeypatch.setattr(anisotropy, "BLOCK", 7)
    assert anisotropy_index(mixed, 3, n_samples=20, random_state=0) == pytest.approx(index)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    z = torch.empty(20, 3).normal_(generator=gen(int(seed)))
    mixed.eval()
    jacobians = [torch.autograd.functional.jacobian(mixed, row[None]) for row in z]
    lengths = torch.stack([J.reshape(-1, 3).norm(dim=0) for J in jacobians]).double().numpy()
    spread = lengths.std(axis=1)
    assert index.value == pytest.approx(spread.mean(), rel=1e-5)
    assert index.stderr == pytest.approx(spread.std(ddof=1) / math.sqrt(20), rel=1e-4)
    assert index.ratio == pytest.approx((spread / lengths.mean(axis=1)).mean(), rel=1e-5)


def test_anisotropy_leaves_the_module_as_it_was(mixed):
    mixed.train()
    mixed.up.eval()
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    modes = [part.training for part in mixed.modules()]
    state = torch.random.get_rng_state()
    first = anisotropy_index(mixed, 3, n_samples=10, random_state=0)
    assert [part.training for part in mixed.modules()] == modes and mixed.training
    assert all(torch.equal(value, before[name]) for name, value in mixed.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in mixed.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert anisotropy_index(mixed, 3, n_samples=10, random_state=0) == first
    assert anisotropy_index(mixed, 3, n_samples=10, random_state=1) != first


def test_the_modes_come_back_after_an_error(mixed):
    mixed.train()
    with pytest.raises(ValueError, match="latent_dim must be"):
        anisotropy_index(mixed, 5, n_samples=10)
    assert all(part.training for part in mixed.modules())


def test_anisotropy_names_a_wrong_latent_dimension():
    with pytest.raises(ValueError, match="latent_dim must be the size .* got 3"):
        anisotropy_index(torch.nn.Linear(2, 4), 3)


def test_anisotropy_of_a_fitted_estimator():
    W = np.diag([3.0, 1.0])
    estimator = SimpleNamespace(generator_=linear(W), latent_dim_=2)
    assert anisotropy_index(estimator, n_samples=5).value == pytest.approx(1, abs=1e-14)


def test_a_generator_that_does_not_move_has_no_ratio():
    index = anisotropy_index(linear(np.zeros((3, 2))), 2, n_samples=5)
    assert (index.value, index.stderr) == (0, 0) and math.isnan(index.ratio)


@pytest.mark.parametrize(
    "generator, latent_dim, n_samples, error, message",
    [
        (linear(np.eye(2)), None, 10, ValueError, "latent_dim must be an integer >= 1, got None"),
        (linear(np.eye(2)), 0, 10, ValueError, "latent_dim must be an integer >= 1, got 0"),
        (linear(np.eye(2)), 2, 1, ValueError, "n_samples must be an integer >= 2, got 1"),
        (linear(np.eye(2)), 2, 9.5, TypeError, "n_samples must be an integer >= 2, got 9.5"),
        (linear([[np.nan, 1.0]]), 2, 10, ValueError, "finite derivatives, got 20 of 20"),
        (np.eye(2), 2, 10, TypeError, "generator must be a torch.nn.Module .* got ndarray"),
    ],
    ids=["no size", "size 0", "one latent", "half a latent", "nan", "no module"],
)
def test_bad_generators_are_named(generator, latent_dim, n_samples, error, message):
    with pytest.raises(error, match=message):
        anisotropy_index(generator, latent_dim, n_samples=n_samples)


# -- inception score -------------------------------------------------------------------------------


def test_inception_score_of_certain_and_of_ignorant_classifiers():
    assert inception_score(np.repeat(np.eye(7), 3, axis=0)).value == pytest.approx(7, abs=1e-12)
    assert inception_score(np.tile([0.2, 0.5, 0.3], (9, 1))).value == pytest.approx(1, abs=1e-14)
    shares = np.array([0.5, 0.3, 0.2])
    uneven = np.repeat(np.eye(3), [5, 3, 2], axis=0)
    entropy = -(shares * np.log(shares)).sum()
    assert inception_score(uneven).value == pytest.approx(math.exp(entropy), abs=1e-13)


def test_inception_score_of_two_unsure_rows():
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    information = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    result = inception_score(p)
    assert result.value == pytest.approx(math.exp(information), abs=1e-14)
    assert math.isnan(result.std)


def test_inception_score_by_parts():
    p = np.concatenate([np.eye(4), np.tile(np.eye(4)[0], (4, 1))])  # scores 4 and 1
    result = inception_score(p, n_splits=2)
    assert (result.value, result.std) == pytest.approx((2.5, 1.5), abs=1e-12)
    assert inception_score(p, n_splits=8) == pytest.approx((1, 0), abs=1e-12)
    assert inception_score(p.astype(np.float16) * np.float16(0.9995), 2).value == pytest.approx(2.5)


@pytest.mark.parametrize(
    "p, n_splits, error, message",
    [
        ([[0.5, 0.4]], 1, ValueError, "sum to 1 in each row, got 0.9"),
        ([[1.5, -0.5]], 1, ValueError, "probabilities must be >= 0, got -0.5"),
        ([[np.nan, 1.0]], 1, ValueError, "probabilities contains NaN"),
        ([0.5, 0.5], 1, ValueError, "2D array"),
        (np.eye(2), 3, ValueError, "n_splits must be .*<= 2, got 3"),
        (np.eye(2), 1.0, TypeError, "n_splits must be .*got 1.0"),
    ],
)
def test_bad_probabilities_are_named(p, n_splits, error, message):
    with pytest.raises(error, match=message):
        inception_score(p, n_splits)


# -- Fréchet distance ------------------------------------------------------------------------------


def exact_sample(mean, cov, n, seed=0):
    """Rows whose mean and covariance are exactly these."""
    z = np.random.RandomState(seed).randn(n, len(mean))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    values, vectors = np.linalg.eigh(cov)
    return mean + z @ (vectors * np.sqrt(np.maximum(values, 0))).T


COV = np.array([[2.0, 0.6, 0.0], [0.6, 0.5, 0.1], [0.0, 0.1, 1.0]])
OTHER = np.array([[1.0, -0.3, 0.2], [-0.3, 3.0, 0.0], [0.2, 0.0, 0.4]])


def test_frechet_distance_of_equal_covariances_is_that_of_the_means():
    a = exact_sample(np.zeros(3), COV, 50)
    b = exact_sample(np.array([3.0, -4.0, 1.0]), COV, 80, seed=1)
    assert frechet_distance(a, b) == pytest.approx(26, abs=1e-12)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_given_gaussians():
    a = exact_sample(np.zeros(2), np.diag([4.0, 9.0]), 30)
    b = exact_sample(np.ones(2), np.diag([1.0, 25.0]), 40, seed=1)
    assert frechet_distance(a, b) == pytest.approx(2 + (2 - 1) ** 2 + (3 - 5) ** 2, abs=1e-12)
    a, b = exact_sample(np.zeros(3), COV, 30), exact_sample(np.ones(3), OTHER, 40, seed=1)
    truth = 3 + np.trace(COV + OTHER - 2 * np.real(sqrtm(COV @ OTHER)))
    assert frechet_distance(a, b) == pytest.approx(truth, abs=1e-12)
    assert frechet_distance(b, a) == pytest.approx(truth, abs=1e-12)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * truth, abs=1e-11)


def test_frechet_distance_of_singular_covariances():
    rng = np.random.RandomState(0)
    few = rng.randn(5, 40)  # covariances of rank 4 in 40 columns
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(few, few + 1) == pytest.approx(40, abs=1e-11)
    across, up = np.outer([-1.0, 0, 1], [2.0, 0]), np.outer([-1.0, 0, 1], [0, 3.0])
    assert frechet_distance(across, up) == pytest.approx(4 + 9, abs=1e-13)  # orthogonal lines
    line, longer = across, 2 * across
    assert frechet_distance(line, longer) == pytest.approx((4 - 2) ** 2, abs=1e-13)
    point = np.tile([1.0, 0.0], (4, 1))
    assert frechet_distance(line, point) == pytest.approx(1 + 4, abs=1e-13)
    assert frechet_distance(point, point) == 0


@pytest.mark.parametrize(
    "real, fake, message",
    [
        ([[0.0, 1.0]] * 2, [[0.0]] * 2, "fake must have 2 columns, got 1"),
        ([[0.0, 1.0]], [[0.0, 1.0]] * 2, "1 sample.* minimum of 2"),
        ([[0.0, np.inf]] * 2, [[0.0, 1.0]] * 2, "real contains infinity"),
    ],
)
def test_bad_features_are_named(real, fake, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, fake)
