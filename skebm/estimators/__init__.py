"""The scikit-learn surface."""

__all__ = ["EnergyDensity", "HybridCDDensity"]

from skebm.estimators._base import EnergyDensity
from skebm.estimators.hybrid_cd import HybridCDDensity
