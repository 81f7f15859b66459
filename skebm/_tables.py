"""Tables as users bring them: arrays, sparse matrices, data frames of any library."""

from __future__ import annotations

__all__ = [
    "as_frame",
    "column_of",
    "effective",
    "has_numbers_alone",
    "n_rows",
    "naming_columns",
    "one_per_row",
    "row_weights",
    "table_like",
    "take_entries",
    "take_rows",
    "weighted_mean",
    "with_column",
]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError


def as_frame(X: Any) -> Any:
    """Return a data frame (of pandas, polars, pyarrow ...) as narwhals sees it, None for others."""
    if isinstance(X, np.ndarray):  # at once: narwhals looks for every library it knows
        return None
    try:
        frame = nw.from_native(X, eager_only=True, pass_through=True)
    except DuplicateError as error:
        lines = [line[2:] for line in str(error).splitlines() if line.startswith("- ")]
        raise ValueError(
            f"column names must be unique, got {', '.join(lines[:3]) or 'copies'}. Rename those "
            "columns, or give an array."
        ) from error
    return frame if isinstance(frame, nw.DataFrame) else None


@contextmanager
def naming_columns(X: Any, name: str = "X") -> Iterator[None]:
    """Say which columns of a table are no numbers, where a conversion inside fails for it.

    Dates are refused at once: numpy would silently take a table of dates alone for nanoseconds.

    Raises
    ------
    ValueError
        If there are columns of text, categories, dates or durations.
    """
    _refuse_dates(X, name)
    try:
        yield
    except (TypeError, ValueError) as error:
        found = _texts(X)
        if not found:
            raise
        shown = ", ".join(f"{column} ({value!r:.30})" for column, value in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"{name} must hold numbers, got text in {shown}{more}. Leave it out or encode it, by a "
            "sklearn.preprocessing.OneHotEncoder in a pipeline say. USPDensity takes data frames "
            "with text as they are."
        ) from error


def _refuse_dates(X: Any, name: str) -> None:
    frame = as_frame(X)
    if frame is not None:
        found = [f"column {n!r}" for n, kind in frame.schema.items() if kind.is_temporal()]
    else:
        kind = getattr(getattr(X, "dtype", None), "kind", None)
        found = ["all columns"] if kind in ("m", "M") else []
    if found:
        raise ValueError(
            f"{name} must hold numbers, got dates or durations in {', '.join(found[:3])}. Convert "
            "them, to days since the first one say."
        )


def _texts(X: Any) -> list[tuple[str, str]]:
    """Return columns that hold text which is no number, with the first such text."""
    frame = as_frame(X)
    if frame is not None:
        # by place: a number in brackets is a row
        columns = {
            f"column {name!r}": series.to_list()
            for name, series in zip(frame.columns, frame.iter_columns(), strict=True)
        }
    elif isinstance(X, np.ndarray | list | tuple) and len(np.shape(X)) == 2:
        columns = {f"column {j}": list(c) for j, c in enumerate(zip(*X, strict=True))}
    else:
        return []
    first = {name: next(filter(_is_text, values), None) for name, values in columns.items()}
    return [(name, str(value)) for name, value in first.items() if value is not None]


def _is_text(value: Any) -> bool:
    if not isinstance(value, str | bytes):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def has_numbers_alone(X: Any) -> bool:
    """Whether a table has no text, dates or categories."""
    frame = as_frame(X)
    kinds = [] if frame is None else list(frame.schema.values())
    return all(kind.is_numeric() or kind == nw.Boolean for kind in kinds)


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


def one_per_row(
    name: str,
    values: Any,
    n: int | None = None,
    *,
    finite: bool = False,
    remedy: str = "Look at the rows that they belong to, or at the estimator's fit.",
) -> np.ndarray:
    """Return values (n,), one per row, as float64; unless `finite`, some may be minus infinity.

    Raises
    ------
    ValueError
        If there are not n of them (None: at least 1), or NaN or plus infinity is among them, or
        what is no number; the message calls them `name` and ends in `remedy`.
    """
    values = _in_a_row(name, values, n)
    n_bad = np.count_nonzero(~np.isfinite(values) if finite else ~(values < np.inf))
    if n_bad:
        rule = "finite" if finite else "numbers below infinity"
        raise ValueError(
            f"{name} must be {rule}, got {n_bad} of {len(values)} values that are not "
            f"({np.count_nonzero(np.isnan(values))} NaN). {remedy}"
        )
    return values


def _in_a_row(name: str, values: Any, n: int | None) -> np.ndarray:
    """Return n numbers (None: at least 1) as float64."""
    values = _as_numbers(name, values)
    if values.ndim != 1 or len(values) != (n or len(values) or -1):
        rule = f"of shape ({n},)" if n else "one-dimensional and not empty"
        raise ValueError(
            f"{name} must be {rule}, got shape {values.shape}. It needs one number per row."
        )
    return values


def _as_numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(values).split())
        raise ValueError(
            f"{name} must hold numbers, got {shown:.60}. It needs one number per row."
        ) from error


def row_weights(sample_weight: Any, n: int, *, fewest: int = 2) -> np.ndarray:
    """Return weights (n,) relative to the largest; a single number is that of every row.

    Raises
    ------
    ValueError
        If they are not n numbers from 0 to infinity, or fewer than `fewest` are positive.
    """
    weight = _as_numbers("sample_weight", sample_weight)
    weight = _in_a_row("sample_weight", np.full(n, weight) if weight.ndim == 0 else weight, n)
    n_bad = np.count_nonzero(~((weight >= 0) & (weight < np.inf)))
    if n_bad:
        raise ValueError(
            f"sample_weight must be finite and >= 0, got {n_bad} values that are not. Leave rows "
            "out by a weight of 0."
        )
    if np.count_nonzero(weight) < fewest:
        raise ValueError(
            f"sample_weight must be positive for at least {fewest} row{'s' * (fewest > 1)}, got "
            f"{np.count_nonzero(weight)} above zero. Leave it out to weight all rows alike."
        )
    return weight / weight.max()  # only ratios count


def effective(weight: np.ndarray | None, n: int) -> float:
    """Return how many equal rows n weighted ones are worth (Kish)."""
    return float(n) if weight is None else float(weight.sum() ** 2 / np.square(weight).sum())


def weighted_mean(values: np.ndarray, sample_weight: Any) -> float:
    """Return the mean of values (n,) by weight; rows of weight 0 may be infinite."""
    if sample_weight is None:
        return float(values.mean())
    weight = row_weights(sample_weight, len(values), fewest=1)
    return float(np.average(values[weight > 0], weights=weight[weight > 0]))


def column_of(X: Any, j: int) -> np.ndarray:
    """Return the values of column j, (n,), of objects where they are no numbers."""
    frame = as_frame(X)
    if frame is None:
        return np.asarray(X)[:, j]
    values = frame[:, int(j)].to_list()
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return np.array(values, dtype=np.float64 if numeric else object)


def with_column(X: Any, j: int, values: np.ndarray) -> Any:
    """Return a table of the kind of X with column j replaced."""
    frame = as_frame(X)
    if frame is None:
        X = np.array(X, dtype=np.result_type(X, values))
        X[:, j] = values
        return X
    name = frame.columns[j]
    series = nw.new_series(name, values.tolist(), backend=frame.implementation)
    was = frame[:, int(j)].dtype
    if isinstance(was, nw.Categorical | nw.Enum | nw.Boolean | nw.String | nw.Datetime):
        series = series.cast(was)
    return frame.with_columns(series).to_native()
