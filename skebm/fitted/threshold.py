"""Where scores stop to be normal."""

from __future__ import annotations

__all__ = ["threshold"]


import numpy as np

from skebm._tables import effective
from skebm._warn import warn
from skebm.data import Table
from skebm.exceptions import DataDegeneracyWarning
from skebm.fitted.density import FittedDensity

HELD_OUT_QUANTILE, MOST_FLAGGED, FEW_HELD_OUT = 0.05, 0.075, 40
MOST_HELD_OUT = 20_000  # held-out rows that are scored
MOST_ROWS = 5000  # training rows up to which the base is judged without each of them
FEWEST_ROWS = int(1 / HELD_OUT_QUANTILE) - 1  # below: not even the least score is rare enough


def threshold(density: FittedDensity, table: Table, contamination: float | str) -> float:
    """Return the log density below which a row is a novelty.

    A number is the share of the training rows, by weight, that is flagged. ``"auto"`` is the score
    of rank 0.05 (m + 1) among m held-out ones (of many, 20,000), so that a new row falls below it
    with a probability of 5 %. Where fewer than 40 are held out, training rows count too, scored by
    a base that has not seen them, and it is moved up so that at least one row of the table is
    flagged, unless that would flag more than 7.5 % of new ones. Weighted rows are as many as they
    are worth.
    """
    filled, weight, _, held_out, holed = table.originals()
    X, scored = filled, density.log_density
    if holed is not None:
        X, scored = holed, density.log_density_of_completions
    if not isinstance(contamination, str):
        return quantile(scored(X), weight, contamination)
    some, counts = np.unique(
        held_out[:: -(-len(held_out) // MOST_HELD_OUT) or 1], return_counts=True
    )
    if (
        len(some) and effective(counts, len(some)) >= FEW_HELD_OUT
    ):  # heavy rows repeat; some of all are flagged
        scores = scored(X[some])
        return quantile(scores, _uneven(counts), HELD_OUT_QUANTILE, of_unseen=True)
    scores = scored(X)
    unseen = _unseen(density, table, scores)
    offset, most = (
        quantile(unseen, weight, q, of_unseen=True) for q in (HELD_OUT_QUANTILE, MOST_FLAGGED)
    )
    if density.model.base is None and len(held_out):
        # nothing tells how much training rows gain: a few unseen ones may lower it
        offset = min(offset, quantile(scores[held_out], None, HELD_OUT_QUANTILE))
    lowest = np.unique(scores)[:2]  # halfway between them: one row is flagged, none is on it
    if np.count_nonzero(scores == lowest[0]) > max(HELD_OUT_QUANTILE * len(scores), 1):
        return offset  # an atom: all of its rows or none
    between = float(lowest.mean() if lowest.mean() > lowest[0] else lowest[-1])
    return max(offset, between) if between <= most else offset


def _uneven(weight: np.ndarray) -> np.ndarray | None:
    return None if (weight == weight[0]).all() else weight


def _unseen(density: FittedDensity, table: Table, scores: np.ndarray) -> np.ndarray:
    """Return the scores of all rows (m,) as those of rows that the fit has not seen."""
    _, weight, trained, _, _ = table.originals()
    n = effective(weight, len(scores))
    if n < FEWEST_ROWS:
        worth = "" if weight is None else f", whose weights make them worth {n:.3g},"
        warn(
            f"offset_ flags a new row with a probability of about 1/{n + 1:.3g}: the ranks of "
            f"{len(scores)} rows{worth} promise no less. Fit more rows, or set contamination.",
            DataDegeneracyWarning,
        )
    pooled = scores.copy()
    if len(trained) <= MOST_ROWS:
        pooled[trained] -= _optimism(density, table)
    return pooled


def _optimism(density: FittedDensity, table: Table) -> np.ndarray:
    """Return what training rows gain, nats, because the base was fitted to them."""
    base = density.model.base
    if base is None:
        return np.zeros(table.n_rows)
    x, weight = table.rows()
    gained = base.log_prob(x).double() - base.log_prob_left_out(x, weight).double()
    return gained.clamp(min=0).cpu().numpy()


def quantile(
    values: np.ndarray, weight: np.ndarray | None, q: float, *, of_unseen: bool = False
) -> float:
    """Return the quantile of weighted values, that of numpy where all weights are the same.

    Of unseen ones it is the value of rank q (m + 1), m their effective number: another one is below
    it with probability q.
    """
    if weight is None:
        return float(np.quantile(values, q, method="weibull" if of_unseen else "linear"))
    weight = weight / weight.max()
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order])
    if of_unseen:  # as many as they are worth
        n = effective(weight, len(values))
        return float(np.interp(q * (n + 1), n * share / share[-1], values[order]))
    below = share - weight[order]  # the weight of all that is smaller
    return float(np.interp(q * below[-1], below, values[order]))
