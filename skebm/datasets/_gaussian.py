"""The Gaussian, the one density with every number in closed form."""

from __future__ import annotations

__all__ = ["GaussianDensity"]

from functools import cached_property
from typing import Any

import numpy as np

from skebm._components import as_finite
from skebm.datasets._base import KnownDensity


class GaussianDensity(KnownDensity):
    """Multivariate Gaussian ``N(mean, cov)``.

    ``log p(x) = -(x - mean)' cov^-1 (x - mean) / 2 - (d log 2 pi + log det cov) / 2``

    Parameters
    ----------
    cov : array-like of shape (d, d)
        Covariance, symmetric positive definite, in squared units of X.
    mean : array-like of shape (d,), default=None
        Mean, in the units of X; ``None`` means zeros.

    Attributes
    ----------
    cov : ndarray of shape (d, d)
        Covariance.
    mean : ndarray of shape (d,)
        Mean.
    n_features : int
        The dimension d.
    entropy : float
        Differential entropy in nats, exact.

    Raises
    ------
    ValueError
        If `cov` is not symmetric positive definite, or `mean` does not fit it.

    Notes
    -----
    A row costs ``d^2`` operations. All reads use one Cholesky factor.

    Examples
    --------
    >>> from skebm.datasets import GaussianDensity
    >>> density = GaussianDensity([[4.0]])
    >>> print(f"{density.log_density([[0.0]])[0]:.4f}, {density.entropy:.4f}")
    -1.6121, 2.1121
    >>> print(density.score([[2.0]]))
    [[-0.5]]
    """

    def __init__(self, cov: Any, mean: Any = None) -> None:
        self.cov = as_finite("cov", cov)
        if self.cov.ndim != 2 or self.cov.shape[0] != self.cov.shape[1] or not self.cov.size:
            raise ValueError(
                f"cov must have shape (d, d), got {self.cov.shape}. "
                "For independent columns pass np.diag(variances)."
            )
        self.n_features = self.cov.shape[0]
        self.mean = np.zeros(self.n_features) if mean is None else as_finite("mean", mean)
        if self.mean.shape != (self.n_features,):
            raise ValueError(
                f"mean must have shape ({self.n_features},), got {self.mean.shape}. "
                "Give one value per column of cov."
            )
        self._cholesky = _cholesky(self.cov)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return float(0.5 * self.n_features + self._log_normalizer())

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        return -0.5 * np.square(self._whiten(x)).sum(axis=0) - self._log_normalizer()

    def _score(self, x: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(self._cholesky.T, self._whiten(x)).T

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        return self.mean + rng.standard_normal((n, self.n_features)) @ self._cholesky.T

    def _whiten(self, X: np.ndarray) -> np.ndarray:
        return np.linalg.solve(self._cholesky, (X - self.mean).T)

    def _log_normalizer(self) -> float:
        log_scale = np.log(np.diag(self._cholesky)).sum()
        return float(0.5 * self.n_features * np.log(2 * np.pi) + log_scale)


def _cholesky(cov: np.ndarray) -> np.ndarray:
    asymmetry = np.abs(cov - cov.T).max()
    if asymmetry > 1e-10 * np.abs(cov).max():
        raise ValueError(
            f"cov must be symmetric, got entries that differ by {asymmetry:.3g}. "
            "Pass (cov + cov.T) / 2."
        )
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(cov)[0]
        raise ValueError(
            f"cov must be positive definite, got smallest eigenvalue {smallest:.3g}. "
            "Add a small multiple of the identity."
        ) from None
