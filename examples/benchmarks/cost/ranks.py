"""One model on several ranks: updates per second of two and of one, and held-out likelihood.

Processes of a gloo group on this machine, one thread each. "updates/s" is a convolutional energy of
images (28 x 28, chains of 10 steps from the data and from noise) with the same total batch, in
turns; "per core second" leaves out what waiting and other programs take, and "two that share
nothing" are processes that fit half a batch each and never talk: what the machine allows. "held
out" is the mean log density of 20,000 fresh rows for a table of two columns, sorted, of which each
process has a part; "lead" is that over one process. Then what averaging so many numbers takes, how
many updates of a table's small energy one process makes, and how fast ranks read and sample rows.

Bars: two ranks make at least 1.6 times the updates of one process; held out not apart by more than
two standard errors and 0.02 nats.

Run: python examples/benchmarks/cost/ranks.py [--ranks 1 2 4]
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn

from skebm import HybridCDDensity, NCEDensity
from skebm.data.sources import as_source
from skebm.data.streamed import Stream

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

FASTER, APART, FRESH = 1.6, 0.02, 20_000  # times; nats; rows
SIDE, BATCH, FEW, MANY = 28, 128, 5, 45  # images, their batch, updates of two fits
TURNS, ROWS, EXCHANGES = 5, 20_000, 20
LONG = 2_000_000  # rows of ten columns that are read
SIZES = (2e4, 2e5, 2e6, 2e7)  # parameters


def work(rank: int, n: int, folder: str, job, args) -> None:
    """One rank: the first leaves what a job returns in a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if n > 1:
        address, patience = f"file://{folder}/meeting", timedelta(minutes=20)
        dist.init_process_group("gloo", address, patience, world_size=n, rank=rank)
    found = job(*args)
    if rank == 0:
        np.save(f"{folder}/found.npy", found)
    if n > 1:
        dist.destroy_process_group()


def on_ranks(n: int, job, *args, alone: bool = False) -> np.ndarray:
    """Return what a job returns on the first of n ranks, or of n processes alone."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (1 if alone else n, folder, job, args), n)
        return np.load(f"{folder}/found.npy")


def mine(X: np.ndarray) -> np.ndarray:
    """Return this rank's part of the rows."""
    if not dist.is_initialized():
        return X
    return np.array_split(X, dist.get_world_size())[dist.get_rank()]


def updates_per_second(side: int, batch: int) -> np.ndarray:
    """Fit images for few and for many updates; return the rate between, and by time of the core."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 1, side, side)).cumsum(2).cumsum(3)
    X = mine(X.reshape(len(X), -1))
    seconds = []
    for n in (1, FEW, MANY):  # the first warms up
        start = np.array([time.perf_counter(), time.process_time()])
        HybridCDDensity(
            energy="conv",
            base=None,
            image_shape=(1, side, side),
            batch_size=batch,
            max_iter=n,
            n_iter_no_change=None,
            random_state=0,
        ).fit(X)
        seconds.append(np.array([time.perf_counter(), time.process_time()]) - start)
    return (MANY - FEW) / (seconds[2] - seconds[1])


def curved(n: int, seed: int) -> np.ndarray:
    """Return rows (n, 2) that no Gaussian has, sorted."""
    X = np.random.default_rng([seed, n]).normal(size=(n, 2))
    X[:, 1] = 0.4 * X[:, 1] + X[:, 0] ** 2
    return X[np.argsort(X[:, 0])]


def held_out(n: int, max_iter: int, seeds: int) -> list[np.ndarray]:
    """Fit this rank's part of sorted tables; return the log densities of fresh rows."""
    shared = {"base": "gaussian", "max_iter": max_iter, "n_iter_no_change": None}
    return [
        NCEDensity(**shared, random_state=seed)
        .fit(mine(curved(n, seed)))
        .score_samples(curved(FRESH, seed))
        for seed in range(seeds)
    ]


def exchange_ms(sizes: Sequence[float], n: int) -> list[float]:
    """Return the milliseconds in which ranks average so many numbers."""
    told = []
    for size in sizes:
        numbers, seconds = torch.zeros(int(size)), []
        for _ in range(n):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(numbers)
            seconds.append(time.perf_counter() - start)
        told.append(1e3 * float(np.median(seconds)))
    return told


def small_updates_per_second(max_iter: int) -> float:
    """Return the updates that one process makes of the default energy of a table of 10 columns."""
    X, seconds = np.random.default_rng(0).normal(size=(5000, 10)), []
    for n in (1, 1, max_iter):  # the first warms up
        est = NCEDensity(base="gaussian", max_iter=n, n_iter_no_change=None, random_state=0)
        start = time.perf_counter()
        est.fit(X)
        seconds.append(time.perf_counter() - start)
    return (max_iter - 1) / (seconds[2] - seconds[1])


def read_per_second(n: int) -> float:
    """Return the rows a rank reads a second in the pass that checks and samples a memory map."""
    with tempfile.NamedTemporaryFile() as file:
        X = np.memmap(file.name, np.float32, "w+", shape=(n, 10))
        X[:] = np.random.default_rng(0).normal(size=(n, 10))
        X.flush()
        start = time.perf_counter()
        Stream(as_source(X), None, 0, 0).survey()
        return n / (time.perf_counter() - start)


def of_updates(side: int, turns: int) -> tuple[list, list]:
    """Return the bar of two ranks, and the rates."""
    found = []
    for _ in range(turns):
        found.append([on_ranks(n, updates_per_second, side, BATCH) for n in (1, 2)])
        found[-1].append(on_ranks(2, updates_per_second, side, BATCH // 2, alone=True))
    rates = np.array(found)
    times = float(np.median(rates[:, 1, 0] / rates[:, 0, 0]))
    bar = ["two ranks: times the updates of one process", times, FASTER, yes(times >= FASTER)]
    names = ["1", "2", "two that share nothing"]
    return bar, [[k, *row] for k, row in zip(names, np.median(rates, 0).tolist(), strict=True)]


def of_likelihood(ranks: list[int], n: int, max_iter: int, seeds: int) -> tuple[list, list]:
    """Return the bars of several ranks, and the held-out log likelihoods."""
    bars, told = [], []
    values = {k: on_ranks(k, held_out, n, max_iter, seeds).ravel() for k in ranks}
    for k, found in values.items():
        lead = found - values[1]
        stderr = lead.std() / len(lead) ** 0.5
        told.append([k, float(found.mean()), float(lead.mean()), float(stderr)])
        if k > 1:
            most = APART + 2 * stderr
            name = f"{k} ranks, sorted shards: nats apart"
            bars.append([name, abs(float(lead.mean())), most, yes(abs(lead.mean()) <= most)])
    return bars, told


def main() -> None:
    """Print the bars, then the numbers."""
    args = parse(
        __doc__,
        seeds=3,
        ranks={"type": int, "nargs": "+", "default": [1, 2, 4], "help": "1, and others (1 2 4)"},
    )
    side, turns, n, max_iter = (8, 1, 400, 5) if args.smoke else (SIDE, TURNS, ROWS, 1500)
    print_title("Ranks: one model, several processes", args)
    bar, rates = of_updates(side, turns)
    bars, likelihoods = of_likelihood(args.ranks, n, max_iter, args.seeds)
    print_table(["", "found", "bar", "met"], [bar, *bars])
    print_table(["processes", "updates/s", "per core second"], rates)
    print_table(["processes", "held out", "lead", "stderr"], likelihoods)
    sizes, exchanges = (SIZES[:1], 3) if args.smoke else (SIZES, EXCHANGES)
    of_two, of_four = (on_ranks(k, exchange_ms, sizes, exchanges) for k in (2, 4))
    told = zip((f"{s:.0e}" for s in sizes), of_two.tolist(), of_four.tolist(), strict=True)
    print_table(["numbers", "ms on 2 ranks", "ms on 4"], list(told))
    small = float(on_ranks(1, small_updates_per_second, max_iter))
    read = float(on_ranks(1, read_per_second, LONG // 100 if args.smoke else LONG))
    print_table(["updates/s of a small energy", "rows read/s"], [[small, f"{read:.2e}"]])


if __name__ == "__main__":
    main()
