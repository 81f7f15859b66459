"""What is missing, by its density given the rest of the row."""

from __future__ import annotations

__all__ = ["DensityImputer"]

from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import check_choice
from skebm._tables import as_frame
from skebm.estimators import USPDensity
from skebm.estimators._files import Saved
from skebm.ood._base import atomic
from skebm.ood._splits import own_random_state, seeded_clone

STRATEGIES = ("draw", "mean")


class DensityImputer(OneToOneFeatureMixin, TransformerMixin, Saved):
    """Fill in missing values by draws, or means, of a density given the rest of the row.

    Parameters
    ----------
    estimator : density estimator, optional
        One of skebm whose base has conditional densities. A copy is fitted, to the table with its
        holes; None is `USPDensity`.
    strategy : {"draw", "mean"}, default="draw"
        Draws keep the spread of the columns and their dependence, means are nearest on average. For
        multiple imputations take several draws: ``transform`` of imputers that differ in
        `random_state`, or ``estimator_.conditional_sample``.
    random_state : int, RandomState or None, default=None
        Seed of the draws, and of every ``random_state`` inside the estimator that is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X or a parameter is unfit; the message names it.

    Notes
    -----
    That a value is missing must not depend on the value, given the others (missing at random).
    Values that are there stay as they are. ``transform`` takes new rows; the same rows get the same
    draws from one fitted imputer.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import USPDensity
    >>> from skebm.impute import DensityImputer
    >>> rng = np.random.RandomState(0)
    >>> X = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=400)
    >>> X[::4, 1] = np.nan
    >>> imputer = DensityImputer(USPDensity(max_iter=25), strategy="mean", random_state=0).fit(X)
    >>> bool(abs(imputer.transform([[2.0, np.nan]])[0, 1] - 1.8) < 0.2)
    True
    """

    def __init__(self, estimator=None, *, strategy="draw", random_state=None):
        self.estimator = estimator
        self.strategy = strategy
        self.random_state = random_state

    @atomic
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the density to a table with missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; what is missing is NaN.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted imputer.
        """
        check_choice("strategy", self.strategy, STRATEGIES)
        if as_frame(X) is None:
            validate_data(
                self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2
            )
        else:
            validate_data(self, X, skip_check_array=True)  # the density looks at its columns
        random = own_random_state(self.random_state)
        self.estimator_ = seeded_clone(self._density(), random).fit(X)
        self._seed = int(random.randint(2**31 - 1))
        return self

    def transform(self, X: Any) -> Any:
        """Return the rows with what is missing filled in.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; what is missing is NaN.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Complete rows, units of X; by ``set_output`` a data frame, and of a data frame with text
            or whole numbers one like it.
        """
        check_is_fitted(self, "estimator_")
        if getattr(self.estimator_, "schema_", None) is None:
            validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite="allow-nan")
        if self.strategy == "mean":
            return self.estimator_.conditional_mean(X)
        return self.estimator_.conditional_sample(X, random_state=self._seed)

    def _density(self):
        return USPDensity() if self.estimator is None else self.estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
