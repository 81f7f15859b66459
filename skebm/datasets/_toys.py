"""The toy densities of the papers and of the benchmarks, ready made."""

from __future__ import annotations

__all__ = [
    "checkerboard",
    "eight_modes",
    "grid_25",
    "rings_10d",
    "six_modes",
    "swiss_roll",
    "two_modes_1d",
    "two_moons",
]

import numpy as np

from skebm.datasets._checkerboard import Checkerboard
from skebm.datasets._mixture import GaussianMixtureDensity
from skebm.datasets._rings import RingsDensity
from skebm.datasets._swiss_roll import SwissRollDensity
from skebm.datasets._two_moons import TwoMoonsDensity


def two_modes_1d() -> GaussianMixtureDensity:
    """Return two narrow modes on the line, ``0.5 N(-0.5, 0.05^2) + 0.5 N(0.5, 0.05^2)``.

    Returns
    -------
    GaussianMixtureDensity
        Density with d = 1 and entropy -0.883647 nats.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating out-of-distribution data density overestimation in
       energy-based models". Figure 1.

    Examples
    --------
    >>> from skebm.datasets import two_modes_1d
    >>> print(f"{two_modes_1d().entropy:.6f}")
    -0.883647
    """
    return GaussianMixtureDensity([[-0.5], [0.5]], 0.05)


def six_modes() -> GaussianMixtureDensity:
    """Return six equal modes on the unit circle, standard deviation 0.1.

    Returns
    -------
    GaussianMixtureDensity
        Density with d = 2 and entropy 0.024465 nats.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating out-of-distribution data density overestimation in
       energy-based models". Figure 4.

    Examples
    --------
    >>> from skebm.datasets import six_modes
    >>> print(f"{six_modes().entropy:.6f}")
    0.024465
    """
    return GaussianMixtureDensity(_on_unit_circle(6), 0.1)


def eight_modes() -> GaussianMixtureDensity:
    """Return eight equal modes on the unit circle, standard deviation 0.15.

    Returns
    -------
    GaussianMixtureDensity
        Density with d = 2 and entropy 1.093234 nats.

    References
    ----------
    .. [1] M. Bunino, "On the difficulty of training MCMC-based maximum likelihood learning of
       energy-based models". Section 4.1; radius and deviation are those of its author's code.

    Examples
    --------
    >>> from skebm.datasets import eight_modes
    >>> print(f"{eight_modes().entropy:.6f}")
    1.093234
    """
    return GaussianMixtureDensity(_on_unit_circle(8), 0.15)


def grid_25() -> GaussianMixtureDensity:
    """Return 25 equal, very narrow modes on a square grid.

    Centers ``2 (i, j)`` for i, j in -2..2 and standard deviation 0.05, all divided by 2.828.

    Returns
    -------
    GaussianMixtureDensity
        Density with d = 2 and entropy -2.013851 nats.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Figure 2.

    Examples
    --------
    >>> from skebm.datasets import grid_25
    >>> print(f"{grid_25().entropy:.6f}")
    -2.013851
    """
    axis = 2.0 * np.arange(-2, 3)
    centers = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return GaussianMixtureDensity(centers / 2.828, 0.05 / 2.828)


def rings_10d() -> RingsDensity:
    """Return three thin rings of radius 1, 2 and 3 in the first two of ten columns.

    Returns
    -------
    RingsDensity
        Density with d = 10 and entropy -20.538319 nats; its first two columns have entropy
        2.648949 nats.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section A.1.

    Examples
    --------
    >>> from skebm.datasets import rings_10d
    >>> print(f"{rings_10d().entropy:.6f}")
    -20.538319
    """
    return RingsDensity()


def checkerboard() -> Checkerboard:
    """Return the uniform density on alternate cells of ``[-4, 4)^2``, cells of side 2.

    Returns
    -------
    Checkerboard
        Density with d = 2 and entropy ``log 32`` nats.

    Examples
    --------
    >>> from skebm.datasets import checkerboard
    >>> print(f"{checkerboard().entropy:.6f}")
    3.465736
    """
    return Checkerboard()


def two_moons(noise: float = 0.1) -> TwoMoonsDensity:
    """Return two interleaved half circles blurred by Gaussian noise.

    Parameters
    ----------
    noise : float, default=0.1
        Standard deviation of the noise, > 0, in the units of X. Larger blurs the moons.

    Returns
    -------
    TwoMoonsDensity
        Density with d = 2.

    Raises
    ------
    ValueError
        If `noise` is not positive and finite.

    Examples
    --------
    >>> from skebm.datasets import two_moons
    >>> two_moons().sample(5, random_state=0).shape
    (5, 2)
    """
    return TwoMoonsDensity(noise)


def swiss_roll(noise: float = 0.2) -> SwissRollDensity:
    """Return a spiral blurred by Gaussian noise.

    The points ``(t cos t, t sin t) / 5``, t uniform between 1.5 pi and 4.5 pi, plus noise.

    Parameters
    ----------
    noise : float, default=0.2
        Standard deviation of the noise, > 0, in the units of X: 1 before the division by 5. Larger
        blurs the spiral.

    Returns
    -------
    SwissRollDensity
        Density with d = 2; entropy 2.669646 nats with the default.

    Raises
    ------
    ValueError
        If `noise` is not positive and finite.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Figure 2.

    Examples
    --------
    >>> from skebm.datasets import swiss_roll
    >>> print(f"{swiss_roll().entropy:.6f}")
    2.669646
    """
    return SwissRollDensity(noise)


def _on_unit_circle(n_modes: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n_modes) / n_modes
    return np.column_stack([np.cos(angle), np.sin(angle)])
