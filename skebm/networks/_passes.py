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

CHUNK_BYTES = 1 << 19  # of one hidden layer: a few of them stay in a core's cache
MOST_KEPT = 4  # sizes of scratch memory per thread
_MEMORY = threading.local()  # scratch for hidden layers, one set per thread

Plain = Callable[..., torch.Tensor]  # rows, frequencies or None, weights and biases -> value
Layers = list[tuple[torch.Tensor, torch.Tensor]]  # weight and bias
Activate = Callable[[torch.Tensor, torch.Tensor], None]


def is_ordinary(x: torch.Tensor) -> bool:
    """Whether these are rows on the CPU, outside torch's function transforms."""
    return (
        x.device.type == "cpu"
        and x.ndim == 2
        and not torch._C._are_functorch_transforms_active()
        and forward_ad.unpack_dual(x).tangent is None
    )


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
    value = x.new_empty(len(x))
    size = _chunk_rows(x, inner)
    for rows, out in zip(x.split(size), value.split(size), strict=True):
        a = with_waves(rows, frequencies)
        scratch = _scratch(rows, tuple(len(w) for w, _ in inner))
        for (w, b), z in zip(inner, scratch, strict=True):
            a = torch.addmm(b, a, w.T, out=z)
            activate(a)
        torch.addmv(bias, a, weight[0], out=out)
    return value


class TrainingPass(torch.autograd.Function):
    """Output of a perceptron, whose gradient with respect to its parameters is written out.

    The rows get no gradient. A backward pass with a graph is left to autograd.
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
        features, value = with_waves(x, frequencies), x.new_empty(len(x))
        kept = [x.new_empty(len(x), len(w)) for w, _ in inner for _ in range(2)]
        size = _chunk_rows(x, inner)
        pieces = zip(*(t.split(size) for t in (value, features, *kept)), strict=True)
        for out, a, *memory in pieces:
            for (w, b), (z, derivative) in zip(inner, pairs(memory), strict=True):
                a = torch.addmm(b, a, w.T, out=z)
                activate(a, derivative)
            torch.addmv(bias, a, weight[0], out=out)
        ctx.plain, ctx.n_kept = plain, len(kept)
        ctx.save_for_backward(x, features, *kept, frequencies, *parameters)
        return value

    @staticmethod
    def backward(ctx: Any, seed: torch.Tensor) -> Any:  # type: ignore[override]
        """Return the gradient with respect to every parameter from that at the output (n,)."""
        x, features, *rest = ctx.saved_tensors
        kept, (frequencies, *parameters) = rest[: ctx.n_kept], rest[ctx.n_kept :]
        if torch.is_grad_enabled():
            return None, None, None, *_with_graph(ctx.plain, seed, x, frequencies, parameters)
        by_frequency = None if frequencies is None else torch.zeros_like(frequencies)
        gradients = [torch.zeros_like(p) for p in parameters]
        size = _chunk_rows(x, pairs(parameters)[:-1])
        pieces = zip(*(t.split(size) for t in (seed, x, features, *kept)), strict=True)
        for piece in pieces:
            _accumulate(*piece[:3], pairs(piece[3:]), pairs(parameters), gradients, by_frequency)
        return None, None, None, by_frequency, *_unfolded(gradients, parameters[-2], seed)


def _accumulate(
    seed: torch.Tensor,
    x: torch.Tensor,
    features: torch.Tensor,
    kept: list,
    layers: Layers,
    gradients: list[torch.Tensor],
    by_frequency: torch.Tensor | None,
) -> None:
    """Add what rows contribute to the gradient, before the last layer's weights multiply it."""
    *inner, (last, _) = layers
    weights = [w for w, _ in inner]
    weights[-1] = weights[-1] * last.T  # cheaper than to multiply each row
    memory = _scratch(x, tuple(len(w) for w in weights))
    gradients[-2].addmm_(seed[None], kept[-1][0])
    g = torch.mul(kept[-1][1], seed[:, None], out=memory[-1])
    for i in range(len(inner) - 1, -1, -1):
        gradients[2 * i].addmm_(g.T, kept[i - 1][0] if i else features)
        gradients[2 * i + 1].add_(g.sum(0))
        if i:
            g = torch.mm(g, weights[i], out=memory[i - 1]).mul_(kept[i - 1][1])
    if by_frequency is not None:
        d = x.shape[1]
        by_phase = phase_gradient(features[:, d:], g @ weights[0][:, d:])
        by_frequency.addmm_(x.T, by_phase)


def _unfolded(
    gradients: list[torch.Tensor], last: torch.Tensor, seed: torch.Tensor
) -> list[torch.Tensor]:
    """Multiply the gradient of the last hidden layer by the output's weights; add its bias."""
    gradients[-4].mul_(last.T)
    gradients[-3].mul_(last[0])
    gradients[-1].add_(seed.sum())
    return gradients


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
    value = plain(x, frequencies, *parameters)
    found = iter(torch.autograd.grad(value, wanted, seed, create_graph=True))
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
    if size >= len(x):
        return value_and_gradient(x)
    values, gradients = zip(*map(value_and_gradient, x.split(size)), strict=True)
    return torch.cat(values), torch.cat(gradients)


def run_hidden(
    a: torch.Tensor, layers: Layers, activate: Activate
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return each hidden layer's values and derivatives (n, width), in scratch memory."""
    memory = _scratch(a, tuple(len(w) for w, _ in layers for _ in range(2)))
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
    return gradient @ weights[0]


def _chunk_rows(x: torch.Tensor, layers: Layers) -> int:
    return _even_size(x, max(len(w) for w, _ in layers))


def _even_size(x: torch.Tensor, widest: int) -> int:
    """Return how many rows each piece has."""
    n_chunks = -(-len(x) * widest * x.element_size() // CHUNK_BYTES)
    return max(len(x), 1) if x.device.type != "cpu" else -(-len(x) // max(n_chunks, 1)) or 1


def _scratch(x: torch.Tensor, widths: tuple[int, ...]) -> list[torch.Tensor]:
    """Return an uninitialized (n, width) tensor per width, in memory kept from call to call.

    Fresh memory of this size would be handed back to the system and paid for again at each step.
    """
    kept: dict = _MEMORY.__dict__.setdefault("layers", {}) if x.device.type == "cpu" else {}
    key = (widths, x.dtype, torch.is_inference_mode_enabled())  # such tensors stay in their mode
    if key not in kept or len(kept[key][0]) < len(x):
        if len(kept) == MOST_KEPT:
            kept.clear()
        kept[key] = [x.new_empty(len(x), width) for width in widths]
    return [memory[: len(x)] for memory in kept[key]]
