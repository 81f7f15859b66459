"""Rows from est.sample follow est.score_samples.

5,000 rows from `sample` of fitted 2-D models against exact draws from the model's own density on a
fine grid (jittered within the cell), by permutation tests of the energy distance: p > 0.01 in at
least 4 of 5 seeds. The same test has to reject, p < 0.01, grid draws at temperature 1.1, or it
would show nothing. An energy distance between rows hardly sees the temperature, because distances
between modes outweigh those within; so a second one compares log densities of the rows, against ten
times as many exact draws, and p is twice the smaller of both p-values. The base is Gaussian, so
that the energy and the moves of `sample` matter.

Run: python examples/benchmarks/density/sample_quality.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from skebm import HybridCDDensity, datasets

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import fit_timed, parse, print_table, print_title, yes

DENSITIES = ("eight_modes", "two_moons")
TEMPERATURE = 1.1
ALPHA = 0.01


def grid_draws(est, X: np.ndarray, temperature: float, n: int, cells: int, rng) -> np.ndarray:
    """Draw from exp(score_samples / temperature), uniform within each cell of a grid around X."""
    low, high = X.min(0), X.max(0)
    low, high = low - 0.5 * (high - low), high + 0.5 * (high - low)
    width = (high - low) / cells
    corners = np.stack(np.meshgrid(*[np.arange(cells)] * 2, indexing="ij"), -1).reshape(-1, 2)
    log_p = est.score_samples(low + width * (corners + 0.5)) / temperature
    p = np.exp(log_p - log_p.max())
    rows = corners[rng.choice(len(p), n, p=p / p.sum())]
    return low + width * (rows + rng.uniform(size=rows.shape))


def permuted_signs(n: int, m: int, n_permutations: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield 1/n for one sample and -1/m for the other, as they are, then in random orders."""
    sign = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -1 / m)])
    yield sign
    rng = torch.Generator().manual_seed(seed)
    for _ in range(n_permutations):
        yield sign[torch.randperm(n + m, generator=rng)]


def p_of(statistic: torch.Tensor) -> float:
    """Return the share of orders that do as well as the first one."""
    n_as_large = int((statistic[1:] >= statistic[0]).sum())
    return (1 + n_as_large) / len(statistic)


def row_p(a: np.ndarray, b: np.ndarray, n_permutations: int, seed: int) -> float:
    """Return the p-value of the energy distance 2 E|a - b| - E|a - a'| - E|b - b'| of rows.

    With the signs s it is -s' D s over all distances D, so all orders are one matrix product.
    """
    rows = torch.from_numpy(np.concatenate([a, b])).float()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    signs = torch.stack(list(permuted_signs(len(a), len(b), n_permutations, seed)), 1)
    return p_of(-(signs * (distances @ signs)).double().sum(0))


def height_p(a: np.ndarray, b: np.ndarray, n_permutations: int, seed: int) -> float:
    """Return the same for numbers, where the distance is 2 * integral of (F - G)^2."""
    pooled, order = torch.from_numpy(np.concatenate([a, b])).sort()
    gaps = pooled.diff()
    orders = permuted_signs(len(a), len(b), n_permutations, seed)
    differences = (sign[order].double().cumsum(0)[:-1] for sign in orders)
    return p_of(torch.stack([(d.square() * gaps).sum() for d in differences]))


def p_value(est, draws: np.ndarray, exact: np.ndarray, n_permutations: int, seed: int) -> float:
    """Return the p-value of both tests together: twice the smaller one."""
    heights = [est.score_samples(rows) for rows in (draws, exact)]
    by_row = row_p(draws, exact[: len(draws)], n_permutations, seed)
    return min(1.0, 2 * min(by_row, height_p(*heights, n_permutations, seed)))


def one(name: str, seed: int, args) -> list:
    """Fit, draw, test; return one row of the table."""
    n, cells, n_permutations = (300, 60, 399) if args.smoke else (5_000, 500, 999)
    X = getattr(datasets, name)().sample(500 if args.smoke else 10_000, random_state=seed)
    est = HybridCDDensity(base="gaussian", random_state=seed)
    if args.smoke:
        est.set_params(max_iter=25)
    fit_timed(est, X)
    rng = np.random.RandomState(seed)
    draws = est.sample(n, random_state=seed)
    exact = grid_draws(est, X, 1.0, 10 * n, cells, rng)
    warm = grid_draws(est, X, TEMPERATURE, n, cells, rng)
    p_draws, p_warm = (p_value(est, rows, exact, n_permutations, seed) for rows in (draws, warm))
    info = est.sample_info_
    effective = f"{info.ess:.0f} of {info.n_candidates}"
    return [name, seed, p_draws, p_warm, effective, f"{info.acceptance:.2f}"]


def main() -> None:
    args = parse(__doc__, seeds=5)
    print_title("sample() against exact draws, energy-distance permutation test", args)
    rows = []
    for name in DENSITIES:
        part = [one(name, seed, args) for seed in range(args.seeds)]
        same = sum(row[2] > ALPHA for row in part)
        warm = sum(row[3] < ALPHA for row in part)
        needed = args.seeds - args.seeds // 5
        rows += [[*row, "", ""] for row in part]
        met = yes(same >= needed and warm == args.seeds)
        bar = f"p > 0.01 in {needed}, p < 0.01 in {args.seeds}"
        found = [f"{same} of {args.seeds}", f"{warm} of {args.seeds}"]
        rows.append([name, "all", *found, "", "", bar, met])
    columns = ["density", "seed", "p sample", f"p at T = {TEMPERATURE}", "effective draws"]
    print_table([*columns, "acceptance", "bar", "met"], rows)


if __name__ == "__main__":
    main()
