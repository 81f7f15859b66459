"""What a process of one source tree does when asked: a line of JSON in, a line of JSON out."""

from __future__ import annotations

__all__ = ["sheet"]

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import skebm


def sheet(n: int, d: int = 10) -> np.ndarray:
    """Return n rows on a bent sheet, so that the energy has work to do."""
    X = np.random.RandomState(0).standard_normal((n, d))
    X[:, d // 2 :] = 0.3 * X[:, d // 2 :] + np.sin(2 * X[:, : d - d // 2])
    return X


class Jobs:
    """Rows and the model that was fitted to them; each method takes and returns what JSON can."""

    X: np.ndarray
    est: Any

    def rows(self, n: int, d: int) -> None:
        self.X = sheet(n, d)

    def load(self, path: str) -> None:
        self.X = np.load(path, mmap_mode="r")

    def fit(self, name: str, **parameters: Any) -> float:
        """Return CPU seconds."""
        self.est = getattr(skebm, name)(random_state=0, **parameters)
        start = time.process_time()
        self.est.fit(self.X)
        return time.process_time() - start

    def sample(self, n: int) -> float:
        """Return CPU seconds."""
        start = time.process_time()
        self.est.sample(n, random_state=1)
        return time.process_time() - start

    def score(self) -> int:
        """Score the rows; return the bytes of the result."""
        return self.est.score_samples(self.X).nbytes

    def judge(self, path: str) -> list[float]:
        """Return the mean log density of a table's normal test rows, and the AUROC of the rest."""
        with np.load(path) as table:
            scores, novel = self.est.score_samples(table["test"]), table["is_novelty"]
        auroc = roc_auc_score(novel, -scores) if novel.any() else float("nan")
        return [float(scores[~novel].mean()), float(auroc)]


def main() -> None:
    """Tell which tree was imported, then answer until the input ends."""
    assert Path(skebm.__file__).is_relative_to(sys.argv[1]), skebm.__file__
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    jobs = Jobs()
    jobs.rows(60, 2)
    for name in ("NCEDensity", "HybridCDDensity"):  # what a first fit imports
        jobs.fit(name, max_iter=2)
    print(json.dumps(skebm.__file__), flush=True)
    for line in sys.stdin:
        name, arguments, named = json.loads(line)
        print(json.dumps(getattr(jobs, name)(*arguments, **named)), flush=True)


if __name__ == "__main__":
    main()
