"""A trained network beside what built it, so that a file can hold it without code."""

from __future__ import annotations

__all__ = ["Trained"]

from typing import Any

import torch

from skebm.fitted.pack import Packable, filled


class Trained(Packable):
    """A network in evaluation mode, and the component that makes another like it.

    Parameters
    ----------
    component : Component
        ``component.build(*sizes, rng)`` makes the network.
    sizes : tuple
        Its other arguments.
    **state : Tensor
        The network's ``state_dict``.

    Examples
    --------
    >>> import torch
    >>> from skebm.fitted import Trained
    >>> from skebm.networks import Critic
    >>> critic = Critic((4,)).build(2, torch.Generator())
    >>> Trained(Critic((4,)), (2,), **critic.state_dict()).network(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, component: Any, sizes: tuple, **state: torch.Tensor) -> None:
        self.component, self.sizes = component, tuple(sizes)
        device = next(iter(state.values())).device
        network = component.build(*self.sizes, torch.Generator(device).manual_seed(0)).to(device)
        self.network: torch.nn.Module = filled(network, state).requires_grad_(False).eval()

    def parts(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"component": self.component, "sizes": self.sizes, **self.network.state_dict()}
