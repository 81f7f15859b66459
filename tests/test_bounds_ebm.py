"""BoundsEBM: bounds against closed forms, folds and lost rank said, the estimator around them."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from skebm import BoundsEBM
from skebm.bases import Defensive
from skebm.datasets import GaussianMixtureDensity, two_moons
from skebm.energies import MLP, Conv, Zero
from skebm.estimators import _bounds as report
from skebm.estimators import bounds
from skebm.exceptions import DataDegeneracyWarning, GeneratorWarning
from skebm.networks import ConvGenerator, GeneratorComponent, GeneratorNetwork, MLPGenerator
from skebm.objectives import BidirectionalBounds, Optimization
from skebm.partition import ImportanceSampling
from tests import cases
from tests.closed_forms import (
    Quadratic,
    assert_estimate,
    assert_mean,
    assert_variance,
    gaussian_kl,
    gaussian_log_z,
    grid,
)

# -- bounds of a known generator on a known energy -------------------------------------------------

N_LATENTS = 4096


@pytest.fixture(scope="module", autouse=True)
def fewer_latents():
    """Fewer latents behind a report, a smaller proposal: the file fits a hundred models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "N_LATENTS", N_LATENTS)
        patch.setattr(report, "N_CENTERS", 2048)
        patch.setattr(report, "N_ITERATED", 256)
        patch.setattr(bounds, "Defensive", partial(Defensive, max_components=4))
        yield


MATRIX, OFFSET = ((0.9, 0.4), (-0.2, 1.1)), (0.3, -0.5)
EYE, NOWHERE = ((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0)


class Given(GeneratorComponent):
    """The linear generator W z + b, of z or of (|z1|, z2, ...)."""

    def __init__(self, matrix=MATRIX, offset=OFFSET, folds=False):
        self.matrix = matrix
        self.offset = offset
        self.folds = folds

    def build(self, latent_dim, shape, rng):
        return GivenMap(torch.tensor(self.matrix), torch.tensor(self.offset), self.folds)


class GivenMap(torch.nn.Module):
    def __init__(self, matrix, offset, folds):
        super().__init__()
        self.matrix, self.offset = torch.nn.Parameter(matrix), torch.nn.Parameter(offset)
        self.folds = folds

    def forward(self, z):
        if self.folds:
            z = torch.cat([z[:, :1].abs(), z[:, 1:]], 1)
        return z @ self.matrix.T + self.offset


STILL = {
    "base": None,
    "standardize": False,
    "refine": False,
    "n_restarts": 1,
    "max_iter": 1,
    "learning_rate": 1e-20,
    "generator_learning_rate": 1e-20,
    "validation_fraction": 0,
    "log_partition": None,
    "random_state": 0,
}
X_STILL = np.random.RandomState(0).randn(500, 2)


def given(k=1.0, mean=0.0, **params):
    """Fitted without a move: the model is N(mean, I / k), the generator's density N(b, W W')."""
    params = {
        "generator": Given(),
        "energy": lambda d: Quadratic(k, torch.tensor(mean)),
        **STILL,
        **params,
    }
    return BoundsEBM(**params).fit(X_STILL)


def potential(k, mean=0.0, X=X_STILL):
    return 0.5 * k * np.square(X - mean).sum(1)


def truth(k, mean=0.0, X=X_STILL):
    """Mean negative log likelihood of the rows under N(mean, I / k)."""
    return float(potential(k, mean, X).mean()) + gaussian_log_z(X.shape[1], k)


def latent_error(bound, at_rows):
    """What of a bound's standard error is the latents'; that of the rows is in the truth too."""
    return math.sqrt(bound.stderr**2 - at_rows.var(ddof=1) / len(at_rows))


@pytest.mark.parametrize(("k", "mean"), [(1.0, 0.0), (0.4, 0.7), (2.5, -0.3)])
def test_the_lower_bound_is_short_by_the_divergence(k, mean):
    est, W = given(k, mean), np.array(MATRIX)
    gap = gaussian_kl(OFFSET, W @ W.T, [mean, mean], np.eye(2) / k)
    got = est.lower_bound_
    error = latent_error(got, potential(k, mean))
    assert_estimate(got.value, error, truth(k, mean) - gap, 0.04)
    assert gap > 0.1 and got.ess == N_LATENTS and est.fold_fraction_ == 0


@pytest.mark.parametrize(("k", "mean"), [(1.0, 0.0), (0.9, 0.2)])
def test_cubo_is_above_by_half_the_divergence_of_order_two(k, mean):
    W = np.array(((1.2, 0.3), (-0.2, 1.4)))  # wider than the model, or there is no second moment
    est = given(k, mean, generator=Given(tuple(map(tuple, W.tolist())), OFFSET))
    cells, volume = (t.numpy() if torch.is_tensor(t) else t for t in grid(-9, 9, 500, 2))
    log_p = stats.multivariate_normal([mean, mean], np.eye(2) / k).logpdf(cells)
    log_q = stats.multivariate_normal(OFFSET, W @ W.T).logpdf(cells)
    above = 0.5 * math.log(np.exp(2 * log_p - log_q).sum() * volume)
    got = est.cubo_
    error = latent_error(got, potential(k, mean))
    assert_estimate(got.value, error, truth(k, mean) + above, 0.04)
    assert above > 0.1 and 300 < got.ess < N_LATENTS


@pytest.mark.parametrize("probe", ["gaussian", "sphere"])
def test_the_surrogate_adds_what_of_the_penalty_is_above_the_margin(probe):
    """r = (k W'W - I) z + k W'(b - m), a Gaussian vector: mean |r|^2 in closed form."""
    k, weight, W = 0.8, 0.7, np.array(MATRIX)
    slope, shift = k * W.T @ W - np.eye(2), k * W.T @ np.array(OFFSET)
    z, v = np.random.RandomState(0).randn(2, N_LATENTS, 2)
    terms = ((z @ slope.T + shift) * v).sum(1) ** 2
    share = 1 if probe == "gaussian" else 2  # mean (r.v)^2 / |v|^2 is |r|^2 / d
    mean = (np.square(slope).sum() + np.square(shift).sum()) / share
    error = weight * terms.std() / N_LATENTS**0.5 / share
    settings = {"probe": probe, "penalty_weight": weight}
    for margin, added in ((0.0, weight * mean), (0.05, weight * mean - 0.05), (9.0, 0.0)):
        est = given(k, margin=margin, **settings)
        gap = est.upper_surrogate_.value - est.lower_bound_.value
        assert_estimate(gap, error if added else 0.0, added, 0.05)


def test_all_bounds_of_a_matching_generator_are_the_truth():
    """The paper's case of equality: no penalty, no gap, and no error from the latents."""
    turn = ((0.5, -0.5 * math.sqrt(3)), (0.5 * math.sqrt(3), 0.5))
    for entropy in ("logdet", "singular-value"):
        est = given(1.0, 0.0, generator=Given(turn, NOWHERE), entropy=entropy)
        for bound in (est.lower_bound_, est.upper_surrogate_, est.cubo_):
            assert bound.value == pytest.approx(truth(1.0), abs=1e-5)
            assert bound.stderr == pytest.approx(potential(1.0).std(ddof=1) / 500**0.5, abs=0.004)


def test_bounds_of_other_rows():
    est, W = given(0.9, 0.2), np.array(MATRIX)
    X = np.random.RandomState(1).randn(300, 2) + 0.5
    got, exact = est.bounds(X, random_state=0), truth(0.9, 0.2, X)
    gap = gaussian_kl(OFFSET, W @ W.T, [0.2, 0.2], np.eye(2) / 0.9)
    error = latent_error(got.lower_bound, potential(0.9, 0.2, X))
    assert_estimate(got.lower_bound.value, error, exact - gap, 0.04)
    error = latent_error(got.ais, potential(0.9, 0.2, X))
    assert_estimate(got.ais.value, error, exact, 0.05)
    assert got.upper_surrogate.value > got.lower_bound.value and got.ais.ess > 30
    assert got == est.bounds(X, random_state=0) != est.bounds(X, random_state=1)


def test_a_fold_is_measured_and_voids_the_lower_bound():
    """With (|z1|, z2) and mean (1, 1) of the model the change of variables goes too high."""
    with pytest.warns(GeneratorWarning, match=r"folds: at a share of 0\.(49|5)\d* .* fold_penalty"):
        est = given(1.0, 1.0, generator=Given(EYE, NOWHERE, folds=True))
    assert 0.48 < est.fold_fraction_ <= 0.5
    error = latent_error(est.lower_bound_, potential(1.0, 1.0))
    excess = math.sqrt(2 / math.pi) - 1  # E[|z1| + z2] less half of |mean|^2
    assert_estimate(est.lower_bound_.value, error, truth(1.0, 1.0) + excess, 0.04)
    with pytest.warns(GeneratorWarning, match="folds"):
        est = given(1.0, (1.0, 0.0), generator=Given(EYE, NOWHERE, folds=True))
    assert est.lower_bound_.value > truth(1.0, (1.0, 0.0)) + 0.2  # sqrt(2 / pi) - 1/2


def test_a_generator_without_rank_is_said_to_be_so():
    flat = ((1.0, 0.0), (1.0, 0.0))
    with pytest.warns(GeneratorWarning, match="degenerate: at a share of 1 .* CUBO does"):
        est = given(generator=Given(flat, OFFSET))
    assert math.isnan(est.cubo_.value) and est.cubo_.ess == 0
    volume = math.log(1e-6) + 0.5 * math.log(2)  # of singular values sqrt 2 and 0
    assert math.isfinite(est.lower_bound_.value)
    assert est.lower_bound_.value < truth(1.0) + volume + 5
    assert np.isfinite(est.score_samples(X_STILL)).all()


@pytest.mark.filterwarnings("ignore:the generator folds")
def test_training_with_a_generator_without_rank_has_no_nan():
    """One hidden unit: a curve in the plane, whatever it learns."""
    with pytest.warns(GeneratorWarning, match="degenerate"):
        est = tiny(generator=MLPGenerator((1,)), max_iter=30, refine_iter=30).fit(table())
    for read in (est.score_samples, est.score_function, est.energy_samples):
        assert np.isfinite(read(table())).all()
    assert np.isfinite(est.sample(20)).all()
    assert np.isfinite(est.sample(20, method="generator")).all()
    assert all(math.isfinite(value) for row in est.history_ for value in row.values())


LINE_MAP = Given(((0.9,), (-0.5,)), OFFSET)


def test_a_surface_has_no_bounds():
    with pytest.warns(GeneratorWarning, match="latent_dim=1 is below the 2 columns"):
        est = given(generator=LINE_MAP, latent_dim=1)
    for bound in (est.lower_bound_, est.upper_surrogate_, est.cubo_):
        assert math.isnan(bound.value) and math.isnan(bound.stderr) and bound.ess == 0
    assert math.isnan(est.fold_fraction_) and est.latent_dim_ == 1
    assert est.sample(3, method="generator").shape == (3, 2)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_noise_gives_a_surface_its_lower_bound(noise):
    """N(b, w w' + s^2 I) against N(0, I); fresh latents cost a little more than the divergence."""
    with pytest.warns(GeneratorWarning, match="latent_dim=1"):
        est = given(generator=LINE_MAP, latent_dim=1, observation_noise=noise)
    w = np.array(LINE_MAP.matrix)
    gap = gaussian_kl(OFFSET, w @ w.T + noise**2 * np.eye(2), [0.0, 0.0], np.eye(2))
    error = latent_error(est.lower_bound_, potential(1.0))
    short = truth(1.0) - gap - est.lower_bound_.value
    assert error < 0.05 and -4 * error < short < 4 * error + 0.02
    assert math.isnan(est.cubo_.value) and math.isnan(est.upper_surrogate_.value)
    rows = est.sample(8000, random_state=0, method="generator")
    assert_variance(rows[:, 0], 0.9**2 + noise**2, 0.02)


@pytest.mark.parametrize("bound", ["zero-centered-gp", "wgan-gp", "wgan-0gp"])
def test_other_penalties_have_no_surrogate(bound):
    est = given(bound=bound)
    assert math.isnan(est.upper_surrogate_.value) and math.isfinite(est.lower_bound_.value)


def test_noise_of_the_posterior_method_is_on_generated_rows():
    params = {"bound": "zero-centered-gp", "entropy": "variational", "observation_noise": 0.8}
    est = given(generator=Given(EYE, NOWHERE), **params)
    assert_variance(est.sample(8000, 0, method="generator")[:, 0], 1 + 0.8**2, 0.02)


@pytest.mark.parametrize("folds", [False, True])
def test_the_jacobian_is_formed_above_64_latents_too(folds):
    X = np.random.RandomState(0).randn(60, 66)
    scales = np.linspace(0.9, 1.2, 66)
    component = Given(tuple(map(tuple, np.diag(scales).tolist())), (0.0,) * 66, folds)
    still = STILL | {"generator": component, "energy": Quadratic66}
    if folds:
        with pytest.warns(GeneratorWarning, match="folds: at a share of 0.4|folds: .* 0.5"):
            est = BoundsEBM(**still).fit(X)
        assert 0.4 < est.fold_fraction_ <= 0.5
        return
    est = BoundsEBM(**still).fit(X)
    below = 0.5 * (np.square(scales) - 1 - 2 * np.log(scales)).sum()
    error = latent_error(est.lower_bound_, potential(1.0, X=X))
    assert_estimate(est.lower_bound_.value, error, truth(1.0, X=X) - below, 0.05)
    assert est.fold_fraction_ == 0 and est.cubo_.value > truth(1.0, X=X) > est.lower_bound_.value
    assert est.lower_bound_.ess == report.N_COLUMNS // 66  # a report has its price


def test_beyond_the_dense_latents_the_bound_is_iterated_and_there_is_no_cubo(monkeypatch):
    """d log s_1 is no more than the log determinant: its density is too high, its weights low."""
    monkeypatch.setattr(report, "MOST_DENSE", 64)
    X = np.random.RandomState(0).randn(60, 66)
    scales = np.linspace(0.5, 2.0, 66)
    component = Given(tuple(map(tuple, np.diag(scales).tolist())), (0.0,) * 66)
    still = STILL | {"generator": component, "energy": Quadratic66, "n_lobpcg": 20}
    est = BoundsEBM(**still).fit(X)
    assert math.isnan(est.cubo_.value) and math.isnan(est.fold_fraction_)
    below = 0.5 * (np.square(scales) - 1).sum() - 66 * math.log(0.5)  # s_1 stands for every one
    error = latent_error(est.lower_bound_, potential(1.0, X=X))
    got = est.lower_bound_.value
    assert got < truth(1.0, X=X) and error < 2
    assert abs(got - (truth(1.0, X=X) - below)) < 4 * error + 66 * 0.05


SORTED = np.concatenate([0.1 * X_STILL, 3 * X_STILL])


def test_the_rows_behind_the_bounds_are_no_corner_of_the_table(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_ROWS", 300)
    est = BoundsEBM(**STILL, generator=Given(EYE, NOWHERE), energy=Quadratic2).fit(SORTED)
    got = est.lower_bound_
    assert_estimate(got.value, got.stderr, truth(1.0, X=SORTED), 0.5)
    assert truth(1.0, X=SORTED[:300]) < got.value - 3  # what the first rows would say


def test_the_rows_behind_the_bounds_have_the_weights_of_the_fit():
    weight = np.repeat([9.0, 1.0], len(X_STILL))
    est = BoundsEBM(**STILL, generator=Given(EYE, NOWHERE), energy=Quadratic2)
    got = est.fit(SORTED, sample_weight=weight).lower_bound_
    mean = np.average(potential(1.0, X=SORTED), weights=weight)
    assert_estimate(got.value, got.stderr, mean + gaussian_log_z(2, 1.0), 0.5)
    assert truth(1.0, X=SORTED) > got.value + 1  # without weights


@pytest.mark.parametrize("validation_fraction", [0, 0.5])
def test_the_noise_of_training_is_not_in_the_bounds(validation_fraction):
    """They compare with the negative log likelihood of rows, as `score` reads them."""
    params = STILL | {"validation_fraction": validation_fraction, "data_noise": 2.0}
    est = BoundsEBM(**params, generator=Given(EYE, NOWHERE), energy=Quadratic2).fit(X_STILL)
    got = est.lower_bound_
    assert_estimate(got.value, got.stderr, truth(1.0), 0.08)  # noise would add 4


def Quadratic2(n_features):
    return Quadratic()


def Quadratic66(n_features):
    return Quadratic()


# -- the estimator ---------------------------------------------------------------------------------

PLAIN = MLPGenerator((12, 12), input_scale=1.0, linear_skip=True)  # starts without folds


def tiny(**params):
    defaults = {
        "generator": PLAIN,
        "max_iter": 6,
        "refine_iter": 6,
        "n_restarts": 1,
        "eval_every": 2,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=2048, max_samples=2048),
    }
    return cases.tiny("BoundsEBM", **{**defaults, **params})


STRETCH = np.array([1.0, 50.0])
MODES = GaussianMixtureDensity([[-1.5, 0.0], [1.5, 1.0]], [0.8, 0.6], [0.7, 0.3])


def table(n=200, seed=0):
    """Two modes in columns of unlike units."""
    return MODES.sample(n, random_state=seed) * STRETCH + [0.0, 1e3]


def assert_same(a, b, X=None):
    X = table(40, seed=1) if X is None else X
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    np.testing.assert_array_equal(a.score_function(X), b.score_function(X))
    for method in ("mala", "generator"):
        draws = (est.sample(9, random_state=3, method=method) for est in (a, b))
        np.testing.assert_array_equal(*draws)
    for name in ("lower_bound_", "upper_surrogate_", "cubo_", "fold_fraction_"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.log_partition_ == b.log_partition_ and a.offset_ == b.offset_


def mass_of(est, X, n=300):
    """Total mass on a grid around the rows, and each column's mean."""
    reach = 4 * X.std(0)
    axes = [np.linspace(m - r, m + r, n) for m, r in zip(X.mean(0), reach, strict=True)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, X.shape[1])
    p = np.exp(est.score_samples(cells)) * np.prod([a[1] - a[0] for a in axes])
    return p.sum(), cells, p


TRAINED = {
    "generator": MLPGenerator((32, 32), input_scale=1.0, linear_skip=True),  # never folds here
    "energy": MLP((24, 24)),
    "max_iter": 120,
    "refine_iter": 80,
    "batch_size": 128,
    "eval_every": 25,
    "log_partition": "auto",
    "n_restarts": 2,
}
TABLES = {
    "gaussian": np.random.RandomState(0).randn(800, 2) @ [[2.0, 0.5], [0.0, 0.3]] + [3.0, -1.0],
    "moons": two_moons().sample(800, random_state=0),
}


@pytest.fixture(scope="module", params=TABLES)
def trained(request):
    X = TABLES[request.param]
    return X, tiny(**TRAINED).fit(X)


def test_bounds_hold_around_the_likelihood_of_a_trained_model(trained):
    X, est = trained
    assert_sandwich(est, X)


@pytest.mark.parametrize("seed", [1, 2])
def test_bounds_hold_for_other_seeds(seed):
    X = TABLES["moons"]
    assert_sandwich(tiny(**TRAINED | {"refine": seed > 1, "random_state": seed}).fit(X), X)


def assert_sandwich(est, X):
    """Against the grid's log Z, on the same rows: the error is that of the latents alone."""
    mass = mass_of(est, X)[0]
    exact = math.log(mass) - est.score(X)
    lower, cubo, scores = est.lower_bound_, est.cubo_, est.score_samples(X)
    assert mass == pytest.approx(1, abs=0.01)
    assert est.fold_fraction_ == 0 and cubo.ess > 200
    assert exact - 1.5 < lower.value <= exact + 3 * latent_error(lower, scores)
    assert cubo.value >= exact - 3 * latent_error(cubo, scores)


def test_draws_of_every_method(trained):
    X, est = trained
    auto = est.sample(2000, random_state=0)
    np.testing.assert_array_equal(auto, est.sample(2000, random_state=0, method="mala"))
    total, cells, p = mass_of(est, X)
    for j in range(2):
        mean = float(p @ cells[:, j] / total)
        assert_mean(auto[:, j], mean, 0.1)
        assert_variance(auto[:, j], float(p @ (cells[:, j] - mean) ** 2 / total), 0.06)
    made = est.sample(2000, random_state=0, method="generator")
    assert made.shape == (2000, 2) and (made != auto).any()
    assert np.abs(made.mean(0) - X.mean(0)).max() < 0.5 * X.std(0).max()  # in the units of X
    np.testing.assert_array_equal(made, est.sample(2000, random_state=0, method="generator"))


def test_generated_rows_are_the_generator_s_in_the_units_of_x():
    est = tiny().fit(table())
    network = est.generator_
    assert isinstance(network, GeneratorNetwork) and not network.training
    assert not any(p.requires_grad for p in network.parameters()) and est.latent_dim_ == 2
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    rows = network(z).numpy() * table().std(0) + table().mean(0)
    made = est.sample(4000, random_state=1, method="generator")
    for j in range(2):
        assert stats.ks_2samp(rows[:, j], made[:, j]).pvalue > 1e-4


@pytest.mark.parametrize("method", ["gibbs", None, 3])
def test_sample_names_an_unknown_method(method):
    error = ValueError if isinstance(method, str) else TypeError
    with pytest.raises(error, match=f"method must be one of .*got {method!r}"):
        tiny().fit(table()).sample(3, method=method)


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the generator folds")
def test_the_push_acts_where_the_generator_folds():
    """Rarer orientations are pushed through zero, and earn no entropy for their size."""
    params = {"generator": Given(EYE, NOWHERE, folds=True), "generator_learning_rate": 0.02}
    sizes = []
    for fold_penalty in (0.0, 10.0):
        est = tiny(**params, fold_penalty=fold_penalty, max_iter=20).fit(table())
        assert np.mean([row["fold"] for row in est.history_ if "fold" in row]) > 0.3
        sizes.append(abs(np.linalg.det(est.generator_.matrix.numpy())))
    assert sizes[1] < sizes[0] - 0.2


def count_trainings(monkeypatch):
    seen, init = [], BidirectionalBounds.init

    def counted(self, *args):
        seen.append(init(self, *args))
        return seen[-1]

    monkeypatch.setattr(BidirectionalBounds, "init", counted)
    return seen


@pytest.mark.parametrize(
    ("folds", "gains", "n_restarts", "kept"),
    [
        ([0.0], [], 3, 0),
        ([0.4, 0.09], [2.0], 3, 1),
        ([0.4, 0.3, 0.2], [1.0, 3.0, 2.0], 3, 1),
        ([0.4, 0.3], [1.0, -math.inf], 2, 0),
        ([0.4], [1.0], 1, 0),
    ],
)
def test_it_trains_again_only_while_it_folds_and_keeps_the_best(
    folds, gains, n_restarts, kept, monkeypatch
):
    seen, folds, gains = count_trainings(monkeypatch), iter(folds), iter(gains)
    monkeypatch.setattr(bounds, "_fold_fraction", lambda *args: next(folds))
    monkeypatch.setattr(bounds, "_held_out_gain", lambda *args: next(gains))
    est = tiny(n_restarts=n_restarts).fit(table())
    assert next(folds, None) is None and next(gains, None) is None
    chosen = seen[kept].modules["generator"].state_dict()
    assert all(value.equal(chosen[name]) for name, value in est.generator_.state_dict().items())
    others = [s.modules["generator"].state_dict() for i, s in enumerate(seen) if i != kept]
    for other in others:
        assert any(not value.equal(chosen[name]) for name, value in other.items())


@pytest.mark.parametrize(("folded", "n"), [(False, 1), (True, 2)])
def test_folds_are_found_by_the_determinant(folded, n, monkeypatch):
    seen = count_trainings(monkeypatch)
    est = tiny(generator=Given(EYE, NOWHERE, folded), n_restarts=2)
    if folded:
        with pytest.warns(GeneratorWarning, match="folds"):
            est.fit(table())
    else:
        est.fit(table())
    assert len(seen) == n


def test_refinement_does_not_harm():
    X, new = (two_moons().sample(n, random_state=s) for n, s in ((500, 0), (2000, 1)))
    params = TRAINED | {"validation_fraction": 0.1, "n_restarts": 1}
    with_it, without = (tiny(**params | {"refine": r}).fit(X).score(new) for r in (True, False))
    assert with_it > without + 0.1
    assert with_it < two_moons().log_density(new).mean() + 0.05


def test_an_energy_that_earns_nothing_is_dropped_and_the_bounds_are_of_the_base():
    X = np.random.RandomState(0).randn(300, 2)
    est = tiny(refine=False, validation_fraction=0.3, learning_rate=1e-12).fit(X)
    assert isinstance(est.energy_, Zero) and est.validation_gain_ == (0.0, 0.0)
    assert est.log_partition_.method == "exact" and est._proposal is est.base_
    held_out = -est.score(X)
    assert est.lower_bound_.value <= held_out + 3 * est.lower_bound_.stderr
    assert np.isfinite(est.sample(5, method="generator")).all()


# -- the paper's settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "betas", "batch_size", "latent_dim", "generator", "max_iter"),
    [
        ("toy", 2e-4, (0.0, 0.9), 200, None, MLPGenerator.toy(), 150_000),
        ("mnist", 2e-4, (0.0, 0.9), 64, 128, MLPGenerator.mnist(), 1000),
        ("cifar10", 5e-5, (0.0, 0.999), 64, 128, "conv", 200_000),
        ("animeface", 5e-5, (0.0, 0.999), 64, 128, "residual", 100_000),
    ],
)
def test_the_paper_s_settings_are_those_of_its_table_11(
    name, rate, betas, batch_size, latent_dim, generator, max_iter
):
    est = BoundsEBM.from_paper(name)
    game = est._game(est._optimization())
    for optimization in (game.optimization, game.generator_optimization):
        assert optimization.learning_rate == rate and optimization.betas == betas
        assert optimization.schedule == "constant" and optimization.weight_decay == 0
    assert est.batch_size == batch_size and est.latent_dim == latent_dim
    assert est.generator == generator and est.max_iter == max_iter
    assert (est.margin, est.entropy, est.bound) == (1.0, "singular-value", "bidirectional")
    assert est.base is None and est.refine is False and est.fold_penalty == 0
    assert game.weight(2) == 0.001 / 2 and est.n_lobpcg == 2


def test_the_paper_s_settings_fit():
    log_partition = ImportanceSampling(n_samples=2048, max_samples=2048)
    params = {"max_iter": 20, "batch_size": 50, "log_partition": log_partition}
    est = BoundsEBM.from_paper("toy", **params, random_state=0)
    with pytest.warns(UserWarning):  # an untrained generator folds, and an energy without a base
        est.fit(TABLES["moons"])
    assert est.n_iter_ == 20 and est.base_ is None
    assert len(est.history_[-1]) > 5 and np.isfinite(est.score_samples(TABLES["moons"])).all()


def test_the_paper_s_settings_are_not_shared():
    est = BoundsEBM.from_paper("toy")
    est.set_params(energy__hidden_sizes=(8,), generator__hidden_sizes=(3,))
    est.set_params(optimizer__learning_rate=1.0)
    other = BoundsEBM.from_paper("toy")
    assert other.energy.hidden_sizes == other.generator.hidden_sizes == (100, 100)
    assert other.optimizer.learning_rate == 2e-4


def test_changes_win_over_the_paper_s_settings():
    numbers = {"learning_rate": 0.5, "betas": (0.5, 0.9), "weight_decay": 0.3}
    est = BoundsEBM.from_paper("toy", **numbers)
    expected = Optimization(0.5, (0.5, 0.9), 0.3, schedule="constant")
    assert est.optimizer == expected and est.generator_learning_rate == 2e-4
    assert BoundsEBM.from_paper("toy", optimizer="sgd", betas=(0.5, 0.9)).optimizer == "sgd"
    est = BoundsEBM.from_paper("mnist", latent_dim=5, margin=0.1, base="gaussian")
    assert (est.latent_dim, est.margin, est.base) == (5, 0.1, "gaussian")
    with pytest.raises(ValueError, match="name must be one of .*'toy'.*got 'imagenet'"):
        BoundsEBM.from_paper("imagenet")


@pytest.mark.parametrize("params", [{"latent_dim": 1.7}, {"latent_dim": "a"}])
def test_latents_of_images_are_checked(params):
    error = TypeError if params["latent_dim"] == "a" else (ValueError, TypeError)
    with pytest.raises(error, match="latent_dim must be an integer >= 1, got"):
        tiny(**SMALL, **params).fit(IMAGES)


def test_a_batch_of_one_has_no_statistics():
    generator = MLPGenerator((6,), batch_norm=True)
    with pytest.raises(ValueError, match="batch_size must be >= 2 .* got 1"):
        tiny(generator=generator, batch_size=1).fit(table())
    tiny(batch_size=1).fit(table())


@pytest.mark.parametrize("betas", [("a", "b"), (0.1,), (0.5, 1.0), 3])
def test_the_generator_s_betas_are_named(betas):
    with pytest.raises((ValueError, TypeError), match="generator_betas must be two numbers"):
        tiny(generator_betas=betas).fit(table())
    tiny(generator_betas=(0, np.float32(0.5))).fit(table())


@pytest.mark.parametrize("entropy", ["singular-value", "logdet"])
def test_the_remedy_against_folds_has_an_effect(entropy):
    with pytest.warns(GeneratorWarning, match="folds") as caught:
        given(generator=Given(EYE, NOWHERE, folds=True), entropy=entropy)
    assert ("fold_penalty" in str(caught[0].message)) == (entropy == "logdet")


def test_the_refinement_has_its_own_length():
    est = tiny(max_iter=1, refine_iter=9).fit(table())
    assert est.n_iter_ == 1 and est.history_[-1]["iteration"] == 10


# -- what was fitted stays -------------------------------------------------------------------------


def test_draws_of_the_generator_have_no_effective_size():
    est = tiny().fit(table())
    est.sample(5)
    assert est.sample_info_.n_candidates > 0
    est.sample(5, method="generator")
    assert est.sample_info_.n_candidates == 0 and math.isnan(est.sample_info_.ess)


def test_bounds_of_a_folded_generator_are_said_to_be_void():
    with pytest.warns(GeneratorWarning, match="folds"):
        est = given(generator=Given(EYE, NOWHERE, folds=True))
    with pytest.warns(GeneratorWarning, match="folds"):
        est.bounds(X_STILL)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generator", MLPGenerator((3,))),
        ("latent_dim", 1),
        ("entropy", "singular-value"),
    ],
)
def test_a_warm_start_takes_no_other_networks(name, value):
    est = tiny(warm_start=True).fit(table())
    with pytest.raises(ValueError, match=f"{name} must be that of the last fit with warm_start"):
        est.set_params(**{name: value}).fit(table())
    est.set_params(**{name: getattr(tiny(), name)}, learning_rate=1e-4).fit(table())
    assert est.n_iter_ == 12


# -- the same bits ---------------------------------------------------------------------------------


def test_a_generator_from_outside_is_not_saved_but_pickled(tmp_path):
    est = tiny(generator=Given(EYE, NOWHERE)).fit(table())
    with pytest.raises(TypeError, match="Given is not part of skebm"):
        est.save(tmp_path / "model")
    assert_same(est, pickle.loads(pickle.dumps(est)))


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", [True, False])
def test_a_warm_start_goes_on_with_its_generator(refine, monkeypatch):
    X = table()
    est = tiny(refine=refine, warm_start=True).fit(X)
    twin, first = pickle.loads(pickle.dumps(est)), est.generator_.state_dict()
    with monkeypatch.context() as patch:
        seen = count_trainings(patch)
        assert_same(est.fit(X), twin.fit(X))
        assert not seen and est.n_iter_ == 12
    moved = est.generator_.state_dict()
    assert any(not value.equal(first[name]) for name, value in moved.items())
    est.set_params(max_iter=1, refine_iter=1)
    for state in est._train_states:
        for optimizer in state.objective.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = 1e-30
    after = est.fit(X).generator_.state_dict()
    for name, value in moved.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


# -- tables of every kind --------------------------------------------------------------------------


def test_one_column():
    X = np.random.RandomState(0).randn(400, 1) * 3 + 5
    est = tiny(log_partition="auto", max_iter=100, eval_every=25).fit(X)
    exact = -est.score(X)
    error = latent_error(est.lower_bound_, est.score_samples(X))
    if est.fold_fraction_ == 0:
        assert exact - 3 < est.lower_bound_.value <= exact + 3 * error
    assert est.latent_dim_ == 1 and est.sample(4, method="generator").shape == (4, 1)


@pytest.mark.parametrize("base", ["gaussian", None])
@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
def test_forty_columns(base):
    X = np.random.RandomState(0).randn(150, 40)
    generator = MLPGenerator((48,))
    energy = MLP((8,), n_frequencies=0, output="quadratic")
    est = tiny(base=base, generator=generator, energy=energy, max_iter=2).fit(X)
    assert np.isfinite(est.score_samples(X)).all() and math.isfinite(est.lower_bound_.value)
    refined = est.history_[-1]["iteration"] > est.n_iter_
    assert refined == (base is not None)
    draws = est.sample(5, random_state=0)
    made = est.sample(5, random_state=0, method="generator")
    assert draws.shape == (5, 40) and (draws == made).all() == (base is None)
    if base is None:
        with pytest.raises(ValueError, match="without a base above 32 columns, got 'mala'"):
            est.sample(5, method="mala")


IMAGES = np.random.RandomState(0).rand(60, 64)
SMALL = {
    "image_shape": (1, 8, 8),
    "generator": ConvGenerator((4, 3)),
    "energy": Conv((3, 4), kernel_sizes=(3, 3), strides=(2, 2)),
    "max_iter": 3,
    "batch_size": 8,
    "log_partition": "auto",
}


@pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning")
@pytest.mark.parametrize("base", ["gaussian", None])
def test_images(base, tmp_path):
    est = tiny(**SMALL, base=base, latent_dim=5).fit(IMAGES)
    made = est.sample(4, random_state=0)
    np.testing.assert_array_equal(made, est.sample(4, random_state=0, method="generator"))
    assert made.shape == (4, 64) and est.log_partition_ is None
    assert made.min() >= IMAGES.min() - 1e-6 and made.max() <= IMAGES.max() + 1e-6
    assert est.history_[-1]["iteration"] == est.n_iter_ == 3  # not refined
    assert est.generator_(torch.zeros(2, 5)).shape == (2, 64)
    est.save(tmp_path / "model")
    back = BoundsEBM.load(tmp_path / "model")
    np.testing.assert_array_equal(made, back.sample(4, random_state=0))
    np.testing.assert_array_equal(est.score_samples(IMAGES), back.score_samples(IMAGES))


@pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning")
def test_images_whose_energy_is_dropped_leave_a_normalized_base():
    dropped = {"validation_fraction": 0.5, "learning_rate": 1e-12}
    est = tiny(**SMALL | {"base": "gaussian", "latent_dim": 5} | dropped).fit(IMAGES)
    assert isinstance(est.energy_, Zero) and est.log_partition_.value == 0
    assert math.isfinite(est.score(IMAGES))  # without a warning


@pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning")
def test_images_have_at_most_128_latents():
    X = np.random.RandomState(0).rand(30, 144)
    est = tiny(**SMALL | {"image_shape": (1, 12, 12), "energy": "mlp", "max_iter": 1}).fit(X)
    assert est.latent_dim_ == 128 and est.sample(2).shape == (2, 144)


@pytest.mark.parametrize("kind", ["constant", "copied", "whole numbers"])
def test_degenerate_tables(kind):
    X = table()
    if kind == "constant":
        X[:, 1] = 3.0
    elif kind == "copied":
        X[:, 1] = 2 * X[:, 0]
    else:
        X = np.round(X / STRETCH) * STRETCH
    with pytest.warns(DataDegeneracyWarning):
        est = tiny().fit(X)
    assert np.isfinite(est.score_samples(X)).all() and np.isfinite(est.sample(5)).all()
    assert math.isfinite(est.lower_bound_.value) and est.data_noise_.max() > 0
