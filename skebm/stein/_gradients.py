"""Where the gradient of a model's log density comes from, whatever the model is."""

from __future__ import annotations

__all__ = ["gradient_of", "shown"]

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from skebm.inside import unwrap

if TYPE_CHECKING:
    from sklearn.neighbors import KernelDensity

Score = Callable[[Any], np.ndarray]
SHORT = 120  # characters of a value that a message shows
DIVIDING = (StandardScaler, RobustScaler, MaxAbsScaler)
BLOCK_VALUES = 2**20  # distances at once: 8 MiB


def gradient_of(score: Any, name: str) -> tuple[Score, bool]:
    """Return the function that computes the score, and whether it should see X as given.

    Searches, frozen estimators, pipelines of column scalers, and detectors whose scores are the
    log density of their ``estimator_`` are seen through.

    Raises
    ------
    TypeError
        If no gradient can be had.
    """
    steps, last = unwrap(score, detectors=True)
    factors = [_slope(step, name) for step in steps]
    inner, takes_frames = _resolve(last, name)
    if not steps:
        return inner, takes_frames

    def chained(X: Any) -> np.ndarray:
        """Chain rule through scalers of single columns."""
        for step in steps:
            X = step.transform(X)
        values = np.asarray(inner(X if takes_frames else np.asarray(X, dtype=np.float64)))
        for factor in factors:
            values = values * factor
        return values

    return chained, True


def shown(value: Any) -> str:
    """Return what a message says of a value: never a whole table."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(getattr(value, "shape", None), tuple):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    if len(text) <= SHORT:
        return text
    return f"{type(value).__name__} " + text[:SHORT] + "..."


def _resolve(score: Any, name: str) -> tuple[Score, bool]:
    from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
    from sklearn.neighbors import KernelDensity

    if isinstance(score, GaussianMixture | BayesianGaussianMixture):
        _check_fitted(score, name)
        return partial(_mixture_score, score), True
    if isinstance(score, KernelDensity):
        _check_kernels(score, name)
        return partial(_kernel_score, score), True
    if not isinstance(score, type):
        if callable(getattr(score, "score_function", None)):
            return score.score_function, True
        if callable(getattr(score, "log_density", None)) and callable(score.score):
            return score.score, False
        if callable(score) and not isinstance(score, torch.nn.Module):
            return score, False
    raise TypeError(
        f"{name} must be a callable from (n, d) to (n, d), a fitted density with score_function, a "
        "fitted GaussianMixture, BayesianGaussianMixture or KernelDensity, or a density of "
        f"skebm.datasets, got {shown(score)}. {_remedy(score)}"
    )


def _remedy(score: Any) -> str:
    if isinstance(score, type):
        return "Instantiate and fit it."
    if hasattr(score, "__array__"):
        return "Give the model first, then the rows."
    return "Pass the gradient of its log density as a function."


def _check_fitted(estimator: Any, name: str) -> None:
    kind = type(estimator).__name__
    text = f"{name} must be fitted, got an unfitted {kind}. Call fit first."
    check_is_fitted(estimator, msg=text.replace("%", "%%"))


def _check_kernels(kernels: KernelDensity, name: str) -> None:
    _check_fitted(kernels, name)
    if kernels.kernel != "gaussian" or kernels.metric not in ("euclidean", "l2"):
        raise ValueError(
            f"{name} must have a gaussian kernel and the euclidean metric, got kernel "
            f"{kernels.kernel!r} and metric {kernels.metric!r}. Other kernels have no gradient "
            "everywhere."
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


def _kernel_score(kernels: KernelDensity, X: Any) -> np.ndarray:
    r"""Sum of r_i(x) (x_i - x) / h^2, r(x) the softmax over i of log w_i - |x - x_i|^2 / 2 h^2."""
    x, centers = np.asarray(X, dtype=np.float64), np.asarray(kernels.tree_.data)
    weight, h = kernels.tree_.sample_weight, kernels.bandwidth_
    log_weight = 0.0 if weight is None else np.log(np.asarray(weight))
    middle = centers.mean(axis=0)  # the difference of large numbers would lose digits

    def of(block: np.ndarray) -> np.ndarray:
        share = softmax(log_weight - cdist(block, centers, "sqeuclidean") / (2 * h**2), axis=1)
        return (share @ (centers - middle) - (block - middle)) / h**2

    size = max(1, BLOCK_VALUES // len(centers))
    return np.concatenate([of(x[i : i + size]) for i in range(0, len(x), size)])


def _slope(step: Any, name: str) -> Any:
    """Return the derivative of a scaler's output in its input, per column."""
    if isinstance(step, DIVIDING):
        _check_fitted(step, name)
        return 1.0 if step.scale_ is None else 1 / step.scale_
    if isinstance(step, MinMaxScaler) and not step.clip:
        _check_fitted(step, name)
        return step.scale_
    raise TypeError(
        f"{name} must be a Pipeline of column scalers and a density, got {type(step).__name__} in "
        "it. Transform X first and pass the last step."
    )
