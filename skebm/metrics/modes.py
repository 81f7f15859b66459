"""How much of a sample is at each mode."""

from __future__ import annotations

__all__ = ["ModeMasses", "mode_masses"]

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import KDTree
from sklearn.utils import check_array

from skebm._components import as_table, check_number


class ModeMasses(NamedTuple):
    """Shares of a sample; together they are 1.

    Parameters
    ----------
    masses : ndarray of shape (k,)
        Share of the rows at each center, dimensionless.
    unassigned : float
        Share of the rows that are farther than `radius` from all centers, dimensionless.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.metrics import ModeMasses
    >>> ModeMasses(np.array([0.5, 0.25]), 0.25).unassigned
    0.25
    """

    masses: np.ndarray
    unassigned: float


def mode_masses(X: Any, centers: Any, radius: float | None = None) -> ModeMasses:
    """Return the share of the rows whose nearest center is each of `centers`.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Sample.
    centers : array-like of shape (k, d)
        Centers of the modes, all different, in the units of X.
    radius : float, default=None
        Largest Euclidean distance from a center that still counts, > 0, in the units of X. Larger
        leaves fewer rows unassigned; ``None`` assigns all.

    Returns
    -------
    ModeMasses
        Fields `masses`, shape (k,), and `unassigned`.

    Raises
    ------
    ValueError
        If `X` or `centers` is not a finite table, they differ in columns, two centers are equal, or
        `radius` is not positive.
    TypeError
        If `radius` is not a number.

    Notes
    -----
    A row that is equally near to several centers counts at one of them. The nearest centers come
    from a k-d tree: about ``n log k`` distances in a few dimensions, ``n k`` in many, and memory
    that grows with n only.

    Rings are modes of the distance from their common center: pass that distance as the one column
    of `X` and the radii as `centers`, as in the second example.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.datasets import rings_10d, six_modes
    >>> from skebm.metrics import mode_masses
    >>> density = six_modes()
    >>> print(mode_masses(density.sample(6000, random_state=0), density.means).masses.round(2))
    [0.17 0.17 0.17 0.16 0.16 0.17]
    >>> density = rings_10d()
    >>> X = density.sample(6000, random_state=0)
    >>> length = np.linalg.norm(X[:, :2], axis=1, keepdims=True)
    >>> print(mode_masses(length, density.radii[:, None], radius=0.3).masses.round(2))
    [0.33 0.34 0.32]
    """
    X = check_array(X, dtype=np.float64, input_name="X")
    centers = as_table("centers", centers, X.shape[1], "Give them in the space of X.")
    n_distinct = len(np.unique(centers, axis=0))
    if n_distinct < len(centers):
        raise ValueError(
            f"centers must be different, got {n_distinct} different rows of {len(centers)}. "
            "Drop the copies."
        )
    if radius is not None:
        check_number("radius", radius, low=0, open_low=True, remedy="Pass None for no limit.")
    distance, nearest = KDTree(centers).query(X)
    assigned = nearest if radius is None else nearest[distance <= radius]
    counts = np.bincount(assigned, minlength=len(centers))
    return ModeMasses(counts / len(X), 1 - len(assigned) / len(X))
