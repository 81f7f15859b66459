"""What the image reproductions share: reading, features of a classifier."""

from __future__ import annotations

__all__ = [
    "Features",
    "Pictures",
    "montage",
    "pooled",
    "read_pictures",
]

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier


class Pictures(NamedTuple):
    """Flattened images of one kind, (n, side^2), and of other kinds by name; pixels 0 to high."""

    name: str
    side: int
    high: float
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    others: dict[str, np.ndarray]


def read_pictures(train: str, test: str, others: dict[str, str], *, pool: int = 1) -> Pictures:
    """Read npz files in the folder named by SKEBM_DATA; scikit-learn's digits where it is unset.

    `train` and `test` are names of files without ".npz", and so are the values of `others`; `pool`
    is the side of the windows over which pixels are averaged. The digits are 8 x 8: those from 0
    to 4 are the ones to learn, the rest are others.
    """
    folder = os.environ.get("SKEBM_DATA")
    if not folder:
        return _digits()
    images = Path(folder) / "images"
    X, y = _read(images / f"{train}.npz", pool)
    X_test, _ = _read(images / f"{test}.npz", pool)
    kinds = {name: _read(images / f"{file}.npz", pool)[0] for name, file in others.items()}
    side = round(X.shape[1] ** 0.5)
    return Pictures(f"{train} {side} x {side}", side, 255.0, X, y, X_test, kinds)


def _digits() -> Pictures:
    X, y = load_digits(return_X_y=True)
    low = y < 5
    name = "digits 0-4 of scikit-learn, 8 x 8 (SKEBM_DATA is unset)"
    train, test = X[low][:600], X[low][600:]
    return Pictures(name, 8, 16.0, train, y[low][:600], test, {"digits 5-9": X[~low]})


def _read(path: Path, pool: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return pooled(file["X"], pool), file["y"].astype(int)


def pooled(images: np.ndarray, pool: int) -> np.ndarray:
    """Average (n, h, w) over windows of pool x pool pixels and flatten the rows."""
    n, h, w = images.shape
    windows = images.astype(np.float64).reshape(n, h // pool, pool, w // pool, pool)
    return windows.mean((2, 4)).reshape(n, -1)


class Features:
    """Hidden layer of a small classifier, fitted on labeled rows with pixels 0 to high."""

    def __init__(self, X: np.ndarray, y: np.ndarray, high: float, *, width: int, epochs: int):
        self.high = high
        self.net = MLPClassifier((width,), max_iter=epochs, batch_size=64, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are enough
            self.net.fit(self._inputs(X), y)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return features (n, width); pixels beyond the range of the data are clipped to it."""
        weight, bias = self.net.coefs_[0], self.net.intercepts_[0]
        return np.maximum(self._inputs(X) @ weight + bias, 0)

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return class probabilities (n, classes)."""
        return self.net.predict_proba(self._inputs(X))

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        return np.clip(X, 0, self.high) / self.high


def montage(X: np.ndarray, side: int, n_columns: int) -> np.ndarray:
    """Put images (n, side^2) side by side, a pixel apart; nan where there is none."""
    n_rows = -(-len(X) // n_columns)
    tiles = np.full((n_rows * n_columns, side + 1, side + 1), np.nan)
    tiles[: len(X), :side, :side] = X.reshape(-1, side, side)
    grid = tiles.reshape(n_rows, n_columns, side + 1, side + 1).transpose(0, 2, 1, 3)
    return grid.reshape(n_rows * (side + 1), n_columns * (side + 1))[:-1, :-1]
