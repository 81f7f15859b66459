"""Energy of a reconstruction's squared error, with a closed-form input gradient."""

from __future__ import annotations

__all__ = ["Reconstruction"]

import torch

from skebm.energies._base import Energy, EnergyComponent
from skebm.energies.mlp import check_hidden
from skebm.networks._passes import in_chunks, pairs, run_back, run_hidden
from skebm.networks.feed_forward import (
    activation_of,
    uniform_linear,
)


class Reconstruction(EnergyComponent):
    r"""Squared distance of a row to what a perceptron makes of it.

    :math:`E(x) = |x - g(x)|^2`, summed over the columns, with g a multi-layer perceptron from d
    columns through the hidden layers back to d columns.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(128, 128, 128)
        Widths of the hidden layers of g; larger is more flexible and slower.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}, default="leaky_relu"
        After each hidden layer. Smooth ones give smooth scores.
    negative_slope : float, default=0.2
        Of ``"leaky_relu"`` (dimensionless), from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    E is never negative, but that does not make :math:`e^{-E}` integrable: E grows like
    :math:`|x|^2` only in directions where g grows slower than x, or faster, and nothing in training
    enforces either. With ``"tanh"`` g is bounded, so E grows like :math:`|x|^2` whatever the
    weights; with the others g grows linearly and may come near x far out, where E then stays low.
    Weights and biases start uniform in +-1/sqrt(fan in), so g starts small and E near
    :math:`|x|^2`, not near 0: beside a base, training does not start at the base.

    Energy and score of n rows take ``4 n sum(a * b)`` floating-point operations over the weight
    shapes (a, b): with J the Jacobian of g and r = x - g(x), the gradient is
    :math:`2 (r - J^T r)`, one pass back through the layers.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Appendix B.1.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Reconstruction, energy_and_score
    >>> rng = torch.Generator().manual_seed(0)
    >>> module = Reconstruction(hidden_sizes=(16,)).build((2,), rng)
    >>> energy, score = energy_and_score(module, torch.ones(5, 2))
    >>> energy.shape, score.shape, bool((energy > 0).all())
    (torch.Size([5]), torch.Size([5, 2]), True)
    """

    flat = True

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] = (128, 128, 128),
        activation: str = "leaky_relu",
        negative_slope: float = 0.2,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.negative_slope = negative_slope

    @classmethod
    def paper(cls) -> Reconstruction:
        """Return the energy of the USP paper's one-dimensional experiment.

        Leaky ReLU of slope 0.2. The paper has "four layers, each with 512 hidden units"; here these
        are four hidden layers, and the linear layer back to the columns comes on top.

        Returns
        -------
        Reconstruction
            789,505 parameters on one column.
        """
        return cls((512, 512, 512, 512), "leaky_relu", 0.2)

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for flat rows of ``shape[0]`` columns."""
        check_hidden(self.hidden_sizes, self.activation, self.negative_slope)
        sizes = (shape[0], *self.hidden_sizes, shape[0])
        return SquaredResidual(sizes, self.activation, self.negative_slope, rng)


class SquaredResidual(Energy):
    """``|x - g(x)|^2`` with g a perceptron back to the first width; the chain rule by hand."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        activation: str,
        negative_slope: float,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation, self.negative_slope = activation, negative_slope
        self.layers = uniform_linear(sizes, rng)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        value = activation_of(self.activation, self.negative_slope).value
        *inner, last = self._linear()
        a = x
        for layer in inner:
            a = value(layer(a))
        return (x - last(a)).square().sum(1)

    @property
    def twice_differentiable(self) -> bool:
        """Whether the activation has no kink."""
        return self.activation != "leaky_relu"

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        return in_chunks(self._chunk, x, max(layer.out_features for layer in self._linear()))

    def _chunk(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activate = activation_of(self.activation, self.negative_slope).with_derivative
        *inner, last = self._linear()
        tensors = [p for layer in inner for p in (layer.weight, layer.bias)]
        hidden, derivatives = run_hidden(x, pairs(tensors), activate)
        residual = x - torch.addmm(last.bias, hidden[-1], last.weight.T)
        seed = derivatives[-1].mul_(residual @ last.weight)
        pulled_back = run_back(seed, tensors[::2], hidden, derivatives)
        return residual.square().sum(1), 2 * (residual - pulled_back)

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]
