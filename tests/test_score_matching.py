"""Score matching: derivatives against autograd, losses against closed forms, and the estimator."""

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skebm import ScoreMatchingDensity
from skebm.datasets import two_moons
from skebm.energies import (
    MLP,
    Energy,
    LinearICA,
    Model,
    Reconstruction,
    Zero,
)
from skebm.networks import ConvNet, FeedForward
from skebm.objectives import DenoisingScoreMatching, Optimization, ScoreMatching
from skebm.partition import ImportanceSampling
from tests.closed_forms import (
    Quadratic,
    assert_mean,
    assert_variance,
    gaussian_log_z,
    normal_base,
    tilted_log_z,
)
from tests.generators import gen

DOUBLE = torch.float64


def randomized(component, shape=(3,), seed=0):
    """A module in float64 whose every parameter is nonzero."""
    module = component.build(shape, gen(seed)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.7 * torch.randn(p.shape, dtype=DOUBLE, generator=gen(seed + p.numel())))
    return module


def rows(n=7, d=3, seed=1, dtype=DOUBLE):
    return torch.randn(n, d, dtype=dtype, generator=gen(seed))


def parameter_gradients(energy, loss):
    parameters = list(energy.parameters())
    return torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)


# -- losses ----------------------------------------------------------------------------------------


def per_row(objective, model, x, seed=5):
    return objective.losses(model, x, gen(seed))


def slopes(objective, scaled, x, at=1.0, step=1.0):
    """Derivative of each row's loss in the factor of the energy: the losses are quadratic in it."""
    up, down = (per_row(objective, scaled(at + h), x).detach() for h in (step, -step))
    return ((up - down) / (2 * step)).numpy()


def test_exact_loss_of_a_gaussian_is_known_on_the_same_sample():
    x, k = 1.3 * rows(200), 1.7
    loss = per_row(ScoreMatching(), Model(Quadratic(k), None, 1.0), x).mean()
    torch.testing.assert_close(loss, (k**2 * x.square().sum(1) / 2 - k * 3).mean())
    unit = per_row(ScoreMatching(), Model(Quadratic(), None, 1.0), x).mean()
    torch.testing.assert_close(unit, x.square().sum(1).mean() / 2 - 3)


def test_exact_loss_is_stationary_at_the_sample_s_precision():
    x = 1.3 * rows(200)
    for factor, zero in ((1.0, True), (1.1, False)):
        energy = Quadratic(factor * 3 / x.square().sum(1).mean()).double()
        gradient = parameter_gradients(energy, per_row(ScoreMatching(), model_of(energy), x).mean())
        assert (abs(float(gradient[0])) < 1e-6) == zero


def model_of(energy, base=None, temperature=1.0):
    return Model(energy, base, temperature)


def test_base_and_temperature_are_part_of_the_score():
    x, k, t, s = 1.3 * rows(50, dtype=torch.float32), 1.7, 2.0, 0.8
    model = model_of(Quadratic(k), normal_base(3, s), t)
    precision = k / t + 1 / s**2
    truth = precision**2 * x.square().sum(1) / 2 - 3 * k / t  # the base's trace is left out
    torch.testing.assert_close(per_row(ScoreMatching(), model, x), truth)


@pytest.mark.parametrize("projections", ["gaussian", "rademacher"])
@pytest.mark.parametrize("n_projections", [1, 3])
def test_sliced_loss_is_unbiased_for_the_exact_one(n_projections, projections):
    energy, x = randomized(MLP((6, 4), n_frequencies=3, learn_gamma=True)), rows(20_000)
    model = model_of(energy)
    sliced = per_row(ScoreMatching("sliced", n_projections, projections), model, x).detach()
    exact = per_row(ScoreMatching("exact"), model, x).detach()
    assert_mean((sliced - exact).numpy(), 0.0, largest_stderr=0.07)
    trace = energy.laplacian(x).detach()
    with pytest.raises(AssertionError):  # probes too long by a tenth
        assert_mean((sliced - exact - 0.21 * trace).numpy(), 0.0, largest_stderr=1.0)


class Bilinear(torch.nn.Module):
    """E = x.Sx / 2."""

    def __init__(self, S):
        super().__init__()
        self.S = torch.nn.Parameter(S)

    def forward(self, x):
        return 0.5 * ((x @ self.S) * x).sum(1)


def test_signs_leave_the_diagonal_out_of_the_variance():
    half = rows(3)
    S = half + half.T
    energy, x = Bilinear(S), rows(1).expand(40_000, 3)
    for projections, truth in (
        ("gaussian", 2 * S.square().sum()),
        ("rademacher", 2 * (S.square().sum() - S.diagonal().square().sum())),
    ):
        losses = per_row(ScoreMatching("sliced", 1, projections), model_of(energy), x)
        assert_variance(losses.detach().numpy(), float(truth), largest_stderr=0.03)


class Kinked(Quadratic, Energy):
    """Says that it has kinks."""

    twice_differentiable = False


KINKED = [
    Kinked(),
    FeedForward(2, (4,), "leaky_relu", gen(0)),
    ConvNet((1, 4, 4), ((2, 3, 1, 1),), (), "leaky_relu", gen(0)),
    MLP((4,), "leaky_relu").build((2,), gen(0)),
    MLP((4,), "leaky_relu", "quadratic", learn_gamma=True).build((2,), gen(0)),
    Reconstruction((4,)).build((2,), gen(0)),
    LinearICA("laplace").build((2,), gen(0)),
    torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)),
]


@pytest.mark.parametrize("method", ["exact", "sliced"])
@pytest.mark.parametrize("which", range(len(KINKED)))
def test_kinks_are_refused(which, method):
    model = model_of(KINKED[which], normal_base(2))
    with pytest.raises(ValueError, match=r"energy must be twice differentiable .*got \w+"):
        ScoreMatching(method).init(model, rows(20, 2, dtype=torch.float32), gen(0))
    DenoisingScoreMatching().init(model, rows(20, 2, dtype=torch.float32), gen(0))


@pytest.mark.parametrize("source", [LinearICA(), MLP((4,), "silu"), Reconstruction((4,), "tanh")])
def test_smooth_energies_are_not_refused(source):
    model = model_of(source.build((2,), gen(0)), normal_base(2))
    ScoreMatching().init(model, rows(20, 2, dtype=torch.float32), gen(0))


def test_exact_loss_of_components_is_their_closed_form():
    energy, x = LinearICA().build((3,), gen(0)).double(), rows()
    half = torch.tanh(x @ energy.B / 2)
    score, curvature = -half @ energy.B.T, (1 - half.square()) / 2 @ energy.B.square().sum(0)
    truth = 0.5 * score.square().sum(1) - curvature
    torch.testing.assert_close(per_row(ScoreMatching(), model_of(energy), x), truth)


@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_denoising_is_stationary_at_the_smoothed_density(sigma):
    x = rows(500_000, 1)
    objective = DenoisingScoreMatching(sigma)

    def scaled(k):
        return model_of(Quadratic(k))

    truth, cap = 1 / (1 + sigma**2), 0.01 * sigma**2
    assert_mean(slopes(objective, scaled, x, truth), 0.0, largest_stderr=cap)
    with pytest.raises(AssertionError):  # the density of the rows themselves
        assert_mean(slopes(objective, scaled, x, 1.0), 0.0, largest_stderr=1.0)


class Smoothed(torch.nn.Module):
    """k times minus the log density of N(0, 1) plus noise with one of these levels."""

    def __init__(self, k, levels):
        super().__init__()
        self.k, self.levels = k, torch.as_tensor(levels, dtype=DOUBLE)

    def forward(self, x):
        parts = torch.distributions.Normal(0.0, (1 + self.levels**2).sqrt()).log_prob(x)
        return -self.k * parts.logsumexp(1)


def test_levels_are_stationary_at_the_density_smoothed_by_their_mixture():
    x, cap = rows(100_000, 1), 2e-4
    objective = DenoisingScoreMatching(0.1, n_levels=3, max_noise_std=2.5)
    levels = objective._levels(x)
    torch.testing.assert_close(levels, torch.tensor([0.1, 0.5, 2.5], dtype=DOUBLE))

    def scaled(levels):
        return lambda k: model_of(Smoothed(k, levels))

    assert_mean(slopes(objective, scaled(levels), x), 0.0, largest_stderr=cap)
    with pytest.raises(AssertionError):
        assert_mean(slopes(objective, scaled(levels[:1]), x), 0.0, largest_stderr=1.0)


def test_denoising_with_levels_of_one_size_is_that_level():
    x, model = rows(), model_of(Quadratic(1.7))
    one = per_row(DenoisingScoreMatching(0.3), model, x)
    y = torch.empty_like(x).normal_(generator=gen(5)) * 0.3
    truth = 0.5 * (-0.3 * 1.7 * (x + y) + y / 0.3).square().sum(1)
    torch.testing.assert_close(one, truth)
    several = DenoisingScoreMatching(0.3, n_levels=4, max_noise_std=0.3)
    assert several._levels(x).tolist() == pytest.approx([0.3] * 4)
    default = DenoisingScoreMatching(0.3, n_levels=2)._levels(x)
    assert default.tolist() == pytest.approx([0.3, 3.0])


def test_denoising_of_a_base_alone_is_that_of_the_same_energy():
    x = rows(dtype=torch.float32)
    for objective in (DenoisingScoreMatching(0.3), DenoisingScoreMatching(0.3, 3)):
        alone = per_row(objective, model_of(Zero(), normal_base(3, 0.7)), x)
        torch.testing.assert_close(alone, per_row(objective, model_of(Quadratic(0.7**-2)), x))


OBJECTIVES = [
    ScoreMatching(),
    ScoreMatching("sliced", 2, "rademacher"),
    DenoisingScoreMatching(0.3),
    DenoisingScoreMatching(0.1, 4),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_step_descends_on_the_mean_loss(objective):
    energy, x = randomized(MLP((6, 4), n_frequencies=3)), rows(30)
    model = model_of(energy, temperature=2.0)
    state = objective.init(model, x, gen(0))
    truth = parameter_gradients(energy, per_row(objective, model, x, seed=7).mean())
    at_data, loss = (energy(x).mean() / 2).item(), per_row(objective, model, x, seed=7).mean()
    _, row = objective.step(model, state, lambda: x, gen(7))
    for p, gradient in zip(energy.parameters(), truth, strict=True):
        torch.testing.assert_close(p.grad if p.grad is not None else 0 * p, gradient)
    assert row["loss"].item() == pytest.approx(loss.item())
    assert math.isfinite(row["data_energy"]) and abs(row["data_energy"].item() - at_data) < 1


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_held_out_rows_are_judged_by_likelihood(objective):
    x = rows(30, dtype=torch.float32)
    model = model_of(Quadratic(0.5), normal_base(3))
    state = objective.init(model, x, gen(0))
    found = objective.validate(model, state, x, gen(1))
    truth = (-0.25 * x.square().sum(1)).mean().item() - tilted_log_z(3, 0.5)
    assert abs(found.gain - truth) < 0.05 and found.ess > 1000
    without = model_of(Quadratic(), None)
    judged = objective.validate(without, objective.init(without, x, gen(0)), x, gen(1))
    value = -0.5 * x.square().sum(1).mean().item() - gaussian_log_z(3)
    assert abs(judged.gain - value) < 0.05


@pytest.mark.parametrize(
    ("objective", "error", "match"),
    [
        (ScoreMatching("dsm"), ValueError, r"method .*'exact', 'sliced'.* got 'dsm'"),
        (ScoreMatching(n_projections=0), ValueError, "n_projections .*>= 1.* got 0"),
        (ScoreMatching(projections="sphere"), ValueError, "projections .* got 'sphere'"),
        (DenoisingScoreMatching(0.0), ValueError, r"noise_std .*> 0, got 0\.0"),
        (DenoisingScoreMatching("auto"), TypeError, "noise_std .* got 'auto'"),
        (DenoisingScoreMatching(n_levels=0), ValueError, "n_levels .*>= 1, got 0"),
        (DenoisingScoreMatching(0.5, 2, 0.1), ValueError, r"max_noise_std .*>= 0\.5, got 0\.1"),
    ],
    ids=repr,
)
def test_bad_parameters_of_objectives(objective, error, match):
    with pytest.raises(error, match=match):
        objective.init(model_of(Quadratic(), normal_base(3)), rows(dtype=torch.float32), gen(0))


# -- the estimator ---------------------------------------------------------------------------------


def tiny(**params):
    defaults = {
        "base": "gaussian",
        "max_iter": 6,
        "batch_size": 32,
        "eval_every": 2,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=2048, max_samples=2048),
        "validation_fraction": 0,  # nothing held out: the trained energy is always kept
        "random_state": 0,
    }
    return ScoreMatchingDensity(**{**defaults, **params})


def table(n=150, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(3.0, size=(n, 2)) * [1.0, 50.0] + [0.0, 1e3]


def assert_same(a, b):
    X = table(seed=1)
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    np.testing.assert_array_equal(a.score_function(X), b.score_function(X))
    np.testing.assert_array_equal(a.sample(20, random_state=3), b.sample(20, random_state=3))


METHODS = ["denoising", "multi-level", "exact", "sliced"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
def test_fit_save_load_pickle(method, tmp_path):
    est = tiny(method=method).fit(table())
    assert not isinstance(est.energy_, Zero)
    est.save(tmp_path / "model")
    loaded = ScoreMatchingDensity.load(tmp_path / "model")
    assert loaded.get_params()["method"] == method
    for other in (loaded, pickle.loads(pickle.dumps(est)), tiny(method=method).fit(table())):
        assert_same(est, other)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_reach_the_objective(method):
    est = ScoreMatchingDensity(
        method=method, noise_std=0.2, n_levels=3, max_noise_std=0.6, n_projections=2
    )
    truths = {
        "denoising": DenoisingScoreMatching(0.2, 1, 0.6, Optimization()),
        "multi-level": DenoisingScoreMatching(0.2, 3, 0.6, Optimization()),
        "exact": ScoreMatching("exact", 2, "rademacher", Optimization()),
        "sliced": ScoreMatching("sliced", 2, "rademacher", Optimization()),
    }
    assert est._objectives(Optimization()) == [truths[method]]


def test_warm_start_goes_on():
    est = tiny(warm_start=True).fit(table())
    before = est.energy_samples(table())
    est.fit(table())
    assert est.n_iter_ == 12 and not np.array_equal(est.energy_samples(table()), before)


def test_a_checkpoint_is_taken_up(tmp_path):
    whole = tiny(max_iter=20).fit(table())

    def stop(state):
        if state.iteration == 10:
            raise KeyboardInterrupt

    est = tiny(max_iter=20, checkpoint_dir=str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skebm.estimators._callbacks.FitTask.on_validation", lambda _, s: stop(s))
        with pytest.warns(ConvergenceWarning, match="interrupted after 10 of 20"):
            est.fit(table())
    assert est.n_iter_ == 10
    est.fit(table())
    assert est.n_iter_ == 20
    assert_same(est, whole)


@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
def test_samples_without_a_base_above_32_columns_stay_finite():
    X = np.random.RandomState(0).randn(60, 33)
    est = tiny(base=None, energy=MLP((8,), output="quadratic"), log_partition=None).fit(X)
    assert est.sample(5).shape == (5, 33) and np.isfinite(est.sample(5)).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_energy_earns_its_place_on_two_moons(method):
    moons = two_moons()
    X, fresh = moons.sample(1500, 0), moons.sample(1000, 1)
    params = {"base": "gaussian", "max_iter": 150, "batch_size": 128, "random_state": 0}
    energy = MLP((48, 48), n_frequencies=16)
    est = ScoreMatchingDensity(method=method, energy=energy, **params).fit(X)
    gain, stderr = est.validation_gain_
    assert gain > 3 * stderr and stderr < 0.15
    alone = GaussianMixture().fit(X)
    lift = est.score_samples(fresh) - alone.score_samples(fresh)
    assert lift.mean() > 4 * lift.std() / math.sqrt(len(lift))
    assert alone.score(fresh) + 0.15 < est.score(fresh) < -moons.entropy
