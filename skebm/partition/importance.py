"""Importance sampling from the base."""

from __future__ import annotations

__all__ = ["ImportanceSampling"]

import torch

from skebm._components import check_number
from skebm.bases import Base
from skebm.energies import Model
from skebm.partition._base import (
    LogPartition,
    PartitionMethod,
    from_log_weights,
    log_ratio,
    widened,
)

BLOCK = 16384


class ImportanceSampling(PartitionMethod):
    r"""Estimate :math:`\log Z = \log E_q[e^{-U(x)} / q(x)]` with draws from the proposal q.

    Parameters
    ----------
    n_samples : int, default=16384
        First number of draws.
    max_samples : int, default=262144
        Draws are doubled up to this number until the standard error is at most `tol`.
    tol : float, default=0.01
        Standard error to reach, nats.

    Raises
    ------
    ValueError, TypeError
        From ``estimate``, on a bad parameter.

    Notes
    -----
    Cost: one energy evaluation and one proposal draw per sample. Unreliable where the proposal
    misses a part of the model: then the effective sample size is low, or nobody can tell: a mode
    that no draw has met is in no weight, whatever the effective sample size says. The standard
    error holds what the tail of the weights may hide, by Pareto smoothing [2]_, and how far
    repeated halves of the draws, and earlier ones, are apart. Doubling starts afresh, so draws that
    stopped the search are not selected for being lucky.

    References
    ----------
    .. [1] A. Owen, "Monte Carlo theory, methods and examples", 2013. Section 9.1.
    .. [2] A. Vehtari, D. Simpson, A. Gelman, Y. Yao and J. Gabry, "Pareto Smoothed Importance
       Sampling", Journal of Machine Learning Research 25, 2024. Section 3.

    Examples
    --------
    >>> from skebm.partition import ImportanceSampling
    >>> ImportanceSampling(tol=0.005)
    ImportanceSampling(tol=0.005)
    """

    def __init__(
        self, n_samples: int = 16384, max_samples: int = 262144, tol: float = 0.01
    ) -> None:
        self.n_samples = n_samples
        self.max_samples = max_samples
        self.tol = tol

    def estimate(self, model: Model, proposal: Base, rng: torch.Generator) -> LogPartition:
        """Estimate log Z; see the class."""
        check_number("n_samples", self.n_samples, low=2, integer=True)
        check_number("max_samples", self.max_samples, low=2, integer=True)
        check_number("tol", self.tol, low=0, open_low=True)
        n, earlier = self.n_samples, None
        while True:
            result = from_log_weights(_log_weights(model, proposal, n, rng), "importance")
            result = result if earlier is None else widened(result, earlier)
            if result.stderr <= self.tol or 2 * n > self.max_samples:
                return result
            factor = min((result.stderr / self.tol) ** 2 * 1.2, self.max_samples / n)
            n, earlier = int(n * max(2.0, factor)), result


def _log_weights(model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
    sizes = [BLOCK] * (n // BLOCK) + [n % BLOCK] * (n % BLOCK > 0)
    return torch.cat([log_ratio(model, proposal, proposal.sample(m, rng)) for m in sizes])
