"""Errors and warnings of skebm.

scikit-learn's own ``ConvergenceWarning`` and ``NotFittedError`` are reused where they fit.
"""

__all__ = [
    "CalibrationWarning",
    "CheckpointWarning",
    "ConvergenceError",
    "DataDegeneracyWarning",
    "DriftWarning",
    "EnsembleWarning",
    "GeneratorWarning",
    "NormalizationWarning",
    "SelectionWarning",
    "SupportWarning",
]


class CalibrationWarning(UserWarning):
    """Too few held-out rows set a threshold: its false-alarm rate is above the level asked for.

    The message has the rows that it takes, the rows there are, and the rate with them.

    Examples
    --------
    >>> from skebm.exceptions import CalibrationWarning
    >>> issubclass(CalibrationWarning, UserWarning)
    True
    """


class CheckpointWarning(UserWarning):
    """A fit goes on from a checkpoint, or cannot read or write one.

    The message has the file, and the updates that it holds or what was the matter.

    Examples
    --------
    >>> from skebm.exceptions import CheckpointWarning
    >>> issubclass(CheckpointWarning, UserWarning)
    True
    """


class ConvergenceError(RuntimeError):
    """Training diverged and could not be rescued by smaller steps.

    Raised by ``fit`` after the last good state was restored and the learning rate was lowered a
    bounded number of times. The message says what to change.

    Examples
    --------
    >>> from skebm.exceptions import ConvergenceError
    >>> issubclass(ConvergenceError, RuntimeError)
    True
    """


class DataDegeneracyWarning(UserWarning):
    """The training table makes a continuous likelihood unbounded.

    Constant, few-valued, copied or linearly dependent columns do that. The message names the
    columns and the noise that was added to training rows.

    Examples
    --------
    >>> from skebm.exceptions import DataDegeneracyWarning
    >>> issubclass(DataDegeneracyWarning, UserWarning)
    True
    """


class DriftWarning(UserWarning):
    """A block of rows is beyond what the first one was: its scaling and base do not know such rows.

    The message has the share of the rows, the columns, and what to do.

    Examples
    --------
    >>> from skebm.exceptions import DriftWarning
    >>> issubclass(DriftWarning, UserWarning)
    True
    """


class EnsembleWarning(UserWarning):
    """The members of an ensemble are equal, so that it is no more than one of them.

    Examples
    --------
    >>> from skebm.exceptions import EnsembleWarning
    >>> issubclass(EnsembleWarning, UserWarning)
    True
    """


class GeneratorWarning(UserWarning):
    """A generator folds, is degenerate, or has fewer latents than rows have columns.

    What rests on its density is then void: the lower bound, its entropy. The message says which.

    Examples
    --------
    >>> from skebm.exceptions import GeneratorWarning
    >>> issubclass(GeneratorWarning, UserWarning)
    True
    """


class NormalizationWarning(UserWarning):
    """A log density is unnormalized, or its log partition function cannot be trusted.

    Examples
    --------
    >>> from skebm.exceptions import NormalizationWarning
    >>> issubclass(NormalizationWarning, UserWarning)
    True
    """


class SelectionWarning(UserWarning):
    """A search cannot tell its best candidate from another: the lead is within its error.

    The message has the lead, its error over splits and from log Z, and what to change.

    Examples
    --------
    >>> from skebm.exceptions import SelectionWarning
    >>> issubclass(SelectionWarning, UserWarning)
    True
    """


class SupportWarning(UserWarning):
    """Points that should partition a support cannot: too few, too many, or none near the data.

    Examples
    --------
    >>> from skebm.exceptions import SupportWarning
    >>> issubclass(SupportWarning, UserWarning)
    True
    """
