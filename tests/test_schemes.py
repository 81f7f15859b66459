"""The five training schemes: banks, noise, step sizes, and what the estimator keeps of them."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from skebm import HybridCDDensity
from skebm.energies import MLP, Model
from skebm.exceptions import ConvergenceError
from skebm.objectives import ChainStart, ContrastiveDivergence, EnergyStep, Optimization
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank
from tests import cases
from tests.closed_forms import Quadratic, assert_variance, normal_base
from tests.generators import gen

# a few updates without a base give no model whose log Z could be trusted
pytestmark = pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")

D = 2
QUADRATIC = MLP((8,), output="quadratic", n_frequencies=0)


def chain_start(scheme, rate=0.0, size=300, **noise):
    bank = SampleBank(size, rate) if scheme == "persistent" else None
    return ChainStart(scheme, bank=bank, **noise)


def persistent(rate=0.0, noise=None, size=300, **params):
    params = {"sampler": Langevin(0.05), "n_steps": 3, **params}
    return ContrastiveDivergence(chain_start("persistent", rate, size, **noise or {}), **params)


def step(objective, model, x, seed=1):
    state = objective.init(model, x, gen(0))
    before = copy.deepcopy(state.buffers)
    state, row = objective.step(model, state, lambda: x, gen(seed))
    return before, state, row


def rows(n=100, scale=0.7):
    return scale * torch.randn(n, D, generator=gen(5))


# -- persistent chains -----------------------------------------------------------------------------


def test_an_update_moves_exactly_the_rows_that_it_drew():
    before, state, row = step(persistent(size=600), Model(Quadratic(), None, 1.0), rows())
    moved = (before["bank"] != state.buffers["bank"]).any(1)
    assert moved.sum() == 100 and {"bank_bracket", "bank_bracket_std"} <= set(row)
    assert before["bank"].shape == (600, D)
    assert_variance(before["bank"].flatten(), 1.0, 0.06)  # N(0, I)


def test_persistent_chains_reach_the_model_where_short_ones_cannot():
    """Three steps of 0.05 from N(0, I) go a seventh of the way to a mode at 4; a bank goes on."""
    model, x, frozen = Model(Quadratic(1.0, mean=4.0), None, 1.0), rows(300), Optimization(1e-12)
    from_noise = ContrastiveDivergence("noise", sampler=Langevin(0.05), n_steps=3)
    for objective, mean in ((persistent(), 4.0), (from_noise, 4 * (1 - 0.95**3))):
        objective.set_params(optimization=frozen)
        state, rng = objective.init(model, x, gen(0)), gen(1)
        for _ in range(40):
            state, row = objective.step(model, state, lambda: x, rng)
        bracket = row["bank_bracket"] if "bank" in state.buffers else row["noise_bracket"]
        at_ends = float(0.5 * (x - 4).square().sum(1).mean() - bracket)  # mean E where chains end
        variance = 1 / (1 - 0.05 / 2) if mean == 4.0 else 1.0
        expected = D / 2 * (variance + (4 - mean) ** 2)
        stderr = math.sqrt(D * (variance**2 / 2 + variance * (4 - mean) ** 2) / 300)
        assert stderr < 0.35 and abs(at_ends - expected) < 4 * stderr


def test_a_refreshed_batch_comes_from_noise_and_goes_into_the_bank():
    objective = persistent(1.0, {"noise": "uniform", "noise_scale": 9.0}, n_steps=0)
    before, state, _ = step(objective, Model(Quadratic(), None, 1.0), rows())
    moved = (before["bank"] != state.buffers["bank"]).any(1)
    fresh = state.buffers["bank"][moved]
    assert moved.sum() == 100 and fresh.abs().max() <= 9
    assert_variance(fresh.flatten(), 81 / 3, 0.07)


def test_a_broken_fit_gets_a_fresh_bank_and_step():
    objective, model, x = persistent(sampler=MALA(0.3)), Model(Quadratic(), None, 1.0), rows()
    state = objective.init(model, x, gen(0))
    state.buffers["bank"].fill_(float("nan"))
    state.buffers["log_step"].fill_(float("nan"))
    state = objective.recover(model, state, x, gen(1))
    assert state.buffers["bank"].isfinite().all()
    assert float(state.buffers["log_step"].exp()) == pytest.approx(0.3 * 0.3)  # a rescue lowers it


# -- noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise, base, variance",
    [
        ("auto", None, 4.0),
        ("auto", 3.0, 9.0),
        ("base", 3.0, 9.0),
        ("normal", 3.0, 4.0),
        ("uniform", 3.0, 4 / 3),
    ],
)
def test_noise_is_what_was_asked_for(noise, base, variance):
    base = None if base is None else normal_base(D, base)
    start = ChainStart(noise=noise, noise_scale=2.0)
    x = start.draw(Model(Quadratic(), base, 1.0), (D,), 20_000, gen(0))
    assert_variance(x.flatten(), variance, 0.0075)
    assert (x.abs().max() <= 2) == (noise == "uniform")


def test_noise_can_be_given_rows():
    places = torch.tensor([[5.0, 6.0], [-7.0, 8.0], [1.0, 1.0]])
    model = Model(Quadratic(), normal_base(D), 1.0)
    x = ChainStart(noise=places.numpy()).draw(model, (D,), 3000, gen(0))
    which = (x[:, None] == places).all(2)
    assert which.any(1).all() and x.dtype == torch.float32
    share, stderr = which.float().mean(0), math.sqrt(2 / 9 / 3000)
    assert stderr < 0.01 and (share - 1 / 3).abs().max() < 4 * stderr


# -- step sizes ------------------------------------------------------------------------------------


def test_the_step_follows_the_energies_of_the_data():
    energy = torch.tensor([-2.0, 1.0, 3.0])
    size, mean = EnergyStep(scale=0.01)(energy, torch.tensor(5.0))
    assert float(size) == pytest.approx(0.01 / 2)
    assert float(mean) == pytest.approx(5 + 0.02 * (2 / 3 - 5))
    assert float(EnergyStep(0.01, largest=0.003)(energy, mean)[0]) == pytest.approx(0.003)
    assert float(EnergyStep(smallest=0.5, largest=1.0)(energy, mean)[0]) == 0.5
    assert float(EnergyStep()(torch.zeros(3), torch.zeros(()))[0]) == pytest.approx(0.05)


@pytest.mark.parametrize("gauge_free", [False, True])
def test_only_the_gauge_free_step_ignores_a_constant(gauge_free):
    rule, energy, sizes = EnergyStep(0.01, gauge_free), torch.tensor([-1.0, 0.0, 3.0]), []
    for constant in (0.0, 7.0):
        mean = torch.tensor(constant)  # the running mean has come to follow it
        sizes.append(float(rule(energy + constant, mean)[0]))
    assert (sizes[0] == pytest.approx(sizes[1])) == gauge_free


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("sampler", [Langevin(), MALA(), SGHMC(), HMC()], ids=repr)
def test_the_adaptive_step_is_that_of_the_chains_in_use(sampler, temperature):
    model, x = Model(Quadratic(), None, temperature), rows()
    objective = ContrastiveDivergence("data", sampler=sampler, energy_step=EnergyStep(0.01))
    size = 0.01 / float(model.energy(x).detach().abs().mean())
    _, state, row = step(objective, model, x)
    root = 0.5 if isinstance(sampler, SGHMC | HMC) else 1.0
    expected = size * temperature**root
    assert float(row["step_size"]) == pytest.approx(expected, rel=1e-4)
    current = objective.current_sampler(model, state)
    assert current.step_size == pytest.approx(expected, rel=1e-4)
    if isinstance(sampler, SGHMC):
        assert current.friction == pytest.approx(temperature**-0.5)


def test_the_force_is_the_mean_norm_where_chains_end():
    x = rows()
    objective = ContrastiveDivergence("data", sampler=MALA(1e-9), n_steps=1)
    _, _, row = step(objective, Model(Quadratic(3.0), None, 1.0), x)
    assert float(row["force"]) == pytest.approx(float(3 * x.norm(dim=1).mean()), rel=1e-3)


@pytest.mark.parametrize("sampler", [Langevin(0.02), SGHMC(0.1), HMC(0.3), MALA(0.1)], ids=repr)
@pytest.mark.parametrize("start", ["data", "noise", "hybrid", "persistent"])
def test_at_the_truth_the_gradient_vanishes(start, sampler):
    """Data from exp(-E/T) and long chains: both brackets have mean zero."""
    temperature, k = 0.5, 1.0
    model = Model(Quadratic(k), None, temperature)
    x = (temperature / k) ** 0.5 * torch.randn(4000, D, generator=gen(3))
    objective = ContrastiveDivergence(
        chain_start(start, size=4000, noise_share=1.0),
        cd_weight=1.0,
        sampler=sampler,
        n_steps=150,
        adapt_step=False,
    )
    step(objective, model, x)
    (grad,) = [p.grad for p in model.energy.parameters()]
    n_brackets = 2 if start == "hybrid" else 1
    stderr = (2 * 2 * D * (temperature / k) ** 2 / 4 / 4000) ** 0.5 * n_brackets
    bias = 0.03 * n_brackets * D * temperature / 2  # finite steps of the unadjusted chains
    assert stderr < 0.03 and abs(float(grad)) < 4 * stderr + bias


# -- optimizers ------------------------------------------------------------------------------------


def test_gradient_descent_takes_the_plain_step():
    model, x = Model(Quadratic(1.0), None, 1.0), rows()
    optimization = Optimization(0.1, method="sgd", weight_decay=0.5)
    objective = ContrastiveDivergence("data", n_steps=2, optimization=optimization)
    step(objective, model, x)
    (k,) = model.energy.parameters()
    assert float(k.detach()) == pytest.approx(1 - 0.1 * (float(k.grad) + 0.5), rel=1e-5)


# -- the estimator ---------------------------------------------------------------------------------


OWN = {"energy": QUADRATIC, "base": None, "n_steps": 4, "batch_size": 64}
OWN |= {"log_partition": "importance", "validation_fraction": 0.1, "max_iter": 6}
small = partial(cases.tiny, "HybridCDDensity", **OWN)


def table(n=300):
    return np.random.RandomState(0).randn(n, D) * [10.0, 0.1] + [100.0, 5.0]


@pytest.mark.parametrize("scheme", ["persistent", "hybrid"])
@pytest.mark.parametrize("sampler", ["langevin", SGHMC(0.02), "mala", "hmc"])
def test_every_sampler_fits_and_leaves_its_bank(scheme, sampler):
    X, step = table(), EnergyStep(gauge_free=True) if isinstance(sampler, SGHMC) else "auto"
    start = chain_start(scheme, 0.05, size=500)
    est = small(init=start, sampler=sampler, step_size=step, temperature=0.5).fit(X)
    assert sampler in (type(est.sampler_).__name__.lower(), est.sampler)
    assert np.isfinite(est.sample(4)).all()
    if scheme == "hybrid":
        with pytest.raises(AttributeError, match="bank_ needs init='persistent'"):
            _ = est.bank_
    else:
        assert est.bank_.shape == (500, D)
        assert 50 < est.bank_[:, 0].mean() < 150  # in the units of X


@pytest.mark.parametrize("scheme", ["noise", "persistent"])
def test_chains_start_at_the_rows_given(scheme, tmp_path):
    """Units of X; chains of no length to speak of stay there."""
    X, places = table(), np.array([[130.0, 5.2], [80.0, 4.9]])
    start = chain_start(scheme, size=500, noise=places)
    params = {"sampler": "langevin", "step_size": 1e-12, "base": "gaussian", "refine": False}
    params |= {"energy": MLP((8,)), "optimizer": Optimization(1e-30), "validation_fraction": 0}
    est = small(init=start, max_iter=1, **params).fit(X)
    sampled = est.density_.transform.inverse(est.density_.noise(40, gen(0)))
    held = est.bank_ if scheme == "persistent" else sampled
    assert len(np.unique(np.round(held, 3), axis=0)) == 2
    for rows in (held, sampled):
        apart = np.abs(rows[:, None] - places).max(2)
        assert apart.min(1).max() < 1e-3 and set(apart.argmin(1)) == {0, 1}
    est.save(tmp_path / "model")
    back = HybridCDDensity.load(tmp_path / "model")
    np.testing.assert_array_equal(back.init.noise, places)
    np.testing.assert_array_equal(back.fit(X).score_samples(X), est.score_samples(X))


@pytest.mark.parametrize("init, share", [("persistent", 0.0), ("persistent-refresh", 0.05)])
def test_the_aliases_differ_in_their_refresh(init, share):
    bank = HybridCDDensity(init=init).set_params(init__noise_scale=1.0).init.bank
    assert bank.refresh_rate == share and bank.size == 60_000


def test_refreshed_chains_start_from_noise():
    """At rate 1 a bank is no memory of where the first update left chains that stand still."""
    X, ends = table(), []
    for rate in (0.0, 1.0):
        start = chain_start("persistent", rate, size=64)
        params = {"sampler": "langevin", "step_size": 1e-12, "validation_fraction": 0}
        params |= {"log_partition": None, "base": "gaussian", "refine": False}
        fits = [small(init=start, max_iter=n, **params).fit(X).bank_ for n in (1, 2)]
        ends.append(np.abs(np.sort(fits[0][:, 0]) - np.sort(fits[1][:, 0])).max())
    assert ends[0] < 1e-2 < 0.5 < ends[1]


@pytest.mark.parametrize("step_size, expected", [(0.003, 0.0015), ("adaptive", 0.025)])
def test_the_estimator_keeps_the_sampler_that_training_ended_with(step_size, expected):
    est = small(sampler="langevin", step_size=step_size, temperature=0.5, init="data").fit(table())
    if step_size == "adaptive":
        assert 0 < est.sampler_.step_size <= expected
        assert est.sampler_.step_size == pytest.approx(est.history_[-1]["step_size"], rel=0.5)
    else:
        assert est.sampler_.step_size == pytest.approx(expected)


def test_decoupled_noise_leaves_the_model_s_temperature():
    est = small(sampler=Langevin(0.1, noise_std=0.01), step_size=0.1, init="noise").fit(table())
    assert est.temperature_ == 1.0 and est.sampler_.noise_scale == 0.01


def test_without_a_base_the_held_out_likelihood_is_near_the_truth():
    """A mixture near the data is the proposal, so ten columns are no obstacle."""
    X = np.random.RandomState(0).randn(1500, 10)
    est = HybridCDDensity(
        base=None,
        energy=MLP((32,), output="quadratic", n_frequencies=0),
        sampler="mala",
        max_iter=150,
        init="hybrid",
        cd_weight=1.0,
        log_partition="importance",
        random_state=0,
    ).fit(X)
    truth = -0.5 * 10 * math.log(2 * math.pi * math.e)
    values = [row["validation"] for row in est.history_]
    assert est.log_partition_.stderr < 0.15 and max(values) > values[0] + 1
    new = np.random.RandomState(1).randn(2000, 10)
    assert truth - 5 < est.score(new) < truth + 4 * est.log_partition_.stderr + 0.1


@pytest.mark.parametrize("n_steps", [5, 40])
@pytest.mark.parametrize("scheme", ["noise", "persistent"])
def test_many_columns_without_a_base_are_sampled_as_in_training(scheme, n_steps):
    """Chains of that length from N(0, I) or the bank, toward N(4, I) here."""
    X = np.random.RandomState(0).randn(200, 40)
    params = {"energy": MLP((8,), output="quadratic"), "log_partition": None, "n_steps": n_steps}
    params |= {"sampler": "langevin", "step_size": 0.05, "standardize": False, "max_iter": 2}
    est = small(init=chain_start(scheme), **params).fit(X)
    assert all("validation" not in row for row in est.history_)
    est.density_.model = Model(Quadratic(1.0, mean=4.0).requires_grad_(False), None, 1.0)
    if scheme == "persistent":
        est.density_.draws.bank.fill_(-3.0)
    x, start = est.sample(500, random_state=1), {"noise": 0.0, "persistent": -3.0}[scheme]
    mean, stderr = 4 + (start - 4) * 0.95**n_steps, 1.1 / math.sqrt(500 * 40)
    assert stderr < 0.01 and abs(x.mean() - mean) < 4 * stderr
    np.testing.assert_array_equal(x, est.sample(500, random_state=1))


def test_a_step_that_diverges_is_told():
    params = {"sampler": "langevin", "step_size": 1e6, "n_steps": 50, "max_iter": 150}
    with pytest.raises(ConvergenceError, match="diverged 4 times"):
        small(init="noise", validation_fraction=0, **params).fit(table())
