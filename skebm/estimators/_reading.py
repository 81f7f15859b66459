"""Evaluate a fitted model in padded blocks, and draw from it."""

from __future__ import annotations

__all__ = ["draw_samples", "evaluate", "finite", "settle"]

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skebm.energies import Model, Zero
from skebm.exceptions import NormalizationWarning
from skebm.partition._base import log_ratio
from skebm.samplers import MALA, run

BLOCK = {"cpu": 4096}  # rows; every block is padded to it, so a row's bits never depend on others
DEVICE_BLOCK = 65536
LARGEST = 1e300  # nats; stands for what float arithmetic calls infinite
CANDIDATES_PER_SAMPLE = 8
FEWEST_CANDIDATES, MOST_CANDIDATES = 8192, 1 << 20
N_WARMUP, N_MOVES = 60, 60


def evaluate(
    estimator: Any,
    X: np.ndarray,
    function: Callable[[torch.Tensor], torch.Tensor],
    row_shape: tuple[int, ...] = (),
) -> np.ndarray:
    """Apply a function of standardized float32 rows block by block; (n, *row_shape) in float64.

    Memory beyond the result is that of one block, whatever the number of rows.
    """
    size = BLOCK.get(estimator.device_.type, DEVICE_BLOCK)
    out = np.empty((len(X), *row_shape))
    for start in range(0, len(X), size):
        z = estimator._standardizer.transform(X[start : start + size], estimator.device_)
        m = len(z)
        if m < size:
            z = torch.cat([z, z.new_zeros(size - m, z.shape[1])])
        with torch.no_grad():
            out[start : start + m] = function(z)[:m].cpu().numpy()
    return out


def finite(values: np.ndarray) -> np.ndarray:
    """Replace what overflowed: -inf and nan become -1e300, +inf becomes 1e300."""
    return np.nan_to_num(values, nan=-LARGEST, posinf=LARGEST, neginf=-LARGEST)


def draw_samples(
    estimator: Any, n: int, rng: torch.Generator
) -> tuple[torch.Tensor, tuple[float, int, float]]:
    """Resample base draws by their weights, then move them; return rows and how it went."""
    model, proposal = estimator._model(), estimator._proposal
    if isinstance(model.energy, Zero) and model.base is not None:
        return proposal.sample(n, rng), (float(n), n, 1.0)
    m = min(max(CANDIDATES_PER_SAMPLE * n, FEWEST_CANDIDATES), max(MOST_CANDIDATES, n))
    candidates = proposal.sample(m, rng)
    weight = torch.cat([log_ratio(model, proposal, b) for b in candidates.split(65536)])
    weight = weight.double().softmax(0)
    ess = float(1 / weight.square().sum())
    if ess < min(n, 0.01 * m):
        warnings.warn(
            f"sample chose {n} rows among {m} base draws worth {ess:.0f}: many rows start as "
            "copies. Use a base nearer to the data.",
            NormalizationWarning,
            stacklevel=3,
        )
    rows = torch.searchsorted(weight.cumsum(0), _systematic(n, rng)).clamp_(max=m - 1)
    rows = rows[torch.randperm(n, generator=rng, device=rows.device)]
    ends, acceptance = _move(model, candidates[rows], rng)
    return ends, (ess, m, acceptance)


def settle(model: Model, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return the ends of chains toward the model from rows x (n, d); lost ones stay there."""
    ends, _ = _move(model, x, rng)
    sound = ends.isfinite().all(1, keepdim=True)
    return torch.where(sound, ends, x)


def _move(model: Model, x: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, float]:
    """Move chains by Metropolis-adjusted steps whose size is found first; acceptance too."""
    state, _ = run(MALA(0.05, n_warmup=N_WARMUP), model, x, N_WARMUP, rng)
    frozen = MALA(float(state.log_step.exp()))
    state, info = run(frozen, model, state.x, N_MOVES, rng)
    return state.x, float(info.acceptance)


def _systematic(n: int, rng: torch.Generator) -> torch.Tensor:
    u = torch.rand(1, generator=rng, device=rng.device, dtype=torch.float64)
    return (torch.arange(n, device=rng.device) + u) / n
