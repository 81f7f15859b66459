"""Thresholds from the scores of held-out rows."""

from __future__ import annotations

__all__ = [
    "effective",
    "finite_scores",
    "lower_quantile",
    "tolerance_limit",
    "training_quantile",
    "warn_if_few",
]

import math

import numpy as np
from scipy.stats import quantile_test

from skebm._tables import effective, one_per_row
from skebm._warn import warn
from skebm.exceptions import CalibrationWarning

ROUNDING = 1e-9  # 1 / level may lie just above a whole number
TIE = 1e-12  # relative; binomial probabilities are exact to less


def warn_if_few(n: float, name: str, level: float, remedy: str = "") -> None:
    """Warn, for ``fit``, if a new row is below all n held-out scores more often than `level`.

    The parameter with the level is called `name`; `remedy` is what helps beside more rows.
    """
    needed = math.ceil(1 / level - 1 - ROUNDING)
    if n < needed:
        remedy = remedy or f"raise calibration_fraction or {name}"
        warn(
            f"held-out rows must be at least {needed} for {name} {level:g}, got {n:.4g}: a share "
            f"of {1 / (n + 1):.2g} of normal rows is below all of them and flagged. Give more "
            f"rows, or {remedy}.",
            CalibrationWarning,
        )


def finite_scores(scores: np.ndarray) -> np.ndarray:
    """Return the scores, or raise a ValueError if one is infinite."""
    remedy = "Use a density with unbounded support, a Gaussian kernel say."
    return one_per_row("scores of the rows given to fit", scores, finite=True, remedy=remedy)


def lower_quantile(scores: np.ndarray, level: float, weight: np.ndarray | None = None) -> float:
    """Return the quantile that a new score is below with probability `level`, on average.

    Between the order statistics around ``level * (n + 1)``; next to an infinite one, the other.
    Weighted scores count as the number of equal ones that they are worth.

    Raises
    ------
    ValueError
        If the scores around it are infinite.
    """
    scores, rank = _ranked(scores, weight)
    position = min(max(level * (rank[-1] + 1), rank[0]), rank[-1])
    k = int(np.searchsorted(rank, position))
    j = k if rank[k] == position else k - 1
    below, above = scores[j], scores[k]
    if np.isfinite(below) and np.isfinite(above):
        return float(below + (position - rank[j]) / max(rank[k] - rank[j], TIE) * (above - below))
    return _finite_threshold(above if np.isfinite(above) else below, scores)


def tolerance_limit(
    scores: np.ndarray, level: float, confidence: float, weight: np.ndarray | None = None
) -> float:
    """Return the largest score that is at most the `level` quantile with probability `confidence`.

    Raises
    ------
    ValueError
        If there are too few scores, or the one is infinite.
    """
    scores, rank = _ranked(scores, weight)
    n = math.floor(rank[-1] + ROUNDING)
    test = quantile_test(np.arange(n), p=level, alternative="greater")
    # one-sided: the lower end alone; a probability that equals the confidence counts
    limit = test.confidence_interval(confidence * (1 - TIE)).low
    if np.isnan(limit):
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-level))
        raise ValueError(
            f"held-out rows must be at least {needed} for level {level:g} with confidence "
            f"{confidence:g}, got {n}. Give more rows, or raise calibration_fraction or level."
        )
    chosen = np.searchsorted(rank, limit + 1 - ROUNDING)
    return _finite_threshold(scores[chosen], scores)


def training_quantile(scores: np.ndarray, level: float, weight: np.ndarray | None) -> float:
    """Return the score below which the share `level` of the rows is, by weight."""
    scores = finite_scores(scores)
    if weight is None:
        return float(np.quantile(scores, level))
    return float(np.quantile(scores, level, weights=weight, method="inverted_cdf"))


def _ranked(scores: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted scores and their ranks, the last of which is how many rows they are worth."""
    order = np.argsort(scores, kind="stable")
    if weight is None:
        return scores[order], np.arange(1.0, len(scores) + 1)
    share = np.cumsum(weight[order])
    return scores[order], effective(weight, len(weight)) * (share / share[-1])


def _finite_threshold(value: float, scores: np.ndarray) -> float:
    if not np.isfinite(value):
        n_bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(
            f"offset_ must be finite, got {value} from held-out scores of which {n_bad} of "
            f"{len(scores)} are infinite. Use a density with unbounded support, a Gaussian kernel "
            "say."
        )
    return float(value)
