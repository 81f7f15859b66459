"""Noise-contrastive estimation: tell data from draws of a known density, and learn log Z so."""

from __future__ import annotations

__all__ = ["NoiseContrastive"]

import math

import torch
from scipy.optimize import brentq
from torch.nn.functional import softplus

from skebm._components import check_number
from skebm.bases import Base
from skebm.energies import Model
from skebm.objectives._base import Draw, Objective, Optimization, State, descend

MOST_ROWS = 20_000  # that log Z is estimated from
FASTER = 10.0  # step of log Z beside the network's: it has far to go with a single number


class NoiseContrastive(Objective):
    r"""Logistic regression between data and draws from a density that is known.

    With :math:`G(u) = \log p(u) - \log p_n(u) - \log \nu`, where
    :math:`\log p = -E/T + \log p_0 - c` and c is a learned number, the loss is
    :math:`-\mathrm{mean} \log \sigma(G(x)) - \nu\, \mathrm{mean} \log \sigma(-G(u))`, u the draws,
    :math:`\nu` of them for each row. In the limit of many rows p is the data's density and c is
    log Z.

    Parameters
    ----------
    noise : Base, default=None
        The density p_n, fitted; None takes the model's base, and then G is :math:`-E/T - c`.
    ratio : float, default=1.0
        Nu: noise draws for each row; more lower the gradient's variance.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults. c has its own optimizer with ten times the
        learning rate and no weight decay.

    Raises
    ------
    ValueError, TypeError
        From ``init``, without a noise density or on a bad parameter.

    Notes
    -----
    One energy gradient for the batch and the draws per update; no chain. Best where the noise
    is near the data but not on it: from far draws nothing is learnt once they are told apart.
    The history holds c (``log_z``, nats) and the share of rows and draws that are told apart
    (``accuracy``, equally weighted; 0.5 where data and noise look alike).

    References
    ----------
    .. [1] M. Gutmann and A. Hyvarinen, "Noise-Contrastive Estimation: A New Estimation Principle
       for Unnormalized Statistical Models", AISTATS 2010. Section 2.

    Examples
    --------
    >>> from skebm.objectives import NoiseContrastive
    >>> NoiseContrastive(ratio=4.0)
    NoiseContrastive(ratio=4.0)
    """

    def __init__(
        self,
        noise: Base | None = None,
        ratio: float = 1.0,
        optimization: Optimization | None = None,
    ) -> None:
        self.noise = noise
        self.ratio = ratio
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizers, log Z where it starts, and the reference draws."""
        check_number("ratio", self.ratio, low=0, open_low=True)
        self._noise(model)
        settings = self.optimization or Optimization()
        faster = settings.with_params(
            learning_rate=FASTER * settings.learning_rate, weight_decay=0.0
        )
        log_z = LogZ(self.estimate_log_z(model, x, rng), x)
        optimizers = {"energy": settings.build(model.energy), "log_z": faster.build(log_z)}
        return State(optimizers, {"log_z": log_z}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step on a batch and fresh noise."""
        x = draw()
        u = self._noise(model).sample(self._n_noise(x), rng)
        both, log_z = torch.cat([x, u]), state.modules["log_z"]()
        energy = model.energy(both) / model.temperature
        log_ratio = -energy - self._known(model, both) - log_z
        at_data, at_noise = log_ratio[: len(x)], log_ratio[len(x) :]
        loss = logistic_loss(at_data, at_noise)
        descend(list(state.optimizers.values()), loss)
        with torch.no_grad():
            accuracy = 0.5 * ((at_data > 0).float().mean() + (at_noise < 0).float().mean())
        return state, {
            "loss": loss.detach(),
            "data_energy": energy[: len(x)].detach().mean(),
            "log_z": log_z.detach().clone(),
            "accuracy": accuracy,
        }

    @torch.no_grad()
    def estimate_log_z(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> float:
        """Return the c that minimizes the loss of this energy at rows x and fresh noise, nats.

        Of many rows 20,000 are looked at.
        """
        x = x[:: -(-len(x) // MOST_ROWS)]
        u = self._noise(model).sample(self._n_noise(x), rng)
        at_data, at_noise = (
            -model.energy(rows) / model.temperature - self._known(model, rows) for rows in (x, u)
        )
        return best_log_z(at_data, at_noise)

    def _n_noise(self, x: torch.Tensor) -> int:
        return max(round(self.ratio * len(x)), 1)

    @torch.no_grad()
    def _known(self, model: Model, u: torch.Tensor) -> torch.Tensor:
        """Return log p_n - log p_0, (n,), nats."""
        if self.noise is None:
            return u.new_zeros(len(u))
        known = self.noise.log_prob(u)
        return known if model.base is None else known - model.base.log_prob(u)

    def _noise(self, model: Model) -> Base:
        noise = model.base if self.noise is None else self.noise
        if noise is None:
            raise ValueError(
                "noise must be a density of its own without a base, got None. "
                "Use noise='mixture', or base='mixture'."
            )
        if not isinstance(noise, Base):
            raise ValueError(f"noise must be a fitted density, got {noise!r}. Fit it to rows.")
        return noise


class LogZ(torch.nn.Module):
    """A learned log Z: one number, nats."""

    def __init__(self, value: float, like: torch.Tensor) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(like.new_tensor(value))

    def forward(self) -> torch.Tensor:
        """Return the number, ()."""
        return self.value


def logistic_loss(at_data: torch.Tensor, at_noise: torch.Tensor) -> torch.Tensor:
    """Return the loss of normalized log ratios at m rows and n draws; nu is n / m."""
    ratio = len(at_noise) / len(at_data)
    log_ratio = math.log(ratio)
    return softplus(log_ratio - at_data).mean() + ratio * softplus(at_noise - log_ratio).mean()


def best_log_z(at_data: torch.Tensor, at_noise: torch.Tensor) -> float:
    """Return the c at which as many rows are taken for noise as draws for data, nats."""
    at_data, at_noise = at_data.double(), at_noise.double()
    log_ratio = math.log(len(at_noise) / len(at_data))
    both = torch.cat([at_data, at_noise])
    low, high = float(both.min()) - 1, float(both.max()) + 1  # it is between the extremes
    if not math.isfinite(high - low):
        return math.nan

    def excess(c: float) -> float:
        missed = (log_ratio + c - at_data).sigmoid().sum()
        return float((at_noise - c - log_ratio).sigmoid().sum() - missed)

    return float(brentq(excess, low, high))
