"""Hamiltonian Monte Carlo."""

from __future__ import annotations

__all__ = ["HMC"]

import torch

from skebm._components import check_number
from skebm.samplers._base import Sampler, SamplerInfo, Target
from skebm.samplers._metropolis import MetropolisState, begin, decide


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
    >>> rng = torch.Generator().manual_seed(0)
    >>> quadratic = lambda x: (0.5 * x.square().sum(-1), -x)
    >>> _, info = run(HMC(0.3, n_leapfrog=4), quadratic, torch.zeros(500, 2), 20, rng)
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
    ) -> MetropolisState:
        """Check the parameters and stand at x (n, ...), with a carried-over step if given."""
        check_number("n_leapfrog", self.n_leapfrog, low=1, integer=True)
        check_number("mass", self.mass, low=0, open_low=True)
        return begin(self, target, x, log_step)

    def step(
        self, target: Target, state: MetropolisState, rng: torch.Generator
    ) -> tuple[MetropolisState, SamplerInfo]:
        """Follow a trajectory, test its end, and adapt while warming up."""
        momentum = torch.empty_like(state.x).normal_(generator=rng).mul_(self.mass**0.5)
        x, energy, score, end = self._trajectory(target, state, momentum, state.log_step.exp())
        log_ratio = state.energy - energy + self._kinetic(momentum) - self._kinetic(end)
        return decide(self, state, (x, energy, score), log_ratio, rng)

    def _trajectory(
        self, target: Target, state: MetropolisState, momentum: torch.Tensor, step: torch.Tensor
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
