"""From tables to tensors and back: transforms, tables, randomness, devices."""

__all__ = [
    "Affine",
    "ArrayTable",
    "Category",
    "Degeneracy",
    "Marginal",
    "MixedTransform",
    "Number",
    "Originals",
    "Rows",
    "Schema",
    "Source",
    "Table",
    "Transform",
    "copy_groups",
    "find_degeneracy",
    "parquet",
    "resolve_device",
    "spacing",
    "systematic_rows",
    "torch_generator",
    "trimmed_moments",
]

from skebm.data._copies import copy_groups
from skebm.data._degeneracy import Degeneracy, find_degeneracy
from skebm.data._spread import spacing, trimmed_moments
from skebm.data._systematic import systematic_rows
from skebm.data._tensors import resolve_device, torch_generator
from skebm.data.marginal import Marginal
from skebm.data.mixed import MixedTransform
from skebm.data.schema import Category, Number, Schema
from skebm.data.sources import Source, parquet
from skebm.data.table import ArrayTable, Originals, Rows, Table
from skebm.data.transform import Affine, Transform
