"""Tables as users bring them: arrays, sparse matrices, data frames of any library."""

from __future__ import annotations

__all__ = ["as_frame", "n_rows", "table_like", "take_entries", "take_rows"]

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np


def as_frame(X: Any) -> Any:
    """Return a data frame (of pandas, polars, pyarrow ...) as narwhals sees it, None for others."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def n_rows(X: Any) -> int:
    """Return the number of rows of a table of any kind."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Return the rows with these numbers, as the kind of table that X is."""
    frame = as_frame(X)
    return X[rows] if frame is None else frame[rows].to_native()


def take_entries(X: Any, rows: np.ndarray) -> Any:
    """Return a table of the kind of X with entry (rows[i, j], j) of X at each place (i, j)."""
    frame = as_frame(X)
    if frame is None:
        return X[rows, np.arange(rows.shape[1])]
    columns = [frame[:, j][column] for j, column in enumerate(rows.T)]
    return frame.with_columns(*columns).to_native()


def table_like(X: Any, values: np.ndarray) -> Any:
    """Return values (n, d) as a table of the kind of X: a frame with its columns, or an array."""
    frame = as_frame(X)
    if frame is None:
        return values
    columns = dict(zip(frame.columns, values.T, strict=True))
    return nw.from_dict(columns, backend=frame.implementation).to_native()
