"""Gaussian components with some columns given: marginals, conditionals and their draws."""

from __future__ import annotations

__all__ = ["Components", "Conditionals", "Tails"]

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch

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
    """

    log_weights: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor
    tails: Tails | None = None

    @cached_property
    def log_det(self) -> torch.Tensor:
        """Half the log determinants of the precisions, (k,) or (1,)."""
        return torch.linalg.slogdet(self.factors)[1]

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
        return Components(weights, means, torch.cat(factors), one.tails)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log density of rows (n, d), nats."""
        return Conditionals(self, torch.zeros(x.shape[1], dtype=torch.bool)).log_prob(x)


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
        self._mean_given, self._mean_hidden = means[:, self.given], means[:, hidden]
        rows = factors[:, hidden]
        lower = torch.linalg.cholesky(rows @ rows.mT)
        self._spread = torch.linalg.inv(lower)  # noise @ this has the conditional covariance
        self._slope = -torch.cholesky_solve(rows @ factors[:, self.given].mT, lower)
        # what is given, with what is hidden at its mean, in standard deviations
        self._whiten = factors[:, self.given] + self._slope.mT @ rows
        log_det = components.log_det - lower.diagonal(dim1=1, dim2=2).log().sum(1)
        norm = 0.5 * int(self.given.sum()) * math.log(2 * math.pi)
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
            middle = tails.location[self.hidden].expand(len(x), 1, -1)
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
        m = z.shape[2]
        at = torch.gather(self._means(x), 1, core[:, :, None].expand(-1, -1, m))
        z = z.expand(n, -1, -1)
        if len(self._spread) == 1:
            noise = z @ self._spread[0]
        else:
            noise = (z[:, :, None] @ self._spread[core])[:, :, 0]
        out = at + noise
        tails = self.components.tails
        if tails is not None:
            far = tails.location[self.hidden] + tails.scale[self.hidden] * z * (TAIL_DOF / g).sqrt()
            out = torch.where((chosen == k)[:, :, None], far, out)
        return out

    def _joint(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log joint of rows and components, with that of the tails: (n, k [+ 1])."""
        k = len(self.components.means)
        y = _each(x[:, None] - self._mean_given, self._whiten)
        joint = self._constant.expand(k) - 0.5 * y.square().sum(2)
        tails = self.components.tails
        if tails is None:
            return joint
        t = (x - tails.location[self.given]) / tails.scale[self.given]
        bend = 0.5 * (TAIL_DOF + 1) * (t.square() / TAIL_DOF).log1p().sum(1)
        norm = int(self.given.sum()) * TAIL_NORM - tails.scale[self.given].log().sum()
        return torch.cat([joint, (tails.log_share + norm - bend)[:, None]], 1)

    def _means(self, x: torch.Tensor) -> torch.Tensor:
        """Return each component's mean of what is hidden, (n, k, d_hidden)."""
        return self._mean_hidden + _each(x[:, None] - self._mean_given, self._slope.mT)


def _each(rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Return the products (n, k, p) of rows (n, k, j) with each component's matrix (k, j, p)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    return (rows.transpose(0, 1) @ matrices).transpose(0, 1)
