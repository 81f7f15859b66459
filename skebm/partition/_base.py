"""What an estimate of log Z is, and the contract of the methods."""

from __future__ import annotations

__all__ = ["LogPartition", "PartitionMethod", "from_log_weights"]

import math
from abc import abstractmethod
from typing import NamedTuple

import torch

from skebm._components import Component
from skebm.bases import Base
from skebm.energies import Model


class LogPartition(NamedTuple):
    """Estimate of log Z in standardized space.

    Parameters
    ----------
    value : float
        log Z, nats.
    stderr : float
        Standard error, nats; for quadrature a bound on the discretization error.
    ess : float
        Effective number of independent draws behind it; infinite for quadrature.
    method : str
        ``"quadrature"``, ``"importance"``, ``"ais"``, ``"reverse-ais"``, or ``"exact"`` where the
        energy is 0 or knows its own log Z.

    Examples
    --------
    >>> from skebm.partition import LogPartition
    >>> LogPartition(1.84, 0.01, 5000.0, "importance").value
    1.84
    """

    value: float
    stderr: float
    ess: float
    method: str

    @property
    def trusted(self) -> bool:
        """Whether the error bar itself can be believed and is below 0.1 nats."""
        return math.isfinite(self.value) and self.stderr <= 0.1 and self.ess >= 50


class PartitionMethod(Component):
    """Parameters of a way to estimate log Z."""

    @abstractmethod
    def estimate(self, model: Model, proposal: Base, rng: torch.Generator) -> LogPartition:
        """Estimate log of the integral of exp(-U) with a normalized proposal density."""


def log_ratio(model: Model, proposal: Base, x: torch.Tensor) -> torch.Tensor:
    """Return -U(x) - log q(x), shape (n,): the log importance weight of draws from q."""
    if model.base is proposal:  # log p0 cancels, exactly
        with torch.no_grad():
            return -model.energy(x) / model.temperature
    return -model.potential(x) - proposal.log_prob(x)


def from_log_weights(log_weights: torch.Tensor, method: str) -> LogPartition:
    """Return log of the mean weight with its delta-method error; independent weights only."""
    w = log_weights.double()
    n = len(w)
    shift = w.max()
    scaled = (w - shift).exp()
    mean = scaled.mean()
    ess = float(scaled.sum().square() / scaled.square().sum())
    stderr = float(scaled.std() / mean) / math.sqrt(n) if n > 1 else math.inf
    return LogPartition(float(mean.log() + shift), stderr, ess, method)
