"""What detectors over another estimator share: its scores and one threshold."""

from __future__ import annotations

__all__ = ["Detector", "atomic", "check_prefit", "draw_rows", "read_rows"]

import copy
import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._tables import as_frame, n_rows
from skebm.estimators._callbacks import CallbackSupportMixin
from skebm.estimators._files import Saved


def atomic(fit: Callable) -> Callable:
    """Let a ``fit`` that fails, Ctrl-C too, leave its detector as it was."""

    @functools.wraps(fit)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            self.__dict__ = before
            raise

    return guarded


class Detector(CallbackSupportMixin, OutlierMixin, Saved):
    """Abstract detector: ``score_samples`` against ``offset_``, both higher for inliers.

    Its callbacks reach the estimators inside, as scikit-learn's searches hand theirs on.

    Attributes
    ----------
    scores_are_log_densities : bool
        Whether ``score_samples`` is the log density of the inner estimator, where that has one;
        scorers of likelihood ask.
    inner : tuple of str
        The parameters that hold the estimators inside.
    """

    offset_: float
    scores_are_log_densities = True
    inner: tuple[str, ...] = ("estimator",)
    __metadata_request__fit = {"sample_weight": None}

    @abstractmethod
    def score_samples(self, X: Any) -> np.ndarray:
        """Return how normal each row is, (n_samples,)."""

    def inside(self, name: str) -> Any:
        """Return the estimator that a parameter stands for.

        Parameters
        ----------
        name : str
            One of `inner`.

        Returns
        -------
        estimator or None
            Unfitted; None where there is none.
        """
        return getattr(self, name)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: at least 0 for inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Units of ``score_samples``.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return +1 for inliers and -1 for novelties.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            +1 where ``decision_function`` is at least 0.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def get_metadata_routing(self) -> Any:
        """Return who gets which metadata: `sample_weight` and what the inner ``fit`` requests.

        Returns
        -------
        MetadataRouter
            scikit-learn's, of public use in its own ``set_config(enable_metadata_routing=True)``.
        """
        return inner_router(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = self.inside(self.inner[0])
        if hasattr(inner, "__sklearn_tags__"):
            tags.input_tags = get_tags(inner).input_tags  # what it takes, the detector takes
        return tags


def inner_router(detector: Detector) -> MetadataRouter:
    """Return scikit-learn's router: the detector's own weights, and each ``fit`` inside."""
    router = MetadataRouter(owner=detector)
    if hasattr(detector, "_metadata_request"):  # set_fit_request was called; else as the inner ask
        router.add_self_request(detector)
    for name in detector.inner:
        if detector.inside(name) is not None:
            router.add(
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
                **{name: detector.inside(name)},
            )
    return router


def check_prefit(estimator: Any, name: str = "estimator") -> None:
    """Raise unless an estimator that is to be used as it is has been fitted.

    Raises
    ------
    NotFittedError
        If it has a ``fit`` that was not called.
    """
    if not hasattr(estimator, "fit"):
        return
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotFittedError(
            f"{name} must be fitted with prefit=True, got an unfitted {type(estimator).__name__}. "
            "Fit it on other rows, or set prefit=False. Clones and searches unfit it: wrap it in "
            "sklearn.frozen.FrozenEstimator to keep it fitted."
        ) from error


def read_rows(detector: BaseEstimator, X: Any, *, reset: bool, fewest: int = 1) -> Any:
    """Check rows and columns of a table; what else is fit for the estimator, it says itself.

    Values stay as they are, numbers, missing ones or text, and so do data frames and sparse
    matrices. The columns are remembered if `reset`, as in ``fit``, and held to if not.

    Raises
    ------
    ValueError
        If it is no table, has fewer rows than needed, or other columns.
    """
    if as_frame(X) is None:
        free: dict[str, Any] = {"dtype": None, "ensure_all_finite": False}
        X = check_array(X, accept_sparse="csr", ensure_min_samples=fewest, **free)
    elif n_rows(X) < fewest:
        raise ValueError(
            f"X must have at least {fewest} rows, got n_samples = {n_rows(X)}. Give more rows."
        )
    return validate_data(detector, X, reset=reset, skip_check_array=True)


def draw_rows(estimator: Any, n: int, random_state: Any) -> Any:
    """Draw n rows from a fitted density: some take a seed, GaussianMixture has one, adds labels."""
    estimator = copy.copy(estimator)  # the density itself stays as it is
    if "random_state" in inspect.signature(estimator.sample).parameters:
        drawn = estimator.sample(n, random_state=random_state)
        return drawn if as_frame(drawn) is not None else np.asarray(drawn)
    estimator.random_state = random_state
    drawn = estimator.sample(n)
    return np.asarray(drawn[0] if isinstance(drawn, tuple) else drawn)
