"""Tables with missing values, filled in by a joint density."""

__all__ = ["DensityImputer"]

from skebm.impute.density import DensityImputer
