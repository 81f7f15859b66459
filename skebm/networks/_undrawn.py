"""Layers whose weights whoever builds them draws, from a generator and not torch's global one."""

from __future__ import annotations

__all__ = ["Conv2d", "Linear"]

import torch


class _Undrawn:
    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class Linear(_Undrawn, torch.nn.Linear):
    """A linear layer without weights yet."""


class Conv2d(_Undrawn, torch.nn.Conv2d):
    """A convolution without weights yet."""
