"""Energy-based density models with normalized log densities, for scikit-learn users."""

__all__ = [
    "BoundsEBM",
    "EnergyDensity",
    "HybridCDDensity",
    "NCEDensity",
    "ScoreMatchingDensity",
    "SteinEBM",
    "USPDensity",
    "__version__",
    "show_versions",
]

from importlib.metadata import version

from skebm._versions import show_versions
from skebm.estimators import (
    BoundsEBM,
    EnergyDensity,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)

__version__ = version("skebm")
