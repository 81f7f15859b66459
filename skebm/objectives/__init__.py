"""Training principles, one a file; each reads like the algorithm of its paper."""

__all__ = [
    "BidirectionalBounds",
    "ChainStart",
    "ConditionalNoiseContrastive",
    "ContrastiveDivergence",
    "DenoisingScoreMatching",
    "EnergyStep",
    "ExactLikelihood",
    "GeneratorEntropy",
    "HeldOut",
    "ImportanceLikelihood",
    "LearnedStein",
    "NoiseContrastive",
    "Objective",
    "Optimization",
    "PartitionLikelihood",
    "ScoreMatching",
    "State",
    "TiedCritic",
    "UpperBound",
    "descend",
]

from skebm.objectives._base import HeldOut, Objective, Optimization, State, descend
from skebm.objectives.bidirectional_bounds import BidirectionalBounds
from skebm.objectives.chain_start import ChainStart
from skebm.objectives.conditional_noise_contrastive import ConditionalNoiseContrastive
from skebm.objectives.contrastive_divergence import ContrastiveDivergence
from skebm.objectives.denoising_score_matching import DenoisingScoreMatching
from skebm.objectives.energy_step import EnergyStep
from skebm.objectives.exact_likelihood import ExactLikelihood
from skebm.objectives.game_settings import GeneratorEntropy, UpperBound
from skebm.objectives.importance_likelihood import ImportanceLikelihood
from skebm.objectives.learned_stein import LearnedStein
from skebm.objectives.noise_contrastive import NoiseContrastive
from skebm.objectives.score_matching import ScoreMatching
from skebm.objectives.support_partition import PartitionLikelihood
from skebm.objectives.tied_critic import TiedCritic
