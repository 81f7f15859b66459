"""Short names of the energies."""

__all__ = ["ENERGIES"]

from skebm.energies.conv import Conv
from skebm.energies.ica import LinearICA
from skebm.energies.mlp import MLP
from skebm.energies.rbm import GaussianBernoulliRBM
from skebm.energies.reconstruction import Reconstruction
from skebm.energies.residual import Residual

ENERGIES: dict[str, type] = {
    "conv": Conv,
    "ica": LinearICA,
    "mlp": MLP,
    "rbm": GaussianBernoulliRBM,
    "reconstruction": Reconstruction,
    "residual": Residual,
}
