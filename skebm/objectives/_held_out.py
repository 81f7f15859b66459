"""Held-out log likelihood by importance weights from a fixed set of reference draws."""

from __future__ import annotations

__all__ = [
    "HeldOut",
    "held_out_given",
    "held_out_likelihood",
    "proposal_for",
    "reference_draws",
    "relative_log_prob",
]

import math
from typing import NamedTuple

import torch

from skebm.bases import Base, Defensive
from skebm.energies import Model
from skebm.partition._base import LogPartition, from_log_weights
from skebm.partition.auto import exact_log_partition

N_REFERENCE = 16384
BLOCK = 4096  # rows at a time: convolutions of all of them would not fit
FEWEST_EFFECTIVE = 50  # effective draws below which log Z, and so the value, means nothing


class HeldOut(NamedTuple):
    """A model on held-out rows, nats per row in standardized space.

    Parameters
    ----------
    value : float
        What chooses the snapshot, larger is better: mean log density minus the standard error of
        log Z, so that a vague log Z does not look good, and minus infinity where log Z cannot be
        trusted; `LearnedStein` has minus its held-out discrepancy here.
    gain : float
        Mean log density minus the base's on the same rows; where it falls 5 nats below that of the
        best snapshot, training goes back. NaN where it is unknown.
    stderr : float
        Standard error of the gain: rows and log Z together.
    ess : float
        Effective number of reference draws behind log Z; infinite where log Z is exact.

    Examples
    --------
    >>> from skebm.objectives import HeldOut
    >>> HeldOut(-2.0, 0.1, 0.02, 9000.0).gain
    0.1
    """

    value: float
    gain: float
    stderr: float
    ess: float


def proposal_for(model: Model, x: torch.Tensor, rng: torch.Generator) -> Base | None:
    """Return a proposal density for a model without a base, where one can be near it.

    Above 32 columns no density that is fitted in seconds is: then there is none. A model that knows
    its log Z needs none.
    """
    if exact_log_partition(model) is not None:
        return None
    if model.base is not None or x.dim() > 2 or x.shape[1] > Defensive().max_columns:
        return None
    return Defensive().fit(x, None, rng)


def reference_draws(
    model: Model, proposal: Base | None, rng: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return fixed draws from the proposal, or else the base, for every later validation."""
    source = model.base if proposal is None else proposal
    if source is None:
        return {}
    buffers = {"reference": source.sample(N_REFERENCE, rng)}
    if proposal is not None:
        log_prob = relative_log_prob(proposal, model.base, buffers["reference"])
        buffers["reference_log_prob"] = log_prob
    return buffers


@torch.no_grad()
def relative_log_prob(proposal: Base, base: Base | None, x: torch.Tensor) -> torch.Tensor:
    """Return log q(x) - log p0(x), shape (n,), with p0 = 1 where there is no base."""
    log_prob = proposal.log_prob(x)
    return log_prob if base is None else log_prob - base.log_prob(x)


@torch.no_grad()
def held_out_likelihood(
    model: Model, buffers: dict[str, torch.Tensor], batch: torch.Tensor
) -> HeldOut | None:
    """Estimate the mean log density of the rows in `batch` (n, d).

    None where log Z is not known exactly and there are no reference draws either.
    """
    log_z = exact_log_partition(model)
    if log_z is None and "reference" in buffers:
        log_z = _by_draws(model, buffers)
    return None if log_z is None else held_out_given(model, log_z, batch)


@torch.no_grad()
def held_out_given(model: Model, log_z: LogPartition, batch: torch.Tensor) -> HeldOut:
    """Return the mean log density of the rows in `batch` (n, d) under this log Z."""
    lift = -(model.energy(batch) / model.temperature).double()
    gain = float(lift.mean()) - log_z.value
    spread = float(lift.var()) / len(lift) if len(lift) > 1 else math.inf
    stderr = math.sqrt(spread + log_z.stderr**2)
    base = 0.0 if model.base is None else float(model.base.log_prob(batch).double().mean())
    trusted = math.isfinite(gain) and log_z.ess >= FEWEST_EFFECTIVE
    value = base + gain - log_z.stderr if trusted else -math.inf
    return HeldOut(value, gain if trusted else -math.inf, stderr, log_z.ess)


def _by_draws(model: Model, buffers: dict[str, torch.Tensor]) -> LogPartition:
    blocks = buffers["reference"].split(BLOCK)
    log_weight = -torch.cat([model.energy(block) for block in blocks]) / model.temperature
    if "reference_log_prob" in buffers:
        log_weight = log_weight - buffers["reference_log_prob"]
    return from_log_weights(log_weight, "importance")
