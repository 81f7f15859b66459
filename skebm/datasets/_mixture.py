"""Mixtures of axis-aligned Gaussians."""

from __future__ import annotations

__all__ = ["GaussianMixtureDensity"]

from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.exceptions import ConvergenceWarning

from skebm._components import as_finite
from skebm._warn import warn
from skebm.datasets._base import LARGEST, KnownDensity

REACH = 8.0  # standard deviations that the entropy's nodes cover; 1.2e-15 of the mass is beyond
ENTROPY_TOLERANCE = 1e-9  # nats between two grids, the finer with half the spacing


class GaussianMixtureDensity(KnownDensity):
    """Mixture of Gaussians with diagonal covariances.

    ``log p(x) = log sum_k weights_k N(x; means_k, diag(scales_k^2))``

    Parameters
    ----------
    means : array-like of shape (k, d)
        Centers, in the units of X.
    scales : float or array-like of shape (k,) or (k, d)
        Standard deviations, > 0, in the units of X: one for all, one per component, or one per
        component and axis. Larger blurs the modes.
    weights : array-like of shape (k,), default=None
        Masses of the components, > 0, sum 1, dimensionless; ``None`` means equal.

    Attributes
    ----------
    means, scales : ndarray of shape (k, d)
        Centers and standard deviations.
    weights : ndarray of shape (k,)
        Masses.
    n_features : int
        The dimension d.
    entropy : float or None
        Differential entropy in nats, to about 1e-9; ``None`` if d > 2.

    Raises
    ------
    ValueError
        If shapes do not fit, a scale or weight is not positive, or the weights do not sum to 1.

    Notes
    -----
    A row costs ``k d`` operations. The entropy is computed when first read, by a product
    trapezoidal rule around each component, halving the spacing until two grids agree; a
    ``ConvergenceWarning`` tells by how much they differ if they never do (scales that differ by a
    factor of hundreds).

    Examples
    --------
    >>> from skebm.datasets import GaussianMixtureDensity
    >>> density = GaussianMixtureDensity([[-1.0], [1.0]], 0.5, [0.25, 0.75])
    >>> print(f"{density.log_density([[0.0]])[0]:.4f}")
    -2.2258
    >>> density.sample(3, random_state=0).shape
    (3, 1)
    """

    def __init__(self, means: Any, scales: Any, weights: Any = None) -> None:
        self.means = as_finite("means", means)
        if self.means.ndim != 2 or not self.means.size:
            raise ValueError(
                f"means must have shape (k, d), got {self.means.shape}. Pass one row per component."
            )
        self.n_features = self.means.shape[1]
        self.scales = _as_scales(scales, self.means.shape)
        self.weights = _as_weights(weights, len(self.means))
        self._width = len(self.means)

    @cached_property
    def entropy(self) -> float | None:
        """Differential entropy in nats; None if d > 2."""
        if self.n_features > 2:
            return None
        previous, change = np.inf, np.inf
        for doublings in range(5, 17 if self.n_features == 1 else 10):
            value = self._entropy_on(2**doublings + 1)
            change, previous = abs(value - previous), value
            if change < ENTROPY_TOLERANCE:
                return value
        warn(
            f"The entropy {previous:.6g} nats may be off by {change:.2g} nats; use scales that "
            "are closer to each other.",
            ConvergenceWarning,
        )
        return previous

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        nearest, terms = self._log_terms(x)
        return logsumexp(terms, axis=1) - 0.5 * nearest

    def _score(self, x: np.ndarray) -> np.ndarray:
        share = softmax(self._log_terms(x)[1], axis=1)
        pulls = [
            (share * (mean - column[:, None]) / scale**2).sum(axis=1)
            for column, mean, scale in zip(x.T, self.means.T, self.scales.T, strict=True)
        ]
        return np.stack(pulls, axis=1)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        component = rng.choice(len(self.means), size=n, p=self.weights)
        noise = rng.standard_normal((n, self.n_features))
        return self.means[component] + self.scales[component] * noise

    def _log_terms(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the least squared distance (n,), in scales, and the log terms (n, k) without it.

        They stay finite where it is huge: rows beyond ``LARGEST`` are compared from there.
        """
        cut = np.maximum(1, np.abs(x).max(axis=1) / LARGEST)
        squares = np.zeros((len(x), len(self.means)))
        for column, mean, scale in zip(x.T / cut, self.means.T, self.scales.T, strict=True):
            squares += np.square((column[:, None] - mean) / scale)
        nearest = squares.min(axis=1)
        peak = np.log(self.weights) - np.log(self.scales).sum(axis=1)
        peak = peak - 0.5 * self.n_features * np.log(2 * np.pi)
        return nearest * cut**2, peak - 0.5 * (squares - nearest[:, None])

    def _entropy_on(self, n_nodes: int) -> float:
        axis = np.linspace(-REACH, REACH, n_nodes)
        nodes = np.stack(np.meshgrid(*[axis] * self.n_features), axis=-1)
        nodes = nodes.reshape(-1, self.n_features)
        mass = np.exp(-0.5 * np.square(nodes).sum(axis=1))
        inside = mass > np.exp(-0.5 * REACH**2)  # a disk: the corners hold nothing
        nodes, mass = nodes[inside], mass[inside] / mass[inside].sum()
        components = zip(self.weights, self.means, self.scales, strict=True)
        means = [w * (mass @ self.log_density(m + s * nodes)) for w, m, s in components]
        return -float(np.sum(means))


def _as_scales(scales: Any, shape: tuple[int, int]) -> np.ndarray:
    scales = as_finite("scales", scales)
    if scales.shape not in ((), shape[:1], shape):
        raise ValueError(
            f"scales must be a number or have shape {shape[:1]} or {shape}, got {scales.shape}. "
            "Give one per component, or one per component and axis."
        )
    if not (scales > 0).all():
        raise ValueError(f"scales must be > 0, got {scales.min():g}. They are standard deviations.")
    if scales.ndim == 1:
        scales = scales[:, None]
    return np.broadcast_to(scales, shape).copy()


def _as_weights(weights: Any, n_components: int) -> np.ndarray:
    if weights is None:
        return np.full(n_components, 1 / n_components)
    weights = as_finite("weights", weights)
    if weights.shape != (n_components,):
        raise ValueError(
            f"weights must have shape ({n_components},), got {weights.shape}. "
            "Give one per row of means."
        )
    if not (weights > 0).all():
        raise ValueError(f"weights must be > 0, got {weights.min():g}. Drop empty components.")
    if abs(weights.sum() - 1) > 1e-8:
        raise ValueError(f"weights must sum to 1, got {weights.sum():g}. Divide them by their sum.")
    return weights / weights.sum()
