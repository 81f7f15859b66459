"""What every known density shares: checked arguments, rows in blocks, documented once."""

from __future__ import annotations

__all__ = ["LARGEST", "KnownDensity", "check_n", "in_blocks"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from skebm._components import as_table, check_number, check_random_state

BLOCK_VALUES = 2**18  # 2 MiB of float64 in each temporary array: stays in the processor's cache
LARGEST = 1e100  # a row is cut here where its direction alone matters: squares stay finite


class KnownDensity(ABC):
    """Density whose logarithm, gradient and draws are known: a truth to hold models against.

    A subclass sets `n_features` and writes the mathematics, ``_log_density(x)``, ``_score(x)`` and
    ``_draw(n, rng)``. They get finite float64 rows (m, d), a count of at least one and a
    ``RandomState``, and return the shapes (m,), (m, d) and (n, d).

    Attributes
    ----------
    n_features : int
        The dimension d.
    entropy : float or None
        Differential entropy in nats; ``None`` where it is not known.

    Raises
    ------
    ValueError, TypeError
        From the methods, if rows are not finite or have another number of columns than d, or `n` is
        not a count of at least one.

    Notes
    -----
    Rows come to the mathematics in blocks, so that memory does not grow with them. Where it holds
    more numbers for a row than d, give their number as ``_width``. What overflows there becomes
    infinite without a warning: the log density is ``-inf`` where the value has no float64.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.datasets import KnownDensity
    >>> class Exponential(KnownDensity):
    ...     n_features, entropy = 1, 1.0
    ...
    ...     def _log_density(self, x):
    ...         return np.where(x[:, 0] < 0, -np.inf, -x[:, 0])
    ...
    ...     def _score(self, x):
    ...         return np.where(x < 0, np.nan, -1.0)
    ...
    ...     def _draw(self, n, rng):
    ...         return rng.exponential(size=(n, 1))
    >>> Exponential().log_density([[2.0], [-1.0]])
    array([ -2., -inf])
    """

    n_features: int
    _width = 1

    @cached_property
    def entropy(self) -> float | None:
        """Differential entropy in nats; None where it is not known."""
        return None

    def log_density(self, X: Any) -> np.ndarray:
        """Return the log density of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Log density in nats, in the units of X; ``-inf`` where the density is 0.
        """
        return self._evaluate(self._log_density, X)

    def score(self, X: Any) -> np.ndarray:
        """Return the gradient of the log density at each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n, d)
            Gradient, in nats per unit of X; NaN where the density is 0.
        """
        return self._evaluate(self._score, X)

    def sample(self, n: int, random_state: Any = None) -> np.ndarray:
        """Draw rows.

        Parameters
        ----------
        n : int
            Number of rows.
        random_state : int, RandomState or None, default=None
            Seed or generator.

        Returns
        -------
        ndarray of shape (n, d)
            Independent draws, in the units of X.
        """
        check_n(n)
        return self._draw(n, check_random_state(random_state))

    @abstractmethod
    def _log_density(self, x: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _score(self, x: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray: ...

    def _evaluate(self, function: Callable, X: Any) -> np.ndarray:
        remedy = "Pass rows of the space that the density lives in."
        rows = as_table("X", X, self.n_features, remedy)
        return in_blocks(function, rows, max(self._width, self.n_features))


def check_n(n: Any) -> None:
    """Raise the house's error unless `n` is a count of at least one."""
    check_number("n", n, low=1, integer=True, remedy="Ask for at least one row.")


def in_blocks(function: Callable, X: np.ndarray, width: int) -> np.ndarray:
    """Apply a function of rows (m, d) that holds `width` values per row to blocks of them."""
    size = max(1, BLOCK_VALUES // width)
    with np.errstate(over="ignore"):
        blocks = [function(X[start : start + size]) for start in range(0, len(X), size)]
    return np.concatenate(blocks)
