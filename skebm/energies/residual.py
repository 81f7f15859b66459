"""Residual convolutional energy of images."""

from __future__ import annotations

__all__ = ["Residual"]

from itertools import pairwise

import torch

from skebm._components import check_number
from skebm.energies._base import Energy, EnergyComponent
from skebm.networks.image_generators import check_images, convolution, drawn


class Residual(EnergyComponent):
    r"""Energy of images: residual blocks that halve the map, then a sum over its positions.

    A block is the sum of a left branch (leaky ReLU, a convolution 3 x 3, leaky ReLU, a second one,
    averages of 2 x 2 pixels) and a right one (a convolution 1 x 1, averages). The first block takes
    the image without a leaky ReLU before it, the last one keeps its size. A leaky ReLU, the sum of
    each channel over the positions and a linear map follow.

    Parameters
    ----------
    channels : tuple of int, default=(64, 128, 256, 512, 1024)
        Output channels of each block; larger is more flexible and slower.
    negative_slope : float, default=0.1
        Of the leaky ReLU (dimensionless), from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter, on rows that are no images and on images that cannot be
        halved in all blocks but the last.

    Notes
    -----
    With the default, images of 64 x 64 are the paper's, but for batch normalization, which would
    mix rows; appendix C too finds training stabler without it. On the right the averages stand
    before the convolution in all blocks, which gives the same numbers at a quarter of the cost.
    An odd row or column of a map is dropped where it is halved.

    Weights and biases start as torch's layers do, uniform in +-1/sqrt(fan in); E does not start at
    0. The score is autograd's. E is piecewise linear in the image, so its second derivatives are 0
    almost everywhere and objectives that need a Laplacian cannot train it.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds", NeurIPS 2021. Table 9 and appendix C.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Residual, energy_and_score
    >>> module = Residual(channels=(4, 8)).build((1, 8, 8), torch.Generator().manual_seed(0))
    >>> energy, score = energy_and_score(module, torch.zeros(5, 1, 8, 8))
    >>> energy.shape, score.shape
    (torch.Size([5]), torch.Size([5, 1, 8, 8]))
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 128, 256, 512, 1024),
        negative_slope: float = 0.1,
    ) -> None:
        self.channels = channels
        self.negative_slope = negative_slope

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for images of this shape, (channels, height, width)."""
        check_images(shape, self.channels, "residual energy")
        check_number("negative_slope", self.negative_slope, low=0, high=1)
        least = 2 ** (len(self.channels) - 1)
        if min(shape[1:]) < least:
            raise ValueError(
                f"image_shape must have sides of at least {least} pixels for {len(self.channels)} "
                f"blocks, got {tuple(shape)}. Drop entries of channels."
            )
        widths = (shape[0], *self.channels)
        return ResidualNetwork(widths, self.negative_slope, rng)


class ResidualNetwork(Energy):
    """Residual blocks between these widths, a sum over positions and a linear output."""

    def __init__(
        self, widths: tuple[int, ...], negative_slope: float, rng: torch.Generator
    ) -> None:
        super().__init__()
        last = len(widths) - 2
        blocks = [
            DownBlock(a, b, negative_slope, rng, first=i == 0, pooled=i < last)
            for i, (a, b) in enumerate(pairwise(widths))
        ]
        self.blocks = torch.nn.Sequential(*blocks, torch.nn.LeakyReLU(negative_slope))
        self.output = drawn(torch.nn.Linear(widths[-1], 1, device="meta"), rng)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, c, h, w) to (n,)."""
        return self.output(self.blocks(x).sum((2, 3))).squeeze(-1)


class DownBlock(torch.nn.Module):
    """Residual block that halves the sides of a map where it is `pooled`."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        negative_slope: float,
        rng: torch.Generator,
        *,
        first: bool,
        pooled: bool,
    ) -> None:
        super().__init__()
        start = [] if first else [torch.nn.LeakyReLU(negative_slope)]
        pool = [torch.nn.AvgPool2d(2)] if pooled else []
        self.left = torch.nn.Sequential(
            *start,
            convolution(n_in, n_out, 3, rng),
            torch.nn.LeakyReLU(negative_slope),
            convolution(n_out, n_out, 3, rng),
            *pool,
        )
        self.right = torch.nn.Sequential(*pool, convolution(n_in, n_out, 1, rng))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in, h, w) to (n, n_out, h, w), or to half these sides."""
        return self.left(x) + self.right(x)
