"""A fitted density as a curve (one column) or as filled contours (two columns)."""

from __future__ import annotations

__all__ = ["DensityDisplay"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array

from skebm._components import check_number
from skebm.plots._display import Display
from skebm.plots._slices import (
    check_density,
    choose_columns,
    column_names,
    draw_contours,
    finite_maximum,
    grid_axis,
    slice_log_density,
)


@dataclass(kw_only=True, eq=False, repr=False)
class DensityDisplay(Display):
    """Picture of a density over one or two columns.

    One column: the density, with a rug of the rows. Two columns: filled contours of the log
    density, colors spanning 12 nats below the maximum, with the rows as dots. Use
    `from_estimator` to compute one. Keywords go to ``Axes.plot`` (one column) or ``Axes.contourf``.

    Parameters
    ----------
    xx0 : ndarray of shape (g,)
        Grid along the first column, in the units of X.
    log_density : ndarray of shape (g,) or (g, g)
        Log density on the grid, in nats; first axis along `xx1`, second along `xx0`.
    X : ndarray of shape (n, 1) or (n, 2)
        Rows to show, in the columns of the grid.
    xx1 : ndarray of shape (g,), default=None
        Grid along the second column; ``None`` for a curve.
    samples : ndarray of shape (m, 1) or (m, 2), default=None
        Rows drawn from the model.
    xlabel, ylabel : str, default=None
        Names of the columns.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn.neighbors import KernelDensity
    >>> from skebm.datasets import two_moons
    >>> from skebm.plots import DensityDisplay
    >>> X = two_moons().sample(100, random_state=0)
    >>> display = DensityDisplay.from_estimator(
    ...     KernelDensity(bandwidth=0.2).fit(X), X, grid_resolution=20, ax=Figure().subplots()
    ... )
    >>> display.log_density.shape
    (20, 20)
    """

    xx0: np.ndarray
    log_density: np.ndarray
    X: np.ndarray
    xx1: np.ndarray | None = None
    samples: np.ndarray | None = None
    xlabel: str | None = None
    ylabel: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        features: Sequence[int | str] | None = None,
        grid_resolution: int = 100,
        n_samples: int = 0,
        ax: Any = None,
        random_state: Any = None,
        **kwargs: Any,
    ) -> DensityDisplay:
        """Evaluate a fitted estimator on a grid around `X` and draw it.

        Parameters
        ----------
        estimator : object
            Fitted, with ``score_samples(X)`` in nats, and ``sample(n_samples, random_state=...)``
            if `n_samples` is not 0.
        X : array-like or DataFrame of shape (n, d)
            Rows to show; the grid reaches 10 % of their range beyond them.
        features : sequence of two int or str, default=None
            The columns to draw, by position or, of a DataFrame, by name; needed if d > 2, where the
            picture is a *slice*: the other columns stay at their median over `X`, though all rows
            and samples are shown.
        grid_resolution : int, default=100
            Grid points per column, >= 2. The cost is its square where d > 1.
        n_samples : int, default=0
            Rows to draw from the model and show.
        random_state : int, RandomState or None, default=None
            Passed to ``estimator.sample``.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        DensityDisplay
            The picture, with what was computed.

        Raises
        ------
        TypeError
            If the estimator cannot do what is asked, or a count is not an integer.
        ValueError
            If `X` is no finite table, or `features` does not name two of its columns.
        """
        cls._pyplot()
        check_number("n_samples", n_samples, low=0, integer=True, remedy="Try 200.")
        methods = ("score_samples", "sample") if n_samples else ("score_samples",)
        check_density(estimator, grid_resolution, methods)
        rows = check_array(X, dtype=np.float64)
        n_features = rows.shape[1]
        if features is None and n_features <= 2:
            columns = list(range(n_features))
        else:
            columns = choose_columns(features, X, n_features, most=2)
        shown, samples = rows[:, columns], None
        if n_samples:
            samples = np.asarray(estimator.sample(n_samples, random_state=random_state))[:, columns]
        axes = [grid_axis(rows[:, j], grid_resolution) for j in columns]
        row = np.median(rows, axis=0)
        names = column_names(X, columns)
        display = cls(
            xx0=axes[0],
            log_density=slice_log_density(estimator, X, row, columns, axes),
            X=shown,
            xx1=axes[1] if len(axes) == 2 else None,
            samples=samples,
            xlabel=names[0],
            ylabel=names[1] if len(names) == 2 else None,
        )
        return display.plot(ax=ax, **kwargs)

    def _prepare(self) -> None:
        finite_maximum(self.log_density)

    def _draw(self, **kwargs: Any) -> None:
        if self.xx1 is None:
            self._plot_curve(**kwargs)
        else:
            self._plot_contours(self.xx1, **kwargs)
        self.ax_.set(xlabel=self.xlabel, ylabel="density" if self.xx1 is None else self.ylabel)
        if self.samples is not None:
            self.ax_.legend(loc="upper right")

    def _plot_curve(self, **kwargs: Any) -> None:
        self.ax_.plot(self.xx0, np.exp(self.log_density), **{"label": "model", **kwargs})
        if self.samples is not None:
            style = {"bins": 50, "density": True, "histtype": "step", "color": "tab:orange"}
            self.ax_.hist(self.samples[:, 0], **style, label="samples")
        rug = self.ax_.get_xaxis_transform()  # y in shares of the height
        self.ax_.plot(self.X[:, 0], np.full(len(self.X), 0.02), "k|", transform=rug, alpha=0.5)
        self.ax_.set_ylim(bottom=0)

    def _plot_contours(self, xx1: np.ndarray, **kwargs: Any) -> None:
        drawn = draw_contours(self.ax_, self.xx0, xx1, self.log_density, **kwargs)
        self.figure_.colorbar(drawn, ax=self.ax_, label="log density (nats)", format="%.1f")
        self.ax_.scatter(*self.X.T, s=4, color="black", label="data")
        if self.samples is not None:
            self.ax_.scatter(*self.samples.T, s=4, color="tab:orange", label="samples")
