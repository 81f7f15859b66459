"""From a trained model to log Z."""

from __future__ import annotations

__all__ = ["MOST_COLUMNS", "near", "normalize"]

import math

import torch

from skebm._surroundings import threads
from skebm._warn import warn
from skebm.bases import Base, Defensive, Gaussian
from skebm.data import Table
from skebm.energies import Model, Zero
from skebm.exceptions import NormalizationWarning
from skebm.fitted.draws import settle
from skebm.partition import LogPartition, PartitionMethod

PROPOSAL_ROWS = 4000
N_RAYS, FAR = 256, 1e3  # directions, and times the distance of draws, that an energy is followed
TURNS = [0.2 * 0.93**i for i in range(150)]  # radians, of directions towards less energy
BLOCK = 16_384  # rows that methods evaluate at a time
MOST_ROWS = 100_000
MOST_COLUMNS = Defensive().max_columns  # beyond, nothing fitted in seconds is near the model


def near(model: Model, table: Table, rng: torch.Generator) -> Base:
    """Return the normalized density that log Z and samples are reached from.

    Without a base it is fitted to chains of the model that start at the data.
    """
    if model.base is not None:
        return model.base
    rows = table.rows(MOST_ROWS)
    if rows.x.shape[1] > MOST_COLUMNS:
        return Gaussian().fit(rows.x, rows.weight, rng)
    return Defensive().fit(settle(model, table.rows(PROPOSAL_ROWS).x, rng), None, rng)


def normalize(
    model: Model, proposal: Base, method: PartitionMethod | None, rng: torch.Generator
) -> LogPartition | None:
    """Estimate log Z, and warn if the estimate is vague; None where no method is asked for."""
    if method is None:
        return None
    if isinstance(model.energy, Zero) and model.base is not None:
        return LogPartition(0.0, 0.0, float("inf"), "exact")
    with threads(model.multiply_adds(BLOCK)):
        result = method.estimate(model, proposal, rng)
    is_open = model.base is None and result.method != "exact"
    doubts = (_far_out(model, proposal, rng) if is_open else None) or result.doubts()
    if doubts is not None:
        warn(doubts, NormalizationWarning)
    return result


@torch.no_grad()
def _far_out(model: Model, proposal: Base, rng: torch.Generator) -> str | None:
    """Return what to say of an energy without a base that has mass where no draw has been.

    Along rays that are drawn it is to outgrow the volume of a cone. Then directions turn to where
    it is least: {f = 0} of f^2 / 2 may reach to infinity, and no ray that is drawn lies in it. A
    ridge may be as thin far out as it is near, so that there it is to outgrow a line.
    """
    if proposal.n_features > MOST_COLUMNS:  # no draws are near the model
        return None
    x = proposal.sample(N_RAYS, rng)
    middle = x.mean(0)
    length = (x - middle).norm(dim=1, keepdim=True)
    length = length.maximum(length.square().mean().sqrt())  # rows in the middle say nothing
    u = torch.nn.functional.normalize(x - middle)

    told = (
        f"the energy does not outgrow the space at {FAR:g} times the distance of the rows, so that "
        "log Z misses mass far out, or there is none. Use a base."
    )

    def is_outgrown(u: torch.Tensor, dimension: int) -> bool:
        gained = model.potential(middle + length * u) - model.potential(middle + FAR * length * u)
        return bool((gained > -dimension * math.log(FAR)).any())

    if is_outgrown(u, x.shape[1]):
        return told
    for turn in TURNS:
        descent = model.potential_and_score(middle + FAR * length * u)[1]
        descent -= (descent * u).sum(1, keepdim=True) * u
        u = torch.nn.functional.normalize(u + turn * torch.nn.functional.normalize(descent))
    return told if is_outgrown(u, 1) else None
