"""An energy whose mode weights are corrected afterwards."""

from __future__ import annotations

__all__ = ["Reweighted"]

import torch

from skebm.bases.mixture import MixtureBase
from skebm.energies._base import Energy, as_energy


class Reweighted(Energy):
    """``E(x) - a . r(x)`` with r the responsibilities of a mixture; no longer trained.

    Where modes are apart, a moves mass between them and leaves each one's shape as it is.
    """

    lifts: torch.Tensor

    def __init__(self, module: torch.nn.Module, mixture: MixtureBase, lifts: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.mixture = mixture
        self.register_buffer("lifts", lifts)  # a, shape (k,), nats

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self.module(x) - self.mixture.responsibilities(x) @ self.lifts

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        value, inner = as_energy(self.module).value_and_gradient(x)
        lift, gradient = self.mixture.averaged(x, self.lifts)
        return value - lift, inner - gradient
