"""BoundsEBM: bounds against closed forms, folds and lost rank said, the estimator around them."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from skebm import BoundsEBM
from skebm.bases import Defensive
from skebm.datasets import GaussianMixtureDensity, two_moons
from skebm.energies import MLP, Conv, Zero
from skebm.estimators import bounds
from skebm.exceptions import GeneratorWarning
from skebm.fitted import bounds as report
from skebm.networks import (
    ConvGenerator,
    GeneratorComponent,
    GeneratorNetwork,
    MLPGenerator,
    ResidualGenerator,
)
from skebm.objectives import BidirectionalBounds, GeneratorEntropy
from skebm.partition import AIS, ImportanceSampling
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
from tests.contracts.test_copies import assert_same

pytestmark = [pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")]

# -- bounds of a known generator on a known energy -------------------------------------------------

N_LATENTS = 4096


@pytest.fixture(scope="module", autouse=True)
def fewer_latents():
    """Fewer latents and chains behind bounds, a smaller proposal: the file fits many models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "N_LATENTS", N_LATENTS)
        patch.setattr(report, "N_CENTERS", 2048)
        patch.setattr(report, "N_ITERATED", 256)
        patch.setattr(bounds, "Defensive", partial(Defensive, max_components=4))
        patch.setattr(bounds, "AIS", partial(AIS, 256))
        yield


MATRIX, OFFSET = ((0.9, 0.4), (-0.2, 1.1)), (0.3, -0.5)
EYE, NOWHERE = ((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0)


class Given(GeneratorComponent):
    """The linear generator W z + b, of z or, with a bend at 0, of (|z1|, z2, ...)."""

    def __init__(
        self,
        matrix=MATRIX,
        offset=OFFSET,
        bend=-math.inf,
        latent_dim=None,
        observation_noise="auto",
        learning_rate=1e-20,
    ):
        self.matrix = matrix
        self.offset = offset
        self.bend = bend
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.learning_rate = learning_rate

    def build(self, latent_dim, shape, rng):
        return GivenMap(torch.tensor(self.matrix), torch.tensor(self.offset), self.bend)


class GivenMap(torch.nn.Module):
    def __init__(self, matrix, offset, bend):
        super().__init__()
        self.matrix, self.offset = torch.nn.Parameter(matrix), torch.nn.Parameter(offset)
        self.register_buffer("bend", torch.tensor(float(bend)))

    def forward(self, z):
        first = torch.where(z[:, :1] < self.bend, 2 * self.bend - z[:, :1], z[:, :1])
        return torch.cat([first, z[:, 1:]], 1) @ self.matrix.T + self.offset


FOLDED = Given(EYE, NOWHERE, bend=0.0)
STILL = {
    "generator": Given(),
    "base": None,
    "standardize": False,
    "refine": False,
    "n_restarts": 1,
    "max_iter": 1,
    "learning_rate": 1e-20,
    "validation_fraction": 0,
    "log_partition": None,
    "random_state": 0,
}
X_STILL = np.random.RandomState(0).randn(500, 2)


def given(k=1.0, mean=0.0, **params):
    """Fitted without a move: the model is N(mean, I / k), the generator's density N(b, W W')."""
    energy = partial(still_energy, k, mean)
    return BoundsEBM(**{"energy": energy, **STILL, **params}).fit(X_STILL)


def still_energy(k, mean, n_features):
    return Quadratic(k, torch.tensor(mean))


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


def test_bounds_are_in_the_units_of_x():
    """Columns scaled by powers of two: the same model to the bit, and each bound moves by log a."""
    a, new, found = np.array([2.0**9, 2.0**-3]), np.random.RandomState(1).randn(300, 2), []
    for scale in (1.0, a):
        est = BoundsEBM(**STILL | {"standardize": True, "energy": STANDARD}).fit(scale * X_STILL)
        found.append(est.bounds(scale * new, random_state=0)[:-1])
        found[-1] += est.lower_bound_, est.upper_surrogate_, est.cubo_
    for one, two in zip(*found, strict=True):
        assert two.value == pytest.approx(one.value + np.log(a).sum(), abs=1e-9)
        assert two[1:] == pytest.approx(one[1:], rel=1e-9)


def test_a_fold_is_measured_and_voids_the_lower_bound():
    """With (|z1|, z2) and mean (1, 1) of the model the change of variables goes too high."""
    with pytest.warns(
        GeneratorWarning, match=r"folds: at a share of 0\.(49|5)\d* .* entropy__fold_penalty"
    ):
        est = given(1.0, 1.0, generator=FOLDED)
    assert 0.48 < est.fold_fraction_ <= 0.5
    error = latent_error(est.lower_bound_, potential(1.0, 1.0))
    excess = math.sqrt(2 / math.pi) - 1  # E[|z1| + z2] less half of |mean|^2
    assert_estimate(est.lower_bound_.value, error, truth(1.0, 1.0) + excess, 0.04)
    with pytest.warns(GeneratorWarning, match="folds"):
        est = given(1.0, (1.0, 0.0), generator=FOLDED)
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


LINE_MAP = Given(((0.9,), (-0.5,)), OFFSET, latent_dim=1)


def test_a_surface_has_no_bounds():
    with pytest.warns(GeneratorWarning, match="latent_dim=1 is below the 2 columns"):
        est = given(generator=LINE_MAP)
    for bound in (est.lower_bound_, est.upper_surrogate_, est.cubo_):
        assert math.isnan(bound.value) and math.isnan(bound.stderr) and bound.ess == 0
    assert math.isnan(est.fold_fraction_) and est.latent_dim_ == 1
    assert est.sample(3, method="generator").shape == (3, 2)


def test_noise_gives_a_surface_its_lower_bound():
    """N(b, w w' + s^2 I) against N(0, I); fresh latents cost a little more than the divergence."""
    noise = 0.3
    with pytest.warns(GeneratorWarning, match="latent_dim=1"):
        est = given(generator=LINE_MAP.with_params(observation_noise=noise))
    w = np.array(LINE_MAP.matrix)
    gap = gaussian_kl(OFFSET, w @ w.T + noise**2 * np.eye(2), [0.0, 0.0], np.eye(2))
    error = latent_error(est.lower_bound_, potential(1.0))
    short = truth(1.0) - gap - est.lower_bound_.value
    assert error < 0.05 and -4 * error < short < 4 * error + 0.02
    assert math.isnan(est.cubo_.value) and math.isnan(est.upper_surrogate_.value)
    rows = est.sample(8000, random_state=0, method="generator")
    assert_variance(rows[:, 0], 0.9**2 + noise**2, 0.02)


def test_noise_of_the_posterior_method_is_on_generated_rows():
    generator = Given(EYE, NOWHERE, observation_noise=0.8)
    est = given(generator=generator, bound="zero-centered-gp", entropy="variational")
    assert_variance(est.sample(8000, 0, method="generator")[:, 0], 1 + 0.8**2, 0.02)


STANDARD = partial(still_energy, 1.0, 0.0)
ITERATED = GeneratorEntropy(n_lobpcg=20)


@pytest.mark.parametrize("bend", [-math.inf, 0.0])
def test_the_jacobian_is_formed_above_64_latents_too(bend):
    X = np.random.RandomState(0).randn(60, 66)
    scales = np.linspace(0.9, 1.2, 66)
    component = Given(tuple(map(tuple, np.diag(scales).tolist())), (0.0,) * 66, bend)
    still = STILL | {"generator": component, "energy": STANDARD}
    if bend == 0:
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
    still = STILL | {"generator": component, "energy": STANDARD, "entropy": ITERATED}
    est = BoundsEBM(**still).fit(X)
    assert math.isnan(est.cubo_.value) and math.isnan(est.fold_fraction_)
    below = 0.5 * (np.square(scales) - 1).sum() - 66 * math.log(0.5)  # s_1 stands for every one
    error = latent_error(est.lower_bound_, potential(1.0, X=X))
    got = est.lower_bound_.value
    assert got < truth(1.0, X=X) and error < 2
    assert abs(got - (truth(1.0, X=X) - below)) < 4 * error + 66 * 0.05


MATCHING = {"generator": Given(EYE, NOWHERE), "energy": STANDARD}
SORTED = np.concatenate([0.1 * X_STILL, 3 * X_STILL])


def test_the_rows_behind_the_bounds_are_no_corner_of_the_table(monkeypatch):
    monkeypatch.setattr(bounds, "FEW_ROWS", 300)
    est = BoundsEBM(**STILL | MATCHING).fit(SORTED)
    got = est.lower_bound_
    assert_estimate(got.value, got.stderr, truth(1.0, X=SORTED), 0.5)
    assert truth(1.0, X=SORTED[:300]) < got.value - 3  # what the first rows would say


def test_the_rows_behind_the_bounds_have_the_weights_of_the_fit():
    weight = np.repeat([9.0, 1.0], len(X_STILL))
    est = BoundsEBM(**STILL | MATCHING)
    got = est.fit(SORTED, sample_weight=weight).lower_bound_
    mean = np.average(potential(1.0, X=SORTED), weights=weight)
    assert_estimate(got.value, got.stderr, mean + gaussian_log_z(2, 1.0), 0.5)
    assert truth(1.0, X=SORTED) > got.value + 1  # without weights


@pytest.mark.parametrize("validation_fraction", [0, 0.5])
def test_the_noise_of_training_is_not_in_the_bounds(validation_fraction):
    """They compare with the negative log likelihood of rows, as `score` reads them."""
    params = STILL | {"validation_fraction": validation_fraction, "data_noise": 2.0}
    est = BoundsEBM(**params | MATCHING).fit(X_STILL)
    got = est.lower_bound_
    assert_estimate(got.value, got.stderr, truth(1.0), 0.08)  # noise would add 4


# -- the estimator ---------------------------------------------------------------------------------

tiny = partial(cases.tiny, "BoundsEBM", n_restarts=1)
MODES = GaussianMixtureDensity([[-1.5, 0.0], [1.5, 1.0]], [0.8, 0.6], [0.7, 0.3])


def table(n=200, seed=0):
    """Two modes in columns of unlike units."""
    return MODES.sample(n, random_state=seed) * [1.0, 50.0] + [0.0, 1e3]


def made_by(est, n=5):
    return est.sample(n, random_state=0, method="generator")


def same_networks(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(one, other, rtol=0, atol=1e-12) for one, other in pairs)


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
    "refine": 80,
    "batch_size": 128,
    "log_partition": "auto",
    "n_restarts": 2,
}
TABLES = {
    "gaussian": np.random.RandomState(0).randn(800, 2) @ [[2.0, 0.5], [0.0, 0.3]] + [3.0, -1.0],
    "moons": two_moons().sample(800, random_state=0),
}


@pytest.fixture(scope="module", params=[("gaussian", 80), ("moons", 80), ("moons", False)])
def trained(request):
    X, refine = TABLES[request.param[0]], request.param[1]
    return X, tiny(**TRAINED | {"refine": refine}).fit(X)


def test_bounds_hold_around_the_likelihood_of_a_trained_model(trained):
    """Against the grid's log Z, on the same rows: the error is that of the latents alone."""
    X, est = trained
    assert not isinstance(est.energy_, Zero)
    mass = mass_of(est, X)[0]
    exact = math.log(mass) - est.score(X)
    lower, cubo, scores = est.lower_bound_, est.cubo_, est.score_samples(X)
    assert est.fold_fraction_ == 0 and cubo.ess > 200 and mass == pytest.approx(1, abs=0.01)
    assert exact - 1.5 < lower.value <= exact + 3 * latent_error(lower, scores)
    assert cubo.value >= exact - 3 * latent_error(cubo, scores)


def test_draws_of_every_method(trained):
    X, est = trained
    auto = est.sample(2000, random_state=0)
    assert est.sample_info_.n_candidates > 0
    np.testing.assert_array_equal(auto, est.sample(2000, random_state=0, method="mala"))
    total, cells, p = mass_of(est, X)
    for j in range(2):
        mean = float(p @ cells[:, j] / total)
        assert_mean(auto[:, j], mean, 0.1)
        assert_variance(auto[:, j], float(p @ (cells[:, j] - mean) ** 2 / total), 0.06)
    made = made_by(est, 2000)
    assert est.sample_info_.n_candidates == 0 and math.isnan(est.sample_info_.ess)
    assert made.shape == (2000, 2) and (made != auto).any()
    assert np.abs(made.mean(0) - X.mean(0)).max() < 0.5 * X.std(0).max()  # in the units of X


@pytest.mark.parametrize("method", ["mala", "generator"])
def test_each_method_draws_by_its_seed(method):
    est = tiny().fit(table())
    a, b, c = (est.sample(9, random_state=s, method=method) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    np.testing.assert_array_equal(est.sample(9, method=method), est.sample(9, 0, method=method))


def test_generated_rows_are_the_generator_s_in_the_units_of_x():
    est = tiny().fit(table())
    network = est.generator_
    assert isinstance(network, GeneratorNetwork) and not network.training
    assert not any(p.requires_grad for p in network.parameters()) and est.latent_dim_ == 2
    z = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    rows = network(z).numpy() * table().std(0) + table().mean(0)
    made = made_by(est, 4000)
    for j in range(2):
        assert stats.ks_2samp(rows[:, j], made[:, j]).pvalue > 1e-4


@pytest.mark.parametrize("method", ["gibbs", None, 3])
def test_sample_names_an_unknown_method(method):
    error = ValueError if isinstance(method, str) else TypeError
    with pytest.raises(error, match=f"method must be one of .*got {method!r}"):
        tiny().fit(table()).sample(3, method=method)


# -- options ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_scores():
    return tiny().fit(table()).score_samples(table(40, seed=1))


PUSHED = {"bound": "zero-centered-gp"}
OPTIONS = [
    {"entropy": "hutchinson"},
    {"entropy": "mutual-information", **PUSHED},
    {"entropy": "variational", **PUSHED},
    {"entropy__weight": 0.1},
    {"bound": "wgan-gp"},
    {"penalty_weight": 5.0, "bound__exponent": 3.0},
    {"penalty_weight": 5.0, "bound__probe": "sphere"},
    {"generator__betas": (0.5, 0.999)},
    {"generator__learning_rate": 0.05},
    {"generator__observation_noise": 0.5},
    {"refine": 3},
]


@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
@pytest.mark.parametrize("params", OPTIONS, ids=str)
def test_every_option_fits_and_changes_the_fit(params, plain_scores):
    est = tiny().set_params(**params).fit(table())
    values = est.score_samples(table(40, seed=1))
    assert np.isfinite(values).all() and (values != plain_scores).any()
    game = [row for row in est.history_ if "penalty" in row]
    assert game[-1]["iteration"] == est.n_iter_ == 4
    length = 0 if params.get("bound") == "wgan-gp" else params.get("refine", 4)
    assert est.history_[-1]["iteration"] == 4 + length


@pytest.mark.filterwarnings("ignore:the generator folds")
def test_the_push_acts_where_the_generator_folds():
    """Rarer orientations are pushed through zero, and earn no entropy for their size."""
    sizes = []
    for fold_penalty in (0.0, 10.0):
        entropy = GeneratorEntropy(fold_penalty=fold_penalty)
        generator = FOLDED.with_params(learning_rate=0.02)
        est = tiny(generator=generator, entropy=entropy, max_iter=20, refine=0).fit(table())
        assert est.history_[-1]["fold"] > 0.3
        sizes.append(abs(np.linalg.det(est.generator_.matrix.numpy())))
    assert sizes[1] < sizes[0] - 0.2


@pytest.mark.parametrize(
    ("shares", "ks", "n_restarts", "kept"),
    [
        ([0.0], [0.3], 3, 0),
        ([0.4, 0.09], [0.3, 0.2], 3, 1),
        ([0.4, 0.3, 0.2], [0.3, 0.1, 0.2], 3, 1),
        ([0.4, 0.3], [0.3, 1e4], 2, 0),
        ([0.4], [0.3], 1, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:the generator folds")
def test_it_trains_again_only_while_it_folds_and_keeps_the_best(
    shares, ks, n_restarts, kept, monkeypatch
):
    """Given what share of latents each training folds; the smaller k, the nearer the base."""
    init, shares_left, ks_left = BidirectionalBounds.init, iter(shares), iter(ks)

    def start(self, *args):
        state = init(self, *args)
        state.modules["generator"].bend.fill_(stats.norm.ppf(next(shares_left)))
        return state

    monkeypatch.setattr(BidirectionalBounds, "init", start)
    params = {"learning_rate": 1e-20, "refine": False, "n_restarts": n_restarts}
    params["log_partition"] = None
    energy = lambda d: Quadratic(next(ks_left))  # noqa: E731
    est = tiny(energy=energy, generator=Given(EYE, NOWHERE), max_iter=2, **params).fit(table())
    assert next(shares_left, None) is next(ks_left, None) is None
    assert est.fold_fraction_ == pytest.approx(shares[kept], abs=0.04)
    (k,) = est.energy_.parameters()
    assert float(k) == pytest.approx(ks[kept])


@pytest.mark.filterwarnings("ignore:the generator folds")
def test_a_refinement_is_no_longer_than_its_training_and_few_rows_are_played_less(monkeypatch):

    def length(est):
        return est.n_iter_, est.history_[-1]["iteration"]

    assert length(tiny(refine=True, max_iter=3).fit(table())) == (3, 6)
    monkeypatch.setattr(bounds, "MOST_REFINED", 2)
    assert length(tiny(refine=True, max_iter=3).fit(table())) == (3, 5)
    monkeypatch.setattr(bounds, "MOST_PASSES", 1.0)
    n = len(table())
    few = tiny(refine=False, max_iter=9, n_iter_no_change=1, batch_size=n // 2)
    assert few.fit(table()).n_iter_ == 2
    assert few.set_params(batch_size=2 * n).fit(table()).n_iter_ == 1
    assert few.set_params(n_iter_no_change=None).fit(table()).n_iter_ == 9


def test_a_search_prefers_refinement():
    X, new = (two_moons().sample(n, random_state=s) for n, s in ((1000, 0), (2000, 1)))
    split = ShuffleSplit(1, test_size=0.5, random_state=0)
    est = tiny(**TRAINED | {"validation_fraction": 0.1, "n_restarts": 1})
    search = GridSearchCV(est, {"refine": [0, 80]}, cv=split).fit(X)
    without, with_it = search.cv_results_["mean_test_score"]
    assert with_it > without + 0.1 and search.best_params_ == {"refine": 80}
    assert search.score(new) < two_moons().log_density(new).mean() + 0.05


def test_an_energy_that_earns_nothing_is_dropped_and_the_bounds_are_of_the_base():
    X = np.random.RandomState(0).randn(300, 2)
    est = tiny(refine=False, validation_fraction=0.3, learning_rate=1e-12).fit(X)
    assert isinstance(est.energy_, Zero) and est.validation_gain_ == (0.0, 0.0)
    assert est.log_partition_.method == "exact" and est.density_.proposal is est.base_
    held_out = -est.score(X)
    assert est.lower_bound_.value <= held_out + 3 * est.lower_bound_.stderr
    assert np.isfinite(made_by(est)).all()


# -- the paper's settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "betas", "batch_size", "latent_dim", "generator", "max_iter"),
    [
        ("toy", 2e-4, (0.0, 0.9), 200, None, MLPGenerator.toy(), 150_000),
        ("mnist", 2e-4, (0.0, 0.9), 64, 128, MLPGenerator.mnist(), 1000),
        ("cifar10", 5e-5, (0.0, 0.999), 64, 128, ConvGenerator(), 200_000),
        ("animeface", 5e-5, (0.0, 0.999), 64, 128, ResidualGenerator(), 100_000),
    ],
)
def test_the_paper_s_settings_are_those_of_its_table_11(
    name, rate, betas, batch_size, latent_dim, generator, max_iter
):
    est = BoundsEBM.from_paper(name)
    game = BidirectionalBounds(est.bound, est.entropy, est.generator, est.penalty_weight)
    for optimization in (est.optimizer, est.generator.optimization(est.optimizer)):
        assert optimization.learning_rate == rate and optimization.betas == betas
        assert optimization.schedule == "constant" and optimization.weight_decay == 0
    assert est.generator == generator.with_params(latent_dim=latent_dim, learning_rate=rate)
    assert est.batch_size == batch_size and est.max_iter == max_iter
    assert (est.margin, est.bound, est.base, est.refine) == (1.0, "bidirectional", None, False)
    assert est.entropy == GeneratorEntropy("singular-value", fold_penalty=0.0, n_lobpcg=2)
    assert game.weight(2) == 0.001 / 2


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
    est.set_params(optimizer__learning_rate=1.0, entropy__n_lobpcg=9)
    other = BoundsEBM.from_paper("toy")
    assert other.energy.hidden_sizes == other.generator.hidden_sizes == (100, 100)
    assert (other.optimizer.learning_rate, other.entropy.n_lobpcg) == (2e-4, 2)


def test_changes_win_over_the_paper_s_settings():
    est = BoundsEBM.from_paper("toy", learning_rate=0.5)
    assert est.optimizer.learning_rate == est.generator.learning_rate == 0.5
    est = BoundsEBM.from_paper("toy", learning_rate=0.5, optimizer="sgd", generator="mlp")
    assert (est.optimizer, est.generator) == ("sgd", "mlp")
    est = BoundsEBM.from_paper("mnist", margin=0.1, base="gaussian")
    assert (est.margin, est.base) == (0.1, "gaussian")
    with pytest.raises(ValueError, match="name must be one of .*'toy'.*got 'imagenet'"):
        BoundsEBM.from_paper("imagenet")


def test_a_batch_of_one_has_no_statistics():
    generator = MLPGenerator((6,), batch_norm=True)
    with pytest.raises(ValueError, match="batch_size must be >= 2 .* got 1"):
        tiny(generator=generator, batch_size=1).fit(table())
    tiny(batch_size=1).fit(table())


@pytest.mark.parametrize("entropy", ["singular-value", "logdet"])
def test_the_remedy_against_folds_has_an_effect(entropy):
    with pytest.warns(GeneratorWarning, match="folds") as caught:
        est = given(generator=FOLDED, entropy=entropy)
    assert ("fold_penalty" in str(caught[0].message)) == (entropy == "logdet")
    with pytest.warns(GeneratorWarning, match="folds"):
        est.bounds(X_STILL)


# -- what was fitted stays, and goes on ------------------------------------------------------------


@pytest.mark.parametrize("name", ["generator", "entropy"])
def test_a_warm_start_takes_no_other_players(name):
    est = tiny(warm_start=True).fit(table())
    other = {"generator": MLPGenerator((3,)), "entropy": "singular-value"}[name]
    with pytest.raises(ValueError, match=f"{name} must be that of the last fit with warm_start"):
        est.set_params(**{name: other}).fit(table())


def test_a_warm_start_goes_on_with_its_generator():
    """At a rate of nothing it stays, under another seed too."""
    params = {"learning_rate": 1e-20, "refine": 3}
    params["generator"] = cases.GENERATOR.with_params(learning_rate=1e-20)
    est = tiny(**params, warm_start=True).fit(table())
    first = copy.deepcopy(est.generator_)
    assert same_networks(est.set_params(random_state=1).fit(table()).generator_, first)
    assert est.n_iter_ == 8 and est.history_[-1]["iteration"] == 14
    anew = tiny(**params, random_state=1).fit(table())
    assert not same_networks(anew.generator_, first)


def test_a_generator_from_outside_is_not_saved_but_pickled(tmp_path):
    est = tiny(generator=Given(EYE, NOWHERE)).fit(table())
    with pytest.raises(TypeError, match="Given is not part of skebm"):
        est.save(tmp_path / "model")
    assert_same(est, pickle.loads(pickle.dumps(est)), "BoundsEBM", table(40, seed=1))


@pytest.mark.filterwarnings("ignore:training (goes on|is read)")
@pytest.mark.filterwarnings("ignore:the generator folds")
def test_a_restart_that_is_interrupted_resumes_there(monkeypatch, tmp_path):
    params = {"n_restarts": 2, "generator": FOLDED.with_params(learning_rate=1e-3)}
    whole, calls, step = tiny(**params).fit(table()), [], BidirectionalBounds.step

    def counted(self, *args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(BidirectionalBounds, "step", counted)
    with pytest.raises(KeyboardInterrupt):
        tiny(checkpoint_dir=tmp_path, **params).fit(table())
    resumed = tiny(checkpoint_dir=tmp_path, **params).fit(table())
    assert len(calls) == 6 + 4  # the first training is not made again
    assert_same(resumed, whole, "BoundsEBM", table(40, seed=1))


# -- tables of every kind --------------------------------------------------------------------------


def test_one_column():
    X = np.random.RandomState(0).randn(400, 1) * 3 + 5
    est = tiny(log_partition="auto", max_iter=100).fit(X)
    exact = -est.score(X)
    error = latent_error(est.lower_bound_, est.score_samples(X))
    assert est.fold_fraction_ == 0
    assert exact - 3 < est.lower_bound_.value <= exact + 3 * error
    assert est.latent_dim_ == 1 and made_by(est).shape == (5, 1)


@pytest.mark.parametrize("base", ["gaussian", None])
@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
def test_forty_columns(base):
    X = np.random.RandomState(0).randn(150, 40)
    energy = MLP((8,), n_frequencies=0, output="quadratic")
    est = tiny(base=base, generator=MLPGenerator((48,)), energy=energy, max_iter=2).fit(X)
    assert np.isfinite(est.score_samples(X)).all() and math.isfinite(est.lower_bound_.value)
    refined = est.history_[-1]["iteration"] > est.n_iter_
    assert refined == (base is not None)
    draws = est.sample(5, random_state=0)
    assert draws.shape == (5, 40) and (draws == made_by(est)).all() == (base is None)
    if base is None:
        with pytest.raises(ValueError, match="without a base above 32 columns, got 'mala'"):
            est.sample(5, method="mala")


IMAGES = np.random.RandomState(0).rand(60, 64)
SMALL = {
    "image_shape": (1, 8, 8),
    "generator": ConvGenerator((4, 3), latent_dim=5),
    "energy": Conv((3, 4), kernel_sizes=(3, 3), strides=(2, 2)),
    "max_iter": 3,
    "batch_size": 8,
    "log_partition": "auto",
}


@pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning")
@pytest.mark.parametrize("base", ["gaussian", None])
def test_images(base, tmp_path):
    est = tiny(**SMALL, base=base).fit(IMAGES)
    made = est.sample(4, random_state=0)
    np.testing.assert_array_equal(made, made_by(est, 4))
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
    harm = {"energy": lambda shape: torch.nn.Sequential(torch.nn.Flatten(), Quadratic(2.0))}
    est = tiny(**SMALL | harm, validation_fraction=0.5, learning_rate=1e-12).fit(IMAGES)
    assert isinstance(est.energy_, Zero) and est.log_partition_.value == 0
    assert math.isfinite(est.score(IMAGES))  # without a warning


@pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning")
def test_images_have_at_most_128_latents():
    X = np.random.RandomState(0).rand(30, 144)
    own = {"image_shape": (1, 12, 12), "energy": "mlp", "generator": ConvGenerator((4, 3))}
    est = tiny(**SMALL | own | {"max_iter": 1}).fit(X)
    assert est.latent_dim_ == 128 and est.sample(2).shape == (2, 144)
