"""Pictures of fitted densities and of detectors, in scikit-learn's Display convention."""

__all__ = [
    "ChainDisplay",
    "ConditionalDisplay",
    "DensityDisplay",
    "DensityPairsDisplay",
    "EnergyHistogramDisplay",
    "HistoryDisplay",
    "OODPrecisionRecallDisplay",
    "OODRocDisplay",
    "PValueHistogramDisplay",
    "ScoreHistogramDisplay",
]

from skebm.plots.chains import ChainDisplay
from skebm.plots.conditional import ConditionalDisplay
from skebm.plots.density import DensityDisplay
from skebm.plots.density_pairs import DensityPairsDisplay
from skebm.plots.energy_histogram import EnergyHistogramDisplay
from skebm.plots.history import HistoryDisplay
from skebm.plots.ood_curves import OODPrecisionRecallDisplay, OODRocDisplay
from skebm.plots.p_value_histogram import PValueHistogramDisplay
from skebm.plots.score_histogram import ScoreHistogramDisplay
