"""Which map takes a table to standardized space."""

from __future__ import annotations

__all__ = ["choose_transform"]

import inspect
import warnings

import numpy as np
import torch

from skebm._warn import warn
from skebm.bases import Kernel, Mixture, TorchDistribution, Uniform
from skebm.bases.tails import fit_defended
from skebm.data import Affine, Marginal, MixedTransform, Transform, find_degeneracy
from skebm.data._degeneracy import listed
from skebm.data.table import FEWEST_FOR_VALIDATION, split
from skebm.estimators._run import Run
from skebm.estimators._shared import resolved
from skebm.exceptions import DataDegeneracyWarning

MOST_ROWS, MOST_LOOKED_AT = 2000, 20_000  # that decide, and in which degeneracy shows
JUDGED = 0.25  # of them, held out
LEAST_GAIN, N_ERRORS = 0.25, 2.0  # nats and standard errors, that bending columns has to gain
N_COMPONENTS = 4  # of the mixture that is fitted on either side, where rows allow
LENGTHS = ("data_noise", "epsilon", "max_noise_std", "noise_std", "step_size")  # where given


def choose_transform(
    X: np.ndarray, weight: np.ndarray | None, run: Run, names: list[str]
) -> Transform:
    """Return the map that `standardize` names; "auto" decides between straight and bent columns."""
    schema = run.schema
    if run.before is not None:
        return run.before.transform
    if schema is not None:
        k, inner = schema.n_numbers, None
        if k:
            inner = _of_numbers(X[:, :k], weight, run, names[:k])
        absent, n_codes = np.array(schema.absent), len(schema.n_levels)
        return MixedTransform(inner, schema.steps, absent, n_codes, schema.atoms)
    return _of_numbers(X, weight, run, names)


def _of_numbers(X: np.ndarray, weight: np.ndarray | None, run: Run, names: list[str]) -> Transform:
    """Return the map of columns of numbers."""
    kind = run.params.standardize
    if not kind:
        return Affine.identity(X.shape[1])
    if run.params.image_shape is not None:
        return Affine.from_images(X)
    affine = Affine.from_table(X, weight)
    if len(affine.trimmed):
        warn(_of_far_rows(affine.trimmed, names), DataDegeneracyWarning)
    if kind in (True, "affine") or (kind == "auto" and not _may_bend(run, len(X))):
        return affine
    straight = _straight(affine, X)
    if kind == "marginal":
        return Marginal.from_table(X, weight, straight)
    if straight.all() or not _gains(X, weight, straight):
        return affine
    return Marginal.from_table(X, weight, straight)


def _may_bend(run: Run, n_rows: int) -> bool:
    """Whether nothing was given in terms of straight columns, and rows can decide."""
    p = run.params
    if p.base is None or p.validation_fraction == 0 or n_rows < FEWEST_FOR_VALIDATION:
        return False
    if getattr(p, "method", "importance") in ("usp", "ps-usp"):
        return False
    base = resolved(p, "base")
    if isinstance(base, Uniform | TorchDistribution):
        return False
    if isinstance(base, Kernel) and base.bandwidth != "auto":
        return False
    usual = inspect.signature(type(p)).parameters
    return all(getattr(p, n) == usual[n].default for n in LENGTHS if n in usual)


def _straight(affine: Affine, X: np.ndarray) -> np.ndarray:
    """Return which columns get noise: that is for straight ones, dependent ones above all."""
    some = X[:: -(-len(X) // MOST_LOOKED_AT)]
    degeneracy = find_degeneracy(affine.forward(some, dtype=torch.float64).numpy())
    return degeneracy.noise > 0


def _gains(X: np.ndarray, weight: np.ndarray | None, straight: np.ndarray) -> bool:
    """Whether a mixture is likelier on held-out rows where columns are bent."""
    if len(X) > MOST_ROWS:
        some = np.random.RandomState(0).permutation(len(X))[:MOST_ROWS]
        X, weight = X[some], None if weight is None else weight[some]
    z = Affine.from_table(X, weight).forward(X, dtype=torch.float64).numpy()
    out = split(z, JUDGED, torch.Generator().manual_seed(0))
    weight = np.ones(len(X)) if weight is None else weight
    rest = np.delete(np.arange(len(X)), out)
    bent = Marginal.from_table(X[rest], weight[rest], straight)
    if bent.is_straight:
        return False
    affine = Affine.from_table(X[rest], weight[rest])
    values = [_log_density(t, X[rest], weight[rest], X[out]) for t in (affine, bent)]
    gain = values[1] - values[0]
    gain = gain.clip(max=np.sort(gain)[-2])  # no single row decides
    share = weight[out] / weight[out].sum()
    mean = share @ gain
    stderr = np.sqrt(share @ (gain - mean) ** 2 * (share @ share))
    return bool(mean > max(LEAST_GAIN, N_ERRORS * stderr))


def _log_density(
    transform: Transform, X: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """Return the log density at held-out rows (m, d) of a mixture fitted to others, nats."""
    rng, share = torch.Generator().manual_seed(0), torch.from_numpy(weight)
    with warnings.catch_warnings():  # the fit itself says it
        warnings.simplefilter("ignore", DataDegeneracyWarning)
        n_components = max(1, min(N_COMPONENTS, len(X) // (X.shape[1] + 1)))
        base = fit_defended(Mixture(n_components), transform.forward(X), share, rng)
    z, log_slope = transform.forward_and_log_slope(out)
    return base.log_prob(z.float()).double().numpy() + log_slope


def _of_far_rows(columns: np.ndarray, names: list[str]) -> str:
    shown = listed(list(columns), names, 1)
    return (
        f"A few rows are so far out that they would set the scale of columns ({shown}). The scale "
        "is that of the others, rows far out are left to the heavy tails of the base. Set codes "
        "for missing values and glitches apart, or take logarithms."
    )
