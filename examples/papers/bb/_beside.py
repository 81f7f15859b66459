"""Fits of one table in processes beside each other: files of their own, time of their own."""

from __future__ import annotations

__all__ = ["OPTIONS", "own_file", "seeds_of", "slug", "updates_within"]

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.papers._paper import Kept, fit_seconds
from skebm import BoundsEBM

OPTIONS: dict[str, dict[str, Any]] = {
    "updates": {"type": int, "help": "updates of a fit (the mode's)"},
    "seconds": {"type": float, "help": "of a fit: so many updates as that allows, at most those"},
    "read": {"action": "store_true", "help": "fit nothing; print what the folder has"},
}
FEW, TOLD = 5, 0.04  # updates; share of the time that tells how long an update takes


def slug(*names: str) -> str:
    """Return names as a part of a file's name."""
    return "_".join(names).replace(",", "").replace(" ", "_").replace("/", "over")


def own_file(
    stem: str, names: Sequence[str], columns: Sequence[str], key: int, args: argparse.Namespace
) -> Kept | None:
    """Return the rows of a model, from a file that no other process writes; None: none to read."""
    path: Path = args.output / f"{stem}_{slug(*names)}.csv"
    return None if args.read and not path.exists() else Kept(path, columns, key)


def seeds_of(kept: Kept, args: argparse.Namespace) -> list[int]:
    """Return the seeds of a table: with ``--read`` those that are there."""
    if not args.read:
        return list(range(args.seeds))
    return sorted(int(row[kept.key - 1]) for row in kept.rows)[: args.seeds]


def updates_within(make: Callable[[], BoundsEBM], X: Any, most: int, seconds: float | None) -> int:
    """Return how many updates a fit makes in so many seconds of the clock, at most `most`.

    Ever longer fits are timed beside one of a few updates, until the training takes `TOLD` of it.
    """
    if seconds is None:
        return most
    fit_seconds(make(), X, FEW)  # a device takes its time at first
    rest, n = fit_seconds(make(), X, FEW), 4 * FEW
    while (training := fit_seconds(make(), X, n) - rest) < TOLD * seconds and n < most:
        n *= 4
    each = max(training, 1e-3) / (n - FEW)
    return max(1, min(most, int((seconds - rest) / each)))
