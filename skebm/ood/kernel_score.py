"""How steep a kernel density is at a row."""

from __future__ import annotations

__all__ = ["KernelScoreDetector"]

import math

import numpy as np
import torch

from skebm._components import check_number
from skebm.ood._members import LocalDetector, distances

GRID = np.logspace(-2, 1, 25)  # bandwidths, standard deviations
COARSE, MOST_CHOOSING = 4, 2000  # step through the grid at first; rows that choose


class KernelScoreDetector(LocalDetector):
    r"""Minus the norm of the score of a kernel density, in bandwidths.

    .. math:: s(x) = -h\, \lVert \nabla \log p_h(x) \rVert
        = -\frac{1}{h} \Bigl\lVert x - \sum_i w_i(x)\, x_i \Bigr\rVert, \quad
        w_i(x) \propto e^{-\lVert x - x_i \rVert^2 / 2 h^2}

    A row far from the training rows is many bandwidths from their weighted mean; a row between them
    is not, however few they are there.

    Parameters
    ----------
    bandwidth : float or "auto", default="auto"
        h, standard deviations of the columns. ``"auto"`` is the likeliest of 25 from 0.01 to 10 on
        rows that are left out one by one.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless.
    random_state : int, RandomState or None, default=None
        Seed of the choice of rows, where there are many.

    Attributes
    ----------
    bandwidth_ : float
        h in use.
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
    The score of the kernel density is the exact minimizer of denoising score matching at noise h on
    the training rows. Scoring takes the distances to all kept rows, at most 20,000.

    References
    ----------
    .. [1] P. Vincent, "A Connection Between Score Matching and Denoising Autoencoders", Neural
       Computation 23(7), 2011. Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.ood import KernelScoreDetector
    >>> X = np.random.RandomState(0).normal(size=(500, 2))
    >>> KernelScoreDetector().fit(X).predict([[0, 0], [5, 5]])
    array([ 1, -1])
    """

    def __init__(self, bandwidth="auto", *, alpha=0.05, random_state=None):
        self.bandwidth = bandwidth
        self.alpha = alpha
        self.random_state = random_state

    def _check(self) -> None:
        if self.bandwidth != "auto":
            check_number("bandwidth", self.bandwidth, low=0, open_low=True, remedy="Or use 'auto'.")

    def _keep(self, z: np.ndarray) -> None:
        self.rows_ = z
        self.bandwidth_ = likeliest(z) if self.bandwidth == "auto" else float(self.bandwidth)

    def _far(self, z: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        x, rows = torch.from_numpy(z), torch.from_numpy(self.rows_)
        share = (distances(x, rows, own).square_() / (-2 * self.bandwidth_**2)).softmax(1)
        return ((x - share @ rows).norm(dim=1) / self.bandwidth_).numpy()


def likeliest(z: np.ndarray) -> float:
    """Return the bandwidth that makes rows (n, d) likeliest, each without itself."""
    some = z[np.random.RandomState(0).permutation(len(z))[:MOST_CHOOSING]]
    x, d = torch.from_numpy(some), z.shape[1]
    square = distances(x, x, np.arange(len(x))).square_()

    def value(i: int) -> float:
        return float((square / (-2 * GRID[i] ** 2)).logsumexp(1).mean() - d * math.log(GRID[i]))

    found = {i: value(i) for i in range(0, len(GRID), COARSE)}
    best = max(found, key=found.__getitem__)
    near = range(max(best - COARSE + 1, 0), min(best + COARSE, len(GRID)))
    found |= {i: value(i) for i in near if i not in found}
    return float(GRID[max(found, key=found.__getitem__)])
