"""A density in onnxruntime: one row, and 10,000 of them, beside the estimator's `score_samples`.

Default estimators on real tables that scikit-learn ships, each written by `skebm.export.to_onnx`
and read by onnxruntime with one thread: median microseconds of one row on both sides and their
quotient, milliseconds of 10,000 rows, the largest difference of a score over 1 + its size, near the
rows and far out, to scores of 250 rows at a time, which the estimator computes in double precision
("in double"), and of all at once, which it does not; seconds of the export, kilobytes of the file.

Bars: one row is at least as fast in onnxruntime; differences in double precision are at most 1e-5.

Run: python examples/benchmarks/cost/export.py [--tables "iris"]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

import skebm
from skebm.export import to_onnx

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import fit_timed, parse, print_table, print_title, yes
from examples.benchmarks._peers import is_installed

TABLES = {
    "iris": load_iris,
    "diabetes": load_diabetes,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
}
ESTIMATORS = ["USPDensity", "NCEDensity", "HybridCDDensity"]
MANY, LARGEST = 10_000, 1e-5


def seconds(call: Callable[[], object], n: int) -> float:
    """Return the median seconds of n calls."""
    times = []
    for _ in range(n + n // 10):  # the first ones warm up
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times[n // 10 :]))


def rows_of(X: np.ndarray, seed: int) -> np.ndarray:
    """Return rows near those of a table and, half of them, up to 1e6 standard deviations away."""
    rng = np.random.default_rng(seed)
    out = X[rng.integers(len(X), size=MANY)]
    sizes = np.where(np.arange(MANY) % 2, 0.1, 10 ** rng.uniform(0, 6, size=MANY))
    return out + sizes[:, None] * X.std(0) * rng.normal(size=out.shape)


def one(name: str, X: np.ndarray, seed: int, smoke: bool) -> list:
    """Return what is shown of an estimator and a table."""
    import onnxruntime

    small = {"max_iter": 5} if smoke else {}
    est = getattr(skebm, name)(random_state=seed, **small)
    fit_timed(est, X)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "density.onnx"
        start = time.perf_counter()
        to_onnx(est, path)
        took, size = time.perf_counter() - start, path.stat().st_size / 1e3
        session = onnxruntime.InferenceSession(path, options)
    rows = rows_of(X, seed)
    row, n = rows[:1], 20 if smoke else 1000
    times = [
        seconds(call, repeats)
        for given, repeats in ((row, n), (rows, 3))
        for call in (
            lambda given=given: session.run(["log_density"], {"X": given}),
            lambda given=given: est.score_samples(given),
        )
    ]
    found = session.run(["log_density"], {"X": rows})[0]
    exact = np.concatenate([est.score_samples(part) for part in np.split(rows, MANY // 250)])
    worst = [
        f"{(np.abs(found - expected) / (1 + np.abs(expected))).max():.1e}"
        for expected in (exact, est.score_samples(rows))
    ]
    of_row = [1e6 * times[0], 1e6 * times[1], times[1] / times[0]]
    return [*of_row, 1e3 * times[2], 1e3 * times[3], *worst, took, size]


def main() -> None:
    """Print the bars, then the table."""
    args = parse(__doc__, seeds=1, tables={"default": "*", "help": "names, with wildcards"})
    print_title("Densities in onnxruntime", args)
    lines = []
    if is_installed("onnxscript") and is_installed("onnxruntime"):
        found = [name for name in TABLES if fnmatch(name, args.tables)]
        for table in found[:1] if args.smoke else found:
            for name in ESTIMATORS[:1] if args.smoke else ESTIMATORS:
                for seed in range(args.seeds):
                    X = TABLES[table]().data
                    lines.append([table, name, seed, *one(name, X, seed, args.smoke)])
    else:
        print("onnx is not installed: pip install skebm[onnx]", file=sys.stderr)
    fast = bool(lines) and min(line[5] for line in lines) >= 1
    exact = bool(lines) and max(float(line[8]) for line in lines) <= LARGEST
    bars = [["one row at least as fast in onnxruntime", yes(fast)]]
    print_table(["bar", "met"], [*bars, [f"differences at most {LARGEST:g}", yes(exact)]])
    columns = ["table", "estimator", "seed", "row: onnx us", "est us", "ratio", "10,000: onnx ms"]
    print_table([*columns, "est ms", "in double", "all at once", "export s", "file kB"], lines)


if __name__ == "__main__":
    main()
