"""Two interleaved half circles blurred by Gaussian noise, density by quadrature."""

from __future__ import annotations

__all__ = ["TwoMoonsDensity"]

import numpy as np

from skebm.datasets._base import LARGEST
from skebm.datasets._curves import CurveDensity

CENTER = np.array([1.0, 0.5])  # the second moon is CENTER minus the first
N_NODES = 32  # Gauss-Legendre nodes per side of a peak; within rounding of 400 nodes
DROP = 45.0  # nats below the peak at which an integral stops; exp(-45) is 3e-20


class TwoMoonsDensity(CurveDensity):
    """Two half circles of radius 1 with isotropic Gaussian noise.

    ``x = c(t) + noise * z`` or ``x = (1, 0.5) - c(t) + noise * z``, each with probability 1/2,
    where ``c(t) = (cos t, sin t)``, t is uniform on ``(0, pi)`` and z is standard Gaussian.

    Parameters
    ----------
    noise : float, default=0.1
        Standard deviation of the noise, > 0, in the units of X. Larger blurs the moons.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise.
    n_features : int
        The dimension, 2.
    entropy : float
        Differential entropy in nats, by quadrature on a grid.

    Raises
    ------
    ValueError
        If `noise` is not positive and finite.

    Notes
    -----
    The curves are those of ``sklearn.datasets.make_moons``, which spaces the angles evenly where
    this density draws them. The integral over the angle is cut where the integrand peaks and where
    it has fallen by 45 nats, and each piece gets 32 Gauss-Legendre nodes: the log density has a
    relative error below 1e-12, near the moons and far away. A row costs 128 exponentials, and
    memory does not grow with the rows. The entropy is computed when first read, by the
    trapezoidal rule with 2.5 points per `noise`: about ``1400 / noise`` rows for a small one.

    Examples
    --------
    >>> from skebm.datasets import TwoMoonsDensity
    >>> density = TwoMoonsDensity(noise=0.1)
    >>> print(density.log_density([[0.0, 1.0], [0.0, 0.0]]).round(4))
    [-0.453  -1.2055]
    """

    _width = 4 * N_NODES

    def __init__(self, noise: float = 0.1) -> None:
        super().__init__(noise)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        point = _circle(rng.uniform(0, np.pi, size=n))
        second = rng.randint(2, size=n)[:, None] == 1
        point = np.where(second, CENTER - point, point)
        return point + self.noise * rng.standard_normal((n, 2))

    def _angles(self, n: int) -> np.ndarray:
        return np.tile(np.linspace(0, np.pi, n), 2)

    def _points(self, angle: np.ndarray) -> np.ndarray:
        first, second = np.split(angle, 2, axis=-1)
        return np.concatenate([_circle(first), CENTER - _circle(second)], axis=-2)

    def _nodes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        moons = [_half_circle(y, self.noise) for y in (x, CENTER - x)]
        angle, terms = (np.concatenate([moon[i] for moon in moons], axis=1) for i in (0, 1))
        distance = np.stack([moon[2] for moon in moons], axis=1)
        nearest = distance.min(axis=1, keepdims=True)
        behind = 0.5 * (distance - nearest) * (distance + nearest) / self.noise**2
        return angle, terms - np.repeat(behind, 2 * N_NODES, axis=1), nearest[:, 0]


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _half_circle(x: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return angles, the log of what each adds to the density at x, and the circle's distance.

    With l = |x|, phi the angle of x and u the angle between x and the point on the curve, the
    squared distance is ``(l - 1)^2 + 2 l (1 - cos u)``; the terms leave the first part out. It
    grows with |u|, so the integrand falls from each peak: in the upper half plane from phi to both
    ends; in the lower half plane from both ends, where |u| is ``phi - pi`` and ``2 pi - phi``,
    inward.
    """
    length, phi = np.hypot(x[:, 0], x[:, 1]), np.arctan2(x[:, 1], x[:, 0]) % (2 * np.pi)
    kappa, above = np.minimum(length, LARGEST) / noise**2, phi <= np.pi
    near = np.where(above, 0, phi - np.pi)  # |u| at the peaks at t = pi and t = 0
    far = np.where(above, 0, 2 * np.pi - phi)
    down = _piece(np.minimum(phi, np.pi), -1, near, np.where(above, phi, far), kappa)
    up = _piece(np.where(above, phi, 0), 1, far, np.where(above, np.pi - phi, near), kappa)
    angle, terms = (np.concatenate(pair, axis=1) for pair in zip(down, up, strict=True))
    return angle, terms - np.log(2 * np.pi), np.abs(length - 1)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(N_NODES)
_NODES, _LOG_WEIGHTS = 0.5 * (_NODES + 1), np.log(0.5 * _WEIGHTS)  # on (0, 1)


def _piece(
    start: np.ndarray, sign: int, offset: np.ndarray, width: np.ndarray, kappa: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and log terms of ``exp(-kappa (1 - cos u))`` for u from offset, up to width on.

    Differences of cosines are products of sines, which lose no digits however narrow the peak.
    """
    with np.errstate(divide="ignore"):
        fall = 0.5 * DROP / kappa  # what sin^2(u / 2) may gain
        end = 2 * np.arcsin(np.sqrt(np.minimum(1, np.sin(offset / 2) ** 2 + fall)))
        reach = 2 * np.arcsin(np.minimum(1, fall / np.sin((end + offset) / 2)))
        width = np.minimum(width, reach)[:, None]
        step = width * _NODES
        cost = np.sin(offset / 2)[:, None] ** 2 + np.sin(step / 2) * np.sin(
            step / 2 + offset[:, None]
        )
        terms = np.log(width) + _LOG_WEIGHTS - 2 * kappa[:, None] * cost
    return start[:, None] + sign * step, terms
