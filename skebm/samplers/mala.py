"""Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

__all__ = ["MALA"]

import torch

from skebm.samplers._base import Sampler, SamplerInfo, Target
from skebm.samplers._metropolis import MetropolisState, begin, decide


class MALA(Sampler):
    r"""Langevin proposals with a Metropolis test: unbiased at any step size.

    The proposal is :math:`x' = x - \epsilon \nabla U(x) + \sqrt{2 \epsilon} z`, accepted with
    probability :math:`\min(1, e^{-U(x')} q(x | x') / (e^{-U(x)} q(x' | x)))`.

    Parameters
    ----------
    step_size : float, default=0.1
        eps, standardized units squared; where a warm-up runs, only its start.
    n_warmup : int, default=0
        Steps during which Robbins-Monro moves log eps so that acceptance meets `target_accept`;
        afterwards the step is frozen, and only those steps sample the target exactly.
    target_accept : float, default=0.67
        Acceptance to aim at (dimensionless); the optimum for Langevin proposals in high dimension
        is 0.574, the paper uses 0.67.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    Every proposal counts: a rejected chain stays and the step is one step of it. A nan potential is
    never accepted. One gradient per step.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section 4.2.5.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import MALA, run
    >>> rng = torch.Generator().manual_seed(0)
    >>> quadratic = lambda x: (0.5 * x.square().sum(-1), -x)
    >>> _, info = run(MALA(1.0, n_warmup=200), quadratic, torch.zeros(500, 2), 400, rng)
    >>> 0.5 < float(info.acceptance) < 0.8
    True
    """

    metropolis = True

    def __init__(
        self, step_size: float = 0.1, n_warmup: int = 0, target_accept: float = 0.67
    ) -> None:
        self.step_size = step_size
        self.n_warmup = n_warmup
        self.target_accept = target_accept

    def for_energy(self, temperature: float) -> MALA:
        """Return the sampler of U = E / T for a `step_size` that multiplies the gradient of E."""
        return self.with_params(step_size=self.step_size * temperature)

    def init(
        self, target: Target, x: torch.Tensor, log_step: torch.Tensor | None = None
    ) -> MetropolisState:
        """Check the parameters and stand at x (n, ...), with a carried-over step if given."""
        return begin(self, target, x, log_step)

    def step(
        self, target: Target, state: MetropolisState, rng: torch.Generator
    ) -> tuple[MetropolisState, SamplerInfo]:
        """Propose, test, and adapt while warming up."""
        step = state.log_step.exp()
        noise = torch.empty_like(state.x).normal_(generator=rng)
        x = state.x + step * state.score + (2 * step).sqrt() * noise
        energy, score = target(x)
        back = (state.x - x - step * score).flatten(1).square().sum(1) / (4 * step)
        log_ratio = state.energy - energy - back + 0.5 * noise.flatten(1).square().sum(1)
        return decide(self, state, (x, energy, score), log_ratio, rng)
