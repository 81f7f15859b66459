"""Novelty detection on top of any density estimator."""

__all__ = [
    "ConformalNoveltyDetector",
    "EnsembleDensity",
    "KernelScoreDetector",
    "LikelihoodRatioDetector",
    "LocalMahalanobisDetector",
    "NeighborDistanceDetector",
    "NoveltyDetector",
    "Reason",
    "ScoreNormDetector",
    "ThresholdDetector",
    "TypicalityDetector",
    "feature_contributions",
    "reasons",
]

from skebm.ood.conformal import ConformalNoveltyDetector
from skebm.ood.contributions import feature_contributions
from skebm.ood.ensemble import EnsembleDensity
from skebm.ood.explanations import Reason, reasons
from skebm.ood.kernel_score import KernelScoreDetector
from skebm.ood.likelihood_ratio import LikelihoodRatioDetector
from skebm.ood.local_mahalanobis import LocalMahalanobisDetector
from skebm.ood.neighbor_distance import NeighborDistanceDetector
from skebm.ood.novelty import NoveltyDetector
from skebm.ood.score_norm import ScoreNormDetector
from skebm.ood.thresholds import ThresholdDetector
from skebm.ood.typicality import TypicalityDetector
