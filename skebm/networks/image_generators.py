"""Convolutional and residual generators of images."""

from __future__ import annotations

__all__ = ["ConvGenerator", "ResidualGenerator", "check_images", "convolution", "drawn"]

from itertools import pairwise
from typing import Any, TypeVar

import torch

from skebm._components import check_choice, check_number
from skebm.networks.generator import GeneratorComponent

START = 4  # least side of the first map, pixels: that of the paper's generators
OUTPUTS = {"tanh": torch.nn.Tanh, "identity": torch.nn.Identity}

Layer = TypeVar("Layer", torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)


class ConvGenerator(GeneratorComponent):
    r"""Generator of images by transposed convolutions, a DCGAN.

    A linear map of the noise to a small map, then transposed convolutions 4 x 4 of stride 2, each
    with batch normalization and ReLU, that double the map up to the size of the image, then a
    convolution 3 x 3 to the image's channels.

    Parameters
    ----------
    channels : tuple of int, default=(512, 256, 128, 64)
        Of the first map and after each doubling; larger is more flexible and slower. Images whose
        sides do not halve so often down to whole numbers of at least 4 pixels leave out the first
        entries.
    batch_norm : bool, default=True
        Whether to normalize each channel over the batch before ReLU.
    output : {"tanh", "identity"}, default="tanh"
        ``"tanh"`` keeps every value of an image between -1 and 1.
    latent_dim : int, default=None
        Length d of the latents; None is the number of columns, the case in which the theory holds,
        and at most 128 for images. With fewer the generator's density lives on a surface: there are
        no bounds without `observation_noise`, and energy slopes off the surface go unpenalized.
    observation_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on generated rows, standardized units; it gives the
        generator a density in the full space. ``"auto"`` is 0.05 for VERA's entropy, else 0.
    learning_rate : float, default=0.002
        Step of the generator's optimizer (dimensionless).
    betas : tuple of float, default=None
        Adam's decay rates for the generator; None takes those of the energy.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter, on rows that are no images and on sides that are odd or
        below 8 pixels.

    Notes
    -----
    With the default, images of 32 x 32 are the paper's: 512 channels of 4 x 4 at first. Those of
    28 x 28 start from 256 channels of 7 x 7, those of 14 x 14 from 128 of 7 x 7. Of the linear map
    nothing is normalized or cut off: the table has nothing between it and the first transposed
    convolution.

    Weights and biases start as torch's layers do, uniform in +-1/sqrt(fan in), where a transposed
    convolution counts as fan in what one of its inputs reaches: output channels times 16.

    In train mode batch normalization takes mean and variance from the batch, so an image depends on
    the others of its batch; in eval mode it takes running ones. Jacobians are those of eval mode.
    A density on the generated images needs a Jacobian of full rank, so no map may have fewer values
    than the latent space.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds", NeurIPS 2021. Table 8.
    .. [2] A. Radford, L. Metz and S. Chintala, "Unsupervised Representation Learning with Deep
       Convolutional Generative Adversarial Networks", ICLR 2016. Section 3.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import ConvGenerator
    >>> component = ConvGenerator(channels=(8, 4))
    >>> network = component.build(5, (1, 14, 14), torch.Generator().manual_seed(0))
    >>> network(torch.zeros(3, 5)).shape
    torch.Size([3, 1, 14, 14])
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (512, 256, 128, 64),
        batch_norm: bool = True,
        output: str = "tanh",
        latent_dim: int | None = None,
        observation_noise: float | str = "auto",
        learning_rate: float = 2e-3,
        betas: tuple[float, float] | None = None,
    ) -> None:
        self.channels = channels
        self.batch_norm = batch_norm
        self.output = output
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.learning_rate = learning_rate
        self.betas = betas

    def build(
        self, latent_dim: int, shape: tuple[int, ...], rng: torch.Generator
    ) -> torch.nn.Module:
        """Return a fresh module from noise (n, latent_dim) to images (n, ...)."""
        channels, sides = _check(self, latent_dim, shape)
        parts = _first_map(latent_dim, (channels[0], *sides), rng)
        for a, b in pairwise(channels):
            doubling = torch.nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, device="meta")
            parts += [drawn(doubling, rng), *_rectified(b, self.batch_norm, rng)]
        parts += [convolution(channels[-1], shape[0], 3, rng), OUTPUTS[self.output]()]
        return torch.nn.Sequential(*parts)


class ResidualGenerator(GeneratorComponent):
    r"""Generator of images by residual blocks with nearest-neighbor upsampling.

    A linear map of the noise to a small map, then blocks that double it, the sum of a left and a
    right branch: batch normalization, ReLU, upsampling, a convolution 3 x 3, normalization, ReLU
    and a second convolution on the left; upsampling and a convolution 1 x 1 on the right. At the
    end batch normalization, ReLU and a convolution 3 x 3 to the image's channels.

    Parameters
    ----------
    channels : tuple of int, default=(1024, 512, 256, 128, 64)
        Of the first map and after each block; larger is more flexible and slower. Images whose
        sides do not halve so often down to whole numbers of at least 4 pixels leave out the first
        entries.
    batch_norm : bool, default=True
        Whether to normalize each channel over the batch before ReLU.
    output : {"tanh", "identity"}, default="tanh"
        ``"tanh"`` keeps every value of an image between -1 and 1.
    latent_dim : int, default=None
        Length d of the latents; None is the number of columns, the case in which the theory holds,
        and at most 128 for images. With fewer the generator's density lives on a surface: there are
        no bounds without `observation_noise`, and energy slopes off the surface go unpenalized.
    observation_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on generated rows, standardized units; it gives the
        generator a density in the full space. ``"auto"`` is 0.05 for VERA's entropy, else 0.
    learning_rate : float, default=0.002
        Step of the generator's optimizer (dimensionless).
    betas : tuple of float, default=None
        Adam's decay rates for the generator; None takes those of the energy.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter, on rows that are no images and on sides that are odd or
        below 8 pixels.

    Notes
    -----
    With the default, images of 64 x 64 are the paper's: 1024 channels of 4 x 4 at first. On the
    right the convolution stands before the upsampling, which gives the same numbers at a quarter of
    the cost. Start, modes of batch normalization and rank are as in `ConvGenerator`.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds", NeurIPS 2021. Table 10.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import ResidualGenerator
    >>> component = ResidualGenerator(channels=(8, 6, 4))
    >>> network = component.build(5, (3, 16, 16), torch.Generator().manual_seed(0))
    >>> network(torch.zeros(3, 5)).shape
    torch.Size([3, 3, 16, 16])
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (1024, 512, 256, 128, 64),
        batch_norm: bool = True,
        output: str = "tanh",
        latent_dim: int | None = None,
        observation_noise: float | str = "auto",
        learning_rate: float = 2e-3,
        betas: tuple[float, float] | None = None,
    ) -> None:
        self.channels = channels
        self.batch_norm = batch_norm
        self.output = output
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.learning_rate = learning_rate
        self.betas = betas

    def build(
        self, latent_dim: int, shape: tuple[int, ...], rng: torch.Generator
    ) -> torch.nn.Module:
        """Return a fresh module from noise (n, latent_dim) to images (n, ...)."""
        channels, sides = _check(self, latent_dim, shape)
        parts = _first_map(latent_dim, (channels[0], *sides), rng)
        parts += [UpBlock(a, b, self.batch_norm, rng) for a, b in pairwise(channels)]
        parts += _rectified(channels[-1], self.batch_norm, rng)
        parts += [convolution(channels[-1], shape[0], 3, rng), OUTPUTS[self.output]()]
        return torch.nn.Sequential(*parts)


class UpBlock(torch.nn.Module):
    """Residual block that doubles the sides of a map."""

    def __init__(self, n_in: int, n_out: int, batch_norm: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.left = torch.nn.Sequential(
            *_rectified(n_in, batch_norm, rng),
            torch.nn.Upsample(scale_factor=2),
            convolution(n_in, n_out, 3, rng),
            *_rectified(n_out, batch_norm, rng),
            convolution(n_out, n_out, 3, rng),
        )
        self.right = torch.nn.Sequential(
            convolution(n_in, n_out, 1, rng), torch.nn.Upsample(scale_factor=2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in, h, w) to (n, n_out, 2 h, 2 w)."""
        return self.left(x) + self.right(x)


def drawn(layer: Layer, rng: torch.Generator) -> Layer:
    """Return a layer of the meta device on the generator's, uniform as torch starts it."""
    layer = layer.to_empty(device=rng.device)
    bound = layer.weight[0].numel() ** -0.5  # torch's fan in, also where convolutions transpose
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=rng)
    return layer


def convolution(n_in: int, n_out: int, side: int, rng: torch.Generator) -> torch.nn.Conv2d:
    """Return a convolution with an odd kernel that keeps the sides of a map."""
    layer = torch.nn.Conv2d(n_in, n_out, side, padding=side // 2, device="meta")
    return drawn(layer, rng)


def check_images(shape: tuple[int, ...], channels: Any, network: str) -> None:
    """Raise the house's error unless rows are images and `channels` are at least one width."""
    if len(shape) != 3:
        raise ValueError(
            f"image_shape must be (channels, height, width) for a {network}, got rows of shape "
            f"{tuple(shape)}. Give the estimator image_shape."
        )
    if not isinstance(channels, tuple | list):
        raise TypeError(
            f"channels must be a tuple of integers, got {channels!r}. One entry is (64,)."
        )
    for size in channels:
        check_number("channels", size, low=1, integer=True)
    if not channels:
        raise ValueError("channels must be nonempty, got (). One entry is (64,).")


def _check(
    component: ConvGenerator | ResidualGenerator, latent_dim: int, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the entries of channels that are used and the sides of the first map."""
    check_number("latent_dim", latent_dim, low=1, integer=True)
    check_images(shape, component.channels, "convolutional generator")
    check_choice("batch_norm", component.batch_norm, (False, True))
    check_choice("output", component.output, tuple(OUTPUTS))
    channels, sides = tuple(component.channels), tuple(shape[1:])
    if len(channels) < 2:
        raise ValueError(
            f"channels must have an entry for the first map and one for each doubling, got "
            f"{channels}. One doubling is (128, 64)."
        )
    n = len(channels) - 1
    while n and any(side % 2**n or side < START * 2**n for side in sides):
        n -= 1
    if not n:
        raise ValueError(
            f"image_shape must have even sides of at least {2 * START} pixels for a convolutional "
            f"generator, got {tuple(shape)}. Pad or crop the images."
        )
    return channels[-n - 1 :], tuple(side // 2**n for side in sides)


def _first_map(
    latent_dim: int, shape: tuple[int, ...], rng: torch.Generator
) -> list[torch.nn.Module]:
    n_out = shape[0] * shape[1] * shape[2]
    linear = torch.nn.Linear(latent_dim, n_out, device="meta")
    return [drawn(linear, rng), torch.nn.Unflatten(1, shape)]


def _rectified(n: int, batch_norm: bool, rng: torch.Generator) -> list[torch.nn.Module]:
    normalization = [torch.nn.BatchNorm2d(n, device=rng.device)] if batch_norm else []
    return [*normalization, torch.nn.ReLU()]
