"""The one optimization loop, what it is told, what it carries, and how it judges."""

__all__ = ["Best", "HeldOutLikelihood", "Settings", "TrainState", "not_distributed", "train"]

from skebm._ranks import not_distributed
from skebm.train.judge import HeldOutLikelihood
from skebm.train.loop import train
from skebm.train.state import Best, Settings, TrainState
