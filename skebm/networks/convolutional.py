"""Convolutional network and non-local block."""

from __future__ import annotations

__all__ = ["ConvNet", "NonLocal"]

import math
from itertools import pairwise

import torch
from torch.nn.functional import avg_pool2d

from skebm.networks._undrawn import Conv2d, Linear
from skebm.networks.feed_forward import SLOPE, activation_of

POOL = 2  # side and stride of an average pooling window
LINEAR_STD = 0.01  # of initial linear weights and biases: the released code of SP's image nets


class NonLocal(torch.nn.Module):
    r"""Self-attention between all positions of a feature map, added to the map.

    With a the map, :math:`z_i = a_i + W \sum_j p_{ij} v(a_j)` where :math:`p_{ij}` is the softmax
    over j of :math:`q(a_i) \cdot k(a_j) / \sqrt{m}` and q, k, v are linear maps to m channels.

    Parameters
    ----------
    channels : int
        Channels of the map; m is half of them, at least 1.
    rng : torch.Generator
        Draws q, k and v (Kaiming normal); W starts at 0, so the block starts as the identity.

    Notes
    -----
    Holds the (positions, positions) matrix p of every image: positions^2 numbers, so 2.5 MB in
    float32 for a map of 28 x 28, a few times that while a gradient is taken.

    References
    ----------
    .. [1] X. Wang, R. Girshick, A. Gupta and K. He, "Non-local Neural Networks", CVPR 2018.
       Section 3.3.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import NonLocal
    >>> maps = torch.ones(2, 6, 3, 3)
    >>> block = NonLocal(6, torch.Generator().manual_seed(0))
    >>> torch.equal(block(maps), maps)
    True
    """

    def __init__(self, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.query, self.key, self.value = (
            _convolution(channels, (inner, 1, 1, 0), rng, bias=False) for _ in range(3)
        )
        self.output = _convolution(inner, (channels, 1, 1, 0), rng, bias=False)
        torch.nn.init.zeros_(self.output.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to the same shape."""
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        scores = query.transpose(1, 2) @ key / math.sqrt(query.shape[1])
        mixed = value @ scores.softmax(-1).transpose(1, 2)
        return x + self.output(mixed.unflatten(2, x.shape[2:]))


class ConvNet(torch.nn.Module):
    """Convolutions, then fully connected layers, with one output.

    Parameters
    ----------
    shape : tuple of int
        Shape (c, h, w) of an image.
    stages : tuple of tuple of int
        Channels, kernel size, stride and padding (pixels) of each convolution.
    hidden_sizes : tuple of int
        Widths of the fully connected layers between the last map and the output; may be empty.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}
        After each convolution and each hidden layer.
    rng : torch.Generator
        Draws the initial weights: Kaiming normal convolutions without bias, and N(0, 0.01^2) for
        weights and biases of linear layers.
    negative_slope : float, default=0.05
        Of the leaky ReLU, at most 1.
    pooled : bool, default=False
        Average over windows of 2 x 2 after each activation; an odd row or column is dropped.
    attention : tuple of int, default=()
        Stages, counted from 1, after which a non-local block stands.

    Attributes
    ----------
    map_shapes : list of tuple of int
        Shape (c, h, w) after each stage.

    Raises
    ------
    ValueError
        If a map is too small for a kernel or for pooling.

    Notes
    -----
    Maps are kept channels-last on a CPU.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import ConvNet
    >>> rng = torch.Generator().manual_seed(0)
    >>> net = ConvNet((1, 8, 8), ((4, 3, 2, 1), (6, 3, 2, 1)), (5,), "silu", rng)
    >>> net.map_shapes
    [(4, 4, 4), (6, 2, 2)]
    >>> net(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        stages: tuple[tuple[int, ...], ...],
        hidden_sizes: tuple[int, ...],
        activation: str,
        rng: torch.Generator,
        *,
        negative_slope: float = SLOPE,
        pooled: bool = False,
        attention: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.activation, self.negative_slope = activation, negative_slope
        self.pooled = pooled
        self.map_shapes = _map_shapes(shape, stages, pooled)
        inputs = [shape, *self.map_shapes[:-1]]
        self.convolutions = torch.nn.ModuleList(
            _convolution(before[0], stage, rng)
            for before, stage in zip(inputs, stages, strict=True)
        )
        self.attention = torch.nn.ModuleDict(
            {str(i): NonLocal(stages[i - 1][0], rng) for i in sorted(set(attention))}
        )
        sizes = (math.prod(self.map_shapes[-1]), *hidden_sizes, 1)
        self.layers = torch.nn.ModuleList(_linear(a, b, rng) for a, b in pairwise(sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n,)."""
        value = activation_of(self.activation, self.negative_slope).value
        x = x.contiguous(memory_format=_layout(x.device))
        for i, convolution in enumerate(self.convolutions, start=1):
            x = value(convolution(x))
            x = avg_pool2d(x, POOL) if self.pooled else x
            x = self.attention[str(i)](x) if str(i) in self.attention else x
        *inner, last = self.layers
        x = x.flatten(1)
        for layer in inner:
            x = value(layer(x))
        return last(x).squeeze(-1)

    @property
    def twice_differentiable(self) -> bool:
        """Whether the activation has no kink."""
        return self.activation != "leaky_relu"


def _map_shapes(
    shape: tuple[int, ...], stages: tuple[tuple[int, ...], ...], pooled: bool
) -> list[tuple[int, ...]]:
    shapes = []
    for i, (channels, kernel_size, stride, padding) in enumerate(stages, start=1):
        padded = [size + 2 * padding for size in shape[1:]]
        if min(padded) < kernel_size:
            raise ValueError(
                f"kernel_sizes must be at most the size of the padded map, got {kernel_size} at "
                f"stage {i}, whose map is {padded[0]} x {padded[1]}. Use fewer stages or more "
                "padding."
            )
        sides = [(size - kernel_size) // stride + 1 for size in padded]
        if pooled and min(sides) < POOL:
            raise ValueError(
                f"pooling must be None on maps smaller than {POOL} x {POOL}, got a map of "
                f"{sides[0]} x {sides[1]} at stage {i}. Use fewer stages or more padding."
            )
        shape = (channels, *(side // POOL if pooled else side for side in sides))
        shapes.append(shape)
    return shapes


def _convolution(
    n_in: int, stage: tuple[int, ...], rng: torch.Generator, *, bias: bool = True
) -> torch.nn.Conv2d:
    device, fan_in = rng.device, n_in * stage[1] ** 2
    n_out, size, stride, padding = stage
    layer = Conv2d(n_in, n_out, size, stride, padding, bias=bias, device=device)
    with torch.no_grad():
        layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=rng)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer.to(memory_format=_layout(device))  # type: ignore[call-overload]


def _layout(device: torch.device) -> torch.memory_format:
    """Return the order of values in memory: channels last on the CPU, where it is faster."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def _linear(n_in: int, n_out: int, rng: torch.Generator) -> torch.nn.Linear:
    layer = Linear(n_in, n_out, device=rng.device)
    with torch.no_grad():
        layer.weight.normal_(0, LINEAR_STD, generator=rng)
        layer.bias.normal_(0, LINEAR_STD, generator=rng)
    return layer
