"""The rings' script: directions that a step cannot learn, the bank, the diagonal."""

import argparse

import numpy as np
import pytest
import torch

from examples.papers.hcd import rings
from skebm.energies import MLP, energy_and_score
from skebm.samplers import Langevin, run


def variance(k, step, temperature, n_chains=40_000, n_steps=300):
    """Return the variance of chains on k x^2 / 2, and its standard error."""

    def target(x):
        return k * 0.5 * x.square().sum(1), -k * x

    x = torch.zeros(n_chains, 1, dtype=torch.float64)
    sampler = Langevin.from_temperature(step, temperature)
    # the step multiplies the gradient of E, and the noise is sqrt(2 step T)
    state, _ = run(sampler, target, x, n_steps, torch.Generator().manual_seed(0))
    value = float(state.x.var())
    return value, value * (2 / n_chains) ** 0.5


@pytest.mark.parametrize("k", [2.0, 5.858, 20.0, 34.14])
def test_no_curvature_makes_chains_thinner_than_the_bound(k):
    step, temperature = rings.PAPER_STEP, rings.TEMPERATURE
    value, error = variance(k, step, temperature)
    assert abs(value - 2 * temperature / (k * (2 - step * k))) < 4 * error
    assert value > 2 * step * temperature - 4 * error
    assert (2 * step * temperature) ** 0.5 == pytest.approx(0.02236, abs=1e-5)


def test_the_thin_direction_has_no_fixed_point_and_with_noise_it_has():
    k, factor = rings.thin_direction(0.01)
    assert np.isnan(k) and np.isnan(factor)
    k, factor = rings.thin_direction(float(np.hypot(0.01, 0.03)))
    assert (k, factor) == (pytest.approx(5.8579, abs=1e-4), pytest.approx(0.70711, abs=1e-5))
    value, error = variance(k, rings.PAPER_STEP, rings.TEMPERATURE)
    assert abs(value - 1e-3) < 4 * error


def test_gradient_descent_on_the_brackets_stands_still_there_and_diverges_without_noise():
    step, temperature = rings.PAPER_STEP, rings.TEMPERATURE

    def learnt(sd):
        k = 1.0
        for _ in range(4000):
            chains = 2 * temperature / (k * (2 - step * k))
            k += 2000 * (chains - sd**2) / 2
            if k >= 2 / step:  # where chains diverge
                return np.inf
        return k

    assert learnt(float(np.hypot(0.01, 0.03))) == pytest.approx(5.8579, abs=1e-3)
    assert learnt(0.01) == np.inf


def test_a_diagonal_beside_a_perceptron_has_the_derivatives_of_autograd():
    rng = torch.Generator().manual_seed(0)
    component = rings.PlusDiagonal(MLP((8,), output="quadratic", n_frequencies=0))
    module = component.build((3,), rng).double()
    with torch.no_grad():
        module.log_diagonal.copy_(torch.tensor([0.3, -1.0, 2.0]))
    x = torch.randn(5, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    value = module(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    energy, score = energy_and_score(module, x.detach())
    assert torch.allclose(energy, value.detach()) and torch.allclose(score, -gradient)
    alone = module.energy(x) + 0.5 * (x.square() * module.log_diagonal.exp()).sum(1)
    assert torch.allclose(value, alone)


@pytest.mark.parametrize("mode", ["quick", "full"])
@pytest.mark.parametrize("setting", ["safe", "preconditioned"])
def test_a_bank_is_drawn_from_as_often_as_the_papers(mode, setting, tmp_path):
    args = argparse.Namespace(mode=mode, smoke=False, output=tmp_path)
    est = rings.estimator("persistent", setting, 0, args)
    draws = est.max_iter * est.batch_size / est.init.bank.size
    assert draws == pytest.approx(10_000 * 100 / 60_000, rel=0.01)


def test_rows_with_noise_have_their_density():
    x = rings.rings("safe").sample(20_000, random_state=0)
    x = x + rings.BLUR * np.random.default_rng(0).standard_normal(x.shape)
    values = rings.rings("blurred").log_density(x)
    entropy = rings.rings("blurred").entropy
    assert abs(values.mean() + entropy) < 4 * values.std() / len(x) ** 0.5
