"""How often the bounds of BoundsEBM hold, and what too few iterations do to the lower one.

First table: fits on five densities in two dimensions, 2,000 rows of which 500 are held out, with
the exact entropy (with and without the push against folds) and with the paper's d log s_1, after
300 and 2,000 updates, one training each and no refinement. The truth is the negative log likelihood
(nll) of new rows under the model normalized on a grid. A bound holds if it is on its side
of the nll up to 3 standard errors, in which the rows, common to both, have no part. "surrogate
below" counts the fits whose upper surrogate is below the nll by more than that: it is no bound.
Folded: the Jacobian's determinant changes sign between the 16,384 latents that were looked at. That
none does is necessary for a generator to be injective, not sufficient.

Second table: d log s_1 by LOBPCG, the entropy's term beyond 64 latents. "too large" is what the
iterations leave above the singular value of a dense decomposition, nats, over latents and runs.
Two perceptrons (256-512, tanh) of 784 values from 128 latents, untrained, the second with latents
stretched over a factor 100; and square linear generators with singular values spread evenly in
logarithm, each beside its own Gaussian as the model, where the expected lower bound minus the nll
is d log s_1 minus half log det. "above log det" counts the latents at which d log s_1 so computed
exceeds that, "void" the runs in which its mean does: the lower bound is then above the nll of a
model that fits.

Bars: the lower bound holds in every fit that is not folded; no run is void at BoundsEBM's own
number of iterations. Results are kept in CSV files, so that a run that was stopped goes on.

Run: python examples/benchmarks/validity/bound_validity.py [--densities "swiss*"] [--folder FOLDER]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm import BoundsEBM
from skebm.datasets import GaussianDensity, eight_modes, grid_25, swiss_roll, two_moons
from skebm.exceptions import ConvergenceError
from skebm.metrics import grid_kl
from skebm.networks import (
    MLPGenerator,
    half_log_det,
    singular_values,
    smallest_singular_value,
    value_and_jacobian,
)
from skebm.objectives import GeneratorEntropy

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    Kept,
    fingerprint,
    fit_timed,
    parse,
    print_table,
    print_title,
    yes,
)
from examples.benchmarks.validity.bounds_25 import Judged, judge

N_ROWS, HELD_OUT, CELLS = 2000, 0.25, 800
UPDATES = (300, 2000)
ENTROPIES = (("logdet", 10.0), ("logdet", 0.0), ("singular-value", 0.0))
FIT_KEY = ("density", "entropy", "push", "updates", "seed", "settings", "rows")
FIT_VALUES = ("fold", *Judged._fields, "seconds", "notes")

ITERATIONS = (2, 5, 10, 20, 50)
DEFAULT = GeneratorEntropy().n_lobpcg
RUN_KEY = ("generator", "latents", "iterations", "runs")
RUN_VALUES = ("condition", "median", "worst", "above", "void")
STRETCH = 100.0
SIZES, CONDITIONS = (16, 64, 128), (10.0, 100.0)


def cases() -> dict[str, tuple[Any, float]]:
    """Return densities and half the side of a square that holds what models of them cover."""
    gaussian = GaussianDensity([[1.0, 0.9], [0.9, 1.0]])
    return {
        "25 Gaussians": (grid_25(), 5.0),
        "swiss roll": (swiss_roll(), 8.0),
        "two moons": (two_moons(), 6.0),
        "eight modes": (eight_modes(), 12.0),
        "correlated Gaussian": (gaussian, 6.0),
    }


def rows(args: Any) -> int:
    return 60 if args.smoke else N_ROWS


def one(density: Any, half: float, est: BoundsEBM, seed: int, args: Any) -> list:
    """Fit and return the values of a row."""
    X, T = (density.sample(rows(args), random_state=seed + part) for part in (0, 1000))
    try:
        seconds, notes = fit_timed(est, X)
    except ConvergenceError:  # allowed: loud, and without a model
        return [float("nan")] * (len(FIT_VALUES) - 1) + ["ConvergenceError"]
    corners, cells = ([-half] * 2, [half] * 2), 50 if args.smoke else CELLS
    grid = grid_kl(density.log_density, est.score_samples, corners, n_grid=cells)
    return [est.fold_fraction_, *judge(est, T, grid.log_z), seconds, notes]


def fits_of(
    name: str, entropy: str, push: float, updates: int, kept: Kept, args: Any
) -> list[list[float]]:
    """Return the numbers of the fits with these settings, one list per seed."""
    density, half = cases()[name]
    found = []
    for seed in range(args.seeds):
        est = BoundsEBM(
            entropy=GeneratorEntropy(entropy, fold_penalty=push),
            n_restarts=1,
            refine=False,
            base="gaussian",
            max_iter=updates,
            n_iter_no_change=None,
            validation_fraction=HELD_OUT,
            random_state=seed,
        )
        key = [name, entropy, push, updates, seed, fingerprint(est), rows(args)]
        row = kept.get(key, lambda e=est, s=seed: one(density, half, e, s, args))
        found.append([float(value) for value in row[len(FIT_KEY) : -1]])
        print(f"{name}, {entropy}, push {push:g}, {updates}, seed {seed}", file=sys.stderr)
    return found


def counted(fits: list[list[float]]) -> list:
    """Return how often which bound holds, with the verdict on the lower one."""
    fits = [fit for fit in fits if not math.isnan(fit[0])]
    folds = np.array([fit[0] > 0 for fit in fits], dtype=bool)
    judged = [Judged(*fit[1:7]) for fit in fits]
    held = np.array([j.lower_holds() for j in judged], dtype=bool)
    below = sum(j.surrogate_below() for j in judged)
    above = sum(j.cubo_holds() for j in judged if not math.isnan(j.cubo))
    n_cubo = sum(not math.isnan(j.cubo) for j in judged)
    lower = f"{np.median([j.lower for j in judged]):+.3f}" if judged else "-"
    ess = f"{np.median([j.ess for j in judged]):.0f}" if judged else "-"
    return [
        *(len(fits), lower),
        _of(held[~folds].sum(), (~folds).sum()),
        _of(held[folds].sum(), folds.sum()),
        _of(below, len(fits)),
        _of(above, n_cubo),
        ess,
        yes(bool(held[~folds].all())) if (~folds).any() else "-",
    ]


def _of(count: int, total: int) -> str:
    return f"{count} of {total}"


def fit_table(args: Any) -> list[list]:
    kept = Kept(args.folder / "bound_validity_fits.csv", [*FIT_KEY, *FIT_VALUES], len(FIT_KEY))
    table, everything = [], []
    for name in cases():
        if not fnmatch(name, args.densities) or (args.smoke and name[:5] != "eight"):
            continue
        for entropy, push in ENTROPIES[: 1 if args.smoke else None]:
            for updates in (3,) if args.smoke else UPDATES:
                fits = fits_of(name, entropy, push, updates, kept, args)
                table.append([name, entropy, f"{push:g}", updates, *counted(fits)])
                everything += fits
    return [*table, ["all", "", "", "", *counted(everything)]]


class Stretched(torch.nn.Module):
    """A generator whose latents are scaled first, which widens its Jacobian's spectrum."""

    def __init__(self, network: torch.nn.Module, factors: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("factors", factors)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.network(z * self.factors)


def perceptron(stretch: float, rng: torch.Generator) -> torch.nn.Module:
    """Return an untrained generator of 784 values from 128 latents."""
    d = 128
    network = MLPGenerator((256, 512), output="tanh").build(d, (784,), rng)
    factors = torch.logspace(0, -math.log10(stretch), d, dtype=torch.float64)
    return Stretched(network, factors).double().eval().requires_grad_(False)


def linear(d: int, condition: float, rng: torch.Generator) -> torch.nn.Module:
    """Return a square linear generator with singular values spread evenly in logarithm."""
    left, right = (
        torch.linalg.qr(torch.empty(d, d, dtype=torch.float64).normal_(generator=rng)).Q
        for _ in range(2)
    )
    network = torch.nn.Linear(d, d, bias=False, dtype=torch.float64)
    values = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    network.weight.data = left * values @ right.mT
    return network.requires_grad_(False)


class Kind(NamedTuple):
    """A kind of generator: how to make one, and how many runs and latents to look at."""

    name: str
    latents: int
    make: Callable[[torch.Generator], torch.nn.Module]
    runs: int
    rows: int


def kinds(small: bool) -> Iterator[Kind]:
    sizes = (1, 2) if small else (5, 16)
    stretches = {"perceptron, untrained": 1.0, "perceptron, stretched": STRETCH}
    for name, stretch in list(stretches.items())[: 1 if small else None]:
        yield Kind(name, 128, partial(perceptron, stretch), *sizes)
    for condition in CONDITIONS:
        for d in SIZES[: 1 if small else None]:
            name = f"linear, condition {condition:g}"
            yield Kind(name, d, partial(linear, d, condition), 2 if small else 50, 32)


def runs_of(kind: Kind, iterations: Sequence[int]) -> dict[int, list]:
    """Return the values of a row for each number of iterations; run i draws from seed i."""
    excess: dict[int, list[torch.Tensor]] = {n: [] for n in iterations}
    room, spread = [], []
    for seed in range(kind.runs):
        network = kind.make(torch.Generator().manual_seed(seed))
        rng = torch.Generator().manual_seed(1000 + seed)
        z = torch.empty(kind.rows, kind.latents, dtype=torch.float64).normal_(generator=rng)
        jacobian = value_and_jacobian(network, z)[1]
        values = singular_values(jacobian)
        exact = kind.latents * values[:, 0].log()
        room.append(half_log_det(jacobian) - exact)
        spread.append(values[:, -1] / values[:, 0])
        for n_iter in iterations:
            found = smallest_singular_value(network, z, solver="lobpcg", n_iter=n_iter, rng=rng)
            excess[n_iter].append(kind.latents * found.value.log() - exact)
    rooms, condition = torch.stack(room), float(torch.cat(spread).median())
    return {n: [condition, *_judged(torch.stack(found), rooms)] for n, found in excess.items()}


def _judged(excess: torch.Tensor, room: torch.Tensor) -> list:
    """Return median and worst excess (nats), the share above log det, and how many runs are."""
    above = float((excess > room).double().mean())
    void = int((excess.mean(1) > room.mean(1)).sum())
    return [float(excess.median()), float(excess.max()), above, void]


def iteration_table(args: Any) -> list[list]:
    path = args.folder / "bound_validity_lobpcg.csv"
    kept, table = Kept(path, [*RUN_KEY, *RUN_VALUES], len(RUN_KEY)), []
    iterations = (2, DEFAULT) if args.smoke else ITERATIONS
    for kind in kinds(args.smoke):
        found = cache(lambda k=kind: runs_of(k, iterations))
        for n_iter in iterations:
            key = [kind.name, kind.latents, n_iter, kind.runs]
            row = kept.get(key, lambda f=found, n=n_iter: f()[n])
            condition, median, worst, above = (float(v) for v in row[len(RUN_KEY) : -1])
            void = int(row[-1])
            met = yes(void == 0) if n_iter == DEFAULT else "-"
            cells = [f"{condition:.0f}", f"{median:.2f}", f"{worst:.2f}", f"{above:.0%}"]
            table.append([*row[:3], *cells, _of(void, kind.runs), met])
    return table


def main() -> None:
    extra: dict[str, dict] = {
        "densities": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "folder": {"type": Path, "default": Path("output"), "help": "of the results"},
    }
    args = parse(__doc__, seeds=3, **extra)
    args.folder.mkdir(parents=True, exist_ok=True)
    print_title("How often the bounds of BoundsEBM hold", args)
    columns = ["density", "entropy", "push", "updates", "fits", "median lower - nll"]
    columns += ["lower held, not folded", "lower held, folded", "surrogate below", "cubo held"]
    print_table([*columns, "median ess", "met"], fit_table(args))
    print("d log s_1 by LOBPCG, nats:")
    columns = ["generator", "latents", "iterations", "condition", "too large", "at worst"]
    print_table([*columns, "above log det", "void", "met"], iteration_table(args))
    print("condition: median of the largest singular value over the smallest.")


if __name__ == "__main__":
    main()
