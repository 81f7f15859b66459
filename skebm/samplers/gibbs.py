"""Block Gibbs sampling of a restricted Boltzmann machine."""

from __future__ import annotations

__all__ = ["Gibbs", "GibbsState"]

from typing import NamedTuple

import torch

from skebm.energies import Model
from skebm.energies.rbm import RBMEnergy
from skebm.samplers._base import Sampler, SamplerInfo, Target


class GibbsState(NamedTuple):
    """Where the chains stand, and the machine that they sample.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Positions, standardized space.
    energy : torch.nn.Module
        Energy of a `GaussianBernoulliRBM`.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import GaussianBernoulliRBM
    >>> from skebm.samplers import GibbsState
    >>> energy = GaussianBernoulliRBM(3).build((2,), torch.Generator().manual_seed(0))
    >>> GibbsState(torch.zeros(4, 2), energy).x.shape
    torch.Size([4, 2])
    """

    x: torch.Tensor
    energy: RBMEnergy


class Gibbs(Sampler):
    r"""Draw all hidden signs given the row, then the row given the signs.

    :math:`P(h_j = 1 \mid x) = \sigma((x B)_j + 2 c_j)`, then :math:`x \mid h \sim N(B h / 2 + b,
    I)`.

    Raises
    ------
    TypeError
        From ``init``, if the target is not a `Model` of a `GaussianBernoulliRBM`'s energy without
        a base at temperature 1.

    Notes
    -----
    Each step leaves the density as it is, without a step size or a Metropolis test. It costs ``8 n
    d h`` floating-point operations, half of them for the energy and score in `SamplerInfo`. Chains
    change a hidden unit's sign rarely where its weights are long: a sign holds itself with
    :math:`|B_j|^2 / 2` nats.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Appendix C.3.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import GaussianBernoulliRBM, Model
    >>> from skebm.samplers import Gibbs, run
    >>> rng = torch.Generator().manual_seed(0)
    >>> energy = GaussianBernoulliRBM(n_hidden=3).build((2,), rng)
    >>> state, _ = run(Gibbs(), Model(energy, None, 1.0), torch.zeros(4, 2), 10, rng)
    >>> state.x.shape
    torch.Size([4, 2])
    """

    def init(self, target: Target, x: torch.Tensor) -> GibbsState:
        """Check the target and stand at x (n, d)."""
        return GibbsState(x, _machine_of(target))

    def step(
        self, target: Target, state: GibbsState, rng: torch.Generator
    ) -> tuple[GibbsState, SamplerInfo]:
        """Redraw the hidden signs, then every row."""
        energy, score = target(state.x)
        probability = state.energy.hidden_probability(state.x)
        level = torch.empty_like(probability).uniform_(generator=rng)
        signs = (level < probability).to(state.x).mul_(2).sub_(1)
        noise = torch.empty_like(state.x).normal_(generator=rng)
        x = noise.add_(state.energy.visible_mean(signs))
        one = energy.new_ones(())
        return state._replace(x=x), SamplerInfo(one, one * 0, energy, score)


def _machine_of(target: Target) -> RBMEnergy:
    if not isinstance(target, Model):
        got = type(target).__name__
    elif not isinstance(target.energy, RBMEnergy):
        got = f"the energy {type(target.energy).__name__}"
    elif target.base is not None:
        got = f"the base {type(target.base).__name__}"
    elif target.temperature != 1:
        got = f"temperature {target.temperature:g}"
    else:
        return target.energy
    raise TypeError(
        "target must be a Model of a GaussianBernoulliRBM without a base at temperature 1, got "
        f"{got}. Use another sampler, MALA say."
    )
