"""Atoms, copies and dependent columns: where a continuous likelihood has no maximum."""

from __future__ import annotations

__all__ = ["Degeneracy", "find_degeneracy", "has_atoms"]

from typing import NamedTuple

import numpy as np

from skebm.data._copies import copy_groups
from skebm.data._spread import spacing

LETTERS, LONG, SHORT = 60, 50, 12  # of all names and of one in messages of three lines
LARGEST_ATOM = 0.05  # share of rows with one value above which a column counts as having an atom
FEWEST_DISTINCT = 0.05  # or share of distinct values below this
NARROW, WIDE = 0.05, 0.2  # bounds on the noise for atoms, standardized units
GAP = 0.3  # noise, of the distance between neighbors
COPIES = 0.03  # most of it for copied rows, and for dependent columns, standardized units


class Degeneracy(NamedTuple):
    """Noise that makes a table fit for a continuous density.

    Parameters
    ----------
    noise : ndarray of shape (d,)
        Standard deviation per column, standardized units; 0 where the column is sound.
    reasons : list of (str, list of int)
        What was found, and in which columns.
    """

    noise: np.ndarray
    reasons: list[tuple[str, list[int]]]

    def message(self, names: list[str]) -> str:
        """Say in one sentence what was found and what was added."""
        reasons = [(why, columns) for why, columns in self.reasons if self.noise[columns].any()]
        found = "; ".join(f"{why} ({self._about(c, names, len(reasons))})" for why, c in reasons)
        return (
            f"The table has {found}: the likelihood has no bound there. Training adds that noise "
            "(standardized units); data_noise=0 turns it off."
        )

    def _about(self, columns: list[int], names: list[str], n_reasons: int) -> str:
        low, high = self.noise[columns].min(), self.noise[columns].max()
        width = f"{low:.2g}" if low == high or n_reasons > 2 else f"{low:.3g} to {high:.3g}"
        return f"{listed(columns, names, n_reasons)}; noise {width}"


def listed(columns: list[int], names: list[str], n_reasons: int) -> str:
    """Return how many columns there are and the first names; fewer where more is to be said."""
    shown: list[str] = []
    room = LETTERS // n_reasons
    for name in (str(names[j]) for j in columns):
        if shown and len(", ".join([*shown, name])) > room:
            break
        half = max(LONG // n_reasons, SHORT) // 2
        shown.append(name if len(name) <= 2 * half else f"{name[:half]}...{name[-half:]}")
    more = ", ..." if len(shown) < len(columns) else ""
    return f"{len(columns)}: {', '.join(shown)}{more}"


def find_degeneracy(z: np.ndarray) -> Degeneracy:
    """Look for constant, few-valued and dependent columns and for copied rows.

    Parameters
    ----------
    z : ndarray of shape (n, d)
        Standardized rows.

    Returns
    -------
    Degeneracy
        Noise per column and the findings. Columns with atoms get 0.3 of their smallest gap between
        values, kept between 0.05 and 0.2; linearly dependent columns get 0.03. Rows that are copies
        in these columns alone get 0.3 of the distance of neighbors, at most 0.03; copies of whole
        rows count as weights and get none.

    Notes
    -----
    Cost: a sort per column, one sort of whole rows, one eigendecomposition (d, d).

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import find_degeneracy
    >>> z = np.random.RandomState(0).randn(200, 2)
    >>> z[:, 1] = np.sign(z[:, 1])
    >>> find_degeneracy(z).noise
    array([0. , 0.2])
    """
    noise, reasons = np.zeros(z.shape[1]), []
    constant = np.ptp(z, axis=0) == 0
    if constant.any():
        noise[constant] = WIDE
        reasons.append(("constant columns", np.flatnonzero(constant).tolist()))
    atoms = [j for j in np.flatnonzero(~constant) if has_atoms(z[:, j])]
    if atoms:
        gaps = np.array([np.diff(np.unique(z[:, j])).min() for j in atoms])
        noise[atoms] = np.clip(GAP * gaps, NARROW, WIDE)
        reasons.append(("columns with repeated values", [int(j) for j in atoms]))
    sound = np.flatnonzero(noise == 0)
    if len(sound) and copy_groups(z, sound) is not None:
        reasons.append(("copied rows", [int(j) for j in sound]))
        distinct = np.unique(z, axis=0)
        if copy_groups(distinct, sound) is not None:  # not whole rows, which are weights
            noise[sound] = min(COPIES, GAP * spacing(distinct[:, sound]))
    dependent = _dependent_columns(z, noise)
    if dependent:
        noise[dependent] = COPIES
        reasons.append(("linearly dependent columns", dependent))
    return Degeneracy(noise, reasons)


def has_atoms(column: np.ndarray) -> bool:
    """Whether a column (n,) repeats one value often, or has few values."""
    counts = np.unique(column, return_counts=True)[1]
    repeated = counts.max() >= max(LARGEST_ATOM * len(column), 3)  # two equal of ten is chance
    return bool(repeated or (len(column) >= 100 and len(counts) < FEWEST_DISTINCT * len(column)))


def _dependent_columns(z: np.ndarray, noise: np.ndarray) -> list[int]:
    """Columns without noise that take part in a linear relation held to 1e-5 of their spread."""
    n, d = z.shape
    if d == 1 or n <= d:  # too few rows to tell; the bases shrink their covariances
        return []
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False) + np.diag(noise**2))
    null = vectors[:, values < 1e-10]
    loads = (null**2).sum(axis=1) > 1e-3
    return [int(j) for j in np.flatnonzero(loads & (noise == 0))]
