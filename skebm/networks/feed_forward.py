"""Multi-layer perceptron whose input gradient is written out."""

from __future__ import annotations

__all__ = [
    "ACTIVATIONS",
    "FeedForward",
    "activation_of",
    "uniform_linear",
]

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn.functional import leaky_relu, linear, silu, softplus

from skebm.networks._passes import (
    TrainingPass,
    in_chunks,
    is_ordinary,
    pairs,
    phase_gradient,
    run_alone,
    run_back,
    run_hidden,
    with_waves,
)
from skebm.networks._undrawn import Linear

SPAN = 8.0  # ratio of the highest to the lowest initial frequency
SLOPE = 0.05  # of leaky ReLU: our choice, SP states none
_ONE = torch.ones(())


class Activation(NamedTuple):
    """A function, its forms in place, alone and with the derivative, and both with a graph."""

    value: Callable[[torch.Tensor], torch.Tensor]
    in_place: Callable[[torch.Tensor], torch.Tensor]
    with_derivative: Callable[[torch.Tensor, torch.Tensor], None]  # z becomes the value
    pair: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # value and derivative


def _silu(z: torch.Tensor, derivative: torch.Tensor) -> None:
    torch.sigmoid(z, out=derivative)
    z.mul_(derivative)
    derivative.lerp_(_ONE.to(z), z)  # s + a (1 - s), with a = z s


def _softplus(z: torch.Tensor, derivative: torch.Tensor) -> None:
    torch.sigmoid(z, out=derivative)
    if z.dtype == torch.float64:
        derivative.masked_fill_(z > 20, 1)  # beyond, softplus is the identity
    _softplus_(z)


def _softplus_(z: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.softplus.out(z, out=z)


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
        partial(leaky_relu, negative_slope=slope, inplace=True),
        partial(_leaky_relu, slope=slope),
        partial(_leaky_relu_pair, slope=slope),
    )


ACTIVATIONS = {
    "silu": Activation(silu, partial(silu, inplace=True), _silu, _silu_pair),
    "softplus": Activation(softplus, _softplus_, _softplus, _softplus_pair),
    "tanh": Activation(torch.tanh, torch.tanh_, _tanh, _tanh_pair),
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
    pass. On the CPU, where the rows want no gradient, the backward pass to the parameters is
    written out too, and a pass without a graph goes through pieces of rows that stay in a cache.

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
        frequencies, parameters = self._parts()
        activation = activation_of(self.activation, self.negative_slope)
        plain = partial(_plain, activation.value)
        graph = torch.is_grad_enabled()
        if not is_ordinary(x) or (graph and x.requires_grad):
            return plain(x, frequencies, *parameters)
        if graph and any(p.requires_grad for p in (*parameters, frequencies) if p is not None):
            pass_ = TrainingPass.apply
            return pass_(plain, activation.with_derivative, x, frequencies, *parameters)
        return run_alone(x, frequencies, pairs(parameters), activation.in_place)

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
        frequencies, parameters = self._parts()
        *inner, (last, bias) = pairs(parameters)
        activate = activation_of(self.activation, self.negative_slope).with_derivative
        features = with_waves(x, frequencies)
        hidden, derivatives = run_hidden(features, inner, activate)
        output = torch.mv(hidden[-1], last[0]).add_(bias)
        weights = [weight for weight, _ in inner]
        weights[-1] = weights[-1] * last.T  # cheaper than to multiply each row
        gradient = run_back(derivatives[-1], weights, hidden, derivatives)
        if frequencies is not None:
            d = x.shape[1]
            by_phase = phase_gradient(features[:, d:], gradient[:, d:])
            gradient = torch.addmm(gradient[:, :d], by_phase, frequencies.T)
        return output, gradient

    def _parts(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Return the frequencies, if any, and each layer's weight and bias."""
        frequencies = self.frequencies if self.n_frequencies else None
        return frequencies, [p for layer in self._linear() for p in (layer.weight, layer.bias)]

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]


def _plain(
    value: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    frequencies: torch.Tensor | None,
    *parameters: torch.Tensor,
) -> torch.Tensor:
    """Return a perceptron's output (n,) by operations that autograd and transforms know."""
    *inner, last = pairs(parameters)
    a = with_waves(x, frequencies)
    for weight, bias in inner:
        a = value(linear(a, weight, bias))
    return linear(a, *last).squeeze(-1)
