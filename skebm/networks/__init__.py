"""Plain torch blocks, without knowledge of energies or papers."""

__all__ = ["ConvNet", "Critic", "CriticNetwork", "FeedForward", "NonLocal"]

from skebm.networks.convolutional import ConvNet, NonLocal
from skebm.networks.critic import Critic, CriticNetwork
from skebm.networks.feed_forward import FeedForward
