"""Model selection by Stein discrepancies inside scikit-learn."""

from __future__ import annotations

__all__ = ["stein_score"]

from typing import Any

from skebm.stein.kernel import kernelized_stein_discrepancy


def stein_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Return minus the squared kernelized Stein discrepancy: a scorer, larger is better.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``score_function``; or a GaussianMixture or BayesianGaussianMixture; or a
        Pipeline of column scalers and one of these.
    X : array-like of shape (n, d)
        Held-out rows, at least 4.
    y : None
        Ignored.

    Returns
    -------
    float
        Minus the largest U-statistic over kernel widths from 1/8 to 8 times the median distance,
        on standardized rows.

    Raises
    ------
    ValueError, TypeError
        If the estimator gives no score, or X is unfit.

    Notes
    -----
    For models without a normalizer, which ``score`` cannot compare: pass it as ``scoring`` to
    ``GridSearchCV`` or ``cross_val_score``. Scales and the range of widths depend on the rows
    alone, so all models are held to the same measure on a split, and nothing is random. The usual
    width, the median, is too wide to choose by: it sees no more than a model's outline.

    Where log likelihoods can be had, they choose better, and with few rows in many columns this
    choice means little. `compare_models` with ``"lsd"`` may see more in many columns, given rows
    enough to train a critic. One row with a huge score can dominate a fold, so shuffle rows that
    are ordered. No score sees the relative weights of separated modes.

    References
    ----------
    .. [1] Q. Liu, J. D. Lee and M. I. Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit
       Tests", ICML 2016. Theorem 3.6.
    .. [2] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Appendix B.2.

    Examples
    --------
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.model_selection import GridSearchCV, KFold
    >>> from skebm.datasets import two_moons
    >>> from skebm.stein import stein_score
    >>> X = two_moons().sample(600, random_state=0)
    >>> model = GaussianMixture(random_state=0)
    >>> cv = KFold(3, shuffle=True, random_state=0)
    >>> search = GridSearchCV(model, {"n_components": [1, 8]}, scoring=stein_score, cv=cv)
    >>> search.fit(X).best_params_
    {'n_components': 8}
    """
    return -kernelized_stein_discrepancy(estimator, X, bandwidth="optimized").value
