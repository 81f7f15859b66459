"""BB Table 1: stacked MNIST, modes that a generator finds and how evenly.

An image has one, two or three channels, each a random digit; with k channels there are 10^k modes.
A digit classifier, trained here and judged on digits that it has not seen, reads each channel of
26,000 generated images (the number in the code of the paper's baselines). "modes" is how many
numbers occur, "KL" the divergence of their shares from equal ones, nats. The first row of the table
are the training images themselves.

BB has the exact log determinant ("BB, logdet") or the paper's d log s_1. EBM-0GP, MEG, VERA and
WGAN-0GP have the same networks, rates, rows and updates; bound and entropy differ, and with them
the penalty's weight, VERA's noise and the push against folds. Of the paper's numbers beside ours
its section 5.3 does not say which its authors ran and which are quoted; DCGAN and SNGAN, which have
no counterpart here, are the last rows.

Quick mode: MNIST averaged to 14 x 14, one channel (``--channels 2`` is for two), perceptrons
thinner than those of Table 7, 16 latents, Adam (0, 0.9) with step 0.001, 6,000 updates of 64 rows.
``--mode full`` (a GPU): 28 x 28, three channels, 128 latents, the widths of Table 7, step 0.0002,
60 epochs of 60,000 images, d log s_1 by 10 iterations. ``--updates`` takes another number. Bars,
one channel: 10 modes and KL <= 0.05 in 30 minutes.

Deviations: smooth activations (SiLU) in both networks, where Table 7 states none; in pilot runs of
1,500 updates, one seed, the KL was 0.33 with leaky and parametric ReLU, 0.09 with SiLU in the
energy and 0.07 with it in both. The penalty is weighted by 0.1 / d, the paper's choice for
densities; there is no margin, and rates decay to 0. Each model has a file of its own in the output
folder, so that processes with other ``--models`` can run beside each other; ``--read`` prints what
is there. Where SKEBM_DATA is unset, scikit-learn's digits from 0 to 4 stand in.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skebm import BoundsEBM
from skebm.energies import MLP
from skebm.exceptions import ConvergenceError, GeneratorWarning
from skebm.metrics import ModeCount, mode_count
from skebm.networks import MLPGenerator

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Pictures, montage, read_pictures
from examples.papers._paper import (
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)
from examples.papers.bb._beside import OPTIONS, own_file, seeds_of, slug


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    channels: int
    n_rows: int
    latents: int
    energy: tuple[int, ...]
    generator: tuple[int, ...]
    rate: float
    max_iter: int
    n_drawn: int
    epochs: int  # of the classifier


SIZES = {
    "smoke": Size(1, 1, 300, 4, (16,), (16, 16), 1e-3, 3, 200, 5),
    "quick": Size(2, 1, 10_000, 16, (256, 128), (128, 256), 1e-3, 6000, 26_000, 20),
    "full": Size(
        *(1, 3, 60_000, 128, (2000, 1000, 500, 250, 250), (500, 1000, 2000)),  # Table 7
        *(2e-4, 56_250, 26_000, 20),
    ),
}
BB = "BB, logdet"
MODELS: dict[str, dict[str, Any]] = {
    BB: {"entropy": "logdet"},
    "BB, d log s_1": {"entropy": "singular-value"},
    "EBM-0GP": {"bound": "zero-centered-gp", "entropy": "logdet"},
    "MEG": {"bound": "zero-centered-gp", "entropy": "mutual-information"},
    "VERA": {"bound": "zero-centered-gp", "entropy": "variational"},
    "WGAN-0GP": {"bound": "wgan-0gp"},
}
PAPER = {  # modes of 1000, KL
    "BB, d log s_1": ("1000 ± 0", "0.045 ± 0.003"),
    "EBM-0GP": ("1000 ± 0", "0.039 ± 0.003"),
    "MEG": ("1000 ± 0", "0.042 ± 0.004"),
    "VERA": ("989 ± 9", "0.152 ± 0.037"),
    "WGAN-0GP": ("1000 ± 0", "0.048 ± 0.003"),
}
NOT_HERE = {"DCGAN": ("392 ± 7", "8.012 ± 0.056"), "SNGAN": ("441 ± 39", "2.755 ± 0.033")}
PENALTY = 0.1  # over the latent dimension
MOST_KL, MOST_SECONDS = 0.05, 1800
COLUMNS = ["channels", "model", "seed", "modes", "kl", "confidence", "updates", "seconds"]
KEY = 3  # columns that name a row
N_SHOWN, N_COLUMNS = 60, 10


class Task(NamedTuple):
    """Images of stacked digits, and what reads them."""

    args: argparse.Namespace
    size: Size
    data: Pictures
    X: np.ndarray  # (n, channels * side^2), from -1 to 1
    reader: MLPClassifier
    accuracy: float

    @property
    def stem(self) -> str:
        """How the names of files begin."""
        own = f"_{self.args.updates}" if self.args.updates else ""
        return f"bb_table_1_{self.args.mode}{own}_{self.size.channels}"

    @property
    def n_modes(self) -> int:
        return len(self.reader.classes_) ** self.size.channels

    def label(self, X: np.ndarray) -> np.ndarray:
        """Return the number that the digits of the channels write, (n,)."""
        digits = self.probabilities(X).argmax(2)
        return digits @ len(self.reader.classes_) ** np.arange(self.size.channels)[::-1]

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return class probabilities of each channel, (n, channels, classes)."""
        pixels = (np.clip(X, -1, 1) + 1) / 2
        found = self.reader.predict_proba(pixels.reshape(-1, self.data.side**2))
        return found.reshape(len(X), self.size.channels, -1)


def prepare(args: argparse.Namespace) -> Task:
    size = SIZES[args.mode]
    if args.channels:
        size = size._replace(
            channels=args.channels, n_rows=max(size.n_rows, 10_000 * args.channels)
        )
    data = read_pictures("mnist_train10k", "mnist_test", {}, pool=size.pool)
    reader, accuracy = classifier(data, size)
    X = 2 * stacked(data.X, size, seed=0) / data.high - 1
    return Task(args, size, data, X, reader, accuracy)


def classifier(data: Pictures, size: Size) -> tuple[MLPClassifier, float]:
    """Return a perceptron that reads digits, and its accuracy on rows that it has not seen."""
    X, T, y, t = train_test_split(data.X / data.high, data.y, test_size=0.2, random_state=0)
    reader = MLPClassifier((256,), max_iter=size.epochs, batch_size=64, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are enough
        reader.fit(X, y)
    return reader, float(reader.score(T, t))


def stacked(X: np.ndarray, size: Size, seed: int) -> np.ndarray:
    """Return rows of random digits side by side; one channel: the images themselves."""
    if size.channels == 1:
        return X[: size.n_rows]
    rows = np.random.RandomState(seed).randint(len(X), size=(size.n_rows, size.channels))
    return X[rows].reshape(size.n_rows, -1)


def estimator(name: str, seed: int, task: Task) -> BoundsEBM:
    """Return a model's estimator."""
    size = task.size
    own: dict[str, Any] = {"penalty_weight": 1.0} | MODELS[name]
    if own.get("bound", "bidirectional") == "bidirectional":
        own["penalty_weight"] = PENALTY / size.latents
    return BoundsEBM(
        energy=MLP(size.energy, n_frequencies=0, input_scale=1.0),
        generator=MLPGenerator.mnist().with_params(
            hidden_sizes=size.generator,
            activation="silu",
            latent_dim=size.latents,
            learning_rate=size.rate,
        ),
        base=None,
        refine=False,
        n_restarts=1,
        standardize=False,
        data_noise=0.0,
        validation_fraction=0,
        log_partition=None,
        learning_rate=size.rate,
        batch_size=64,
        max_iter=task.args.updates or size.max_iter,
        random_state=seed,
        **own,
    )


def counted(X: np.ndarray, task: Task) -> ModeCount:
    return mode_count(X, task.label, task.n_modes)


def one(name: str, seed: int, task: Task) -> list[float]:
    """Fit, draw, and return the numbers of a row."""
    est, start = estimator(name, seed, task), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GeneratorWarning)  # fewer latents than pixels
            est.fit(task.X)
    except ConvergenceError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return [0, *[float("nan")] * 2, 0, float("nan")]
    seconds = time.perf_counter() - start
    X = est.sample(task.size.n_drawn, random_state=seed)
    if seed == 0:
        np.save(picture_file(name, task), X[:N_SHOWN])
    found, sure = counted(X, task), float(task.probabilities(X).max(2).mean())
    print(f"{name}, seed {seed}: {seconds:.0f} s, {found.n_modes} modes", flush=True)
    return [found.n_modes, found.kl, sure, est.n_iter_, seconds]


def picture_file(name: str, task: Task) -> Path:
    """Return where a row's images are kept."""
    return task.args.output / f"{task.stem}_{slug(name)}.npy"


def print_results(results: dict[str, np.ndarray], task: Task) -> None:
    """Print Table 1, each row beside the paper's."""
    real = counted(task.X, task)
    sure = float(task.probabilities(task.X).max(2).mean())
    table = [["training images", str(real.n_modes), f"{real.kl:.3f}", f"{sure:.2f}", *["-"] * 5]]
    for name, rows in results.items():
        modes, kl, sure_of, updates, seconds = rows.T
        ends = [f"{updates.mean():.0f}", f"{seconds.mean():.0f}", len(rows)]
        cells = [mean_std(modes, 1), mean_std(kl), f"{sure_of.mean():.2f}", *ends]
        table.append([name, *cells, *PAPER.get(name, ("-", "-"))])
    for name, said in NOT_HERE.items():
        table.append([f"{name}: in the paper, not run here", *["-"] * 6, *said])
    columns = ["model", f"modes of {task.n_modes}", "KL", "confidence", "updates", "s", "seeds"]
    print_table([*columns, "paper: modes of 1000", "paper: KL"], table)
    print(
        "confidence: mean largest class probability of a channel, which falls where digits are not "
        f"recognizable. The classifier's accuracy on digits not seen: {task.accuracy:.1%}."
    )


def print_bars(results: dict[str, np.ndarray], task: Task) -> None:
    """Print the bars of one channel."""
    modes, kl, _, _, seconds = results[BB].T
    bars = {
        f"{BB}: all {task.n_modes} modes, fewest": (modes.min(), modes.min() == task.n_modes),
        f"{BB}: KL <= {MOST_KL}, largest": (kl.max(), kl.max() <= MOST_KL),
        f"{BB}: seconds <= {MOST_SECONDS}, most": (seconds.max(), seconds.max() <= MOST_SECONDS),
    }
    print()
    rows = [[name, f"{value:.3g}", "yes" if met else "NO"] for name, (value, met) in bars.items()]
    print_table(["bar, one channel", "found", "met"], rows)


def draw(names: list[str], task: Task) -> None:
    """Draw images of each model; channels side by side."""
    import matplotlib.pyplot as plt

    sheets = {"training images": task.X[:N_SHOWN]}
    for name in names:
        if picture_file(name, task).exists():
            sheets[name] = np.load(picture_file(name, task))
    figure, axes = plt.subplots(1, len(sheets), figsize=(3 * len(sheets), 2.4), squeeze=False)
    side, channels = task.data.side, task.size.channels
    for ax, (name, X) in zip(axes[0], sheets.items(), strict=True):
        digits = X.reshape(-1, side**2)
        n_columns = N_COLUMNS // channels * channels  # channels of an image in one line
        ax.imshow(montage(digits[:N_SHOWN], side, n_columns), cmap="gray", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=9)
        ax.axis("off")
    save_figure(figure, task.args, f"{task.stem}.png")


def arguments() -> argparse.Namespace:
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 1, "full": 3},
        channels={"type": int, "choices": (1, 2, 3), "help": "digits in an image (the mode's)"},
        models={"nargs": "+", "choices": list(MODELS), "help": "rows to fit or to read (all)"},
        **OPTIONS,
    )
    # VERA's noise costs seconds, however short the fit
    args.models = args.models or [m for m in MODELS if not (args.smoke and m == "VERA")]
    return args


def rows_of(name: str, task: Task) -> np.ndarray | None:
    """Return a model's rows, one for each seed; None where there are none to read."""
    kept = own_file(task.stem, [name], COLUMNS, KEY, task.args)
    if kept is None:
        return None
    channels = task.size.channels
    rows = [
        kept.get([channels, name, s], lambda s=s: one(name, s, task))
        for s in seeds_of(kept, task.args)
    ]
    return np.array([row[KEY:] for row in rows], dtype=float)


def main() -> None:
    args = arguments()
    task = prepare(args)
    print_title(f"BB Table 1: {task.data.name}, channels stacked: {task.size.channels}", args)
    if args.hours:
        return print_hours(
            {n: (lambda n=n: estimator(n, 0, task), task.X, args.seeds) for n in args.models}, args
        )
    found = {name: rows_of(name, task) for name in args.models}
    results = {name: rows for name, rows in found.items() if rows is not None}
    print_results(results, task)
    if task.size.channels == 1 and BB in results:
        print_bars(results, task)
    draw(list(results), task)


if __name__ == "__main__":
    main()
