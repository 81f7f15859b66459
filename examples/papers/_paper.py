"""What the reproductions share: modes, the benchmarks' table, progress on disk, pictures."""

from __future__ import annotations

__all__ = [
    "LOSS_SPANS",
    "Kept",
    "loss_curves",
    "mean_std",
    "mode",
    "paired",
    "plus_minus",
    "print_hours",
    "print_table",
    "print_title",
    "save_figure",
    "update_seconds",
]

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[2]))
from examples.benchmarks._common import Kept, paired, plus_minus, print_table
from examples.benchmarks._common import print_title as _print_title

FEW, MOST = 1, 1000  # updates of a fit that times all but them; most that time them
LOSS_SPANS = [f"{kind}, {third}" for kind in ("sd", "SNR") for third in ("early", "middle", "late")]


def mode(doc: str, *, seeds: dict[str, int], **extra: dict[str, Any]) -> argparse.Namespace:
    """Read --mode, one of those in `seeds`, --threads, --output, --hours and extras.

    And --seeds, where a mode has several. SKEBM_SMOKE=1 means --mode smoke.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    parser.add_argument("--mode", choices=list(seeds), default="quick", help="sizes (quick)")
    parser.set_defaults(seeds=None)
    if max(seeds.values()) > 1:
        parser.add_argument("--seeds", type=int, help=f"number of seeds ({seeds})")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder of pictures")
    parser.add_argument("--hours", action="store_true", help="tell how long training would take")
    for name, settings in extra.items():
        parser.add_argument(f"--{name}", **settings)
    args = parser.parse_args()
    if os.environ.get("SKEBM_SMOKE", "0") not in ("", "0"):
        args.mode = "smoke"
    args.smoke = args.mode == "smoke"
    if args.seeds is None:
        args.seeds = seeds[args.mode]
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def print_title(title: str, args: argparse.Namespace) -> None:
    """Print what is shown, at which sizes, and on what it ran."""
    _print_title(f"{title}; mode {args.mode}", args)


def print_hours(
    fits: dict[str, tuple[Callable[[], Any], Any, int]], args: argparse.Namespace
) -> None:
    """Print how long the training of a mode would take on this machine, for ``--hours``.

    `fits` has, by name, what makes an estimator, its rows and how often it is fitted in all.
    Chains and tables after the training are not counted.
    """
    rows, total = [], 0.0
    for name, (make, X, times) in fits.items():
        updates, each = make().max_iter, update_seconds(make, X)
        hours = times * updates * each / 3600
        total += hours
        rows.append([name, updates, times, f"{1000 * each:.3g}", f"{hours:.3g}"])
        print(f"{name}: {hours:.3g} hours", flush=True)
    print_table(
        ["fit", "updates", "fits", "ms an update", "hours"],
        [*rows, ["all", *["-"] * 3, f"{total:.3g}"]],
    )


def update_seconds(make: Callable[[], Any], X: Any) -> float:
    """Return the seconds of an update, from a fit of few and one of more.

    Of so many more that they take as long as all else that a fit does.
    """
    fit_seconds(make(), X, FEW)  # what a device takes once is none of it
    rest, more = fit_seconds(make(), X, FEW), 2
    while (training := fit_seconds(make(), X, FEW + more) - rest) < rest and more < MOST:
        more *= 5
    return training / more


def fit_seconds(est: Any, X: Any, n_updates: int) -> float:
    """Return the seconds of a short fit, without files of its own left behind.

    Those of the processor where one thread does all, which no other process lengthens.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    est.set_params(max_iter=n_updates, verbose=0)
    if hasattr(est, "n_iter_no_change"):
        est.set_params(n_iter_no_change=None)  # all of them
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of training that has hardly begun
        if est.checkpoint_dir is not None:
            est.set_params(checkpoint_dir=folder)
        start = clock()
        est.fit(X)
        return clock() - start


def mean_std(values: Sequence[float], digits: int = 3) -> str:
    """Write mean and standard deviation over seeds."""
    array = np.asarray(values, dtype=float)
    spread = f" ± {array.std(ddof=1):.{digits}f}" if len(array) > 1 else ""
    return f"{array.mean():.{digits}f}{spread}"


def save_figure(figure: Any, args: argparse.Namespace, name: str) -> None:
    """Write a picture and say where."""
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")  # no label over another
    path = (args.output / name).resolve()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    print(f"wrote {path}")


def loss_curves(histories: dict[str, list[dict[str, float]]]) -> tuple[Any, list[list[str]]]:
    """Draw noise and signal of each scheme's brackets over training (HCD Figure 6).

    Return the figure and, for each bracket, the means over three thirds of the training, under
    ``LOSS_SPANS``. A point is the mean of 25 updates.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    rows = []
    for scheme, history in histories.items():
        history = [row for row in history if "loss" in row]
        updates = [row["iteration"] for row in history]
        for name in ("cd", "noise", "bank"):
            if f"{name}_bracket" not in history[0]:
                continue
            kinds = [f"{name}_bracket_std", f"{name}_bracket_snr"]
            curves = [np.array([row[kind] for row in history]) for kind in kinds]
            hybrid = f"{scheme}, from {'data' if name == 'cd' else name}"
            for ax, curve in zip(axes, curves, strict=True):
                ax.plot(updates, curve, label=hybrid if "hybrid" in scheme else scheme)
            n, third = len(updates), max(1, len(updates) // 3)
            starts = (0, (n - third) // 2, n - third)
            means = [curve[i : i + third].mean() for curve in curves for i in starts]
            rows.append([scheme, name, *(f"{value:.3g}" for value in means)])
    axes[0].set(title="A: standard deviation over rows", xlabel="update", yscale="log")
    axes[1].set(title="B: signal to noise", xlabel="update", yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return figure, rows
