"""What is being learned: energy, base and temperature in one value."""

from __future__ import annotations

__all__ = ["Model"]

from typing import NamedTuple

import torch

from skebm.bases import Base
from skebm.energies._base import energy_and_score


class Model(NamedTuple):
    r"""The density :math:`p(x) = \exp(-E(x)/T)\, p_0(x) / Z` in standardized space.

    Parameters
    ----------
    energy : torch.nn.Module
        E, maps (n, ...) to (n,) nats.
    base : Base or None
        Normalized p0; None means p0 = 1.
    temperature : float
        T, dimensionless.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, Model
    >>> energy = MLP().build((2,), torch.Generator().manual_seed(0))
    >>> Model(energy, None, 1.0).potential(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    energy: torch.nn.Module
    base: Base | None
    temperature: float

    def multiply_adds(self, n: int) -> float:
        """Return about how many n rows take: what `skebm._surroundings.threads` asks for."""
        held = [
            *self.energy.parameters(),
            *({} if self.base is None else self.base.state_dict()).values(),
        ]
        if any(tensor.ndim > 3 for tensor in held):
            return float("inf")  # convolutions use a parameter many times
        return float(n) * sum(tensor.numel() for tensor in held)

    @torch.no_grad()
    def potential(self, x: torch.Tensor) -> torch.Tensor:
        """Return U(x) = E(x)/T - log p0(x), shape (n,), nats."""
        potential = self.energy(x) / self.temperature
        return potential if self.base is None else potential - self.base.log_prob(x)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return U(x) (n,) and the score of the model: what a sampler's target is."""
        return self.potential_and_score(x)

    def potential_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return U(x) (n,) and the score of the model, minus its gradient, (n, ...)."""
        energy, score = energy_and_score(self.energy, x)
        if self.temperature != 1:
            energy, score = energy / self.temperature, score / self.temperature
        if self.base is None:
            return energy, score
        log_prob, base_score = self.base.log_prob_and_score(x)
        return energy - log_prob, score + base_score
