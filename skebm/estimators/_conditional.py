"""Questions to a joint density: what is missing, given the rest."""

from __future__ import annotations

__all__ = ["ConditionalReads", "column_numbers", "takes_holes"]

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import check_number
from skebm._tables import naming_columns
from skebm.bases import Gaussian, Kernel, Mixture, ProbabilisticPCA
from skebm.data import torch_generator
from skebm.fitted import FittedDensity
from skebm.fitted.density import missing

WITH_COMPONENTS = Gaussian | Kernel | Mixture | ProbabilisticPCA
REMEDY = "Use base='union', 'mixture', 'kernel' or 'gaussian', or fill them in."


class ConditionalReads:
    """Reads of a density estimator that take rows with missing values."""

    density_: FittedDensity

    def conditional_sample(self, X, n_samples=1, random_state=None):
        """Draw what is missing in each row, given the rest.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows; what is to be drawn is NaN.
        n_samples : int, default=1
            Completions of each row.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's own ``random_state``.

        Returns
        -------
        ndarray of shape (n_rows, n_features), or (n_rows, n_samples, n_features) above 1
            Complete rows. Values that were given are unchanged, rows without a hole come back as
            they are.

        Raises
        ------
        ValueError
            If the base has no conditional densities.

        Notes
        -----
        Draws of the base's conditional density, or with an energy of its mean with that of a
        mixture near the model, are chosen by their weights among at least 64.

        Examples
        --------
        >>> import numpy as np
        >>> from skebm import USPDensity
        >>> X = np.random.RandomState(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500)
        >>> est = USPDensity(max_iter=25, random_state=0).fit(X)
        >>> drawn = est.conditional_sample([[2.0, np.nan]], n_samples=500, random_state=0)
        >>> drawn.shape, bool(abs(drawn[0, :, 1].mean() - 1.8) < 0.2)
        ((1, 500, 2), True)
        """
        check_number("n_samples", n_samples, low=1, integer=True)
        X = self._holed_rows(X, np.float64)
        holed, out = missing(X), np.repeat(X[:, None], n_samples, axis=1)
        if holed is not None:
            seed = self.random_state if random_state is None else random_state  # type: ignore[attr-defined]
            rng = torch_generator(seed)
            out[holed] = self.density_.holes.draw(X[holed], int(n_samples), rng)
        return out[:, 0] if n_samples == 1 else out

    def conditional_mean(self, X):
        """Return the rows with each missing value replaced by its mean given the rest.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows; what is asked for is NaN.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
            Complete rows, units of X.

        Raises
        ------
        ValueError
            If the base has no conditional densities.
        """
        X = self._holed_rows(X, np.float64)
        holed, out = missing(X), X.copy()
        if holed is not None:
            out[holed] = self.density_.holes.mean(X[holed])
        return out

    def conditional_score_samples(self, X, given):
        r"""Return :math:`\log p(x_\text{rest} \mid x_\text{given})`.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows; what is NaN is left out of both parts.
        given : array-like of int or str
            The columns that are given, by number or name.

        Returns
        -------
        ndarray of shape (n_rows,)
            Nats, in the units of the other columns; exactly 0 where nothing is left.

        Raises
        ------
        ValueError
            If the base has no conditional densities, or there is no such column.
        """
        X = self._holed_rows(X, np.float64)
        other = np.ones(X.shape[1], dtype=bool)
        names = getattr(self, "feature_names_in_", None)
        other[column_numbers(given, names, X.shape[1])] = False
        alone = X.copy()
        alone[:, other] = np.nan
        value = self.density_.log_density(X) - self.density_.log_density(alone)
        value[np.isnan(X[:, other]).all(1)] = 0.0
        return value

    def _holed_rows(self, X: Any, dtype: Any) -> np.ndarray:
        """Check rows that may have missing values."""
        check_is_fitted(self)
        with np.errstate(all="ignore"), naming_columns(X):
            X = validate_data(self, X, dtype=dtype, reset=False, ensure_all_finite="allow-nan")
        if missing(X) is not None:
            try:
                _ = self.density_.holes
            except TypeError as error:
                base = type(getattr(self.density_.model.base, "core", self.density_.model.base))
                raise ValueError(
                    "X must have no missing values with base "
                    f"{base.__name__.removesuffix('Base')}, got NaN. {REMEDY}"
                ) from error
        return X


def column_numbers(columns: Any, names: Any, d: int) -> list[int]:
    """Return the numbers of columns that are given by number, or by one of d names.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    names = [] if names is None else list(names)
    places = []
    for column in np.ravel(np.asarray(columns, dtype=object)):
        if isinstance(column, str) and column in names:
            places.append(names.index(column))
        elif isinstance(column, int | np.integer) and -d <= column < d:
            places.append(int(column) % d)
        else:
            raise ValueError(
                f"given must hold columns of X, got {column!r}. Use numbers from 0 to {d - 1}"
                f"{' or names' if names else ''}."
            )
    return places


def takes_holes(base: Any, image_shape: Any) -> bool:
    """Whether a table with missing values can be fitted with such a base."""
    return image_shape is None and isinstance(base, WITH_COMPONENTS)
