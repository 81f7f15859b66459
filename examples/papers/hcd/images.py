"""HCD Tables 1 and 2 and Figures 3 to 10: where chains should start, on images.

Seven convolutional energies of Fashion-MNIST, alike but for the starts of their training chains:
data, noise, a bank, a bank with refreshes, and both data and noise with lambda 10, 25 and 50.
AUROC of held-out images against MNIST, KMNIST and NotMNIST, Fréchet distance between held-out and
generated images, chains from noise and from data, energies, and whether samples are copies.
``--images cifar10`` draws Figures 3 and 5 for color images in place of the paper's Oxford Flowers
(Figures 4 and 10): 1,800 rows of CIFAR-10, 200 held out. The hybrid is tested with its training
chains and, as in the paper, with twice their steps of twice their size; chains from held-out images
run the paper's 10,000 steps.

What the paper did: CIFAR-10, Langevin with eps 1 and T 5e-5 (noise of sd 0.01 per step), L 500,
50,000 updates, a ConvNet of up to 1024 channels with attention; Inception features for FID; SVHN as
the other set. Deviations: Fashion-MNIST and three other sets; features of a small classifier
trained here, so the distances can be compared within the table only; pixels are clipped before
features are taken; batch, optimizer, rate and data noise are not stated there (here 64 rows, Adam,
noise 0.03); parameters are averaged over the second half of the updates.

Quick mode averages pixels to 14 x 14 (color: 16 x 16), has a thin net without attention, short
chains, few updates and a higher rate, a bank small enough to be used several times, and a quarter
of the rows in the noise bracket of the hybrid: a quarter of an hour of a processor. ``--mode full``
(a GPU) takes the paper's network, step, temperature, 500 steps and 50,000 updates.

The models and what was measured are kept in the output folder, a scheme in a folder of its own: a
run that was stopped goes on where it was, and several processes can share the work, each with some
schemes (``--only``). ``--updates`` trains longer or shorter.

What quick mode can show: which schemes generate from noise, keep held-out images and lose energy
without end. Not the quality of images: the hybrid has hardly left the noise after 300 updates, and
one Gaussian detects the other sets better than any of these energies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity
from skebm.diagnostics import Chains, copy_ratio, nearest_neighbors, run_chains
from skebm.energies import Conv
from skebm.exceptions import CheckpointWarning, ConvergenceError
from skebm.metrics import frechet_distance, ood_metrics
from skebm.objectives import ChainStart, Optimization
from skebm.plots import ChainDisplay, EnergyHistogramDisplay
from skebm.samplers import MALA, SampleBank, Sampler

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Features, Pictures, montage, pooled, read_pictures
from examples.papers._paper import (
    LOSS_SPANS,
    loss_curves,
    mode,
    print_hours,
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
    noise_share: float  # rows of the hybrid's noise bracket, for each row of data
    bank: int
    long: int  # steps of the long run
    from_data: int  # steps of chains that start at held-out images
    n_drawn: int  # generated images for the Fréchet distance
    n_energies: int  # chains of the histograms
    n_scored: int  # rows of each set that are scored
    n_labeled: int  # rows that train the classifier


SIZES = {
    "smoke": Size(2, 2, False, 2, 4, 1e-3, 0.25, 100, 6, 10, 40, 10, 100, 300),
    "quick": Size(2, 8, False, 30, 300, 3e-4, 0.25, 1000, 300, 10_000, 500, 150, 4000, 10_000),
    "full": Size(
        1, 128, True, 500, 50_000, 1e-4, 1.0, 60_000, 100_000, 10_000, 5000, 500, 10_000, 50_000
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
SHORT_NAMES = {name.replace(", lambda ", "-"): name for name in SCHEMES}  # of --only and folders
PAPER_FROM_BANK = {"persistent": 40.1, "persistent+refresh": 35.1}
PAPER_LONG = 35.3
TEST = 2  # the hybrid's own test chains: times the steps of training, and their size
N_SEEN = 16  # images of a panel
BY_LAMBDA = ["data", "hybrid, lambda 50", "hybrid, lambda 25", "hybrid, lambda 10", "noise"]
OTHERS = {"MNIST": "mnist_test", "KMNIST": "kmnist_test", "NotMNIST": "notmnist_2k"}
Found = dict[str, np.ndarray]  # what is measured on a model


class Task(NamedTuple):
    """Data and sizes of a run, and its folder."""

    args: argparse.Namespace
    size: Size
    data: Pictures
    folder: Path

    @property
    def channels(self) -> int:
        """Colors of an image."""
        return self.data.X.shape[1] // self.data.side**2


def prepare(args: argparse.Namespace) -> Task:
    """Read the images."""
    size = SIZES[args.mode]
    size = size._replace(max_iter=args.updates or size.max_iter)
    if args.images == "cifar10":
        data = read_color(size.pool)
    else:
        data = read_pictures("fashion_mnist_train", "fashion_mnist_test", OTHERS, pool=size.pool)
    folder = f"hcd_images_{args.mode}_{args.images}"
    folder += f"_{args.updates}" if args.updates else ""
    return Task(args, size, data, args.output / folder)


def read_color(pool: int) -> Pictures:
    """Read CIFAR-10's images, rows (channel, height, width): 200 of 2,000 held out."""
    folder = os.environ.get("SKEBM_DATA")
    if not folder:
        raise SystemExit("--images cifar10 needs SKEBM_DATA, the folder of the data.")
    with np.load(Path(folder) / "images" / "cifar10_train2k.npz") as file:
        X, y = file["X"], file["y"].astype(int)
    rows = np.concatenate([pooled(X[..., i], pool) for i in range(3)], axis=1)
    side = X.shape[1] // pool
    return Pictures(
        f"CIFAR-10 {side} x {side}", side, 255.0, rows[:-200], y[:-200], rows[-200:], {}
    )


def estimator(name: str, task: Task) -> HybridCDDensity:
    """Return a scheme."""
    init, weight, *_ = SCHEMES[name]
    size, side = task.size, task.data.side
    own = {} if weight is None else {"cd_weight": weight}
    start = ChainStart(init.removesuffix("-refresh"))
    if start.scheme == "persistent":
        fresh = REFRESH if init.endswith("-refresh") else 0.0
        start = start.with_params(bank=SampleBank(size.bank, fresh))
    elif start.scheme == "hybrid":
        start = start.with_params(noise_share=size.noise_share)
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
        image_shape=(task.channels, side, side),
        data_noise=0.03,
        max_iter=size.max_iter,
        batch_size=64,
        optimizer=adam,
        validation_fraction=0,
        log_partition=None,
        checkpoint_dir=folder_of(name, task),
        random_state=0,
        **own,
    )


def folder_of(name: str, task: Task) -> Path:
    """Return where a scheme's training and what was measured are kept."""
    return task.folder / next(short for short, long in SHORT_NAMES.items() if long == name)


def fitted(name: str, task: Task) -> tuple[HybridCDDensity | None, float]:
    """Return the model, or None where training diverged, and the seconds of this call."""
    start = time.perf_counter()
    try:
        est = estimator(name, task).fit(task.data.X)
    except ConvergenceError as error:
        print(f"{name}, eps {EPS:g}: {error}", flush=True)
        est = None
    return est, time.perf_counter() - start


def found(name: str, task: Task) -> Found:
    """Return what is measured on a scheme, of this run or read."""
    folder = folder_of(name, task)
    path = folder / "found.npz"
    if not path.exists():
        est, seconds = fitted(name, task)
        result = {"updates": np.array(0)} if est is None else measure(name, est, task)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, seconds=np.array(seconds), **result)
        print(f"{name}: updates {result['updates']}, fitted in {seconds:.0f} s", flush=True)
    with np.load(path) as file:
        return dict(file)


def chains(
    est: HybridCDDensity,
    init: object,
    n_steps: int,
    n: int = 100,
    sampler: Sampler | None = None,
    n_records: int = 1,
) -> Chains:
    """Run chains; each panel of images has the same seed."""
    return run_chains(
        est,
        init,
        sampler=sampler,
        n_chains=n,
        n_steps=n_steps,
        record_every=max(1, n_steps // n_records),
        random_state=1,
    )


def ends(*args: object) -> np.ndarray:
    """Return where chains end, units of X."""
    return chains(*args).positions[-1]


def packed(name: str, run: Chains) -> Found:
    """Return records of chains under names of their own; of positions a panel at the end."""
    values = run._replace(positions=run.positions[-1:, :N_SEEN].astype(np.float32))._asdict()
    return {f"{name} {key}": value for key, value in values.items()}


def unpacked(name: str, result: Found) -> Chains:
    """Return what `packed` packed."""
    return Chains(*(result[f"{name} {key}"] for key in Chains._fields))


def measure(name: str, est: HybridCDDensity, task: Task) -> Found:
    """Return what the tables and the figures need of a model."""
    size, data = task.size, task.data
    drawn = ends(est, "noise", size.n_steps, size.n_drawn)
    result = {
        "updates": np.array(est.n_iter_),
        "history": np.array(json.dumps(est.history_)),
        "drawn": drawn[:32],
        "force": est.history_[-1]["force"] * EPS * TEMPERATURE / np.sqrt(data.X.shape[1]),
        "held-out energy": est.energy_samples(data.X_test[:1000]),
        "drawn energy": est.energy_samples(drawn),
        **packed("long", chains(est, "noise", size.long, size.n_energies, None, 50)),
    }
    if name in SHOWN:
        result["from data"] = ends(est, data.X_test[:N_SEEN], size.from_data)
    tests = {}
    if name.startswith("hybrid"):  # the paper has 1,000 steps of eps 2
        sampler = est.sampler_.with_params(step_size=TEST * est.sampler_.step_size)
        tests["test"] = ends(est, "noise", TEST * size.n_steps, size.n_drawn, sampler)
        result["tested"] = tests["test"][:N_SEEN]
    if not data.others:
        return result
    if name == "persistent+refresh":
        bank = est.bank_[:32]
        after = ends(est, bank, size.n_steps)
        result |= {"bank": bank, "after": after, "copy ratio": copy_ratio(est, after, "bank")}
    if name == BEST:
        seen = data.X[:10_000]
        result["copy ratio"] = copy_ratio(est, drawn[:32], seen)
        result["copy ratio, held-out"] = copy_ratio(est, data.X_test[:32], seen)
        tests["long"] = ends(est, "noise", size.long, size.n_drawn)
        sampler = MALA(est.sampler_.step_size, n_warmup=size.from_data // 2)
        result |= packed("mala", chains(est, "noise", size.from_data, N_SEEN, sampler, 100))
    if name in PAPER_FROM_BANK:
        tests["bank"] = ends(est, "bank", size.n_steps, min(size.bank, size.n_drawn))
    distance = Distance(task)
    result |= {f"distance {kind}": distance(rows) for kind, rows in tests.items()}
    inside = est.score_samples(data.X_test[: size.n_scored])
    auroc = [
        ood_metrics(inside, est.score_samples(rows[: size.n_scored]))["auroc"]
        for rows in data.others.values()
    ]
    return result | {"distance noise": distance(drawn), "auroc": np.array(auroc)}


class Distance:
    """Squared Fréchet distance to held-out images, in features of a classifier."""

    def __init__(self, task: Task) -> None:
        data, labeled = task.data, slice(0, task.size.n_labeled)
        epochs = 2 if task.args.smoke else 15
        self.features = Features(
            data.X[labeled], data.y[labeled], data.high, width=64, epochs=epochs
        )
        self.reference = self.features(data.X_test)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the distance of images to the held-out ones; nan where chains ran off."""
        if not np.isfinite(rows).all():
            return np.array(np.nan)
        return np.array(frechet_distance(self.features(rows), self.reference))


def number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def table_2(models: dict[str, Found], task: Task) -> None:
    """Print how well energies tell other sets from held-out images."""
    data = task.data
    print("\nTable 2: AUROC of held-out images against other sets (higher is better)")
    table = []
    for name, result in models.items():
        auroc = result["auroc"]
        energies = result["held-out energy"].mean(), result["drawn energy"].mean()
        table.append(
            [
                name,
                *(f"{v:.3f}" for v in [*auroc, auroc.mean()]),
                f"{SCHEMES[name][3]:.2f}",
                *(number(v, 4) for v in (result["force"], *energies)),
                f"{result['updates']}",
                f"{result['seconds']:.0f}",
            ]
        )
    alone = gaussian(task)
    table.append(["Gaussian, no energy", *(f"{v:.3f}" for v in alone), *["-"] * 6])
    tail = ["paper, SVHN", "drift per pixel", "E held-out", "E drawn", "updates", "fit s"]
    print_table(["scheme", *data.others, "mean", *tail], table)
    monotone({name: result["auroc"] for name, result in models.items()}, list(data.others))
    better = [name for name, result in models.items() if result["auroc"].mean() > alone[-1]]
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


def table_1(models: dict[str, Found], task: Task) -> None:
    """Print distances of generated to held-out images."""
    size, data = task.size, task.data
    print("\nTable 1: squared Fréchet distance of generated to held-out images (lower is better)")
    table: list[list[object]] = []
    for name, result in models.items():
        hybrid = name.startswith("hybrid")  # whose numbers in the paper are of its test chains
        paper = "-" if hybrid else f"{SCHEMES[name][2]:.1f}"
        table.append([f"noise, {size.n_steps} steps", name, result["distance noise"], paper])
        if hybrid:
            kind = f"noise, {TEST * size.n_steps} steps of {TEST * EPS:g}"
            table.append([kind, name, result["distance test"], f"{SCHEMES[name][2]:.1f}"])
    for name, fid in PAPER_FROM_BANK.items():
        if name in models:
            kind = f"bank, {size.n_steps} steps"
            table.append([kind, name, models[name]["distance bank"], f"{fid:.1f}"])
    if BEST in models:
        distance = models[BEST]["distance long"]
        table.append([f"noise, {size.long} steps", BEST, distance, f"{PAPER_LONG:.1f}"])
    to_held_out, rng = Distance(task), np.random.default_rng(0)
    noise = (1 + rng.standard_normal((size.n_drawn, data.side**2))) * data.high / 2
    unused = data.X[-size.n_drawn :]  # not those that the classifier saw
    table.append(["noise, 0 steps", "where chains start", to_held_out(noise), "-"])
    table.append(["training images", "the floor", to_held_out(unused), "-"])
    table = [[kind, name, number(value, 1), paper] for kind, name, value, paper in table]
    print_table(["chains from", "scheme", "distance", "paper's FID, CIFAR-10"], table)
    print("order of the paper:", " < ".join(sorted(models, key=lambda name: SCHEMES[name][2])))
    short = {name: float(result["distance noise"]) for name, result in models.items()}
    print("order here, training chains:", " < ".join(sorted(short, key=short.__getitem__)))
    own = {n: float(models[n].get("distance test", v)) for n, v in short.items()}
    print("order here, the hybrid's own test chains:", " < ".join(sorted(own, key=own.__getitem__)))


def show(ax: object, X: np.ndarray, task: Task, n_columns: int) -> None:
    """Draw images (n, channels * side^2) side by side."""
    side, high = task.data.side, task.data.high
    colors = [montage(part, side, n_columns) for part in np.split(X, task.channels, axis=1)]
    picture = np.clip(np.stack(colors, -1) / high, 0, 1)
    picture = np.where(np.isnan(picture), 1.0, picture)
    ax.imshow(picture.repeat(3, -1) if task.channels == 1 else picture)
    ax.set_xticks([]), ax.set_yticks([])


def figure_3(models: dict[str, Found], task: Task, figure_name: str) -> None:
    """Chains from noise, short and long, and from held-out images, for five schemes."""
    import matplotlib.pyplot as plt

    size, names = task.size, list(models)
    rows = {
        f"noise, {size.n_steps} steps": [models[n]["drawn"][:N_SEEN] for n in names],
        f"noise, {size.long} steps": [unpacked("long", models[n]).positions[-1] for n in names],
        f"held-out, {size.from_data} steps": [models[n]["from data"] for n in names],
    }
    figure, axes = plt.subplots(3, len(names) + 1, figsize=(2.2 * len(names) + 2.2, 6.8))
    for line, (kind, images) in zip(axes, rows.items(), strict=True):
        for ax, name, X in zip(line, names, images, strict=False):
            show(ax, X[:N_SEEN], task, 4)
            ax.set_title(name if ax in axes[0] else "", fontsize=9)
        line[0].set_ylabel(kind, fontsize=9)
        line[-1].axis("off")
    beside = {2: ("held-out, 0 steps", task.data.X_test[:N_SEEN])}
    if BEST in models:
        kind = f"hybrid, {TEST * size.n_steps} steps of {TEST * EPS:g}"
        beside[0] = (kind, models[BEST]["tested"])
    for i, (title, X) in beside.items():
        show(axes[i, -1], X, task, 4)
        axes[i, -1].axis("on")
        axes[i, -1].set_title(title, fontsize=9)
    table = []
    for name in names:
        ended, high = models[name]["from data"], task.data.high
        moved = np.sqrt(np.mean((ended - task.data.X_test[:N_SEEN]) ** 2)) / high
        beyond = np.mean(np.abs(ended - high / 2) > 0.6 * high)
        table.append([name, f"{moved:.3f}", f"{beyond:.3f}"])
    print(f"\n{figure_name}: chains of {size.from_data} steps from held-out images")
    print_table(["scheme", "moved (rms, range 1)", "pixels a tenth beyond the range"], table)
    save_figure(figure, task.args, f"{stem(task)}_{figure_name.lower().replace(' ', '_')}.png")


def stem(task: Task) -> str:
    return "hcd_images" if task.args.images == "fashion" else f"hcd_{task.args.images}"


def figure_5(models: dict[str, Found], task: Task, figure_name: str) -> None:
    """Energies of held-out images against those of long chains from noise."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(models), figsize=(3.4 * len(models), 3), squeeze=False)
    rows = []
    for ax, (name, result) in zip(axes[0], models.items(), strict=True):
        inside, samples = result["held-out energy"], unpacked("long", result).model_energy[-1]
        shown = EnergyHistogramDisplay.from_predictions(inside, samples, ax=ax)
        ax.set_title(name, fontsize=10)
        ax.locator_params(axis="x", nbins=4)
        ax.set_ylim(top=1.6 * ax.get_ylim()[1])  # room for the legend
        shift = (samples.mean() - inside.mean()) / inside.std()
        rows.append([name, f"{inside.mean():.4g}", f"{samples.mean():.4g}", shift, shown.overlap_])
    print(f"\n{figure_name}: energies after {task.size.long} steps from noise, and held-out ones")
    print_table(["scheme", "E held-out", "E of samples", "shift (sd)", "overlap"], rows)
    print("paper: equal for both persistent schemes, slightly above held-out for the hybrid")
    save_figure(figure, task.args, f"{stem(task)}_{figure_name.lower().replace(' ', '_')}.png")


def figure_7(models: dict[str, Found], task: Task) -> None:
    """A bank, what chains from it become, and generated images with nearest training images."""
    import matplotlib.pyplot as plt

    size, data, name = task.size, task.data, "persistent+refresh"
    if not {name, BEST} <= set(models):
        return
    drawn, seen = models[BEST]["drawn"], data.X[:10_000]
    near = nearest_neighbors(drawn[:8], seen, 3).indices
    beside = np.stack([drawn[:8], *(seen[near[:, j]] for j in range(3))], axis=1)
    figure, axes = plt.subplots(1, 3, figsize=(9, 5.2), width_ratios=(1, 1, 1))
    show(axes[0], models[name]["bank"], task, 4)
    show(axes[1], models[name]["after"], task, 4)
    show(axes[2], beside.reshape(-1, data.X.shape[1]), task, 4)
    axes[0].set_title(f"A: bank, {name}", fontsize=9)
    axes[1].set_title(f"B: {size.n_steps} steps later", fontsize=9)
    axes[2].set_title(f"C: {BEST} from noise,\nnearest training images", fontsize=9)
    print("\nFigure 7: distance to the nearest reference row over that between reference rows")
    print("(copy_ratio, median: 0 for copies, 1 for independent draws, more for rows that are off)")
    rows = [
        [f"{name}: bank, {size.n_steps} steps later", "bank", models[name]["copy ratio"]],
        [f"{BEST}: from noise", "training images", models[BEST]["copy ratio"]],
        ["held-out images", "training images", models[BEST]["copy ratio, held-out"]],
    ]
    table = [[*row[:2], float(np.median(row[2]))] for row in rows]
    print_table(["rows", "reference", "copy_ratio"], table)
    save_figure(figure, task.args, "hcd_images_figure_7.png")


def figure_6(models: dict[str, Found], task: Task) -> None:
    """Noise and signal of the computational loss over training, means of 25 updates."""
    histories = {name: json.loads(str(result["history"])) for name, result in models.items()}
    figure, rows = loss_curves(histories)
    print("\nFigure 6: the loss in three thirds of the training")
    print("(paper: persistent has the largest sd and least SNR, data the smallest sd)")
    print_table(["scheme", "bracket", *LOSS_SPANS], rows)
    save_figure(figure, task.args, f"{stem(task)}_figure_6.png")


def figure_9(models: dict[str, Found], task: Task) -> None:
    """Energies along chains from noise, and those of held-out images."""
    import matplotlib.pyplot as plt

    size = task.size
    figure, axes = plt.subplots(1, len(models), figsize=(3.4 * len(models), 3), squeeze=False)
    rows = []
    for ax, (name, result) in zip(axes[0], models.items(), strict=True):
        along, level = unpacked("long", result), result["held-out energy"].mean()
        ChainDisplay.from_chains(along, kind="model_energy").plot(ax=ax)
        ax.axhline(level, color="k", lw=0.8)
        ax.axvline(size.n_steps, color="k", lw=0.8, ls=":")
        ax.set_title(name, fontsize=10)
        means = along.model_energy.mean(1)
        at = [np.interp(share * size.long, along.steps, means) for share in (0.25, 0.5, 1)]
        rows.append([name, *(f"{v:.4g}" for v in (level, result["drawn energy"].mean(), *at))])
    print("\nFigure 9: mean energies along chains from noise")
    print("(black: held-out images; dotted: the end of training chains)")
    steps = [f"{share * size.long:.0f} steps" for share in (0.25, 0.5, 1)]
    print_table(["scheme", "held-out", f"{size.n_steps} steps", *steps], rows)
    print("paper: falls on for noise, comes to rest for the other four")
    save_figure(figure, task.args, f"{stem(task)}_figure_9.png")


def figure_8(models: dict[str, Found], task: Task) -> None:
    """Metropolis-adjusted chains of the hybrid: acceptance, and where they end."""
    import matplotlib.pyplot as plt

    if BEST not in models:
        return
    along, n_steps = unpacked("mala", models[BEST]), task.size.from_data
    frozen = along.acceptance[len(along.acceptance) // 2 + 1 :]
    print(
        f"\nFigure 8, {BEST}: {n_steps} adjusted steps (paper: 50000), acceptance after warm-up "
        f"{frozen.mean():.3f} (target 0.67), step {along.step_size[-1] / TEMPERATURE:.3g} of E "
        f"(training {EPS:g}); E at the end {along.model_energy[-1].mean():.4g}, of held-out images "
        f"{models[BEST]['held-out energy'].mean():.4g}"
    )
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    ChainDisplay.from_chains(along, kind="acceptance").plot(ax=axes[0])
    axes[0].axhline(0.67, color="k", linewidth=0.6)
    show(axes[1], along.positions[-1], task, 4)
    axes[1].set_title(f"after {n_steps} adjusted steps", fontsize=9)
    save_figure(figure, task.args, "hcd_images_figure_8.png")


def main() -> None:
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 1, "full": 1},
        images={"choices": ["fashion", "cifar10"], "default": "fashion", "help": "which ones"},
        only={"nargs": "+", "choices": list(SHORT_NAMES), "help": "some of the schemes"},
        updates={"type": int, "help": "how many, in place of the mode's"},
    )
    warnings.simplefilter("ignore", CheckpointWarning)  # fits are read again on purpose
    print_title("HCD Tables 1 and 2: images", args)
    task = prepare(args)
    size, data, color = task.size, task.data, args.images == "cifar10"
    names = [SHORT_NAMES[short] for short in args.only] if args.only else list(SCHEMES)
    if color and not args.only:
        names = SHOWN
    if args.hours:
        return print_hours({n: (lambda n=n: estimator(n, task), data.X, 1) for n in names}, args)
    print(
        f"data: {data.name}, {len(data.X)} rows; {size.n_steps} steps (paper: 500) for "
        f"{size.max_iter} updates (paper: 50000), eps {EPS:g}, T {TEMPERATURE:g}, width "
        f"{size.width}, Adam {size.learning_rate:g}",
        flush=True,
    )
    results = {name: found(name, task) for name in names}
    models = {name: result for name, result in results.items() if result["updates"]}
    shown = {name: models[name] for name in SHOWN if name in models}
    if not color:
        table_2(models, task)
        table_1(models, task)
    if shown:
        figure_3(shown, task, "Figure 4" if color else "Figure 3")
        figure_5(shown, task, "Figure 10" if color else "Figure 5")
        figure_6(shown, task)
        figure_9(shown, task)
    if not color:
        figure_7(models, task)
        figure_8(models, task)


if __name__ == "__main__":
    main()
