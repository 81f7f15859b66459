"""Passes through fully connected layers: derivatives written out, pieces that stay in a cache."""

from __future__ import annotations

__all__ = [
    "Plain",
    "TrainingPass",
    "in_chunks",
    "is_ordinary",
    "run_alone",
    "run_back",
    "run_hidden",
]

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

CHUNK_BYTES = 1 << 20  # of one hidden layer: smaller pieces pay more calls than they save
MOST_KEPT = 4  # sizes of scratch memory per thread
NARROW = 64  # columns below which a product is faster transposed
MOST_LENT = 1 << 24  # bytes of one training pass whose memory is used again
_MEMORY = threading.local()  # scratch for hidden layers, one set per thread

Plain = Callable[..., torch.Tensor]  # rows, frequencies or None, weights and biases -> value
Layers = list[tuple[torch.Tensor, torch.Tensor]]  # weight and bias
Activate = Callable[[torch.Tensor, torch.Tensor], None]


def is_ordinary(x: torch.Tensor) -> bool:
    """Whether these are rows on the CPU, outside torch's function transforms and exports."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and x.ndim == 2
        and not torch._C._are_functorch_transforms_active()
        and forward_ad.unpack_dual(x).tangent is None
    )


def is_batched(x: torch.Tensor) -> bool:
    """Whether this is many tensors to autograd or vmap, which then want no ``out=``."""
    return "Batched" in str(torch._C._dispatch_keys(x))


def with_waves(x: torch.Tensor, frequencies: torch.Tensor | None) -> torch.Tensor:
    """Return x (n, d) with the sines and cosines of its products with m frequencies beside it."""
    if frequencies is None:
        return x
    phase = x @ frequencies
    return torch.cat([x, phase.sin(), phase.cos()], 1)


def phase_gradient(waves: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient (n, m) at the phases, from sines and cosines and that at them (n, 2m)."""
    sine, cosine = waves.chunk(2, 1)
    by_sine, by_cosine = gradient.chunk(2, 1)
    return (by_sine * cosine).addcmul_(by_cosine, sine, value=-1)


def run_alone(
    x: torch.Tensor,
    frequencies: torch.Tensor | None,
    layers: Layers,
    activate: Callable[[torch.Tensor], Any],
) -> torch.Tensor:
    """Return the one output (n,) at rows x (n, d), without a graph; `activate` is in place."""
    *inner, (weight, bias) = layers
    value = x.new_empty(x.shape[0])
    widths = tuple(w.shape[0] for w, _ in inner)
    size = _even_size(x, max(widths))
    for rows, out in zip(x.split(size), value.split(size), strict=True):
        a = with_waves(rows, frequencies)
        scratch = _scratch(rows, widths)
        for (w, b), z in zip(inner, scratch, strict=True):
            a = torch.addmm(b, a, w.T, out=z)
            activate(a)
        torch.mv(a, weight[0], out=out).add_(bias)
    return value


class TrainingPass(torch.autograd.Function):
    """Output of a perceptron, whose gradient with respect to its parameters is written out.

    The rows get no gradient. A backward pass that is to be differentiated is left to autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plain: Plain,
        activate: Activate,
        x: torch.Tensor,
        frequencies: torch.Tensor | None,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Return the output (n,), and keep each hidden layer's values and derivatives."""
        *inner, (weight, bias) = pairs(parameters)
        a = features = with_waves(x, frequencies)
        memory = _Loan(x, tuple(w.shape[0] for w, _ in inner for _ in range(2)))
        for (w, b), (z, derivative) in zip(inner, pairs(memory.layers), strict=True):
            a = torch.addmm(b, a, w.T, out=z)
            activate(a, derivative)
        ctx.plain, ctx.memory = plain, memory
        ctx.save_for_backward(x, features, frequencies, *parameters)
        return torch.mv(a, weight[0]).add_(bias)

    @staticmethod
    def backward(ctx: Any, seed: torch.Tensor) -> Any:
        """Return the gradient with respect to every parameter from that at the output (n,)."""
        x, features, frequencies, *parameters = ctx.saved_tensors
        kept = ctx.memory.layers
        if torch.is_grad_enabled() or is_batched(seed):
            return None, None, None, *_with_graph(ctx.plain, seed, x, frequencies, parameters)
        *inner, (last, _) = pairs(parameters)
        weights = [w for w, _ in inner]
        weights[-1] = weights[-1] * last.T  # cheaper than to multiply each row
        by_output = torch.mv(kept[-2].T, seed)[None]
        memory = _Loan(x, tuple(w.shape[0] for w in weights))
        torch.mul(kept[-1], seed[:, None], out=memory.layers[-1])
        first, gradients = _by_layers(memory.layers, weights, features, pairs(kept))
        gradients[-2].mul_(last.T)
        gradients[-1].mul_(last[0])
        by_frequency = None
        if frequencies is not None:
            d = x.shape[1]
            by_phase = phase_gradient(features[:, d:], first @ weights[0][:, d:])
            by_frequency = x.T @ by_phase
        return None, None, None, by_frequency, *gradients, by_output, seed.sum().view(1)


def _by_layers(
    flow: list[torch.Tensor], weights: list[torch.Tensor], features: torch.Tensor, kept: Layers
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the gradient before the first activation, and those with respect to parameters.

    The last entry of `flow` holds the one before the last activation; the rest is memory.
    """
    gradients: list[torch.Tensor] = []
    for i in range(len(weights) - 1, 0, -1):
        value, derivative = kept[i - 1]
        gradients[:0] = flow[i].T @ value, flow[i].sum(0)
        torch.mm(flow[i], weights[i], out=flow[i - 1]).mul_(derivative)
    # with few columns this product is fast one way round only
    gradients[:0] = (features.T @ flow[0]).T.contiguous(), flow[0].sum(0)
    return flow[0], gradients


def _with_graph(
    plain: Plain,
    seed: torch.Tensor,
    x: torch.Tensor,
    frequencies: torch.Tensor | None,
    parameters: Sequence[torch.Tensor],
) -> list[torch.Tensor | None]:
    """Return the gradient by autograd, which can be differentiated again."""
    tensors = (frequencies, *parameters)
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        value = plain(x, frequencies, *parameters)
    found = iter(torch.autograd.grad(value, wanted, seed, create_graph=graph))
    return [next(found) if t is not None and t.requires_grad else None for t in tensors]


def pairs(tensors: Sequence[torch.Tensor]) -> Layers:
    """Group weights with the biases, or values with the derivatives, that follow them."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def in_chunks(
    value_and_gradient: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    widest: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply to rows (n, d) in pieces of which a layer of the widest width stays in a cache."""
    size = _even_size(x, widest)
    if size >= x.shape[0]:
        return value_and_gradient(x)
    values, gradients = zip(*map(value_and_gradient, x.split(size)), strict=True)
    return torch.cat(values), torch.cat(gradients)


def run_hidden(
    a: torch.Tensor, layers: Layers, activate: Activate
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return each hidden layer's values and derivatives (n, width), in scratch memory."""
    memory = _scratch(a, tuple(w.shape[0] for w, _ in layers for _ in range(2)))
    hidden, derivatives = memory[::2], memory[1::2]
    for (w, b), z, derivative in zip(layers, hidden, derivatives, strict=True):
        a = torch.addmm(b, a, w.T, out=z)
        activate(a, derivative)
    return hidden, derivatives


def run_back(
    gradient: torch.Tensor,
    weights: list[torch.Tensor],
    hidden: list[torch.Tensor],
    derivatives: list[torch.Tensor],
) -> torch.Tensor:
    """Turn the gradient before the last hidden activation into that at the input (n, d)."""
    # hidden layers are no longer needed: each takes the gradient that flows into it
    for i in range(len(weights) - 1, 0, -1):
        gradient = torch.mm(gradient, weights[i], out=hidden[i - 1]).mul_(derivatives[i - 1])
    return narrow_product(gradient, weights[0])


def narrow_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a (n, k) times b (k, d), up to six times as fast as ``a @ b`` where d is small."""
    if b.shape[1] >= NARROW or a.device.type != "cpu":
        return a @ b
    return (b.T.contiguous() @ a.T).T.contiguous()


def _even_size(x: torch.Tensor, widest: int) -> int:
    """Return how many rows each piece has."""
    n = x.shape[0]
    n_chunks = -(-n * widest * x.element_size() // CHUNK_BYTES) if x.device.type == "cpu" else 1
    return -(-n // max(n_chunks, 1)) or 1


class _Loan:
    """Memory for an (n, width) tensor per width, handed back when the graph that holds it is gone.

    Fresh memory makes a forward pass a quarter slower.
    """

    def __init__(self, x: torch.Tensor, widths: tuple[int, ...]) -> None:
        n = x.shape[0]
        self.layers: list[torch.Tensor] = []
        self._free: list[list[torch.Tensor]] = []  # of no other loan: large ones are not kept
        if n * sum(widths) * x.element_size() <= MOST_LENT:
            pool: dict = _MEMORY.__dict__.setdefault("lent", {})
            key = (n, widths, x.dtype)
            if key not in pool and len(pool) == MOST_KEPT:
                pool.clear()
            self._free = pool.setdefault(key, self._free)
        self.layers = self._free.pop() if self._free else [x.new_empty(n, w) for w in widths]

    def __del__(self) -> None:
        if self.layers and len(self._free) < MOST_KEPT:
            self._free.append(self.layers)


def _scratch(x: torch.Tensor, widths: tuple[int, ...]) -> list[torch.Tensor]:
    """Return an uninitialized (n, width) tensor per width, in memory kept from call to call.

    Fresh memory of this size would be handed back to the system and paid for again at each step.
    """
    n = x.shape[0]
    kept: dict = _MEMORY.__dict__.setdefault("layers", {}) if x.device.type == "cpu" else {}
    key = (widths, x.dtype, torch.is_inference_mode_enabled())  # such tensors stay in their mode
    if key not in kept or kept[key][0].shape[0] < n:
        if len(kept) == MOST_KEPT:
            kept.clear()
        kept[key] = [x.new_empty(n, width) for width in widths]
    memory = kept[key]
    return memory if memory[0].shape[0] == n else [layer[:n] for layer in memory]
