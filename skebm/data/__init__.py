"""From tables to tensors and back: randomness, devices, standardization, weighted batches."""

__all__ = [
    "Degeneracy",
    "Standardizer",
    "find_degeneracy",
    "resolve_device",
    "systematic_rows",
    "torch_generator",
    "weighted_draws",
]

from skebm.data._batches import weighted_draws
from skebm.data._degeneracy import Degeneracy, find_degeneracy
from skebm.data._standardizer import Standardizer
from skebm.data._systematic import systematic_rows
from skebm.data._tensors import resolve_device, torch_generator
