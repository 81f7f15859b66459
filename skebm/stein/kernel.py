"""Stein discrepancies over the ball of a Gaussian kernel's space."""

from __future__ import annotations

__all__ = [
    "KernelSteinDiscrepancy",
    "SteinKernel",
    "choose_bandwidth",
    "jackknife",
    "kernelized_stein_discrepancy",
]

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist

from skebm._components import check_choice, check_number
from skebm.stein._scores import Rows, read_table, shuffled, standardized

STATISTICS = ("u", "v", "linear")
ENTRIES = 1 << 21  # of a block of the Stein kernel's matrix: 16 MB
MOST_ROWS = 1000  # that choose a bandwidth
FACTORS = 2.0 ** np.linspace(-3, 3, 13)  # times the median distance: where the search looks


class KernelSteinDiscrepancy(NamedTuple):
    """A squared kernelized Stein discrepancy with its error.

    Parameters
    ----------
    value : float
        Estimate of the squared discrepancy, squared nats per squared standardized unit.
    stderr : float
        Jackknife standard error, the bandwidth taken as given; same unit.
    bandwidth : float
        Standard deviation of the Gaussian kernel, standardized units.
    """

    value: float
    stderr: float
    bandwidth: float


def kernelized_stein_discrepancy(
    score: Any,
    X: Any,
    *,
    bandwidth: float | str = "median",
    statistic: str = "u",
    standardize: bool = True,
) -> KernelSteinDiscrepancy:
    r"""Return the squared Stein discrepancy of rows and a model in a kernel's unit ball.

    .. math::
        E_{x, y \sim p}[s(x) \cdot s(y) k + s(x) \cdot \nabla_y k + s(y) \cdot \nabla_x k
        + \mathrm{tr} \nabla_x \nabla_y k], \quad k = e^{-|x - y|^2 / (2 \sigma^2)}

    Parameters
    ----------
    score : callable or fitted density
        The model, see `learned_stein_discrepancy`.
    X : array-like of shape (n, d)
        Rows, at least 4 independent draws from p, in any order: they are permuted, in the same way
        for each table of n rows.
    bandwidth : float or {"median", "optimized"}, default="median"
        :math:`\sigma` in standardized units; the median distance of (at most 1000) rows; or the
        width between 1/8 and 8 times the median that maximizes the estimate over these rows.
    statistic : {"u", "v", "linear"}, default="u"
        Mean over pairs of different rows (unbiased, may be negative), over all pairs (biased,
        never negative), or over n / 2 disjoint pairs (linear time).
    standardize : bool, default=True
        Divide columns by their standard deviation, so that units do not matter.

    Returns
    -------
    KernelSteinDiscrepancy
        Squared discrepancy, standard error, bandwidth.

    Raises
    ------
    ValueError, TypeError
        If the score or a parameter is unfit; the message names it.

    Notes
    -----
    n^2 d operations, in blocks of 16 MB, never (n, n, d) or (n, n); the linear statistic n d. An
    optimized bandwidth is chosen on the rows that it is then used on: the value leans upward.

    Kernels see little in many columns: all distances are then alike. Nor does the score see the
    relative weights of separated modes: a value near 0 does not certify them.

    References
    ----------
    .. [1] Q. Liu, J. D. Lee and M. I. Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit
       Tests", ICML 2016. Theorem 3.6 and Eq. 17.
    .. [2] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Eq. 5 and appendix B.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.stein import kernelized_stein_discrepancy
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> for mean in (0.0, 0.5, 1.0):
    ...     result = kernelized_stein_discrepancy(lambda x: mean - x, X)
    ...     print(f"{abs(result.value):.2f}")
    0.00
    0.32
    1.20
    """
    check_choice("statistic", statistic, STATISTICS)
    rows = standardized(*shuffled(read_table(score, X)), standardize)
    width = choose_bandwidth(rows, bandwidth, linear=statistic == "linear")
    kernel = SteinKernel(rows, width)
    if statistic == "linear":
        terms = kernel.pairs()
    else:
        terms = jackknife(kernel.row_sums())
    value, stderr = terms.mean(), terms.std(ddof=1) / len(terms) ** 0.5
    if statistic == "v":
        n = len(rows.x)
        value = ((n - 1) * value + kernel.diagonal().mean()) / n
    return KernelSteinDiscrepancy(float(value), float(stderr), width)


class SteinKernel:
    """The Stein kernel h(x, y) of rows, in pieces.

    Parameters
    ----------
    rows : Rows
        Rows and scores.
    bandwidth : float
        Standard deviation of the Gaussian kernel, units of the rows.
    """

    def __init__(self, rows: Rows, bandwidth: float) -> None:
        x, s = rows.x - rows.x.mean(axis=0), rows.score  # centered: products lose fewer digits
        precision = 1 / bandwidth**2
        self.x, self.s, self.precision = x, s, precision
        self.n, self.d = x.shape
        self.left = np.hstack([s, x])
        self.right = np.hstack([s - precision * x, -precision * s])
        self.along = precision * (s * x).sum(axis=1)
        self.square = (x * x).sum(axis=1)

    def block(self, a: slice, b: slice) -> np.ndarray:
        """Return h between two slices of rows, (n_a, n_b)."""
        distance = self.square[a, None] + self.square[b] - 2 * (self.x[a] @ self.x[b].T)
        distance *= self.precision
        np.maximum(distance, 0, out=distance)
        h = self.left[a] @ self.right[b].T
        h += self.along[a, None] + (self.along[b] + self.precision * self.d)
        h -= self.precision * distance
        distance *= -0.5
        h *= np.exp(distance, out=distance)
        return h

    def upper(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield blocks of rows a against the rows from a's first on: the matrix is symmetric."""
        start = 0
        while start < self.n:
            stop = min(self.n, start + max(1, ENTRIES // (self.n - start)))
            a, b = slice(start, stop), slice(start, self.n)
            yield a, b, self.block(a, b)
            start = stop

    def diagonal(self) -> np.ndarray:
        """Return h(x, x) of each row."""
        return (self.s * self.s).sum(axis=1) + self.d * self.precision

    def row_sums(self) -> np.ndarray:
        """Return the sum of h(x_i, x_j) over j other than i, for each i."""
        sums = -self.diagonal()
        for a, b, h in self.upper():
            sums[a] += h.sum(axis=1)
            sums[a.stop :] += h[:, a.stop - b.start :].sum(axis=0)
        return sums

    def pairs(self) -> np.ndarray:
        """Return h of row i and row i + n/2, for i below n/2."""
        half = self.n // 2
        x, y, s, t = self.x[:half], self.x[half : 2 * half], self.s[:half], self.s[half : 2 * half]
        return _combine(*_pair_parts(x, y, s, t), self.d, self.precision)


def jackknife(sums: np.ndarray) -> np.ndarray:
    """Return pseudo-values (n,) whose mean is the U-statistic of these off-diagonal row sums."""
    n, total = len(sums), sums.sum()
    return total / (n - 1) - (total - 2 * sums) / (n - 2)


def choose_bandwidth(rows: Rows, bandwidth: float | str, linear: bool = False) -> float:
    """Return the width of the Gaussian kernel, standardized units."""
    if not isinstance(bandwidth, str):
        check_number("bandwidth", bandwidth, low=0, open_low=True)
        return float(bandwidth)
    check_choice("bandwidth", bandwidth, ("median", "optimized"), "Or give a number above 0.")
    median = _median_distance(rows.x)
    if bandwidth == "median":
        return median
    value = _pair_value(rows) if linear else _subset_value(rows)
    return _maximize(value, median)


def _median_distance(x: np.ndarray) -> float:
    distances = pdist(_thinned(x))
    median = float(np.median(distances))
    if median > 0:
        return median
    if not distances.any():
        raise ValueError("X must have rows that differ, got equal ones. Leave out copies.")
    return float(distances.mean())  # more than half of the rows are copies


def _maximize(value: Callable[[float], float], median: float) -> float:
    """Search a grid of log widths, then refine between the neighbors of its best."""
    grid = np.log(median * FACTORS)
    best = int(np.argmax([value(w) for w in np.exp(grid)]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda w: -value(float(np.exp(w))), bounds=(low, high), options={"xatol": 0.01}
    )
    return float(np.exp(found.x if -found.fun >= value(np.exp(grid[best])) else grid[best]))


def _subset_value(rows: Rows) -> Callable[[float], float]:
    """Return the U-statistic over at most 1000 rows as a function of the width."""
    x, s = _thinned(rows.x), _thinned(rows.score)
    i, j = np.triu_indices(len(x), 1)
    square, along = (x * x).sum(axis=1), (s * x).sum(axis=1)
    product, cross = s @ s.T, s @ x.T
    cross = along[:, None] + along - cross - cross.T
    distance = square[:, None] + square - 2 * x @ x.T
    parts = product[i, j], cross[i, j], np.maximum(distance, 0)[i, j]
    return lambda width: float(_combine(*parts, x.shape[1], width**-2).mean())


def _pair_value(rows: Rows) -> Callable[[float], float]:
    half = len(rows.x) // 2
    x, s = rows.x, rows.score
    parts = _pair_parts(x[:half], x[half : 2 * half], s[:half], s[half : 2 * half])
    return lambda width: float(_combine(*parts, x.shape[1], width**-2).mean())


def _pair_parts(
    x: np.ndarray, y: np.ndarray, s: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return s.t, (s - t).(x - y) and |x - y|^2 of each pair of rows."""
    difference = x - y
    cross = ((s - t) * difference).sum(axis=1)
    return (s * t).sum(axis=1), cross, (difference * difference).sum(axis=1)


def _combine(
    product: np.ndarray, cross: np.ndarray, distance: np.ndarray, d: int, precision: float
) -> np.ndarray:
    """Return h from the three numbers of a pair."""
    inner = product + precision * (cross + d - precision * distance)
    return inner * np.exp(-0.5 * precision * distance)


def _thinned(table: np.ndarray) -> np.ndarray:
    return table[:: -(-len(table) // MOST_ROWS)]
