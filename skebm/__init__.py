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
]

from importlib.metadata import version

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
