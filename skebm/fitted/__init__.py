"""What a fit leaves: a density, how it is drawn from, and what else can be said of it."""

__all__ = [
    "Bound",
    "Bounds",
    "Draws",
    "FittedDensity",
    "SampleInfo",
    "Trained",
]

from skebm.fitted.bounds import Bound, Bounds
from skebm.fitted.density import FittedDensity
from skebm.fitted.draws import Draws, SampleInfo
from skebm.fitted.trained import Trained
