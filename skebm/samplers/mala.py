"""Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

__all__ = ["MALA", "MALAState", "choose", "robbins_monro"]

from typing import NamedTuple

import torch

from skebm._components import check_number
from skebm.samplers._base import Sampler, SamplerInfo, Target

Moment = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # positions, energies, scores


class MALAState(NamedTuple):
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
    >>> from skebm.samplers import MALA
    >>> state = MALA(0.5).init(lambda x: (0.5 * x.square().sum(-1), -x), torch.zeros(2, 1))
    >>> state.energy
    tensor([0., 0.])
    """

    x: torch.Tensor
    energy: torch.Tensor
    score: torch.Tensor
    log_step: torch.Tensor
    n_taken: int


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
    >>> generator = torch.Generator().manual_seed(0)
    >>> quadratic = lambda x: (0.5 * x.square().sum(-1), -x)
    >>> _, info = run(MALA(1.0, n_warmup=200), quadratic, torch.zeros(500, 2), 400, generator)
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
    ) -> MALAState:
        """Check the parameters and stand at x (n, ...), with a carried-over step if given."""
        check_number("step_size", self.step_size, low=0, open_low=True)
        check_number("n_warmup", self.n_warmup, low=0, integer=True)
        check_number("target_accept", self.target_accept, low=0, high=1, open_low=True)
        if log_step is None:
            log_step = torch.tensor(float(self.step_size), device=x.device).log()
        return MALAState(x, *target(x), log_step, 0)

    def step(
        self, target: Target, state: MALAState, generator: torch.Generator
    ) -> tuple[MALAState, SamplerInfo]:
        """Propose, test, and adapt while warming up."""
        step = state.log_step.exp()
        noise = torch.empty_like(state.x).normal_(generator=generator)
        x = state.x + step * state.score + (2 * step).sqrt() * noise
        energy, score = target(x)
        back = (state.x - x - step * score).flatten(1).square().sum(1) / (4 * step)
        log_ratio = state.energy - energy - back + 0.5 * noise.flatten(1).square().sum(1)
        probability = log_ratio.exp().clamp(max=1).nan_to_num(nan=0.0)
        accept = torch.empty_like(probability).uniform_(generator=generator) < probability
        acceptance = probability.mean()
        log_step = state.log_step
        if state.n_taken < self.n_warmup:
            gain = (state.n_taken + 1) ** -0.6
            log_step = robbins_monro(log_step, acceptance, self.target_accept, gain)
        moved = choose(accept, (x, energy, score), (state.x, state.energy, state.score))
        new = MALAState(*moved, log_step, state.n_taken + 1)
        return new, SamplerInfo(acceptance, step, new.energy, new.score)


def choose(accept: torch.Tensor, new: Moment, old: Moment) -> Moment:
    """Take positions, energies and scores from the proposal where it was accepted."""
    rows = accept.view(-1, *[1] * (new[0].dim() - 1))
    return (
        torch.where(rows, new[0], old[0]),
        torch.where(accept, new[1], old[1]),
        torch.where(rows, new[2], old[2]),
    )


def robbins_monro(
    log_step: torch.Tensor, acceptance: torch.Tensor, target: float, gain: float
) -> torch.Tensor:
    """Move a log step size toward the acceptance asked for."""
    return log_step + gain * (acceptance - target)
