"""score_samples beside KernelDensity with 10,000 training rows, pair by pair in one process.

Rows on a bent sheet (score_throughput.py) of 10 columns; all estimators have default settings but
for 50 updates, which does not change the cost of scoring. KernelDensity has the bandwidth 0.3 and
scikit-learn's defaults, and rtol 1e-4 as a quicker, approximate one. Seconds are medians over
rounds for 10,000 new rows, "ratio" is the median over rounds of (KernelDensity's seconds / ours).
Bar: 10 times as fast.

Run: python examples/benchmarks/score_speed.py
"""

from __future__ import annotations

import warnings

import numpy as np
from _common import parse, print_table, print_title, yes
from score_throughput import seconds, training_rows
from sklearn.neighbors import KernelDensity

from skebm import HybridCDDensity, NCEDensity, ScoreMatchingDensity, SteinEBM, USPDensity

ESTIMATORS = (NCEDensity, USPDensity, HybridCDDensity, ScoreMatchingDensity, SteinEBM)
FASTER = 10.0


def main() -> None:
    args = parse(__doc__, seeds=1)
    n, rounds = (200, 2) if args.smoke else (10_000, 5)
    X, T = np.split(training_rows(2 * n), 2)
    kernels = {"exact": KernelDensity(bandwidth=0.3), "rtol 1e-4": KernelDensity(bandwidth=0.3)}
    kernels["rtol 1e-4"].set_params(rtol=1e-4)
    models = {f"KernelDensity, {name}": kde.fit(X) for name, kde in kernels.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cls in ESTIMATORS[:2] if args.smoke else ESTIMATORS:
            est = cls(max_iter=3 if args.smoke else 50, random_state=0)
            models[f"{cls.__name__}, base {est.base}"] = est.fit(X)
    took = np.array(
        [[seconds(est.score_samples, T) for est in models.values()] for _ in range(rounds)]
    )
    names, exact, approximate = list(models), took[:, 0], took[:, 1]
    lines = []
    for j, name in enumerate(names):
        ratios = [float(np.median(reference / took[:, j])) for reference in (exact, approximate)]
        met = yes(ratios[0] >= FASTER) if j > 1 else "-"
        lines.append([name, float(np.median(took[:, j])), *(f"{r:.1f}" for r in ratios), met])
    print_title(f"Scoring {n:,} rows, {n:,} training rows, {X.shape[1]} columns", args)
    print_table(["method", "seconds", "ratio to exact", "ratio to rtol 1e-4", "met"], lines)


if __name__ == "__main__":
    main()
