"""The course of a fit: held-out log likelihood and training losses."""

from __future__ import annotations

__all__ = ["HistoryDisplay"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from skebm.plots._display import Display, panels

HELD_OUT = "validation"
TRAINING = ("cd_bracket", "noise_bracket", "loss", "lower_bound")


@dataclass(kw_only=True, eq=False, repr=False)
class HistoryDisplay(Display):
    """Picture of the rows of ``history_``.

    The held-out log likelihood ``"validation"`` has axes of its own; everything else shares the
    axes below. A dotted line stands where another phase of training begins: at a row whose
    iteration does not rise above that of the row before. Use `from_estimator` to make one.
    Keywords go to ``Axes.plot``.

    Parameters
    ----------
    curves : dict of str to (ndarray of shape (m,), ndarray of shape (m,))
        For each key its iterations and its values; m may differ between keys. Where iterations
        fall back, they continue from the last iteration of the phase before.
    boundaries : ndarray of shape (b,), default=()
        Iterations where another phase begins.

    Attributes
    ----------
    axes_ : ndarray of shape (1,) or (2,) of matplotlib Axes
        Axes with the curves, the held-out one first.
    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import HistoryDisplay
    >>> rows = [{"iteration": 1, "loss": 0.5}, {"iteration": 2, "loss": 0.4, "validation": -1.2}]
    >>> fitted = SimpleNamespace(history_=rows)
    >>> display = HistoryDisplay.from_estimator(fitted, ax=Figure().subplots())
    >>> sorted(display.curves)
    ['loss', 'validation']
    """

    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    boundaries: Sequence[float] | np.ndarray = ()

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, keys: Sequence[str] | None = None, ax: Any = None, **kwargs: Any
    ) -> HistoryDisplay:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : object
            Fitted, with ``history_``: a list of dicts, each with ``"iteration"`` and any numbers;
            a row may lack a key.
        keys : sequence of str, default=None
            What to draw; ``None`` means ``"validation"``, ``"cd_bracket"``, ``"noise_bracket"``,
            ``"loss"`` and ``"lower_bound"``, as far as they are there, or where none of them is
            all numbers that are.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        HistoryDisplay
            The picture, with its curves.

        Raises
        ------
        NotFittedError
            If the estimator has no ``history_``.
        ValueError
            If the history holds none of the keys, or lacks one that was asked for.
        """
        cls._pyplot()
        if not hasattr(estimator, "history_"):
            raise NotFittedError(
                f"estimator must have history_, got {type(estimator).__name__} without. "
                "Call fit first."
            )
        return cls(**_curves(estimator.history_, keys)).plot(ax=ax, **kwargs)

    def _place(self, plt: Any, ax: Any) -> None:
        self.axes_ = panels(plt, ax, len(self._groups()), 1)[:, 0]
        self.figure_ = self.axes_[0].figure
        for panel in self.axes_[:-1]:
            panel.sharex(self.axes_[-1])
            panel.tick_params(labelbottom=False)

    def _groups(self) -> list[list[str]]:
        """Keys by panel."""
        held_out = [key for key in self.curves if key == HELD_OUT]
        return [keys for keys in (held_out, [k for k in self.curves if k != HELD_OUT]) if keys]

    def _draw(self, **kwargs: Any) -> None:
        for panel, keys in zip(self.axes_, self._groups(), strict=True):
            for key in keys:
                iterations, values = self.curves[key]
                marker = "." if len(values) == 1 else None  # a line needs two points
                panel.plot(iterations, values, **{"label": key, "marker": marker, **kwargs})
            for number, boundary in enumerate(self.boundaries):
                label = "_" if number else "next phase"  # one entry in the legend
                panel.axvline(boundary, color="0.5", linestyle=":", label=label)
            if keys == [HELD_OUT]:
                panel.set_ylabel("held-out log\nlikelihood (nats)")
            else:
                panel.legend()
        self.axes_[-1].set_xlabel("iteration")


def _curves(history: list[dict], keys: Sequence[str] | None) -> dict:
    present = sorted({k for row in history for k, value in row.items() if value is not None})
    if keys is None:
        usual = [key for key in (HELD_OUT, *TRAINING) if key in present]
        wanted = usual or [key for key in present if key != "iteration"]
    else:
        wanted = list(keys)
    missing = [key for key in wanted if key not in present]
    if not wanted or missing or "iteration" not in present:
        raise ValueError(
            f"keys must name entries of history_ beside 'iteration', got {keys!r} where history_ "
            f"holds {present}. Choose among those."
        )
    iterations, boundaries = _continued([row["iteration"] for row in history])
    curves = {}
    for key in wanted:
        kept = [i for i, row in enumerate(history) if row.get(key) is not None]
        values = np.array([history[i][key] for i in kept], dtype=np.float64)
        curves[key] = iterations[kept], values
    return {"curves": curves, "boundaries": boundaries}


def _continued(iterations: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Iterations on one axis that never falls, and where on it another phase begins."""
    steps = np.array(iterations)
    rises = np.diff(steps)
    passed = np.where(rises < 0, steps[:-1], 0).cumsum()  # by phases that began anew
    continued = steps + np.concatenate([[0], passed]).astype(steps.dtype)
    return continued, continued[:-1][rises <= 0]
