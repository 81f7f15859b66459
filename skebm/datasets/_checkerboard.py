"""A density with edges: uniform on alternate cells of a square."""

from __future__ import annotations

__all__ = ["Checkerboard"]

from functools import cached_property

import numpy as np

from skebm.datasets._base import KnownDensity

CELL = 2.0  # side of a cell, in the units of X
HALF = 2  # cells on each side of the origin, along each axis
N_CELLS = 2 * HALF**2  # half of all cells are in the support


class Checkerboard(KnownDensity):
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

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return float(np.log(N_CELLS * CELL**2))

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        return np.where(_in_support(x), -self.entropy, -np.inf)

    def _score(self, x: np.ndarray) -> np.ndarray:
        return np.where(_in_support(x)[:, None], np.zeros_like(x), np.nan)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        column = rng.randint(2 * HALF, size=n)
        row = 2 * rng.randint(HALF, size=n) + column % 2  # same parity as the column
        corner = CELL * (np.column_stack([column, row]) - HALF)
        return corner + CELL * rng.uniform(size=(n, self.n_features))


def _in_support(x: np.ndarray) -> np.ndarray:
    cell = np.floor(x / CELL)
    on_board = ((cell >= -HALF) & (cell < HALF)).all(axis=1)
    return on_board & (cell.sum(axis=1) % 2 == 0)
