"""Choose a model without labels: log likelihood with its error, the Stein score, and novelty.

Searches over the weight decay and the base of NCEDensity (and the components of a Gaussian
mixture) on the benign rows of breast cancer, by three criteria that see no label, and prints for
each candidate what the labels would have said: the AUROC of the malignant rows. Draws the
validation curve to output/ if matplotlib is installed.

Run: python examples/model_selection.py
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    ValidationCurveDisplay,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import NCEDensity
from skebm.datasets import load_novelty
from skebm.energies import MLP
from skebm.metrics import (
    NoveltyScorer,
    best_within_error,
    log_likelihood_scorer,
    ood_metrics,
)
from skebm.objectives import Optimization
from skebm.partition import ImportanceSampling
from skebm.stein import stein_score

SMOKE = os.environ.get("SKEBM_SMOKE", "0") not in ("", "0")
OUTPUT = Path("output")
CV = KFold(2 if SMOKE else 5, shuffle=True, random_state=0)
DECAY = "optimizer__weight_decay"
DECAYS = [0.01, 1.0] if SMOKE else [0.001, 0.01, 0.1, 1.0]


def density(**params) -> NCEDensity:
    """Return a small model that is quick to fit."""
    shared = {"base": "gaussian", "energy": MLP(hidden_sizes=(32, 32)), "random_state": 0}
    shared["optimizer"] = Optimization(4e-3)  # the default's step, with a decay to choose
    small = {"log_partition": ImportanceSampling(n_samples=512, max_samples=512)} if SMOKE else {}
    return NCEDensity(**{**shared, "max_iter": 25 if SMOKE else 200, **small, **params})


def fitted(search, X: np.ndarray):
    """Fit a search; print what it warns of, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(X)
    for text in dict.fromkeys(str(w.message) for w in caught):
        print(fill(f"note: {text}", 100))
    return search


def auroc(est, X: np.ndarray, T: np.ndarray, is_novelty: np.ndarray) -> float:
    """Return what no search may see: how well the model finds the malignant rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = clone(est).fit(X).score_samples(T)
    return ood_metrics(scores[~is_novelty], scores[is_novelty])["auroc"]


def table(title: str, search, columns: dict[str, str], data: tuple) -> None:
    """Print a search: its candidates, what they got, and the AUROC of the labels beside it."""
    results = search.cv_results_
    names = [" ".join(f"{k.split('__')[-1]}={v}" for k, v in p.items()) for p in results["params"]]
    width = max(map(len, names))
    print(f"\n{title}")
    print("  ".join([" " * width, *(f"{head:>10}" for head in columns), f"{'AUROC':>6}"]))
    print("  ".join(["-" * width, *("-" * 10 for _ in columns), "-" * 6]))
    for i, params in enumerate(results["params"]):
        values = "  ".join(f"{results[key][i]:10.4g}" for key in columns.values())
        quality = auroc(clone(search.estimator).set_params(**params), *data)
        mark = "  chosen" if i == search.best_index_ else ""
        print(f"{names[i]:<{width}}  {values}  {quality:6.3f}{mark}", flush=True)


def by_likelihood(data: tuple) -> None:
    params = {DECAY: DECAYS}
    search = GridSearchCV(
        density(), params, scoring=log_likelihood_scorer, refit=best_within_error, cv=CV
    )
    columns = {
        "log lik.": "mean_test_score",
        "s.d. folds": "std_test_score",
        "err. rows": "mean_test_stderr",
        "err. log Z": "mean_test_log_partition_stderr",
    }
    title = "GridSearchCV on held-out log likelihood, nats per row"
    table(title, fitted(search, data[0]), columns, data)


def by_stein_score(data: tuple) -> None:
    model = make_pipeline(StandardScaler(), GaussianMixture(reg_covar=0.01, random_state=0))
    params = {
        "gaussianmixture__n_components": [1, 2, 4],
        "gaussianmixture__covariance_type": ["full", "diag"],
    }
    search = HalvingRandomSearchCV(
        model,
        params,
        n_candidates=3 if SMOKE else 6,
        factor=2,
        min_resources="exhaust",
        scoring=stein_score,
        cv=CV,
        random_state=0,
    )
    columns = {"round": "iter", "rows": "n_resources", "Stein": "mean_test_score"}
    title = "HalvingRandomSearchCV on the Stein score (needs no log Z); a row for each round"
    table(title, fitted(search, data[0]), columns, data)


def by_novelty(data: tuple) -> None:
    model = density(log_partition=None)
    params = {"base": ["gaussian", "uniform"] if SMOKE else ["gaussian", "kernel", "mixture"]}
    search = GridSearchCV(model, params, scoring=NoveltyScorer("mixed"), cv=CV)
    columns = {"novelty": "mean_test_score", "s.d. folds": "std_test_score"}
    title = "GridSearchCV on novelties made from held-out rows (NoveltyScorer, no log Z), AUROC"
    table(title, fitted(search, data[0]), columns, data)


def curve(X: np.ndarray) -> None:
    settings = {"param_name": DECAY, "param_range": DECAYS, "cv": CV}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, test = validation_curve(density(), X, None, **settings)
    print("\nvalidation_curve over weight_decay: mean log density, nats per row")
    print("weight_decay  training rows  held-out rows")
    print("------------  -------------  -------------")
    for decay, a, b in zip(DECAYS, train.mean(axis=1), test.mean(axis=1), strict=True):
        print(f"{decay:12g}  {a:13.2f}  {b:13.2f}")
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    display = ValidationCurveDisplay(
        param_name="weight_decay",
        param_range=np.array(DECAYS),
        train_scores=train,
        test_scores=test,
        score_name="log density, nats per row",
    ).plot()
    display.ax_.set_xscale("log")
    OUTPUT.mkdir(exist_ok=True)
    display.figure_.savefig(OUTPUT / "validation_curve.png", dpi=120, bbox_inches="tight")
    print(f"wrote {(OUTPUT / 'validation_curve.png').resolve()}")


def main() -> None:
    torch.set_num_threads(1)  # small networks gain little from more, and lose on a busy machine
    data = load_novelty("breast_cancer")
    X, T, is_novelty = data
    print(f"breast cancer: {X.shape[0]} benign training rows, {X.shape[1]} columns; AUROC is of")
    print(f"{is_novelty.sum()} malignant rows among {len(T)} test rows, which no search sees.")
    by_likelihood(data)
    by_stein_score(data)
    by_novelty(data)
    curve(X)


if __name__ == "__main__":
    main()
