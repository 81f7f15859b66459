"""From tables to tensors and back: transforms, tables, randomness, devices."""

__all__ = [
    "Affine",
    "ArrayTable",
    "Degeneracy",
    "Originals",
    "Rows",
    "Table",
    "Transform",
    "find_degeneracy",
    "resolve_device",
    "systematic_rows",
    "torch_generator",
]

from skebm.data._degeneracy import Degeneracy, find_degeneracy
from skebm.data._systematic import systematic_rows
from skebm.data._tensors import resolve_device, torch_generator
from skebm.data.table import ArrayTable, Originals, Rows, Table
from skebm.data.transform import Affine, Transform
