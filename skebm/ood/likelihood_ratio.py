"""What a density says beyond a background density."""

from __future__ import annotations

__all__ = ["LikelihoodRatioDetector"]

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm._tables import take_entries
from skebm.estimators._callbacks import with_callbacks
from skebm.inside import read_scores, without_tails
from skebm.ood._base import Detector, atomic, check_prefit, read_rows
from skebm.ood._fitting import Given
from skebm.ood._quantiles import effective, lower_quantile, warn_if_few
from skebm.ood._splits import check_split, own_random_state, seeded_clone, split_rows


class LikelihoodRatioDetector(Detector):
    r"""Log density of the normal rows minus log density of a background.

    .. math:: s(x) = \log p_\text{foreground}(x) - \log p_\text{background}(x)

    Parameters
    ----------
    foreground : estimator with score_samples
        Density estimator of the normal rows. A copy is fitted.
    background : estimator with score_samples, optional
        Density estimator of what normal and abnormal rows share. A copy is fitted, to the rows
        ``X_background`` given to ``fit``, or else to those of the foreground: it should then be a
        simpler one. None takes a copy of the foreground, fitted to ``X_background`` or else to
        perturbed normal rows.
    mutation_rate : float, default=0.2
        Share, in (0, 1], of the entries of perturbed rows that are shuffled within their columns,
        dimensionless. At 1 columns are independent in the background; near 0 it is the foreground
        and the score says nothing.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless. Larger flags more.
    calibration_fraction : float, default=0.3
        Share of the rows that is held out for the threshold, in (0, 0.9].
    prefit : bool, default=False
        Both estimators are given, are fitted already and are used as they are; all rows, new to
        them, set the threshold.
    random_state : int, RandomState or None, default=None
        Seed of the split, of the perturbation, and of every ``random_state`` inside the estimators
        that is None.

    Attributes
    ----------
    foreground_, background_ : estimator
        The fitted densities.
    offset_ : float
        Threshold, the `alpha` quantile of held-out ratios, nats.
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
        If fewer than ``1 / alpha - 1`` rows are held out: normal rows are flagged more often then.

    Notes
    -----
    The ratio is the same in all units of X. It helps where what the two densities share, noise or
    the overall size of the values, hides what tells rows apart. Perturbed rows keep the columns'
    values, so the default finds broken dependence between columns and is blind to a row that
    is unusual in one column alone. The cost is that of two densities.

    Where the foreground is 0 the score is minus infinity, where the background alone is 0 infinity.

    References
    ----------
    .. [1] J. Ren, P. J. Liu, E. Fertig, J. Snoek, R. Poplin, M. A. DePristo, J. V. Dillon and
       B. Lakshminarayanan, "Likelihood Ratios for Out-of-Distribution Detection", NeurIPS 2019.
       Section 3. There entries are replaced by uniform draws from an alphabet.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import LikelihoodRatioDetector
    >>> rng = np.random.RandomState(0)
    >>> X = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=500)
    >>> detector = LikelihoodRatioDetector(GaussianMixture(), random_state=0).fit(X)
    >>> detector.predict([[1, 1], [1, -1]])
    array([ 1, -1])
    """

    scores_are_log_densities = False
    inner = ("foreground", "background")

    def __init__(
        self,
        foreground,
        background=None,
        *,
        mutation_rate=0.2,
        alpha=0.05,
        calibration_fraction=0.3,
        prefit=False,
        random_state=None,
    ):
        self.foreground = foreground
        self.background = background
        self.mutation_rate = mutation_rate
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.random_state = random_state

    @atomic
    @with_callbacks
    def fit(self, X: Any, y: Any = None, X_background: Any = None, **params: Any) -> Self:
        """Fit both densities and choose the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored, labels too.
        X_background : array-like of shape (n_background, n_features), optional
            Rows of the background.
        **params : dict
            ``sample_weight``, an array-like of shape (n_samples,): nonnegative weights, for the
            densities' own ``fit`` and for the threshold: a row counts in proportion to its weight,
            and n weighted rows for as many as they are worth, the square of the weights' sum over
            the sum of their squares. Values that are shuffled into a row of the background take
            that row's weight. Further metadata is what scikit-learn's routing hands to the ``fit``
            inside.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_number("alpha", self.alpha, low=0, high=0.5, open_low=True)
        check_number("mutation_rate", self.mutation_rate, low=0, high=1, open_low=True)
        check_split(self)
        given = Given.begin(self, X, params)
        learn = self._take if self.prefit else self._learn
        held_out = learn(given, X_background)
        self.offset_ = lower_quantile(self._ratio(held_out.X), self.alpha, held_out.weight)
        warn_if_few(effective(held_out.weight, held_out.n), "alpha", self.alpha)
        given.end()
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log ratio of the densities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Nats, higher for more normal rows.
        """
        check_is_fitted(self, "offset_")
        return self._ratio(read_rows(self, X, reset=False))

    def _take(self, given: Given, X_background: Any) -> Given:
        """Use both estimators as they are, and all rows for the threshold."""
        if self.background is None or X_background is not None:
            got = "None" if self.background is None else "X_background too"
            raise ValueError(
                f"background must be a fitted estimator where prefit is True, got {got}. Fit it "
                "beforehand, or set prefit to False."
            )
        check_prefit(self.foreground, "foreground")
        check_prefit(self.background, "background")
        self.foreground_, self.background_ = self.foreground, self.background
        return given

    def _learn(self, given: Given, X_background: Any) -> Given:
        """Fit copies of both estimators and return the rows held out from them."""
        random = own_random_state(self.random_state)
        rest, held_out = split_rows(given.n, self.calibration_fraction, random)
        rows = shared = given.take(rest)
        if X_background is not None:
            shared = given.others(read_rows(self, X_background, reset=False))
        elif self.background is None:
            shared = rows.replaced(_mutated(rows.X, self.mutation_rate, random))
        name = "foreground" if self.background is None else "background"
        copies = [seeded_clone(e, random) for e in (self.foreground, getattr(self, name))]
        self.foreground_ = rows.fit(copies[0], "foreground")
        self.background_ = shared.fit(copies[1], name, 1)
        return given.take(held_out)

    def _ratio(self, X: Any) -> np.ndarray:
        densities = (without_tails(self.foreground_), without_tails(self.background_))
        above, below = (read_scores(density, X) for density in densities)
        ratio = np.full(len(above), -np.inf)
        return np.subtract(above, below, out=ratio, where=np.isfinite(above))


def _mutated(X: Any, rate: float, random: np.random.RandomState) -> Any:
    """Return a copy in which a share of each column's entries is shuffled among themselves.

    No value is repeated that was not before: copies would be atoms to a continuous density.
    """
    n, d = X.shape
    source = np.tile(np.arange(n)[:, None], d)
    for column in source.T:
        moved = np.flatnonzero(random.uniform(size=n) < rate)
        column[moved] = random.permutation(moved)
    return take_entries(X, source)
