"""Rows and batches whose log density is unusual, too high as well as too low."""

from __future__ import annotations

__all__ = ["TypicalityDetector"]

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm._tables import n_rows
from skebm.estimators._callbacks import with_callbacks
from skebm.inside import read_scores
from skebm.ood._base import Detector, atomic, read_rows
from skebm.ood._fitting import Given
from skebm.ood._quantiles import effective, finite_scores, lower_quantile, warn_if_few
from skebm.ood._splits import LARGEST_SEED, check_split, fit_and_hold_out, own_random_state

BLOCK_VALUES = 2**20  # drawn rows at once: 8 MiB


class TypicalityDetector(Detector):
    r"""Distance of the log density from its mean over normal rows, for rows and for batches.

    .. math::
        t(x_1, \dots, x_M) = -\Bigl| \frac{1}{M} \sum_i \log p(x_i) + \hat H \Bigr|,
        \quad \hat H = -\text{mean of } \log p \text{ over held-out rows}

    Parameters
    ----------
    estimator : estimator with score_samples
        Density estimator. A copy is fitted.
    alpha : float, default=0.05
        Share of normal rows, or of normal batches, to flag, in (0, 0.5], dimensionless. Larger
        flags more.
    calibration_fraction : float, default=0.3
        Share of the rows that is held out, in (0, 0.9]. Larger makes the entropy more precise and
        the density less so.
    batch_size : int, default=1
        Rows in the batches that ``batch_offset_`` is for; `is_typical` takes batches of any size.
    n_bootstrap : int, default=1000
        Batches drawn from the held-out rows, at least ``1 / alpha - 1``; more make p-values finer,
        they are at least ``1 / (n_bootstrap + 1)``.
    prefit : bool, default=False
        The estimator is fitted already and used as it is; all rows, new to it, count as held out.
    random_state : int, RandomState or None, default=None
        Seed of the split, of the bootstrap, and of every ``random_state`` inside the estimator that
        is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    entropy_ : float
        Minus the mean log density of the held-out rows, nats per row.
    offset_ : float
        Threshold of a single row, minus nats.
    batch_offset_ : float
        Threshold of ``batch_score`` for `batch_size` rows, minus nats per row: the k-th smallest
        bootstrap score, where k is the integer part of ``alpha * (n_bootstrap + 1)``.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Log densities of the held-out rows, nats.
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
        If fewer than ``1 / alpha - 1`` rows are held out: ``predict`` flags more often then.

    Notes
    -----
    A row may be too likely: in many columns the mode of a density is far from all draws, and is
    flagged. A single row is flagged by ``offset_``, the `alpha` quantile over held-out rows.

    Batches are compared with batches of as many held-out rows, drawn with replacement. Their
    distances are widened by ``sqrt(1 + M / n)`` for the error of the mean of the n held-out rows
    itself, which the paper leaves out; without this, batches of M rows not far below n would be
    flagged too often. The cost is `n_bootstrap` times M draws, and one scoring of the rows.

    References
    ----------
    .. [1] E. Nalisnick, A. Matsukawa, Y. W. Teh and B. Lakshminarayanan, "Detecting
       out-of-distribution inputs to deep generative models using typicality", arXiv:1906.02994,
       2019. Section 4, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import TypicalityDetector
    >>> X = np.random.RandomState(0).normal(size=(1000, 50))
    >>> detector = TypicalityDetector(GaussianMixture(covariance_type="diag"), random_state=0)
    >>> detector.fit(X).predict(np.zeros((1, 50)))  # the mode
    array([-1])
    >>> detector.is_typical(X[:20]), detector.is_typical(1.2 * X[:20])
    (True, False)
    """

    scores_are_log_densities = False

    def __init__(
        self,
        estimator,
        *,
        alpha=0.05,
        calibration_fraction=0.3,
        batch_size=1,
        n_bootstrap=1000,
        prefit=False,
        random_state=None,
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.batch_size = batch_size
        self.n_bootstrap = n_bootstrap
        self.prefit = prefit
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the density, and take the entropy and the thresholds from rows held out.

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
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("n_bootstrap", self.n_bootstrap, low=1, integer=True)
        if self._rank() < 1:
            raise ValueError(
                f"n_bootstrap must be at least 1 / alpha - 1 = {1 / self.alpha - 1:g}, got "
                f"{self.n_bootstrap}. No p-value could be as low as alpha: raise one of the two."
            )
        check_split(self)
        given = Given.begin(self, X, params)
        self._seed = int(own_random_state(self.random_state).randint(LARGEST_SEED))
        self.estimator_, held_out = fit_and_hold_out(self, given)
        scores = finite_scores(read_scores(self.estimator_, held_out.X))
        self.calibration_scores_, self._weight = scores, held_out.weight
        self.entropy_ = -float(np.average(scores, weights=self._weight))
        distance = np.abs(scores + self.entropy_)
        self.offset_ = lower_quantile(-distance, self.alpha, self._weight)
        self.batch_offset_ = self._batch_offset(self.batch_size)
        warn_if_few(effective(self._weight, held_out.n), "alpha", self.alpha)
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return minus the distance of each row's log density from its mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            At most 0, minus nats; 0 for the most typical row.
        """
        return -np.abs(self._log_density(X) + self.entropy_)

    def batch_score(self, X: Any) -> float:
        """Return minus the distance of the rows' mean log density from that of normal rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            One batch of rows.

        Returns
        -------
        float
            At most 0, minus nats per row.
        """
        return -float(np.abs(self._log_density(X).mean() + self.entropy_))

    def batch_pvalue(self, X: Any) -> float:
        """Return how often a batch of normal rows is as far from typical as this one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            One batch of rows.

        Returns
        -------
        float
            Bootstrap p-value, dimensionless, in [1 / (n_bootstrap + 1), 1]. The same batch gets the
            same value each time.
        """
        scores = self._log_density(X)
        farther = self._bootstrap(len(scores)) <= -np.abs(scores.mean() + self.entropy_)
        return float((1 + np.count_nonzero(farther)) / (1 + self.n_bootstrap))

    def is_typical(self, X: Any) -> bool:
        """Return whether a batch passes at level `alpha`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            One batch of rows, of any size.

        Returns
        -------
        bool
            False if the batch is a novelty: where ``batch_pvalue`` is at most `alpha`.
        """
        score, n = self.batch_score(X), n_rows(X)
        offset = self.batch_offset_ if n == self.batch_size else self._batch_offset(n)
        return score >= offset

    def _log_density(self, X):
        check_is_fitted(self, "offset_")
        return read_scores(self.estimator_, read_rows(self, X, reset=False))

    def _batch_offset(self, n: int) -> float:
        return float(np.sort(self._bootstrap(n))[self._rank() - 1])

    def _rank(self) -> int:
        """Return floor(alpha * (n_bootstrap + 1)), by the very quotients of ``batch_pvalue``."""
        n = self.n_bootstrap
        return int(np.searchsorted(np.arange(1, n + 1) / (n + 1), self.alpha, side="right"))

    def _bootstrap(self, n: int) -> np.ndarray:
        """Return scores of `n_bootstrap` batches of n held-out rows, (n_bootstrap,)."""
        random, known = np.random.RandomState(self._seed), self.calibration_scores_
        most = max(1, BLOCK_VALUES // n)
        sizes = [min(most, self.n_bootstrap - i) for i in range(0, self.n_bootstrap, most)]
        if self._weight is None:
            rows = (random.randint(len(known), size=(size, n)) for size in sizes)
        else:
            chance = self._weight / self._weight.sum()
            rows = (random.choice(len(known), size=(size, n), p=chance) for size in sizes)
        distance = np.abs(np.concatenate([known[r].mean(axis=1) for r in rows]) + self.entropy_)
        return -distance * (1 + n / effective(self._weight, len(known))) ** 0.5
