"""What the scripts of SP share: work split over calls, training in stages that a clock can end."""

from __future__ import annotations

__all__ = ["SECONDS", "only", "stages", "wanted"]

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

SECONDS: dict[str, Any] = {
    "type": float,
    "default": math.inf,
    "help": "end a training at the last stage that fits in (never)",
}


def only(names: Sequence[str]) -> dict[str, Any]:
    """Return the option --only: which of `names` a call fits, so that calls can share a folder."""
    told = "fit these alone, no others and no figures; without a name: read what is there (all)"
    return {"nargs": "*", "choices": list(names), "metavar": "NAME", "help": told}


def wanted(name: str, args: argparse.Namespace) -> bool:
    """Tell whether this call fits what has this name."""
    return args.only is None or name in args.only


def stages(est: Any, X: Any, n_stages: int, seconds: float) -> Iterator[Any]:
    """Fit `n_stages` times, each going on from the one before (``warm_start=True``).

    The estimator is there to read and to save after each. None is begun that would end more than
    `seconds` after the start, if it took as long as those before.
    """
    start = time.perf_counter()
    for done in range(1, n_stages + 1):
        yield est.fit(X)
        if (time.perf_counter() - start) * (done + 1) / done > seconds:
            return
