"""Multi-layer perceptron whose input gradient is written out."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "FeedForward"]

import math
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import leaky_relu, silu, softplus

SPAN = 8.0  # ratio of the highest to the lowest initial frequency
SLOPE = 0.05  # of leaky ReLU: SP section 5 and the networks it builds on
CHUNK_BYTES = 1 << 19  # of one hidden layer: a few of them stay in a core's cache
MOST_KEPT = 4  # sizes of scratch memory per thread
_ONE = torch.ones(())
_MEMORY = threading.local()  # scratch for hidden layers, one set per thread


class Activation(NamedTuple):
    """A function, and its in-place form that also writes the derivative."""

    value: Callable[[torch.Tensor], torch.Tensor]
    with_derivative: Callable[[torch.Tensor, torch.Tensor], None]  # z becomes the value


def _silu(z: torch.Tensor, derivative: torch.Tensor) -> None:
    torch.sigmoid(z, out=derivative)
    z.mul_(derivative)
    derivative.lerp_(_ONE.to(z), z)  # s + a (1 - s), with a = z s


def _softplus(z: torch.Tensor, derivative: torch.Tensor) -> None:
    torch.sigmoid(z, out=derivative)
    derivative.masked_fill_(z > 20, 1)  # beyond, softplus is the identity
    z.copy_(softplus(z))


def _tanh(z: torch.Tensor, derivative: torch.Tensor) -> None:
    z.tanh_()
    torch.mul(z, z, out=derivative).neg_().add_(1)


def _leaky_relu(z: torch.Tensor, derivative: torch.Tensor) -> None:
    # no booleans: comparisons and where are several times slower
    torch.sign(z, out=derivative).clamp_(min=SLOPE)
    z.mul_(derivative)


ACTIVATIONS = {
    "silu": Activation(silu, _silu),
    "softplus": Activation(softplus, _softplus),
    "tanh": Activation(torch.tanh, _tanh),
    "leaky_relu": Activation(partial(leaky_relu, negative_slope=SLOPE), _leaky_relu),
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
        widest = max(layer.out_features for layer in self._linear())
        n_chunks = -(-len(x) * widest * x.element_size() // CHUNK_BYTES)
        if n_chunks <= 1 or x.device.type != "cpu":
            return self._chunk(x)
        values, gradients = zip(*map(self._chunk, x.chunk(n_chunks)), strict=True)
        return torch.cat(values), torch.cat(gradients)

    def _chunk(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *inner, last = self._linear()
        activate = ACTIVATIONS[self.activation].with_derivative
        a = x
        if self.n_frequencies:
            phase = x @ self.frequencies
            sine, cosine = phase.sin(), phase.cos()
            a = torch.cat([x, sine, cosine], 1)
        hidden, derivatives = _scratch(x, tuple(layer.out_features for layer in inner))
        for layer, z, derivative in zip(inner, hidden, derivatives, strict=True):
            torch.mm(a, layer.weight.T, out=z).add_(layer.bias)  # addmm copies the bias first
            activate(z, derivative)
            a = z
        output = torch.addmv(last.bias, a, last.weight[0])
        # hidden layers are no longer needed: each takes the gradient that flows into it
        gradient = derivatives[-1].mul_(last.weight)
        for i in range(len(inner) - 1, 0, -1):
            torch.mm(gradient, inner[i].weight, out=hidden[i - 1])
            gradient = hidden[i - 1].mul_(derivatives[i - 1])
        gradient = gradient @ inner[0].weight
        if self.n_frequencies:
            direct, by_sine, by_cosine = gradient.split(
                (x.shape[1], self.n_frequencies, self.n_frequencies), 1
            )
            by_phase = by_sine * cosine - by_cosine * sine
            gradient = torch.addmm(direct, by_phase, self.frequencies.T)
        return output, gradient

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]


def _scratch(
    x: torch.Tensor, widths: tuple[int, ...]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return two uninitialized (n, width) tensors per hidden layer, kept from call to call.

    Fresh memory of this size would be handed back to the system and paid for again at each step.
    """
    key = (len(x), widths, x.dtype)
    kept: dict = _MEMORY.__dict__.setdefault("layers", {}) if x.device.type == "cpu" else {}
    if key not in kept:
        if len(kept) == MOST_KEPT:
            kept.clear()
        kept[key] = tuple([x.new_empty(len(x), width) for width in widths] for _ in range(2))
    return kept[key]
