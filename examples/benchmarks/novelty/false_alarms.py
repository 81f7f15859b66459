"""False alarms of ConformalNoveltyDetector on held-out normal rows of real tables.

Tables and halves as in tabular_novelty.py: half of the normal rows are given to ``fit``, which
keeps 30 % for calibration; the other normal rows are scored at alpha 0.05. "own" is the rate of
the estimator's own ``predict`` and "training" that of the 5 % quantile of training scores, neither
of which promises anything. "expected" is the mean rate that the conformal threshold has for
continuous scores, k / (n + 1). "fdr" is the false discovery proportion of Benjamini-Hochberg at 0.1
on all test rows, and "power" the share of anomalies that it finds; the guarantee is for the mean
over draws. Tables with fewer than 20 calibration rows get the documented error.

Bars: over tables with at least 100 calibration rows the mean false-alarm rate is between 0.03 and
0.07; smaller tables than 1 / alpha rows raise.

Run: python examples/benchmarks/novelty/false_alarms.py [--tables "4*"] [--method NCEDensity]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skebm.ood import ConformalNoveltyDetector

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes
from examples.benchmarks.novelty.tabular_novelty import METHODS, MOST_ROWS, OURS, Split, tables

ALPHA, FDR, MANY, LOW, HIGH = 0.05, 0.1, 100, 0.03, 0.07
CALIBRATION = 0.3


def one(split: Split, est: Any, seed: int) -> list:
    """Return rows that calibrate, and the rates; of a table too small, what was raised."""
    scaler = StandardScaler().fit(split.train)
    X, T = scaler.transform(split.train), scaler.transform(split.test)
    rest, calibration = train_test_split(X, test_size=CALIBRATION, random_state=seed)
    n = len(calibration)
    if n < 1 / ALPHA:
        try:
            ConformalNoveltyDetector(est, alpha=ALPHA, calibration_fraction=CALIBRATION).fit(X)
        except ValueError as error:
            return [n, str(error)]
        return [n, "no error"]
    est.fit(rest)
    detector = ConformalNoveltyDetector(est, alpha=ALPHA, prefit=True).fit(calibration)
    normal = T[~split.is_novelty]
    chosen = detector.select(T, fdr=FDR)
    false = (chosen & ~split.is_novelty).sum() / max(chosen.sum(), 1)
    threshold = np.quantile(est.score_samples(rest), ALPHA)
    own = est.predict(normal) if hasattr(est, "predict") else np.full(1, np.nan)
    return [
        n,
        float((detector.predict(normal) == -1).mean()),
        int(ALPHA * (n + 1) + 1e-9) / (n + 1),
        float((own == -1).mean()) if np.isfinite(own).all() else float("nan"),
        float((est.score_samples(normal) < threshold).mean()),
        float(false),
        float(chosen[split.is_novelty].mean()),
    ]


def main() -> None:
    extra: dict[str, dict] = {
        "folder": {"type": Path, "default": None, "help": "of .npz files with X and y"},
        "tables": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "rows": {"type": int, "default": MOST_ROWS, "help": f"most rows of a table ({MOST_ROWS})"},
        "method": {"choices": METHODS, "default": "NCEDensity", "help": "estimator (NCEDensity)"},
    }
    args = parse(__doc__, seeds=1, **extra)
    print_title(f"False alarms at alpha {ALPHA}, {args.method}", args)
    lines, rates, refused = [], [], []
    for name, split_for in tables(args):
        for seed in range(args.seeds):
            est = METHODS[args.method](seed)
            if args.smoke and args.method in OURS:
                est.set_params(max_iter=3, log_partition="importance")
            found = one(split_for(seed), est, seed)
            if len(found) == 2:
                refused.append("1 / alpha" in found[1])
                lines.append([name, seed, found[0], *["-"] * 6, yes(refused[-1])])
                continue
            if found[0] >= MANY:
                rates.append(found[1])
            lines.append([name, seed, *found, "-"])
    mean = float(np.mean(rates)) if rates else float("nan")
    lines.append(
        [f"mean, {len(rates)} fits", "", f">= {MANY}", mean, *["-"] * 5, yes(LOW <= mean <= HIGH)]
    )
    columns = ["table", "seed", "calibration rows", "false alarms", "expected", "own", "training"]
    print_table([*columns, "fdr", "power", "met"], lines)


if __name__ == "__main__":
    main()
