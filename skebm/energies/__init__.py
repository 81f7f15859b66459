"""Energies: modules that map rows to nats, low where rows are likely."""

__all__ = [
    "MLP",
    "Conv",
    "EnergyComponent",
    "Model",
    "Reconstruction",
    "Zero",
    "build_energy",
    "energy_and_score",
]

from skebm.energies._base import EnergyComponent, build_energy, energy_and_score
from skebm.energies._model import Model
from skebm.energies.conv import Conv
from skebm.energies.mlp import MLP
from skebm.energies.reconstruction import Reconstruction
from skebm.energies.zero import Zero
