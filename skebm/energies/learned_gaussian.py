"""An energy that also learns the moments of its Gaussian base."""

from __future__ import annotations

__all__ = ["LearnedGaussian", "with_learned_gaussian"]

import torch

from skebm.bases import Base
from skebm.bases.mixture import MixtureBase
from skebm.bases.tails import Defended
from skebm.energies._base import Energy, as_energy
from skebm.energies.bounded import Bounded


class LearnedGaussian(Energy):
    r"""``E(x)`` and the quadratic that turns the base into a Gaussian with learned moments.

    In the coordinates y in which the base is N(0, I), it adds
    :math:`\frac12 |(y - a) e^{-l}|^2 - \frac12 |y|^2 + \sum l`, with the shift a and the log scales
    l 0 at the start: base and energy together are then :math:`e^{-E} N(a, e^{2l})` in y. With a
    diagonal base this is Eq. 15 of LSD.
    """

    factor: torch.Tensor
    center: torch.Tensor

    def __init__(self, module: torch.nn.Module, factor: torch.Tensor, center: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("factor", factor)
        self.register_buffer("center", center)
        self.shift = torch.nn.Parameter(torch.zeros_like(center))
        self.log_scale = torch.nn.Parameter(torch.zeros_like(center))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        y = (x - self.center) @ self.factor
        u = (y - self.shift) * (-self.log_scale).exp()
        quadratic = 0.5 * (u.square() - y.square()).sum(1) + self.log_scale.sum()
        return self.module(x) + quadratic

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        value, gradient = as_energy(self.module).value_and_gradient(x)
        y = (x - self.center) @ self.factor
        u = (y - self.shift) * (-self.log_scale).exp()
        value = value + 0.5 * (u.square() - y.square()).sum(1) + self.log_scale.sum()
        pull = u * (-self.log_scale).exp() - y
        return value, torch.addmm(gradient, pull, self.factor.T)

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return grad E(x) . v, (n,), differentiable in the parameters."""
        y, along = (x - self.center) @ self.factor, v @ self.factor
        pull = (y - self.shift) * (-2 * self.log_scale).exp() - y
        inner = as_energy(self.module).directional_derivative(x, v)
        return inner + (pull * along).sum(1)


def with_learned_gaussian(energy: torch.nn.Module, base: Base | None) -> torch.nn.Module:
    """Return the energy with learned moments where the base is one Gaussian."""
    if isinstance(energy, Bounded):  # the quadratic too is learnt from rows
        inner = with_learned_gaussian(energy.module, base)
        return Bounded(inner, energy.low, energy.high)
    core = base.core if isinstance(base, Defended) else base
    if not isinstance(core, MixtureBase) or len(core.means) > 1:
        return energy
    return LearnedGaussian(energy, core.factors[0].clone(), core.means[0].clone())
