"""Probabilistic principal components: a Gaussian that is cheap in hundreds of columns."""

from __future__ import annotations

__all__ = ["ProbabilisticPCA"]

import math

import numpy as np
import torch

from skebm._components import check_number
from skebm.bases._base import Base, BaseComponent
from skebm.bases._conditional import Components
from skebm.bases.mixture import repeat_by_weight

SMALLEST = 1e-6  # variance, standardized units squared


class ProbabilisticPCA(BaseComponent):
    r"""Gaussian with the leading principal components and one variance for all other directions.

    With principal directions V (d, k), their variances :math:`\lambda` and the mean variance
    :math:`\sigma^2` of the rest, :math:`p_0 = N(\mu, c\,(V \Lambda V^T + \sigma^2 (I - V V^T)))`.
    A base for images, whose full covariance has directions of almost no variance.

    Parameters
    ----------
    n_components : int, default=50
        k; fewer where there are not so many columns or rows.
    inflation : float, default=1.0
        c: factor on the covariance. Above 1 the base is a tempered one, :math:`p_0^{1/c}`: the
        same ranking of rows by tens of nats instead of hundreds, which leaves an energy on top
        something that it can change.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    Notes
    -----
    ``log_prob`` of n rows takes 2 n d k floating-point operations, twice that with the score; a
    full covariance takes 2 n d^2. Weighted rows are repeated in proportion to their weights.

    References
    ----------
    .. [1] M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", Journal of
       the Royal Statistical Society B 61(3), 1999. Section 3.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import ProbabilisticPCA
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randn(200, 30, generator=rng)
    >>> base = ProbabilisticPCA(n_components=5).fit(x, None, rng)
    >>> base.log_prob(x[:2]).shape, base.sample(4, rng).shape
    (torch.Size([2]), torch.Size([4, 30]))
    """

    def __init__(self, n_components: int = 50, inflation: float = 1.0) -> None:
        self.n_components = n_components
        self.inflation = inflation

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> PrincipalBase:
        """Fit to standardized rows (n, d)."""
        check_number("n_components", self.n_components, low=1, integer=True)
        check_number("inflation", self.inflation, low=0, open_low=True)
        rows = repeat_by_weight(x, weight, rng).double().cpu().numpy()
        k = min(self.n_components, rows.shape[1] - 1, len(rows) - 1)
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        if k > 0:
            from sklearn.decomposition import PCA

            fitted = PCA(k, random_state=seed).fit(rows)
            mean, directions = fitted.mean_, fitted.components_.T.copy()
            variances, rest = fitted.explained_variance_, fitted.noise_variance_
        else:  # a single column: all variance is "the rest"
            mean, directions = rows.mean(0), np.zeros((rows.shape[1], 0))
            variances, rest = np.zeros(0), rows.var()
        scaled = (self.inflation * np.maximum(v, SMALLEST) for v in (variances, rest))
        tensors = (mean, directions, *scaled)
        return PrincipalBase(*(torch.as_tensor(t, dtype=x.dtype, device=x.device) for t in tensors))


class PrincipalBase(Base):
    """Fitted: ``mean`` (d,), ``directions`` (d, k), ``variances`` (k,), ``rest`` ()."""

    mean: torch.Tensor
    directions: torch.Tensor
    variances: torch.Tensor
    rest: torch.Tensor

    def __init__(
        self,
        mean: torch.Tensor,
        directions: torch.Tensor,
        variances: torch.Tensor,
        rest: torch.Tensor,
    ) -> None:
        super().__init__()
        self.n_features = len(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("variances", variances)
        self.register_buffer("rest", rest)

    @property
    def inverse_width(self) -> float:
        """One over the least standard deviation."""
        return float(self.rest) ** -0.5

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        centered = x - self.mean
        return self._log_prob(centered, centered @ self.directions)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d)."""
        centered = x - self.mean
        z = centered @ self.directions
        more = z * (1 / self.rest - 1 / self.variances)
        score = torch.addmm(centered / -self.rest, more, self.directions.T)
        return self._log_prob(centered, z), score

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) exact, independent rows."""
        noise = self.mean.new_empty(n, self.n_features).normal_(generator=rng)
        z = noise @ self.directions  # standard normal too: the directions are orthonormal
        factor = self.variances.sqrt() - self.rest.sqrt()
        return self.mean + self.rest.sqrt() * noise + (z * factor) @ self.directions.T

    def components(self) -> Components:
        """Return its one component."""
        directions, variances, rest = (
            t.double() for t in (self.directions, self.variances, self.rest)
        )
        more = directions * (1 / variances - 1 / rest)
        precision = torch.eye(self.n_features, dtype=torch.float64) / rest + more @ directions.T
        factor = torch.linalg.cholesky(precision)
        return Components(torch.zeros(1).double(), self.mean.double()[None], factor[None])

    def _log_prob(self, centered: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        k = len(self.variances)
        beside = (centered.square().sum(1) - z.square().sum(1)).clamp(min=0)
        quadratic = (z.square() / self.variances).sum(1) + beside / self.rest
        log_det = self.variances.log().sum() + (self.n_features - k) * self.rest.log()
        return -0.5 * (quadratic + log_det + self.n_features * math.log(2 * math.pi))
