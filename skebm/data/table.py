"""Rows as a fit sees them: split, standardized and noised once."""

from __future__ import annotations

__all__ = ["ArrayTable", "CompletedTable", "Originals", "Rows", "Table"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch

from skebm.data._copies import copy_groups
from skebm.data._degeneracy import has_atoms
from skebm.data._systematic import systematic_rows

FEWEST_FOR_VALIDATION = 20  # rows below which nothing is held out
MOST_LOOKED_AT = 200_000  # rows in which atoms and dependent columns show
MOST_JUDGED = 5000  # held-out rows that models are judged by


class Rows(NamedTuple):
    """Some training rows.

    Parameters
    ----------
    x : Tensor of shape (m, d)
        Standardized space.
    weight : Tensor of shape (m,) or None
        Their weights.

    Examples
    --------
    >>> import torch
    >>> from skebm.data import Rows
    >>> Rows(torch.zeros(3, 2), None).x.shape
    torch.Size([3, 2])
    """

    x: torch.Tensor
    weight: torch.Tensor | None

    def by_weight(self, rng: torch.Generator) -> torch.Tensor:
        """Return as many rows (m, d), each repeated in proportion to its weight."""
        if self.weight is None:
            return self.x
        return self.x[systematic_rows(self.weight, len(self.x), rng)]


class Originals(NamedTuple):
    """Rows as the user gave them.

    Parameters
    ----------
    X : ndarray of shape (m, d)
        Units of X.
    weight : ndarray of shape (m,) or None
        Their weights.
    trained : ndarray of int
        Numbers of the training rows.
    held_out : ndarray of int
        Numbers of the rows that are held out, in proportion to their weights: heavy ones repeat.
    holed : ndarray of shape (m, d) or None
        The rows with their missing values, which are filled in in X; None where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.data import Originals
    >>> Originals(np.zeros((3, 2)), None, np.array([0, 2]), np.array([1])).held_out
    array([1])
    """

    X: np.ndarray
    weight: np.ndarray | None
    trained: np.ndarray
    held_out: np.ndarray
    holed: np.ndarray | None = None


class Table(ABC):
    """What a fit may ask of its rows; nobody reads all of them.

    Attributes
    ----------
    n_rows : int
        Training rows.
    held_out : Tensor of shape (m, d) or None
        Rows that are never drawn, with their share of the noise, standardized space; of many,
        5,000.
    noise : ndarray of shape (d,)
        Standard deviation of the noise on each column, standardized units.
    share : float or None
        Of this process's rows in the weight of all, where several fit one model: batches are of its
        own rows, the rest is the same for all. None is alone.
    """

    n_rows: int
    held_out: torch.Tensor | None
    noise: np.ndarray
    share: float | None = None

    @abstractmethod
    def draw(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return a fresh batch (n, d): rows in proportion to their weights, with fresh noise."""

    @abstractmethod
    def rows(self, most: int | None = None, *, noised: bool = True) -> Rows:
        """Return at most so many training rows, always the same ones, in random order if fewer."""

    @abstractmethod
    def originals(self) -> Originals:
        """Return the rows that thresholds are read from, training and held out."""

    def reweigh(self, potential: Callable[[torch.Tensor], torch.Tensor]) -> None:  # noqa: B027
        """Take note of a model's potential, rows (n, d) to (n,): what is missing follows it."""


class ArrayTable(Table):
    """Rows that lie in memory.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        Training rows, standardized space.
    weight : Tensor of shape (n,), optional
        Nonnegative weights.
    held_out : Tensor of shape (m, ...), optional
        Validation rows; they get noise too where there is an `rng`.
    noise : ndarray of shape (d,), optional
        Standard deviation of Gaussian noise on each column, standardized units.
    originals : Originals, optional
        The same rows in the units of X.
    rng : torch.Generator, optional
        Draws the noise of `rows` and of `held_out`, and the order of the former. Without one they
        have no noise, batches do.

    Examples
    --------
    >>> import torch
    >>> from skebm.data import ArrayTable, torch_generator
    >>> table = ArrayTable(torch.arange(6.0).reshape(3, 2))
    >>> table.draw(4, torch_generator(0)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None = None,
        *,
        held_out: torch.Tensor | None = None,
        noise: np.ndarray | None = None,
        originals: Originals | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        self.n_rows, self.noise = len(x), np.zeros(x.shape[1:]) if noise is None else noise
        self._x, self._weight, self._originals = x, weight, originals
        self._cumulative = None if weight is None else weight.double().cumsum(0)
        self._noised, self.held_out = x, held_out
        if rng is not None:
            self._noised = self._with_noise(x, rng)
            self.held_out = None if held_out is None else self._with_noise(held_out, rng)
        rng = rng or torch.Generator(x.device).manual_seed(0)
        self._order = torch.randperm(len(x), generator=rng, device=x.device)

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        weight: np.ndarray | None,
        z: torch.Tensor,
        *,
        noise: np.ndarray,
        held_out: np.ndarray,
        rng: torch.Generator,
    ) -> Self:
        """Split rows X (n, d), standardized z; `held_out` are row numbers (see `split`)."""
        keep = np.ones(len(X), dtype=bool)
        keep[held_out] = False
        x = z.float().to(rng.device)
        w = None if weight is None else torch.from_numpy(weight[keep]).to(rng.device)
        if weight is not None and len(held_out):  # judge in proportion to the weights
            shares = torch.from_numpy(weight[held_out]).to(rng.device)
            held_out = held_out[systematic_rows(shares, len(held_out), rng).cpu().numpy()]
        fresh = x[_some(held_out, rng)] if len(held_out) else None
        return cls(
            x[torch.from_numpy(keep).to(x.device)],
            w,
            held_out=fresh,
            noise=noise,
            originals=Originals(X, weight, np.flatnonzero(keep), held_out),
            rng=rng,
        )

    def draw(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return a fresh batch (n, d): rows in proportion to their weights, with fresh noise."""
        if self._cumulative is None:
            index = torch.randint(self.n_rows, (n,), generator=rng, device=rng.device)
        else:
            u = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)
            index = torch.searchsorted(self._cumulative, u * self._cumulative[-1], right=True)
            index.clamp_(max=self.n_rows - 1)
        return self._with_noise(self._at(index, rng), rng)

    def _at(self, index: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return self._x[index]

    def rows(self, most: int | None = None, *, noised: bool = True) -> Rows:
        """Return at most so many training rows, always the same ones, in random order if fewer."""
        x = self._noised if noised else self._x
        if most is None or most >= self.n_rows:
            return Rows(x, self._weight)
        chosen = self._order[:most]
        return Rows(x[chosen], None if self._weight is None else self._weight[chosen])

    def originals(self) -> Originals:
        """Return all rows."""
        assert self._originals is not None  # only a fit asks, and it made the table from them
        return self._originals

    def _with_noise(self, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        if not self.noise.any():
            return x
        scale = torch.from_numpy(self.noise).to(x)
        return x + scale * torch.empty_like(x).normal_(generator=rng)


class CompletedTable(ArrayTable):
    """Rows whose missing values are filled in several times.

    A batch has one completion of each row, drawn in proportion to a model's density over that from
    which the completions were drawn.
    """

    def complete(
        self, drawn: torch.Tensor, log_q: torch.Tensor, holed: np.ndarray
    ) -> CompletedTable:
        """Take completions (n_rows, s, d) of the training rows, and their log densities (n, s)."""
        self._drawn, self._log_q = drawn.to(self._x), log_q.to(self._x)
        self._share = torch.ones_like(self._log_q)
        self._holes = (self._drawn != self._drawn[:, :1]).any(2).any(1)
        self._originals = self.originals()._replace(holed=holed)
        return self

    @torch.no_grad()
    def reweigh(self, potential: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Weigh completions by a model."""
        rows = self._drawn[self._holes]
        log_w = -potential(rows.flatten(0, 1)).view(rows.shape[:2]) - self._log_q[self._holes]
        self._share[self._holes] = (log_w - log_w.amax(1, keepdim=True)).exp().to(self._share)

    def _at(self, index: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        chosen = torch.multinomial(self._share[index], 1, generator=rng)[:, 0]
        return self._drawn[index, chosen]


def _some(rows: np.ndarray, rng: torch.Generator) -> torch.Tensor:
    """Return row numbers, of many some at random."""
    every = torch.from_numpy(rows).to(rng.device)
    if len(rows) <= MOST_JUDGED:
        return every
    return every[torch.randperm(len(rows), generator=rng, device=rng.device)[:MOST_JUDGED]]


def split(z: np.ndarray, fraction: float, rng: torch.Generator) -> np.ndarray:
    """Return the numbers of the rows (n, d) to hold out: that share, none of few.

    Copies stay together, or what is held out has been trained on. Columns of few values are no
    sign of copies.
    """
    n = len(z)
    if fraction == 0 or n < FEWEST_FOR_VALIDATION:
        return np.arange(0)
    some = z[:: -(-n // MOST_LOOKED_AT)]
    sound = [j for j in range(z.shape[1]) if not has_atoms(some[:, j])]
    group = copy_groups(z, sound) if sound else None
    units = n if group is None else int(group.max()) + 1
    order = torch.randperm(units, generator=rng, device=rng.device).cpu().numpy()
    chosen = order[: min(max(int(np.ceil(fraction * units)), 2), units - 2)]
    return np.sort(chosen) if group is None else np.flatnonzero(np.isin(group, chosen))
