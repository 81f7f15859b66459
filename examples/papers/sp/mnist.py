"""SP section 4.2, Figures 4 and 5: MNIST by exact Langevin dynamics at temperature 1.

Three energies learnt with chains from N(0, I) or from a bank, with a linear output f or the
quadratic one, f^2 / 2: vanilla (noise, linear), persistent (bank, linear) and the paper's best
(noise, quadratic). Pictures of samples (Figure 4) and of chains that go on for 10 times the
training length (Figure 5), with the drift of a step against its noise, energies, and the share of
pixels beyond [-1, 1]. ``--mode full`` (a GPU) takes the paper's Table 4: 28 x 28, eta 5e-6, 1000
steps, 64 rows, 10 epochs of 60,000 rows = 9,370 updates, Adam 1e-4 with decay 1e-4.

With ``--updates 500`` at eta 1e-4 (seed 0, two shared cores, 116 to 122 CPU seconds a fit) chains
from noise come to rough digits, best with the quadratic output, and in a bank they have hardly
begun; over ten times the length the linear output ends in white blots and the quadratic one in
clean strokes, nearly all a 1 or a 0. ``--only`` names the fits of a call, so that calls can share
the folder; without a name it reads what is there and draws.

Deviations: 10,000 training rows; decoupled weight decay, that of AdamW; parameters are averaged
over the second half of the updates; the bank is written back and starts at U[-1, 1], as in the
paper's algorithm (the author's code for MNIST never writes it back). Quick mode takes 200 updates,
averages pixels to 14 x 14 and takes a twentieth of the steps, so that eta 5e-6 moves a pixel by no
more than 0.02 by noise; the paper's advice is to tune eta, and so there are two rows for each
scheme: eta 5e-6, and eta 1e-4, at which eta times the steps is what it is in the paper, 0.005. The
models are kept in the output folder: those that are there are not fitted again, and a fit that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skebm import HybridCDDensity
from skebm.diagnostics import Chains, run_chains
from skebm.energies import Conv
from skebm.exceptions import ConvergenceError
from skebm.objectives import ChainStart, Optimization
from skebm.samplers import SampleBank

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, montage, read_pictures
from examples.papers._paper import Kept, mode, print_hours, print_table, print_title, save_figure
from examples.papers.sp._stages import UPDATES_HELP, only, wanted

ETA = 5e-6  # the paper's, for 1000 steps; fewer have larger ones, so that the product is 0.005


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    etas: tuple[float, ...]
    n_steps: int
    max_iter: int
    learning_rate: float
    bank: int
    n_chains: int


SIZES = {
    "smoke": Size(2, (1e-3, ETA), 5, 4, 1e-3, 100, 10),
    "quick": Size(2, (1e-4, ETA), 50, 200, 1e-3, 500, 40),
    "full": Size(1, (ETA,), 1000, 9370, 1e-4, 10_000, 100),
}
# name: (init, output)
SCHEMES = {
    "vanilla": ("noise", "identity"),
    "persistent": ("persistent", "identity"),
    "noise, quadratic": ("noise", "quadratic"),
}
BEST = "noise, quadratic"
LENGTHS = (1, 2, 5, 10)  # Figure 5: 1k, 2k, 5k and 10k steps, in training lengths
COLUMNS = ["scheme", "eta", "drift_to_noise", "step", "noise", "E_held_out"]
COLUMNS += ["E_start", "E_samples", "saturated", "roughness", "seconds"]


def estimator(name: str, eta: float, data: Pictures, args: argparse.Namespace) -> HybridCDDensity:
    """Return the scheme as the paper trains it."""
    init, output = SCHEMES[name]
    size = SIZES[args.mode]
    start = ChainStart(init)
    if init == "persistent":
        start = ChainStart(init, "uniform", bank=SampleBank(size.bank))
    adam = Optimization(
        size.learning_rate, betas=(0.9, 0.999), weight_decay=1e-4, schedule="constant"
    )
    return HybridCDDensity(
        init=start,
        sampler="langevin",
        step_size=eta,
        temperature=1.0,
        n_steps=size.n_steps,
        base=None,
        refine=False,
        energy=Conv.strided(output=output),
        image_shape=(1, data.side, data.side),
        data_noise=0.0,
        max_iter=args.updates,
        batch_size=64,
        optimizer=adam,
        validation_fraction=0,
        log_partition=None,
        checkpoint_dir=args.output / "sp_mnist_models",
        random_state=0,
    )


def label(name: str, eta: float) -> str:
    """Return what --only calls a scheme with a step."""
    return f"{name}, eta {eta:g}"


def own_path(name: str, eta: float, kind: str, args: argparse.Namespace) -> Path:
    """Return where a model (safetensors) or what was measured of it (csv) is kept."""
    return args.output / f"sp_mnist_{args.mode}_{args.updates} {label(name, eta)}.{kind}"


def found(name: str, eta: float, data: Pictures, args: argparse.Namespace) -> list[list[str]]:
    """Return the measurements of a scheme: one row or none, computed now if this call does."""
    kept = Kept(own_path(name, eta, "csv", args), COLUMNS, key=2)
    if wanted(label(name, eta), args):
        kept.get([name, f"{eta:g}"], lambda: measure(name, eta, data, args))
    return kept.rows


def chains(est: HybridCDDensity, n_steps: int, n: int) -> Chains:
    """Run chains from where training starts them: from the bank where there is one."""
    start = "bank" if est.init.bank is not None else "noise"
    return run_chains(
        est, start, n_chains=n, n_steps=n_steps, record_every=est.n_steps, random_state=1
    )


def saturated(rows: np.ndarray, data: Pictures) -> float:
    """Return the share of pixels beyond the range of the data, [-1, 1] for the network."""
    return float(np.mean((rows < 0) | (rows > data.high)))


def roughness(rows: np.ndarray, data: Pictures) -> float:
    """Return the spread of differences of neighboring pixels over that of pixels.

    sqrt(2) for white noise, less for anything that looks like an image.
    """
    images = rows.reshape(-1, data.side, data.side)
    return float(np.diff(images, axis=2).std() / images.std())


def measure(name: str, eta: float, data: Pictures, args: argparse.Namespace) -> list[float]:
    """Train and keep the model; return what its chains do, nan where training diverged."""
    start = time.process_time()
    try:
        est = estimator(name, eta, data, args).fit(data.X)
    except ConvergenceError as error:
        print(f"{label(name, eta)}: {error}", flush=True)
        return [float("nan")] * (len(COLUMNS) - 2)
    seconds = time.process_time() - start
    est.save(own_path(name, eta, "safetensors", args))
    size = SIZES[args.mode]
    record = chains(est, size.n_steps, size.n_chains)
    noise = est.sampler_.noise_scale
    ratio = float(record.drift_to_noise[-1])
    held_out = float(est.energy_samples(data.X_test[:1000]).mean())
    ends = record.positions[-1]
    energies = [held_out, *(float(e.mean()) for e in record.model_energy[[0, -1]])]
    look = [saturated(ends, data), roughness(ends, data)]
    print(f"{label(name, eta)}: {args.updates} updates", flush=True)
    return [ratio, ratio * noise, noise, *energies, *look, seconds]


def show(ax: object, X: np.ndarray, data: Pictures) -> None:
    ax.imshow(montage(X, data.side, 5), cmap="gray", vmin=0, vmax=data.high)
    ax.set_xticks([]), ax.set_yticks([])


def figure_4(
    models: dict[tuple[str, float], HybridCDDensity], data: Pictures, args: argparse.Namespace
) -> None:
    """Samples of the three schemes, a row for each eta, beside the data."""
    import matplotlib.pyplot as plt

    size = SIZES[args.mode]
    etas = sorted({eta for _, eta in models})
    figure, axes = plt.subplots(len(etas), 4, figsize=(11, 2.9 * len(etas)), squeeze=False)
    for row, eta in zip(axes, etas, strict=True):
        for ax, name in zip(row, SCHEMES, strict=False):
            ax.set_title(label(name, eta), fontsize=9)
            ax.axis("off")
            if (name, eta) in models:
                record = chains(models[name, eta], size.n_steps, 20)
                ax.axis("on")
                show(ax, record.positions[-1], data)
        show(row[-1], data.X_test[:20], data)
        row[-1].set_title("held-out images", fontsize=9)
    save_figure(figure, args, "sp_figure_4.png")


def figure_5(
    models: dict[tuple[str, float], HybridCDDensity], data: Pictures, args: argparse.Namespace
) -> None:
    """What becomes of samples when chains go on: linear output above, quadratic below."""
    import matplotlib.pyplot as plt

    size, eta = SIZES[args.mode], max(eta for _, eta in models)
    names = [name for name in ("vanilla", BEST) if (name, eta) in models]
    if not names:
        return
    panels = len(LENGTHS)
    figure, axes = plt.subplots(len(names), panels, figsize=(2.8 * panels, 2.9 * len(names)))
    rows = []
    for ax_row, name in zip(np.reshape(axes, (len(names), panels)), names, strict=True):
        record = chains(models[name, eta], size.n_steps * max(LENGTHS), size.n_chains)
        for ax, length in zip(ax_row, LENGTHS, strict=True):
            at = min(length, len(record.steps) - 1)  # shorter if Ctrl-C ended the chains
            images, steps = record.positions[at], int(record.steps[at])
            show(ax, images[:20], data)
            ax.set_title(f"{name}, {steps} steps", fontsize=9)
            energy, ratio = record.model_energy[at].mean(), record.drift_to_noise[at]
            look = [saturated(images, data), roughness(images, data)]
            rows.append([name, steps, f"{energy:.4g}", float(ratio), *look])
    print(f"\nFigure 5: chains that go on, eta {eta:g} (training: {size.n_steps} steps)")
    columns = ["scheme", "steps", "mean E", "drift/noise", "saturated", "roughness"]
    print_table(columns, rows)
    print(
        "paper: the quadratic model does not degrade from 1k to 10k steps, but saturates a little"
    )
    save_figure(figure, args, "sp_figure_5.png")


def main() -> None:
    etas = sorted({eta for size in SIZES.values() for eta in size.etas})
    names = [label(name, eta) for eta in etas for name in SCHEMES]
    options = {"only": only(names), "updates": {"type": int, "help": UPDATES_HELP}}
    args = mode(__doc__, seeds=dict.fromkeys(SIZES, 1), **options)
    print_title("SP section 4.2: MNIST", args)
    size = SIZES[args.mode]
    if args.updates is None:
        args.updates = size.max_iter
    data = read_pictures("mnist_train10k", "mnist_test", {}, pool=size.pool)
    cases = [(name, eta) for eta in size.etas for name in SCHEMES]
    if args.hours:
        fits = {
            label(name, eta): (lambda n=name, e=eta: estimator(n, e, data, args), data.X, 1)
            for name, eta in cases
            if wanted(label(name, eta), args)
        }
        return print_hours(fits, args)
    print(
        f"data: {data.name}, {len(data.X)} rows; {args.updates} updates of {size.n_steps} steps "
        f"(paper: 9370 of 1000), Adam {size.learning_rate:g} (paper: 0.0001)",
        flush=True,
    )
    table = []
    for row in [row for case in cases for row in found(*case, data, args)]:
        name, eta = row[:2]
        ratio, drift, noise, *energies, share, rough, seconds = map(float, row[2:])
        cells = [f"{value:.3g}" for value in (ratio, drift, noise)]
        cells += [f"{energy:.4g}" for energy in energies]
        table.append([name, eta, *cells, share, rough, f"{seconds:.0f}"])
    print("\nFigure 4: after the steps of training (drift and noise: per pixel and step)")
    columns = ["scheme", "eta", "drift/noise", "eta |grad E|", "sqrt(2 eta)"]
    columns += ["E held-out", "E start", "E samples", "saturated", "roughness", "CPU s"]
    print_table(columns, table)
    rough = roughness(data.X_test, data)
    print(
        "saturated: share of pixels beyond the data's range, 0 for held-out images, 0.32 for "
        "N(0, I). roughness: spread of differences of neighbors over that of pixels, "
        f"{rough:.3f} for held-out images, 1.414 for white noise. The background is at -1 exactly, "
        "so that noise alone puts half of it beyond in good samples too. nan: diverged."
    )
    paths = {case: own_path(*case, "safetensors", args) for case in cases}
    models = {case: HybridCDDensity.load(p) for case, p in paths.items() if p.exists()}
    if models and not args.only:
        figure_4(models, data, args)
        figure_5(models, data, args)


if __name__ == "__main__":
    main()
