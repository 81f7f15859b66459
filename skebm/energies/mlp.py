"""Multi-layer perceptron energy with a closed-form input gradient."""

from __future__ import annotations

__all__ = ["MLP"]

import torch

from skebm._components import check_choice, check_number
from skebm.energies._base import EnergyComponent
from skebm.networks import FeedForward
from skebm.networks.feed_forward import ACTIVATIONS

OUTPUTS = ("identity", "quadratic", "linear-quadratic")


class MLP(EnergyComponent):
    r"""Fully connected energy.

    With f the network's output, ``output="identity"`` is :math:`E = f`, ``"quadratic"`` is
    :math:`E = f^2 / 2` and ``"linear-quadratic"`` is :math:`E = f + \beta f^2 / 2` with a learned
    :math:`\beta`, 0 at the start.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(128, 128)
        Widths; larger is more flexible and slower.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}, default="silu"
        Smooth ones give smooth scores.
    output : {"identity", "quadratic", "linear-quadratic"}, default="identity"
        ``"quadratic"`` is bounded below, which a model without a base needs.
    input_scale : float, default=3.0
        Factor on the first layer's initial weights (dimensionless); larger resolves finer structure
        sooner and generalizes less.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    Energy and score of n rows take ``4 n sum(a * b)`` floating-point operations over the weight
    shapes (a, b). ``"identity"`` starts at E = 0 exactly, so training starts at the base; the
    others start at small random values, because f = 0 is a stationary point of the square.

    References
    ----------
    .. [1] L. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Eq. 20 and the unnumbered equation of the appendix with beta.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, energy_and_score
    >>> module = MLP(hidden_sizes=(16,)).build((2,), torch.Generator().manual_seed(0))
    >>> energy, score = energy_and_score(module, torch.zeros(5, 2))
    >>> energy.shape, score.shape
    (torch.Size([5]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] = (128, 128),
        activation: str = "silu",
        output: str = "identity",
        input_scale: float = 3.0,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.output = output
        self.input_scale = input_scale

    def build(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for flat rows of ``shape[0]`` columns."""
        self._check(shape)
        network = FeedForward(
            shape[0],
            tuple(self.hidden_sizes),
            self.activation,
            generator,
            input_scale=self.input_scale,
            zero_output=self.output == "identity",
        )
        if self.output == "identity":
            return network
        return SquaredOutput(network, learn_beta=self.output == "linear-quadratic")

    def _check(self, shape: tuple[int, ...]) -> None:
        sizes = self.hidden_sizes
        if not isinstance(sizes, tuple | list) or not sizes:
            raise TypeError(
                f"hidden_sizes must be a nonempty tuple of integers, got {sizes!r}. "
                "One layer is (128,)."
            )
        for size in sizes:
            check_number("hidden_sizes", size, low=1, integer=True)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("output", self.output, OUTPUTS)
        check_number("input_scale", self.input_scale, low=0, open_low=True)
        if len(shape) != 1:
            raise ValueError(f"MLP must get flat rows, got shape {shape}. Use a convnet for images.")


class SquaredOutput(torch.nn.Module):
    """``f^2 / 2`` or ``f + beta f^2 / 2`` of a network with one output; the chain rule by hand."""

    def __init__(self, network: FeedForward, *, learn_beta: bool) -> None:
        super().__init__()
        self.network = network
        self.learn_beta = learn_beta
        if learn_beta:
            device = network.layers[0].weight.device
            self.beta = torch.nn.Parameter(torch.zeros((), device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        f = self.network(x)
        return f + 0.5 * self.beta * f.square() if self.learn_beta else 0.5 * f.square()

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        f, gradient = self.network.value_and_gradient(x)
        if self.learn_beta:
            return f + 0.5 * self.beta * f.square(), (1 + self.beta * f)[:, None] * gradient
        return 0.5 * f.square(), f[:, None] * gradient
