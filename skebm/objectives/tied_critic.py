"""A critic that is the model's own score less that of a copy which learns the data."""

from __future__ import annotations

__all__ = ["TiedCritic", "TiedNetwork"]

import copy
from typing import Any

import torch

from skebm._components import Component, check_number
from skebm.energies import Energy, Model, as_energy

MOST_EXACT = 32  # columns up to which second derivatives are found one by one


class TiedCritic(Component):
    r"""Critic of the form of the best one: :math:`f = (s_\theta - s_\phi) / (2 \lambda)`.

    The best critic of a Stein discrepancy is the difference of the scores of model and data over
    :math:`2 \lambda`. Here the score of the data is that of a copy of the model's energy with
    parameters :math:`\phi` of its own, which start at the model's and are learnt by the Stein
    objective: the critic is 0 at the start, and sees whatever the energy could be. A perceptron
    from many columns to as many does not: its random directions explain next to nothing of the
    difference.

    Parameters
    ----------
    learning_rate : float, optional
        Step of the copy's optimizer (dimensionless for Adam); None takes that of the energy.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter, or if the energy has kinks.

    Notes
    -----
    For `LearnedStein`, and by ``EnergyDensity(objective=LearnedStein(TiedCritic()))``. It makes
    sense where the family of the energy can be near the data; elsewhere it finds the best of that
    family, and no other critic's discrepancy is bounded by its own. One value takes the gradients
    of energy and copy, one divergence their Laplacians: in closed form where the energy has one,
    else a pass for each column, above 32 columns with one random probe.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Eq. 9; the paper's critics are perceptrons.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import LinearICA, Model
    >>> from skebm.objectives import TiedCritic
    >>> energy = LinearICA().build((2,), torch.Generator().manual_seed(0))
    >>> network = TiedCritic().build(Model(energy, None, 1.0), l2=0.5)
    >>> network(torch.ones(1, 2)).abs().max().item()
    0.0
    """

    def __init__(self, learning_rate: float | None = None) -> None:
        self.learning_rate = learning_rate

    def build(self, model: Model, l2: float) -> TiedNetwork:
        """Return the network beside a model, for the penalty lambda."""
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        if not as_energy(model.energy).twice_differentiable:
            raise ValueError(
                f"energy must be smooth for a TiedCritic, got {type(model.energy).__name__} with "
                "kinks. Take a Critic."
            )
        return TiedNetwork(model, 1 / (2 * l2 * model.temperature))


class TiedNetwork(torch.nn.Module):
    """The network of a `TiedCritic`; rows (n, d) to vectors (n, d).

    Parameters
    ----------
    model : Model
        Its energy is copied, and is what the copy is compared with.
    scale : float
        One over twice the penalty and the temperature.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import LinearICA, Model
    >>> from skebm.objectives.tied_critic import TiedNetwork
    >>> energy = LinearICA().build((2,), torch.Generator().manual_seed(0))
    >>> TiedNetwork(Model(energy, None, 1.0), 1.0)(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, model: Model, scale: float) -> None:
        super().__init__()
        self.copy, self.scale = copy.deepcopy(model.energy), scale
        self.beside(model)

    def beside(self, model: Model) -> TiedNetwork:
        """Compare with this model from now on; its parameters are not the network's."""
        self._others = [model.energy]  # in a list: no part of this module
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n, d)."""
        energy, own = self._pair()
        return (energy.score(x).detach() - own.score(x)) * self.scale

    def value_and_divergence(
        self, x: torch.Tensor, rng: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f (n, d) and its divergence (n,), differentiable in the parameters.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        rng : torch.Generator, optional
            Draws the probes that many columns take.

        Returns
        -------
        value : Tensor of shape (n, d)
            The critic's output.
        divergence : Tensor of shape (n,)
            Trace of its Jacobian, per unit of x.
        """
        energy, own = self._pair()
        probes = None
        if rng is not None and x.shape[1] > MOST_EXACT and not _has_laplacian(own):
            probes = torch.ones_like(x).copysign(torch.empty_like(x).normal_(generator=rng))
        divergence = own.laplacian(x, probes) - energy.laplacian(x, probes).detach()
        return self(x), divergence * self.scale

    def constrain(self) -> None:
        """Nothing to keep in bounds."""

    def _pair(self) -> tuple[Energy, Energy]:
        return as_energy(self._others[0]), as_energy(self.copy)


def _has_laplacian(energy: Any) -> bool:
    return type(energy).laplacian is not Energy.laplacian
