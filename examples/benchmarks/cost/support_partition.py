"""Updates by uniform support partitioning take time about linear in the points, in bounded memory.

Time per update of PartitionLikelihood with 5,000 to 50,000 points, the sizes interleaved in rounds:
"ps-usp" in 2 columns moves 200 points 10 times, in 784 columns 125 points 10 times beside 125 that
rest and sums over 625; "usp" in 2 columns moves all of them twice. In 2 columns the points start
uniformly in the box and epsilon falls as n^(-1/2), so that they are as crowded at every size.
Exponent: of the time in n, from the median over rounds of the ratio of the largest size to the
smallest. Peak: resident memory of a new process that imports skebm and fits USPDensity with the
most points to 2,000 rows for 5 updates. Bars: exponent at most 1.2, and less than 2,000 MB with
50,000 points in 784 columns.

The last rows have no bar: neighbors from a k-d tree beside those from all distances in blocks, and
plain beside "knn" weights on six modes, where points start at rows and a small epsilon leaves them
about as dense as the data. KL(truth || model) on a grid and the least and the most mass of a mode
(1/6 each in truth), means over seeds.

Run: python examples/benchmarks/cost/support_partition.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm import EnergyDensity, USPDensity
from skebm.bases import Uniform
from skebm.datasets import six_modes
from skebm.energies import MLP, Conv, Model, build_energy
from skebm.exceptions import SupportWarning
from skebm.metrics import grid_kl, mode_masses
from skebm.objectives import PartitionLikelihood
from skebm.samplers import SupportPartition
from skebm.samplers.support_partition import _push_by_distances, _push_by_tree, _tree

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, print_table, print_title, yes

SIZES = (5_000, 10_000, 20_000, 50_000)
LARGEST_EXPONENT = 1.2
MOST_MEGABYTES = 2_000  # at 50,000 points of 784 columns
CROWDING = 0.5  # n epsilon^2 / area; 1.155 is the densest packing
SIDE = 28  # pixels
UNEVEN_EPSILON = 0.01  # standardized units; some hundredth of a mode's width


class Setting(NamedTuple):
    """One way to move points."""

    method: str
    n_columns: int
    n_active: int | None
    n_neighbors: int | str | None
    n_inner: int
    n_integration: int | None = None
    batch_size: int = 256

    def epsilon(self, n: int, area: float) -> float | str:
        return (CROWDING * area / n) ** 0.5 if self.n_columns == 2 else "auto"


SETTINGS = (
    Setting("ps-usp", 2, 200, "auto", 10),
    Setting("usp", 2, None, None, 2),
    Setting("ps-usp", SIDE**2, 125, 125, 10, 625, 125),
)


def uniform_rows(n: int, d: int) -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, (n, d))


def stepper(setting: Setting, n: int) -> Callable[[], Any]:
    """Return a function that makes one update with n points."""
    rng = torch.Generator().manual_seed(0)
    x = torch.from_numpy(uniform_rows(2_000, setting.n_columns)).float()
    base = Uniform().fit(x, None, rng)
    component, shape = (MLP(), (2,)) if setting.n_columns == 2 else (Conv(), (1, SIDE, SIDE))
    energy = build_energy(component, {}, shape, rng)
    model = Model(energy, base, 1.0)
    area = float((base.high - base.low)[:2].prod())
    partition = SupportPartition(
        setting.epsilon(n, area), setting.n_active, setting.n_neighbors, setting.n_inner
    )
    start = "uniform" if setting.n_columns == 2 else "data"
    objective = PartitionLikelihood(n, partition, n_integration=setting.n_integration, start=start)
    state = objective.init(model, x, rng)

    def draw() -> torch.Tensor:
        return x[torch.randint(len(x), (setting.batch_size,), generator=rng)]

    return lambda: objective.step(model, state, draw, rng)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(functions: list[Callable[[], Any]], n_rounds: int) -> np.ndarray:
    """Return seconds (n_rounds, functions) after one call of each; every other round runs back."""
    for function in functions:
        function()
    times = np.empty((n_rounds, len(functions)))
    for i in range(n_rounds):
        order = range(len(functions))
        for j in order if i % 2 else reversed(order):
            times[i, j] = seconds(functions[j])
    return times


def peak_megabytes(setting: Setting, n: int, smoke: bool) -> float:
    """Return the peak resident memory of a process that fits USPDensity with n points."""
    numbers = [str(SETTINGS.index(setting)), str(n), str(int(smoke))]
    command = [sys.executable, __file__, "--peak", *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def fit_and_print_peak(setting: Setting, n: int, smoke: bool) -> None:
    """Fit a few updates; print the peak resident memory of this process, MB."""
    warnings.simplefilter("ignore", SupportWarning)
    images = setting.n_columns != 2
    est = USPDensity(
        method=setting.method,
        n_points=n,
        repulsion=SupportPartition(
            n_active=setting.n_active or n,
            n_neighbors=setting.n_neighbors,
            n_inner=setting.n_inner,
        ),
        epsilon="auto" if images else setting.epsilon(n, 27.0),  # standardized, the box is 27 large
        batch_size=setting.batch_size,
        n_integration=setting.n_integration,
        init="data" if images else "uniform",
        energy="conv" if images else "mlp",
        image_shape=(1, SIDE, SIDE) if images else None,
        base="uniform",
        log_partition="importance" if smoke else "auto",
        max_iter=5,
        random_state=0,
    )
    est.fit(uniform_rows(2_000, setting.n_columns))
    unit = 1e6 if sys.platform == "darwin" else 1e3  # macOS counts bytes, Linux kilobytes
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def scaling(setting: Setting, sizes: tuple[int, ...], n_rounds: int, peak: float) -> list[list]:
    """Return one row per size; the largest carries the peak (MB) and the verdict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SupportWarning)  # random images cannot be covered
        times = interleaved([stepper(setting, n) for n in sizes], n_rounds)
    ratio = float(np.median(times[:, -1] / times[:, 0]))
    exponent = float(np.log(ratio) / np.log(sizes[-1] / sizes[0]))
    rows = [
        [setting.method, setting.n_columns, n, f"{1e3 * t:.0f}", "", "", "", "-", "-"]
        for n, t in zip(sizes, np.median(times, 0), strict=True)
    ]
    bar, met = f"<= {LARGEST_EXPONENT}", exponent <= LARGEST_EXPONENT
    if setting.n_columns != 2:
        bar, met = f"{bar}, < {MOST_MEGABYTES} MB", met and peak < MOST_MEGABYTES
    rows[-1][4:] = [f"{exponent:.2f}", f"{peak:.0f}", "", bar, yes(met)]
    return rows


def tree_and_blocks(n: int, n_rounds: int) -> list[list]:
    """Compare the two searches for points within epsilon, all points of all, in 2 columns."""
    v = torch.from_numpy(uniform_rows(n, 2)).float()
    epsilon = (CROWDING * 4.0 / n) ** 0.5
    searches = [
        lambda: _push_by_tree(v, _tree(v), v, epsilon, own=True),
        lambda: _push_by_distances(v, v, epsilon),
    ]
    times = interleaved(searches, n_rounds)
    ratio = np.median(times[:, 1] / times[:, 0])
    tree, blocks = (f"{1e3 * t:.1f} ms" for t in np.median(times, 0))
    result = f"tree {tree}, all distances {blocks}: {ratio:.1f} times as long"
    return [["one search", 2, n, "", "", "", result, "-", "-"]]


def uneven(weights: str, n: int, seeds: int, smoke: bool) -> list:
    """Fit six modes from points that stay about as dense as the data."""
    density, results = six_modes(), []
    X_train = density.sample(500 if smoke else 5_000, random_state=0)
    reach = float(np.abs(density.means).max()) + 6 * float(density.scales.max())
    domain = np.full(2, -reach), np.full(2, reach)
    for seed in range(seeds):
        points = SupportPartition(UNEVEN_EPSILON, n_active=200, n_inner=10)
        est = EnergyDensity(
            objective=PartitionLikelihood(n, points, weights=weights),
            base="uniform",
            learning_rate=8e-3,
            max_iter=20 if smoke else 150,
            log_partition="importance" if smoke else "auto",
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est.fit(X_train)
        kl = grid_kl(density.log_density, est.score_samples, domain, 50 if smoke else 200).kl
        masses = mode_masses(est.sample(len(X_train), random_state=seed), density.means).masses
        results.append([kl, masses.min(), masses.max(), est.history_[-1]["ess_share"]])
    kl, low, high, share = np.mean(results, 0)
    result = f"KL {kl:.3f} nats, masses {low:.2f} to {high:.2f}, ess / n {share:.2f}"
    return [f"weights {weights}", 2, n, "", "", "", result, "-", "-"]


def peak_only() -> bool:
    """Serve `peak_megabytes` where this process was started by it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peak", nargs=3, type=int)
    numbers = parser.parse_known_args()[0].peak
    if numbers:
        fit_and_print_peak(SETTINGS[numbers[0]], numbers[1], bool(numbers[2]))
    return bool(numbers)


def main() -> None:
    args = parse(__doc__, seeds=2)
    print_title("cost of uniform support partitioning", args)
    sizes, n_rounds = ((200, 2_000), 2) if args.smoke else (SIZES, 7)
    settings = SETTINGS[:1] if args.smoke else SETTINGS
    # first of all: a child's peak counts what this process held when it was started
    peaks = [peak_megabytes(each, sizes[-1], args.smoke) for each in settings]
    rows = []
    for each, peak in zip(settings, peaks, strict=True):
        rows += scaling(each, sizes, n_rounds, peak)
    rows += tree_and_blocks(sizes[0], n_rounds)
    rows += [uneven(weights, sizes[0], args.seeds, args.smoke) for weights in ("plain", "knn")]
    columns = ["setting", "columns", "points", "ms / update", "exponent", "peak MB", "result"]
    print_table([*columns, "bar", "met"], rows)


if __name__ == "__main__":
    if not peak_only():
        main()
