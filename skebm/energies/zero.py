"""The energy that changes nothing."""

__all__ = ["Zero"]

import torch


class Zero(torch.nn.Module):
    """E = 0: the model is its base, and log Z = 0 exactly.

    An estimator takes it where the trained energy does not improve on the base by more than one
    standard error on held-out rows.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Zero
    >>> Zero()(torch.ones(2, 3))
    tensor([0., 0.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, ...) to zeros (n,)."""
        return x.new_zeros(len(x))

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return zeros (n,) and zeros (n, ...)."""
        return x.new_zeros(len(x)), torch.zeros_like(x)
