"""HCD Tables 1 and 2 and Figures 3, 5 to 9: where chains should start, on images.

Seven convolutional energies of Fashion-MNIST, alike but for the starts of their training chains:
data, noise, a bank, a bank with refreshes, and both data and noise with lambda 10, 25 and 50.
AUROC of held-out images against MNIST, KMNIST and NotMNIST, Fréchet distance between held-out and
generated images, chains from noise and from data, energies, and whether samples are copies.
``--mode full`` (a GPU) takes the paper's step, temperature, 500 steps and 50,000 updates. The
hybrid is tested with its training chains and, as in the paper, with twice their steps of twice
their size; chains from held-out images run the paper's 10,000 steps.

What the paper did: CIFAR-10, Langevin with eps 1 and T 5e-5 (noise of sd 0.01 per step), L 500, a
ConvNet of up to 1024 channels with attention; Inception features for FID; SVHN as the other set.
Deviations: Fashion-MNIST and three other sets; features of a small classifier trained here, so the
distances can be compared within the table only; pixels are clipped before features are taken;
batch, optimizer, rate and data noise are not stated there (here 64 rows, Adam, noise 0.03); the
noise bracket of the hybrid has a quarter of the rows; parameters are averaged over the second half
of the updates. Quick mode averages pixels to 14 x 14, has a thin net without attention, short
chains, few updates and a higher rate, and a bank small enough to be used several times. The
models are kept in the output folder: a run that was stopped goes on where it was, and Ctrl-C
during a fit goes on to the next one with what was learnt.

What quick mode can show: which schemes generate from noise, keep held-out images and lose energy
without end. Not the quality of images: the hybrid has hardly left the noise after 300 updates, and
one Gaussian detects the other sets better than any of these energies.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity
from skebm.diagnostics import copy_ratio, nearest_neighbors, run_chains
from skebm.energies import Conv
from skebm.exceptions import ConvergenceError
from skebm.metrics import frechet_distance, ood_metrics
from skebm.objectives import ChainStart, Optimization
from skebm.plots import ChainDisplay, EnergyHistogramDisplay
from skebm.samplers import MALA, SampleBank, Sampler

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Features, Pictures, montage, read_pictures
from examples.papers._paper import (
    LOSS_SPANS,
    Kept,
    loss_curves,
    mode,
    print_table,
    print_title,
    save_figure,
)

REFRESH = 0.05  # probability that all chains of an update start from noise
EPS, TEMPERATURE = 1.0, 5e-5  # the paper's; noise of sd sqrt(2 eps T) = 0.01


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    width: int
    attention: bool
    n_steps: int
    max_iter: int
    learning_rate: float
    bank: int
    long: int  # steps of the long run
    from_data: int  # steps of chains that start at held-out images
    n_drawn: int  # generated images for the Fréchet distance
    n_energies: int  # chains of the histograms
    n_scored: int  # rows of each set that are scored
    n_labeled: int  # rows that train the classifier


SIZES = {
    "smoke": Size(2, 2, False, 2, 4, 1e-3, 100, 6, 10, 40, 10, 100, 300),
    "quick": Size(2, 8, False, 30, 300, 3e-4, 1000, 300, 10_000, 500, 150, 4000, 10_000),
    "full": Size(
        1, 128, True, 500, 50_000, 1e-4, 60_000, 100_000, 10_000, 5000, 500, 10_000, 50_000
    ),
}
# name: (init, lambda, the paper's FID from noise, its AUROC against SVHN)
SCHEMES = {
    "data": ("data", None, 292.0, 0.95),
    "noise": ("noise", None, 42.3, 0.57),
    "persistent": ("persistent", None, 243.0, 0.68),
    "persistent+refresh": ("persistent-refresh", None, 94.0, 0.66),
    "hybrid, lambda 10": ("hybrid", 10.0, 38.7, 0.75),
    "hybrid, lambda 25": ("hybrid", 25.0, 36.8, 0.87),
    "hybrid, lambda 50": ("hybrid", 50.0, 44.5, 0.91),
}
BEST = "hybrid, lambda 25"
SHOWN = [*list(SCHEMES)[:4], BEST]  # the columns of Figures 3 and 5
PAPER_FROM_BANK = {"persistent": 40.1, "persistent+refresh": 35.1}
PAPER_LONG = 35.3
TEST = 2  # the hybrid's own test chains: times the steps of training, and their size
BY_LAMBDA = ["data", "hybrid, lambda 50", "hybrid, lambda 25", "hybrid, lambda 10", "noise"]
OTHERS = {"MNIST": "mnist_test", "KMNIST": "kmnist_test", "NotMNIST": "notmnist_2k"}


class Task(NamedTuple):
    """Data, features and sizes of a run."""

    args: argparse.Namespace
    size: Size
    data: Pictures
    features: Features
    reference: np.ndarray  # features of held-out images


def prepare(args: argparse.Namespace) -> Task:
    size = SIZES[args.mode]
    data = read_pictures("fashion_mnist_train", "fashion_mnist_test", OTHERS, pool=size.pool)
    epochs = 2 if args.smoke else 15
    labeled = slice(0, size.n_labeled)
    features = Features(data.X[labeled], data.y[labeled], data.high, width=64, epochs=epochs)
    return Task(args, size, data, features, features(data.X_test))


def estimator(name: str, task: Task) -> HybridCDDensity:
    init, weight, *_ = SCHEMES[name]
    size, side = task.size, task.data.side
    own = {} if weight is None else {"cd_weight": weight}
    start = ChainStart(init.removesuffix("-refresh"))
    if start.scheme == "persistent":
        fresh = REFRESH if init.endswith("-refresh") else 0.0
        start = start.with_params(bank=SampleBank(size.bank, fresh))
    rate = size.learning_rate
    adam = Optimization(rate, betas=(0.9, 0.999), weight_decay=0, schedule="constant")
    return HybridCDDensity(
        init=start,
        sampler="langevin",
        step_size=EPS,
        temperature=TEMPERATURE,
        n_steps=size.n_steps,
        base=None,
        refine=False,
        energy=Conv.pyramid(width=size.width, attention=size.attention),
        image_shape=(1, side, side),
        data_noise=0.03,
        max_iter=size.max_iter,
        batch_size=64,
        optimizer=adam,
        validation_fraction=0,
        log_partition=None,
        checkpoint_dir=task.args.output / "hcd_images_models",
        random_state=0,
        **own,
    )


def fitted(name: str, task: Task) -> tuple[HybridCDDensity | None, float]:
    """Return the model, or None where training diverged, and the seconds of this call."""
    start = time.perf_counter()
    try:
        est = estimator(name, task).fit(task.data.X)
    except ConvergenceError as error:
        print(f"{name}, eps {EPS:g}: {error}", flush=True)
        est = None
    return est, time.perf_counter() - start


def chains(
    est: HybridCDDensity,
    init: object,
    n_steps: int,
    n: int = 100,
    sampler: Sampler | None = None,
) -> np.ndarray:
    """Return where chains end, units of X."""
    done = run_chains(
        est,
        init,
        sampler=sampler,
        n_chains=n,
        n_steps=n_steps,
        record_every=n_steps,
        random_state=1,
    )
    return done.positions[-1]


def test_chains(est: HybridCDDensity, size: Size, n: int) -> np.ndarray:
    """Return where the hybrid's own test chains end: the paper has 1,000 steps of eps 2."""
    sampler = est.sampler_
    longer = sampler.with_params(step_size=TEST * sampler.step_size)
    return chains(est, "noise", TEST * size.n_steps, n, longer)


def distance(task: Task, rows: np.ndarray) -> float:
    if not np.isfinite(rows).all():
        return float("nan")
    return frechet_distance(task.features(rows), task.reference)


def measure(name: str, est: HybridCDDensity | None, seconds: float, task: Task) -> list[object]:
    """Return AUROC for each other set, four Fréchet distances, force, energies and seconds."""
    n_others = len(task.data.others)
    if est is None:
        return ["nan"] * (n_others + 7) + [seconds]
    size, data = task.size, task.data
    inside = est.score_samples(data.X_test[: size.n_scored])
    auroc = [
        ood_metrics(inside, est.score_samples(rows[: size.n_scored]))["auroc"]
        for rows in data.others.values()
    ]
    drawn = chains(est, "noise", size.n_steps, size.n_drawn)
    from_noise = distance(task, drawn)
    bank, long = float("nan"), float("nan")
    if name in PAPER_FROM_BANK:
        bank = distance(task, chains(est, "bank", size.n_steps, min(size.bank, size.n_drawn)))
    if name == BEST:
        long = distance(task, chains(est, "noise", size.long, size.n_drawn))
    test = float("nan")
    if name.startswith("hybrid"):
        test = distance(task, test_chains(est, size, size.n_drawn))
    force = est.history_[-1]["force"] * EPS * TEMPERATURE / data.side  # per pixel and step
    energies = est.energy_samples(data.X_test[:500]).mean(), est.energy_samples(drawn).mean()
    return [*auroc, from_noise, bank, long, test, force, *map(float, energies), seconds]


def number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def table_2(rows: dict[str, np.ndarray], task: Task) -> None:
    data, n_others = task.data, len(task.data.others)
    print("\nTable 2: AUROC of held-out images against other sets (higher is better)")
    table = []
    for name, values in rows.items():
        auroc, (force, inside, drawn, seconds) = values[:n_others], values[-4:]
        cells = [number(v, 3) for v in [*auroc, auroc.mean()]]
        tail = [f"{SCHEMES[name][3]:.2f}", number(force, 4), number(inside, 4), number(drawn, 4)]
        step = f"{EPS:g}" + (" diverged" if np.isnan(force) else "")
        table.append([name, *cells, *tail, step, f"{seconds:.0f}"])
    alone = gaussian(task)
    table.append(["Gaussian, no energy", *(f"{v:.3f}" for v in alone), *["-"] * 6])
    tail = ["paper, SVHN", "drift per pixel", "E held-out", "E drawn", "eps", "fit s"]
    print_table(["scheme", *data.others, "mean", *tail], table)
    monotone({k: v[:n_others] for k, v in rows.items()}, list(data.others))
    better = [name for name, values in rows.items() if values[:n_others].mean() > alone[-1]]
    print(f"better than one Gaussian (mean AUROC): {', '.join(better) or 'none'}")


def gaussian(task: Task) -> list[float]:
    """AUROC of one Gaussian fitted to the same rows, with the noise of the training."""
    data, n = task.data, task.size.n_scored
    density = GaussianMixture(1, reg_covar=(0.03 * data.high / 2) ** 2).fit(data.X)
    inside = density.score_samples(data.X_test[:n])
    auroc = [
        ood_metrics(inside, density.score_samples(rows[:n]))["auroc"]
        for rows in data.others.values()
    ]
    return [*auroc, float(np.mean(auroc))]


def monotone(auroc: dict[str, np.ndarray], names: list[str]) -> None:
    """Answer whether AUROC falls from pure contrastive divergence to pure noise, as in the paper.

    Neighbors closer than 0.01 count as equal: two standard errors are about that.
    """
    if not set(BY_LAMBDA) <= set(auroc):
        return
    values = np.array([[*auroc[k], auroc[k].mean()] for k in BY_LAMBDA])
    for name, column in zip([*names, "mean"], values.T, strict=True):
        steps = ", ".join(f"{v:.3f}" for v in column)
        verdict = "yes" if np.all(np.diff(column) <= 0.01) else "NO"
        print(f"monotone in lambda (data > 50 > 25 > 10 > noise), {name}: {steps}: {verdict}")


def table_1(rows: dict[str, np.ndarray], task: Task) -> None:
    size, k = task.size, len(task.data.others)
    print("\nTable 1: squared Fréchet distance of generated to held-out images (lower is better)")
    table = []
    for name, values in rows.items():
        hybrid = name.startswith("hybrid")  # whose numbers in the paper are of its test chains
        paper = "-" if hybrid else SCHEMES[name][2]
        table.append([f"noise, {size.n_steps} steps", name, number(values[k], 1), paper])
        if hybrid:
            kind = f"noise, {TEST * size.n_steps} steps of {TEST * EPS:g}"
            table.append([kind, name, number(values[k + 3], 1), SCHEMES[name][2]])
    for name, paper in PAPER_FROM_BANK.items():
        if name in rows:
            found = number(rows[name][k + 1], 1)
            table.append([f"bank, {size.n_steps} steps", name, found, paper])
    if BEST in rows:
        found = number(rows[BEST][k + 2], 1)
        table.append([f"noise, {size.long} steps", BEST, found, PAPER_LONG])
    data, rng = task.data, np.random.default_rng(0)
    shape = (size.n_drawn, data.side**2)
    noise = (1 + rng.standard_normal(shape)) * data.high / 2
    unused = data.X[-size.n_drawn :]  # not those that the classifier saw
    table.append(["noise, 0 steps", "where chains start", f"{distance(task, noise):.1f}", "-"])
    table.append(["training images", "the floor", f"{distance(task, unused):.1f}", "-"])
    table = [[*row[:3], f"{row[3]:.1f}" if row[3] != "-" else "-"] for row in table]
    print_table(["chains from", "scheme", "distance", "paper's FID, CIFAR-10"], table)
    short = {name: values[k] for name, values in rows.items() if np.isfinite(values[k])}
    print("order of the paper:", " < ".join(sorted(rows, key=lambda name: SCHEMES[name][2])))
    print("order here:", " < ".join(sorted(short, key=lambda name: short[name])))


def show(ax: object, X: np.ndarray, data: Pictures, n_columns: int) -> None:
    ax.imshow(montage(X, data.side, n_columns), cmap="gray", vmin=0, vmax=data.high)
    ax.set_xticks([]), ax.set_yticks([])


def figure_3(models: dict[str, HybridCDDensity], task: Task) -> None:
    """Chains from noise, short and long, and from held-out images, for five schemes."""
    import matplotlib.pyplot as plt

    size, data = task.size, task.data
    starts = data.X_test[:16]
    kinds = {
        f"noise, {size.n_steps} steps": ("noise", size.n_steps),
        f"noise, {size.long} steps": ("noise", size.long),
        f"held-out, {size.from_data} steps": (starts, size.from_data),
    }
    names = [name for name in SHOWN if name in models]
    figure, axes = plt.subplots(3, len(names) + 1, figsize=(2.2 * len(names) + 2.2, 6.8))
    for row, (kind, (init, n_steps)) in zip(axes, kinds.items(), strict=True):
        for ax, name in zip(row, names, strict=False):
            show(ax, chains(models[name], init, n_steps, 16), data, 4)
            ax.set_title(name if ax in axes[0] else "", fontsize=9)
        row[0].set_ylabel(kind, fontsize=9)
        row[-1].axis("off")
    show(axes[2, -1], starts, data, 4)
    axes[2, -1].set_title("held-out, 0 steps", fontsize=9)
    axes[2, -1].axis("on")
    save_figure(figure, task.args, "hcd_figure_3.png")


def figure_5(models: dict[str, HybridCDDensity], task: Task) -> None:
    """Energies of held-out images against those of long chains from noise."""
    import matplotlib.pyplot as plt

    names = [name for name in SHOWN if name in models]
    size, held_out = task.size, task.data.X_test[:1000]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3), squeeze=False)
    rows = []
    for ax, name in zip(axes[0], names, strict=True):
        est = models[name]
        samples = chains(est, "noise", size.long, size.n_energies)
        shown = EnergyHistogramDisplay.from_estimator(
            est, held_out, samples, kind="model_energy", ax=ax
        )
        ax.set_title(name, fontsize=10)
        ax.set_ylim(top=1.6 * ax.get_ylim()[1])  # room for the legend
        inside, drawn = est.energy_samples(held_out), est.energy_samples(samples)
        shift = (drawn.mean() - inside.mean()) / inside.std()
        rows.append([name, f"{inside.mean():.4g}", f"{drawn.mean():.4g}", shift, shown.overlap_])
    print(f"\nFigure 5: energies after {size.long} steps from noise, against held-out images")
    print_table(["scheme", "E held-out", "E of samples", "shift (sd)", "overlap"], rows)
    print("paper: equal for both persistent schemes, slightly above held-out for the hybrid")
    save_figure(figure, task.args, "hcd_figure_5.png")


def figure_7(models: dict[str, HybridCDDensity], task: Task) -> None:
    """A bank, what chains from it become, and generated images with nearest training images."""
    import matplotlib.pyplot as plt

    size, data, name = task.size, task.data, "persistent+refresh"
    if not {name, BEST} <= set(models):
        return
    bank = models[name].bank_[:32]
    after = chains(models[name], bank, size.n_steps)
    drawn = chains(models[BEST], "noise", size.n_steps, 32)
    seen = data.X[:10_000]
    near = nearest_neighbors(drawn[:8], seen, 3).indices
    beside = np.stack([drawn[:8], *(seen[near[:, j]] for j in range(3))], axis=1)
    figure, axes = plt.subplots(1, 3, figsize=(9, 5.2), width_ratios=(1, 1, 1))
    show(axes[0], bank, data, 4)
    show(axes[1], after, data, 4)
    show(axes[2], beside.reshape(-1, data.side**2), data, 4)
    axes[0].set_title(f"A: bank, {name}", fontsize=9)
    axes[1].set_title(f"B: {size.n_steps} steps later", fontsize=9)
    axes[2].set_title(f"C: {BEST} from noise,\nnearest training images", fontsize=9)
    print("\nFigure 7: distance to the nearest reference row over that between reference rows")
    print("(copy_ratio, median: 0 for copies, 1 for independent draws, more for rows that are off)")
    held_out = data.X_test[:32]
    rows = [
        [f"{name}: bank, {size.n_steps} steps later", "bank", (models[name], after, "bank")],
        [f"{BEST}: from noise", "training images", (models[BEST], drawn, seen)],
        ["held-out images", "training images", (models[BEST], held_out, seen)],
    ]
    table = [[*row[:2], float(np.median(copy_ratio(*row[2])))] for row in rows]
    print_table(["rows", "reference", "copy_ratio"], table)
    save_figure(figure, task.args, "hcd_figure_7.png")


def figure_6(models: dict[str, HybridCDDensity], task: Task) -> None:
    """Noise and signal of the computational loss over training, means of 25 updates."""
    figure, rows = loss_curves({name: models[name].history_ for name in SHOWN if name in models})
    print("\nFigure 6: the loss in three thirds of the training")
    print("(paper: persistent has the largest sd and least SNR, data the smallest sd)")
    print_table(["scheme", "bracket", *LOSS_SPANS], rows)
    save_figure(figure, task.args, "hcd_images_figure_6.png")


def figure_9(models: dict[str, HybridCDDensity], task: Task) -> None:
    """Energies along chains from noise, and those of held-out images."""
    import matplotlib.pyplot as plt

    size, names = task.size, [name for name in SHOWN if name in models]
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        every = max(1, size.long // 100)
        along = run_chains(
            models[name],
            "noise",
            n_chains=min(50, size.n_energies),
            n_steps=size.long,
            record_every=every,
            random_state=1,
        )
        ChainDisplay.from_chains(along, kind="model_energy").plot(ax=ax)
        ax.axhline(models[name].energy_samples(task.data.X_test[:500]).mean(), color="k", lw=0.8)
        ax.axvline(size.n_steps, color="k", lw=0.8, ls=":")
        ax.set_title(name, fontsize=10)
    print(
        "\nFigure 9: black, the mean energy of held-out images; dotted, the end of training chains"
    )
    save_figure(figure, task.args, "hcd_images_figure_9.png")


def figure_8(models: dict[str, HybridCDDensity], task: Task) -> None:
    """Metropolis-adjusted chains of the hybrid: acceptance, and where they end."""
    import matplotlib.pyplot as plt

    if BEST not in models:
        return
    est, data, n_steps = models[BEST], task.data, task.size.from_data
    sampler = MALA(est.sampler_.step_size, n_warmup=n_steps // 5)
    along = run_chains(
        est,
        "noise",
        sampler=sampler,
        n_chains=16,
        n_steps=n_steps,
        record_every=max(1, n_steps // 100),
        random_state=1,
    )
    frozen = along.acceptance[len(along.acceptance) // 4 :]
    ends, held_out = along.model_energy[-1], est.energy_samples(data.X_test[:500])
    print(
        f"\nFigure 8, {BEST}: {n_steps} adjusted steps (paper: 50000), acceptance after warm-up "
        f"{frozen.mean():.3f} (target 0.67), step {along.step_size[-1]:.2e} of U; E at the end "
        f"{ends.mean():.4g}, of held-out images {held_out.mean():.4g}"
    )
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    ChainDisplay.from_chains(along, kind="acceptance").plot(ax=axes[0])
    axes[0].axhline(0.67, color="k", linewidth=0.6)
    show(axes[1], along.positions[-1], data, 4)
    axes[1].set_title(f"after {n_steps} adjusted steps", fontsize=9)
    save_figure(figure, task.args, "hcd_images_figure_8.png")


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 1, "full": 1})
    print_title("HCD Tables 1 and 2: images", args)
    task = prepare(args)
    size, data = task.size, task.data
    print(
        f"data: {data.name}, {len(data.X)} rows; {size.max_iter} updates of {size.n_steps} steps "
        f"(paper: 50000 of 500), eps {EPS:g}, T {TEMPERATURE:g}, width {size.width}, Adam "
        f"{size.learning_rate:g}",
        flush=True,
    )
    columns = ["scheme", "updates", *data.others, "noise", "bank", "long", "test"]
    columns += ["force", "E held-out", "E drawn", "seconds"]
    kept = Kept(args.output / f"hcd_images_{args.mode}.csv", columns, key=2)
    models, rows = {}, {}
    for name in SCHEMES:
        est, seconds = fitted(name, task)
        done = est.n_iter_ if est is not None else "diverged"
        row = kept.get([name, done], lambda n=name, e=est, s=seconds: measure(n, e, s, task))
        rows[name] = np.array(row[2:], dtype=float)
        print(f"{name}: updates {done}", flush=True)
        if est is not None:
            models[name] = est
    table_2(rows, task)
    table_1(rows, task)
    figure_3(models, task)
    figure_5(models, task)
    figure_6(models, task)
    figure_7(models, task)
    figure_8(models, task)
    figure_9(models, task)


if __name__ == "__main__":
    main()
