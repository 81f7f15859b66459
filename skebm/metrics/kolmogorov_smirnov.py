"""The Kolmogorov-Smirnov distance between two samples in the plane."""

from __future__ import annotations

__all__ = ["ks_2d"]

from typing import Any

import numpy as np

from skebm._components import as_table


def ks_2d(X: Any, Y: Any) -> float:
    """Return the two-sample, two-dimensional Kolmogorov-Smirnov statistic.

    A point parts the plane into four quadrants. The statistic of one sample's points is the largest
    difference, over these points and their quadrants, between the shares of `X` and of `Y` in a
    quadrant. The result is the mean of the statistic of the points of `X` and that of `Y`.

    Parameters
    ----------
    X : array-like of shape (n, 2)
        One sample.
    Y : array-like of shape (m, 2)
        The other sample, in the same units.

    Returns
    -------
    float
        The statistic, dimensionless, in [0, 1]; 0 if the samples are equal up to their order.

    Raises
    ------
    ValueError
        If a sample is not a finite table of two columns.

    Notes
    -----
    Points on a border, the center of the quadrants among them, are in the lower or left quadrant,
    so that every row of both samples is in exactly one, and swapping `X` and `Y` changes nothing.
    Nor does an increasing map of a column. Turning the plane does; reversing a column changes the
    statistic by at most ``(1/n + 1/m) / 2`` where no values of a column are tied, and by more where
    many are.

    For two samples of 1,000 rows from one density it is near 0.05, not 0: compare with that.

    The counts come from a wavelet matrix, ``(n + m) log(n + m)`` operations and memory that grows
    with ``n + m``: about 0.1 s for two samples of 10,000 rows.

    References
    ----------
    .. [1] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Section 4.1 and Table 1, after W. H. Press and S. A. Teukolsky,
       "Kolmogorov-Smirnov test for two-dimensional data", Computers in Physics 2(4), 1988.

    Examples
    --------
    >>> from skebm.datasets import eight_modes
    >>> from skebm.metrics import ks_2d
    >>> X, Y = (eight_modes().sample(1000, random_state=seed) for seed in (0, 1))
    >>> print(f"{ks_2d(X, Y):.2f} for the same density, {ks_2d(X, Y + 0.5):.2f} for a shifted one")
    0.05 for the same density, 0.49 for a shifted one
    """
    X, Y = _by_first_column("X", X), _by_first_column("Y", Y)
    statistics = [np.abs(_shares(X, points) - _shares(Y, points)).max() for points in (X, Y)]
    return float(np.mean(statistics))


def _by_first_column(name: str, X: Any) -> np.ndarray:
    """Return the rows in the order of their first column."""
    X = as_table(name, X, 2, "Choose two of them.")
    return X[np.argsort(X[:, 0])]


def _shares(X: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the share of X in each quadrant around each point, shape (4, n_points)."""
    upward = np.argsort(X[:, 1])
    left = np.searchsorted(X[:, 0], points[:, 0], side="right")
    lower = np.searchsorted(X[upward, 1], points[:, 1], side="right")
    rank = np.empty(len(X), dtype=np.intp)
    rank[upward] = np.arange(len(X))
    both = _count_below(rank, left, lower)
    return np.stack([both, left - both, lower - both, len(X) - left - lower + both]) / len(X)


def _count_below(values: np.ndarray, stop: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return how many of ``values[:stop]`` are below `limit`, for each stop and limit.

    A wavelet matrix: bit by bit from the highest, values with a 0 are moved before those with a 1,
    and each query follows its limit's bits. Where the limit has a 1, the values with a 0 are below.
    Values and limits are integers from 0 to ``len(values)``.
    """
    start, count = np.zeros_like(stop), np.zeros_like(stop)
    for bit in reversed(range(len(values).bit_length())):
        is_one = (values >> bit) & 1 == 1
        zeros = np.concatenate([[0], np.cumsum(~is_one)])  # among the first 0, 1, ... values
        below, goes_on = zeros[stop] - zeros[start], (limit >> bit) & 1 == 1
        count += np.where(goes_on, below, 0)
        start, stop = (
            np.where(goes_on, zeros[-1] + end - zeros[end], zeros[end]) for end in (start, stop)
        )
        values = np.concatenate([values[~is_one], values[is_one]])
    return count
