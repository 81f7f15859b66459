"""What correlated draws are worth, and whether chains agree."""

from __future__ import annotations

__all__ = ["ChainSummary", "effective_sample_size", "split_rhat", "summarize"]

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from skebm._components import check_number
from skebm.diagnostics.chains import Chains


class ChainSummary(NamedTuple):
    """Effective sample sizes and R-hat of recorded chains (dimensionless).

    Parameters
    ----------
    ess : ndarray of shape (d,)
        Effective sample size of each column's mean.
    rhat : ndarray of shape (d,)
        Rank-normalized R-hat of each column.
    energy_ess : float
        Effective sample size of the mean of the potential U.
    energy_rhat : float
        Rank-normalized R-hat of the potential U.
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
    """Return how many independent draws the mean over all draws is worth.

    The bulk effective sample size of `arviz_stats`: of half-chains whose draws are replaced by
    normal scores of their ranks, so that it holds for variables without a variance too. Chains that
    disagree count as slow.

    Parameters
    ----------
    draws : array-like of shape (n_draws, n_chains) or (n_draws, n_chains, d)
        Draws of one number, or of d numbers, in any unit.

    Returns
    -------
    float or ndarray of shape (d,)
        Effective sample size (dimensionless); more than the number of draws where they alternate.
        The number of chains where each stands still, nan where all draws are equal, for then
        nothing is known.

    Raises
    ------
    ValueError
        If there are fewer than 4 draws per chain, a value is not finite, or the shape is another.

    Notes
    -----
    Of an odd number of draws the middle one is left out. It tells how fast chains forget, not
    where they have never been: a mode that no chain has met is in no effective sample size. Of
    chains of some ten times their memory it is wrong by about a seventh.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Bürkner, "Rank-normalization,
       folding, and localization: an improved R-hat for assessing convergence of MCMC", Bayesian
       Analysis 16(2), 2021. Sections 3.2 and 4.1.

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
    """Return rank-normalized R-hat: how much wider all draws are than each half-chain.

    The larger of two, as `arviz_stats` has it: of normal scores of the ranks of all draws, and of
    their distances from the median, which tells chains that differ in scale alone.

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
    Of an odd number of draws the middle one is left out. One chain is taken as two, its halves; nan
    for one of fewer than 8 draws.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter and P.-C. Bürkner, "Rank-normalization,
       folding, and localization: an improved R-hat for assessing convergence of MCMC", Bayesian
       Analysis 16(2), 2021. Section 4.1.

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
    if draws.ndim == 2:
        return function(_scaled(draws))
    return np.array([function(_scaled(draws[..., j])) for j in range(draws.shape[2])])


def _scaled(x: np.ndarray) -> np.ndarray:
    """Return draws (n, m) times a power of two that keeps their differences finite."""
    return np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))


def _stands(x: np.ndarray) -> bool:
    return not np.ptp(x, axis=0).any()


def _rhat(x: np.ndarray) -> float:
    from arviz_stats.base.array import array_stats

    if _stands(x):
        return np.inf if np.ptp(x) > 0 else np.nan
    if x.shape[1] == 1:
        half = len(x) // 2
        x = np.concatenate([x[:half], x[-half:]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # half-chains that stand still
        return float(array_stats.rhat(x, chain_axis=1, draw_axis=0))


def _ess(x: np.ndarray) -> float:
    from arviz_stats.base.array import array_stats

    if _stands(x):
        return float(x.shape[1]) if np.ptp(x) > 0 else np.nan
    return float(array_stats.ess(x, chain_axis=1, draw_axis=0))
