"""Restricted Boltzmann machines against the mixture of Gaussians that they are."""

import re

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from skebm import HybridCDDensity
from skebm.datasets import GaussianMixtureDensity, RBMDensity
from skebm.energies import MLP, Energy, GaussianBernoulliRBM, Model, energy_and_score
from skebm.energies.rbm import RBMEnergy, log_two_cosh
from skebm.partition import Auto
from skebm.samplers import Gibbs, run
from skebm.train import HeldOutLikelihood
from tests.closed_forms import assert_mean, grid, normal_base, rbm_mixture
from tests.generators import gen, randn

D, H = 3, 4


def parameters(d=D, h=H, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(d, h)), rng.normal(size=d), rng.normal(size=h)


def machine(*args, **kwargs):
    """The energy with those parameters, float64."""
    return RBMEnergy(*map(torch.from_numpy, parameters(*args, **kwargs)))


# -- the density -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d, h", [(1, 1), (3, 4), (2, 7)])
def test_the_density_is_the_listed_mixture(d, h):
    B, b, c = parameters(d, h)
    density = RBMDensity(B, b, c)
    _, means, masses, log_z = rbm_mixture(B, b, c)
    mixture = GaussianMixtureDensity(means, 1.0, masses)
    X = 3 * np.random.default_rng(2).normal(size=(20, d))
    np.testing.assert_allclose(density.log_partition, log_z, rtol=1e-13)
    np.testing.assert_allclose(density.log_density(X), mixture.log_density(X), atol=1e-12)
    np.testing.assert_allclose(density.score(X), mixture.score(X), atol=1e-12)
    assert density.entropy is None and density.n_features == d


def test_log_z_is_listed_up_to_fifteen_units():
    B, b, c = parameters(5, 16, scale=0.5)
    listed = RBMDensity(B[:, :15], b, c[:15])
    truth = rbm_mixture(B[:, :15], b, c[:15])[3]
    np.testing.assert_allclose(listed.log_partition, truth, rtol=1e-12)
    above = RBMDensity(B, b, c)
    assert above.log_partition is None
    x = randn(7, 5).numpy()  # a 16th unit of weight 0 adds log 2 cosh c to the unnormalized value
    B[:, 15] = 0
    lift = np.logaddexp(c[15], -c[15]) + listed.log_partition
    unnormalized = RBMDensity(B, b, c).log_density(x)
    np.testing.assert_allclose(unnormalized, listed.log_density(x) + lift, rtol=1e-12)


def assert_moments(X, B, b, c, largest):
    """Mean, second moments and the mass of each Gaussian, each at 4 standard errors."""
    signs, means, masses, _ = rbm_mixture(B, b, c)
    d = X.shape[1]
    for j in range(d):
        assert_mean(X[:, j], masses @ means[:, j], largest)
        for k in range(j + 1):
            truth = masses @ (means[:, j] * means[:, k]) + (j == k)
            assert_mean(X[:, j] * X[:, k], truth, 10 * largest)
    for h in range(signs.shape[1]):  # E tanh of the hidden input is the mean sign
        assert_mean(np.tanh(X @ B[:, h] / 2 + c[h]), masses @ signs[:, h], largest)


def test_exact_draws_have_the_moments():
    B, b, c = parameters()
    assert_moments(RBMDensity(B, b, c).sample(40_000, 0), B, b, c, 0.012)


@pytest.mark.parametrize("d, scale", [(2, 0.3), (18, 0.2)])
def test_above_fifteen_units_sample_runs_chains(d, scale):
    B, b, c = parameters(d, 16, scale=scale)
    density = RBMDensity(B, b, c)
    X = density.sample(10_000, 0, n_burn_in=30)
    assert_moments(X, B, b, c, 0.025)
    np.testing.assert_array_equal(
        density.sample(9, 3, n_burn_in=5), density.sample(9, 3, n_burn_in=5)
    )


def test_one_sweep_starts_at_standard_normal_rows():
    B, b, c = parameters(2, 16, seed=5)
    b = b + 5  # from there a second sweep would lead away
    X = RBMDensity(B, b, c).sample(40_000, 0, n_burn_in=1)
    z = np.random.default_rng(1).normal(size=(40_000, 2))
    expected = b + np.tanh(z @ B / 2 + c) @ B.T / 2
    for j in range(2):
        assert_mean(X[:, j] - expected[:, j], 0, 0.019)


def test_the_papers_parameters():
    density = RBMDensity.random(200, 100, random_state=0)
    assert set(np.unique(density.B)) == {-1.0, 1.0}
    assert_mean(density.B.ravel(), 0, 0.0071)
    assert_mean(np.concatenate([density.b, density.c]) ** 2, 1, 0.1)
    moved = density.perturbed(0.06, random_state=1)
    shift = (moved.B - density.B).ravel()
    assert_mean(shift, 0, 0.06 * 0.0071)
    assert_mean((shift / 0.06) ** 2, 1, 0.011)
    np.testing.assert_array_equal(moved.b, density.b)
    np.testing.assert_array_equal(moved.c, density.c)
    np.testing.assert_array_equal(density.perturbed(0, random_state=1).B, density.B)


@pytest.mark.parametrize(
    "B, b, c, message",
    [
        ([1.0], [1.0], [1.0], "B must have shape (d, h), got (1,)."),
        (np.ones((2, 0)), np.ones(2), [], "B must have shape (d, h), got (2, 0)."),
        (np.ones((2, 3)), np.ones(3), np.ones(3), "b must have shape (2,), got (3,)."),
        (np.ones((2, 3)), np.ones(2), np.ones(2), "c must have shape (3,), got (2,)."),
        ([[np.nan]], [0.0], [0.0], "B must be finite, got 1 non-finite values."),
    ],
)
def test_bad_parameters_of_the_density(B, b, c, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RBMDensity(B, b, c)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RBMDensity.random(2, 0), "n_hidden must be an integer >= 1, got 0."),
        (lambda: RBMDensity.random(0, 2), "n_visible must be an integer >= 1, got 0."),
        (lambda: RBMDensity.random(2, 3).perturbed(-1), "sigma must be a number >= 0, got -1."),
        (
            lambda: RBMDensity.random(2, 3).sample(1, n_burn_in=0),
            "n_burn_in must be an integer >= 1, got 0.",
        ),
    ],
    ids=["hidden", "visible", "sigma", "sweeps"],
)
def test_bad_calls_of_the_density(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# -- the energy ------------------------------------------------------------------------------------


def test_energy_is_minus_the_unnormalized_log_density():
    B, b, c = parameters()
    x = randn(7, D)
    density = RBMDensity(B, b, c)
    torch.testing.assert_close(
        -machine()(x), torch.from_numpy(density.log_density(x.numpy()) + density.log_partition)
    )


def test_derivatives_at_a_hidden_input_of_zero_and_far_out():
    energy = RBMEnergy(torch.ones(1, 1), torch.zeros(1), torch.zeros(1))
    x = torch.tensor([[0.0], [200.0], [-200.0]])
    torch.testing.assert_close(energy.laplacian(x), torch.tensor([0.75, 1.0, 1.0]))
    value, gradient = energy.value_and_gradient(x)
    assert value.isfinite().all()
    torch.testing.assert_close(gradient[:, 0], torch.tensor([0.0, 199.5, -199.5]))
    by_autograd = Energy.laplacian(energy, x)  # of log cosh, which autograd differentiates twice
    torch.testing.assert_close(by_autograd, energy.laplacian(x))


def test_log_two_cosh_at_every_size():
    a = torch.linspace(-30, 30, 241, dtype=torch.float64)
    value = log_two_cosh(a)
    expected = torch.from_numpy(np.logaddexp(a.numpy(), -a.numpy()))
    torch.testing.assert_close(value, expected, rtol=1e-15, atol=1e-14)
    torch.testing.assert_close(log_two_cosh(-a), value, rtol=1e-15, atol=1e-14)


def test_exact_log_z_is_the_list_and_the_integral():
    energy = machine(2, 5)
    assert energy.exact_log_partition() == pytest.approx(rbm_mixture(*parameters(2, 5))[3])
    x, cell = grid(-14, 14, 560, 2)
    with torch.no_grad():
        integral = float((-energy(x)).logsumexp(0)) + np.log(cell)
    assert energy.exact_log_partition() == pytest.approx(integral, abs=1e-10)
    assert machine(2, 16).exact_log_partition() is None
    assert machine(2, 15, scale=0.1).exact_log_partition() is not None


def test_a_broken_machine_has_no_log_z_but_nan():
    energy = machine()
    with torch.no_grad():
        energy.B[0, 0] = float("nan")
    assert np.isnan(energy.exact_log_partition())


def test_conditionals_are_those_of_the_joint_density():
    B, b, c = parameters()
    energy, x = machine(), randn(7, D)
    signs, means, *_ = rbm_mixture(B, b, c)
    joint = x.numpy() @ B @ signs.T / 2 + signs @ c  # up to what does not depend on h
    given_x = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    expected = given_x @ (signs > 0)
    torch.testing.assert_close(energy.hidden_probability(x), torch.from_numpy(expected))
    mean = energy.visible_mean(torch.from_numpy(signs))
    torch.testing.assert_close(mean, torch.from_numpy(means))


def test_initial_parameters():
    module = GaussianBernoulliRBM(n_hidden=50).build((40,), gen(0))
    assert_mean(module.B.detach().ravel(), 0, 0.01 * 0.023)
    assert_mean((module.B.detach().ravel() / 0.01) ** 2, 1, 0.038)
    assert not module.b.any() and not module.c.any()
    again = GaussianBernoulliRBM(n_hidden=50).build((40,), gen(0))
    assert again.B.equal(module.B) and module.B.dtype == torch.float32
    B, b, c = parameters()
    module = GaussianBernoulliRBM(7, B, b, c).build((D,), gen(0))
    for part, array in zip((module.B, module.b, module.c), (B, b, c), strict=True):
        torch.testing.assert_close(part.detach(), torch.from_numpy(array).float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"weights": np.ones((2, 4))}, "weights must have shape (3, h), got (2, 4)."),
        ({"weights": np.ones(3)}, "weights must have shape (3, h), got (3,)."),
        ({"weights": np.ones((3, 0))}, "weights must have shape (3, h), got (3, 0)."),
        ({"visible_bias": np.ones(4)}, "visible_bias must have shape (3,), got (4,)."),
        ({"hidden_bias": np.ones(3)}, "hidden_bias must have shape (4,), got (3,)."),
        ({"weights": np.full((3, 2), np.inf)}, "weights must be finite, got 6 non-finite values."),
    ],
    ids=range(6),
)
def test_bad_parameters_of_the_energy(params, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GaussianBernoulliRBM(4, **params).build((3,), gen(0))


# -- Gibbs sampling --------------------------------------------------------------------------------


def test_gibbs_leaves_exact_draws_where_they_are_in_distribution():
    B, b, c = parameters()
    x = torch.from_numpy(RBMDensity(B, b, c).sample(40_000, 0))
    state, info = run(Gibbs(), Model(machine(), None, 1.0), x, 3, gen(1))
    assert_moments(state.x.numpy(), B, b, c, 0.012)
    assert info.acceptance == 1 and not state.x.equal(x)


def test_gibbs_comes_from_far():
    B, b, c = parameters(scale=0.7)
    x = torch.full((20_000, D), 5.0, dtype=torch.float64)
    state, _ = run(Gibbs(), machine(scale=0.7), x, 60, gen(1))  # an energy is a model without base
    assert_moments(state.x.numpy(), B, b, c, 0.018)


def test_one_step_has_the_conditional_probabilities():
    B = 12 * np.eye(2)  # the row says which signs were drawn
    b, c = np.array([0.3, -0.2]), np.array([0.4, -0.6])
    energy = RBMEnergy(*map(torch.from_numpy, (B, b, c)))
    x = torch.tensor([[0.05, -0.1]], dtype=torch.float64).expand(40_000, 2)
    state, info = run(Gibbs(), Model(energy, None, 1.0), x, 1, gen(0))
    moved = state.x.numpy() - b
    signs = np.sign(moved)
    for j in range(2):
        truth = 1 / (1 + np.exp(-(12 * float(x[0, j]) + 2 * c[j])))
        assert 0.05 < truth < 0.95
        assert_mean(signs[:, j] > 0, truth, 0.0025)
    residual = moved - 6 * signs
    assert_mean(residual.ravel(), 0, 0.0036)
    assert_mean(residual.ravel() ** 2, 1, 0.0051)
    assert_mean(residual[:, 0] * residual[:, 1], 0, 0.0051)
    energy_before, score = energy_and_score(energy, x)
    torch.testing.assert_close(info.energy, energy_before)
    torch.testing.assert_close(info.score, score)


@pytest.mark.parametrize(
    "target, got",
    [
        (Model(MLP((3,)).build((D,), gen(0)), None, 1.0), "the energy Perceptron"),
        (Model(machine(), normal_base(D), 1.0), "the base MixtureBase"),
        (Model(machine(), None, 2.0), "temperature 2"),
        (lambda x: (machine()(x), x), "function"),
    ],
    ids=["energy", "base", "temperature", "callable"],
)
def test_gibbs_samples_nothing_else(target, got):
    rule = "a Model of a GaussianBernoulliRBM without a base at temperature 1"
    with pytest.raises(TypeError, match=re.escape(f"target must be {rule}, got {got}.")):
        run(Gibbs(), target, randn(7, D), 1, gen(0))


# -- exact log Z where it is asked for -------------------------------------------------------------


def test_auto_takes_the_exact_value_alone():
    energy, base = machine(2, 5), normal_base(2)
    result = Auto().estimate(Model(energy, None, 1.0), base, gen(0))
    assert result == (energy.exact_log_partition(), 0.0, float("inf"), "exact")
    assert result.trusted
    assert Auto().estimate(Model(energy.float(), None, 2.0), base, gen(0)).method != "exact"
    tilted = Auto().estimate(Model(energy, base, 1.0), base, gen(0))
    assert tilted.method != "exact"
    above = Auto().estimate(Model(machine(2, 16, scale=0.1).float(), None, 1.0), base, gen(0))
    assert above.method == "quadrature"


@pytest.mark.parametrize("d", [2, 40])
def test_held_out_likelihood_is_exact_in_any_number_of_columns(d):
    B, b, c = parameters(d, 5, scale=0.5)
    model = Model(machine(d, 5, scale=0.5), None, 1.0)
    x = randn(50, d)
    held_out = HeldOutLikelihood(model, x, gen(0))(model, x)
    log_p = RBMDensity(B, b, c).log_density(x.numpy())
    assert held_out.ess == float("inf")
    assert held_out.value == pytest.approx(log_p.mean(), rel=1e-12) == held_out.gain
    assert held_out.stderr == pytest.approx(log_p.std(ddof=1) / 50**0.5, rel=1e-12)


def test_held_out_likelihood_of_a_broken_machine_is_never_best():
    model = Model(machine(), None, 1.0)
    with torch.no_grad():
        model.energy.c[0] = float("nan")
    assert HeldOutLikelihood(model, randn(7, D), gen(0))(model, randn(7, D)).value == -np.inf


def test_held_out_likelihood_needs_draws_where_log_z_is_not_listed():
    model = Model(machine(33, 16, scale=0.1), None, 1.0)
    x = randn(20, 33)  # too many columns for a density near them
    assert HeldOutLikelihood(model, x, gen(0))(model, x) is None


def test_an_estimator_is_normalized_exactly():
    X = RBMDensity([[3.0], [0.0]], [1.0, 0.0], [0.5]).sample(300, 0)
    est = HybridCDDensity(
        energy=GaussianBernoulliRBM(4), base=None, standardize=False, max_iter=40, random_state=0
    ).fit(X)
    assert est.log_partition_.method == "exact"
    x, cell = grid(-12, 12, 240, 2)
    assert np.exp(est.score_samples(x.numpy())).sum() * cell == pytest.approx(1, abs=1e-5)
    assert est.history_[-1]["validation_ess"] == float("inf")
    learned = (est.energy_.B, est.energy_.b, est.energy_.c)
    truth = RBMDensity(*(part.double().numpy() for part in learned)).log_density(X)
    np.testing.assert_allclose(est.score_samples(X), truth, atol=1e-5)
    values = [row["validation"] for row in est.history_]
    assert values[-1] > values[0] + 0.05
