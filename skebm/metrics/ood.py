"""How well one score separates in-distribution rows from out-of-distribution (OOD) rows."""

from __future__ import annotations

__all__ = ["ood_metrics"]

from typing import Any

import numpy as np

from skebm._components import check_number, check_random_state
from skebm._tables import one_per_row

BLOCK_VALUES = 2**18  # drawn rows at once: at most 2 MiB in each temporary array


def ood_metrics(
    score_in: Any,
    score_out: Any,
    *,
    n_bootstrap: int = 0,
    confidence: float = 0.95,
    random_state: Any = None,
) -> dict[str, Any]:
    """Return the usual out-of-distribution detection metrics; a row is accepted if it scores high.

    With ``TPR(t)`` the share of in-distribution rows and ``FPR(t)`` the share of OOD rows that
    score t or more, ``fpr95 = min FPR(t)`` over thresholds with ``TPR(t) >= 0.95`` and
    ``detection_error = min (1 - TPR(t)) / 2 + FPR(t) / 2`` over all thresholds.

    Parameters
    ----------
    score_in : array-like of shape (n_in,)
        Scores of in-distribution rows, higher means more normal: log densities in nats, say. Any
        increasing function of the score gives the same metrics.
    score_out : array-like of shape (n_out,)
        Scores of OOD rows.
    n_bootstrap : int, default=0
        Resamples of the rows from which intervals are made; 0 makes none. More resamples make the
        ends of the intervals less random: 1000 are usual.
    confidence : float, default=0.95
        Nominal coverage of each interval, in (0, 0.999], dimensionless.
    random_state : int, RandomState or None, default=None
        Seed or generator of the resamples.

    Returns
    -------
    dict of str to float, and of str to tuple of float
        All dimensionless, in [0, 1]:

        - ``auroc``: probability that an in-distribution row outscores an OOD row, ties half;
        - ``aupr_in``: average precision with in-distribution rows as the positive class;
        - ``aupr_out``: average precision with OOD rows as the positive class;
        - ``fpr95``, ``fpr80``: share of OOD rows accepted by the highest threshold that accepts at
          least 95 % (80 %) of the in-distribution rows;
        - ``detection_error``: smallest mean of the two error rates.

        With `n_bootstrap` also, under the same names followed by ``_interval``, the tuples
        ``(low, high)``.

    Raises
    ------
    ValueError, TypeError
        If scores are not one-dimensional, are empty, or are not finite, or if `n_bootstrap` or
        `confidence` is not a number in its range.

    Notes
    -----
    Rows with equal scores are accepted or refused together: constant scores give ``auroc`` 0.5,
    ``fpr95`` 1 and ``detection_error`` 0.5. The two average precisions depend on ``n_in / n_out``;
    the others do not.

    The intervals are percentiles of the metrics over resamples: in-distribution and OOD rows are
    drawn anew, independently, with replacement and as many as there are. They tell what other rows
    would have given, not what another fit of the model would have. At `confidence` 0.95, with
    50 + 50 scores from N(1, 1) and N(0, 1), they covered the value for endless rows in 94 %
    (``auroc``), 90 to 91 % (``aupr_in``, ``aupr_out``), 96 % (``fpr95``, ``fpr80``) and 79 %
    (``detection_error``) of 4,000 repetitions. Those of ``detection_error`` lie too low, because
    each resample chooses its own best threshold. Where every in-distribution row outscores every
    OOD row, all resamples agree: an interval without width is no proof of perfection.

    A resample costs about as much as the metrics themselves: 200 resamples of 10,000 + 10,000
    scores took between 0.5 and 1 s on one core.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating out-of-distribution data density overestimation in
       energy-based models". Table 1 (FPR95, AUPR).
    .. [2] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Table 4 (AUROC, AUPRC, FPR80).

    Examples
    --------
    >>> from skebm.metrics import ood_metrics
    >>> metrics = ood_metrics([0.9, 0.8, 0.4, 0.7], [0.1, 0.2, 0.5])
    >>> {name: round(value, 3) for name, value in metrics.items()}
    {'auroc': 0.917, 'aupr_in': 0.95, 'aupr_out': 0.917, 'fpr95': 0.333, 'fpr80': 0.333, \
'detection_error': 0.125}
    >>> import numpy as np
    >>> scores = np.random.RandomState(0).randn(2, 500)
    >>> metrics = ood_metrics(scores[0] + 1, scores[1], n_bootstrap=1000, random_state=0)
    >>> print(*(f"{value:.2f}" for value in (metrics["auroc"], *metrics["auroc_interval"])))
    0.77 0.75 0.80
    """
    score_in = one_per_row("score_in", score_in, finite=True)
    score_out = one_per_row("score_out", score_out, finite=True)
    check_number("n_bootstrap", n_bootstrap, low=0, integer=True, remedy="0 makes no intervals.")
    check_number(
        "confidence", confidence, low=0, high=0.999, open_low=True, remedy="Write 95 % as 0.95."
    )
    distinct, group = np.unique(np.concatenate([score_in, score_out]), return_inverse=True)
    group_in, group_out = np.split(group, [len(score_in)])
    k = len(distinct)
    observed = _metrics(_counts(group_in[None], k), _counts(group_out[None], k))
    metrics = {name: float(value[0]) for name, value in observed.items()}
    if n_bootstrap == 0:
        return metrics
    rng = check_random_state(random_state)
    resampled = _resample(group_in, group_out, k, n_bootstrap, rng)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {
        f"{m}_interval": tuple(np.quantile(v, ends).tolist()) for m, v in resampled.items()
    }
    return {**metrics, **intervals}


def _metrics(n_in: np.ndarray, n_out: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics, each (b,), of b samples given as counts (b, k) at k increasing scores."""
    total_in, total_out = n_in[0].sum(), n_out[0].sum()
    accepted_in, accepted_out = _at_least(n_in), _at_least(n_out)  # score t or more, first is all
    below_in, below_out = total_in - accepted_in[:, 1:], total_out - accepted_out[:, 1:]
    tpr, fpr = accepted_in / total_in, accepted_out / total_out
    hits_in = accepted_in[:, :-1] / np.maximum(accepted_in + accepted_out, 1)[:, :-1]
    hits_out = below_out / np.maximum(below_in + below_out, 1)
    wins = (n_in * (below_out - 0.5 * n_out)).sum(axis=1)  # below_out counts ties too
    return {
        "auroc": wins / (total_in * total_out),
        "aupr_in": (n_in * hits_in).sum(axis=1) / total_in,
        "aupr_out": (n_out * hits_out).sum(axis=1) / total_out,
        "fpr95": np.where(tpr >= 0.95, fpr, 1.0).min(axis=1),
        "fpr80": np.where(tpr >= 0.80, fpr, 1.0).min(axis=1),
        "detection_error": (0.5 * (1 - tpr) + 0.5 * fpr).min(axis=1),
    }


def _at_least(n: np.ndarray) -> np.ndarray:
    """Rows at each score or above it, (b, k + 1): the last entry is 0, for none."""
    tails = np.zeros((len(n), n.shape[1] + 1), dtype=n.dtype)
    tails[:, :-1] = n[:, ::-1].cumsum(axis=1)[:, ::-1]
    return tails


def _counts(groups: np.ndarray, k: int) -> np.ndarray:
    """Count the values 0 to k - 1 in each row of (b, n): (b, k)."""
    b = len(groups)
    shifted = groups + k * np.arange(b)[:, None]
    return np.bincount(shifted.ravel(), minlength=b * k).reshape(b, k)


def _resample(
    group_in: np.ndarray, group_out: np.ndarray, k: int, n: int, rng: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Metrics of n resamples, each (n,)."""
    size = max(1, BLOCK_VALUES // (len(group_in) + len(group_out)))
    blocks = []
    for start in range(0, n, size):
        b = min(size, n - start)
        counts = [
            _counts(group[rng.randint(len(group), size=(b, len(group)))], k)
            for group in (group_in, group_out)
        ]
        blocks.append(_metrics(*counts))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
