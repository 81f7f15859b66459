"""What the benchmarks share: options, the machine, one table, paired differences, kept results."""

from __future__ import annotations

__all__ = [
    "Kept",
    "base_log_density",
    "fingerprint",
    "fit_timed",
    "not_worse",
    "paired",
    "parse",
    "plus_minus",
    "print_table",
    "print_title",
    "yes",
]

import argparse
import csv
import os
import platform
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

WORSE = 0.02  # nats by which a model may fall below its base, if that is more than 2 stderr


def parse(
    doc: str, *, seeds: int | None = None, threads: int = 1, **extra: dict
) -> argparse.Namespace:
    """Read --threads, --smoke and, where a script has them, --seeds.

    SKEBM_SMOKE=1 in the environment means --smoke too.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=None, help=f"number of seeds ({seeds})")
    parser.add_argument("--threads", type=int, default=threads, help=f"torch threads ({threads})")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    for name, settings in extra.items():
        parser.add_argument(f"--{name}", **settings)
    args = parser.parse_args()
    args.smoke = args.smoke or os.environ.get("SKEBM_SMOKE", "0") not in ("", "0")
    if seeds is not None and args.seeds is None:
        args.seeds = 1 if args.smoke else seeds
    torch.set_num_threads(args.threads)
    return args


def print_title(title: str, args: argparse.Namespace) -> None:
    """Print what is shown, and on what it ran."""
    print(title + (" [smoke: sizes are too small for the bars]" if args.smoke else ""))
    name = platform.processor() or platform.machine()
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()}; {name}"
    seeds = ""
    if "seeds" in args:
        seeds = "seeds 0; " if args.seeds == 1 else f"seeds 0-{args.seeds - 1}; "
    print(
        f"{seeds}{torch.get_num_threads()} torch threads; {name}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        flush=True,
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their columns; floats get three digits after the point."""
    cells = [list(columns), *[[_text(value) for value in row] for row in rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(columns))]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def paired(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard error of paired differences."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def plus_minus(mean_and_stderr: tuple[float, float], sign: str = "+") -> str:
    """Write a mean with its standard error."""
    mean, stderr = mean_and_stderr
    return f"{mean:{sign}.3f} ± {stderr:.3f}"


def not_worse(mean: float, stderr: float) -> bool:
    """Tell whether a model is as good as its base, up to 0.02 nats or 2 standard errors."""
    return mean >= -max(WORSE, 2 * stderr)


def yes(flag: bool) -> str:
    """Write whether a bar is met."""
    return "yes" if flag else "NO"


def base_log_density(est: Any, X: np.ndarray) -> np.ndarray:
    """Return the log density of a fitted estimator's base alone, nats, units of X.

    From ``log p = log p0 - E/T - log Z``, all of it public.
    """
    return (
        est.score_samples(X) + est.energy_samples(X) / est.temperature_ + est.log_partition_.value
    )


def fit_timed(est: Any, X: np.ndarray) -> tuple[float, str]:
    """Fit; return the seconds and the names of the warnings."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est.fit(X)
    names = sorted({w.category.__name__ for w in caught})
    return time.perf_counter() - start, ", ".join(names) or "-"


def fingerprint(est: Any) -> str:
    """Return eight digits that change with any parameter but the seed."""
    parameters = {k: v for k, v in est.get_params().items() if k != "random_state"}
    return f"{zlib.crc32(repr(sorted(parameters.items())).encode()):08x}"


class Kept:
    """Rows of results in a CSV file, so that a run that was stopped goes on where it was."""

    def __init__(self, path: Path, columns: Sequence[str], key: int) -> None:
        self.path, self.columns, self.key = path, list(columns), key
        self.rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="") as file:
                header, *rows = list(csv.reader(file))
            self.rows = rows if header == self.columns else []

    def get(self, key: Sequence[Any], compute: Callable[[], Sequence[Any]]) -> list[str]:
        """Return the row that starts with `key`, computed now if it is not there yet."""
        text = [str(k) for k in key]
        for row in self.rows:
            if row[: self.key] == text:
                return row
        values = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in compute()]
        self.rows.append(text + values)
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([self.columns, *self.rows])
        return self.rows[-1]
