"""What the scripts of SP share: work split over calls, and training in stages."""

from __future__ import annotations

__all__ = ["IN_STAGES", "STAGES", "UPDATES_HELP", "only", "stages", "wanted"]

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

STAGES = 4  # of a training, after each of which a model is looked at


def _in_stages(text: str) -> int:
    """Read a number of updates."""
    if (updates := int(text)) < STAGES or updates % STAGES:
        raise argparse.ArgumentTypeError(f"updates must be a multiple of {STAGES}, got {text}.")
    return updates


UPDATES_HELP = "updates of a training (the mode's)"
IN_STAGES: dict[str, Any] = {"type": _in_stages, "help": UPDATES_HELP}


def only(names: Sequence[str]) -> dict[str, Any]:
    """Return the option --only: which of `names` a call fits, so that calls can share a folder."""
    told = "fit these alone, no others and no figures; without a name: read what is there (all)"
    return {"nargs": "*", "choices": list(names), "metavar": "NAME", "help": told}


def wanted(name: str, args: argparse.Namespace) -> bool:
    """Tell whether this call fits what has this name."""
    return args.only is None or name in args.only


def stages(est: Any, X: Any) -> Iterator[Any]:
    """Fit `STAGES` times, each going on from the one before (``warm_start=True``).

    The estimator is there to read and to save after each.
    """
    for _ in range(STAGES):
        yield est.fit(X)
