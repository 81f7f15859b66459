"""The scikit-learn surface."""

__all__ = [
    "BoundsEBM",
    "EnergyDensity",
    "HybridCDDensity",
    "NCEDensity",
    "ScoreMatchingDensity",
    "SteinEBM",
    "USPDensity",
]

from skebm.estimators.bounds import BoundsEBM
from skebm.estimators.energy_density import EnergyDensity
from skebm.estimators.hybrid_cd import HybridCDDensity
from skebm.estimators.nce import NCEDensity
from skebm.estimators.score_matching import ScoreMatchingDensity
from skebm.estimators.stein import SteinEBM
from skebm.estimators.usp import USPDensity
