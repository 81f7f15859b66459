"""LSD Figures 9 and 11 to 14: energies and RBMs of MNIST and Fashion-MNIST, trained unsampled.

Pixels are dequantized and mapped to logits (B.6.2). The energy is a perceptron beside a Gaussian
with learned moments (Eq. 17), the restricted Boltzmann machine has 100 hidden signs (C.3); both
minimize a learned Stein discrepancy. Samples afterwards: tempered Langevin chains (Eq. 19, step 1,
noise 0.01, 1,000 steps) from uniform pixels, and 2,000 sweeps of block Gibbs. Figure 11 of the
paper has more samples of its MNIST model: our Figure 9 shows 100 of each.

The paper shows pictures and what it saw in them: with noise 0.1 samples are "more diverse and
visually appealing" than with 0.01 after 300 steps (Figure 12), and 1,000 steps make them "more
clear" and "considerably less diverse" than 30 (Figure 13). Beside the pictures stand two numbers
for each set of samples, pixels from 0 to 1: the mean distance between two of them, and the mean
distance to the nearest training image. No likelihood: log Z of such a model is not known.

``--mode full`` (a GPU): 28 x 28, energy and critic 1000-1000, Adam 1e-4 (RBM 1e-3), betas (0.5,
0.9), five updates of the critic for one of the model, lambda 10, batches of 256, weight decay 5e-4
and 0.001 times the mean squared energy as in the released code. Its 100 epochs count the critic's
batches: 3,906 updates of the model at 60,000 rows, taken here for MNIST too, of which there are
10,000. Weight decay is decoupled here, the paper's is in the gradient; the Gaussian starts with one
mean and one standard deviation (that of all pixels plus 1, as in the code), of all rows instead of
a batch, and learns one of each per pixel. The RBM's critic is not stated: it is the same. Its
visible biases start at the columns' means, which steps of 0.001 from 0 would not reach in time.

Quick mode pools to 14 x 14, with energy and critic 300-300, Adam 1e-3 and 600 updates (92 epochs of
its 10,000 rows in the same count). It shows what training does early, not the quality of the
images. ``--updates`` takes other numbers of updates and draws samples after each. Where SKEBM_DATA
is unset, scikit-learn's digits stand in.

Fits and samples are kept in the output folder. To split them over processes give each some of the
models by ``--only``, which takes them in turn from one number of updates to the next; ``--show``
prints and draws what is there. What was stopped goes on from the last of these numbers.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.metrics import pairwise_distances_argmin_min

from skebm import SteinEBM
from skebm.bases import Gaussian
from skebm.datasets import Dequantize, Logit
from skebm.energies import MLP, GaussianBernoulliRBM
from skebm.networks import Critic
from skebm.objectives import Optimization

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, montage, read_pictures
from examples.papers._paper import Kept, mode, print_hours, print_table, print_title, save_figure


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    n_train: int
    width: int
    updates: tuple[int, ...]  # of the model when samples are drawn
    rate: float  # of the energy and its critic
    shortening: int  # of all chains


SIZES = {
    "smoke": Size(1, 300, 16, (2, 4), 1e-3, 100),
    "quick": Size(2, 10_000, 300, (600,), 1e-3, 1),
    "full": Size(1, 60_000, 1000, (3906,), 1e-4, 1),
}
FILES = {"MNIST": "mnist_train10k", "Fashion-MNIST": "fashion_mnist_train"}
BETAS = (0.5, 0.9)
RBM_RATE = 1e-3
N_SHOWN, N_COLUMNS = 100, 10
MODELS = ENERGY, RBM = "energy", "RBM"


class Chains(NamedTuple):
    """How samples of a figure are drawn, and what the paper says of them."""

    n_steps: int
    noise_std: float
    said: str

    def length(self, size: Size) -> int:
        return max(1, self.n_steps // size.shortening)


CHAINS = {
    "Figure 9": Chains(1000, 0.01, "compelling"),
    "Figure 12, left": Chains(300, 0.01, "-"),
    "Figure 12, right": Chains(300, 0.1, "more diverse, visually appealing"),
    "Figure 13, left": Chains(30, 0.01, "quite diverse"),
    "Figure 13, right": Chains(1000, 0.01, "more clear, considerably less diverse"),
}
FIRST, GIBBS = "Figure 9", "Figure 14"
GIBBS_CHAINS = Chains(2000, float("nan"), "a picture")
COLUMNS = ["images", "model", "updates", "samples", "pairwise", "nearest", "finite", "seconds"]
COLUMNS += ["training seconds", "discrepancy"]


class Task(NamedTuple):
    """Images of one kind, as pixels from 0 to 1 and as logits."""

    name: str
    side: int
    pixels: np.ndarray  # training rows, dequantized
    test: np.ndarray
    logit: Logit
    size: Size
    args: argparse.Namespace

    @property
    def logits(self) -> np.ndarray:
        return self.logit.transform(self.pixels)

    def file(self, what: str) -> Path:
        """Return where something of this task is kept."""
        slug = f"{self.name}_{what}".replace(",", "").replace(" ", "_")
        return self.args.output / f"lsd_images_{self.args.mode}_{slug}"


def size_of(args: argparse.Namespace) -> Size:
    """Return what the mode takes, with the updates that were asked for."""
    size = SIZES[args.mode]
    return size._replace(updates=tuple(sorted(set(args.updates)))) if args.updates else size


def prepare(name: str, args: argparse.Namespace) -> Task:
    size = size_of(args)
    test = FILES[name].rsplit("_", 1)[0] + "_test"
    data: Pictures = read_pictures(FILES[name], test, {}, pool=size.pool)
    dequantize = Dequantize(levels=int(data.high) + 1, random_state=0)
    rows = [data.X[: size.n_train], data.X_test[:N_SHOWN]]
    pixels, held_out = (dequantize.fit_transform(np.round(X)) for X in rows)
    if "SKEBM_DATA" in data.name:
        name = "digits"
    return Task(name, data.side, pixels, held_out, Logit().fit(pixels), size, args)


def estimator(model: str, task: Task) -> SteinEBM:
    """Return SteinEBM with all that the paper and its code state, in units of logits."""
    size, spread = task.size, float(task.logits.std())
    critic_sizes = (size.width, size.width)
    rate = size.rate if model == ENERGY else RBM_RATE
    machine = GaussianBernoulliRBM(100, visible_bias=task.logits.mean(0))
    own: dict[str, Any] = {"energy": machine, "base": None}
    if model != RBM:
        own = {
            "energy": MLP(critic_sizes, n_frequencies=0, input_scale=1.0),
            "base": Gaussian("spherical", inflation=(spread + 1) / spread),
            "energy_l2": 1e-3,
        }
    adam = Optimization(rate, BETAS, weight_decay=5e-4, schedule="constant", averaging=False)
    return SteinEBM(
        critic=Critic(critic_sizes, trace="gaussian"),
        critic_steps=5,
        l2=10.0,
        optimizer=adam,
        max_iter=size.updates[-1],
        batch_size=256,
        standardize=False,
        data_noise=0.0,
        validation_fraction=0,
        n_iter_no_change=None,
        log_partition=None,
        calibrate=False,
        warm_start=True,
        verbose=0 if task.args.smoke else 1,
        random_state=0,
        **own,
    )


def fitted(model: str, stage: int, task: Task) -> tuple[SteinEBM, float]:
    """Return the fit after a number of updates and the CPU seconds of all, both kept."""
    updates = task.size.updates[stage]
    path = task.file(f"{model}_{updates}.pickle")
    if path.exists():
        return pickle.loads(path.read_bytes())
    est, seconds, done = estimator(model, task), 0.0, 0
    if stage:
        est, seconds = fitted(model, stage - 1, task)
        done = task.size.updates[stage - 1]
    start = time.process_time()
    est.set_params(max_iter=updates - done).fit(task.logits)
    seconds += time.process_time() - start
    path.write_bytes(pickle.dumps((est, seconds)))
    print(f"{task.name} {model}: {updates} updates, {seconds:.0f} s", flush=True)
    return est, seconds


def drawn(samples: str, est: SteinEBM, task: Task) -> np.ndarray:
    """Return logits; chains of all figures start at the same rows."""
    rng = np.random.RandomState(0)
    uniform = task.logit.transform(rng.uniform(size=(N_SHOWN, task.side**2)))
    if samples == GIBBS:
        starts = rng.standard_normal(uniform.shape)
        n_steps = GIBBS_CHAINS.length(task.size)
        return est.sample(N_SHOWN, random_state=0, method="gibbs", n_steps=n_steps, init=starts)
    chains = CHAINS[samples]
    return est.sample(
        N_SHOWN,
        random_state=0,
        method="langevin",
        n_steps=chains.length(task.size),
        step_size=1.0,
        noise_std=chains.noise_std,
        init=uniform,
    )


def distances(pixels: np.ndarray, task: Task) -> list[float]:
    """Return mean distances between two images and from one to its nearest training image."""
    nearest = pairwise_distances_argmin_min(pixels, task.pixels)[1]
    return [float(pdist(pixels).mean()), float(nearest.mean())]


def kept_of(model: str, task: Task) -> Kept:
    return Kept(task.file(f"{model}.csv"), COLUMNS, key=4)


def kinds(model: str) -> list[str]:
    return [GIBBS] if model == RBM else list(CHAINS)


def compute(model: str, stage: int, task: Task) -> None:
    """Train, draw, and keep the pixels and the numbers of the table."""
    kept, updates = kept_of(model, task), task.size.updates[stage]
    est, training = fitted(model, stage, task)
    for samples in kinds(model):
        key = [task.name, model, updates, samples]
        kept.get(key, lambda samples=samples: one(samples, model, updates, est, training, task))


def one(
    samples: str, model: str, updates: int, est: SteinEBM, training: float, task: Task
) -> list[float]:
    """Draw, keep the pixels, and return the numbers of a row; `training`, CPU s, is one of them."""
    start = time.process_time()
    logits = drawn(samples, est, task)
    seconds = time.process_time() - start
    finite = np.isfinite(logits).all(1)
    pixels = task.logit.inverse_transform(logits[finite]) if finite.any() else logits[:0]
    np.save(task.file(f"{model}_{samples}_{updates}.npy"), pixels.astype(np.float32))
    numbers = distances(pixels, task) if finite.sum() > 1 else [float("nan")] * 2
    discrepancy = float(est.history_[-1]["discrepancy"])
    return [*numbers, float(finite.mean()), seconds, training, discrepancy]


def table(task: Task) -> list[list[Any]]:
    """Return the rows of one kind of images: all samples of the last updates, some of earlier."""
    numbers = [f"{value:.2f}" for value in distances(task.test, task)]
    noise = np.random.RandomState(0).uniform(size=task.test.shape)
    start = [f"{value:.2f}" for value in distances(noise, task)]
    rows = [
        [task.name, "held-out images", *["-"] * 4, *numbers, *["-"] * 5],
        [task.name, "uniform pixels", *["-"] * 4, *start, *["-"] * 5],
    ]
    for model in MODELS:
        found = kept_of(model, task).rows
        for _, _, updates, samples, *values in found:
            if updates != found[-1][2] and samples not in (FIRST, GIBBS):
                continue
            chains = CHAINS.get(samples, GIBBS_CHAINS)
            noise_std = "-" if samples == GIBBS else f"{chains.noise_std:g}"
            how = [samples, chains.length(task.size), noise_std]
            pairwise, nearest, finite, seconds, training, discrepancy = map(float, values)
            ends = [f"{pairwise:.2f}", f"{nearest:.2f}", f"{finite:.0%}", f"{discrepancy:.3g}"]
            times = [f"{training:.0f}", f"{seconds:.0f}"]
            rows.append([task.name, model, updates, *how, *ends, *times, chains.said])
    return rows


def show(ax: Any, pixels: np.ndarray, title: str, task: Task) -> None:
    picture = montage(pixels, task.side, N_COLUMNS)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def draw(
    name: str, model: str, panels: list[str], tasks: list[Task], args: argparse.Namespace
) -> None:
    """Draw held-out images beside samples, one line per kind of images.

    Where one kind of samples is shown, it is after all numbers of updates, else after the last.
    """
    import matplotlib.pyplot as plt

    found = {task.name: available(model, panels, task) for task in tasks}
    tasks = [task for task in tasks if found[task.name]]
    if not tasks:
        return
    size = (len(tasks), 1 + max(map(len, found.values())))
    figure, axes = plt.subplots(*size, figsize=(4 * size[1], 4.2 * size[0]), squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for ax in line:
            ax.axis("off")
        show(line[0], task.test, f"{task.name}: held-out images", task)
        for ax, (samples, updates) in zip(line[1:], found[task.name], strict=False):
            chains = CHAINS.get(samples, GIBBS_CHAINS)
            how = f"{chains.length(task.size)} steps, noise {chains.noise_std:g}"
            how = how.replace(", noise nan", " of Gibbs")
            pixels = np.load(task.file(f"{model}_{samples}_{updates}.npy"))
            show(ax, pixels, f"{samples}: {updates} updates, {how}", task)
    save_figure(figure, args, name)


def available(model: str, panels: list[str], task: Task) -> list[tuple[str, int]]:
    """Return which samples can be shown, and after how many updates."""
    every = [
        (samples, updates)
        for updates in task.size.updates
        for samples in panels
        if task.file(f"{model}_{samples}_{updates}.npy").exists()
    ]
    return every if len(panels) == 1 else every[-len(panels) :]


def main() -> None:
    names = [f"{name} {model}" for name in FILES for model in MODELS]
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 1, "full": 1},
        updates={"nargs": "+", "type": int, "help": "draw after so many (the mode's)"},
        only={"nargs": "+", "choices": names, "help": "models to fit, nothing drawn (all)"},
        show={"action": "store_true", "help": "print and draw what is there"},
    )
    print_title("LSD Figures 9 and 11 to 14: images in logit space", args)
    wanted = [
        (name, model)
        for name in FILES
        for model in MODELS
        if args.only is None or f"{name} {model}" in args.only
    ]
    found = {name: prepare(name, args) for name in dict.fromkeys(name for name, _ in wanted)}
    chosen = [(model, found[name]) for name, model in wanted]
    if args.hours:
        fits = {
            f"{task.name} {model}": (partial(estimator, model, task), task.logits, 1)
            for model, task in chosen
        }
        return print_hours(fits, args)
    for stage in range(len(size_of(args).updates)):
        for model, task in chosen if not args.show else []:
            compute(model, stage, task)
    if args.only is not None:
        return
    tasks = list({task.name: task for task in found.values()}.values())
    rows = [row for task in tasks for row in table(task)]
    columns = ["images", "model", "updates", "samples", "steps", "noise", "pairwise", "nearest"]
    print_table([*columns, "finite", "discrepancy", "fit s", "s", "paper"], rows)
    print(
        f"pairwise, nearest: mean distance between two of {N_SHOWN} images, and from one to its "
        "nearest training image; pixels from 0 to 1. finite: chains that did not diverge. "
        "discrepancy: nats, the last training batch. fit s, s: CPU seconds of all updates and of "
        "the chains. Chains of Figures 12 and 13 start at the same pixels, as all of an energy."
    )
    draw("lsd_figure_9.png", ENERGY, [FIRST], tasks, args)
    for figure in (12, 13):
        panels = [f"Figure {figure}, left", f"Figure {figure}, right"]
        draw(f"lsd_figure_{figure}.png", ENERGY, panels, tasks, args)
    draw("lsd_figure_14.png", RBM, [GIBBS], tasks, args)


if __name__ == "__main__":
    main()
