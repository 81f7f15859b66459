"""Numbers that judge a fitted density or a generator."""

__all__ = [
    "AnisotropyIndex",
    "BitsPerDim",
    "GridKL",
    "InceptionScore",
    "ModeCount",
    "ModeMasses",
    "NoveltyScorer",
    "PrecisionRecall",
    "anisotropy_index",
    "best_within_error",
    "bits_per_dim",
    "frechet_distance",
    "grid_kl",
    "inception_score",
    "ks_2d",
    "log_likelihood_scorer",
    "mode_count",
    "mode_masses",
    "ood_metrics",
    "prd_f_beta",
]

from skebm.metrics.anisotropy import AnisotropyIndex, anisotropy_index
from skebm.metrics.bits import BitsPerDim, bits_per_dim
from skebm.metrics.features import (
    InceptionScore,
    PrecisionRecall,
    frechet_distance,
    inception_score,
    prd_f_beta,
)
from skebm.metrics.grid import GridKL, grid_kl
from skebm.metrics.kolmogorov_smirnov import ks_2d
from skebm.metrics.mode_counting import ModeCount, mode_count
from skebm.metrics.modes import ModeMasses, mode_masses
from skebm.metrics.ood import ood_metrics
from skebm.metrics.selection import NoveltyScorer, best_within_error, log_likelihood_scorer
