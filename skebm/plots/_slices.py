"""Log density on grids over one or two columns, the others held at a row."""

from __future__ import annotations

__all__ = [
    "check_density",
    "choose_columns",
    "column_names",
    "draw_contours",
    "finite_maximum",
    "grid_axis",
    "slice_log_density",
]

from typing import Any

import numpy as np

from skebm._components import check_number
from skebm._tables import table_like

COLOR_RANGE = 12.0  # nats below the maximum that the colors span; 5 s.d. of a Gaussian


def check_density(estimator: Any, grid_resolution: int, methods: tuple[str, ...]) -> None:
    """Raise the house's error unless the estimator has the methods and the grid has points."""
    check_number("grid_resolution", grid_resolution, low=2, integer=True, remedy="Try 100.")
    for method in methods:
        if not hasattr(estimator, method):
            raise TypeError(
                f"estimator must have the method {method}, got {type(estimator).__name__}. "
                "Pass a fitted density estimator."
            )


def choose_columns(features: Any, X: Any, n_features: int, most: int) -> list[int]:
    """Return the positions of 2 to `most` columns, given by position or, of a data frame, by name.

    Raises
    ------
    ValueError
        If a column is unknown or there twice, or there are too few or too many.
    """
    names = list(getattr(X, "columns", ()))
    given = [features] if isinstance(features, str) else np.ravel(np.array(features, dtype=object))
    columns = [names.index(j) if isinstance(j, str) and j in names else j for j in given]
    known = all(isinstance(j, int | np.integer) and 0 <= j < n_features for j in columns)
    if not known or not 2 <= len(set(columns)) == len(columns) <= most:
        count = "two" if most == 2 else f"2 to {most}"
        raise ValueError(
            f"features must be {count} different columns out of {n_features}, got {features!r}. "
            "Pass features=(0, 1), say, or names of a data frame's columns."
        )
    return [int(j) for j in columns]


def grid_axis(column: np.ndarray, n: int) -> np.ndarray:
    """Return n points (n,) that reach 10 % of the column's range beyond it."""
    low, high = column.min(), column.max()
    margin = 0.1 * (high - low) or 1.0  # a constant column still gets a range
    return np.linspace(low - margin, high + margin, n)


def slice_log_density(
    estimator: Any, X: Any, row: np.ndarray, columns: list[int], axes: list[np.ndarray]
) -> np.ndarray:
    """Return the log density, nats, where `columns` move on the grid and the others stay at `row`.

    Parameters
    ----------
    estimator : object
        Fitted, with ``score_samples``.
    X : array-like or DataFrame of shape (n, d)
        A table of the kind that the estimator takes.
    row : ndarray of shape (d,)
        Values of the columns that stay.
    columns : list of int
        One or two columns that move.
    axes : list of ndarray of shape (g,)
        Points of each of them.

    Returns
    -------
    ndarray of shape (g,) or (g, g)
        First axis along the second column, second along the first.
    """
    grid = np.stack(np.meshgrid(*axes), axis=-1)
    points = np.tile(row, (grid[..., 0].size, 1))
    points[:, columns] = grid.reshape(-1, len(columns))
    log_density = np.asarray(estimator.score_samples(table_like(X, points)))
    return log_density.reshape(grid.shape[:-1])


def finite_maximum(log_density: np.ndarray, if_zero: str = "Look at score_samples.") -> float:
    """Return the largest value.

    Raises
    ------
    ValueError
        If a value is NaN, or none is finite; the message ends with `if_zero` where the density is 0
        everywhere.
    """
    top = np.max(log_density)
    if not np.isfinite(top):
        remedy = if_zero if top == -np.inf else "Look at score_samples."
        raise ValueError(f"log_density must have a finite maximum, got {top}. {remedy}")
    return float(top)


def draw_contours(
    ax: Any, x: np.ndarray, y: np.ndarray, log_density: np.ndarray, **kwargs: Any
) -> Any:
    """Fill contours of ``log_density[i, j]`` at ``(x[j], y[i])``, 12 nats below its maximum."""
    top = np.max(log_density)
    levels = np.linspace(top - COLOR_RANGE, top, 25)
    values = np.clip(log_density, levels[0], levels[-1])
    return ax.contourf(x, y, values, **{"levels": levels, "cmap": "Blues", **kwargs})


def column_names(X: Any, columns: list[int]) -> list[str]:
    """Return the names of a data frame's columns, ``x0``, ``x1`` ... for an array."""
    return [str(X.columns[j]) if hasattr(X, "columns") else f"x{j}" for j in columns]
