"""Langevin loops on one energy: skebm's, others', and the matrix products none can do without."""

from __future__ import annotations

__all__ = ["BARS", "LOOPS", "NETWORKS", "build", "ours"]

from collections.abc import Callable

import torch

from skebm.energies import MLP
from skebm.samplers import Langevin, run

NETWORKS = ((2, 128), (10, 300))  # columns, width of both hidden layers
BARS = {
    "autograd loop": (">= 1.4", ">= 1.2"),
    "matrix products": (">= 0.65", ">= 0.78"),
    "torchebm": (">= 1.8", ">= 1.3"),
    "ebmkit": (">= 1.5", ">= 1.3"),
}
EPS = 0.01


def build(d: int, width: int, seed: int) -> torch.nn.Module:
    """Return a perceptron with a random last layer (an untrained energy ends in zeros)."""
    rng = torch.Generator().manual_seed(seed)
    energy = MLP(hidden_sizes=(width, width), n_frequencies=0).build((d,), rng)
    with torch.no_grad():
        last = energy.layers[-1]
        last.weight.normal_(generator=rng).mul_(width**-0.5)
    return energy.requires_grad_(False)


def ours(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    rng = torch.Generator().manual_seed(0)
    sampler = Langevin(EPS)
    return lambda n: run(sampler, energy, x, n, rng)


def autograd_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    def loop(n: int) -> None:
        y = x
        for _ in range(n):
            y = y.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(energy(y).sum(), y)
            y = y.detach() - EPS * gradient + (2 * EPS) ** 0.5 * torch.randn_like(y)

    return loop


def matrix_products(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    """Return the five products that a gradient cannot do without, into buffers.

    The product with the last layer's one row on the way back is an outer product with ones, which
    needs no arithmetic, so it is left out of the bound.
    """
    first, second, last = (layer.weight for layer in energy.layers)
    a, b = x.new_empty(len(x), len(first)), x.new_empty(len(x), len(second))
    out, back = x.new_empty(len(x), 1), torch.empty_like(x)

    def loop(n: int) -> None:
        with torch.no_grad():
            for _ in range(n):
                torch.mm(x, first.T, out=a)
                torch.mm(a, second.T, out=b)
                torch.mm(b, last.T, out=out)
                torch.mm(b, second, out=a)
                torch.mm(a, first, out=back)

    return loop


def torchebm_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__(device="cpu")
            self.energy = energy

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.energy(x)

    sampler = LangevinDynamics(Wrapped(), step_size=EPS, device="cpu")
    return lambda n: sampler.sample(x=x, n_steps=n)


def ebmkit_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    import ebm

    sampler = ebm.LangevinDynamics(step_size=EPS)
    return lambda n: sampler.sample(energy, x, steps=n)


LOOPS = {
    "autograd loop": autograd_loop,
    "matrix products": matrix_products,
    "torchebm": torchebm_loop,
    "ebmkit": ebmkit_loop,
}
