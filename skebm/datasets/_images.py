"""Images as rows: read from ``.npz`` and idx files, constant, or noise."""

from __future__ import annotations

__all__ = ["Images", "constant_images", "noise_images", "read_images"]

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from skebm._components import check_number, check_random_state
from skebm.datasets._files import as_labels, existing_file, read_arrays

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 2**20  # bytes at once: a header that lies about its sizes gets no memory for them


class Images(NamedTuple):
    """Images as rows, in the order that estimators with an ``image_shape`` expect.

    Parameters
    ----------
    X : ndarray of shape (n, channels * height * width)
        Pixels as they are stored (0 to 255 for bytes), float32, channels first.
    y : ndarray of shape (n,) or None
        Labels, int64; None where there are none.
    image_shape : tuple of int
        ``(channels, height, width)``.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.datasets import Images
    >>> images = Images(np.zeros((2, 12)), None, (3, 2, 2))
    >>> images.X.reshape(-1, *images.image_shape).shape
    (2, 3, 2, 2)
    """

    X: np.ndarray
    y: np.ndarray | None
    image_shape: tuple[int, int, int]


def read_images(path: str | os.PathLike, labels: str | os.PathLike | None = None) -> Images:
    """Read images from an ``.npz`` archive or from an idx file like those of MNIST.

    Parameters
    ----------
    path : str or path-like
        An ``.npz`` archive with the array ``X`` and, if there are labels, ``y``; or an idx file
        (bytes, integers of 8, 16 or 32 bits, or floats), plain or compressed by gzip. Images have
        the shape (n, height, width) or (n, height, width, channels). The kind of file is told by
        its first bytes, not by its name, and nothing in it is executed: pickled objects are
        refused.
    labels : str or path-like, default=None
        Idx file of shape (n,) with the labels, for images that have none beside them.

    Returns
    -------
    Images
        Rows, labels and the image shape.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is neither kind, is damaged, is shorter or longer than its header says, holds
        labels in the place of images (or the other way round), or what it holds is not numeric,
        not finite in float32, or of the wrong shape; or if there are labels twice.

    Notes
    -----
    Channels come last in the file and first in the rows. An array of shape (n, channels, height,
    width) is read as n images with `height` columns and `width` channels: look at ``image_shape``.
    Memory is about twice the stored array plus five bytes a pixel. Integers beyond 2^24 are rounded
    to float32.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np
    >>> from skebm.datasets import read_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "images.npz"
    ...     np.savez(path, X=np.zeros((2, 28, 28), dtype=np.uint8), y=[7, 2])
    ...     X, y, image_shape = read_images(path)
    >>> X.shape, y.tolist(), image_shape
    ((2, 784), [7, 2], (1, 28, 28))
    """
    path = existing_file("path", path)
    arrays = read_arrays(path) if _is_archive(path) else {"X": _read_idx("path", path, (3, 4))}
    X, image_shape = _as_rows(arrays["X"])
    if labels is None:
        y = as_labels("y", arrays["y"], len(X)) if "y" in arrays else None
        return Images(X, y, image_shape)
    if "y" in arrays:
        raise ValueError(
            f"labels must be None for an archive with 'y', got {str(labels)!r}. Leave labels out."
        )
    y = _read_idx("labels", existing_file("labels", labels), (1,))
    return Images(X, as_labels("labels", y, len(X)), image_shape)


def constant_images(
    n_samples: int,
    image_shape: tuple[int, int, int],
    *,
    high: float = 1.0,
    random_state: Any = None,
) -> np.ndarray:
    """Draw images without content: all pixels of an image have one value, uniform on [0, high].

    Parameters
    ----------
    n_samples : int
        Number of images.
    image_shape : tuple of int
        ``(channels, height, width)``; the value is the same in all channels.
    high : float, default=1.0
        Largest value, in the units of the pixels: 255 beside images of bytes.
    random_state : int, RandomState or None, default=None
        Seed or generator of the draws.

    Returns
    -------
    ndarray of shape (n_samples, channels * height * width)
        Rows, float64.

    Raises
    ------
    ValueError, TypeError
        If a count, a size or `high` is not a positive number, or `image_shape` is no triple.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating out-of-distribution data density overestimation in
       energy-based models". Section 6.2 ("Constant").

    Examples
    --------
    >>> from skebm.datasets import constant_images
    >>> X = constant_images(5, (1, 28, 28), random_state=0)
    >>> X.shape, bool((X == X[:, :1]).all())
    ((5, 784), True)
    """
    d = _check_images(n_samples, image_shape, high)
    values = check_random_state(random_state).uniform(0, high, (n_samples, 1))
    return np.repeat(values, d, axis=1)


def noise_images(
    n_samples: int,
    image_shape: tuple[int, int, int],
    *,
    high: float = 1.0,
    random_state: Any = None,
) -> np.ndarray:
    """Draw images of independent pixels: either all uniform on [0, high] or all Gaussian.

    Each image is of either kind with probability 1/2. The Gaussian is standard in units of `high`:
    N(0, high^2).

    Parameters
    ----------
    n_samples : int
        Number of images.
    image_shape : tuple of int
        ``(channels, height, width)``.
    high : float, default=1.0
        Largest uniform value and standard deviation of the Gaussian, in the units of the pixels:
        255 beside images of bytes.
    random_state : int, RandomState or None, default=None
        Seed or generator of the draws.

    Returns
    -------
    ndarray of shape (n_samples, channels * height * width)
        Rows, float64, both kinds in random order.

    Raises
    ------
    ValueError, TypeError
        If a count, a size or `high` is not a positive number, or `image_shape` is no triple.

    Notes
    -----
    Gaussian pixels are not clipped: half of them are negative and 16 % are above `high`, which
    alone gives them away. The paper states neither the shares of the two kinds nor whether its
    pixels are clipped; equal shares and no clipping are choices made here. Use
    ``np.clip(X, 0, high)`` for pixels in the range of the data.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating out-of-distribution data density overestimation in
       energy-based models". Section 6.2 ("Noise").

    Examples
    --------
    >>> from skebm.datasets import noise_images
    >>> X = noise_images(100, (1, 28, 28), random_state=0)
    >>> X.shape, int((X.min(axis=1) < 0).sum())  # images of the Gaussian kind
    ((100, 784), 51)
    """
    d = _check_images(n_samples, image_shape, high)
    rng = check_random_state(random_state)
    gaussian = rng.uniform(size=n_samples) < 0.5
    X = rng.uniform(0, high, (n_samples, d))
    X[gaussian] = high * rng.standard_normal((np.count_nonzero(gaussian), d))
    return X


def _check_images(n_samples: Any, shape: Any, high: Any) -> int:
    check_number("n_samples", n_samples, low=1, integer=True, remedy="Ask for at least one image.")
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise TypeError(
            f"image_shape must be (channels, height, width), got {shape!r}. "
            "Give gray images one channel."
        )
    for size in shape:
        check_number("image_shape", size, low=1, integer=True, remedy="Give three sizes.")
    check_number("high", high, low=0, open_low=True, remedy="Pass the largest pixel of the data.")
    return math.prod(shape)


def _as_rows(X: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    if X.ndim not in (3, 4) or not X.size or X.dtype.kind not in "biuf":
        raise ValueError(
            "X must be numeric images of shape (n, height, width) or (n, height, width, channels), "
            f"got shape {X.shape} of {X.dtype}. Reshape the array and write it again."
        )
    images = X[:, None] if X.ndim == 3 else np.moveaxis(X, 3, 1)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is counted below
        rows = images.reshape(len(X), -1).astype(np.float32)
    n_bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
    if n_bad:
        raise ValueError(
            f"X must be finite in float32, got {n_bad} of {len(X)} images with NaN, infinity or "
            "values beyond 3e38. Drop or rescale them."
        )
    _, channels, height, width = images.shape
    return rows, (channels, height, width)


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _read_idx(name: str, path: Path, n_dims: tuple[int, ...]) -> np.ndarray:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            dtype, shape = _read_header(name, path, stream, n_dims)
            size = dtype.itemsize * math.prod(shape)
            data = _read_bytes(stream, size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{name} must be a whole gzip file, got {str(path)!r} ({error}). Fetch it again."
        ) from error
    if len(data) != size:
        found = f"{len(data)} bytes" if len(data) < size else "more"
        raise ValueError(
            f"{name} must hold {size} bytes after its header for shape {shape}, got {found} in "
            f"{str(path)!r}. Fetch it again."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _read_header(
    name: str, path: Path, stream: BinaryIO | gzip.GzipFile, n_dims: tuple[int, ...]
) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    _check_magic(name, path, magic, n_dims)
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(
            f"{name} must have a header of {4 + 4 * magic[3]} bytes, got {4 + len(sizes)} in "
            f"{str(path)!r}. Fetch it again."
        )
    return np.dtype(IDX_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def _check_magic(name: str, path: Path, magic: bytes, n_dims: tuple[int, ...]) -> None:
    images = 3 in n_dims
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES:
        raise ValueError(
            f"{name} must be {'an .npz archive or ' if images else ''}an idx file, got "
            f"{str(path)!r} that starts with {magic!r}. Fetch it again or write another format."
        )
    if magic[3] not in n_dims:
        content = "images (3 or 4 dimensions)" if images else "labels (1 dimension)"
        remedy = (
            "Pass labels as labels, beside the file of images."
            if images
            else "Pass images as path."
        )
        raise ValueError(
            f"{name} must be an idx file of {content}, got {magic[3]} dimension"
            f"{'' if magic[3] == 1 else 's'} in {str(path)!r}. {remedy}"
        )


def _read_bytes(stream: BinaryIO | gzip.GzipFile, size: int) -> bytes:
    parts = []
    while size and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
