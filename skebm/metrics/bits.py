"""Bits per dimension: log densities of images, comparable whatever space they were fitted in."""

from __future__ import annotations

__all__ = ["BitsPerDim", "bits_per_dim"]

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skebm._tables import n_rows, one_per_row
from skebm._warn import warn
from skebm.exceptions import NormalizationWarning
from skebm.inside import is_normalized, read_scores, unwrap


class BitsPerDim(NamedTuple):
    """Mean over rows, with its error.

    Parameters
    ----------
    value : float
        Bits per dimension; smaller is better.
    stderr : float
        Standard error of the mean over rows, bits per dimension; NaN for one row.

    Examples
    --------
    >>> from skebm.metrics import BitsPerDim
    >>> BitsPerDim(value=2.5, stderr=0.01).value
    2.5
    """

    value: float
    stderr: float


def bits_per_dim(estimator: Any, X: Any) -> BitsPerDim:
    """Return minus the mean log density per column of the raw rows, in bits.

    ``-(log p(y) + sum of log_volume) / (d log 2)``, averaged over the rows: y is the row after all
    transformers of a pipeline, p the density of the last step, and each volume is taken at its own
    transformer's input, on the same draw of the noise that y comes from.

    Parameters
    ----------
    estimator : estimator or Pipeline
        Fitted; its (last step's) `score_samples` is a log density in nats. Each earlier step of a
        pipeline needs `log_volume`, as :class:`~skebm.datasets.Dequantize` and
        :class:`~skebm.datasets.Logit` have; StandardScaler, RobustScaler, MaxAbsScaler and
        MinMaxScaler of scikit-learn are known, ``"passthrough"`` and pipelines within are followed.
    X : array-like of shape (n, d)
        Raw rows, as the pipeline's first step takes them: integers from 0 to 255 for images of
        bytes.

    Returns
    -------
    BitsPerDim
        Fields `value` and `stderr`.

    Raises
    ------
    TypeError
        If a step has no volume, or the estimator no `score_samples`.
    ValueError
        If X is not two-dimensional, a volume or the log density has not one value per row, a value
        is NaN or infinity, or a MinMaxScaler clips.

    Warns
    -----
    NormalizationWarning
        If the estimator's ``log_partition_`` is None: the value is then off by an unknown constant.

    Notes
    -----
    With integers of unit spacing and Dequantize as the first step, the expected value is at least
    that of the discrete model (the bound under Dequantize), and 8 for the uniform density over
    bytes. One draw of the noise is used: pass a pipeline whose Dequantize has another
    `random_state` for another draw. Without Dequantize the value is that of a continuous density in
    the units of X: it moves with these units, and may be negative.

    A `score_samples` that is no normalized log density (IsolationForest's, say) gives a number
    without meaning, and no warning.

    References
    ----------
    .. [1] L. Theis, A. van den Oord and M. Bethge, "A note on the evaluation of generative models",
       ICLR 2016. Section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from skebm.datasets import Dequantize, Logit
    >>> from skebm.metrics import bits_per_dim
    >>> X = np.random.RandomState(0).binomial(255, 0.3, size=(1000, 5))
    >>> model = make_pipeline(Dequantize(random_state=0), Logit(), GaussianMixture())
    >>> bits = bits_per_dim(model.fit(X), X)
    >>> print(f"{bits.value:.2f} +- {bits.stderr:.2f} of 8")
    4.90 +- 0.01 of 8
    """
    shape = np.shape(X)
    if len(shape) != 2:
        raise ValueError(f"X must have shape (n, d), got {shape}. Flatten images to rows.")
    steps, model = unwrap(estimator)
    log_volume = 0.0
    for step in steps:
        log_volume, X = log_volume + _log_volume(step, X), step.transform(X)
    if not is_normalized(model):
        warn(
            "bits_per_dim uses unnormalized log densities (log_partition=None), which cannot be "
            "compared between models. Set log_partition to a method, 'importance' say.",
            NormalizationWarning,
        )
    nats = read_scores(model, X) + log_volume
    with np.errstate(invalid="ignore", over="ignore"):  # rows of density 0: infinite, no error
        bits = -nats / (shape[1] * math.log(2))
        stderr = float(bits.std(ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else math.nan
        return BitsPerDim(float(bits.mean()), stderr)


def _log_volume(step: Any, X: Any) -> Any:
    """Return the log-volume of a transformer, (n,) or a number that all rows share, nats."""
    if hasattr(step, "log_volume"):
        return one_per_row("log_volume", step.log_volume(X), n_rows(X))
    if isinstance(step, StandardScaler | RobustScaler | MaxAbsScaler):
        return 0.0 if step.scale_ is None else -float(np.log(step.scale_).sum())
    if isinstance(step, MinMaxScaler):
        if step.clip:
            raise ValueError("clip must be False, got True. A map that clips has no volume.")
        return float(np.log(step.scale_).sum())  # it multiplies
    raise TypeError(
        f"steps must have log_volume, got {type(step).__name__}. Give it a method log_volume(X) "
        "that returns log |det dy/dx| of each row."
    )
