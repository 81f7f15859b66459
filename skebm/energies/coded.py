"""Energies of rows with codes: numbers kept to a box, beside a column for each level."""

from __future__ import annotations

__all__ = ["Coded", "coded"]

import torch

from skebm.energies.bounded import MARGIN, Around, Limited
from skebm.energies.mlp import Perceptron

LIMIT = 3.0  # nats: of rows with codes; more gains nothing on held-out ones


class Coded(Around):
    """An energy of the numbers of a row and of one column for each level of its codes.

    Numbers that do not exist are 0, whatever the row holds.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (n, d_numbers + L) to (n,).
    low, high : Tensor of shape (d_numbers,)
        The box.
    n_levels : Tensor of int of shape (c,)
        Of the codes, which are the last columns.
    absent : Tensor of int of shape (m, 3)
        Number i does not exist where code j is below a.
    """

    low: torch.Tensor
    high: torch.Tensor
    n_levels: torch.Tensor
    absent: torch.Tensor

    def __init__(
        self,
        module: torch.nn.Module,
        low: torch.Tensor,
        high: torch.Tensor,
        n_levels: torch.Tensor,
        absent: torch.Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("n_levels", n_levels)
        self.register_buffer("absent", absent)
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        k = len(self.low)
        numbers, codes = x[:, :k].clamp(self.low, self.high), x[:, k:].long()
        if len(self.absent):
            numbers = numbers.clone()
            for i, j, a in self.absent.tolist():
                numbers[:, i].masked_fill_(codes[:, j] < a, 0.0)
        hot = [
            torch.nn.functional.one_hot(codes[:, j], n).to(x)
            for j, n in enumerate(self.n_levels.tolist())
        ]
        return self.module(torch.cat([numbers, *hot], 1))

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Refuse: codes have no gradient.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("energy must have a gradient here, got one of codes. Leave them out.")


def coded(
    energy: torch.nn.Module, numbers: torch.Tensor, n_levels: torch.Tensor, absent: torch.Tensor
) -> Coded:
    """Return an energy of rows with codes, kept to a box around numbers (n, d); see `Coded`.

    A perceptron moves no log density by more than 3 nats.
    """
    if isinstance(energy, Perceptron):
        energy = Limited(energy, numbers.new_tensor(LIMIT))
    if not numbers.shape[1]:
        return Coded(energy, numbers.new_empty(0), numbers.new_empty(0), n_levels, absent)
    low, high = numbers.amin(0), numbers.amax(0)
    margin = MARGIN * (high - low)
    return Coded(energy, low - margin, high + margin, n_levels, absent)
