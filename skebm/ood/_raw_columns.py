"""Contributions of columns that a pipeline encodes: text, categories, dates, missing values."""

from __future__ import annotations

__all__ = ["Raw", "column_gradients", "is_raw", "raw_gains"]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_array

from skebm._tables import column_of, n_rows, take_rows, with_column
from skebm.inside import read_scores, unwrap
from skebm.stein._scores import evaluate_score

BLOCK_VALUES = 2**20  # scored at once
FEWEST = 4  # rows that evaluate_score wants
Gain = Callable[[Callable, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Raw(NamedTuple):
    """Rows to explain and reference rows, of one kind, before any transformer."""

    estimator: Any
    X: Any
    reference: Any

    @property
    def n_columns(self) -> int:
        """Number of input columns."""
        return int(self.X.shape[1])


def is_raw(estimator: Any, X: Any) -> bool:
    """Whether transformers of the estimator make numbers of what X holds, by columns or values."""
    steps, _ = unwrap(estimator, detectors=True)
    if not steps or not hasattr(X, "shape"):
        return False
    try:
        rows = check_array(X, dtype=np.float64)
    except (TypeError, ValueError):
        return True
    whole = np.flatnonzero((rows == np.round(rows)).all(axis=0))
    return bool(len(whole)) and any(_is_encoded(steps, X, int(j)) for j in whole)


def raw_gains(raw: Raw, n_grid: int, discrete: str, continuous: Gain) -> np.ndarray:
    """Return the gain of each row from other values of each column, (n, d)."""
    log_p = read_scores(raw.estimator, raw.X)
    columns = []
    for j in range(raw.n_columns):
        values = column_of(raw.reference, j)
        numbers = _numbers(values)
        if numbers is None or _is_encoded(unwrap(raw.estimator, detectors=True)[0], raw.X, j):
            columns.append(_of_categories(raw, j, values, log_p, discrete))
            continue
        own = _numbers(column_of(raw.X, j))
        assert own is not None
        grid = np.quantile(numbers[np.isfinite(numbers)], np.linspace(0, 1, n_grid))
        columns.append(
            continuous(_scored(raw, j), np.where(np.isnan(own), grid[0], own), log_p, grid)
        )
    return np.stack(columns, axis=1)


def column_gradients(raw: Raw) -> np.ndarray:
    """Half the score of the last step times its step to the median, summed by input column."""
    steps, last = unwrap(raw.estimator, detectors=True)
    z, reference = _through(steps, raw.X), _through(steps, raw.reference)
    rows = np.concatenate([reference, z])  # a score of few rows is refused
    score = evaluate_score(last, rows, "estimator")[1][len(reference) :]
    outputs = 0.5 * score * (np.median(reference, axis=0) - z)
    owners = _owners(steps, raw)
    if (owners.sum(axis=0) > 1).any():
        raise TypeError(
            "estimator must transform each column by itself for method='gradient', got outputs of "
            f"{type(raw.estimator).__name__} that depend on several. Take method='conditional'."
        )
    return outputs @ owners.T


def _owners(steps: list[Any], raw: Raw) -> np.ndarray:
    """Return which input column (d) changes which output of the transformers (k), (d, k)."""
    plain = _through(steps, raw.reference)
    moved = np.roll(np.arange(n_rows(raw.reference)), 1)
    changed = []
    for j in range(raw.n_columns):
        values = column_of(take_rows(raw.reference, moved), j)
        other = _through(steps, with_column(raw.reference, j, values))
        changed.append((plain != other).any(axis=0))
    return np.array(changed, dtype=np.float64)


def _is_encoded(steps: list[Any], X: Any, j: int) -> bool:
    """Whether the transformers take a number for a category: none between two of them is known."""
    values = _numbers(column_of(X, j))
    if values is None:
        return True
    if not np.isfinite(values).any() or not (values == np.round(values))[np.isfinite(values)].all():
        return False
    between = np.where(np.isfinite(values), values + 0.5, values)
    try:
        plain, other = (_through(steps, with_column(X, j, v)) for v in (values, between))
    except ValueError:
        return True  # an unknown category
    return int((plain != other).any(axis=0).sum()) > 1


def _of_categories(raw: Raw, j: int, values: Any, log_p: np.ndarray, method: str) -> np.ndarray:
    """Gain of each row over the values that the column has in the reference, (n,)."""
    known = [value for value in dict.fromkeys(values.tolist()) if value is not None]
    known = [value for value in known if value == value]  # without NaN
    n = n_rows(raw.X)
    scored = [
        read_scores(raw.estimator, with_column(raw.X, j, np.array([value] * n, values.dtype)))
        for value in known
    ]
    log = np.stack(scored, axis=1)
    if method == "mode":
        return np.maximum(log.max(axis=1), log_p) - log_p
    best = np.where(np.isfinite(log.max(axis=1)), log.max(axis=1), 0.0)[:, None]
    weight = softmax(np.where(np.isfinite(log), log - best, -700.0), axis=1)
    return (weight * np.where(weight > 0, log, 0.0)).sum(axis=1) - log_p


def _scored(raw: Raw, j: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what scores the rows with column j replaced by each of values (n, k)."""

    def scored(values: np.ndarray) -> np.ndarray:
        size = max(1, BLOCK_VALUES // (values.shape[1] * raw.n_columns))
        found = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            rows = np.repeat(np.arange(start, start + len(part)), part.shape[1])
            table = with_column(take_rows(raw.X, rows), j, part.ravel())
            found.append(read_scores(raw.estimator, table).reshape(part.shape))
        return np.concatenate(found)

    return scored


def _through(steps: list[Any], X: Any) -> np.ndarray:
    for step in steps:
        X = step.transform(X)
    X = X.toarray() if hasattr(X, "toarray") else X
    return np.asarray(X, dtype=np.float64)


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """Return a column as float64, missing values as NaN; None for one of other things."""
    if values.dtype.kind not in "fiuO" or any(isinstance(v, bool | str) for v in values.tolist()):
        return None
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        return None
