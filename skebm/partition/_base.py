"""What an estimate of log Z is, and the contract of the methods."""

from __future__ import annotations

__all__ = ["LogPartition", "PartitionMethod", "from_log_weights", "widened"]

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm._components import Component
from skebm.bases import Base
from skebm.energies import Model

HEAVIEST = 0.7  # Pareto k above which no error bar of a mean weight can be believed
CAUTION = 0.5  # standard errors of k that are added to it, for errors are not symmetric
HARMLESS = 0.03  # nats: an error, the fitted tail in it, below which a tail has too little mass
STEEPEST = 0.95  # k that the tail's mean is computed with at most: it is infinite at 1
FEWEST_TAILED = 25  # weights from which on a tail can be fitted
EVEN = 1e-6  # relative spread of a tail that is no more than rounding
N_BLOCKS = 32  # of draws, whose halves are compared
UNEVEN = 1.5  # times the delta method's error, which the halves' is known to an eighth of


class _Estimate(NamedTuple):
    value: float
    stderr: float
    ess: float
    method: str


class LogPartition(_Estimate):
    """Estimate of log Z in standardized space: four numbers as a tuple, and the weights' tail.

    Parameters
    ----------
    value : float
        log Z, nats.
    stderr : float
        Standard error, nats, with what the tail of importance weights may hide; for quadrature a
        bound on the discretization error.
    ess : float
        Effective number of independent draws behind it; infinite for quadrature.
    method : str
        ``"quadrature"``, ``"importance"``, ``"ais"``, ``"reverse-ais"``, or ``"exact"`` where the
        energy is 0 or knows its own log Z.
    pareto_k : float, default=-inf
        Shape of the generalized Pareto density of the largest weights (dimensionless): their
        variance is infinite from 0.5 on, their mean from 1 on. Above 0.7 the error bar itself is
        not to be trusted, unless it is at most 0.03. Minus infinity where weights have no tail, nan
        for fewer than 25.

    Examples
    --------
    >>> from skebm.partition import LogPartition
    >>> LogPartition(1.84, 0.01, 5000.0, "importance").value
    1.84
    """

    pareto_k: float

    def __new__(
        cls, value: float, stderr: float, ess: float, method: str, pareto_k: float = -math.inf
    ) -> LogPartition:
        """Make the tuple of four, and keep k beside it."""
        self = super().__new__(cls, value, stderr, ess, method)
        self.pareto_k = pareto_k
        return self

    def _replace(self, **changes: Any) -> LogPartition:
        k = changes.pop("pareto_k", self.pareto_k)
        return LogPartition(**(self._asdict() | changes), pareto_k=k)

    @property
    def trusted(self) -> bool:
        """Whether the error bar itself can be believed and is at most 0.1 nats."""
        vague = not (math.isfinite(self.value) and self.stderr <= 0.1 and self.ess >= 50)
        return not vague and (self.pareto_k <= HEAVIEST or self.stderr <= HARMLESS)

    def doubts(self) -> str | None:
        """Return what to say where the estimate is not trusted, else None."""
        if self.trusted:
            return None
        tail = ""
        if not self.pareto_k <= HEAVIEST:
            tail = f", Pareto k of the weights {self.pareto_k:.2f} where it must be at most 0.7"
        return (
            f"log Z is {self.value:.3f} with a standard error of {self.stderr:.2g} nats "
            f"(effective sample size {self.ess:.0f}{tail}, by {self.method}), which is too vague "
            "to compare models. Use a base nearer to the data, or AIS with more chains."
        )


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
    """Return log of the mean weight with its error; independent weights only.

    The error is the delta method's, or that of repeated halves where they say much more, and beside
    it what a Pareto tail fitted to the largest weights holds beyond the largest one.
    """
    log_w = log_weights.detach().double().cpu().numpy()
    n, shift = len(log_w), log_w.max()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        w = np.exp(log_w - shift)
        mean, squares = w.mean(), np.square(w).sum()
        ess = float(w.sum() ** 2 / squares)
        spread = float(w.std(ddof=1) / mean) / math.sqrt(n) if n > 1 else math.inf
        halves, (k, hidden) = _halves(w), _tail(log_w, w)
        stderr = math.hypot(halves if halves > UNEVEN * spread else spread, hidden / mean)
        return LogPartition(float(np.log(mean) + shift), stderr, ess, method, k)


def widened(result: LogPartition, other: LogPartition) -> LogPartition:
    """Return a result whose error bar reaches another one, independent of it, within its own.

    Where they differ by more than twice the other's error, one of the two error bars is wrong.
    """
    beyond = abs(result.value - other.value) - 2 * other.stderr
    return result._replace(stderr=max(result.stderr, beyond / 2)) if beyond > 0 else result


def _halves(w: np.ndarray) -> float:
    """Return the error by balanced halves of the weights (n,), nats: half their log ratio.

    It is the delta method's where no weight stands out, and more where one half owes all to a few.
    """
    from scipy.linalg import hadamard

    if len(w) < 2 * N_BLOCKS:
        return 0.0
    blocks = w[: len(w) // N_BLOCKS * N_BLOCKS].reshape(N_BLOCKS, -1).sum(1)
    signs = hadamard(N_BLOCKS)[1:]
    ratios = np.log((signs > 0) @ blocks) - np.log((signs < 0) @ blocks)
    return 0.5 * float(np.sqrt(np.mean(np.square(ratios))))


def _tail(log_w: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Return Pareto k of weights (n,), and what the tail may add to their mean.

    The fitted tail's expectation beyond the level that one weight in n exceeds, with k a little
    higher than fitted, and what smoothing the largest weights changes.
    """
    n = len(w)
    if n < FEWEST_TAILED or np.isnan(w).any():
        return math.nan, 0.0
    m = n // 5 if n <= 225 else int(3 * math.sqrt(n))  # as many as psislw smooths
    top = np.partition(w, n - m - 1)[n - m - 1 :]
    cutoff, excess = top[0], float((top[1:] - top[0]).mean())
    if excess <= EVEN * w.mean() or np.ptp(top[1:]) <= EVEN * top.max():
        return -math.inf, 0.0  # even weights, or an end that the largest have reached
    smoothed, k = _smoothed(log_w)
    if not math.isfinite(k):
        return math.inf, math.inf
    shape = min(max(k + CAUTION * (1 + k) / math.sqrt(m), 1e-3), STEEPEST)
    scale = excess * (1 - shape)
    level = max(top.max(), cutoff + scale * (m**shape - 1) / shape)
    beyond = (level + (scale + shape * (level - cutoff)) / (1 - shape)) / n
    moved = smoothed - w.mean()
    return k, math.hypot(beyond, moved) if math.isfinite(moved) else beyond


def _smoothed(log_w: np.ndarray) -> tuple[float, float]:
    """Return the mean of the Pareto-smoothed weights, in units of the largest, and k."""
    from arviz_stats.base.array import array_stats

    smoothed, k = array_stats.psislw(-log_w)  # which takes minus the log weights
    body = int(np.argmin(np.where(np.isfinite(log_w), log_w, np.inf)))  # the same but for log sum
    log_sum = log_w[body] - log_w.max() - smoothed[body]
    return float(np.exp(log_sum)) / len(log_w), float(k)
