"""BoundsEBM on 25 narrow Gaussians and a swiss roll: modes, log likelihood, and its bounds.

10,000 training rows, of which BoundsEBM holds out a tenth. "gap" is truth minus model in nats per
row, the model normalized on a fine grid, paired over 10,000 new rows, mean ± standard error; "log Z
off" is the log of the integral of the density that ``score_samples`` gives, on that grid: 0 if
``log_partition_`` is right. "modes" (each with 1 % of 10,000 rows within 4 standard deviations) and
the share of rows there are the generator's, "drawn modes" those of ``sample``. Bounds are those of
``bounds`` for the new rows, held against the negative log likelihood on the grid (nll) of these
very rows, so that the rows' chance cancels: the standard error beside "lower - nll" is that of the
generator's draws. A surrogate below the nll is no upper bound.

All but the last model have the defaults, a Gaussian base and 6,000 updates; but for "BB, refined"
none is refined. WGAN-0GP, MEG, VERA and EBM-0GP are the paper's baselines, "BB, no push" is BB
without the push against folds, and the last has the paper's settings: no base, so that its density
is normalized on the grid alone.

Bars: at least 24 modes without refinement in 4 of 5 seeds, and the others fold and say so; refined,
a gap of at most 0.3 nats (swiss roll: 0.05), better than every baseline, 25 drawn modes; a fit
in 300 s; the lower bound holds wherever nothing folds. Results are kept in a CSV file, so that a
run that was stopped goes on; fits with other parameters are made anew.

Run: python examples/benchmarks/validity/bounds_25.py [--densities "swiss*"] [--models "BB*"]
    [--csv FILE]
"""

from __future__ import annotations

import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skebm import BoundsEBM
from skebm.datasets import grid_25, swiss_roll
from skebm.exceptions import ConvergenceError
from skebm.metrics import grid_kl, mode_count
from skebm.objectives import GeneratorEntropy

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import (
    Kept,
    fingerprint,
    fit_timed,
    paired,
    parse,
    plus_minus,
    print_table,
    print_title,
    yes,
)

N_ROWS, UPDATES, PAPER_UPDATES = 10_000, 6000, 6000
FEWEST_MODES, MOST_SECONDS, FOLDED = 24, 300, 0.1
N_STDERR = 3
BB, REFINED, STATED = "BB", "BB, refined", "BB, paper's settings"
BASELINES: dict[str, dict[str, Any]] = {
    "WGAN-0GP": {"bound": "wgan-0gp"},
    "MEG": {"bound": "zero-centered-gp", "entropy": "mutual-information"},
    "VERA": {"bound": "zero-centered-gp", "entropy": "variational"},
    "EBM-0GP": {"bound": "zero-centered-gp"},
}
MODELS: dict[str, dict[str, Any]] = {
    BB: {},
    REFINED: {"refine": True},
    "BB, no push": {"entropy": GeneratorEntropy(fold_penalty=0.0)},
    **BASELINES,
    STATED: {},
}
KEY = ("density", "model", "seed", "settings", "rows")
VALUES = ["gap", "stderr", "kl", "log_z_off", "modes", "share", "drawn", "fold", "lower"]
VALUES += ["lower_stderr", "surrogate", "cubo", "cubo_stderr", "ess", "fit_s", "updates", "notes"]
MODE_BAR = f"generator finds {FEWEST_MODES} modes"
SHARES = {MODE_BAR: 0.8}  # of the seeds; of the other bars all


class Case(NamedTuple):
    """A density, its grid, the largest gap allowed, and its modes."""

    density: Any
    half: float  # of the grid's side, units of X
    cells: int
    largest_gap: float
    centers: np.ndarray | None = None
    radius: float | None = None


def cases() -> dict[str, Case]:
    grid = grid_25()
    radius = 4 * float(grid.scales[0, 0])
    return {
        "25 Gaussians": Case(grid, 5.0, 1000, 0.3, grid.means, radius),
        "swiss roll": Case(swiss_roll(), 8.0, 800, 0.05),
    }


class Judged(NamedTuple):
    """Bounds minus the negative log likelihood of the same rows, nats, and standard errors."""

    lower: float
    lower_stderr: float
    surrogate: float
    cubo: float
    cubo_stderr: float
    ess: float

    def lower_holds(self) -> bool:
        return self.lower <= N_STDERR * self.lower_stderr

    def surrogate_below(self) -> bool:
        return self.surrogate < -N_STDERR * self.lower_stderr

    def cubo_holds(self) -> bool:
        return self.cubo >= -N_STDERR * self.cubo_stderr


def judge(est: BoundsEBM, X: np.ndarray, log_z: float) -> Judged:
    """Hold the bounds for rows against a density that has to be divided by exp(`log_z`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the generator, as the fit did, and of annealing
        found = est.bounds(X)
    scores = est.score_samples(X) - log_z
    by_rows = scores.var(ddof=1) / len(scores)  # part of the squared standard errors

    def difference(bound: Any) -> tuple[float, float]:
        by_draws = max(bound.stderr**2 - by_rows, 0.0)
        return bound.value + scores.mean(), by_draws**0.5

    ends = (*difference(found.cubo), found.cubo.ess)
    return Judged(*difference(found.lower_bound), difference(found.upper_surrogate)[0], *ends)


def estimator(model: str, seed: int) -> BoundsEBM:
    if model == STATED:
        changes = {"max_iter": PAPER_UPDATES, "log_partition": None}
        return BoundsEBM.from_paper("toy", random_state=seed, **changes)
    settings = {"base": "gaussian", "max_iter": UPDATES, "refine": False} | MODELS[model]
    return BoundsEBM(random_state=seed, **settings)


def modes(case: Case, X: np.ndarray) -> tuple[float, float]:
    """Return how many modes the rows cover, and the share of them that is near one."""
    if case.centers is None:
        return float("nan"), float("nan")
    found = mode_count(X, centers=case.centers, radius=case.radius)
    return float(found.n_modes), float(found.counts.sum() / len(X))


def one(case: Case, est: BoundsEBM, seed: int, n: int) -> list:
    """Fit and return the values of a row."""
    X, T = (case.density.sample(n, random_state=2 * seed + part) for part in (0, 1))
    try:
        seconds, notes = fit_timed(est, X)
    except ConvergenceError:  # allowed: loud, and without a model
        return [float("nan")] * 15 + [0, "ConvergenceError"]
    corners = ([-case.half] * 2, [case.half] * 2)
    grid = grid_kl(case.density.log_density, est.score_samples, corners, n_grid=case.cells)
    gap = paired(case.density.log_density(T) - est.score_samples(T) + grid.log_z)
    generated = est.sample(n, random_state=3000 + seed, method="generator")
    drawn, _ = modes(case, est.sample(n, random_state=4000 + seed))
    off = float("nan") if est.log_partition_ is None else grid.log_z
    found = [*gap, grid.kl, off, *modes(case, generated), drawn, est.fold_fraction_]
    return [*found, *judge(est, T, grid.log_z), seconds, est.n_iter_, notes]


class Fit:
    """A row read back."""

    def __init__(self, row: list[str]) -> None:
        self.density, self.model, self.seed = row[:3]
        self.values = dict(zip(VALUES, row[len(KEY) :], strict=True))
        self.notes = self.values["notes"]

    def __getitem__(self, name: str) -> float:
        return float(self.values[name])

    @property
    def judged(self) -> Judged:
        ends = ("cubo", "cubo_stderr", "ess")
        return Judged(*(self[name] for name in ("lower", "lower_stderr", "surrogate", *ends)))


def bars(fit: Fit, fits: list[Fit]) -> dict[str, bool]:
    """Return which bars there are for a fit, and whether it meets them."""
    found = {}
    if fit["fold"] == 0:
        found["lower bound holds where nothing folds"] = fit.judged.lower_holds()
    if fit.model in (BB, REFINED):
        found[f"fitted in {MOST_SECONDS} s"] = fit["fit_s"] <= MOST_SECONDS
    case = cases()[fit.density]
    if fit.model == BB and case.centers is not None:
        enough = fit["modes"] >= FEWEST_MODES
        found[MODE_BAR] = enough
        found["or it folds, and warns"] = enough or (
            fit["fold"] > FOLDED and "GeneratorWarning" in fit.notes
        )
    if fit.model == REFINED:
        found[f"refined, {fit.density}: gap <= {case.largest_gap}"] = fit["gap"] <= case.largest_gap
        if case.centers is not None:
            found["refined: better than the baselines"] = beats(fit, fits)
            found["refined: sample finds all modes"] = fit["drawn"] == len(case.centers)
    return found


def beats(fit: Fit, fits: list[Fit]) -> bool:
    """Whether all baselines of the same rows are there, and worse; one that diverged is."""
    same = [f for f in fits if (f.density, f.seed) == (fit.density, fit.seed)]
    gaps = {f.model: f["gap"] for f in same if f.model in BASELINES}
    return len(gaps) == len(BASELINES) and not any(gap <= fit["gap"] for gap in gaps.values())


def line(fit: Fit, fits: list[Fit]) -> list:
    """Return the fit as printed, with its verdict on bars that are for every seed."""
    met = [flag for name, flag in bars(fit, fits).items() if name not in SHARES]
    counts = ["-" if np.isnan(fit[name]) else f"{fit[name]:.0f}" for name in ("modes", "drawn")]
    share, kl = ("-" if np.isnan(fit[name]) else f"{fit[name]:.3f}" for name in ("share", "kl"))
    judged = fit.judged
    none = np.isnan(judged.surrogate) or fit.model in BASELINES  # they are not trained on it
    upper = "-" if np.isnan(judged.cubo) else f"{judged.cubo:+.3f} (ess {judged.ess:.0f})"
    return [
        *(fit.density, fit.model, fit.seed, plus_minus((fit["gap"], fit["stderr"])), kl),
        "-" if np.isnan(fit["log_z_off"]) else f"{fit['log_z_off']:+.4f}",
        *(counts[0], share, counts[1], f"{fit['fold']:.3f}"),
        f"{judged.lower:+.3f} ± {judged.lower_stderr:.3f}",
        "-" if none else f"{judged.surrogate:+.3f}",
        *(upper, f"{fit['fit_s']:.0f}", f"{fit['updates']:.0f}", fit.notes),
        yes(all(met)) if met else "-",
    ]


def summary(fits: list[Fit]) -> list[list]:
    """Return for each bar in how many fits it is met."""
    flags: dict[str, list[bool]] = {}
    for fit in fits:
        for name, flag in bars(fit, fits).items():
            flags.setdefault(name, []).append(flag)
    return [
        [name, len(met), sum(met), yes(sum(met) >= SHARES.get(name, 1.0) * len(met))]
        for name, met in flags.items()
    ]


def run(args: Any) -> list[Fit]:
    n = 60 if args.smoke else N_ROWS
    kept = Kept(args.csv, [*KEY, *VALUES], len(KEY))
    fits = []
    for name, case in cases().items():
        case = case._replace(cells=50) if args.smoke else case
        if not fnmatch(name, args.densities) or (args.smoke and case.centers is None):
            continue
        for seed in range(args.seeds):
            for model in MODELS:
                if not fnmatch(model, args.models) or (args.smoke and model not in (BB, REFINED)):
                    continue
                est = estimator(model, seed)
                if args.smoke:
                    est.set_params(max_iter=3, n_restarts=1, refine=3 if est.refine else False)
                key = [name, model, seed, fingerprint(est), n]
                row = kept.get(key, lambda c=case, e=est, s=seed: one(c, e, s, n))
                fits.append(Fit(row))
                print(f"{name}, {model}, seed {seed}", file=sys.stderr, flush=True)
    return fits


def main() -> None:
    extra: dict[str, dict] = {
        "densities": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "models": {"default": "*", "help": "names, as a pattern of the shell (*)"},
        "csv": {"type": Path, "default": Path("output/bounds_25.csv"), "help": "results"},
    }
    args = parse(__doc__, seeds=5, **extra)
    args.csv.parent.mkdir(parents=True, exist_ok=True)
    print_title("BoundsEBM on 2-D densities, nats per row", args)
    fits = run(args)
    columns = ["density", "model", "seed", "gap", "KL on grid", "log Z off", "modes", "share near"]
    columns += ["drawn modes", "folded", "lower - nll", "surrogate - nll", "cubo - nll"]
    print_table([*columns, "fit s", "updates", "notes", "met"], [line(fit, fits) for fit in fits])
    print("the bars:")
    print_table(["bar", "fits", "met in", "met"], summary(fits))


if __name__ == "__main__":
    main()
