"""Kullback-Leibler divergence on a grid, and the mass that the grid does not see."""

from __future__ import annotations

__all__ = ["GridKL", "grid_kl"]

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from skebm._components import check_number
from skebm._tables import one_per_row

BLOCK = 2**16  # rows that a callable gets at once
MAX_CELLS = 2**24  # 128 MiB for the values of one density
ROUNDING = 1e-9  # cells: a box that is full but for rounding gets no cell more


class GridKL(NamedTuple):
    """Divergence of q from p on a grid.

    Parameters
    ----------
    kl : float
        KL(p || q) in nats, q normalized on the grid, p as it is.
    q_outside : float
        Share of q's mass that is outside the grid, dimensionless; NaN where it is unknown.
    p_outside : float
        Mass of p outside the grid, dimensionless: 1 minus its mass on the grid.
    log_z : float
        Log of the integral of exp(log_q) over the grid, nats.

    Examples
    --------
    >>> from skebm.metrics import GridKL
    >>> GridKL(kl=0.01, q_outside=0.2, p_outside=0.0, log_z=1.5).q_outside
    0.2
    """

    kl: float
    q_outside: float
    p_outside: float
    log_z: float


def grid_kl(
    log_p: Callable,
    log_q: Callable,
    domain: Any,
    n_grid: int = 200,
    *,
    q_log_partition: float | None = None,
    outer: Any = None,
) -> GridKL:
    r"""Return KL(p || q) by the midpoint rule on a regular grid, in one or two dimensions.

    .. math:: \sum_i p(x_i) \, (\log p(x_i) - \log q(x_i) + \log Z) \, \Delta, \qquad
        Z = \sum_i q(x_i) \, \Delta,

    over the midpoints of the cells, each of volume Delta: q is normalized on the grid, p is not.
    The mass that q has outside the grid is therefore invisible to the divergence. `q_outside` tells
    how much it is, if q is known to be normalized (`q_log_partition`) or if a wider box is given to
    look for it in (`outer`).

    Parameters
    ----------
    log_p : callable
        Log density of the truth, normalized: (n, d) rows to (n,) values in nats. ``-inf`` is 0.
    log_q : callable
        Log density of the model, in the same units of x, up to a constant.
    domain : tuple of (low, high)
        Corners of the grid, arrays of shape (d,), or numbers if d = 1, in the units of x. Corners,
        not one range per axis.
    n_grid : int, default=200
        Cells per axis. Larger resolves narrower modes; two cells per standard deviation do.
    q_log_partition : float, default=None
        Log of the integral of exp(log_q) over the whole space, nats, if it is known: 0 for a
        normalized density, such as ``score_samples`` of an estimator.
    outer : tuple of (low, high), default=None
        Corners of a box around `domain` that holds the mass of q, used in place of
        `q_log_partition`. It is filled with cells of the same size, rounded up to whole cells.

    Returns
    -------
    GridKL
        Fields `kl`, `q_outside`, `p_outside` and `log_z`.

    Raises
    ------
    ValueError
        If a box is not one, `outer` does not hold `domain`, a grid has more than ``2^24`` cells, a
        density is NaN or infinite, or p or q is 0 on all of the grid.
    TypeError
        If a density is not callable, or a number is not one.

    Notes
    -----
    Both callables get ``n_grid^d`` rows in blocks; `outer` costs as many more as it has cells.
    `kl` is infinite where q is 0 and p is not. The midpoint rule errs by less than any power of the
    cell for smooth densities that vanish at the border; the two shares outside carry the same
    error, so that they may be below 0 by a rounding, or by more where the cells are too large or
    `q_log_partition` is wrong.

    The divergence with q normalized on the whole space is
    ``kl - (1 - p_outside) * log(1 - q_outside)``.

    References
    ----------
    .. [1] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Section 4.1 and Table 1 (the discretized KL divergence).

    Examples
    --------
    >>> from skebm.datasets import GaussianDensity
    >>> from skebm.metrics import grid_kl
    >>> p, q = GaussianDensity([[1.0]]), GaussianDensity([[4.0]])
    >>> result = grid_kl(p.log_density, q.log_density, (-6, 6), q_log_partition=0.0)
    >>> print(f"{result.kl:.4f} nats, {result.q_outside:.4f} of q is outside")
    0.3154 nats, 0.0027 of q is outside
    """
    check_number("n_grid", n_grid, low=1, integer=True, remedy="Try 200.")
    low, high = _as_box("domain", domain)
    grid = _Grid(low, (high - low) / n_grid, (int(n_grid),) * len(low))
    p, q = grid.values("log_p", log_p), grid.values("log_q", log_q)
    log_z = float(logsumexp(q) + grid.log_cell)
    mass = np.exp(p + grid.log_cell)
    seen = mass > 0
    for name, is_zero in [("log_p", not seen.any()), ("log_q", log_z == -math.inf)]:
        if is_zero:
            raise ValueError(f"{name} must have mass on the grid, got 0. Move or widen domain.")
    kl = (mass[seen] * (p[seen] - q[seen] + log_z)).sum()
    log_total = _log_total(log_q, q_log_partition, grid, outer)
    with np.errstate(over="ignore"):  # a wrong q_log_partition gives a share far below 0
        q_outside = -np.expm1(log_z - log_total)
    return GridKL(float(kl), float(q_outside), float(1 - mass.sum()), log_z)


def _log_total(log_q: Callable, log_partition: float | None, grid: _Grid, outer: Any) -> float:
    """Return the log of the mass of q, off the grid too; NaN where it is unknown."""
    if log_partition is not None and outer is not None:
        raise ValueError(
            f"outer must be None where q_log_partition is given, got {outer!r}. Pass one of them."
        )
    if outer is not None:
        wide = grid.widened(*_as_box("outer", outer))
        return float(logsumexp(wide.values("log_q", log_q)) + grid.log_cell)
    if log_partition is None:
        return math.nan
    check_number("q_log_partition", log_partition, remedy="Pass 0.0 if q is normalized.")
    return log_partition


class _Grid(NamedTuple):
    """Cells: the lower corner (d,), the sides of a cell (d,), and how many along each axis."""

    low: np.ndarray
    cell: np.ndarray
    shape: tuple[int, ...]

    @property
    def log_cell(self) -> float:
        return float(np.log(self.cell).sum())

    def widened(self, low: np.ndarray, high: np.ndarray) -> _Grid:
        """Return the grid with whole cells added on all sides, until it holds the box."""
        mine, slack = self.low + self.cell * self.shape, ROUNDING * self.cell
        if low.shape != mine.shape or (low > self.low).any() or (high < mine - slack).any():
            raise ValueError(
                f"outer must hold domain, got {low.tolist()} to {high.tolist()} around "
                f"{self.low.tolist()} to {mine.tolist()}. Widen it."
            )
        below = np.ceil((self.low - low - slack) / self.cell)
        above = np.ceil((high - mine - slack) / self.cell)
        shape = tuple(int(n) for n in self.shape + below + above)
        return _Grid(self.low - below * self.cell, self.cell, shape)

    def values(self, name: str, log_density: Callable) -> np.ndarray:
        """Evaluate at the midpoints of all cells, in blocks."""
        if not callable(log_density):
            raise TypeError(f"{name} must be callable, got {log_density!r}. Pass its log_density.")
        n_cells = math.prod(self.shape)
        if n_cells > MAX_CELLS:
            raise ValueError(
                f"The grid must have at most {MAX_CELLS} cells, got {n_cells}. "
                "Lower n_grid or narrow outer."
            )
        blocks = []
        for start in range(0, n_cells, BLOCK):
            index = np.unravel_index(np.arange(start, min(start + BLOCK, n_cells)), self.shape)
            midpoints = self.low + (np.stack(index, axis=1) + 0.5) * self.cell
            blocks.append(one_per_row(name, log_density(midpoints), len(midpoints)))
        return np.concatenate(blocks)


def _as_box(name: str, box: Any) -> tuple[np.ndarray, np.ndarray]:
    corners = box if np.iterable(box) else [box]
    corners = [np.atleast_1d(np.asarray(corner, dtype=np.float64)) for corner in corners]
    shapes = [corner.shape for corner in corners]
    if shapes not in ([(1,)] * 2, [(2,)] * 2):
        raise ValueError(
            f"{name} must be (low, high), each of shape (d,) with d = 1 or 2, got shapes {shapes}. "
            "In more dimensions look at two columns."
        )
    low, high = corners
    if not (np.isfinite(corners).all() and (low < high).all()):
        raise ValueError(
            f"{name} must be (low, high), finite and low < high, got {low.tolist()} and "
            f"{high.tolist()}. Pass corners, not one range per axis."
        )
    return low, high
