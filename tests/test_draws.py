"""How fitted densities are drawn from, and the proposal that they are reached from."""

import pytest
import torch

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
