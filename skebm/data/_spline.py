"""Increasing rational-quadratic splines, one per column, that go on beyond their knots."""

from __future__ import annotations

__all__ = ["Splines"]

from functools import cached_property

import numpy as np
import torch

FEW = 1000  # values for which no table pays
CELLS = 512  # of the table that says between which knots a value lies
MOST_STEPS = 3  # from there; with more in a cell, knots are searched for

Parts = tuple[torch.Tensor, ...]


class Splines:
    r"""Increasing maps of d columns, once differentiable, with exact inverses.

    From a knot :math:`(x, y)` with slope m to the next one the map is
    :math:`y + (m t + a t^2) / (1 + c t + e t^2)`, t being the distance to the knot: a rational
    quadratic that has the values and slopes of both. Beyond the outer knots it is the logarithm
    :math:`y + b \log(1 + m t / b)`, t and b counted outward: what is far out stays in order.

    Parameters
    ----------
    x, y, slopes : ndarray of shape (d, K)
        Knots, where they go and m > 0; x and y increase, up to the last knot of a column, which is
        repeated where others have more.
    bend : ndarray of shape (d,)
        b, units of y; a large one makes a straight line.

    References
    ----------
    .. [1] J. A. Gregory and R. Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic
       Data", IMA Journal of Numerical Analysis 2(2), 1982. Eq. 2.5.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, slopes: np.ndarray, bend: np.ndarray) -> None:
        d, n_knots = x.shape
        last = _last(x)
        ends = [(a[:, 0], a[np.arange(d), last]) for a in (x, y, slopes)]
        self._ends = [torch.from_numpy(np.stack(pair)[:, :, None]) for pair in ends]
        self._bend = torch.from_numpy(bend.astype(np.float64)[:, None])
        w, h = np.diff(x), np.diff(y)
        left, right = slopes[:, :-1], slopes[:, 1:]
        with np.errstate(invalid="ignore"):  # behind the last knots
            chord = h / w
            c = (left + right - 2 * chord) / h
            parts = (x[:, :-1], y[:, :-1], left, (chord - left) / w, c, -c / w)
        self._parts = [torch.from_numpy(np.nan_to_num(part).reshape(-1)) for part in parts]
        first = torch.arange(d)[:, None] * (n_knots - 1)
        self._by_x, self._by_y = _Places(x, first), _Places(y, first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map values (d, n), double precision."""
        return self._values(x, self._between(x))

    def value_and_log_slope(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `forward` and `log_slope` do."""
        parts = self._between(x)
        return self._values(x, parts), self._log_slopes(x, parts)

    def by_tensors(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `value_and_log_slope` does, by operations that do not branch on values."""
        parts = self._between(x)
        value, log_slope = _ratio(parts), _log_derivative(parts)
        for side, sign in ((0, -1), (1, 1)):
            out = (sign * (x - self._ends[0][side])).clamp(min=0)
            rate = self._ends[2][side] / self._bend
            beyond = torch.log1p(rate * out)  # 0 of what lies on this side of the knot
            value, log_slope = value + sign * self._bend * beyond, log_slope - beyond
        return value, log_slope

    def _values(self, x: torch.Tensor, parts: Parts) -> torch.Tensor:
        value = _ratio(parts)
        for side, sign in ((0, -1), (1, 1)):
            far, out, column = self._beyond(x, side)
            if len(out):
                slope, bend = self._ends[2][side, column, 0], self._bend[column, 0]
                value[far] += sign * bend * torch.log1p(slope * out / bend)
        return value

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """Map (d, n) back."""
        (x_ends, y_ends, slopes), inside = self._ends, self._clamped(y, 1)
        x, at, m, a, c, e = self._read(self._by_y(inside))
        v = inside - at
        b = m - v * c
        root = (b.square() + 4 * (a - v * e) * v).clamp_(min=0).sqrt_()
        value = x + 2 * v / (b + root)
        for side, sign in ((0, -1), (1, 1)):
            far = (y - y_ends[side]) * sign
            column, _ = torch.nonzero(far > 0, as_tuple=True)
            bend, slope = self._bend[column, 0], slopes[side, column, 0]
            beyond = bend * torch.expm1(far[far > 0] / bend) / slope
            value[far > 0] = x_ends[side, column, 0] + sign * beyond
        return value

    def log_slope(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log of the derivative at (d, n)."""
        return self._log_slopes(x, self._between(x))

    def _log_slopes(self, x: torch.Tensor, parts: Parts) -> torch.Tensor:
        value = _log_derivative(parts)
        for side in (0, 1):
            far, out, column = self._beyond(x, side)
            if len(out):
                rate = self._ends[2][side, column, 0] / self._bend[column, 0]
                value[far] -= torch.log1p(rate * out)
        return value

    def slope_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Return the derivative of `log_slope` at (d, n)."""
        t, _, _, m, a, c, e = self._between(x)
        bend = a * c - m * e
        value = (2 * a + 2 * bend * t) / (m + 2 * a * t + bend * t * t)
        value -= 2 * (c + 2 * e * t) / (1 + c * t + e * t * t)
        for side, sign in ((0, 1), (1, -1)):
            far, out, column = self._beyond(x, side)
            rate = self._ends[2][side, column, 0] / self._bend[column, 0]
            value[far] = sign * rate / (1 + rate * out)
        return value

    def _between(self, x: torch.Tensor) -> Parts:
        """Return the distance to the knot on the left, of values drawn in to the outer knots."""
        inside = self._clamped(x, 0)
        parts = self._read(self._by_x(inside))
        return inside.sub_(parts[0]), *parts

    def _clamped(self, value: torch.Tensor, of: int) -> torch.Tensor:
        low, high = self._ends[of]
        return torch.minimum(torch.maximum(value, low), high)

    def _read(self, place: torch.Tensor) -> Parts:
        flat = place.reshape(-1)
        return tuple(part.index_select(0, flat).view(place.shape) for part in self._parts)

    def _beyond(self, x: torch.Tensor, side: int) -> Parts:
        """Return which values lie beyond an outer knot, how far, and in which columns."""
        end = self._ends[0][side]
        far = x > end if side else x < end
        column = torch.nonzero(far)[:, 0]
        return far, (x[far] - end[column, 0]).abs(), column


def _ratio(parts: Parts) -> torch.Tensor:
    """Return the spline's values at distances to the knots on the left."""
    t, _, y, m, a, c, e = parts
    return torch.addcdiv(y, torch.addcmul(m, a, t).mul_(t), torch.addcmul(c, e, t).mul_(t).add_(1))


def _log_derivative(parts: Parts) -> torch.Tensor:
    t, _, _, m, a, c, e = parts
    below = torch.addcmul(c, e, t).mul_(t).add_(1)
    above = (a * c - m * e).mul_(t).add_(a, alpha=2).mul_(t).add_(m)
    return above.div_(below.square_()).log_()


def _last(knots: np.ndarray) -> np.ndarray:
    """Return the number of each column's last knot, (d,)."""
    return (np.diff(knots) > 0).sum(1)


class _Places:
    """Between which knots values lie: by a table over the line drawn in to (-1, 1)."""

    def __init__(self, knots: np.ndarray, first: torch.Tensor) -> None:
        # values beyond the last knot belong to the last piece
        behind = np.arange(knots.shape[1]) >= _last(knots)[:, None]
        inner = np.where(behind, np.inf, knots)[:, 1:]
        self._inner, self._first = torch.from_numpy(inner.copy()), first

    @cached_property
    def _table(self) -> tuple[torch.Tensor, int]:
        """The piece where each cell begins, and how many knots there are in one at most."""
        drawn = np.linspace(-1, 1, CELLS + 1)
        with np.errstate(divide="ignore"):
            low = (drawn - 1e-12)[:-1].clip(-1)  # what rounding may take for a cell's
            high = (drawn + 1e-12)[1:].clip(None, 1)
            low, high = low / (1 - np.abs(low)), high / (1 - np.abs(high))
        inner = self._inner.numpy()
        begin = np.stack([np.searchsorted(row, low, "right") for row in inner])
        end = np.stack([np.searchsorted(row, high, "right") for row in inner])
        end = np.minimum(end, np.isfinite(inner).sum(1)[:, None])
        return torch.from_numpy(begin + self._first.numpy()).reshape(-1), int((end - begin).max())

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        """Return the number of the knot on the left of finite values (d, n), over all columns."""
        if torch.compiler.is_compiling() or value.shape[1] < FEW or self._table[1] > MOST_STEPS:
            return torch.searchsorted(self._inner, value, right=True) + self._first
        drawn = value / value.abs().add_(1)
        cell = drawn.add_(1).mul_(CELLS / 2).long().clamp_(max=CELLS - 1)
        cell += torch.arange(len(value))[:, None] * CELLS
        place = self._table[0].index_select(0, cell.view(-1))
        flat, inner = value.reshape(-1), self._inner.reshape(-1)
        for _ in range(self._table[1]):
            place += flat >= inner.index_select(0, place)
        return place.view(value.shape)
