"""Gaussian base with a shrunk full covariance."""

from __future__ import annotations

__all__ = ["Gaussian"]

import numpy as np
import torch
from sklearn.covariance import OAS

from skebm.bases._base import BaseComponent
from skebm.bases.mixture import MixtureBase, repeat_by_weight

SMALLEST = 1e-6  # added to the diagonal, standardized units squared


class Gaussian(BaseComponent):
    """One Gaussian with the oracle-approximating shrinkage covariance of scikit-learn.

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
    >>> generator = torch.Generator().manual_seed(0)
    >>> base = Gaussian().fit(torch.randn(200, 2, generator=generator), None, generator)
    >>> base.log_prob(torch.zeros(1, 2)).shape
    torch.Size([1])
    """

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, generator: torch.Generator
    ) -> MixtureBase:
        """Fit to standardized rows (n, d)."""
        rows = repeat_by_weight(x, weight, generator).double().cpu().numpy()
        fitted = OAS().fit(rows)
        covariance = fitted.covariance_ + SMALLEST * np.eye(x.shape[1])
        return MixtureBase.from_moments(
            np.ones(1), fitted.location_[None], covariance[None], x.device
        )
