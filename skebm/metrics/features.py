"""Real against generated rows, by features or class probabilities that the user computed."""

from __future__ import annotations

__all__ = [
    "InceptionScore",
    "PrecisionRecall",
    "frechet_distance",
    "inception_score",
    "prd_f_beta",
]

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import rel_entr
from sklearn.cluster import MiniBatchKMeans
from sklearn.utils import check_array

from skebm._components import check_number, check_random_state

EDGE = 1e-10  # radians between the first angle and an axis; slopes go from 1e-10 to 1e10
SUM_TOLERANCE = 1e-3  # how far float16 or rounded probabilities may be from a sum of 1


class PrecisionRecall(NamedTuple):
    """Quality (precision) and coverage (recall) of a generated sample.

    Parameters
    ----------
    f_recall : float
        Largest F_beta along the curve, dimensionless, in [0, 1]: mostly coverage.
    f_precision : float
        Largest F_(1/beta) along the curve, dimensionless, in [0, 1]: mostly quality.
    precision : ndarray of shape (n_angles,)
        Precision along the curve, dimensionless, increasing.
    recall : ndarray of shape (n_angles,)
        Recall along the curve, dimensionless, decreasing.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.metrics import PrecisionRecall
    >>> PrecisionRecall(0.9, 0.8, np.array([0.0, 1.0]), np.array([1.0, 0.0])).f_recall
    0.9
    """

    f_recall: float
    f_precision: float
    precision: np.ndarray
    recall: np.ndarray


def prd_f_beta(
    real: Any,
    fake: Any,
    *,
    beta: float = 8,
    n_clusters: int = 20,
    n_angles: int = 1001,
    n_runs: int = 10,
    random_state: int | np.random.RandomState | None = None,
) -> PrecisionRecall:
    r"""Return precision and recall of a generated sample, and the largest F scores along them.

    Both samples are clustered together. With p and q the shares of the real and of the generated
    rows in the clusters, each slope :math:`\lambda` gives

    .. math:: \alpha(\lambda) = \sum_j \min(\lambda p_j, q_j), \qquad
        \beta(\lambda) = \alpha(\lambda) / \lambda,

    precision and recall, averaged over the runs, and of these the largest
    :math:`F_b = (1 + b^2) \alpha \beta / (b^2 \alpha + \beta)` at b = `beta` and ``1 / beta``.

    Parameters
    ----------
    real : array-like of shape (n, d)
        Features of real rows.
    fake : array-like of shape (m, d)
        The same features of generated rows.
    beta : float, default=8
        Weight of recall in ``f_recall`` and of precision in ``f_precision``, >= 1, dimensionless.
        Larger tells them apart more; with 1 they are equal.
    n_clusters : int, default=20
        Number of clusters, >= 1, at most ``2 min(n, m)``. More see finer differences and more
        noise.
    n_angles : int, default=1001
        Number of slopes, >= 3, the tangents of evenly spaced angles; odd numbers hold the slope 1.
    n_runs : int, default=10
        Number of clusterings, >= 1. More make the result less random.
    random_state : int, RandomState or None, default=None
        Seed or generator of the clusterings and of the rows that they see.

    Returns
    -------
    PrecisionRecall
        Fields `f_recall`, `f_precision`, and `precision` and `recall`, shape (n_angles,).

    Raises
    ------
    ValueError
        If `real` or `fake` is not a finite table, they differ in columns, or a number is out of its
        range.
    TypeError
        If a number is none.

    Notes
    -----
    The features are the user's (a classifier's last layer, say, or the columns of a table): no
    network is downloaded. Where one sample is larger, each run draws as many of its rows as the
    smaller one has, without replacement, for the clusters to weigh both alike.

    Equal histograms give 1, disjoint ones 0. Two finite samples of one density come near 1 from
    below: compare with that.

    References
    ----------
    .. [1] M. S. M. Sajjadi, O. Bachem, M. Lucic, O. Bousquet and S. Gelly, "Assessing generative
       models via precision and recall", NeurIPS 2018. Sections 3 and 4.

    Examples
    --------
    >>> from skebm.datasets import six_modes
    >>> from skebm.metrics import prd_f_beta
    >>> real, fake = (six_modes().sample(600, random_state=seed) for seed in (0, 1))
    >>> half = fake[fake[:, 0] > 0]  # right kind, half of the modes
    >>> found = prd_f_beta(real, half, n_clusters=6, n_runs=2, random_state=0)
    >>> print(f"recall {found.f_recall:.1f}, precision {found.f_precision:.1f}")
    recall 0.5, precision 1.0
    """
    real, fake = _as_features("real", real), _as_features("fake", fake)
    _check_columns(real, fake)
    n = min(len(real), len(fake))
    check_number("beta", beta, low=1, remedy="Try 8.")
    few = f"There are {n} rows of each kind; give more, or fewer clusters."
    check_number("n_clusters", n_clusters, low=1, high=2 * n, integer=True, remedy=few)
    check_number("n_angles", n_angles, low=3, integer=True, remedy="Try 1001.")
    check_number("n_runs", n_runs, low=1, integer=True, remedy="Try 10.")
    rng = check_random_state(random_state)
    slopes = np.tan(np.linspace(EDGE, np.pi / 2 - EDGE, n_angles))
    runs = []
    for _ in range(n_runs):
        shares = _histograms(_draw(real, n, rng), _draw(fake, n, rng), n_clusters, rng)
        runs.append(_curve(*shares, slopes))
    precision, recall = np.mean(runs, axis=0)
    f_recall, f_precision = (_largest_f(precision, recall, b) for b in (beta, 1 / beta))
    return PrecisionRecall(f_recall, f_precision, precision, recall)


def _draw(rows: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    return rows if len(rows) == n else rows[rng.permutation(len(rows))[:n]]


def _histograms(
    real: np.ndarray, fake: np.ndarray, n_clusters: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the real and of the generated rows in clusters of both."""
    kmeans = MiniBatchKMeans(n_clusters, n_init=10, random_state=rng)
    labels = np.split(kmeans.fit_predict(np.concatenate([real, fake])), [len(real)])
    real_share, fake_share = (
        np.bincount(part, minlength=n_clusters) / len(part) for part in labels
    )
    return real_share, fake_share


def _curve(
    real_share: np.ndarray, fake_share: np.ndarray, slopes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    precision = np.minimum(slopes[:, None] * real_share, fake_share).sum(axis=1)
    return precision, precision / slopes


def _largest_f(precision: np.ndarray, recall: np.ndarray, beta: float) -> float:
    product, weighted = precision * recall, beta**2 * precision + recall
    some = weighted > 0  # F of 0 and 0 is 0
    return float(((1 + beta**2) * product[some] / weighted[some]).max(initial=0))


class InceptionScore(NamedTuple):
    """Mean over the splits, with their standard deviation.

    Parameters
    ----------
    value : float
        The score, dimensionless, from 1 to the number of classes; larger is better.
    std : float
        Standard deviation over the splits (division by their number), dimensionless; NaN for one.

    Examples
    --------
    >>> from skebm.metrics import InceptionScore
    >>> InceptionScore(value=7.4, std=0.1).value
    7.4
    """

    value: float
    std: float


def inception_score(probabilities: Any, n_splits: int = 1) -> InceptionScore:
    r"""Return the inception score of given class probabilities.

    :math:`\exp(E_x KL(p(y | x) \| p(y)))` with :math:`p(y) = E_x p(y | x)`: high where each row is
    of one class, and the classes are many.

    Parameters
    ----------
    probabilities : array-like of shape (n, c)
        A classifier's class probabilities of generated rows, >= 0, each row of sum 1.
    n_splits : int, default=1
        Number of parts, >= 1, at most n, in the order of the rows; the score is their mean. More
        make each part, and with it the score, smaller.

    Returns
    -------
    InceptionScore
        Fields `value` and `std`.

    Raises
    ------
    ValueError
        If a probability is negative or not finite, a row's sum is not 1 to 0.001, or `n_splits` is
        out of its range.
    TypeError
        If `n_splits` is not an integer.

    Notes
    -----
    The classifier is the user's: no network is downloaded, and only values of one classifier
    compare. Published values use the Inception network, 50,000 rows and 10 splits. Shuffle rows
    that come sorted by class before splitting them. Rows are divided by their sums.

    References
    ----------
    .. [1] T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford and X. Chen, "Improved
       techniques for training GANs", NeurIPS 2016. Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.metrics import inception_score
    >>> print(f"{inception_score(np.eye(10)).value:.6f}")
    10.000000
    >>> print(f"{inception_score(np.full((5, 4), 0.25)).value:.6f}")
    1.000000
    """
    p = check_array(probabilities, dtype=np.float64, input_name="probabilities")
    check_number("n_splits", n_splits, low=1, high=len(p), integer=True, remedy="Try 1.")
    if p.min() < 0:
        raise ValueError(f"probabilities must be >= 0, got {p.min():g}. Apply a softmax.")
    total = p.sum(axis=1, keepdims=True)
    worst = total.flat[np.abs(total - 1).argmax()]
    if abs(worst - 1) > SUM_TOLERANCE:
        raise ValueError(
            f"probabilities must sum to 1 in each row, got {worst:g}. Apply a softmax."
        )
    parts = np.array_split(p / total, n_splits)
    scores = [np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean()) for part in parts]
    return InceptionScore(
        float(np.mean(scores)), float(np.std(scores)) if n_splits > 1 else math.nan
    )


def frechet_distance(real: Any, fake: Any) -> float:
    r"""Return the squared Fréchet distance of the Gaussians fitted to two samples of features.

    With means m, w and covariances C, D,

    .. math:: \|m - w\|^2 + \operatorname{tr}(C + D - 2 (C D)^{1/2}).

    Parameters
    ----------
    real : array-like of shape (n, d)
        Features of real rows, n >= 2.
    fake : array-like of shape (m, d)
        The same features of generated rows, m >= 2.

    Returns
    -------
    float
        The squared distance, >= 0, in squared units of the features.

    Raises
    ------
    ValueError
        If a sample is not a finite table of two rows or more, or they differ in columns.

    Notes
    -----
    The features are the user's: no network is downloaded. With those of the Inception network the
    value is the Fréchet inception distance. It is biased upward, by less the more rows there are:
    compare samples of equal sizes.

    The trace of the square root is the sum of the singular values of :math:`A B^T` where
    :math:`A^T A = C` and :math:`B^T B = D` come from the centered rows. No matrix is inverted and
    no root of a rounded eigenvalue is taken, so that singular covariances (fewer rows than columns,
    constant columns) are no special case. The covariances divide by n - 1; the cost is
    ``(n + m) d^2 + d^3`` operations.

    References
    ----------
    .. [1] M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter, "GANs trained by a
       two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017. Eq. 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.metrics import frechet_distance
    >>> X = np.random.RandomState(0).randn(100, 3)
    >>> print(f"{frechet_distance(X, X + [1, 2, 0]):.6f}")  # equal covariances
    5.000000
    """
    real = check_array(real, dtype=np.float64, input_name="real", ensure_min_samples=2)
    fake = check_array(fake, dtype=np.float64, input_name="fake", ensure_min_samples=2)
    _check_columns(real, fake)
    shift = real.mean(axis=0) - fake.mean(axis=0)
    a, b = _factor(real), _factor(fake)
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * overlap))


def _factor(X: np.ndarray) -> np.ndarray:
    """Return a factor A of the covariance, A'A, with at most d rows."""
    return np.asarray(np.linalg.qr((X - X.mean(axis=0)) / math.sqrt(len(X) - 1), mode="r"))


def _as_features(name: str, X: Any) -> np.ndarray:
    return check_array(X, dtype=[np.float64, np.float32], input_name=name)


def _check_columns(real: np.ndarray, fake: np.ndarray) -> None:
    if fake.shape[1] != real.shape[1]:
        raise ValueError(
            f"fake must have {real.shape[1]} columns, got {fake.shape[1]}. "
            "Compute the same features for both."
        )
