"""Uniform box with shoulders."""

from __future__ import annotations

__all__ = ["Uniform"]

import math

import torch

from skebm._components import check_number
from skebm._warn import warn
from skebm.bases._base import Base, BaseComponent
from skebm.data.transform import LARGEST
from skebm.exceptions import NormalizationWarning


class Uniform(BaseComponent):
    r"""Uniform density on the widened bounding box of the rows, with Gaussian shoulders outside.

    Per column, :math:`p_0(x) \propto \exp(-\delta^2 / (2 s^2))` with :math:`\delta` the distance to
    the interval and s the shoulder's width: constant inside, finite everywhere, decreasing with the
    distance outside, and normalized exactly by the factor (width + s sqrt(2 pi)) per column.

    Parameters
    ----------
    widening : float, default=0.25
        Share of a column's range added on each side (dimensionless).
    shoulder : float, default=0.01
        Shoulder width s as a share of the widened interval (dimensionless). A hard box, the
        domain of USP section 4.1, is the limit of 0.

    Raises
    ------
    ValueError
        From ``fit``, on a negative widening or a shoulder that is not positive.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Section 4.1.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Uniform
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> base = Uniform(widening=0.0).fit(x, None, torch.Generator())
    >>> base.log_prob(torch.tensor([[0.5], [2.0]])).round(decimals=3)
    tensor([-2.5000e-02, -5.0000e+03])
    """

    def __init__(self, widening: float = 0.25, shoulder: float = 0.01) -> None:
        self.widening = widening
        self.shoulder = shoulder

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> UniformBase:
        """Take the box from standardized rows (n, d); rows of weight 0 are left out."""
        check_number("widening", self.widening, low=0)
        check_number("shoulder", self.shoulder, low=0, open_low=True)
        rows = x if weight is None else x[weight > 0]
        low, high = rows.amin(0), rows.amax(0)
        span = torch.where(high > low, high - low, torch.ones_like(low))
        low, high = low - self.widening * span, high + self.widening * span
        if max(float(-low.min()), float(high.max())) > LARGEST / 2:
            warn(
                f"The box reaches beyond {LARGEST / 2:g} standard deviations; coordinates are "
                "clipped there, and log densities do not integrate to 1. Set glitches apart.",
                NormalizationWarning,
            )
        return UniformBase(low, high, self.shoulder * (high - low).clamp(min=1e-6))


class UniformBase(Base):
    """Fitted box: ``low``, ``high``, ``shoulder``, each (d,), standardized units."""

    low: torch.Tensor
    high: torch.Tensor
    shoulder: torch.Tensor

    def __init__(self, low: torch.Tensor, high: torch.Tensor, shoulder: torch.Tensor) -> None:
        super().__init__()
        self.n_features = len(low)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("shoulder", shoulder)

    @property
    def inverse_width(self) -> float:
        """One over the narrowest shoulder."""
        return 1 / float(self.shoulder.min())

    @property
    def _log_volume(self) -> torch.Tensor:
        return (self.high - self.low + math.sqrt(2 * math.pi) * self.shoulder).log().sum()

    def _excess(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.clamp(self.low, self.high)) / self.shoulder

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return -0.5 * self._excess(x).square().sum(-1) - self._log_volume

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d): zero inside the box."""
        excess = self._excess(x)
        return -0.5 * excess.square().sum(-1) - self._log_volume, -excess / self.shoulder

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows: per column from the box or from its shoulders."""
        width, sides = self.high - self.low, math.sqrt(2 * math.pi) * self.shoulder
        shape = (n, self.n_features)
        u = torch.rand(shape, generator=rng, device=self.low.device)
        z = torch.empty_like(u).normal_(generator=rng) * self.shoulder
        edge = torch.where(z < 0, self.low, self.high) + z
        inside = self.low + width * torch.rand(shape, generator=rng, device=u.device)
        return torch.where(u * (width + sides) < width, inside, edge)
