"""Normalized reference densities p0 that an energy bends."""

__all__ = [
    "Base",
    "BaseComponent",
    "Defensive",
    "Gaussian",
    "Kernel",
    "Mixture",
    "ProbabilisticPCA",
    "TorchDistribution",
    "Uniform",
]

from skebm.bases._base import Base, BaseComponent
from skebm.bases.defensive import Defensive
from skebm.bases.gaussian import Gaussian
from skebm.bases.kernel import Kernel
from skebm.bases.mixture import Mixture
from skebm.bases.principal import ProbabilisticPCA
from skebm.bases.torch_distribution import TorchDistribution
from skebm.bases.uniform import Uniform
