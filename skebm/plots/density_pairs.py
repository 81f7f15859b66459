"""Log density over all pairs of a few columns, as slices through one row."""

from __future__ import annotations

__all__ = ["DensityPairsDisplay"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import check_array

from skebm.plots._display import Display, panels
from skebm.plots._slices import (
    check_density,
    choose_columns,
    column_names,
    draw_contours,
    finite_maximum,
    grid_axis,
    slice_log_density,
)

MOST_COLUMNS = 4  # ten panels; more would be too small to read


@dataclass(kw_only=True, eq=False, repr=False)
class DensityPairsDisplay(Display):
    """Pictures of a log density over pairs of columns, the other columns held at one row.

    Below the diagonal: filled contours over two columns, colors spanning 12 nats below the maximum
    of the panel, with the rows as faint dots. On the diagonal: the density of one column,
    normalized over the range shown. All are slices through `at`, so they are conditional
    densities given the other columns, not marginal ones. Use `from_estimator` to compute one.
    Keywords go to ``Axes.contourf``.

    Parameters
    ----------
    grids : list of ndarray of shape (g,)
        Grid along each of the k columns, in the units of X.
    log_density : dict of (int, int) to ndarray of shape (g,) or (g, g)
        Log density in nats, by panel (row, column) of the picture: one axis on the diagonal
        ``(i, i)``; below it, first axis along column i and second along column j of ``(i, j)``.
    X : ndarray of shape (n, k)
        Rows to show.
    at : ndarray of shape (k,)
        Where the slices cross, in the units of X.
    names : list of str
        Names of the k columns.

    Attributes
    ----------
    axes_ : ndarray of shape (k, k) of matplotlib Axes
        Panels; those above the diagonal are hidden, but for the scale of colors in the last.
    figure_ : matplotlib Figure
        Figure of the panels.

    Notes
    -----
    Rows are shown whatever their other columns are, so they need not lie where a slice is dense.
    The cost is that of ``k (k - 1) / 2`` grids.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import DensityPairsDisplay
    >>> X = np.random.RandomState(0).randn(100, 3)
    >>> estimator = GaussianMixture(random_state=0).fit(X)
    >>> display = DensityPairsDisplay.from_estimator(
    ...     estimator, X, grid_resolution=10, ax=Figure().subplots()
    ... )
    >>> display.log_density[2, 0].shape
    (10, 10)
    """

    grids: list[np.ndarray]
    log_density: dict[tuple[int, int], np.ndarray]
    X: np.ndarray
    at: np.ndarray
    names: list[str]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        features: Sequence[int | str] | None = None,
        at: Any = None,
        grid_resolution: int = 50,
        ax: Any = None,
        **kwargs: Any,
    ) -> DensityPairsDisplay:
        """Evaluate a fitted estimator on slices and draw them.

        Parameters
        ----------
        estimator : object
            Fitted, with ``score_samples(X)`` in nats.
        X : array-like or DataFrame of shape (n, d)
            Rows to show; the grids reach 10 % of their range beyond them.
        features : sequence of int or str, default=None
            Two to four columns, by position or, of a DataFrame, by name; ``None`` takes the first
            four.
        at : array-like of shape (d,), default=None
            Row through which the slices go, in the units of X; ``None`` takes the median of `X`.
        grid_resolution : int, default=50
            Grid points per column, >= 2. The cost is its square.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        DensityPairsDisplay
            The picture, with what was computed.

        Raises
        ------
        TypeError
            If the estimator has no ``score_samples``, or a count is not an integer.
        ValueError
            If `X` is no finite table of at least two columns, `at` no finite row of it, `features`
            does not name two to four of its columns, or the density is 0 all over a slice.
        """
        cls._pyplot()
        check_density(estimator, grid_resolution, ("score_samples",))
        rows = check_array(X, dtype=np.float64)
        n_features = rows.shape[1]
        if n_features < 2:
            raise ValueError(
                f"X must have at least 2 columns, got {n_features}. Use DensityDisplay for one."
            )
        features = range(min(n_features, MOST_COLUMNS)) if features is None else features
        columns = choose_columns(features, X, n_features, MOST_COLUMNS)
        row = np.median(rows, axis=0) if at is None else _row(at, n_features)
        grids = [grid_axis(np.append(rows[:, j], row[j]), grid_resolution) for j in columns]
        log_density = {}
        for i, j in zip(*np.tril_indices(len(columns)), strict=True):
            moving = [j, i] if j < i else [i]
            picked, axes = [columns[k] for k in moving], [grids[k] for k in moving]
            log_density[int(i), int(j)] = slice_log_density(estimator, X, row, picked, axes)
        names = column_names(X, columns)
        options: dict[str, Any] = {"X": rows[:, columns], "at": row[columns], "names": names}
        return cls(grids=grids, log_density=log_density, **options).plot(ax=ax, **kwargs)

    def _prepare(self) -> None:
        remedy = f"Choose another `at`: the density is 0 all over a slice through {self.at}."
        for values in self.log_density.values():
            finite_maximum(values, remedy)

    def _place(self, plt: Any, ax: Any) -> None:
        k = len(self.grids)
        side = 1.5 + 1.8 * k  # inches
        self.axes_ = panels(plt, ax, k, k, figsize=(side, side))
        self.figure_ = self.axes_[0, 0].figure

    def _draw(self, **kwargs: Any) -> None:
        for (i, j), log_density in self.log_density.items():
            below_top = log_density - np.max(log_density)
            if i == j:
                self._plot_curve(i, below_top)
            else:
                drawn = self._plot_contours(i, j, below_top, **kwargs)
        for panel in self.axes_[np.triu_indices(len(self.grids), 1)]:
            panel.set_axis_off()
        self._label()
        self._plot_scale(drawn)

    def _plot_scale(self, drawn: Any) -> None:
        corner = self.axes_[0, -1]
        corner.set_title("slices through\nthe red cross", fontsize="small", loc="left")
        scale = corner.inset_axes([0.1, 0.02, 0.1, 0.96])
        bar = self.figure_.colorbar(drawn, cax=scale, format="%g", ticks=[-12, -8, -4, 0])
        bar.set_label("nats below\npanel maximum", fontsize="small")

    def _plot_contours(self, i: int, j: int, values: np.ndarray, **kwargs: Any) -> Any:
        panel = self.axes_[i, j]
        drawn = draw_contours(panel, self.grids[j], self.grids[i], values, **kwargs)
        panel.scatter(self.X[:, j], self.X[:, i], s=3, color="black", alpha=0.25, linewidth=0)
        panel.plot(self.at[j], self.at[i], "+", color="tab:red", markersize=8)
        panel.set(xlim=self.grids[j][[0, -1]], ylim=self.grids[i][[0, -1]])
        return drawn

    def _plot_curve(self, i: int, values: np.ndarray) -> None:
        panel, grid = self.axes_[i, i], self.grids[i]
        density = np.exp(values)
        panel.plot(grid, density / trapezoid(density, grid))
        panel.axvline(self.at[i], color="tab:red", linewidth=0.8)
        panel.set(xlim=grid[[0, -1]], yticks=[])
        panel.set_ylim(bottom=0)

    def _label(self) -> None:
        """Name columns at the left and at the bottom only."""
        k = len(self.grids)
        for i in range(k):
            for j in range(i + 1):
                self.axes_[i, j].tick_params(labelbottom=i == k - 1, labelleft=j == 0)
            self.axes_[k - 1, i].set_xlabel(self.names[i])
            self.axes_[i, 0].set_ylabel(self.names[i] if i else "density")


def _row(at: Any, n_features: int) -> np.ndarray:
    row = np.asarray(at, dtype=np.float64)
    if row.shape != (n_features,) or not np.isfinite(row).all():
        raise ValueError(
            f"at must be a finite row of {n_features} values, got {at!r}. Take a row of X."
        )
    return row
