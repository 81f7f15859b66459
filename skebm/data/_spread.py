"""Location, scale and spacing of rows, where a few rows far out would mislead the moments."""

from __future__ import annotations

__all__ = ["spacing", "trimmed_moments"]

import numpy as np

TRIMMED = 0.01  # share of the weight that is left out at each end of a column
MOST_ROWS = 2000  # that neighbors are looked for from


def trimmed_moments(
    X: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's mean and standard deviation without 1 % of the weight at each end.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows; at least one of three is left out at each end.
    weight : ndarray of shape (n,), optional
        Nonnegative weights.

    Returns
    -------
    mean, std : ndarray of shape (d,)
        In the units of X.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import trimmed_moments
    >>> mean, _ = trimmed_moments(np.array([[0.0], [1.0], [2.0], [3.0], [1e9]]))
    >>> mean
    array([2.])
    """
    moments = [_middle_moments(column, weight) for column in X.T]
    mean, std = np.array(moments).T
    return mean, std


def _middle_moments(x: np.ndarray, weight: np.ndarray | None) -> tuple[float, float]:
    n = len(x)
    cut = min(max(1, int(np.ceil(TRIMMED * n))), (n - 1) // 2)
    if weight is None:
        low, high = np.partition(x, (cut, n - 1 - cut))[[cut, n - 1 - cut]]
    else:
        order = np.argsort(x)
        below = np.cumsum(weight[order]) / weight.sum()
        low, high = x[order[np.searchsorted(below, [TRIMMED, 1 - TRIMMED]).clip(cut, n - 1 - cut)]]
    inside = (x >= low) & (x <= high)
    share = None if weight is None else weight[inside]
    unit = max(high - low, np.finfo(float).tiny)  # so that squares neither overflow nor vanish
    z = (x[inside] - low) / unit
    mean = np.average(z, weights=share)
    return low + unit * mean, unit * np.sqrt(np.average((z - mean) ** 2, weights=share))


def spacing(x: np.ndarray) -> float:
    """Return the median distance of rows to the nearest different one.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Rows; 2,000 of them are asked.

    Returns
    -------
    float
        In the units of x; 0 where all rows are equal.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import spacing
    >>> spacing(np.array([[0.0], [0.0], [1.0], [3.0]]))
    1.0
    """
    from sklearn.neighbors import NearestNeighbors

    rows = np.unique(x, axis=0)
    if len(rows) < 2:
        return 0.0
    asked = rows[:: -(-len(rows) // MOST_ROWS)]
    distances = NearestNeighbors(n_neighbors=2).fit(rows).kneighbors(asked)[0]
    return float(np.median(distances[:, 1]))
