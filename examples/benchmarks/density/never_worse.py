"""On real tables, HybridCDDensity is never worse than the base that it starts from.

Normal rows of each table, 70 % for the fit and 30 % for the test. The mean paired difference of the
held-out log densities, model - base, has to be at least -max(0.02, 2 standard errors) nats per row,
or `fit` has to raise ConvergenceError. Tables: the four that ship with scikit-learn, and every
.npz file in $SKEBM_DATA/tabular/adbench where SKEBM_DATA is set (at most 5,000 rows of each).

Run: python examples/benchmarks/density/never_worse.py [--tables breast_cancer wine]
    [--bases mixture]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from skebm import HybridCDDensity
from skebm.datasets import load_novelty, read_npz_table
from skebm.exceptions import ConvergenceError

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    base_log_density,
    fit_timed,
    not_worse,
    paired,
    parse,
    plus_minus,
    print_table,
    print_title,
    yes,
)

SHIPPED = ("breast_cancer", "digits", "iris", "wine")
BASES = ("mixture", "gaussian", "kernel", "uniform")
MOST_ROWS = 5_000


def tables(wanted: list[str] | None, smoke: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and normal rows."""
    for name in SHIPPED[2:] if smoke else SHIPPED:
        if wanted is None or name in wanted:
            X_train, X_test, is_novelty = load_novelty(name)
            yield name, np.concatenate([X_train, X_test[~is_novelty]])
    folder = os.environ.get("SKEBM_DATA")
    files = sorted(Path(folder, "tabular", "adbench").glob("*.npz")) if folder else []
    for path in [] if smoke else files:
        if wanted is None or path.stem in wanted:
            X, y = read_npz_table(path)
            rows = X if y is None else X[y == 0]
            keep = np.random.RandomState(0).permutation(len(rows))[:MOST_ROWS]
            yield path.stem, rows[keep]


def one(name: str, X: np.ndarray, base: str, seed: int, smoke: bool) -> list:
    """Fit one table over one base and return its row."""
    fitting, test = train_test_split(X, test_size=0.3, random_state=seed)
    est = HybridCDDensity(base=base, random_state=seed)
    if smoke:
        est.set_params(max_iter=25, log_partition="importance")
    label = [name, base, seed, f"{len(fitting)} x {X.shape[1]}"]
    try:
        seconds, notes = fit_timed(est, fitting)
    except ConvergenceError:  # allowed: loud
        return [*label, *["-"] * 6, "ConvergenceError", yes(True)]
    gain = paired(est.score_samples(test) - base_log_density(est, test))
    log_z = est.log_partition_
    return [
        *label,
        f"{seconds:.1f}",
        type(est.energy_).__name__,
        est.n_iter_,
        plus_minus((log_z.value, log_z.stderr)),
        log_z.method,
        plus_minus(gain),
        notes,
        yes(not_worse(*gain)),
    ]


def main() -> None:
    choice = {"nargs": "+", "default": None}
    args = parse(__doc__, seeds=1, tables=choice, bases=choice)
    print_title("model - base on held-out rows of real tables, nats per row", args)
    bases = args.bases or (BASES[:2] if args.smoke else BASES)
    rows = []
    for name, X in tables(args.tables, args.smoke):
        for base in bases:
            rows += [one(name, X, base, seed, args.smoke) for seed in range(args.seeds)]
    columns = ["table", "base", "seed", "rows", "fit s", "energy", "updates", "log Z", "method"]
    print_table([*columns, "model - base", "warnings", "met"], rows)
    n_met = sum(row[-1] == "yes" for row in rows)
    kept = sum(row[5] == "Zero" for row in rows)
    print(
        f"bar: not below -max(0.02, 2 standard errors); met by {n_met} of {len(rows)}. Energy Zero "
        f"({kept} rows): training did not beat the base on validation rows, so the base is kept."
    )


if __name__ == "__main__":
    main()
