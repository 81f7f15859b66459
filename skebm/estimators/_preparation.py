"""From rows to a table: the transform, the noise that atoms demand, and the split."""

from __future__ import annotations

__all__ = ["choose_transform", "prepare"]

import warnings

import numpy as np
import torch

from skebm.data import Affine, ArrayTable, Transform, find_degeneracy
from skebm.data._degeneracy import listed
from skebm.data.table import MOST_LOOKED_AT, split
from skebm.estimators._run import Run
from skebm.exceptions import DataDegeneracyWarning

MERGED, MOST_COMPARED = 0.1, 10_000  # share of the rows that makes a warning; rows looked at


def choose_transform(
    X: np.ndarray, weight: np.ndarray | None, run: Run, names: list[str]
) -> Transform:
    """Return the per-column map, the identity, or one global map to [-1, 1] for images."""
    if run.before is not None:
        return run.before.transform
    if not run.params.standardize:
        return Affine.identity(X.shape[1])
    if run.params.image_shape is not None:
        return Affine.from_images(X)
    affine = Affine.from_table(X, weight)
    if len(affine.trimmed):
        warnings.warn(_of_far_rows(affine.trimmed, names), DataDegeneracyWarning, stacklevel=4)
    return affine


def _of_far_rows(columns: np.ndarray, names: list[str]) -> str:
    shown = listed(list(columns), names, 1)
    return (
        f"A few rows are so far out that they would set the scale of columns ({shown}). The scale "
        "is that of the others, rows far out are left to the heavy tails of the base. Set codes "
        "for missing values and glitches apart, or take logarithms."
    )


def prepare(
    X: np.ndarray,
    weight: np.ndarray | None,
    transform: Transform,
    run: Run,
    names: list[str],
) -> ArrayTable:
    """Hold rows out, decide on the noise, and return the table."""
    z = transform.forward(X, dtype=torch.float64)
    held_out = split(z.numpy(), run.params.validation_fraction, run.rng)
    noise = np.zeros(X.shape[1])
    if run.params.data_noise == "auto":
        trained = np.delete(np.arange(len(z)), held_out)
        some = trained[:: -(-len(trained) // MOST_LOOKED_AT)]
        degeneracy = find_degeneracy(z.numpy()[some])
        noise = degeneracy.noise
        if noise.any():
            warnings.warn(degeneracy.message(names), DataDegeneracyWarning, stacklevel=5)
    else:
        noise += float(run.params.data_noise)
    lost = _merged(z.numpy()[:: -(-len(z) // MOST_COMPARED)], noise)
    if lost:
        warnings.warn(_of_merged_values(lost, names), DataDegeneracyWarning, stacklevel=4)
    return ArrayTable.of(X, weight, z, noise=noise, held_out=held_out, rng=run.rng)


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
