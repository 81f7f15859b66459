"""Markov chains on a potential U, each an algorithm of its own file, and the one loop ``run``."""

__all__ = [
    "MALA",
    "Langevin",
    "LangevinState",
    "MALAState",
    "Sampler",
    "SamplerInfo",
    "Target",
    "as_target",
    "run",
]

from skebm.samplers._base import Sampler, SamplerInfo, Target, as_target, run
from skebm.samplers.langevin import Langevin, LangevinState
from skebm.samplers.mala import MALA, MALAState
