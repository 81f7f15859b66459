"""Chains against their exact stationary laws."""

import numpy as np
import pytest
import torch

from skebm.energies import MLP, Model
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank, SGHMCState, as_target, run
from tests.closed_forms import (
    Quadratic,
    assert_mean,
    assert_variance,
    langevin_variance,
    mala_acceptance,
    quadratic,
    sghmc_covariance,
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


# -- SGHMC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "eta, k, printed, symplectic",
    [(0.01, 1, 1.010, 1.00003), (0.01, 44.4, 1.80, 1.001), (0.01, 99, 100, 1.002)],
)
def test_the_printed_order_is_wrong_by_the_known_factor(eta, k, printed, symplectic):
    euler = k * sghmc_covariance(eta, 1, 1, k, "euler")[0, 0]
    assert euler == pytest.approx(printed, rel=0.02)
    assert k * sghmc_covariance(eta, 1, 1, k)[0, 0] == pytest.approx(symplectic, abs=6e-4)


def test_the_printed_order_diverges_where_friction_is_small():
    with pytest.raises(AssertionError, match="diverges"):
        sghmc_covariance(0.01, 1, 1, 120, "euler")
    x = normal(200, scale=120**-0.5)
    state, _ = run(SGHMC(0.01, scheme="euler"), gaussian(120**-0.5), x, 3000, gen(1))
    assert state.x.var() > 100 / 120


@pytest.mark.parametrize(
    "sampler, k, n_steps",
    [
        (SGHMC(0.01), 44.4, 60),
        (SGHMC(0.05, friction=2.0, mass=0.5), 44.4, 60),
        (SGHMC(0.4, friction=0.7, mass=2.0), 3.0, 60),  # 4 % too wide
        (SGHMC(1.2, friction=0.7), 1.0, 60),  # half too wide
        (SGHMC(0.01, scheme="euler"), 44.4, 60),  # the printed order
    ],
    ids=repr,
)
def test_sghmc_has_its_known_biased_covariance(sampler, k, n_steps):
    covariance = sghmc_covariance(
        sampler.step_size, sampler.friction, sampler.mass, k, sampler.scheme
    )
    n = 40_000
    z = torch.randn(n, 2, dtype=torch.float64, generator=gen(0))
    start = z @ torch.linalg.cholesky(torch.from_numpy(covariance)).T  # the stationary law
    at = SGHMCState(start[:, :1], start[:, 1:])
    state, info = run(sampler, gaussian(k**-0.5), at.x, n_steps, gen(1), state=at)
    x, r = state.x[:, 0], state.momentum[:, 0]
    assert_variance(x, covariance[0, 0], 0.0075)
    assert_variance(r, covariance[1, 1], 0.0075)
    scale = (covariance[0, 0] * covariance[1, 1]) ** 0.5
    assert_mean(x * r / scale, covariance[0, 1] / scale, 0.0075)
    assert info.acceptance == 1 and float(info.step_size) == pytest.approx(sampler.step_size)


def test_sghmc_draws_momenta_by_their_mass_and_forgets_the_start():
    fresh, _ = run(SGHMC(1e-6, friction=0.0, mass=4.0), quadratic, normal(20_000), 1, gen(1))
    assert_variance(fresh.momentum[:, 0], 4.0, 0.011)
    far = torch.full((20_000, 1), 5.0, dtype=torch.float64)
    state, _ = run(SGHMC(0.2), quadratic, far, 150, gen(1))
    assert_mean(state.x[:, 0], 0, 0.0075)
    assert_variance(state.x[:, 0], sghmc_covariance(0.2, 1, 1, 1)[0, 0], 0.011)


def test_large_friction_is_langevin():
    eta, friction = 0.5, 100.0
    # momentum in equilibrium: x moves by the mean of r, eta^2 / (eta C) of the force per step
    state, _ = run(SGHMC(eta, friction=friction, mass=50.0), quadratic, normal(40_000), 30, gen(1))
    truth = sghmc_covariance(eta, friction, 50.0, 1.0)[0, 0]
    assert truth == pytest.approx(
        langevin_variance(eta / friction, (2 * eta / friction) ** 0.5), rel=0.01
    )
    assert_variance(state.x[:, 0], truth, 0.0075)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize(
    "sampler",
    [Langevin(0.005), MALA(0.05), HMC(0.15, n_leapfrog=3), SGHMC(0.05)],
    ids=repr,
)
def test_steps_that_are_stated_for_the_energy(sampler, temperature):
    """x <- x - a grad E + sqrt(2 a T) z, and its kin: the law is exp(-E/T)."""
    k = 4.0
    model = Model(Quadratic(k), None, temperature)
    start = normal(40_000, scale=(temperature / k) ** 0.5)
    state, _ = run(sampler.for_energy(temperature), model, start, 60, gen(1))
    truth = temperature / k
    if isinstance(sampler, Langevin):
        a = sampler.step_size
        truth = langevin_variance(a * k, (2 * a * temperature) ** 0.5)
    if isinstance(sampler, SGHMC):  # in units of sqrt(T) the chain at T = 1
        scaled = sampler.for_energy(temperature)
        truth = sghmc_covariance(scaled.step_size, scaled.friction, 1, k / temperature)[0, 0]
    assert_variance(state.x[:, 0], truth, 0.0075)


def test_decoupled_noise_is_not_scaled_by_temperature():
    sampler = Langevin(0.1, noise_std=0.3).for_energy(0.5)
    assert sampler.step_size == pytest.approx(0.05) and sampler.noise_scale == 0.3


# -- HMC -------------------------------------------------------------------------------------------

LONG = 1.2  # two leapfrog steps on N(0, 1) that Metropolis has to correct


def test_hmc_leaves_exact_draws_where_they_are_in_distribution():
    state, info = run(HMC(LONG, n_leapfrog=2), quadratic, normal(40_000), 20, gen(1))
    x = state.x[:, 0]
    assert_mean(x, 0, 0.0051)
    assert_variance(x, 1, 0.0075)
    assert_mean(x**4, 3, 0.055)
    assert 0.5 < info.acceptance < 0.95


def test_mala_and_hmc_are_unbiased_where_langevin_is_a_fifth_off():
    eps = 1 / 3  # 1 / (1 - eps / 2) = 1.2
    assert langevin_variance(eps, (2 * eps) ** 0.5) == pytest.approx(1.2)
    far = torch.full((40_000, 1), 2.0, dtype=torch.float64)
    for sampler, truth in (
        (Langevin(eps), 1.2),
        (MALA(eps), 1.0),
        (HMC((2 * eps) ** 0.5, n_leapfrog=1), 1.0),
        (HMC(LONG, n_leapfrog=2), 1.0),
    ):
        state, _ = run(sampler, quadratic, far, 60, gen(1))
        assert_mean(state.x[:, 0], 0, 0.0056)
        assert_variance(state.x[:, 0], truth, 0.0075)


def test_one_leapfrog_step_is_mala():
    eps, x = 0.5, normal(300, 2)
    mala, one = run(MALA(eps), quadratic, x, 1, gen(1))
    hmc, two = run(HMC((2 * eps) ** 0.5, n_leapfrog=1), quadratic, x, 1, gen(1))
    torch.testing.assert_close(hmc.x, mala.x)
    torch.testing.assert_close(two.acceptance, one.acceptance)


@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_the_trajectory_is_reversible_and_keeps_its_volume(mass):
    def bumpy(x):
        return (x.cos() + 0.5 * x.square()).sum(-1), x.sin() - x

    sampler, step = HMC(n_leapfrog=7, mass=mass), torch.tensor(0.2, dtype=torch.float64)
    x, r = normal(1, 2, seed=3), normal(1, 2, seed=4)

    def flow(start):
        state = sampler.init(bumpy, start[:1])
        end, _, _, momentum = sampler._trajectory(bumpy, state, start[1:], step)
        return torch.cat([end, momentum])

    there = flow(torch.cat([x, r]))
    back = flow(torch.cat([there[:1], -there[1:]]))
    torch.testing.assert_close(back, torch.cat([x, -r]), rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(flow, torch.cat([x, r])).reshape(4, 4)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-10)


def test_hmc_warm_up_reaches_its_target():
    warm, _ = run(
        HMC(0.1, n_warmup=150, target_accept=0.8), quadratic, normal(2000, 5), 150, gen(1)
    )
    _, info = run(HMC(float(warm.log_step.exp())), quadratic, warm.x, 50, gen(2))
    assert float(info.acceptance) == pytest.approx(0.8, abs=0.04)


def test_the_mass_only_rescales_time():
    x = normal(200, 2)
    one, _ = run(HMC(0.3), quadratic, x, 5, gen(1))
    two, _ = run(HMC(0.6, mass=4.0), quadratic, x, 5, gen(1))
    torch.testing.assert_close(one.x, two.x, rtol=1e-4, atol=1e-5)  # log steps are float32


# -- the bank --------------------------------------------------------------------------------------


def ones(n):
    return torch.ones(n, 2)


def test_a_bank_starts_as_noise_and_changes_only_the_rows_it_gave():
    bank = SampleBank(size=50)
    points = bank.init(ones)
    rows, starts = bank.draw(points, 20, ones, gen(0))
    assert points.shape == (50, 2) and starts.equal(points[rows])
    assert len(rows.unique()) == 20 and rows.min() >= 0 and rows.max() < 50
    bank.write(points, rows, starts + 1)
    changed = (points != 1).all(1)
    assert changed.sum() == 20 and changed[rows].all()
    again, _ = bank.draw(points, 20, ones, gen(0))
    assert again.equal(rows) and not bank.draw(points, 20, ones, gen(1))[0].equal(rows)


def test_every_row_of_the_bank_is_as_likely():
    bank, rng, counts = SampleBank(size=7), gen(0), torch.zeros(7)
    for _ in range(4000):
        rows, _ = bank.draw(torch.zeros(7, 1), 3, ones, rng)
        counts[rows] += 1
    share = counts.numpy() / 4000
    stderr = (3 / 7 * 4 / 7 / 4000) ** 0.5
    assert stderr < 0.008 and abs(share - 3 / 7).max() < 4 * stderr


@pytest.mark.parametrize("refresh", ["iteration", "chain"])
def test_the_refresh_rate_is_met(refresh):
    bank, rng = SampleBank(size=40, refresh_rate=0.05, refresh=refresh), gen(0)
    fresh = torch.stack(
        [bank.draw(torch.zeros(40, 2), 10, ones, rng)[1].mean() for _ in range(8000)]
    )
    assert_mean(fresh, 0.05, 0.0026)
    all_or_none = ((fresh == 0) | (fresh == 1)).all()
    assert all_or_none == (refresh == "iteration")


def test_a_lost_chain_leaves_its_row_alone():
    bank, points = SampleBank(size=4), ones(4)
    ends = torch.tensor([[2.0, 2.0], [float("nan"), 0.0], [float("inf"), 1.0]])
    bank.write(points, torch.tensor([0, 1, 3]), ends)
    assert points.equal(torch.tensor([[2.0, 2.0], [1, 1], [1, 1], [1, 1]]))


def test_a_bank_smaller_than_the_batch_is_refused():
    with pytest.raises(ValueError, match="bank_size .* 9 rows of a batch, got 4"):
        SampleBank(size=4).draw(ones(4), 9, ones, gen(0))


# -- run -------------------------------------------------------------------------------------------

both = pytest.mark.parametrize(
    "sampler",
    [Langevin(0.1), MALA(0.5, n_warmup=6), HMC(0.5, n_warmup=6), SGHMC(0.1)],
    ids=repr,
)


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
    rng = gen(1)
    part, _ = run(sampler, quadratic, x, 4, rng)
    part, _ = run(sampler, quadratic, torch.zeros(1, 3), 6, rng, state=part)
    for one, two in zip(whole, part, strict=True):
        assert torch.as_tensor(one).equal(torch.as_tensor(two))


@both
def test_energy_and_score_belong_together(sampler):
    _, info = run(sampler, gaussian(2.0), normal(20, 3), 4, gen(1))
    torch.testing.assert_close(info.energy, 2 * info.score.square().sum(1))  # U = |x|^2/8, s = -x/4


@both
def test_no_steps_return_the_start(sampler):
    x, rng = normal(5, 2), gen(1)
    state, info = run(sampler, quadratic, x, 0, rng)
    assert state.x.equal(x) and info.acceptance == 1
    assert rng.get_state().equal(gen(1).get_state())


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
