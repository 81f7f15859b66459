"""Energies: modules that map rows to nats, low where rows are likely."""

__all__ = [
    "MLP",
    "Conv",
    "Energy",
    "EnergyComponent",
    "GaussianBernoulliRBM",
    "LinearICA",
    "Model",
    "Reconstruction",
    "Residual",
    "Zero",
    "as_energy",
    "build_energy",
    "energy_and_score",
]

from skebm.energies._base import Energy, EnergyComponent, as_energy, build_energy, energy_and_score
from skebm.energies._model import Model
from skebm.energies.conv import Conv
from skebm.energies.ica import LinearICA
from skebm.energies.mlp import MLP
from skebm.energies.rbm import GaussianBernoulliRBM
from skebm.energies.reconstruction import Reconstruction
from skebm.energies.residual import Residual
from skebm.energies.zero import Zero
