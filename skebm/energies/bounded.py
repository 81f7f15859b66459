"""Energies that stay in bounds: learnt inside a box alone, and of limited size."""

from __future__ import annotations

__all__ = ["Bounded", "Limited", "bounded_by"]

from typing import Any

import torch

from skebm.bases import Base
from skebm.bases.tails import Defended
from skebm.bases.uniform import UniformBase
from skebm.energies._base import Energy, as_energy
from skebm.energies.mlp import Perceptron
from skebm.networks import FeedForward

MARGIN = 0.25  # of the rows' range, on each side
LIMIT = 5.0  # nats


class Around(Energy):
    """An energy around another one, which answers for whatever else is asked."""

    module: torch.nn.Module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Bounded(Around):
    """An energy that takes, outside a box, its value at the nearest point of the box.

    The log density beyond the box then falls as that of the base does, whatever the energy would
    extrapolate to.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, module: torch.nn.Module, low: torch.Tensor, high: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.module = module

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

    @property
    def twice_differentiable(self) -> bool:
        """Whether the inner energy is; rows lie inside the box."""
        return as_energy(self.module).twice_differentiable


class Limited(Around):
    r"""``c tanh(E / c)``: an energy that moves no log density by more than c nats.

    No row, and no place without rows, then gets a mass that draws of the base would not show.
    """

    module: FeedForward
    limit: torch.Tensor

    def __init__(self, module: torch.nn.Module, limit: torch.Tensor) -> None:
        super().__init__()
        assert isinstance(module, FeedForward)  # no other is limited
        self.register_buffer("limit", limit)
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self.limit * (self.module(x) / self.limit).tanh()

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        value, gradient = self.module.value_and_gradient(x)
        share = (value / self.limit).tanh_()
        return self.limit * share, gradient * (1 - share.square())[:, None]

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at rows x (n, d), with a graph through the parameters."""
        value, along = self.module.value_and_directional(x, v)
        return (1 - (value / self.limit).tanh().square()) * along


def bounded_by(energy: torch.nn.Module, base: Base, rows: torch.Tensor) -> torch.nn.Module:
    """Return the energy, kept to a uniform base's box, else to one around standardized rows.

    Beyond it nothing was learnt, and what a network extrapolates to can outgrow a heavy tail. A
    perceptron is limited too, to 5 nats: more gains nothing on held-out rows, and leaves log Z to a
    few draws of the tails.
    """
    if isinstance(base, UniformBase):
        return Bounded(energy, base.low, base.high)
    low, high = rows.amin(0), rows.amax(0)
    if isinstance(base, Defended):  # whose tails stand for rows that are too far
        low, high = (side.clamp(*base.near) for side in (low, high))
        if isinstance(energy, Perceptron):
            energy = Limited(energy, low.new_tensor(LIMIT))
    margin = MARGIN * (high - low)
    return Bounded(energy, low - margin, high + margin)
