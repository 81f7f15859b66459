"""From rows to a table: the transform, the noise that atoms demand, and the split."""

from __future__ import annotations

__all__ = ["choose_transform", "prepare"]

import warnings

import numpy as np
import torch

from skebm.data import Affine, ArrayTable, Transform, find_degeneracy
from skebm.data.table import split
from skebm.estimators._run import Run
from skebm.exceptions import DataDegeneracyWarning


def choose_transform(X: np.ndarray, weight: np.ndarray | None, run: Run) -> Transform:
    """Return the per-column map, the identity, or one global map to [-1, 1] for images."""
    if run.before is not None:
        return run.before.transform
    if not run.params.standardize:
        return Affine.identity(X.shape[1])
    if run.params.image_shape is not None:
        return Affine.from_images(X)
    return Affine.from_table(X, weight)


def prepare(
    X: np.ndarray,
    weight: np.ndarray | None,
    transform: Transform,
    run: Run,
    names: list[str],
) -> ArrayTable:
    """Hold rows out, decide on the noise, and return the table."""
    held_out = split(len(X), run.params.validation_fraction, run.rng)
    noise = np.zeros(X.shape[1])
    if run.params.data_noise == "auto":
        rows = np.delete(X, held_out, axis=0)
        degeneracy = find_degeneracy(transform.forward(rows, dtype=torch.float64).numpy())
        noise = degeneracy.noise
        if degeneracy.reasons:
            warnings.warn(degeneracy.message(names), DataDegeneracyWarning, stacklevel=5)
    else:
        noise += float(run.params.data_noise)
    return ArrayTable.of(X, weight, transform, noise=noise, held_out=held_out, rng=run.rng)
