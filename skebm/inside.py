"""Through what wraps a density, pipelines, searches and detectors, to it and to its scores."""

from __future__ import annotations

__all__ = [
    "check_scorer",
    "draw_rows",
    "is_normalized",
    "layers",
    "one_per_row",
    "read_scores",
    "scorers",
    "unwrap",
]

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skebm._tables import n_rows


def unwrap(estimator: Any, detectors: bool = False) -> tuple[list[Any], Any]:
    """Open pipelines, searches and frozen estimators, one inside the other.

    Parameters
    ----------
    estimator : object
        Fitted.
    detectors : bool, default=False
        Open detectors, too, whose scores are the log density of their one ``estimator_``.

    Returns
    -------
    transformers : list of object
        What rows pass through before they are scored, in this order.
    last : object
        What scores them.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skebm import HybridCDDensity
    >>> from skebm.inside import unwrap
    >>> unwrap(make_pipeline(StandardScaler(), HybridCDDensity()))
    ([StandardScaler()], HybridCDDensity())
    """
    if isinstance(estimator, Pipeline):
        steps = [unwrap(step) for _, step in estimator.steps[:-1]]
        before = [step for passed, last in steps for step in (*passed, last)]
        passed, last = unwrap(estimator.steps[-1][1], detectors)
        return [step for step in [*before, *passed] if step not in (None, "passthrough")], last
    if isinstance(estimator, FrozenEstimator):
        inner = estimator.estimator
    elif detectors and getattr(estimator, "scores_are_log_densities", False):
        inner = getattr(estimator, "estimator_", None)
    else:
        inner = getattr(estimator, "best_estimator_", None)
    return ([], estimator) if inner is None else unwrap(inner, detectors)


def scorers(estimator: Any) -> list[Any]:
    """Return the fitted estimators that score for this one.

    Parameters
    ----------
    estimator : object
        Fitted density, or what wraps one or several.

    Returns
    -------
    list of object
        The inside of a pipeline, a search, a frozen estimator or a detector; the members of an
        ensemble; none for a density.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import scorers
    >>> from skebm.ood import ThresholdDetector
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> scorers(ThresholdDetector(KernelDensity()).fit(X))
    [KernelDensity()]
    """
    last = unwrap(estimator)[1]
    if last is not estimator:
        return [last]
    inner = getattr(estimator, "estimator_", None)
    return [inner] if inner is not None else list(getattr(estimator, "estimators_", []))


def layers(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and all fitted ones that its scores come from.

    Parameters
    ----------
    estimator : object
        Fitted density, or what wraps one or several.

    Yields
    ------
    object
        The estimator itself, what scores for it, what scores for that.

    Examples
    --------
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import layers
    >>> [type(layer).__name__ for layer in layers(FrozenEstimator(KernelDensity()))]
    ['FrozenEstimator', 'KernelDensity']
    """
    yield estimator
    for inner in scorers(estimator):
        yield from layers(inner)


def is_normalized(estimator: Any) -> bool:
    """Return whether no density in a fitted estimator is known to lack its log Z.

    Parameters
    ----------
    estimator : object
        Fitted density, or what wraps one or several.

    Returns
    -------
    bool
        False if some ``log_partition_`` is None.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.inside import is_normalized
    >>> is_normalized(GaussianMixture())
    True
    """
    return all(getattr(e, "log_partition_", 0.0) is not None for e in layers(estimator))


def read_scores(estimator: Any, X: Any) -> np.ndarray:
    """Return what a fitted estimator scores on rows: log densities, where it is a density.

    Parameters
    ----------
    estimator : object
        Fitted, with ``score_samples``.
    X : array-like of shape (n, d)
        Rows, as the estimator wants them.

    Returns
    -------
    ndarray of float64 of shape (n,)
        Nats, for a density; minus infinity may be among them.

    Raises
    ------
    TypeError
        If the estimator has no ``score_samples``.
    ValueError
        If it returns anything but one real number per row, none of them NaN or +infinity.

    Examples
    --------
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import read_scores
    >>> read_scores(KernelDensity().fit([[0.0]]), [[0.0], [2.0]]).round(2)
    array([-0.92, -2.92])
    """
    check_scorer(estimator)
    name = f"score_samples of {type(estimator).__name__}"
    return one_per_row(name, estimator.score_samples(X), n_rows(X))


def draw_rows(estimator: Any, n: int, random_state: Any) -> np.ndarray:
    """Draw rows from a fitted density, which stays as it is.

    Parameters
    ----------
    estimator : object
        Fitted, with ``sample``. Some take a seed; GaussianMixture has one, and adds labels.
    n : int
        Rows.
    random_state : int or RandomState
        Seed.

    Returns
    -------
    ndarray of shape (n, d)
        Rows.

    Examples
    --------
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import draw_rows
    >>> draw_rows(KernelDensity().fit([[0.0, 1.0]]), 5, random_state=0).shape
    (5, 2)
    """
    estimator = copy.copy(estimator)
    if "random_state" in inspect.signature(estimator.sample).parameters:
        return np.asarray(estimator.sample(n, random_state=random_state))
    estimator.random_state = random_state
    drawn = estimator.sample(n)
    return np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)


def check_scorer(estimator: Any) -> None:
    """Raise unless an estimator, fitted or not, can score rows.

    Parameters
    ----------
    estimator : object
        To be asked for ``score_samples``.

    Raises
    ------
    TypeError
        If it has none.

    Examples
    --------
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import check_scorer
    >>> check_scorer(KernelDensity())
    """
    if not hasattr(estimator, "score_samples"):
        raise TypeError(
            f"estimator must have score_samples, got {type(estimator).__name__}. Give a density "
            "estimator, or a pipeline that ends in one."
        )


def one_per_row(
    name: str,
    values: Any,
    n: int | None = None,
    *,
    finite: bool = False,
    remedy: str = "Look at the rows that they belong to, or at the estimator's fit.",
) -> np.ndarray:
    """Return values, one per row, as float64, or say what is wrong with them.

    Parameters
    ----------
    name : str
        What messages call them.
    values : array-like of shape (n,)
        Log densities, say.
    n : int, optional
        How many there must be; None takes any number above 0.
    finite : bool, default=False
        Whether minus infinity is refused. NaN and plus infinity always are.
    remedy : str, optional
        How a message about values that are not finite ends.

    Returns
    -------
    ndarray of float64 of shape (n,)
        The values.

    Raises
    ------
    ValueError
        If shape or values are unfit.

    Examples
    --------
    >>> from skebm.inside import one_per_row
    >>> one_per_row("score", [0, -1], n=2)
    array([ 0., -1.])
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) != (n or len(values) or -1):
        rule = f"of shape ({n},)" if n else "one-dimensional and not empty"
        raise ValueError(
            f"{name} must be {rule}, got shape {values.shape}. It needs one number per row."
        )
    n_bad = np.count_nonzero(~np.isfinite(values) if finite else ~(values < np.inf))
    if n_bad:
        rule = "finite" if finite else "numbers below infinity"
        raise ValueError(
            f"{name} must be {rule}, got {n_bad} of {len(values)} values that are not "
            f"({np.count_nonzero(np.isnan(values))} NaN). {remedy}"
        )
    return values
