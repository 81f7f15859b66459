"""Rank models by how near they are to the law of the same rows."""

from __future__ import annotations

__all__ = ["ModelComparison", "compare_models"]

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from skebm._components import check_choice
from skebm.data import resolve_device, torch_generator
from skebm.networks import Critic
from skebm.stein._scores import (
    Rows,
    check_continuous,
    evaluate_score,
    shown,
    shuffled,
    standardized,
)
from skebm.stein._training import fit_critic
from skebm.stein.kernel import SteinKernel, choose_bandwidth, jackknife
from skebm.stein.settings import DISCREPANCY, CriticSettings, resolve_critic

METHODS = ("lsd", "ksd", "lksd")


class ModelComparison(NamedTuple):
    """Outcome of `compare_models`; the dicts are keyed by the models' names.

    Parameters
    ----------
    ranking : list
        Names, the nearest model first.
    value : dict
        Discrepancy of each model.
    stderr : dict
        Its standard error.
    difference : dict
        Value less that of the first model.
    difference_stderr : dict
        Standard error of the paired difference; 0 for the first model.
    pvalue : dict
        Two-sided, of no difference to the first model; 1 for that one.
    method : str
        The discrepancy.
    """

    ranking: list[Hashable]
    value: dict[Hashable, float]
    stderr: dict[Hashable, float]
    difference: dict[Hashable, float]
    difference_stderr: dict[Hashable, float]
    pvalue: dict[Hashable, float]
    method: str


def compare_models(
    models: Any,
    X: Any,
    *,
    method: str = "lsd",
    critic: CriticSettings | Critic | None = None,
    bandwidth: float | str = "optimized",
    standardize: bool = True,
    random_state: Any = None,
) -> ModelComparison:
    """Rank models by a Stein discrepancy to the same rows; no normalizer, no sample is needed.

    Parameters
    ----------
    models : dict or list
        Models by name, or a list of them, whose names are then 0, 1, ...; each as `score` in
        `learned_stein_discrepancy`. None fitted on the rows of X.
    X : array-like of shape (n, d)
        Rows, independent draws, in any order; at least 17 for ``"lsd"`` with the default split,
        else 4.
    method : {"lsd", "ksd", "lksd"}, default="lsd"
        The discrepancy: learned; kernelized, over all pairs of different rows; kernelized, over
        disjoint pairs.
    critic : CriticSettings or Critic, default=None
        ``"lsd"``: the network and how it is trained, as in `learned_stein_discrepancy`; the same
        split and initial weights for all models.
    bandwidth : float or {"optimized", "median"}, default="optimized"
        ``"ksd"``, ``"lksd"``: standard deviation of the Gaussian kernel in standardized units.
        Optimized, each model has the width at which its discrepancy is largest.
    standardize : bool, default=True
        Divide columns by their standard deviation, the same for all models.
    random_state : int, RandomState instance or None, default=None
        ``"lsd"``: split, initial weights and batches; ``"ksd"``, ``"lksd"``: order of the rows,
        which decides the pairs. All the same for each model.

    Returns
    -------
    ModelComparison
        Ranking, values, errors and paired differences.

    Raises
    ------
    ValueError, TypeError
        If a model, the rows or a parameter is unfit; the message names it.

    Notes
    -----
    A value is a mean of terms: Stein values of the test rows for ``"lsd"``, jackknife
    pseudo-values of all rows for ``"ksd"``, pairs for ``"lksd"``. Models share the rows, so terms
    of the same row are paired and the error of a difference is that of the mean difference of
    terms. It takes each model's own critic, or bandwidth, as given: it holds the chance in the test
    rows, not that in training. The terms of one row do not measure that row's fit under two models.
    The first model was chosen for its value, so p-values against it lean toward small.

    A ranking by Stein discrepancies does not see the relative weights of separated modes. For such
    data compare log likelihoods where models are normalized.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Alg. 1, Eq. 5 and appendix B.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.stein import compare_models
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> models = {"far": lambda x: 1 - x, "right": lambda x: -x, "near": lambda x: 0.3 - x}
    >>> result = compare_models(models, X, method="ksd")
    >>> result.ranking, bool(result.pvalue["near"] < 0.01)
    (['right', 'near', 'far'], True)
    """
    check_choice("method", method, METHODS)
    named = _named(models)
    labels = {name: f"models[{name!r}]" for name in named}
    settings = resolve_critic(critic, DISCREPANCY)
    rng = torch_generator(
        random_state, resolve_device(settings.device if method == "lsd" else "cpu")
    )
    start, terms = rng.get_state(), {}
    tables = {name: evaluate_score(model, X, labels[name]) for name, model in named.items()}
    check_continuous(X, next(iter(tables.values()))[0])
    for name, table in tables.items():
        rng.set_state(start)
        if method == "lsd":
            fit = fit_critic(table, settings, False, standardize, rng, labels[name])
            terms[name] = fit.values
        else:
            rows = standardized(*shuffled(table, rng), standardize, name=labels[name])
            terms[name] = _kernel_terms(rows, bandwidth, method == "lksd")
    return _compare(terms, method)


def _named(models: Any) -> dict[Hashable, Any]:
    if isinstance(models, Mapping):
        named = dict(models)
    elif isinstance(models, list | tuple):
        named = dict(enumerate(models))
    else:
        raise TypeError(
            f"models must be a dict or a list of models, got {shown(models)}. Give each one a name."
        )
    if not named:
        raise ValueError("models must hold at least one model, got none. Give two to compare.")
    return named


def _kernel_terms(rows: Rows, bandwidth: float | str, linear: bool) -> np.ndarray:
    kernel = SteinKernel(rows, choose_bandwidth(rows, bandwidth, linear))
    return kernel.pairs() if linear else jackknife(kernel.row_sums())


def _compare(terms: dict[Hashable, np.ndarray], method: str) -> ModelComparison:
    value = {name: float(t.mean()) for name, t in terms.items()}
    ranking = sorted(terms, key=lambda name: value[name])
    first = terms[ranking[0]]
    stderr = {name: _stderr(t) for name, t in terms.items()}
    difference = {name: value[name] - value[ranking[0]] for name in terms}
    spread = {name: _stderr(t - first) for name, t in terms.items()}
    pvalue = {
        name: float(2 * norm.sf(difference[name] / spread[name])) if spread[name] > 0 else 1.0
        for name in terms
    }
    return ModelComparison(ranking, value, stderr, difference, spread, pvalue, method)


def _stderr(terms: np.ndarray) -> float:
    return float(terms.std(ddof=1) / len(terms) ** 0.5)
