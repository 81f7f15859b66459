"""Rows in proportion to their weights, with the least noise that whole numbers allow."""

from __future__ import annotations

__all__ = ["systematic_rows"]

import torch


def systematic_rows(weight: torch.Tensor, n: int, rng: torch.Generator) -> torch.Tensor:
    """Return n row numbers, each as often as n times its share of the weight, give or take one.

    Parameters
    ----------
    weight : Tensor of shape (m,)
        Nonnegative weights, in any unit.
    n : int
        How many; may exceed m.
    rng : torch.Generator
        Source of the one uniform number that is drawn.

    Returns
    -------
    Tensor of shape (n,)
        Row numbers in increasing order, int64.

    Examples
    --------
    >>> import torch
    >>> from skebm.data import systematic_rows, torch_generator
    >>> systematic_rows(torch.tensor([1.0, 0.0, 3.0]), 8, torch_generator(0))
    tensor([0, 0, 2, 2, 2, 2, 2, 2])
    """
    u = torch.rand(1, generator=rng, device=weight.device, dtype=torch.float64)
    grid = (torch.arange(n, device=weight.device) + u) / n
    cumulative = weight.double().cumsum(0)
    rows = torch.searchsorted(cumulative / cumulative[-1], grid, right=True)
    return rows.clamp_(max=len(weight) - 1)
