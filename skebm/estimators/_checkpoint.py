"""Where an interrupted fit is found again."""

from __future__ import annotations

__all__ = ["Checkpoint"]

import json
import marshal
import os
import pickle
import types
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import torch

from skebm._components import Component, check_random_state
from skebm._ranks import rank
from skebm._warn import warn
from skebm.bases import Base
from skebm.exceptions import CheckpointWarning
from skebm.fitted.pack import pack, unpack
from skebm.train.checkpoint import read_checkpoint, set_aside, write_checkpoint

if TYPE_CHECKING:
    from filelock import FileLock

IGNORED = ("checkpoint_dir", "verbose", "warm_start")  # they change no number


class Checkpoint:
    """The seed of a fit, and the files of its base and of the states of its training.

    Attributes
    ----------
    seed : int
        Of the fit.
    path : Path or None
        What its files' names are made of; None, as on all ranks but the first, writes none.
    """

    def __init__(self, estimator: Any, X: np.ndarray, weight: np.ndarray | None) -> None:
        state = estimator.random_state
        self.seedless = state is None  # then only an unfinished fit is taken over
        self.path: Path | None = None
        self._lock: FileLock | None = None
        self._n_bases = 0
        # before the draw, which would advance it
        about = {
            k: _plain(v) for k, v in estimator.get_params(deep=False).items() if k not in IGNORED
        }
        if self.seedless:
            self.seed = int(np.random.SeedSequence().generate_state(1)[0])
        else:
            self.seed = int(check_random_state(state).randint(np.iinfo(np.int32).max))
        if estimator.checkpoint_dir is not None and rank() == 0:
            folder = Path(estimator.checkpoint_dir)
            folder.mkdir(parents=True, exist_ok=True)
            key = joblib.hash([type(estimator).__name__, about, X, weight])
            self._open(folder, f"skebm-{key[:16]}")

    def _open(self, folder: Path, stem: str) -> None:
        """Choose the files: none that another fit, of this or another process, is writing."""
        seeds = [self.seed]
        if self.seedless:  # the latest unfinished fit that nobody is at
            found = sorted(folder.glob(f"{stem}-*.pt"), key=_age)
            seeds = [int(file.name.split("-")[2].split(".")[0]) for file in found] + seeds
        for seed in dict.fromkeys(seeds):
            path = folder / f"{stem}-{seed}.pt"
            if self._take(path.with_suffix(".lock")):
                self.seed, self.path = seed, path
                return
        warn(
            f"checkpoint_dir must be the folder of one fit of these parameters, rows and seed at "
            f"a time, got {str(folder)!r}, where another is running. This one writes no "
            "checkpoint; give it another folder or random_state.",
            CheckpointWarning,
        )

    def _take(self, path: Path) -> bool:
        """Whether nobody else holds a lock; those of dead processes do not count."""
        from filelock import FileLock, Timeout

        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._lock = lock
        return True

    def phase(self, i: int) -> Path | None:
        """Return the file of the i-th phase of training."""
        return None if self.path is None else self.path.with_suffix(f".{i}.pt")

    def base(self, fit: Callable[[], Base], rng: torch.Generator) -> Base:
        """Return a base from its file, with the random state after its fit; else fit it."""
        if self.path is None:
            return fit()
        path = self.path.with_suffix(f".base{self._n_bases}.pt")
        self._n_bases += 1
        saved = read_checkpoint(path, rng.device)
        if saved is not None:
            try:
                base = unpack(json.loads(saved["header"]), saved["tensors"])
                rng.set_state(saved["rng"].cpu())
                return base
            except Exception as error:
                set_aside(path, error)
        base = fit()
        try:
            header, tensors = pack(base)
        except TypeError:
            return base  # of the user's own
        values = {"header": json.dumps(header), "tensors": tensors, "rng": rng.get_state()}
        write_checkpoint(path, values)
        return base

    def close(self) -> None:
        """Forget a finished fit without a seed: the next one is to be another."""
        if self.path is not None and self.seedless:
            for file in self.path.parent.glob(f"{self.path.stem}.*.pt"):
                file.unlink(missing_ok=True)

    def release(self) -> None:
        """Let others have the files."""
        if self._lock is not None:
            with suppress(OSError):  # Windows removes no open file
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None


def _age(file: Path) -> float:
    """Return minus the time of the last change; a file that another fit removed is old."""
    try:
        return -os.path.getmtime(file)
    except OSError:
        return 0.0


def _plain(value: Any) -> Any:
    """Return what tells a parameter apart, in another process too."""
    if isinstance(value, Component):
        params = value.get_params(deep=False)
        return [type(value).__qualname__, {k: _plain(v) for k, v in params.items()}]
    if isinstance(value, np.random.RandomState):
        return joblib.hash(value.get_state())
    if isinstance(value, types.FunctionType):
        return [value.__qualname__, marshal.dumps(value.__code__)]
    try:
        return joblib.hash(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return uuid.uuid4().hex  # nothing to tell it by: such a fit is never resumed
