"""What densities and readers share: checked rows, files and parameters, evaluation in blocks."""

from __future__ import annotations

__all__ = [
    "as_finite",
    "as_labels",
    "as_rows",
    "check_n",
    "existing_file",
    "in_blocks",
    "log_sum_exp",
    "read_arrays",
]

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skebm._components import as_finite, check_number

BLOCK_VALUES = 2**18  # 2 MiB of float64 in each temporary array: stays in the processor's cache


def as_rows(X: Any, n_features: int) -> np.ndarray:
    """Return `X` as a finite float64 array of shape (n_samples, n_features).

    Raises
    ------
    ValueError
        If `X` is not two-dimensional, not finite, or has another number of columns.
    """
    X = check_array(X, dtype=np.float64)
    if X.shape[1] != n_features:
        raise ValueError(
            f"X must have {n_features} columns, got {X.shape[1]}. "
            "Pass rows of the space that the density lives in."
        )
    return X


def as_labels(name: str, y: np.ndarray, n: int) -> np.ndarray:
    """Return `y`, one whole number per row of shape (n,) or (n, 1), as int64 of shape (n,).

    Raises
    ------
    ValueError
        If `y` has another shape or holds what is no integer.
    """
    y = y.reshape(-1) if y.shape == (n, 1) else y
    if y.shape != (n,):
        raise ValueError(
            f"{name} must have shape ({n},), got {y.shape}. Give one label per row of X."
        )
    if y.dtype.kind not in "biuf" or not (np.isfinite(y) & (np.mod(y, 1) == 0)).all():
        raise ValueError(f"{name} must hold integers, got {y.dtype} values. Encode the labels.")
    return y.astype(np.int64)


def existing_file(name: str, path: str | os.PathLike) -> Path:
    """Return `path` as a Path.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name} must be a file, got {str(path)!r}. Check the folder.")
    return path


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read ``X`` and, if it is there, ``y`` from an ``.npz`` archive; pickled objects are refused.

    Raises
    ------
    ValueError
        If the file is not an archive, is damaged, holds objects, or has no ``X``.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"path must be an .npz archive, got {str(path)!r}. Write it with np.savez(path, X=X)."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = archive.files
            arrays = {k: np.asarray(archive[k]) for k in ("X", "y") if k in keys}
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"path must hold plain numeric arrays, got {str(path)!r} ({error}). "
            "Write it again with numbers only."
        ) from error
    if "X" not in arrays:
        raise ValueError(
            f"path must hold an array 'X', got {keys} in {str(path)!r}. "
            "Write it with np.savez(path, X=X, y=y)."
        )
    return arrays


def check_n(n: Any) -> None:
    """Raise the house's error unless `n` is a count of at least one."""
    check_number("n", n, low=1, integer=True, remedy="Ask for at least one row.")


def in_blocks(function: Callable, X: np.ndarray, width: int) -> np.ndarray:
    """Apply a row-wise function to blocks of rows, so that memory does not grow with the rows.

    Parameters
    ----------
    function : callable
        Maps rows of shape (m, d) to an array whose first axis is m.
    X : ndarray of shape (n, d)
        The rows.
    width : int
        Values that `function` holds per row (components, quadrature nodes).

    Returns
    -------
    ndarray
        The results, first axis n.
    """
    size = max(1, BLOCK_VALUES // width)
    return np.concatenate([function(X[start : start + size]) for start in range(0, len(X), size)])


def log_sum_exp(terms: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exponentials over the last axis, without overflow."""
    top = terms.max(axis=-1)
    return top + np.log(np.exp(terms - top[..., None]).sum(axis=-1))
