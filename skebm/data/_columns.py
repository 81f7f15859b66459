"""What a column of a table is: numbers with steps, ends and atoms, dates, or codes."""

from __future__ import annotations

__all__ = [
    "DAY",
    "KINDS",
    "Category",
    "Number",
    "as_numbers",
    "check_finite",
    "codes_of",
    "columns_by_name",
    "identified",
    "lattice_step",
    "unseen_log_probability",
    "values_of",
]

import math
import numbers
import re
from collections.abc import Hashable
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from skebm._tables import as_frame

KINDS = ("category", "continuous", "number")
MOST_LEVELS, ROWS_PER_LEVEL = 12, 2  # distinct values up to which numbers are codes; rows of each
MOST_CATEGORIES, ROWS_PER_CATEGORY = 50, 5  # above both, a column is an identifier
ATOM, ATOM_LEAD, NEAR = 0.05, 5.0, 5  # share of the rows; times that of values so near on a lattice
REPEATED = 0.05  # share of values that repeat: without, rounding is too fine to matter
MOST_DECIMALS, MOST_CELLS = 6, 1e12
EXACT, ROUNDING = 1e-7, 1e-14  # distance from whole numbers that is none, and of large ones
EDGE, EDGE_PART = 0.08, 0.25  # share of the rows in that part of the way from an end to the median
FEWEST_FOR_EDGE = 30
SHORT = 0.25  # of the way from the median to the other end
DAY = 86_400e6  # microseconds
TAIL_POWER = 4.0  # of the probability of a number that no row had, in its distance from them
NUMERAL = re.compile(r"\s*[-+(]?[$€£]?\s*\d[\d.,' ]*%?\)?\s*$")
DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


class Number(NamedTuple):
    """A column of numbers or dates.

    Parameters
    ----------
    name : str or int
        Of the column.
    dtype : str
        As its library calls it; empty for arrays.
    step : float
        Distance of the values, units of the column; 0 where they have none.
    start : float
        A value of that lattice.
    atoms : tuple of float
        Values that many rows repeat: a code says which, and the number is absent.
    low : float
        Lower end that the rows reach, as amounts reach 0; minus infinity where they fade out.
    high : float
        Upper end, infinity where they fade out.
    fill : float
        A value in the middle.
    dated : str
        ``"date"`` or ``"datetime"`` where the column holds days since 1970, else empty.
    """

    name: Any
    dtype: str = ""
    step: float = 0.0
    start: float = 0.0
    atoms: tuple[float, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    fill: float = 0.0
    dated: str = ""


class Category(NamedTuple):
    """A column of codes.

    Parameters
    ----------
    name : str or int
        Of the column.
    dtype : str
        As its library calls it; empty for arrays.
    levels : tuple
        Its values, by type: 1 is not "1".
    unseen : float
        Probability of a value that the rows do not have, by Good and Turing.
    declared : str
        ``"ordered"`` or ``"unordered"`` where the type lists its levels, else empty.
    """

    name: Any
    dtype: str
    levels: tuple
    unseen: float
    declared: str = ""


def columns_by_name(X: Any) -> dict[Any, Any]:
    """Return the columns by name: series of narwhals, or arrays by number."""
    frame = as_frame(X)
    if frame is not None:
        return {name: frame[:, j] for j, name in enumerate(frame.columns)}
    X = np.asarray(X)
    return {j: X[:, j] for j in range(X.shape[1])}


def values_of(column: Any) -> list[Any]:
    """Return the values of a column; what is missing is None."""
    values = column.to_list() if isinstance(column, nw.Series) else list(column.tolist())
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    return [None if _is_missing(v) else v for v in values]


def _in_utc(column: Any) -> Any:
    """Return a column of pandas in UTC if its zone is one that narwhals does not read."""
    native = column.to_native()
    if isinstance(column.dtype, nw.Unknown) and str(native.dtype).startswith("datetime64"):
        return nw.from_native(native.dt.tz_convert("UTC"), series_only=True)
    return column


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def as_numbers(name: Any, column: Any) -> np.ndarray:
    """Return a column as floats, days since 1970 for dates; what is missing is NaN."""
    if isinstance(column, nw.Series):
        column = _in_utc(column)
        if isinstance(column.dtype, nw.Date):
            column = column.cast(nw.Datetime("us"))
        if isinstance(column.dtype, nw.Datetime):
            days = column.dt.timestamp("us").cast(nw.Float64).to_numpy() / DAY
            return np.where(np.array([v is None for v in values_of(column)]), np.nan, days)
        if column.dtype.is_numeric():
            return np.array(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    elif column.dtype.kind in "fiu":
        return column.astype(np.float64)
    try:
        return np.array([np.nan if v is None else v for v in values_of(column)], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {name!r} must hold numbers or dates as in the rows that were fitted, got "
            "text. Give it the type that it had, by pandas.to_numeric or pandas.to_datetime say."
        ) from error


def identified(name: Any, column: Any, kind: str) -> Number | Category:
    """Return what a column is."""
    dtype, dated, declared, levels = "", "", "", None
    if isinstance(column, nw.Series):
        native = column.to_native()
        dtype = str(getattr(native, "dtype", getattr(native, "type", "")))
        column = _in_utc(column)
        if isinstance(column.dtype, nw.Duration):
            raise ValueError(
                f"column {name!r} must hold numbers, dates or categories, got durations. Convert "
                "them, to days say."
            )
        dated = {"Date": "date", "Datetime": "datetime"}.get(type(column.dtype).__name__, "")
        if isinstance(column.dtype, nw.Enum | nw.Categorical):
            levels = tuple(column.cat.get_categories().to_list())
            ordered = getattr(getattr(native, "dtype", None), "ordered", False)
            declared = "ordered" if ordered else "unordered"
    numeric = bool(dated) or (levels is None and _holds_numbers(column))
    if numeric:
        x = as_numbers(name, column)
        check_finite(name, x)
    if kind == "auto":
        few = numeric and not dated and _has_few(x)
        kind = "number" if numeric and not few else "category"
    if kind == "category":
        return _category(name, dtype, levels, values_of(column), declared)
    if not numeric:
        raise ValueError(f"column {name!r} must hold numbers for {kind!r}, got text.")
    found = Number(name, dtype, dated=dated)
    x = x[~np.isnan(x)]
    return found if kind == "continuous" or not len(x) else _measured(found, x)


def check_finite(name: Any, x: np.ndarray) -> None:
    if np.isinf(x).any():
        raise ValueError(
            f"column {name!r} must be finite, got infinite values. Replace them by missing ones."
        )


def _holds_numbers(column: Any) -> bool:
    if isinstance(column, nw.Series) and column.dtype.is_numeric():
        return True
    return all(v is None or _is_number(v) for v in values_of(column))


def _has_few(x: np.ndarray) -> bool:
    """Whether numbers (n,) are few different ones that repeat."""
    x = x[~np.isnan(x)]
    n_values = len(np.unique(x))
    return n_values <= MOST_LEVELS and ROWS_PER_LEVEL * n_values <= len(x)


def _category(
    name: Any, dtype: str, levels: tuple | None, values: list[Any], declared: str
) -> Category:
    known = [v for v in values if v is not None]
    for v in known:
        if not isinstance(v, Hashable):
            raise ValueError(
                f"column {name!r} must hold numbers, dates or categories, got a "
                f"{type(v).__name__}. Take it apart into columns."
            )
    if levels is None:
        by_key = {_key(v): v for v in known}
        levels = tuple(by_key[key] for key in sorted(by_key))
    most = max(MOST_CATEGORIES, len(values) // ROWS_PER_CATEGORY)
    if len(levels) > most:
        raise ValueError(
            f"column {name!r} must have at most {most} categories, got {len(levels)}, "
            + _what_they_are(levels)
        )
    counts = np.bincount([c for c in codes_of(levels, known) if c >= 0], minlength=len(levels) or 1)
    unseen = max(1, np.count_nonzero(counts == 1)) / (counts.sum() + 2)  # never 0
    return Category(name, dtype, levels, float(unseen), declared)


def _what_they_are(levels: tuple) -> str:
    """Return what too many categories look like, and what to do."""
    numbers_ = [v for v in levels if _is_number(v) or (isinstance(v, str) and NUMERAL.match(v))]
    if 2 * len(numbers_) > len(levels):
        others = [v for v in levels if v not in numbers_]
        with_text = f" beside text such as {others[0]!r}" if others else " as text"
        return f"numbers{with_text}. Make them numbers, by pandas.to_numeric say."
    if 2 * sum(isinstance(v, str) and DATE.match(v) is not None for v in levels) > len(levels):
        return "dates as text. Make them dates, by pandas.to_datetime say."
    return "as an identifier has. Leave it out, or group its values."


def _key(value: Any) -> tuple[str, Any]:
    kind = "number" if _is_number(value) else type(value).__name__
    return kind, value


def codes_of(levels: tuple, values: list[Any]) -> np.ndarray:
    """Return the place of each value among the levels: -1 of missing ones, -2 of others."""
    place = {_key(level): k for k, level in enumerate(levels)}
    return np.array([-1 if v is None else place.get(_key(v), -2) for v in values], dtype=int)


def unseen_log_probability(c: Category, codes: np.ndarray, values: list[Any]) -> np.ndarray:
    """Return the log probability (n,) of values that the rows of the fit did not have, else 0.

    Numbers have a share of it that falls with the fourth power of their distance from the nearest
    level, as the tails of bases do.
    """
    out = np.where(codes == -2, math.log(c.unseen), 0.0)
    new = [i for i in np.flatnonzero(codes == -2) if _is_number(values[i])]
    if not new or len(c.levels) < 2 or not all(map(_is_number, c.levels)):
        return out
    x, levels = np.array([values[i] for i in new], float), np.sort(np.array(c.levels, float))
    check_finite(c.name, x)
    spread, step = levels.std(), np.diff(levels).min()
    away = np.abs(x[:, None] - levels).min(1)
    out[new] -= TAIL_POWER * np.log1p(away / spread) + math.log(max(2 * spread / (3 * step), 1))
    return out


def _measured(found: Number, x: np.ndarray) -> Number:
    """Return what the known values (n,) of a column say of its step, atoms and ends."""
    values, counts = np.unique(x, return_counts=True)
    rare = counts < ATOM * len(x)
    repeats = rare.sum() <= (1 - REPEATED) * counts[rare].sum()
    step = lattice_step(values) if repeats else 0.0
    atoms = _atoms(values, counts / len(x), step)
    rest = x[~np.isin(x, atoms)]
    if len(np.unique(rest)) <= MOST_LEVELS:  # next to nothing beside the atoms
        atoms, rest = (), x
    low, high = _end(rest), -_end(-rest)
    fill = float(np.quantile(rest, 0.5, method="nearest"))
    return found._replace(
        step=step,
        start=float(values[0]) if step else 0.0,
        atoms=tuple(map(float, atoms)),
        low=low,
        high=high,
        fill=fill,
    )


def _atoms(values: np.ndarray, share: np.ndarray, step: float) -> tuple[float, ...]:
    """Return the values (m,) that many rows repeat, on a lattice many more than those near."""
    often = share >= ATOM
    if step:
        cells = np.round((values - values[0]) / step)
        for k in np.flatnonzero(often):
            near = (np.abs(cells - cells[k]) <= NEAR) & (cells != cells[k])
            often[k] = share[k] > ATOM_LEAD * share[near].sum() / NEAR  # an end has so many near
        often &= len(values) > 2 * MOST_LEVELS
    return tuple(values[often])


def _end(x: np.ndarray) -> float:
    """Return the least of values (n,) where many are near it or the other side is far longer.

    Else they fade out: minus infinity.
    """
    low, middle = x.min(), np.median(x)
    if len(x) < FEWEST_FOR_EDGE or middle == low:
        return -math.inf if len(x) < FEWEST_FOR_EDGE else float(low)
    near = (x <= low + EDGE_PART * (middle - low)).mean()
    is_short = middle - low < SHORT * (x.max() - middle)
    return float(low) if near > EDGE or is_short else -math.inf


def lattice_step(values: np.ndarray) -> float:
    """Return the greatest decimal step of which all distances of sorted values are multiples, or 0.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Distinct values, sorted.

    Returns
    -------
    float
        Units of the values.
    """
    for decimals in range(MOST_DECIMALS + 1):
        scaled = values * 10.0**decimals
        whole = np.round(scaled)
        largest = np.abs(scaled).max()
        if largest > MOST_CELLS:
            return 0.0
        if np.abs(scaled - whole).max() <= max(EXACT, ROUNDING * largest):
            gaps = np.diff(whole).astype(np.int64)
            return float(np.gcd.reduce(gaps)) / 10.0**decimals if len(gaps) else 0.0
    return 0.0
