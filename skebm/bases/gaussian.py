"""Gaussian base with a shrunk full covariance."""

from __future__ import annotations

__all__ = ["Gaussian"]

import numpy as np
import torch

from skebm._components import check_choice, check_number
from skebm.bases._base import BaseComponent
from skebm.bases.mixture import MixtureBase, repeat_by_weight

COVARIANCES = ("full", "diagonal", "spherical")
SMALLEST = 1e-6  # added to the diagonal, standardized units squared


class Gaussian(BaseComponent):
    """One Gaussian with the oracle-approximating shrinkage covariance of scikit-learn.

    Parameters
    ----------
    covariance : {"full", "diagonal", "spherical"}, default="full"
        ``"diagonal"`` takes the columns' own means and variances, ``"spherical"`` one mean and one
        variance for all entries (columns of like kind: pixels).
    inflation : float, default=1.0
        Factor on all standard deviations (dimensionless).

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    Notes
    -----
    Shrinkage goes toward a multiple of the identity and vanishes as rows grow, so the covariance is
    regular with fewer rows than columns too. Weighted rows are repeated in proportion to their
    weights (systematic resampling to n rows).

    References
    ----------
    .. [1] Y. Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE Transactions
       on Signal Processing 58(10), 2010. Eq. 23.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Gaussian
    >>> rng = torch.Generator().manual_seed(0)
    >>> base = Gaussian().fit(torch.randn(200, 2, generator=rng), None, rng)
    >>> base.log_prob(torch.zeros(1, 2)).shape
    torch.Size([1])
    """

    def __init__(self, covariance: str = "full", inflation: float = 1.0) -> None:
        self.covariance = covariance
        self.inflation = inflation

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> MixtureBase:
        """Fit to standardized rows (n, d)."""
        rows = repeat_by_weight(x, weight, rng).double().cpu().numpy()
        check_choice("covariance", self.covariance, COVARIANCES)
        check_number("inflation", self.inflation, low=0, open_low=True)
        mean, covariance = self._moments(rows)
        covariance = self.inflation**2 * (covariance + SMALLEST * np.eye(x.shape[1]))
        return MixtureBase.from_moments(np.ones(1), mean[None], covariance[None], x.device)

    def _moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d = rows.shape[1]
        if self.covariance == "spherical":
            return np.full(d, rows.mean()), rows.var() * np.eye(d)
        if self.covariance == "diagonal":
            return rows.mean(0), np.diag(rows.var(0))
        from sklearn.covariance import OAS

        fitted = OAS().fit(rows)
        return fitted.location_, fitted.covariance_
