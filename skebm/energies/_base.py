"""The energy contract: ``(n, ...) -> (n,)`` in nats, one row's energy independent of the others."""

from __future__ import annotations

__all__ = ["EnergyComponent", "build_energy", "energy_and_score"]

import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from skebm._components import Component, resolve

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


class EnergyComponent(Component):
    """Parameters of an energy; ``build`` makes the module.

    With ``flat = True`` the module takes flat rows of images too.
    """

    flat = False

    @abstractmethod
    def build(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for rows of this shape, ``(d,)`` for tables."""


def energy_and_score(energy: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return E(x) and the score :math:`-\nabla_x E(x)`, without a graph through the parameters.

    Parameters
    ----------
    energy : torch.nn.Module
        Closed form is used where the module has ``value_and_gradient``; autograd otherwise.
    x : Tensor of shape (n, ...)
        Rows in standardized space.

    Returns
    -------
    energy : Tensor of shape (n,)
        Nats.
    score : Tensor of shape (n, ...)
        Nats per standardized unit.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import energy_and_score
    >>> class Quadratic(torch.nn.Module):
    ...     def forward(self, x):
    ...         return 0.5 * x.square().sum(-1)
    >>> energy_and_score(Quadratic(), torch.tensor([[1.0, 2.0]]))
    (tensor([2.5000]), tensor([[-1., -2.]]))
    """
    if isinstance(energy, Reshaped):
        value, score = energy_and_score(energy.module, x.view(-1, *energy.shape))
        return value, score.reshape(x.shape)
    closed_form = getattr(energy, "value_and_gradient", None)
    if closed_form is not None:
        value, gradient = closed_form(x)
        return value, -gradient
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        value = energy(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), -gradient


def build_energy(
    energy: str | EnergyComponent | Callable[[Any], torch.nn.Module],
    choices: dict[str, type],
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> torch.nn.Module:
    """Build the module behind an alias, a component or a user's factory, and check the contract.

    Parameters
    ----------
    energy : str, EnergyComponent or callable
        A callable gets the number of columns (or the image shape) and returns a module.
    choices : dict of str to type
        Aliases.
    shape : tuple of int
        Shape of one row.
    generator : torch.Generator
        Draws initial weights. A factory's own draws come from a fork of torch's global generator,
        seeded from this one and put back afterwards.

    Returns
    -------
    torch.nn.Module
        On the generator's device; takes flat rows (n, d) where `shape` is an image's too.

    Raises
    ------
    TypeError
        If the factory returns no module, or is a module itself.
    ValueError
        If the module holds batch normalization or maps n rows to anything but n finite numbers.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, build_energy
    >>> generator = torch.Generator().manual_seed(0)
    >>> build_energy("mlp", {"mlp": MLP}, (3,), generator)(torch.zeros(2, 3))
    tensor([0., 0.], grad_fn=<SqueezeBackward1>)
    """
    if isinstance(energy, torch.nn.Module):
        raise TypeError(
            f"energy must be a factory of a torch.nn.Module, got the module {type(energy).__name__}"
            " itself. Pass a function of the number of columns that makes a new one at each call."
        )
    if callable(energy) and not isinstance(energy, EnergyComponent | str):
        with _forked(generator):
            module = energy(shape[0] if len(shape) == 1 else shape)
    else:
        component = resolve(energy, choices, EnergyComponent, "energy")
        shape = (math.prod(shape),) if component.flat else shape
        module = component.build(shape, generator)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"energy must be a factory of a torch.nn.Module, got one that returns {module!r}. "
            "Return the module itself."
        )
    module = module.to(generator.device)
    _check_contract(module, shape, generator.device)
    return module if len(shape) == 1 else Reshaped(module, shape)


class Reshaped(torch.nn.Module):
    """An energy of images behind the contract of flat rows."""

    def __init__(self, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.shape = tuple(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map flat rows (n, d) to (n,)."""
        return self.module(x.view(-1, *self.shape))


def _check_contract(module: torch.nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BATCH_NORM):
            raise ValueError(
                f"energy must be free of batch normalization, got {type(part).__name__} at "
                f"{name!r}. It mixes rows, so the energy of a row would depend on its batch; use "
                "LayerNorm or none."
            )
    probe = torch.zeros(3, *shape, device=device)
    with torch.no_grad():
        out = module(probe)
    if not isinstance(out, torch.Tensor) or out.shape != (3,) or not out.isfinite().all():
        got = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else repr(out)
        raise ValueError(
            f"energy must map (n, {', '.join(map(str, shape))}) to n finite numbers, got {got} for "
            "3 rows of zeros. Squeeze the last axis."
        )


@contextmanager
def _forked(generator: torch.Generator):
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    devices = [generator.device] if generator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
