"""Where to cut: thresholds from training rows, from held-out rows, or with a guarantee."""

from __future__ import annotations

__all__ = ["ThresholdDetector"]

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm.estimators._callbacks import with_callbacks
from skebm.inside import read_scores
from skebm.ood._base import Detector, atomic, check_prefit, read_rows
from skebm.ood._fitting import Given
from skebm.ood._quantiles import (
    effective,
    lower_quantile,
    tolerance_limit,
    training_quantile,
    warn_if_few,
)
from skebm.ood._splits import check_split, fit_and_hold_out, own_random_state, seeded_clone

METHODS = ("training", "held-out", "false-positive-rate")


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

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the density and choose the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored, labels too.
        **params : dict
            ``sample_weight``, an array-like of shape (n_samples,): nonnegative weights, for the
            estimator's own ``fit`` and for the threshold: a row counts in proportion to its weight,
            and n weighted rows for as many as they are worth, the square of the weights' sum over
            the sum of their squares. Further metadata is what scikit-learn's routing hands to the
            ``fit`` inside.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_choice("method", self.method, METHODS)
        check_number("level", self.level, low=0, high=0.5, open_low=True)
        check_number("confidence", self.confidence, low=0, high=0.9999, open_low=True)
        check_split(self)
        given = Given.begin(self, X, params)
        if self.method == "training":
            self.estimator_, rows = self._fit_to_all(given), given
        else:
            self.estimator_, rows = fit_and_hold_out(self, given)
        scores = read_scores(self.estimator_, rows.X)
        if self.method == "false-positive-rate":
            self.offset_ = tolerance_limit(scores, self.level, self.confidence, rows.weight)
        elif self.method == "held-out":
            self.offset_ = lower_quantile(scores, self.level, rows.weight)
            warn_if_few(effective(rows.weight, rows.n), "level", self.level)
        else:
            self.offset_ = training_quantile(scores, self.level, rows.weight)
        self.n_calibration_ = len(scores)
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
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
        return read_scores(self.estimator_, read_rows(self, X, reset=False))

    def _fit_to_all(self, given: Given) -> Any:
        if self.prefit:
            check_prefit(self.estimator)
            return self.estimator
        return given.fit(seeded_clone(self.estimator, own_random_state(self.random_state)))
