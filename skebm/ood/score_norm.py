"""How steep the log density is at a row."""

from __future__ import annotations

__all__ = ["ScoreNormDetector"]

from typing import Any, Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm._tables import n_rows, naming_columns, take_rows
from skebm.estimators._callbacks import with_callbacks
from skebm.inside import without_tails
from skebm.ood._base import Detector, atomic, read_rows
from skebm.ood._fitting import Given
from skebm.ood._quantiles import effective, lower_quantile, warn_if_few
from skebm.ood._splits import check_split, fit_and_hold_out
from skebm.stein._scores import evaluate_score

FEWEST = 4  # rows that evaluate_score wants


class ScoreNormDetector(Detector):
    r"""Minus the norm of the gradient of the log density, in standard deviations of the columns.

    .. math:: s(x) = -\Bigl(\sum_j \sigma_j^2 \,
        (\partial \log p(x) / \partial x_j)^2\Bigr)^{1/2}

    Parameters
    ----------
    estimator : density estimator
        One of skebm (or with ``score_function``), GaussianMixture, BayesianGaussianMixture,
        KernelDensity with a Gaussian kernel, or a pipeline of column scalers and one of these; a
        search over one too, or a detector whose scores are its log density. A copy is fitted.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless. Larger flags more.
    calibration_fraction : float, default=0.3
        Share of the rows that is held out for the threshold, in (0, 0.9].
    prefit : bool, default=False
        The estimator is fitted already and used as it is; all rows, new to it, set the threshold.
    random_state : int, RandomState or None, default=None
        Seed of the split, and of every ``random_state`` inside the estimator that is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    scale_ : ndarray of shape (n_features,)
        Standard deviations :math:`\sigma_j` of the rows given to ``fit``, units of X; 0 for a
        constant column, which then counts for nothing.
    offset_ : float
        Threshold, the `alpha` quantile of held-out scores, minus nats per standard deviation.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X, the gradient or a parameter is unfit; the message names it.

    Warns
    -----
    CalibrationWarning
        If fewer than ``1 / alpha - 1`` rows are held out: normal rows are flagged more often then.

    Notes
    -----
    The score needs no normalizer and does not depend on the units of X. It is 0 at every mode and
    saddle of the density, however low the density is there, so a lone mode in the wrong place goes
    unseen. It is the root of the squared Fisher score with respect to a shift of the row. The cost
    is one gradient; with KernelDensity, training rows times rows times columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import ScoreNormDetector
    >>> X = np.random.RandomState(0).normal(size=(1000, 2)) * [1, 100]
    >>> detector = ScoreNormDetector(GaussianMixture(), random_state=0).fit(X)
    >>> print(detector.score_samples([[3, 0], [0, 300]]).round(1))
    [-3.  -3. ]
    """

    scores_are_log_densities = False

    def __init__(
        self, estimator, *, alpha=0.05, calibration_fraction=0.3, prefit=False, random_state=None
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the density, and choose the threshold on rows held out.

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
        check_number("alpha", self.alpha, low=0, high=0.5, open_low=True)
        check_split(self)
        given = Given.begin(self, X, params)
        with naming_columns(given.X):
            rows = check_array(given.X, dtype=np.float64)
        mean = np.average(rows, axis=0, weights=given.weight)
        self.scale_ = np.average(np.square(rows - mean), axis=0, weights=given.weight) ** 0.5
        self.estimator_, held_out = fit_and_hold_out(self, given)
        self.offset_ = lower_quantile(self._score(held_out.X), self.alpha, held_out.weight)
        warn_if_few(effective(held_out.weight, held_out.n), "alpha", self.alpha)
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the norm of the scaled gradient.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            At most 0, minus nats per standard deviation.
        """
        check_is_fitted(self, "offset_")
        return self._score(read_rows(self, X, reset=False))

    def _score(self, X: Any) -> np.ndarray:
        n = n_rows(X)
        padded = take_rows(X, np.arange(max(n, FEWEST)) % n)
        gradient = evaluate_score(without_tails(self.estimator_), padded, "estimator")[1][:n]
        return -np.linalg.norm(gradient * self.scale_, axis=1)
