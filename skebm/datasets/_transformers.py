"""From integer pixels to the whole line and back, with the log-volume of each map."""

from __future__ import annotations

__all__ = ["Dequantize", "Logit"]

import math
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import as_table, check_number, check_random_state

MAX_LEVELS = 2**16
NOISE_BITS = 50  # of level and noise together: float64 holds their sum without rounding


class Dequantize(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Integers to reals in (0, 1) by uniform noise: ``y = (x + u) / levels``, u ~ U(0, 1).

    Parameters
    ----------
    levels : int, default=256
        Number of values that a column can take, 2 to 65536: the integers 0 to ``levels - 1``. 256
        for images of bytes.
    random_state : int, RandomState or None, default=None
        Seed or generator of the noise. With an int, every call of `transform` draws the same noise
        for a table of the same shape; with the others every call draws anew.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns d.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        At `fit` or `transform`, if X holds what is no integer from 0 to ``levels - 1``, or `levels`
        is not a number in its range.

    Notes
    -----
    With ``P(x)`` the mass that a density p over (0, 1)^d has in the cell of the integers x,
    ``E_u log p(y) + log_volume(x) <= log P(x)`` by Jensen's inequality, in nats: the mean log
    density of dequantized rows is a lower bound on the log likelihood of the discrete ones, reached
    where p is constant in each cell.

    The noise has 34 to 49 bits (42 for 256 levels), none of them rounded away: results are strictly
    inside (0, 1), and `inverse_transform` returns the integers exactly. A table needs about three
    arrays of its size in float64 while it is transformed.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       middle-man: training and evaluating energy-based models without sampling".
       Appendix B.6.2.
    .. [2] L. Theis, A. van den Oord and M. Bethge, "A note on the evaluation of generative models",
       ICLR 2016. Section 3.1.

    Examples
    --------
    >>> from skebm.datasets import Dequantize
    >>> X = [[0, 255], [17, 3]]
    >>> dequantize = Dequantize(random_state=0).fit(X)
    >>> y = dequantize.transform(X)
    >>> bool((y > 0).all() and (y < 1).all()), dequantize.inverse_transform(y).tolist()
    (True, [[0, 255], [17, 3]])
    >>> print(dequantize.log_volume(X).round(3))
    [-11.09 -11.09]
    """

    def __init__(self, levels: int = 256, random_state: Any = None) -> None:
        self.levels = levels
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Dequantize:
        """Check the table and learn its number of columns; nothing else is to be learned.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Integers from 0 to ``levels - 1``.
        y : None
            Ignored.

        Returns
        -------
        Dequantize
            The fitted transformer.
        """
        self._check_levels()
        self._validate(X, reset=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Add noise and scale.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Integers from 0 to ``levels - 1``.

        Returns
        -------
        ndarray of shape (n, d)
            Reals strictly between 0 and 1, float64.
        """
        X = self._validate(X)
        n_bits = NOISE_BITS - math.ceil(math.log2(self.levels))
        rng = check_random_state(self.random_state)
        noise = rng.randint(2**n_bits, size=X.shape, dtype=np.int64) + 0.5
        noise *= 2.0**-n_bits
        noise += X
        noise /= self.levels
        return noise

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the integers: ``floor(levels * x)``.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Reals; what is outside [0, 1) goes to the nearest level.

        Returns
        -------
        ndarray of shape (n, d)
            Integers from 0 to ``levels - 1``, int64.
        """
        X = _as_table(self, X)
        return np.floor(np.clip(X, 0, 1) * self.levels).clip(max=self.levels - 1).astype(np.int64)

    def log_volume(self, X: Any) -> np.ndarray:
        """Return the log-volume of the map for each row: ``-d log(levels)``, whatever the noise.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Integers from 0 to ``levels - 1``.

        Returns
        -------
        ndarray of shape (n,)
            Log of the absolute determinant of dy/dx, nats.
        """
        n, d = self._validate(X).shape
        return np.full(n, -d * math.log(self.levels))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def _validate(self, X: Any, reset: bool = False) -> np.ndarray:
        if not reset:
            check_is_fitted(self)
        return self._check_values(validate_data(self, X, dtype=np.float64, reset=reset))

    def _check_values(self, X: np.ndarray) -> np.ndarray:
        bad = (X < 0) | (X > self.levels - 1) | (X != np.floor(X))
        _refuse(X, bad, f"integers from 0 to {self.levels - 1}", "Rescale X or set levels.")
        return X

    def _check_levels(self) -> None:
        remedy = "Images of bytes have 256."
        check_number("levels", self.levels, low=2, high=MAX_LEVELS, integer=True, remedy=remedy)


class Logit(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """The unit interval to the whole line: ``y = log(p / (1 - p))``, p = alpha + (1 - 2 alpha) x.

    Parameters
    ----------
    alpha : float, default=1e-6
        Distance that the ends are moved inward, 0 to 0.499, in the units of X. Larger bounds y more
        tightly: ``|y| <= log(1 / alpha - 1)``, 13.8 at 1e-6. With 0, X must be strictly between 0
        and 1.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns d.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        At `fit` or `transform`, if X leaves [0, 1], or has a 0 or a 1 where `alpha` is 0, or if
        `alpha` is not a number in its range.

    Notes
    -----
    ``log p(x) = log p(y) + log_volume(x)``, in nats. The paper has no alpha; its released code has
    1e-6.

    `inverse_transform` returns x with an error, from the rounding of y, below
    ``1e-14 (alpha + x)`` and below 1e-15: below 2e-12 of x where x is above ``alpha / 100``.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       middle-man: training and evaluating energy-based models without sampling".
       Appendix B.6.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.datasets import Logit
    >>> X = np.array([[0.0, 0.5], [0.9, 1.0]])
    >>> logit = Logit().fit(X)
    >>> print(logit.transform(X).round(3))
    [[-13.816   0.   ]
     [  2.197  13.816]]
    >>> print(logit.log_volume(X).round(3), logit.inverse_transform([[0.0, 13.0]]).round(6))
    [15.202 16.223] [[0.5      0.999999]]
    """

    def __init__(self, alpha: float = 1e-6) -> None:
        self.alpha = alpha

    def fit(self, X: Any, y: Any = None) -> Logit:
        """Check the table and learn its number of columns; nothing else is to be learned.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Reals in [0, 1].
        y : None
            Ignored.

        Returns
        -------
        Logit
            The fitted transformer.
        """
        remedy = "The default is 1e-6."
        check_number("alpha", self.alpha, low=0, high=0.499, remedy=remedy)
        self._validate(X, reset=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Map to the whole line.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Reals in [0, 1].

        Returns
        -------
        ndarray of shape (n, d)
            Log odds, nats, float64.
        """
        from_zero, from_one = self._log_distances(self._validate(X))
        return from_zero - from_one

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Map back to [0, 1].

        Parameters
        ----------
        X : array-like of shape (n, d)
            Log odds; what is beyond the images of 0 and 1 goes to the nearer end.

        Returns
        -------
        ndarray of shape (n, d)
            Reals in [0, 1], float64.
        """
        p = expit(_as_table(self, X))
        return ((p - self.alpha) / (1 - 2 * self.alpha)).clip(0, 1)

    def log_volume(self, X: Any) -> np.ndarray:
        """Return the log-volume of the map for each row, at rows that are not transformed yet.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Reals in [0, 1]: the input of `transform`, not its output.

        Returns
        -------
        ndarray of shape (n,)
            Log of the absolute determinant of dy/dx, nats.
        """
        X = self._validate(X)
        from_zero, from_one = self._log_distances(X)
        constant = X.shape[1] * math.log1p(-2 * self.alpha)
        return constant - from_zero.sum(axis=1) - from_one.sum(axis=1)

    def _log_distances(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of p and of 1 - p, (n, d) each, the second without cancellation."""
        slope = 1 - 2 * self.alpha
        return np.log(self.alpha + slope * X), np.log(self.alpha + slope * (1 - X))

    def _validate(self, X: Any, reset: bool = False) -> np.ndarray:
        if not reset:
            check_is_fitted(self)
        return self._check_values(validate_data(self, X, dtype=np.float64, reset=reset))

    def _check_values(self, X: np.ndarray) -> np.ndarray:
        if self.alpha > 0:
            _refuse(X, (X < 0) | (X > 1), "in [0, 1]", "Scale X first: Dequantize does.")
        else:
            remedy = "Set alpha > 0 or dequantize first."
            _refuse(X, (X <= 0) | (X >= 1), "in (0, 1) where alpha is 0", remedy)
        return X


def _as_table(transformer: Any, X: Any) -> np.ndarray:
    """Return what goes back through a fitted transformer as float64 (n, d)."""
    check_is_fitted(transformer)
    return as_table("X", X, transformer.n_features_in_, "Pass rows of the transformed space.")


def _refuse(X: np.ndarray, bad: np.ndarray, rule: str, remedy: str) -> None:
    """Raise the house's error with the first of the bad values."""
    if bad.any():
        first = float(X.flat[bad.argmax()])
        raise ValueError(
            f"X must be {rule}, got {first:g} ({np.count_nonzero(bad)} of {X.size} values). "
            f"{remedy}"
        )
