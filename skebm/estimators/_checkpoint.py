"""Where an interrupted fit is found again."""

from __future__ import annotations

__all__ = ["Checkpoint"]

import os
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.utils import check_random_state

IGNORED = ("checkpoint_dir", "verbose", "warm_start")  # they change no number


class Checkpoint(NamedTuple):
    """Seed of a fit and the file of its training state."""

    seed: int
    path: Path | None

    def phase(self, i: int) -> Path | None:
        """Return the file of the i-th phase of training."""
        return None if self.path is None else self.path.with_suffix(f".{i}.pt")

    @classmethod
    def of(cls, estimator: Any, X: np.ndarray, weight: np.ndarray | None) -> Checkpoint:
        """Draw a seed, or take over the one of an unfinished fit of these parameters and rows."""
        if estimator.random_state is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        else:
            seed = int(check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max))
        if estimator.checkpoint_dir is None:
            return cls(seed, None)
        folder = Path(estimator.checkpoint_dir)
        folder.mkdir(parents=True, exist_ok=True)
        parameters = {k: repr(v) for k, v in estimator.get_params().items() if k not in IGNORED}
        stem = f"skebm-{joblib.hash([type(estimator).__name__, parameters, X, weight])[:16]}"
        found = sorted(folder.glob(f"{stem}-*.0.pt"), key=os.path.getmtime)
        if found and estimator.random_state is None:
            seed = int(found[-1].name.split("-")[2].split(".")[0])
        return cls(seed, folder / f"{stem}-{seed}.pt")
