"""What every picture does: import matplotlib when it is drawn, take axes or make them."""

from __future__ import annotations

__all__ = ["Display", "draw_bars", "panels"]

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np

D = TypeVar("D", bound="Display")


class Display(ABC):
    """A picture that keeps what it draws, in scikit-learn's Display convention.

    It is a dataclass of what it draws. Class methods ``from_...`` compute that and `plot` it.
    """

    def plot(self: D, ax: Any = None, **kwargs: Any) -> D:
        """Draw what is stored.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, also beside what is there; several panels take its place. ``None`` makes
            a figure.
        **kwargs
            Passed to the method of matplotlib's Axes that the class names, for all that it draws.

        Returns
        -------
        Display
            Itself, with `figure_`, with `ax_` or the `axes_` of several panels, and with what was
            counted.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError, TypeError
            If what is stored cannot be drawn; no figure is made then.
        """
        plt = self._pyplot()
        self._prepare()
        self._place(plt, ax)
        self._draw(**kwargs)
        return self

    @classmethod
    def _pyplot(cls) -> Any:
        """Return ``matplotlib.pyplot``; ``from_estimator`` asks for it before it computes."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                f"{cls.__name__} needs matplotlib. Install it with `pip install skebm[plot]`."
            ) from error
        return plt

    def _prepare(self) -> None:  # noqa: B027  (a picture may have nothing to check)
        """Check what is stored and count what the picture tells."""

    def _place(self, plt: Any, ax: Any) -> None:
        self.ax_ = plt.subplots(layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure

    @abstractmethod
    def _draw(self, **kwargs: Any) -> None:
        """Draw on the axes."""


def draw_bars(
    ax: Any, heights: np.ndarray, edges: np.ndarray, color: str, label: str, **kwargs: Any
) -> None:
    """Draw one of two histograms that lie over each other."""
    style = {"fill": True, "alpha": 0.5, "color": f"tab:{color}", "label": label, **kwargs}
    ax.stairs(heights, edges, **style)


def panels(plt: Any, ax: Any, n_rows: int, n_columns: int, **figure: Any) -> np.ndarray:
    """Return axes (n_rows, n_columns) in a figure of their own or in the place of the given ones.

    Parameters
    ----------
    plt : module
        ``matplotlib.pyplot``.
    ax : matplotlib Axes or None
        Whose place the panels take; a single panel is the axes themselves.
    n_rows, n_columns : int
        Panels.
    **figure
        Passed to ``plt.figure`` where `ax` is None.

    Returns
    -------
    ndarray of shape (n_rows, n_columns) of matplotlib Axes
        First row above.
    """
    if ax is None:
        return plt.figure(layout="constrained", **figure).subplots(n_rows, n_columns, squeeze=False)
    if n_rows == n_columns == 1:
        return np.array([[ax]])
    ax.set_axis_off()
    places = [_intervals(n_columns), _intervals(n_rows)[::-1]]
    return np.array([[ax.inset_axes([x, y, w, h]) for x, w in places[0]] for y, h in places[1]])


def _intervals(n: int) -> list[tuple[float, float]]:
    """Starts and lengths of n intervals in [0, 1] with gaps between them."""
    gap = 0.16 / n
    length = (1 - (n - 1) * gap) / n
    return [(i * (length + gap), length) for i in range(n)]
