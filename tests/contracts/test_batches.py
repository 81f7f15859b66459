"""What training sees of a table: batches of its training rows, by weight, with their noise."""

import pytest
import torch

from tests import cases

pytestmark = cases.QUIET
N = 300  # batches of 32 rows


def drawn(name, updates, sample_weight=None, **params):
    """Standardized rows as an objective draws them."""
    cases.tiny(name, **params).fit(cases.table(), sample_weight=sample_weight)
    return torch.cat([updates.draw() for _ in range(N)])


@pytest.mark.parametrize(("fraction", "n_rows"), [(0, 120), (0.25, 90)])
@cases.each
def test_held_out_rows_are_never_drawn_and_all_others_are(name, fraction, n_rows, updates):
    rows = drawn(name, updates, validation_fraction=fraction)
    assert rows.shape == (32 * N, 2) and len(rows.unique(dim=0)) == n_rows


@cases.each
def test_the_noise_is_on_every_batch(name, updates):
    """Of variance 0.5^2, fresh each time, on rows of variance 1."""
    rows = drawn(name, updates, data_noise=0.5)
    assert len(rows.unique(dim=0)) == len(rows)
    torch.testing.assert_close(rows.var(0), torch.full((2,), 1.25), atol=0.08, rtol=0)


@cases.each
def test_rows_are_drawn_in_proportion_to_their_weights(name, updates):
    heavy = cases.table()[:, 0] > cases.table()[:, 0].mean()
    rows = drawn(name, updates, sample_weight=1.0 + 4.0 * heavy)
    share = 5 * heavy.sum() / (5 * heavy.sum() + (~heavy).sum())
    border = rows[:, 0].unique()[(~heavy).sum() - 1]  # the map of a column keeps its order
    assert float((rows[:, 0] > border).double().mean()) == pytest.approx(share, abs=0.02)
