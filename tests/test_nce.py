"""Noise-contrastive and exact likelihood: losses against closed forms, log Z, the estimator."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from skebm.bases import Gaussian, Kernel, Mixture, Uniform
from skebm.data import ArrayTable
from skebm.energies import GaussianBernoulliRBM, LinearICA, Model, Zero
from skebm.objectives import (
    ConditionalNoiseContrastive,
    ExactLikelihood,
    NoiseContrastive,
    Optimization,
)
from skebm.objectives.noise_contrastive import best_log_z, logistic_loss
from skebm.train import Settings, train
from tests import cases
from tests.cases import table
from tests.closed_forms import (
    Quadratic,
    assert_estimate,
    assert_mean,
    gaussian_log_z,
    normal_base,
    tilted_log_z,
)
from tests.generators import gen

D = 2
STILL = Optimization(1e-12, method="sgd", schedule="constant", weight_decay=0.0)


def rows(n, seed=1, d=D):
    return torch.randn(n, d, generator=gen(seed))


def log_normal(x, scale=1.0):
    return Normal(0.0, scale).log_prob(x).sum(1)


def learnt(state):
    return state.modules["log_z"].value.item()


def mean_gradients(objective, model, *, log_z=None, n_steps=150, n=500):
    """Gradients of many independent steps that go nowhere: in k and, where there is one, in c."""
    state = objective.init(model, rows(50), gen(0))
    found, rng = [], gen(3)
    if log_z is not None:
        with torch.no_grad():
            state.modules["log_z"].value.fill_(log_z)
    for i in range(n_steps):
        state, _ = objective.step(model, state, lambda i=i: rows(n, seed=100 + i), rng)
        players = [model.energy.k] + ([] if log_z is None else [state.modules["log_z"].value])
        found.append([float(p.grad) for p in players])
    return np.array(found)


# -- noise-contrastive -----------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_loss_is_that_of_logistic_regression_on_densities(ratio):
    x, k, c, t = rows(40), 1.7, 0.3, 2.0
    noise, base = normal_base(D, 1.5), normal_base(D, 0.8)
    model = Model(Quadratic(k), base, t)
    objective = NoiseContrastive(noise, ratio, STILL)
    state = objective.init(model, x, gen(0))
    with torch.no_grad():
        state.modules["log_z"].value.fill_(c)
    u = noise.sample(round(40 * ratio), gen(7))
    _, row = objective.step(model, state, lambda: x, gen(7))

    def log_odds(rows):
        log_p = -k * rows.square().sum(1) / 2 / t + log_normal(rows, 0.8) - c
        return log_p - log_normal(rows, 1.5) - math.log(ratio)

    h, g = log_odds(x).sigmoid(), log_odds(u).sigmoid()
    truth = -h.log().mean() - ratio * (1 - g).log().mean()
    torch.testing.assert_close(row["loss"], truth)
    torch.testing.assert_close(row["data_energy"], k * x.square().sum(1).mean() / 2 / t)
    assert row["log_z"].item() == pytest.approx(c)


def test_without_noise_of_its_own_the_base_is_the_noise():
    x, base = rows(40), normal_base(D, 1.5)
    losses = []
    for noise in (None, base):
        model = Model(Quadratic(0.4), base, 1.0)
        objective = NoiseContrastive(noise, 2.0, STILL)
        _, row = objective.step(model, objective.init(model, x, gen(0)), lambda: x, gen(7))
        losses.append(row["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_gradient_is_zero_at_the_truth(ratio):
    objective = NoiseContrastive(normal_base(D, 1.5), ratio, STILL)
    found = mean_gradients(objective, Model(Quadratic(1.0), None, 1.0), log_z=gaussian_log_z(D))
    for values in found.T:
        assert_mean(values, 0.0, largest_stderr=4e-3)
    for k, c in ((1.1, gaussian_log_z(D, 1.1)), (1.0, gaussian_log_z(D) + 0.1)):
        wrong = mean_gradients(objective, Model(Quadratic(k), None, 1.0), log_z=c)
        with pytest.raises(AssertionError):
            for values in wrong.T:
                assert_mean(values, 0.0, largest_stderr=1.0)


def test_log_z_is_learnt():
    noise = normal_base(D, 1.5)
    model = Model(Quadratic(0.3), None, 1.0)
    settings = Optimization(0.02, weight_decay=0.0)
    objective = NoiseContrastive(noise, 4.0, settings)
    state = objective.init(model, rows(500), gen(0))
    with torch.no_grad():
        state.modules["log_z"].value.zero_()
    rng = gen(1)
    for i in range(400):
        factor = 0.5 * (1 + math.cos(math.pi * i / 400))
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["lr"] = factor * optimizer.param_groups[0]["initial_lr"]
        state, _ = objective.step(model, state, lambda i=i: rows(500, seed=i + 9), rng)
    assert abs(learnt(state) - gaussian_log_z(D)) < 0.05
    assert abs(model.energy.k.item() - 1) < 0.05


def test_log_z_starts_where_the_loss_is_least():
    x, k = rows(20_000), 0.6
    base = normal_base(D)
    model = Model(Quadratic(k), base, 1.0)
    objective = NoiseContrastive(None, 2.0)
    state = objective.init(model, x * (1 + k) ** -0.5, gen(0))  # rows of the model itself
    assert abs(learnt(state) - tilted_log_z(D, k)) < 0.02
    faster = state.optimizers["log_z"].param_groups[0]
    slower = state.optimizers["energy"].param_groups[0]
    assert faster["lr"] == 10 * slower["lr"] and faster["weight_decay"] == 0
    assert slower["weight_decay"] > 0


@pytest.mark.parametrize("n_noise", [300, 1000])
@pytest.mark.parametrize("shift", [0.0, 900.0])
def test_best_log_z_is_a_zero_of_the_gradient(n_noise, shift):
    at_data, at_noise = rows(500, 1, 1)[:, 0] + 1 + shift, rows(n_noise, 2, 1)[:, 0] + shift
    c = torch.tensor(best_log_z(at_data, at_noise), dtype=torch.float64, requires_grad=True)
    logistic_loss(at_data.double() - c, at_noise.double() - c).backward()
    assert abs(float(c.grad)) < 1e-6


def test_best_log_z_of_equal_ratios_is_their_value_and_of_infinite_ones_none():
    assert best_log_z(torch.full((7,), 0.3), torch.full((999,), 0.3)) == pytest.approx(0.3)
    assert math.isnan(best_log_z(torch.tensor([1.0, math.inf]), torch.zeros(3)))


# -- conditional -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_noise", [1, 3])
def test_conditional_loss_is_explicit_and_free_of_the_normalizer(n_noise):
    x, k, t = rows(40), 1.7, 2.0
    y = x.repeat(n_noise, 1)
    y = y + 0.3 * torch.empty_like(y).normal_(generator=gen(7))
    objective = ConditionalNoiseContrastive(0.3, n_noise, STILL)
    for base, precision in ((None, k / t), (normal_base(D, 0.8), k / t + 0.8**-2)):
        gain = precision * (y.square().sum(1) - x.repeat(n_noise, 1).square().sum(1)) / 2
        model = Model(Quadratic(k), base, t)
        _, row = objective.step(model, objective.init(model, x, gen(0)), lambda: x, gen(7))
        torch.testing.assert_close(row["loss"], 2 * (1 + (-gain).exp()).log().mean())
        torch.testing.assert_close(row["data_energy"], k * x.square().sum(1).mean() / 2 / t)
        torch.testing.assert_close(row["accuracy"], (gain > 0).float().mean())


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_conditional_gradient_is_zero_at_the_truth(sigma):
    objective = ConditionalNoiseContrastive(sigma, 2, STILL)
    found = mean_gradients(objective, Model(Quadratic(1.0), None, 1.0), n_steps=300)
    assert_mean(found[:, 0], 0.0, largest_stderr=0.01)
    with pytest.raises(AssertionError):
        wrong = mean_gradients(objective, Model(Quadratic(1.3), None, 1.0), n_steps=300)
        assert_mean(wrong[:, 0], 0.0, largest_stderr=1.0)


@pytest.mark.parametrize(
    ("noise", "match"),
    [(None, "a density of its own .* got None"), (Gaussian(), r"a fitted .* got Gaussian\(\)")],
)
def test_noise_is_a_fitted_density(noise, match):
    with pytest.raises(ValueError, match=f"noise must be {match}"):
        NoiseContrastive(noise).init(Model(Quadratic(), None, 1.0), rows(20), gen(0))


# -- exact likelihood ------------------------------------------------------------------------------


def test_exact_likelihood_descends_on_the_mean_energy():
    energy, x = LinearICA().build((D,), gen(0)), rows(50)
    model, objective = Model(energy, None, 1.0), ExactLikelihood(STILL)
    state = objective.init(model, x, gen(0))
    (truth,) = torch.autograd.grad(energy(x).mean(), energy.B)
    _, row = objective.step(model, state, lambda: x, gen(0))
    torch.testing.assert_close(energy.B.grad, truth)
    assert row["loss"].item() == pytest.approx(energy(x).mean().item())


def test_exact_likelihood_finds_independent_components():
    u = torch.rand(12_000, D, generator=gen(0)).clamp(1e-6, 1 - 1e-6)
    mixing = torch.tensor([[1.0, 0.6], [-0.4, 0.7]])
    x = u.logit() @ mixing
    truth = LinearICA(init=torch.linalg.inv(mixing).numpy()).build((D,), gen(0))
    model = Model(LinearICA().build((D,), gen(1)), None, 1.0)
    fresh, before = x[8000:], model.energy(x[8000:]).mean().item()
    objective = ExactLikelihood(Optimization(0.02, weight_decay=0.0))
    train(model, objective, ArrayTable(x[:8000]), settings=Settings(300), rng=gen(2))
    excess = (model.energy(fresh) - truth(fresh)).detach().double()
    stderr = excess.std().item() / math.sqrt(len(excess))
    assert_estimate(excess.mean().item(), stderr, 0.0, largest_stderr=0.005)
    assert before - model.energy(fresh).mean().item() > 0.05


MACHINE, COMPONENTS = (part.build((D,), gen(0)) for part in (GaussianBernoulliRBM(3), LinearICA()))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Model(Quadratic(), None, 1.0), "energy must be normalized .* got Quadratic with None"),
        (Model(MACHINE, None, 1.0), "energy must be normalized .* got RBMEnergy with"),
        (Model(COMPONENTS, normal_base(D), 1.0), "base must be None .* got MixtureBase"),
        (Model(COMPONENTS, None, 2.0), r"temperature must be 1 .* got 2\.0"),
    ],
    ids=["network", "machine", "base", "temperature"],
)
def test_exact_likelihood_wants_a_normalized_energy(model, match):
    with pytest.raises(ValueError, match=match):
        ExactLikelihood().init(model, rows(20), gen(0))


# -- the estimator ---------------------------------------------------------------------------------

tiny = partial(cases.tiny, "NCEDensity")


def test_aliases_of_noise_are_their_components():
    found = []
    for noise in (Gaussian(), Kernel(), Mixture(), Uniform()):
        one, two = (tiny(noise=n).fit(table()) for n in (noise, type(noise).__name__.lower()))
        np.testing.assert_array_equal(one.energy_samples(table()), two.energy_samples(table()))
        found.append(one.energy_samples(table())[0])
    assert len(set(found)) == 4


class Watched(Gaussian):
    """Keeps what it was fitted to."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def fit(self, x, weight, rng):
        self.seen.append((x, super().fit(x, weight, rng)))
        return self.seen[-1][1]


def test_noise_is_fitted_to_the_weighted_rows():
    """Their weighted mean is 0 in standardized space, their plain mean is not."""
    X, seen = table(), []
    est = tiny().set_params(noise=Watched(seen))
    est.fit(X, sample_weight=np.where(X[:, 0] > 3, 9.0, 1.0))
    ((x, noise),) = seen
    assert x.mean(0)[0] < -0.3
    assert abs(noise.sample(10_000, gen(0))[:, 0].mean()) < 0.1


@pytest.mark.parametrize("noise", ["base", "gaussian"])
def test_the_learned_log_z_agrees_with_the_estimated_one(noise):
    X = table(1500)
    est = tiny(noise=noise, max_iter=200, noise_ratio=8.0, learning_rate=5e-3).fit(X)
    assert abs(est.energy_samples(X)).max() > 0.5
    assert abs(est.noise_log_partition_ - est.log_partition_.value) < 0.05
    rows = [row for row in est.history_ if "log_z" in row]
    assert len(rows) == 8 and abs(rows[-1]["log_z"] - est.log_partition_.value) < 0.15


def test_without_a_base_noise_gives_log_z():
    X = np.random.RandomState(0).randn(1000, D)
    params = {"base": None, "energy": lambda _: Quadratic(0.3)}
    params["optimizer"] = Optimization(0.05, weight_decay=0.0)
    est = tiny(noise="gaussian", max_iter=100, batch_size=256, **params).fit(X)
    truth = gaussian_log_z(D, est.energy_.k.item())
    assert abs(est.energy_.k.item() - 1) < 0.1
    assert abs(est.noise_log_partition_ - truth) < 0.05
    with pytest.raises(ValueError, match="noise must be a density of its own .* got None"):
        tiny(**params).fit(X)


def test_a_dropped_energy_has_log_z_0():
    X = np.random.RandomState(0).randn(100, D)
    fits = (tiny(random_state=seed, validation_fraction=0.1).fit(X) for seed in range(5))
    dropped = next(est for est in fits if isinstance(est.energy_, Zero))
    assert dropped.noise_log_partition_ == dropped.log_partition_.value == 0.0


def test_warm_start_goes_on_with_other_noise():
    est = tiny(warm_start=True, noise="mixture").fit(table())
    before = est.energy_samples(table())
    est.set_params(noise="kernel").fit(table())
    assert est.n_iter_ == 8 and not np.array_equal(est.energy_samples(table()), before)
