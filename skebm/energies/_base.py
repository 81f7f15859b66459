"""The energy contract: ``(n, ...) -> (n,)`` in nats, one row's energy independent of the others."""

from __future__ import annotations

__all__ = [
    "EnergyComponent",
    "build_energy",
    "differentiable_score",
    "directional_derivative",
    "energy_and_score",
    "laplacian",
]

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
    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
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


def differentiable_score(energy: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    r"""Return the score :math:`-\nabla_x E(x)` with a graph through the parameters.

    Parameters
    ----------
    energy : torch.nn.Module
        Maps rows to nats.
    x : Tensor of shape (n, ...)
        Rows in standardized space; the graph reaches them where they ask for gradients.

    Returns
    -------
    Tensor of shape (n, ...)
        Nats per standardized unit.

    Notes
    -----
    Double backward: a loss of the score costs about twice a loss of the energy and its gradient.
    Where the score is needed along one direction alone, `directional_derivative` is cheaper.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, differentiable_score
    >>> energy = MLP((4,)).build((2,), torch.Generator().manual_seed(0))
    >>> differentiable_score(energy, torch.ones(3, 2)).requires_grad
    True
    """
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_(True)
        return -_gradient(energy(leaf), leaf)


def directional_derivative(
    energy: torch.nn.Module, x: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    r"""Return :math:`\nabla_x E(x) \cdot v` with a graph through the parameters.

    Parameters
    ----------
    energy : torch.nn.Module
        Closed form is used where the module has ``directional_derivative(x, v)``; double backward
        otherwise.
    x : Tensor of shape (n, ...)
        Rows in standardized space.
    v : Tensor of shape (n, ...)
        One direction for each row; the graph reaches it too.

    Returns
    -------
    Tensor of shape (n,)
        Nats per unit of v.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import directional_derivative
    >>> class Quadratic(torch.nn.Module):
    ...     def forward(self, x):
    ...         return 0.5 * x.square().sum(-1)
    >>> x, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    >>> directional_derivative(Quadratic(), x, v).tolist()
    [1.0]
    """
    if isinstance(energy, Reshaped):
        shape = (-1, *energy.shape)
        return directional_derivative(energy.module, x.view(shape), v.view(shape))
    closed_form = getattr(energy, "directional_derivative", None)
    if closed_form is not None:
        return closed_form(x, v)
    return -(differentiable_score(energy, x) * v).flatten(1).sum(1)


def laplacian(
    energy: torch.nn.Module, x: torch.Tensor, probes: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Return the trace of the Hessian of E, or :math:`v^T H v`, differentiable in the parameters.

    Parameters
    ----------
    energy : torch.nn.Module
        Twice differentiable. Closed form is used for the trace where the module has
        ``laplacian(x)``.
    x : Tensor of shape (n, ...)
        Rows in standardized space.
    probes : Tensor of shape (n, ...), optional
        Directions v, one for each row. With mean 0 and covariance I, :math:`v^T H v` is an unbiased
        estimate of the trace. None gives the trace itself.

    Returns
    -------
    Tensor of shape (n,)
        Nats per standardized unit squared.

    Notes
    -----
    The trace takes one backward pass through the gradient for each column; a probe takes one.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Eq. 16.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import laplacian
    >>> class Quadratic(torch.nn.Module):
    ...     def forward(self, x):
    ...         return 0.5 * x.square().sum(-1)
    >>> laplacian(Quadratic(), torch.tensor([[1.0, 2.0]])).tolist()
    [2.0]
    """
    if isinstance(energy, Reshaped):
        shape = (-1, *energy.shape)
        probes = None if probes is None else probes.view(shape)
        return laplacian(energy.module, x.view(shape), probes)
    closed_form = getattr(energy, "laplacian", None)
    if probes is None and closed_form is not None:
        return closed_form(x)
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_(True)
        if probes is not None:
            along = directional_derivative(energy, leaf, probes)
            return (_gradient(along, leaf) * probes).flatten(1).sum(1)
        columns = -differentiable_score(energy, leaf).flatten(1)
        second = [_gradient(g, leaf).flatten(1)[:, i] for i, g in enumerate(columns.unbind(1))]
        return torch.stack(second, 1).sum(1)


def _gradient(values: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Return the gradient of their sum with its graph; zeros where they do not depend on `leaf`."""
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(
        values.sum(), leaf, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def build_energy(
    energy: str | EnergyComponent | Callable[[Any], torch.nn.Module],
    choices: dict[str, type],
    shape: tuple[int, ...],
    rng: torch.Generator,
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
    rng : torch.Generator
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
    >>> rng = torch.Generator().manual_seed(0)
    >>> build_energy("mlp", {"mlp": MLP}, (3,), rng)(torch.zeros(2, 3))
    tensor([0., 0.], grad_fn=<SqueezeBackward1>)
    """
    if isinstance(energy, torch.nn.Module):
        raise TypeError(
            f"energy must be a factory of a torch.nn.Module, got the module {type(energy).__name__}"
            " itself. Pass a function of the number of columns that makes a new one at each call."
        )
    if callable(energy) and not isinstance(energy, EnergyComponent | str):
        with _forked(rng):
            module = energy(shape[0] if len(shape) == 1 else shape)
    else:
        component = resolve(energy, choices, EnergyComponent, "energy")
        shape = (math.prod(shape),) if component.flat else shape
        module = component.build(shape, rng)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"energy must be a factory of a torch.nn.Module, got one that returns {module!r}. "
            "Return the module itself."
        )
    module = module.to(rng.device)
    _check_contract(module, shape, rng.device)
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
def _forked(rng: torch.Generator):
    seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
    devices = [rng.device] if rng.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
