"""Chains that fly apart: left out of the gradient, started anew, and slowed down by a rescue."""

import math

import pytest
import torch

from skebm.data import ArrayTable
from skebm.energies import Model
from skebm.exceptions import ConvergenceError
from skebm.fitted.draws import ByChains
from skebm.objectives import (
    ChainStart,
    ContrastiveDivergence,
    EnergyStep,
    Optimization,
    PartitionLikelihood,
)
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank, SupportPartition
from skebm.train import Settings, train
from tests.closed_forms import Quadratic, normal_base
from tests.generators import gen

SLOW = Optimization(1e-3, weight_decay=0.0, method="sgd")


class Walled(torch.nn.Module):
    """a |x|^2 / 2 with a wall beyond 5 that steps without a test leap across, ever farther."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.a * (0.5 * x.square() + 1e3 * torch.relu(x.abs() - 5).pow(4)).sum(1)


def starts(n=60, at=8.0):
    """One chain starts behind the wall."""
    x = torch.randn(n, 2, generator=gen(1))
    x[0] = at
    return x


def one_update(objective, x, bank=None):
    model = Model(Walled(), None, 1.0)
    state = objective.init(model, x, gen(0))
    if bank is not None:
        state.buffers["bank"].copy_(bank)
    state, row = objective.step(model, state, lambda: x, gen(2))
    return model, state, row


SAMPLERS = [Langevin(0.05), SGHMC(0.1), Langevin(0.01, noise_std=0.1)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("n_steps", [2, 3, 30])
@pytest.mark.parametrize("scheme", ["data", "hybrid"])
def test_a_chain_that_explodes_is_left_out_of_the_gradient(sampler, n_steps, scheme):
    """Far off but finite after few steps, nan after many: the update is that of the others."""
    start = ChainStart(scheme, noise="normal")
    objective = ContrastiveDivergence(start, 1.0, sampler, n_steps, optimization=SLOW)
    model, _, row = one_update(objective, starts())
    assert row["lost_chains"] == pytest.approx(1 / (60 if scheme == "data" else 75), rel=1e-4)
    assert all(math.isfinite(value) for value in row.values())
    wall = Walled()(torch.full((1, 2), 8.0)).item()  # the row itself is data, and stays
    assert model.energy.a.item() == pytest.approx(1 - 1e-3 * wall / 60, abs=0.01 * wall / 60)


@pytest.mark.parametrize("sampler", [MALA(0.1), HMC(0.1)], ids=repr)
def test_tested_chains_are_not_lost(sampler):
    _, _, row = one_update(ContrastiveDivergence("data", sampler=sampler), starts())
    assert row["lost_chains"] == 0


def test_the_means_are_those_of_the_chains_that_are_left():
    """Without steps the ends are the starts: two of them are too far away to be believed."""
    noise = torch.tensor([[1.0, 0.0], [200.0, 0.0], [math.inf, 0.0]])
    x = torch.zeros(40, 2)
    step = ContrastiveDivergence("noise", sampler=Langevin(1e-12), n_steps=1, noise=noise)
    _, _, row = one_update(step, x)
    assert row["noise_bracket"] == pytest.approx(-0.5, rel=1e-4)
    assert row["noise_bracket_std"] == pytest.approx(0, abs=1e-4)
    assert 0.3 < row["lost_chains"] < 1


def test_a_lost_chain_of_the_bank_starts_from_noise():
    bank = starts(40)
    start = ChainStart("persistent", noise="uniform", bank=SampleBank(40))
    objective = ContrastiveDivergence(start, sampler=SGHMC(0.1), n_steps=30, optimization=SLOW)
    model, state, row = one_update(objective, starts(40, at=1.0), bank)
    assert row["lost_chains"] == pytest.approx(1 / 40, rel=1e-4)
    assert state.buffers["bank"].abs().max() < 5.5  # nothing is left behind the wall
    assert state.buffers["bank"][0].abs().max() <= 1  # in its place uniform noise
    assert model.energy.a.isfinite()


def test_an_update_without_a_chain_moves_nothing_and_is_seen():
    noise = torch.full((3, 2), 8.0)
    objective = ContrastiveDivergence("noise", sampler=SGHMC(0.1), n_steps=30, noise=noise)
    model, _, row = one_update(objective.with_params(optimization=SLOW), starts(20, at=0.0))
    assert model.energy.a.item() == 1 and row["lost_chains"] == 1
    assert math.isnan(row["noise_bracket"])  # which brings training back to its best snapshot


@pytest.mark.parametrize(
    "sampler, energy_step",
    [(MALA(0.3), None), (SGHMC(0.3), None), (Langevin(0.3), None), (Langevin(0.3), EnergyStep())],
    ids=repr,
)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_rescue_lowers_the_step_of_the_sampler(sampler, energy_step, temperature):
    objective = ContrastiveDivergence("data", sampler=sampler, energy_step=energy_step, n_steps=1)
    model, x = Model(Quadratic(), None, temperature), torch.randn(50, 2, generator=gen(0))
    state, sizes = objective.init(model, x, gen(0)), []
    for _ in range(3):
        after, row = objective.step(model, state, lambda: x, gen(1))
        sizes.append(float(row["step_size"]))
        now = objective.current_sampler(model, after if energy_step else state)
        assert now.step_size == pytest.approx(sizes[-1], rel=1e-5)
        fresh = objective.init(model, x, gen(5)).load(state.state_dict())  # a file keeps it
        state = objective.recover(model, fresh, x, gen(2))
    assert sizes[1:] == pytest.approx([0.3 * sizes[0], 0.09 * sizes[0]], rel=0.01)


def test_a_rescue_slows_points_that_climb():
    steps = []

    class Seen(SupportPartition):
        def move(self, *args):
            steps.append(self.step_maximize)
            return super().move(*args)

    objective = PartitionLikelihood(50, Seen(epsilon=0.6, n_inner=1, step_maximize=0.02))
    model, x = Model(Quadratic(), None, 1.0), torch.randn(50, 2, generator=gen(0))
    state = objective.init(model, x, gen(0))
    for _ in range(2):
        objective.step(model, state, lambda: x, gen(1))
        state = objective.recover(model, state, x, gen(2))
    assert steps == pytest.approx([0.02, 0.006])


def test_training_survives_a_sampler_that_is_too_fast():
    """Steps of 2.5 fly apart on a unit Gaussian, those of a rescue do not."""
    model, rows = Model(Quadratic(), None, 1.0), torch.randn(200, 2, generator=gen(0))
    chains = ContrastiveDivergence("data", sampler=Langevin(2.5), n_steps=400)
    settings = Settings(6, eval_every=2, batch_size=32)
    state = train(model, chains, ArrayTable(rows), settings=settings, rng=gen(1))
    assert state.retries == 1 and state.iteration == 6
    assert 0.7 < model.energy.k.item() < 1.3


def test_samples_of_chains_that_flew_apart_are_drawn_anew():
    """One start in six is behind the wall; where all are, the error says what to lower."""
    noise = torch.zeros(6, 2).numpy()
    noise[0] = 8.0
    model = Model(Walled().requires_grad_(False), None, 1.0)
    few = ByChains(SGHMC(0.1), 30, ChainStart("noise", noise=noise))
    x = few.own(model, normal_base(2), 50, gen(0))
    assert x.isfinite().all() and x.abs().max() < 6
    every = ByChains(SGHMC(0.1), 30, ChainStart("noise", noise=noise[:1]))
    with pytest.raises(ConvergenceError, match="5 of 5 chains of SGHMC.*Lower its step_size"):
        every.own(model, normal_base(2), 5, gen(0))
