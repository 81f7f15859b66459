"""A density with edges: uniform on alternate cells of a square."""

from __future__ import annotations

__all__ = ["Checkerboard"]

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skebm.datasets._arrays import as_rows, check_n

CELL = 2.0  # side of a cell, in the units of X
HALF = 2  # cells on each side of the origin, along each axis
N_CELLS = 2 * HALF**2  # half of all cells are in the support


class Checkerboard:
    """Uniform density on alternate cells of ``[-4, 4)^2``, cells of side 2.

    ``p(x) = 1/32`` where ``floor(x1 / 2) + floor(x2 / 2)`` is even, 0 elsewhere

    Attributes
    ----------
    n_features : int
        The dimension, 2.
    entropy : float
        Differential entropy in nats, ``log 32``.

    Notes
    -----
    Cells contain their left and lower edges. The score is 0 inside the support; outside, where
    the log density is ``-inf``, there is no gradient and the score is NaN.

    Examples
    --------
    >>> from skebm.datasets import Checkerboard
    >>> print(Checkerboard().log_density([[1.0, 1.0], [3.0, 1.0]]))
    [-3.4657359       -inf]
    """

    n_features = 2

    def log_density(self, X: Any) -> np.ndarray:
        """Return the log density of each row.

        Parameters
        ----------
        X : array-like of shape (n, 2)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Log density in nats, ``-inf`` outside the support.
        """
        return np.where(_in_support(as_rows(X, self.n_features)), -self.entropy, -np.inf)

    def score(self, X: Any) -> np.ndarray:
        """Return the gradient of the log density at each row.

        Parameters
        ----------
        X : array-like of shape (n, 2)
            Rows.

        Returns
        -------
        ndarray of shape (n, 2)
            Gradient in nats per unit of X: 0 inside the support, NaN outside.
        """
        X = as_rows(X, self.n_features)
        return np.where(_in_support(X)[:, None], np.zeros_like(X), np.nan)

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
        ndarray of shape (n, 2)
            Independent draws, in the units of X.
        """
        check_n(n)
        rng = check_random_state(random_state)
        column = rng.randint(2 * HALF, size=n)
        row = 2 * rng.randint(HALF, size=n) + column % 2  # same parity as the column
        corner = CELL * (np.column_stack([column, row]) - HALF)
        return corner + CELL * rng.uniform(size=(n, self.n_features))

    @property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return float(np.log(N_CELLS * CELL**2))


def _in_support(X: np.ndarray) -> np.ndarray:
    cell = np.floor(X / CELL)
    on_board = ((cell >= -HALF) & (cell < HALF)).all(axis=1)
    return on_board & (cell.sum(axis=1) % 2 == 0)
