"""Concentric rings in a plane, with a thin Gaussian in every other dimension."""

from __future__ import annotations

__all__ = ["RingsDensity"]

from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import i0e, i1e, logsumexp, softmax

from skebm._components import as_finite, as_table, check_number
from skebm.datasets._base import KnownDensity, in_blocks

REACH = 9  # standard deviations from the rings that the entropy's panels cover
N_NODES = 16  # Gauss-Legendre nodes per panel of one standard deviation: within rounding of 64
LARGEST = 1e200  # lengths in units of `wide` are cut here: their squares are infinite in float64


class RingsDensity(KnownDensity):
    r"""Concentric rings in the first two columns, Gaussian noise in all.

    ``x = (r cos t, r sin t, 0, ..., 0) + noise``, where r is one of the radii, each equally
    likely, t is uniform on the circle, and the noise is Gaussian with standard deviation `wide`
    in the first three columns and `narrow` in the others. With :math:`\ell = |(x_1, x_2)|`, s =
    `wide` and k radii, the first two columns have the density

    .. math:: p(x_1, x_2) = \frac{1}{2 \pi s^2 k} \sum_r \tilde I_0(r \ell / s^2)
        \exp(-(\ell - r)^2 / (2 s^2)), \quad \tilde I_0(z) = e^{-z} I_0(z).

    Parameters
    ----------
    radii : array-like of shape (k,), default=(1, 2, 3)
        Radii of the rings, >= 0, in the units of X.
    wide : float, default=0.1
        Standard deviation in the first three columns, > 0, in the units of X. Larger blurs the
        rings.
    narrow : float, default=0.01
        Standard deviation in the columns from the fourth on, > 0, in the units of X. Smaller makes
        them thinner, and Langevin chains need shorter steps.
    n_features : int, default=10
        The dimension d, >= 2.

    Attributes
    ----------
    radii : ndarray of shape (k,)
        Radii of the rings.
    scales : ndarray of shape (d,)
        Standard deviation of the noise in each column.
    n_features : int
        The dimension d.
    entropy : float
        Differential entropy in nats, by quadrature along a radius, to about 1e-12.

    Raises
    ------
    ValueError
        If a radius is negative, a standard deviation is not positive, or d < 2.

    Notes
    -----
    A row costs ``k`` Bessel functions and ``d`` operations. The score is 0 at the center of the
    rings, and nothing overflows far out until the value itself has no float64.

    The *slice* of the density through the plane of the rings is `log_density` of rows that are 0 in
    the other columns. It is `log_marginal` plus a constant, the log density of the other columns
    at 0: 27.187 nats with the defaults.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section A.1.

    Examples
    --------
    >>> from skebm.datasets import RingsDensity
    >>> density = RingsDensity()
    >>> print(f"{density.entropy:.6f}")
    -20.538319
    >>> print(density.log_marginal([[1.0, 0.0], [1.5, 0.0]]).round(4))
    [ -1.5516 -13.7201]
    """

    def __init__(
        self,
        radii: Any = (1.0, 2.0, 3.0),
        wide: float = 0.1,
        narrow: float = 0.01,
        n_features: int = 10,
    ) -> None:
        self.radii = _as_radii(radii)
        check_number("wide", wide, low=0, open_low=True, remedy="Try 0.1.")
        check_number("narrow", narrow, low=0, open_low=True, remedy="Try 0.01.")
        check_number("n_features", n_features, low=2, integer=True, remedy="Rings need a plane.")
        self.n_features = int(n_features)
        self._width = len(self.radii)
        self.scales = np.where(np.arange(self.n_features) < 3, float(wide), float(narrow))

    def log_marginal(self, XY: Any) -> np.ndarray:
        """Return the log density of the first two columns, the others integrated out.

        Parameters
        ----------
        XY : array-like of shape (n, 2)
            Rows of the plane of the rings.

        Returns
        -------
        ndarray of shape (n,)
            Log density in nats, in the units of X.
        """
        rows = as_table("XY", XY, 2, "Pass the first two columns.")
        return in_blocks(self._log_marginal, rows, self._width)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        steps = self.scales[0] * np.arange(-REACH, REACH + 1)
        edges = np.unique(np.maximum(0, self.radii[:, None] + steps))
        nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
        half = 0.5 * np.diff(edges)[:, None]
        length = (edges[:-1, None] + half * (nodes + 1)).ravel()
        log_density = self.log_marginal(np.column_stack([length, np.zeros_like(length)]))
        mass = (half * weights).ravel() * 2 * np.pi * length * np.exp(log_density)
        other = 0.5 * (self.n_features - 2) + _log_peak(self.scales[2:])
        return float(other - mass @ log_density)

    def _log_density(self, x: np.ndarray) -> np.ndarray:
        squares = np.square(x[:, 2:] / self.scales[2:]).sum(axis=1)
        return self._log_marginal(x[:, :2]) - 0.5 * squares - _log_peak(self.scales[2:])

    def _score(self, x: np.ndarray) -> np.ndarray:
        score = -x / self.scales**2
        score[:, :2] += self._pull(x[:, :2])
        return score

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        radius = self.radii[rng.randint(len(self.radii), size=n)]
        angle = rng.uniform(0, 2 * np.pi, size=n)
        x = self.scales * rng.standard_normal((n, self.n_features))
        x[:, 0] += radius * np.cos(angle)
        x[:, 1] += radius * np.sin(angle)
        return x

    def _log_marginal(self, xy: np.ndarray) -> np.ndarray:
        _, nearest, terms = self._log_terms(xy)
        peak = np.log(len(self.radii)) + _log_peak(self.scales[:2])
        return logsumexp(terms, axis=1) - 0.5 * np.square(nearest) - peak

    def _pull(self, xy: np.ndarray) -> np.ndarray:
        """Return what the rings add to the score of a Gaussian at the center."""
        length, _, terms = self._log_terms(xy)
        radii = self.radii / self.scales[0]
        z = radii * length
        pull = (softmax(terms, axis=1) * radii * i1e(z) / i0e(z)).sum(axis=1) / self.scales[0]
        return xy / np.maximum(length * self.scales[0], np.finfo(float).tiny) * pull[:, None]

    def _log_terms(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return lengths (n, 1), distances to the nearest ring (n,), and what each ring adds.

        The square of the distance is left out of all terms, so that they stay finite where it is
        huge. Lengths are in units of `wide`.
        """
        length = np.minimum(np.hypot(xy[:, :1], xy[:, 1:]) / self.scales[0], LARGEST)
        distance = np.abs(length - self.radii / self.scales[0])
        nearest = distance.min(axis=1, keepdims=True)
        behind = 0.5 * (distance - nearest) * (distance + nearest)
        return length, nearest[:, 0], np.log(i0e(self.radii / self.scales[0] * length)) - behind


def _log_peak(scales: np.ndarray) -> float:
    """Return minus the log density of a Gaussian with these standard deviations at its center."""
    return float(np.log(scales).sum() + 0.5 * len(scales) * np.log(2 * np.pi))


def _as_radii(radii: Any) -> np.ndarray:
    radii = as_finite("radii", radii)
    if radii.ndim != 1 or not radii.size:
        raise ValueError(f"radii must have shape (k,), got {radii.shape}. Give one per ring.")
    if radii.min() < 0:
        raise ValueError(f"radii must be >= 0, got {radii.min():g}. Drop the sign.")
    return radii
