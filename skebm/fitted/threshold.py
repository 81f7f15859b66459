"""Where scores stop to be normal."""

from __future__ import annotations

__all__ = ["threshold"]

import numpy as np

from skebm.data import Table
from skebm.fitted.density import FittedDensity

HELD_OUT_QUANTILE, FEW_HELD_OUT = 0.05, 40


def threshold(density: FittedDensity, table: Table, contamination: float | str) -> float:
    """Return the log density below which a row is a novelty.

    A number is the share of the training rows, by weight, that is flagged. ``"auto"`` is the 5 %
    quantile of held-out scores, moved up if needed so that at least one row is flagged.
    """
    X, weight, held_out = table.originals()
    scores = density.log_density(X)
    if not isinstance(contamination, str):
        return quantile(scores, weight, contamination)
    offset = quantile(scores, weight, HELD_OUT_QUANTILE)
    if len(held_out):
        fresh = float(np.quantile(scores[held_out], HELD_OUT_QUANTILE))  # weighted by repetition
        # of few, that is about the smallest score
        offset = min(fresh, offset) if len(held_out) < FEW_HELD_OUT else fresh
    lowest = np.unique(scores)[:2]  # halfway between them: one row is flagged, none is on it
    if np.count_nonzero(scores == lowest[0]) > max(HELD_OUT_QUANTILE * len(scores), 1):
        return offset  # an atom: all of its rows or none
    between = lowest.mean() if lowest.mean() > lowest[0] else lowest[-1]
    return max(offset, float(between))


def quantile(values: np.ndarray, weight: np.ndarray | None, q: float) -> float:
    """Return the quantile of weighted values, that of numpy where all weights are the same."""
    weight = np.ones(len(values)) if weight is None else weight / weight.max()
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order]) - weight[order]  # the weight of all that is smaller
    return float(np.interp(q * below[-1], below, values[order]))
