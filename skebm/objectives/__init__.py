"""Training principles, one a file; each reads like the algorithm of its paper."""

__all__ = [
    "ContrastiveDivergence",
    "HeldOut",
    "ImportanceLikelihood",
    "Objective",
    "Optimization",
    "State",
]

from skebm.objectives._base import Objective, Optimization, State
from skebm.objectives._held_out import HeldOut
from skebm.objectives.contrastive_divergence import ContrastiveDivergence
from skebm.objectives.importance_likelihood import ImportanceLikelihood
