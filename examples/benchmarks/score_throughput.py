"""score_samples runs at 0.8 or more of the bare forward pass, in bounded memory.

1,000,000 rows of 10 columns, float64. The bare pass evaluates the same base and energy in float32
on rows that are standardized already, in blocks of the size that is fastest here. Bars: the
median over interleaved pairs of (bare seconds / score_samples seconds) is at least 0.8, and
score_samples grows the process by at most 100 MB (the result itself is 8 MB).

Run: python examples/benchmarks/score_throughput.py
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from _common import fit_timed, parse, print_table, print_title, yes

from skebm import HybridCDDensity

BLOCKS = (512, 1024, 2048, 4096, 16384, 65536)
MOST_MEGABYTES = 100
STATM = Path("/proc/self/statm")  # Linux: resident pages of this process


def training_rows(n: int) -> np.ndarray:
    """Return n rows on a bent sheet in 10-D, so that the energy has work to do."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((n, 10))
    X[:, 5:] = 0.3 * X[:, 5:] + np.sin(2 * X[:, :5])
    return X


def seconds(function, *args) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def growth(function, *args) -> float | None:
    """Return by how many megabytes resident memory rises, None where it cannot be read."""
    if not STATM.exists():
        return None
    page, stop, peak = os.sysconf("SC_PAGE_SIZE") / 1e6, threading.Event(), [0.0]

    def resident() -> float:
        return int(STATM.read_text().split()[1]) * page

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], resident())

    start = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function(*args)
    finally:
        stop.set()
        watcher.join()
    return max(peak[0] - start, 0.0)


@torch.no_grad()
def bare_pass(est, z: torch.Tensor, block: int) -> list[torch.Tensor]:
    return [est.base_.log_prob(part) - est.energy_(part) for part in z.split(block)]


def standardized(est, X: np.ndarray) -> torch.Tensor:
    """Return the rows as the energy sees them; block by block, to keep the memory flat."""
    z = torch.empty(X.shape)
    for start in range(0, len(X), 65536):
        z[start : start + 65536] = est.density_.standardized(X[start : start + 65536])
    return z


def fastest_block(est, z: torch.Tensor) -> int:
    few = z[: max(len(z) // 10, 1)]
    best = {b: min(seconds(bare_pass, est, few, b) for _ in range(3)) for b in BLOCKS}
    return min(best, key=best.get)


def interleaved(est, X: np.ndarray, z: torch.Tensor, block: int, n_pairs: int) -> np.ndarray:
    """Return (n_pairs, 2) seconds of score_samples and of the bare pass; the order alternates."""
    times = np.empty((n_pairs, 2))
    for i in range(n_pairs):
        for which in (0, 1) if i % 2 else (1, 0):
            if which == 0:
                times[i, 0] = seconds(est.score_samples, X)
            else:
                times[i, 1] = seconds(bare_pass, est, z, block)
    return times


def one(base: str, X: np.ndarray, args) -> list:
    """Fit, measure, and return a row of the table."""
    est = HybridCDDensity(base=base, log_partition="importance", random_state=0)
    est.set_params(max_iter=25 if args.smoke else 300)
    fit_timed(est, training_rows(500 if args.smoke else 5_000))
    est.score_samples(X[:2048])
    grown = growth(est.score_samples, X)
    z = standardized(est, X)
    block = fastest_block(est, z)
    times = interleaved(est, X, z, block, 2 if args.smoke else 7)
    ratio = times[:, 1] / times[:, 0]
    ours, bare = map(float, np.median(times, 0))
    median = float(np.median(ratio))
    small = grown is None or grown <= MOST_MEGABYTES
    return [
        base,
        type(est.energy_).__name__,
        len(X),
        ours,
        bare,
        block,
        median,
        f"{ratio.min():.2f}-{ratio.max():.2f}",
        "-" if grown is None else f"{grown:.0f}",
        f">= 0.80, <= {MOST_MEGABYTES} MB",
        yes(median >= 0.8 and small),
    ]


def main() -> None:
    args = parse(__doc__, seeds=1)
    print_title("score_samples against the bare float32 forward pass", args)
    X = np.empty((5_000 if args.smoke else 1_000_000, 10))
    np.random.default_rng(0).standard_normal(out=X)
    columns = ["base", "energy", "rows", "ours s", "bare s", "bare block", "ratio", "min-max"]
    rows = [one(base, X, args) for base in ("mixture", "gaussian")]
    print_table([*columns, "MB grown", "bar", "met"], rows)
    print("ratio: bare seconds / score_samples seconds, median of interleaved pairs.")


if __name__ == "__main__":
    main()
