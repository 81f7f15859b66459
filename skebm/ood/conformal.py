"""Novelty detection with a false-alarm rate that holds for any estimator: conformal p-values."""

from __future__ import annotations

__all__ = ["ConformalNoveltyDetector"]

from math import ceil
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm._tables import n_rows, one_per_row, take_rows
from skebm._warn import warn
from skebm.estimators._callbacks import with_callbacks
from skebm.exceptions import CalibrationWarning
from skebm.inside import check_scorer, read_scores
from skebm.ood._base import Detector, atomic, check_prefit, read_rows
from skebm.ood._fitting import Given
from skebm.ood._splits import LARGEST_SEED, own_random_state, seeded_clone

ROUNDING = 1e-12  # relative; p-values of the form j / (n + 1) often lie exactly on the BH line


class ConformalNoveltyDetector(Detector):
    r"""Flag a row as novel where its conformal p-value is at most `alpha`.

    An estimator is fitted on one part of the rows and scores the other part, the calibration rows,
    with :math:`s_1, \dots, s_n`. A new row with score s gets

    .. math:: p = \frac{1 + \#\{i : s_i \le s\}}{n + 1} .

    If new row and calibration rows are exchangeable (independent draws of one distribution, say),
    then :math:`P(p \le \alpha) \le \alpha`, whatever the estimator and the distribution are. A
    better estimator finds more novelties; a worse one does not raise more false alarms.

    Parameters
    ----------
    estimator : estimator
        Anything with ``fit`` and ``score_samples``, higher for normal rows: a density of skebm, a
        KernelDensity, GaussianMixture or IsolationForest, a pipeline that ends in one. It is
        cloned, unless `prefit`.
    alpha : float, default=0.05
        False-alarm rate, in (0, 1), dimensionless. A larger one flags more rows.
    calibration_fraction : float, default=0.3
        Share of the rows that calibrate, in (0, 1), without `cv` and `prefit`. More calibration
        rows bring the rate after one fit closer to `alpha`, and leave fewer rows to train.
    cv : int, default=None
        Folds, at least 2: cross-conformal p-values. Every row trains and every row calibrates, at
        the price of `cv` fits and of a weaker guarantee.
    prefit : bool, default=False
        Whether the estimator is fitted already. It is then used as it is, and all rows of X
        calibrate. They must not be rows that it was fitted on. Clones and searches unfit it: give
        a ``sklearn.frozen.FrozenEstimator`` to them.
    ties : {"conservative", "random"}, default="conservative"
        What calibration scores equal to that of the row count: in full, or a random part U, in
        which the row itself shares. Random p-values are exactly uniform on normal rows, also where
        scores have few values.
    weight : callable, default=None
        From rows (n, d) to weights (n,), at least 0: the density of new normal rows over that of
        calibration rows, dimensionless, up to a factor. For new rows whose normal part has moved
        (covariate shift). Data frames reach it as data frames.
    random_state : int, RandomState instance or None, default=None
        Seed of the split, of random ties, and of every ``random_state`` inside the estimator that
        is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator; None with `cv`.
    estimators_ : list of estimators
        All fitted estimators: `cv` of them, or one.
    calibration_scores_ : ndarray of shape (n_calibration,) or list of ndarray
        Scores of the calibration rows, increasing, in the estimator's unit (nats for a log
        density). With `cv` a list with one array per fold.
    n_calibration_ : int
        Calibration rows.
    offset_ : float
        Threshold. With one estimator, conservative ties and no weights, that of
        ``score_samples``: the k-th smallest calibration score, where k is the integer part of
        ``alpha * (n_calibration_ + 1)``. Otherwise `alpha`, the threshold of ``p_value``.
    threshold_of_ : {"score_samples", "p_value"}
        What ``offset_`` is a threshold of.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if X has them.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, if a parameter is out of its range, if there are fewer calibration rows than
        1 / alpha (no p-value could then be below `alpha`), if all calibration scores are equal and
        `ties` is conservative, if the estimator returns NaN scores, or if weights are unfit.
    NotFittedError
        If `prefit` and the estimator is not fitted.

    Notes
    -----
    The guarantee is one over draws of calibration rows and new rows together. For continuous
    scores the mean rate is k / (n + 1), between alpha - 1 / (n + 1) and `alpha`. After one fit the
    rate is a draw of a Beta(k, n + 1 - k) distribution: with `alpha` 0.05, standard deviation 0.021
    for 100 calibration rows, 0.007 for 1000. It says nothing about rows that the estimator was
    fitted on, so nothing about ``fit_predict``; and nothing if X itself holds novelties.

    Cross-conformal p-values pool the counts of the folds; each compares the scores of its own
    rows, and that of the new row, under the model that did not see the fold. Their rate is near
    `alpha` for estimators that one fold more or less changes little. In the worst case it is
    2 alpha + 2 (1 - alpha) (cv - 1) / (n + cv), for twice a weighted mean of p-values is a p-value;
    the last term is that of [2]_ times 1 - alpha.

    With weights, p is the weight of the calibration rows that score at most s, plus the row's own
    weight, over the weight of all of them, the row included. The guarantee is for known weights;
    few rows with large weights make p-values large and detection weak.

    Where more than a share `alpha` of the calibration rows has the lowest score (density 0, say),
    conservative ties flag nothing.

    Labels `y` are ignored: they reach neither the estimator nor the calibration. Rows are copied
    once for a split. A p-value costs a score by each estimator and a binary search.

    References
    ----------
    .. [1] S. Bates, E. Candes, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with conformal
       p-values", Annals of Statistics 51(1), 2023. Theorem 2.
    .. [2] R. F. Barber, E. J. Candes, A. Ramdas and R. J. Tibshirani, "Predictive inference with
       the jackknife+", Annals of Statistics 49(1), 2021. Theorem 4.
    .. [3] R. J. Tibshirani, R. F. Barber, E. J. Candes and A. Ramdas, "Conformal prediction under
       covariate shift", NeurIPS 2019. Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import ConformalNoveltyDetector
    >>> X = np.random.RandomState(0).randn(1000, 2)
    >>> detector = ConformalNoveltyDetector(GaussianMixture(), alpha=0.05, random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0], [4.0, 4.0]])
    array([ 1, -1])
    >>> detector.p_value([[4.0, 4.0]]).round(4)  # 1 / 301: below all 300 calibration rows
    array([0.0033])
    """

    def __init__(
        self,
        estimator,
        *,
        alpha=0.05,
        calibration_fraction=0.3,
        cv=None,
        prefit=False,
        ties="conservative",
        weight=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.cv = cv
        self.prefit = prefit
        self.ties = ties
        self.weight = weight
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the estimator on a part of the rows and calibrate on the others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored: labels reach neither the estimator nor the calibration.
        **params : dict
            ``sample_weight``, an array-like of shape (n_samples,): nonnegative weights, for the
            estimator's own ``fit`` and for the calibration: a row counts in proportion, and a new
            row as the mean of them. No theorem holds for unequal ones. Further metadata is what
            scikit-learn's routing hands to the ``fit`` inside.

        Returns
        -------
        ConformalNoveltyDetector
            The fitted detector.
        """
        self._check_parameters()
        fewest = 1 if self.prefit else self.cv or 2
        given = Given.begin(self, X, params, fewest=fewest)
        self._check_n_calibration(given.n)
        random = own_random_state(self.random_state)
        splits = self._splits(given.n, random)
        self._tie_seed = random.randint(LARGEST_SEED)
        self._folds = [
            self._calibrated(given, fit, held, random, number)
            for number, (fit, held) in enumerate(splits)
        ]
        self.estimators_ = [fold.estimator for fold in self._folds]
        self.estimator_ = self.estimators_[0] if self.cv is None else None
        scores = [fold.scores for fold in self._folds]
        self.calibration_scores_ = scores[0] if self.cv is None else scores
        self.n_calibration_ = sum(map(len, scores))
        self._check_calibration(np.concatenate(scores))
        equal = self.weight is None and given.weight is None
        one_score = self.cv is None and equal and self.ties == "conservative"
        self.threshold_of_ = "score_samples" if one_score else "p_value"
        self.offset_ = self._threshold()
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the estimator's scores, with `cv` the mean over the estimators.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            In the estimator's unit, higher for normal rows.
        """
        check_is_fitted(self)
        X = read_rows(self, X, reset=False)
        return np.mean([read_scores(estimator, X) for estimator in self.estimators_], axis=0)

    def p_value(self, X: Any) -> np.ndarray:
        """Return conformal p-values: small for novelties.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            In [0, 1], dimensionless.

        Notes
        -----
        Random ties are drawn anew from the same seed in each call: the same rows in the same order
        get the same values. Give all rows in one call, for those of two calls share their draws.
        """
        check_is_fitted(self)
        X = read_rows(self, X, reset=False)
        own = self._weights(X)
        below, at_most, total = np.zeros(len(own)), np.zeros(len(own)), 0.0
        for fold in self._folds:
            scores = read_scores(fold.estimator, X)
            below += fold.mass[np.searchsorted(fold.scores, scores, side="left")]
            at_most += fold.mass[np.searchsorted(fold.scores, scores, side="right")]
            total += fold.mass[-1]
        if self.ties == "random":
            draws = np.random.RandomState(self._tie_seed).uniform(size=len(own))
            rank = below + draws * (at_most - below + own)
        else:
            rank = at_most + own
        return np.minimum(rank / (total + own), 1.0)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return a value at least 0 exactly where ``p_value`` is above `alpha`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``score_samples(X) - offset_`` with one estimator, conservative ties and no weights.
            Otherwise ``p_value(X) - offset_``, dimensionless, with the largest number below 0
            where that is 0.
        """
        check_is_fitted(self)
        if self.threshold_of_ == "p_value":
            gap = self.p_value(X) - self.offset_
            return np.where(gap == 0, np.nextafter(0.0, -1.0), gap)
        scores = self.score_samples(X)
        with np.errstate(invalid="ignore"):  # -inf - -inf, on the threshold
            return np.where(scores == self.offset_, 0.0, scores - self.offset_)

    def predict(self, X: Any, *, fdr: float | None = None) -> np.ndarray:
        """Return +1 for normal rows and -1 for novelties.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        fdr : float, default=None
            None flags the rows with a p-value of at most `alpha`. A number in (0, 1) flags those
            that ``select`` selects, whatever `alpha` is.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            -1 for novelties, +1 for the others.
        """
        if fdr is None:
            return super().predict(X)
        return np.where(self.select(X, fdr=fdr), -1, 1)

    def select(self, X: Any, *, fdr: float) -> np.ndarray:
        """Select novelties of a batch by the Benjamini-Hochberg procedure on its p-values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of one batch; what is selected depends on all of them.
        fdr : float
            Expected share of normal rows among the selected ones (0 where none is), in (0, 1). A
            larger one selects more.

        Returns
        -------
        ndarray of bool of shape (n_samples,)
            True for novelties.

        Warns
        -----
        CalibrationWarning
            If nothing is selected, because calibration rows are too few for that.

        Notes
        -----
        The rate is at most `fdr` for independent normal rows, continuous scores and one estimator
        without weights [1]_. For `cv` and for weights no theorem says so. A single row among m can
        be selected only if ``n_calibration_ + 1`` is at least m / fdr.

        References
        ----------
        .. [1] S. Bates, E. Candes, L. Lei, Y. Romano and M. Sesia, "Testing for outliers with
           conformal p-values", Annals of Statistics 51(1), 2023. Theorem 2.
        """
        _check_open_unit("fdr", fdr, "Write 10 % as 0.1.")
        p = self.p_value(X)
        selected = false_discovery_control(p) <= fdr * (1 + ROUNDING)
        if not selected.any():
            self._warn_if_coarse(p, fdr)
        return selected

    def _warn_if_coarse(self, p: np.ndarray, fdr: float) -> None:
        """Warn where the least possible p-value is too large for the rows that have it."""
        least = 1 / (self.n_calibration_ + 1)
        n_least = max(int((p <= least * (1 + ROUNDING)).sum()), 1)
        if n_least * fdr < least * len(p):
            warn(
                f"n_calibration_ must be at least {ceil(len(p) / (n_least * fdr)) - 1} to select "
                f"the {n_least} least normal of {len(p)} rows at fdr={fdr:g}, got "
                f"{self.n_calibration_}: no p-value is below {least:.2g}. Calibrate on more rows, "
                "give smaller batches, or raise fdr.",
                CalibrationWarning,
            )

    def _check_parameters(self) -> None:
        _check_open_unit("alpha", self.alpha, "Write 5 % as 0.05.")
        _check_open_unit("calibration_fraction", self.calibration_fraction, "Write 30 % as 0.3.")
        check_choice("prefit", self.prefit, (True, False))
        check_choice("ties", self.ties, ("conservative", "random"))
        if self.cv is not None:
            check_number("cv", self.cv, low=2, integer=True, remedy="None makes one split.")
            if self.prefit:
                raise ValueError(
                    f"cv must be None with prefit=True, got {self.cv}. Folds need new fits: set "
                    "prefit=False."
                )
        if self.weight is not None and not callable(self.weight):
            raise TypeError(
                f"weight must be a function of rows or None, got {self.weight!r}. It returns the "
                "density ratio of new rows to calibration rows."
            )
        check_scorer(self.estimator)  # before the fit, which may be long
        if self.prefit:
            check_prefit(self.estimator)

    def _n_calibration(self, n: int) -> int:
        if self.prefit or self.cv is not None:
            return n
        return ceil(self.calibration_fraction * n)

    def _check_n_calibration(self, n: int) -> None:
        n_calibration = self._n_calibration(n)
        splits = not self.prefit and self.cv is None
        if n_calibration < 1 / self.alpha:
            larger = "calibration_fraction or alpha" if splits else "alpha"
            raise ValueError(
                f"calibration rows must be at least 1 / alpha = {1 / self.alpha:g}, got "
                f"{n_calibration} (of {n} rows, n_samples = {n}). Give more rows, or a larger "
                f"{larger}."
            )
        if splits and n_calibration == n:
            raise ValueError(
                f"calibration_fraction must leave rows to train, got {self.calibration_fraction} "
                f"of {n} rows. Give more rows or a smaller fraction."
            )

    def _splits(self, n: int, random: np.random.RandomState) -> list[Any]:
        """Return the numbers of the rows to fit to and of those that are held out, for each fit."""
        rows = np.arange(n)
        if self.prefit:
            return [(rows[:0], rows)]
        if self.cv is not None:
            return list(KFold(self.cv, shuffle=True, random_state=random).split(rows))
        held_out = self._n_calibration(n)
        return [train_test_split(rows, test_size=held_out, random_state=random)]

    def _calibrated(
        self,
        given: Given,
        train: np.ndarray,
        held_out: np.ndarray,
        random: np.random.RandomState,
        number: int,
    ) -> _Fold:
        estimator = self.estimator
        if not self.prefit:
            estimator = given.take(train).fit(seeded_clone(estimator, random), number=number)
        X = take_rows(given.X, held_out)
        scores = read_scores(estimator, X)
        order = np.argsort(scores, kind="stable")
        weights = self._weights(X)
        if given.weight is not None:
            weights = weights * given.weight[held_out]
        mass = np.concatenate([[0.0], np.cumsum(weights[order])])
        return _Fold(estimator, scores[order], mass)

    def _weights(self, X: Any) -> np.ndarray:
        if self.weight is None:
            return np.ones(n_rows(X))
        remedy = "Bound the density ratio."
        weights = one_per_row("weight", self.weight(X), n_rows(X), finite=True, remedy=remedy)
        n_bad = np.count_nonzero(weights < 0)
        if n_bad:
            raise ValueError(
                f"weight must be at least 0, got {n_bad} of {len(weights)} numbers that are not. "
                f"{remedy}"
            )
        return weights

    def _check_calibration(self, scores: np.ndarray) -> None:
        if self.ties == "conservative" and scores.min() == scores.max():
            raise ValueError(
                f"calibration scores must differ, got {len(scores)} times {scores[0]:g}. Set "
                "ties='random', or give another estimator."
            )
        if not sum(fold.mass[-1] for fold in self._folds) > 0:
            raise ValueError(
                f"weight must be above 0 for some calibration row, got 0 for all {len(scores)}. "
                "New rows have to look like some of them."
            )

    def _threshold(self) -> float:
        if self.threshold_of_ == "p_value":
            return float(self.alpha)
        n = self.n_calibration_
        # floor(alpha * (n + 1)), by the very quotients that p_value returns
        k = np.searchsorted(np.arange(1, n + 1) / (n + 1), self.alpha, side="right")
        return float(self._folds[0].scores[k - 1])


class _Fold(NamedTuple):
    """A fitted estimator and the rows that calibrate it."""

    estimator: Any
    scores: np.ndarray  # (n,), increasing
    mass: np.ndarray  # (n + 1,), total weight of the first 0 to n of them


def _check_open_unit(name: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number in (0, 1), got {value!r}. {remedy}")
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value!r}. {remedy}")
