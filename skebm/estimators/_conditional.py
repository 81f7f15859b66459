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
N_IN_INTERVAL = 512  # draws that quantiles are of
BLOCK_VALUES = 2**23  # of draws at a time: 64 MiB
REMEDY = "Use base='union', 'mixture', 'kernel' or 'gaussian', or fill them in."


class ConditionalReads:
    """Reads of a density estimator that take rows with missing values."""

    density_: FittedDensity

    def conditional_sample(self, X: Any, n_samples: int = 1, random_state: Any = None) -> Any:
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
            Complete rows; where the fit was to columns of codes, a table like X, or a list of
            `n_samples` of them. Values that were given are unchanged, rows without a hole come back
            as they are.

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
        rows, _ = self._encoded(X, np.float64)
        holed, out = missing(rows), np.repeat(rows[:, None], n_samples, axis=1)
        if holed is not None:
            seed = self.random_state if random_state is None else random_state  # type: ignore[attr-defined]
            rng = torch_generator(seed)
            out[holed] = self.density_.holes.draw(rows[holed], int(n_samples), rng)
        if self._schema() is not None:
            tables = [self._schema().decode(out[:, k], X) for k in range(n_samples)]
            return tables[0] if n_samples == 1 else tables
        return out[:, 0] if n_samples == 1 else out

    def conditional_mean(self, X: Any) -> Any:
        """Return the rows with each missing value replaced by its mean given the rest.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows; what is asked for is NaN.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
            Complete rows, units of X; where the fit was to columns of codes, a table like X, with
            the likeliest category and the value of a lattice that is nearest to the mean.

        Raises
        ------
        ValueError
            If the base has no conditional densities.
        """
        rows, _ = self._encoded(X, np.float64)
        holed, out = missing(rows), rows.copy()
        if holed is not None:
            out[holed] = self.density_.holes.mean(rows[holed])
        return out if self._schema() is None else self._schema().decode(out, X)

    def conditional_score_samples(self, X: Any, given: Any) -> np.ndarray:
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
        places = self._places(X)
        X, _ = self._encoded(X, np.float64)
        other = np.ones(X.shape[1], dtype=bool)
        names = getattr(self, "feature_names_in_", None)
        for j in column_numbers(given, names, len(places)):
            other[places[j]] = False
        alone = X.copy()
        alone[:, other] = np.nan
        value = self.density_.log_density(X) - self.density_.log_density(alone)
        value[np.isnan(X[:, other]).all(1)] = 0.0
        return value

    def score_values(self, X: Any) -> np.ndarray:
        r"""Return :math:`\log p(x_j \mid x_{-j})` of each value: which one is odd given the others.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows, which may have missing values.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
            Nats, in units of the column; nan where a value is missing.

        Raises
        ------
        ValueError
            If the base has no conditional densities.

        Notes
        -----
        Columns of different units do not compare: `conditional_interval` and
        `skebm.ood.feature_contributions` do. Takes one evaluation of rows with a hole per column.
        """
        places = self._places(X)
        X, _ = self._encoded(X, np.float64)
        whole, out = self.density_.log_density(X), np.full((len(X), len(places)), np.nan)
        for j, place in enumerate(places):
            known = ~np.isnan(X[:, place]).any(1)
            if not known.any():
                continue
            if len(place) == 1 and self._n_levels(place[0]):
                log_p = self._log_proba(X[known], place[0])
                code = X[known, place[0]].astype(int)
                out[known, j] = log_p[np.arange(len(code)), code]
                continue
            alone = X[known]
            alone[:, place] = np.nan
            out[known, j] = whole[known] - self.density_.log_density(alone)
        return out

    def conditional_proba(self, X: Any, column: Any) -> np.ndarray:
        """Return the probability of each category of a column given the others of the row.

        Parameters
        ----------
        X : table of shape (n_rows, n_features)
            Rows, which may have missing values; those in the column do not matter.
        column : int or str
            A column of codes, by number or name.

        Returns
        -------
        ndarray of shape (n_rows, n_levels)
            In the order of ``schema_.levels(column)``; rows sum to 1. Exact for rows with no other
            hole: no normalizer is involved.

        Raises
        ------
        ValueError
            If it is no column of codes.
        """
        places = self._places(X)
        names = getattr(self, "feature_names_in_", None)
        (j,) = column_numbers([column], names, len(places))
        if len(places[j]) != 1 or not self._n_levels(places[j][0]):
            raise ValueError(
                f"column must be one of codes, got {column!r}. For numbers see "
                "conditional_interval."
            )
        rows, _ = self._encoded(X, np.float64)
        return np.exp(self._log_proba(rows, places[j][0]))

    def _log_proba(self, rows: np.ndarray, place: int) -> np.ndarray:
        """Return the log probabilities of the codes of an encoded column, (n, n_levels)."""
        return self.density_.log_proba(rows, place, self._n_levels(place))

    def conditional_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Return the middle interval of each value given the others of its row.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows, which may have missing values.
        coverage : float, default=0.9
            Probability of the interval, in (0, 1), dimensionless; more is wider.

        Returns
        -------
        ndarray of shape (n_rows, n_features, 2)
            Low and high ends, units of X: quantiles of 512 draws that are the same for all rows;
            nan for columns of codes, see `conditional_proba`.

        Raises
        ------
        ValueError
            If the base has no conditional densities.

        Examples
        --------
        >>> import numpy as np
        >>> from skebm import USPDensity
        >>> X = np.random.RandomState(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500)
        >>> est = USPDensity(max_iter=25, random_state=0).fit(X)
        >>> low, high = est.conditional_interval([[2.0, -2.0]])[0, 1]
        >>> bool(0.7 < low < high < 3.0)  # -2 does not fit 2: it should be 1.8 +- 0.7
        True
        """
        check_number("coverage", coverage, low=0, high=1, open_low=True)
        places, schema = self._places(X), self._schema()
        X, _ = self._encoded(X, np.float64)
        levels = [(1 - coverage) / 2, (1 + coverage) / 2]
        out = np.full((len(X), len(places), 2), np.nan)
        size = max(1, BLOCK_VALUES // (N_IN_INTERVAL * X.shape[1]))
        for j, place in enumerate(places):
            if len(place) == 1 and self._n_levels(place[0]):
                continue
            alone = X.copy()
            alone[:, place] = np.nan
            for start in range(0, len(X), size):
                some = slice(start, start + size)
                drawn = self.density_.holes.draw(alone[some], N_IN_INTERVAL, None)
                if schema is not None:
                    flat = schema.column_values(drawn.reshape(-1, X.shape[1]), j)
                    drawn = flat.reshape(drawn.shape[:2])
                else:
                    drawn = drawn[:, :, j]
                out[some, j] = np.quantile(drawn, levels, axis=1).T
        return out

    def odd_codes(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the least log probability of a code given the rest of its row.

        Parameters
        ----------
        rows : ndarray of shape (n, d)
            Encoded rows, see `skebm.data.Schema`; a missing code is not odd.

        Returns
        -------
        ndarray of shape (n,) or None
            Nats; None where there are no columns of codes.
        """
        schema = self._schema()
        if schema is None or not schema.categories:
            return None
        least = np.zeros(len(rows))
        for place in range(schema.n_numbers, schema.n_numbers + len(schema.categories)):
            known = np.flatnonzero(~np.isnan(rows[:, place]))
            if len(known):
                log_p = self._log_proba(rows[known], place)
                own = log_p[np.arange(len(known)), rows[known, place].astype(int)]
                least[known] = np.minimum(least[known], own)
        return least

    def _schema(self) -> Any:
        return getattr(self, "schema_", None)

    def _places(self, X: Any) -> list[list[int]]:
        """Return the encoded columns that belong to each column of a table."""
        check_is_fitted(self)
        schema = self._schema()
        if schema is None:
            return [[j] for j in range(self.n_features_in_)]  # type: ignore[attr-defined]
        return schema.places

    def _n_levels(self, place: int) -> int:
        """Return how many levels an encoded column has, 0 of numbers."""
        schema = self._schema()
        if schema is None or place < schema.n_numbers:
            return 0
        return schema.n_levels[place - schema.n_numbers]

    def _encoded(self, X: Any, dtype: Any) -> tuple[np.ndarray, Any]:
        """Return rows as numbers, which may be missing, and the log probability of unseen codes."""
        check_is_fitted(self)
        schema = self._schema()
        if schema is None:
            return self._holed_rows(X, dtype), 0.0
        validate_data(self, X, reset=False, skip_check_array=True)
        return schema.encode(X)

    def _holed_rows(self, X: Any, dtype: Any) -> np.ndarray:
        """Check rows that may have missing values."""
        check_is_fitted(self)
        with np.errstate(all="ignore"), naming_columns(X):
            X = validate_data(self, X, dtype=dtype, reset=False, ensure_all_finite="allow-nan")
        return self._holed(X)

    def _holed(self, X: np.ndarray) -> np.ndarray:
        """Refuse missing values where the base has no conditionals."""
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
