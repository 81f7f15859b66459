"""log Z of random small fits: value +- 2 standard errors covers the truth, or a warning says not.

Each fit draws its table (a kind, rows, columns), its estimator, its base and its length; the energy
is always kept. The truth is quadrature on the finest grid, with what lies beyond it by draws, in up
to 3 columns (2 over a kernel base); above, and where that grid has not settled, half a million
fresh draws (a quarter of them over a kernel base): of the base, or half of the base and half of a
defensive mixture fitted to annealed draws of the model. Fits whose truth is not known within 0.02
nats, or half of their own error, are left out and counted.

Bars: covered in at least 90 % of all and 92 % of the fits without a warning, and no fit without a
warning off by more than 5 standard errors + 0.05 nats.

Run: python examples/benchmarks/validity/log_z_coverage.py --fits 200 (or --quick for 40)
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from skebm import HybridCDDensity, NCEDensity, USPDensity
from skebm.bases import Base, Defensive
from skebm.bases.kernel import KernelBase
from skebm.energies import Model
from skebm.exceptions import NormalizationWarning
from skebm.fitted.annealed import anneal
from skebm.partition import LogPartition, Quadrature
from skebm.partition._base import from_log_weights

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

KINDS = ("normal", "modes", "t3", "lognormal", "bent", "uniform")
N_LONG, BLOCK = 2**19, 2**14


def table(kind: str, n: int, d: int, rng: np.random.RandomState) -> np.ndarray:
    z = rng.randn(n, d)
    if kind == "modes":
        z = 0.4 * z + 3 * rng.randn(3, d)[rng.randint(3, size=n)]
    elif kind == "t3":
        z = rng.standard_t(3, size=(n, d))
    elif kind == "lognormal":
        z = np.exp(0.8 * z)
    elif kind == "bent":
        z[:, 1::2] = 0.4 * z[:, 1::2] + 0.7 * (z[:, : d - d % 2 : 2] ** 2 - 1)
    elif kind == "uniform":
        z = rng.rand(n, d)
    return z @ (np.eye(d) + 0.3 * rng.randn(d, d) / math.sqrt(d))


def random_fit(seed: int, smoke: bool):
    """Return an estimator fitted to a table, its name and whether log Z came with a warning."""
    rng = np.random.RandomState(seed)
    d = int(rng.choice([1, 2, 3])) if seed % 2 else int(rng.randint(5, 21))
    kind, n = str(rng.choice(KINDS)), int(rng.randint(60, 800))
    X = table(kind, n, d, rng)
    cls = (HybridCDDensity, USPDensity, NCEDensity)[rng.randint(3)]
    base = str(rng.choice(["gaussian", "mixture", "kernel"]))
    max_iter = 5 if smoke else int(rng.randint(30, 250))
    settings = {"base": base, "max_iter": max_iter, "validation_fraction": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est = cls(**settings, random_state=seed).fit(X)
    warned = any(issubclass(w.category, NormalizationWarning) for w in caught)
    return est, f"{cls.__name__}, {base}, {kind} {n} x {d}", warned


@torch.no_grad()
def by_long_run(model: Model, base: Base, rng: torch.Generator, n: int) -> LogPartition:
    """Return the better of two: fresh draws of the base, and those of it and a new mixture."""
    near = Defensive().fit(anneal(model, base, 2000, rng).x, None, rng)
    both, alone = [], []
    for i in range(n // BLOCK):
        x = (base, near)[i % 2].sample(BLOCK, rng)
        log_p, log_q = -model.potential(x), base.log_prob(x)
        both.append(log_p - torch.logaddexp(log_q, near.log_prob(x)) + math.log(2))
        alone += [log_p - log_q] if i % 2 == 0 else []
    runs = [from_log_weights(torch.cat(w), "long run") for w in (both, alone)]
    return min(runs, key=lambda run: (not run.trusted, run.stderr))


def truth_of(est, seed: int, smoke: bool) -> LogPartition:
    rng = torch.Generator().manual_seed(10_000 + seed)
    model, base = est.density_.model, est.base_
    slow = isinstance(base, KernelBase)
    if est.n_features_in_ <= (2 if slow else 3):
        grid = Quadrature(1e-9).estimate(model, base, rng)
        if grid.stderr <= 0.005:
            return grid
    return by_long_run(model, base, rng, 2**16 if smoke else 2**17 if slow else N_LONG)


def shown(name: str, z: LogPartition, truth: LogPartition, warned: bool, seconds: float) -> None:
    error = z.value - truth.value
    print(
        f"{name:50s} {z.method:10s} {z.value:9.4f} +- {z.stderr:.4f}  off {error:+.4f} +- "
        f"{truth.stderr:.4f}  k {z.pareto_k:5.2f}  {'warned' if warned else ''} {seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    options = {
        "fits": {"type": int, "default": 200, "help": "number of fits (200)"},
        "quick": {"action": "store_true", "help": "40 fits"},
        "first": {"type": int, "default": 0, "help": "seed of the first fit"},
    }
    args = parse(__doc__, **options)
    n_fits = 2 if args.smoke else 40 if args.quick else args.fits
    print_title(f"log Z of {n_fits} random fits against the truth, nats", args)
    found, unknown = [], 0
    for seed in range(args.first, args.first + n_fits):
        start = time.perf_counter()
        est, name, warned = random_fit(seed, args.smoke)
        z, truth = est.log_partition_, truth_of(est, seed, args.smoke)
        known = truth.trusted and truth.stderr <= max(0.02, 0.5 * z.stderr)
        unknown += not known
        if known:
            found.append((z.value - truth.value, z.stderr, truth.stderr, warned))
        shown(f"{seed} {name}", z, truth, warned, time.perf_counter() - start)
    error, stderr, known_to, warned = (np.array(column) for column in zip(*found, strict=True))
    silent = warned == 0
    covered = np.abs(error) <= 2 * np.hypot(stderr, known_to)
    beyond = np.abs(error) - 5 * np.hypot(stderr, known_to) - 0.05
    rows = [
        ["all", len(error), float(covered.mean()), "0.90", yes(covered.mean() >= 0.9)],
        ["without a warning", int(silent.sum()), float(covered[silent].mean()), "0.92"],
        ["farthest beyond 5 stderr + 0.05", int(silent.sum()), float(beyond[silent].max()), "0"],
    ]
    rows[1].append(yes(covered[silent].mean() >= 0.92))
    rows[2].append(yes(beyond[silent].max() <= 0))
    print_table(["fits", "number", "covered", "bar", "met"], rows)
    print(f"{unknown} fits left out, whose truth is not known well enough; {warned.sum()} warned.")


if __name__ == "__main__":
    main()
