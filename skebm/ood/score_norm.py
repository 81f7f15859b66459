"""How steep the log density is at a row."""

from __future__ import annotations

__all__ = ["KernelScore", "ScoreNormDetector", "differentiable"]

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm.ood._base import Detector, n_rows, read_rows
from skebm.ood.thresholds import check_split, fit_and_hold_out, lower_quantile, warn_if_few
from skebm.stein._scores import evaluate_score

BLOCK_VALUES = 2**20  # distances at once: 8 MiB
FEWEST = 4  # rows that evaluate_score wants


class ScoreNormDetector(Detector):
    r"""Minus the norm of the gradient of the log density, in standard deviations of the columns.

    .. math:: s(x) = -\Bigl(\sum_j \sigma_j^2 \,
        (\partial \log p(x) / \partial x_j)^2\Bigr)^{1/2}

    Parameters
    ----------
    estimator : density estimator
        One of skebm (or with ``score_function``), GaussianMixture, BayesianGaussianMixture,
        KernelDensity with a Gaussian kernel, or a pipeline of column scalers and one of these; a
        search over one too, or a detector whose scores are its log density. A copy is fitted.
    alpha : float, default=0.05
        Share of normal rows to flag, in (0, 0.5], dimensionless. Larger flags more.
    calibration_fraction : float, default=0.3
        Share of the rows that is held out for the threshold, in (0, 0.9].
    prefit : bool, default=False
        The estimator is fitted already and used as it is; all rows, new to it, set the threshold.
    random_state : int, RandomState or None, default=None
        Seed of the split, and of every ``random_state`` inside the estimator that is None.

    Attributes
    ----------
    estimator_ : estimator
        The fitted density.
    scale_ : ndarray of shape (n_features,)
        Standard deviations :math:`\sigma_j` of the rows given to ``fit``, units of X; 0 for a
        constant column, which then counts for nothing.
    offset_ : float
        Threshold, the `alpha` quantile of held-out scores, minus nats per standard deviation.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        If X, the gradient or a parameter is unfit; the message names it.

    Warns
    -----
    CalibrationWarning
        If fewer than ``1 / alpha - 1`` rows are held out: normal rows are flagged more often then.

    Notes
    -----
    The score needs no normalizer and does not depend on the units of X. It is 0 at every mode and
    saddle of the density, however low the density is there, so a lone mode in the wrong place goes
    unseen. It is the root of the squared Fisher score with respect to a shift of the row. The cost
    is one gradient; with KernelDensity, training rows times rows times columns.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skebm.ood import ScoreNormDetector
    >>> X = np.random.RandomState(0).normal(size=(1000, 2)) * [1, 100]
    >>> detector = ScoreNormDetector(GaussianMixture(), random_state=0).fit(X)
    >>> print(detector.score_samples([[3, 0], [0, 300]]).round(1))
    [-3.  -3. ]
    """

    _is_log_density = False

    def __init__(
        self, estimator, *, alpha=0.05, calibration_fraction=0.3, prefit=False, random_state=None
    ):
        self.estimator = estimator
        self.alpha = alpha
        self.calibration_fraction = calibration_fraction
        self.prefit = prefit
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fit the density, and choose the threshold on rows held out.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows.
        y : None
            Ignored, labels too.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_number("alpha", self.alpha, low=0, high=0.5, open_low=True)
        check_split(self)
        X = read_rows(self, X, reset=True, fewest=2)
        self.scale_ = check_array(X, dtype=np.float64).std(axis=0)
        self.estimator_, held_out = fit_and_hold_out(self, X)
        self.offset_ = lower_quantile(self._score(held_out), self.alpha)
        warn_if_few(n_rows(held_out), "alpha", self.alpha)
        return self

    def score_samples(self, X):
        """Return minus the norm of the scaled gradient.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            At most 0, minus nats per standard deviation.
        """
        check_is_fitted(self, "offset_")
        return self._score(read_rows(self, X, reset=False))

    def _score(self, X: Any) -> np.ndarray:
        n = n_rows(X)
        padded = _safe_indexing(X, np.arange(max(n, FEWEST)) % n)
        gradient = evaluate_score(differentiable(self.estimator_), padded, "estimator")[1][:n]
        return -np.linalg.norm(gradient * self.scale_, axis=1)


class KernelScore:
    r"""Gradient of the log density of a fitted ``KernelDensity`` with a Gaussian kernel.

    .. math:: \sum_i r_i(x) \, (x_i - x) / h^2, \quad
        r(x) = \text{softmax}_i(\log w_i - |x - x_i|^2 / 2 h^2)

    Parameters
    ----------
    kernels : KernelDensity
        Fitted.

    Raises
    ------
    ValueError
        If the kernel or the metric has no such gradient.
    """

    def __init__(self, kernels: KernelDensity):
        check_is_fitted(kernels)
        if kernels.kernel != "gaussian" or kernels.metric not in ("euclidean", "l2"):
            raise ValueError(
                "estimator must have a gaussian kernel and the euclidean metric, got kernel "
                f"{kernels.kernel!r} and metric {kernels.metric!r}. Other kernels have no gradient "
                "everywhere."
            )
        self.bandwidth = float(kernels.bandwidth_)
        self.centers = np.asarray(kernels.tree_.data)
        weight = kernels.tree_.sample_weight
        self.log_weight = 0.0 if weight is None else np.log(np.asarray(weight))

    def score_function(self, X: Any) -> np.ndarray:
        """Return the gradient at each row, (n, d), nats per unit of X."""
        x = np.asarray(X, dtype=np.float64)
        size = max(1, BLOCK_VALUES // len(self.centers))
        return np.concatenate([self._block(x[i : i + size]) for i in range(0, len(x), size)])

    def _block(self, x: np.ndarray) -> np.ndarray:
        squared = cdist(x, self.centers, "sqeuclidean") / self.bandwidth**2
        share = softmax(self.log_weight - squared / 2, axis=1)
        middle = self.centers.mean(axis=0)  # the difference of large numbers would lose digits
        return (share @ (self.centers - middle) - (x - middle)) / self.bandwidth**2


def differentiable(estimator: Any) -> Any:
    """Return what `evaluate_score` can read: the inside of wrappers, kernels with a gradient.

    Parameters
    ----------
    estimator : object
        Fitted. Searches, frozen estimators, and detectors whose scores are the log density of
        their ``estimator_`` are seen through.

    Returns
    -------
    object
        With ``score_function``, a mixture, a function, or a Pipeline that ends in one.

    Raises
    ------
    TypeError
        If no gradient can be had.
    """
    if isinstance(estimator, Pipeline):
        label, last = estimator.steps[-1]
        return Pipeline([*estimator.steps[:-1], (label, differentiable(last))])
    if isinstance(estimator, KernelDensity):
        return KernelScore(estimator)
    inner = _inside(estimator)
    if inner is not None:
        return differentiable(inner)
    if not _has_score(estimator):
        raise TypeError(
            "estimator must have score_function, be a GaussianMixture, BayesianGaussianMixture or "
            "KernelDensity, or a pipeline of column scalers and one of these, got "
            f"{type(estimator).__name__}. Its log density has no gradient here: take another."
        )
    return estimator


def _inside(estimator: Any) -> Any:
    """Return the fitted estimator whose log density is that of this one, or None."""
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if isinstance(estimator, Detector) and estimator._is_log_density:
        return getattr(estimator, "estimator_", None)
    return getattr(estimator, "best_estimator_", None)


def _has_score(estimator: Any) -> bool:
    mixtures = GaussianMixture, BayesianGaussianMixture
    known = hasattr(estimator, "score_function") or hasattr(estimator, "log_density")
    return known or isinstance(estimator, mixtures) or callable(estimator)
