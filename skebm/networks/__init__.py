"""Plain torch blocks, without knowledge of energies or papers."""

__all__ = ["FeedForward"]

from skebm.networks.feed_forward import FeedForward
