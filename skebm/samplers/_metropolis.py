"""What samplers with a Metropolis test share: their state, the test, and the adapted step."""

from __future__ import annotations

__all__ = ["MetropolisState", "begin", "decide", "robbins_monro"]

from typing import Any, NamedTuple

import torch

from skebm._components import check_number
from skebm.samplers._base import SamplerInfo, Target

Moment = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # positions, energies, scores


class MetropolisState(NamedTuple):
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


def begin(
    sampler: Any, target: Target, x: torch.Tensor, log_step: torch.Tensor | None
) -> MetropolisState:
    """Check what the samplers share and stand at x (n, ...)."""
    check_number("step_size", sampler.step_size, low=0, open_low=True)
    check_number("n_warmup", sampler.n_warmup, low=0, integer=True)
    check_number("target_accept", sampler.target_accept, low=0, high=1, open_low=True)
    if log_step is None:
        log_step = torch.tensor(float(sampler.step_size), device=x.device).log()
    energy, score = target(x)
    return MetropolisState(x, energy, score, log_step, 0)


def decide(
    sampler: Any,
    state: MetropolisState,
    proposed: Moment,
    log_ratio: torch.Tensor,
    rng: torch.Generator,
) -> tuple[MetropolisState, SamplerInfo]:
    """Accept or reject each chain's proposal, and adapt the step while warming up.

    Every proposal counts: a rejected chain stays. A nan ratio is never accepted.
    """
    probability = log_ratio.exp().clamp(max=1).nan_to_num(nan=0.0)
    accept = torch.empty_like(probability).uniform_(generator=rng) < probability
    acceptance, log_step = probability.mean(), state.log_step
    if state.n_taken < sampler.n_warmup:
        gain = (state.n_taken + 1) ** -0.6
        log_step = robbins_monro(log_step, acceptance, sampler.target_accept, gain)
    x, energy, score = _choose(accept, proposed, (state.x, state.energy, state.score))
    new = MetropolisState(x, energy, score, log_step, state.n_taken + 1)
    return new, SamplerInfo(acceptance, state.log_step.exp(), energy, score)


def _choose(accept: torch.Tensor, new: Moment, old: Moment) -> Moment:
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
