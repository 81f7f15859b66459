"""Rows that do not fit in memory: fits and scores of a file of 1e8 rows beside 1e6 of them.

A memory map of 10 float32 columns on a bent sheet is written block by block (4 GB), and each
estimator fitted to it, then to 1,000,000 of its rows in memory, each in a process of its own.
"passes" are the seconds in which the fit reads the file from end to end, "rest" what is left of its
time; "peak" is anonymous memory (RssAnon), sampled all the time, the start of the process included.
"held out" is the mean log density of 20,000 fresh rows, nats; "lead" is that of the file's fit over
the other's. A part of the file (--scored) is scored by `score_blocks`.

Bar, for each estimator: peak below 1.5 GB; the rest at most twice the fit of 1e6 rows; held out not
lower by more than 0.02 nats and two standard errors.

Run: python examples/benchmarks/cost/large.py [--rows 1e8] [--only NCEDensity] [--folder DIR]
"""

from __future__ import annotations

import logging
import multiprocessing
import re
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import skebm

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

ESTIMATORS = ("NCEDensity", "USPDensity", "HybridCDDensity")
COLUMNS, BLOCK, FRESH, IN_MEMORY = 10, 250_000, 20_000, 1_000_000
MOST_MEMORY, SLOWER, LOWER = 1500, 2.0, 0.02  # MB, times, nats
CONTEXT = multiprocessing.get_context("spawn")


def rows(n: int, seed: int) -> np.ndarray:
    """Return rows (n, 10) of a sheet that is bent."""
    X = np.random.default_rng([seed, n]).normal(size=(n, COLUMNS)).astype(np.float32)
    X[:, 1::2] = 0.3 * X[:, 1::2] + np.sin(2 * X[:, 0::2])
    return X


def write(path: str, n: int) -> None:
    """Write n rows to a file."""
    X = np.memmap(path, np.float32, "w+", shape=(n, COLUMNS))
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        X[start : start + m] = rows(m, seed=1 + start)
    X.flush()


class Peak:
    """The most anonymous memory of this process, in MB, looked at every 5 ms."""

    def __init__(self) -> None:
        self.value = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            found = re.search(r"RssAnon:\s+(\d+) kB", status)
            self.value = max(self.value, float(found[1]) * 1.024e-3 if found else 0.0)
            time.sleep(0.005)


class Passes(logging.Handler):
    """The seconds of passes, from what a fit says of them."""

    seconds = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Add up passes over all rows."""
        found = re.match(r"pass: .*\(([\d.]+) s\)", record.getMessage())
        self.seconds += float(found[1]) if found else 0.0


def fitted(name: str, path: str, n: int, chosen: int, scored: int, seed: int, smoke: bool) -> dict:
    """Fit an estimator to a file, or to `chosen` of its rows; return what it cost and is worth."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    passes, peak = Passes(), Peak()
    logging.getLogger("skebm").addHandler(passes)
    logging.getLogger("skebm").setLevel(logging.INFO)
    X = np.memmap(path, np.float32, "r", shape=(n, COLUMNS))
    table = X
    if chosen:
        some = np.random.default_rng(seed).choice(n, min(chosen, n), replace=False)
        table = np.array(X[np.sort(some)])
    est = getattr(skebm, name)(random_state=seed, **({"max_iter": 5} if smoke else {}))
    start = time.perf_counter()
    est.fit(table)
    found = {"seconds": time.perf_counter() - start, "passes": passes.seconds}
    found["held_out"] = est.score_samples(rows(FRESH if not smoke else 500, seed=0))
    start = time.perf_counter()
    m = sum(len(block) for block in est.score_blocks(X[:scored])) if not chosen else 0
    found["scored"] = m / (time.perf_counter() - start)
    return found | {"peak": peak.value}


def apart(*args) -> dict:
    """Fit in a process of its own."""
    with CONTEXT.Pool(1) as pool:
        return pool.apply(fitted, args)


def judged(name: str, many: dict, few: dict) -> list[list]:
    """Return what is found beside each bar of an estimator."""
    lead = many["held_out"] - few["held_out"]
    least = -LOWER - 2 * lead.std() / len(lead) ** 0.5
    slower = (many["seconds"] - many["passes"]) / few["seconds"]
    return [
        [f"{name}: peak MB", many["peak"], MOST_MEMORY, yes(many["peak"] < MOST_MEMORY)],
        [f"{name}: rest / fit in memory", slower, SLOWER, yes(slower <= SLOWER)],
        [f"{name}: lead, nats", lead.mean(), least, yes(lead.mean() >= least)],
    ]


def told(name: str, rows_in: str, n: int, found: dict) -> list:
    """Return the numbers of one fit."""
    read = f"{n / found['passes']:.3g}" if found["passes"] else "-"
    scored = f"{found['scored']:.3g}" if found["scored"] else "-"
    times = (found["seconds"], found["passes"], read, scored)
    return [name, rows_in, *times, found["peak"], found["held_out"].mean()]


def main() -> None:
    """Write the file, fit, and print the bars, then the numbers."""
    args = parse(
        __doc__,
        seeds=1,
        rows={"type": float, "default": 1e8, "help": "rows of the file (1e8)"},
        scored={"type": float, "default": 1e7, "help": "of them that are scored (1e7)"},
        only={"nargs": "+", "choices": ESTIMATORS, "default": ESTIMATORS, "help": "estimators"},
        folder={"default": None, "help": "where the file is written (a temporary folder)"},
    )
    n = 150_000 if args.smoke else int(args.rows)
    scored, chosen = min(int(args.scored), n // 10 if args.smoke else n), min(IN_MEMORY, n // 2)
    print_title(f"A file of {n:,} rows x {COLUMNS}, and {chosen:,} of them in memory", args)
    bars, numbers = [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = str(Path(folder) / "rows.f32")
        write(path, n)
        for name in args.only:
            for seed in range(args.seeds):
                many, few = (
                    apart(name, path, n, of_them, scored, seed, args.smoke)
                    for of_them in (0, chosen)
                )
                bars += judged(name, many, few)
                numbers += [told(name, "file", n, many), told(name, "memory", n, few)]
    print_table(["", "found", "bar", "met"], bars)
    head = ["fit", "rows in", "fit s", "passes s", "read/s", "scored/s", "peak MB", "held out"]
    print_table(head, numbers)


if __name__ == "__main__":
    main()
