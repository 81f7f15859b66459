"""How many standard deviations of its neighborhood a row is from it."""

from __future__ import annotations

__all__ = ["LocalMahalanobisDetector"]

import numpy as np
import torch
from scipy.special import ndtri

from skebm._components import check_number
from skebm.ood._members import BLOCK_VALUES, LocalDetector, distances

FLOOR = 1e-3  # of variances, standard deviations squared
MIDDLE, NORMAL_WIDTH = (0.1, 0.9), 2 * 1.2815515655446004  # quantiles, and how far apart they are


class LocalMahalanobisDetector(LocalDetector):
    r"""Minus the Mahalanobis distance of a row from its nearest training rows.

    .. math:: s(x) = -\sqrt{(x - \mu)^T S^{-1} (x - \mu)}, \quad
        S = (1 - a) \hat\Sigma + (a \operatorname{tr} \hat\Sigma / d + 10^{-3}) I

    with mean and covariance of the k nearest rows. Every column counts twice, as it is and as a
    normal one of the same ranks, so that distances follow both the values and their order.

    Parameters
    ----------
    n_neighbors : int, default=20
        k, at most a third of the rows. Larger is smoother.
    shrinkage : float, default=0.3
        a, from 0 to 1, dimensionless; larger makes neighborhoods rounder.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless.
    random_state : int, RandomState or None, default=None
        Seed of the choice of rows, where there are many.

    Attributes
    ----------
    rows_ : ndarray of shape (n_kept, n_varying)
        Training rows, standard deviations, without constant columns.
    sorted_, ranked_ : ndarray of shape (n_kept, n_varying)
        Each column's values in order, and where the normal copy takes them.
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
    Scoring takes the distances to all kept rows, at most 20,000, and a linear system of k unknowns
    for each row. Beyond a column's range its normal copy goes on in a straight line.

    References
    ----------
    .. [1] P. C. Mahalanobis, "On the Generalised Distance in Statistics", Proceedings of the
       National Institute of Sciences of India 2(1), 1936. Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.ood import LocalMahalanobisDetector
    >>> X = np.random.RandomState(0).normal(size=(500, 2))
    >>> LocalMahalanobisDetector().fit(X).predict([[0, 0], [5, 5]])
    array([ 1, -1])
    """

    def __init__(self, n_neighbors=20, *, shrinkage=0.3, alpha=0.05, random_state=None):
        self.n_neighbors = n_neighbors
        self.shrinkage = shrinkage
        self.alpha = alpha
        self.random_state = random_state

    def _check(self) -> None:
        check_number("n_neighbors", self.n_neighbors, low=1, integer=True)
        check_number("shrinkage", self.shrinkage, low=0, high=1)

    def _keep(self, z: np.ndarray) -> None:
        self.rows_, self.sorted_ = z, np.sort(z, axis=0)
        self.ranked_ = np.stack([_normal_scores(column) for column in self.sorted_.T], 1)
        low, high = np.quantile(z, MIDDLE, axis=0)
        width = (high - low) / NORMAL_WIDTH
        self._slope = 1 / np.where(width > 0, width, 1)
        self._places = torch.from_numpy(self._doubled(z))

    def _doubled(self, z: np.ndarray) -> np.ndarray:
        """Return rows (n, 2 d): columns, and their normal copies."""
        return np.concatenate([z, self._normal(z)], 1) / np.sqrt(2)

    def _normal(self, z: np.ndarray) -> np.ndarray:
        inside = [np.interp(*of) for of in zip(z.T, self.sorted_.T, self.ranked_.T, strict=True)]
        beyond = z - z.clip(self.sorted_[0], self.sorted_[-1])
        return np.stack(inside, 1) + beyond * self._slope

    def _far(self, z: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        x, k = torch.from_numpy(self._doubled(z)), self._n_neighbors
        near = distances(x, self._places, own).topk(k, largest=False).indices
        size = max(1, BLOCK_VALUES // (k * x.shape[1]))
        parts = zip(x.split(size), near.split(size), strict=True)
        return torch.cat([self._distance(rows, self._places[at]) for rows, at in parts]).numpy()

    @property
    def _n_neighbors(self) -> int:
        return max(1, min(int(self.n_neighbors), len(self.rows_) // 3))

    def _distance(self, x: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Return the distances of rows (m, p) from their neighbors (m, k, p).

        By the inverse of a diagonal and k products, k unknowns in place of p.
        """
        mean = near.mean(1)
        v, spread = x - mean, near - mean[:, None]
        k = near.shape[1]
        trace = spread.square().sum((1, 2)) / (k * x.shape[1])
        diagonal = self.shrinkage * trace + FLOOR
        spread = spread * ((1 - self.shrinkage) / k) ** 0.5
        along = (spread @ v[:, :, None])[:, :, 0]
        system = spread @ spread.mT + diagonal[:, None, None] * torch.eye(k, dtype=x.dtype)
        square = v.square().sum(1) - (along * torch.linalg.solve(system, along)).sum(1)
        return (square / diagonal).clamp(min=0).sqrt()


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """Return the normal quantiles of the mid-ranks of sorted values (n,), of variance 1."""
    values, counts = np.unique(x, return_counts=True)
    if len(values) == 1:
        return np.zeros(len(x))
    z = np.repeat(ndtri((np.cumsum(counts) - counts / 2) / len(x)), counts)
    return (z - z.mean()) / z.std()
