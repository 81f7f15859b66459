"""Real tables: those that ship with scikit-learn, and any in an ``.npz`` file."""

from __future__ import annotations

__all__ = ["load_novelty", "read_npz_table"]

import os
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from skebm._components import check_random_state
from skebm.datasets._files import as_labels, existing_file, read_arrays

TABLES = {  # name: (loader, class that is the novelty)
    "breast_cancer": (load_breast_cancer, 0),  # 0 is malignant
    "digits": (load_digits, 8),
    "iris": (load_iris, 2),
    "wine": (load_wine, 2),
}


def load_novelty(name: str, *, random_state: Any = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load a one-class table: train on normal rows, find the class that was left out.

    Parameters
    ----------
    name : {"breast_cancer", "digits", "iris", "wine"}
        Table that ships with scikit-learn. The novelties are the malignant rows of
        ``"breast_cancer"``, the digit 8 of ``"digits"``, class 2 of ``"iris"`` and of ``"wine"``.
    random_state : int, RandomState or None, default=0
        Seed or generator of the shuffle that halves the normal rows.

    Returns
    -------
    X_train : ndarray of shape (n_train, d)
        Half of the normal rows (rounded down).
    X_test : ndarray of shape (n_test, d)
        The other normal rows, then all novelties.
    is_novelty : ndarray of shape (n_test,)
        Boolean, True for the novelties in `X_test`.

    Raises
    ------
    ValueError
        If there is no table of that name.

    Examples
    --------
    >>> from skebm.datasets import load_novelty
    >>> X_train, X_test, is_novelty = load_novelty("breast_cancer")
    >>> X_train.shape, X_test.shape, int(is_novelty.sum())
    ((178, 30), (391, 30), 212)
    """
    if name not in TABLES:
        raise ValueError(
            f"name must be one of {sorted(TABLES)}, got {name!r}. "
            "Read your own table with read_npz_table."
        )
    loader, novelty = TABLES[name]
    X, y = loader(return_X_y=True)
    X = np.asarray(X, dtype=np.float64)
    normal = X[y != novelty][check_random_state(random_state).permutation((y != novelty).sum())]
    n_train = len(normal) // 2
    X_test = np.concatenate([normal[n_train:], X[y == novelty]])
    is_novelty = np.arange(len(X_test)) >= len(normal) - n_train
    return normal[:n_train], X_test, is_novelty


def read_npz_table(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a table from an ``.npz`` file with the arrays ``X`` and, if there are labels, ``y``.

    Parameters
    ----------
    path : str or path-like
        The file. Nothing in it is executed: pickled objects are refused.

    Returns
    -------
    X : ndarray of shape (n, d)
        Rows, float64.
    y : ndarray of shape (n,) or None
        Integer labels; None if the file holds none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an ``.npz`` archive, has no ``X``, or holds rows or labels that are not
        numbers, not finite, or of the wrong shape.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np
    >>> from skebm.datasets import read_npz_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "table.npz"
    ...     np.savez(path, X=np.zeros((3, 2)), y=[0, 0, 1])
    ...     X, y = read_npz_table(path)
    >>> X.shape, y.tolist()
    ((3, 2), [0, 0, 1])
    """
    arrays = read_arrays(existing_file("path", path))
    X = _as_table(arrays["X"])
    return X, as_labels("y", arrays["y"], len(X)) if "y" in arrays else None


def _as_table(X: np.ndarray) -> np.ndarray:
    if X.ndim != 2 or not X.size or X.dtype.kind not in "biuf":
        raise ValueError(
            f"X must be a numeric table of shape (n, d), got shape {X.shape} of {X.dtype}. "
            "Encode text columns as numbers."
        )
    X = X.astype(np.float64)
    n_bad = np.count_nonzero(~np.isfinite(X).all(axis=1))
    if n_bad:
        raise ValueError(
            f"X must be finite, got {n_bad} of {len(X)} rows with NaN or infinity. "
            "Drop or impute them."
        )
    return X
