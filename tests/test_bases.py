"""Bases are normalized densities: they integrate to 1, their score is a gradient, draws follow."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from sklearn.neighbors import KernelDensity
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from skebm.bases import (
    Defensive,
    Gaussian,
    Kernel,
    Mixture,
    ProbabilisticPCA,
    TorchDistribution,
    Uniform,
)
from skebm.bases.kernel import KernelBase
from skebm.bases.mixture import ROUGH_TOL, SHRINKAGES, MixtureBase, Shape, _held_out
from skebm.bases.tails import fit_defended
from skebm.data import systematic_rows
from tests.closed_forms import assert_mean, assert_variance, autograd_score, grid
from tests.generators import gen


def three_modes(n, d, seed=0):
    """Rows at three modes of sd 0.15, standardized."""
    rng = gen(seed)
    centers = torch.tensor([[-1.2, 0.0], [0.0, 1.3], [1.2, -1.0]])[:, :d]
    which = torch.randint(3, (n,), generator=rng)
    return centers[which] + 0.15 * torch.randn(n, d, generator=rng)


def normal(d):
    return Independent(Normal(0.3 * torch.ones(d), 0.8 * torch.ones(d)), 1)


class Module(torch.nn.Module):
    """A distribution that is a module."""

    def __init__(self, d):
        super().__init__()
        self.layer, self.sample = torch.nn.Linear(d, d), None  # no product of two precisions
        torch.nn.init.eye_(self.layer.weight)

    def log_prob(self, x):
        return normal(len(self.layer.bias)).log_prob(self.layer(x))


class Holder:
    """One that holds it, a tensor in a container, and itself."""

    def __init__(self, d):
        self.parts, self.own, self.sample = (Module(d), [torch.full((d,), 0.3)]), self, None

    def log_prob(self, x):
        return self.own.parts[0].log_prob(x - self.parts[1][0])


def modes(d):
    spread = 0.3 * torch.eye(d) + 0.1
    return MixtureSameFamily(
        Categorical(torch.tensor([0.3, 0.7])),
        MultivariateNormal(torch.tensor([[0.3], [-0.9]]).expand(2, d), spread.expand(2, d, d)),
    )


class Defending:
    """A component with heavy tails under it, as estimators fit theirs."""

    def __init__(self, component):
        self.component = component

    def fit(self, x, weight, rng):
        return fit_defended(self.component, x, weight, rng)


class Shaped:
    """Kernels of one given shape."""

    def fit(self, x, weight, rng):
        base = Kernel(bandwidth=0.3).fit(x, weight, rng)
        d = x.shape[1]
        factor = torch.eye(d) + 0.5 * torch.ones(d, d).triu(1)
        return KernelBase(base.centers, base.log_weights, base.bandwidth, factor)


DISTRIBUTIONS = {
    "torch mixture": modes,
    "torch transformed": lambda d: TransformedDistribution(
        normal(d), [AffineTransform(torch.tensor(0.3), torch.tensor(1.7), event_dim=1)]
    ),
    "torch parameters": lambda d: Independent(
        Normal(
            torch.nn.Parameter(torch.full((d,), 0.3)), torch.full((d,), 0.7, requires_grad=True)
        ),
        1,
    ),
    "torch module": Module,
    "torch object": Holder,
}
COMPONENTS = {
    "gaussian": lambda d: Gaussian(),
    "diagonal": lambda d: Gaussian("diagonal", inflation=0.9),
    "spherical": lambda d: Gaussian("spherical"),
    "mixture": lambda d: Mixture(n_components=3),
    "union": lambda d: Mixture(n_components=3, n_folds=5),
    "kernel": lambda d: Kernel(bandwidth=0.2),
    "principal": lambda d: ProbabilisticPCA(n_components=1),
    "shaped kernel": lambda d: Shaped(),
    "defended": lambda d: Defending(Mixture(n_components=3)),
    "uniform": lambda d: Uniform(shoulder=0.05),
    "torch": lambda d: TorchDistribution(normal(d)),
}
names = pytest.mark.parametrize("name", COMPONENTS)
dims = pytest.mark.parametrize("d", [1, 2])


def fitted(name, d, n=300):
    return COMPONENTS[name](d).fit(three_modes(n, d), None, gen(1))


@names
@dims
def test_the_density_integrates_to_one(name, d):
    base = fitted(name, d)
    x, cell = grid(-5, 5, 4000 if d == 1 else 250, d)
    total = base.log_prob(x.float()).double().exp().sum() * cell
    assert float(total) == pytest.approx(1, abs=2e-4)


@names
@dims
def test_the_score_is_the_gradient(name, d):
    base = fitted(name, d).double()
    log_density = base.distribution.log_prob if name == "torch" else base.log_prob
    x = 2 * torch.randn(50, d, dtype=torch.float64, generator=gen(2))
    log_prob, score = base.log_prob_and_score(x)
    torch.testing.assert_close(log_prob, base.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, autograd_score(log_density, x), rtol=1e-9, atol=1e-9)
    assert not log_prob.requires_grad and not score.requires_grad


@pytest.mark.parametrize("name", [*COMPONENTS, *DISTRIBUTIONS])
def test_a_copy_in_double_precision_has_the_same_numbers_whatever_a_row_s_place(name):
    x = three_modes(3000, 2, seed=5)
    if name in DISTRIBUTIONS:
        base = TorchDistribution(DISTRIBUTIONS[name](2)).fit(x, None, gen(1))
    else:
        base = fitted(name, 2)
    single, twin = base.log_prob_and_score(x), copy.deepcopy(base).double()
    double = twin.log_prob_and_score(x.double())
    for one, two in zip(single, double, strict=True):
        assert one.dtype == torch.float32 and two.dtype == torch.float64
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-5 * float(two.abs().max()))
    for i in (0, 1500, 2999):
        row = x[i, None].double()
        for alone, among in zip(twin.log_prob_and_score(row), double, strict=True):
            torch.testing.assert_close(alone, among[i, None], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(twin.log_prob(row), double[0][i, None], rtol=1e-12, atol=1e-12)
    assert base.log_prob(x).equal(single[0])  # the original is as it was
    assert copy.deepcopy(twin).float().log_prob(x).dtype == torch.float32


@names
@dims
def test_draws_follow_the_density(name, d):
    base = fitted(name, d)
    x, cell = grid(-5, 5, 4000 if d == 1 else 250, d)
    log_prob = base.log_prob(x.float()).double()
    p = log_prob.exp() * cell
    draws = base.sample(20_000, gen(3))
    assert draws.shape == (20_000, d) and draws.dtype == torch.float32
    assert_mean(base.log_prob(draws), float((p * log_prob).sum()), 0.02)
    for j in range(d):
        mean = float((p * x[:, j]).sum())
        assert_mean(draws[:, j], mean, 0.02)
        assert_variance(draws[:, j], float((p * (x[:, j] - mean) ** 2).sum()), 0.02)
    wave = torch.sin(2 * x).prod(1)  # a moment that modes of the wrong weight would move
    assert_mean(torch.sin(2 * draws).prod(1), float((p * wave).sum()), 0.01)


@names
@pytest.mark.parametrize("n, d", [(5, 2), (5, 8), (2, 3), (30, 40)])
def test_few_rows(name, n, d):
    x = torch.randn(n, d, generator=gen(0))
    base = COMPONENTS[name](d).fit(x, None, gen(1))
    assert base.n_features == d
    for rows in (x, base.sample(200, gen(2)), 100 * x):
        log_prob, score = base.log_prob_and_score(rows)
        assert log_prob.isfinite().all() and score.isfinite().all()


@pytest.mark.parametrize("n", [1, 7, 500])
def test_systematic_rows_come_as_often_as_their_weight(n):
    weight = torch.tensor([0.0, 3.0, 0.2, 0.0, 5.0, 1.8, 0.0])
    draws = [systematic_rows(weight, n, gen(seed)) for seed in range(200)]
    counts = torch.stack([rows.bincount(minlength=7) for rows in draws])
    assert all((rows.diff() >= 0).all() and len(rows) == n for rows in draws)
    assert ((counts - n * weight / 10).abs() < 1).all() and not counts[:, weight == 0].any()
    for i in (1, 2, 4, 5):
        assert_mean(counts[:, i] - n * weight[i] / 10, 0, 0.036)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "union", "kernel", "principal", "uniform"])
def test_rows_of_weight_zero_do_not_show(name):
    x, far = three_modes(300, 2), 30 + three_modes(60, 2)
    weight = torch.cat([torch.ones(300), torch.zeros(60)])
    base = COMPONENTS[name](2).fit(torch.cat([x, far]), weight, gen(1))
    assert base.sample(500, gen(2)).max() < 10
    plain = fitted(name, 2)
    gap = (base.log_prob(x) - plain.log_prob(x)).mean()
    assert abs(gap) < (1e-5 if name == "kernel" else 0.05)  # resampling repeats some rows


@pytest.mark.parametrize("name", ["gaussian", "mixture", "union", "kernel", "principal"])
def test_weights_count_rows(name):
    x = three_modes(300, 2)
    weight = torch.where(x[:, 0] > 0.6, 4.0, 1.0)  # the third mode counts four times
    base = COMPONENTS[name](2).fit(x, weight, gen(1))
    truth = (weight[:, None] * x).sum(0) / weight.sum()
    draws = base.sample(20_000, gen(2))
    assert abs(draws[:, 0].mean() - truth[0]) < 0.03 < abs(x[:, 0].mean() - truth[0])


# -- gaussian --------------------------------------------------------------------------------------


def test_gaussian_is_the_shrunk_moments():
    rng = gen(0)
    x = torch.randn(5000, 2, generator=rng) @ torch.tensor([[1.0, 0.5], [0.0, 0.7]]) + 3
    base = Gaussian().fit(x, None, rng)
    covariance = torch.linalg.inv((base.factors[0] @ base.factors[0].T).double())
    torch.testing.assert_close(base.means[0], x.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(covariance.float(), x.T.cov(), rtol=0.02, atol=0.02)
    exact = torch.distributions.MultivariateNormal(base.means[0].double(), covariance)
    np.testing.assert_allclose(base.log_prob(x), exact.log_prob(x.double()), rtol=1e-4, atol=1e-4)


def skewed_rows(n=5000):
    x = torch.randn(n, 3, generator=gen(0)) * torch.tensor([1.0, 0.3, 2.0])
    return x @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.7, 0.2], [0.0, 0.0, 1.0]]) + 3


@pytest.mark.parametrize("inflation", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("covariance", ["full", "diagonal", "spherical"])
def test_gaussian_has_the_covariance_asked_for_times_the_inflation_squared(covariance, inflation):
    x = skewed_rows().double()
    base = Gaussian(covariance, inflation).fit(x.float(), None, gen(1))
    truth = {
        "full": x.T.cov(correction=0),
        "diagonal": x.var(0, correction=0).diag(),
        "spherical": x.var(correction=0) * torch.eye(3, dtype=torch.float64),
    }[covariance]
    mean = x.mean().expand(3) if covariance == "spherical" else x.mean(0)
    got = torch.linalg.inv((base.factors[0] @ base.factors[0].T).double())
    slack = 0.01 if covariance == "full" else 1e-4  # full is shrunk a little
    atol = slack * inflation**2 * float(truth.max())
    torch.testing.assert_close(got, inflation**2 * truth, rtol=0, atol=atol)
    torch.testing.assert_close(base.means[0].double(), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "spherical"])
def test_gaussian_of_equal_rows_is_regular(covariance):
    x = torch.full((10, 2), 0.5)
    log_prob, score = Gaussian(covariance).fit(x, None, gen(0)).log_prob_and_score(x + 1e-3)
    assert log_prob.isfinite().all() and score.isfinite().all()


# -- mixture ---------------------------------------------------------------------------------------


def test_mixture_finds_three_clear_modes():
    base = Mixture(max_components=6).fit(three_modes(300, 2), None, gen(1))
    assert len(base.means) == 3
    order = base.means[:, 0].argsort()
    torch.testing.assert_close(
        base.means[order], torch.tensor([[-1.2, 0.0], [0.0, 1.3], [1.2, -1.0]]), atol=0.06, rtol=0
    )


def test_mixture_takes_one_component_for_a_gaussian():
    x = torch.randn(200, 3, generator=gen(0))
    assert len(Mixture(max_components=4).fit(x, None, gen(1)).means) == 1


def test_mixture_of_copies_and_of_a_narrow_line_is_regular():
    x = three_modes(40, 2).repeat(5, 1)
    x[:, 1] = x[:, 0]
    base = Mixture(n_components=3).fit(x, None, gen(0))
    assert base.log_prob(x).isfinite().all()


def test_mixture_does_not_choose_by_copies_of_rows_that_it_was_fitted_to():
    x = torch.randn(60, 2, generator=gen(0))
    assert len(Mixture(max_components=12).fit(x.repeat(6, 1), None, gen(1)).means) <= 2


def test_mixture_keeps_the_number_that_was_asked_for():
    assert len(Mixture(n_components=2).fit(three_modes(15, 2), None, gen(0)).means) == 2


# -- kernel ----------------------------------------------------------------------------------------


def left_out(y, widths, share=None):
    """Mean log density of each row under the round kernels of all others, by one sum each."""
    y, d = y.double().numpy(), y.shape[1]
    share = np.full(len(y), 1 / len(y)) if share is None else share
    d2 = ((y[:, None] - y) ** 2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    return [share @ logsumexp(-d2 / (2 * h**2), axis=1, b=share) - d * np.log(h) for h in widths]


@dims
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_bandwidth_is_the_leave_one_out_optimum_at_every_scale(d, scale):
    x = scale * three_modes(120, d)
    base = Kernel().fit(x, None, gen(0))
    y = x.double() if base.factor is None else x.double() @ base.factor.double()
    widths = scale * np.logspace(-2, 1, 25)
    best = widths[np.argmax(left_out(y, widths))]
    assert float(base.bandwidth) == pytest.approx(best, rel=1e-4)
    assert 0.02 * scale < float(base.bandwidth) < 0.5 * scale


@pytest.mark.parametrize("eps", [3e-2, 1e-2, 1e-3])
def test_kernels_take_the_shape_of_correlated_columns(eps):
    """A round kernel on x and x + eps z loses 0.5 nats and more."""
    z = torch.randn(2, 1000, 2, generator=gen(1), dtype=torch.float64)
    rows, fresh = torch.stack([z[..., 0], z[..., 0] + eps * z[..., 1]], -1).float()
    truth = float(-0.5 * z[1].square().sum(1).mean()) - math.log(2 * math.pi * eps)
    base = Kernel().fit(rows, None, gen(0))
    assert abs(float(torch.linalg.det(base.factor.double()))) == pytest.approx(1, rel=1e-5)
    assert abs(float(base.log_prob(fresh.double()).mean()) - truth) < 0.25
    wide = Kernel(bandwidth=float(base.bandwidth)).fit(rows, None, gen(0))
    assert float(wide.log_prob(fresh.double()).mean()) < truth - 0.5


def test_kernels_take_the_shape_of_neighbors_where_groups_set_the_covariance():
    """Two stripes: their covariance is that of the way between them."""
    z = torch.randn(1500, 2, generator=gen(4), dtype=torch.float64)
    rows = torch.stack([z[:, 0] + 8 * (z[:, 0] > 0), z[:, 0] + 0.003 * z[:, 1]], -1).float()
    base = Kernel().fit(rows, None, gen(0))
    whole = torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.double().T))).T
    shapes = torch.eye(2).double(), whole / torch.linalg.det(whole).abs().sqrt()
    others = [max(left_out(rows.double() @ f, np.logspace(-4, 1, 41))) for f in shapes]
    found = left_out(rows.double() @ base.factor.double(), [float(base.bandwidth)])[0]
    assert found > max(others) + 0.3


@pytest.mark.parametrize("times", [2, 5])
def test_copies_are_weights_to_kernels(times):
    x, fresh = three_modes(200, 2), three_modes(50, 2, seed=9)
    once, more = (Kernel().fit(rows, None, gen(0)) for rows in (x, x.repeat(times, 1)))
    torch.testing.assert_close(once.log_prob(fresh), more.log_prob(fresh), rtol=1e-5, atol=1e-5)
    weight = torch.randint(1, 4, (200,), generator=gen(5))
    heavy = Kernel().fit(x, weight, gen(0))
    copied = Kernel().fit(x.repeat_interleave(weight, 0), None, gen(0))
    torch.testing.assert_close(heavy.log_prob(fresh), copied.log_prob(fresh), rtol=1e-5, atol=1e-5)
    y = heavy.centers if heavy.factor is None else heavy.centers @ heavy.factor
    share = heavy.log_weights.double().exp().numpy()
    near = float(heavy.bandwidth) * np.array([0.5, 1, 2])
    assert np.argmax(left_out(y, near, share / share.sum())) == 1


@pytest.mark.parametrize("h", [1e-2, 1e-5])
def test_the_narrowest_kernels_are_exact(h):
    x = torch.randn(500, 1, generator=gen(0))
    base = Kernel(bandwidth=h).fit(x, None, gen(0))
    d2 = ((x[:30, None, 0].double() - x[:, 0].double()) / h).numpy() ** 2
    truth = logsumexp(-d2 / 2, axis=1) - math.log(500 * h) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(base.log_prob(x[:30]), truth, atol=1e-4)


def test_kernel_matches_sklearn():
    x, fresh = three_modes(100, 2), three_modes(20, 2, seed=5)
    base = Kernel(bandwidth=0.3).fit(x, None, gen(0))
    exact = KernelDensity(bandwidth=0.3).fit(x.numpy()).score_samples(fresh.numpy())
    np.testing.assert_allclose(base.log_prob(fresh), exact, rtol=1e-4, atol=1e-4)


def test_kernel_takes_at_most_its_centers():
    x = three_modes(300, 2)
    base = Kernel(n_centers=50).fit(x, None, gen(0))
    assert len(base.centers) == 50 == len(base.centers.unique(dim=0))
    assert (base.centers[:, None] == x).all(-1).any(1).all()


def test_kernel_with_fewer_weighted_rows_than_centers():
    x, weight = three_modes(300, 2), torch.zeros(300)
    weight[:20] = 1
    base = Kernel(n_centers=50).fit(x, weight, gen(0))
    assert (base.centers[:, None] == x[:20]).all(-1).any(1).all()


def test_a_heavy_row_stays_heavy_in_a_subset():
    x = torch.cat([torch.full((1, 1), 5.0), torch.randn(299, 1, generator=gen(0))])
    weight = torch.cat([torch.tensor([299.0]), torch.ones(299)])
    base = Kernel(n_centers=100, bandwidth=0.1).fit(x, weight, gen(1))
    assert_mean(base.sample(4000, gen(2))[:, 0] > 4, 0.5, 0.01)


# -- uniform ---------------------------------------------------------------------------------------


def test_uniform_is_flat_inside_and_falls_outside():
    base = Uniform(widening=0.5, shoulder=0.1).fit(torch.tensor([[0.0], [2.0]]), None, gen(0))
    volume = 4 + np.sqrt(2 * np.pi) * 0.4  # [-1, 3] and shoulders of a tenth of its width
    inside, score = base.log_prob_and_score(torch.linspace(-1, 3, 9)[:, None])
    np.testing.assert_allclose(inside, -np.log(volume), rtol=1e-6)
    assert (score == 0).all()
    out = base.log_prob(3 + torch.logspace(-2, 8, 40)[:, None])
    assert out.isfinite().all() and (out.diff() < 0).all() and out[0] < inside[0]
    one_shoulder_off = float(base.log_prob(torch.tensor([[3.4]])))
    assert one_shoulder_off == pytest.approx(-np.log(volume) - 0.5, rel=1e-5)


def test_uniform_around_a_constant_column():
    base = Uniform().fit(torch.full((4, 1), 2.0), None, gen(0))
    assert base.low < 2 < base.high


# -- torch distributions ---------------------------------------------------------------------------


def test_torch_distribution_may_be_a_factory_of_the_rows():
    seen = []

    def factory(x):
        seen.append(x)
        return Independent(Normal(x.mean(0), x.std(0)), 1)

    x = three_modes(50, 2)
    base = TorchDistribution(factory).fit(x, None, gen(0))
    assert seen[0] is x
    torch.testing.assert_close(base.distribution.mean, x.mean(0))


@pytest.mark.parametrize("inflation", [1.0, 7.0])
def test_principal_components_are_the_gaussian_of_their_covariance(inflation):
    x = three_modes(400, 2) @ torch.randn(2, 6, generator=gen(3))
    x = x + 0.3 * torch.randn(400, 6, generator=gen(4))
    base = ProbabilisticPCA(2, inflation).fit(x, None, gen(1))
    covariance = torch.from_numpy(PCA(2).fit(x.numpy()).get_covariance()) * inflation
    truth = MultivariateNormal(x.double().mean(0), covariance.double())
    log_prob = base.log_prob(x).double()
    torch.testing.assert_close(log_prob, truth.log_prob(x.double()), atol=2e-4, rtol=1e-5)
    draws = base.sample(40_000, gen(5)).double()
    error = (draws.T.cov() - covariance).abs().max() / covariance.abs().max()
    assert error < 4 * (2 / 40_000) ** 0.5


def test_a_distribution_gives_one_number_for_each_row():
    with pytest.raises(ValueError, match="Independent"):
        TorchDistribution(Normal(0.0, 1.0)).fit(three_modes(30, 2), None, gen(0))


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_the_defensive_base_s_wide_component_is_as_wide_as_asked_for(scale):
    x = torch.randn(300, 2, generator=gen(0))
    base = Defensive(wide_share=0.2, wide_scale=scale).fit(x, None, gen(1))
    plain = Gaussian().fit(x, None, gen(1))
    torch.testing.assert_close(base.factors[-1] * scale, plain.factors[0])
    assert float(base.log_weights[-1].exp()) == pytest.approx(0.2)


def test_a_component_has_to_bring_a_hundredth_of_a_nat():
    """More of them gain a little by chance on rows of one Gaussian: six of 8 times without it."""
    found = []
    for seed in range(8):
        x = torch.randn(1000, 2, generator=gen(seed))
        found.append(len(Mixture().fit(x, None, gen(seed)).means))
    assert found.count(1) >= 7 and max(found) <= 2


def test_a_mixture_grows_until_three_sizes_have_brought_nothing(monkeypatch):
    sizes, fitted = [], Shape.fitted

    def noted(self, *args):
        sizes.append(len(self.weights))
        return fitted(self, *args)

    monkeypatch.setattr(Shape, "fitted", noted)
    base = Mixture().fit(torch.randn(1200, 2, generator=gen(0)), None, gen(0))
    assert len(base.means) == 1 and sizes == [1, 2, 3, 4, 1]


def test_the_last_fit_of_many_rows_sees_twenty_thousand_of_them():
    """Their standard deviation is known to 0.5 %, that of the rows of the scan to 2 %."""
    x = torch.randn(20_400, 1, generator=gen(0))
    x[:400] = 50.0  # not the first ones alone, nor in order
    base = Mixture(n_components=2).fit(x, None, gen(0))
    i = int(base.means[:, 0].argmin())
    assert float(1 / base.factors[i]) == pytest.approx(float(x[400:].std()), rel=0.006)
    assert float(base.log_weights.exp()[i]) == pytest.approx(1 - 400 / 20_400, abs=0.004)


@pytest.mark.parametrize("copies", [1, 3])
def test_each_mixture_of_a_union_has_not_seen_one_fold(copies, monkeypatch):
    x = three_modes(200, 2).repeat(copies, 1)
    last, fitted = [], Shape.fitted
    monkeypatch.setattr(Shape, "fitted", lambda *a: last.append(a) or fitted(*a))
    base = Mixture(n_components=3, n_folds=5).fit(x, None, gen(0))
    parts = [rows for _, rows, _, tol in last if len(rows) == 160 * copies and tol == ROUGH_TOL]
    times = np.zeros(200, dtype=int)
    for rows in parts:
        times += (x[:200, None].double() == torch.from_numpy(rows)[None]).all(2).sum(1).numpy()
    assert len(parts) == 5 and (times == 4 * copies).all()  # copies of a row are left out together
    shares = base.log_weights.exp().unflatten(0, (5, 3)).sum(1)
    torch.testing.assert_close(shares, torch.full((5,), 0.2))
    assert base.means.unique(dim=0).shape == (15, 2)


def test_a_union_is_likelier_on_unseen_rows_than_one_mixture():
    gains = []
    for seed in range(20):
        x, unseen = bent_rows(200, seed), bent_rows(3000, 100 + seed)
        one, five = (Mixture(8, n_folds=k).fit(x, None, gen(seed)) for k in (1, 5))
        gains.append(float((five.log_prob(unseen) - one.log_prob(unseen)).mean()))
    assert np.mean(gains) > 0.02 and np.mean(gains) > 4 * np.std(gains) / 20**0.5


def bent_rows(n, seed):
    x = torch.randn(n, 3, generator=gen(seed))
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2, x[:, 2] - x[:, 0] * x[:, 1]], 1)


def test_a_union_of_single_gaussians_is_one():
    x = torch.randn(500, 2, generator=gen(0))
    one, five = (Mixture(n_folds=k).fit(x, None, gen(1)) for k in (1, 5))
    assert five.means.equal(one.means) and five.factors.equal(one.factors)


def test_draws_of_a_mixture_come_in_no_order():
    """Any part of them is a sample: halves, and the first hundred, have the components' shares."""
    x = torch.cat(
        [torch.randn(300, 1, generator=gen(0)) - 20, torch.randn(300, 1, generator=gen(2)) + 20]
    )
    drawn = Mixture(n_components=2).fit(x, None, gen(0)).sample(4000, gen(1))[:, 0]
    for part in (drawn[:2000], drawn[2000:], drawn[:100]):
        assert_mean((part > 0).double(), 0.5, largest_stderr=0.06)


def wide_mixture(off_diagonal):
    """Three components of 40 columns, whose covariances are diagonal or next to it."""
    rng = np.random.RandomState(0)
    covariances = np.stack([np.diag(rng.uniform(0.3, 2, 40))] * 3)
    covariances[0, 0, 1] = covariances[0, 1, 0] = off_diagonal
    weights = np.array([0.2, 0.3, 0.5])
    return MixtureBase.from_moments(weights, rng.randn(3, 40), covariances, "cpu", torch.float64)


def test_components_without_covariances_are_what_matrix_products_make_of_them():
    slim, dense = wide_mixture(0.0), wide_mixture(1e-30)
    assert slim._slim is not None and dense._slim is None
    x = torch.randn(200, 40, generator=gen(1), dtype=torch.float64)
    pairs = [(slim.log_prob(x), dense.log_prob(x))]
    pairs += [(slim.responsibilities(x), dense.responsibilities(x))]
    pairs += zip(slim.log_prob_and_score(x), dense.log_prob_and_score(x), strict=True)
    values = torch.arange(3.0, dtype=torch.float64)
    pairs += zip(slim.averaged(x, values), dense.averaged(x, values), strict=True)
    pairs += [(slim.sample(300, gen(2)), dense.sample(300, gen(2)))]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert slim.float()._slim.dtype == torch.float32


def test_shrinkages_are_judged_by_the_densities_that_they_make():
    x = torch.randn(300, 4, generator=gen(0), dtype=torch.float64)
    x[:, 1] = 0.2 * x[:, 1] + x[:, 0]
    rows, test = x[:200].numpy(), x[200:]
    shape = Shape.whole(rows).split(3).fitted(rows, 1e-8, 1e-2)
    made = [MixtureBase.from_moments(*shape.shrunk(a), "cpu", torch.float64) for a in SHRINKAGES]
    truth = [float(base.log_prob(test).mean()) for base in made]
    np.testing.assert_allclose(_held_out(test.numpy(), shape, 1e-8), truth, rtol=1e-9)


def test_one_component_has_the_floor_that_more_have():
    rows = np.random.RandomState(0).randn(400, 2)
    rows[:, 1] = rows[:, 0]  # no width across the line
    for k in (1, 2):
        shape = Shape.whole(rows).split(k).fitted(rows, 1e-6, 1e-2)
        least = np.linalg.eigvalsh(shape.covariances)[:, 0]
        np.testing.assert_allclose(least, 1e-6, rtol=1e-3)
