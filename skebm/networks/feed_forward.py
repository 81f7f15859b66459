"""Multi-layer perceptron whose input gradient is written out."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "FeedForward"]

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import linear

SLOPE = 0.05  # of leaky ReLU: SP section 5 and the networks it builds on


class Activation(NamedTuple):
    """A function and the product of an incoming gradient with its derivative."""

    value: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # grad, z, a


_aten = torch.ops.aten
ACTIVATIONS = {
    "silu": Activation(torch.nn.functional.silu, lambda g, z, a: _aten.silu_backward(g, z)),
    "softplus": Activation(
        torch.nn.functional.softplus, lambda g, z, a: _aten.softplus_backward(g, z, 1, 20)
    ),
    "tanh": Activation(torch.tanh, lambda g, z, a: _aten.tanh_backward(g, a)),
    "leaky_relu": Activation(
        lambda z: torch.nn.functional.leaky_relu(z, SLOPE),
        lambda g, z, a: _aten.leaky_relu_backward(g, z, SLOPE, False),
    ),
}


class FeedForward(torch.nn.Module):
    """Fully connected network with one output.

    Parameters
    ----------
    n_features : int
        Columns of the input.
    hidden_sizes : tuple of int
        Width of each hidden layer.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}
        Between layers.
    generator : torch.Generator
        Draws the initial weights, uniform in +-1/sqrt(fan in).
    input_scale : float, default=1.0
        Factor on the first layer's initial weights; larger resolves finer structure.
    zero_output : bool, default=False
        Start with an output of exactly 0.

    Notes
    -----
    ``forward`` costs ``2 n sum(a * b)`` floating-point operations over the weight shapes (a, b);
    ``value_and_gradient`` costs twice that and builds no autograd graph.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import FeedForward
    >>> net = FeedForward(2, (8,), "silu", torch.Generator().manual_seed(0))
    >>> value, gradient = net.value_and_gradient(torch.zeros(3, 2))
    >>> value.shape, gradient.shape
    (torch.Size([3]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        n_features: int,
        hidden_sizes: tuple[int, ...],
        activation: str,
        generator: torch.Generator,
        *,
        input_scale: float = 1.0,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        sizes = (n_features, *hidden_sizes, 1)
        self.layers = torch.nn.ModuleList(
            torch.nn.utils.skip_init(torch.nn.Linear, a, b, device=generator.device)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.activation = activation
        with torch.no_grad():
            for layer in self.layers:
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            self.layers[0].weight *= input_scale
            self.layers[0].bias *= input_scale
            if zero_output:
                self.layers[-1].weight.zero_()
                self.layers[-1].bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        value = ACTIVATIONS[self.activation].value
        for layer in self.layers[:-1]:
            x = value(layer(x))
        return self.layers[-1](x).squeeze(-1)

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (n,) and its gradient with respect to the input (n, d)."""
        value, backward = ACTIVATIONS[self.activation]
        inner, hidden, a = [], [], x
        for layer in self.layers[:-1]:
            z = linear(a, layer.weight, layer.bias)
            a = value(z)
            inner.append(z)
            hidden.append(a)
        last = self.layers[-1]
        output = torch.addmv(last.bias, a, last.weight[0])
        gradient = last.weight.expand_as(a)
        for i in range(len(inner) - 1, -1, -1):
            gradient = backward(gradient, inner[i], hidden[i]) @ self.layers[i].weight
        return output, gradient
