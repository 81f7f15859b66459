"""Numbers that judge a fitted density."""

__all__ = [
    "BitsPerDim",
    "GridKL",
    "ModeMasses",
    "bits_per_dim",
    "grid_kl",
    "ks_2d",
    "mode_masses",
    "ood_metrics",
]

from skebm.metrics.bits import BitsPerDim, bits_per_dim
from skebm.metrics.grid import GridKL, grid_kl
from skebm.metrics.kolmogorov_smirnov import ks_2d
from skebm.metrics.modes import ModeMasses, mode_masses
from skebm.metrics.ood import ood_metrics
