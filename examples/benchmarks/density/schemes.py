"""Hybrid training costs little density against data-started chains, and its samples are likely.

Default HybridCDDensity, ``init="hybrid"`` beside ``init="data"``, 10,000 training and 10,000 test
rows of each two-dimensional density. "lost" is the paired difference of log densities of the same
test rows, data minus hybrid (bar: at most 0.1 nats); "samples" is the mean exact log density of
2,000 samples of the hybrid model, beside that of the test rows (bar: at most 0.5 nats apart). The
checkerboard is 0 beside its cells, so that the mean is -inf for any model with tails: there
"inside" is the mean of the samples in cells, "outside" the share of the others, and the bar is not
met.

Run: python examples/benchmarks/density/schemes.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from skebm import HybridCDDensity, datasets

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    fit_timed,
    paired,
    parse,
    plus_minus,
    print_table,
    print_title,
    yes,
)

DENSITIES = ("eight_modes", "grid_25", "two_moons", "checkerboard")
MOST_LOST, MOST_APART = 0.1, 0.5


def one(name: str, seed: int, args) -> list:
    """Fit both schemes to one density and return its row of the table."""
    density = getattr(datasets, name)()
    n = 500 if args.smoke else 10_000
    X, T = (density.sample(n, random_state=2 * seed + part) for part in (0, 1))
    fitted, seconds = {}, {}
    for init in ("hybrid", "data"):
        est = HybridCDDensity(init=init, random_state=seed)
        if args.smoke:
            est.set_params(max_iter=25)
        seconds[init], _ = fit_timed(est, X)
        fitted[init] = est
    lost = paired(fitted["data"].score_samples(T) - fitted["hybrid"].score_samples(T))
    samples = fitted["hybrid"].sample(200 if args.smoke else 2000, random_state=seed)
    with np.errstate(divide="ignore"):
        exact = density.log_density(samples)
    inside = np.isfinite(exact)
    at_samples, at_data = float(exact.mean()), float(density.log_density(T).mean())
    met = lost[0] <= MOST_LOST and abs(at_samples - at_data) <= MOST_APART
    return [
        name,
        seed,
        plus_minus(lost),
        at_samples,
        float(exact[inside].mean()),
        at_data,
        float((~inside).mean()),
        f"{seconds['hybrid']:.0f}",
        f"{seconds['data']:.0f}",
        yes(met),
    ]


def main() -> None:
    args = parse(__doc__, seeds=1)
    print_title("Default HybridCDDensity: hybrid against data-started chains, nats per row", args)
    columns = ["density", "seed", "lost", "samples", "inside", "test rows", "outside"]
    columns += ["hybrid fit s", "data fit s", "met"]
    densities = DENSITIES[:1] if args.smoke else DENSITIES
    print_table(
        columns, [one(name, seed, args) for name in densities for seed in range(args.seeds)]
    )


if __name__ == "__main__":
    main()
