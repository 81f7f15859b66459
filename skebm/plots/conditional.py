"""What one value of a row would be, given the others."""

from __future__ import annotations

__all__ = ["ConditionalDisplay"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from skebm._components import check_number
from skebm._tables import naming_columns
from skebm.estimators._conditional import column_numbers
from skebm.plots._display import Display

SHOWN = 0.005, 0.995  # of the draws: with all, tails would make the rest a line
N_DRAWS, WIDTH = 512, 0.5  # of what is hidden; how far the axis goes on beyond them, of their range


@dataclass(kw_only=True, eq=False, repr=False)
class ConditionalDisplay(Display):
    """Density of one column given the rest of a row, with its interval and the row's own value.

    Use `from_estimator` to compute one. Keywords go to ``Axes.plot``.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Values of the column, its units.
    density : ndarray of shape (m,)
        Their density given the rest, one per unit of the column.
    interval : tuple of float
        Ends of the middle part, units of the column.
    level : float
        How much it holds, from 0 to 1.
    value : float
        The row's own value; nan where it has none.
    xlabel : str, default="value"
        Name of the column.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from skebm import USPDensity
    >>> from skebm.plots import ConditionalDisplay
    >>> X = np.random.RandomState(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 400)
    >>> est = USPDensity(max_iter=25, random_state=0).fit(X)
    >>> ax = Figure().subplots()
    >>> display = ConditionalDisplay.from_estimator(est, [2.0, -2.0], column=1, ax=ax)
    >>> bool(display.interval[0] > display.value)
    True
    """

    values: np.ndarray
    density: np.ndarray
    interval: tuple[float, float]
    level: float
    value: float
    xlabel: str = "value"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        row: Any,
        *,
        column: int | str = 0,
        level: float = 0.9,
        grid_resolution: int = 200,
        ax: Any = None,
        **kwargs: Any,
    ) -> ConditionalDisplay:
        """Compute the conditional density of one column of a row and draw it.

        Parameters
        ----------
        estimator : density estimator
            Fitted, of skebm, with a base that has conditional densities.
        row : array-like of shape (d,)
            The row, units of X; its value in the column is marked, other missing values are
            averaged over.
        column : int or str, default=0
            The column, by number or name.
        level : float, default=0.9
            How much the interval holds, in (0, 1).
        grid_resolution : int, default=200
            Values at which the density is computed, at least 10.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        ConditionalDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If the row or an option is unfit, or the base has no conditional densities.
        """
        cls._pyplot()
        check_number("level", level, low=0, high=1, open_low=True)
        check_number("grid_resolution", grid_resolution, low=10, integer=True)
        with naming_columns(row):
            row = np.array(row, dtype=np.float64).reshape(1, -1)
        names = getattr(estimator, "feature_names_in_", None)
        (j,) = column_numbers([column], names, row.shape[1])
        hidden = row.copy()
        hidden[0, j] = np.nan
        drawn = estimator.conditional_sample(hidden, N_DRAWS, random_state=0)[0, :, j]
        low, high = np.quantile(drawn, SHOWN)
        wider = WIDTH * (high - low)
        values = np.linspace(low - wider, high + wider, grid_resolution)
        rows = np.repeat(row, grid_resolution, axis=0)
        rows[:, j] = values
        log_density = estimator.score_samples(rows)
        density = np.exp(log_density - log_density.max())
        density /= np.trapezoid(density, values)
        return cls(
            values=values,
            density=density,
            interval=tuple(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])),
            level=level,
            value=float(row[0, j]),
            xlabel=str(column) if isinstance(column, str) else f"column {j}",
        ).plot(ax=ax, **kwargs)

    def _draw(self, **kwargs: Any) -> None:
        low, high = self.interval
        self.ax_.plot(self.values, self.density, **{"color": "tab:blue", **kwargs})
        text = f"{100 * self.level:g} %: {low:.3g} to {high:.3g}"
        self.ax_.axvspan(low, high, color="tab:blue", alpha=0.15, label=text)
        if np.isfinite(self.value):
            label = f"the row's value: {self.value:.3g}"
            self.ax_.axvline(self.value, color="tab:orange", label=label)
        self.ax_.set(xlabel=self.xlabel, ylabel="density given the rest", ylim=(0, None))
        self.ax_.legend()
