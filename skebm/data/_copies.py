"""Rows that are copies of others, which a split must keep together."""

from __future__ import annotations

__all__ = ["copy_groups", "row_keys"]

from collections.abc import Iterable

import numpy as np

FEWEST_COPIES = 0.01  # share of the rows below which copies are let be


def copy_groups(z: np.ndarray, columns: Iterable[int] | None = None) -> np.ndarray | None:
    """Return the number of the group of equal rows that each row is in; None with hardly any copy.

    Parameters
    ----------
    z : ndarray of shape (n, d)
        Finite rows.
    columns : iterable of int, optional
        Those in which rows are compared; None is all.

    Returns
    -------
    ndarray of int of shape (n,) or None
        From 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import copy_groups
    >>> copy_groups(np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]]))
    array([0, 1, 0])
    """
    key = row_keys(z, columns)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    if len(first) > (1 - FEWEST_COPIES) * len(z):
        return None
    order = np.argsort(np.argsort(first))  # groups in the order of their first rows
    return order[group]


def row_keys(z: np.ndarray, columns: Iterable[int] | None = None) -> np.ndarray:
    """Return a number per row of (n, d), (n,): equal ones of equal rows, else hardly ever."""
    key, random = np.zeros(len(z)), np.random.RandomState(0)
    for j in range(z.shape[1]) if columns is None else columns:
        # one after the other: a matrix product may round equal rows apart
        key += random.standard_normal() * z[:, j]
    return key
