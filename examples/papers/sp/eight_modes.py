"""SP Table 1 and Figures 2 and 3: eight modes learnt with SGLD and SGHMC, no base.

Six ways to train a plain energy by maximum likelihood: Langevin (SGLD) or SGHMC chains, persistent
or from noise, linear or quadratic output. Two-sample Kolmogorov-Smirnov distance of 1,000 samples
from 10,000-step chains, and grid KL on [-1.6, 1.6]^2, beside the paper's numbers and beside two
draws of the data. ``--mode full`` takes 6,000 updates of 500 steps:
the paper's 10 epochs of batches of 100, of 60,000 rows as in its author's code.

The first row is our recipe for the same density: SGHMC from noise around the data, quadratic
output, a smoother perceptron, Adam with a cosine decay, 420,000 chain steps instead of the paper's
3 million, the best snapshot by held-out likelihood. ``--mode quick`` runs the paper's rows with
75,000 steps and two seeds. Unadjusted chains can diverge, and the table counts the seeds that did
not.

Deviations: the KL is also given with the mass of the model outside the grid; SGHMC moves the
momentum first (the printed order is off by a factor 1.8 here); "m" of the paper's table is the
inverse mass; samples of the evaluation start at U[-2, 2]^2, as in the author's code.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from skebm import HybridCDDensity
from skebm.datasets import eight_modes
from skebm.diagnostics import run_chains
from skebm.energies import MLP
from skebm.exceptions import ConvergenceError, NormalizationWarning
from skebm.metrics import grid_kl, ks_2d
from skebm.objectives import ChainStart, Optimization
from skebm.samplers import SGHMC, Langevin, SampleBank

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._paper import Kept, mean_std, mode, print_table, print_title, save_figure

BOX = ([-1.6, -1.6], [1.6, 1.6])
WIDER = ([-4.0, -4.0], [4.0, 4.0])
UPDATES = {"smoke": 20, "quick": 1500, "full": 6000}
STEPS = {"smoke": 5, "quick": 50, "full": 500}
LONG = {"smoke": 50, "quick": 2000, "full": 10_000}
# name: (paper's K-S, paper's KL, sampler, init, output, learning rate of the paper)
ROWS = {
    "SGLD, persistent": (0.159, 0.292, Langevin(0.01), "persistent", "identity", 0.01),
    "SGLD": (0.154, 0.378, Langevin(0.01), "noise", "identity", 0.01),
    "SGLD, quadratic": (0.201, 0.459, Langevin(0.01), "noise", "quadratic", 0.01),
    "SGHMC, persistent": (0.0861, 0.0888, SGHMC(0.005), "persistent", "identity", 0.01),
    "SGHMC": (0.0525, 0.0799, SGHMC(0.01, mass=2.0), "noise", "identity", 0.01),
    "SGHMC, quadratic": (0.0816, 0.0774, SGHMC(0.01, mass=2.0), "noise", "quadratic", 0.005),
}
BENCHMARK = (0.0519, 0.0109)  # the paper's K-S of the data against itself
BEST = (0.0525, 0.0774)  # of the paper's rows
OURS = "SGHMC, our recipe"
COLUMNS = ["scheme", "seed", "K-S", "benchmark", "KL on grid", "outside", "gap", "seconds"]


def recipe(seed: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return the settings that learn this density soonest among those that we tried."""
    return HybridCDDensity(
        init=ChainStart("noise", "uniform", noise_scale=2.0),
        sampler=SGHMC(0.05),
        n_steps=5 if args.smoke else 120,
        base=None,
        refine=False,
        energy=MLP((64, 64, 64), output="quadratic", n_frequencies=0, input_scale=5.0),
        standardize=False,
        data_noise=0.0,
        max_iter=20 if args.smoke else 3500,
        batch_size=150,
        n_iter_no_change=None,
        optimizer=Optimization(5e-3, betas=(0.5, 0.99), weight_decay=0.0),
        random_state=seed,
    )


def estimator(name: str, seed: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return the scheme as the paper trains it, in the units of the data."""
    if name == OURS:
        return recipe(seed, args)
    _, _, sampler, init, output, rate = ROWS[name]
    start = ChainStart(init, "uniform", noise_scale=2.0)
    if init == "persistent":
        start = ChainStart(init, "uniform", bank=SampleBank(10_000))
    return HybridCDDensity(
        init=start,
        sampler=sampler,
        n_steps=STEPS[args.mode],
        base=None,
        refine=False,
        energy=MLP.pointwise(output=output),
        standardize=False,
        data_noise=0.0,
        max_iter=UPDATES[args.mode],
        batch_size=100,
        optimizer=Optimization(rate, method="sgd", weight_decay=0.0, schedule="constant"),
        validation_fraction=0,
        random_state=seed,
    )


def measure(est: HybridCDDensity, seed: int, args: argparse.Namespace) -> list[float]:
    """Return K-S distance, its benchmark, grid KL, mass outside the grid and gap to the truth."""
    density = eight_modes()
    data = density.sample(1000, random_state=1000 + seed)
    starts = np.random.RandomState(seed).uniform(-2, 2, (1000, 2))
    chains = run_chains(est, starts, n_steps=LONG[args.mode], record_every=LONG[args.mode])
    kl = grid_kl(density.log_density, est.score_samples, BOX, outer=WIDER)
    new = density.sample(5000, random_state=2000 + seed)
    gap = density.log_density(new).mean() - est.score_samples(new).mean()
    again = density.sample(1000, random_state=3000 + seed)
    samples = chains.positions[-1]
    if not np.isfinite(samples).all():
        print(f"{est}: {(~np.isfinite(samples).all(1)).sum()} of 1000 chains diverged", flush=True)
        samples = samples[np.isfinite(samples).all(1)]
    if not len(samples):
        return [float("nan"), ks_2d(again, data), kl.kl, kl.q_outside, gap]
    return [ks_2d(samples, data), ks_2d(again, data), kl.kl, kl.q_outside, gap]


def one(name: str, seed: int, args: argparse.Namespace) -> list[float]:
    start = time.perf_counter()
    X = eight_modes().sample(60_000, random_state=seed)
    try:
        est = estimator(name, seed, args).fit(X)
    except ConvergenceError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return [float("nan")] * 6
    seconds = time.perf_counter() - start
    if seed == 0:
        FITTED[name] = est
    return [*measure(est, seed, args), seconds]


FITTED: dict[str, HybridCDDensity] = {}


def draw(args: argparse.Namespace) -> None:
    """Figure 2: the fitted densities beside the truth."""
    import matplotlib.pyplot as plt

    axis = np.linspace(-1.6, 1.6, 200)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = eight_modes()
    panels = {"truth": density.log_density, **{k: v.score_samples for k, v in FITTED.items()}}
    figure, axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels), 2.9), squeeze=False)
    top = np.exp(density.log_density(grid)).max()
    for ax, (name, log_density) in zip(axes[0], panels.items(), strict=True):
        values = np.exp(log_density(grid)).reshape(200, 200)
        ax.imshow(values, origin="lower", extent=(-1.6, 1.6, -1.6, 1.6), vmin=0, vmax=top)
        ax.set_title(name, fontsize=8)
        ax.set_xticks([]), ax.set_yticks([])
    save_figure(figure, args, "sp_figure_2.png")


def landscape(args: argparse.Namespace) -> None:
    """Figure 3: energies against the step size; the paper finds steeper ones for smaller steps."""
    import matplotlib.pyplot as plt

    etas = (0.001, 0.01, 0.1)
    axis = np.linspace(-2, 2, 120)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    X = eight_modes().sample(60_000, random_state=0)
    figure, axes = plt.subplots(1, len(etas), figsize=(4 * len(etas), 3.4), layout="constrained")
    rows = []
    for ax, eta in zip(axes, etas, strict=True):
        est = estimator("SGLD, quadratic", 0, args)
        est.set_params(sampler=Langevin(eta), max_iter=max(20, UPDATES[args.mode] // 4))
        try:
            est.fit(X)
        except ConvergenceError:
            rows.append([f"{eta}", "diverged", *["-"] * 3])
            continue
        energy = est.energy_samples(grid)
        slope = np.linalg.norm(est.score_function(X[:2000]), axis=1).mean()
        picture = ax.contourf(axis, axis, energy.reshape(120, 120), levels=30)
        figure.colorbar(picture, ax=ax)
        ax.set_title(f"eta = {eta}")
        rows.append([f"{eta}", float(np.ptp(energy)), slope, slope * eta, (2 * eta) ** 0.5])
    print("\nFigure 3: energies against the step size (SGLD, quadratic; a quarter of the updates)")
    columns = ["eta", "range of E", "mean |grad E| at data", "drift per step", "noise per step"]
    print_table(columns, rows)
    save_figure(figure, args, "sp_figure_3.png")


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 5, "full": 5})
    warnings.simplefilter("ignore", NormalizationWarning)  # untrusted log Z shows in the table
    print_title("SP Table 1: eight modes", args)
    kept = Kept(args.output / f"sp_eight_modes_{args.mode}.csv", COLUMNS, key=2)
    names = [list(ROWS)[-1], OURS] if args.smoke else [OURS, *ROWS]
    few = 2 if args.mode == "quick" else args.seeds
    results = {
        name: [
            kept.get([name, s], lambda n=name, s=s: one(n, s, args))
            for s in range(args.seeds if name == OURS else min(few, args.seeds))
        ]
        for name in names
    }
    table = []
    for name, rows in results.items():
        values = np.array([r[2:] for r in rows], dtype=float)
        values = values[np.isfinite(values).all(1)]
        if not len(values):
            table.append([name, "diverged", *["-"] * 9])
            continue
        ks, bench, kl, outside, gap, seconds = values.T
        paper_ks, paper_kl = BEST if name == OURS else ROWS[name][:2]
        close = ks.mean() <= BENCHMARK[0] + 2 * BENCHMARK[1]
        all_there = len(values) == len(rows)
        good = kl.mean() <= 0.1 and close and all_there
        met = "-" if name != OURS else ("yes" if good else "NO")
        cells = [mean_std(ks), f"{paper_ks:.3f}", mean_std(bench), mean_std(kl), f"{paper_kl:.3f}"]
        cells += [mean_std(outside), mean_std(gap), f"{seconds.mean():.0f}", len(values), met]
        table.append([name, *cells])
    columns = ["scheme", "K-S", "paper", "K-S of data", "KL on grid", "paper"]
    print_table([*columns, "mass outside", "gap (nats)", "fit s", "seeds", "met"], table)
    print(
        f"paper's rows: {UPDATES[args.mode]} updates of {STEPS[args.mode]} steps (there 6000 of "
        "500); its K-S of the data against itself: 0.052 ± 0.011. met: KL <= 0.10 and K-S within "
        "two standard deviations of the data's."
    )
    if FITTED:
        draw(args)
    landscape(args)


if __name__ == "__main__":
    main()
