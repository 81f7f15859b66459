"""Through what wraps a density, pipelines, searches and detectors, to it and to its scores."""

from __future__ import annotations

__all__ = [
    "check_energy_model",
    "check_scorer",
    "is_normalized",
    "read_scores",
    "scorers",
    "unwrap",
    "without_tails",
]

import copy
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skebm._tables import n_rows, one_per_row


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
    known = getattr(estimator, "log_partition_", 0.0) is not None
    return known and all(map(is_normalized, scorers(estimator)))


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


def check_energy_model(estimator: Any) -> None:
    """Raise unless an estimator is a fitted density of skebm, with an energy to run chains on.

    Parameters
    ----------
    estimator : object
        To be asked for ``density_``.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If it is no density of skebm.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import HybridCDDensity
    >>> from skebm.inside import check_energy_model
    >>> X = np.random.RandomState(0).normal(size=(60, 2))
    >>> check_energy_model(HybridCDDensity(max_iter=1, random_state=0).fit(X))
    """
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        found = f"the class {estimator.__name__}" if isinstance(estimator, type) else estimator
        raise TypeError(f"estimator must be a fitted density of skebm, got {found!r:.80}.")
    check_is_fitted(estimator)
    if not hasattr(estimator, "density_"):
        raise TypeError(
            f"estimator must be a density of skebm, got {type(estimator).__name__}. Others have no "
            "energy; of a pipeline or a search give the density inside."
        )


def check_scorer(estimator: Any, name: str = "estimator") -> None:
    """Raise unless an estimator, fitted or not, can score rows.

    Parameters
    ----------
    estimator : object
        To be asked for ``score_samples``.
    name : str, default="estimator"
        What messages call it.

    Raises
    ------
    TypeError
        If it has none, or is a class.

    Examples
    --------
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.inside import check_scorer
    >>> check_scorer(KernelDensity())
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"{name} must be an instance, got the class {estimator.__name__}. Write "
            f"{estimator.__name__}(...)."
        )
    if not hasattr(estimator, "score_samples"):
        raise TypeError(
            f"{name} must have score_samples, got {type(estimator).__name__}. Give a density "
            "estimator, or a pipeline that ends in one."
        )


def without_tails(estimator: Any) -> Any:
    """Return an estimator that scores like this one, with heavy tails cut off from its base.

    Parameters
    ----------
    estimator : object
        Fitted density, or what wraps one; of another library it is returned as it is.

    Returns
    -------
    object
        Fitted; see `FittedDensity.without_tails`.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import HybridCDDensity
    >>> from skebm.inside import without_tails
    >>> X = np.random.RandomState(0).normal(size=(100, 2))
    >>> est = HybridCDDensity(base="gaussian", max_iter=2, random_state=0).fit(X)
    >>> bool(without_tails(est).score_samples([[1e4, 0]]) < est.score_samples([[1e4, 0]]) - 1e6)
    True
    """
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return Pipeline([*estimator.steps[:-1], (name, without_tails(last))])
    if isinstance(estimator, FrozenEstimator):
        return without_tails(estimator.estimator)
    if hasattr(estimator, "best_estimator_"):
        return without_tails(estimator.best_estimator_)
    if not hasattr(estimator, "density_"):
        return estimator
    twin = copy.copy(estimator)
    twin.density_ = estimator.density_.without_tails()
    return twin
