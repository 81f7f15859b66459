"""Linear independent component analysis against scipy's sources and the change of variables."""

import re

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import digamma

from skebm import HybridCDDensity
from skebm.datasets import ICADensity
from skebm.energies import LinearICA, Model
from skebm.energies.ica import ICAEnergy
from skebm.partition import Auto
from skebm.train import HeldOutLikelihood
from tests.closed_forms import ICA_CEILINGS, assert_mean, grid, normal_base
from tests.generators import gen, randn

SOURCES = {"logistic": stats.logistic, "laplace": stats.laplace}
each_source = pytest.mark.parametrize("source", SOURCES)
D = 3


def matrix(d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(d, d))


def machine(source="logistic", d=D, seed=0):
    return ICAEnergy(torch.from_numpy(matrix(d, seed)), source)


def log_density(B, source, x):
    return SOURCES[source].logpdf(x @ B).sum(1) + np.linalg.slogdet(B)[1]


# -- the density -----------------------------------------------------------------------------------


@each_source
@pytest.mark.parametrize("d", [1, 3, 10])
def test_log_density_is_the_change_of_variables(source, d):
    density, x = ICADensity(matrix(d), source), 5 * randn(20, d).numpy()
    expected = log_density(matrix(d), source, x)
    np.testing.assert_allclose(density.log_density(x), expected, rtol=1e-12)
    exact = d * float(SOURCES[source].entropy()) - np.linalg.slogdet(matrix(d))[1]
    assert density.entropy == pytest.approx(exact, rel=1e-7)


@each_source
def test_draws_are_sources_once_unmixed(source):
    B = matrix()
    s = ICADensity(B, source).sample(20_000, 0) @ B
    variance, fourth = (float(SOURCES[source].moment(k)) for k in (2, 4))
    for j in range(D):
        assert_mean(s[:, j], 0, 0.013)
        assert_mean(s[:, j] ** 2, variance, 0.05)
        assert_mean(s[:, j] ** 4, fourth, 2.5)
        for k in range(j):
            assert_mean(s[:, j] * s[:, k], 0, 0.024)
            assert_mean(s[:, j] ** 2 * s[:, k] ** 2, variance**2, 0.4)


@each_source
def test_ceilings_of_ten_columns(source):
    ceilings = [-ICADensity.random(10, source, seed).entropy for seed in range(400)]
    assert_mean(ceilings, ICA_CEILINGS[source], 0.05)


def test_matrices_are_gaussian_under_the_condition():
    matrices = [ICADensity.random(4, random_state=seed).B for seed in range(300)]
    assert max(map(np.linalg.cond, matrices)) < 4
    B = np.array(matrices)
    assert_mean(B.ravel(), 0, 0.015)
    log_det = [np.linalg.slogdet(one)[1] for one in matrices]
    free = 0.5 * sum(digamma(k / 2) + np.log(2) for k in range(1, 5))
    assert np.mean(log_det) > free + 0.5  # without the condition
    scalar = [ICADensity.random(1, random_state=seed).B[0, 0] for seed in range(400)]
    assert_mean(np.square(scalar), 1, 0.08)


@pytest.mark.parametrize(
    "B, source, message",
    [
        (np.ones(3), "logistic", "B must have shape (d, d), got (3,)."),
        (np.ones((2, 3)), "logistic", "B must have shape (d, d), got (2, 3)."),
        (np.ones((2, 2)), "logistic", "B must be invertible, got rank 1 in 2 dimensions."),
        (np.eye(2), "cauchy", "source must be one of ['logistic', 'laplace'], got 'cauchy'."),
        ([[np.inf]], "logistic", "B must be finite, got 1 non-finite values."),
    ],
)
def test_bad_parameters_of_the_density(B, source, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ICADensity(B, source)
    with pytest.raises(ValueError, match=r"n_features must be an integer >= 1, got 0\."):
        ICADensity.random(0)


# -- the energy ------------------------------------------------------------------------------------


@each_source
def test_energy_is_minus_the_log_density(source):
    x = 5 * randn(7, D)
    expected = torch.from_numpy(-log_density(matrix(), source, x.numpy()))
    torch.testing.assert_close(machine(source)(x), expected, rtol=1e-12, atol=1e-12)
    assert machine(source).exact_log_partition() == 0.0


def test_energy_is_finite_far_out():
    for source in SOURCES:
        energy = machine(source).float()
        value, gradient = energy.value_and_gradient(torch.full((1, D), 1e4))
        assert value.isfinite().all() and gradient.isfinite().all()


def test_the_gradient_of_the_likelihood_has_the_determinant():
    energy, x = machine(), randn(50, D)
    (gradient,) = torch.autograd.grad(energy(x).mean(), energy.B)
    s, B = x @ energy.B.detach(), energy.B.detach()
    expected = x.T @ (s / 2).tanh() / 50 - B.inverse().T
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


# -- why score matching is invalid for Laplace sources ---------------------------------------------


def score_matching(energy, x):
    """Mean of |score|^2 / 2 + tr d score: exact score matching as it is computed."""
    _, gradient = energy.value_and_gradient(x)
    return float((0.5 * gradient.square().sum(1) - energy.laplacian(x).detach()).mean())


def scaled(source, b):
    return ICAEnergy(torch.tensor([[float(b)]], dtype=torch.float64), source)


def test_score_matching_of_laplace_sources_drives_the_scale_to_zero():
    x = torch.from_numpy(stats.laplace.rvs(size=(1000, 1), random_state=0))
    for b in (0.1, 0.5, 1.0, 2.0):
        assert score_matching(scaled("laplace", b), x) == pytest.approx(b**2 / 2, rel=1e-12)
    assert not machine("laplace").twice_differentiable


def test_score_matching_of_logistic_sources_finds_the_scale():
    x, cell = grid(-60, 60, 4000, 1)
    weight = torch.from_numpy(stats.logistic.pdf(x[:, 0].numpy())) * cell
    scales = np.array([0.5, 0.9, 1.0, 1.1, 2.0])
    losses = []
    for b in scales:
        _, gradient = scaled("logistic", b).value_and_gradient(x)
        curvature = scaled("logistic", b).laplacian(x).detach()
        losses.append(float(weight @ (0.5 * gradient[:, 0].square() - curvature)))
    assert scales[np.argmin(losses)] == 1.0
    assert losses[2] == pytest.approx(-1 / 6, abs=1e-9)  # minus half of E tanh(s/2)^2 = 1/3
    assert machine("logistic").twice_differentiable


# -- the component ---------------------------------------------------------------------------------


def test_the_initial_matrix_is_a_random_orthogonal_one():
    B = LinearICA().build((6,), gen(0)).B.detach()
    torch.testing.assert_close(B.T @ B, torch.eye(6), rtol=0, atol=1e-5)
    assert LinearICA().build((6,), gen(0)).B.equal(B)
    assert not LinearICA().build((6,), gen(1)).B.equal(B)
    many = torch.stack([LinearICA().build((2,), gen(seed)).B.detach() for seed in range(400)])
    assert_mean(many[:, 0, 0], 0, 0.036)  # uniform over rotations and reflections
    assert_mean(many[:, 0, 0] ** 2, 0.5, 0.018)
    assert_mean(torch.linalg.det(many) > 0, 0.5, 0.026)


def test_a_given_initial_matrix():
    module = LinearICA(init=matrix()).build((D,), gen(0))
    assert module.B.detach().equal(torch.from_numpy(matrix()).float())


@pytest.mark.parametrize(
    "init, message",
    [
        (np.eye(2), "init must have shape (3, 3), got (2, 2)."),
        (np.ones((3, 3)), "init must be invertible, got rank 1 in 3"),
        (np.full((3, 3), np.nan), "init must be finite, got 9"),
    ],
    ids=range(3),
)
def test_bad_initial_matrices(init, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LinearICA(init=init).build((3,), gen(0))


# -- exact log Z where it is asked for -------------------------------------------------------------


def test_auto_takes_zero_without_a_base_at_temperature_one():
    energy = machine(d=2).float()
    exact = Auto().estimate(Model(energy, None, 1.0), normal_base(2), gen(0))
    assert exact == (0.0, 0.0, float("inf"), "exact")
    assert Auto().estimate(Model(energy, normal_base(2), 1.0), normal_base(2), gen(0))[3] != "exact"
    warm = Auto().estimate(Model(energy, None, 2.0), normal_base(2, 3.0), gen(0))
    assert warm.method in ("quadrature", "importance") and abs(warm.value) > 0.5


def test_held_out_likelihood_is_the_mean_log_density_in_fifty_columns():
    model, x = Model(machine(d=50), None, 1.0), randn(40, 50)
    held_out = HeldOutLikelihood(model, x, gen(0))(model, x)
    truth = log_density(matrix(50), "logistic", x.numpy())
    assert held_out.value == held_out.gain == pytest.approx(truth.mean(), rel=1e-12)
    assert held_out.ess == float("inf")
    assert held_out.stderr == pytest.approx(truth.std(ddof=1) / 40**0.5, rel=1e-12)


@pytest.fixture(scope="module")
def fitted():
    X = ICADensity(2 * matrix(2, seed=3)).sample(300, 0)
    est = HybridCDDensity(energy=LinearICA(), base=None, max_iter=60, random_state=0)
    return est.fit(X), X


def test_an_estimator_is_normalized_exactly(fitted):
    est, X = fitted
    assert est.log_partition_ == (0.0, 0.0, float("inf"), "exact")
    standardizer, B = est.density_.transform, est.energy_.B.double().numpy()
    truth = log_density(B / standardizer.scale[:, None], "logistic", X - standardizer.location)
    np.testing.assert_allclose(est.score_samples(X), truth, atol=1e-5)
    values = [row["validation"] for row in est.history_]
    assert values[-1] > values[0] + 0.01


def test_samples_are_of_the_model_and_not_of_its_proposal(fitted):
    est, _ = fitted
    B = est.energy_.B.double().numpy() / est.density_.transform.scale[:, None]
    rows = est.sample(10_000, random_state=1)
    assert_mean(-est.score_samples(rows), ICADensity(B).entropy, 0.013)
    s = (rows - est.density_.transform.location) @ B
    for level in (1.0, 4.0):
        assert_mean(abs(s.ravel()) > level, 2 * stats.logistic.sf(level), 0.0036)
    assert est.sample_info_.n_candidates > 10_000  # exact draws of the proposal would be 10,000
