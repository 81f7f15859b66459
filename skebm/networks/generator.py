"""Generators: networks from latent noise to rows, with Jacobians written out."""

from __future__ import annotations

__all__ = ["GeneratorComponent", "GeneratorNetwork", "MLPGenerator"]

import math
from abc import abstractmethod
from typing import Any

import torch
from torch.nn.functional import silu, softplus

from skebm._components import Component, check_choice, check_number
from skebm.networks.feed_forward import uniform_linear

ACTIVATIONS = ("tanh", "silu", "softplus", "prelu")
OUTPUTS = ("identity", "tanh")
PRELU_SLOPE = 0.25  # the framework's initial slope
FEW_LATENTS, FEW_SCALE = 3, 5.0  # of "auto"
SKIP_SHRINK = 0.1  # of the perceptron beside a linear skip


class GeneratorComponent(Component):
    """Parameters of a generator, a network from N(0, I) in a latent space to rows.

    A subclass may have ``latent_dim``, ``observation_noise``, ``learning_rate`` and ``betas`` as
    parameters beside those of the network; their defaults are here.

    Examples
    --------
    >>> from skebm.networks import GeneratorComponent, MLPGenerator
    >>> isinstance(MLPGenerator(), GeneratorComponent)
    True
    """

    flat: bool = False  # whether it takes images as flat rows
    latent_dim: int | None = None
    observation_noise: float | str = "auto"
    learning_rate: float = 2e-3
    betas: tuple[float, float] | None = None

    def check(self) -> None:
        """Check the parameters that all generators share."""
        if self.latent_dim is not None:
            check_number("latent_dim", self.latent_dim, low=1, integer=True)
        if self.observation_noise != "auto":
            remedy = "Or use 'auto'."
            check_number("observation_noise", self.observation_noise, low=0, remedy=remedy)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)

    def optimization(self, energy: Any) -> Any:
        """Return the settings of its optimizer, given those of the energy's."""
        betas = energy.betas if self.betas is None else self.betas
        return energy.with_params(learning_rate=self.learning_rate, betas=betas, weight_decay=0.0)

    @abstractmethod
    def build(
        self, latent_dim: int, shape: tuple[int, ...], rng: torch.Generator
    ) -> torch.nn.Module:
        """Return a fresh module that maps (n, latent_dim) to (n, ...)."""


class MLPGenerator(GeneratorComponent):
    r"""Perceptron from latent noise to rows.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(128, 128)
        Widths; none should be below the latent dimension, or the map loses rank.
    activation : {"tanh", "silu", "softplus", "prelu"}, default="tanh"
        Parametric ReLU has one learned slope per layer, 0.25 at the start.
    input_scale : float or "auto", default="auto"
        Factor on the initial first layer (dimensionless); larger lets the map bend within a smaller
        distance. ``"auto"`` is 5 up to 3 latent dimensions, 1 above.
    linear_skip : bool or "auto", default="auto"
        Add a learned linear map of the latents, the identity at the start, to a perceptron that
        starts at a tenth of its size: the map then starts without folds. ``"auto"`` does where
        rows have as many values as latents, above 3.
    batch_norm : bool, default=False
        Normalize after each activation, with the statistics of the batch in training mode and
        running ones else.
    output : {"identity", "tanh"}, default="identity"
        ``"tanh"`` keeps rows in [-1, 1], for images.
    latent_dim : int, default=None
        Length d of the latents; None is the number of columns, the case in which the theory holds,
        and at most 128 for images. With fewer the generator's density lives on a surface: there are
        no bounds without `observation_noise`, and energy slopes off the surface go unpenalized.
    observation_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on generated rows, standardized units; it gives the
        generator a density in the full space. ``"auto"`` is 0.05 for VERA's entropy, else 0.
    learning_rate : float, default=0.004
        Step of the generator's optimizer (dimensionless).
    betas : tuple of float, default=None
        Adam's decay rates for the generator; None takes those of the energy.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    A Jacobian with d latent dimensions costs d forward passes of a batch; the derivative of its
    volume along a direction costs as much again and builds no graph.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Tables 6 and 7.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import MLPGenerator
    >>> network = MLPGenerator((16,)).build(2, (3,), torch.Generator().manual_seed(0))
    >>> x, jacobian = network.value_and_jacobian(torch.zeros(5, 2))
    >>> x.shape, jacobian.shape
    (torch.Size([5, 3]), torch.Size([5, 3, 2]))
    """

    flat = True

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] = (128, 128),
        activation: str = "tanh",
        input_scale: float | str = "auto",
        linear_skip: bool | str = "auto",
        batch_norm: bool = False,
        output: str = "identity",
        latent_dim: int | None = None,
        observation_noise: float | str = "auto",
        learning_rate: float = 4e-3,
        betas: tuple[float, float] | None = None,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.input_scale = input_scale
        self.linear_skip = linear_skip
        self.batch_norm = batch_norm
        self.output = output
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.learning_rate = learning_rate
        self.betas = betas

    @classmethod
    def toy(cls) -> MLPGenerator:
        """Return Table 6's generator: 100-100, parametric ReLU, then batch normalization.

        Returns
        -------
        MLPGenerator
            With ``input_scale=1.0`` and no linear skip.
        """
        return cls((100, 100), "prelu", 1.0, linear_skip=False, batch_norm=True)

    @classmethod
    def mnist(cls) -> MLPGenerator:
        """Return Table 7's generator: 500-1000-2000 and a tanh at the end.

        The table has widths alone; parametric ReLU and batch normalization are those of the toy
        generator.

        Returns
        -------
        MLPGenerator
            With ``input_scale=1.0`` and no linear skip.
        """
        sizes = (500, 1000, 2000)
        return cls(sizes, "prelu", 1.0, linear_skip=False, batch_norm=True, output="tanh")

    def build(
        self, latent_dim: int, shape: tuple[int, ...], rng: torch.Generator
    ) -> GeneratorNetwork:
        """Return a fresh network."""
        if not isinstance(self.hidden_sizes, tuple | list) or not self.hidden_sizes:
            raise TypeError(
                "hidden_sizes must be a nonempty tuple of integers, got "
                f"{self.hidden_sizes!r}. One layer is (128,)."
            )
        for size in self.hidden_sizes:
            check_number("hidden_sizes", size, low=1, integer=True)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("batch_norm", self.batch_norm, (False, True))
        check_choice("output", self.output, OUTPUTS)
        scale = self.input_scale
        if isinstance(scale, str) and scale == "auto":
            scale = FEW_SCALE if latent_dim <= FEW_LATENTS else 1.0
        check_number("input_scale", scale, low=0, open_low=True, remedy="Or use 'auto'.")
        check_choice("linear_skip", self.linear_skip, (False, True, "auto"))
        skip = bool(self.linear_skip)
        if self.linear_skip == "auto":
            skip = FEW_LATENTS < latent_dim == math.prod(shape)
        network = GeneratorNetwork(latent_dim, tuple(shape), self, rng)
        network.start_at(float(scale), skip)
        return network


class GeneratorNetwork(torch.nn.Module):
    """The network of an `MLPGenerator`; latents (n, d) to rows (n, ...).

    Parameters
    ----------
    latent_dim : int
        d.
    shape : tuple of int
        Shape of a row; D is its product.
    settings : MLPGenerator
        Checked parameters.
    rng : torch.Generator
        Draws the initial weights, uniform in +-1/sqrt(fan in); its device is the network's.

    Notes
    -----
    Jacobians take batch normalization at its running statistics, whatever the mode: with those of
    the batch, rows would depend on one another.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import GeneratorNetwork, MLPGenerator
    >>> rng = torch.Generator().manual_seed(0)
    >>> GeneratorNetwork(2, (3,), MLPGenerator((8,)), rng)(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        settings: MLPGenerator,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        device, hidden = rng.device, tuple(settings.hidden_sizes)
        self.layers = uniform_linear((latent_dim, *hidden, math.prod(shape)), rng)
        self.skip: torch.nn.Parameter | None = None
        self.slopes = None
        if settings.activation == "prelu":
            self.slopes = torch.nn.ParameterList(
                torch.nn.Parameter(torch.full((1,), PRELU_SLOPE, device=device)) for _ in hidden
            )
        self.norms = None
        if settings.batch_norm:
            self.norms = torch.nn.ModuleList(
                torch.nn.BatchNorm1d(width, device=device) for width in hidden
            )

    @torch.no_grad()
    def start_at(self, input_scale: float, linear_skip: bool) -> None:
        """Scale the initial first layer; add the linear skip."""
        first, last = self._linear()[0], self._linear()[-1]
        first.weight.mul_(input_scale)
        first.bias.mul_(input_scale)
        if linear_skip:
            last.weight.mul_(SKIP_SHRINK)
            last.bias.mul_(SKIP_SHRINK)
            eye = torch.eye(last.out_features, first.in_features, device=first.weight.device)
            self.skip = torch.nn.Parameter(eye)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n, ...)."""
        *inner, last = self._linear()
        a = z
        for i, layer in enumerate(inner):
            a = self._activate(i, layer(a))
            if self.norms is not None:
                a = self.norms[i](a)
        x = last(a) if self.skip is None else last(a) + z @ self.skip.T
        return (x.tanh() if self.settings.output == "tanh" else x).view(-1, *self.shape)

    def value_and_jacobian(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows (n, D) and Jacobians (n, D, d) with a graph through parameters and z."""
        *inner, last = self._linear()
        tangents: torch.Tensor | None = None
        a = z
        for i, layer in enumerate(inner):
            pushed = _push(tangents, layer)
            a, slope = self._normalize(i, *self._pair(i, layer(a)))
            tangents = slope * pushed
        x, jacobian = self._skipped(z, last(a), _push(tangents, last))
        if self.settings.output == "tanh":
            x = x.tanh()
            jacobian = (1 - x.square()) * jacobian
        return x, jacobian.permute(1, 2, 0)

    @torch.no_grad()
    def jacobian_and_change(
        self, z: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows (n, D), Jacobians (n, D, d) and their derivatives along v (n, d).

        Second derivatives in forward mode: one pass for the value, d for the Jacobian and d for its
        change, without a graph.
        """
        *inner, last = self._linear()
        tangents: torch.Tensor | None = None
        change: torch.Tensor | None = None
        a = z
        for i, layer in enumerate(inner):
            pushed = _push(tangents, layer)
            u = layer(a)
            a, slope = self._pair(i, u)
            turn = self._bend(u, a, slope) * _along(v, pushed)
            a, slope = self._normalize(i, a, slope)
            tangents = slope * pushed
            bent = (turn if self.norms is None else turn * self._norm_scale(i)) * pushed
            change = bent if change is None else bent.addcmul_(slope, change @ layer.weight.T)
        assert change is not None  # there is a hidden layer
        change = change @ last.weight.T
        x, jacobian = self._skipped(z, last(a), _push(tangents, last))
        if self.settings.output == "tanh":
            x = x.tanh()
            slope = 1 - x.square()
            turn = -2 * x * slope * _along(v, jacobian)
            jacobian, change = slope * jacobian, slope * change + turn * jacobian
        return x, jacobian.permute(1, 2, 0), change.permute(1, 2, 0)

    def _skipped(
        self, z: torch.Tensor, x: torch.Tensor, jacobian: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the linear skip to rows (n, D) and derivatives (d, n, D)."""
        if self.skip is None:
            return x, jacobian
        return x + z @ self.skip.T, jacobian + self.skip.T[:, None, :]

    def _activate(self, i: int, u: torch.Tensor) -> torch.Tensor:
        kind = self.settings.activation
        if kind == "tanh":
            return u.tanh()
        if kind == "silu":
            return silu(u)
        if kind == "softplus":
            return softplus(u)
        return self._pair(i, u)[0]

    def _pair(self, i: int, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the activation and its derivative."""
        kind = self.settings.activation
        if kind == "tanh":
            a = u.tanh()
            return a, 1 - a.square()
        if kind == "silu":
            s = u.sigmoid()
            a = u * s
            return a, torch.addcmul(s, a, 1 - s)
        if kind == "softplus":
            return softplus(u), u.sigmoid()
        assert self.slopes is not None
        slope = torch.where(u > 0, 1.0, self.slopes[i])
        return u * slope, slope

    def _bend(self, u: torch.Tensor, a: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Return the second derivative at u, given the activation and its derivative there."""
        kind = self.settings.activation
        if kind == "tanh":
            return -2 * a * slope
        if kind == "softplus":
            return slope * (1 - slope)
        if kind == "prelu":
            return torch.zeros_like(slope)
        s = u.sigmoid()
        return s * (1 - s) * (2 + u * (1 - 2 * s))

    def _normalize(
        self, i: int, a: torch.Tensor, slope: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply batch normalization at running statistics to a value and a derivative."""
        if self.norms is None:
            return a, slope
        norm, scale = self.norms[i], self._norm_scale(i)
        assert isinstance(norm.running_mean, torch.Tensor) and isinstance(norm.bias, torch.Tensor)
        return (a - norm.running_mean) * scale + norm.bias, slope * scale

    def _norm_scale(self, i: int) -> torch.Tensor:
        assert self.norms is not None
        norm = self.norms[i]
        return norm.weight * (norm.running_var + norm.eps).rsqrt()  # type: ignore[operator]

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]


def _push(tangents: torch.Tensor | None, layer: torch.nn.Linear) -> torch.Tensor:
    """Return the derivatives (d, n, width) after a layer; None stands for the identity."""
    return layer.weight.T[:, None, :] if tangents is None else tangents @ layer.weight.T


def _along(v: torch.Tensor, tangents: torch.Tensor) -> torch.Tensor:
    """Return the derivative (n, width) along v (n, d) from those by latent (d, n or 1, width)."""
    if tangents.shape[1] == 1:
        return v @ tangents[:, 0]
    return torch.einsum("nk,knw->nw", v, tangents)
