"""A table whose batches come from a source, and whose questions a sample of it answers."""

from __future__ import annotations

__all__ = ["MOST_KEPT", "Stream", "StreamedTable"]

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from skebm._talk import Phases
from skebm.data._copies import row_keys
from skebm.data._reservoir import Reservoir
from skebm.data.sources import MOST_IN_BLOCK, Source
from skebm.data.table import ArrayTable, Rows
from skebm.data.transform import Transform

MOST_KEPT = 100_000  # rows of a reservoir
POOL_VALUES = 2**22  # of the rows that batches are drawn from at a time, if those are more
TOGETHER = 32  # neighbors that are read at once: some thousand such groups are as good as rows


class Stream:
    """Samples of a source: one to know it by, others to train on.

    Parameters
    ----------
    source : Source
        The rows.
    sample_weight : array-like of shape (n_rows,) or None
        Their weights, which may be mapped from a file as well.
    seed : int
        Of all samples.
    verbose : int
        As of estimators.
    """

    def __init__(self, source: Source, sample_weight: Any, seed: int, verbose: int) -> None:
        self.source, self.seed, self.verbose = source, seed, verbose
        self.weight = sample_weight
        self.n_rows, self._n_pools, self._ended = source.n_rows, 0, Event()
        self.share: float | None = None  # as of a table
        self._next: Future | None = None
        self._thread = ThreadPoolExecutor(1, "skebm-source")

    def survey(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return all rows if they are at most 100,000, else a sample, and their weights (m,).

        Raises
        ------
        ValueError
            If there are more, and some are not finite; or the weights are unfit.
        """
        kept = Reservoir(MOST_KEPT, np.random.default_rng([self.seed, 0]))
        n_bad = 0
        phases = Phases(self.verbose)
        for rows, weight in self._pass(show=self.verbose == 1):
            finite = np.isfinite(rows)
            n_bad += 0 if finite.all() else int(np.count_nonzero(~finite.all(1)))
            kept.add(rows, weight)
        self.n_rows = kept.n_rows
        if not self.n_rows:
            raise ValueError("X must have rows, got a source without any. Look at its blocks.")
        if self.weight is not None and len(self.weight) != self.n_rows:
            raise ValueError(
                f"sample_weight must be of shape ({self.n_rows},), got {len(self.weight)} numbers. "
                "It needs one number per row."
            )
        if n_bad and self.is_long:
            raise ValueError(
                f"X must be finite in a source of more than {MOST_KEPT:,} rows, got NaN or "
                f"infinity in {n_bad} of {self.n_rows:,}. Fill them in, or leave those rows out."
            )
        X, weight = kept.rows()
        phases.done("pass", f"{self.n_rows:,} rows, of which {len(X):,} are kept")
        return X.astype(np.float64), None if self.weight is None else weight

    @property
    def is_long(self) -> bool:
        """Whether there are more rows than a sample has."""
        return self.n_rows is not None and self.n_rows > MOST_KEPT

    def prefetch(self, n_features: int) -> None:
        """Begin to read the next rows to train on, unless that has begun."""
        if self._next is None:
            self._n_pools += 1
            self._next = self._thread.submit(self._pool, self._n_pools, n_features)

    def pool(self, n_features: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a fresh sample of the whole source, and its weights."""
        self.prefetch(n_features)
        assert self._next is not None  # just begun
        found, self._next = self._next.result(), None
        return found

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        """Read no more."""
        self._ended.set()
        self._thread.shutdown(cancel_futures=True)

    def _pool(self, i: int, n_features: int) -> tuple[np.ndarray, np.ndarray | None]:
        rng, k = np.random.default_rng([self.seed, i]), max(MOST_KEPT, POOL_VALUES // n_features)
        assert self.n_rows is not None  # a survey was made
        k, phases = min(k, self.n_rows), Phases(self.verbose)
        numbers, weight = self._numbers(k, rng)
        rows = self.source.take(numbers) if len(numbers) else None
        if rows is None:
            kept = Reservoir(k, rng)
            for block, of_block in self._pass():
                kept.add(block, of_block)
            if not kept.n_rows:
                raise ValueError(
                    "X must have the same rows in each pass, got none in the second. Give a "
                    "dataset that can be read again, no generator."
                )
            rows, weight = kept.rows()
        phases.done("rows to train on", f"{len(rows):,} of {self.n_rows:,}")
        return rows.astype(np.float64), None if self.weight is None else weight

    def _numbers(self, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the increasing numbers of k rows at random, and their weights; none by a pass."""
        n = self.n_rows
        if n is None or self.source.take(np.arange(1)) is None:
            return np.arange(0), None
        if self.weight is None:
            groups = np.sort(rng.choice(-(-n // TOGETHER), -(-k // TOGETHER), replace=False))
            numbers = (groups[:, None] * TOGETHER + np.arange(TOGETHER)).ravel()
            return numbers[numbers < n], None
        kept = Reservoir(k, rng)
        for start in range(0, n, MOST_IN_BLOCK):
            some = np.arange(start, min(start + MOST_IN_BLOCK, n))
            kept.add(some[:, None], self._weights(start, len(some)))
        numbers, weight = kept.rows()
        return numbers[:, 0], weight

    def _pass(self, show: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield blocks and weights of all rows, until the end."""
        start, width = 0, self.source.n_features
        with tqdm(total=self.n_rows, disable=not show, desc="pass over the rows") as bar:
            for block in self.source.blocks():
                if self._ended.is_set():
                    return
                block = np.asarray(block)
                fits = block.ndim == 2 and block.shape[1] == (width or block.shape[1])
                if not fits or block.dtype.kind not in "biuf":
                    raise ValueError(
                        f"blocks must be numbers of shape (m, {width or 'n_features'}), got "
                        f"{block.dtype} of {block.shape}. Each row needs the same columns."
                    )
                width = block.shape[1]
                weight = None if self.weight is None else self._weights(start, len(block))
                yield block, weight
                start += len(block)
                bar.update(len(block))

    def _weights(self, start: int, m: int) -> np.ndarray:
        weight = np.asarray(self.weight[start : start + m], dtype=np.float64)
        if len(weight) != m:
            raise ValueError(
                f"sample_weight must have one number per row, got {len(self.weight)} for at least "
                f"{start + m:,} rows."
            )
        n_bad = np.count_nonzero(~((weight >= 0) & (weight < np.inf)))
        if n_bad:
            raise ValueError(
                f"sample_weight must be finite and >= 0, got {n_bad} values that are not among "
                f"rows {start:,} to {start + m:,}. Leave rows out by a weight of 0."
            )
        return weight


class StreamedTable(ArrayTable):
    """A sample of a source, but for batches: those are of fresh samples, each row drawn once.

    What is held out is in no batch, nor are its copies. Heavy rows are more often in the sample and
    so held out: of n rows their share in batches is smaller by at most a tenth of 100,000 / n.
    """

    def follow(self, stream: Stream, transform: Transform) -> StreamedTable:
        """Draw batches from a stream."""
        X, _, trained, held_out, _ = self.originals()
        self._hidden = np.setdiff1d(row_keys(X[held_out]), row_keys(X[trained]))
        self._stream, self._transform, self.share = stream, transform, stream.share
        self._pool = self._x[:0]
        stream.prefetch(X.shape[1])
        return self

    def draw(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return a fresh batch (n, d): rows in proportion to their weights, with fresh noise."""
        while len(self._pool) < n:
            self._pool = torch.cat([self._pool, self._fresh(rng)])
            self._half = len(self._pool) // 2
        batch, self._pool = self._pool[:n], self._pool[n:]
        if len(self._pool) < self._half:
            self._stream.prefetch(self._transform.n_features)
        return self._with_noise(batch, rng)

    def _fresh(self, rng: torch.Generator) -> torch.Tensor:
        """Return fresh training rows in random order, standardized space."""
        X, weight = self._stream.pool(self._transform.n_features)
        seen = ~np.isin(row_keys(X), self._hidden)
        if not seen.any():  # a process of few rows
            return self._x
        x = self._transform.forward(X[seen]).to(rng.device)
        share = None if weight is None else torch.from_numpy(weight[seen]).to(rng.device)
        x = Rows(x, share).by_weight(rng)
        return x[torch.randperm(len(x), generator=rng, device=rng.device)]
