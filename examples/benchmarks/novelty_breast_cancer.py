"""On breast cancer, HybridCDDensity finds novelties at least as well as KernelDensity.

Train on half of the benign rows, find the malignant ones among the rest. AUROC for each seed of the
split, with kernel bandwidth chosen by cross-validation; bar: the mean paired difference
HybridCDDensity - KernelDensity is at least 0.

Run: python examples/benchmarks/novelty_breast_cancer.py
"""

from __future__ import annotations

import warnings

import numpy as np
from _common import paired, parse, plus_minus, print_table, print_title, yes
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skebm import HybridCDDensity
from skebm.datasets import load_novelty
from skebm.exceptions import DataDegeneracyWarning
from skebm.metrics import ood_metrics

BANDWIDTHS = np.logspace(-2, 1, 13)


def hybrid_cd(X: np.ndarray, T: np.ndarray, seed: int, smoke: bool) -> np.ndarray:
    est = HybridCDDensity(random_state=seed)
    if smoke:
        est.set_params(max_iter=25, log_partition="importance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataDegeneracyWarning)
        return est.fit(X).score_samples(T)


def kernel_density(X: np.ndarray, T: np.ndarray, seed: int, smoke: bool) -> np.ndarray:
    bandwidths = BANDWIDTHS[6:9] if smoke else BANDWIDTHS
    search = GridSearchCV(KernelDensity(), {"bandwidth": bandwidths}, cv=5)
    return search.fit(X).best_estimator_.score_samples(T)


def nearest_neighbor(X: np.ndarray, T: np.ndarray, seed: int, smoke: bool) -> np.ndarray:
    return -NearestNeighbors(n_neighbors=5).fit(X).kneighbors(T)[0][:, -1]


def gaussian_mixture(X: np.ndarray, T: np.ndarray, seed: int, smoke: bool) -> np.ndarray:
    sizes = range(1, 3 if smoke else 11)
    models = [GaussianMixture(k, reg_covar=1e-4, random_state=seed).fit(X) for k in sizes]
    return min(models, key=lambda model: model.bic(X)).score_samples(T)


def isolation_forest(X: np.ndarray, T: np.ndarray, seed: int, smoke: bool) -> np.ndarray:
    return IsolationForest(random_state=seed).fit(X).score_samples(T)


METHODS = {
    "HybridCDDensity": hybrid_cd,
    "KernelDensity": kernel_density,
    "5th neighbor": nearest_neighbor,
    "GaussianMixture": gaussian_mixture,
    "IsolationForest": isolation_forest,
}


def main() -> None:
    args = parse(__doc__, seeds=5)
    print_title("AUROC on breast cancer, benign against malignant", args)
    auroc = np.empty((args.seeds, len(METHODS)))
    for seed in range(args.seeds):
        X, T, is_novelty = load_novelty("breast_cancer", random_state=seed)
        scaler = StandardScaler().fit(
            X
        )  # HybridCDDensity standardizes by itself, so it changes nothing
        for j, method in enumerate(METHODS.values()):
            score = method(scaler.transform(X), scaler.transform(T), seed, args.smoke)
            auroc[seed, j] = ood_metrics(score[~is_novelty], score[is_novelty])["auroc"]
    ahead = auroc[:, 0] - auroc[:, 1]
    rows = [
        [seed, *map(float, auroc[seed]), f"{ahead[seed]:+.4f}", "", ""]
        for seed in range(args.seeds)
    ]
    mean = plus_minus(paired(ahead)) if args.seeds > 1 else f"{ahead.mean():+.4f}"
    rows.append(["mean", *map(float, auroc.mean(0)), mean, ">= 0", yes(ahead.mean() >= 0)])
    print_table(["seed", *METHODS, "HybridCD - Kernel", "bar", "met"], rows)


if __name__ == "__main__":
    main()
