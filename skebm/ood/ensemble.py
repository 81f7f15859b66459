"""Several fits of one density estimator as one density."""

from __future__ import annotations

__all__ = ["EnsembleDensity"]

import numbers
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp
from sklearn.base import DensityMixin
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm._tables import weighted_mean
from skebm._warn import warn
from skebm.estimators._callbacks import with_callbacks
from skebm.exceptions import EnsembleWarning, NormalizationWarning
from skebm.inside import is_normalized, read_scores
from skebm.ood._base import Detector, atomic, draw_rows, read_rows
from skebm.ood._fitting import Given
from skebm.ood._quantiles import effective, lower_quantile, training_quantile, warn_if_few
from skebm.ood._splits import LARGEST_SEED, own_random_state, seeded_clone, split_rows

HELD_OUT_QUANTILE, FEW_HELD_OUT = 0.05, 40  # as the estimators
EQUAL = 1e-9  # nats; seeds of a density that is not the same differ by more


class EnsembleDensity(DensityMixin, Detector):
    r"""Mean density of copies of an estimator that differ in seed or in rows.

    .. math:: \log p(x) = \log \frac{1}{K} \sum_k p_k(x)

    Parameters
    ----------
    estimator : estimator with score_samples
        Density estimator. Copies are fitted, each with seeds of its own.
    n_estimators : int, default=5
        Members K. More make the density smoother and cost as much more.
    bootstrap : bool, default=False
        Draw the rows of each member with replacement.
    max_samples : int or float, default=1.0
        Rows of each member: their number, or their share in (0, 1]. Without `bootstrap` they are
        drawn without replacement.
    contamination : "auto" or float, default="auto"
        "auto": ``offset_`` is the 5 % quantile of log densities of rows by members that have not
        seen them (with fewer than 40 such rows, the lower of theirs and all rows'). A float in
        (0, 0.5]: this share of the training rows is flagged.
    validation_fraction : float, default=0.1
        Share of the rows, in (0, 0.9], that is kept from all members to choose the threshold. Only
        where `contamination` is "auto" and all members see all other rows.
    n_jobs : int, optional
        Processes that fit members, as in joblib; None is 1, -1 all processors.
    random_state : int, RandomState or None, default=None
        Seed of the members and of their rows. It replaces the members' own.

    Attributes
    ----------
    estimators_ : list of estimator
        The fitted members.
    estimators_samples_ : list of ndarray of int of shape (n_member,)
        Rows of X that each was fitted to.
    offset_ : float
        Threshold of ``score_samples``, nats.
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
        If with `contamination` "auto" so few rows are held out that normal rows are flagged more
        often than 5 % of the time.
    EnsembleWarning
        If the members are equal: their log densities of all training rows are.
    NormalizationWarning
        If members are unnormalized: their log Z differ by what is not known, so that the mean
        favors some of them at random.

    Notes
    -----
    A mixture of normalized members is normalized, and its mean log density is at least the mean of
    theirs (Jensen's inequality). It is the largest member, less log K at most, that decides: rows
    that one member alone finds likely pass. Members of an estimator without randomness are equal
    unless their rows differ.

    A row's out-of-bag log density is the mean over the members that have not seen it; there are
    fewer of those, so it is a little lower than that of a new row, and ``offset_`` with it.

    References
    ----------
    .. [1] B. Lakshminarayanan, A. Pritzel and C. Blundell, "Simple and Scalable Predictive
       Uncertainty Estimation using Deep Ensembles", NIPS 2017. Section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import EnsembleDensity
    >>> X = np.random.RandomState(0).normal(size=(500, 2))
    >>> ensemble = EnsembleDensity(GaussianMixture(3), bootstrap=True, random_state=0).fit(X)
    >>> ensemble.predict([[0, 0], [4, 4]])
    array([ 1, -1])
    >>> near, far = ensemble.disagreement([[0, 0], [4, 4]])
    >>> bool(near < 0.2 < far)
    True
    """

    def __init__(
        self,
        estimator,
        *,
        n_estimators=5,
        bootstrap=False,
        max_samples=1.0,
        contamination="auto",
        validation_fraction=0.1,
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.bootstrap = bootstrap
        self.max_samples = max_samples
        self.contamination = contamination
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the members and choose the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored, labels too.
        **params : dict
            ``sample_weight``, an array-like of shape (n_samples,): nonnegative weights, for the
            members' own ``fit`` and for the threshold: a row counts in proportion to its weight,
            and n weighted rows for as many as they are worth, the square of the weights' sum over
            the sum of their squares. Further metadata is what scikit-learn's routing hands to the
            ``fit`` inside.

        Returns
        -------
        self : object
            The fitted ensemble.
        """
        self._check_parameters()
        given = Given.begin(self, X, params)
        random = own_random_state(self.random_state)
        drawn = self._draw_rows(given.n, random)
        members = [seeded_clone(self.estimator, random, replace=True) for _ in drawn]
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit)(given, *task)
            for task in zip(members, drawn, range(len(drawn)), strict=True)
        )
        scores = np.stack([read_scores(member, given.X) for member in self.estimators_])
        self._warn_of_members(scores)
        self.offset_, n_fresh = self._offset(scores, drawn, given.weight)
        if self.contamination == "auto":
            remedy = "set bootstrap=True, raise validation_fraction or set contamination"
            warn_if_few(n_fresh, "a contamination of", HELD_OUT_QUANTILE, remedy)
        self.estimators_samples_ = [given.kept[rows] for rows in drawn]
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log of the members' mean density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Nats; minus infinity where all members' densities are 0.
        """
        return _log_mean(self._members_scores(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Nonnegative weights of the mean, in any unit.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, nats per row.

        Warns
        -----
        NormalizationWarning
            If members are unnormalized.
        """
        values = self.score_samples(X)
        if not is_normalized(self):
            warn(
                "score is a mean of unnormalized log densities (log_partition=None), which cannot "
                "be compared between models. Set log_partition of the members to 'auto', say.",
                NormalizationWarning,
            )
        return weighted_mean(values, sample_weight)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw rows from the mixture: a member at random for each, then a draw from it.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        random_state : int, RandomState or None, default=None
            None takes the ensemble's own ``random_state``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of X.

        Raises
        ------
        TypeError
            If the members cannot sample.
        """
        check_is_fitted(self, "offset_")
        check_number("n_samples", n_samples, low=1, integer=True)
        if not hasattr(self.estimators_[0], "sample"):
            raise TypeError(
                f"members must have sample, got {type(self.estimators_[0]).__name__}. Give an "
                "estimator that can draw rows; a pipeline cannot."
            )
        random = own_random_state(self.random_state if random_state is None else random_state)
        K = len(self.estimators_)
        counts = random.multinomial(n_samples, np.full(K, 1 / K))
        seeds = random.randint(LARGEST_SEED, size=K)
        members = zip(self.estimators_, counts, seeds, strict=True)
        drawn = [draw_rows(member, int(n), int(seed)) for member, n, seed in members if n]
        return np.concatenate(drawn)[random.permutation(n_samples)]

    def disagreement(self, X: Any) -> np.ndarray:
        """Return how far the members' log densities are apart.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Standard deviation over the members (divided by K), nats; infinite where the densities
            of some but not all are 0.
        """
        scores = self._members_scores(X)
        n_zero = np.isneginf(scores).sum(axis=0)
        spread = np.where(n_zero, 0.0, scores).std(axis=0)
        spread[n_zero > 0] = np.inf
        spread[n_zero == len(scores)] = 0.0
        return spread

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "outlier_detector"
        return tags

    def _check_parameters(self) -> None:
        check_number("n_estimators", self.n_estimators, low=1, integer=True)
        check_choice("bootstrap", self.bootstrap, (False, True))
        if isinstance(self.max_samples, numbers.Integral):
            check_number("max_samples", self.max_samples, low=1, integer=True)
        else:
            check_number("max_samples", self.max_samples, low=0, high=1, open_low=True)
        if isinstance(self.contamination, str):
            check_choice("contamination", self.contamination, ("auto",))
        else:
            check_number("contamination", self.contamination, low=0, high=0.5, open_low=True)
        fraction = self.validation_fraction
        check_number("validation_fraction", fraction, low=0, high=0.9, open_low=True)

    def _draw_rows(self, n: int, random: np.random.RandomState) -> list[np.ndarray]:
        """Return the rows of each member."""
        is_count = isinstance(self.max_samples, numbers.Integral)
        size = int(self.max_samples) if is_count else max(1, round(self.max_samples * n))
        if size > n and not self.bootstrap:
            raise ValueError(
                f"max_samples must be at most the number of rows without bootstrap, got {size} of "
                f"{n} rows. Lower it or set bootstrap to True."
            )
        if self.bootstrap:
            return [random.randint(n, size=size) for _ in range(self.n_estimators)]
        if size < n:
            return [random.permutation(n)[:size] for _ in range(self.n_estimators)]
        rows = np.arange(n)
        if self.contamination == "auto":
            rows = split_rows(n, self.validation_fraction, random)[0]
        return [rows] * self.n_estimators

    def _members_scores(self, X: Any) -> np.ndarray:
        """Return each member's log densities, (K, n)."""
        check_is_fitted(self, "offset_")
        X = read_rows(self, X, reset=False)
        return np.stack([read_scores(member, X) for member in self.estimators_])

    def _warn_of_members(self, scores: np.ndarray) -> None:
        K = len(scores)
        if K > 1 and np.allclose(scores, scores[0], rtol=0, atol=EQUAL):
            warn(
                f"members must differ, got {K} that are equal at all {scores.shape[1]} rows. Set "
                "bootstrap=True, or give an estimator with randomness.",
                EnsembleWarning,
            )
        n_unknown = sum(not is_normalized(member) for member in self.estimators_)
        if K > 1 and n_unknown:
            warn(
                f"members must be normalized for their mean density, got {n_unknown} of {K} with "
                "log_partition=None. Set it to a method, 'auto' say.",
                NormalizationWarning,
            )

    def _offset(
        self, scores: np.ndarray, drawn: list[np.ndarray], weight: np.ndarray | None
    ) -> tuple[float, float]:
        """Return the threshold, and how many rows' worth of held-out ones chose it."""
        if self.contamination != "auto":
            return training_quantile(_log_mean(scores), self.contamination, weight), 0.0
        seen = np.zeros(scores.shape, dtype=bool)
        for k, rows in enumerate(drawn):
            seen[k, rows] = True
        fresh = ~seen.all(axis=0)
        if not fresh.any():
            raise ValueError(
                f"rows must be unseen by some member for contamination='auto', got 0 of "
                f"{scores.shape[1]}. Give more rows or set contamination to a number."
            )
        unseen = _log_mean(scores[:, fresh], ~seen[:, fresh])
        own = None if weight is None else weight[fresh]
        offset, n_fresh = (
            lower_quantile(unseen, HELD_OUT_QUANTILE, own),
            effective(own, len(unseen)),
        )
        if n_fresh < FEW_HELD_OUT:
            offset = min(offset, lower_quantile(_log_mean(scores), HELD_OUT_QUANTILE, weight))
        return offset, n_fresh


def _fit(given: Given, member: Any, rows: np.ndarray, number: int) -> Any:
    return given.take(rows).fit(member, number=number)


def _log_mean(scores: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    """Return the log of the mean density over the members kept, (K, n) to (n,)."""
    weight = np.ones(scores.shape) if kept is None else kept.astype(np.float64)
    return logsumexp(scores, axis=0, b=weight / weight.sum(axis=0))
