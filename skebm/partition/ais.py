"""Annealed importance sampling with Metropolis-adjusted transitions and an adaptive ladder."""

from __future__ import annotations

__all__ = ["AIS", "Path", "climb", "increment"]

from typing import NamedTuple

import torch
from tqdm import tqdm

from skebm._components import check_number
from skebm.bases import Base
from skebm.energies import Model
from skebm.partition._base import LogPartition, PartitionMethod, from_log_weights
from skebm.samplers import MALA, MetropolisState, Target
from skebm.samplers._metropolis import robbins_monro

GAIN = 1.2  # factor in effective sample size that a finer ladder has to bring
STEPS = torch.logspace(-5, 0, 61)  # candidate increments of the inverse temperature


class Ladder(NamedTuple):
    """Inverse temperatures and the log step size of the transition at each."""

    betas: list[float]
    log_steps: list[torch.Tensor]


class Annealed(NamedTuple):
    """An estimate and what it was made from."""

    result: LogPartition
    ladder: Ladder
    x: torch.Tensor  # (n, d) ends of the chains
    log_weight: torch.Tensor  # (n,)


class Path(NamedTuple):
    """Potentials between the proposal (beta = 0) and the model (beta = 1)."""

    model: Model
    proposal: Base

    def at(self, beta: float) -> Target:
        """Return x -> (U_beta, score) with U_beta = (1 - beta) U_0 + beta U."""

        def target(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            log_q, score_q = self.proposal.log_prob_and_score(x)
            if self.model.base is self.proposal:
                plain = self.model._replace(base=None)
                energy, score = plain.potential_and_score(x)
                return beta * energy - log_q, beta * score + score_q
            energy, score = self.model.potential_and_score(x)
            return beta * energy - (1 - beta) * log_q, beta * score + (1 - beta) * score_q

        return target

    def difference(self, x: torch.Tensor) -> torch.Tensor:
        """Return U(x) - U_0(x), shape (n,), nats."""
        if self.model.base is self.proposal:
            return self.model._replace(base=None).potential(x)
        return self.model.potential(x) + self.proposal.log_prob(x)


class AIS(PartitionMethod):
    r"""Annealed importance sampling from the proposal to the model.

    Chains start at proposal draws and pass through :math:`U_\beta = (1 - \beta) U_0 + \beta U`;
    their weights are :math:`\log w = -\sum_k (\beta_{k+1} - \beta_k) (U - U_0)(x_k)`, and
    :math:`\log Z = \log E[w]`.

    Parameters
    ----------
    n_chains : int, default=1024
        Independent chains.
    n_steps : int, default=2
        Transitions per temperature.
    max_spread : float, default=0.02
        A ladder step may lose this share of the effective sample size (dimensionless); smaller
        makes a finer ladder.
    min_ess : float, default=0.3
        Share of the chains that the effective sample size has to reach; the ladder is refined by
        4 in `max_spread`, at most three times, while it does not and refining helps.
    max_levels : int, default=4000
        Bound on the number of temperatures.
    verbose : bool, default=False
        Show a progress bar.

    Raises
    ------
    ValueError, TypeError
        From ``estimate``, on a bad parameter.

    Notes
    -----
    A pilot of a quarter of the chains chooses temperatures and step sizes; the main run is
    independent of it and uses them frozen, so its weights are independent and unbiased for Z. Cost:
    ``n_chains * levels * (n_steps + 1.5)`` gradient evaluations, 1.25 times with the pilot.

    References
    ----------
    .. [1] R. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001. Section 2.

    Examples
    --------
    >>> from skebm.partition import AIS
    >>> AIS(n_chains=512)
    AIS(n_chains=512)
    """

    def __init__(
        self,
        n_chains: int = 1024,
        n_steps: int = 2,
        max_spread: float = 0.02,
        min_ess: float = 0.3,
        max_levels: int = 4000,
        verbose: bool = False,
    ) -> None:
        self.n_chains = n_chains
        self.n_steps = n_steps
        self.max_spread = max_spread
        self.min_ess = min_ess
        self.max_levels = max_levels
        self.verbose = verbose

    def estimate(self, model: Model, proposal: Base, rng: torch.Generator) -> LogPartition:
        """Estimate log Z; see the class."""
        check_number("n_chains", self.n_chains, low=8, integer=True)
        check_number("n_steps", self.n_steps, low=1, integer=True)
        check_number("max_levels", self.max_levels, low=1, integer=True)
        check_number("max_spread", self.max_spread, low=0, high=0.5, open_low=True)
        check_number("min_ess", self.min_ess, low=0, high=1)
        return self.anneal(model, proposal, rng).result

    def anneal(self, model: Model, proposal: Base, rng: torch.Generator) -> Annealed:
        """Run and keep the ladder and the chains' ends, for who wants to come back down."""
        path, spread = Path(model, proposal), self.max_spread
        best = self._attempt(path, spread, rng)
        for _ in range(3):
            full = len(best.ladder.betas) >= self.max_levels
            if best.result.ess >= self.min_ess * self.n_chains or full:
                break
            spread /= 4
            finer = self._attempt(path, spread, rng)
            gained = finer.result.ess > GAIN * best.result.ess
            best = finer if finer.result.ess > best.result.ess else best
            if not gained:  # finer temperatures do not help: chains do not mix
                break
        return best

    def _attempt(self, path: Path, spread: float, rng: torch.Generator) -> Annealed:
        ladder = self._pilot(path, spread, rng)
        x = path.proposal.sample(self.n_chains, rng)
        x, log_weight = climb(path, ladder, x, self.n_steps, rng, verbose=self.verbose)
        return Annealed(from_log_weights(log_weight, "ais"), ladder, x, log_weight)

    @torch.no_grad()
    def _pilot(self, path: Path, spread: float, rng: torch.Generator) -> Ladder:
        x = path.proposal.sample(max(self.n_chains // 4, 8), rng)
        sampler = MALA()
        log_step = torch.tensor(-2.3, device=x.device)
        beta = 0.0
        betas: list[float] = []
        log_steps: list[torch.Tensor] = []
        while beta < 1 and len(betas) < self.max_levels - 1:
            beta = min(1.0, beta + increment(path.difference(x), spread, 1 - beta))
            betas.append(beta)
            target = path.at(beta)
            state = sampler.init(target, x, log_step)
            for _ in range(self.n_steps):
                state, info = sampler.step(target, state, rng)
                log_step = robbins_monro(log_step, info.acceptance, 0.67, 0.5)
                state = state._replace(log_step=log_step)
            x = state.x
            log_steps.append(log_step)
        if beta < 1:
            betas.append(1.0)
            log_steps.append(log_step)
        return Ladder(betas, log_steps)


@torch.no_grad()
def climb(
    path: Path,
    ladder: Ladder,
    x: torch.Tensor,
    n_steps: int,
    rng: torch.Generator,
    *,
    down: bool = False,
    verbose: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move chains along the ladder; return their ends (n, d) and log weights (n,).

    Up, weights are taken before each rung's transitions; down, after them: the same chains in
    reverse.
    """
    sampler, log_weight = MALA(), x.new_zeros(len(x))
    rungs = list(zip([0.0, *ladder.betas], ladder.betas, ladder.log_steps, strict=False))
    bar = tqdm(rungs[::-1] if down else rungs, disable=not verbose, desc="AIS", leave=False)
    for below, above, log_step in bar:
        if not down:
            log_weight -= (above - below) * path.difference(x)
        target = path.at(above)
        state: MetropolisState = sampler.init(target, x, log_step)
        for _ in range(n_steps):
            state, _info = sampler.step(target, state, rng)
        x = state.x
        if down:
            log_weight -= (above - below) * path.difference(x)
    return x, log_weight


def increment(difference: torch.Tensor, spread: float, most: float) -> float:
    """Largest step whose incremental weights keep 1 - spread of the effective sample size."""
    steps = STEPS.to(difference.device) * most
    log_w = -steps[:, None] * difference[None]
    n = difference.shape[0]
    kept = (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp() / n
    good = torch.nonzero(kept >= 1 - spread).flatten()
    return float(steps[good[-1]]) if len(good) else float(steps[0])
