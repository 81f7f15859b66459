"""Chains against their exact stationary laws."""

import numpy as np
import pytest
import torch

from skebm.energies import MLP, Model
from skebm.samplers import MALA, Langevin, as_target, run
from tests.closed_forms import (
    Quadratic,
    assert_mean,
    assert_variance,
    langevin_variance,
    mala_acceptance,
    quadratic,
)
from tests.generators import gen


def normal(n, d=1, scale=1.0, seed=0, dtype=torch.float64):
    return scale * torch.randn(n, d, dtype=dtype, generator=gen(seed))


def gaussian(s):
    return lambda x: (0.5 * (x / s).square().sum(-1), -x / s**2)


# -- Langevin --------------------------------------------------------------------------------------


def test_the_formula_gives_the_published_numbers():
    assert langevin_variance(5e-4, 0.01, 0.05) == pytest.approx(2.7778e-4, rel=1e-4)
    assert langevin_variance(0.05, 0.1**0.5) == pytest.approx(1.025641, rel=1e-6)
    assert langevin_variance(0.1, 0.2**0.5) == pytest.approx(1.0526, rel=1e-4)


@pytest.mark.parametrize(
    "sampler, s, n_steps",
    [
        (Langevin(5e-4, noise_std=0.01), 0.05, 60),  # USP toy
        (Langevin(0.05), 1.0, 60),
        (Langevin.from_eta(0.1), 1.0, 60),  # SP
        (Langevin(0.5), 1.0, 30),  # a third too wide
        (Langevin(1.5), 1.0, 60),  # overshoots, still stable
        (Langevin(0.05, temperature=0.005), 0.1**0.5, 60),
    ],
    ids=repr,
)
def test_langevin_has_its_known_biased_variance(sampler, s, n_steps):
    a, b = sampler.step_size, sampler.noise_scale
    truth = langevin_variance(a, b, s)
    x = normal(40_000, scale=truth**0.5)  # starts on the stationary law: a wrong step leaves it
    state, info = run(sampler, gaussian(s), x, n_steps, gen(1))
    assert_mean(state.x[:, 0], 0, 0.0051 * truth**0.5)
    assert_variance(state.x[:, 0], truth, 0.0075)
    assert info.acceptance == 1 and float(info.step_size) == pytest.approx(a)


def test_one_step_is_the_formula():
    x = normal(5, 3)
    state, info = run(Langevin(0.2, noise_std=0.7), gaussian(2.0), x, 1, gen(1))
    z = torch.empty_like(x).normal_(generator=gen(1))
    torch.testing.assert_close(state.x, x - 0.2 * x / 4 + 0.7 * z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(info.energy, (x / 2).square().sum(-1) / 2)


@pytest.mark.parametrize("sampler", [Langevin(0.02), MALA(0.6)], ids=repr)
def test_temperature_sets_the_variance(sampler):
    k, temperature = 4.0, 0.3
    model = Model(Quadratic(k), None, temperature)
    s = (temperature / k) ** 0.5
    sampler = sampler.set_params(step_size=sampler.step_size * s**2)
    truth = langevin_variance(0.02, 0.04**0.5) * s**2 if isinstance(sampler, Langevin) else s**2
    state, _ = run(sampler, model, normal(40_000, scale=truth**0.5), 40, gen(1))
    assert_variance(state.x[:, 0], truth, 0.0075)


# -- MALA ------------------------------------------------------------------------------------------

ROUGH = 0.4  # Langevin's variance is 1 / (1 - 0.2): a quarter too wide


def test_mala_leaves_exact_draws_where_they_are_in_distribution():
    assert langevin_variance(ROUGH, (2 * ROUGH) ** 0.5) > 1.2
    state, info = run(MALA(ROUGH), quadratic, normal(40_000), 20, gen(1))
    x = state.x[:, 0]
    assert_mean(x, 0, 0.0051)
    assert_variance(x, 1, 0.0075)
    assert_mean(x**4, 3, 0.05)
    assert_mean((x.abs() > 2).double(), 0.0455002639, 0.0011)
    assert 0.5 < info.acceptance < 0.99


def test_mala_reaches_the_target_from_far():
    state, _ = run(MALA(ROUGH), quadratic, torch.full((20_000, 1), 5.0).double(), 60, gen(1))
    assert_mean(state.x[:, 0], 0, 0.0075)
    assert_variance(state.x[:, 0], 1, 0.011)


@pytest.mark.parametrize("eps", [0.4, 1.2])
def test_acceptance_is_that_of_the_closed_form(eps):
    _, info = run(MALA(eps), quadratic, normal(100_000), 1, gen(1))
    rng = np.random.default_rng(0)
    exact = mala_acceptance(eps, *rng.standard_normal((2, 100_000)))
    stderr = exact.std() / np.sqrt(100_000 / 2)
    assert stderr < 0.002 and abs(float(info.acceptance) - exact.mean()) < 4 * stderr


def test_rejected_chains_stay_and_the_step_counts():
    x = normal(2000)
    sampler = MALA(3.0)
    state, info = run(sampler, quadratic, x, 1, gen(1))
    stayed = (state.x == x).all(1)
    assert_mean(stayed.double(), 1 - float(info.acceptance), 0.012)
    assert 0.2 < stayed.double().mean() and state.n_taken == 1
    for carried, fresh in zip(state[1:3], quadratic(state.x), strict=True):
        assert carried.equal(fresh)
    assert run(sampler, quadratic, x, 7, gen(1))[0].n_taken == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["energy", "score"])
def test_unsound_proposals_are_never_accepted(value, where):
    def target(x):
        energy, score = quadratic(x)
        bad = x[:, 0] > 0.5
        if where == "energy":
            return torch.where(bad, value, energy), score
        return energy, torch.where(bad[:, None], value, score)

    x = -normal(500).abs()
    state, info = run(MALA(0.5), target, x, 30, gen(1))
    assert (state.x[:, 0] <= 0.5).all() and state.x.isfinite().all()
    assert state.energy.isfinite().all() and 0 < info.acceptance < 1
    assert not state.x.equal(x)


@pytest.mark.parametrize("start", [0.1, 30.0])
def test_warm_up_reaches_its_target_and_freezes(start):
    sampler = MALA(start, n_warmup=150, target_accept=0.8)
    warm, _ = run(sampler, quadratic, normal(2000, 5), 150, gen(1))
    later, info = run(sampler, quadratic, warm.x, 50, gen(2), state=warm)
    assert later.log_step.equal(warm.log_step) and later.n_taken == 200
    assert float(info.step_size) == pytest.approx(float(warm.log_step.exp()))
    assert float(info.acceptance) == pytest.approx(0.8, abs=0.03)
    assert_variance(later.x[:, 0], 1, 0.04)


def test_the_step_is_fixed_without_warm_up():
    state, _ = run(MALA(0.3), quadratic, normal(10), 20, gen(1))
    assert float(state.log_step.exp()) == pytest.approx(0.3)


# -- run -------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("sampler", [Langevin(0.1), MALA(0.5, n_warmup=6)], ids=repr)


@both
def test_same_seed_same_bits_and_no_global_randomness(sampler):
    before = torch.get_rng_state()
    x = normal(20, 3)
    kept = x.clone()
    one, two, other = (run(sampler, quadratic, x, 9, gen(s))[0].x for s in (1, 1, 2))
    assert one.equal(two) and not one.equal(other) and x.equal(kept)
    assert torch.get_rng_state().equal(before)


@both
def test_a_run_in_two_parts_is_one_run(sampler):
    x = normal(20, 3)
    whole, _ = run(sampler, quadratic, x, 10, gen(1))
    generator = gen(1)
    part, _ = run(sampler, quadratic, x, 4, generator)
    part, _ = run(sampler, quadratic, torch.zeros(1, 3), 6, generator, state=part)
    for one, two in zip(whole, part, strict=True):
        assert torch.as_tensor(one).equal(torch.as_tensor(two))


@both
def test_no_steps_return_the_start(sampler):
    x, generator = normal(5, 2), gen(1)
    state, info = run(sampler, quadratic, x, 0, generator)
    assert state.x.equal(x) and info.acceptance == 1
    assert generator.get_state().equal(gen(1).get_state())


@both
@pytest.mark.parametrize("closed_form", [True, False])
def test_no_graph_and_no_parameter_gradients(sampler, closed_form):
    energy = MLP((8,), output="quadratic").build((2,), gen(0)) if closed_form else Quadratic()
    state, info = run(sampler, energy, normal(5, 2, dtype=torch.float32), 3, gen(1))
    assert not state.x.requires_grad and not info.energy.requires_grad
    assert all(p.grad is None for p in energy.parameters())


@both
def test_rows_of_any_shape(sampler):
    def images(x):
        return 0.5 * x.square().flatten(1).sum(1), -x

    x = normal(4, 12)
    flat, _ = run(sampler, quadratic, x, 5, gen(1))
    shaped, _ = run(sampler, images, x.view(4, 3, 2, 2), 5, gen(1))
    torch.testing.assert_close(shaped.x.flatten(1), flat.x)


def test_targets():
    energy, x = Quadratic(2.0), normal(3, 2, dtype=torch.float32)
    for target in (energy, Model(energy, None, 1.0), lambda x: (x.square().sum(-1), -2 * x)):
        potential, score = as_target(target)(x)
        torch.testing.assert_close(potential.detach(), x.square().sum(-1))
        torch.testing.assert_close(score, -2 * x)


@pytest.mark.parametrize(
    "sampler, error, match",
    [
        (Langevin(0.0), ValueError, r"step_size must be a number > 0, got 0\.0"),
        (Langevin("fast"), TypeError, "step_size .* got 'fast'"),
        (Langevin(temperature=-1), ValueError, "temperature .* got -1"),
        (Langevin(noise_std=-0.1), ValueError, r"noise_std .* got -0\.1"),
        (MALA(-1), ValueError, "step_size .* got -1"),
        (MALA(n_warmup=2.5), TypeError, r"n_warmup .* got 2\.5"),
        (MALA(n_warmup=-1), ValueError, "n_warmup .* got -1"),
        (MALA(target_accept=1.5), ValueError, r"target_accept .* got 1\.5"),
        (MALA(target_accept=0), ValueError, "target_accept .* got 0"),
    ],
    ids=repr,
)
def test_bad_parameters(sampler, error, match):
    with pytest.raises(error, match=match):
        run(sampler, quadratic, normal(2), 1, gen(0))
