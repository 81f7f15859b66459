"""Interleaved CPU times, a process of any source tree, its peak of memory, lines of the table."""

from __future__ import annotations

__all__ = ["Line", "Tree", "added_by_import", "compared", "interleaved", "limited"]

import json
import operator
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MEETS = {"<=": operator.le, ">=": operator.ge}
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


class Line(NamedTuple):
    """One line of the table."""

    name: str
    against: str
    ours: str
    peer: str
    ratio: str
    bar: str = "-"
    met: str = "-"


def interleaved(*functions: Callable[[], Any], n: int, loops: int = 1) -> np.ndarray:
    """Return CPU seconds of a call (n, functions); who goes first rotates, a first round warms up.

    The warm-up is left out where there is one round.
    """
    seconds = np.empty((n, len(functions)))
    for i in range(-(n > 1), n):
        for j in np.roll(range(len(functions)), i):
            start = time.process_time()
            for _ in range(loops):
                functions[j]()
            seconds[i, j] = (time.process_time() - start) / loops
    return seconds


def compared(name: str, against: str, pairs: np.ndarray, bar: str | None = None) -> Line:
    """Compare seconds (n, 2) of ours and a peer; the ratio is the median of those of the pairs.

    With a bar ``"<= r"`` or none it is ours over the peer's, with ``">= r"`` how many times as
    fast ours is.
    """
    ours, peer = (f"{value:.3g} s" for value in np.median(pairs, axis=0))
    ratios = pairs[:, 0] / pairs[:, 1]
    if bar is not None and bar.startswith(">="):
        ratios = 1 / ratios
    return _line(name, against, ours, peer, float(np.median(ratios)), bar)


def limited(name: str, value: float, unit: str, limit: float) -> Line:
    """Compare a value with a limit in its own unit."""
    return _line(name, "limit", f"{value:.3g} {unit}", f"{limit:.3g} {unit}", value / limit, "<= 1")


def _line(name: str, against: str, ours: str, peer: str, ratio: float, bar: str | None) -> Line:
    if bar is None:
        return Line(name, against, ours, peer, f"{ratio:.3g}")
    sign, value = bar.split()
    met = "yes" if MEETS[sign](ratio, float(value)) else "NO"
    return Line(name, against, ours, peer, f"{ratio:.3g}", bar, met)


class Tree:
    """A process that imports skebm from a source tree and does jobs (_jobs.py)."""

    def __init__(self, root: Path) -> None:
        root = root.resolve()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_jobs.py")), str(root)],
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.imported = self._answer()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __call__(self, job: str, *arguments: Any, **named: Any) -> Any:
        """Do a job and return its answer."""
        self._ask(job, arguments, named)
        return self._answer()

    def peak(self, job: str, *arguments: Any, **named: Any) -> tuple[Any, float]:
        """Do a job; return its answer and by how many megabytes the process grew at most."""
        before = highest = self._megabytes()
        self._ask(job, arguments, named)
        while not select.select([self.process.stdout], [], [], 0.002)[0]:
            highest = max(highest, self._megabytes())
        return self._answer(), highest - before

    def _ask(self, job: str, arguments: Sequence[Any], named: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps([job, arguments, named]) + "\n")
        self.process.stdin.flush()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise RuntimeError(f"The process ended with status {self.process.returncode}.")
        return json.loads(line)

    def _megabytes(self) -> float:
        """Return resident memory without mapped files, whose pages are the system's to drop.

        Read from outside: a thread of the process itself would wait for its interpreter. The
        process's own maximum begins with that of the process that started it.
        """
        path = Path(f"/proc/{self.process.pid}/statm")  # Linux
        if not path.exists():
            return float("nan")
        pages = path.read_text().split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE") / 1e6


def added_by_import(root: Path, n: int) -> np.ndarray:
    """Return the CPU seconds (n,) that skebm adds to the import of scikit-learn and torch."""
    code = "import time, sklearn, torch{}; print(time.process_time())"
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(root)}
    environment["PYTHONDONTWRITEBYTECODE"] = ""  # an installed package has its bytecode

    def seconds(more: str) -> float:
        command = [sys.executable, "-c", code.format(more)]
        return float(subprocess.check_output(command, env=environment, text=True))

    seconds(", skebm")
    return np.array([seconds(", skebm") - seconds("") for _ in range(n)])
