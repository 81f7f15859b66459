"""Densities whose truth is known, and real tables that need no download."""

__all__ = [
    "Checkerboard",
    "GaussianDensity",
    "GaussianMixtureDensity",
    "RingsDensity",
    "TwoMoonsDensity",
    "checkerboard",
    "eight_modes",
    "grid_25",
    "load_novelty",
    "read_npz_table",
    "rings_10d",
    "six_modes",
    "two_modes_1d",
    "two_moons",
]

from skebm.datasets._checkerboard import Checkerboard
from skebm.datasets._gaussian import GaussianDensity
from skebm.datasets._mixture import GaussianMixtureDensity
from skebm.datasets._rings import RingsDensity
from skebm.datasets._tables import load_novelty, read_npz_table
from skebm.datasets._toys import (
    checkerboard,
    eight_modes,
    grid_25,
    rings_10d,
    six_modes,
    two_modes_1d,
    two_moons,
)
from skebm.datasets._two_moons import TwoMoonsDensity
