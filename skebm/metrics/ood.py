"""How well one score separates in-distribution rows from out-of-distribution (OOD) rows."""

from __future__ import annotations

__all__ = ["ood_metrics"]

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


def ood_metrics(score_in: Any, score_out: Any) -> dict[str, float]:
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

    Returns
    -------
    dict of str to float
        All dimensionless, in [0, 1]:

        - ``auroc``: probability that an in-distribution row outscores an OOD row, ties half;
        - ``aupr_in``: average precision with in-distribution rows as the positive class;
        - ``aupr_out``: average precision with OOD rows as the positive class;
        - ``fpr95``, ``fpr80``: share of OOD rows accepted by the highest threshold that accepts at
          least 95 % (80 %) of the in-distribution rows;
        - ``detection_error``: smallest mean of the two error rates.

    Raises
    ------
    ValueError
        If an argument is not one-dimensional, is empty, or is not finite.

    Notes
    -----
    Rows with equal scores are accepted or refused together: constant scores give ``auroc`` 0.5,
    ``fpr95`` 1 and ``detection_error`` 0.5. The two average precisions depend on ``n_in / n_out``;
    the others do not.

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
    """
    score_in, score_out = _as_scores("score_in", score_in), _as_scores("score_out", score_out)
    is_in = np.repeat([1, 0], [len(score_in), len(score_out)])
    score = np.concatenate([score_in, score_out])
    fpr, tpr, _ = roc_curve(is_in, score, drop_intermediate=False)
    metrics = {
        "auroc": roc_auc_score(is_in, score),
        "aupr_in": average_precision_score(is_in, score),
        "aupr_out": average_precision_score(1 - is_in, -score),
        "fpr95": fpr[tpr >= 0.95].min(),
        "fpr80": fpr[tpr >= 0.80].min(),
        "detection_error": (0.5 * (1 - tpr) + 0.5 * fpr).min(),
    }
    return {name: float(value) for name, value in metrics.items()}


def _as_scores(name: str, scores: Any) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise ValueError(
            f"{name} must be one-dimensional and not empty, got shape {scores.shape}. "
            "Pass one score per row."
        )
    n_bad = np.count_nonzero(~np.isfinite(scores))
    if n_bad:
        raise ValueError(
            f"{name} must be finite, got {n_bad} of {len(scores)} values that are NaN or infinite "
            f"({np.count_nonzero(np.isnan(scores))} NaN). Look at the rows that they belong to."
        )
    return scores
