"""Where to cut: thresholds from training rows, from held-out rows, or with a guarantee."""

from __future__ import annotations

__all__ = [
    "ThresholdDetector",
    "check_split",
    "finite_scores",
    "fit_and_hold_out",
    "lower_quantile",
    "own_random_state",
    "seeded_clone",
    "split_rows",
    "warn_if_few",
]

import math
import warnings
from typing import Any

import numpy as np
from scipy.stats import beta
from sklearn.base import BaseEstimator, clone
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm.exceptions import CalibrationWarning
from skebm.ood._base import Detector, check_prefit, n_rows, read_rows, row_scores

METHODS = ("training", "held-out", "false-positive-rate")
LARGEST_SEED = np.iinfo(np.int32).max
ROUNDING = 1e-9  # 1 / level may lie just above a whole number


class ThresholdDetector(Detector):
    """Any density estimator, with a threshold on its scores that is chosen in one of three ways.

    Parameters
    ----------
    estimator : estimator with score_samples
        Density estimator or detector, higher scores for more normal rows. A copy is fitted.
    method : {"training", "held-out", "false-positive-rate"}, default="held-out"
        How ``offset_`` is chosen; see Notes.
    level : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless. Larger flags more rows.
    calibration_fraction : float, default=0.3
        Share of the rows that is held out, in (0, 0.9]; "training" holds out none. Larger makes the
        threshold more precise and the density less so.
    confidence : float, default=0.9
        Of "false-positive-rate" alone: probability that it keeps its promise, in (0, 0.9999].
        Larger lowers the threshold.
    prefit : bool, default=False
        The estimator is fitted already and used as it is; all rows set the threshold. They should
        be new to it, but for "training". Clones and searches unfit it: give a
        ``sklearn.frozen.FrozenEstimator`` to them.
    random_state : int, RandomState or None, default=None
        Seed of the split, and of every ``random_state`` inside the estimator that is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    offset_ : float
        The threshold, in the unit of the scores (nats for a log density).
    n_calibration_ : int
        Rows that set the threshold.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X, the scores or a parameter are unfit; the message names it.

    Warns
    -----
    CalibrationWarning
        With "held-out", if so few rows are held out that normal rows are flagged more often.

    Notes
    -----
    "training" takes the `level` quantile of the scores of the training rows, and flags that share
    of them. A flexible model scores them higher than new rows, so it flags more of the new ones:
    the more flexible, the more false alarms.

    "held-out" takes that quantile of rows that the density has not seen, at position
    ``level * (n + 1)`` among them. The expected share of new rows below it is `level` for
    continuous scores, over all splits; in one split it differs by about
    ``sqrt(level * (1 - level) / n)``. With fewer than ``1 / level - 1`` rows it is their lowest
    score, and the expected share is ``1 / (n + 1)``, above `level`.

    "false-positive-rate" takes the largest held-out score such that, with probability `confidence`
    over the held-out rows, at most the share `level` of new rows is below it: the share below the
    k-th of n scores is ``Beta(k, n + 1 - k)`` or, with ties, less (S. S. Wilks' tolerance limits,
    The Annals of Mathematical Statistics 12(1), 1941). It needs
    ``log(1 - confidence) / log(1 - level)`` held-out rows, 45 with the defaults.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import ThresholdDetector
    >>> rng = np.random.RandomState(0)
    >>> X, X_new = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    >>> detector = ThresholdDetector(GaussianMixture(), method="false-positive-rate")
    >>> detector.set_params(random_state=0).fit(X)
    ThresholdDetector(...)
    >>> bool(np.mean(detector.predict(X_new) == -1) <= 0.05)
    True
    """

    def __init__(
        self,
        estimator,
        *,
        method="held-out",
        level=0.05,
        calibration_fraction=0.3,
        confidence=0.9,
        prefit=False,
        random_state=None,
    ):
        self.estimator = estimator
        self.method = method
        self.level = level
        self.calibration_fraction = calibration_fraction
        self.confidence = confidence
        self.prefit = prefit
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fit the density and choose the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored, labels too.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_choice("method", self.method, METHODS)
        check_number("level", self.level, low=0, high=0.5, open_low=True)
        check_number("confidence", self.confidence, low=0, high=0.9999, open_low=True)
        check_split(self)
        X = read_rows(self, X, reset=True, fewest=2)
        if self.method == "training":
            self.estimator_, rows = self._fit_to_all(X), X
        else:
            self.estimator_, rows = fit_and_hold_out(self, X)
        scores = row_scores(self.estimator_, rows)
        if self.method == "false-positive-rate":
            self.offset_ = _tolerance_limit(scores, self.level, self.confidence)
        elif self.method == "held-out":
            self.offset_ = lower_quantile(scores, self.level)
            warn_if_few(len(scores), "level", self.level)
        else:
            self.offset_ = float(np.quantile(finite_scores(scores), self.level))
        self.n_calibration_ = len(scores)
        return self

    def score_samples(self, X):
        """Return the estimator's own scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Higher for more normal rows; nats for a log density.
        """
        check_is_fitted(self, "offset_")
        return row_scores(self.estimator_, read_rows(self, X, reset=False))

    def _fit_to_all(self, X: Any) -> Any:
        if self.prefit:
            check_prefit(self.estimator)
            return self.estimator
        return seeded_clone(self.estimator, own_random_state(self.random_state)).fit(X)


def check_split(detector: Any) -> None:
    """Raise the house's error unless the parameters of a split are fit."""
    check_choice("prefit", detector.prefit, (False, True))
    fraction = detector.calibration_fraction
    check_number("calibration_fraction", fraction, low=0, high=0.9, open_low=True)


def own_random_state(random_state: Any) -> np.random.RandomState:
    """Return scikit-learn's ``random_state``; None is fresh entropy, not numpy's global state."""
    return np.random.RandomState() if random_state is None else check_random_state(random_state)


def seeded_clone(estimator: BaseEstimator, random: np.random.RandomState) -> Any:
    """Return an unfitted copy; each ``random_state`` in it that is None becomes a drawn seed."""
    copy = clone(estimator)
    names = [name for name in sorted(copy.get_params()) if name.split("__")[-1] == "random_state"]
    drawn = {name: int(random.randint(LARGEST_SEED)) for name in names}
    params = copy.get_params()
    return copy.set_params(**{name: drawn[name] for name in names if params[name] is None})


def split_rows(X: Any, fraction: float, random: np.random.RandomState) -> tuple[Any, Any]:
    """Return the rows to fit to and those to hold out, both in the order of X, at least one each.

    Parameters
    ----------
    X : ndarray or data frame of shape (n, d)
        Rows, at least 2.
    fraction : float
        Share to hold out, dimensionless.
    random : numpy.random.RandomState
        Draws the rows.

    Returns
    -------
    tuple of ndarray or data frame
        Rows of the kind of X.
    """
    n = n_rows(X)
    order = random.permutation(n)
    n_held = min(max(round(fraction * n), 1), n - 1)
    held, rest = np.sort(order[:n_held]), np.sort(order[n_held:])
    return _safe_indexing(X, rest), _safe_indexing(X, held)


def fit_and_hold_out(detector: Any, X: Any) -> tuple[Any, Any]:
    """Fit a copy of ``detector.estimator`` to a part of X, or take the fitted one as it is.

    Parameters
    ----------
    detector : Detector
        Has ``estimator``, ``calibration_fraction``, ``prefit`` and ``random_state``.
    X : ndarray or data frame of shape (n, d)
        Rows, at least 2.

    Returns
    -------
    estimator : estimator
        Fitted.
    held_out : ndarray or data frame of shape (m, d)
        The rows that it has not seen; with ``prefit`` all rows.
    """
    if detector.prefit:
        check_prefit(detector.estimator)
        return detector.estimator, X
    random = own_random_state(detector.random_state)
    rest, held = split_rows(X, detector.calibration_fraction, random)
    return seeded_clone(detector.estimator, random).fit(rest), held


def warn_if_few(n: int, name: str, level: float) -> None:
    """Warn, for ``fit``, if the lowest of n held-out scores is too high a threshold for a level.

    Parameters
    ----------
    n : int
        Held-out rows.
    name : str
        What the parameter with the level is called.
    level : float
        Share of normal rows to flag, dimensionless.

    Warns
    -----
    CalibrationWarning
        If a new row is below all n with a probability above `level`.
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
    n_bad = np.count_nonzero(~np.isfinite(scores))
    if n_bad:
        raise ValueError(
            f"scores of the rows given to fit must be finite, got {n_bad} of {len(scores)} that "
            "are not. Use a density with unbounded support, a Gaussian kernel say."
        )
    return scores


def lower_quantile(scores: np.ndarray, level: float) -> float:
    """Return the quantile that a new score is below with probability `level`, on average.

    Between the order statistics around ``level * (n + 1)``; next to an infinite one, the other.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Scores; infinite ones may be among them.
    level : float
        Dimensionless.

    Returns
    -------
    float
        Unit of the scores.

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


def _tolerance_limit(scores: np.ndarray, level: float, confidence: float) -> float:
    n = len(scores)
    rank = np.arange(1, n + 1)
    kept = np.count_nonzero(beta.cdf(level, rank, n + 1 - rank) >= confidence)
    if not kept:
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-level))
        raise ValueError(
            f"held-out rows must be at least {needed} for level {level:g} with confidence "
            f"{confidence:g}, got {n}. Give more rows, or raise calibration_fraction or level."
        )
    return _finite_threshold(np.sort(scores)[kept - 1], scores)


def _finite_threshold(value: float, scores: np.ndarray) -> float:
    if not np.isfinite(value):
        n_bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(
            f"offset_ must be finite, got {value} from held-out scores of which {n_bad} of "
            f"{len(scores)} are infinite. Use a density with unbounded support, a Gaussian kernel "
            "say."
        )
    return float(value)
