"""A few numbers of an image that a density in tens of columns can be fitted to."""

from __future__ import annotations

__all__ = ["ImageFeatures"]

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import check_number

FLOOR = 1e-3  # of the range of the pixels, under logarithms: a quarter of a step of bytes
BLOCK = 1 << 22  # pixels whose residuals are held at a time
FLAT = 1e-6  # of the largest deviation along a component: less is rounding


class ImageFeatures(TransformerMixin, BaseEstimator):
    r"""Images to standardized principal components, and how rough and how unusual the rest is.

    The columns are the components :math:`v_k \cdot (x - \bar x) / s_k`, the residual
    :math:`\log(r + c)` with r the root mean square of what they leave of the pixels, and
    :math:`\log(g + c)` for the mean absolute differences g of horizontal and of vertical neighbors.

    Parameters
    ----------
    image_shape : tuple of int, optional
        ``(height, width)`` or ``(channels, height, width)`` of the images whose pixels, channels
        first, are the rows of X. None: a row is one line of pixels, as a spectrum is.
    n_components : int, default=50
        Principal components, at least 1. At most half of the pixels are taken, and fewer than there
        are rows, so that a residual is left, and none along which images do not differ; more follow
        the images more closely.

    Attributes
    ----------
    mean_ : ndarray of shape (d,)
        Mean image, units of X.
    components_ : ndarray of shape (k, d)
        Principal directions, orthonormal.
    scale_ : ndarray of shape (k,)
        Standard deviations of the rows along them, units of X.
    floor_ : float
        c, a thousandth of the range of the pixels in ``fit``, units of X: a quarter of a step for
        images of bytes.
    image_shape_ : tuple of int
        Channels, height and width.
    n_features_in_ : int
        Number of pixels d.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has them.

    Raises
    ------
    ValueError, TypeError
        At `fit`, if `image_shape` is no shape of the rows or `n_components` no positive integer; at
        `fit` or `transform`, if X is no finite table.

    Notes
    -----
    The components are dimensionless; the others are in nats, and a change of the pixels' units
    moves them by a constant. Images of height or width 1 have no difference along it, and no
    column for it. The map loses what it leaves out: a log density of these columns is none of
    pixels, but it tells images of another kind, also those without edges, which are near all the
    components. Nothing is drawn at random that another seed would change: the same rows give the
    same columns.

    Cost: one truncated singular value decomposition; then ``2 k d`` multiplications for each image.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from skebm import USPDensity
    >>> from skebm.datasets import ImageFeatures
    >>> X = load_digits().data
    >>> features = ImageFeatures((8, 8), n_components=10).fit(X)
    >>> features.transform(X).shape, features.get_feature_names_out()[-3:].tolist()
    ((1797, 13), ['log_residual', 'log_horizontal', 'log_vertical'])
    >>> flat = features.transform(np.full((1, 64), 8.0))[0, -2:]
    >>> bool((flat < features.transform(X)[:, -2:].min(0) - 3).all())
    True
    >>> density = USPDensity(base="gaussian", data_noise=0, max_iter=25, random_state=0)
    >>> model = make_pipeline(features, density)
    >>> model.fit(X[:300]).score_samples(X[300:]).shape
    (1497,)
    """

    def __init__(self, image_shape: tuple[int, ...] | None = None, n_components: int = 50) -> None:
        self.image_shape = image_shape
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> ImageFeatures:
        """Find the principal components.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Images as rows of pixels, n at least 2.
        y : None
            Ignored.

        Returns
        -------
        ImageFeatures
            The fitted transformer.
        """
        check_number("n_components", self.n_components, low=1, integer=True)
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        n, d = X.shape
        self.image_shape_ = self._shape(d)
        pca = PCA(min(self.n_components, math.ceil(d / 2), n - 1), random_state=0)
        with np.errstate(invalid="ignore"):  # shares of a variance of 0, where all rows are alike
            pca.fit(X.astype(np.float64, copy=False))  # squares of offsets would cancel
        deviation = np.sqrt(pca.explained_variance_)
        real = deviation > FLAT * deviation.max()
        self.mean_, self.components_ = pca.mean_, pca.components_[real]
        self.scale_ = deviation[real]
        spread = float(X.max()) - float(X.min())
        self.floor_ = FLOOR * spread if spread > 0 else FLOOR
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Images as rows of pixels.

        Returns
        -------
        ndarray of shape (n, k + 3)
            k components, the residual, the horizontal and the vertical difference.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        step = max(1, BLOCK // X.shape[1])
        return np.concatenate([self._features(X[i : i + step]) for i in range(0, len(X), step)])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns.

        Parameters
        ----------
        input_features : None
            Ignored: the names do not depend on those of the pixels.

        Returns
        -------
        ndarray of str
            ``component0`` and so on, ``log_residual``, ``log_horizontal``, ``log_vertical``.
        """
        check_is_fitted(self)
        _, height, width = self.image_shape_
        names = [f"component{k}" for k in range(len(self.scale_))] + ["log_residual"]
        names += ["log_horizontal"] * (width > 1) + ["log_vertical"] * (height > 1)
        return np.array(names, dtype=object)

    def _features(self, X: np.ndarray) -> np.ndarray:
        centered = X - self.mean_
        z = centered @ self.components_.T
        rest = np.sqrt(np.square(centered - z @ self.components_).mean(1))
        images = X.reshape(len(X), *self.image_shape_)
        steps = [np.abs(np.diff(images, axis=k)) for k in (3, 2) if images.shape[k] > 1]
        positive = np.column_stack([rest, *(step.mean((1, 2, 3)) for step in steps)])
        return np.hstack([z / self.scale_, np.log(positive + self.floor_)])

    def _shape(self, d: int) -> tuple[int, int, int]:
        """Check `image_shape` and return channels, height and width."""
        shape = (1, d) if self.image_shape is None else self.image_shape
        if not isinstance(shape, tuple | list) or len(shape) not in (2, 3):
            rule = "(height, width) or (channels, height, width)"
            raise TypeError(f"image_shape must be {rule}, got {shape!r}.")
        for size in shape:
            check_number("image_shape", size, low=1, integer=True)
        if math.prod(shape) != d:
            raise ValueError(
                f"image_shape must multiply to the {d} columns of X, got {tuple(shape)}. "
                "Give the shape of one image."
            )
        channels, height, width = (1, *shape)[-3:]
        return channels, height, width
