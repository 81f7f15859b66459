"""Processes that fit one model together: the ranks of torch.distributed's default group."""

from __future__ import annotations

__all__ = [
    "all_or_none",
    "average_gradients",
    "averaged",
    "gathered",
    "n_ranks",
    "not_distributed",
    "rank",
    "same",
    "sharing",
]

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
_alone: list[None] = []  # one for each `not_distributed` that is open, in whatever thread
_share: ContextVar[float | None] = ContextVar("share", default=None)


@contextmanager
def not_distributed() -> Iterator[None]:
    """Let each process fit a model of its own inside, though there is a process group.

    Yields
    ------
    None
        Nothing; it holds for all threads of the process.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import NCEDensity
    >>> from skebm.train import not_distributed
    >>> X = np.random.RandomState(0).randn(100, 2)
    >>> with not_distributed():
    ...     est = NCEDensity(max_iter=25, random_state=0).fit(X)
    """
    _alone.append(None)
    try:
        yield
    finally:
        _alone.pop()


def n_ranks() -> int:
    """Return how many processes fit together; 1 is alone."""
    if _alone or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def rank() -> int:
    """Return the number of this process among them; 0 is alone, or decides."""
    return dist.get_rank() if n_ranks() > 1 else 0


def gathered(value: T) -> list[T]:
    """Return every rank's value, on every rank, in their order."""
    found = [value] * n_ranks()
    if len(found) > 1:
        dist.all_gather_object(found, value)
    return found


def same(value: T, device: torch.device | None = None) -> T:
    """Return the first rank's value, with its tensors on this device.

    Where all compute the same, this is what they agree on to the bit: unlike machines round apart.
    """
    if n_ranks() == 1:
        return value
    file = io.BytesIO()
    with all_or_none():  # not all there is can be sent
        if rank() == 0:
            torch.save(value, file)
    told = [file.getvalue()]
    dist.broadcast_object_list(told)
    if rank() == 0:
        return value
    return torch.load(io.BytesIO(told[0]), map_location=device, weights_only=False)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Raise on every rank what one of them raises inside, where none may wait for another."""
    if n_ranks() == 1:
        yield
        return
    try:
        yield
    except Exception as error:
        kinds = [kind for kind in (ValueError, TypeError) if isinstance(error, kind)]
        gathered(((*kinds, RuntimeError)[0], f"{type(error).__name__}: {error}"))
        error.add_note(f"This was rank {rank()} of {n_ranks()}.")
        raise
    for i, found in enumerate(gathered(None)):
        if found is not None:
            kind, text = found
            raise kind(f"rank {i} of {n_ranks()} gave up, and so do all. {text}")


@contextmanager
def sharing(share: float | None) -> Iterator[None]:
    """Average with the other ranks inside, this one counting by its share; None is alone."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def averaged(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the means of tensors of one type over the ranks that are `sharing`."""
    share = _share.get()
    if share is None:
        return tensors
    total = torch.cat([t.detach().reshape(-1) for t in tensors]) * share
    dist.all_reduce(total)
    parts = total.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


def average_gradients(
    parameters: Iterable[torch.Tensor], beside: Sequence[torch.Tensor] = ()
) -> None:
    """Put the means over the ranks that are `sharing` in the place of gradients.

    Numbers `beside` them travel in the same exchange: each one makes ranks wait for the slowest.
    """
    if _share.get() is None:
        return
    held = [(p, p.grad) for p in parameters if p.grad is not None]
    means = averaged([*(grad for _, grad in held), *beside])
    for (p, _), mean in zip(held, means, strict=False):
        p.grad = mean
    for number, mean in zip(beside, means[len(held) :], strict=True):
        number.copy_(mean)
