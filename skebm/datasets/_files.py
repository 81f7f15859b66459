"""What readers share: files and labels, checked."""

from __future__ import annotations

__all__ = ["as_labels", "existing_file", "read_arrays"]

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np


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
