"""Plain torch blocks, without knowledge of energies or papers."""

__all__ = ["ConvNet", "FeedForward", "NonLocal"]

from skebm.networks.convolutional import ConvNet, NonLocal
from skebm.networks.feed_forward import FeedForward
