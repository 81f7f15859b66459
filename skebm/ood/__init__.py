"""Novelty detection on top of any density estimator."""

__all__ = [
    "ConformalNoveltyDetector",
    "EnsembleDensity",
    "LikelihoodRatioDetector",
    "ScoreNormDetector",
    "ThresholdDetector",
    "TypicalityDetector",
    "feature_contributions",
]

from skebm.ood.conformal import ConformalNoveltyDetector
from skebm.ood.contributions import feature_contributions
from skebm.ood.ensemble import EnsembleDensity
from skebm.ood.likelihood_ratio import LikelihoodRatioDetector
from skebm.ood.score_norm import ScoreNormDetector
from skebm.ood.thresholds import ThresholdDetector
from skebm.ood.typicality import TypicalityDetector
