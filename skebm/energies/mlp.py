"""Multi-layer perceptron energy with a closed-form input gradient."""

from __future__ import annotations

__all__ = ["MLP"]

import math
from typing import Any

import torch

from skebm._components import check_choice, check_number
from skebm.energies._base import Energy, EnergyComponent
from skebm.networks import FeedForward
from skebm.networks.feed_forward import ACTIVATIONS

FREQUENCIES, FEW_COLUMNS = 64, 3  # of "auto"
OUTPUTS = ("identity", "quadratic", "linear-quadratic")


class MLP(EnergyComponent):
    r"""Fully connected energy.

    With f the network's output, ``output="identity"`` is :math:`E = f`, ``"quadratic"`` is
    :math:`E = f^2 / 2` and ``"linear-quadratic"`` is :math:`E = f + \beta f^2 / 2` with a learned
    :math:`\beta`, 0 at the start. ``learn_gamma=True`` adds :math:`\gamma \sqrt{d}\, |x|^2`.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(128, 128)
        Widths; larger is more flexible and slower.
    activation : {"silu", "softplus", "tanh", "leaky_relu"}, default="silu"
        Smooth ones give smooth scores.
    output : {"identity", "quadratic", "linear-quadratic"}, default="identity"
        ``"quadratic"`` is bounded below, which a model without a base needs; a log Z it has where f
        keeps its sign far out.
    n_frequencies : int or "auto", default="auto"
        Sine and cosine features of that many learned frequencies stand beside x in front of the
        first layer; 0 is the plain perceptron of the papers. ``"auto"`` is 64 up to three columns,
        where they learn narrow structure that a perceptron misses, and 0 above, where at
        this `max_frequency` they tend to overfit.
    max_frequency : float, default=6.0
        Largest initial frequency, radians per standardized unit; larger resolves finer structure
        and generalizes less.
    input_scale : float, default=2.0
        Factor on the plain perceptron's initial first layer (dimensionless), unused beside
        frequencies; larger resolves finer structure sooner and generalizes less.
    learn_gamma : bool, default=False
        Whether to add :math:`\gamma \sqrt{d}\, |x|^2` with a learned :math:`\gamma`, 0 at the
        start; d is the number of columns.
    negative_slope : float, default=0.05
        Of ``"leaky_relu"`` (dimensionless), from 0 to 1.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    Energy and score of n rows take ``4 n sum(a * b)`` floating-point operations over the weight
    shapes (a, b). ``"identity"`` starts at E = 0 exactly, so training starts at the base; the
    others start at small random values, because f = 0 is a stationary point of the square.

    References
    ----------
    .. [1] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Eq. 20 and the unnumbered equations of section 4.2 with beta
       and with gamma.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import MLP, energy_and_score
    >>> module = MLP(hidden_sizes=(16,)).build((2,), torch.Generator().manual_seed(0))
    >>> energy, score = energy_and_score(module, torch.zeros(5, 2))
    >>> energy.shape, score.shape
    (torch.Size([5]), torch.Size([5, 2]))
    """

    flat = True

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] = (128, 128),
        activation: str = "silu",
        output: str = "identity",
        n_frequencies: int | str = "auto",
        max_frequency: float = 6.0,
        input_scale: float = 2.0,
        learn_gamma: bool = False,
        negative_slope: float = 0.05,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.output = output
        self.n_frequencies = n_frequencies
        self.max_frequency = max_frequency
        self.input_scale = input_scale
        self.learn_gamma = learn_gamma
        self.negative_slope = negative_slope

    @classmethod
    def pointwise(cls, output: str = "identity") -> MLP:
        """Return the perceptron of SP's toy data and of HCD's rings.

        Hidden layers of 32, 64, 64 and 64 with leaky ReLU of slope 0.05, in front of x alone. The
        papers do not state them: they are those of SP's released code, and of the code by Nijkamp
        et al. that HCD builds on, written there as convolutions over one pixel.

        Parameters
        ----------
        output : {"identity", "quadratic", "linear-quadratic"}, default="identity"
            ``"quadratic"`` is SP's activation.

        Returns
        -------
        MLP
            With ``n_frequencies=0`` and ``input_scale=1.0``.
        """
        sizes = (32, 64, 64, 64)
        return cls(sizes, "leaky_relu", output, n_frequencies=0, input_scale=1.0)

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for flat rows of ``shape[0]`` columns."""
        self._check()
        automatic = FREQUENCIES if shape[0] <= FEW_COLUMNS else 0
        n_frequencies = automatic if self.n_frequencies == "auto" else int(self.n_frequencies)
        network = Perceptron(
            shape[0],
            tuple(self.hidden_sizes),
            self.activation,
            rng,
            input_scale=1.0 if n_frequencies else self.input_scale,
            n_frequencies=n_frequencies,
            max_frequency=self.max_frequency,
            zero_output=self.output == "identity",
            negative_slope=self.negative_slope,
        )
        return with_output(network, self.output, self.learn_gamma)

    def _check(self) -> None:
        check_hidden(self.hidden_sizes, self.activation, self.negative_slope)
        check_choice("output", self.output, OUTPUTS)
        if self.n_frequencies != "auto":
            check_number("n_frequencies", self.n_frequencies, low=0, integer=True)
        check_number("max_frequency", self.max_frequency, low=0, open_low=True)
        check_number("input_scale", self.input_scale, low=0, open_low=True)
        check_choice("learn_gamma", self.learn_gamma, (False, True))


def check_hidden(sizes: Any, activation: Any, negative_slope: Any) -> None:
    """Check what says how the hidden layers of a perceptron are."""
    if not isinstance(sizes, tuple | list) or not sizes:
        raise TypeError(
            f"hidden_sizes must be a nonempty tuple of integers, got {sizes!r}. "
            "One layer is (128,)."
        )
    for size in sizes:
        check_number("hidden_sizes", size, low=1, integer=True)
    check_choice("activation", activation, tuple(ACTIVATIONS))
    check_number("negative_slope", negative_slope, low=0, high=1)


def with_output(network: Energy, output: str, learn_gamma: bool) -> Energy:
    """Return the energy that one of ``OUTPUTS``, and gamma where wanted, make of a network."""
    energy = network
    if output != "identity":
        energy = SquaredOutput(network, learn_beta=output == "linear-quadratic")
    return PlusSquaredNorm(energy) if learn_gamma else energy


class Perceptron(FeedForward, Energy):
    """A perceptron whose output is the energy, with its gradient written out."""


class SquaredOutput(Energy):
    """``f^2 / 2`` or ``f + beta f^2 / 2`` of a network with one output; the chain rule by hand."""

    def __init__(self, network: Energy, *, learn_beta: bool) -> None:
        super().__init__()
        self.network = network
        self.learn_beta = learn_beta
        if learn_beta:
            device = next(network.parameters()).device
            self.beta = torch.nn.Parameter(torch.zeros((), device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, ...) to (n,)."""
        f = self.network(x)
        return f + 0.5 * self.beta * f.square() if self.learn_beta else 0.5 * f.square()

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, ...)."""
        f, gradient = self.network.value_and_gradient(x)
        per_row = f.view(-1, *[1] * (x.ndim - 1))
        if self.learn_beta:
            return f + 0.5 * self.beta * f.square(), (1 + self.beta * per_row) * gradient
        return 0.5 * f.square(), per_row * gradient

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at rows x (n, ...), with a graph through the parameters."""
        if not isinstance(self.network, FeedForward):
            return super().directional_derivative(x, v)
        f, along = self.network.value_and_directional(x, v)
        return (1 + self.beta * f) * along if self.learn_beta else f * along


class PlusSquaredNorm(Energy):
    """``E + gamma sqrt(n) |x|^2``, with n numbers in a row x; the sum rule by hand."""

    def __init__(self, energy: Energy) -> None:
        super().__init__()
        self.energy = energy
        device = next(energy.parameters()).device
        self.gamma = torch.nn.Parameter(torch.zeros((), device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, ...) to (n,)."""
        return self.energy(x) + self._factor(x) * x.square().flatten(1).sum(1)

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, ...)."""
        value, gradient = self.energy.value_and_gradient(x)
        factor = self._factor(x)
        value = value + factor * x.square().flatten(1).sum(1)
        return value, gradient + 2 * factor * x

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return gradient . v (n,) at rows x (n, ...), with a graph through the parameters."""
        along = self.energy.directional_derivative(x, v)
        return along + 2 * self._factor(x) * (x * v).flatten(1).sum(1)

    def _factor(self, x: torch.Tensor) -> torch.Tensor:
        return self.gamma * math.sqrt(math.prod(x.shape[1:]))
