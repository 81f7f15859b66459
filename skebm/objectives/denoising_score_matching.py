"""Denoising score matching at one level of noise or several."""

from __future__ import annotations

__all__ = ["DenoisingScoreMatching"]

import torch

from skebm._components import check_number
from skebm.energies import Model
from skebm.objectives._base import Draw, Objective, Optimization, State, descend
from skebm.objectives.score_matching import model_score

SPAN = 10.0  # of max_noise_std over noise_std, where it is not given


class DenoisingScoreMatching(Objective):
    r"""Minimize :math:`\mathrm{mean}\, \tfrac12 \sigma^2 |s(y) - \nabla_y \log q(y \mid x)|^2`.

    With :math:`y = x + \sigma z` and z standard normal this is
    :math:`\tfrac12 |\sigma s(y) + z|^2`. What is learnt is the density of the *noised* rows, the
    data smoothed by a Gaussian of standard deviation `noise_std`. With several levels the noise q
    is a mixture of Gaussians with equal weights and standard deviations in geometric progression,
    and what is learnt is the data smoothed by that mixture.

    Parameters
    ----------
    noise_std : float, default=0.1
        Sigma, standardized units, or the smallest of the levels; larger is smoother and easier to
        learn, and further from the data.
    n_levels : int, default=1
        Levels of noise; wide ones teach the energy where there are no rows.
    max_noise_std : float, optional
        Largest level, standardized units; None is ten times `noise_std`. Unused with one level.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Notes
    -----
    No second derivative and no probe: energies with kinks can be trained. The factor
    :math:`\sigma^2` keeps the loss finite as sigma goes to 0; its variance still grows in
    comparison with what there is to learn, so sigma should not be far below the distance between
    rows. As with all losses of scores, weights of modes that are far apart are not felt.

    With levels the target is the score of the whole mixture,
    :math:`-(y - x) \sum_l w_l / \sigma_l^2` with w the probabilities of the levels given the
    displacement, and the common factor is the square of the smallest level: one energy, without
    the level as an input, then has a density that it converges to. A factor for each level would
    change the weights of that mixture.

    References
    ----------
    .. [1] P. Vincent, "A Connection Between Score Matching and Denoising Autoencoders", Neural
       Computation 23(7), 2011. Section 4.

    Examples
    --------
    >>> from skebm.objectives import DenoisingScoreMatching
    >>> DenoisingScoreMatching(noise_std=0.3)
    DenoisingScoreMatching(noise_std=0.3)
    """

    def __init__(
        self,
        noise_std: float = 0.1,
        n_levels: int = 1,
        max_noise_std: float | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        self.noise_std = noise_std
        self.n_levels = n_levels
        self.max_noise_std = max_noise_std
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer and the reference draws."""
        check_number("noise_std", self.noise_std, low=0, open_low=True)
        check_number("n_levels", self.n_levels, low=1, integer=True)
        if self.max_noise_std is not None:
            remedy = "It is the largest level, noise_std the smallest."
            check_number("max_noise_std", self.max_noise_std, low=self.noise_std, remedy=remedy)
        optimizer = (self.optimization or Optimization()).build(model.energy)
        return State({"energy": optimizer}, {}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step on a batch with fresh noise."""
        x = draw()
        loss = self.losses(model, x, rng).mean()
        descend(state.optimizers["energy"], loss)
        with torch.no_grad():
            at_data = model.energy(x) / model.temperature
        return state, {"loss": loss.detach(), "data_energy": at_data.mean()}

    def losses(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Return the loss of each row (n,) with fresh noise, dimensionless."""
        levels = self._levels(x)
        index = torch.zeros(len(x), dtype=torch.long, device=x.device)
        if len(levels) > 1:
            index.random_(len(levels), generator=rng)
        per_row = (-1, *[1] * (x.dim() - 1))
        noise = torch.empty_like(x).normal_(generator=rng)
        noise = noise * levels[index].view(per_row)
        target = -noise * _precision(noise.flatten(1), levels).view(per_row)
        residual = model_score(model, x + noise) - target
        return 0.5 * levels[0] ** 2 * residual.square().flatten(1).sum(1)

    def _levels(self, x: torch.Tensor) -> torch.Tensor:
        """Return the levels, rising, (n_levels,)."""
        low = x.new_tensor([self.noise_std])
        if self.n_levels == 1:
            return low
        high = SPAN * self.noise_std if self.max_noise_std is None else self.max_noise_std
        share = torch.linspace(0, 1, self.n_levels, dtype=x.dtype, device=x.device)
        return low * (high / self.noise_std) ** share


def _precision(noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the mean of 1 / level^2 given the displacement (n, d), shape (n,)."""
    precision = levels**-2
    squared = noise.square().sum(1, keepdim=True)
    log_weight = -0.5 * squared * precision - noise.shape[1] * levels.log()
    return log_weight.softmax(1) @ precision
