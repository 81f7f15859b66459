"""A spiral in the plane blurred by Gaussian noise, density by quadrature."""

from __future__ import annotations

__all__ = ["SwissRollDensity"]

import numpy as np

from skebm.datasets._base import LARGEST
from skebm.datasets._curves import CurveDensity

SCALE = 5.0  # what the spiral is divided by
START, STOP = 1.5 * np.pi, 4.5 * np.pi  # angles, radians
N_PIECES = 7  # between the ends, three minima and three maxima of the distance
N_NODES = 24  # Gauss-Legendre nodes per piece; within rounding of 200 nodes
N_STEPS = 8  # towards a cut; the error of its logarithm halves with each, or better
DROP = 45.0  # nats below the peak at which an integral stops; exp(-45) is 3e-20


class SwissRollDensity(CurveDensity):
    r"""A spiral with isotropic Gaussian noise.

    ``x = c(t) + noise * z`` where ``c(t) = (t cos t, t sin t) / 5``, the angle t is uniform on
    :math:`(1.5 \pi, 4.5 \pi)` and z is standard Gaussian.

    Parameters
    ----------
    noise : float, default=0.2
        Standard deviation of the noise, > 0, in the units of X. Larger blurs the spiral; its turns
        are 1.26 apart.

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
    The spiral is the first and third column of ``sklearn.datasets.make_swiss_roll`` divided by 5,
    and 0.2 is its noise of 1 divided by 5.

    The integral over the angle is cut where the distance from the row to the spiral is smallest and
    largest, and where the integrand has fallen by 45 nats, and each piece gets 24 Gauss-Legendre
    nodes: the log density has a relative error below 1e-11, near the spiral and far away. A row
    costs 168 exponentials, and memory does not grow with the rows. The entropy is computed when
    first read, by the trapezoidal rule with 2.5 points per `noise`: about ``2000 / noise`` rows for
    a small one.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Figure 2.

    Examples
    --------
    >>> from skebm.datasets import SwissRollDensity
    >>> density = SwissRollDensity(noise=0.2)
    >>> print(density.log_density([[0.0, 1.5], [0.0, 0.0]]).round(4))
    [ -2.0477 -13.5567]
    """

    _width = N_PIECES * N_NODES

    def __init__(self, noise: float = 0.2) -> None:
        super().__init__(noise)

    def _draw(self, n: int, rng: np.random.RandomState) -> np.ndarray:
        points = self._points(rng.uniform(START, STOP, size=n))
        return points + self.noise * rng.standard_normal((n, 2))

    def _angles(self, n: int) -> np.ndarray:
        return np.linspace(START, STOP, n)

    def _points(self, angle: np.ndarray) -> np.ndarray:
        return angle[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1) / SCALE

    def _nodes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        angle, terms, nearest = _nodes(SCALE * x, SCALE * self.noise)
        return angle, terms, nearest / SCALE


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(N_NODES)
_NODES, _LOG_WEIGHTS = 0.5 * (_NODES + 1), np.log(0.5 * _WEIGHTS)  # on (0, 1)


def _nodes(y: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return angles (n, k), the log of what each adds to the density at y, and a distance (n,).

    The terms leave out the square of the distance, that from y to the nearest end of a piece, so
    that they stay finite where it is huge. All lengths are 5 times those of X.
    """
    length, phi = np.hypot(y[:, :1], y[:, 1:]), np.arctan2(y[:, 1:], y[:, :1]) % (2 * np.pi)
    cut = np.minimum(length, LARGEST)
    ends = _ends(cut, phi)
    width = np.diff(ends, axis=1)
    falls = _rise(ends[:, :-1], width, cut, phi) < 0  # pieces start where the density is higher
    start, sign = np.where(falls, ends[:, 1:], ends[:, :-1]), np.where(falls, -1.0, 1.0)
    width = _reach(start, sign * width, cut, phi, 2 * DROP * sigma**2)[..., None]
    step = width * _NODES
    rise = _rise(start[..., None], step, cut[..., None], phi[..., None]) / (2 * sigma**2)
    distance, nearest = _distance(start, cut, phi), _distance(start, length, phi).min(axis=1)
    best = distance.min(axis=1, keepdims=True)
    behind = 0.5 * (distance - best) * (distance + best) / sigma**2
    with np.errstate(divide="ignore"):  # pieces of length 0
        terms = np.log(np.abs(width) / (STOP - START)) + _LOG_WEIGHTS - rise - behind[..., None]
    return (start[..., None] + step).reshape(len(y), -1), terms.reshape(len(y), -1), nearest


def _distance(angle: np.ndarray, length: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Return the distance to y, of square ``(t - l)^2 + 4 t l sin^2((t - phi) / 2)``."""
    across = 2 * np.sqrt(angle) * np.sqrt(length) * np.sin(0.5 * (angle - phi))
    return np.hypot(angle - length, across)


def _rise(start: np.ndarray, step: np.ndarray, length: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Return how much the squared distance grows from an angle to that plus a step.

    Differences of cosines are products of sines, which lose no digits however short the step.
    """
    half = 0.5 * step
    middle = np.sin(start - phi + half)
    turn = step * np.sin(0.5 * (start - phi) + half) ** 2 + start * np.sin(half) * middle
    return step * (step + 2 * (start - length)) + 4 * length * turn


def _ends(length: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Return where the pieces start and stop, (n, 8), increasing: the squared distance is monotone.

    It is stationary where ``cos(t - phi + arctan t) = t / (l sqrt(1 + t^2))``. Solving that for the
    t outside the arctan divides the error by 23 or more each time.
    """
    turns = 2 * np.pi * np.arange(3)
    sides = np.repeat([1.0, -1.0], 3)  # minima, maxima
    angle = np.full((len(phi), 6), 9.0)
    with np.errstate(divide="ignore"):
        for _ in range(8):
            cosine = np.minimum(1, angle / (length * np.sqrt(1 + angle**2)))
            angle = phi + np.tile(turns, 2) + sides * np.arccos(cosine) - np.arctan(angle)
            angle = np.clip(angle, START, STOP)
    outer = np.broadcast_to([START, STOP], (len(phi), 2))
    return np.sort(np.concatenate([angle, outer], axis=1), axis=1)


def _reach(
    start: np.ndarray, step: np.ndarray, length: np.ndarray, phi: np.ndarray, most: float
) -> np.ndarray:
    """Return the step, shortened to where the squared distance has risen by `most`."""
    longest = np.abs(step)
    short = longest
    for _ in range(N_STEPS):
        rise = _rise(start, np.copysign(short, step), length, phi)
        short = np.minimum(longest, short * np.sqrt(most / np.maximum(rise, 1e-30 * most)))
    return np.copysign(short, step)
