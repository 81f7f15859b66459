"""BB Tables 2 to 4, Figures 4 and 5, in shape: convolutional generators and energies of images.

Fashion-MNIST takes the place of CIFAR-10 and ANIMEFACE: capacity usage by the anisotropy index
C_z (Table 2), quality of generated images (Table 3, sheets as in Figures 4 and 5), and -E as a
detector of other images (Table 4). BB has the paper's penalty weight for generation, 0.001 / d, or
its 0.1 / d for capacity usage and detection. EBM-0GP, MEG, VERA and WGAN-0GP differ in bound and
entropy, and with them in the penalty's weight, VERA's noise and the push against folds. The entropy
has weight 1, which is Eq. 9. "BB, released" has the settings of the released image code: entropy
weight 0.0001, no margin, Adam's eps at 1e-6 where ours is 1e-8; "VERA, 0.0001" the entropy weight
that the paper's section 5.4 states for VERA. ``--models`` chooses rows by name, among them some
that vary one thing each: the penalty's weight, the entropy's, the margin.
"slope" is how steep an energy is, which the entropy's push on the generator stands against. Found
so (docs/bounds.rst): a small C_z goes with a heavy penalty and a heavy entropy, whatever the bound,
and so do bad images; EBM-0GP with a penalty of 0.001 is BB in all but name, and with an entropy of
weight 0.01 its images are MEG's, on each of three seeds.

The paper's section 5.4 says where its numbers come from, and the last rows of Table 3 repeat it:
its authors ran WGAN-0GP, MEG, VERA and EBM-0GP with one architecture, VERA after a grid search
since they did not reach its reported quality, and DDPM by a public program; DCGAN is quoted from
StudioGAN, CoopNets, EBM-VAE, IGEBM and NCSN from their own papers.

No Inception network is downloaded. Inception score and the features behind the Fréchet distance
and F_8 and F_1/8 are those of a perceptron with one hidden layer that this script trains on the
labels: they rank the rows of a table and do not compare with the paper's numbers beside them. Nor
does C_z, which grows with the number of pixels; its ratio to the mean length does not. The first
row of Table 3 are held-out images against training images: the best that can be had.

Quick mode: 14 x 14, 16 latents, 24-12 channels, Adam (0, 0.9) with step 0.0005 and 1,500 updates of
64 rows, exact log determinant. ``--mode full`` (a GPU): 28 x 28, Table 8's networks as far as they
fit the side, 128 latents, d log s_1 by 10 iterations, Adam (0, 0.999) with step 0.00005, 100,000
updates; then the same on 2,000 color images of CIFAR-10. No margin, rates decay to 0, no flips.
``--updates`` and ``--latents`` take other numbers; BB's penalty follows the latents. Each model has
a file of its own in the output folder, so that processes with other ``--models`` can run beside
each other; ``--read`` prints what is there. Where SKEBM_DATA is unset, scikit-learn's digits 0 to 4
stand in, with 5 to 9 as other images.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm import BoundsEBM
from skebm.data import torch_generator
from skebm.datasets import constant_images, noise_images
from skebm.energies import Conv
from skebm.exceptions import ConvergenceError, GeneratorWarning
from skebm.metrics import (
    anisotropy_index,
    frechet_distance,
    inception_score,
    ood_metrics,
    prd_f_beta,
)
from skebm.networks import ConvGenerator, singular_values, value_and_jacobian
from skebm.objectives import GeneratorEntropy, Optimization

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import Features, montage, read_pictures
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
    n_train: int
    n_drawn: int  # rows that metrics see
    latents: int
    channels: tuple[int, ...]
    width: int  # of the energy
    entropy: str
    rate: float
    beta: float  # Adam's second
    max_iter: int
    epochs: int  # of the classifier
    hidden: int  # width of its layer: the features


SIZES = {
    "smoke": Size(1, 300, 100, 4, (8, 4), 2, "logdet", 5e-4, 0.9, 2, 3, 16),
    "quick": Size(2, 10_000, 5000, 16, (24, 12), 8, "logdet", 5e-4, 0.9, 1500, 20, 64),
    "full": Size(
        *(1, 60_000, 10_000, 128, (512, 256, 128, 64), 64),
        *("singular-value", 5e-5, 0.999, 100_000, 30, 128),
    ),
}
BB, BB_DENSITY, BB_RELEASED = "BB, 0.001 / d", "BB, 0.1 / d", "BB, released"
VERA_PAPER = "VERA, 0.0001"
ZERO = {"bound": "zero-centered-gp", "penalty_weight": 1.0}
LITTLE = 1e-4  # the entropy's weight in the released code, and VERA's in section 5.4
MODELS: dict[str, dict[str, Any]] = {
    BB: {},
    BB_DENSITY: {},
    BB_RELEASED: {},
    "EBM-0GP": ZERO,
    "MEG": ZERO | {"entropy": "mutual-information"},
    "VERA": ZERO | {"entropy": "variational"},
    VERA_PAPER: ZERO | {"entropy": GeneratorEntropy("variational", weight=LITTLE)},
    "WGAN-0GP": {"bound": "wgan-0gp", "penalty_weight": 1.0},
}
TABLES = list(MODELS)  # the rows of the tables; what follows varies one thing each


LESS = {"entropy": GeneratorEntropy("logdet", weight=0.01)}
MODELS |= {
    "BB, 1000 / d": {"penalty_weight": 1000.0},
    "BB, margin 1": {"margin": 1.0},
    "BB, entropy 0.01": LESS,
    "EBM-0GP, 0.01": ZERO | {"penalty_weight": 0.01},
    "EBM-0GP, 0.001": ZERO | {"penalty_weight": 0.001},  # the released code's
    "EBM-0GP, entropy 0.01": ZERO | LESS,
}
OTHERS = {"MNIST": "mnist_test", "KMNIST": "kmnist_test", "NotMNIST": "notmnist_2k"}
QUALITY = ("frechet", "inception", "f8", "f1/8")
USAGE = ("c_z", "c_z_stderr", "ratio", "turned", "sd of log s", "slope at data", "slope at own")
N_TURNED, BLOCK = 256, 32  # latents whose Jacobians are looked at, and how many at once
KEY = 3  # columns that name a row
METRICS = ("auroc", "aupr_in", "fpr80")
TABLE_2 = {  # CIFAR-10, ANIMEFACE
    BB_DENSITY: ("0.943 ± 0.019", "1.802 ± 0.135"),
    "EBM-0GP": ("1.069 ± 0.023", "3.456 ± 0.052"),
    "MEG": ("0.947 ± 0.009", "2.360 ± 0.142"),
    VERA_PAPER: ("3.969 ± 0.055", "2.293 ± 0.207"),
    "WGAN-0GP": ("1.082 ± 0.005", "2.437 ± 0.129"),
}
TABLE_3 = {  # CIFAR-10: FID, inception score, F_8, F_1/8
    BB: ("28.63", "7.45", "0.93", "0.95"),
    "EBM-0GP": ("35.42", "6.90", "0.90", "0.93"),
    "MEG": ("34.55", "6.62", "0.88", "0.92"),
    VERA_PAPER: ("66.38", "5.06", "0.58", "0.79"),
    "WGAN-0GP": ("29.31", "7.24", "0.92", "0.95"),
}
NOT_HERE = {
    "DCGAN, quoted": ("49.03", "6.64", "0.795", "0.83"),
    "CoopNets (2018a), quoted": ("36.4", "6.55", "-", "-"),
    "CoopNets (2021a), quoted": ("33.61", "-", "-", "-"),
    "EBM-VAE, quoted": ("36.2", "6.65", "-", "-"),
    "IGEBM, quoted": ("38.2", "6.78", "-", "-"),
    "NCSN, quoted": ("25.32", "8.87", "-", "-"),
    "DDPM, run by the authors": ("7.76", "9.03", "0.98", "0.99"),
}
TABLE_4 = {  # AUROC, AUPRC, FPR80: CIFAR-10 / SVHN, CIFAR-10 / CIFAR-100, ANIMEFACE / Bedroom
    BB_DENSITY: ("0.88 0.86 0.20", "0.53 0.52 0.78", "0.53 0.51 0.83"),
    "EBM-0GP": ("0.66 0.69 0.67", "0.64 0.63 0.64", "0.67 0.63 0.53"),
    "MEG": ("0.79 0.81 0.42", "0.52 0.53 0.80", "0.56 0.53 0.77"),
    VERA_PAPER: ("0.62 0.64 0.64", "0.51 0.51 0.79", "0.60 0.53 0.60"),
    "WGAN-0GP": ("0.80 0.83 0.39", "0.54 0.55 0.77", "0.51 0.48 0.72"),
}
N_SHOWN, N_COLUMNS, N_SHEETS = 60, 10, 5


class Images(NamedTuple):
    """Rows to learn, held-out rows and other kinds, all (n, channels * side^2), 0 to high."""

    name: str
    shape: tuple[int, int, int]
    high: float
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    others: dict[str, np.ndarray]


class Task(NamedTuple):
    """Images, sizes and the classifier whose features judge."""

    args: argparse.Namespace
    size: Size
    images: Images
    features: Features | None  # None where nothing is judged

    @property
    def stem(self) -> str:
        """How the names of files begin."""
        own = f"_{self.args.updates}" if self.args.updates else ""
        own += f"_{self.args.latents}_latents" if self.args.latents else ""
        return f"bb_images_{self.args.mode}{own}_{self.images.name.split()[0]}"

    @property
    def columns(self) -> list[str]:
        """What a row has."""
        first = ["images", "model", "seed", "updates", "seconds", *QUALITY, *USAGE]
        return first + [f"{name} {m}" for name in self.images.others for m in METRICS]

    @property
    def drawn(self) -> int:
        """How many images of each kind are compared."""
        return min(self.size.n_drawn, len(self.images.X))


def size_of(args: argparse.Namespace) -> Size:
    """Return the mode's sizes, with the number of latents that was asked for."""
    size = SIZES[args.mode]
    return size._replace(latents=args.latents or size.latents)


def grey(size: Size) -> Images:
    """Return Fashion-MNIST, or digits where there is no data."""
    data = read_pictures("fashion_mnist_train", "fashion_mnist_test", OTHERS, pool=size.pool)
    shape = (1, data.side, data.side)
    return Images(data.name, shape, data.high, data.X, data.y, data.X_test, data.others)


def color(size: Size) -> Images:
    """Return 2,000 images of CIFAR-10, and Fashion-MNIST padded to their size, in grey."""
    folder = Path(os.environ["SKEBM_DATA"]) / "images"
    with np.load(folder / "cifar10_train2k.npz") as file:
        X, y = file["X"].transpose(0, 3, 1, 2).reshape(-1, 3 * 32 * 32), file["y"].astype(int)
    with np.load(folder / "fashion_mnist_test.npz") as file:
        clothes = np.pad(file["X"], ((0, 0), (2, 2), (2, 2))).reshape(-1, 1024)
    X, others = X.astype(float), {"Fashion-MNIST": np.tile(clothes, 3).astype(float)}
    name = "cifar10_train2k 32 x 32"
    return Images(name, (3, 32, 32), 255.0, X[:1800], y[:1800], X[1800:], others)


def cut(images: Images, args: argparse.Namespace) -> Images:
    """Cut to the mode's size and add images without content."""
    size = size_of(args)
    n = size.n_drawn
    others = {name: X[:n] for name, X in images.others.items()}
    others["Constant"] = constant_images(n, images.shape, high=images.high, random_state=0)
    others["Noise"] = noise_images(n, images.shape, high=images.high, random_state=0)
    X, y = images.X[: size.n_train], images.y[: size.n_train]
    return images._replace(X=X, y=y, X_test=images.X_test[:n], others=others)


def prepare(images: Images, args: argparse.Namespace) -> Task:
    """Cut, and train the classifier."""
    size, images = size_of(args), cut(images, args)
    X, y = images.X, images.y
    features = Features(X, y, images.high, width=size.hidden, epochs=size.epochs)
    return Task(args, size, images, features)


class LargeEps(Optimization):
    """Adam with the eps of the released code, for energy and generator."""

    def build(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = super().build(module)
        for group in optimizer.param_groups:
            group["eps"] = 1e-6
        return optimizer


def estimator(name: str, seed: int, task: Task) -> BoundsEBM:
    """Return a model's estimator."""
    size, shape = task.size, task.images.shape
    own = {"entropy": size.entropy} | MODELS[name]
    optimizer = Optimization(size.rate, (0.0, size.beta), weight_decay=0.0)
    if name.startswith("BB"):  # the paper's weight for generation, in units of 1 / d
        weight = 0.1 if name == BB_DENSITY else own.get("penalty_weight", 0.001)
        own["penalty_weight"] = weight / size.latents
    if name == BB_RELEASED:
        own["entropy"] = GeneratorEntropy(size.entropy, weight=LITTLE)
        optimizer = LargeEps(**optimizer.get_params())
    return BoundsEBM(
        energy=Conv.dcgan(size.width, n_halvings={8: 1, 14: 1, 28: 2, 32: 3}[shape[1]]),
        generator=ConvGenerator(size.channels, latent_dim=size.latents, learning_rate=size.rate),
        image_shape=shape,
        base=None,
        refine=False,
        n_restarts=1,
        data_noise=0.0,
        validation_fraction=0,
        log_partition=None,
        optimizer=optimizer,
        batch_size=64,
        max_iter=task.args.updates or size.max_iter,
        random_state=seed,
        **own,
    )


def quality(X: np.ndarray, task: Task) -> list[float]:
    """Return Fréchet distance, inception score, F_8 and F_1/8 against the training images."""
    real = task.features(task.images.X[: len(X)])
    fake = task.features(X)
    found = prd_f_beta(real, fake, random_state=0)
    score = inception_score(task.features.probabilities(X)).value
    return [frechet_distance(real, fake), score, found.f_recall, found.f_precision]


def detection(est: BoundsEBM, task: Task) -> list[float]:
    """Return the metrics of -E against each set."""
    inside = -est.energy_samples(task.images.X_test)
    found = [ood_metrics(inside, -est.energy_samples(X)) for X in task.images.others.values()]
    return [metrics[m] for metrics in found for m in METRICS]


def slopes(est: BoundsEBM, X: np.ndarray, task: Task) -> float:
    """Return the root mean square of |grad E|, nats per unit where pixels go from -1 to 1."""
    gradient = est.score_function(X) * task.images.high / 2
    return float(np.sqrt((gradient**2).sum(1).mean()))


def evenness(est: BoundsEBM, seed: int) -> list[float]:
    """Return what depends on the latent axes in C_z, and what does not, means over latents.

    First the ratio of `anisotropy_index` where the axes are turned at random, (n, d, d); then the
    standard deviation of the logarithms of J's singular values.
    """
    device, d = est.density_.device, est.latent_dim_
    rng = torch_generator(seed)
    z = torch.empty(N_TURNED, d).normal_(generator=rng).to(device)
    turns = torch.linalg.qr(torch.empty(N_TURNED, d, d).normal_(generator=rng)).Q
    with torch.no_grad():
        blocks = [value_and_jacobian(est.generator_, block)[1].cpu() for block in z.split(BLOCK)]
    jacobian = torch.cat(blocks)
    lengths = (jacobian @ turns).norm(dim=1)
    ratio = lengths.std(1, correction=0) / lengths.mean(1)
    return [float(ratio.mean()), float(singular_values(jacobian).log().std(1).mean())]


def one(name: str, seed: int, task: Task) -> list[float]:
    """Fit, draw, and return the numbers of a row."""
    est, start = estimator(name, seed, task), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GeneratorWarning)  # fewer latents than pixels
            est.fit(task.images.X)
    except ConvergenceError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return [0] + [float("nan")] * (len(task.columns) - 4)
    seconds = time.process_time() - start
    X = est.sample(task.drawn, random_state=seed)
    if seed == 0:
        np.save(picture_file(name, task), X[:N_SHOWN])
    index = anisotropy_index(est, random_state=seed, n_samples=50 if task.args.smoke else 1000)
    usage = [index.value, index.stderr, index.ratio, *evenness(est, seed)]
    usage += [slopes(est, rows[: task.drawn], task) for rows in (task.images.X_test, X)]
    print(f"{task.images.name}, {name}, seed {seed}: {seconds:.0f} s", flush=True)
    return [est.n_iter_, seconds, *quality(X, task), *usage, *detection(est, task)]


def picture_file(name: str, task: Task) -> Path:
    """Return where a row's images are kept."""
    return task.args.output / f"{task.stem}_{slug(name)}.npy"


def columns_of(rows: np.ndarray, task: Task, names: tuple[str, ...]) -> list[np.ndarray]:
    """Return columns of the kept rows by name."""
    places = [task.columns.index(name) - KEY for name in names]
    return [rows[:, j] for j in places]


def print_table_2(results: dict[str, np.ndarray], task: Task) -> None:
    print("\nTable 2, capacity usage")
    table = []
    for name, rows in results.items():
        c_z, stderr, *others, at_data, at_own = columns_of(rows, task, USAGE)
        cells = [mean_std(c_z), f"{stderr.mean():.3f}", *map(mean_std, others)]
        cells += [f"{values.mean():.3g}" for values in (at_data, at_own)]
        table.append([name, *cells, len(rows), *TABLE_2.get(name, ("-", "-"))])
    columns = ["model", "C_z", "stderr of a fit", *USAGE[2:], "seeds"]
    print_table([*columns, "paper: CIFAR-10", "paper: ANIMEFACE"], table)
    print(
        "ratio: C_z over the mean length of a column of J; turned: that with latent axes turned "
        "at random, which changes no bound and no density; s: singular values of J; slope: root "
        "mean square of |grad E|, at held-out images and at the generator's, pixels from -1 to 1."
    )


def print_table_3(results: dict[str, np.ndarray], task: Task) -> None:
    print("\nTable 3, quality by features of the script's own classifier")
    held_out = task.images.X_test[: task.drawn]
    best = [f"{value:.3f}" for value in quality(held_out, task)]
    table = [["held-out images", *best, *["-"] * 7]]
    for name, rows in results.items():
        cells = [mean_std(values) for values in columns_of(rows, task, QUALITY)]
        updates, seconds = (rows[:, i].mean() for i in (0, 1))
        cells += [f"{updates:.0f}", f"{seconds:.0f}", len(rows)]
        table.append([name, *cells, *TABLE_3.get(name, ["-"] * 4)])
    for name, said in NOT_HERE.items():
        table.append([f"{name}; not run here", *["-"] * 7, *said])
    columns = ["model", "Fréchet", "inception", "F_8", "F_1/8", "updates", "CPU s", "seeds"]
    print_table([*columns, "paper: FID", "IS", "F_8", "F_1/8"], table)


def print_table_4(results: dict[str, np.ndarray], task: Task) -> None:
    print("\nTable 4, -E as a detector: AUROC, AUPR (of images like the training's), FPR80")
    table = []
    for name, rows in results.items():
        cells = []
        for other in task.images.others:
            found = columns_of(rows, task, tuple(f"{other} {metric}" for metric in METRICS))
            cells.append(" ".join(f"{values.mean():.2f}" for values in found))
        table.append([name, *cells, len(rows), *TABLE_4.get(name, ["-"] * 3)])
    columns = ["model", *task.images.others, "seeds", "paper: CIFAR-10 / SVHN"]
    print_table([*columns, "CIFAR-10 / CIFAR-100", "ANIMEFACE / Bedroom"], table)


def print_by_seed(results: dict[str, np.ndarray], task: Task) -> None:
    """Print what the verdicts rest on, seed by seed: seeds differ more than bounds do."""
    shown = {"Fréchet": "frechet", "ratio": "ratio"}
    n_seeds = max(len(rows) for rows in results.values())
    table = []
    for name, rows in results.items():
        cells = [name]
        for values in columns_of(rows, task, tuple(shown.values())):
            cells += [*(f"{value:.3f}" for value in values), *["-"] * (n_seeds - len(values))]
        table.append(cells)
    print("\nSeed by seed")
    print_table(["model", *[f"{name}, {s}" for name in shown for s in range(n_seeds)]], table)


def print_statements(results: dict[str, np.ndarray], task: Task) -> None:
    """Print which of the paper's findings hold on these images."""
    ratio = {n: columns_of(rows, task, ("ratio",))[0].mean() for n, rows in results.items()}
    frechet = {n: columns_of(rows, task, ("frechet",))[0].mean() for n, rows in results.items()}
    rivals = [name for name in results if not name.startswith("BB")]
    energies = [name for name in rivals if name != "WGAN-0GP"]
    usage_gap = min(ratio[name] for name in rivals) - ratio[BB_DENSITY]
    quality_gap = min(frechet[name] for name in energies) - frechet[BB]
    gaps = {
        f"least C_z over mean length: {BB_DENSITY}": usage_gap,
        f"least Fréchet distance of the energies: {BB}": quality_gap,
    }
    rows = [[name, gap, "yes" if gap > 0 else "NO"] for name, gap in gaps.items()]
    print()
    print_table(["the paper's finding", "ahead by", "met"], rows)


def draw(names: list[str], task: Task) -> None:
    """Draw training images beside generated ones."""
    import matplotlib.pyplot as plt

    sheets = {"training images": task.images.X[:N_SHOWN]}
    for name in names:
        if picture_file(name, task).exists():
            sheets[name] = np.load(picture_file(name, task))
    shape = (-(-len(sheets) // N_SHEETS), min(len(sheets), N_SHEETS))
    size = (3 * shape[1], 2.2 * shape[0])
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, X) in zip(axes.flat, sheets.items(), strict=False):
        ax.imshow(sheet(X, task.images), cmap="gray", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
    save_figure(figure, task.args, f"{task.stem}.png")


def sheet(X: np.ndarray, images: Images) -> np.ndarray:
    """Return images side by side, (h, w) or (h, w, 3), from 0 to 1; white between them."""
    channels, side, _ = images.shape
    pixels = np.clip(X / images.high, 0, 1).reshape(len(X), channels, -1)
    planes = [montage(pixels[:, c], side, N_COLUMNS) for c in range(channels)]
    return np.nan_to_num(np.stack(planes, -1), nan=1.0).squeeze()


def run(images: Images, args: argparse.Namespace) -> None:
    """Fit every model to one kind of images and print the tables."""
    task, results = prepare(images, args), {}
    for name in args.models:
        kept = own_file(task.stem, [name], task.columns, KEY, args)
        if kept is None:
            continue
        rows = [
            kept.get([images.name, name, s], lambda n=name, s=s: one(n, s, task))[KEY:]
            for s in seeds_of(kept, args)
        ]
        results[name] = np.array(rows, dtype=float)
    T, labels = task.images.X, task.images.y
    right = float((task.features.probabilities(T).argmax(1) == labels).mean())
    print(f"\n{images.name}: the classifier reads {right:.1%} of its training images")
    print_table_2(results, task)
    print_table_3(results, task)
    print_table_4(results, task)
    if any(len(rows) > 1 for rows in results.values()):
        print_by_seed(results, task)
    if set(TABLES) <= set(results):
        print_statements({name: results[name] for name in TABLES}, task)
    draw(list(results), task)


def arguments() -> argparse.Namespace:
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 1, "full": 3},
        models={"nargs": "+", "choices": list(MODELS), "help": "rows to fit, or to read (tables)"},
        latents={"type": int, "help": "latent dimension (the mode's)"},
        **OPTIONS,
    )
    args.models = args.models or (list(MODELS) if args.read else TABLES)
    return args


def kinds(args: argparse.Namespace) -> list[Images]:
    found = [grey(SIZES[args.mode])]
    if args.mode == "full" and "SKEBM_DATA" in os.environ:
        found.append(color(SIZES[args.mode]))
    return found


def main() -> None:
    args = arguments()
    print_title("BB Tables 2 to 4: images", args)
    if args.hours:
        tasks = [Task(args, size_of(args), cut(images, args), None) for images in kinds(args)]
        return print_hours(
            {
                f"{task.images.name}, {name}": (
                    lambda n=name, t=task: estimator(n, 0, t),
                    task.images.X,
                    args.seeds,
                )
                for task in tasks
                for name in args.models
            },
            args,
        )
    for images in kinds(args):
        run(images, args)


if __name__ == "__main__":
    main()
