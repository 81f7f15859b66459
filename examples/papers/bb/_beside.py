"""Fits of one table in processes beside each other, each with a file of its own."""

from __future__ import annotations

__all__ = ["OPTIONS", "own_file", "seeds_of", "slug"]

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.papers._paper import Kept

OPTIONS: dict[str, dict[str, Any]] = {
    "updates": {"type": int, "help": "updates of a fit (the mode's)"},
    "read": {"action": "store_true", "help": "fit nothing; print what the folder has"},
}


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
