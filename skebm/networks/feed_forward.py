"""Multi-layer perceptron whose input gradient is written out."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "FeedForward"]

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import linear

SPAN = 8.0  # ratio of the highest to the lowest initial frequency
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
    r"""Fully connected network with one output and, if wanted, sine and cosine features in front.

    With m frequencies, the first layer sees :math:`(x, \sin(xW), \cos(xW))` with a learned W
    (d, m): narrow structure is then as easy to learn as wide.

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
        Factor on the first layer's initial weights.
    n_frequencies : int, default=0
        m; 0 feeds x alone.
    max_frequency : float, default=6.0
        Columns of W are drawn from N(0, f^2 I / d) with f log-uniform up to this value from an
        eighth of it, radians per standardized unit.
    zero_output : bool, default=False
        Start with an output of exactly 0.

    Notes
    -----
    ``forward`` costs ``2 n sum(a * b)`` floating-point operations over the weight shapes (a, b);
    ``value_and_gradient`` costs twice that and builds no autograd graph.

    References
    ----------
    .. [1] M. Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low
       Dimensional Domains", NeurIPS 2020. Section 4.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import FeedForward
    >>> net = FeedForward(2, (8,), "silu", torch.Generator().manual_seed(0), n_frequencies=4)
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
        n_frequencies: int = 0,
        max_frequency: float = 6.0,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.n_frequencies = n_frequencies
        device = generator.device
        if n_frequencies:
            u = torch.rand(n_frequencies, generator=generator, device=device)
            normal = torch.empty(n_features, n_frequencies, device=device)
            normal.normal_(generator=generator)
            shrink = max_frequency / math.sqrt(n_features)
            scale = ((u - 1) * math.log(SPAN)).exp()
            self.frequencies = torch.nn.Parameter((normal * scale).mul_(shrink))
        sizes = (n_features + 2 * n_frequencies, *hidden_sizes, 1)
        self.layers = torch.nn.ModuleList(
            torch.nn.utils.skip_init(torch.nn.Linear, a, b, device=device)
            for a, b in pairwise(sizes)
        )
        with torch.no_grad():
            for layer in self._linear():
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            first, last = self._linear()[0], self._linear()[-1]
            first.weight.mul_(input_scale)
            first.bias.mul_(input_scale)
            if zero_output:
                last.weight.zero_()
                last.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        value = ACTIVATIONS[self.activation].value
        if self.n_frequencies:
            phase = x @ self.frequencies
            x = torch.cat([x, phase.sin(), phase.cos()], 1)
        *inner, last = self._linear()
        for layer in inner:
            x = value(layer(x))
        return last(x).squeeze(-1)

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (n,) and its gradient with respect to the input (n, d)."""
        value, backward = ACTIVATIONS[self.activation]
        a = x
        if self.n_frequencies:
            phase = x @ self.frequencies
            sine, cosine = phase.sin(), phase.cos()
            a = torch.cat([x, sine, cosine], 1)
        *inner, last = self._linear()
        tape = []
        for layer in inner:
            z = linear(a, layer.weight, layer.bias)
            a = value(z)
            tape.append((layer, z, a))
        output = torch.addmv(last.bias, a, last.weight[0])
        gradient = last.weight.expand_as(a)
        for layer, z, a in reversed(tape):
            gradient = backward(gradient, z, a) @ layer.weight
        if self.n_frequencies:
            direct, by_sine, by_cosine = gradient.split(
                (x.shape[1], self.n_frequencies, self.n_frequencies), 1
            )
            by_phase = by_sine * cosine - by_cosine * sine
            gradient = torch.addmm(direct, by_phase, self.frequencies.T)
        return output, gradient

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]
