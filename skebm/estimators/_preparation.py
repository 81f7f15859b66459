"""From rows to a table: the noise that atoms demand, and the split."""

from __future__ import annotations

__all__ = ["prepare"]

from typing import Any

import numpy as np
import torch

from skebm._ranks import same
from skebm._warn import warn
from skebm.data import ArrayTable, MixedTransform, Transform, find_degeneracy
from skebm.data._degeneracy import listed
from skebm.data.streamed import Stream, StreamedTable
from skebm.data.table import MOST_LOOKED_AT, CompletedTable, split
from skebm.estimators._completion import Completions
from skebm.estimators._run import Run
from skebm.exceptions import DataDegeneracyWarning

MERGED, MOST_COMPARED = 0.1, 10_000  # share of the rows that makes a warning; rows looked at


def prepare(
    X: np.ndarray,
    weight: np.ndarray | None,
    transform: Transform,
    run: Run,
    names: list[str],
    completions: Completions | None = None,
    centers: np.ndarray | None = None,
    stream: Stream | None = None,
) -> ArrayTable:
    """Hold rows out, decide on the noise, and return the table.

    `centers` are the rows before their values were spread over the cells of lattices; a `stream` is
    what they are a sample of.
    """
    z = transform.forward(X, dtype=torch.float64)
    numbers = z.numpy()
    if isinstance(transform, MixedTransform):  # those that do not exist are no repeated values
        k, inner = transform.n_numbers, transform.inner
        numbers = (
            X[:, :0] if inner is None else inner.forward(X[:, :k], dtype=torch.float64).numpy()
        )
    k = numbers.shape[1]
    held_out = split(z.numpy(), run.params.validation_fraction, run.rng)
    noise = np.zeros(X.shape[1])
    if run.params.data_noise == "auto":
        trained = np.delete(np.arange(len(z)), held_out)
        some = trained[:: -(-len(trained) // MOST_LOOKED_AT)]
        degeneracy = find_degeneracy(numbers[some]) if k else None
        if degeneracy is not None:
            noise[:k] = degeneracy.noise
        if degeneracy is not None and noise.any():
            warn(degeneracy.message(names), DataDegeneracyWarning)
    else:
        noise[:k] += float(run.params.data_noise)
    held_out, noise = same((held_out, noise))
    lost = _merged(numbers[:: -(-len(z) // MOST_COMPARED)], noise[:k])
    if lost:
        warn(_of_merged_values(lost, names), DataDegeneracyWarning)
    shown = X if centers is None else centers
    split_up: dict[str, Any] = {"noise": noise, "held_out": held_out, "rng": run.rng}
    if stream is not None:
        return StreamedTable.of(X, weight, z, **split_up).follow(stream, transform)
    if completions is None:
        return ArrayTable.of(shown, weight, z, **split_up)
    table = CompletedTable.of(X, weight, z, **split_up)
    rows = table.originals().trained
    flat = completions.drawn[rows].reshape(-1, X.shape[1])
    drawn, log_slope = transform.forward_and_log_slope(flat)
    shape = completions.drawn[rows].shape
    log_q = completions.log_q[rows] - np.broadcast_to(log_slope, len(flat)).reshape(shape[:2])
    given = completions.X if centers is None else centers
    return table.complete(drawn.view(shape), torch.from_numpy(log_q), given)


def _merged(z: np.ndarray, noise: np.ndarray) -> list[int]:
    """Return the columns of which single precision makes many different values one."""
    k = int(MERGED * len(z)) + 1
    singles = {j: np.unique(z[:, j]).astype(np.float32) for j in np.flatnonzero(noise == 0)}
    return [int(j) for j, values in singles.items() if (values[k:] == values[:-k]).any()]


def _of_merged_values(columns: list[int], names: list[str]) -> str:
    shown = listed(columns, names, 1)
    return (
        f"Many values are closer than single precision tells apart, 1e-7 standard deviations "
        f"({shown}). What is that narrow is blurred. Take logarithms or ranks, or split the groups."
    )
