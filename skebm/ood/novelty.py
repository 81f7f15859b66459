"""Several views of a row's strangeness, added up: one call that needs no tuning."""

from __future__ import annotations

__all__ = ["NoveltyDetector"]

import math
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm._surroundings import own_settings
from skebm._tables import has_numbers_alone, naming_columns, table_like
from skebm.data import Schema, systematic_rows, torch_generator
from skebm.estimators import NCEDensity, USPDensity
from skebm.estimators._callbacks import with_callbacks
from skebm.fitted.density import missing
from skebm.inside import read_scores
from skebm.ood._base import Detector, atomic, read_rows
from skebm.ood._fitting import Given
from skebm.ood._members import MOST_ROWS, LocalDetector, judged_rows
from skebm.ood._quantiles import lower_quantile, training_quantile, warn_if_few
from skebm.ood._splits import own_random_state, seeded_clone
from skebm.ood.contributions import feature_contributions
from skebm.ood.kernel_score import KernelScoreDetector
from skebm.ood.local_mahalanobis import LocalMahalanobisDetector
from skebm.ood.neighbor_distance import NeighborDistanceDetector

LOCAL = KernelScoreDetector, LocalMahalanobisDetector, NeighborDistanceDetector
MORE = 2.0  # neighbors, of the novelties that there may be
LEVELS = 0.5, 0.01  # of the scores that a member's unit is the difference of
N_COMPLETIONS = 8  # of a row with missing values, that its score is a mean of
RARE = 0.05  # probability of a value that no row had, below which it counts by itself
N_REFERENCE = 256  # rows whose values stand in for those of a row that is explained


class NoveltyDetector(Detector):
    r"""Which rows of a table are odd: four novelty scores, added up.

    Takes arrays and data frames as they are, text, dates and holes too; `skebm.ood.reasons` says
    why a row is odd, `ConformalNoveltyDetector` around it guarantees the rate of false alarms. Each
    score is in units of its own spread over unseen normal rows:

    .. math:: s(x) = \sum_m \frac{s_m(x) - q_{50}(s_m)}{q_{50}(s_m) - q_1(s_m)}

    The members are the score norm of a kernel density (`KernelScoreDetector`), the Mahalanobis
    distance from the 20 nearest rows (`LocalMahalanobisDetector`), the distance to the fifth
    (`NeighborDistanceDetector`), and a log density. Their quantiles are those of training rows that
    the member has not seen: each is left out of the rows, or of the density's base.

    Parameters
    ----------
    estimator : estimator with score_samples, optional
        Density. A copy is fitted; None is `NCEDensity`, or `USPDensity` for data frames with text,
        categories or dates.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless. Larger flags more.
    contamination : float, default=0.0
        Share of the rows given to ``fit``, in [0, 0.5], that may be novelties: so many, the
        farthest from twice as many neighbors, are left out, all is fitted to the others, and the
        threshold flags so many of all, whatever `alpha` is.
    random_state : int, RandomState or None, default=None
        Seed of the rows that are chosen, and of every ``random_state`` inside the density that is
        None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    members_ : list of estimator
        All fitted members, the density last.
    quantiles_ : ndarray of shape (4, 2) or (5, 2)
        Median and 1 % quantile of each member's scores of unseen rows; the fifth is the least log
        probability of a code given the rest of its row, where there are codes.
    unseen_scores_ : ndarray of shape (n_judged,)
        Scores of at most 1,200 training rows as unseen ones.
    kept_ : ndarray of int of shape (n_kept,)
        Places of the rows that it was fitted to, all but those left out for `contamination`.
    offset_ : float
        Threshold, the `alpha` quantile of ``unseen_scores_``, or with `contamination` that quantile
        of the scores of all rows.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X or a parameter is unfit; the message names it.

    Warns
    -----
    CalibrationWarning
        If there are fewer than ``1 / alpha - 1`` rows.

    Notes
    -----
    On 23 tables of ADBench the sum has the best mean rank of nine detectors
    (``examples/benchmarks/novelty/tabular_novelty.py`` prints it). Of more than 20,000 rows so many
    are kept, at random; a row is scored by its distances to all of them. Leaving a row out of the
    density's base leaves it in its energy, so the guarantee of `p_value` is approximate: wrap the
    detector in `ConformalNoveltyDetector` for an exact one.

    In a data frame that the density sees as codes beside numbers (see its ``columns``), distances
    are those of numbers and one column for each category, and one more member is the least log
    probability of a category given the rest of the row. A value that no row of the fit had, and
    that is rarer than 5 %, lowers the sum by what it is rarer, in nats.

    Where the density takes rows with missing values, so does the detector: the members see 8
    completions of such a row, drawn from the density given its other values.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.ood import NoveltyDetector
    >>> X = np.random.RandomState(0).normal(size=(300, 2))
    >>> detector = NoveltyDetector(random_state=0).fit(X)
    >>> detector.predict([[0, 0], [5, 5]])
    array([ 1, -1])
    >>> bool(detector.p_value([[5, 5]])[0] < 0.01)
    True
    """

    scores_are_log_densities = False

    def __init__(self, estimator=None, *, alpha=0.05, contamination=0.0, random_state=None):
        self.estimator = estimator
        self.alpha = alpha
        self.contamination = contamination
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the members and choose the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows: finite numbers, in data frames text, categories and dates too, and missing
            values.
        y : None
            Ignored, labels too.
        **params : dict
            Metadata that scikit-learn's routing hands to the ``fit`` of the density.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_number("alpha", self.alpha, low=0, high=0.5, open_low=True)
        share = "It is the share of the rows that may be novelties; 0 is for normal rows alone."
        check_number("contamination", self.contamination, low=0, high=0.5, remedy=share)
        given = everything = Given.begin(self, X, params)
        random = own_random_state(self.random_state)
        if self.contamination:
            kept = self._without_strangest(_with_medians(self._plain(given.X)), random)
            given = given.take(kept)
        density = given.fit(seeded_clone(self._density(given.X), random))
        schema = _schema(density)
        rows = self._numbers(given.X) if schema is None else schema.encode(given.X)[0]
        near = self._near(_completed(density, rows, 1)[:, 0], given.weight, random)
        judged = judged_rows(len(near), random)
        local = _learnt(_hot(schema, near), judged, self.alpha)
        self.members_, self.estimator_ = [*local, density], density
        unseen = [member.unseen_scores_ for member in local]
        if schema is None:
            unseen.append(_of_unseen(density, table_like(given.X, near[judged])))
        else:
            unseen += _by_density(density, near[judged])
        self._reference = near[random.permutation(len(near))[:N_REFERENCE]]
        self.quantiles_ = np.quantile(unseen, LEVELS, axis=1).T
        self.unseen_scores_ = _added(unseen, self.quantiles_)
        self.offset_ = lower_quantile(self.unseen_scores_, self.alpha)
        if self.contamination:
            self.offset_ = training_quantile(
                self.score_samples(everything.X), self.contamination, everything.weight
            )
        else:
            warn_if_few(len(self.unseen_scores_), "alpha", self.alpha, "raise alpha")
        self.kept_ = given.kept
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return how normal each row is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Near 0 for the middle of the normal rows, -4 where every member is at its 1 % quantile.
        """
        check_is_fitted(self, "offset_")
        X = read_rows(self, X, reset=False)
        *local, density = self.members_
        schema = _schema(density)
        rows, log_unseen = (self._numbers(X), 0.0) if schema is None else schema.encode(X)
        holed = missing(rows)
        if holed is None and schema is None:
            values = [*(member.scores_of(rows) for member in local), read_scores(density, X)]
            return _added(values, self.quantiles_)
        n = 1 if holed is None else N_COMPLETIONS
        some = _hot(schema, _completed(density, rows, n).reshape(-1, rows.shape[1]))
        far = [member.scores_of(some).reshape(len(rows), n).mean(1) for member in local]
        sums = _added([*far, *_by_density(density, rows, log_unseen)], self.quantiles_)
        return sums + np.minimum(log_unseen - math.log(RARE), 0.0)

    def p_value(self, X: Any) -> np.ndarray:
        """Return how likely a normal row is to be as strange as each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            One more than the unseen scores at or below the row's, over one more than all of them:
            approximate, and at least 1 / 1,201 where there are many rows.
        """
        unseen = np.sort(self.unseen_scores_) if hasattr(self, "offset_") else np.zeros(1)
        return (1 + np.searchsorted(unseen, self.score_samples(X), "right")) / (len(unseen) + 1)

    def contributions(self, X: Any, method: str = "conditional") -> np.ndarray:
        """Return what each column of each row adds to its strangeness.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        method : {"conditional", "mode"}, default="conditional"
            What a column is replaced by, see `feature_contributions`.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            What the score would gain, its units (of a table with codes, what the log density would,
            nats); the largest of a row is at the column that is hardest to reconcile with the
            others.
        """
        check_is_fitted(self, "offset_")
        if _schema(self.estimator_) is not None:
            return feature_contributions(self.estimator_, X, method=method)
        return feature_contributions(self, X, method=method, reference=self._reference)

    def inside(self, name: str) -> Any:
        """Return the density that is fitted.

        Parameters
        ----------
        name : str
            ``"estimator"``.

        Returns
        -------
        estimator
            Unfitted.
        """
        return NCEDensity() if self.estimator is None else self.estimator

    def _density(self, X: Any) -> Any:
        """Return the density to fit: of text and categories one that takes them."""
        if self.estimator is not None or has_numbers_alone(X):
            return self.inside("estimator")
        return USPDensity()

    def _plain(self, X: Any) -> np.ndarray:
        """Return rows as numbers before anything is fitted."""
        if has_numbers_alone(X):
            return self._numbers(X)
        schema = Schema.of(X)
        return schema.hot(schema.encode(X)[0])

    def _numbers(self, X: Any) -> np.ndarray:
        finite = "allow-nan" if get_tags(self).input_tags.allow_nan else True
        with naming_columns(X):
            return check_array(X, dtype=np.float64, input_name="X", ensure_all_finite=finite)

    def _without_strangest(self, rows: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """Return the numbers of the rows (n, d) without the farthest from their neighbors.

        These are more than there can be novelties, so that a close group of them has none either.
        """
        some = random.permutation(len(rows))[:MOST_ROWS]
        others = np.setdiff1d(np.arange(len(rows)), some)
        k = max(5, int(np.ceil(MORE * self.contamination * len(some))))
        member = NeighborDistanceDetector(k)
        member.learn(rows[some], np.arange(len(some)))
        score = np.empty(len(rows))
        score[some] = member.unseen_scores_
        score[others] = member.scores_of(rows[others])
        n = len(rows) - int(np.ceil(self.contamination * len(rows)))
        return np.sort(np.argsort(-score, kind="stable")[: max(n, 2)])

    def _near(
        self, rows: np.ndarray, weight: np.ndarray | None, random: np.random.RandomState
    ) -> np.ndarray:
        """Return the rows that others are near, at most 20,000, repeated by weight."""
        if weight is not None:
            rng = torch_generator(random)
            rows = rows[systematic_rows(torch.from_numpy(weight), len(rows), rng).numpy()]
        if len(rows) <= MOST_ROWS:
            return rows
        return rows[random.permutation(len(rows))[:MOST_ROWS]]


def _completed(density: Any, rows: np.ndarray, n: int) -> np.ndarray:
    """Return n completions (n_rows, n, d) of rows (n_rows, d), each row's whatever the others."""
    out = np.repeat(rows[:, None], n, axis=1)
    holed = missing(rows)
    if holed is None:
        return out
    if not hasattr(density, "density_"):
        raise ValueError(
            "estimator must be a density of skebm itself for rows with missing values, got "
            f"{type(density).__name__}. Fill them in first, by skebm.impute.DensityImputer say."
        )
    out[holed] = density.density_.holes.draw(rows[holed], n, None)
    return out


def _schema(density: Any) -> Any:
    """Return what the columns are to a density, None where all are numbers."""
    return getattr(density, "schema_", None)


def _hot(schema: Any, rows: np.ndarray) -> np.ndarray:
    """Return encoded rows (n, d) with a column for each code, for distances."""
    return rows if schema is None else schema.hot(rows)


def _by_density(density: Any, rows: np.ndarray, log_unseen: Any = 0.0) -> list[np.ndarray]:
    """Return log densities of encoded rows (n, d) and, where some are codes, the oddest's."""
    known = [density.density_.log_density_of_completions(rows) + log_unseen]
    odd = density.odd_codes(rows)
    return known if odd is None else [*known, odd + log_unseen]


def _with_medians(rows: np.ndarray) -> np.ndarray:
    """Return rows (n, d) with the columns' medians where values are missing."""
    if missing(rows) is None:
        return rows
    return np.where(np.isnan(rows), np.nanmedian(rows, axis=0), rows)


def _learnt(rows: np.ndarray, judged: np.ndarray, alpha: float = 0.05) -> list[LocalDetector]:
    """Return members that look at neighbors, fitted to rows (n, d)."""
    members = [cls(alpha=alpha) for cls in LOCAL]
    for member in members:
        member.learn(rows, judged)
        member.n_features_in_ = rows.shape[1]
    return members


def _of_unseen(density: Any, X: Any) -> np.ndarray:
    """Return the log densities of training rows, less what its base gains by having seen them."""
    values = read_scores(density, X)
    fitted = getattr(density, "density_", None)
    if fitted is None or fitted.model.base is None:
        return values
    z, base = fitted.standardized(np.asarray(X, dtype=np.float64)), fitted.model.base
    with own_settings(), torch.no_grad():
        gained = base.log_prob(z).double() - base.log_prob_left_out(z, None).double()
    return values - gained.clamp(min=0).cpu().numpy()


def _added(values: Any, quantiles: np.ndarray) -> np.ndarray:
    """Return the sum of scores (m, n), each less its median, in units of its spread."""
    spread = quantiles[:, 0] - quantiles[:, 1]
    spread = np.where(spread > 0, spread, 1)  # of equal scores
    return ((np.asarray(values) - quantiles[:, :1]) / spread[:, None]).sum(0)
