"""An update of the bidirectional bound costs at most 2.2 times that of WGAN-0GP.

One update is one step of the energy and one of the generator, 256 rows. All rules of a size are
timed in turn, in rounds whose order rotates; "ratio" is the median over rounds of a rule's seconds
over those of ``wgan-0gp`` in the same round, "low-high" the quartiles. Sizes: two columns (energy
128-128 with the default's 64 frequencies or without, generator 128-128), 784 columns with 16
latents, whose Jacobians are formed, and with 128, where singular values are iterated for; there 64
rows, energy and generator 256-256. "BN" is batch normalization in the generator.

The bar is that of two columns without batch normalization, log determinant. Beside it the paper's
Table 5, total hours over iterations, relative to its WGAN-0GP: CIFAR-10 and ANIMEFACE.

Run: python examples/benchmarks/cost/bounds.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from skebm.data import ArrayTable, torch_generator
from skebm.energies import MLP, Model
from skebm.networks import MLPGenerator
from skebm.objectives import BidirectionalBounds, GeneratorEntropy

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

MOST = 2.2
BASELINE = "wgan-0gp"
BB, ZERO = "bidirectional", "zero-centered-gp"
RULES = {
    BASELINE: {"bound": BASELINE},
    "wgan-gp": {"bound": "wgan-gp"},
    "EBM-0GP, logdet": {"bound": ZERO, "entropy": "logdet"},
    "MEG": {"bound": ZERO, "entropy": "mutual-information"},
    "VERA": {"bound": ZERO, "entropy": "variational"},
    "BB, logdet": {"bound": BB, "entropy": "logdet"},
    "BB, singular value": {"bound": BB, "entropy": "singular-value"},
    "BB, Hutchinson": {"bound": BB, "entropy": "hutchinson"},
}
ITERATED = {
    BASELINE: RULES[BASELINE],
    "BB, 2 iterations": {"bound": BB, "entropy": GeneratorEntropy("singular-value", n_lobpcg=2)},
    "BB, 10 iterations": {"bound": BB, "entropy": GeneratorEntropy("singular-value", n_lobpcg=10)},
    "BB, Hutchinson": RULES["BB, Hutchinson"],
}
PAPER = {  # Table 5: hours, thousands of iterations on CIFAR-10, then on ANIMEFACE
    BASELINE: (4.0, 100, 13.0, 100),
    "MEG": (4.5, 100, 20.0, 100),
    "VERA": (10.0, 200, 44.0, 200),
    "EBM-0GP, logdet": (15.0, 200, 38.0, 100),
    "BB, singular value": (20.0, 200, 40.0, 100),
    "BB, 2 iterations": (20.0, 200, 40.0, 100),
}


class Size(NamedTuple):
    """Networks, rows of a batch, and how much is timed."""

    name: str
    columns: int
    latents: int
    energy: MLP
    hidden: tuple[int, ...]
    batch: int
    rules: dict[str, dict]
    n_rounds: int
    n_updates: int  # of a rule in a round


def sizes(smoke: bool) -> list[Size]:
    """Return the sizes; those of the smoke test are narrow and few."""
    toy, wide = ((16, 16), (16, 16)) if smoke else ((128, 128), (256, 256))
    rounds, updates = (2, 1) if smoke else (15, 20)
    found = [
        Size("2", 2, 2, MLP(toy), toy, 256, RULES, rounds, updates),
        Size("2, no freq.", 2, 2, MLP(toy, n_frequencies=0), toy, 256, RULES, rounds, updates),
    ]
    if not smoke:
        image = MLP(wide, n_frequencies=0)
        found.append(Size("784, d = 16", 784, 16, image, wide, 64, RULES, 9, 3))
        found.append(Size("784, d = 128", 784, 128, image, wide, 64, ITERATED, 5, 1))
    return found


def updates(size: Size, rule: dict, batch_norm: bool) -> Callable[[int], float]:
    """Return a function that makes n updates of a rule, after three to warm up, and times them."""
    rng = torch_generator(0)
    x = torch.empty(4096, size.columns).normal_(generator=rng).tanh()
    model = Model(size.energy.build((size.columns,), rng), None, 1.0)
    generator = MLPGenerator(size.hidden, batch_norm=batch_norm, latent_dim=size.latents)
    objective = BidirectionalBounds(generator=generator, **rule)
    draw = partial(ArrayTable(x).draw, size.batch, rng)
    state = objective.init(model, x, rng)

    def timed(n: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(n):
            state, _ = objective.step(model, state, draw, rng)
        return time.perf_counter() - start

    timed(3)
    return timed


def rounds(size: Size, batch_norm: bool) -> dict[str, np.ndarray]:
    """Return seconds of an update of each rule, one per round."""
    timed = {name: updates(size, rule, batch_norm) for name, rule in size.rules.items()}
    names, seconds = list(timed), {name: np.empty(size.n_rounds) for name in timed}
    for i in range(size.n_rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name][i] = timed[name](size.n_updates) / size.n_updates
    return seconds


def by_the_paper(name: str) -> list[str]:
    """Return the paper's hours and the ratios per iteration, CIFAR-10 / ANIMEFACE."""
    if name not in PAPER:
        return ["-", "-"]
    (a, n, b, m), (a0, n0, b0, m0) = PAPER[name], PAPER[BASELINE]
    return [f"{a:g} h / {b:g} h", f"{a / n / (a0 / n0):.2f} / {b / m / (b0 / m0):.2f}"]


def table(size: Size, batch_norm: bool) -> list[list]:
    """Return the rows of one size."""
    seconds, rows = rounds(size, batch_norm), []
    for name, values in seconds.items():
        ratio = values / seconds[BASELINE]
        low, high = np.percentile(ratio, [25, 75])
        median = float(np.median(ratio))
        judged = name == "BB, logdet" and size.columns == 2 and not batch_norm
        ends = [f"<= {MOST}", yes(median <= MOST)] if judged else ["-", "-"]
        cells = [f"{1000 * np.median(values):.2f}", median, f"{low:.2f}-{high:.2f}"]
        rows.append(
            [size.name, "yes" if batch_norm else "no", name, *cells, *by_the_paper(name), *ends]
        )
    return rows


def measure(args: argparse.Namespace) -> list[list]:
    return [
        row
        for size in sizes(args.smoke)
        for batch_norm in (False, True)
        for row in table(size, batch_norm)
    ]


def main() -> None:
    args = parse(__doc__)
    print_title("An update of each bound against one of WGAN-0GP", args)
    columns = ["columns", "BN", "rule", "ms", "ratio", "low-high", "paper's totals", "paper"]
    print_table([*columns, "bar", "met"], measure(args))
    print(
        "ratio: seconds of an update over those of wgan-0gp, median of rounds. paper: the same by "
        "its Table 5, CIFAR-10 / ANIMEFACE, where networks convolve and singular values take 2 "
        "iterations in its code. EBM-0GP has the entropy of BB there, too."
    )


if __name__ == "__main__":
    main()
