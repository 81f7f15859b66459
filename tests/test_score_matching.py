"""Score matching: derivatives against autograd, losses against closed forms, and the estimator."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from skebm import ScoreMatchingDensity
from skebm.datasets import two_moons
from skebm.energies import (
    MLP,
    Conv,
    LinearICA,
    Model,
    Reconstruction,
    Zero,
    build_energy,
    differentiable_score,
    directional_derivative,
    laplacian,
)
from skebm.energies.bounded import Bounded
from skebm.objectives import DenoisingScoreMatching, Optimization, ScoreMatching
from tests import cases
from tests.closed_forms import (
    Quadratic,
    assert_mean,
    assert_variance,
    autograd_score,
    gaussian_log_z,
    normal_base,
    tilted_log_z,
)
from tests.generators import gen

DOUBLE = torch.float64
PARTS = ["hidden_sizes", "activation", "output", "n_frequencies", "learn_gamma"]
NETWORKS = [
    ((5,), "silu", "identity", 0, False),
    ((6, 4), "silu", "identity", 4, False),
    ((4, 5, 3), "softplus", "identity", 3, False),
    ((6, 4), "tanh", "identity", 3, False),
    ((6, 4), "leaky_relu", "identity", 3, False),
    ((6, 4), "silu", "quadratic", 3, False),
    ((6, 4), "tanh", "linear-quadratic", 0, False),
    ((6, 4), "softplus", "linear-quadratic", 3, True),
    ((6, 4), "leaky_relu", "identity", 0, True),
]


def randomized(component, shape=(3,), seed=0):
    """A module in float64 whose every parameter is nonzero."""
    module = component.build(shape, gen(seed)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.7 * torch.randn(p.shape, dtype=DOUBLE, generator=gen(seed + p.numel())))
    return module


def network(hidden_sizes, activation, output, n_frequencies, learn_gamma, **params):
    parts = {"n_frequencies": n_frequencies, "learn_gamma": learn_gamma, **params}
    return randomized(MLP(hidden_sizes, activation, output, **parts))


def rows(n=7, d=3, seed=1, dtype=DOUBLE):
    return torch.randn(n, d, dtype=dtype, generator=gen(seed))


def by_double_backward(energy, x, v):
    leaf = x.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=True)
    return (gradient * v).flatten(1).sum(1)


def hessian_trace(energy, x):
    def of_row(row):
        return energy(row[None])[0]

    return torch.stack([torch.autograd.functional.hessian(of_row, row).trace() for row in x])


def parameter_gradients(energy, loss):
    parameters = list(energy.parameters())
    return torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)


def assert_same_gradients(energy, ours, truth):
    got, expected = parameter_gradients(energy, ours), parameter_gradients(energy, truth)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert max(float(g.abs().max()) for g in got) > 1e-3


# -- derivatives -----------------------------------------------------------------------------------


@pytest.mark.parametrize(PARTS, NETWORKS)
def test_directional_derivative_is_double_backward(
    hidden_sizes, activation, output, n_frequencies, learn_gamma
):
    energy = network(hidden_sizes, activation, output, n_frequencies, learn_gamma)
    x, v, w = rows(), rows(seed=2), rows(seed=3)[:, 0]
    assert hasattr(energy, "directional_derivative")
    ours, truth = directional_derivative(energy, x, v), by_double_backward(energy, x, v)
    torch.testing.assert_close(ours, truth, rtol=1e-11, atol=1e-12)
    assert_same_gradients(energy, ours @ w, truth @ w)


@pytest.mark.parametrize(PARTS, NETWORKS)
def test_directional_derivative_passes_gradients_to_rows_and_directions(
    hidden_sizes, activation, output, n_frequencies, learn_gamma
):
    energy = network(hidden_sizes, activation, output, n_frequencies, learn_gamma)
    x, v = rows().requires_grad_(True), rows(seed=2).requires_grad_(True)
    by_x, by_v = torch.autograd.grad(
        energy.directional_derivative(x, v).sum(), (x, v), materialize_grads=True, allow_unused=True
    )
    (truth,) = torch.autograd.grad(by_double_backward_keeping(energy, x, v).sum(), x)
    torch.testing.assert_close(by_x, truth, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(by_v, autograd_score(energy, x), rtol=1e-10, atol=1e-12)


def by_double_backward_keeping(energy, x, v):
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    return (gradient * v.detach()).sum(1) + 0 * x.sum()


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_directional_derivative_knows_the_slope(slope):
    energy = network((6, 4), "leaky_relu", "identity", 0, False, negative_slope=slope)
    x, v = rows(40), rows(40, seed=2)
    truth = by_double_backward(energy, x, v)
    torch.testing.assert_close(energy.directional_derivative(x, v), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("component", [MLP((5,)), Conv((4,), hidden_sizes=(3,), learn_gamma=True)])
def test_images_are_differentiated_as_flat_rows(component):
    module = build_energy(component, {}, (1, 4, 4), gen(0)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(generator=gen(p.numel()))
    x, v = rows(3, 16), rows(3, 16, seed=2)
    truth = by_double_backward(module, x, v)
    torch.testing.assert_close(directional_derivative(module, x, v), truth)
    torch.testing.assert_close(-(differentiable_score(module, x) * v).sum(1), truth)
    torch.testing.assert_close(laplacian(module, x), hessian_trace(module, x))


def test_a_squared_convolution_is_differentiated_without_a_closed_form():
    energy = randomized(Conv((4,), hidden_sizes=(3,), output="linear-quadratic"), (1, 4, 4))
    x, v = rows(3, 16).view(3, 1, 4, 4), rows(3, 16, seed=2).view(3, 1, 4, 4)
    ours, truth = directional_derivative(energy, x, v), by_double_backward(energy, x, v)
    torch.testing.assert_close(ours, truth)
    assert_same_gradients(energy, ours.sum(), truth.sum())


def test_a_bounded_energy_is_flat_along_columns_outside():
    module = network((6,), "silu", "identity", 3, False)
    bound = torch.ones(3, dtype=DOUBLE)
    energy = Bounded(module, -bound, bound)
    x, v = 2 * rows(40), rows(40, seed=2)
    inside = x.abs() <= 1
    truth = module.directional_derivative(x.clamp(-1, 1), v * inside)
    assert 0.2 < inside.double().mean() < 0.8
    torch.testing.assert_close(directional_derivative(energy, x, v), truth)
    torch.testing.assert_close(laplacian(energy, x), hessian_trace(energy, x))


@pytest.mark.parametrize("output", ["identity", "quadratic"])
def test_laplacian_is_the_trace_of_the_hessian(output):
    energy, x = network((6, 4), "silu", output, 3, True), rows()
    torch.testing.assert_close(laplacian(energy, x), hessian_trace(energy, x))
    axes = torch.eye(3, dtype=DOUBLE)
    along = [laplacian(energy, x, axis.expand_as(x)) for axis in axes]
    torch.testing.assert_close(torch.stack(along).sum(0), hessian_trace(energy, x))
    assert_same_gradients(energy, laplacian(energy, x).sum(), torch.stack(along).sum())


def test_laplacian_takes_the_module_s_closed_form_for_the_trace_alone():
    class Known(Quadratic):
        def laplacian(self, x):
            return x.new_full((len(x),), 7.0)

    x = rows()
    assert laplacian(Known(), x).tolist() == [7.0] * len(x)
    torch.testing.assert_close(laplacian(Known(2.0), x, x), 2 * x.square().sum(1))


def test_derivatives_of_an_energy_without_curvature_or_slope_are_zero():
    x, v = rows(), rows(seed=2)
    linear = torch.nn.Sequential(torch.nn.Linear(3, 1).double(), torch.nn.Flatten(0))
    assert (laplacian(linear, x) == 0).all() and (laplacian(linear, x, v) == 0).all()
    assert (laplacian(Zero(), x) == 0).all() and (directional_derivative(Zero(), x, v) == 0).all()
    kinked = network((6, 4), "leaky_relu", "identity", 0, False)
    assert (laplacian(kinked, x, v) == 0).all()


@pytest.mark.parametrize("energy", [Quadratic(1.5, 0.5), Reconstruction((4,)).build((3,), gen(0))])
def test_differentiable_score_is_minus_the_gradient_with_a_graph(energy):
    energy, x = energy.double(), rows()
    with torch.no_grad():
        score = differentiable_score(energy, x)
    torch.testing.assert_close(score, -autograd_score(energy, x))
    assert score.requires_grad and not x.requires_grad


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
    energy, x = network((6, 4), "silu", "identity", 3, True), rows(20_000)
    model = model_of(energy)
    sliced = per_row(ScoreMatching("sliced", n_projections, projections), model, x).detach()
    exact = per_row(ScoreMatching("exact"), model, x).detach()
    assert_mean((sliced - exact).numpy(), 0.0, largest_stderr=0.07)
    trace = laplacian(energy, x).detach()
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


KINKED = [
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
    energy, x = network((6, 4), "silu", "identity", 3, False), rows(30)
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
    return cases.tiny("ScoreMatchingDensity", **{"max_iter": 6, "eval_every": 2, **params})


def table(n=150, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(3.0, size=(n, 2)) * [1.0, 50.0] + [0.0, 1e3]


METHODS = ["denoising", "multi-level", "exact", "sliced"]


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
