"""Rows that are copies of others, which a split must keep together."""

from __future__ import annotations

__all__ = ["copy_groups"]

import numpy as np

FEWEST_COPIES = 0.01  # share of the rows below which copies are let be


def copy_groups(z: np.ndarray) -> np.ndarray | None:
    """Return the number of the group of equal rows that each row is in; None with hardly any copy.

    Parameters
    ----------
    z : ndarray of shape (n, d)
        Finite rows.

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
    key, random = np.zeros(len(z)), np.random.RandomState(0)
    for column in z.T:  # one after the other: a matrix product may round equal rows apart
        key += random.standard_normal() * column
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    if len(first) > (1 - FEWEST_COPIES) * len(z):
        return None
    order = np.argsort(np.argsort(first))  # groups in the order of their first rows
    return order[group]
