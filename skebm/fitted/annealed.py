"""Draws of a model by annealing from its proposal: resampled and moved step by step."""

from __future__ import annotations

__all__ = ["AnnealedDraws", "anneal"]

from typing import NamedTuple

import numpy as np
import torch

from skebm.bases import Base
from skebm.data import systematic_rows
from skebm.energies import Model
from skebm.partition.ais import Path, increment
from skebm.samplers import MALA, MetropolisState, Target
from skebm.samplers._metropolis import robbins_monro

CANDIDATES = 8  # draws of the proposal for each row
KEPT = 0.6  # share of the effective sample size that is left by a step to the next temperature
N_BETWEEN = 5  # moves at each temperature: copies have to part
MOST_LEVELS = 100
N_WARMUP, N_RECORDED, MOST_BLOCKS = 30, 40, 6  # moves at the model itself
MIXED = 1.1  # R-hat below which chains have forgotten where they started
N_WATCHED = 256  # chains behind R-hat
TARGET = 0.6  # acceptance


class AnnealedDraws(NamedTuple):
    """Rows, and how they were come by."""

    x: torch.Tensor  # (n, d)
    acceptance: float  # of the moves at the model
    rhat: float  # of the chains there: largest of the columns' and that of U
    n_levels: int
    n_roots: float  # effective number of draws of the proposal that the rows descend from


@torch.no_grad()
def anneal(model: Model, proposal: Base, n: int, rng: torch.Generator) -> AnnealedDraws:
    """Draw n rows: a population goes from the proposal to the model along a ladder.

    At each rung it is resampled by the weights between it and the last one, which puts the masses
    of modes right, and moved, so that copies part. At the model chains run until their own R-hat
    says that they have forgotten their start, or for 270 moves.
    """
    path, log_step = Path(model, proposal), torch.tensor(-2.3, device=rng.device)
    x = proposal.sample(CANDIDATES * n, rng)
    roots, beta, n_levels = torch.arange(len(x), device=x.device), 0.0, 0
    while beta < 1:
        difference = path.difference(x).nan_to_num(nan=torch.inf)  # of no weight
        kept = min(KEPT, 2 * n / len(x))  # at first there are candidates to choose among
        last = n_levels == MOST_LEVELS - 1
        step = 1 - beta if last else increment(difference, 1 - kept, 1 - beta)
        rows = systematic_rows((-step * difference).double().softmax(0), n, rng)
        beta, n_levels = min(1.0, beta + step), n_levels + 1
        beta = 1.0 if beta > 1 - 1e-6 else beta
        x, roots = x[rows], roots[rows]
        if beta < 1:
            state, _ = _moved(path.at(beta), x, log_step, N_BETWEEN, rng)
            x, log_step = state.x, state.log_step
    x, acceptance, rhat = _settled(model.potential_and_score, x, log_step, rng)
    share = torch.bincount(roots).double() / n
    return AnnealedDraws(x, acceptance, rhat, n_levels, float(1 / share.square().sum()))


def _moved(
    target: Target, x: torch.Tensor, log_step: torch.Tensor, n_steps: int, rng: torch.Generator
) -> tuple[MetropolisState, torch.Tensor]:
    """Move rows while the step size is fitted to the acceptance; return the last one too."""
    sampler = MALA()
    state = sampler.init(target, x, log_step)
    for i in range(n_steps):
        state, info = sampler.step(target, state, rng)
        log_step = robbins_monro(state.log_step, info.acceptance, TARGET, (i + 1) ** -0.5)
        state = state._replace(log_step=log_step)
    return state, info.acceptance


def _settled(
    target: Target, x: torch.Tensor, log_step: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, float, float]:
    """Return the ends of chains that start at x (n, d), their acceptance and R-hat."""
    state, _ = _moved(target, x, log_step, N_WARMUP, rng)
    sampler, records, acceptance, rhat = MALA(), [], [], np.inf
    for _ in range(MOST_BLOCKS):
        for _ in range(N_RECORDED):
            state, info = sampler.step(target, state, rng)
            seen = torch.cat([state.energy[:, None], state.x.flatten(1)], 1)[:N_WATCHED]
            records.append(seen.cpu().numpy())
            acceptance.append(info.acceptance)
        rhat = _largest_rhat(np.stack(records))
        if rhat < MIXED:
            break
    return state.x, float(torch.stack(acceptance).mean()), rhat


def _largest_rhat(records: np.ndarray) -> float:
    """Return the largest rank-normalized R-hat of records (n_steps, n_chains, n_columns)."""
    from arviz_stats.base.array import array_stats

    if records.shape[1] < 2:
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # columns that stand still
        return float(np.max(array_stats.rhat(records, chain_axis=1, draw_axis=0)))
