"""Tables as they are: their rows as numbers and codes, and the way back."""

from __future__ import annotations

__all__ = ["Category", "Number", "Schema"]

import functools
import math
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skebm._tables import as_frame
from skebm.data._columns import (
    DAY,
    KINDS,
    Category,
    Number,
    as_numbers,
    check_finite,
    codes_of,
    columns_by_name,
    identified,
    unseen_log_probability,
    values_of,
)


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
        frame, columns = as_frame(X), columns_by_name(X)
        given = {} if kinds == "auto" else dict(kinds)
        for name, kind in given.items():
            if name not in columns:
                raise ValueError(f"columns must name columns of X, got {name!r}. Use {[*columns]}.")
            if kind not in KINDS:
                raise ValueError(f"columns must be one of {[*KINDS]}, got {kind!r} for {name!r}.")
        usual = "auto" if frame is not None else "continuous"
        found = tuple(identified(n, c, given.get(n, usual)) for n, c in columns.items())
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
            values = values_of(columns[c.name])
            codes = codes_of(c.levels, values)
            log_unseen += unseen_log_probability(c, codes, values)
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
        columns = columns_by_name(X)
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
            return np.zeros(len(next(iter(columns_by_name(X).values()))))
        values = values_of(self._columns_of(X)[c.name])
        return -unseen_log_probability(c, codes_of(c.levels, values), values)

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
        columns = None if given is None else columns_by_name(given)
        values: dict[Any, Any] = {}
        for j, c in enumerate(self.columns):
            if isinstance(c, Category):
                x = X[:, self.places[j][0]]
                known = np.where(np.isnan(x), -1, x).astype(int)
                values[c.name] = [c.levels[k] if k >= 0 else None for k in known]
                if columns is not None:
                    pairs = zip(values_of(columns[c.name]), values[c.name], strict=True)
                    values[c.name] = [drawn if was is None else was for was, drawn in pairs]
                continue
            values[c.name] = self.column_values(X, j)
            if columns is not None:
                was = as_numbers(c.name, columns[c.name])
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
        x = as_numbers(c.name, column)
        check_finite(c.name, x)
        return x


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
