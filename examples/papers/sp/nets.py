"""SP section 4.2: networks, batch sizes and skip connections for MNIST, on a small scale.

The paper finds its strided network slightly better than LeNet, less variety and more straight
digits ("1", "7") with larger batches, samples of ever smaller norm with the skip connections of
DenseNet, and that batch normalization does not work. Here each is one model with the quadratic
output, trained as in ``mnist.py`` with eta times the steps 0.005 for the same number of updates.
Beside the pictures: energies of samples less those of held-out images, roughness, the norm of
samples over that of held-out images, the mean distance of two samples over that of two held-out
images, the share of samples whose nearest training image is a 1 or a 7, and how far an image's
energy depends on the rows beside it. The norm is that in the network's space, where 0 is the mean
gray of [-1, 1].

With ``--updates 600``, seed 0, on two shared cores: the strided network comes to digits (126 CPU
seconds), LeNet to noisy ones (86, after one rescue that lowered its steps), dense blocks to strokes
whose norm stays that of images (stopped after 300 updates, 160), batch normalization to noise
(after 150, 73). With batches of 16 there is more variety than with 64 or 128 after 300 updates, but
not after as many rows.

``--updates`` takes another number, in four stages, after each of which a model is measured.
``--only`` names the models that a call fits, so that calls can share the folder; without a name it
reads what is there and draws.

Deviations: those of ``mnist.py``, parameters not averaged; 14 x 14 and 100 updates of 50 steps in
quick mode; the network with skip connections is two dense blocks of our own, since the paper gives
no sizes. Batch normalization is that of a network of our own, which takes mean and variance from
the rows at hand: torch's modules are refused by the estimators, since a row's energy depends on
others and exp(-E) is no density.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from skebm import HybridCDDensity
from skebm.diagnostics import run_chains
from skebm.energies import Conv
from skebm.exceptions import ConvergenceError

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, montage, read_pictures
from examples.papers._paper import Kept, mode, print_hours, print_table, print_title, save_figure
from examples.papers.sp._stages import IN_STAGES, STAGES, only, stages, wanted
from examples.papers.sp.outputs import of_images

UPDATES = {"smoke": 4, "quick": 100, "full": 9368}
STEPS = {"smoke": 3, "quick": 50, "full": 1000}
N_SAMPLES = {"smoke": 20, "quick": 500, "full": 1000}
ETA_TIMES_STEPS = 0.005  # the paper's 5e-6 * 1000
COLUMNS = ["network", "batch", "updates"]
COLUMNS += ["E", "roughness", "norm", "distance", "1 or 7", "others", "CPU s"]


class DenseNet(torch.nn.Module):
    """Two dense blocks, each halving the map first; every layer sees all maps before it."""

    def __init__(self, shape: tuple[int, int, int], growth: int = 12, n_layers: int = 3) -> None:
        super().__init__()
        n, blocks = shape[0], []
        for _ in range(2):
            halving = torch.nn.Conv2d(n, 2 * growth, 3, stride=2, padding=1)
            widths = [growth * (2 + i) for i in range(n_layers)]
            layers = [torch.nn.Conv2d(width, growth, 3, padding=1) for width in widths]
            blocks.append(torch.nn.ModuleList([halving, *layers]))
            n = growth * (2 + n_layers)
        self.blocks = torch.nn.ModuleList(blocks)
        self.head = torch.nn.Linear(n, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, c, h, w) to f^2 / 2 (n,)."""
        for block in self.blocks:
            halving, *layers = block
            x = torch.nn.functional.silu(halving(x))
            for layer in layers:
                x = torch.cat([x, torch.nn.functional.silu(layer(x))], 1)
        return 0.5 * self.head(x.mean((2, 3))).squeeze(1).square()


class BatchNormed(torch.nn.Module):
    """The layers of Table 3, with maps normalized by mean and variance of their batch.

    The statistics are those of the rows that come together: in a step of the chains the chains, in
    an update data and samples. So a row's energy depends on the others, and there is no density;
    the estimators refuse torch's own modules for that. Weights start as torch has them.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, paddings = (shape[0], 16, 32, 64, 64), (4, 1, 1, 1)
        kernels = (5, 3, 3, 3)
        sizes = zip(channels, channels[1:], kernels, paddings, strict=False)
        self.layers = torch.nn.ModuleList(
            torch.nn.Conv2d(a, b, kernel, stride=2, padding=padding)
            for a, b, kernel, padding in sizes
        )
        self.head = torch.nn.Sequential(
            torch.nn.LazyLinear(64), torch.nn.SiLU(), torch.nn.Linear(64, 1)
        )
        self.forward(torch.zeros(2, *shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, c, h, w) to f^2 / 2 (n,)."""
        for layer in self.layers:
            x = layer(x)
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
            x = torch.nn.functional.silu((x - mean) * (variance + 1e-5).rsqrt())
        return 0.5 * self.head(x.flatten(1)).squeeze(1).square()


# name, batch: what builds the energy
MODELS = {
    ("strided", 64): Conv.strided(),
    ("LeNet", 64): Conv.lenet(),
    ("dense blocks", 64): DenseNet,
    ("batch normalization", 64): BatchNormed,
    ("strided", 16): Conv.strided(),
    ("strided", 128): Conv.strided(),
}


def estimator(name: str, batch: int, side: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return a stage of the paper's best scheme, chains from noise and a quadratic output."""
    n_steps = STEPS[args.mode]
    return HybridCDDensity(
        init="noise",
        sampler="langevin",
        step_size=ETA_TIMES_STEPS / n_steps,
        n_steps=n_steps,
        base=None,
        refine=False,
        energy=MODELS[name, batch],
        image_shape=(1, side, side),
        data_noise=0.0,
        max_iter=args.updates // STAGES,
        batch_size=batch,
        optimizer=of_images(args.mode),
        validation_fraction=0,
        log_partition=None,
        warm_start=True,
        random_state=0,
    )


def spread(rows: np.ndarray) -> float:
    """Return the mean distance of two rows."""
    return float(np.linalg.norm(rows[::2][:, None] - rows[1::2][None], axis=2).mean())


def mixed(est: HybridCDDensity, real: np.ndarray, samples: np.ndarray) -> float:
    """Return by how much images' energies change with the rows beside them, over their spread."""
    n = len(real) // 2
    alone, beside = (
        est.energy_samples(np.concatenate([real[:n], rows[:n]]))[:n] for rows in (real[n:], samples)
    )
    return float(np.abs(alone - beside).mean() / alone.std())


def measure(
    est: HybridCDDensity, seconds: float, name: str, data: Pictures, args: argparse.Namespace
) -> list[float]:
    """Keep samples for the figure, and compare them with held-out images."""
    n = N_SAMPLES[args.mode]
    record = run_chains(
        est,
        "noise",
        n_chains=n,
        n_steps=est.n_steps,
        record_every=est.n_steps,
        random_state=1,
    )
    samples, real = record.positions[-1], data.X_test[:n]
    np.save(own_path(name, est.batch_size, "npy", args), samples[:20])
    gap = record.model_energy[-1].mean() - est.energy_samples(real).mean()
    images = samples.reshape(-1, data.side, data.side)
    middle = data.high / 2
    norms = [np.linalg.norm(rows - middle, axis=1).mean() for rows in (samples, real)]
    digits = KNeighborsClassifier(1).fit(data.X, data.y).predict(samples)
    rough = np.diff(images, axis=2).std() / images.std()
    look = [rough, norms[0] / norms[1], spread(samples) / spread(real)]
    return [gap, *look, np.isin(digits, (1, 7)).mean(), mixed(est, real, samples), seconds]


def found(name: str, batch: int, data: Pictures, args: argparse.Namespace) -> list[list[str]]:
    """Return the measurements of a model, a row for each stage, trained now if this call does."""
    kept = Kept(own_path(name, batch, "csv", args), COLUMNS, key=3)
    ends = (str(args.updates), "diverged")
    if not wanted(f"{name} {batch}", args) or any(row[2] in ends for row in kept.rows):
        return kept.rows
    est, start = estimator(name, batch, data.side, args), time.process_time()
    try:
        for stage in stages(est, data.X):
            seconds = time.process_time() - start
            kept.get(
                [name, batch, stage.n_iter_],
                lambda e=stage, s=seconds: measure(e, s, name, data, args),
            )
            step = stage.sampler_.step_size
            lowered = f", step lowered to {step:.2g}" if step < 0.9 * est.step_size else ""
            print(f"{name}, batch {batch}: {stage.n_iter_} updates{lowered}", flush=True)
    except ConvergenceError as error:
        print(f"{name}, batch {batch}: {error}", flush=True)
        kept.get([name, batch, "diverged"], lambda: [float("nan")] * (len(COLUMNS) - 3))
    return kept.rows


def own_path(name: str, batch: int, kind: str, args: argparse.Namespace) -> Path:
    """Return where what was measured (csv) or drawn (npy) of a model is kept."""
    return args.output / f"sp_nets_{args.mode}_{args.updates} {name} {batch}.{kind}"


def draw(table: list[list[str]], data: Pictures, args: argparse.Namespace) -> None:
    """Samples of each model, after its last updates, beside held-out images."""
    import matplotlib.pyplot as plt

    panels = {"held-out images": data.X_test[:20]}
    last = {(name, int(batch)): updates for name, batch, updates, *_ in table if updates.isdigit()}
    for (name, batch), updates in last.items():
        rows = np.load(own_path(name, batch, "npy", args))
        panels[f"{name}, batch {batch}, {updates} updates"] = rows
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6))
    for ax in axes.flat:
        ax.axis("off")
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=False):
        ax.imshow(montage(rows, data.side, 5), cmap="gray", vmin=0, vmax=data.high)
        ax.set_title(title, fontsize=9)
    save_figure(figure, args, "sp_nets.png")


def main() -> None:
    names = [f"{name} {batch}" for name, batch in MODELS]
    args = mode(__doc__, seeds=dict.fromkeys(UPDATES, 1), only=only(names), updates=IN_STAGES)
    args.updates = args.updates or UPDATES[args.mode]
    print_title("SP section 4.2: networks and batches for MNIST", args)
    data = read_pictures("mnist_train10k", "mnist_test", {}, pool=1 if args.mode == "full" else 2)
    models = [key for key in MODELS if data.side >= 12 or key[0] != "LeNet"]
    if args.hours:
        fits = {
            f"{name}, batch {batch}": (
                lambda n=name, b=batch: estimator(n, b, data.side, args),
                data.X,
                STAGES,
            )
            for name, batch in models
            if wanted(f"{name} {batch}", args)
        }
        return print_hours(fits, args)
    table = [row for key in models for row in found(*key, data, args)]
    rows = [[*row[:3], *map(float, row[3:-1]), f"{float(row[-1]):.0f}"] for row in table]
    print(f"{data.name}: up to {args.updates} updates of {STEPS[args.mode]} steps")
    print_table(["network", "batch", "updates", "E - E held-out", *COLUMNS[4:]], rows)
    real = data.X_test.reshape(-1, data.side, data.side)
    straight = np.isin(data.y, (1, 7)).mean()
    print(
        f"held-out images: roughness {np.diff(real, axis=2).std() / real.std():.3f} (white noise "
        f"1.414); norm and distance are over theirs; {straight:.3f} of the digits are 1 or 7\n"
        "others: change of a held-out image's energy where samples take the place of the other "
        "held-out images beside it, over the spread of energies\n"
        "paper: the strided network slightly better than LeNet; with larger batches less variety, "
        "more of 1 and 7; with skip connections samples of ever smaller norm; batch normalization "
        "does not work"
    )
    if not args.only:
        draw(table, data, args)


if __name__ == "__main__":
    main()
