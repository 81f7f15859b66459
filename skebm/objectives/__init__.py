"""Training principles, one a file; each reads like the algorithm of its paper."""

__all__ = [
    "ContrastiveDivergence",
    "EnergyStep",
    "HeldOut",
    "ImportanceLikelihood",
    "Objective",
    "Optimization",
    "PartitionLikelihood",
    "State",
]

from skebm.objectives._base import Objective, Optimization, State
from skebm.objectives._held_out import HeldOut
from skebm.objectives.contrastive_divergence import ContrastiveDivergence
from skebm.objectives.energy_step import EnergyStep
from skebm.objectives.importance_likelihood import ImportanceLikelihood
from skebm.objectives.support_partition import PartitionLikelihood
