"""Novelty detection on real tables: every estimator with default settings beside its peers.

One-class protocol (docs/benchmarks.md): half of the normal rows train, the others and all anomalies
are the test; columns are standardized on the training rows; tables above 10,000 rows are thinned by
class, at least 200 anomalies (or all) kept. Labels are used for the metrics alone. AUROC and AUPR
have the anomaly as positive class; FPR95 is the share of anomalies accepted at a threshold that
accepts 95 % of the test's normals. "gain" is the mean over tables of the difference in AUROC to the
better of kNN and KernelDensity by mean, paired by table and seed, with its standard error over
tables. A fit that does not converge counts 0.5.

Tables: every .npz file in $SKEBM_DATA/tabular/adbench, or in --folder; without either the four that
ship with scikit-learn. Settings were chosen on one half of them (even places in alphabetical order,
"chosen on"); the other half is reported by itself, but was not unseen (docs/benchmarks.md). All
methods of a summary are compared on the tables and seeds that all of them have. Autoencoder (pyod)
and MAF (zuko) run where those packages are there.

Bars: one of our estimators is 0.015 above the better of kNN and KernelDensity and has the best mean
rank of all methods of the run; each is at least at IsolationForest; median fit at most 3 times
MAF's (cost/run.py has the bar on scoring). Results are kept in a CSV file, so that a run that
was stopped goes on; fits with other parameters are made anew.

Run: python examples/benchmarks/novelty/tabular_novelty.py [--tables "4*"] [--methods "USP*" kNN]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata, ttest_1samp, wilcoxon
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skebm import (
    BoundsEBM,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from skebm.datasets import load_novelty, read_npz_table
from skebm.energies import Zero
from skebm.exceptions import ConvergenceError
from skebm.metrics import ood_metrics
from skebm.ood import (
    KernelScoreDetector,
    LocalMahalanobisDetector,
    NeighborDistanceDetector,
    NoveltyDetector,
)

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    Kept,
    fingerprint,
    fit_timed,
    paired,
    parse,
    plus_minus,
    print_table,
    print_title,
    yes,
)
from examples.benchmarks._peers import (
    AutoEncoder,
    BestKernelDensity,
    BestMixture,
    Copulas,
    DiffusionTime,
    FifthNeighbor,
    Flow,
    Outlyingness,
    is_installed,
)

SHIPPED = ("breast_cancer", "digits", "iris", "wine")
MOST_ROWS, FEWEST_NOVEL = 10_000, 200
CHANCE = 0.5  # AUROC of a fit that raised ConvergenceError
LEAD, SLOWER = 0.015, 3.0
KNN, KDE, FOREST, MAF = "kNN", "KernelDensity", "IsolationForest", "MAF"
DETECTOR, DENSITY = "NoveltyDetector", "NCEDensity"
RANK_LEAD, WORST, SIGNIFICANT, ALLOWANCE = 0.5, 0.06, 0.05, 2.0  # ranks, AUROC, p, seconds
OURS: dict[str, Callable[[int], Any]] = {
    cls.__name__: lambda seed, cls=cls: cls(random_state=seed)
    for cls in (
        *(NCEDensity, USPDensity, HybridCDDensity),
        *(ScoreMatchingDensity, SteinEBM, BoundsEBM),
    )
}
PEERS: dict[str, Callable[[int], Any]] = {
    KNN: lambda seed: FifthNeighbor(),
    KDE: lambda seed: BestKernelDensity(),
    "DTE": lambda seed: DiffusionTime(),
    "LOF": lambda seed: Outlyingness(LocalOutlierFactor(novelty=True)),
    FOREST: lambda seed: Outlyingness(IsolationForest(random_state=seed)),
    "OneClassSVM": lambda seed: Outlyingness(OneClassSVM()),
    "GaussianMixture": lambda seed: BestMixture(random_state=seed),
}
if is_installed("zuko"):
    PEERS[MAF] = lambda seed: Flow(random_state=seed)
if is_installed("pyod"):
    PEERS["ECOD"] = lambda seed: Copulas()
    PEERS["AutoEncoder"] = lambda seed: AutoEncoder(random_state=seed)
DETECTORS: dict[str, Callable[[int], Any]] = {
    cls.__name__: lambda seed, cls=cls: cls(random_state=seed)
    for cls in (
        *(NoveltyDetector, KernelScoreDetector),
        *(LocalMahalanobisDetector, NeighborDistanceDetector),
    )
}
METHODS = DETECTORS | OURS | PEERS
KEY = ("table", "seed", "method", "settings", "most_rows", "contaminated")
VALUES = ("n_train", "n_test", "n_features", "auroc", "aupr", "fpr95", "fit_s", "score_s", "notes")


class Split(NamedTuple):
    """A table in the one-class protocol."""

    train: np.ndarray
    test: np.ndarray
    is_novelty: np.ndarray


def thinned(X: np.ndarray, y: np.ndarray, most: int, rng: np.random.RandomState) -> tuple:
    """Keep at most that many rows, of each class in proportion, of anomalies at least 200."""
    normal, novel = (rng.permutation(np.flatnonzero((y != 0) == flag)) for flag in (False, True))
    if len(y) > most:
        share = most / len(y)
        n_novel = min(len(novel), max(round(share * len(novel)), FEWEST_NOVEL))
        normal, novel = normal[: most - n_novel], novel[:n_novel]
    return X[normal], X[novel]


def one_class(X: np.ndarray, y: np.ndarray, most: int, seed: int, share: float = 0.0) -> Split:
    """Train on half of the rows with label 0, in random order, and a share of anomalies."""
    normal, novel = thinned(X, y, most, np.random.RandomState(seed))
    n_train = len(normal) // 2
    n_inside = min(round(share / (1 - share) * n_train), len(novel) // 2)
    train = np.concatenate([normal[:n_train], novel[:n_inside]])
    test = np.concatenate([normal[n_train:], novel[n_inside:]])
    return Split(train, test, np.arange(len(test)) >= len(normal) - n_train)


def tables(args: Any) -> Iterator[tuple[str, Callable[[int], Split]]]:
    """Yield names, and what splits the table for a seed."""
    folder = args.folder
    if folder is None and "SKEBM_DATA" in os.environ and not args.smoke:
        folder = Path(os.environ["SKEBM_DATA"], "tabular", "adbench")
    if folder is None:
        for name in SHIPPED[2:] if args.smoke else SHIPPED:
            if fnmatch(name, args.tables):
                yield name, lambda seed, name=name: Split(*load_novelty(name, random_state=seed))
        return
    for path in sorted(Path(folder).glob("*.npz")):
        if fnmatch(path.stem, args.tables):
            X, y = read_npz_table(path)
            inside = getattr(args, "contaminated", 0.0)
            yield path.stem, partial(one_class, X, y, args.rows, share=inside)


def one(est: Any, split: Split) -> list:
    """Fit one method on one split; return the values of its row in the CSV file."""
    scaler = StandardScaler().fit(split.train)
    sizes = [len(split.train), len(split.test), split.train.shape[1]]
    start = time.perf_counter()
    try:
        seconds, notes = fit_timed(est, scaler.transform(split.train))
    except ConvergenceError:
        spent = time.perf_counter() - start
        return [*sizes, CHANCE, float(split.is_novelty.mean()), 0.95, spent, 0.0, "diverged"]
    if isinstance(getattr(est, "energy_", None), Zero):
        notes = f"base alone, {notes}"
    test, start = scaler.transform(split.test), time.perf_counter()
    score = est.score_samples(test)
    score_seconds = time.perf_counter() - start
    found = ood_metrics(score[~split.is_novelty], score[split.is_novelty])
    metrics = (float(found[name]) for name in ("auroc", "aupr_out", "fpr95"))
    return [*sizes, *metrics, seconds, score_seconds, notes]


class Results:
    """What was measured: an array (tables, methods, seeds) per column, nan where nothing was."""

    def __init__(self, names: list[str], methods: list[str], seeds: int) -> None:
        self.names, self.methods = names, methods
        self.values = np.full((len(names), len(methods), seeds, len(VALUES) - 1), np.nan)

    def put(self, name: str, method: str, seed: int, row: list[str]) -> None:
        numbers = [float(value) for value in row[len(KEY) : -1]]
        self.values[self.names.index(name), self.methods.index(method), seed] = numbers

    def __getitem__(self, column: str) -> np.ndarray:
        return self.values[..., VALUES.index(column)]

    def of(self, column: str, method: str) -> np.ndarray:
        return self[column][:, self.methods.index(method)]

    def part(self, keep: np.ndarray) -> Results:
        names = [name for name, flag in zip(self.names, keep, strict=True) if flag]
        chosen = Results(names, self.methods, self.values.shape[2])
        chosen.values = self.values[keep]
        return chosen

    def pinned(self) -> Results:
        """Leave out every table and seed that a method lacks."""
        chosen = Results(self.names, self.methods, self.values.shape[2])
        lacking = np.isnan(self["auroc"]).any(1)
        chosen.values = np.where(lacking[:, None, :, None], np.nan, self.values)
        return chosen


def measure(args: Any, methods: list[str]) -> Results:
    kept = Kept(args.csv, [*KEY, *VALUES], len(KEY))
    chosen = list(tables(args))
    results = Results([name for name, _ in chosen], methods, args.seeds)
    for seed in range(args.seeds):
        for name, split_for in chosen:
            split = split_for(seed)
            for method in methods:
                if method in args.first_seed and seed:
                    continue
                est = METHODS[method](seed)
                if args.smoke and method in OURS:
                    est.set_params(max_iter=3, log_partition="importance")
                if args.trim and method == DETECTOR:
                    est.set_params(contamination=args.trim)
                key = [name, seed, method, fingerprint(est), args.rows, args.contaminated]
                results.put(
                    name, method, seed, kept.get(key, lambda est=est, split=split: one(est, split))
                )
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    return results


def over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is there."""
    there = ~np.isnan(values)
    return np.where(there, values, 0).sum(-1) / np.maximum(there.sum(-1), 1)


def summary(results: Results) -> list[list]:
    """Return a line for each method, over the tables and seeds that all of them have."""
    results = results.pinned()
    results = results.part(~np.isnan(results["auroc"][:, 0]).all(-1))
    auroc, aupr, fpr, fit = (
        over_seeds(results[name]) for name in ("auroc", "aupr", "fpr95", "fit_s")
    )
    rank = rankdata(-auroc.round(6), axis=1)
    best = auroc >= auroc.max(1, keepdims=True) - 1e-6
    wins = (best / best.sum(1, keepdims=True)).sum(0)
    per_10k = over_seeds(1e4 * results["score_s"] / results["n_test"])
    bar = reference(results.methods, auroc)
    lines = []
    for j, method in enumerate(results.methods):
        gain = "-" if bar is None else plus_minus(paired(auroc[:, j] - auroc[:, bar]))
        lines.append(
            [
                *(method, len(auroc), float(auroc[:, j].mean()), float(np.median(auroc[:, j]))),
                *(gain, float(aupr[:, j].mean()), float(fpr[:, j].mean())),
                *(f"{rank[:, j].mean():.2f}", f"{wins[j]:.1f}"),
                *(f"{np.median(fit[:, j]):.2f}", f"{fit[:, j].max():.1f}"),
                f"{np.median(per_10k[:, j]):.3f}",
            ]
        )
    return lines


def reference(methods: list[str], auroc: np.ndarray) -> int | None:
    """Return the place of the better of kNN and KernelDensity."""
    places = [methods.index(name) for name in (KNN, KDE) if name in methods]
    return max(places, key=lambda j: auroc[:, j].mean()) if places else None


def bars(results: Results) -> list[list]:
    """Return each bar, what was found, and whether it is met."""
    results = results.pinned()
    results = results.part(~np.isnan(results["auroc"][:, 0]).all(-1))
    methods = results.methods
    auroc = over_seeds(results["auroc"])
    mean = dict(zip(methods, auroc.mean(0), strict=True))
    rank = dict(zip(methods, rankdata(-auroc.round(6), axis=1).mean(0), strict=True))
    ours, peers = ([m for m in methods if m in group] for group in (OURS, PEERS))
    lines, bar = [], reference(methods, auroc)
    if not ours:
        return lines
    if bar is not None:
        for m in ours:
            lead = mean[m] - mean[methods[bar]]
            text = f"{m} leads {methods[bar]} by {lead:.4f}, rank {rank[m]:.2f}"
            text += f" (best peer's {min(rank[p] for p in peers):.2f})"
            met = lead >= LEAD and rank[m] <= min(rank.values())
            lines.append([f"leads by {LEAD} and ranks best", text, yes(met)])
    if FOREST in mean:
        for m in ours:
            text = f"{m} {mean[m]:.3f}, {FOREST} {mean[FOREST]:.3f}"
            lines.append([f"at least {FOREST}", text, yes(mean[m] >= mean[FOREST])])
    if MAF in mean:
        seconds = over_seeds(results["fit_s"])
        for m in ours:
            pair = [np.median(seconds[:, methods.index(name)]) for name in (m, MAF)]
            text = f"{m} {pair[0]:.1f} s, {MAF} {pair[1]:.1f} s"
            lines.append([f"median fit <= {SLOWER:g} MAF", text, yes(pair[0] <= SLOWER * pair[1])])
    return lines


def bars_of_detector(results: Results) -> list[list]:
    """Return the bars of the detector: rank, leads over single methods, worst loss, time."""
    results = results.pinned()
    results = results.part(~np.isnan(results["auroc"][:, 0]).all(-1))
    if DETECTOR not in results.methods:
        return []
    # members are parts of the detector, not its rivals
    rivals = [m for m in results.methods if m == DETECTOR or m not in DETECTORS]
    places = [results.methods.index(m) for m in rivals]
    auroc = over_seeds(results["auroc"])[:, places]
    rank = rankdata(-auroc.round(6), axis=1).mean(0)
    best = min(r for r, m in zip(rank, rivals, strict=True) if m != DETECTOR)
    own = auroc[:, rivals.index(DETECTOR)]
    text = f"{rank[rivals.index(DETECTOR)]:.2f}, the next {best:.2f}"
    lines = [
        [f"mean rank best by {RANK_LEAD}", text, yes(rank.min() <= best - RANK_LEAD)],
    ]
    for rival in (KNN, KDE, DENSITY):
        if rival in rivals and len(own) > 1:
            difference = own - auroc[:, rivals.index(rival)]
            p = float(ttest_1samp(difference, 0).pvalue)
            ranks = float(wilcoxon(difference).pvalue)
            text = f"{plus_minus(paired(difference))}, p = {p:.3g} (t), {ranks:.3g} (ranks), "
            text += f"worst {difference.min():+.3f}"
            better = difference.mean() > 0 and (p < SIGNIFICANT or rival != KNN)
            lines.append([f"above {rival}", text, yes(better)])
            if rival == KNN:
                met = difference.min() >= -WORST
                lines.append([f"worst loss <= {WORST}", f"{difference.min():+.3f}", yes(met)])
    if DENSITY in rivals:
        fit = np.median(over_seeds(results["fit_s"]), axis=0)
        pair = [fit[results.methods.index(m)] for m in (DETECTOR, DENSITY)]
        text = f"{pair[0]:.2f} s, {pair[1]:.2f} s"
        met = pair[0] <= pair[1] + ALLOWANCE
        lines.append([f"median fit <= {DENSITY}'s + {ALLOWANCE:g} s", text, yes(met)])
    return lines


def main() -> None:
    extra: dict[str, dict] = {
        "folder": {"type": Path, "default": None, "help": "of .npz files with X and y"},
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "methods": {"nargs": "+", "default": ["*"], "help": "names, as patterns of the shell (*)"},
        "first-seed": {"nargs": "*", "default": [], "help": "methods that run with seed 0 alone"},
        "contaminated": {
            "type": float,
            "default": 0.0,
            "help": "share of anomalies among the training rows (0)",
        },
        "trim": {"type": float, "default": 0.0, "help": f"contamination of {DETECTOR} (0)"},
        "rows": {"type": int, "default": MOST_ROWS, "help": f"most rows of a table ({MOST_ROWS})"},
        "csv": {"type": Path, "default": Path("output/tabular_novelty.csv"), "help": "results"},
    }
    args = parse(__doc__, seeds=3, **extra)
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    methods = [m for m in METHODS if any(fnmatch(m, pattern) for pattern in args.methods)]
    if args.smoke:
        methods = [m for m in methods if m in ("NCEDensity", KNN, KDE, FOREST)]
    print_title("Novelty detection on real tables, one-class protocol", args)
    results = measure(args, methods)
    print_table(["bar", "found", "met"], bars(results))
    print(f"{DETECTOR}, 'chosen on' and 'the others' below:")
    print_table(["bar", "found", "met"], bars_of_detector(results))
    even = np.arange(len(results.names)) % 2 == 0
    columns = ["method", "tables", "mean AUROC", "median", "gain", "AUPR", "FPR95", "mean rank"]
    columns += ["wins", "fit s, median", "most", "score s per 10,000"]
    parts = {"all tables": np.full(len(even), True), "chosen on": even, "the others": ~even}
    for title, keep in parts.items():
        if keep.any():
            print(f"{title}:")
            print_table(columns, summary(results.part(keep)))
    print("AUROC by table, mean over seeds:")
    auroc = over_seeds(results["auroc"])
    sizes = [
        f"{int(np.nanmax(results['n_train'][i]))} x {int(np.nanmax(results['n_features'][i]))}"
        for i in range(len(results.names))
    ]
    lines = [
        [name, size, *map(float, row)]
        for name, size, row in zip(results.names, sizes, auroc, strict=True)
    ]
    print_table(["table", "rows", *methods], lines)


if __name__ == "__main__":
    main()
