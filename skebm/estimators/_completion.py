"""Tables with missing values: completions by a mixture that is fitted to them in turn."""

from __future__ import annotations

__all__ = ["Completions", "complete"]

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm.bases import BaseComponent, Mixture
from skebm.bases._conditional import TAIL_DOF, Components, Conditionals
from skebm.bases.mixed import MixedMixture
from skebm.bases.tails import fit_defended
from skebm.data import Affine, Schema
from skebm.exceptions import DataDegeneracyWarning

N_ROUNDS, N_COMPLETIONS = 5, 8
MOST_ROWS, MOST_COMPONENTS = 5000, 10  # that the mixture is fitted to, and that it has


class Completions(NamedTuple):
    """A table whose holes are filled in several times.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        As it was given.
    drawn : ndarray of shape (n, 8, d)
        Completions, units of X; those of a whole row are equal.
    log_q : ndarray of shape (n, 8)
        Log density, given the rest, of what was drawn, nats in the units of X; 0 for a whole row.
    """

    X: np.ndarray
    drawn: np.ndarray
    log_q: np.ndarray


def complete(
    X: np.ndarray, weight: np.ndarray | None, names: list[str], schema: Schema | None = None
) -> Completions:
    """Fill in rows (n, d) by stochastic EM: a mixture of the completed rows draws what is missing.

    Missing at random is the assumption: that a value is missing must not depend on the value.

    Raises
    ------
    ValueError
        If a column has no value at all.
    """
    holes = np.isnan(X)
    empty = np.flatnonzero(holes.all(0))
    if len(empty):
        raise ValueError(
            "X must have values in every column, got none in "
            f"{', '.join(str(names[j]) for j in empty)}. Leave such columns out."
        )
    random, rng = np.random.RandomState(0), torch.Generator().manual_seed(0)
    k = X.shape[1] if schema is None else schema.n_numbers
    affine = _affine(X, weight, k)
    z = affine.forward(np.where(holes, affine.location, X), dtype=torch.float64).numpy()
    for j in np.flatnonzero(holes.any(0)):  # values of other rows
        known = ~holes[:, j]
        share = None if weight is None else weight[known] / weight[known].sum()
        z[~known, j] = random.choice(z[known, j], size=int((~known).sum()), p=share)
    absent = () if schema is None else schema.absent
    unknown = holes.copy()
    for number, code, a in absent:
        unknown[:, number] |= X[:, k + code] < a
    patterns = _patterns(unknown, np.flatnonzero(holes.any(1)))
    size: int | str = "auto"
    for _ in range(N_ROUNDS):
        components = _fitted(z, weight, schema, size, random, rng)
        size = "auto" if schema is None else len(components.means)
        _redraw(z[:, None], components, patterns, rng)
    drawn = np.repeat(z[:, None], N_COMPLETIONS, axis=1)
    log_q = _redraw(drawn, components, patterns, rng)
    drawn_numbers = np.broadcast_to(holes[:, None], drawn.shape).copy()
    for number, code, a in absent:  # what does not exist has no density
        drawn_numbers[:, :, number] &= drawn[:, :, k + code] >= a
    log_q += np.where(drawn_numbers, affine.log_slope(X)[:, None], 0).sum(2)
    flat = affine.inverse(torch.from_numpy(drawn.reshape(-1, X.shape[1])))
    drawn = np.where(holes[:, None], flat.reshape(drawn.shape), X[:, None])
    return Completions(X, drawn, log_q)


def _affine(X: np.ndarray, weight: np.ndarray | None, n_numbers: int) -> Affine:
    """Return shift and scale of each column's values; codes, behind the numbers, stay."""
    parts = []
    for j, column in enumerate(X.T):
        if j >= n_numbers:
            parts.append(Affine.identity(1))
            continue
        known = ~np.isnan(column)
        parts.append(
            Affine.from_table(column[known, None], None if weight is None else weight[known])
        )
    return Affine(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("location", "scale")))


def _patterns(holes: np.ndarray, some: np.ndarray) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Return each pattern of holes, and which of these rows have it."""
    found, at = np.unique(holes[some], axis=0, return_inverse=True)
    order = np.argsort(at.reshape(-1), kind="stable")
    rows = np.split(some[order], np.cumsum(np.bincount(at.reshape(-1)))[:-1])
    return [(torch.from_numpy(hidden), r) for hidden, r in zip(found, rows, strict=True)]


def _fitted(
    z: np.ndarray,
    weight: np.ndarray | None,
    schema: Schema | None,
    size: int | str,
    random: np.random.RandomState,
    rng: torch.Generator,
) -> Components:
    some = random.permutation(len(z))[:MOST_ROWS]
    w = None if weight is None else torch.from_numpy(weight[some])
    with warnings.catch_warnings():  # the fit itself says it
        warnings.simplefilter("ignore", DataDegeneracyWarning)
        component: BaseComponent = Mixture(size, max_components=MOST_COMPONENTS)
        if schema is not None and schema.has_codes:
            component = MixedMixture(component, schema.n_levels, schema.absent)
        return fit_defended(component, torch.from_numpy(z[some]).float(), w, rng).components()


def _redraw(
    z: np.ndarray, components: Components, patterns: Any, rng: torch.Generator
) -> np.ndarray:
    """Draw what is missing anew in completions (n, s, d), in place; return its log density."""
    log_q = np.zeros(z.shape[:2])
    for hidden, rows in patterns:
        given, n, s = torch.from_numpy(z[rows, 0])[:, ~hidden], len(rows), z.shape[1]
        conditionals = Conditionals(components, hidden)
        u = torch.rand(n, s, generator=rng, dtype=torch.float64)
        noise = torch.empty(n, s, int(hidden.sum()), 1 + TAIL_DOF, dtype=torch.float64)
        noise.normal_(generator=rng)
        drawn = conditionals.draw(given, u, noise[..., 0], noise[..., 1:].square().sum(3))
        block = z[rows]
        block[:, :, hidden.numpy()] = drawn.numpy()
        z[rows] = block
        if s > 1:
            whole = components.log_prob(torch.from_numpy(block.reshape(n * s, -1))).view(n, s)
            log_q[rows] = (whole - conditionals.log_prob(given)[:, None]).numpy()
    return log_q
