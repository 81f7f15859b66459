"""Novelty detection in tables with holes: what is lost, beside filling in means.

One-class protocol and tables of tabular_novelty.py with at most 40 columns (every row has a pattern
of holes of its own, which takes the cube of them), at most 2,000 rows of each; 20 % of the cells of
training and test rows are hidden at random. Each detector is fitted to whole rows, to rows with
holes, and to rows whose holes are means. Bar: the AUROC that holes cost is at most half of what
they cost where means are filled in, on average over tables.

Run: python examples/benchmarks/novelty/missing_novelty.py [--tables "4*"]
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from skebm import NCEDensity, USPDensity
from skebm.ood import NoveltyDetector

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import paired, parse, plus_minus, print_table, print_title, yes
from examples.benchmarks.density.missing_values import holed
from examples.benchmarks.novelty.tabular_novelty import Split, tables

METHODS = {cls.__name__: cls for cls in (NoveltyDetector, NCEDensity, USPDensity)}
WAYS = ("whole", "holes", "means")
MOST_COLUMNS = 40


def variants(split: Split, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return training and test rows, whole, with holes, and with means in their place."""
    scaler, rng = StandardScaler().fit(split.train), np.random.RandomState(seed)
    train, test = scaler.transform(split.train), scaler.transform(split.test)
    some, others = holed(train, rng), holed(test, rng)
    means = SimpleImputer(keep_empty_features=True).fit(some)
    return {
        "whole": (train, test),
        "holes": (some, others),
        "means": (means.transform(some), means.transform(others)),
    }


def one(name: str, split: Split, seed: int, **params: Any) -> list[float]:
    """Return the AUROC of one method each way."""
    found = []
    for train, test in variants(split, seed).values():
        est = METHODS[name](random_state=seed)
        if isinstance(est, NoveltyDetector):
            est.set_params(estimator=NCEDensity(**params))
        else:
            est.set_params(**params)
        score = est.fit(train).decision_function(test)
        found.append(float(roc_auc_score(split.is_novelty, -score)))
    return found


def main() -> None:
    extra: dict[str, dict] = {
        "folder": {"type": Path, "default": None, "help": "of .npz files with X and y"},
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "rows": {"type": int, "default": 2000, "help": "most rows of a table (2000)"},
    }
    args = parse(__doc__, seeds=1, **extra)
    print_title("Novelty detection in tables with holes", args)
    names, found = [], []
    for name, split_for in tables(args):
        values: list[list[list[float]]] = []
        if split_for(0).train.shape[1] > MOST_COLUMNS:
            continue
        for seed in range(args.seeds):
            params = {"max_iter": 3} if args.smoke else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values.append([one(m, split_for(seed), seed, **params) for m in METHODS])
        names.append(name)
        found.append(np.mean(values, axis=0))
        print(f"{name} done", file=sys.stderr, flush=True)
    auroc = np.array(found)  # tables, methods, ways
    lost = auroc[:, :, :1] - auroc[:, :, 1:]
    lines = []
    for i, method in enumerate(METHODS):
        holes, means = lost[:, i, 0], lost[:, i, 1]
        text = f"{plus_minus(paired(holes))}, with means {plus_minus(paired(means))}"
        lines.append([f"{method} loses half", text, yes(holes.mean() <= means.mean() / 2)])
    print_table(["bar", "found", "met"], lines)
    columns = [f"{method}, {way}" for method in METHODS for way in WAYS]
    rows = [[n, *map(float, a.ravel())] for n, a in zip(names, auroc, strict=True)]
    print_table(["table", *columns], rows)


if __name__ == "__main__":
    main()
