"""torch's optimizers without its compiler, which they would import at their first use."""

from __future__ import annotations

__all__ = ["SGD", "Adam", "AdamW"]

import inspect

import torch
from torch.optim import Optimizer


class _Uncompiled:
    """Methods as torch wrote them, before it decorated them for its compiler."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """Adam with coupled weight decay."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    """Adam with decoupled weight decay."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(_Uncompiled, torch.optim.SGD):
    """Gradient descent."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
