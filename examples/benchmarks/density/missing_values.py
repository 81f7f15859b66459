"""Tables with holes: log density of what is there, imputation and its intervals, beside peers.

Tables and dequantisation as in tabular_density.py, at most 2,500 rows, four fifths of which train;
20 % of all cells are hidden at random. "gain" is the log density of what is there in test rows,
nats per row, over the same estimator fitted to a table in which means were filled in. Draws:
continuous ranked probability score of 64 draws of each hidden cell, standard deviations, beside
draws of IterativeImputer and values of KNNImputer. Means: root mean square error beside
IterativeImputer and KNNImputer. "inside" is how often the middle 90 % of 256 draws hold the value.
Bars: gain at least 0.5 nats on every table; draws best on two thirds of the tables, means not
above IterativeImputer's on average; 87 to 93 % inside; a fit at most three times as long as one
without holes.

Run: python examples/benchmarks/density/missing_values.py [--tables "4*"] [--seeds 3]
"""

from __future__ import annotations

import sys
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from skebm import USPDensity

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes
from examples.benchmarks.density.tabular_density import split, tables

MOST_ROWS, HIDDEN, N_DRAWS, FEWEST_COLUMNS = 2500, 0.2, 64, 5
GAIN, SHARE, INSIDE, SLOWER = 0.5, 2 / 3, (0.87, 0.93), 3.0


def holed(X: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Hide cells at random, of each row not all."""
    hidden = rng.uniform(size=X.shape) < HIDDEN
    hidden[hidden.all(1), 0] = False
    return np.where(hidden, np.nan, X)


def crps(draws: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean score of draws (s, n) of values (n,)."""
    ordered = np.sort(draws, axis=0)
    n = len(draws)
    rank = (2 * np.arange(1, n + 1) - n - 1)[:, None]
    spread = (rank * ordered).sum(0) / n**2
    return float((np.abs(draws - truth).mean(0) - spread).mean())


def one(X: np.ndarray, T: np.ndarray, seed: int, **params: Any) -> dict[str, float]:
    """Return all numbers of one table."""
    rng = np.random.RandomState(seed)
    train, test = holed(X, rng), holed(T, rng)
    hidden, truth = np.isnan(test), T[np.isnan(test)]
    est, whole, filled = (USPDensity(random_state=seed, **params) for _ in range(3))
    start = time.process_time()
    whole.fit(X)
    seconds = time.process_time() - start
    start = time.process_time()
    est.fit(train)
    ratio = (time.process_time() - start) / seconds
    means = SimpleImputer().fit(train)
    filled.fit(means.transform(train))
    found = {"gain": est.score(test) - filled.score(test), "fit ratio": ratio}
    start = time.process_time()
    est.score_samples(test)
    of_holed = time.process_time() - start
    start = time.process_time()
    est.score_samples(T)
    found["row ratio"] = of_holed / (time.process_time() - start)
    drawn = est.conditional_sample(test, n_samples=256, random_state=seed)
    drawn = drawn.transpose(1, 0, 2)[:, hidden]
    found["crps"] = crps(drawn[:N_DRAWS], truth)
    posterior = IterativeImputer(sample_posterior=True, random_state=seed).fit(train)
    others = np.stack([posterior.transform(test)[hidden] for _ in range(N_DRAWS)])
    found["crps linear"] = crps(others, truth)
    neighbors = KNNImputer().fit(train).transform(test)[hidden]
    found["crps kNN"] = float(np.abs(neighbors - truth).mean())
    linear = IterativeImputer(random_state=seed).fit(train).transform(test)[hidden]
    found["rmse"] = rms(est.conditional_mean(test)[hidden] - truth)
    found["rmse linear"], found["rmse kNN"] = rms(linear - truth), rms(neighbors - truth)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    found["inside"] = float(((truth >= low) & (truth <= high)).mean())
    return found


def rms(off: np.ndarray) -> float:
    return float(np.sqrt((off**2).mean()))


def bars(lines: list[dict[str, float]]) -> list[list]:
    """Return each bar, what was found, and whether it is met."""
    column = {name: np.array([line[name] for line in lines]) for name in lines[0]}
    best = (column["crps"] < column["crps linear"]) & (column["crps"] < column["crps kNN"])
    ratio, inside = (column["rmse"] / column["rmse linear"]).mean(), column["inside"].mean()
    low, high = INSIDE
    return [
        [
            f"gain >= {GAIN:g}",
            f"least {column['gain'].min():.2f}",
            yes(column["gain"].min() >= GAIN),
        ],
        ["draws best on 2/3", f"{best.sum()} of {len(lines)}", yes(best.mean() >= SHARE)],
        ["means' error <= linear", f"{ratio:.3f} of it on average", yes(ratio <= 1)],
        [f"inside {low:g} to {high:g}", f"{inside:.3f} on average", yes(low <= inside <= high)],
        [
            f"fit <= {SLOWER:g} times",
            f"median {np.median(column['fit ratio']):.2f}",
            yes(np.median(column["fit ratio"]) <= SLOWER),
        ],
    ]


def main() -> None:
    extra: dict[str, dict] = {
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
    }
    args = parse(__doc__, seeds=1, **extra)
    print_title("Tables with missing values", args)
    names, lines = [], []
    params = {"max_iter": 3} if args.smoke else {}
    for name, X in tables(args):
        if not fnmatch(name, args.tables) or X.shape[1] < FEWEST_COLUMNS - args.smoke:
            continue
        found = []
        for seed in range(args.seeds):
            some = np.random.RandomState(seed).permutation(len(X))[
                : 80 if args.smoke else MOST_ROWS
            ]
            train, test, _ = split(X[some], seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(one(train, test, seed, **params))
        names.append(name)
        lines.append({key: float(np.mean([f[key] for f in found])) for key in found[0]})
        print(f"{name} done", file=sys.stderr, flush=True)
    print_table(["bar", "found", "met"], bars(lines))
    print_table(
        ["table", *lines[0]], [[n, *line.values()] for n, line in zip(names, lines, strict=True)]
    )


if __name__ == "__main__":
    main()
