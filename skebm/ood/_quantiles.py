"""Thresholds from the scores of held-out rows."""

from __future__ import annotations

__all__ = ["finite_scores", "lower_quantile", "tolerance_limit", "warn_if_few"]

import math
import warnings

import numpy as np
from scipy.stats import quantile_test

from skebm._tables import one_per_row
from skebm.exceptions import CalibrationWarning

ROUNDING = 1e-9  # 1 / level may lie just above a whole number
TIE = 1e-12  # relative; binomial probabilities are exact to less


def warn_if_few(n: int, name: str, level: float) -> None:
    """Warn, for ``fit``, if a new row is below all n held-out scores more often than `level`.

    The parameter with the level is called `name`.
    """
    needed = math.ceil(1 / level - 1 - ROUNDING)
    if n < needed:
        warnings.warn(
            f"held-out rows must be at least {needed} for {name} {level:g}, got {n}: a share of "
            f"{1 / (n + 1):.2g} of normal rows is below all of them and flagged. Give more rows, "
            f"or raise calibration_fraction or {name}.",
            CalibrationWarning,
            stacklevel=3,
        )


def finite_scores(scores: np.ndarray) -> np.ndarray:
    """Return the scores, or raise a ValueError if one is infinite."""
    remedy = "Use a density with unbounded support, a Gaussian kernel say."
    return one_per_row("scores of the rows given to fit", scores, finite=True, remedy=remedy)


def lower_quantile(scores: np.ndarray, level: float) -> float:
    """Return the quantile that a new score is below with probability `level`, on average.

    Between the order statistics around ``level * (n + 1)``; next to an infinite one, the other.

    Raises
    ------
    ValueError
        If the scores around it are infinite.
    """
    scores, n = np.sort(scores), len(scores)
    position = min(max(level * (n + 1) - 1, 0.0), n - 1.0)
    below, above = scores[math.floor(position)], scores[math.ceil(position)]
    if np.isfinite(below) and np.isfinite(above):
        return float(below + (position % 1) * (above - below))
    return _finite_threshold(above if np.isfinite(above) else below, scores)


def tolerance_limit(scores: np.ndarray, level: float, confidence: float) -> float:
    """Return the largest score that is at most the `level` quantile with probability `confidence`.

    Raises
    ------
    ValueError
        If there are too few scores, or the one is infinite.
    """
    test = quantile_test(scores, p=level, alternative="greater")
    # one-sided: the lower end alone; a probability that equals the confidence counts
    limit = test.confidence_interval(confidence * (1 - TIE)).low
    if np.isnan(limit):
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-level))
        raise ValueError(
            f"held-out rows must be at least {needed} for level {level:g} with confidence "
            f"{confidence:g}, got {len(scores)}. Give more rows, or raise calibration_fraction or "
            "level."
        )
    return _finite_threshold(limit, scores)


def _finite_threshold(value: float, scores: np.ndarray) -> float:
    if not np.isfinite(value):
        n_bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(
            f"offset_ must be finite, got {value} from held-out scores of which {n_bad} of "
            f"{len(scores)} are infinite. Use a density with unbounded support, a Gaussian kernel "
            "say."
        )
    return float(value)
