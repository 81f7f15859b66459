"""The scikit-learn surface."""

__all__ = ["EnergyDensity", "HybridCDDensity", "USPDensity"]

from skebm.estimators._base import EnergyDensity
from skebm.estimators.hybrid_cd import HybridCDDensity
from skebm.estimators.usp import USPDensity
