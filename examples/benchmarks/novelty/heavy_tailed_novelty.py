"""Novelties among many heavy-tailed, dependent rows, beside a mixture of ten Gaussians.

20,000 training rows of 30 columns: multivariate t with 3 degrees of freedom, dependent by five
factors. The test has 2,000 more of them and 1,000 whose columns were shuffled one by one: every
value is usual, the row is not. Such a job decides whether a detector can be recommended for tables
of amounts and readings. Bars: the better of `USPDensity` and `NoveltyDetector` has an AUROC not
below that of GaussianMixture(10); `ConformalNoveltyDetector` over it finds 60 % of the novelties at
1 % false alarms; its `select(fdr=0.1)` returns rows, or says why it does not.

Run: python examples/benchmarks/novelty/heavy_tailed_novelty.py [--smoke]
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from skebm import NCEDensity, USPDensity
from skebm.exceptions import CalibrationWarning
from skebm.ood import ConformalNoveltyDetector, NoveltyDetector

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

N_COLUMNS, N_FACTORS, DOF = 30, 5, 3
ALPHA, RECALL, FDR = 0.01, 0.6, 0.1


def rows(n: int, loadings: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw multivariate t rows (n, d)."""
    z = rng.normal(size=(n, N_FACTORS)) @ loadings.T + 0.5 * rng.normal(size=(n, N_COLUMNS))
    return z / np.sqrt(rng.chisquare(DOF, size=(n, 1)) / DOF)


def shuffled(X: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return rows whose columns are permuted one by one."""
    return np.column_stack([rng.permutation(column) for column in X.T])


def fitted(est: Any, X: np.ndarray) -> tuple[Any, float]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.fit(X)
    return est, time.perf_counter() - start


def conformal(est: Any, X: np.ndarray, T: np.ndarray, is_novel: np.ndarray) -> list:
    """Return recall and false alarms at `ALPHA`, and what is selected."""
    detector, _ = fitted(ConformalNoveltyDetector(clone(est), alpha=ALPHA, random_state=0), X)
    flagged = detector.predict(T) == -1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        selected = detector.select(T, fdr=FDR)
    why = "; ".join(str(w.message) for w in caught)
    return [
        float(flagged[is_novel].mean()),
        float(flagged[~is_novel].mean()),
        int(selected.sum()),
        why,
    ]


def main() -> None:
    args = parse(__doc__, seeds=1)
    print_title("Novelties among heavy-tailed rows", args)
    n_train, n_test = (600, 200) if args.smoke else (20_000, 2000)
    for seed in range(args.seeds):
        rng = np.random.RandomState(seed)
        loadings = rng.normal(size=(N_COLUMNS, N_FACTORS))
        X = rows(n_train, loadings, rng)
        T = np.concatenate(
            [rows(n_test, loadings, rng), shuffled(rows(n_test // 2, loadings, rng), rng)]
        )
        is_novel = np.arange(len(T)) >= n_test
        few = {"max_iter": 5} if args.smoke else {}
        methods = {
            "GaussianMixture(10)": GaussianMixture(10, random_state=seed),
            "NCEDensity": NCEDensity(random_state=seed, **few),
            "USPDensity": USPDensity(random_state=seed, **few),
            "NoveltyDetector": NoveltyDetector(NCEDensity(**few), random_state=seed),
        }
        lines, area = [], {}
        for name, est in methods.items():
            model, seconds = fitted(est, X)
            area[name] = roc_auc_score(is_novel, -model.score_samples(T))
            recall, alarms, n_selected, why = conformal(est, X, T, is_novel)
            lines.append(
                [name, float(area[name]), recall, alarms, n_selected, f"{seconds:.1f}", why]
            )
        columns = ["method", "AUROC", f"recall at {ALPHA:g}", "false alarms", "selected", "fit s"]
        best = max(("USPDensity", "NoveltyDetector"), key=area.__getitem__)
        found = {line[0]: line for line in lines}[best]
        mixture = area["GaussianMixture(10)"]
        bars = [
            [f"AUROC of {best} >= the mixture's", f"{area[best]:.4f}, {mixture:.4f}"],
            [f"recall >= {RECALL:g}", f"{found[2]:.3f}"],
            ["selects, or says why", f"{found[4]} rows {found[-1]}"],
        ]
        met = [area[best] >= mixture, found[2] >= RECALL, bool(found[4] or found[-1])]
        print_table(["bar", "found", "met"], [[*b, yes(m)] for b, m in zip(bars, met, strict=True)])
        print_table([*columns, "says"], lines)


if __name__ == "__main__":
    main()
