"""BB Figure 3: estimates of a generator's entropy along training, beside the exact one.

A fully connected generator of images is trained by the bidirectional bound with d log s_1, the
paper's entropy. At points along the way the mean over latents of 1/2 log det J^T J, which is exact
up to the constant H(z), is compared with d log s_1 exactly and after 2 and 10 iterations of LOBPCG,
and with Hutchinson's estimate, d/2 log of the mean of |J v|^2 / d, with 1 and 16 directions.
Latents, starts and directions are the same at all points. Pixels go from -1 to 1.

The paper shows curves and says: its estimator lies above d log s_1, Hutchinson's is "reasonable
close to the ground truth but provides an upper bound", all follow "roughly the same trend". It does
not state its sizes here, nor the number of iterations; the released code for images takes 2.

Quick mode: MNIST averaged to 14 x 14, 32 latents, generator 128-256, batches of 64, 600 updates,
d log s_1 by decomposition; ``--mode full`` (a GPU): 28 x 28, 128 latents, networks of Table 7 (784
columns instead of 2352), 10,000 updates, 10 iterations. Adam (0, 0.9), step 0.001, in full mode
the paper's 0.0002. Points are kept in the output folder; a run that was stopped trains anew up to
the first one that is missing. Where SKEBM_DATA is unset, scikit-learn's digits stand in.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm import BoundsEBM
from skebm.data import torch_generator
from skebm.energies import MLP
from skebm.exceptions import GeneratorWarning
from skebm.networks import MLPGenerator, log_volume
from skebm.objectives import GeneratorEntropy, Optimization

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import read_pictures
from examples.papers._paper import (
    Kept,
    mode,
    plus_minus,
    print_hours,
    print_table,
    print_title,
    save_figure,
)


class Size(NamedTuple):
    """What a mode takes."""

    pool: int
    latents: int
    energy: tuple[int, ...]
    generator: tuple[int, ...]
    rate: float
    n_points: int
    updates: int  # between two points
    n_latents: int  # behind each mean


SIZES = {
    "smoke": Size(1, 4, (16,), (16, 16), 1e-3, 3, 2, 50),
    "quick": Size(2, 32, (256, 128), (128, 256), 1e-3, 20, 30, 512),
    "full": Size(1, 128, (2000, 1000, 500, 250, 250), (500, 1000, 2000), 2e-4, 20, 500, 512),
}
EXACT = "1/2 log det"
S1 = "d log s_1"
FEW, MANY = f"{S1}, 2 iterations", f"{S1}, 10 iterations"
PROBE, PROBES = "Hutchinson, 1", "Hutchinson, 16"
ESTIMATES: dict[str, dict[str, Any]] = {
    S1: {"method": "singular-value", "solver": "exact"},
    MANY: {"method": "singular-value", "solver": "lobpcg", "n_iter": 10},
    FEW: {"method": "singular-value", "solver": "lobpcg", "n_iter": 2},
    PROBE: {"method": "hutchinson", "n_probes": 1},
    PROBES: {"method": "hutchinson", "n_probes": 16},
}
STYLES = {EXACT: "k-", S1: "g-", MANY: "r--", FEW: "r-", PROBE: "b:", PROBES: "b-"}
SAID = {S1: "below the iterated one", FEW: "above d log s_1", PROBES: "above the truth, near"}
ROUNDING = 1e-3  # nats, of float32
FEWEST_TREND = 0.9  # correlation with the truth along training, of "roughly the same trend"
COLUMNS = ["seed", "updates", "exact", *[f"{n} {w}" for n in ESTIMATES for w in ("off", "stderr")]]
COLUMNS += ["seconds"]


class Training:
    """A generator in training; goes on when a later point is asked for."""

    def __init__(self, seed: int, args: argparse.Namespace) -> None:
        self.size, self.seed = SIZES[args.mode], seed
        data = read_pictures("mnist_train10k", "mnist_test", {}, pool=self.size.pool)
        self.name = data.name
        self.X = 2 * data.X / data.high - 1
        self.updates, self.seconds = 0, 0.0
        self.est = self.estimator(self.size.updates)

    def estimator(self, updates: int) -> BoundsEBM:
        """Return what is trained, for so many updates."""
        size = self.size
        generator = MLPGenerator.mnist().with_params(
            hidden_sizes=size.generator, latent_dim=size.latents, learning_rate=size.rate
        )
        return BoundsEBM.from_paper(
            "mnist",
            energy=MLP(size.energy, "leaky_relu", n_frequencies=0, input_scale=1.0),
            generator=generator,
            entropy=GeneratorEntropy("singular-value", fold_penalty=0.0, n_lobpcg=10),
            margin=0.0,
            optimizer=Optimization(size.rate, (0.0, 0.9), 0.0, schedule="constant"),
            standardize=False,
            data_noise=0.0,
            validation_fraction=0,
            log_partition=None,
            max_iter=updates,
            warm_start=True,
            random_state=self.seed,
        )

    def network(self, updates: int) -> torch.nn.Module:
        """Return the generator after so many updates."""
        start = time.perf_counter()
        while self.updates < updates:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GeneratorWarning)  # fewer latents than pixels
                self.est.fit(self.X)
            self.updates += self.size.updates
        self.seconds += time.perf_counter() - start
        return self.est.generator_


def point(training: Training, updates: int) -> list[float]:
    """Return the exact mean, and mean and standard error of each estimate's difference from it."""
    network = training.network(updates)
    rng = torch_generator(1000 + training.seed, training.est.density_.device)
    size = training.size
    z = torch.empty(size.n_latents, size.latents, device=rng.device).normal_(generator=rng)
    with torch.no_grad():
        exact = _volume(network, z, rng, {"method": "logdet"})
        off = [_volume(network, z, rng, how) - exact for how in ESTIMATES.values()]
    found = [v for d in off for v in (float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5))]
    print(f"seed {training.seed}, {updates} updates: {training.seconds:.0f} s", flush=True)
    return [float(exact.mean()), *found, training.seconds]


def _volume(
    network: torch.nn.Module, z: torch.Tensor, rng: torch.Generator, how: dict[str, Any]
) -> np.ndarray:
    blocks = [log_volume(network, block, rng=rng, **how) for block in z.split(64)]
    return torch.cat(blocks).double().cpu().numpy()


def curves(seed: int, kept: Kept, args: argparse.Namespace) -> np.ndarray:
    """Return the rows of one seed, (n_points, columns from "updates" on)."""
    size, training, rows = SIZES[args.mode], Training(seed, args), []
    for i in range(1, size.n_points + 1):
        updates = i * size.updates
        rows.append(kept.get([seed, updates], lambda u=updates: point(training, u))[1:])
    return np.array(rows, dtype=float)


def offset(rows: np.ndarray, name: str) -> np.ndarray:
    """Return an estimate's mean differences and their errors along training, (n_points, 2)."""
    j = 2 + 2 * list(ESTIMATES).index(name)
    return rows[:, j : j + 2]


def trend(rows: np.ndarray, name: str) -> float:
    """Return the correlation of an estimate with the truth over the points."""
    exact = rows[:, 1]
    return float(np.corrcoef(exact, exact + offset(rows, name)[:, 0])[0, 1])


def print_results(found: list[np.ndarray]) -> None:
    table = []
    for seed, rows in enumerate(found):
        for name in ESTIMATES:
            off = offset(rows, name)
            above = f"{(off[:, 0] > 0).sum()} of {len(off)}"
            ends = [plus_minus(tuple(off[i])) for i in (0, -1)]
            mean = float(off[:, 0].mean())
            table.append([seed, name, *ends, mean, above, trend(rows, name), SAID.get(name, "-")])
    columns = ["seed", "estimate", "off at first", "off at last", "mean off", "above exact"]
    print_table([*columns, "trend", "paper"], table)
    print(
        f"off: estimate minus {EXACT}, nats, mean over latents ± standard error; trend: "
        "correlation of the two along training."
    )


def print_order(found: list[np.ndarray]) -> None:
    """Print in how many points the paper's order holds."""
    together = np.concatenate(found)
    off = {name: offset(together, name)[:, 0] for name in ESTIMATES}
    statements = {
        "2 iterations above 10": off[FEW] > off[MANY],
        f"10 iterations above {S1}": off[MANY] >= off[S1] - ROUNDING,
        f"{S1} at most the truth": off[S1] <= ROUNDING,
        "2 iterations at most the truth (a bound needs it)": off[FEW] <= 0,
        "10 iterations at most the truth (a bound needs it)": off[MANY] <= 0,
        "Hutchinson, 16, above the truth": off[PROBES] > 0,
        "Hutchinson, 1, above the truth": off[PROBE] > 0,
    }
    rows = [
        [name, f"{flags.sum()} of {len(flags)}", "yes" if flags.all() else "NO"]
        for name, flags in statements.items()
    ]
    worst = min((trend(r, name), name) for r in found for name in ESTIMATES)
    label = f"all trends >= {FEWEST_TREND}; least: {worst[1]}"
    rows.append([label, f"{worst[0]:.3f}", "yes" if worst[0] >= FEWEST_TREND else "NO"])
    print()
    print_table(["statement", "points", "met"], rows)


def draw(rows: np.ndarray, args: argparse.Namespace) -> None:
    """Draw the entropies of seed 0 as the paper does."""
    import matplotlib.pyplot as plt

    prior = 0.5 * SIZES[args.mode].latents * (1 + np.log(2 * np.pi))
    figure, ax = plt.subplots(figsize=(6, 4))
    ax.plot(rows[:, 0], prior + rows[:, 1], STYLES[EXACT], label=f"exact, {EXACT}", linewidth=2)
    for name in ESTIMATES:
        ax.plot(rows[:, 0], prior + rows[:, 1] + offset(rows, name)[:, 0], STYLES[name], label=name)
    ax.set_xlabel("updates")
    ax.set_ylabel("entropy of the generator, nats")
    ax.legend(fontsize=8)
    save_figure(figure, args, "bb_figure_3.png")


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 1, "full": 3})
    print_title("BB Figure 3: entropy estimators along training", args)
    if args.hours:
        training, size = Training(0, args), SIZES[args.mode]
        whole = size.n_points * size.updates
        return print_hours(
            {training.name: (lambda: training.estimator(whole), training.X, args.seeds)}, args
        )
    kept = Kept(args.output / f"bb_figure_3_{args.mode}.csv", COLUMNS, key=2)
    found = [curves(seed, kept, args) for seed in range(args.seeds)]
    print_results(found)
    print_order(found)
    draw(found[0], args)


if __name__ == "__main__":
    main()
