"""Choose a method by dimension and check the answer."""

from __future__ import annotations

__all__ = ["Auto", "exact_log_partition"]

import math

import torch

from skebm._warn import warn
from skebm.bases import Base
from skebm.bases.kernel import KernelBase
from skebm.energies import Model, as_energy
from skebm.exceptions import NormalizationWarning
from skebm.partition._base import LogPartition, PartitionMethod, widened
from skebm.partition.ais import AIS
from skebm.partition.importance import ImportanceSampling
from skebm.partition.quadrature import Quadrature

ENOUGH_STDERR, ENOUGH_DRAWS = 0.05, 300  # nats; effective: of AIS with its default 1,024 chains
FINE = 0.02  # nats of error: less would take more draws than it is worth
FEWEST_DRAWS, MANY = 50, 2**20  # effective draws that make more draws worth their time


class Auto(PartitionMethod):
    """The exact value where there is one, else quadrature, importance sampling or annealing.

    Without a base and at temperature 1, an `Energy` whose ``exact_log_partition()`` is known (see
    `LinearICA` and `GaussianBernoulliRBM`) is asked first.

    Up to two columns the quadrature is compared with importance sampling, and gives way to it where
    the grid has not settled; a disagreement beyond four standard errors (plus 0.02 nats) warns with
    both values. Above, importance sampling from the base is used where its standard error is at
    most 0.05 nats with an effective sample size of at least 300, which is what annealed importance
    sampling reaches in many times the time. Else 1,048,576 draws are made, and used where they can
    be trusted (see Notes); annealed importance sampling is left for where they cannot. Over a
    kernel base, whose gradient is slow, it has a quarter of the chains and at most 1,000 levels.

    Notes
    -----
    A result that cannot be trusted (error above 0.1 nats, effective sample size below 50, Pareto k
    of the weights above 0.7 and error above 0.03) is returned with a `NormalizationWarning` by the
    estimator.

    Examples
    --------
    >>> from skebm.partition import Auto
    >>> Auto()
    Auto()
    """

    def estimate(self, model: Model, proposal: Base, rng: torch.Generator) -> LogPartition:
        """Estimate log Z; see the class."""
        exact = exact_log_partition(model)
        if exact is not None:
            return exact
        by_draws = ImportanceSampling(tol=FINE).estimate(model, proposal, rng)
        if proposal.n_features <= 2 and proposal.has_gradient:
            by_grid = Quadrature().estimate(model, proposal, rng)
            if by_draws.trusted and by_draws.stderr < by_grid.stderr:
                return by_draws  # the grid has not settled
            return _compared(by_grid, by_draws)
        enough = by_draws.stderr <= ENOUGH_STDERR and by_draws.ess >= ENOUGH_DRAWS
        if enough and by_draws.trusted:
            return by_draws
        if by_draws.ess >= FEWEST_DRAWS:
            earlier, by_draws = (
                by_draws,
                ImportanceSampling(MANY, MANY).estimate(model, proposal, rng),
            )
            by_draws = widened(by_draws, earlier)
            if by_draws.trusted:
                return by_draws
        if not proposal.has_gradient:
            return by_draws
        costly = isinstance(getattr(proposal, "core", proposal), KernelBase)
        annealing = AIS(n_chains=256, max_levels=1000) if costly else AIS()
        annealed = annealing.estimate(model, proposal, rng)
        return _better(annealed, by_draws)


def exact_log_partition(model: Model) -> LogPartition | None:
    """Return log Z where the energy itself knows it: without a base, at temperature 1."""
    if model.base is not None or model.temperature != 1:
        return None
    value = as_energy(model.energy).exact_log_partition()
    return None if value is None else LogPartition(float(value), 0.0, math.inf, "exact")


def _better(annealed: LogPartition, by_draws: LogPartition) -> LogPartition:
    """Return the trusted one, or that of the smaller error, with an error that reaches the other.

    Few effective draws say too little to be better or to doubt what annealing says.
    """
    if by_draws.ess < FEWEST_DRAWS or not math.isfinite(by_draws.value):
        return annealed
    pair = sorted((annealed, by_draws), key=lambda result: (not result.trusted, result.stderr))
    return widened(*pair)


def _compared(by_grid: LogPartition, by_draws: LogPartition) -> LogPartition:
    """Return the quadrature, with a warning and a wider error where draws contradict it."""
    gap = abs(by_grid.value - by_draws.value)
    if not gap > 4 * by_draws.stderr + by_grid.stderr + 0.02:
        return by_grid
    warn(
        f"log Z is {by_grid.value:.3f} by quadrature and {by_draws.value:.3f} +- "
        f"{by_draws.stderr:.3f} by importance sampling (nats). The grid misses mass or "
        "structure; set log_partition='importance' or Quadrature(domain=...).",
        NormalizationWarning,
    )
    return widened(by_grid, by_draws)
