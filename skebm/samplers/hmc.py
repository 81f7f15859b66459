"""Hamiltonian Monte Carlo."""

from __future__ import annotations

__all__ = ["HMC", "HMCState"]

from typing import NamedTuple

import torch

from skebm._components import check_number
from skebm.samplers._base import Sampler, SamplerInfo, Target
from skebm.samplers.mala import choose, robbins_monro


class HMCState(NamedTuple):
    """Where the chains stand and what is known there.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Positions, standardized space.
    energy : Tensor of shape (n,)
        Potentials U, nats.
    score : Tensor of shape (n, ...)
        Minus the gradient of U.
    log_step : Tensor of shape ()
        Log of the step size.
    n_taken : int
        Steps taken.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import HMC
    >>> state = HMC(0.5).init(lambda x: (0.5 * x.square().sum(-1), -x), torch.zeros(2, 1))
    >>> state.energy
    tensor([0., 0.])
    """

    x: torch.Tensor
    energy: torch.Tensor
    score: torch.Tensor
    log_step: torch.Tensor
    n_taken: int


class HMC(Sampler):
    r"""Leapfrog trajectories with fresh momenta and a Metropolis test: unbiased at any step size.

    A step draws :math:`r \sim N(0, M)`, follows :math:`\dot x = r / M,\ \dot r = -\nabla U(x)` for
    `n_leapfrog` steps and accepts the end with probability
    :math:`\min(1, e^{H(x, r) - H(x', r')})`, where :math:`H = U(x) + |r|^2 / (2 M)`.

    Parameters
    ----------
    step_size : float, default=0.1
        Leapfrog step, time in standardized units; where a warm-up runs, only its start.
    n_leapfrog : int, default=5
        Leapfrog steps per trajectory; larger goes farther per step and costs as much more.
    mass : float, default=1.0
        M (dimensionless); larger moves slower.
    n_warmup : int, default=0
        Steps during which Robbins-Monro moves the log step size so that acceptance meets
        `target_accept`; afterwards it is frozen, and only those steps sample the target exactly.
    target_accept : float, default=0.67
        Acceptance to aim at (dimensionless); about 0.65 is the optimum in high dimension.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    `n_leapfrog` gradients per step. Trajectories have one length, so on a Gaussian a length near a
    period of the motion (2 pi standard deviations at M = 1) comes back to its start; shorten it.

    References
    ----------
    .. [1] R. M. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo,
       2011. Section 3.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import HMC, run
    >>> generator = torch.Generator().manual_seed(0)
    >>> quadratic = lambda x: (0.5 * x.square().sum(-1), -x)
    >>> _, info = run(HMC(0.3, n_leapfrog=4), quadratic, torch.zeros(500, 2), 20, generator)
    >>> 0.9 < float(info.acceptance) <= 1
    True
    """

    metropolis = True

    def __init__(
        self,
        step_size: float = 0.1,
        n_leapfrog: int = 5,
        mass: float = 1.0,
        n_warmup: int = 0,
        target_accept: float = 0.67,
    ) -> None:
        self.step_size = step_size
        self.n_leapfrog = n_leapfrog
        self.mass = mass
        self.n_warmup = n_warmup
        self.target_accept = target_accept

    def for_energy(self, temperature: float) -> HMC:
        """Return the sampler of U = E / T: momenta are then in units of sqrt(T)."""
        return self.with_params(step_size=self.step_size * temperature**0.5)

    def init(
        self, target: Target, x: torch.Tensor, log_step: torch.Tensor | None = None
    ) -> HMCState:
        """Check the parameters and stand at x (n, ...), with a carried-over step if given."""
        check_number("step_size", self.step_size, low=0, open_low=True)
        check_number("n_leapfrog", self.n_leapfrog, low=1, integer=True)
        check_number("mass", self.mass, low=0, open_low=True)
        check_number("n_warmup", self.n_warmup, low=0, integer=True)
        check_number("target_accept", self.target_accept, low=0, high=1, open_low=True)
        if log_step is None:
            log_step = torch.tensor(float(self.step_size), device=x.device).log()
        return HMCState(x, *target(x), log_step, 0)

    def step(
        self, target: Target, state: HMCState, generator: torch.Generator
    ) -> tuple[HMCState, SamplerInfo]:
        """Follow a trajectory, test its end, and adapt while warming up."""
        step = state.log_step.exp()
        momentum = torch.empty_like(state.x).normal_(generator=generator).mul_(self.mass**0.5)
        x, energy, score, end = self._trajectory(target, state, momentum, step)
        log_ratio = state.energy - energy + self._kinetic(momentum) - self._kinetic(end)
        probability = log_ratio.exp().clamp(max=1).nan_to_num(nan=0.0)
        accept = torch.empty_like(probability).uniform_(generator=generator) < probability
        acceptance, log_step = probability.mean(), state.log_step
        if state.n_taken < self.n_warmup:
            gain = (state.n_taken + 1) ** -0.6
            log_step = robbins_monro(log_step, acceptance, self.target_accept, gain)
        moved = choose(accept, (x, energy, score), (state.x, state.energy, state.score))
        new = HMCState(*moved, log_step, state.n_taken + 1)
        return new, SamplerInfo(acceptance, step, new.energy, new.score)

    def _trajectory(
        self, target: Target, state: HMCState, momentum: torch.Tensor, step: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        x, score = state.x, state.score
        for _ in range(self.n_leapfrog):
            momentum = momentum + 0.5 * step * score
            x = x + (step / self.mass) * momentum
            energy, score = target(x)
            momentum = momentum + 0.5 * step * score
        return x, energy, score, momentum

    def _kinetic(self, momentum: torch.Tensor) -> torch.Tensor:
        return momentum.flatten(1).square().sum(1) / (2 * self.mass)
