"""LSD Figure 4: densities in two dimensions, trained by a learned Stein discrepancy.

Two moons, three rings and a checkerboard; the paper shows three densities without names or numbers.
Energy and critic are perceptrons of 300-300 (Swish) beside a Gaussian with learned means and
variances (Eq. 15), Adam with step 0.001, five updates of the critic for one of the energy,
lambda = 10, batches of 100. 10,000 iterations of the released code count the critic's: 1,667
updates of the energy. Betas are (0.5, 0.9) in the paper (B.4) and (0, 0.999) in the code: both are
here, and "default" is SteinEBM as it comes. Columns are standardized, of which the paper is silent.

Each fit is judged as training left it ("raw") and with mode weights put right afterwards by maximum
likelihood ("calibrated", not in the paper), both normalized on a grid: held-out log likelihood
beside the truth and beside the fit's Gaussian alone, and KL(truth || model) on the grid. Scores say
little of the weights of separated parts, and so does training by them.

``--mode quick`` has one seed and leaves the released betas out; ``--mode full`` has five seeds, and
rows of the paper's settings with 10,000 updates of the energy.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from skebm import SteinEBM
from skebm.datasets import RingsDensity, checkerboard, two_moons
from skebm.energies.reweighted import Reweighted
from skebm.exceptions import NormalizationWarning
from skebm.metrics import grid_kl
from skebm.objectives import Optimization

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._paper import (
    Kept,
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)

ROWS = {"smoke": 300, "quick": 20_000, "full": 20_000}
UPDATES = {"smoke": 3, "quick": 1667, "full": 1667}
LONGER = 10_000
N_TEST = 10_000
CELLS = {"smoke": 60, "quick": 300, "full": 300}
BETAS = {"paper": (0.5, 0.9), "released betas": (0.0, 0.999), "paper, longer": (0.5, 0.9)}
DEFAULT = "default"
COLUMNS = ["density", "setting", "seed", "truth", "Gaussian", "raw", "calibrated", "KL raw"]
COLUMNS += ["KL calibrated", "updates", "components", "seconds"]


class Toy(NamedTuple):
    """A density and corners of a box around what models of it may cover."""

    density: Any
    low: tuple[float, float]
    high: tuple[float, float]


def toys() -> dict[str, Toy]:
    return {
        "two moons": Toy(two_moons(), (-3.0, -2.5), (4.0, 3.0)),
        "rings": Toy(RingsDensity(wide=0.15, n_features=2), (-6.0, -6.0), (6.0, 6.0)),
        "checkerboard": Toy(checkerboard(), (-7.0, -7.0), (7.0, 7.0)),
    }


def estimator(setting: str, seed: int, args: argparse.Namespace) -> SteinEBM:
    """Return SteinEBM with its defaults over a Gaussian, or with all that the paper states."""
    if setting == DEFAULT:
        est = SteinEBM(base="gaussian", random_state=seed)
        return est.set_params(max_iter=3) if args.smoke else est
    adam = Optimization(
        1e-3, BETAS[setting], weight_decay=0.0, schedule="constant", averaging=False
    )
    updates = LONGER if "longer" in setting else UPDATES[args.mode]
    return SteinEBM.from_paper(
        "toy", optimizer=adam, max_iter=updates, calibrate=True, random_state=seed
    )


def settings(args: argparse.Namespace) -> list[str]:
    return [*(BETAS if args.mode == "full" else ["paper"]), DEFAULT]


def names(args: argparse.Namespace) -> list[str]:
    return list(toys())[: 1 if args.smoke else None]


def uncalibrated(est: SteinEBM) -> SteinEBM:
    """Return the model as training left it; its density is off by a constant."""
    if not isinstance(est.energy_, Reweighted):
        return est
    raw = copy.deepcopy(est)
    raw.density_.model = raw.density_.model._replace(energy=raw.energy_.module)
    return raw


def saved(name: str, setting: str, args: argparse.Namespace) -> Path:
    """Return the file of the densities of seed 0 on the grid."""
    slug = f"{name}_{setting}".replace(",", "").replace(" ", "_")
    return args.output / f"lsd_toys_{args.mode}_{slug}.npz"


def grid_of(toy: Toy, args: argparse.Namespace) -> np.ndarray:
    axes = [np.linspace(*ends, CELLS[args.mode]) for ends in zip(toy.low, toy.high, strict=True)]
    return np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)


def one(name: str, setting: str, seed: int, args: argparse.Namespace) -> list:
    toy = toys()[name]
    X = toy.density.sample(ROWS[args.mode], random_state=seed)
    T = toy.density.sample(N_TEST, random_state=5000 + seed)
    est = estimator(setting, seed, args)
    start = time.process_time()
    est.fit(X)
    seconds = time.process_time() - start
    alone = norm(X.mean(0), X.std(0)).logpdf(T).sum(1).mean()
    likelihoods, divergences, pictures = [], [], {}
    for kind, model in (("raw", uncalibrated(est)), ("calibrated", est)):
        box, cells = (toy.low, toy.high), CELLS[args.mode]
        found = grid_kl(toy.density.log_density, model.score_samples, box, n_grid=cells)
        likelihoods.append(float(model.score_samples(T).mean() - found.log_z))
        divergences.append(found.kl)
        if seed == 0:
            pictures[kind] = np.exp(model.score_samples(grid_of(toy, args)) - found.log_z)
    if seed == 0:
        np.savez(saved(name, setting, args), **pictures)
    components = 1 if est.calibration_ is None else est.calibration_[0]
    print(f"{name}, {setting}, seed {seed}: {est.n_iter_} updates, {seconds:.0f} s", flush=True)
    truth = float(toy.density.log_density(T).mean())
    ends = [est.n_iter_, components, seconds]
    return [truth, float(alone), *likelihoods, *divergences, *ends]


def draw(args: argparse.Namespace) -> None:
    """Figure 4: data above, learned densities below."""
    import matplotlib.pyplot as plt

    kinds = [(setting, kind) for setting in settings(args) for kind in ("raw", "calibrated")]
    size, cells = (len(names(args)), 1 + len(kinds)), CELLS[args.mode]
    figure, axes = plt.subplots(*size, figsize=(2.4 * size[1], 2.5 * size[0]), squeeze=False)
    for line, name in zip(axes, names(args), strict=True):
        toy = toys()[name]
        X = toy.density.sample(5000, random_state=0)
        line[0].plot(*X.T, ".", markersize=1)
        line[0].set_title(f"{name}: data", fontsize=9)
        top = np.exp(toy.density.log_density(X)).max()
        extent = (toy.low[0], toy.high[0], toy.low[1], toy.high[1])
        for ax, (setting, kind) in zip(line[1:], kinds, strict=True):
            values = np.load(saved(name, setting, args))[kind].reshape(cells, cells)
            ax.imshow(values, origin="lower", extent=extent, vmin=0, vmax=1.2 * top, aspect="auto")
            ax.set_title(f"{setting}, {kind}", fontsize=9)
        for ax in line:
            ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    save_figure(figure, args, "lsd_figure_4.png")


def summary(name: str, setting: str, rows: list[list[str]]) -> list[Any]:
    """Return a row of the table."""
    values = np.array([row[3:] for row in rows], dtype=float)
    truth, gaussian, raw, calibrated, kl_raw, kl_calibrated, updates, k, seconds = values.T
    cells = [f"{truth.mean():.3f}", f"{gaussian.mean():.3f}"]
    cells += [mean_std(v) for v in (raw, calibrated, kl_raw, kl_calibrated)]
    ends = [f"{updates.mean():.0f}", f"{k.mean():.0f}", f"{seconds.mean():.0f}", len(rows)]
    return [name, setting, *cells, *ends, "a picture"]


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 1, "full": 5})
    warnings.simplefilter("ignore", NormalizationWarning)  # the table shows what was calibrated
    print_title("LSD Figure 4: toy densities, nats", args)
    if args.hours:
        n = ROWS[args.mode]
        fits = {
            f"{name}, {k}": (
                lambda k=k: estimator(k, 0, args),
                toys()[name].density.sample(n, 0),
                args.seeds,
            )
            for name in names(args)
            for k in settings(args)
        }
        return print_hours(fits, args)
    kept = Kept(args.output / f"lsd_toys_{args.mode}.csv", COLUMNS, key=3)
    table = []
    for name in names(args):
        for setting in settings(args):
            rows = [
                kept.get([name, setting, s], lambda n=name, k=setting, s=s: one(n, k, s, args))
                for s in range(args.seeds)
            ]
            table.append(summary(name, setting, rows))
    columns = ["density", "setting", "truth", "Gaussian", "raw", "calibrated", "KL raw"]
    columns += ["KL calibrated", "updates", "components", "CPU s", "seeds", "paper"]
    print_table(columns, table)
    print(
        f"truth, Gaussian, raw, calibrated: mean log density of {N_TEST} new rows; mean ± sd over "
        "seeds. components: of the mixture whose weights were fitted (1: left out). KL: on a grid "
        f"of {CELLS[args.mode]}^2 cells, the model normalized there."
    )
    draw(args)


if __name__ == "__main__":
    main()
