"""Components of a density with some columns given: marginals, conditionals and their draws."""

from __future__ import annotations

__all__ = ["Codes", "Components", "Conditionals", "Tails"]

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch

MOST_PATTERNS = 64  # of hidden columns that are kept
TAIL_DOF = 3  # of Student's t: with 2 or fewer, draws would have no variance
TAIL_NORM = math.lgamma((TAIL_DOF + 1) / 2) - math.lgamma(TAIL_DOF / 2)
TAIL_NORM -= 0.5 * math.log(TAIL_DOF * math.pi)


class Tails(NamedTuple):
    """A product of Student's t with 3 degrees of freedom as one more component.

    Parameters
    ----------
    log_share : Tensor of shape ()
        Log of its weight.
    location, scale : Tensor of shape (d,)
        Of the columns.
    """

    log_share: torch.Tensor
    location: torch.Tensor
    scale: torch.Tensor


class Codes(NamedTuple):
    """Columns of codes behind the numbers: independent categories within each component.

    Parameters
    ----------
    log_tables : Tensor of shape (k, L)
        Log probabilities of the levels of all of them, side by side.
    log_tail : Tensor of shape (L,)
        Those of the tails.
    n_levels : tuple of int
        Of each.
    absent : tuple of (int, int, int)
        Number i does not exist where code j is below a.
    """

    log_tables: torch.Tensor
    log_tail: torch.Tensor
    n_levels: tuple[int, ...]
    absent: tuple[tuple[int, int, int], ...] = ()

    @property
    def starts(self) -> list[int]:
        """Where the levels of each begin."""
        return [sum(self.n_levels[:j]) for j in range(len(self.n_levels))]

    def is_absent(self, x: torch.Tensor, n_numbers: int) -> torch.Tensor:
        """Return which of the numbers of rows (n, d) do not exist, (n, n_numbers)."""
        out = torch.zeros(len(x), n_numbers, dtype=torch.bool, device=x.device)
        for i, j, a in self.absent:
            out[:, i] |= x[:, n_numbers + j] < a
        return out


@dataclass(frozen=True)
class Components:
    """A density as Gaussian components, all in double precision.

    Parameters
    ----------
    log_weights : Tensor of shape (k,)
        Logs of their weights, which with that of the tails sum to 1.
    means : Tensor of shape (k, d)
        Their means.
    factors : Tensor of shape (k, d, d) or (1, d, d)
        L with precision L L'; one where all have the same.
    tails : Tails, optional
        What lies under them.
    codes : Codes, optional
        Further columns, behind those of the Gaussians.
    """

    log_weights: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor
    tails: Tails | None = None
    codes: Codes | None = None

    @cached_property
    def log_det(self) -> torch.Tensor:
        """Half the log determinants of the precisions, (k,) or (1,)."""
        return torch.linalg.slogdet(self.factors)[1]

    @cached_property
    def by_pattern(self) -> dict[bytes, Conditionals]:
        """What was made, by the columns that are hidden."""
        return {}

    def weighted(self, log_share: torch.Tensor | float) -> Components:
        """Return the same with a share of the weight."""
        tails = self.tails
        if tails is not None:
            tails = tails._replace(log_share=tails.log_share + log_share)
        return replace(self, log_weights=self.log_weights + log_share, tails=tails)

    def beside(self, other: Components) -> Components:
        """Return the mean density of this one and another without tails."""
        one, two = self.weighted(-math.log(2)), other.weighted(-math.log(2))
        both = (one, two)
        factors = [c.factors.expand(len(c.means), -1, -1) for c in both]
        weights = torch.cat([c.log_weights for c in both])
        means = torch.cat([c.means for c in both])
        codes = one.codes
        if codes is not None and two.codes is not None:
            codes = codes._replace(
                log_tables=torch.cat([codes.log_tables, two.codes.log_tables]),
            )
        return Components(weights, means, torch.cat(factors), one.tails, codes)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log density of rows (n, d), nats."""
        if self.codes is None or not self.codes.absent:
            return self.hiding(torch.zeros(x.shape[1], dtype=torch.bool)).log_prob(x)
        k = self.means.shape[1]
        absent = self.codes.is_absent(x, k)
        key = torch.zeros(len(x), dtype=torch.long)
        for n, (i, _, _) in enumerate(self.codes.absent):
            key += absent[:, i].long() << n
        out = x.new_empty(len(x))
        for pattern in key.unique():
            rows = (key == pattern).nonzero()[:, 0]
            hidden = torch.zeros(x.shape[1], dtype=torch.bool)
            hidden[:k] = absent[rows[0]]
            conditionals = self.hiding(hidden)
            out[rows] = conditionals.log_prob(x[rows][:, conditionals.given])
        return out

    def hiding(self, hidden: torch.Tensor) -> Conditionals:
        """Return what is left where columns (d,) are hidden, made once for the last patterns."""
        key = hidden.numpy().tobytes()
        if key not in self.by_pattern:
            if len(self.by_pattern) >= MOST_PATTERNS:
                self.by_pattern.clear()
            self.by_pattern[key] = Conditionals(self, hidden)
        return self.by_pattern[key]


class Conditionals:
    """Components of which some columns are hidden and the others given.

    Parameters
    ----------
    components : Components
        The joint density.
    hidden : Tensor of bool of shape (d,)
        Which columns are.

    Notes
    -----
    With precisions the conditional is a part of the joint density, and the marginal the joint
    density where what is hidden is at its conditional mean: one factor for each component, of the
    size of what is hidden, and no difference of large numbers where components are narrow.
    """

    def __init__(self, components: Components, hidden: torch.Tensor) -> None:
        self.components, self.hidden, self.given = components, hidden, ~hidden
        factors, means = components.factors, components.means
        hidden = hidden[: means.shape[1]]  # numbers come before codes
        self._is_hidden, self._is_given, given = hidden, ~hidden, ~hidden
        self._n_given = int(given.sum())
        self._mean_given, self._mean_hidden = means[:, given], means[:, hidden]
        rows = factors[:, hidden]
        lower = torch.linalg.cholesky(rows @ rows.mT)
        self._spread = torch.linalg.inv(lower)  # noise @ this has the conditional covariance
        self._slope = -torch.cholesky_solve(rows @ factors[:, given].mT, lower)
        # what is given, with what is hidden at its mean, in standard deviations
        self._whiten = factors[:, given] + self._slope.mT @ rows
        log_det = components.log_det - lower.diagonal(dim1=1, dim2=2).log().sum(1)
        norm = 0.5 * self._n_given * math.log(2 * math.pi)
        self._constant = components.log_weights + log_det - norm

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log density of what is given, rows (n, d_given): (n,), nats, 0 of nothing."""
        if x.shape[1] == 0:
            return x.new_zeros(len(x))
        return self._joint(x).logsumexp(1)

    def means(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of what is hidden at rows (n, d_given): (n, d_hidden)."""
        share = self._joint(x).softmax(1)
        means = self._means(x)
        tails = self.components.tails
        if tails is not None:
            middle = tails.location[self._is_hidden].expand(len(x), 1, -1)
            means = torch.cat([means, middle], 1)
        return (share[:, :, None] * means).sum(1)

    def draw(
        self, x: torch.Tensor, u: torch.Tensor, z: torch.Tensor, g: torch.Tensor
    ) -> torch.Tensor:
        """Return what is hidden at rows (n, d_given), s times: (n, s, d_hidden).

        `u` (n or 1, s) are uniform, `z` (n or 1, s, d_hidden) standard normal and `g`, of that
        shape, chi-squared with 3 degrees of freedom.
        """
        share = self._joint(x).softmax(1).cumsum(1)
        n, k = len(x), len(self.components.means)
        wanted = (u * share[:, -1:]).expand(n, -1).contiguous()
        chosen = torch.searchsorted(share.contiguous(), wanted).clamp(max=share.shape[1] - 1)
        core = chosen.clamp(max=k - 1)
        m = int(self._is_hidden.sum())
        at = torch.gather(self._means(x), 1, core[:, :, None].expand(-1, -1, m))
        z, of_codes, g = z.expand(n, -1, -1)[:, :, :m], z[:, :, m:], g[:, :, :m]
        if len(self._spread) == 1:
            noise = z @ self._spread[0]
        else:
            noise = (z[:, :, None] @ self._spread[core])[:, :, 0]
        out = at + noise
        tails = self.components.tails
        if tails is not None:
            wide = tails.scale[self._is_hidden] * (TAIL_DOF / g).sqrt()
            far = tails.location[self._is_hidden] + wide * z
            out = torch.where((chosen == k)[:, :, None], far, out)
        if self.components.codes is None:
            return out
        return torch.cat([out, *self._codes(chosen, torch.special.ndtr(of_codes))], 2)

    def _codes(self, chosen: torch.Tensor, u: torch.Tensor) -> list[torch.Tensor]:
        """Return hidden codes of the chosen components (n, s), each (n, s, 1), by uniform u."""
        codes, parts = self.components.codes, []
        assert codes is not None
        tables = torch.cat([codes.log_tables, codes.log_tail[None]]).exp()
        places = self.hidden[len(self._is_hidden) :].nonzero()[:, 0].tolist()
        for i, j in enumerate(places):
            levels = slice(codes.starts[j], codes.starts[j] + codes.n_levels[j])
            share = tables[:, levels].cumsum(1)
            share = share / share[:, -1:]
            below = share[chosen] <= u[:, :, i, None]
            code = below.sum(2).clamp(max=codes.n_levels[j] - 1)
            parts.append(code[:, :, None].to(u.dtype))
        return parts

    def _joint(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log joint of rows and components, with that of the tails: (n, k [+ 1])."""
        k, codes = len(self.components.means), x[:, self._n_given :]
        x = x[:, : self._n_given]
        y = _each(x[:, None] - self._mean_given, self._whiten)
        joint = self._constant.expand(k) - 0.5 * y.square().sum(2)
        tails = self.components.tails
        if tails is not None:
            t = (x - tails.location[self._is_given]) / tails.scale[self._is_given]
            bend = 0.5 * (TAIL_DOF + 1) * (t.square() / TAIL_DOF).log1p().sum(1)
            norm = self._n_given * TAIL_NORM - tails.scale[self._is_given].log().sum()
            joint = torch.cat([joint, (tails.log_share + norm - bend)[:, None]], 1)
        return joint if self.components.codes is None else joint + self._of_codes(codes)

    def _of_codes(self, given: torch.Tensor) -> torch.Tensor:
        """Return the log probability of given codes (n, c) in each component: (n, k [+ 1])."""
        codes = self.components.codes
        assert codes is not None
        tables = codes.log_tables
        if self.components.tails is not None:
            tables = torch.cat([tables, codes.log_tail[None]])
        places = self.given[len(self._is_given) :].nonzero()[:, 0].tolist()
        out = given.new_zeros(len(given), len(tables))
        for i, j in enumerate(places):
            out += tables[:, codes.starts[j] + given[:, i].long()].T
        return out

    def _means(self, x: torch.Tensor) -> torch.Tensor:
        """Return each component's mean of what is hidden, (n, k, d_hidden)."""
        x = x[:, : self._n_given]
        return self._mean_hidden + _each(x[:, None] - self._mean_given, self._slope.mT)


def _each(rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Return the products (n, k, p) of rows (n, k, j) with each component's matrix (k, j, p)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    return (rows.transpose(0, 1) @ matrices).transpose(0, 1)
