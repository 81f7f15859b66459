"""Multi-layer perceptron whose input gradient is written out."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "FeedForward",
    "activation_of",
    "in_chunks",
    "run_back",
    "run_hidden",
    "uniform_linear",
]

import math
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import leaky_relu, silu, softplus

from skebm.networks._undrawn import Linear

SPAN = 8.0  # ratio of the highest to the lowest initial frequency
SLOPE = 0.05  # of leaky ReLU: SP section 5 and the networks it builds on
CHUNK_BYTES = 1 << 19  # of one hidden layer: a few of them stay in a core's cache
MOST_KEPT = 4  # sizes of scratch memory per thread
_ONE = torch.ones(())
_MEMORY = threading.local()  # scratch for hidden layers, one set per thread


class Activation(NamedTuple):
    """A function, its in-place form that also writes the derivative, and both with a graph."""

    value: Callable[[torch.Tensor], torch.Tensor]
    with_derivative: Callable[[torch.Tensor, torch.Tensor], None]  # z becomes the value
    pair: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # value and derivative


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


def _leaky_relu(z: torch.Tensor, derivative: torch.Tensor, *, slope: float) -> None:
    # no booleans: comparisons and where are several times slower
    torch.sign(z, out=derivative).clamp_(min=slope)
    z.mul_(derivative)


def _silu_pair(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    s = z.sigmoid()
    a = z * s
    return a, torch.addcmul(s, a, 1 - s)


def _softplus_pair(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return softplus(z), z.sigmoid()


def _tanh_pair(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a = z.tanh()
    return a, 1 - a.square()


def _leaky_relu_pair(z: torch.Tensor, *, slope: float) -> tuple[torch.Tensor, torch.Tensor]:
    derivative = z.detach().sign().clamp_(min=slope)
    return z * derivative, derivative


def _leaky(slope: float) -> Activation:
    return Activation(
        partial(leaky_relu, negative_slope=slope),
        partial(_leaky_relu, slope=slope),
        partial(_leaky_relu_pair, slope=slope),
    )


ACTIVATIONS = {
    "silu": Activation(silu, _silu, _silu_pair),
    "softplus": Activation(softplus, _softplus, _softplus_pair),
    "tanh": Activation(torch.tanh, _tanh, _tanh_pair),
    "leaky_relu": _leaky(SLOPE),
}


def activation_of(name: str, negative_slope: float = SLOPE) -> Activation:
    """Return one of ``ACTIVATIONS``; the slope is that of leaky ReLU, the others have none."""
    return _leaky(negative_slope) if name == "leaky_relu" else ACTIVATIONS[name]


def uniform_linear(sizes: tuple[int, ...], rng: torch.Generator) -> torch.nn.ModuleList:
    """Return linear layers between these widths, uniform in +-1/sqrt(fan in)."""
    layers = [Linear(a, b, device=rng.device) for a, b in pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=rng)
            layer.bias.uniform_(-bound, bound, generator=rng)
    return torch.nn.ModuleList(layers)


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
    rng : torch.Generator
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
    negative_slope : float, default=0.05
        Of the leaky ReLU, at most 1.

    Notes
    -----
    ``forward`` costs ``2 n sum(a * b)`` floating-point operations over the weight shapes (a, b);
    ``value_and_gradient`` costs twice that and builds no autograd graph. ``directional_derivative``
    costs twice that too and keeps its graph, so that training on it takes one ordinary backward
    pass.

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
        rng: torch.Generator,
        *,
        input_scale: float = 1.0,
        n_frequencies: int = 0,
        max_frequency: float = 6.0,
        zero_output: bool = False,
        negative_slope: float = SLOPE,
    ) -> None:
        super().__init__()
        self.activation, self.negative_slope = activation, negative_slope
        self.n_frequencies = n_frequencies
        device = rng.device
        if n_frequencies:
            u = torch.rand(n_frequencies, generator=rng, device=device)
            normal = torch.empty(n_features, n_frequencies, device=device)
            normal.normal_(generator=rng)
            shrink = max_frequency / math.sqrt(n_features)
            scale = ((u - 1) * math.log(SPAN)).exp()
            self.frequencies = torch.nn.Parameter((normal * scale).mul_(shrink))
        sizes = (n_features + 2 * n_frequencies, *hidden_sizes, 1)
        self.layers = uniform_linear(sizes, rng)
        with torch.no_grad():
            first, last = self._linear()[0], self._linear()[-1]
            first.weight.mul_(input_scale)
            first.bias.mul_(input_scale)
            if zero_output:
                last.weight.zero_()
                last.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        value = activation_of(self.activation, self.negative_slope).value
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
        return in_chunks(self._chunk, x, max(layer.out_features for layer in self._linear()))

    @property
    def twice_differentiable(self) -> bool:
        """Whether the activation has no kink."""
        return self.activation != "leaky_relu"

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at rows x (n, d), with a graph through parameters, x and v."""
        return self.value_and_directional(x, v)[1]

    def value_and_directional(
        self, x: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (n,) and its derivative along v (n, d), in one forward pass."""
        pair = activation_of(self.activation, self.negative_slope).pair
        a, tangent = x, v
        if self.n_frequencies:
            phase, turn = x @ self.frequencies, v @ self.frequencies
            sine, cosine = phase.sin(), phase.cos()
            a = torch.cat([x, sine, cosine], 1)
            tangent = torch.cat([v, cosine * turn, -sine * turn], 1)
        *inner, last = self._linear()
        for layer in inner:
            a, derivative = pair(layer(a))
            tangent = derivative * (tangent @ layer.weight.T)
        return last(a).squeeze(-1), tangent @ last.weight[0]

    def _chunk(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        *inner, last = self._linear()
        activate = activation_of(self.activation, self.negative_slope).with_derivative
        a = x
        if self.n_frequencies:
            phase = x @ self.frequencies
            sine, cosine = phase.sin(), phase.cos()
            a = torch.cat([x, sine, cosine], 1)
        hidden, derivatives = run_hidden(a, inner, activate)
        output = torch.addmv(last.bias, hidden[-1], last.weight[0])
        gradient = run_back(derivatives[-1].mul_(last.weight), inner, hidden, derivatives)
        if self.n_frequencies:
            direct, by_sine, by_cosine = gradient.split(
                (x.shape[1], self.n_frequencies, self.n_frequencies), 1
            )
            by_phase = by_sine * cosine - by_cosine * sine
            gradient = torch.addmm(direct, by_phase, self.frequencies.T)
        return output, gradient

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]


def in_chunks(
    value_and_gradient: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    widest: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply to rows (n, d) in pieces of which a layer of the widest width stays in a cache."""
    n_chunks = -(-len(x) * widest * x.element_size() // CHUNK_BYTES)
    if n_chunks <= 1 or x.device.type != "cpu":
        return value_and_gradient(x)
    values, gradients = zip(*map(value_and_gradient, x.chunk(n_chunks)), strict=True)
    return torch.cat(values), torch.cat(gradients)


def run_hidden(
    a: torch.Tensor,
    layers: list[torch.nn.Linear],
    activate: Callable[[torch.Tensor, torch.Tensor], None],
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return each hidden layer's values and derivatives (n, width), in scratch memory."""
    hidden, derivatives = _scratch(a, tuple(layer.out_features for layer in layers))
    for layer, z, derivative in zip(layers, hidden, derivatives, strict=True):
        torch.mm(a, layer.weight.T, out=z).add_(layer.bias)  # addmm copies the bias first
        activate(z, derivative)
        a = z
    return hidden, derivatives


def run_back(
    gradient: torch.Tensor,
    layers: list[torch.nn.Linear],
    hidden: list[torch.Tensor],
    derivatives: list[torch.Tensor],
) -> torch.Tensor:
    """Turn the gradient before the last hidden activation into that at the input (n, d)."""
    # hidden layers are no longer needed: each takes the gradient that flows into it
    for i in range(len(layers) - 1, 0, -1):
        torch.mm(gradient, layers[i].weight, out=hidden[i - 1])
        gradient = hidden[i - 1].mul_(derivatives[i - 1])
    return gradient @ layers[0].weight


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
