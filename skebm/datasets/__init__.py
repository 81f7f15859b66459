"""Densities whose truth is known, real tables that need no download, images as rows."""

__all__ = [
    "Checkerboard",
    "Dequantize",
    "GaussianDensity",
    "GaussianMixtureDensity",
    "ICADensity",
    "ImageFeatures",
    "Images",
    "KnownDensity",
    "Logit",
    "RBMDensity",
    "RingsDensity",
    "SwissRollDensity",
    "TwoMoonsDensity",
    "checkerboard",
    "constant_images",
    "eight_modes",
    "grid_25",
    "load_novelty",
    "noise_images",
    "read_images",
    "read_npz_table",
    "rings_10d",
    "six_modes",
    "swiss_roll",
    "two_modes_1d",
    "two_moons",
]

from skebm.datasets._base import KnownDensity
from skebm.datasets._checkerboard import Checkerboard
from skebm.datasets._gaussian import GaussianDensity
from skebm.datasets._ica import ICADensity
from skebm.datasets._image_features import ImageFeatures
from skebm.datasets._images import Images, constant_images, noise_images, read_images
from skebm.datasets._mixture import GaussianMixtureDensity
from skebm.datasets._rbm import RBMDensity
from skebm.datasets._rings import RingsDensity
from skebm.datasets._swiss_roll import SwissRollDensity
from skebm.datasets._tables import load_novelty, read_npz_table
from skebm.datasets._toys import (
    checkerboard,
    eight_modes,
    grid_25,
    rings_10d,
    six_modes,
    swiss_roll,
    two_modes_1d,
    two_moons,
)
from skebm.datasets._transformers import Dequantize, Logit
from skebm.datasets._two_moons import TwoMoonsDensity
