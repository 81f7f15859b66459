"""Energy of a restricted Boltzmann machine, every derivative in closed form."""

from __future__ import annotations

__all__ = ["MOST_LISTED", "GaussianBernoulliRBM", "RBMEnergy", "enumerate_states"]


from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch.nn.functional import softplus

from skebm._components import as_finite, check_number
from skebm.energies._base import Energy, EnergyComponent

INITIAL_SCALE = 0.01
MOST_LISTED = 15  # hidden units whose 2^h states are listed
LINEAR_ABOVE = 40.0  # exp(-40) is nothing beside 40, in float64 too


class GaussianBernoulliRBM(EnergyComponent):
    r"""Energy of rows under a restricted Boltzmann machine with hidden signs.

    .. math::
        E(x) = |x|^2 / 2 - b \cdot x - \sum_j \log 2 \cosh((x B)_j / 2 + c_j)

    Without a base the model is a mixture of :math:`2^h` Gaussians :math:`N(B h / 2 + b, I)`.

    Parameters
    ----------
    n_hidden : int, default=100
        Hidden units h; larger is more flexible and slower. Where `weights` are given, their number
        of columns counts instead.
    weights : array-like of shape (d, h), default=None
        Initial B, per standardized unit; None draws N(0, 0.01^2).
    visible_bias : array-like of shape (d,), default=None
        Initial b, standardized units; None means zeros.
    hidden_bias : array-like of shape (h,), default=None
        Initial c, nats; None means zeros.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    Notes
    -----
    Energy and gradient of n rows take ``4 n d h`` floating-point operations. The module has
    ``value_and_gradient``, and for training by Stein's identity or score matching ``laplacian`` and
    ``directional_derivative``, which depend on the parameters without a second derivative by
    autograd. ``exact_log_partition`` lists the hidden states, up to 15 units. Each Gaussian has
    variance 1 in standardized units, so without a base columns cannot be narrower than that: scale
    X so that 1 is the width of a cluster, and pass ``standardize=False``.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Section 7.1 and
       Appendix C.3.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import GaussianBernoulliRBM, energy_and_score
    >>> module = GaussianBernoulliRBM(n_hidden=4).build((2,), torch.Generator().manual_seed(0))
    >>> energy, score = energy_and_score(module, torch.zeros(5, 2))
    >>> energy.shape, score.shape
    (torch.Size([5]), torch.Size([5, 2]))
    """

    flat = True

    def __init__(
        self,
        n_hidden: int = 100,
        weights: Any = None,
        visible_bias: Any = None,
        hidden_bias: Any = None,
    ) -> None:
        self.n_hidden = n_hidden
        self.weights = weights
        self.visible_bias = visible_bias
        self.hidden_bias = hidden_bias

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for flat rows of ``shape[0]`` columns."""
        d, device = shape[0], rng.device
        if self.weights is None:
            check_number("n_hidden", self.n_hidden, low=1, integer=True)
            B = torch.empty(d, int(self.n_hidden), device=device)
            B.normal_(generator=rng).mul_(INITIAL_SCALE)
        else:
            B = given("weights", self.weights, (d, None), device)
        b, c = (torch.zeros(size, device=device) for size in B.shape)
        if self.visible_bias is not None:
            b = given("visible_bias", self.visible_bias, (d,), device)
        if self.hidden_bias is not None:
            c = given("hidden_bias", self.hidden_bias, (B.shape[1],), device)
        return RBMEnergy(B, b, c)


class RBMEnergy(Energy):
    """Free energy of weights B (d, h), visible bias b (d,) and hidden bias c (h,)."""

    def __init__(self, B: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        super().__init__()
        self.B, self.b, self.c = (torch.nn.Parameter(part) for part in (B, b, c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self._value(x, self._activation(x))

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        a = self._activation(x)
        return self._value(x, a), torch.addmm(x - self.b, a.tanh(), self.B.T, alpha=-0.5)

    def laplacian(self, x: torch.Tensor, probes: torch.Tensor | None = None) -> torch.Tensor:
        """Return the trace of the Hessian of E at each row, (n,), with a graph."""
        if probes is not None:
            return super().laplacian(x, probes)
        curvature = 1 - self._activation(x).tanh().square()
        return x.shape[1] - 0.25 * curvature @ self.B.square().sum(0)

    def directional_derivative(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the gradient of E times directions v (n, d), shape (n,), with a graph."""
        along_hidden = (self._activation(x).tanh() * (v @ self.B)).sum(1)
        return ((x - self.b) * v).sum(1) - 0.5 * along_hidden

    def hidden_probability(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability of +1 of each hidden unit given x (n, d), shape (n, h)."""
        return (2 * self._activation(x)).sigmoid()

    def visible_mean(self, signs: torch.Tensor) -> torch.Tensor:
        """Return the mean (n, d) of x given hidden signs (n, h); its covariance is I."""
        return torch.addmm(self.b, signs, self.B.T, alpha=0.5)

    @torch.no_grad()
    def exact_log_partition(self) -> float | None:
        """Return log of the integral of exp(-E), nats; None above 15 hidden units."""
        if len(self.c) > MOST_LISTED:
            return None
        B, b, c = (part.double().cpu().numpy() for part in (self.B, self.b, self.c))
        with np.errstate(invalid="ignore", over="ignore"):  # nan where training ran away
            return float(logsumexp(enumerate_states(B, b, c)[1]))

    def _activation(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.c, x, self.B, alpha=0.5)

    def _value(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        quadratic = 0.5 * x.square().sum(1) - x @ self.b
        return quadratic - log_two_cosh(a).sum(1)


def enumerate_states(B: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Return every hidden state (2^h, h) and the log of its Gaussian's unnormalized mass (2^h,).

    With :math:`m = B h / 2 + b` that is :math:`c \cdot h + |m|^2 / 2 + (d / 2) \log 2 \pi`, nats.
    """
    d, n_hidden = B.shape
    bits = np.arange(2**n_hidden)[:, None] >> np.arange(n_hidden) & 1
    states = 2.0 * bits - 1
    quadratic = (states @ (B.T @ B) * states).sum(axis=1) / 8
    log_weights = quadratic + states @ (c + b @ B / 2)
    return states, log_weights + 0.5 * (b @ b + d * np.log(2 * np.pi))


def log_two_cosh(a: torch.Tensor) -> torch.Tensor:
    """Return log(exp(a) + exp(-a)) without overflow, differentiable twice at every a."""
    return (
        softplus(2 * a, threshold=LINEAR_ABOVE) - a
    )  # logaddexp's second derivative is nan far out


def given(
    name: str, value: Any, shape: tuple[int | None, ...], device: torch.device
) -> torch.Tensor:
    """Return an initial parameter as float32 of this shape; None is any size but 0."""
    array = as_finite(name, value)
    wanted = tuple(size or got for size, got in zip(shape, array.shape, strict=False))
    if array.shape != wanted or array.ndim != len(shape) or not array.size:
        rule = ", ".join("h" if size is None else str(size) for size in shape)
        rule = f"({rule},)" if len(shape) == 1 else f"({rule})"
        raise ValueError(f"{name} must have shape {rule}, got {array.shape}. Check the columns.")
    return torch.as_tensor(array, dtype=torch.float32, device=device)
