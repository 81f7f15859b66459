"""Plain torch blocks, without knowledge of energies or papers."""

__all__ = [
    "ConvGenerator",
    "ConvNet",
    "Critic",
    "CriticNetwork",
    "FeedForward",
    "GeneratorComponent",
    "GeneratorNetwork",
    "MLPGenerator",
    "NonLocal",
    "ResidualGenerator",
    "SmallestSingularValue",
    "half_log_det",
    "log_smallest",
    "log_volume",
    "singular_values",
    "smallest_singular_value",
    "value_and_jacobian",
]

from skebm.networks.convolutional import ConvNet, NonLocal
from skebm.networks.critic import Critic, CriticNetwork
from skebm.networks.feed_forward import FeedForward
from skebm.networks.generator import GeneratorComponent, GeneratorNetwork, MLPGenerator
from skebm.networks.image_generators import ConvGenerator, ResidualGenerator
from skebm.networks.jacobian import (
    SmallestSingularValue,
    half_log_det,
    log_smallest,
    log_volume,
    singular_values,
    smallest_singular_value,
    value_and_jacobian,
)
