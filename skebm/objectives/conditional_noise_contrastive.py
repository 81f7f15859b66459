"""Conditional noise-contrastive estimation: tell a row from its own noised copies."""

from __future__ import annotations

__all__ = ["ConditionalNoiseContrastive"]

import torch
from torch.nn.functional import softplus

from skebm._components import check_number
from skebm.energies import Model
from skebm.objectives._base import Draw, Objective, Optimization, State, descend


class ConditionalNoiseContrastive(Objective):
    r"""Minimize :math:`2\, \mathrm{mean} \log(1 + e^{-G})`, G the log density gained from y to x.

    Each row x has copies :math:`y = x + \sigma z`, z standard normal, and
    :math:`G = \log p(x) - \log p(y)`: the noise is symmetric and the normalizer cancels.

    Parameters
    ----------
    noise_std : float, default=0.3
        Sigma, standardized units. Small ones make the loss one of scores, with a gradient that is
        weak and noisy; with large ones the copies are told apart at a glance.
    n_noise : int, default=1
        Copies of each row; more lower the gradient's variance.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    One energy gradient for the rows and their copies per update; neither chain nor normalizer. In
    the limit of many rows the data's density is the minimum, whatever sigma; but where modes are
    much farther apart than sigma no copy joins them, and their weights are hardly felt.

    References
    ----------
    .. [1] C. Ceylan and M. U. Gutmann, "Conditional Noise-Contrastive Estimation of Unnormalised
       Models", ICML 2018. Eqs. 8, 9 and 13.

    Examples
    --------
    >>> from skebm.objectives import ConditionalNoiseContrastive
    >>> ConditionalNoiseContrastive(n_noise=4)
    ConditionalNoiseContrastive(n_noise=4)
    """

    def __init__(
        self,
        noise_std: float = 0.3,
        n_noise: int = 1,
        optimization: Optimization | None = None,
    ) -> None:
        self.noise_std = noise_std
        self.n_noise = n_noise
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer and the reference draws."""
        check_number("noise_std", self.noise_std, low=0, open_low=True)
        check_number("n_noise", self.n_noise, low=1, integer=True)
        optimizer = (self.optimization or Optimization()).build(model.energy)
        return State({"energy": optimizer}, {}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step on a batch and fresh copies."""
        x = draw()
        copies = x.repeat(self.n_noise, *[1] * (x.dim() - 1))
        copies += self.noise_std * torch.empty_like(copies).normal_(generator=rng)
        log_density = -model.energy(torch.cat([x, copies])) / model.temperature
        at_data = log_density[: len(x)]
        gain = at_data.repeat(self.n_noise) - log_density[len(x) :]
        if model.base is not None:
            with torch.no_grad():
                known = model.base.log_prob(torch.cat([x, copies]))
            gain = gain + known[: len(x)].repeat(self.n_noise) - known[len(x) :]
        loss = 2 * softplus(-gain).mean()
        descend(state.optimizers["energy"], loss)
        accuracy = (gain > 0).float().mean()
        row = {"loss": loss.detach(), "data_energy": -at_data.detach().mean()}
        return state, row | {"accuracy": accuracy}
