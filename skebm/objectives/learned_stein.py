"""Minimize a Stein discrepancy that a critic learns beside the model."""

from __future__ import annotations

__all__ = ["LearnedStein"]

import math

import torch

from skebm._components import check_number
from skebm.energies import Model, as_energy
from skebm.networks import Critic, CriticNetwork
from skebm.objectives._base import (
    Draw,
    HeldOut,
    Likelihood,
    Objective,
    Optimization,
    State,
    descend,
)
from skebm.objectives.score_matching import ScoreMatching, kink_in
from skebm.objectives.tied_critic import TiedCritic, TiedNetwork

MOST_EXACT = 32  # columns up to which the held-out discrepancy takes the exact curvature
N_PROBES = 16
JUDGED_AT_ONCE = 2048


class LearnedStein(Objective):
    r"""Alternate a critic that maximizes and a model that minimizes the Stein discrepancy.

    The critic maximizes :math:`\mathrm{mean}[s(x) \cdot f(x) + \nabla \cdot f(x)] - \lambda\,
    \mathrm{mean} |f(x)|^2` on rows x, with s the score of the model; the model minimizes
    :math:`\mathrm{mean}\, s(x) \cdot f(x)`.

    Parameters
    ----------
    critic : Critic or TiedCritic, default=None
        The critic, with its learning rate and the trace that it trains with; None means two hidden
        layers of 300 with swish. In many columns a `TiedCritic` sees what a perceptron does not.
    critic_steps : int, default=5
        C: updates of the critic per update of the model.
    l2 : float, default=0.5
        Lambda: penalty on the critic's squared norm; larger makes critic and steps smaller.
    energy_l2 : float, default=0.0
        Penalty on the mean squared energy in the model's update (0.001 in the released code for
        images).
    max_norm : float, default=10.0
        Gradients are scaled down to at most this Euclidean norm.
    optimization : Optimization, default=None
        Of energy and critic; None means the defaults. The critic may have a learning rate of its
        own.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    No chain and no normalizer. One update takes C score evaluations and critic updates, and one
    directional derivative of the energy: its trace term does not depend on the model and is left
    out. The energy should be smooth: where its gradient jumps, the model's update has no share of
    a jump that moves, and linear ICA with Laplace sources does not learn its rotation.

    ``judge`` judges by the discrepancy that the best critic would find on held-out rows,
    :math:`\mathrm{mean} |s - s_p|^2 / (2 \lambda)` (Eq. 9), up to a constant: integration by parts
    turns it into the loss of score matching, which needs no critic. It takes one pass of second
    derivatives per column (16 random probes above 32 columns). Where the energy is not smooth, it
    is the critic's own penalized discrepancy. Neither sees the relative weights of separated modes.

    The history holds the discrepancy on training batches (``discrepancy``), the critic's mean
    squared norm (``critic_norm``), the standard deviation of Stein values (``stein_sd``),
    ``data_energy``, and ``validation``: minus the held-out discrepancy.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Eqs. 6-11, Alg. 3, appendix B.4.

    Examples
    --------
    >>> from skebm.objectives import LearnedStein
    >>> LearnedStein(critic_steps=1)
    LearnedStein(critic_steps=1)
    """

    def __init__(
        self,
        critic: Critic | TiedCritic | None = None,
        critic_steps: int = 5,
        l2: float = 0.5,
        energy_l2: float = 0.0,
        max_norm: float = 10.0,
        optimization: Optimization | None = None,
    ) -> None:
        self.critic = critic
        self.critic_steps = critic_steps
        self.l2 = l2
        self.energy_l2 = energy_l2
        self.max_norm = max_norm
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the critic and both optimizers."""
        check_number("critic_steps", self.critic_steps, low=1, integer=True)
        check_number("l2", self.l2, low=0, open_low=True)
        check_number("energy_l2", self.energy_l2, low=0)
        check_number("max_norm", self.max_norm, low=0, open_low=True)
        optimization, settings = self.optimization or Optimization(), self.critic or Critic()
        critic: CriticNetwork | TiedNetwork
        if isinstance(settings, TiedCritic):
            critic = settings.build(model, self.l2)
        else:
            critic = settings.build(x.shape[1], rng).to(x.device)
        rate = settings.learning_rate
        own = optimization if rate is None else optimization.with_params(learning_rate=rate)
        optimizers = {"energy": optimization.build(model.energy), "critic": own.build(critic)}
        return State(optimizers, {"critic": critic}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Alg. 3: C steps of the critic, then one of the model."""
        critic = _critic(state, model)
        batches = [draw() for _ in range(self.critic_steps)]
        score = model.potential_and_score(torch.cat(batches))[1]  # the model waits for the critic
        for rows, s in zip(batches, score.split([len(b) for b in batches]), strict=True):
            stein, norm = self._improve(critic, state, rows, s, rng)
        x = draw()
        with torch.no_grad():
            direction = critic(x)
        loss = (
            -as_energy(model.energy).directional_derivative(x, direction).mean() / model.temperature
        )
        energy = model.energy(x) if self.energy_l2 else model.energy(x).detach()
        loss = loss + self.energy_l2 * energy.square().mean()
        descend(state.optimizers["energy"], loss, self.max_norm)
        return state, {
            "discrepancy": stein.mean(),
            "stein_sd": stein.std(),
            "critic_norm": norm,
            "data_energy": energy.detach().mean() / model.temperature,
        }

    def judge(
        self, model: Model, state: State, rows: torch.Tensor, likelihood: Likelihood
    ) -> HeldOut | None:
        """Minus the held-out discrepancy up to a constant; the gain is that in log likelihood."""
        if kink_in(model.energy) is None:
            value = -_fisher_loss(model, rows) / self.l2
        else:
            value = -self._penalized(_critic(state, model), model, rows)
        held_out = likelihood()
        if held_out is None or not math.isfinite(held_out.gain):
            return HeldOut(value, math.nan, math.nan, 0.0)
        return held_out._replace(value=value)

    def _improve(
        self,
        critic: CriticNetwork | TiedNetwork,
        state: State,
        x: torch.Tensor,
        score: torch.Tensor,
        rng: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step of a critic; return the Stein values (n,) and the mean squared norm."""
        value, divergence = critic.value_and_divergence(x, rng)
        stein = (score * value).sum(1) + divergence
        norm = value.square().sum(1).mean()
        descend(state.optimizers["critic"], self.l2 * norm - stein.mean(), self.max_norm)
        critic.constrain()
        return stein.detach(), norm.detach()

    @torch.no_grad()
    def _penalized(
        self, critic: CriticNetwork | TiedNetwork, model: Model, x: torch.Tensor
    ) -> float:
        value, divergence = critic.value_and_divergence(x)
        stein = (model.potential_and_score(x)[1] * value).sum(1) + divergence
        return float(stein.mean() - self.l2 * value.square().sum(1).mean())


def _critic(state: State, model: Model) -> CriticNetwork | TiedNetwork:
    """Return the critic; a tied one is beside this model, which a restored state may not have."""
    critic = state.modules["critic"]
    assert isinstance(critic, CriticNetwork | TiedNetwork)
    return critic.beside(model) if isinstance(critic, TiedNetwork) else critic


def _fisher_loss(model: Model, x: torch.Tensor) -> float:
    """Return half the mean squared distance of the scores of model and data, but for a constant."""
    matching = ScoreMatching()
    if x.shape[1] > MOST_EXACT:
        matching = ScoreMatching("sliced", N_PROBES, "rademacher")
    rng = torch.Generator(x.device).manual_seed(0)  # the same probes at every validation
    blocks = x.split(JUDGED_AT_ONCE)
    return float(torch.cat([matching.losses(model, b, rng).detach() for b in blocks]).mean())
