"""Whether training balances: the energy difference against the force, some updates later."""

from __future__ import annotations

__all__ = ["ForceCorrelation", "force_correlation"]

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skebm._components import check_number

DIFFERENCES = ("noise_bracket", "bank_bracket", "cd_bracket", "loss")
SPARE = 10  # rows beyond the largest lag; with fewer a correlation says nothing


class ForceCorrelation(NamedTuple):
    """Correlation of the energy difference with the force at later updates.

    Parameters
    ----------
    lags : ndarray of int of shape (max_lag + 1,)
        Updates by which the force comes after the energy difference.
    correlation : ndarray of shape (max_lag + 1,)
        Pearson correlation at each lag (dimensionless).
    stderr : ndarray of shape (max_lag + 1,)
        ``1 / sqrt(number of pairs)``: its standard error if there were none.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import ForceCorrelation
    >>> ForceCorrelation(np.arange(2), np.array([0.5, -0.2]), np.full(2, 0.1)).lags
    array([0, 1])
    """

    lags: np.ndarray
    correlation: np.ndarray
    stderr: np.ndarray


def force_correlation(
    history: Sequence[dict], max_lag: int = 5, *, key: str | None = None
) -> ForceCorrelation:
    """Correlate the difference d of mean energies with the mean force, lag by lag.

    Parameters
    ----------
    history : sequence of dict
        Of `skebm.train.train` with ``Settings(eval_every=1)``, one row per update; an estimator's
        ``history_`` has one for 25. Rows without a force are left out. Pass a slice to leave out
        the first updates, where both have a trend, which correlates them at every lag.
    max_lag : int, default=5
        Largest lag, in updates.
    key : str, default=None
        Which energy difference (data minus chains, nats) to take; None takes the first there is
        among ``"noise_bracket"``, ``"bank_bracket"``, ``"cd_bracket"`` and ``"loss"``.

    Returns
    -------
    ForceCorrelation
        Correlation of d at update t with the mean norm of the gradient at update t + lag.

    Raises
    ------
    ValueError
        If the history lacks ``"force"`` or the key, skips updates, has fewer than ``max_lag + 10``
        rows, or one of the two never changes.
    TypeError
        If `max_lag` is no integer.

    Notes
    -----
    Training that balances shows a positive correlation at lag 0 and a negative one at lags 2 and
    3: a positive d says that the force is too large, and the update makes it smaller. The standard
    error holds for series without memory; slow ones are less certain.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 7 and Appendix A.3.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import force_correlation
    >>> d = np.random.default_rng(0).normal(size=500)
    >>> rows = [{"iteration": t, "loss": d[t], "force": -d[t - 2]} for t in range(2, 500)]
    >>> force_correlation(rows, max_lag=3).correlation.round(1) + 0.0
    array([ 0.,  0., -1.,  0.])
    """
    check_number("max_lag", max_lag, low=0, integer=True)
    difference, force = _series(list(history), key, int(max_lag) + SPARE)
    lags = np.arange(max_lag + 1)
    n = len(force) - lags
    correlation = [np.corrcoef(difference[: n[k]], force[k:])[0, 1] for k in lags]
    return ForceCorrelation(lags, np.array(correlation), 1 / np.sqrt(n))


def _series(history: list[dict], key: str | None, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    present = {name for row in history for name, value in row.items() if value is not None}
    if key is None:
        key = next((name for name in DIFFERENCES if name in present), DIFFERENCES[0])
    missing = [name for name in ("force", key) if name not in present]
    if missing:
        raise ValueError(
            f"history must hold {missing[0]!r}, got the keys {sorted(present)}. Pass the "
            "history of ContrastiveDivergence."
        )
    rows = [row for row in history if row.get("force") is not None and row.get(key) is not None]
    if len(rows) < fewest:
        raise ValueError(
            f"history must have at least {fewest} rows (max_lag + {SPARE}), got {len(rows)}. "
            "Train longer with Settings(eval_every=1), or lower max_lag."
        )
    gaps: Any = np.diff([row.get("iteration", i) for i, row in enumerate(rows)])
    if (gaps != 1).any():
        raise ValueError(
            f"history must have one row per update, got rows {np.max(gaps)} updates apart. "
            "Train with Settings(eval_every=1)."
        )
    series = np.array([(row[key], row["force"]) for row in rows], dtype=np.float64).T
    for name, values in zip((key, "force"), series, strict=True):
        if not np.ptp(values) > 0:  # nan included
            raise ValueError(
                f"{name} must be finite and vary, got values from {values.min()} to "
                f"{values.max()}. Look at the history."
            )
    return series[0], series[1]
