"""Markov chains on a potential U, each an algorithm of its own file, and the one loop ``run``."""

__all__ = [
    "HMC",
    "MALA",
    "SGHMC",
    "Gibbs",
    "GibbsState",
    "Langevin",
    "LangevinState",
    "MetropolisState",
    "SGHMCState",
    "SampleBank",
    "Sampler",
    "SamplerInfo",
    "SupportInfo",
    "SupportPartition",
    "Target",
    "as_target",
    "run",
    "support_diagnostics",
]

from skebm.samplers._base import Sampler, SamplerInfo, Target, as_target, run
from skebm.samplers._metropolis import MetropolisState
from skebm.samplers.bank import SampleBank
from skebm.samplers.gibbs import Gibbs, GibbsState
from skebm.samplers.hmc import HMC
from skebm.samplers.langevin import Langevin, LangevinState
from skebm.samplers.mala import MALA
from skebm.samplers.sghmc import SGHMC, SGHMCState
from skebm.samplers.support_partition import SupportInfo, SupportPartition, support_diagnostics
