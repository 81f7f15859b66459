"""Why a row is odd, in words: the value, and what the others let one expect in its place."""

from __future__ import annotations

__all__ = ["Reason", "reasons"]

import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_number
from skebm._tables import column_of, n_rows
from skebm.inside import unwrap
from skebm.ood.contributions import feature_contributions


class Reason(NamedTuple):
    """A value that is hard to reconcile with the others of its row.

    Parameters
    ----------
    column : str or int
        Name of the column, or its number.
    value : object
        What the row has there; None where it is missing.
    contribution : float
        What the log density would gain on average by another value, nats.
    low : float or datetime
        Lower end of the middle interval given the others, units of the column; nan for categories.
    high : float or datetime
        Its upper end.
    expected : object
        The likeliest category given the others; None for numbers.
    probability : float
        Of the value, a category, given the others; nan for numbers.

    Examples
    --------
    >>> from skebm.ood import Reason
    >>> print(Reason("amount", 5000.0, 9.1, 20.0, 180.0))
    amount 5000; given the rest 20 to 180
    >>> print(Reason("city", "Oslo", 4.0, expected="Rome", probability=0.002))
    city Oslo (0.2 %); given the rest Rome
    """

    column: Any
    value: Any
    contribution: float
    low: Any = math.nan
    high: Any = math.nan
    expected: Any = None
    probability: float = math.nan

    def __str__(self) -> str:
        rest, note = f"{_shown(self.low, 3)} to {_shown(self.high, 3)}", ""
        if self.expected is not None:
            share = f"{100 * self.probability:.2g} %" if self.probability else "not seen before"
            rest, note = self.expected, f" ({share})"
        return f"{self.column} {_shown(self.value, 6)}{note}; given the rest {rest}"


def _shown(value: Any, digits: int) -> str:
    """Return a value as a person writes it: of a date without the hour where there is none."""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return str(value).removesuffix(" 00:00:00")


def reasons(
    estimator: Any, X: Any, *, n_columns: int = 1, coverage: float = 0.9
) -> list[list[Reason]]:
    """Return for each row the columns that are hardest to reconcile with the others.

    Parameters
    ----------
    estimator : density estimator or detector around one
        Fitted, of skebm, with a base that has conditional densities.
    X : table of shape (n, d)
        Rows to explain, which may have missing values.
    n_columns : int, default=1
        Columns for each row, those of the largest contribution first.
    coverage : float, default=0.9
        Probability of the intervals, in (0, 1), dimensionless; more is wider.

    Returns
    -------
    list of list of Reason
        Of each row; ``str`` of one is a sentence.

    Raises
    ------
    TypeError
        If there is no density of skebm inside.
    ValueError
        If X or an option is unfit, or the base has no conditional densities.

    Notes
    -----
    Contributions are those of `feature_contributions` with ``method="conditional"``; intervals and
    probabilities those of ``conditional_interval`` and ``conditional_proba``, the ends of a date
    those of its day.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import USPDensity
    >>> from skebm.ood import reasons
    >>> X = np.random.RandomState(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500)
    >>> est = USPDensity(max_iter=25, random_state=0).fit(X)
    >>> row = [[0.5, 4.0]]
    >>> reasons(est, row)[0][0].column
    1
    """
    check_number("n_columns", n_columns, low=1, integer=True)
    check_is_fitted(estimator)
    _, last = unwrap(estimator, detectors=True)
    density = getattr(last, "estimator_", last)
    if not hasattr(density, "conditional_interval"):
        raise TypeError(
            f"estimator must have a density of skebm inside, got {type(estimator).__name__}. Wrap "
            "one of skebm's, or use feature_contributions."
        )
    X = X if hasattr(X, "shape") else np.asarray(X, dtype=np.float64)
    gains = feature_contributions(density, X)
    intervals = density.conditional_interval(X, coverage)
    names = getattr(density, "feature_names_in_", range(gains.shape[1]))
    order = np.argsort(-gains, axis=1, kind="stable")[:, : int(n_columns)]
    columns = {int(j): column_of(X, int(j)) for j in np.unique(order)}
    chances = {
        j: density.conditional_proba(X, j) for j in columns if np.isnan(intervals[:, j]).all()
    }
    schema = getattr(density, "schema_", None)
    dated = {
        j for j in columns if schema is not None and bool(getattr(schema.columns[j], "dated", ""))
    }
    found: list[list[Reason]] = []
    for i in range(n_rows(X)):
        row = []
        for j in map(int, order[i]):
            value, name = columns[j][i], list(names)[j]
            value = value.item() if isinstance(value, np.generic) else value
            ends = map(_as_date if j in dated else float, intervals[i, j])
            reason = Reason(name, value, float(gains[i, j]), *ends)
            if j in chances:
                levels = density.schema_.columns[j].levels
                share = float(chances[j][i][levels.index(value)]) if value in levels else 0.0
                likeliest = levels[int(chances[j][i].argmax())]
                reason = reason._replace(expected=likeliest, probability=share)
            row.append(reason)
        found.append(row)
    return found


def _as_date(days: float) -> Any:
    """Return the day that is so many days after the first of 1970."""
    return math.nan if math.isnan(days) else datetime(1970, 1, 1) + timedelta(round(days))
