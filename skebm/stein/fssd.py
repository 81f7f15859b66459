"""The Stein witness at a finite set of locations."""

from __future__ import annotations

__all__ = [
    "FiniteSetSteinDiscrepancy",
    "finite_set_stein_discrepancy",
    "finite_set_terms",
    "optimize_locations",
]

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.utils import check_array

from skebm._surroundings import own_settings
from skebm.stein._scores import Rows, read_table, shuffled, standardized
from skebm.stein.kernel import choose_bandwidth, jackknife

GRID = 2.0 ** np.linspace(-3, 3, 5)  # times the squared median distance
NARROWEST, WIDEST = 1e-2, 5e2  # bounds of the squared width, times the squared median distance
REGULARIZATION, N_STEPS = 1e-2, 40
BLOCK_BYTES = 1 << 26


class FiniteSetSteinDiscrepancy(NamedTuple):
    """A finite set Stein discrepancy, squared, with its error.

    Parameters
    ----------
    value : float
        Unbiased estimate, squared nats per squared standardized unit.
    stderr : float
        Jackknife standard error; same unit.
    bandwidth : float
        Standard deviation of the Gaussian kernel, standardized units.
    """

    value: float
    stderr: float
    bandwidth: float


def finite_set_stein_discrepancy(
    score: Any,
    X: Any,
    locations: Any,
    *,
    bandwidth: float | str = "median",
    standardize: bool = True,
) -> FiniteSetSteinDiscrepancy:
    r"""Return the mean squared Stein witness of rows and a model at given locations.

    .. math::
        \frac{1}{d J} \sum_{j=1}^J |E_{x \sim p}[s(x) k(x, v_j) + \nabla_x k(x, v_j)]|^2, \quad
        k = e^{-|x - v|^2 / (2 \sigma^2)}

    Parameters
    ----------
    score : callable or fitted density
        The model, see `learned_stein_discrepancy`.
    X : array-like of shape (n, d)
        Rows, at least 4 independent draws from p.
    locations : array-like of shape (J, d)
        The :math:`v_j`, in the units of X; not chosen on these rows.
    bandwidth : float or {"median"}, default="median"
        :math:`\sigma` in standardized units, or the median distance of (at most 1000) rows.
    standardize : bool, default=True
        Divide columns by their standard deviation, so that units do not matter.

    Returns
    -------
    FiniteSetSteinDiscrepancy
        Unbiased estimate of the square (it may be negative), standard error, bandwidth.

    Raises
    ------
    ValueError, TypeError
        If the score, the locations or a parameter are unfit; the message names it.

    Notes
    -----
    n d J operations. Far from all locations differences go unseen, and the score itself does not
    see the relative weights of separated modes: a value near 0 certifies neither.

    References
    ----------
    .. [1] W. Jitkrittum, W. Xu, Z. Szabo, K. Fukumizu and A. Gretton, "A Linear-Time Kernel
       Goodness-of-Fit Test", NIPS 2017. Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.stein import finite_set_stein_discrepancy
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> V = np.array([[0.0, 0.0], [1.0, 0.0]])
    >>> right, wrong = (finite_set_stein_discrepancy(lambda x: m - x, X, V).value for m in (0, 1))
    >>> print(f"{right:.3f} {wrong:.3f}")
    0.000 0.485
    """
    if isinstance(bandwidth, str) and bandwidth == "optimized":
        raise ValueError(
            "bandwidth must be a number or 'median', got 'optimized'. goodness_of_fit_test chooses "
            "widths and locations on rows of their own."
        )
    rows = standardized(*shuffled(read_table(score, X)), standardize)
    locations = check_array(locations, dtype=np.float64, input_name="locations")
    if locations.shape[1] != rows.x.shape[1]:
        raise ValueError(
            f"locations must have {rows.x.shape[1]} columns, got {locations.shape[1]}. Give points "
            "in the space of X."
        )
    v = (locations - rows.standardizer.location) / rows.standardizer.scale
    width = choose_bandwidth(rows, bandwidth)
    terms = finite_set_terms(rows, v, width)[0]
    return FiniteSetSteinDiscrepancy(
        float(terms.mean()), float(terms.std(ddof=1) / len(terms) ** 0.5), width
    )


@own_settings()
def finite_set_terms(rows: Rows, v: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return jackknife pseudo-values (n,) of the square, and the features' second moments.

    Parameters
    ----------
    rows : Rows
        Rows and scores.
    v : ndarray of shape (J, d)
        Locations, standardized units.
    width : float
        Standard deviation of the kernel.

    Returns
    -------
    terms : ndarray of shape (n,)
        Their mean is the unbiased estimate.
    moments : ndarray of shape (d J, d J)
        Mean outer product of the features, their covariance where the model is right.
    """
    n, size = len(rows.x), v.size
    points, log_width = torch.from_numpy(v), torch.tensor(np.log(width))
    total, moments = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size).double()
    length = max(1, BLOCK_BYTES // (8 * size))
    blocks = [
        (torch.from_numpy(rows.x[i : i + length]), torch.from_numpy(rows.score[i : i + length]))
        for i in range(0, n, length)
    ]
    for x, s in blocks:
        features = _features(x, s, points, log_width)
        total += features.sum(0)
        moments.addmm_(features.T, features)
    sums = []
    for x, s in blocks:  # again, for memory does not hold the features of all rows
        features = _features(x, s, points, log_width)
        sums.append(features @ total - features.square().sum(1))
    return jackknife(torch.cat(sums).numpy()), moments.numpy() / n


@own_settings()
def optimize_locations(
    rows: Rows, n_locations: int, rng: torch.Generator
) -> tuple[np.ndarray, float]:
    """Return locations (J, d) and the width that maximize the power criterion on these rows.

    Parameters
    ----------
    rows : Rows
        Rows and scores, apart from those of the test.
    n_locations : int
        J; they start as draws from a Gaussian fitted to the rows.
    rng : torch.Generator
        Draws the first locations.

    Returns
    -------
    locations : ndarray of shape (J, d)
        Standardized units.
    width : float
        Standard deviation of the kernel, standardized units.
    """
    x, s = torch.from_numpy(rows.x), torch.from_numpy(rows.score)
    median = choose_bandwidth(rows, "median")
    start = _gaussian_draws(rows.x, n_locations, rng)
    widths = np.log(median) + 0.5 * np.log(GRID)
    powers = [float(_power(x, s, start, torch.tensor(width))) for width in widths]
    first = np.concatenate([[widths[np.argmax(powers)]], start.numpy().ravel()])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(flat).requires_grad_()
        loss = -_power(x, s, leaf[1:].view(n_locations, -1), leaf[0])
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient.numpy()

    margin = 0.5 * rows.x.std(axis=0)
    low, high = rows.x.min(axis=0) - margin, rows.x.max(axis=0) + margin
    limits = np.log(median) + 0.5 * np.log([NARROWEST, WIDEST])
    sides = np.stack([low, high], axis=1)
    bounds = np.concatenate([limits[None], *([sides] * n_locations)])
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": N_STEPS}
    )
    best = found.x if found.fun <= objective(first)[0] else first
    return best[1:].reshape(n_locations, -1), float(np.exp(best[0]))


def _features(
    x: torch.Tensor, s: torch.Tensor, v: torch.Tensor, log_width: torch.Tensor
) -> torch.Tensor:
    """Return the witness terms of each row at each location over sqrt(d J), (n, d J)."""
    precision = (-2 * log_width).exp()
    difference = v - x[:, None]
    kernel = (-0.5 * precision * difference.square().sum(2, keepdim=True)).exp()
    return ((s[:, None] + precision * difference) * kernel).flatten(1) / v.numel() ** 0.5


def _power(
    x: torch.Tensor, s: torch.Tensor, v: torch.Tensor, log_width: torch.Tensor
) -> torch.Tensor:
    """Return the estimate over its regularized standard deviation under the alternative."""
    features, n = _features(x, s, v, log_width), len(x)
    mean = features.mean(0)
    value = (n * mean.square().sum() - features.square().sum() / n) / (n - 1)
    variance = 4 * (features @ mean).var(unbiased=False)
    return value / (variance + REGULARIZATION).sqrt()


@own_settings()
def _gaussian_draws(x: np.ndarray, n: int, rng: torch.Generator) -> torch.Tensor:
    d = x.shape[1]
    covariance = np.atleast_2d(np.cov(x, rowvar=False)) + 1e-6 * np.eye(d)
    noise = torch.randn(n, d, generator=rng, dtype=torch.float64).numpy()
    return torch.from_numpy(x.mean(axis=0) + noise @ np.linalg.cholesky(covariance).T)
