"""Pictures of fitted densities, in scikit-learn's Display convention."""

__all__ = ["ChainDisplay", "DensityDisplay", "EnergyHistogramDisplay", "HistoryDisplay"]

from skebm.plots.chains import ChainDisplay
from skebm.plots.density import DensityDisplay
from skebm.plots.energy_histogram import EnergyHistogramDisplay
from skebm.plots.history import HistoryDisplay
