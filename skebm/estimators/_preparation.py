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
    return ArrayTable.of(X, weight, z, noise=noise, held_out=held_out, rng=run.rng)
