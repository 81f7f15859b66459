"""The exact affine map between the units of X and standardized space."""

from __future__ import annotations

__all__ = ["Standardizer"]

from typing import NamedTuple

import numpy as np
import torch

LARGEST = 1e15  # a clipped coordinate squares to 1e30, which float32 still holds


class Standardizer(NamedTuple):
    """Per-column affine map ``z = (x - location) / scale`` with its log-volume.

    Parameters
    ----------
    location : ndarray of shape (d,)
        Column means, units of X.
    scale : ndarray of shape (d,)
        Column standard deviations, units of X; 1 for constant columns.

    Notes
    -----
    ``log p(x) = log p(z) - log_volume``. Coordinates beyond 1e15 standard deviations are clipped so
    that float32 energies stay finite there.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import Standardizer
    >>> s = Standardizer.from_table(np.array([[0.0], [2.0]]))
    >>> s.scale, round(float(s.log_volume), 3)
    (array([1.]), 0.0)
    """

    location: np.ndarray
    scale: np.ndarray

    @classmethod
    def from_table(cls, X: np.ndarray, weight: np.ndarray | None = None) -> Standardizer:
        """Estimate location and scale from rows (weighted when `weight` is given)."""
        if weight is not None:
            X, weight = X[weight > 0], weight[weight > 0]
        shift = X[0]  # differences first: exact for large offsets
        mean = np.average(X - shift, axis=0, weights=weight)
        centered = (X - shift) - mean
        largest = np.abs(centered).max(axis=0)
        spread = largest > 1e-12 * np.abs(X).max(axis=0)  # below: rounding noise of a constant
        unit = np.where(spread, largest, 1.0)  # so that squares neither overflow nor vanish
        scale = unit * np.sqrt(np.average((centered / unit) ** 2, axis=0, weights=weight))
        return cls(mean + shift, np.where(spread & (scale > 0), scale, 1.0))

    @classmethod
    def identity(cls, n_features: int) -> Standardizer:
        """Return the map that changes nothing."""
        return cls(np.zeros(n_features), np.ones(n_features))

    @property
    def log_volume(self) -> float:
        """Sum of the log scales, nats: what a log density loses on the way back to X."""
        return float(np.log(self.scale).sum())

    def transform(self, X: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
        """Map rows (n, d) in the units of X to a float32 tensor in standardized space."""
        with np.errstate(over="ignore"):  # the largest doubles: clipped below
            z = np.asarray(X, dtype=np.float64) - self.location
            z /= self.scale
        z = z.clip(-LARGEST, LARGEST, out=z).astype(np.float32, order="C")
        return torch.from_numpy(z).to(device)

    def inverse(self, z: torch.Tensor) -> np.ndarray:
        """Map standardized rows (n, d) to float64 rows in the units of X."""
        return z.detach().cpu().numpy().astype(np.float64) * self.scale + self.location
