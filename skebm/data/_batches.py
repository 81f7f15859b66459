"""Endless minibatches from a table that lives in one tensor."""

from __future__ import annotations

__all__ = ["weighted_draws"]

from collections.abc import Callable

import torch


def weighted_draws(
    x: torch.Tensor,
    batch_size: int,
    *,
    weight: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    rng: torch.Generator,
) -> Callable[[], torch.Tensor]:
    """Return ``draw()``, which gives a fresh batch at each call.

    Rows are drawn with replacement, each with probability proportional to its weight, so that
    objectives need no weights of their own and the state of the stream is that of the generator
    alone (a resumed fit goes on with the same bits).

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.
    batch_size : int
        Rows per batch; may exceed n.
    weight : Tensor of shape (n,), optional
        Nonnegative weights.
    noise : Tensor of shape (d,), optional
        Standard deviation per column of Gaussian noise added to each batch, standardized units.
    rng : torch.Generator
        Source of randomness.

    Returns
    -------
    callable
        ``draw() -> Tensor of shape (batch_size, d)``.

    Examples
    --------
    >>> import torch
    >>> from skebm.data import torch_generator, weighted_draws
    >>> draw = weighted_draws(torch.arange(6.0).reshape(3, 2), 4, rng=torch_generator(0))
    >>> draw().shape
    torch.Size([4, 2])
    """
    n = len(x)
    cumulative = None if weight is None else weight.double().cumsum(0)

    def draw() -> torch.Tensor:
        if cumulative is None:
            rows = torch.randint(n, (batch_size,), generator=rng, device=x.device)
        else:
            u = torch.rand(batch_size, generator=rng, device=x.device, dtype=torch.float64)
            rows = torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp_(max=n - 1)
        batch = x[rows]
        if noise is not None:
            batch += noise * torch.empty_like(batch).normal_(generator=rng)
        return batch

    return draw
