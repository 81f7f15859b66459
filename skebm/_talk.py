"""What a fit says while it runs: lines to the log named skebm, and to the screen if asked."""

from __future__ import annotations

__all__ = ["LINES", "Phases", "log"]

import logging
import time

log = logging.getLogger("skebm")
log.addHandler(logging.NullHandler())
LINES = 2  # the level of ``verbose`` from which on lines are printed


class Phases:
    """Names and times of the parts of a fit.

    Parameters
    ----------
    verbose : int
        Lines are printed from 2 on; the log gets them anyhow, at level INFO.
    """

    def __init__(self, verbose: int) -> None:
        self.verbose, self.since = int(verbose), time.perf_counter()

    def done(self, name: str, found: object = "") -> None:
        """Say that a part is done, what it found, and how long it took."""
        now = time.perf_counter()
        line = f"{name}: {found} " if f"{found}" else f"{name}: "
        self.say(f"{line}({now - self.since:.1f} s)")
        self.since = now

    def say(self, line: str) -> None:
        """Log a line, and print it from level 2 on."""
        log.info(line)
        if self.verbose >= LINES:
            print(line, flush=True)
