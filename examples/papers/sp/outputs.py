"""SP section 4.2: what becomes of beta in f + beta f^2 / 2 and of gamma in f + gamma sqrt(n) |x|^2.

On MNIST the paper learns beta from about 0 and sees it rise to 1; gamma goes to 0, also beside
beta. Here both start at 0, on eight modes (SGLD, as in ``eight_modes.py``) and on MNIST (as in
``mnist.py``), and are read four times while training; the fixed outputs f and f^2 / 2 stand beside.
What each is worth: the grid KL on eight modes, and on MNIST the mean energy of chains after the
steps of training and after ten times as many. ``--mode full`` (a GPU) takes the paper's lengths.

``--updates`` takes another number on MNIST. ``--only`` names the energies that a call fits, so that
calls can share the folder; without a name it reads what is there and draws.

Quick mode: beta rises to 1.03 on eight modes and is at 0.055, still rising, on MNIST; gamma goes to
0.82 and 0.036. Seeds 0 and 1 (MNIST: 0), two shared cores, 330 CPU seconds. After 200 updates on
MNIST beta is at 0.066.

Deviations: those of the two scripts, parameters not averaged; quick mode takes 1,200 updates of 50
steps on eight modes and 100 of 50 on MNIST at 14 x 14, eta 1e-4, Adam 1e-3.
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
from skebm.energies import MLP, Conv
from skebm.exceptions import ConvergenceError, NormalizationWarning
from skebm.metrics import grid_kl
from skebm.objectives import ChainStart, Optimization
from skebm.samplers import Langevin

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, read_pictures
from examples.papers._paper import (
    Kept,
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)
from examples.papers.sp._stages import IN_STAGES, STAGES, only, stages, wanted

# name: (output, learn_gamma)
OUTPUTS = {
    "f": ("identity", False),
    "f + gamma": ("identity", True),
    "f + beta": ("linear-quadratic", False),
    "f + beta + gamma": ("linear-quadratic", True),
    "f^2 / 2": ("quadratic", False),
}
# updates, steps
TOY = {"smoke": (20, 5), "quick": (1200, 50), "full": (6000, 500)}
IMAGES = {"smoke": (4, 4), "quick": (100, 50), "full": (9368, 1000)}
BOX = ([-1.6, -1.6], [1.6, 1.6])
WIDER = ([-4.0, -4.0], [4.0, 4.0])
PATHS = [f"{name} {i}/{STAGES}" for name in ("beta", "gamma") for i in range(1, STAGES + 1)]
COLUMNS = ["data", "energy", "seed", *PATHS, "near", "far", "CPU s"]


def toy(name: str, seed: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return the SGLD row of Table 1 with this output."""
    output, learn_gamma = OUTPUTS[name]
    updates, n_steps = TOY[args.mode]
    return HybridCDDensity(
        init=ChainStart("noise", "uniform", noise_scale=2.0),
        sampler=Langevin(0.01),
        n_steps=n_steps,
        base=None,
        refine=False,
        energy=MLP.pointwise(output).with_params(learn_gamma=learn_gamma),
        standardize=False,
        data_noise=0.0,
        max_iter=updates // STAGES,
        batch_size=100,
        optimizer=Optimization(
            0.01, method="sgd", weight_decay=0.0, schedule="constant", averaging=False
        ),
        validation_fraction=0,
        log_partition=None,
        warm_start=True,
        random_state=seed,
    )


def of_images(mode_name: str) -> Optimization:
    """Return how the networks of images are trained: Table 4, a larger rate in few updates."""
    rate = 1e-4 if mode_name == "full" else 1e-3
    plain = {"schedule": "constant", "averaging": False}
    return Optimization(rate, betas=(0.9, 0.999), weight_decay=1e-4, **plain)


def images(name: str, side: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return the energy of images with this output."""
    output, learn_gamma = OUTPUTS[name]
    n_steps = IMAGES[args.mode][1]
    return HybridCDDensity(
        init="noise",
        sampler="langevin",
        step_size=0.005 / n_steps,  # the paper's time, 5e-6 * 1000
        n_steps=n_steps,
        base=None,
        refine=False,
        energy=Conv.strided(output).with_params(learn_gamma=learn_gamma),
        image_shape=(1, side, side),
        data_noise=0.0,
        max_iter=args.updates // STAGES,
        batch_size=64,
        optimizer=of_images(args.mode),
        validation_fraction=0,
        log_partition=None,
        warm_start=True,
        random_state=0,
    )


def factors(est: HybridCDDensity) -> tuple[float, float]:
    """Return beta and gamma of a fitted energy, nan where it has none."""
    found = {k.split(".")[-1]: float(v) for k, v in est.energy_.named_parameters() if v.ndim == 0}
    return found.get("beta", np.nan), found.get("gamma", np.nan)


def learn(est: HybridCDDensity, X: np.ndarray) -> list[float]:
    """Train stage by stage; return beta, then gamma, at the end of each."""
    return np.transpose([factors(stage) for stage in stages(est, X)]).ravel().tolist()


def run_toy(name: str, seed: int, args: argparse.Namespace) -> list[float]:
    """Learn eight modes; beside the factors the grid KL and the mass outside."""
    density, start = eight_modes(), time.process_time()
    est = toy(name, seed, args)
    try:
        path = learn(est, density.sample(60_000, random_state=seed))
    except ConvergenceError as error:
        print(f"eight modes, {name}, seed {seed}: {error}", flush=True)
        return [np.nan] * (len(COLUMNS) - 3)
    seconds = time.process_time() - start
    kl = grid_kl(density.log_density, lambda X: -est.energy_samples(X), BOX, outer=WIDER)
    return [*path, kl.kl, kl.q_outside, seconds]


def digits(args: argparse.Namespace) -> Pictures:
    """Return MNIST at the size of the mode."""
    return read_pictures("mnist_train10k", "mnist_test", {}, pool=1 if args.mode == "full" else 2)


def run_images(name: str, args: argparse.Namespace) -> list[float]:
    """Learn digits; beside the factors energies of chains less those of held-out images."""
    data = digits(args)
    start = time.process_time()
    est = images(name, data.side, args)
    try:
        path = learn(est, data.X)
    except ConvergenceError as error:
        print(f"MNIST, {name}: {error}", flush=True)
        return [np.nan] * (len(COLUMNS) - 3)
    seconds = time.process_time() - start
    chains = run_chains(
        est,
        "noise",
        n_chains=40,
        n_steps=10 * est.n_steps,
        record_every=est.n_steps,
        random_state=1,
    )
    real = est.energy_samples(data.X_test[:1000]).mean()
    near, far = (chains.model_energy[i].mean() - real for i in (1, -1))
    return [*path, float(near), float(far), seconds]


def draw(results: dict[tuple[str, str], np.ndarray], args: argparse.Namespace) -> None:
    """Beta and gamma over training, one line for each energy, mean over seeds."""
    import matplotlib.pyplot as plt

    kinds = sorted({data for data, _ in results})
    size = {"figsize": (4 * len(kinds), 5.6), "sharex": True, "squeeze": False}
    figure, axes = plt.subplots(2, len(kinds), **size)
    share = np.arange(STAGES + 1) / STAGES
    for (data, name), rows in results.items():
        for row in range(2):  # beta, gamma
            values = rows[:, row * STAGES : (row + 1) * STAGES].mean(0)
            if np.isfinite(values).any():
                axes[row, kinds.index(data)].plot(share, [0, *values], "o-", label=name)
    axes[0, 0].set_ylabel("beta"), axes[1, 0].set_ylabel("gamma")
    for ax, data in zip(axes[0], kinds, strict=True):
        ax.set_title(data)
    for ax in axes.flat:
        ax.axhline(0, color="gray", lw=0.6)
        if ax.lines[1:]:
            ax.legend(fontsize=8)
    for ax in axes[1]:
        ax.set_xlabel("share of training")
    save_figure(figure, args, "sp_outputs.png")


def found(data: str, name: str, args: argparse.Namespace) -> np.ndarray:
    """Return what each seed measured, nan where it diverged, computed now if this call does."""
    size = f"{args.mode}_{args.updates}" if data == "MNIST" else args.mode
    path = args.output / f"sp_outputs_{size} {data} {name.replace('/', 'over')}.csv"
    kept = Kept(path, COLUMNS, key=3)
    if wanted(name, args):
        for seed in range(args.seeds if data == "eight modes" else 1):
            kept.get(
                [data, name, seed],
                lambda s=seed: (
                    run_toy(name, s, args) if data == "eight modes" else run_images(name, args)
                ),
            )
    return np.array([row[3:] for row in kept.rows], dtype=float).reshape(-1, len(COLUMNS) - 3)


def summary(data: str, name: str, values: np.ndarray) -> list[object]:
    """Return a line of a table: means over the seeds that did not diverge."""
    n_run, values = len(values), values[np.isfinite(values[:, -1])]
    if not len(values):
        return [name, "diverged" if n_run else "not run", "-", "-", "-", "-", 0]
    path = [
        " ".join(f"{v:.3g}" for v in part if np.isfinite(v)) or "-"
        for part in values[:, : 2 * STAGES].mean(0).reshape(2, STAGES)
    ]
    digits = 3 if data == "eight modes" else 1
    worth = [mean_std(values[:, j], digits) for j in (-3, -2)]
    return [name, *path, *worth, f"{values[:, -1].mean():.0f}", len(values)]


def fits(names: list[str], args: argparse.Namespace) -> dict[str, tuple]:
    """Return all trainings of the mode, for --hours."""
    data, X = digits(args), eight_modes().sample(60_000, random_state=0)
    of_digits = {
        f"MNIST, {name}": (lambda n=name: images(n, data.side, args), data.X, STAGES)
        for name in names
    }
    of_modes = {
        f"eight modes, {name}": (lambda n=name: toy(n, 0, args), X, STAGES * args.seeds)
        for name in names
    }
    return of_digits | of_modes


def main() -> None:
    seeds = {"smoke": 1, "quick": 2, "full": 5}
    args = mode(__doc__, seeds=seeds, only=only(list(OUTPUTS)), updates=IN_STAGES)
    args.updates = args.updates or IMAGES[args.mode][0]
    warnings.simplefilter("ignore", NormalizationWarning)
    print_title("SP section 4.2: beta and gamma", args)
    names = list(OUTPUTS)[-2:] if args.smoke else list(OUTPUTS)
    if args.hours:
        return print_hours(fits([n for n in names if wanted(n, args)], args), args)
    sizes = {"MNIST": (args.updates, IMAGES[args.mode][1]), "eight modes": TOY[args.mode]}
    results = {(data, name): found(data, name, args) for data in sizes for name in names}
    for data, (updates, steps) in sizes.items():
        worth = ["grid KL", "mass outside"]
        if data == "MNIST":
            worth = ["E - E held-out", "after 10 times the steps"]
        print(f"\n{data}: {updates} updates of {steps} steps, factors after each {1 / STAGES:g}")
        print_table(
            ["energy", "beta", "gamma", *worth, "CPU s", "seeds"],
            [summary(data, name, results[data, name]) for name in names],
        )
    print("\npaper, MNIST: beta rises to about 1, gamma goes to 0")
    if not args.only and any(map(len, results.values())):
        sound = {key: rows[np.isfinite(rows[:, -1])] for key, rows in results.items()}
        draw({key: rows for key, rows in sound.items() if len(rows)}, args)


if __name__ == "__main__":
    main()
