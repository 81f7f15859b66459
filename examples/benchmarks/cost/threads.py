"""What threads earn: an update with one and with all of them, on an idle and on a busy machine.

Updates of an MLP (forward, backward, Adam) by rows per batch and hidden units, in a process of
their own for each number of threads: milliseconds with one, with all, and their quotient; then the
same while as many other processes as there are cores compute. "rule" is what
`skebm._surroundings.threads` allows. Then what a whole fit takes, as it is and with all threads.

Bar: where the rule gives one thread, all of them are at most 1.5 times faster on an idle machine;
a fit by the rule is not slower than one with all threads on a busy one.

Run: python examples/benchmarks/cost/threads.py
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from skebm import NCEDensity, _surroundings
from skebm.energies import MLP, Model

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

SMOKE = os.environ.get("SKEBM_SMOKE", "0") not in ("", "0")
COLUMNS, SECONDS = 10, 0.02 if SMOKE else 0.5
CORES = os.cpu_count() or 1
SIZES = [(64, 16)] if SMOKE else [(256, 64), (256, 128), (256, 256), (1024, 256), (4096, 256)]
CONTEXT = multiprocessing.get_context("spawn")


def update_ms(rows: int, hidden: int, threads: int) -> float:
    """Return the milliseconds of an update."""
    torch.set_num_threads(threads)
    rng = torch.Generator().manual_seed(0)
    energy = MLP((hidden, hidden)).build((COLUMNS,), rng)
    optimizer, x = torch.optim.Adam(energy.parameters()), torch.randn(rows, COLUMNS, generator=rng)

    def update() -> None:
        optimizer.zero_grad()
        energy(x).mean().backward()
        optimizer.step()

    for _ in range(5):
        update()
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        update()
        n += 1
    return 1e3 * (time.perf_counter() - start) / n


def fit_seconds(earned: float | None) -> float:
    """Return the seconds of a fit to a small table; None lets it use all threads."""
    torch.set_num_threads(CORES)
    if earned is not None:
        _surroundings.EARNED = earned
    X = np.random.default_rng(0).normal(size=(300, 3))
    start = time.perf_counter()
    NCEDensity(max_iter=5 if SMOKE else 1000, n_iter_no_change=None, random_state=0).fit(X)
    return time.perf_counter() - start


def apart(function, *args):
    """Call a function in a process of its own."""
    with CONTEXT.Pool(1) as pool:
        return pool.apply(function, args)


def spin() -> None:
    """Keep a core busy."""
    while True:
        np.linalg.norm(np.ones(1000))


@contextmanager
def busy() -> Iterator[None]:
    """Give every core something else to do."""
    others = [CONTEXT.Process(target=spin, daemon=True) for _ in range(CORES)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()


def allowed(rows: int, hidden: int) -> tuple[float, int]:
    """Return the multiply-adds of an evaluation, and the threads that the rule gives it."""
    energy = MLP((hidden, hidden)).build((COLUMNS,), torch.Generator().manual_seed(0))
    size = Model(energy, None, 1.0).multiply_adds(rows)
    torch.set_num_threads(CORES)
    with _surroundings.threads(size):
        return size, torch.get_num_threads()


def updates() -> tuple[list, bool]:
    """Return the rows of the table of updates, and whether the rule costs little."""
    rows, fine = [], True
    for size in SIZES:
        work, rule = allowed(*size)
        one, every = (apart(update_ms, *size, n) for n in (1, CORES))
        with busy():
            one_busy, every_busy = (apart(update_ms, *size, n) for n in (1, CORES))
        fine &= rule > 1 or one <= 1.5 * every
        ratios = (one / every, one_busy / every_busy)
        times = (one, every, ratios[0], one_busy, every_busy, ratios[1])
        rows.append([*size, f"{work:.1e}", rule, *times])
    return rows, fine


def fits() -> tuple[list, bool]:
    """Return the rows of seconds of a fit, and whether the rule helps a busy machine."""
    rows = []
    for label, earned in (("by the rule", None), ("all threads", 1.0)):
        idle = apart(fit_seconds, earned)
        with busy():
            rows.append([label, idle, apart(fit_seconds, earned)])
    return rows, rows[0][2] <= rows[1][2] or SMOKE


def main() -> None:
    """Print the bars, then both tables."""
    args = parse(__doc__, threads=CORES)
    print_title(f"Threads: one and all {CORES}", args)
    of_updates, fine = updates()
    of_fits, helps = fits()
    print_table(
        ["bar", "met"],
        [
            ["one thread by the rule: at most 1.5 times the time", yes(fine)],
            ["a fit by the rule on a busy machine: not slower", yes(helps)],
        ],
    )
    head = ["rows", "hidden", "multiply-adds", "rule", "one ms", "all ms", "gain"]
    print_table([*head, "busy: one ms", "all ms", "gain"], of_updates)
    print_table(["fit", "idle s", "busy s"], of_fits)


if __name__ == "__main__":
    main()
