"""A Langevin step costs little more than the matrix products of one gradient.

1000 chains on the perceptrons 2-128-128-1 and 10-300-300-1 (SiLU), one thread, CPU time, at least
30 interleaved pairs. Each ratio is another loop's time over skebm's in the same pair, so larger is
better. Bars: at least 0.65 and 0.78 against the bare float32 matrix products of one gradient,
forward and backward, without biases, activations, noise or update; at least 1.8 and 1.3 against
torchebm and 1.5 and 1.3 against ebmkit, where they are installed; at least 1.4 and 1.2 against a
plain autograd loop.

Run: python examples/benchmarks/langevin.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from _common import parse, print_table, print_title, yes

from skebm.energies import MLP
from skebm.samplers import Langevin, run

NETWORKS = ((2, 128), (10, 300))  # columns, width of both hidden layers
BARS = {
    "autograd loop": (1.4, 1.2),
    "matrix products": (0.65, 0.78),
    "torchebm": (1.8, 1.3),
    "ebmkit": (1.5, 1.3),
}
EPS = 0.01
N_CHAINS = 1000


def build(d: int, width: int, seed: int) -> torch.nn.Module:
    """Return a perceptron with a random last layer (an untrained energy ends in zeros)."""
    rng = torch.Generator().manual_seed(seed)
    energy = MLP(hidden_sizes=(width, width), n_frequencies=0).build((d,), rng)
    with torch.no_grad():
        last = energy.layers[-1]
        last.weight.normal_(generator=rng).mul_(width**-0.5)
    return energy.requires_grad_(False)


def ours(energy: torch.nn.Module, x: torch.Tensor, seed: int) -> Callable[[int], None]:
    rng = torch.Generator().manual_seed(seed)
    sampler = Langevin(EPS)
    return lambda n: run(sampler, energy, x, n, rng)


def autograd_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    def loop(n: int) -> None:
        y = x
        for _ in range(n):
            y = y.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(energy(y).sum(), y)
            y = y.detach() - EPS * gradient + (2 * EPS) ** 0.5 * torch.randn_like(y)

    return loop


def matrix_products(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    """Return the five products that a gradient cannot do without, into buffers.

    The product with the last layer's one row on the way back is an outer product with ones, which
    needs no arithmetic, so it is left out of the bound.
    """
    first, second, last = (layer.weight for layer in energy.layers)
    a, b = x.new_empty(len(x), len(first)), x.new_empty(len(x), len(second))
    out, back = x.new_empty(len(x), 1), torch.empty_like(x)

    def loop(n: int) -> None:
        with torch.no_grad():
            for _ in range(n):
                torch.mm(x, first.T, out=a)
                torch.mm(a, second.T, out=b)
                torch.mm(b, last.T, out=out)
                torch.mm(b, second, out=a)
                torch.mm(a, first, out=back)

    return loop


def torchebm_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__(device="cpu")
            self.energy = energy

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.energy(x)

    sampler = LangevinDynamics(Wrapped(), step_size=EPS, device="cpu")
    return lambda n: sampler.sample(x=x, n_steps=n)


def ebmkit_loop(energy: torch.nn.Module, x: torch.Tensor) -> Callable[[int], None]:
    import ebm

    sampler = ebm.LangevinDynamics(step_size=EPS)
    return lambda n: sampler.sample(energy, x, steps=n)


OTHERS = {
    "autograd loop": autograd_loop,
    "matrix products": matrix_products,
    "torchebm": torchebm_loop,
    "ebmkit": ebmkit_loop,
}


def cpu_seconds(loop: Callable[[int], None], n_steps: int) -> float:
    start = time.process_time()
    loop(n_steps)
    return time.process_time() - start


def compare(name: str, energy: torch.nn.Module, x: torch.Tensor, n_pairs: int, n_steps: int):
    """Return microseconds per step of skebm and of the other, and the ratios pair by pair."""
    mine, other = ours(energy, x, 0), OTHERS[name](energy, x)
    for loop in (mine, other):
        loop(max(n_steps // 4, 1))
    times = []
    for i in range(n_pairs):  # which goes first alternates
        loops = (mine, other) if i % 2 == 0 else (other, mine)
        pair = [cpu_seconds(loop, n_steps) for loop in loops]
        times.append(pair if i % 2 == 0 else pair[::-1])
    seconds = np.array(times)
    return np.median(seconds, 0) / n_steps * 1e6, seconds[:, 1] / seconds[:, 0]


def main() -> None:
    args = parse(__doc__, seeds=1, threads=1)
    print_title("Langevin steps: other time / skebm time, medians of pairs", args)
    n_pairs, n_steps = (2, 5) if args.smoke else (40, 20)
    rows = []
    for i, (d, width) in enumerate(NETWORKS):
        energy = build(d, width, seed=0)
        x = torch.randn(N_CHAINS, d, generator=torch.Generator().manual_seed(1))
        for name in OTHERS:
            try:
                (mine, other), ratio = compare(name, energy, x, n_pairs, n_steps)
            except ImportError:
                rows.append([f"{d}-{width}-{width}-1", name, "not installed", *["-"] * 5])
                continue
            bar = BARS[name][i]
            median = float(np.median(ratio))
            rows.append(
                [
                    f"{d}-{width}-{width}-1",
                    name,
                    f"{mine:.0f}",
                    f"{other:.0f}",
                    median,
                    f"{ratio.min():.2f}-{ratio.max():.2f}",
                    f">= {bar:.2f}",
                    yes(median >= bar),
                ]
            )
    columns = ["network", "against", "skebm us", "other us", "ratio", "min-max", "bar", "met"]
    print_table(columns, rows)
    print(
        f"us: CPU microseconds per step of {N_CHAINS} chains; {n_pairs} pairs of {n_steps} steps."
    )


if __name__ == "__main__":
    main()
