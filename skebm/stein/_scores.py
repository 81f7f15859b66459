"""One way to read the score of a model, whatever the model is."""

from __future__ import annotations

__all__ = [
    "Rows",
    "check_continuous",
    "evaluate_score",
    "read_table",
    "shown",
    "shuffled",
    "standardized",
]

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from skebm._components import check_choice
from skebm._tables import naming_columns
from skebm._warn import warn
from skebm.data import Affine, find_degeneracy
from skebm.data._degeneracy import listed
from skebm.exceptions import DataDegeneracyWarning
from skebm.stein._gradients import gradient_of, shown

LARGEST = 1e15  # standardized units; its square is still a float32


class Rows(NamedTuple):
    """Rows and the score at them, both in standardized units, float64.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Standardized rows.
    score : ndarray of shape (n, d)
        Gradient of the log density, nats per standardized unit.
    standardizer : Affine
        The map from the units of X.
    """

    x: np.ndarray
    score: np.ndarray
    standardizer: Affine


def read_table(score: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what `evaluate_score` does; warn of rows with atoms."""
    rows, values = evaluate_score(score, X)
    check_continuous(X, rows)
    return rows, values


def evaluate_score(score: Any, X: Any, name: str = "score") -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the model's score at them, (n, d) each, in the units of X.

    Parameters
    ----------
    score : callable or fitted density
        See `goodness_of_fit_test`.
    X : array-like of shape (n, d)
        Rows, at least 4. The model sees a copy of them.
    name : str, default="score"
        What messages call the model.

    Returns
    -------
    X : ndarray of shape (n, d)
        The rows in float64.
    score : ndarray of shape (n, d)
        Gradient of the log density, nats per unit of X.

    Raises
    ------
    TypeError
        If `score` is of no known kind or not real, or X is a model.
    ValueError
        If X is unfit, or the score has another shape than X or is not finite.
    """
    if not hasattr(X, "__array__") and (
        callable(X) or hasattr(X, "fit") or hasattr(X, "log_density")
    ):
        raise TypeError(
            f"X must be a table of rows (n, d), got {shown(X)}. Give the model first, then the "
            "rows."
        )
    with naming_columns(X):
        rows = check_array(X, dtype=np.float64, ensure_min_samples=4, input_name="X")
    function, takes_frames = gradient_of(score, name)
    found = function(deepcopy(X) if takes_frames else rows.copy())
    if np.iscomplexobj(found):
        raise TypeError(
            f"{name} must return real numbers, got {np.asarray(found).dtype}. Return the gradient "
            "of the log density, computed without complex numbers."
        )
    values = np.array(found, dtype=np.float64)
    if values.shape != rows.shape:
        raise ValueError(
            f"{name} must return shape {rows.shape}, got {values.shape}. Return the gradient of "
            "the log density, a row for each row of X."
        )
    n_bad = np.count_nonzero(~np.isfinite(values))
    if n_bad:
        raise ValueError(
            f"{name} must be finite, got {n_bad} of {values.size} values that are NaN or infinite. "
            "Leave out rows outside the support of the model."
        )
    return rows, values


def check_continuous(X: Any, rows: np.ndarray) -> None:
    """Raise if all rows are equal; warn if they cannot come from a continuous density.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Rows as given, which may name the columns.
    rows : ndarray of shape (n, d)
        The same in float64.

    Raises
    ------
    ValueError
        If all rows are equal.

    Warns
    -----
    DataDegeneracyWarning
        If columns are constant, have few values or depend on others, or rows are copies.
    """
    if not np.ptp(rows, axis=0).any():
        raise ValueError(
            f"X must have rows that differ, got {len(rows)} equal ones. Leave out copies of rows."
        )
    standardizer = Affine.from_table(rows)
    reasons = find_degeneracy(standardizer.forward(rows, dtype=torch.float64).numpy()).reasons
    if not reasons:
        return
    known = getattr(X, "columns", [f"column {j}" for j in range(rows.shape[1])])
    names = [str(name) for name in known]
    parts = [f"{why} ({listed(columns, names, len(reasons))})" for why, columns in reasons]
    warn(
        f"X must come from a continuous density, got {'; '.join(parts)}. Any continuous model is "
        "far from such rows, the right one too. Leave out these columns or copies.",
        DataDegeneracyWarning,
    )


def shuffled(
    table: tuple[np.ndarray, np.ndarray], rng: torch.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and scores in random order, for those next to each other may be alike.

    Without a generator the order depends on the number of rows alone.
    """
    n = len(table[0])
    if rng is None:
        order = np.random.RandomState(0).permutation(n)
    else:
        order = torch.randperm(n, generator=rng, device=rng.device).cpu().numpy()
    return table[0][order], table[1][order]


def standardized(
    X: np.ndarray,
    score: np.ndarray,
    standardize: bool,
    reference: np.ndarray | None = None,
    name: str = "score",
) -> Rows:
    """Divide rows by the standard deviations of `reference` (all rows), multiply the scores."""
    check_choice("standardize", standardize, (False, True))
    if standardize:
        standardizer = Affine.from_table(X if reference is None else X[reference])
    else:
        standardizer = Affine.identity(X.shape[1])
    z, values = (X - standardizer.location) / standardizer.scale, score * standardizer.scale
    largest = max(np.abs(values).max(), np.abs(z).max())
    if largest > LARGEST:
        raise ValueError(
            f"{name} and X must be at most {LARGEST:g} in standardized units, got {largest:.3g}. "
            "Leave out rows so far from the rest or from the model."
        )
    return Rows(z, values, standardizer)
