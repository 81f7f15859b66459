"""Rows that need not fit in memory: memory maps, parquet files, torch datasets, dask."""

from __future__ import annotations

__all__ = ["Source", "as_source", "parquet"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
)

BLOCK_VALUES = 2**20  # of a block, where its size is ours to choose
MOST_IN_BLOCK = 2**16  # rows of it
FETCHED = 4096  # items of a torch dataset at a time
OF_JOBLIB = "joblib_memmapping_folder"  # where joblib lays what was an array
REMEDY = "Leave such columns out by `columns`, or read a table that fits in memory."


class Source(ABC):
    """Rows of numbers that are read block by block, as often as it takes.

    A subclass that yields blocks can be fitted and scored as any table can, in memory that does not
    grow with the number of rows.

    Attributes
    ----------
    n_rows : int or None
        Where it is known without reading.
    n_features : int or None
        Where it is known without reading.
    names : list of str or None
        Of the columns.
    is_ordered : bool
        Whether every pass has the same rows in the same order, which weights need.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import Source
    >>> class Files(Source):
    ...     def blocks(self):
    ...         for seed in range(3):  # np.load(file) say
    ...             yield np.random.RandomState(seed).randn(100, 2)
    >>> from skebm import NCEDensity
    >>> est = NCEDensity(max_iter=25, random_state=0).fit(Files())
    >>> est.score_samples(Files()).shape
    (300,)
    """

    n_rows: int | None = None
    n_features: int | None = None
    names: list[str] | None = None
    is_ordered = True

    @abstractmethod
    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows once, as arrays (m, d) of numbers of a size that memory holds."""

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the rows (m, d) with these increasing numbers; None where it takes a pass."""
        return None


class MappedRows(Source):
    """An array (n, d), on disk or in memory, sliced."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X
        self.n_rows, self.n_features = X.shape

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield copies of slices."""
        size = rows_in_block(self.X.shape[1])
        for start in range(0, len(self.X), size):
            yield np.array(self.X[start : start + size])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers."""
        return np.asarray(self.X[rows])


class ParquetRows(Source):
    """Columns of parquet files."""

    def __init__(self, path: str | Path, columns: list[str] | None) -> None:
        try:
            import pyarrow as pa
            from pyarrow import dataset
        except ImportError as error:
            raise ImportError(
                "pyarrow must be installed for parquet files, got none. pip install "
                "skebm[distributed]."
            ) from error
        self._dataset = dataset.dataset(path, format="parquet")
        kinds = dict(zip(self._dataset.schema.names, self._dataset.schema.types, strict=True))
        self.names = list(kinds if columns is None else columns)
        unknown = [name for name in self.names if name not in kinds]
        if unknown or not self.names:
            raise ValueError(
                f"columns must be some of {list(kinds)}, got {unknown or self.names}. Or leave "
                "them out to take all."
            )
        _refuse_texts(
            {
                name: str(kinds[name])
                for name in self.names
                if not (
                    pa.types.is_integer(kinds[name])
                    or pa.types.is_floating(kinds[name])
                    or pa.types.is_boolean(kinds[name])
                )
            }
        )
        self.n_features, self.n_rows = len(self.names), self._dataset.count_rows()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield record batches, with NaN for nulls."""
        batches = self._dataset.to_batches(
            columns=self.names,
            batch_size=rows_in_block(len(self.names or [])),
            batch_readahead=2,
            fragment_readahead=1,
        )
        for batch in batches:
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            if batch.num_rows:  # nulls of booleans come as objects
                yield np.column_stack(
                    [c.astype(np.float64) if c.dtype == object else c for c in columns]
                )


class TorchRows(Source):
    """Items of a torch dataset or batches of a loader: rows, or tuples that begin with one."""

    def __init__(self, X: Dataset | DataLoader) -> None:
        self._loader: Any = X if isinstance(X, DataLoader) else DataLoader(X, FETCHED)
        in_turn = type(self._loader.sampler) is SequentialSampler
        plain = type(self._loader.batch_sampler) is BatchSampler
        self.is_ordered = not isinstance(X, DataLoader) or (in_turn and plain)
        if not isinstance(X, DataLoader | IterableDataset):
            self.n_rows = len(X)  # type: ignore[arg-type]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield batches, flattened to rows."""
        return map(_rows_of_batch, self._loader)

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the rows with these numbers; a loader goes its own way."""
        if self.n_rows is None:
            return None
        some = Subset(self._loader.dataset, rows.tolist())
        return np.concatenate([_rows_of_batch(batch) for batch in DataLoader(some, FETCHED)])


class DaskRows(Source):
    """A dask array, or data frame of numbers, by its partitions."""

    def __init__(self, X: Any) -> None:
        if hasattr(X, "to_dask_array"):
            kinds = dict(zip(X.columns, X.dtypes, strict=True))
            _refuse_texts(
                {k: str(v) for k, v in kinds.items() if getattr(v, "kind", "O") not in "biuf"}
            )
            self.names = list(kinds) if all(isinstance(k, str) for k in kinds) else None
            X = X.to_dask_array()
        if X.ndim != 2:
            raise ValueError(
                f"X must be two-dimensional, got a dask array of {X.ndim} dimensions. Reshape it "
                "to one row per sample."
            )
        self._array = X.rechunk({1: -1})
        self.n_features = int(X.shape[1])
        self.n_rows = None if np.isnan(X.shape[0]) else int(X.shape[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield partitions, computed one by one."""
        for i in range(self._array.numblocks[0]):
            block = np.asarray(self._array.blocks[i].compute())
            if len(block):
                yield block

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Any:
        """Return a function of rows, (m, d) to (m,), as a dask array that nothing has computed."""
        return self._array.map_blocks(function, drop_axis=1, dtype=np.float64, meta=np.empty(0))


def parquet(path: str | Path, columns: list[str] | None = None) -> Source:
    """Return the rows of parquet files, to be fitted or scored without reading them whole.

    Parameters
    ----------
    path : str or Path
        A file, or a folder of them.
    columns : list of str, optional
        Columns to take, in this order; None takes all. Numbers and booleans alone.

    Returns
    -------
    Source
        For ``fit`` and ``score_samples``. Nulls are NaN.

    Raises
    ------
    ImportError
        Without pyarrow: ``pip install skebm[distributed]``.
    ValueError
        If there is no such column, or one holds no numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd, tempfile
    >>> from skebm.data import parquet
    >>> folder = tempfile.mkdtemp()
    >>> frame = pd.DataFrame(np.zeros((5, 2)), columns=["a", "b"])
    >>> try:
    ...     frame.to_parquet(f"{folder}/part.parquet")
    ...     names = parquet(folder, columns=["b"]).names
    ... except ImportError:  # pyarrow comes with skebm[distributed]
    ...     names = ["b"]
    >>> names
    ['b']
    """
    return ParquetRows(path, columns)


def as_source(X: Any) -> Source | None:
    """Return rows that need not be in memory as a source; None of any other table.

    Parameters
    ----------
    X : Source, numpy.memmap, torch Dataset or DataLoader, dask array or data frame, or other
        A table. A memory map of joblib is what was an array, and none.

    Returns
    -------
    Source or None
        The same rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data.sources import as_source
    >>> as_source(np.zeros((3, 2))) is None
    True
    """
    if isinstance(X, Source):
        return X
    if isinstance(X, np.ndarray):
        mapped = isinstance(X, np.memmap) and OF_JOBLIB not in str(X.filename)
        return MappedRows(X) if mapped and X.ndim == 2 and X.dtype.kind in "biuf" else None
    if isinstance(X, Dataset | DataLoader):
        return TorchRows(X)
    return DaskRows(X) if type(X).__module__.split(".")[0] == "dask" else None


def rows_in_block(n_features: int) -> int:
    """Return how many rows of so many columns are read at a time."""
    return max(1, min(MOST_IN_BLOCK, BLOCK_VALUES // n_features))


def _refuse_texts(found: dict[Any, str]) -> None:
    if found:
        shown = ", ".join(f"column {name!r} ({kind})" for name, kind in list(found.items())[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"X must hold numbers in a source, got others in {shown}{more}. {REMEDY}")


def _rows_of_batch(batch: Any) -> np.ndarray:
    rows = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(rows, torch.Tensor) or rows.dim() < 2:
        kind = type(rows).__name__ if not isinstance(rows, torch.Tensor) else f"{rows.dim()}-d"
        raise TypeError(
            f"X must have items that are rows of numbers, or tuples that begin with one, got a "
            f"batch of {kind}. Wrap the dataset."
        )
    return rows.detach().cpu().flatten(1).numpy()
