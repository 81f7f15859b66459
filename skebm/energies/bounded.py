"""An energy that is learnt inside a box alone."""

from __future__ import annotations

__all__ = ["Bounded", "bounded_by"]

import torch

from skebm.bases import Base
from skebm.bases.uniform import UniformBase
from skebm.energies._base import Energy, as_energy


class Bounded(Energy):
    """An energy that takes, outside a box, its value at the nearest point of the box.

    Beside a uniform base the log density then falls with the squared distance to the box, whatever
    the energy would extrapolate to.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, module: torch.nn.Module, low: torch.Tensor, high: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self.module(x.clamp(self.low, self.high))

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d), 0 in the columns that are outside."""
        inside = x.clamp(self.low, self.high)
        value, gradient = as_energy(self.module).value_and_gradient(inside)
        return value, torch.where(inside == x, gradient, 0)

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at rows x (n, d), with a graph through the parameters."""
        inside = x.clamp(self.low, self.high)
        v = torch.where(inside == x, v, 0)
        return as_energy(self.module).directional_derivative(inside, v)


def bounded_by(energy: torch.nn.Module, base: Base | None) -> torch.nn.Module:
    """Return the energy, kept to the box of a uniform base where there is one."""
    if not isinstance(base, UniformBase):
        return energy
    return Bounded(energy, base.low, base.high)
