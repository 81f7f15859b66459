"""Curves in the plane blurred by Gaussian noise, density by quadrature along them."""

from __future__ import annotations

__all__ = ["CurveDensity"]

from abc import abstractmethod
from functools import cached_property

import numpy as np
from scipy.spatial import KDTree
from scipy.special import logsumexp, softmax

from skebm._components import check_number
from skebm.datasets._base import KnownDensity

REACH = 9.0  # standard deviations from the curves that the entropy's grid covers


class CurveDensity(KnownDensity):
    """Points at random on curves, plus Gaussian noise; a subclass says where the curves are."""

    n_features = 2

    def __init__(self, noise: float) -> None:
        check_number("noise", noise, low=0, open_low=True, remedy="Try 0.1.")
        self.noise = float(noise)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        step, reach = 0.4 * self.noise, REACH * self.noise
        points = self._points(self._angles(2 + int(36 / step)))  # less than a step apart
        tree = KDTree(points)
        low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
        x2 = np.arange(low[1], high[1] + step, step)
        total = 0.0
        for x1 in np.arange(low[0], high[0] + step, step):
            column = np.column_stack([np.full_like(x2, x1), x2])
            column = column[tree.query(column)[0] < reach]
            if len(column):
                log_density = self.log_density(column)
                total += (np.exp(log_density) * log_density).sum()
        return -float(total * step**2)

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        _, terms, nearest = self._nodes(x)
        peak = 0.5 * np.square(nearest / self.noise) + np.log(2 * np.pi * self.noise**2)
        return logsumexp(terms, axis=1) - peak

    def _score(self, x: np.ndarray) -> np.ndarray:
        angle, terms, _ = self._nodes(x)
        share = softmax(terms, axis=1)[..., None]
        return ((share * self._points(angle)).sum(axis=1) - x) / self.noise**2

    @abstractmethod
    def _angles(self, n: int) -> np.ndarray:
        """Return evenly spaced angles along the curves, n along each."""

    @abstractmethod
    def _points(self, angle: np.ndarray) -> np.ndarray:
        """Return the points of the curves (..., k, 2) at angles (..., k)."""

    @abstractmethod
    def _nodes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return angles (n, k), the log of what each adds to the density at x, a distance (n,).

        The terms (n, k) leave out the Gaussian of the distance, so that they stay finite where its
        square is huge.
        """
