"""HybridCDDensity beside scikit-learn's detectors on two real tables, and two pictures.

Fits the benign rows of breast cancer and the digits without the 8, both shipped with scikit-learn,
prints how well each method finds what was left out, and writes pictures to output/.

Run: make demo
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import HybridCDDensity
from skebm.datasets import load_novelty, two_moons
from skebm.metrics import ood_metrics
from skebm.plots import DensityDisplay, HistoryDisplay

SMOKE = os.environ.get("SKEBM_SMOKE", "0") not in ("", "0")
OUTPUT = Path("output")


def hybrid_cd(X: np.ndarray):
    est = HybridCDDensity(random_state=0)
    if SMOKE:
        est.set_params(max_iter=25, log_partition="importance")
    return est.fit(X)


def kernel_density(X: np.ndarray):
    bandwidths = np.logspace(-0.5, 0.5, 3) if SMOKE else np.logspace(-2, 1, 13)
    kernels = make_pipeline(StandardScaler(), KernelDensity())
    return GridSearchCV(kernels, {"kerneldensity__bandwidth": bandwidths}).fit(X).best_estimator_


def gaussian_mixture(X: np.ndarray):
    scaler = StandardScaler().fit(X)
    z = scaler.transform(X)
    sizes = range(1, 3 if SMOKE else 6)
    models = [GaussianMixture(k, reg_covar=1e-3, random_state=0).fit(z) for k in sizes]
    return make_pipeline(scaler, min(models, key=lambda model: model.bic(z)))


def isolation_forest(X: np.ndarray):
    return IsolationForest(random_state=0).fit(X)


METHODS = {
    "HybridCDDensity": hybrid_cd,
    "KernelDensity": kernel_density,
    "GaussianMixture": gaussian_mixture,
    "IsolationForest": isolation_forest,
}


def log_likelihood(est, scores: np.ndarray) -> str:
    """Write the mean log density in the units of the table, where the scores are log densities."""
    if isinstance(est, IsolationForest):
        return "-"
    log_volume = np.log(est[0].scale_).sum() if isinstance(est, Pipeline) else 0.0
    return f"{scores.mean() - log_volume:.2f}"


def compare(table: str, X: np.ndarray, T: np.ndarray, is_novelty: np.ndarray) -> None:
    """Fit every method to X, score T, print one line each."""
    print(f"\n{table}: {len(X)} training rows, {X.shape[1]} columns, {len(T)} test rows", end="")
    print(f", {is_novelty.sum()} of them novel")
    print("method           AUROC  FPR95   log lik.   fit s  score s  log Z")
    print(
        "---------------  -----  -----  ---------  ------  -------  -----------------------------"
    )
    notes = []
    for name, fit in METHODS.items():
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            est = fit(X)
        fitted = time.perf_counter()
        scores = est.score_samples(T)
        scored = time.perf_counter()
        normal = scores[~is_novelty]
        metrics = ood_metrics(normal, scores[is_novelty])
        line = f"{name:<15}  {metrics['auroc']:.3f}  {metrics['fpr95']:.3f}  "
        line += f"{log_likelihood(est, normal):>9}  {fitted - start:6.1f}  {scored - fitted:7.3f}"
        if isinstance(est, HybridCDDensity):
            z = est.log_partition_
            line += f"  {z.value:.3f} +- {z.stderr:.3f} ({z.method})"
            notes += [f"note: {w.message}" for w in caught]
        print(line, flush=True)
    for note in notes:
        print(fill(note, 100))


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the digits, made fit for a density, the same for every method."""
    X, T, is_novelty = load_novelty("digits")
    rng = np.random.RandomState(0)
    varies = np.ptp(X, axis=0) > 0
    X, T = (rows[:, varies] + rng.uniform(size=(len(rows), varies.sum())) for rows in (X, T))
    print(
        "\nPixels of the digits are whole gray levels, on which a density has no upper bound:\n"
        f"for all methods alike, uniform noise of one level was added, and the {np.sum(~varies)} "
        "pixels that\nare constant in the training rows were dropped."
    )
    return X, T, is_novelty


def pictures() -> None:
    """Fit two moons and draw the density and the course of the fit."""
    OUTPUT.mkdir(exist_ok=True)
    X = two_moons().sample(300 if SMOKE else 2000, random_state=0)
    est = HybridCDDensity(base="gaussian", random_state=0)
    est.set_params(max_iter=50 if SMOKE else 1000).fit(X)
    display = DensityDisplay.from_estimator(est, X[:300], n_samples=300, random_state=0)
    z = est.log_partition_
    display.ax_.set_title(f"two moons, log Z = {z.value:.3f} +- {z.stderr:.1g} nats ({z.method})")
    display.figure_.savefig(OUTPUT / "density.png", dpi=120)
    history = HistoryDisplay.from_estimator(est)
    history.figure_.savefig(OUTPUT / "history.png", dpi=120)
    print(
        f"\ntwo moons: {est.score(X):.3f} nats per row; pictures in "
        f"{(OUTPUT / 'density.png').resolve()} and {(OUTPUT / 'history.png').resolve()}"
    )


def main() -> None:
    torch.set_num_threads(1)  # small networks gain little from more, and lose on a busy machine
    print("Train on normal rows, find the class that was left out.")
    print("FPR95: share of novel rows accepted where 95 % of the normal rows are.")
    print("log lik.: mean log density of the normal test rows, nats, in the units of the table.")
    print("log Z: nats, with its standard error.")
    X, T, is_novelty = load_novelty("breast_cancer")
    compare("breast cancer (malignant is novel)", X, T, is_novelty)
    compare("digits (8 is novel)", *digits())
    pictures()


if __name__ == "__main__":
    main()
