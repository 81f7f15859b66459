"""Maps between the units of X and standardized space, column by column."""

from __future__ import annotations

__all__ = ["Affine", "Transform"]

from abc import ABC, abstractmethod

import numpy as np
import torch

from skebm.data._spread import trimmed_moments

SUSPECT = 6.0  # standard deviations: 2 % of the rows that make 9/10 of the variance are beyond
MISLED = 5.0  # times the trimmed standard deviation: from here on a few rows have set the scale
FEWEST_TO_TRIM = 20  # rows: of fewer, 1 % at each end is more than a few
LARGEST = 1e15  # a clipped coordinate squares to 1e30, which float32 still holds
VAST = 1e300  # columns of such numbers are computed in quarters, whose differences doubles hold
WIDEST = np.finfo(np.float64).max


class Transform(ABC):
    """An increasing map of each column, with its slope: what a log density needs to travel.

    ``log p(x) = log p(z) + log_slope.sum(1)``. Slopes stay apart by column, because rows with holes
    and conditionals need those of some columns alone.
    """

    n_features: int
    steps: np.ndarray | None = None  # of lattices, whose values stand for the cells around them

    @abstractmethod
    def forward(
        self, X: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Map rows (n, d) in the units of X to rows of standardized space."""

    @abstractmethod
    def inverse(self, z: torch.Tensor) -> np.ndarray:
        """Map standardized rows (n, d) to float64 rows in the units of X, all of them finite."""

    @abstractmethod
    def log_slope(self, X: np.ndarray) -> np.ndarray:
        """Return log dz/dx at rows (n, d), nats: (n, d), or (1, d) where it is the same for all."""

    def forward_and_log_slope(self, X: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Return `forward` in double precision and the rows' sums of `log_slope`, (n,) or (1,)."""
        return self.forward(X, dtype=torch.float64), self.log_slope(X).sum(1)

    def by_tensors(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `forward` and the rows' sums of `log_slope` of double rows (n, d), (n,) or (1,).

        All of it are operations of torch that do not branch on values, which an export can follow.
        """
        raise NotImplementedError(f"{type(self).__name__} has no form in operations of torch.")

    @abstractmethod
    def slope_gradient(self, X: np.ndarray) -> np.ndarray:
        """Return the derivative of `log_slope` by x, nats per unit of X: (n, d) or (1, d)."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that ``type(self)(**state)`` is made of, for files."""


class Affine(Transform):
    """Per-column map ``z = (x - location) / scale``.

    Parameters
    ----------
    location : ndarray of shape (d,)
        Column means, units of X.
    scale : ndarray of shape (d,)
        Column standard deviations, units of X; 1 for constant columns.

    Attributes
    ----------
    trimmed : ndarray of int
        Columns in which less than 2 % of the rows are so far out that they would set the scale:
        `from_table` takes mean and standard deviation of the others.

    Notes
    -----
    Coordinates beyond 1e15 standard deviations are clipped so that float32 energies stay finite
    there.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import Affine
    >>> affine = Affine.from_table(np.array([[0.0], [4.0]]))
    >>> affine.scale, affine.forward(np.array([[6.0]]))
    (array([2.]), tensor([[2.]]))
    """

    def __init__(self, location: np.ndarray, scale: np.ndarray) -> None:
        self.location, self.scale, self.n_features = location, scale, len(scale)
        self.trimmed = np.arange(0)

    @classmethod
    def from_table(cls, X: np.ndarray, weight: np.ndarray | None = None) -> Affine:
        """Estimate location and scale from rows, weighted when `weight` is given."""
        if weight is not None:
            X, weight = X[weight > 0], weight[weight > 0]
        if (np.abs(X).max(axis=0) > VAST).any():
            return _of_vast(X, weight)
        moments = [_moments(column, weight) for column in X.T]  # one by one: copies stay small
        mean, scale, largest = np.array(moments).T
        spread = scale > 0
        affine = cls(mean, np.where(spread, scale, 1.0))
        suspects = np.flatnonzero(spread & (largest > SUSPECT * affine.scale))
        if len(X) >= FEWEST_TO_TRIM and len(suspects):
            mean, std = trimmed_moments(X[:, suspects], weight)
            misled = (std > 0) & (affine.scale[suspects] > MISLED * std)
            affine.trimmed = suspects[misled]
            affine.location[affine.trimmed] = mean[misled]
            affine.scale[affine.trimmed] = std[misled]
        return affine

    @classmethod
    def from_images(cls, X: np.ndarray) -> Affine:
        """Return one map to [-1, 1] for all columns."""
        low, high = float(X.min()) / 2, float(X.max()) / 2  # halves: their difference is a double
        half = high - low if high > low else 1.0
        d = X.shape[1]
        return cls(np.full(d, high + low), np.full(d, half))

    @classmethod
    def identity(cls, n_features: int) -> Affine:
        """Return the map that changes nothing."""
        return cls(np.zeros(n_features), np.ones(n_features))

    def forward(
        self, X: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Map rows (n, d) in the units of X to rows of standardized space."""
        # torch runs along short rows several times as fast as numpy does
        z = self._standardized(torch.from_numpy(np.array(X, np.float64, order="C")))
        return z.to(dtype).to(device)

    def by_tensors(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `forward` of double rows (n, d), and minus the sum of the log scales, (1,)."""
        log_slope = -np.log(self.scale).sum(keepdims=True)
        return self._standardized(x.clone()), torch.from_numpy(log_slope)

    def _standardized(self, x: torch.Tensor) -> torch.Tensor:
        """Map double rows (n, d), which are written over."""
        arrays = (self.location, self.scale)
        location, scale = (torch.from_numpy(np.array(a, np.float64)) for a in arrays)
        if (self.scale > VAST).any():
            unit = torch.where(scale > VAST, 0.25, 1.0)  # powers of two: the same bits
            x, location, scale = x * unit, location * unit, scale * unit
        return x.sub_(location).div_(scale).clamp_(-LARGEST, LARGEST)

    def inverse(self, z: torch.Tensor) -> np.ndarray:
        """Map standardized rows (n, d) to float64 rows in the units of X, all of them finite."""
        unit = np.where(self.scale > VAST, 0.25, 1.0)  # as in `_standardized`
        with np.errstate(over="ignore"):  # beyond the largest double there is none
            X = z.detach().cpu().numpy().astype(np.float64) * (self.scale * unit)
            X = (X + self.location * unit) / unit
        return X.clip(-WIDEST, WIDEST, out=X)

    def log_slope(self, X: np.ndarray) -> np.ndarray:
        """Return minus the log scales, (1, d)."""
        return -np.log(self.scale)[None]

    def slope_gradient(self, X: np.ndarray) -> np.ndarray:
        """Return zeros (1, d): a straight line's slope does not change."""
        return np.zeros((1, self.n_features))

    def state(self) -> dict[str, np.ndarray]:
        """Return location and scale."""
        return {"location": self.location, "scale": self.scale}


def _moments(x: np.ndarray, weight: np.ndarray | None) -> tuple[float, float, float]:
    """Return mean, standard deviation and largest deviation of values (n,); 0 of a constant."""
    centered = x - x[0]  # differences first: exact for large offsets
    mean = np.average(centered, weights=weight)
    centered -= mean
    largest = np.abs(centered).max()
    if largest <= 1e-12 * np.abs(x).max():  # rounding noise
        return x[0] + mean, 0.0, largest
    centered /= largest  # so that squares neither overflow nor vanish
    return x[0] + mean, largest * np.sqrt(np.average(centered**2, weights=weight)), largest


def _of_vast(X: np.ndarray, weight: np.ndarray | None) -> Affine:
    """Estimate location and scale of columns near the largest doubles, which no sum may reach."""
    unit = np.where(np.abs(X).max(axis=0) > VAST, 2.0**-60, 1.0)
    small = Affine.from_table(X * unit, weight)
    constant = (unit < 1) & (small.scale == 1)
    affine = Affine(small.location / unit, np.where(constant, 1.0, small.scale / unit))
    affine.trimmed = small.trimmed
    return affine
