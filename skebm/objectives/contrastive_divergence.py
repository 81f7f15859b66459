"""Contrastive divergence from data, from noise, from a bank, and the hybrid."""

from __future__ import annotations

__all__ = ["ContrastiveDivergence"]

import math
from typing import Any, NamedTuple

import torch

from skebm._components import check_number
from skebm.energies import Model
from skebm.objectives._base import (
    EXPLODED,
    RESCUED_STEP,
    Draw,
    Objective,
    Optimization,
    State,
    descend,
)
from skebm.objectives.chain_start import ChainStart
from skebm.objectives.energy_step import EnergyStep
from skebm.samplers import MALA, SampleBank, Sampler, SamplerInfo, run
from skebm.samplers._metropolis import robbins_monro

GAIN = 0.1  # of the step-size adaptation, once per update: slow against a chain, fast against E


class Bracket(NamedTuple):
    """One difference of mean energies in the loss, and where its chains started."""

    name: str
    weight: float
    start: torch.Tensor


class ContrastiveDivergence(Objective):
    r"""Lower the energy of data, raise it where chains end.

    .. math::
        (\overline{E(x)} - \overline{E(x_{noise})})
        + \lambda\, (\overline{E(x)} - \overline{E(x_{cd})})

    with :math:`x_{cd}` chains started at the same minibatch and :math:`x_{noise}` chains started at
    noise. ``start="data"`` keeps the second bracket alone, ``"noise"`` the first, and
    ``"persistent"`` is the first with chains that go on from update to update.

    Parameters
    ----------
    start : ChainStart or {"hybrid", "data", "noise", "persistent"}, default="hybrid"
        Where chains start (the estimator's ``init``).
    cd_weight : float, default=25.0
        lambda (dimensionless): weight of the data-started bracket in ``"hybrid"``; larger favors
        the density near data, smaller favors generation from noise.
    sampler : Sampler, default=None
        None means ``MALA()``. Its `step_size` is stated for E.
    n_steps : int, default=10
        Chain length L per update.
    adapt_step : bool, default=True
        With a Metropolis test, move the step size after each update toward the sampler's
        `target_accept`; otherwise the sampler's own step stays.
    energy_step : EnergyStep, default=None
        Sets the step size from the energies of the data instead.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.
    noise : str or array-like of shape (m, d), default=None
        What noise is where `start` is a name, see `ChainStart`; None means ``"auto"``.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    Means are taken over rows; the paper's printed sums without 1/N are a typo. The factor 1/T of
    the likelihood gradient is left out, as in the paper. Negatives carry no gradient. Both chains
    run in one batch: L gradients of 1.25 times the batch for ``"hybrid"``. Step sizes multiply the
    gradient of E, as in HCD Eq. 9, and chains sample exp(-E/T) p0. The history holds mean, standard
    deviation over rows and signal-to-noise ratio of each bracket, and the mean norm of the gradient
    of U where chains end (``force``). A chain that ends at a value that is not finite, or a million
    nats away, is left out of the means and starts from noise in the bank; ``lost_chains`` is their
    share. Where all of a bracket are lost training goes back to its best snapshot, with a smaller
    step of the sampler. Held-out likelihood comes from importance weights of the
    base, or without a base of a mixture fitted to the data; above 32 columns without a base there
    is none.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 6.
    .. [2] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Alg. 1.

    Examples
    --------
    >>> from skebm.objectives import ContrastiveDivergence
    >>> ContrastiveDivergence(cd_weight=10.0)
    ContrastiveDivergence(cd_weight=10.0)
    """

    def __init__(
        self,
        start: ChainStart | str = "hybrid",
        cd_weight: float = 25.0,
        sampler: Sampler | None = None,
        n_steps: int = 10,
        adapt_step: bool = True,
        energy_step: EnergyStep | None = None,
        optimization: Optimization | None = None,
        noise: Any = None,
    ) -> None:
        self.start = start
        self.cd_weight = cd_weight
        self.sampler = sampler
        self.n_steps = n_steps
        self.adapt_step = adapt_step
        self.energy_step = energy_step
        self.optimization = optimization
        self.noise = noise

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer, the step size and the bank."""
        self._check(model)
        optimizer = (self.optimization or Optimization()).build(model.energy)
        sampler = self._sampler().for_energy(model.temperature)
        log_step = torch.tensor(float(sampler.step_size), device=x.device).log()
        buffers = {"log_step": log_step, "mean_energy": torch.zeros((), device=x.device)}
        buffers["step_factor"] = torch.ones((), device=x.device)
        if self._start().scheme == "persistent":
            buffers["bank"] = self._new_bank(model, x, rng)
        return State({"energy": optimizer}, {}, buffers)

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Run the chains, then take one step on the brackets."""
        x = draw()
        rows, brackets = self._brackets(model, state, x, rng)
        state = self._set_step(model, state, x)
        starts = torch.cat([bracket.start for bracket in brackets])
        ends, info = self._run_chains(model, state, starts, rng)
        sound = self._sound(model, ends, info)
        if rows is not None:
            self._keep(model, state, rows, ends, sound, rng)
        ends = _instead(ends, sound, x)
        sizes = [len(bracket.start) for bracket in brackets]
        data, *lows = model.energy(torch.cat([x, ends])).split([len(x), *sizes])
        parts = list(zip(brackets, lows, sound.split(sizes), strict=True))
        terms = [b.weight * _difference(data, low, kept) for b, low, kept in parts]
        loss = torch.stack(terms).sum()
        row = {"acceptance": info.acceptance.clone(), "step_size": info.step_size}
        descend(state.optimizers["energy"], loss, beside=[info.acceptance])
        state = self._adapt(state, info.acceptance)
        row |= {"loss": loss.detach(), "data_energy": data.detach().mean()}
        row["force"] = _mean(info.score.flatten(1).norm(dim=1), sound)
        row["lost_chains"] = 1 - sound.to(x.dtype).mean()
        for bracket, low, kept in parts:
            row |= _statistics(bracket.name, data.detach(), low.detach(), kept)
        return state, row

    def recover(self, model: Model, state: State, x: torch.Tensor, rng: torch.Generator) -> State:
        """Forget moments and bank, which may have followed a broken energy; lower the step."""
        state = super().recover(model, state, x, rng)
        fresh = {"mean_energy": torch.zeros((), device=x.device)}
        fresh["log_step"] = state.buffers["log_step"] + math.log(RESCUED_STEP)
        if not fresh["log_step"].isfinite():
            sampler = self._sampler().for_energy(model.temperature)
            step = float(sampler.step_size) * _factor(state)
            fresh["log_step"] = torch.tensor(step, device=x.device).log()
        if "bank" in state.buffers:
            fresh["bank"] = self._new_bank(model, x, rng)
        return state._replace(buffers={**state.buffers, **fresh})

    def current_sampler(self, model: Model, state: State) -> Sampler:
        """Return the sampler of U with the step size that training has come to."""
        sampler = self._sampler().for_energy(model.temperature)
        return sampler.with_params(step_size=float(state.buffers["log_step"].exp()))

    def _check(self, model: Model) -> None:
        if self.noise is not None and isinstance(self.start, ChainStart):
            raise ValueError(
                f"noise must be None beside a ChainStart, got {self.noise!r}. Give it to that."
            )
        self._start().check(model)
        check_number("cd_weight", self.cd_weight, low=0)
        check_number("n_steps", self.n_steps, low=0, integer=True)
        if self.energy_step is not None:
            self.energy_step.check()
        check_number("step_size", self._sampler().step_size, low=0, open_low=True)

    def _start(self) -> ChainStart:
        if isinstance(self.start, ChainStart):
            return self.start
        return ChainStart(self.start, "auto" if self.noise is None else self.noise)

    def _bank(self) -> SampleBank:
        return self._start().bank or SampleBank()

    def _sampler(self) -> Sampler:
        sampler = MALA() if self.sampler is None else self.sampler
        if not isinstance(sampler, Sampler) or sampler.step_size is None:
            raise TypeError(f"sampler must be a Sampler with a step_size, got {sampler!r}.")
        return sampler

    def _new_bank(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        start = self._start()
        return self._bank().init(lambda n: start.draw(model, tuple(x.shape[1:]), n, rng).to(x))

    def _brackets(
        self, model: Model, state: State, x: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor | None, list[Bracket]]:
        """Return the brackets of Eq. 6 and, for persistent chains, their rows in the bank."""
        start = self._start()

        def noise(n: int) -> torch.Tensor:
            return start.draw(model, tuple(x.shape[1:]), n, rng).to(x)

        if start.scheme == "persistent":
            rows, starts = self._bank().draw(state.buffers["bank"], len(x), noise, rng)
            return rows, [Bracket("bank", 1.0, starts)]
        brackets = []
        if start.scheme != "data":
            n = len(x) if start.scheme == "noise" else max(2, round(start.noise_share * len(x)))
            brackets.append(Bracket("noise", 1.0, noise(n)))
        if start.scheme != "noise":
            brackets.append(Bracket("cd", self.cd_weight if start.scheme == "hybrid" else 1.0, x))
        return None, brackets

    def _set_step(self, model: Model, state: State, x: torch.Tensor) -> State:
        """Choose the step size by the energies of the data (HCD section 3)."""
        if self.energy_step is None:
            return state
        with torch.no_grad():
            step, mean = self.energy_step(model.energy(x), state.buffers["mean_energy"])
        step = step * _factor(state)
        sampler = self._sampler().with_params(step_size=step).for_energy(model.temperature)
        log_step = torch.as_tensor(sampler.step_size).log()
        return state._replace(buffers={**state.buffers, "log_step": log_step, "mean_energy": mean})

    def _run_chains(
        self, model: Model, state: State, starts: torch.Tensor, rng: torch.Generator
    ) -> tuple[torch.Tensor, SamplerInfo]:
        sampler: Any = self._sampler()
        at_start = None
        if sampler.metropolis:
            at_start = sampler.init(model, starts, state.buffers["log_step"])
        elif self.energy_step is not None:
            sampler = self.current_sampler(model, state)
        else:
            sampler = sampler.for_energy(model.temperature)
            sampler = sampler.with_params(step_size=sampler.step_size * _factor(state))
        chains, info = run(sampler, model, starts, self.n_steps, rng, state=at_start)
        return chains.x, info

    def _adapt(self, state: State, acceptance: torch.Tensor) -> State:
        """Move the step of chains with a Metropolis test towards the acceptance that suits it."""
        sampler: Any = self._sampler()
        adapts = self.adapt_step and self.energy_step is None and self.n_steps > 0
        if not (sampler.metropolis and adapts):
            return state
        log_step = robbins_monro(state.buffers["log_step"], acceptance, sampler.target_accept, GAIN)
        return state._replace(buffers={**state.buffers, "log_step": log_step})

    @torch.no_grad()
    def _sound(self, model: Model, ends: torch.Tensor, info: SamplerInfo) -> torch.Tensor:
        """Return which chains (n,) ended where a model of standardized rows can have mass."""
        tested = self._sampler().metropolis or self.n_steps == 0
        potential = info.energy if tested else model.potential(ends)  # else it is that before
        return ends.flatten(1).isfinite().all(1) & (potential.abs() < EXPLODED)

    def _keep(
        self,
        model: Model,
        state: State,
        rows: torch.Tensor,
        ends: torch.Tensor,
        sound: torch.Tensor,
        rng: torch.Generator,
    ) -> None:
        """Write the chains into the bank, in place of lost ones fresh starts."""
        if not sound.all():
            noise = self._start().draw(model, tuple(ends.shape[1:]), len(ends), rng).to(ends)
            ends = torch.where(_like_rows(sound, ends), ends, noise)
        self._bank().write(state.buffers["bank"], rows, ends)


def _factor(state: State) -> float:
    """Return what rescues have made of the sampler's step; files of before know none."""
    return float(state.buffers.get("step_factor", 1.0))


def _like_rows(flags: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return flags.view(-1, *[1] * (x.dim() - 1))


def _instead(ends: torch.Tensor, sound: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the ends with rows of data in place of lost chains, whose energy has no gradient."""
    stand_ins = x[torch.arange(len(ends), device=x.device) % len(x)]
    return torch.where(_like_rows(sound, ends), ends, stand_ins)


def _mean(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the mean of those values (n,) that are kept, nan where none is."""
    return torch.where(kept, values, 0.0).sum() / kept.sum()


def _difference(data: torch.Tensor, low: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return a bracket, 0 where no chain is kept."""
    share = kept.to(low) / kept.sum().clamp(min=1)
    return (data.mean() - (share * low).sum()) * kept.any()


def _statistics(
    name: str, data: torch.Tensor, ends: torch.Tensor, kept: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Mean, standard deviation over rows and signal-to-noise ratio of a bracket.

    Rows are paired where chains started at the data, independent elsewhere. nan without a chain.
    """
    mean = data.mean() - _mean(ends, kept)
    values = data - ends if name == "cd" else ends
    variance = _mean((values - _mean(values, kept)).square(), kept)
    std = (variance if name == "cd" else data.var(correction=0) + variance).sqrt()
    return {
        f"{name}_bracket": mean,
        f"{name}_bracket_std": std,
        f"{name}_bracket_snr": mean.abs() / std.clamp(min=1e-30),
    }
