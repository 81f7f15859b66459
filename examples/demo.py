"""Novelties, reasons, samples and filled cells in a minute, with a report of pictures.

Everything is made by skebm and scikit-learn alone, on a table that ships with scikit-learn, on two
moons whose density is known, and on a table of customers that is made up here. Prints what it
finds and writes output/report.html.

Run: make demo
"""

from __future__ import annotations

import base64
import io
import os
import time
import warnings
from html import escape
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import USPDensity
from skebm.datasets import load_novelty, two_moons
from skebm.metrics import ood_metrics
from skebm.ood import ConformalNoveltyDetector, NoveltyDetector, reasons
from skebm.plots import DensityDisplay, PValueHistogramDisplay

SMOKE = os.environ.get("SKEBM_SMOKE", "0") not in ("", "0")
OUTPUT = Path("output")


class Report:
    """Text on the screen, and text and pictures in one HTML file."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def title(self, text: str) -> None:
        print(f"\n{text}\n{'-' * len(text)}")
        self.parts.append(f"<h2>{escape(text)}</h2>")

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.parts.append(f"<p>{escape(text)}</p>")

    def table(self, frame: pd.DataFrame) -> None:
        text = frame.to_string(index=False)
        print(text, flush=True)
        self.parts.append(f"<pre>{escape(text)}</pre>")

    def picture(self, figure, name: str) -> None:
        figure.savefig(OUTPUT / f"{name}.png", dpi=110)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        plt.close(figure)
        data = base64.b64encode(buffer.getvalue()).decode()
        self.parts.append(f'<img alt="{name}" src="data:image/png;base64,{data}">')

    def write(self) -> Path:
        style = "body{font:16px sans-serif;max-width:52em;margin:2em auto;padding:0 1em}"
        style += "img{max-width:100%}pre{overflow-x:auto;background:#f6f6f6;padding:.6em}"
        head = f"<!doctype html><meta charset=utf-8><title>skebm</title><style>{style}</style>"
        path = OUTPUT / "report.html"
        path.write_text(f"{head}<h1>What skebm does</h1>{''.join(self.parts)}", encoding="utf-8")
        return path.resolve()


def small(est):
    """Return an estimator with few updates, in smoke runs alone."""
    return est.set_params(max_iter=25) if SMOKE else est


def detector(**params):
    return NoveltyDetector(random_state=0, **params)


def novelties(report: Report) -> None:
    """Compare detectors on the benign and malignant rows of breast cancer."""
    X, T, is_novelty = load_novelty("breast_cancer")
    report.title("Which rows are odd?")
    report.say(
        f"Breast cancer: {len(X)} benign rows of {X.shape[1]} columns to learn from; in the test "
        f"set {is_novelty.sum()} malignant ones among {len(T)}. Defaults everywhere."
    )
    peers = {
        "NoveltyDetector": detector(),
        "IsolationForest": IsolationForest(random_state=0),
        "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
        "GaussianMixture": GaussianMixture(2, reg_covar=1e-3, random_state=0),
    }
    lines = []
    for name, est in peers.items():
        start = time.perf_counter()
        score = make_pipeline(StandardScaler(), est).fit(X).score_samples(T)
        found = ood_metrics(score[~is_novelty], score[is_novelty])
        values = {"AUROC": found["auroc"], "missed at 5 % false alarms": found["fpr95"]}
        values["seconds"] = time.perf_counter() - start
        lines.append({"method": name} | {k: round(float(v), 3) for k, v in values.items()})
    report.table(pd.DataFrame(lines))

    report.title("With a guarantee, and with reasons")
    conformal = ConformalNoveltyDetector(detector(), alpha=0.1, random_state=0).fit(X)
    shares = [(conformal.predict(T[rows]) == -1).mean() for rows in (~is_novelty, is_novelty)]
    report.say(
        f"Conformal ranks at alpha = 0.1 flag {100 * shares[0]:.1f} % of the benign rows (10 % at "
        f"most are promised, on average) and {100 * shares[1]:.1f} % of the malignant ones."
    )
    display = PValueHistogramDisplay.from_estimator(conformal, T[~is_novelty], T[is_novelty])
    report.picture(display.figure_, "p_values")


def density(report: Report) -> None:
    """Learn two moons, whose density is known."""
    report.title("How likely is a row?")
    truth = two_moons()
    X, fresh = truth.sample(1500, random_state=0), truth.sample(2000, random_state=1)
    est = small(USPDensity(base="gaussian", random_state=0)).fit(X)
    z = est.log_partition_
    report.say(
        f"Two moons: {est.score(fresh):.3f} nats per unseen row, "
        f"{truth.log_density(fresh).mean():.3f} by the truth. "
        f"log Z = {z.value:.3f} +- {z.stderr:.1g}."
    )
    figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    DensityDisplay.from_estimator(est, X[:300], n_samples=300, random_state=0, ax=ax)
    report.picture(figure, "density")


def customers(n: int = 800) -> pd.DataFrame:
    """Make up a table with text, whole numbers, zeros, dates and holes."""
    rng = np.random.RandomState(0)
    plan = rng.choice(["basic", "family", "pro"], n, p=[0.5, 0.3, 0.2])
    level = pd.Series(plan).map({"basic": 2.0, "family": 3.0, "pro": 4.5}).to_numpy()
    paid = np.where(rng.uniform(size=n) < 0.3, 0.0, np.exp(rng.normal(level, 0.4)).round(2))
    age = np.clip(rng.normal(35 + 8 * (plan == "family"), 9, n).round(), 18, 90)
    since = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.randint(0, 700, n), unit="D")
    table = pd.DataFrame({"plan": plan, "age": age, "paid": paid, "since": since})
    table.loc[3, ["plan", "paid"]] = ["basic", 180.0]  # much, for that plan
    table.loc[4, "age"] = 131.0
    table.loc[5, "plan"], table.loc[6, "paid"], table.loc[7, "age"] = None, None, None
    return table


def mixed(report: Report) -> None:
    """Find, explain, fill in and draw rows of a table of all kinds."""
    report.title("A table as it comes")
    table = customers()
    report.table(table[3:8].astype(object).where(table[3:8].notna(), "?"))
    inner = small(USPDensity(random_state=0))
    found = detector(estimator=inner).fit(table)
    odd = np.flatnonzero(found.predict(table) == -1)
    strangest = odd[np.argsort(found.score_samples(table.iloc[odd]))][:3]
    report.say(f"{len(odd)} of {len(table)} rows are flagged. The strangest, and why:")
    for i, why in zip(strangest, reasons(found, table.iloc[strangest]), strict=True):
        report.say(f"row {i}: {why[0]}")
    est = found.estimator_
    report.say("Filled in, the likeliest category and means of numbers given the rest:")
    report.table(est.conditional_mean(table[5:8]))
    report.say("New rows, of the same columns and types:")
    drawn = est.sample(len(table), random_state=0)
    report.table(drawn[:4])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, sharey=True)
    figure.set_layout_engine("constrained")
    for ax, rows, title in zip(axes, (table, drawn), ("table", "samples"), strict=True):
        for color, (name, some) in zip(("C0", "C1", "C2"), rows.groupby("plan"), strict=True):
            ax.scatter(some["age"], some["paid"] + 1, s=5, color=color, label=name)
        ax.set(title=title, yscale="log", xlabel="age", xlim=(10, 100))
    axes[0].set_ylabel("paid + 1")
    axes[0].legend()
    report.picture(figure, "customers")


def main() -> None:
    torch.set_num_threads(1)  # small networks gain little from more, and lose on a busy machine
    OUTPUT.mkdir(exist_ok=True)
    start, report = time.perf_counter(), Report()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the age of 131 and the like
        for part in (novelties, density, mixed):
            part(report)
    path = report.write()
    print(f"\n{time.perf_counter() - start:.0f} s. Everything with pictures: {path}")


if __name__ == "__main__":
    main()
