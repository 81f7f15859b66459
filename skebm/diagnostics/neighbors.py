"""Whether samples are new, or copies of rows that were there before."""

from __future__ import annotations

__all__ = ["Neighbors", "copy_ratio", "nearest_neighbors"]

from typing import Any, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from skebm._components import check_choice, check_number
from skebm.inside import check_energy_model

MOST_PROBED = 2000  # reference rows that measure the typical distance: its median is good to 2 %


class Neighbors(NamedTuple):
    """Nearest rows of each sample, the nearest first.

    Parameters
    ----------
    distances : ndarray of shape (n, n_neighbors)
        Euclidean distances, units of X, or of ``X / scale``.
    indices : ndarray of int of shape (n, n_neighbors)
        Row numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import Neighbors
    >>> Neighbors(np.array([[0.5]]), np.array([[3]])).indices.tolist()
    [[3]]
    """

    distances: np.ndarray
    indices: np.ndarray


def nearest_neighbors(
    samples: Any, X_train: Any, n_neighbors: int = 1, scale: Any = None
) -> Neighbors:
    """Return the rows of a table that are nearest to each sample.

    Parameters
    ----------
    samples : array-like of shape (n, d)
        Rows drawn from a model, units of X.
    X_train : array-like of shape (m, d)
        Rows to look among, units of X.
    n_neighbors : int, default=1
        Rows per sample.
    scale : float or array-like of shape (d,), default=None
        Columns are divided by it before distances are taken: ``X_train.std(axis=0)`` gives
        standardized units. None measures in the units of X, as for pixels.

    Returns
    -------
    Neighbors
        Distances and row numbers.

    Raises
    ------
    ValueError, TypeError
        If a table is not finite, columns do not match, or `n_neighbors` or `scale` is unfit.

    Notes
    -----
    Costs n m d operations at most; trees are used where they help.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Fig. 7C.

    Examples
    --------
    >>> from skebm.diagnostics import nearest_neighbors
    >>> found = nearest_neighbors([[0.0, 3.0]], [[0.0, 0.0], [0.0, 4.0]])
    >>> found.distances, found.indices
    (array([[1.]]), array([[1]]))
    """
    rows, samples = check_array(X_train, dtype=np.float64), check_array(samples, dtype=np.float64)
    check_number("n_neighbors", n_neighbors, low=1, high=len(rows), integer=True)
    if samples.shape[1] != rows.shape[1]:
        raise ValueError(
            f"samples must have the {rows.shape[1]} columns of X_train, got {samples.shape[1]}. "
            "Pass rows in the units of X."
        )
    unit = np.ones(()) if scale is None else np.asarray(scale, dtype=np.float64)
    if unit.shape not in ((), rows.shape[1:]) or not np.all((unit > 0) & np.isfinite(unit)):
        raise ValueError(
            f"scale must be positive numbers, one or one per column, got {scale!r}. "
            "Leave out constant columns."
        )
    index = NearestNeighbors(n_neighbors=int(n_neighbors)).fit(rows / unit)
    return Neighbors(*index.kneighbors(samples / unit))


def copy_ratio(estimator: Any, samples: Any, reference: Any = "bank") -> np.ndarray:
    """Return how near each sample is to a reference row, against how near those are to each other.

    The distance to the nearest reference row over the median distance of a reference row to its
    own nearest neighbor, both in standardized space.

    Parameters
    ----------
    estimator : object
        A fitted estimator of this package.
    samples : array-like of shape (n, d)
        Rows, units of X.
    reference : "bank" or array-like of shape (m, d), default="bank"
        Rows that may have been copied: those of the estimator's bank of persistent chains, or
        these (training rows, say), units of X.

    Returns
    -------
    ndarray of shape (n,)
        Dimensionless: 0 for a copy, near 1 where samples and reference rows are independent draws
        of one density, larger where samples are off.

    Raises
    ------
    ValueError
        If there is no bank, the reference has fewer than 2 distinct rows, or a table is not finite
        or has the wrong columns.
    TypeError
        If `reference` is neither.
    NotFittedError
        If the estimator is not fitted.

    Notes
    -----
    Copies among the reference rows count once. The median is taken over at most 2000 rows, so the
    cost is (n + 2000) m d operations at most.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Fig. 7.

    Examples
    --------
    >>> from skebm import HybridCDDensity
    >>> from skebm.datasets import two_moons
    >>> from skebm.diagnostics import copy_ratio
    >>> X = two_moons().sample(200, random_state=0)
    >>> fitted = HybridCDDensity(max_iter=5, random_state=0).fit(X)
    >>> float(copy_ratio(fitted, X, reference=X).max())
    0.0
    """
    check_energy_model(estimator)
    rows = np.unique(_reference(estimator, reference), axis=0)
    if len(rows) < 2:
        raise ValueError(
            f"reference must have at least 2 distinct rows, got {len(rows)}. Pass more rows."
        )
    probes = rows[:: -(-len(rows) // MOST_PROBED)]
    typical = np.median(nearest_neighbors(probes, rows, 2).distances[:, 1])  # the first: itself
    z = _standardized(estimator, samples)
    return nearest_neighbors(z, rows).distances[:, 0] / typical


def _reference(estimator: Any, reference: Any) -> np.ndarray:
    if not isinstance(reference, str):
        return _standardized(estimator, reference)
    check_choice("reference", reference, ("bank",), remedy="Or pass rows in the units of X.")
    bank = getattr(estimator.density_.draws, "bank", None)
    if bank is None:
        raise ValueError(
            f"reference must be rows where there is no bank, got 'bank' for {estimator!r}. "
            "Fit with init='persistent' to have one, or pass training rows."
        )
    return bank.flatten(1).cpu().numpy()


def _standardized(estimator: Any, rows: Any) -> np.ndarray:
    rows = validate_data(estimator, rows, dtype=np.float64, reset=False)
    return estimator.density_.standardized(rows).cpu().numpy()
