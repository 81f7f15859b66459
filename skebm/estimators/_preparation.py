"""From a table to what training needs: split, standardize, add noise where atoms demand it."""

from __future__ import annotations

__all__ = ["Prepared", "prepare"]

import warnings
from typing import NamedTuple

import numpy as np
import torch

from skebm.bases.mixture import repeat_by_weight
from skebm.data import Standardizer, find_degeneracy
from skebm.exceptions import DataDegeneracyWarning

FEWEST_FOR_VALIDATION = 20  # rows below which nothing is held out


class Prepared(NamedTuple):
    """Training and validation rows in standardized space."""

    standardizer: Standardizer
    noise: np.ndarray  # (d,), standardized units
    x: torch.Tensor
    weight: torch.Tensor | None
    validation: torch.Tensor | None  # with its share of the noise, as the model will see rows
    clean_validation: torch.Tensor | None  # the same rows without noise
    held_out: np.ndarray  # row numbers of X behind `validation`; heavy rows repeat

    def noised(self, rng: torch.Generator) -> torch.Tensor:
        """Return the training rows with one draw of the noise added."""
        return _add_noise(self.x, self.noise, rng)


def prepare(
    X: np.ndarray,
    weight: np.ndarray | None,
    *,
    standardizer: Standardizer,
    data_noise: float | str,
    validation_fraction: float,
    names: list[str],
    rng: torch.Generator,
) -> Prepared:
    """Split, standardize and decide on the noise."""
    rows, held_out = _split(len(X), validation_fraction, rng)
    if weight is not None and len(held_out):  # judge in proportion to the weights
        index, share = torch.from_numpy(held_out), torch.from_numpy(weight[held_out])
        index, share = index.to(rng.device), share.to(rng.device)
        held_out = repeat_by_weight(index, share, rng).cpu().numpy()
    x = standardizer.transform(X, rng.device)
    noise = np.zeros(X.shape[1])
    if data_noise == "auto":
        degeneracy = find_degeneracy(((X - standardizer.location) / standardizer.scale)[rows])
        noise = degeneracy.noise
        if degeneracy.reasons:
            warnings.warn(degeneracy.message(names), DataDegeneracyWarning, stacklevel=5)
    else:
        noise += float(data_noise)
    clean = x[held_out] if len(held_out) else None
    validation = None if clean is None else _add_noise(clean, noise, rng)
    w = None if weight is None else torch.from_numpy(weight[rows]).to(rng.device)
    return Prepared(standardizer, noise, x[rows], w, validation, clean, held_out)


def choose_standardizer(
    X: np.ndarray, weight: np.ndarray | None, standardize: bool, image: bool
) -> Standardizer:
    """Return the per-column map, the identity, or one global map to [-1, 1] for images."""
    d = X.shape[1]
    if not standardize:
        return Standardizer.identity(d)
    if image:
        low, high = float(X.min()), float(X.max())
        half = (high - low) / 2 if high > low else 1.0
        return Standardizer(np.full(d, (high + low) / 2), np.full(d, half))
    return Standardizer.from_table(X, weight)


def _split(n: int, fraction: float, rng: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    if fraction == 0 or n < FEWEST_FOR_VALIDATION:
        return np.arange(n), np.arange(0)
    order = torch.randperm(n, generator=rng, device=rng.device).cpu().numpy()
    m = min(max(int(np.ceil(fraction * n)), 2), n - 2)
    return np.sort(order[m:]), np.sort(order[:m])


def _add_noise(x: torch.Tensor, noise: np.ndarray, rng: torch.Generator) -> torch.Tensor:
    if not noise.any():
        return x
    scale = torch.from_numpy(noise).to(x)
    return x + scale * torch.empty_like(x).normal_(generator=rng)
