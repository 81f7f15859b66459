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
from skebm.fitted.normalization import near
from tests.closed_forms import Quadratic, normal_base
from tests.generators import gen


def test_samples_that_are_copies_of_few_draws_are_told():
    base = normal_base(3)
    model = Model(Quadratic(1e4, mean=2.0), base, 1.0)
    with pytest.warns(NormalizationWarning, match="chose 200 rows among 8192 .* as copies"):
        z, info = Draws().sample(model, base, 200, gen(0))
    assert info.ess < 82 and len(z) == 200


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
