"""What a GPU brings: seconds of a fit, of scores and of draws, on the CPU and on the GPU.

Four estimators with their defaults on breast cancer (569 x 30) and on 20,000 correlated, skewed
rows of 20 columns; scores of all rows, milliseconds of one row, seconds of 1,000 draws. Without a
GPU the CPU stands alone.

Bar: on the device that ``device="auto"`` takes no fit takes more than 1.25 times its time on the
CPU, and no scores of all rows more than 1.5 times.

Run: python examples/benchmarks/cost/devices.py
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from skebm import HybridCDDensity, NCEDensity, ScoreMatchingDensity, USPDensity

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

MOST_FIT, MOST_SCORES = 1.25, 1.5
ESTIMATORS = (NCEDensity, HybridCDDensity, USPDensity, ScoreMatchingDensity)


def tables(smoke: bool) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    n, d = (200, 3) if smoke else (20_000, 20)
    large = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.exponential(size=(n, d))
    found = {f"{n} x {d}": large}
    return found if smoke else {"breast cancer": load_breast_cancer().data, **found}


def seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns and how long it takes; results are in numpy, so it has ended."""
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def measured(estimator: Any, X: np.ndarray) -> list[float]:
    est, fit = seconds(lambda: estimator.fit(X))
    scores, score = seconds(lambda: est.score_samples(X))
    one = seconds(lambda: est.score_samples(X[:1]))[1]
    draws = seconds(lambda: est.sample(1000, random_state=0))[1]
    return [fit, score, 1000 * one, draws, float(scores.mean())]


def main() -> None:
    args = parse(__doc__)
    warnings.simplefilter("ignore")  # what a fit says does not change its time
    print_title("Devices", args)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:  # the first fit starts what torch starts once
        NCEDensity(max_iter=3, device=device).fit(tables(True)["200 x 3"])
    rows, ratios = [], []
    for name, X in tables(args.smoke).items():
        for kind in ESTIMATORS[: 1 if args.smoke else None]:
            found = []
            for device in devices:
                est = kind(device=device, random_state=0)
                if args.smoke:
                    est.set_params(max_iter=3)
                found.append(measured(est, X))
                rows.append([name, kind.__name__, device, *found[-1]])
            ratios.append([last / first for first, last in zip(found[0], found[-1], strict=True)])
    fit, score = (max(column) for column in list(zip(*ratios, strict=True))[:2])
    bars = [
        [f"fit on {devices[-1]} over the CPU, most <= {MOST_FIT}", fit, yes(fit <= MOST_FIT)],
        [f"scores of all rows, most <= {MOST_SCORES}", score, yes(score <= MOST_SCORES)],
    ]
    print_table(["bar", "found", "met"], bars)
    columns = ["table", "estimator", "device", "fit s", "score all s", "one row ms"]
    print_table([*columns, "1000 draws s", "mean log density"], rows)


if __name__ == "__main__":
    main()
