"""How a fitted density is drawn from."""

from __future__ import annotations

__all__ = [
    "UNKNOWN",
    "ByChains",
    "ByEnergy",
    "ByGenerator",
    "ByMoves",
    "Draws",
    "FromPoints",
    "SampleInfo",
    "settle",
]

import math
from typing import Any, NamedTuple

import torch

from skebm._warn import warn
from skebm.bases import Base
from skebm.data import systematic_rows
from skebm.energies import Model, Zero
from skebm.exceptions import ConvergenceError, NormalizationWarning
from skebm.fitted.annealed import CANDIDATES, AnnealedDraws, anneal
from skebm.fitted.pack import Packable
from skebm.fitted.trained import Trained
from skebm.objectives import ChainStart
from skebm.partition._base import from_log_weights, log_ratio
from skebm.samplers import MALA, Sampler, run

PER_ROW = (2, 4, 8, 16, 32, 64, 128)  # base draws to choose a row among: cheaper than to move it
NEGLIGIBLE = 0.005  # mass of rows that would be chosen twice: less than samples can show
FEWEST_EFFECTIVE = 100  # draws below which shares of modes are known to a tenth at best
FEWEST_CANDIDATES = 8192
FEWEST_ANNEALED, MOST_ANNEALED = 1024, 8192  # rows of a population
MOST_RESTARTS = 5  # of chains that flew apart
SLOW = 1.2  # R-hat above which chains are where they started
N_WARMUP, N_MOVES = 60, 60
BLOCK = 4096  # latents at a time
MOST_DRAWN = 2**17  # base draws that rows are chosen among at a time


class SampleInfo(NamedTuple):
    """How the last ``sample`` went.

    Parameters
    ----------
    ess : float
        Effective number of base draws that the samples were chosen from.
    n_candidates : int
        Base draws made.
    acceptance : float
        Mean acceptance of the Metropolis-adjusted moves afterwards; 1 where the weights called for
        none.
    rhat : float, default=nan
        Largest rank-normalized R-hat of those chains, over the columns and U; nan without moves.
        Modes that moves do not join keep it above 1.1: their masses then rest on the resampling.
    n_levels : int, default=0
        Temperatures between base and model at which draws were resampled; 0 where once was enough.

    Notes
    -----
    None of these numbers can tell of a mode that no base draw has met.

    Examples
    --------
    >>> from skebm.fitted import SampleInfo
    >>> SampleInfo(812.0, 8192, 0.6).ess
    812.0
    """

    ess: float
    n_candidates: int
    acceptance: float
    rhat: float = math.nan
    n_levels: int = 0


UNKNOWN = SampleInfo(math.nan, 0, math.nan)


class Draws(Packable):
    """Draws of the proposal, chosen by their weights, and annealed where those call for it.

    Exact draws of the base where the model is its base. Where weights are so even that hardly a
    draw is chosen twice, that is all. Else draws go through temperatures between the proposal and
    the model, resampled and moved at each, until chains at the model have forgotten their start.
    Subclasses draw in a way of their own where
    `by_weights` is False: where no proposal is near the model.

    Parameters
    ----------
    by_weights : bool, default=True
        Whether a proposal is near.

    Examples
    --------
    >>> from skebm.fitted import Draws
    >>> Draws().by_weights
    True
    """

    start = ChainStart()  # of chains that begin at noise

    def __init__(self, by_weights: bool = True) -> None:
        self.by_weights = by_weights

    def parts(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return dict(vars(self))

    def sample(
        self, model: Model, proposal: Base, n: int, rng: torch.Generator
    ) -> tuple[torch.Tensor, SampleInfo]:
        """Return n rows (n, d) of standardized space, and how it went."""
        if self.by_weights:
            return _by_weights(model, proposal, n, rng)
        return self.own(model, proposal, n, rng), UNKNOWN

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw in the subclass's own way."""
        raise NotImplementedError(f"{type(self).__name__} draws by weights alone.")


class ByMoves(Draws):
    """Draws of the proposal, moved by Metropolis-adjusted steps."""

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return the ends of n chains."""
        return settle(model, proposal.sample(n, rng), rng)


class ByChains(Draws):
    """Ends of chains that start at noise or in a bank and run as training ran them."""

    def __init__(
        self,
        sampler: Sampler,
        n_steps: int,
        start: ChainStart,
        bank: torch.Tensor | None = None,
        by_weights: bool = True,
    ) -> None:
        super().__init__(by_weights)
        self.sampler, self.n_steps, self.start, self.bank = sampler, n_steps, start, bank

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return the ends of n chains; those that flew apart are started anew."""
        x = self._ends(model, proposal, n, rng)
        for _ in range(MOST_RESTARTS):
            lost = ~x.flatten(1).isfinite().all(1)
            if not lost.any():
                return x
            x[lost] = self._ends(model, proposal, int(lost.sum()), rng)
        n_lost = int((~x.flatten(1).isfinite().all(1)).sum())
        if n_lost:
            raise ConvergenceError(
                f"{n_lost} of {n} chains of {self.sampler!r} are not finite after {self.n_steps} "
                f"steps, {MOST_RESTARTS} restarts included. Lower its step_size."
            )
        return x

    def _ends(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        if self.bank is None:
            starts = self.start.draw(model, (proposal.n_features,), n, rng)
        else:
            rows = torch.randint(len(self.bank), (n,), generator=rng, device=rng.device)
            starts = self.bank[rows]
        return run(self.sampler, model, starts, self.n_steps, rng)[0].x


class ByEnergy(Draws):
    """Exact draws, of an energy that knows how."""

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n independent rows."""
        return model.energy.sample(n, rng)  # type: ignore[operator]


class FromPoints(Draws):
    """Points that partition the support, drawn by their weights: chains would leave their box."""

    def __init__(
        self, points: torch.Tensor, weights: torch.Tensor, by_weights: bool = True
    ) -> None:
        super().__init__(by_weights)
        self.points, self.weights = points, weights

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n of the points."""
        return self.points[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class ByGenerator(Draws):
    """One pass of a generator, whose density is near the model's but another."""

    def __init__(self, generator: Trained, noise: float, by_weights: bool = True) -> None:
        super().__init__(by_weights)
        self.generator, self.noise = generator, noise

    @property
    def latent_dim(self) -> int:
        """Length of the generator's latents."""
        return self.generator.sizes[0]

    def own(self, model: Model, proposal: Base, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n generated rows."""
        return self.generate(n, rng)

    @torch.no_grad()
    def generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n generated rows (n, d)."""
        z = torch.empty(n, self.latent_dim, device=rng.device).normal_(generator=rng)
        x = torch.cat([self.generator.network(block).flatten(1) for block in z.split(BLOCK)])
        if self.noise == 0:
            return x
        return x + self.noise * torch.empty_like(x).normal_(generator=rng)


def settle(model: Model, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return the ends of chains toward the model from rows x (n, d); lost ones stay there."""
    ends, _ = _move(model, x, rng)
    sound = ends.isfinite().all(1, keepdim=True)
    return torch.where(sound, ends, x)


def _by_weights(
    model: Model, proposal: Base, n: int, rng: torch.Generator
) -> tuple[torch.Tensor, SampleInfo]:
    if isinstance(model.energy, Zero) and model.base is not None:
        return model.base.sample(n, rng), SampleInfo(float(n), n, 1.0)
    first = proposal.sample(FEWEST_CANDIDATES, rng)
    log_weight = log_ratio(model, proposal, first).double().nan_to_num(nan=-math.inf)
    per_row = _candidates_per_row(log_weight, n)
    if per_row is None and not proposal.has_gradient:
        per_row = PER_ROW[-1]  # codes do not move
    if per_row is None:
        x, parts = _annealed(model, proposal, n, rng)
        ess = float(from_log_weights(log_weight, "importance").ess)
        return x, _reported(n, ess, parts)
    blocks = [_chosen(model, proposal, k, per_row, rng) for k in _sizes(n, MOST_DRAWN // per_row)]
    ess = sum(e for _, e in blocks)
    x = torch.cat([rows for rows, _ in blocks])
    return x, SampleInfo(ess, max(per_row * n, FEWEST_CANDIDATES), 1.0)


def _candidates_per_row(log_weight: torch.Tensor, n: int) -> int | None:
    """Return how many draws to choose a row among, for n rows; None where moves are called for.

    By the weights of a pilot: among c draws none is chosen twice but those of more than c times
    the mean weight, and they may have next to no mass. A tail that cannot be believed may have any.
    """
    result = from_log_weights(log_weight, "importance")
    share = (log_weight - result.value).exp()  # in units of the mean
    if not result.trusted or result.ess < FEWEST_EFFECTIVE:
        return None
    for per_row in [max(c, FEWEST_CANDIDATES // n) for c in PER_ROW]:
        if float((share - per_row).clamp(min=0).mean()) <= NEGLIGIBLE:
            return per_row
    return None


def _chosen(
    model: Model, proposal: Base, n: int, per_row: int, rng: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Return n draws of the proposal chosen by weight, in random order, and what they are worth."""
    m = max(per_row * n, FEWEST_CANDIDATES)
    x = proposal.sample(m, rng)
    log_weight = log_ratio(model, proposal, x).double().nan_to_num(nan=-math.inf)
    weight = log_weight.softmax(0)
    ess = float(1 / weight.square().sum())
    if proposal.has_gradient:  # else rows that do not move may come twice
        weight = weight.clamp(max=1 / n)
    rows = systematic_rows(weight, n, rng)
    return x[rows[torch.randperm(n, generator=rng, device=rows.device)]], ess


def _annealed(
    model: Model, proposal: Base, n: int, rng: torch.Generator
) -> tuple[torch.Tensor, list[AnnealedDraws]]:
    """Return n rows of populations of at most a block each, in random order."""
    sizes = [max(k, FEWEST_ANNEALED) for k in _sizes(n, MOST_ANNEALED)]
    parts = [anneal(model, proposal, k, rng) for k in sizes]
    x = torch.cat([part.x for part in parts])
    return x[torch.randperm(len(x), generator=rng, device=x.device)[:n]], parts


def _reported(n: int, ess: float, parts: list[AnnealedDraws]) -> SampleInfo:
    """Return how populations went, with a warning where neither weights nor chains can tell."""
    made = sum(CANDIDATES * len(part.x) for part in parts)
    worst = max(parts, key=lambda part: part.rhat)
    acceptance = sum(part.acceptance for part in parts) / len(parts)
    roots = sum(part.n_roots for part in parts)
    if not (worst.rhat < SLOW or roots >= min(n, FEWEST_EFFECTIVE)):
        warn(
            f"sample chose rows that descend from {roots:.0f} of {made} base draws, and its chains "
            f"did not forget their start (R-hat {worst.rhat:.2f}): rows may be near-copies, the "
            "shares of modes wrong. Use a base nearer to the data.",
            NormalizationWarning,
        )
    return SampleInfo(ess, made, acceptance, worst.rhat, worst.n_levels)


def _sizes(n: int, most: int) -> list[int]:
    """Return sizes of blocks of at most so many rows, which are n together, as even as can be."""
    k = -(-n // most)
    return [n // k + (i < n % k) for i in range(k)]


def _move(model: Model, x: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, float]:
    """Move chains by Metropolis-adjusted steps whose size is found first; acceptance too."""
    state, _ = run(MALA(0.05, n_warmup=N_WARMUP), model, x, N_WARMUP, rng)
    frozen = MALA(float(state.log_step.exp()))
    state, info = run(frozen, model, state.x, N_MOVES, rng)
    return state.x, float(info.acceptance)
