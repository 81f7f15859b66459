"""Contrastive divergence from data, from noise, and their hybrid."""

from __future__ import annotations

__all__ = ["ContrastiveDivergence"]

import torch

from skebm._components import check_choice, check_number
from skebm.energies import Model
from skebm.objectives._base import Draw, Objective, Optimization, State, descend
from skebm.objectives._held_out import HeldOut, held_out_likelihood, reference_draws
from skebm.samplers import MALA, Langevin, Sampler, SamplerInfo, run
from skebm.samplers.mala import robbins_monro

STARTS = ("data", "noise", "hybrid")
GAIN = 0.1  # of the step-size adaptation, once per update: slow against a chain, fast against E


class ContrastiveDivergence(Objective):
    r"""Lower the energy of data, raise it where short chains end.

    .. math::
        (\overline{E(x)} - \overline{E(x_{noise})})
        + \lambda\, (\overline{E(x)} - \overline{E(x_{cd})})

    with :math:`x_{cd}` chains started at the same minibatch and :math:`x_{noise}` chains started at
    noise. ``start="data"`` keeps the second bracket alone, ``"noise"`` the first.

    Parameters
    ----------
    start : {"hybrid", "data", "noise"}, default="hybrid"
        Where chains start (the estimator's ``init``).
    cd_weight : float, default=25.0
        lambda (dimensionless): weight of the data-started bracket in ``"hybrid"``; larger favors
        the density near data, smaller favors generation from noise.
    sampler : Sampler, default=None
        None means ``MALA()``.
    n_steps : int, default=10
        Chain length L per update.
    noise_share : float, default=0.25
        With ``start="hybrid"``, chains from noise per row of the batch (dimensionless): their
        bracket has the weight 1 against lambda, so fewer of them do.
    adapt_step : bool, default=True
        With MALA, move the step size after each update toward the sampler's `target_accept`;
        otherwise the sampler's own step stays.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    Noise is a draw from the base where there is one, and from N(0, I) in standardized space
    otherwise (the paper's case). Means are taken over rows; the paper's printed sums without 1/N
    are a typo. Negatives carry no gradient. Both chains run in one batch: L gradients of 1.25
    times the batch for ``"hybrid"``. Step sizes multiply the gradient of E, as in HCD Eq. 9, and
    chains sample exp(-E/T) p0. The history holds mean, standard deviation over rows and
    signal-to-noise ratio of each bracket.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 6.

    Examples
    --------
    >>> from skebm.objectives import ContrastiveDivergence
    >>> ContrastiveDivergence(cd_weight=10.0)
    ContrastiveDivergence(cd_weight=10.0)
    """

    def __init__(
        self,
        start: str = "hybrid",
        cd_weight: float = 25.0,
        sampler: Sampler | None = None,
        n_steps: int = 10,
        noise_share: float = 0.25,
        adapt_step: bool = True,
        optimization: Optimization | None = None,
    ) -> None:
        self.start = start
        self.cd_weight = cd_weight
        self.sampler = sampler
        self.n_steps = n_steps
        self.noise_share = noise_share
        self.adapt_step = adapt_step
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, generator: torch.Generator) -> State:
        """Make the optimizer, the reference draws and the step size."""
        check_choice("init", self.start, STARTS)
        check_number("cd_weight", self.cd_weight, low=0)
        check_number("n_steps", self.n_steps, low=0, integer=True)
        check_number("noise_share", self.noise_share, low=0, high=1, open_low=True)
        optimizer = (self.optimization or Optimization()).build(model.energy)
        buffers = reference_draws(model, x, generator)
        start = self._sampler(model).step_size
        check_number("step_size", start, low=0, open_low=True)
        buffers["log_step"] = torch.tensor(float(start), device=x.device).log()
        return State({"energy": optimizer}, {}, buffers)

    def step(
        self, model: Model, state: State, draw: Draw, generator: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Run the chains, then take one step on the brackets."""
        x = draw()
        starts = self._starts(model, x, generator)
        ends, info, state = self._run_chains(model, state, torch.cat(starts), generator)
        sizes = [len(x), *(len(start) for start in starts)]
        energy = model.energy(torch.cat([x, ends])).split(sizes)
        brackets = self._brackets(energy)
        loss = torch.stack([w * (high.mean() - low.mean()) for _, w, high, low in brackets]).sum()
        descend(state.optimizers["energy"], loss)
        row = {"loss": loss.detach(), "data_energy": energy[0].detach().mean()}
        row |= {"acceptance": info.acceptance, "step_size": info.step_size}
        for name, _, high, low in brackets:
            row |= _statistics(name, high.detach(), low.detach())
        return state, row

    def validate(
        self, model: Model, state: State, batch: torch.Tensor, generator: torch.Generator
    ) -> HeldOut:
        """Held-out log likelihood by importance weights from the base."""
        return held_out_likelihood(model, state.buffers, batch)

    def _sampler(self, model: Model) -> Sampler:
        """Return the sampler of U for a step size that is stated for E (HCD Eq. 9)."""
        sampler = MALA() if self.sampler is None else self.sampler
        if not isinstance(sampler, MALA | Langevin):
            raise TypeError(f"sampler must be a MALA or Langevin instance, got {sampler!r}.")
        if model.temperature == 1:
            return sampler
        scaled = sampler.step_size * model.temperature
        return type(sampler)(**{**sampler.get_params(deep=False), "step_size": scaled})

    def _starts(
        self, model: Model, x: torch.Tensor, generator: torch.Generator
    ) -> list[torch.Tensor]:
        starts = []
        if self.start != "data":
            n = len(x) if self.start == "noise" else max(2, round(self.noise_share * len(x)))
            noise = torch.empty_like(x[:n]).normal_(generator=generator)
            starts.append(noise if model.base is None else model.base.sample(n, generator))
        if self.start != "noise":
            starts.append(x)
        return starts

    def _run_chains(
        self, model: Model, state: State, starts: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, SamplerInfo, State]:
        sampler, target, at_start = self._sampler(model), model.potential_and_score, None
        if isinstance(sampler, MALA):
            at_start = sampler.init(target, starts, state.buffers["log_step"])
        chains, info = run(sampler, target, starts, self.n_steps, generator, state=at_start)
        if isinstance(sampler, MALA) and self.adapt_step and self.n_steps:
            log_step = robbins_monro(
                state.buffers["log_step"], info.acceptance, sampler.target_accept, GAIN
            )
            state = state._replace(buffers={**state.buffers, "log_step": log_step})
        return chains.x, info, state

    def _brackets(self, energy: tuple[torch.Tensor, ...]) -> list[tuple]:
        """Return (name, weight, energy at data, energy at chain ends) per bracket of Eq. 6."""
        brackets = []
        if self.start != "data":
            brackets.append(("noise", 1.0, energy[0], energy[1]))
        if self.start != "noise":
            weight = self.cd_weight if self.start == "hybrid" else 1.0
            brackets.append(("cd", weight, energy[0], energy[-1]))
        return brackets


def _statistics(name: str, data: torch.Tensor, ends: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean, standard deviation over rows and signal-to-noise ratio of a bracket.

    Rows are paired where chains started at the data, independent where they started at noise.
    """
    mean = data.mean() - ends.mean()
    if name == "cd":
        std = (data - ends).std(correction=0)
    else:
        std = (data.var(correction=0) + ends.var(correction=0)).sqrt()
    return {
        f"{name}_bracket": mean,
        f"{name}_bracket_std": std,
        f"{name}_bracket_snr": mean.abs() / std.clamp(min=1e-30),
    }
