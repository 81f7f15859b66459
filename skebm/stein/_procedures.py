"""The four tests of fit, each from rows and scores to a p-value."""

from __future__ import annotations

__all__ = [
    "GoodnessOfFit",
    "finite_set_test",
    "kernel_rows",
    "learned_test",
    "linear_test",
    "quadratic_test",
]

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student

from skebm._surroundings import own_settings
from skebm._warn import warn
from skebm.stein._scores import Rows, standardized
from skebm.stein._training import TINY, FittedCritic, fit_critic
from skebm.stein.fssd import finite_set_terms, optimize_locations
from skebm.stein.kernel import SteinKernel, choose_bandwidth
from skebm.stein.settings import CriticSettings

LOCATION_SHARE = 0.2  # of the rows choose the locations: appendix B.1
N_LOCATIONS = 5
FEWEST_LEARNED = 50  # test rows below which the level of "lsd" is clearly above alpha


class GoodnessOfFit(NamedTuple):
    """Outcome of `goodness_of_fit_test`.

    Parameters
    ----------
    statistic : float
        ``"lsd"`` and ``"lksd"``: mean over its standard error, about Student's t and N(0, 1) where
        the model is right. ``"ksd"`` and ``"fssd"``: n times the squared discrepancy.
    pvalue : float
        Probability of a statistic as large where the model is right, approximately.
    reject : bool
        Whether the p-value is at most alpha.
    method : str
        The test.
    alpha : float
        Level.
    n_test : int
        Rows that the statistic was computed on.
    bandwidth : float or None
        Standard deviation of the Gaussian kernel, standardized units; None for ``"lsd"``.
    critic : FittedCritic or None
        The critic of ``"lsd"``: large where model and rows differ.
    locations : ndarray of shape (n_locations, d) or None
        The locations of ``"fssd"``, units of X.
    history : list of dict or None
        Training of the critic of ``"lsd"``, see `LearnedSteinDiscrepancy`.
    """

    statistic: float
    pvalue: float
    reject: bool
    method: str
    alpha: float
    n_test: int
    bandwidth: float | None = None
    critic: FittedCritic | None = None
    locations: np.ndarray | None = None
    history: list[dict[str, float]] | None = None

    def __repr__(self) -> str:
        left_out = ("critic", "locations", "history")
        shown = [f"{k}={v!r}" for k, v in self._asdict().items() if k not in left_out]
        return f"GoodnessOfFit({', '.join(shown)})"


@own_settings()
def learned_test(
    table: tuple[np.ndarray, np.ndarray],
    settings: CriticSettings,
    standardize: bool,
    n_draws: int | None,
    alpha: float,
    rng: torch.Generator,
) -> GoodnessOfFit:
    fit = fit_critic(table, settings, True, standardize, rng)
    values, n = fit.values, len(fit.values)
    if n < FEWEST_LEARNED:
        warn(
            f"method='lsd' has {n} test rows; below {FEWEST_LEARNED} right models are rejected "
            "clearly too often. Give more rows, a larger third share of split, or method='ksd'.",
            UserWarning,
        )
    statistic = n**0.5 * values.mean() / (values.std(ddof=1) + TINY)
    if n_draws is None:
        pvalue = student.sf(statistic, n - 1)
    else:
        pvalue = _share(values @ _signs(n, n_draws, rng), values.sum())
    return _outcome("lsd", statistic, pvalue, alpha, n, critic=fit.critic, history=fit.history)


def kernel_rows(
    table: tuple[np.ndarray, np.ndarray], standardize: bool, bandwidth: float | str, linear: bool
) -> tuple[Rows, float]:
    """Return the rows of the test and the width, which no row of the test has chosen."""
    if not (isinstance(bandwidth, str) and bandwidth == "optimized"):
        rows = standardized(*table, standardize)
        return rows, choose_bandwidth(rows, bandwidth)
    chosen, rows = _parted(table, standardize, np.arange(len(table[0])))
    return rows, choose_bandwidth(chosen, bandwidth, linear)


def linear_test(kernel: SteinKernel, width: float, alpha: float) -> GoodnessOfFit:
    terms = kernel.pairs()
    size = np.sqrt(np.mean(terms**2))
    statistic = len(terms) ** 0.5 * terms.mean() / size if size > 0 else 0.0
    pvalue = norm.sf(statistic)
    return _outcome("lksd", statistic, pvalue, alpha, 2 * len(terms), bandwidth=width)


@own_settings()
def quadratic_test(
    kernel: SteinKernel, width: float, n_draws: int, alpha: float, rng: torch.Generator
) -> GoodnessOfFit:
    """Wild bootstrap: the double sum with random signs, block by block of the kernel matrix."""
    signs = _signs(kernel.n, n_draws, rng)
    total, draws = 0.0, np.zeros(n_draws)
    for a, b, h in kernel.upper():
        h[:, a.stop - b.start :] *= 2  # the blocks below the diagonal
        total += h.sum()
        draws += np.einsum("ij,ij->j", signs[a], h.astype(np.float32) @ signs[b])
    statistic, pvalue = total / kernel.n, _share(draws, total)
    return _outcome("ksd", statistic, pvalue, alpha, kernel.n, bandwidth=width)


@own_settings()
def finite_set_test(
    table: tuple[np.ndarray, np.ndarray],
    standardize: bool,
    n_draws: int,
    alpha: float,
    rng: torch.Generator,
) -> GoodnessOfFit:
    """Choose locations on a fifth of the rows; simulate the null from the features' moments."""
    order = torch.randperm(len(table[0]), generator=rng).numpy()
    chosen, rows = _parted(table, standardize, order)
    locations, width = optimize_locations(chosen, N_LOCATIONS, rng)
    terms, moments = finite_set_terms(rows, locations, width)
    weights = torch.from_numpy(np.linalg.eigvalsh(moments).clip(min=0))
    normal = torch.randn(n_draws, len(weights), generator=rng, dtype=torch.float64)
    draws = ((normal.square_() - 1) @ weights).numpy()
    statistic = len(terms) * terms.mean()
    pvalue = _share(draws, statistic)
    in_x = locations * rows.standardizer.scale + rows.standardizer.location
    return _outcome("fssd", statistic, pvalue, alpha, len(terms), bandwidth=width, locations=in_x)


def _outcome(
    method: str, statistic: float, pvalue: float, alpha: float, n: int, **more: Any
) -> GoodnessOfFit:
    reject = bool(pvalue <= alpha)
    return GoodnessOfFit(float(statistic), float(pvalue), reject, method, alpha, n, **more)


def _parted(
    table: tuple[np.ndarray, np.ndarray], standardize: bool, order: np.ndarray
) -> tuple[Rows, Rows]:
    """Return the rows that choose and those that test, standardized by the former."""
    n = max(4, round(LOCATION_SHARE * len(order)))
    if len(order) < n + 4:
        raise ValueError(
            f"X must have at least 8 rows to choose on some and test on others, got {len(order)}. "
            "Use method='ksd' with the median bandwidth."
        )
    rows = standardized(*table, standardize, reference=order[:n])
    first, second = order[:n], order[n:]
    return (
        Rows(rows.x[first], rows.score[first], rows.standardizer),
        Rows(rows.x[second], rows.score[second], rows.standardizer),
    )


def _signs(n: int, n_draws: int, rng: torch.Generator) -> np.ndarray:
    """Return random signs (n, n_draws), single precision."""
    bits = torch.empty(n, n_draws, dtype=torch.int8, device=rng.device)
    bits.random_(0, 2, generator=rng)
    return bits.mul_(2).sub_(1).cpu().numpy().astype(np.float32)


def _share(draws: np.ndarray, statistic: float) -> float:
    """Return the p-value; the statistic counts as one of the draws."""
    return float((1 + np.count_nonzero(draws >= statistic)) / (1 + len(draws)))
