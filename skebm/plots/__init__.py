"""Pictures of fitted densities, in scikit-learn's Display convention."""

__all__ = ["DensityDisplay", "HistoryDisplay"]

from skebm.plots.density import DensityDisplay
from skebm.plots.history import HistoryDisplay
