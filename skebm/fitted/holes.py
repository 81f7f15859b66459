"""Rows with missing values under a fitted density: marginals, completions, conditionals."""

from __future__ import annotations

__all__ = ["Holes", "Observed"]

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from skebm._surroundings import own_settings
from skebm._warn import warn
from skebm.bases import Base, BaseComponent, Mixture
from skebm.bases._conditional import TAIL_DOF, Components, Conditionals
from skebm.bases.mixed import MixedBase, MixedMixture
from skebm.data import MixedTransform
from skebm.energies import Zero
from skebm.exceptions import DataDegeneracyWarning, NormalizationWarning

if TYPE_CHECKING:
    from skebm.fitted.density import FittedDensity

N_DRAWS = 32  # completions of a row that its log density is averaged over
N_FOR_MEANS = 1000  # completions that means of what is missing are over
N_CANDIDATES = 64  # that one draw of what is hidden is chosen from
PER_DRAW = 8  # candidates for each where many are wanted
N_REFITTED, MOST_COMPONENTS = 4000, 10  # draws of the model that the proposal is refitted to
BLOCK_VALUES = 2**21  # of completions at a time
FEWEST_EFFECTIVE = 0.1  # share of the draws below which a mean is doubtful
MUCH = 0.05  # of the rows, from which on that is told


class Observed(NamedTuple):
    """What is known of rows with missing values.

    Parameters
    ----------
    log_density : ndarray of shape (n,)
        Log density of the values that are there, nats in their units.
    stderr : ndarray of shape (n,)
        Standard error of that, nats; 0 where it is exact.
    completed : ndarray of shape (n,)
        Mean log density of the row's completions, nats in the units of X; nan if not asked for.
    """

    log_density: np.ndarray
    stderr: np.ndarray
    completed: np.ndarray


class Holes:
    r"""Marginals and conditionals of a fitted density.

    .. math:: \log p(x_o) = \log q(x_o)
        + \log \mathrm{mean}_k \frac{p_0 e^{-E / T}}{q}(x_o, x_m^k) - \log Z,
        \quad x_m^k \sim q(x_m \mid x_o)

    with the base or, beside an energy, the mean density q of the base and a mixture refitted to
    draws of the model. The draws come from random numbers that are fixed, so that a row has one
    value, whatever the others are.

    Parameters
    ----------
    density : FittedDensity
        The joint density; its base must have components.

    Raises
    ------
    TypeError
        If the base has no conditional densities.
    """

    def __init__(self, density: FittedDensity) -> None:
        base = density.model.base
        if base is None:
            raise TypeError(
                "base must have conditional densities for rows with missing values, got None. Use "
                "'union', 'mixture', 'kernel' or 'gaussian'."
            )
        self.density, self.exact = density, isinstance(density.model.energy, Zero)
        self.proposal, self.refitted = _on_cpu(base.components()), None
        if not self.exact:
            self.refitted = self._mixture()
            self.proposal = self.proposal.beside(self.refitted.components())

    def _mixture(self) -> Base:
        """Return a mixture of draws of the model."""
        rng = torch.Generator(self.density.device).manual_seed(0)
        z, _ = self.density.draw_standardized(N_REFITTED, rng)
        component: BaseComponent = Mixture(max_components=MOST_COMPONENTS)
        base = self.density.model.base
        if isinstance(base, MixedBase):
            codes = base.components().codes
            assert codes is not None
            component = MixedMixture(component, codes.n_levels, codes.absent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataDegeneracyWarning)
            rng = torch.Generator().manual_seed(0)
            return component.fit(z.cpu().float(), None, rng).double()

    @own_settings()
    def observed(
        self, X: np.ndarray, *, completed: bool = False, n_draws: int = N_DRAWS
    ) -> Observed:
        """Return what is known of rows (n, d) with missing values, at least one in each."""
        size = max(1, BLOCK_VALUES // (n_draws * X.shape[1]))
        blocks = [X[i : i + size] for i in range(0, len(X), size)]
        parts = [self._observed(block, completed, n_draws) for block in blocks]
        found = Observed(*map(np.concatenate, zip(*(part[0] for part in parts), strict=True)))
        n_doubtful = sum(part[1] for part in parts)
        if n_doubtful > MUCH * len(X):
            _warn_of_weights(n_doubtful, len(X), n_draws)
        return found

    def _observed(self, X: np.ndarray, completed: bool, n_draws: int) -> tuple[Observed, int]:
        """Return what is known of a block, and how many rows rest on few completions."""
        z = torch.empty(len(X), n_draws, X.shape[1], dtype=torch.float64)
        log_density = np.empty(len(X))
        for rows, group in self._groups(X, n_draws):
            at = group.conditionals.log_prob(group.z_given)
            log_density[rows] = (at + group.log_slope).numpy()
            z[rows] = group.completed(*self._numbers(group, n_draws))
        log_w, log_p = self._weigh(z)
        some = ~np.isnan(X).all(1)  # of nothing the log density is 0
        stderr, n_doubtful = np.zeros(len(X)), 0
        if not self.exact:
            w = (log_w - log_w.amax(1, keepdim=True)).exp()
            mean, square = w.mean(1), w.square().mean(1)
            log_mean = (mean.log() + log_w.amax(1)).numpy() - self._log_z
            log_density[some] += log_mean[some]
            relative = w.var(1) / mean.square() / n_draws
            stderr[some] = (relative + self._log_z_stderr**2).sqrt().numpy()[some]
            n_doubtful = int((mean.square() / square < FEWEST_EFFECTIVE).sum())
        of_completions = np.full(len(X), np.nan)
        if completed:
            share = log_w.softmax(1).numpy()
            of_completions = (share * self._in_units_of_X(z, log_p)).sum(1)
        return Observed(log_density, stderr, of_completions), n_doubtful

    @own_settings()
    def draw(self, X: np.ndarray, n_samples: int, rng: torch.Generator | None) -> np.ndarray:
        """Return completions (n, n_samples, d) of rows (n, d), their values as they are.

        Without a generator a row has the same ones whatever the others are.
        """
        out = np.repeat(X[:, None], n_samples, axis=1)
        many = max(N_CANDIDATES, PER_DRAW * n_samples)
        n_candidates = n_samples if self.exact else many
        for rows, group in self._groups(X, n_candidates):
            n, fixed = (1 if rng is None else len(rows)), torch.Generator().manual_seed(0)
            numbers = self._random(n, int(group.hidden.sum()), n_candidates, rng or fixed)
            z = group.completed(*numbers)
            if not self.exact:
                share = self._weigh(z)[0].softmax(1).cumsum(1)
                u = torch.rand(n, n_samples, generator=rng or fixed, dtype=torch.float64)
                wanted = (u * share[:, -1:]).expand(len(rows), -1).contiguous()
                at = torch.searchsorted(share, wanted).clamp(max=n_candidates - 1)
                z = z.gather(1, at[:, :, None].expand(-1, -1, z.shape[2]))
            X_full = self.density.transform.inverse(z.flatten(0, 1)).reshape(z.shape)
            out[rows] = np.where(np.isnan(X[rows])[:, None], X_full, X[rows][:, None])
        return out

    @own_settings()
    def mean(self, X: np.ndarray, n_draws: int = N_FOR_MEANS) -> np.ndarray:
        """Return rows (n, d) with the means of what is missing, given the rest; of codes modes."""
        out = X.copy()
        for rows, group in self._groups(X, n_draws):
            z = group.completed(*self._numbers(group, n_draws))
            log_w, _ = self._weigh(z)
            X_full = self.density.transform.inverse(z.flatten(0, 1)).reshape(z.shape)
            means = self._means(X_full, log_w.softmax(1).numpy())
            out[rows] = np.where(np.isnan(X[rows]), means, X[rows])
        return out

    def _means(self, X: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return means (n, d) of completions (n, s, d) by their shares (n, s).

        Codes are the likeliest ones; a number that need not exist is the mean of what stands for it
        too, and exists.
        """
        transform = self.density.transform
        if not isinstance(transform, MixedTransform):
            return (share[:, :, None] * X).sum(1)
        whole = transform.with_atoms(X.reshape(-1, X.shape[2])).reshape(X.shape)
        means = (share[:, :, None] * whole).sum(1)
        beside = {j: a for _, j, a in transform.absent}
        for j in range(transform.n_numbers, X.shape[2]):
            if j - transform.n_numbers in beside:
                means[:, j] = beside[j - transform.n_numbers]
                continue
            levels = np.unique(X[:, :, j])
            votes = [(share * (X[:, :, j] == level)).sum(1) for level in levels]
            means[:, j] = levels[np.argmax(votes, axis=0)]
        return means

    @property
    def _log_z(self) -> float:
        found = self.density.log_partition
        return 0.0 if found is None else found.value

    @property
    def _log_z_stderr(self) -> float:
        found = self.density.log_partition
        return 0.0 if found is None else found.stderr

    def _groups(self, X: np.ndarray, n_draws: int) -> Iterator[tuple[np.ndarray, _Group]]:
        """Yield blocks of rows of one pattern of holes."""
        holes, transform = np.isnan(X), self.density.transform
        filled = np.where(holes, transform.inverse(torch.zeros(1, X.shape[1])), X)
        z = transform.forward(filled, dtype=torch.float64)
        slope = torch.from_numpy(np.where(holes, 0, transform.log_slope(filled)).sum(1))
        if isinstance(transform, MixedTransform):  # what does not exist is not given either
            holes = holes | transform.is_absent(X)
        patterns, at = np.unique(holes, axis=0, return_inverse=True)
        at = at.reshape(-1)
        size = max(1, BLOCK_VALUES // (n_draws * (X.shape[1] + len(self.proposal.means))))
        for i, pattern in enumerate(patterns):
            conditionals = Conditionals(self.proposal, torch.from_numpy(pattern))
            rows = np.flatnonzero(at == i)
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                yield some, _Group(conditionals, z[some][:, conditionals.given], slope[some])

    def _numbers(self, group: _Group, n: int) -> tuple[torch.Tensor, ...]:
        """Return the same random numbers for every row of a pattern."""
        return self._random(1, int(group.hidden.sum()), n, torch.Generator().manual_seed(0))

    def _random(self, n: int, d: int, s: int, rng: torch.Generator) -> tuple[torch.Tensor, ...]:
        u = torch.rand(n, s, generator=rng, dtype=torch.float64)
        z = torch.empty(n, s, d, dtype=torch.float64).normal_(generator=rng)
        g = torch.empty(n, s, d, TAIL_DOF, dtype=torch.float64).normal_(generator=rng)
        return u, z, g.square().sum(3)

    def _weigh(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log weights (n, s) of completions (n, s, d), and log p Z in their space."""
        rows, (model, device) = z.flatten(0, 1), self.density.doubled()
        assert model.base is not None  # as `__init__` saw
        with torch.no_grad():
            base = model.base.log_prob(rows.to(device)).cpu()
            if self.refitted is None:
                return torch.zeros(z.shape[:2]).double(), base.view(z.shape[:2])
            log_p = base - (model.energy(rows.to(device)) / model.temperature).cpu()
            log_q = torch.logaddexp(base, self.refitted.log_prob(rows)) - math.log(2)
        return (log_p - log_q).view(z.shape[:2]), log_p.view(z.shape[:2])

    def _in_units_of_X(self, z: torch.Tensor, log_p: torch.Tensor) -> np.ndarray:
        """Return the log densities (n, s) of completions (n, s, d) in the units of X, nats."""
        X = self.density.transform.inverse(z.flatten(0, 1))
        slope = np.broadcast_to(self.density.transform.forward_and_log_slope(X)[1], len(X))
        return log_p.numpy() - self._log_z + slope.reshape(log_p.shape)


class _Group(NamedTuple):
    """Rows with the same holes, in standardized space."""

    conditionals: Conditionals
    z_given: torch.Tensor
    log_slope: torch.Tensor

    @property
    def hidden(self) -> torch.Tensor:
        """Which columns are, (d,)."""
        return self.conditionals.hidden

    def completed(self, u: torch.Tensor, z: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Return completions (n, s, d)."""
        hidden = self.conditionals.draw(self.z_given, u, z, g)
        out = hidden.new_empty(*hidden.shape[:2], len(self.hidden))
        out[:, :, self.hidden] = hidden
        out[:, :, self.conditionals.given] = self.z_given[:, None].expand(-1, hidden.shape[1], -1)
        return out


def _on_cpu(components: Components) -> Components:
    tails = components.tails
    if tails is not None:
        tails = type(tails)(*(t.cpu() for t in tails))
    weights, means, factors = components.log_weights, components.means, components.factors
    return Components(weights.cpu(), means.cpu(), factors.cpu(), tails, components.codes)


def _warn_of_weights(n_doubtful: int, n: int, n_draws: int) -> None:
    warn(
        f"log densities of {n_doubtful} of {n} rows with missing values rest on fewer than "
        f"{math.ceil(FEWEST_EFFECTIVE * n_draws)} of {n_draws} completions: their errors may be "
        "larger than a nat. Use a base that is nearer to the model, 'union' say.",
        NormalizationWarning,
    )
