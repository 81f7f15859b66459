"""How fitted densities are drawn from, and the proposal that they are reached from."""

import math

import numpy as np
import pytest
import torch

from skebm.bases.mixture import MixtureBase
from skebm.data import ArrayTable
from skebm.energies import Model
from skebm.exceptions import NormalizationWarning
from skebm.fitted import Draws
from skebm.fitted.draws import _candidates_per_row
from skebm.fitted.normalization import near
from tests.closed_forms import Quadratic, assert_mean, assert_variance, normal_base
from tests.generators import gen


class OfBase(torch.nn.Module):
    """The energy of a normalized density."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return -self.base.log_prob(x)


def test_draws_reach_a_model_that_no_draw_of_the_base_is_near():
    """Their effective number is 1; a thousandth of the width, three widths of the base away."""
    base = normal_base(3)
    z, info = Draws().sample(Model(Quadratic(1e4, mean=2.0), base, 1.0), base, 2000, gen(0))
    assert info.ess < 2 and info.n_levels > 5 and info.rhat < 1.1
    assert len(np.unique(z.numpy(), axis=0)) == 2000
    for column in z.double().numpy().T:  # precisions add up
        assert_mean(column, 2 * 1e4 / 10001, 0.0004)
        assert_variance(column, 1 / 10001, 0.05)


def test_masses_of_modes_are_right_though_draws_are_few():
    """Wells of a fiftieth of the width, of weights 1, 2 and 7, where draws are worth a few."""
    means = 3.5 * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    cov = 0.02**2 * np.eye(3)[None].repeat(3, 0)
    wells = MixtureBase.from_moments(np.array([0.1, 0.2, 0.7]), means, cov, "cpu")
    shares = []
    for seed in range(8):
        model, base = Model(OfBase(wells), None, 1.0), normal_base(3)
        with pytest.warns(NormalizationWarning, match=r"from \d+ of 8192 base .*R-hat"):
            z, info = Draws().sample(model, base, 500, gen(seed))
        assert info.ess < 100 and info.rhat > 1.2
        shares.append(wells.responsibilities(z).mean(0).numpy())
    mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / 8**0.5
    assert (np.abs(mean - [0.1, 0.2, 0.7]) < 4 * error).all() and error.max() < 0.03


def test_even_weights_call_for_no_moves():
    base, seen = normal_base(2), []
    energy = Quadratic(0.3)
    energy.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    z, info = Draws().sample(Model(energy, base, 1.0), base, 20_000, gen(0))
    assert info.acceptance == 1 and math.isnan(info.rhat) and info.n_levels == 0
    assert sum(seen) < 3 * 20_000  # an energy for each candidate, and that is all
    assert len(np.unique(z.numpy(), axis=0)) > 19_900
    for column in z.double().numpy().T:
        assert_variance(column, 1 / 1.3, 0.011)


@pytest.mark.parametrize(("heaviest", "per_row"), [(1.5, 2), (6.0, 8), (10.0, 16)])
def test_as_many_candidates_as_the_heaviest_weight_is_of_the_mean(heaviest, per_row):
    """A hundredth of the draws have it: with fewer candidates they would be chosen twice."""
    weight = torch.ones(8192, dtype=torch.float64)
    weight[:82] = heaviest * (1 - 82 / 8192) / (1 - heaviest * 82 / 8192)
    assert _candidates_per_row(weight.log(), 100_000) == per_row
    assert _candidates_per_row(weight.log(), 100) == max(per_row, 8192 // 100)


@pytest.mark.parametrize("n", [1, 2, 100])
def test_few_rows_are_drawn_like_many(n):
    base = normal_base(4)
    model = Model(Quadratic(-0.6), base, 1.0)  # heavier than its base: k is 0.6
    rows = torch.cat([Draws().sample(model, base, n, gen(seed))[0] for seed in range(12)])
    assert rows.shape == (12 * n, 4)
    if n == 100:
        assert_variance(rows.flatten(), 2.5, 0.03)


def test_the_proposal_follows_the_model_and_not_the_rows():
    rows = torch.randn(500, 2, generator=gen(0))
    proposal = near(Model(Quadratic(16.0, mean=1.5), None, 1.0), ArrayTable(rows), gen(1))
    draws = proposal.sample(4000, gen(2))
    assert (draws.mean(0) - 1.5).abs().max() < 0.1
    assert draws.var(0).max() < 0.2  # 1 / 16 of the model, a tenth of the draws wider


def test_modes_that_moves_do_not_join_are_drawn_by_their_weights():
    """Half of the base's draws are at 10, nine tenths of the model are."""
    means = np.array([[-10.0], [10.0]])
    base = MixtureBase.from_moments(np.array([0.5, 0.5]), means, np.ones((2, 1, 1)), "cpu")
    step = torch.nn.Module()
    step.forward = lambda x: -math.log(9) * (x[:, 0] > 0).to(x) + 0 * x.sum(1)
    z, info = Draws().sample(Model(step, base, 1.0), base, 2000, gen(0))
    assert float((z > 0).float().mean()) == pytest.approx(0.9, abs=4 * (0.09 / 2000) ** 0.5)
    assert info.ess > 2000
