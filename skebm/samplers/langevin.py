"""Unadjusted Langevin dynamics."""

from __future__ import annotations

__all__ = ["Langevin", "LangevinState"]

from typing import NamedTuple

import torch

from skebm._components import check_number
from skebm.samplers._base import Sampler, SamplerInfo, Target


class LangevinState(NamedTuple):
    """Where the chains stand.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Positions, standardized space.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import LangevinState
    >>> LangevinState(torch.zeros(2, 1)).x.shape
    torch.Size([2, 1])
    """

    x: torch.Tensor


class Langevin(Sampler):
    r"""Langevin step :math:`x \leftarrow x - a \nabla U(x) + b z`, without Metropolis test.

    In the limit of small steps the chain samples :math:`\exp(-U / T)` with the effective
    temperature :math:`T = b^2 / (2 a)`.

    Parameters
    ----------
    step_size : float, default=0.01
        a, standardized units squared; larger moves faster and is more biased.
    temperature : float, default=1.0
        T (dimensionless); sets b = sqrt(2 a T). Ignored where `noise_std` is given.
    noise_std : float, optional
        b, standardized units: noise decoupled from the step, as in short-run Langevin.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    On U = x^2 / (2 s^2) the stationary variance is exactly b^2 / (1 - (1 - a / s^2)^2), and the
    chain is stable for a < 2 s^2 only. One gradient per step. The class methods convert the
    notations of the papers.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 9.

    Examples
    --------
    >>> from skebm.samplers import Langevin
    >>> round(Langevin(step_size=5e-4, noise_std=0.01).effective_temperature, 6)
    0.1
    """

    def __init__(
        self,
        step_size: float = 0.01,
        temperature: float = 1.0,
        noise_std: float | None = None,
    ) -> None:
        self.step_size = step_size
        self.temperature = temperature
        self.noise_std = noise_std

    @classmethod
    def from_alpha_beta(cls, alpha: float, beta: float) -> Langevin:
        """Convert USP Eq. 5: drift alpha / 2, noise sqrt(beta)."""
        return cls(alpha / 2, noise_std=beta**0.5)

    @classmethod
    def from_eta(cls, eta: float) -> Langevin:
        """Convert SP Algorithm 2: drift eta, noise sqrt(2 eta)."""
        return cls(eta, noise_std=(2 * eta) ** 0.5)

    @classmethod
    def from_temperature(cls, step_size: float, temperature: float) -> Langevin:
        """Convert HCD Eq. 9: drift eps, noise sqrt(2 eps T)."""
        return cls(step_size, temperature=temperature)

    @classmethod
    def from_epsilon(cls, epsilon: float) -> Langevin:
        """Convert LSD Eq. 18: drift eps / 2, noise sqrt(eps)."""
        return cls(epsilon / 2, noise_std=epsilon**0.5)

    @classmethod
    def from_decoupled(cls, epsilon: float, sigma: float) -> Langevin:
        """Convert LSD Eq. 19: drift eps, noise sigma (drift 1 gives the Anatomy code's form)."""
        return cls(epsilon, noise_std=sigma)

    @property
    def noise_scale(self) -> float:
        """Standard deviation b of the noise of one step, standardized units."""
        if self.noise_std is not None:
            return self.noise_std
        return (2 * self.step_size * self.temperature) ** 0.5

    @property
    def effective_temperature(self) -> float:
        """Temperature b^2 / (2 a) that the chain samples at in the limit of small steps."""
        return self.noise_scale**2 / (2 * self.step_size)

    def for_energy(self, temperature: float) -> Langevin:
        """Return the sampler of E / T: the drift keeps its size, and so does a given `noise_std`.

        With T the model's temperature and no `noise_std`, the noise is sqrt(2 eps T): HCD Eq. 9.
        """
        return self.with_params(step_size=self.step_size * temperature)

    def init(self, target: Target, x: torch.Tensor) -> LangevinState:
        """Check the parameters and stand at x (n, ...)."""
        check_number("step_size", self.step_size, low=0, open_low=True)
        check_number("temperature", self.temperature, low=0)
        if self.noise_std is not None:
            check_number("noise_std", self.noise_std, low=0)
        return LangevinState(x)

    def step(
        self, target: Target, state: LangevinState, rng: torch.Generator
    ) -> tuple[LangevinState, SamplerInfo]:
        """Move every chain once."""
        energy, score = target(state.x)
        noise = torch.empty_like(state.x).normal_(generator=rng)
        x = noise.mul_(self.noise_scale).add_(state.x).add_(score, alpha=self.step_size)
        one = energy.new_ones(())
        return LangevinState(x), SamplerInfo(one, one * self.step_size, energy, score)
