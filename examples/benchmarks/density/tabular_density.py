"""Held-out log likelihood on real tables: every estimator beside mixtures, kernels and flows.

Normal rows alone, at most 10,000; columns that are constant or (to a millionth of their variance)
a linear combination of earlier ones are dropped; each column with fewer distinct values than half
its rows, or a value that more than 1 % of them share, gets uniform noise as wide as its smallest
gap, at least 0.01 standard deviations. 80 % of the rows train, and each method holds out what it
needs of them; columns are standardized on them. Tables with fewer than 1,000 rows, on which nothing
could be told apart, and with more than 40 columns, which would take the splines of NSF an hour, are
left out. Log densities in nats per row, standardized space. The median stands beside the mean,
which a few far rows can decide.

"lead" is the paired difference to the best of GaussianMixture (up to 30 components, chosen on a
tenth), KernelDensity, MAF and NSF (zuko), the best by mean on the test itself. A table counts where
after the noise no value is shared by more than 5 % and the paired standard error is below 0.2.
"base" is the model without its energy. Bars, for one and the same estimator: its lead is above 0 on
two thirds of the tables that count, and nowhere is it below GaussianMixture by more than 0.3 nats
and 2 standard errors. Settings were chosen on the seven tables of TUNED, the others are reported
by themselves. Results are kept in a CSV file, so that a run that was stopped goes on.

Tables: $SKEBM_DATA/tabular, or without SKEBM_DATA two that ship with scikit-learn.

Run: python examples/benchmarks/density/tabular_density.py [--tables "4*"] [--methods "USP*" MAF]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skebm import USPDensity
from skebm.datasets import read_npz_table
from skebm.exceptions import ConvergenceError
from skebm.ood import EnsembleDensity

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    Kept,
    base_log_density,
    fingerprint,
    fit_timed,
    paired,
    parse,
    plus_minus,
    print_table,
    print_title,
    yes,
)
from examples.benchmarks._peers import BestKernelDensity, BestMixture, Flow, is_installed
from examples.benchmarks.novelty.tabular_novelty import OURS

MOST_ROWS, FEWEST_ROWS, MOST_COLUMNS = 10_000, 1000, 40
FEW_DISTINCT, ATOM, NARROWEST, DEPENDENT = 0.5, 0.01, 0.01, 1e-6
LARGEST_ATOM, LARGEST_STDERR, BELOW, SHARE = 0.05, 0.2, 0.3, 2 / 3
TUNED = {"20_letter", "22_magic.gamma", "23_mammography", "38_thyroid", "41_Waveform", "44_Wilt"}
TUNED |= {"kin8nm"}
MIXTURE = "GaussianMixture"
PEERS = {
    MIXTURE: lambda seed: BestMixture("held out", random_state=seed),
    "KernelDensity": lambda seed: BestKernelDensity(),
}
if is_installed("zuko"):
    PEERS["MAF"] = lambda seed: Flow("MAF", 5000, random_state=seed)
    PEERS["NSF"] = lambda seed: Flow("NSF", 5000, random_state=seed)
THREE = "three USPDensity"
DENSITIES = OURS | {
    # with a threshold from training rows, so that none are kept from all members
    THREE: lambda seed: EnsembleDensity(
        USPDensity(), n_estimators=3, contamination=0.05, random_state=seed
    )
}
METHODS = DENSITIES | PEERS
KEY = ("table", "seed", "method", "settings")
VALUES = ("n_train", "n_features", "atom", "mean", "median", "stderr", "base", "log_z_stderr")
VALUES += ("fit_s", "notes")


def independent(X: np.ndarray) -> np.ndarray:
    """Drop columns that are constant or depend linearly on earlier ones."""
    X = X[:, np.ptp(X, axis=0) > 0]
    X = (X - X.mean(0)) / X.std(0)
    kept: list[np.ndarray] = []
    for column in X.T:
        rest = column.copy()
        for _ in range(2):  # twice is enough to be orthogonal
            for other in kept:
                rest -= other * (other @ rest)
        norm = np.linalg.norm(rest)
        if norm**2 > DEPENDENT * len(X):
            kept.append(rest / norm)
        else:
            kept.append(np.zeros_like(rest))
    return X[:, [bool(column.any()) for column in kept]]


def dequantized(X: np.ndarray, rng: np.random.RandomState) -> tuple[np.ndarray, float]:
    """Return columns with noise where they are few-valued, and the largest share of one value."""
    X, largest = X.copy(), 0.0
    for j in range(X.shape[1]):
        values, counts = np.unique(X[:, j], return_counts=True)
        if len(values) < FEW_DISTINCT * len(X) or counts.max() > ATOM * len(X):
            width = max(np.diff(values).min(), NARROWEST * X[:, j].std())
            X[:, j] += width * rng.uniform(size=len(X))
            counts = np.unique(X[:, j], return_counts=True)[1]
        largest = max(largest, counts.max() / len(X))
    return X, float(largest)


def read_csv(path: Path) -> np.ndarray:
    """Read the numeric columns of a comma-separated table."""
    X = np.genfromtxt(path, delimiter=",")
    return X[:, ~np.isnan(X).all(0)]


def tables(args: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and rows."""
    folder = os.environ.get("SKEBM_DATA")
    if folder is None or args.smoke:
        found = {"breast_cancer": load_breast_cancer, "iris": load_iris}
        for name, loader in found.items():
            if fnmatch(name, args.tables) and not (args.smoke and name == "breast_cancer"):
                yield name, loader(return_X_y=True)[0]
        return
    root = Path(folder, "tabular")
    for path in sorted([*root.glob("adbench/*.npz"), *root.glob("uci/*.csv.gz")]):
        name = path.name.removesuffix(".csv.gz").removesuffix(".npz")
        if not fnmatch(name, args.tables):
            continue
        if path.suffix == ".npz":
            X, y = read_npz_table(path)
            X = X[y == 0]
        else:
            X = read_csv(path)
        if len(X) >= FEWEST_ROWS and X.shape[1] <= MOST_COLUMNS:
            yield name, X


def split(X: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return standardized training and test rows, and the largest atom."""
    rng = np.random.RandomState(seed)
    X = independent(X[rng.permutation(len(X))[:MOST_ROWS]])
    X, atom = dequantized(X, rng)
    train, test = train_test_split(X, test_size=0.2, random_state=seed)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test), atom


def one(est: Any, X: np.ndarray, T: np.ndarray, atom: float, path: Path) -> list:
    """Fit one method; keep its log densities of the test rows for the pairs."""
    start = time.perf_counter()
    try:
        seconds, notes = fit_timed(est, X)
        values = est.score_samples(T)
    except ConvergenceError:
        values, seconds, notes = np.full(len(T), -1e30), time.perf_counter() - start, "diverged"
    np.save(path, values)
    base = off = float("nan")
    if hasattr(est, "base_") and est.log_partition_ is not None:
        base, off = float(base_log_density(est, T).mean()), est.log_partition_.stderr
    mean, stderr = paired(values)
    found = [mean, float(np.median(values)), stderr, base, off]
    return [len(X), X.shape[1], atom, *found, seconds, notes]


class Table:
    """What the methods made of one table and seed."""

    def __init__(self, name: str, seed: int, rows: dict[str, dict], values: dict) -> None:
        self.name, self.seed, self.rows, self.values = name, seed, rows, values

    def size(self) -> str:
        row = next(iter(self.rows.values()))
        return f"{row['n_train']} x {row['n_features']}"

    def best_peer(self) -> str | None:
        return max(
            (m for m in self.values if m in PEERS),
            key=lambda m: self.values[m].mean(),
            default=None,
        )

    def lead(self, method: str, other: str) -> tuple[float, float]:
        return paired(self.values[method] - self.values[other])

    def counts(self, method: str) -> bool:
        """Whether the table can tell the method from the best of its peers."""
        peer = self.best_peer()
        atom = float(next(iter(self.rows.values()))["atom"])
        return (
            peer is not None and atom < LARGEST_ATOM and self.lead(method, peer)[1] < LARGEST_STDERR
        )


def measure(args: Any, methods: list[str]) -> list[Table]:
    kept = Kept(args.csv, [*KEY, *VALUES], len(KEY))
    folder = args.csv.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, X in tables(args):
        for seed in range(args.seeds):
            train, test, atom = split(X, seed)
            rows, values = {}, {}
            for method in methods:
                est = METHODS[method](seed)
                if args.smoke and method in OURS:
                    est.set_params(max_iter=3, log_partition="importance")
                settings = fingerprint(est)
                path = folder / f"{name}_{seed}_{method}_{settings}.npy"
                row = kept.get(
                    [name, seed, method, settings],
                    lambda est=est, path=path, a=train, b=test, c=atom: one(est, a, b, c, path),
                )
                rows[method] = dict(zip(VALUES, row[len(KEY) :], strict=True))
                values[method] = np.load(path)
            found.append(Table(name, seed, rows, values))
        print(f"{name} done", file=sys.stderr, flush=True)
    return found


def verdicts(found: list[Table], method: str) -> list[list]:
    """Return for the tables that count how often the method leads, and its losses to mixtures."""
    counted = [t for t in found if t.counts(method)]
    leads = [t.lead(method, t.best_peer())[0] for t in counted]
    wins = sum(lead > 0 for lead in leads)
    text = f"{wins} of {len(counted)}, median lead {np.median(leads):+.3f}" if leads else "none"
    lines = [[method, "leads on 2/3", text, yes(bool(leads) and wins >= SHARE * len(leads))]]
    losses = []
    for table in counted if MIXTURE in found[0].values else []:
        mean, stderr = table.lead(method, MIXTURE)
        if mean < -BELOW and mean < -2 * stderr:
            losses.append(f"{table.name} ({plus_minus((mean, stderr))})")
    lines.append([method, f"nowhere below {MIXTURE}", ", ".join(losses) or "-", yes(not losses)])
    return lines


def main() -> None:
    extra: dict[str, dict] = {
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "methods": {"nargs": "+", "default": ["*"], "help": "names, as patterns of the shell (*)"},
        "csv": {"type": Path, "default": Path("output/tabular_density.csv"), "help": "results"},
    }
    args = parse(__doc__, seeds=1, **extra)
    methods = [m for m in METHODS if any(fnmatch(m, pattern) for pattern in args.methods)]
    if args.smoke:
        methods = [m for m in methods if m in ("USPDensity", MIXTURE)]
    print_title("Held-out log likelihood on real tables, nats per row", args)
    found = measure(args, methods)
    lines = []
    for title, part in (
        ("all", found),
        ("chosen on", [t for t in found if t.name in TUNED]),
        ("the others", [t for t in found if t.name not in TUNED]),
    ):
        for method in methods:
            if method in DENSITIES and part:
                lines += [[title, *line] for line in verdicts(part, method)]
    print_table(["tables", "method", "bar", "found", "met"], lines)
    for title, column in (("mean", "mean"), ("median", "median"), ("fit seconds", "fit_s")):
        print(f"{title}:")
        body = [
            [
                t.name,
                t.seed,
                f"{t.rows[methods[0]]['n_train']} x {t.rows[methods[0]]['n_features']}",
            ]
            + [float(t.rows[m][column]) for m in methods]
            for t in found
        ]
        print_table(["table", "seed", "rows", *methods], body)
    print("lead over the best peer ('-': the table does not count):")
    ours = [m for m in methods if m in DENSITIES]
    body = [
        [t.name, t.seed, t.best_peer() or "-"]
        + [
            plus_minus(t.lead(m, t.best_peer())) + ("" if t.counts(m) else " -")
            if t.best_peer()
            else "-"
            for m in ours
        ]
        + [f"{float(t.rows[m]['base']):.3f}" for m in ours]
        for t in found
    ]
    print_table(["table", "seed", "best peer", *ours, *[f"base of {m}" for m in ours]], body)


if __name__ == "__main__":
    main()
