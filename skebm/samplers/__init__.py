"""Markov chains on a potential U, each an algorithm of its own file, and the one loop ``run``."""

__all__ = [
    "HMC",
    "MALA",
    "SGHMC",
    "HMCState",
    "Langevin",
    "LangevinState",
    "MALAState",
    "SGHMCState",
    "SampleBank",
    "Sampler",
    "SamplerInfo",
    "Target",
    "as_target",
    "run",
]

from skebm.samplers._base import Sampler, SamplerInfo, Target, as_target, run
from skebm.samplers.bank import SampleBank
from skebm.samplers.hmc import HMC, HMCState
from skebm.samplers.langevin import Langevin, LangevinState
from skebm.samplers.mala import MALA, MALAState
from skebm.samplers.sghmc import SGHMC, SGHMCState
