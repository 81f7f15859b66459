"""The energy contract: ``(n, ...) -> (n,)`` in nats, one row's energy independent of the others."""

from __future__ import annotations

__all__ = ["Energy", "EnergyComponent", "as_energy", "build_energy", "energy_and_score"]

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from skebm._components import Component, resolve
from skebm.networks._evaluating import evaluating

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


class Energy(torch.nn.Module):
    r"""Module that maps rows (n, ...) to energies (n,), nats; autograd finds what it does not know.

    A subclass writes ``forward`` and overrides the derivatives that it has in closed form. One
    row's energy may not depend on the others, and ``double()`` makes it compute in float64.

    Notes
    -----
    By autograd a loss of the score or of a directional derivative costs about twice a loss of the
    energy and its gradient. The Laplacian takes one backward pass through the gradient for each
    column; with probes it takes one.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Eq. 16.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Energy
    >>> class Quadratic(Energy):
    ...     def forward(self, x):
    ...         return 0.5 * x.square().sum(-1)
    >>> energy, x, v = Quadratic(), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    >>> energy.value_and_gradient(x)
    (tensor([2.5000]), tensor([[1., 2.]]))
    >>> energy.directional_derivative(x, v).tolist(), energy.laplacian(x).tolist()
    ([1.0], [2.0])
    """

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) (n,) and its gradient (n, ...), without a graph."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            value = self(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Return minus the gradient of E (n, ...) with a graph through parameters and x."""
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_(True)
            return -_gradient(self(leaf), leaf)

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the gradient of E times directions v (n, ...), shape (n,), with a graph."""
        return -(self.score(x) * v).flatten(1).sum(1)

    def laplacian(self, x: torch.Tensor, probes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the trace of the Hessian H of E (n,) with a graph, or v H v with probes v.

        Probes (n, ...) with mean 0 and covariance I make it an unbiased estimate of the trace.
        """
        with torch.enable_grad():
            leaf = x if x.requires_grad else x.detach().requires_grad_(True)
            if probes is not None:
                along = self.directional_derivative(leaf, probes)
                return (_gradient(along, leaf) * probes).flatten(1).sum(1)
            columns = -self.score(leaf).flatten(1)
            second = [_gradient(g, leaf).flatten(1)[:, i] for i, g in enumerate(columns.unbind(1))]
            return torch.stack(second, 1).sum(1)

    @property
    def twice_differentiable(self) -> bool:
        """Whether the Laplacian is all of the second derivative: not where E has kinks."""
        return True

    def exact_log_partition(self) -> float | None:
        """Return log of the integral of exp(-E), nats; None where it is not known."""
        return None


class EnergyComponent(Component):
    """Parameters of an energy; ``build`` makes the module.

    With ``flat = True`` the module takes flat rows of images too.
    """

    flat = False

    @abstractmethod
    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for rows of this shape, ``(d,)`` for tables."""


def as_energy(module: torch.nn.Module) -> Energy:
    """Return an energy as it is, and any other module with autograd's derivatives.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows (n, ...) to (n,) nats.

    Returns
    -------
    Energy
        Shares the module's parameters.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import as_energy
    >>> linear = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
    >>> as_energy(linear).laplacian(torch.ones(3, 2)).tolist()
    [0.0, 0.0, 0.0]
    """
    return module if isinstance(module, Energy) else Adapted(module)


def energy_and_score(energy: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return E(x) and the score :math:`-\nabla_x E(x)`, without a graph through the parameters.

    Parameters
    ----------
    energy : torch.nn.Module
        An `Energy`, or any module that maps rows to nats.
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
    value, gradient = as_energy(energy).value_and_gradient(x)
    return value, -gradient


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
        If the module holds batch normalization, maps n rows to anything but n finite numbers, or
        cannot compute in float64 once converted.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, build_energy
    >>> rng = torch.Generator().manual_seed(0)
    >>> build_energy("mlp", {"mlp": MLP}, (3,), rng)(torch.zeros(2, 3))
    tensor([0., 0.], grad_fn=<TrainingPassBackward>)
    """
    if isinstance(energy, torch.nn.Module):
        raise TypeError(
            f"energy must be a factory of a torch.nn.Module, got the module {type(energy).__name__}"
            " itself. Pass a function of the number of columns that makes a new one at each call."
        )
    if isinstance(energy, type) and issubclass(energy, EnergyComponent):
        raise TypeError(
            f"energy must be an instance of EnergyComponent, got the class {energy.__name__}. "
            f"Write {energy.__name__}(), an instance."
        )
    if callable(energy) and not isinstance(energy, EnergyComponent | str):
        with _forked(rng):
            module = _made(energy, shape[0] if len(shape) == 1 else shape)
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


def _made(factory: Callable[[Any], Any], shape: Any) -> Any:
    """Call a user's factory; of a class that wants something else, say so."""
    try:
        return factory(shape)
    except TypeError as error:
        if not isinstance(factory, type):
            raise
        raise TypeError(
            "energy must be called with the number of columns (or the image shape) alone, got the "
            f"class {factory.__name__}, which raised: {error} Give a function that builds it."
        ) from error


class Adapted(Energy):
    """Any module as an energy."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, ...) to (n,)."""
        return self.module(x)


class Reshaped(Energy):
    """An energy of images behind the contract of flat rows."""

    def __init__(self, module: torch.nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.shape = tuple(shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map flat rows (n, d) to (n,)."""
        return self.module(self._images(x))

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        value, gradient = as_energy(self.module).value_and_gradient(self._images(x))
        return value, gradient.reshape(x.shape)

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at flat rows x (n, d), with a graph."""
        return as_energy(self.module).directional_derivative(self._images(x), self._images(v))

    def laplacian(self, x: torch.Tensor, probes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the trace of the Hessian, or its product with probes (n, d) on both sides."""
        probes = None if probes is None else self._images(probes)
        return as_energy(self.module).laplacian(self._images(x), probes)

    def exact_log_partition(self) -> float | None:
        """Return that of the energy of images."""
        return as_energy(self.module).exact_log_partition()

    def _images(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, *self.shape)


def _check_contract(module: torch.nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _BATCH_NORM):
            raise ValueError(
                f"energy must be free of batch normalization, got {type(part).__name__} at "
                f"{name!r}. It mixes rows, so the energy of a row would depend on its batch; use "
                "LayerNorm or none."
            )
    probe = torch.zeros(3, *shape, device=device)
    with torch.no_grad(), evaluating(module):
        out = module(probe)
    if not isinstance(out, torch.Tensor) or out.shape != (3,) or not out.isfinite().all():
        got = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else repr(out)
        raise ValueError(
            f"energy must map (n, {', '.join(map(str, shape))}) to n finite numbers, got {got} for "
            "3 rows of zeros. Squeeze the last axis."
        )
    _check_double(module, probe)


def _check_double(module: torch.nn.Module, probe: torch.Tensor) -> None:
    """Raise unless a copy of the module in float64 maps float64 rows to float64 energies."""
    if probe.device.type == "mps":  # has no float64
        probe = probe.cpu()
    twin = copy.deepcopy(module).to(probe.device).double().eval()
    try:
        with torch.no_grad():
            got = str(twin(probe.double()).dtype)
    except RuntimeError as error:
        got = str(error)
    if got != "torch.float64":
        raise ValueError(
            f"energy must compute in float64 too, once converted by double(), got {got}. Make its "
            "constants from x (x.new_tensor) or register them as buffers."
        )


@contextmanager
def _forked(rng: torch.Generator):
    seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
    devices = [rng.device] if rng.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
