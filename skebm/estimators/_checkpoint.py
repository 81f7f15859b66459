"""Where an interrupted fit is found again."""

from __future__ import annotations

__all__ = ["Checkpoint"]

import marshal
import os
import pickle
import types
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.utils import check_random_state

from skebm._components import Component

IGNORED = ("checkpoint_dir", "verbose", "warm_start")  # they change no number


class Checkpoint(NamedTuple):
    """Seed of a fit and where its training states are written."""

    seed: int
    path: Path | None
    seedless: bool  # ``random_state=None``: only an unfinished fit is taken over

    @classmethod
    def of(cls, estimator: Any, X: np.ndarray, weight: np.ndarray | None) -> Checkpoint:
        """Draw a seed, or take over the one of an unfinished fit of these parameters and rows."""
        state = estimator.random_state
        seedless = state is None
        about = {
            k: _plain(v) for k, v in estimator.get_params(deep=False).items() if k not in IGNORED
        }
        if seedless:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        else:
            seed = int(check_random_state(state).randint(np.iinfo(np.int32).max))
        if estimator.checkpoint_dir is None:
            return cls(seed, None, seedless)
        folder = Path(estimator.checkpoint_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"skebm-{joblib.hash([type(estimator).__name__, about, X, weight])[:16]}"
        found = sorted(folder.glob(f"{stem}-*.0.pt"), key=os.path.getmtime)
        if found and seedless:
            seed = int(found[-1].name.split("-")[2].split(".")[0])
        return cls(seed, folder / f"{stem}-{seed}.pt", seedless)

    def phase(self, i: int) -> Path | None:
        """Return the file of the i-th phase of training."""
        return None if self.path is None else self.path.with_suffix(f".{i}.pt")

    def close(self) -> None:
        """Forget a finished fit without a seed: the next one is to be another."""
        if self.path is not None and self.seedless:
            for file in self.path.parent.glob(f"{self.path.stem}.*.pt"):
                file.unlink()


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
