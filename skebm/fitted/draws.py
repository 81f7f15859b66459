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
import warnings
from typing import Any, NamedTuple

import torch

from skebm.bases import Base
from skebm.data import systematic_rows
from skebm.energies import Model, Zero
from skebm.exceptions import NormalizationWarning
from skebm.fitted.pack import Packable
from skebm.fitted.trained import Trained
from skebm.objectives import ChainStart
from skebm.partition._base import log_ratio
from skebm.samplers import MALA, Sampler, run

CANDIDATES_PER_SAMPLE = 8
FEWEST_CANDIDATES, MOST_CANDIDATES = 8192, 1 << 20
N_WARMUP, N_MOVES = 60, 60
BLOCK = 4096  # latents at a time


class SampleInfo(NamedTuple):
    """How the last ``sample`` went.

    Parameters
    ----------
    ess : float
        Effective number of base draws that the samples were chosen from.
    n_candidates : int
        Base draws made.
    acceptance : float
        Mean acceptance of the Metropolis-adjusted moves afterwards.

    Examples
    --------
    >>> from skebm.fitted import SampleInfo
    >>> SampleInfo(812.0, 8192, 0.6).ess
    812.0
    """

    ess: float
    n_candidates: int
    acceptance: float


UNKNOWN = SampleInfo(math.nan, 0, math.nan)


class Draws(Packable):
    """Draws of the proposal, resampled by their weights, then moved by steps that keep the model.

    Exact draws of the base where the model is its base. Subclasses draw in a way of their own where
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
        """Return the ends of n chains."""
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
    m = min(max(CANDIDATES_PER_SAMPLE * n, FEWEST_CANDIDATES), max(MOST_CANDIDATES, n))
    candidates = proposal.sample(m, rng)
    weight = torch.cat([log_ratio(model, proposal, b) for b in candidates.split(65536)])
    weight = weight.double().softmax(0)
    ess = float(1 / weight.square().sum())
    if ess < min(n, 0.01 * m):
        warnings.warn(
            f"sample chose {n} rows among {m} base draws worth {ess:.0f}: many rows start as "
            "copies. Use a base nearer to the data.",
            NormalizationWarning,
            stacklevel=5,
        )
    rows = systematic_rows(weight, n, rng)
    rows = rows[torch.randperm(n, generator=rng, device=rows.device)]
    ends, acceptance = _move(model, candidates[rows], rng)
    return ends, SampleInfo(ess, m, acceptance)


def _move(model: Model, x: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, float]:
    """Move chains by Metropolis-adjusted steps whose size is found first; acceptance too."""
    state, _ = run(MALA(0.05, n_warmup=N_WARMUP), model, x, N_WARMUP, rng)
    frozen = MALA(float(state.log_step.exp()))
    state, info = run(frozen, model, state.x, N_MOVES, rng)
    return state.x, float(info.acceptance)
