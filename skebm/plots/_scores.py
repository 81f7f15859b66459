"""What the pictures of scores share: checked scores, their names, their shares in bins."""

from __future__ import annotations

__all__ = [
    "bin_shares",
    "check_scores",
    "estimator_scores",
    "last_step",
    "named_sets",
    "named_tables",
]

from collections.abc import Mapping
from typing import Any

import numpy as np

from skebm._tables import one_per_row
from skebm.inside import read_scores, unwrap

UNNAMED = "novelties"  # in the legend, where nobody gave a name


def check_scores(name: str, values: Any, remedy: str) -> np.ndarray:
    """Return scores (n,), float64, finite; a complaint about infinite ones ends in `remedy`."""
    return one_per_row(name, values, finite=True, remedy=remedy)


def estimator_scores(name: str, estimator: Any, X: Any) -> np.ndarray:
    """Return what a fitted estimator scores on rows, (n,), finite.

    Raises
    ------
    ValueError
        If X is one-dimensional, labels say, or a score is not finite.
    """
    if np.ndim(X) == 1:
        place = name.replace("score_samples(", "").replace(")", "")
        raise ValueError(
            f"{place} must be a table of rows (n, d), got shape {np.shape(X)}. Pass rows, not "
            "labels: the novel ones as X_out, X[y == 1] say, the others as X_in."
        )
    return check_scores(name, read_scores(estimator, X), "Give it rows that its density covers.")


def last_step(estimator: Any, *tables: Any) -> tuple[Any, ...]:
    """Return the detector inside searches and pipelines, and tables as the steps before it do.

    Parameters
    ----------
    estimator : object
        Fitted.
    *tables : array-like of shape (n, d) or None
        Rows to transform; None stays None.

    Returns
    -------
    tuple
        The last step of all, and the transformed tables.
    """
    steps, last = unwrap(estimator)
    for step in steps:
        tables = tuple(None if table is None else step.transform(table) for table in tables)
    return last, *tables


def named_sets(score_out: Any, name: str | None) -> dict[str, np.ndarray]:
    """Return the sets of novelties under the names that the legend shows.

    Raises
    ------
    ValueError
        If there is no set, or if scores of one are unfit.
    """
    labels = _labels("score_out", score_out, name)
    remedy = "Look at the rows that they belong to."
    return {
        label: check_scores(_place("score_out", key), scores, remedy)
        for label, key, scores in labels
    }


def named_tables(estimator: Any, X_out: Any, name: str | None) -> dict[str, np.ndarray]:
    """Return what an estimator scores on the sets of novelties, under their names.

    Raises
    ------
    ValueError
        If there is no set, or if a score is not finite.
    """
    return {
        label: estimator_scores(_place("score_samples(X_out)", key), estimator, table)
        for label, key, table in _labels("X_out", X_out, name)
    }


def bin_shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the share of values in each bin; the outermost bins hold what lies beyond them."""
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return counts / len(values)


def _labels(place: str, sets: Any, name: str | None) -> list[tuple[str, Any, Any]]:
    if not isinstance(sets, Mapping):
        return [(name or UNNAMED, None, sets)]
    if not sets:
        raise ValueError(f"{place} must hold at least one set, got {{}}. Add one by its name.")
    prefix = f"{name}, " if name else ""
    return [(f"{prefix}{key}", key, values) for key, values in sets.items()]


def _place(name: str, key: Any) -> str:
    return name if key is None else f"{name} of {key!r}"
