"""Score matching: losses against closed forms, and which energies they refuse."""

import math

import pytest
import torch

from skebm.energies import MLP, Energy, LinearICA, Model, Reconstruction, Zero
from skebm.networks import ConvNet, FeedForward
from skebm.objectives import DenoisingScoreMatching, ScoreMatching
from tests.closed_forms import Quadratic, assert_mean, assert_variance, normal_base
from tests.generators import gen, randomized

DOUBLE = torch.float64


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
    energy, x = (
        randomized(MLP((6, 4), n_frequencies=3, learn_gamma=True).build((3,), gen(0)).double()),
        rows(20_000),
    )
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

    def scaled(levels):
        return lambda k: model_of(Smoothed(k, levels))

    assert_mean(slopes(objective, scaled([0.1, 0.5, 2.5]), x), 0.0, largest_stderr=cap)
    for wrong in ([0.1], [0.1, 1.3, 2.5]):
        with pytest.raises(AssertionError):
            assert_mean(slopes(objective, scaled(wrong), x), 0.0, largest_stderr=1.0)


@pytest.mark.parametrize("n_levels", [1, 4])
def test_denoising_with_levels_of_one_size_is_that_level(n_levels):
    x, rng = rows(), gen(5)
    if n_levels > 1:
        torch.zeros(len(x), dtype=torch.long).random_(n_levels, generator=rng)  # whose level
    y = torch.empty_like(x).normal_(generator=rng) * 0.3
    truth = 0.5 * (-0.3 * 1.7 * (x + y) + y / 0.3).square().sum(1)
    objective = DenoisingScoreMatching(0.3, n_levels, max_noise_std=0.3)
    torch.testing.assert_close(per_row(objective, model_of(Quadratic(1.7)), x), truth)


def test_levels_span_a_factor_of_ten_by_default():
    ten, nine, default = (
        per_row(DenoisingScoreMatching(0.3, 2, most), model_of(Quadratic(1.7)), rows())
        for most in (3.0, 2.7, None)
    )
    assert torch.equal(default, ten) and not torch.equal(default, nine)


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
    energy, x = randomized(MLP((6, 4), n_frequencies=3).build((3,), gen(0)).double()), rows(30)
    model = model_of(energy, temperature=2.0)
    state = objective.init(model, x, gen(0))
    truth = parameter_gradients(energy, per_row(objective, model, x, seed=7).mean())
    at_data, loss = (energy(x).mean() / 2).item(), per_row(objective, model, x, seed=7).mean()
    _, row = objective.step(model, state, lambda: x, gen(7))
    for p, gradient in zip(energy.parameters(), truth, strict=True):
        torch.testing.assert_close(p.grad if p.grad is not None else 0 * p, gradient)
    assert row["loss"].item() == pytest.approx(loss.item())
    assert math.isfinite(row["data_energy"]) and abs(row["data_energy"].item() - at_data) < 1
