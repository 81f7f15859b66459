"""USPDensity as a one-class detector on real tables, beside nearest neighbors and kernel density.

Half of the normal rows of each table train, the others and all anomalies are the test; columns are
standardized on the training rows, at most 2,000 rows train and 4,000 are scored, at most half of
them anomalies. AUROC of the log density (of minus the distance to the fifth neighbor), mean over
seeds; ranks are among the methods of the run. Both methods take 600 updates at step 0.002, fewer
than by default (tabular_novelty.py has the defaults). Bar: the mean AUROC of USPDensity is at least
that of KernelDensity with cross-validated bandwidth. A fit that does not converge counts 0.5; "base
alone" notes a fit whose energy was dropped. Tables: every .npz file in $SKEBM_DATA/tabular/adbench,
or without SKEBM_DATA the four that ship with scikit-learn. Results are
kept in a CSV file, so that a run that was stopped goes on; fits with other parameters are made
anew.

Run: python examples/benchmarks/usp_novelty.py [--tables "4*"] [--train-rows 2000]
    [--test-rows 4000] [--methods "USPDensity" "5th neighbor"] [--csv output/usp_novelty.csv]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import fingerprint, fit_timed, parse, print_table, print_title, yes
from _peers import BestKernelDensity, FifthNeighbor
from scipy.stats import rankdata
from sklearn.preprocessing import StandardScaler

from skebm import USPDensity
from skebm.datasets import load_novelty, read_npz_table
from skebm.energies import Zero
from skebm.exceptions import ConvergenceError
from skebm.metrics import ood_metrics

sys.path.append(str(Path(__file__).parents[1] / "papers"))
from _paper import Kept

SHIPPED = ("breast_cancer", "digits", "iris", "wine")
CHANCE = 0.5  # AUROC of a fit that raised ConvergenceError
KEY = ("table", "seed", "method", "settings", "most_train", "most_test")
VALUES = ("n_train", "n_test", "n_features", "auroc", "fit_s", "notes")


SHORT: dict[str, Any] = {"max_iter": 600, "learning_rate": 2e-3, "n_iter_no_change": 12}
METHODS: dict[str, Callable[[int], Any]] = {
    "USPDensity": lambda seed: USPDensity(**SHORT, random_state=seed),
    "PS-USP": lambda seed: USPDensity(method="ps-usp", **SHORT, random_state=seed),
    "5th neighbor": lambda seed: FifthNeighbor(),
    "KernelDensity": lambda seed: BestKernelDensity(),
}


class Split(NamedTuple):
    """A table in the one-class protocol."""

    train: np.ndarray
    test: np.ndarray
    is_novelty: np.ndarray

    def limited(self, most_train: int, most_test: int) -> Split:
        """Keep the first rows, which are in random order; at most half of the test is novel."""
        novel = np.flatnonzero(self.is_novelty)[: max(most_test // 2, 1)]
        normal = np.flatnonzero(~self.is_novelty)[: max(most_test - len(novel), 1)]
        keep = np.concatenate([normal, novel])
        return Split(self.train[:most_train], self.test[keep], self.is_novelty[keep])


def half_of_normals(X: np.ndarray, y: np.ndarray, seed: int) -> Split:
    """Train on half of the rows with label 0, in random order."""
    rng = np.random.RandomState(seed)
    normal, novel = rng.permutation(np.flatnonzero(y == 0)), rng.permutation(np.flatnonzero(y))
    n_train = len(normal) // 2
    rows = np.concatenate([normal[n_train:], novel])
    return Split(X[normal[:n_train]], X[rows], y[rows] != 0)


def tables(pattern: str, smoke: bool) -> Iterator[tuple[str, Callable[[int], Split]]]:
    """Yield names, and what splits the table for a seed."""
    folder = os.environ.get("SKEBM_DATA")
    files = sorted(Path(folder, "tabular", "adbench").glob("*.npz")) if folder else []
    for name in SHIPPED[2:] if smoke else [] if files else SHIPPED:
        if fnmatch(name, pattern):
            yield name, lambda seed, name=name: Split(*load_novelty(name, random_state=seed))
    for path in [] if smoke else files:
        if fnmatch(path.stem, pattern):
            X, y = read_npz_table(path)
            yield path.stem, lambda seed, X=X, y=y: half_of_normals(X, y, seed)


def one(est: Any, split: Split) -> list:
    """Fit one method on one split; return the values of its row in the CSV file."""
    scaler = StandardScaler().fit(split.train)
    sizes = [len(split.train), len(split.test), split.train.shape[1]]
    start = time.perf_counter()
    try:
        seconds, notes = fit_timed(est, scaler.transform(split.train))
    except ConvergenceError:
        return [*sizes, CHANCE, time.perf_counter() - start, "ConvergenceError"]
    if isinstance(getattr(est, "energy_", None), Zero):
        notes = f"base alone, {notes}"
    score = est.score_samples(scaler.transform(split.test))
    metrics = ood_metrics(score[~split.is_novelty], score[split.is_novelty])
    return [*sizes, float(metrics["auroc"]), seconds, notes]


def measure(args, methods: list[str]) -> tuple[list[str], np.ndarray, np.ndarray, list[list]]:
    """Return names, AUROC and seconds (tables, methods, seeds), sizes and warnings of each."""
    kept = Kept(args.csv, [*KEY, *VALUES], len(KEY))
    names, results, labels = [], [], []
    for name, split_for in tables(args.tables, args.smoke):
        rows = []
        for seed in range(args.seeds):
            split = split_for(seed).limited(args.train_rows, args.test_rows)
            for method in methods:
                est = METHODS[method](seed)
                if args.smoke and isinstance(est, USPDensity):
                    est.set_params(max_iter=25, n_points=200, log_partition="importance")
                key = [name, seed, method, fingerprint(est), args.train_rows, args.test_rows]
                rows.append(kept.get(key, lambda est=est, split=split: one(est, split)))
        names.append(name)
        results.append([[float(row[-3]), float(row[-2])] for row in rows])
        labels.append([f"{rows[0][-6]} x {rows[0][-4]}", rows[0][-1]])
    values = np.array(results).reshape(len(names), args.seeds, len(methods), 2)
    return names, values[..., 0].mean(1), values[..., 1].mean(1), labels


def main() -> None:
    extra: dict[str, dict] = {
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "methods": {"nargs": "+", "choices": METHODS, "default": list(METHODS)},
        "train-rows": {"type": int, "default": 2_000, "help": "most rows to train on (2000)"},
        "test-rows": {"type": int, "default": 4_000, "help": "most rows to score (4000)"},
        "csv": {"type": Path, "default": Path("output/usp_novelty.csv"), "help": "results so far"},
    }
    args = parse(__doc__, seeds=1, **extra)
    if args.smoke:
        args.train_rows, args.test_rows = 100, 200
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    print_title("AUROC of one-class detection on real tables", args)
    names, auroc, seconds, labels = measure(args, args.methods)
    slow = [j for j, method in enumerate(args.methods) if "USP" in method]
    rows = [
        [name, label[0], *map(float, auroc[i]), *[f"{seconds[i, j]:.1f}" for j in slow], label[1]]
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    rank = rankdata(-auroc.round(6), axis=1)
    best = auroc >= auroc.max(1, keepdims=True) - 1e-6
    wins = best / best.sum(1, keepdims=True)
    filler = ["-"] * len(slow)
    rows = [[*row, "-"] for row in rows]
    mean = dict(zip(args.methods, auroc.mean(0), strict=True))
    pair = [mean.get(method) for method in ("USPDensity", "KernelDensity")]
    met = "-" if None in pair else yes(pair[0] >= pair[1])
    mean_seconds = [f"{seconds[:, j].mean():.1f}" for j in slow]
    rows.append(["mean AUROC", "", *map(float, auroc.mean(0)), *mean_seconds, "-", met])
    rows.append(["mean rank", "", *map(float, rank.mean(0)), *filler, "-", "-"])
    rows.append(["wins", "", *map(float, wins.sum(0)), *filler, "-", "-"])
    times = [f"{args.methods[j]} s" for j in slow]
    print_table(["table", "rows", *args.methods, *times, "warnings", "met"], rows)
    print("bar: mean AUROC of USPDensity at least KernelDensity's; ties share a win.")


if __name__ == "__main__":
    main()
