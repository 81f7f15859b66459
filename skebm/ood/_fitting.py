"""What a detector's ``fit`` is given, rows, weights and metadata, and how it reaches the inside."""

from __future__ import annotations

__all__ = ["Given"]

import inspect
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing

from skebm._tables import n_rows, row_weights, take_rows
from skebm.inside import check_scorer
from skebm.ood._base import Detector, read_rows


class Given:
    """Rows, their weights (mean 1, or None where all are alike), and metadata by estimator.

    Parameters
    ----------
    detector : Detector
        Whose ``fit`` it is; callbacks hear of it.
    X : table
        Rows.
    weight : ndarray of shape (n,) or None
        One a row.
    params : dict of str to dict
        What else the ``fit`` of each inner estimator gets, by the detector's parameter.
    context : CallbackContext, optional
        scikit-learn's, where there are callbacks.
    kept : ndarray of int of shape (n,)
        The numbers of the rows in the table that ``fit`` was given.
    """

    def __init__(
        self, detector: Detector, X: Any, weight: Any, params: Any, context: Any, kept: Any
    ) -> None:
        self.detector, self.X, self.weight, self.kept = detector, X, weight, kept
        self.params, self.context = params, context

    @classmethod
    def begin(cls, detector: Detector, X: Any, params: dict, *, fewest: int = 2) -> Given:
        """Check the table and the weights, leave out rows of weight 0, tell the callbacks."""
        for name in detector.inner:
            if name == detector.inner[0] or detector.inside(name) is not None:
                check_scorer(detector.inside(name), name)
        X = read_rows(detector, X, reset=True, fewest=fewest)
        params = dict(params)
        weight = params.pop("sample_weight", None)
        weight = None if weight is None else row_weights(weight, n_rows(X))
        routed = _routed(detector, weight, params)
        context = None
        if hasattr(detector, "_skl_callbacks"):
            context = detector._init_callback_context(max_subtasks=None, sequential_subtasks=False)
            context.call_on_fit_task_begin(estimator=detector, X=X)
        given = cls(detector, X, weight, routed, context, np.arange(n_rows(X)))
        if weight is None:
            return given
        return given.take(np.flatnonzero(weight)) if (weight == 0).any() else given.take()

    @property
    def n(self) -> int:
        """Number of rows."""
        return n_rows(self.X)

    def take(self, rows: np.ndarray | None = None) -> Given:
        """Return some of the rows with what belongs to them; equal weights are none."""
        X, weight, kept, params = self.X, self.weight, self.kept, self.params
        if rows is not None:
            n = self.n
            X, kept = take_rows(X, rows), kept[rows]
            weight = None if weight is None else weight[rows]
            params = {
                name: {key: _part(value, rows, n) for key, value in given.items()}
                for name, given in params.items()
            }
        if weight is not None:
            weight = None if (weight == weight[0]).all() else weight / weight.mean()
        return Given(self.detector, X, weight, params, self.context, kept)

    def replaced(self, X: Any) -> Given:
        """Return the same weights and metadata with other values in the rows."""
        return Given(self.detector, X, self.weight, self.params, self.context, self.kept)

    def others(self, X: Any) -> Given:
        """Return other rows, without weights and metadata of their own."""
        return Given(self.detector, X, None, {n: {} for n in self.params}, self.context, None)

    def fit(self, estimator: Any, name: str = "estimator", number: int = 0) -> Any:
        """Fit one estimator inside, the `number`-th task of this fit."""
        if isinstance(estimator, FrozenEstimator):
            return estimator  # its own fit would do nothing
        if self.context is None:
            return estimator.fit(self.X, **self.params[name])
        task = self.context.subcontext(task_name=f"fit-{name}", task_id=number)
        with task.propagate_callback_context(estimator):
            task.call_on_fit_task_begin(estimator=self.detector, X=self.X)
            estimator.fit(self.X, **self.params[name])
            task.call_on_fit_task_end(estimator=self.detector, X=self.X)
        return estimator

    def end(self) -> None:
        """Tell the callbacks that the fit is done."""
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.detector, X=self.X)


def _routed(detector: Detector, weight: np.ndarray | None, params: dict) -> dict[str, dict]:
    """Return what the ``fit`` of each inner estimator gets beside its rows."""
    inner = {name: detector.inside(name) for name in detector.inner}
    if get_config()["enable_metadata_routing"]:
        given = params if weight is None else {**params, "sample_weight": weight}
        routed = process_routing(detector, "fit", **given)
        return {name: dict(routed[name].fit) if e is not None else {} for name, e in inner.items()}
    if params:
        raise TypeError(
            f"metadata must be routed, got {sorted(params)}. Set "
            "sklearn.set_config(enable_metadata_routing=True) and request them."
        )
    prefit = getattr(detector, "prefit", False)
    if weight is None or prefit:
        return {name: {} for name in inner}
    return {name: _weights_for(e, weight) if e is not None else {} for name, e in inner.items()}


def _weights_for(estimator: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the keyword by which an estimator takes weights: a pipeline's is its last step's."""
    last, prefix = estimator, ""
    while True:
        if isinstance(last, FrozenEstimator):
            return {}
        if isinstance(last, Pipeline):
            prefix, last = f"{prefix}{last.steps[-1][0]}__", last.steps[-1][1]
        elif isinstance(last, BaseSearchCV):
            last = last.estimator  # gets what the search is given
        elif isinstance(last, Detector):
            return {"sample_weight": weight}  # which asks its own
        else:
            break
    if "sample_weight" not in inspect.signature(last.fit).parameters:
        raise TypeError(
            f"sample_weight must be None for an estimator whose fit takes none, got weights with "
            f"{type(last).__name__}. Leave them out, or give another estimator."
        )
    return {f"{prefix}sample_weight": weight}


def _part(value: Any, rows: np.ndarray, n: int) -> Any:
    """Return the rows' part of metadata that has an entry for each of n rows; all of others."""
    if isinstance(value, str | dict) or not hasattr(value, "__len__") or n_rows(value) != n:
        return value
    return take_rows(np.asarray(value) if isinstance(value, list | tuple) else value, rows)
