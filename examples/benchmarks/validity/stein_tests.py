"""Level, time and accuracy of the Stein tests and of the learned discrepancy.

Level: rejections at 0.05 where the model is right, 10 columns, 500 rows (``--rows 150`` for others,
with a CSV file of their own), one repetition for each seed, N(0, I) and a restricted Boltzmann
machine of 10 hidden units sampled exactly. LKSD stands for the linear-time kernel test, once with
the median width and once with the width that a fifth of the rows chooses.

Time: one LSD test of 1,000 rows in 50 columns, models of an RBM without and with a perturbation of
0.06, and every test from 5,000 to 50,000 rows of an RBM in 50 columns that can be sampled exactly,
against a perturbation of 0.06. The quadratic test is run at 50,000 rows once; with ``--no-ksd`` at
up to 10,000 only, and its time at 50,000 extrapolated with the exponent from there.

Accuracy: the learned discrepancy of N(0, I) and N(1, I) in 10 columns, lambda = 0.5, 10,000 rows,
whose truth is 10. Levels are kept in a CSV file after each repetition, so that a run that was
stopped goes on; ``--threads`` is the number of repetitions at a time there, one thread each, and
the number of torch threads for all other rows; ``--lsd-seeds`` gives LSD fewer repetitions. To
split levels over processes give each repetitions from ``--first`` on and a first file of its own:
further files are read alone.

Run: python examples/benchmarks/validity/stein_tests.py [--seeds 500] [--threads 2] [--no-ksd]
    [--part levels] [--lsd-seeds 100] [--methods LSD KSD] [--csv output/stein_tests.csv]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from skebm.datasets import GaussianDensity, RBMDensity
from skebm.stein import CriticSettings, goodness_of_fit_test, learned_stein_discrepancy

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import Kept, parse, print_table, print_title, yes

ALPHA = 0.05
METHODS: dict[str, dict[str, Any]] = {
    "LSD": {"method": "lsd"},
    "KSD": {"method": "ksd"},
    "LKSD": {"method": "lksd"},
    "LKSD, chosen width": {"method": "lksd", "bandwidth": "optimized"},
    "FSSD": {"method": "fssd"},
}
PARTS = ("all", "levels", "times")
LAWS = ("N(0, I)", "RBM")
D, N = 10, 500
SLOWEST = 6.0  # s, one LSD test at 1,000 rows and 50 columns
SIZES = (5_000, 50_000)
BETWEEN = (10_000, 20_000)  # where the quadratic test is timed too
LARGEST_GROWTH = 12.0  # of LSD's time from the smaller to the larger size
TRUTH, TOLERANCE = 10.0, 0.5  # of the learned discrepancy
COLUMNS = ["law", "method", "seed", "statistic", "p-value", "seconds"]


def run_test(model: Any, X: np.ndarray, method: str, seed: int, smoke: bool) -> Any:
    """Return the outcome of one test with the package's settings."""
    settings = {**METHODS[method], "critic": CriticSettings(max_iter=20) if smoke else None}
    return goodness_of_fit_test(model, X, alpha=ALPHA, random_state=seed, **settings)


def law(name: str) -> Any:
    """Return the density that is both model and truth."""
    return GaussianDensity(np.eye(D)) if name == LAWS[0] else RBMDensity.random(D, D, 0)


def one_level(name: str, method: str, seed: int, n: int, smoke: bool) -> list:
    """Return a row of the CSV file."""
    torch.set_num_threads(1)
    density = law(name)
    X = density.sample(n, random_state=seed)
    seconds, test = timed(partial(run_test, density, X, method, seed, smoke))
    return [name, method, seed, test.statistic, test.pvalue, seconds]


def levels(args: argparse.Namespace) -> list[list]:
    """Compute what is not in the files; return a row for each law and method."""
    kept, *others = (Kept(path, COLUMNS, key=3) for path in args.csv)
    more = [row for other in others for row in other.rows]
    done = {tuple(row[:3]) for row in [*kept.rows, *more]}
    tasks = [
        (name, method, seed, args.rows, args.smoke)
        for seed in range(args.first, args.seeds)
        for name in LAWS
        for method in args.methods
        if seed < seeds_of(method, args) and (name, method, str(seed)) not in done
    ]
    for row in Parallel(args.threads, return_as="generator")(delayed(one_level)(*t) for t in tasks):
        kept.get(row[:3], lambda row=row: row[3:])
    found = [*kept.rows, *more]
    there = {tuple(row[:2]) for row in found}
    pairs = [(name, method) for name in LAWS for method in args.methods if (name, method) in there]
    return [level(found, *pair, args) for pair in pairs]


def seeds_of(method: str, args: argparse.Namespace) -> int:
    return min(args.seeds, args.lsd_seeds or args.seeds) if method == "LSD" else args.seeds


def level(found: list[list[str]], name: str, method: str, args: argparse.Namespace) -> list:
    """Return the rejection rate of one test, and whether it is within 4 standard errors."""
    n_seeds = seeds_of(method, args)
    rows = [row for row in found if row[:2] == [name, method] and int(row[2]) < n_seeds]
    pvalues, seconds = np.array([row[4:6] for row in rows], dtype=float).T
    rate, error = (pvalues <= ALPHA).mean(), (ALPHA * (1 - ALPHA) / len(rows)) ** 0.5
    result = f"rejects {rate:.3f} ± {error:.3f}, n = {len(rows)}"
    bar, met = f"{ALPHA} ± {4 * error:.3f}", yes(abs(rate - ALPHA) <= 4 * error)
    return [f"level, {name}", method, D, args.rows, f"{np.median(seconds):.2f}", result, bar, met]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def one_test(smoke: bool) -> list[list]:
    """Time one LSD test after a first short one, three machines for each perturbation."""
    d, n_hidden, n = (10, 8, 100) if smoke else (50, 40, 1_000)
    run_test(GaussianDensity(np.eye(D)), np.random.RandomState(0).randn(200, D), "LSD", 0, True)
    rows = []
    for sigma in (0.0, 0.06):
        times, updates = [], []
        for seed in range(1 if smoke else 3):
            machine = RBMDensity.random(d, n_hidden, seed)
            X, model = machine.sample(n, seed, n_burn_in=500), machine.perturbed(sigma, seed)
            seconds, test = timed(partial(run_test, model, X, "LSD", seed, smoke))
            times.append(seconds)
            updates.append(test.history[-1]["iteration"])
        result = f"{min(times):.1f} to {max(times):.1f} s, {min(updates)} to {max(updates)} updates"
        cells = [f"{np.median(times):.2f}", result, f"<= {SLOWEST:g} s"]
        name = f"one test, sigma {sigma:g}"
        rows.append([name, "LSD", d, n, *cells, yes(np.median(times) <= SLOWEST)])
    return rows


def growth(args: argparse.Namespace) -> list[list]:
    """Time each test at both sizes; the quadratic one between them too."""
    d, n_hidden = (5, 4) if args.smoke else (50, 10)
    small, large = (200, 400) if args.smoke else SIZES
    machine = RBMDensity.random(d, n_hidden, 0)
    model, X = machine.perturbed(0.06, 0), machine.sample(large, random_state=0)
    rows = []
    for method in METHODS:
        quadratic = method == "KSD"
        sizes = [small, *(() if args.smoke or not quadratic else BETWEEN), large]
        if quadratic and args.no_ksd:
            sizes = sizes[:-2]
        n_rounds = 1 if method in ("LSD", "KSD") or args.smoke else 3
        seconds, notes = {}, {}
        for n in sizes:
            runs = [
                timed(partial(run_test, model, X[:n], method, i, args.smoke))
                for i in range(n_rounds)
            ]
            seconds[n] = float(np.median([s for s, _ in runs]))
            updates = [test.history[-1]["iteration"] for _, test in runs if test.history]
            notes[n] = f"{np.median(updates):.0f} updates" if updates else ""
        rows += growth_rows(method, d, large, seconds, notes)
        print(*rows[-1], file=sys.stderr)  # minutes pass here
    return rows


def growth_rows(
    method: str, d: int, large: int, seconds: dict[int, float], notes: dict[int, str]
) -> list[list]:
    """Return a row per size; the last one has the growth and LSD's verdict."""
    rows = [["time in n", method, d, n, f"{s:.2f}", notes[n], "-", "-"] for n, s in seconds.items()]
    (first, *_, last), times = seconds, list(seconds.values())
    growth, how = times[-1] / times[0], ""
    if last != large:
        exponent = np.log(times[-1] / times[-2]) / np.log(last / list(seconds)[-2])
        growth, how = growth * (large / last) ** exponent, f", n^{exponent:.2f} extrapolated"
    rows[-1][5] = f"{notes[last]} {growth:.1f} times from {first} to {large}{how}".strip()
    if method == "LSD":
        rows[-1][6:] = [f"<= {LARGEST_GROWTH:g} times", yes(growth <= LARGEST_GROWTH)]
    return rows


def accuracy(smoke: bool) -> list[list]:
    """Return the learned discrepancy of two Gaussians a unit apart in each column."""
    n, n_seeds = (300, 1) if smoke else (10_000, 3)
    truth, model = GaussianDensity(np.eye(D)), GaussianDensity(np.eye(D), np.ones(D))
    values, times = [], []
    for seed in range(n_seeds):
        X = truth.sample(n, random_state=seed)
        critic = CriticSettings(l2=0.5, max_iter=30 if smoke else 1000)
        fit = partial(learned_stein_discrepancy, model, X, critic=critic, standardize=False)
        seconds, result = timed(partial(fit, random_state=seed))
        values.append(result.value)
        times.append(seconds)
    off = np.abs(np.array(values) - TRUTH).max()
    result_text = f"{np.mean(values):.3f}, {min(values):.3f} to {max(values):.3f}, {n_seeds} seeds"
    cells = [f"{np.median(times):.2f}", result_text, f"{TRUTH:g} ± {TOLERANCE}"]
    return [["discrepancy, a unit apart", "LSD", D, n, *cells, yes(off <= TOLERANCE)]]


def main() -> None:
    extra: dict[str, dict] = {
        "no-ksd": {"action": "store_true", "help": "do not run the quadratic test at 50,000 rows"},
        "part": {"choices": PARTS, "default": "all", "help": "levels, times or both (all)"},
        "lsd-seeds": {"type": int, "default": None, "help": "repetitions of LSD (all)"},
        "rows": {"type": int, "default": N, "help": f"of levels ({N})"},
        "methods": {
            "nargs": "+",
            "choices": METHODS,
            "default": list(METHODS),
            "help": "of levels",
        },
        "first": {"type": int, "default": 0, "help": "repetition of levels to begin with (0)"},
        "csv": {
            "type": Path,
            "nargs": "+",
            "default": [Path("output/stein_tests.csv")],
            "help": "levels so far",
        },
    }
    args = parse(__doc__, seeds=500, threads=2, **extra)
    if args.smoke:
        args.seeds, args.threads = 2, 1
        torch.set_num_threads(1)
        args.rows = 60
        args.csv = [path.with_stem(f"{path.stem}_smoke") for path in args.csv]
    args.csv[0].parent.mkdir(parents=True, exist_ok=True)
    print_title("Stein tests: level, time, accuracy", args)
    rows = []
    if args.part != "levels":
        rows += [*one_test(args.smoke), *growth(args), *accuracy(args.smoke)]
    if args.part != "times":
        rows += levels(args)
    columns = ["what", "method", "columns", "rows", "median s", "result", "bar", "met"]
    print_table(columns, rows)
    print("bars: level within 4 standard errors of 0.05; every seed of the discrepancy.")


if __name__ == "__main__":
    main()
