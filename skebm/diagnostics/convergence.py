"""What correlated draws are worth, and whether chains agree."""

from __future__ import annotations

__all__ = ["ChainSummary", "effective_sample_size", "split_rhat", "summarize"]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from skebm._components import check_number
from skebm.diagnostics.chains import Chains


class ChainSummary(NamedTuple):
    """Effective sample sizes and R-hat of recorded chains (dimensionless).

    Parameters
    ----------
    ess : ndarray of shape (d,)
        Effective sample size of each column's mean.
    rhat : ndarray of shape (d,)
        Split R-hat of each column.
    energy_ess : float
        Effective sample size of the mean of the potential U.
    energy_rhat : float
        Split R-hat of the potential U.
    n_draws : int
        Records times chains that were used.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import ChainSummary
    >>> ChainSummary(np.array([80.0]), np.array([1.01]), 75.0, 1.02, 100).n_draws
    100
    """

    ess: np.ndarray
    rhat: np.ndarray
    energy_ess: float
    energy_rhat: float
    n_draws: int


def effective_sample_size(draws: Any) -> Any:
    r"""Return how many independent draws the mean over all draws is worth.

    .. math::
        \frac{m n}{1 + 2 \sum_t \hat\rho_t}

    with the autocorrelations of m half-chains of n draws combined so that chains that disagree
    count as slow, :math:`\hat\rho_t = 1 - V_t / (2\, \hat v)`, V_t the mean squared difference of
    draws t apart and v the variance of `split_rhat`'s numerator, and the sum cut off by Geyer's
    initial positive and monotone sequence.

    Parameters
    ----------
    draws : array-like of shape (n_draws, n_chains) or (n_draws, n_chains, d)
        Draws of one number, or of d numbers, in any unit.

    Returns
    -------
    float or ndarray of shape (d,)
        Effective sample size (dimensionless); more than the number of draws where they alternate,
        at most ``m n log10(m n)``. nan where all draws are equal, for then nothing is known.

    Raises
    ------
    ValueError
        If there are fewer than 4 draws per chain, a value is not finite, or the shape is another.

    Notes
    -----
    Of an odd number of draws the middle one is left out. Costs one FFT of all draws. The draws are
    taken as they are, neither ranked nor folded: for variables without a variance, rank them first.
    V_t has no bias from estimated means, so many short chains do as well as few long ones; the
    covariances of [1]_ agree with it where chains are long.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Bürkner, "Rank-normalization,
       folding, and localization: an improved R-hat for assessing convergence of MCMC", Bayesian
       Analysis 16(2), 2021. Section 3.2.
    .. [2] A. Gelman et al., "Bayesian Data Analysis", third edition, 2013. Section 11.5.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import effective_sample_size
    >>> draws = np.random.default_rng(0).normal(size=(1000, 4))
    >>> 3000 < effective_sample_size(draws) < 5500
    True
    """
    return _per_column(_ess, draws)


def split_rhat(draws: Any) -> Any:
    r"""Return R-hat of half-chains: how much wider all draws are than each half-chain.

    .. math::
        \sqrt{\frac{n - 1}{n} + \frac{B}{n W}}

    with W the mean variance within m half-chains of n draws and B/n the variance of their means.

    Parameters
    ----------
    draws : array-like of shape (n_draws, n_chains) or (n_draws, n_chains, d)
        Draws of one number, or of d numbers, in any unit.

    Returns
    -------
    float or ndarray of shape (d,)
        R-hat (dimensionless): near 1 where chains agree, above 1.01 or so where they do not; inf
        for chains that stand still at different places, nan where all draws are equal.

    Raises
    ------
    ValueError
        If there are fewer than 4 draws per chain, a value is not finite, or the shape is another.

    Notes
    -----
    Of an odd number of draws the middle one is left out. The draws are not rank-normalized:
    chains that differ in scale alone pass unnoticed, and so may chains with heavy tails.

    References
    ----------
    .. [1] A. Gelman et al., "Bayesian Data Analysis", third edition, 2013. Section 11.4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import split_rhat
    >>> draws = np.random.default_rng(0).normal(size=(1000, 4))
    >>> bool(split_rhat(draws) < 1.01 < split_rhat(draws + [0, 0, 0, 1]))
    True
    """
    return _per_column(_rhat, draws)


def summarize(chains: Chains, *, burn_in: float = 0.5) -> ChainSummary:
    """Return effective sample sizes and R-hat of recorded chains.

    Parameters
    ----------
    chains : Chains
        Records of `run_chains`.
    burn_in : float, default=0.5
        Share of the records to leave out at the start, where chains still travel and the step size
        warms up (dimensionless, in [0, 1]).

    Returns
    -------
    ChainSummary
        Per column of X, and for the potential U.

    Raises
    ------
    ValueError, TypeError
        If fewer than 4 records are left, chains are not finite, or `burn_in` is unfit.

    Notes
    -----
    Affine maps of a column change neither number, so units do not matter.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import Chains, summarize
    >>> draws = np.random.default_rng(0).normal(size=(50, 20, 2))
    >>> energy = 0.5 * (draws**2).sum(-1)
    >>> chains = Chains(draws, energy, energy, np.arange(50), *np.ones((4, 50)))
    >>> summarize(chains).n_draws
    500
    """
    check_number("burn_in", burn_in, low=0, high=1)
    first = int(burn_in * len(chains.steps))
    positions, energy = chains.positions[first:], chains.energy[first:]
    return ChainSummary(
        effective_sample_size(positions),
        split_rhat(positions),
        effective_sample_size(energy),
        split_rhat(energy),
        energy.size,
    )


def _per_column(function: Callable[[np.ndarray], float], draws: Any) -> Any:
    draws = np.asarray(draws, dtype=np.float64)
    if draws.ndim not in (2, 3) or len(draws) < 4 or not draws.size:
        raise ValueError(
            "draws must be of shape (n_draws, n_chains) or (n_draws, n_chains, d) with n_draws >= "
            f"4, got shape {draws.shape}. Record more often or run longer."
        )
    n_bad = np.count_nonzero(~np.isfinite(draws))
    if n_bad:
        raise ValueError(
            f"draws must be finite, got {n_bad} of {draws.size} values that are NaN or infinite. "
            "Lower the step size of the chains."
        )
    half = len(draws) // 2
    halves = np.concatenate([draws[:half], draws[-half:]], axis=1)
    if draws.ndim == 2:
        return function(halves)
    return np.array([function(halves[..., j]) for j in range(draws.shape[2])])


def _variances(x: np.ndarray) -> tuple[float, float]:
    """W, and the estimate of the variance that also holds the differences between chains."""
    n = len(x)
    moves = np.ptp(x, axis=0).any()  # the variance of equal numbers need not round to 0
    within = x.var(axis=0, ddof=1).mean() if moves else 0.0
    return within, (n - 1) / n * within + x.mean(axis=0).var(ddof=1)


def _rhat(x: np.ndarray) -> float:
    within, total = _variances(x)
    if within == 0:
        return np.inf if total > 0 else np.nan
    return float(np.sqrt(total / within))


def _ess(x: np.ndarray) -> float:
    total = _variances(x)[1]
    if total == 0:
        return np.nan
    rho = 1 - _variogram(x) / (2 * total)
    pairs = rho[0:-1:2] + rho[1::2]  # positive and decreasing for reversible chains
    negative = np.flatnonzero(pairs < 0)
    kept = negative[0] if len(negative) else len(pairs)
    time = 2 * np.minimum.accumulate(pairs[:kept]).sum() - 1
    if len(negative):  # half the next term: partial sums of alternating series surround the sum
        time += max(rho[2 * kept], 0)
    return float(x.size / max(time, 1 / np.log10(x.size)))


def _variogram(x: np.ndarray) -> np.ndarray:
    """Mean squared difference of draws at an even number of lags 0, 1, ... within a chain."""
    n = len(x)
    x = x - x.mean(axis=0)
    size = next_fast_len(2 * n - 1, real=True)
    products = irfft((np.abs(rfft(x, size, axis=0)) ** 2).mean(axis=1), size)[:n]
    squares = np.cumsum(np.square(x).mean(axis=1))
    ends = squares[::-1] + squares[-1] - np.concatenate([[0.0], squares[:-1]])
    return ((ends - 2 * products) / np.arange(n, 0, -1))[: n - n % 2]
