"""Tests of a model against rows, without samples of the model."""

from __future__ import annotations

__all__ = ["GoodnessOfFit", "goodness_of_fit_test"]

from math import ceil
from typing import Any

from skebm._components import check_choice, check_number
from skebm.data import resolve_device, torch_generator
from skebm.networks import Critic
from skebm.stein._procedures import (
    GoodnessOfFit,
    finite_set_test,
    kernel_rows,
    learned_test,
    linear_test,
    quadratic_test,
)
from skebm.stein._scores import read_table, shuffled
from skebm.stein.kernel import SteinKernel
from skebm.stein.settings import TEST, CriticSettings, resolve_critic

METHODS = ("lsd", "ksd", "lksd", "fssd")
N_DRAWS = {"ksd": 1000, "fssd": 2000}


def goodness_of_fit_test(
    score: Any,
    X: Any,
    *,
    method: str = "lsd",
    alpha: float = 0.05,
    critic: CriticSettings | Critic | None = None,
    bandwidth: float | str = "median",
    n_draws: int | None = None,
    standardize: bool = True,
    random_state: Any = None,
) -> GoodnessOfFit:
    r"""Test whether rows come from a model, given the gradient of its log density alone.

    ``"lsd"`` trains a critic f for the power of the test and asks on rows of their own whether the
    mean of :math:`s(x) \cdot f(x) + \mathrm{div} f(x)` is above 0. ``"ksd"`` is the test of the
    kernelized Stein discrepancy over all pairs with a wild bootstrap, ``"lksd"`` its linear-time
    form over disjoint pairs, ``"fssd"`` the test of the finite set Stein discrepancy with optimized
    locations.

    Parameters
    ----------
    score : callable or fitted density
        The model: a function from (n, d) to (n, d), the gradient of its log density in nats per
        unit of X; a fitted estimator with ``score_function``; a fitted scikit-learn
        GaussianMixture or BayesianGaussianMixture; a density of `skebm.datasets`; or a Pipeline of
        column scalers and one of these. Not fitted on the rows of X.
    X : array-like of shape (n, d)
        Rows, independent draws, in any order. ``"lsd"`` needs 20 with the default split and warns
        below 125, that is 50 test rows; ``"fssd"`` and an optimized bandwidth need 8, others 4.
    method : {"lsd", "ksd", "lksd", "fssd"}, default="lsd"
        The test.
    alpha : float, default=0.05
        Level, above 0 and below 1.
    critic : CriticSettings or Critic, default=None
        ``"lsd"``: the network and how it is trained; None means a dropout of 0.5 and the second
        defaults of `CriticSettings`.
    bandwidth : float or {"median", "optimized"}, default="median"
        ``"ksd"``, ``"lksd"``: standard deviation of the Gaussian kernel in standardized units.
        Optimized, it is chosen on a random fifth of the rows and the test uses the others.
    n_draws : int, default=None
        Draws of the null: bootstrap of ``"ksd"``, by default 1000; weighted chi-squares of
        ``"fssd"``, by default 2000; random signs on the Stein values of ``"lsd"``, exact for few
        rows where these are symmetric, in place of Student's t. At least 1 / alpha - 1, or no
        p-value could reach alpha.
    standardize : bool, default=True
        Divide columns by their standard deviation (over the rows that train or choose, where there
        are such), so that units do not matter.
    random_state : int, RandomState instance or None, default=None
        Splits, order of the rows, initial weights, draws.

    Returns
    -------
    GoodnessOfFit
        Statistic, p-value, decision.

    Raises
    ------
    ValueError, TypeError
        If the score or a parameter is unfit; the message names it.

    Notes
    -----
    The test of ``"lsd"`` is one-sided with the upper quantile: the critic is trained toward a
    positive mean. (The paper prints the lower one; its authors' program has the upper.)

    Stein values of a trained critic have a longer left tail, so ``"lsd"`` rejects right models a
    little too often with a few hundred test rows, more often with fewer, and clearly too often
    with less than 50, where it warns.

    Rows with constant columns, few values or copies come from no continuous density: every model
    is then wrong, and all four tests may say so.

    A test that does not reject proves nothing. The score does not see the relative weights of modes
    that lie far apart: a model with right modes and wrong weights passes all four tests. Kernels
    see little in many columns, and the power of ``"lsd"`` rests on what the critic finds.

    ``"lsd"`` costs a bounded number of updates of at most a batch of rows, then one pass over
    validation and test rows: for large n the time grows slower than n. ``"ksd"`` costs
    n^2 (d + n_draws) in blocks of 16 MB, beside n_draws signs a row in single precision: 4 KB a
    row. ``"lksd"`` and ``"fssd"``, which has 5 locations, cost n d.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Eq. 12, Alg. 2 and appendix B.1.
    .. [2] K. Chwialkowski, H. Strathmann and A. Gretton, "A Kernel Test of Goodness of Fit", ICML
       2016. Section 2.2.
    .. [3] Q. Liu, J. D. Lee and M. I. Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit
       Tests", ICML 2016. Eq. 17.
    .. [4] W. Jitkrittum, W. Xu, Z. Szabo, K. Fukumizu and A. Gretton, "A Linear-Time Kernel
       Goodness-of-Fit Test", NIPS 2017. Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.datasets import GaussianDensity
    >>> from skebm.stein import CriticSettings, goodness_of_fit_test
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> wrong = GaussianDensity(np.eye(3), mean=[0.5, 0, 0])
    >>> goodness_of_fit_test(wrong, X, method="ksd", random_state=0).reject
    True
    >>> short = CriticSettings(max_iter=50)
    >>> bool(goodness_of_fit_test(wrong, X, critic=short, random_state=0).pvalue < 0.01)
    True
    """
    check_choice("method", method, METHODS)
    _check_alpha(alpha)
    settings = resolve_critic(critic, TEST)
    draws: Any = N_DRAWS.get(method) if n_draws is None else n_draws
    if draws is not None:
        _check_draws(draws, alpha)
    table = read_table(score, X)
    if method == "lsd":
        rng = torch_generator(random_state, resolve_device(settings.device))
        return learned_test(table, settings, standardize, draws, alpha, rng)
    rng = torch_generator(random_state)
    if method == "fssd":
        return finite_set_test(table, standardize, draws, alpha, rng)
    rows, width = kernel_rows(shuffled(table, rng), standardize, bandwidth, method == "lksd")
    kernel = SteinKernel(rows, width)
    if method == "lksd":
        return linear_test(kernel, width, alpha)
    return quadratic_test(kernel, width, draws, alpha, rng)


def _check_alpha(alpha: Any) -> None:
    check_number("alpha", alpha)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be a number > 0 and < 1, got {alpha!r}. Use 0.05, say.")


def _check_draws(n_draws: int, alpha: float) -> None:
    """Raise where the smallest p-value, that of a statistic above all draws, is above alpha."""
    check_number("n_draws", n_draws, low=1, integer=True)
    if 1 / (1 + n_draws) > alpha:
        raise ValueError(
            f"n_draws must be an integer >= {ceil(1 / alpha) - 1} for alpha={alpha!r}, got "
            f"{n_draws!r}. The p-value is at least 1 / (n_draws + 1), so no model would be "
            "rejected: raise n_draws."
        )
