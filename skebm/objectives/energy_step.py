"""The step size that shrinks as energies grow."""

from __future__ import annotations

__all__ = ["EnergyStep"]

import torch

from skebm._components import Component, check_choice, check_number
from skebm._ranks import averaged

RATE = 0.02  # of the running mean of the data's energy, per update


class EnergyStep(Component):
    r"""Step size :math:`\epsilon = c / \overline{|E(x) - e_0|}` over each batch of data.

    Parameters
    ----------
    scale : float, default=0.0005
        c, standardized units squared times nats; larger takes larger steps.
    gauge_free : bool, default=False
        Measure energies from their running mean :math:`e_0` over the data. The paper has
        :math:`e_0 = 0`, so its step depends on a constant of E that the loss does not determine.
    smallest, largest : float, default=1e-6, 0.05
        Bounds on the step size.

    Raises
    ------
    ValueError, TypeError
        From ``check``, on a bad parameter.

    Notes
    -----
    The printed :math:`\|E(x)\|` is not defined further; it is read as the mean of \|E\| over the
    batch. The step is set once per update, on data, and is the same for all chains. One forward
    pass per update.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section 3.

    Examples
    --------
    >>> import torch
    >>> from skebm.objectives import EnergyStep
    >>> step, mean = EnergyStep(scale=0.01)(torch.tensor([-0.5, 0.5, 0.5, 0.5]), torch.zeros(()))
    >>> round(float(step), 3)
    0.02
    """

    def __init__(
        self,
        scale: float = 5e-4,
        gauge_free: bool = False,
        smallest: float = 1e-6,
        largest: float = 0.05,
    ) -> None:
        self.scale = scale
        self.gauge_free = gauge_free
        self.smallest = smallest
        self.largest = largest

    def check(self) -> None:
        """Check the parameters."""
        check_number("scale", self.scale, low=0, open_low=True)
        check_choice("gauge_free", self.gauge_free, (True, False))
        check_number("smallest", self.smallest, low=0, open_low=True)
        check_number("largest", self.largest, low=self.smallest)

    def __call__(
        self, energy: torch.Tensor, mean: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the step size for data energies (n,), and their running mean after them."""
        centered = energy - mean if self.gauge_free else energy
        size, level = averaged([centered.abs().mean(), energy.mean()])
        step = self.scale / size.clamp(min=1e-8)
        return step.clamp(self.smallest, self.largest), mean.lerp(level, RATE)
