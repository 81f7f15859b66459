"""How far the next training rows are."""

from __future__ import annotations

__all__ = ["NeighborDistanceDetector"]

import numpy as np
import torch

from skebm._components import check_number
from skebm.ood._members import LocalDetector, distances


class NeighborDistanceDetector(LocalDetector):
    r"""Minus the distance to the k-th nearest training row, in standard deviations of the columns.

    Parameters
    ----------
    n_neighbors : int, default=5
        k; all rows where there are fewer. Larger is smoother.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless.
    random_state : int, RandomState or None, default=None
        Seed of the choice of rows, where there are many.

    Attributes
    ----------
    rows_ : ndarray of shape (n_kept, n_varying)
        Training rows, standard deviations, without constant columns.
    location_, scale_ : ndarray of shape (n_features,)
        Means and standard deviations of the columns, units of X; infinite for a constant one.
    unseen_scores_ : ndarray of shape (n_judged,)
        Scores of at most 1,200 training rows, each without itself.
    offset_ : float
        Threshold, their `alpha` quantile.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X or a parameter is unfit; the message names it.

    Warns
    -----
    CalibrationWarning
        If there are fewer than ``1 / alpha - 1`` rows.

    Notes
    -----
    Scoring takes the distances to all kept rows, at most 20,000.

    References
    ----------
    .. [1] S. Ramaswamy, R. Rastogi and K. Shim, "Efficient Algorithms for Mining Outliers from
       Large Data Sets", SIGMOD 2000. Definition 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.ood import NeighborDistanceDetector
    >>> X = np.random.RandomState(0).normal(size=(500, 2))
    >>> NeighborDistanceDetector().fit(X).predict([[0, 0], [5, 5]])
    array([ 1, -1])
    """

    def __init__(self, n_neighbors=5, *, alpha=0.05, random_state=None):
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.random_state = random_state

    def _check(self) -> None:
        check_number("n_neighbors", self.n_neighbors, low=1, integer=True)

    def _keep(self, z: np.ndarray) -> None:
        self.rows_ = z

    def _far(self, z: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        found = distances(torch.from_numpy(z), torch.from_numpy(self.rows_), own)
        k = min(int(self.n_neighbors), found.shape[1] - 1)
        return found.topk(k, largest=False).values[:, -1].numpy()
