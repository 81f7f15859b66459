"""What detectors over another estimator share: its scores, checked, and one threshold."""

from __future__ import annotations

__all__ = ["Detector", "check_prefit", "n_rows", "read_rows", "row_scores"]

from abc import abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data


class Detector(OutlierMixin, BaseEstimator):
    """Abstract detector: ``score_samples`` against ``offset_``, both higher for inliers."""

    offset_: float
    _is_log_density = True  # of its inner estimator at least; scorers of likelihood ask

    @property
    def _offset_is_a_score(self) -> bool:
        """Whether the threshold is one of ``score_samples``; pictures of scores ask."""
        return True

    @abstractmethod
    def score_samples(self, X):
        """Return how normal each row is, (n_samples,)."""

    def decision_function(self, X):
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

    def predict(self, X):
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
    """Check the table and its columns; a data frame stays one, for the inner estimator to read.

    Parameters
    ----------
    detector : BaseEstimator
        Gets ``n_features_in_`` and ``feature_names_in_`` if `reset`, and is held to them if not.
    X : array-like of shape (n, d)
        Rows.
    reset : bool
        Whether this is ``fit``.
    fewest : int, default=1
        Rows needed.

    Returns
    -------
    ndarray of float64 or data frame
        Rows.

    Raises
    ------
    ValueError
        If the table is unfit.
    """
    is_frame = hasattr(X, "iloc") and hasattr(X, "columns")
    settings = {"dtype": np.float64, "ensure_min_samples": fewest}
    X = validate_data(detector, X, reset=reset, skip_check_array=is_frame, **settings)
    if is_frame and len(X) < fewest:
        raise ValueError(
            f"X must have at least {fewest} rows, got n_samples = {len(X)}. Give more rows."
        )
    return X


def n_rows(X: Any) -> int:
    """Return the number of rows of a table of any kind."""
    return int(_num_samples(X))


def row_scores(estimator: Any, X: Any) -> np.ndarray:
    """Return a fitted estimator's log densities (n,), float64; minus infinity may be among them.

    Raises
    ------
    TypeError
        If the estimator has no ``score_samples``.
    ValueError
        If it returns anything but one real number per row, none of them NaN or +infinity.
    """
    kind = type(estimator).__name__
    if not hasattr(estimator, "score_samples"):
        raise TypeError(
            f"estimator must have score_samples, got {kind}. Give a density estimator, or a "
            "pipeline that ends in one."
        )
    scores = np.asarray(estimator.score_samples(X))
    n = n_rows(X)
    if scores.shape != (n,):
        raise ValueError(
            f"score_samples of {kind} must return shape ({n},), got {scores.shape}. It has to "
            "return one number per row."
        )
    scores = scores.astype(np.float64)
    n_bad = np.count_nonzero(np.isnan(scores) | (scores == np.inf))
    if n_bad:
        raise ValueError(
            f"score_samples of {kind} must be below infinity and no NaN, got {n_bad} of {n} values "
            "that are not. Look at the rows that they belong to, or at the estimator's fit."
        )
    return scores
