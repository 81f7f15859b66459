"""One way to read the score of a model, whatever the model is."""

from __future__ import annotations

__all__ = ["Rows", "Score", "evaluate_score", "standardized"]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice
from skebm.data import Standardizer

Score = Callable[[Any], np.ndarray]
LARGEST = 1e15  # standardized units; its square is still a float32
DIVIDING = (StandardScaler, RobustScaler, MaxAbsScaler)


class Rows(NamedTuple):
    """Rows and the score at them, both in standardized units, float64.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Standardized rows.
    score : ndarray of shape (n, d)
        Gradient of the log density, nats per standardized unit.
    standardizer : Standardizer
        The map from the units of X.
    """

    x: np.ndarray
    score: np.ndarray
    standardizer: Standardizer


def evaluate_score(score: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the model's score at them, (n, d) each, in the units of X.

    Parameters
    ----------
    score : callable or fitted density
        See `goodness_of_fit_test`.
    X : array-like of shape (n, d)
        Rows.

    Returns
    -------
    X : ndarray of shape (n, d)
        The rows in float64.
    score : ndarray of shape (n, d)
        Gradient of the log density, nats per unit of X.

    Raises
    ------
    TypeError
        If `score` is of no known kind.
    ValueError
        If X is unfit, or the score has another shape than X or is not finite.
    """
    rows = check_array(X, dtype=np.float64, ensure_min_samples=4, input_name="X")
    function, takes_frames = _resolve(score)
    values = np.asarray(function(X if takes_frames else rows), dtype=np.float64)
    if values.shape != rows.shape:
        raise ValueError(
            f"score must return shape {rows.shape}, got {values.shape}. Return the gradient of the "
            "log density, a row for each row of X."
        )
    n_bad = np.count_nonzero(~np.isfinite(values))
    if n_bad:
        raise ValueError(
            f"score must be finite, got {n_bad} of {values.size} values that are NaN or infinite. "
            "Leave out rows outside the support of the model."
        )
    return rows, values


def standardized(
    X: np.ndarray, score: np.ndarray, standardize: bool, reference: np.ndarray | None = None
) -> Rows:
    """Divide rows by the standard deviations of `reference` (all rows), multiply the scores."""
    check_choice("standardize", standardize, (False, True))
    if standardize:
        standardizer = Standardizer.from_table(X if reference is None else X[reference])
    else:
        standardizer = Standardizer.identity(X.shape[1])
    z, values = (X - standardizer.location) / standardizer.scale, score * standardizer.scale
    largest = max(np.abs(values).max(), np.abs(z).max())
    if largest > LARGEST:
        raise ValueError(
            f"score and X must be at most {LARGEST:g} in standardized units, got {largest:.3g}. "
            "Leave out rows so far from the rest or from the model."
        )
    return Rows(z, values, standardizer)


def _resolve(score: Any) -> tuple[Score, bool]:
    """Return the function that computes the score, and whether it should see X as given."""
    if isinstance(score, Pipeline):
        return _of_pipeline(score), True
    if isinstance(score, GaussianMixture | BayesianGaussianMixture):
        check_is_fitted(score)
        return lambda X: _mixture_score(score, X), True
    if not isinstance(score, type):
        if callable(getattr(score, "score_function", None)):
            return score.score_function, True
        if callable(getattr(score, "log_density", None)) and callable(score.score):
            return score.score, False
        if callable(score) and not isinstance(score, torch.nn.Module):
            return score, False
    raise TypeError(
        "score must be a callable from (n, d) to (n, d), a fitted density with score_function, a "
        f"fitted GaussianMixture or a density of skebm.datasets, got {score!r}. Pass the gradient "
        "of its log density as a function."
    )


def _mixture_score(mixture: Any, X: Any) -> np.ndarray:
    """Responsibilities times the components' scores; the factors are of the precisions."""
    responsibility = mixture.predict_proba(X)
    x, total = np.asarray(X, dtype=np.float64), 0.0
    for k, mean in enumerate(mixture.means_):
        factor = mixture.precisions_cholesky_
        factor = factor if mixture.covariance_type == "tied" else factor[k]
        if mixture.covariance_type in ("full", "tied"):
            component = (mean - x) @ factor @ factor.T
        else:
            component = (mean - x) * factor**2
        total = total + responsibility[:, [k]] * component
    return np.asarray(total)


def _of_pipeline(pipeline: Pipeline) -> Score:
    """Chain rule through scalers of single columns."""
    steps = [(name, step) for name, step in pipeline.steps if step not in (None, "passthrough")]
    factors = [_slope(name, step) for name, step in steps[:-1]]
    inner, takes_frames = _resolve(steps[-1][1])

    def score(X: Any) -> np.ndarray:
        for _, step in steps[:-1]:
            X = step.transform(X)
        values = np.asarray(inner(X if takes_frames else np.asarray(X, dtype=np.float64)))
        for factor in factors:
            values = values * factor
        return values

    return score


def _slope(name: str, step: Any) -> Any:
    """Return the derivative of a scaler's output in its input, per column."""
    if isinstance(step, DIVIDING):
        check_is_fitted(step)
        return 1.0 if step.scale_ is None else 1 / step.scale_
    if isinstance(step, MinMaxScaler) and not step.clip:
        check_is_fitted(step)
        return step.scale_
    raise TypeError(
        "score must be a Pipeline of column scalers and a density, got "
        f"{type(step).__name__} as step {name!r}. Transform X first and pass the last step."
    )
