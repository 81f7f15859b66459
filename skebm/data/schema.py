"""Tables as they are: which columns are numbers, which are codes, and the way there and back."""

from __future__ import annotations

__all__ = ["Category", "Number", "Schema"]

import functools
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


class Schema:
    """Columns of a table, and its rows as numbers: floats first, then codes.

    Parameters
    ----------
    columns : tuple of Number or Category
        In the order of the table.
    library : str
        What the table was made by: ``"pandas"``, ``"polars"`` ..., ``"array"``.

    Examples
    --------
    >>> import pandas as pd
    >>> from skebm.data import Schema
    >>> frame = pd.DataFrame({"city": ["Rome", "Oslo"] * 50, "amount": [0.0, 1.5] * 50})
    >>> [type(column).__name__ for column in Schema.of(frame).columns]
    ['Category', 'Category']
    """

    def __init__(self, columns: tuple[Number | Category, ...], library: str = "array") -> None:
        self.columns, self.library = tuple(columns), library
        self.numbers = [c for c in self.columns if isinstance(c, Number)]
        self.split = [c for c in self.numbers if c.atoms]  # numbers with a code beside them
        self.categories = [c for c in self.columns if isinstance(c, Category)]
        levels = [len(c.levels) for c in self.categories]
        self.n_levels = tuple(levels + [len(c.atoms) + 1 for c in self.split])
        self.n_numbers = len(self.numbers)
        self.n_encoded = self.n_numbers + len(self.n_levels)
        # number i is absent where code j is below a
        self.absent = tuple(
            (self.numbers.index(c), len(self.categories) + j, len(c.atoms))
            for j, c in enumerate(self.split)
        )

    @classmethod
    def of(cls, X: Any, kinds: Any = "auto") -> Schema:
        """Find out what the columns of a table are.

        Parameters
        ----------
        X : data frame or array of shape (n, d)
            Rows.
        kinds : "auto" or dict
            What some columns, by name or number, are: ``"category"``, ``"number"`` (with a step and
            atoms where it has them) or ``"continuous"`` (as it is).

        Returns
        -------
        Schema
            Of all columns.

        Raises
        ------
        ValueError
            If a column is an identifier, has infinite values, or no column has that name.
        """
        frame, columns = as_frame(X), _columns(X)
        given = {} if kinds == "auto" else dict(kinds)
        for name, kind in given.items():
            if name not in columns:
                raise ValueError(f"columns must name columns of X, got {name!r}. Use {[*columns]}.")
            if kind not in KINDS:
                raise ValueError(f"columns must be one of {[*KINDS]}, got {kind!r} for {name!r}.")
        usual = "auto" if frame is not None else "continuous"
        found = tuple(_found(n, c, given.get(n, usual)) for n, c in columns.items())
        return cls(found, "array" if frame is None else frame.implementation.value)

    def parts(self) -> dict[str, Any]:
        """Return the constructor's arguments, for files."""
        return {"columns": self.columns, "library": self.library}

    @property
    def has_codes(self) -> bool:
        """Whether rows hold codes, for which a base needs tables; lattices alone need none."""
        return bool(self.n_levels)

    @property
    def is_plain(self) -> bool:
        """Whether all columns are numbers without steps, atoms and dates."""
        return not self.special

    @property
    def names(self) -> list[str]:
        """What the encoded columns are called."""
        named = [c.name if isinstance(c.name, str) else f"column {c.name}" for c in self.columns]
        return [named[self.columns.index(c)] for c in self._encoded]

    @property
    def steps(self) -> np.ndarray:
        """Of the numbers, (n_numbers,), units of the columns."""
        return np.array([c.step for c in self.numbers])

    @property
    def atoms(self) -> np.ndarray:
        """Of the numbers that have some, (m, most), each line filled up with its last."""
        most = max((len(c.atoms) for c in self.split), default=0)
        lines = [c.atoms + c.atoms[-1:] * (most - len(c.atoms)) for c in self.split]
        return np.array(lines, dtype=float).reshape(len(self.split), most)

    @functools.cached_property
    def places(self) -> list[list[int]]:
        """The encoded columns that each column of the table has become."""
        return [[i for i, c in enumerate(self._encoded) if c is column] for column in self.columns]

    @property
    def _encoded(self) -> list[Number | Category]:
        """The column that each encoded one comes from."""
        return [*self.numbers, *self.categories, *self.split]

    def spread(self, X: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """Return encoded rows (n, d) to learn from: values of lattices anywhere in their cells.

        Numbers that do not exist are like those of other rows: nothing is learnt from them.
        """
        out = X.copy()
        out[:, : self.n_numbers] += self.steps * (
            random.uniform(size=(len(X), self.n_numbers)) - 0.5
        )
        for i, j, a in self.absent:
            code = X[:, self.n_numbers + j]
            there = np.flatnonzero(code >= a)
            if len(there):
                level = random.uniform(size=int((code < a).sum()))
                out[code < a, i] = np.nanquantile(out[there, i], level)
        return out

    def encode(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return rows (n, d) as numbers, and the log probability (n,) of values never seen.

        What is missing or was never seen is NaN; a number that is absent beside its code has the
        value of its middle.
        """
        columns = self._columns_of(X)
        rows = [self._number(c, columns[c.name]) for c in self.numbers]
        log_unseen = np.zeros(len(next(iter(columns.values()))))
        for c in self.categories:
            values = _values(columns[c.name])
            codes = _codes(c.levels, values)
            log_unseen += _log_unseen(c, codes, values)
            rows.append(np.where(codes < 0, np.nan, codes))
        for number in self.split:
            i = self.numbers.index(number)
            code = np.where(np.isnan(rows[i]), np.nan, float(len(number.atoms)))
            for a, value in enumerate(number.atoms):
                code[rows[i] == value] = a
            rows[i] = np.where(code < len(number.atoms), number.fill, rows[i])
            rows.append(code)
        return np.stack(rows, axis=1), log_unseen

    def _columns_of(self, X: Any) -> dict[Any, Any]:
        """Return the columns of rows, by the names that they had in the fit."""
        columns = _columns(X)
        if lost := [c.name for c in self.columns if c.name not in columns]:
            raise ValueError(
                f"X must have the columns of the fit, got none called {lost[0]!r}. Give a data "
                "frame with the names that it had."
            )
        return columns

    def encode_unseen(self, X: Any, j: int) -> np.ndarray:
        """Return minus the log probability (n,) of values never seen in column j, 0 of others."""
        c = self.columns[j]
        if not isinstance(c, Category):
            return np.zeros(len(next(iter(_columns(X).values()))))
        values = _values(self._columns_of(X)[c.name])
        return -_log_unseen(c, _codes(c.levels, values), values)

    def decode(self, X: np.ndarray, given: Any = None) -> Any:
        """Return encoded rows (n, d) as a table like that of the fit.

        Parameters
        ----------
        X : ndarray of shape (n, n_encoded)
            Encoded rows. Numbers are brought to the nearest value that the column can have.
        given : table, optional
            The rows as they were: what is not missing there stays as it is.

        Returns
        -------
        table of shape (n, n_columns)
            Data frame of the same library, or an array.
        """
        columns = None if given is None else _columns(given)
        values: dict[Any, Any] = {}
        for j, c in enumerate(self.columns):
            if isinstance(c, Category):
                x = X[:, self.places[j][0]]
                known = np.where(np.isnan(x), -1, x).astype(int)
                values[c.name] = [c.levels[k] if k >= 0 else None for k in known]
                if columns is not None:
                    pairs = zip(_values(columns[c.name]), values[c.name], strict=True)
                    values[c.name] = [drawn if was is None else was for was, drawn in pairs]
                continue
            values[c.name] = self.column_values(X, j)
            if columns is not None:
                was = _as_numbers(c.name, columns[c.name])
                values[c.name] = np.where(np.isnan(was), values[c.name], was)
        table = _table(self.library, self.columns, values)
        if self.library == "pandas" and hasattr(given, "index"):
            table.index = given.index
        return table

    def column_values(self, X: np.ndarray, j: int) -> np.ndarray:
        """Return the values (n,) of column j, one of numbers, in encoded rows (n, d)."""
        c, place = self.columns[j], self.places[j]
        assert isinstance(c, Number)  # codes have levels
        x = np.clip(X[:, place[0]], c.low, c.high)
        if c.step:
            digits = max(0, math.ceil(-math.log10(c.step)) + 1)
            grid = np.round(np.round((x - c.start) / c.step) * c.step, digits)
            even = round(c.start, digits) == c.start  # else the grid is, its start is not
            x = np.round(c.start + grid, digits) if even else c.start + grid
        for a, value in enumerate(c.atoms):
            x = np.where(X[:, place[1]] == a, value, x)
        return x

    def levels(self, column: Any) -> tuple:
        """Return the categories of a column, by name.

        Raises
        ------
        ValueError
            If it is no column of codes.
        """
        for c in self.categories:
            if c.name == column:
                return c.levels
        raise ValueError(
            f"column must be one of codes, got {column!r}. Use one of "
            f"{[c.name for c in self.categories]}."
        )

    @property
    def special(self) -> list[Any]:
        """The names of the columns that are not plain numbers."""
        return [
            c.name for c in self.columns if isinstance(c, Category) or c.step or c.atoms or c.dated
        ]

    def hot(self, X: np.ndarray) -> np.ndarray:
        """Return encoded rows with a column for each level in place of codes, for distances."""
        codes = X[:, self.n_numbers :]
        ones = [codes[:, [j]] == np.arange(n) for j, n in enumerate(self.n_levels)]
        return np.concatenate([X[:, : self.n_numbers], *ones], axis=1).astype(float)

    def _number(self, c: Number, column: Any) -> np.ndarray:
        x = _as_numbers(c.name, column)
        if np.isinf(x).any():
            raise ValueError(
                f"column {c.name!r} must be finite, got infinite values. Replace them by missing "
                "ones."
            )
        return x


def _columns(X: Any) -> dict[Any, Any]:
    """Return the columns by name: series of narwhals, or arrays by number."""
    frame = as_frame(X)
    if frame is not None:
        return {name: frame[:, j] for j, name in enumerate(frame.columns)}
    X = np.asarray(X)
    return {j: X[:, j] for j in range(X.shape[1])}


def _values(column: Any) -> list[Any]:
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


def _as_numbers(name: Any, column: Any) -> np.ndarray:
    """Return a column as floats, days since 1970 for dates; what is missing is NaN."""
    if isinstance(column, nw.Series):
        column = _in_utc(column)
        if isinstance(column.dtype, nw.Date):
            column = column.cast(nw.Datetime("us"))
        if isinstance(column.dtype, nw.Datetime):
            days = column.dt.timestamp("us").cast(nw.Float64).to_numpy() / DAY
            return np.where(np.array([v is None for v in _values(column)]), np.nan, days)
        if column.dtype.is_numeric():
            return np.array(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    elif column.dtype.kind in "fiu":
        return column.astype(np.float64)
    try:
        return np.array([np.nan if v is None else v for v in _values(column)], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {name!r} must hold numbers or dates as in the rows that were fitted, got "
            "text. Give it the type that it had, by pandas.to_numeric or pandas.to_datetime say."
        ) from error


def _found(name: Any, column: Any, kind: str) -> Number | Category:
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
        x = _as_numbers(name, column)
        _check_finite(name, x)
    if kind == "auto":
        few = numeric and not dated and _has_few(x)
        kind = "number" if numeric and not few else "category"
    if kind == "category":
        return _category(name, dtype, levels, _values(column), declared)
    if not numeric:
        raise ValueError(f"column {name!r} must hold numbers for {kind!r}, got text.")
    found = Number(name, dtype, dated=dated)
    x = x[~np.isnan(x)]
    return found if kind == "continuous" or not len(x) else _measured(found, x)


def _check_finite(name: Any, x: np.ndarray) -> None:
    if np.isinf(x).any():
        raise ValueError(
            f"column {name!r} must be finite, got infinite values. Replace them by missing ones."
        )


def _holds_numbers(column: Any) -> bool:
    if isinstance(column, nw.Series) and column.dtype.is_numeric():
        return True
    return all(v is None or _is_number(v) for v in _values(column))


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
    counts = np.bincount([c for c in _codes(levels, known) if c >= 0], minlength=len(levels) or 1)
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


def _codes(levels: tuple, values: list[Any]) -> np.ndarray:
    """Return the place of each value among the levels: -1 of missing ones, -2 of others."""
    place = {_key(level): k for k, level in enumerate(levels)}
    return np.array([-1 if v is None else place.get(_key(v), -2) for v in values], dtype=int)


def _log_unseen(c: Category, codes: np.ndarray, values: list[Any]) -> np.ndarray:
    """Return the log probability (n,) of values that the rows of the fit did not have, else 0.

    Numbers have a share of it that falls with the fourth power of their distance from the nearest
    level, as the tails of bases do.
    """
    out = np.where(codes == -2, math.log(c.unseen), 0.0)
    new = [i for i in np.flatnonzero(codes == -2) if _is_number(values[i])]
    if not new or len(c.levels) < 2 or not all(map(_is_number, c.levels)):
        return out
    x, levels = np.array([values[i] for i in new], float), np.sort(np.array(c.levels, float))
    _check_finite(c.name, x)
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
            often[k] = share[k] > ATOM_LEAD * share[near].sum() / (2 * NEAR) * 2
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


def _table(library: Any, columns: tuple, values: dict[Any, Any]) -> Any:
    """Return columns of values as a table of a library."""
    if library == "array":
        parts = [np.asarray(values[c.name]) for c in columns]
        if all(part.dtype.kind in "fiub" for part in parts):
            return np.stack([part.astype(float) for part in parts], axis=1)
        return np.stack([part.astype(object) for part in parts], axis=1)
    named = {str(c.name): _series(library, c, values[c.name]) for c in columns}
    frame = nw.from_dict(named, backend=library).to_native()
    if library == "pandas":
        frame.columns = [c.name for c in columns]
        for j, c in enumerate(columns):
            frame.isetitem(j, _as_pandas(frame.iloc[:, j], c))
    return frame


def _series(library: Any, c: Number | Category, values: Any) -> Any:
    """Return a series of the column's type, as far as libraries agree on types."""
    if isinstance(c, Number) and c.dated:
        at = np.round(np.round(values) * DAY if c.dated == "date" else np.asarray(values) * DAY)
        at = at.astype("datetime64[us]") if not np.isnan(at).any() else at
        return _native(c, at.tolist(), library, nw.Datetime("us"))
    if isinstance(c, Number):
        whole = "int" in c.dtype.lower() and not np.isnan(values).any()
        numbers_ = np.round(values).astype(np.int64) if whole else np.asarray(values, float)
        return _native(c, numbers_.tolist(), library)
    return _native(c, list(values), library)


def _native(c: Number | Category, values: list[Any], library: Any, dtype: Any = None) -> Any:
    series = nw.new_series(str(c.name), values, dtype, backend=library)
    return (series if library == "pandas" else _as_typed(series, c)).to_native()


def _as_typed(series: Any, c: Number | Category) -> Any:
    """Return a series of narwhals in the type that the column had, by its name in polars."""
    kind, _, more = c.dtype.partition("(")
    if kind == "Datetime":
        unit, *zone = more.split("'")[1::2]
        zoned = series.dt.replace_time_zone("UTC") if zone else series
        return zoned.cast(nw.Datetime(unit, *zone))  # type: ignore[arg-type]
    if kind == "Enum":
        known = {None, *c.levels} >= set(series.to_list())  # type: ignore[union-attr]
        return series.cast(nw.Enum([*c.levels])) if known else series  # type: ignore[union-attr]
    named = getattr(nw, kind, None) if kind.isidentifier() else None
    if kind in ("Object", "List", "Struct", "Array") or not isinstance(named, type):
        return series
    return series.cast(named)


def _as_pandas(series: Any, c: Number | Category) -> Any:
    """Return a pandas series in the type that the column had."""
    import pandas as pd

    if isinstance(c, Category) and c.declared and series.dropna().isin(c.levels).all():
        return series.astype(pd.CategoricalDtype([*c.levels], ordered=c.declared == "ordered"))
    if c.dtype.startswith("datetime64"):
        zoned = "," in c.dtype
        return (series.dt.tz_localize("UTC") if zoned else series).astype(c.dtype)
    if c.dtype in ("", "object") or series.isna().any():
        return series.astype(object) if c.dtype == "object" else series
    return series.astype(c.dtype)
