"""Convolutional energy of images."""

from __future__ import annotations

__all__ = ["Conv"]

import math
from typing import Any

import torch

from skebm._components import check_choice, check_number
from skebm.energies._base import Energy, EnergyComponent
from skebm.energies.mlp import OUTPUTS, with_output
from skebm.networks import ConvNet
from skebm.networks.feed_forward import ACTIVATIONS


class Conv(EnergyComponent):
    r"""Energy of images: convolutions, then fully connected layers.

    With f the network's output, ``output="identity"`` is :math:`E = f`, ``"quadratic"`` is
    :math:`E = f^2 / 2` and ``"linear-quadratic"`` is :math:`E = f + \beta f^2 / 2` with a learned
    :math:`\beta`, 0 at the start. ``learn_gamma=True`` adds :math:`\gamma \sqrt{n}\, |x|^2`.

    Parameters
    ----------
    channels : tuple of int, default=(32, 64, 128)
        Output channels of each stage (a convolution, the activation, pooling, attention); larger
        is more flexible and slower.
    kernel_sizes : int or tuple of int, default=3
        Side of the kernels, pixels; one for all stages or one for each.
    strides : int or tuple of int, default=2
        Pixels, likewise; larger is faster and sees coarser.
    paddings : int or tuple of int, default=1
        Zeros on each side, pixels, likewise.
    pooling : {None, "average"}, default=None
        ``"average"`` halves the map at the end of each stage: means of 2 x 2 pixels, the odd row
        or column dropped.
    hidden_sizes : tuple of int, default=(64,)
        Widths of the fully connected layers between the last map and the output; with ``()`` the
        output is linear in the last map, as a convolution over all of it is.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}, default="silu"
        Smooth ones give smooth scores.
    negative_slope : float, default=0.05
        Of ``"leaky_relu"`` (dimensionless), from 0 to 1.
    output : {"identity", "quadratic", "linear-quadratic"}, default="identity"
        ``"quadratic"`` is bounded below, which a model without a base needs; a log Z it has where f
        keeps its sign far out.
    attention : tuple of int, default=()
        Stages, counted from 1, that end in a non-local block; see `skebm.networks.NonLocal`.
    learn_gamma : bool, default=False
        Whether to add :math:`\gamma \sqrt{n}\, |x|^2` with a learned :math:`\gamma`, 0 at the
        start; n is the number of values of an image.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter, on rows that are no images and on a kernel larger than
        its map.

    Notes
    -----
    Convolutions start Kaiming normal without bias; weights and biases of fully connected layers
    start at N(0, 0.01^2), so E is small at the start, but not stationary. There is no batch
    normalization, which would mix rows, and no dropout. A non-local block holds positions^2 numbers
    for each image.

    The network of [3]_ is ``Conv((32, 64, 128), 3, strides=1, pooling="average",
    activation="leaky_relu", negative_slope=0.4)``; it states neither the padding nor the width of
    the first fully connected layer.

    References
    ----------
    .. [1] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Table 3, Eq. 20 and the unnumbered equations of section 4.2.
    .. [2] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section 3.
    .. [3] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Appendix B.2.
    .. [4] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
       document recognition", Proceedings of the IEEE 86(11), 1998. Fig. 2.
    .. [5] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds", NeurIPS 2021. Table 8.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Conv, energy_and_score
    >>> module = Conv(channels=(4, 8)).build((1, 8, 8), torch.Generator().manual_seed(0))
    >>> energy, score = energy_and_score(module, torch.zeros(5, 1, 8, 8))
    >>> energy.shape, score.shape
    (torch.Size([5]), torch.Size([5, 1, 8, 8]))
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128),
        kernel_sizes: int | tuple[int, ...] = 3,
        strides: int | tuple[int, ...] = 2,
        paddings: int | tuple[int, ...] = 1,
        pooling: str | None = None,
        hidden_sizes: tuple[int, ...] = (64,),
        activation: str = "silu",
        negative_slope: float = 0.05,
        output: str = "identity",
        attention: tuple[int, ...] = (),
        learn_gamma: bool = False,
    ) -> None:
        self.channels = channels
        self.kernel_sizes = kernel_sizes
        self.strides = strides
        self.paddings = paddings
        self.pooling = pooling
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.negative_slope = negative_slope
        self.output = output
        self.attention = attention
        self.learn_gamma = learn_gamma

    @classmethod
    def lenet(cls, output: str = "quadratic") -> Conv:
        """Return the first network of SP section 4.2.1, LeNet, for images of 28 x 28.

        Convolutions 5 x 5 with 6 and 16 channels, each averaged 2 x 2, then 120 and 84 hidden
        units: the sizes of LeNet-5 (SP states none), with SP's Swish in place of tanh.

        Parameters
        ----------
        output : {"identity", "quadratic", "linear-quadratic"}, default="quadratic"
            ``"quadratic"`` is SP's activation.

        Returns
        -------
        Conv
            Takes images of 12 x 12 or more.
        """
        return cls((6, 16), 5, 1, (2, 0), "average", (120, 84), output=output)

    @classmethod
    def strided(cls, output: str = "quadratic") -> Conv:
        """Return SP's custom network, Table 3, for images of 28 x 28.

        Convolutions 5 x 5 (padding 4) with 16 channels and 3 x 3 (padding 1) with 32, 64 and 64,
        all of stride 2, then 64 hidden units; Swish.

        Parameters
        ----------
        output : {"identity", "quadratic", "linear-quadratic"}, default="quadratic"
            ``"quadratic"`` is SP's activation.

        Returns
        -------
        Conv
            76,993 parameters on images of (1, 28, 28).
        """
        return cls((16, 32, 64, 64), (5, 3, 3, 3), 2, (4, 1, 1, 1), output=output)

    @classmethod
    def pyramid(cls, width: int = 32, attention: bool = True) -> Conv:
        """Return the network of HCD section 3 for images, with doubling widths.

        A convolution 3 x 3 with `width` channels, three of 4 x 4 and stride 2 with 2, 4 and 8 times
        as many, all of padding 1, and a linear output; leaky ReLU of slope 0.05. HCD states
        1024 channels in the last one and attention; the rest is from the code that it builds on
        (of Nijkamp et al.).

        Parameters
        ----------
        width : int, default=32
            Channels of the first stage; HCD's is 128.
        attention : bool, default=True
            Whether non-local blocks follow the first and the second stage. The first one holds
            (height * width)^2 numbers for each image.

        Returns
        -------
        Conv
            Takes images of 8 x 8 or more.
        """
        return cls(
            (width, 2 * width, 4 * width, 8 * width),
            (3, 4, 4, 4),
            (1, 2, 2, 2),
            hidden_sizes=(),
            activation="leaky_relu",
            attention=(1, 2) if attention else (),
        )

    @classmethod
    def dcgan(cls, width: int = 64, n_halvings: int = 3) -> Conv:
        """Return the energy of BB Table 8, for images of 32 x 32.

        Convolutions 3 x 3 that keep the map and 4 x 4 of stride 2 that halve it take turns, all of
        padding 1, a last one 3 x 3 and a linear output; leaky ReLU of slope 0.1. The channels
        double after each halving. E is piecewise linear in the image, so objectives that need a
        Laplacian cannot train it. Weights start as those of every `Conv` do, not as BB's.

        Parameters
        ----------
        width : int, default=64
            Channels at the size of the image; larger is more flexible and slower.
        n_halvings : int, default=3
            Convolutions of stride 2. 3 takes 32 x 32 to 4 x 4 as in BB, 2 takes 28 x 28 to 7 x 7.

        Returns
        -------
        Conv
            2,935,873 parameters on images of (3, 32, 32).
        """
        check_number("width", width, low=1, integer=True)
        check_number("n_halvings", n_halvings, low=0, integer=True)
        pairs = tuple(width * 2**i for i in range(n_halvings) for _ in range(2))
        return cls(
            (*pairs, width * 2**n_halvings),
            (3, 4) * n_halvings + (3,),
            (1, 2) * n_halvings + (1,),
            hidden_sizes=(),
            activation="leaky_relu",
            negative_slope=0.1,
        )

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for images of this shape, (channels, height, width)."""
        self._check(shape)
        n = len(self.channels)
        parts = (self.kernel_sizes, self.strides, self.paddings)
        each = (part if isinstance(part, tuple | list) else (part,) * n for part in parts)
        network = ConvEnergy(
            tuple(shape),
            tuple(zip(self.channels, *each, strict=True)),
            tuple(self.hidden_sizes),
            self.activation,
            rng,
            negative_slope=self.negative_slope,
            pooled=self.pooling is not None,
            attention=tuple(self.attention),
        )
        return with_output(network, self.output, self.learn_gamma)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise ValueError(
                "image_shape must be (channels, height, width) for a convolutional energy, got "
                f"rows of shape {tuple(shape)}. Give the estimator image_shape."
            )
        _check_sizes("channels", self.channels, low=1)
        if not self.channels:
            raise ValueError("channels must be nonempty, got (). One stage is (32,); or use MLP.")
        n = len(self.channels)
        _check_each("kernel_sizes", self.kernel_sizes, n, low=1)
        _check_each("strides", self.strides, n, low=1)
        _check_each("paddings", self.paddings, n, low=0)
        _check_sizes("hidden_sizes", self.hidden_sizes, low=1)
        _check_sizes("attention", self.attention, low=1, high=n)
        check_choice("pooling", self.pooling, (None, "average"))
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_number("negative_slope", self.negative_slope, low=0, high=1)
        check_choice("output", self.output, OUTPUTS)
        check_choice("learn_gamma", self.learn_gamma, (False, True))


class ConvEnergy(ConvNet, Energy):
    """A convolutional network whose output is the energy."""


def _check_sizes(name: str, value: Any, *, low: float, high: float = math.inf) -> None:
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a tuple of integers, got {value!r}. One entry is (3,).")
    for size in value:
        check_number(name, size, low=low, high=high, integer=True)


def _check_each(name: str, value: Any, n: int, *, low: float) -> None:
    sizes = value if isinstance(value, tuple | list) else (value,) * n
    _check_sizes(name, sizes, low=low)
    if len(sizes) != n:
        raise ValueError(
            f"{name} must be one integer or one for each of the {n} entries of channels, got "
            f"{value!r}. Repeat or drop entries."
        )
