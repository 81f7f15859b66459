"""A few rows that stand for many: priority sampling, in one pass."""

from __future__ import annotations

__all__ = ["Reservoir"]

import numpy as np


class Reservoir:
    """At most k rows of a stream, in proportion to their weights.

    Row i has the priority w_i / u_i, u_i uniform on (0, 1]. The k highest are kept; what they stand
    for is max(w_i, tau), tau the next highest priority: sums over them are unbiased (Duffield, Lund
    and Thorup, 2007), equal weights stay equal, and a heavy row is there once. Fewer rows than k
    are all there, as they were.

    Parameters
    ----------
    k : int
        Most rows.
    rng : numpy.random.Generator
        Source of randomness.
    """

    def __init__(self, k: int, rng: np.random.Generator) -> None:
        self.k, self.rng, self.n_rows = k, rng, 0
        self._tau, self._held = 0.0, 0
        self._parts: list[tuple[np.ndarray, ...]] = []  # priority, number, weight, row

    def add(self, rows: np.ndarray, weight: np.ndarray | None) -> None:
        """Take note of the next rows (m, d) and their weights (m,)."""
        weight = np.ones(len(rows)) if weight is None else weight
        with np.errstate(all="ignore"):
            priority = weight / (1 - self.rng.random(len(rows)))
        chosen = np.flatnonzero(priority >= self._tau)
        self._parts.append((priority[chosen], self.n_rows + chosen, weight[chosen], rows[chosen]))
        self.n_rows += len(rows)
        self._held += len(chosen)
        if self._held > 2 * self.k:
            self._shrink()

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (m, d) in the order in which they came, and what they stand for (m,)."""
        self._shrink()
        _, number, weight, rows = self._parts[0]
        order = np.argsort(number)
        return rows[order], np.maximum(weight, self._tau)[order]

    def _shrink(self) -> None:
        parts = [np.concatenate(part) for part in zip(*self._parts, strict=True)]
        self._parts = []
        if len(parts[0]) > self.k:
            order = np.argpartition(parts[0], len(parts[0]) - self.k - 1)
            self._tau = max(float(parts[0][order[-self.k - 1]]), self._tau)
            parts = [part[order[-self.k :]] for part in parts]
        self._parts, self._held = [tuple(parts)], len(parts[0])
