"""Fits of one table in processes beside each other: files of their own, time of their own."""

from __future__ import annotations

__all__ = ["OPTIONS", "own_file", "slug", "updates_within"]

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
TIMED = (3, 23)  # updates


def slug(*names: str) -> str:
    """Return names as a part of a file's name."""
    return "_".join(names).replace(",", "").replace(" ", "_").replace("/", "over")


def own_file(
    stem: str, names: Sequence[str], columns: Sequence[str], key: int, args: argparse.Namespace
) -> Kept | None:
    """Return the rows of a model, from a file that no other process writes; None: none to read."""
    path: Path = args.output / f"{stem}_{slug(*names)}.csv"
    return None if args.read and not path.exists() else Kept(path, columns, key)


def updates_within(make: Callable[[], BoundsEBM], X: Any, most: int, seconds: float | None) -> int:
    """Return how many updates a fit makes in so many seconds of the clock, at most `most`.

    The time of an update is that of 20, as the difference of two short fits.
    """
    if seconds is None:
        return most
    fit_seconds(make(), X, TIMED[0])  # a device takes its time at first
    few, more = (fit_seconds(make(), X, n) for n in TIMED)
    each = max((more - few) / (TIMED[1] - TIMED[0]), 1e-6)
    return max(1, min(most, int((seconds - few) / each)))
