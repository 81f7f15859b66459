"""Vector-valued critic whose divergence is written out."""

from __future__ import annotations

__all__ = ["Critic", "CriticNetwork"]

from collections.abc import Callable

import torch

from skebm._components import Component, check_choice, check_number
from skebm.networks.feed_forward import uniform_linear

TRACES = ("exact", "gaussian", "rademacher")


class Critic(Component):
    r"""Perceptron from rows to vectors of the same width, :math:`f: R^d \to R^d`.

    Parameters
    ----------
    hidden_sizes : tuple of int, default=(300, 300)
        Widths. With one or two hidden layers the exact divergence is cheap, see Notes.
    activation : {"swish", "tanh"}, default="swish"
        Swish :math:`a\, \sigma(\beta a)` has a learned beta per unit, 1 at the start.
    linear_skip : bool, default=False
        Add a linear map of the row, 0 at the start: critics of models that differ by a linear score
        are then learnt at once.
    input_scale : float, default=1.0
        Factor on the initial first layer (dimensionless); larger sees finer structure sooner.
    dropout : float, default=0.0
        Share of hidden units that are left out in training, below 1; larger regularizes more.
    spectral_norm : bool, default=False
        Divide each layer's weights after each update by their largest singular value, where that
        is above 1.
    weight_clip : float, optional
        Clip all weights to this absolute value after each update.
    learning_rate : float, optional
        Step of the critic's optimizer (dimensionless for Adam); None takes that of the energy it
        plays against, and 0.001 where it is trained alone, in `skebm.stein`.
    trace : {"exact", "gaussian", "rademacher"}, default="exact"
        The divergence in training: its closed form, or Hutchinson's estimate with one such probe
        per row, as in the paper. Outside training it is always exact.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    With weights :math:`W_1, W_2, W_3` and the activations' derivatives :math:`d_1, d_2` of a row,
    the divergence of two hidden layers is :math:`d_2^T M d_1` with
    :math:`M = W_2 \odot (W_1 W_3)^T`: one product of the hidden widths per row, whatever d. Other
    depths multiply out all of the Jacobian. Training through it takes one backward pass.
    The spectral norm is projected after each update with one step of the power method, instead of
    being a layer's parametrization.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Section 4 and appendix B.1.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import Critic
    >>> network = Critic((16, 16)).build(3, torch.Generator().manual_seed(0))
    >>> value, divergence = network.value_and_divergence(torch.zeros(5, 3))
    >>> value.shape, divergence.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        hidden_sizes: tuple[int, ...] = (300, 300),
        activation: str = "swish",
        linear_skip: bool = False,
        input_scale: float = 1.0,
        dropout: float = 0.0,
        spectral_norm: bool = False,
        weight_clip: float | None = None,
        learning_rate: float | None = None,
        trace: str = "exact",
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.linear_skip = linear_skip
        self.input_scale = input_scale
        self.dropout = dropout
        self.spectral_norm = spectral_norm
        self.weight_clip = weight_clip
        self.learning_rate = learning_rate
        self.trace = trace

    def build(self, n_features: int, rng: torch.Generator) -> CriticNetwork:
        """Return a fresh network for rows of this width."""
        if not isinstance(self.hidden_sizes, tuple | list) or not self.hidden_sizes:
            raise TypeError(
                "hidden_sizes must be a nonempty tuple of integers, got "
                f"{self.hidden_sizes!r}. The paper's critic is (300, 300)."
            )
        for size in self.hidden_sizes:
            check_number("hidden_sizes", size, low=1, integer=True)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("linear_skip", self.linear_skip, (False, True))
        check_number("input_scale", self.input_scale, low=0, open_low=True)
        check_number("dropout", self.dropout, low=0, high=0.99)
        check_choice("spectral_norm", self.spectral_norm, (False, True))
        check_choice("trace", self.trace, TRACES)
        for name in ("weight_clip", "learning_rate"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low=0, open_low=True)
        return CriticNetwork(n_features, self, rng)


class CriticNetwork(torch.nn.Module):
    """The network of a `Critic`; rows (n, d) to vectors (n, d).

    Parameters
    ----------
    n_features : int
        Columns d.
    settings : Critic
        Checked parameters.
    rng : torch.Generator
        Draws the initial weights; its device is the network's.

    Examples
    --------
    >>> import torch
    >>> from skebm.networks import Critic, CriticNetwork
    >>> network = CriticNetwork(2, Critic((8,)), torch.Generator().manual_seed(0))
    >>> network(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, n_features: int, settings: Critic, rng: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        sizes = (n_features, *settings.hidden_sizes, n_features)
        self.layers = uniform_linear(sizes, rng)
        with torch.no_grad():
            for part in self._linear()[0].parameters():
                part.mul_(settings.input_scale)
        device = rng.device
        self.betas = torch.nn.ParameterList(
            torch.nn.Parameter(torch.ones(size, device=device)) for size in settings.hidden_sizes
        )
        self.skip = None
        if settings.linear_skip:
            self.skip = torch.nn.Parameter(torch.zeros(n_features, n_features, device=device))
        if settings.spectral_norm:
            for i, layer in enumerate(self._linear()):
                u = torch.empty(layer.out_features, device=device).normal_(generator=rng)
                self.register_buffer(f"direction_{i}", u / u.norm())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n, d)."""
        return self._run(x, None)[0]

    def value_and_divergence(
        self, x: torch.Tensor, rng: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f (n, d) and its divergence (n,), differentiable in the parameters.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.
        rng : torch.Generator, optional
            Draws dropout and the probes of the trace, in training; without it nothing is left out
            and the divergence is exact.

        Returns
        -------
        value : Tensor of shape (n, d)
            The critic's output.
        divergence : Tensor of shape (n,)
            Trace of its Jacobian J, per unit of x; with a probe v of each row ``v . J v``.
        """
        if rng is None or self.settings.trace == "exact":
            value, derivatives = self._run(x, rng)
            return value, self._trace(derivatives)
        probes = torch.empty_like(x).normal_(generator=rng)
        if self.settings.trace == "rademacher":
            probes = torch.ones_like(x).copysign(probes)
        value, derivatives = self._run(x, rng)
        return value, self._probed(derivatives, probes)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring the weights back into their bounds, after an update."""
        clip = self.settings.weight_clip
        for i, layer in enumerate(self._linear()):
            if self.settings.spectral_norm:
                self._normalize(layer.weight, getattr(self, f"direction_{i}"))
            if clip is not None:
                layer.weight.clamp_(-clip, clip)
                layer.bias.clamp_(-clip, clip)

    def _run(
        self, x: torch.Tensor, rng: torch.Generator | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the critic's output and each hidden layer's derivative, (n, width)."""
        *inner, last = self._linear()
        activation = ACTIVATIONS[self.settings.activation]
        a, derivatives = x, []
        for layer, beta in zip(inner, self.betas, strict=True):
            z = layer(a)
            mask = self._mask(z, rng)
            a, derivative = (f if mask is None else f * mask for f in activation(z, beta))
            derivatives.append(derivative)
        value = last(a)
        return (value if self.skip is None else torch.addmm(value, x, self.skip.T)), derivatives

    def _trace(self, derivatives: list[torch.Tensor]) -> torch.Tensor:
        weights = [layer.weight for layer in self._linear()]
        if len(weights) == 3:
            mixed = weights[1] * (weights[0] @ weights[2]).T
            trace = (torch.mm(derivatives[0], mixed.T) * derivatives[1]).sum(1)
        elif len(weights) == 2:
            trace = derivatives[0] @ (weights[1].T * weights[0]).sum(1)
        else:
            jacobian = derivatives[0][:, :, None] * weights[0]
            for weight, derivative in zip(weights[1:-1], derivatives[1:], strict=True):
                jacobian = derivative[:, :, None] * (weight @ jacobian)
            trace = torch.einsum("dh,nhd->n", weights[-1], jacobian)
        return trace if self.skip is None else trace + self.skip.trace()

    def _mask(self, z: torch.Tensor, rng: torch.Generator | None) -> torch.Tensor | None:
        """Return the factors of dropout, 0 or 1 / (share kept)."""
        share = self.settings.dropout
        if rng is None or share == 0:
            return None
        # sixteen bits a unit, four units a draw: bernoulli_ takes several times as long
        draws = torch.empty(-(-z.numel() // 4), dtype=torch.int64, device=z.device)
        bits = draws.random_(-(2**63), None, generator=rng).view(torch.int16)
        kept = bits[: z.numel()].view(z.shape) >= round(share * 2**16) - 2**15
        return kept.to(z.dtype).div_(1 - share)

    def _probed(self, derivatives: list[torch.Tensor], probes: torch.Tensor) -> torch.Tensor:
        *inner, last = self._linear()
        tangent = probes
        for layer, derivative in zip(inner, derivatives, strict=True):
            tangent = (tangent @ layer.weight.T) * derivative
        tangent = tangent @ last.weight.T
        if self.skip is not None:
            tangent = tangent + probes @ self.skip.T
        return (probes * tangent).sum(1)

    def _normalize(self, weight: torch.Tensor, u: torch.Tensor) -> None:
        """Take one step of the power method: the weights move little between updates."""
        v = torch.nn.functional.normalize(weight.T @ u, dim=0)
        u.copy_(torch.nn.functional.normalize(weight @ v, dim=0))
        weight.div_((u @ weight @ v).clamp(min=1))

    def _linear(self) -> list[torch.nn.Linear]:
        return list(self.layers)  # type: ignore[arg-type]


def _swish(a: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``a sigmoid(beta a)`` and its derivative in a."""
    u = a * beta
    s = torch.sigmoid(u)
    return a * s, s * (1 + u * (1 - s))


def _tanh(a: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``tanh(a)`` and its derivative; it has no beta."""
    value = torch.tanh(a)
    return value, 1 - value * value


Activation = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
ACTIVATIONS: dict[str, Activation] = {"swish": _swish, "tanh": _tanh}
