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
images. Fits are kept in the output folder. Where SKEBM_DATA is unset, scikit-learn's digits stand
in.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

from skebm import SteinEBM
from skebm.bases import Gaussian
from skebm.datasets import Dequantize, Logit
from skebm.energies import MLP, GaussianBernoulliRBM
from skebm.networks import Critic
from skebm.objectives import Optimization

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, montage, read_pictures
from examples.papers._paper import Kept, mode, print_table, print_title, save_figure


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    n_train: int
    width: int
    max_iter: int
    rate: float  # of the energy and its critic
    shortening: int  # of all chains


SIZES = {
    "smoke": Size(1, 300, 16, 3, 1e-3, 100),
    "quick": Size(2, 10_000, 300, 600, 1e-3, 1),
    "full": Size(1, 60_000, 1000, 3906, 1e-4, 1),
}
FILES = {"MNIST": "mnist_train10k", "Fashion-MNIST": "fashion_mnist_train"}
BETAS = (0.5, 0.9)
N_SHOWN, N_COLUMNS = 100, 10
ENERGY, RBM = "energy", "RBM"


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
GIBBS = "Figure 14"
GIBBS_CHAINS = Chains(2000, float("nan"), "a picture")
COLUMNS = ["images", "model", "samples", "pairwise", "nearest", "finite", "seconds"]


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


def prepare(name: str, args: argparse.Namespace) -> Task:
    size = SIZES[args.mode]
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
    rate = size.rate if model == ENERGY else 1e-3
    machine = GaussianBernoulliRBM(100, visible_bias=task.logits.mean(0))
    own: dict[str, Any] = {"energy": machine, "base": None}
    if model == ENERGY:
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
        max_iter=size.max_iter,
        batch_size=256,
        standardize=False,
        data_noise=0.0,
        validation_fraction=0,
        n_iter_no_change=None,
        log_partition=None,
        calibrate=False,
        verbose=0 if task.args.smoke else 1,
        random_state=0,
        **own,
    )


def fitted(model: str, task: Task) -> SteinEBM:
    """Return the fit, from its file where there is one."""
    path = task.file(f"{model}.pickle")
    if path.exists():
        return pickle.loads(path.read_bytes())
    start = time.process_time()
    est = estimator(model, task).fit(task.logits)
    seconds = time.process_time() - start
    last = est.history_[-1]
    print(
        f"{task.name}, {model}: {est.n_iter_} updates, {seconds:.0f} s, discrepancy "
        f"{last['discrepancy']:.3g} nats on training batches",
        flush=True,
    )
    path.write_bytes(pickle.dumps(est))
    return est


def drawn(samples: str, task: Task) -> np.ndarray:
    """Return logits; chains of all figures start at the same rows."""
    rng = np.random.RandomState(0)
    uniform = task.logit.transform(rng.uniform(size=(N_SHOWN, task.side**2)))
    if samples == GIBBS:
        starts = rng.standard_normal(uniform.shape)
        n_steps = GIBBS_CHAINS.length(task.size)
        return fitted(RBM, task).sample(
            N_SHOWN, random_state=0, method="gibbs", n_steps=n_steps, init=starts
        )
    chains = CHAINS[samples]
    return fitted(ENERGY, task).sample(
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
    return [float(pdist(pixels).mean()), float(cdist(pixels, task.pixels).min(1).mean())]


def one(samples: str, task: Task) -> list[float]:
    """Draw, keep the pixels, and return the numbers of a row."""
    fitted(RBM if samples == GIBBS else ENERGY, task)  # its seconds are not the samples'
    start = time.process_time()
    logits = drawn(samples, task)
    seconds = time.process_time() - start
    finite = np.isfinite(logits).all(1)
    pixels = task.logit.inverse_transform(logits[finite]) if finite.any() else logits[:0]
    np.save(task.file(f"{samples}.npy"), pixels)
    numbers = distances(pixels, task) if finite.sum() > 1 else [float("nan")] * 2
    return [*numbers, float(finite.mean()), seconds]


def table(task: Task, kept: Kept) -> list[list[Any]]:
    """Return the rows of one kind of images."""
    numbers = [f"{value:.2f}" for value in distances(task.test, task)]
    noise = np.random.RandomState(0).uniform(size=task.test.shape)
    start = [f"{value:.2f}" for value in distances(noise, task)]
    rows = [
        [task.name, "held-out images", *["-"] * 3, *numbers, *["-"] * 3],
        [task.name, "uniform pixels", *["-"] * 3, *start, *["-"] * 3],
    ]
    for samples in (*CHAINS, GIBBS):
        model = RBM if samples == GIBBS else ENERGY
        found = kept.get([task.name, model, samples], lambda s=samples: one(s, task))
        chains = CHAINS.get(samples, GIBBS_CHAINS)
        noise_std = "-" if samples == GIBBS else f"{chains.noise_std:g}"
        n_steps = chains.length(task.size)
        pairwise, nearest, finite, seconds = (float(v) for v in found[3:])
        ends = [f"{pairwise:.2f}", f"{nearest:.2f}", f"{finite:.0%}", f"{seconds:.0f}"]
        rows.append([task.name, model, samples, n_steps, noise_std, *ends, chains.said])
    return rows


def show(ax: Any, pixels: np.ndarray, title: str, task: Task) -> None:
    picture = montage(pixels, task.side, N_COLUMNS)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def draw(name: str, panels: list[str], tasks: list[Task], args: argparse.Namespace) -> None:
    """Draw held-out images beside samples, one line per kind of images."""
    import matplotlib.pyplot as plt

    size = (len(tasks), 1 + len(panels))
    figure, axes = plt.subplots(*size, figsize=(4 * size[1], 4.2 * size[0]), squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        show(line[0], task.test, f"{task.name}: held-out images", task)
        for ax, samples in zip(line[1:], panels, strict=True):
            chains = CHAINS.get(samples, GIBBS_CHAINS)
            how = f"{chains.length(task.size)} steps, noise {chains.noise_std:g}"
            title = f"{samples}: {how.replace(', noise nan', ' of Gibbs')}"
            show(ax, np.load(task.file(f"{samples}.npy")), title, task)
    save_figure(figure, args, name)


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 1, "full": 1})
    print_title("LSD Figures 9 and 11 to 14: images in logit space", args)
    found = {task.name: task for task in (prepare(name, args) for name in FILES)}
    tasks = list(found.values())
    kept = Kept(args.output / f"lsd_images_{args.mode}.csv", COLUMNS, key=3)
    rows = [row for task in tasks for row in table(task, kept)]
    columns = ["images", "model", "samples", "steps", "noise", "pairwise", "nearest", "finite"]
    print_table([*columns, "CPU s", "paper"], rows)
    print(
        f"pairwise, nearest: mean distance between two of {N_SHOWN} images, and from one to its "
        "nearest training image; pixels from 0 to 1. finite: chains that did not diverge. Chains "
        "of Figures 12 and 13 start at the same pixels, those of an energy all do."
    )
    draw("lsd_figure_9.png", ["Figure 9"], tasks, args)
    draw("lsd_figure_12.png", ["Figure 12, left", "Figure 12, right"], tasks, args)
    draw("lsd_figure_13.png", ["Figure 13, left", "Figure 13, right"], tasks, args)
    draw("lsd_figure_14.png", [GIBBS], tasks, args)


if __name__ == "__main__":
    main()
