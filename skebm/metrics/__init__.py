"""Numbers that judge a fitted density."""

__all__ = ["GridKL", "ModeMasses", "grid_kl", "ks_2d", "mode_masses", "ood_metrics"]

from skebm.metrics.grid import GridKL, grid_kl
from skebm.metrics.kolmogorov_smirnov import ks_2d
from skebm.metrics.modes import ModeMasses, mode_masses
from skebm.metrics.ood import ood_metrics
