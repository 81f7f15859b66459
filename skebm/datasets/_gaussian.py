"""The Gaussian, the one density with every number in closed form."""

from __future__ import annotations

__all__ = ["GaussianDensity"]

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skebm.datasets._arrays import as_finite, as_rows, check_n


class GaussianDensity:
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

    def log_density(self, X: Any) -> np.ndarray:
        """Return the log density of each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Log density in nats, in the units of X.
        """
        whitened = self._whiten(as_rows(X, self.n_features))
        return -0.5 * np.square(whitened).sum(axis=0) - self._log_normalizer()

    def score(self, X: Any) -> np.ndarray:
        """Return the gradient of the log density at each row.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n, d)
            Gradient, in nats per unit of X.
        """
        whitened = self._whiten(as_rows(X, self.n_features))
        return -np.linalg.solve(self._cholesky.T, whitened).T

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
        noise = check_random_state(random_state).standard_normal((n, self.n_features))
        return self.mean + noise @ self._cholesky.T

    @property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return float(0.5 * self.n_features + self._log_normalizer())

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
