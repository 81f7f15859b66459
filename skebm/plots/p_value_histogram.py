"""P-values of inliers, uniform where the detector keeps its promise, and of novelties."""

from __future__ import annotations

__all__ = ["PValueHistogramDisplay"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from skebm._components import check_number
from skebm.plots._display import Display, draw_bars
from skebm.plots._scores import bin_shares, check_scores, last_step

ALPHA = 0.05  # level of a detector that has none


@dataclass(kw_only=True, eq=False, repr=False)
class PValueHistogramDisplay(Display):
    """Histogram of the p-values of inliers, and of novelties, with the uniform line and a level.

    P-values of inliers are uniform if the detector is valid: their bars stay at 1. Those of
    novelties gather near 0. Use `from_estimator` or `from_predictions` to compute one. Keywords
    go to ``Axes.stairs``.

    Parameters
    ----------
    p_in : ndarray of shape (n_in,)
        P-values of inliers, in [0, 1].
    p_out : ndarray of shape (n_out,), default=None
        P-values of novelties.
    alpha : float, default=0.05
        Level, in [0, 1]: rows whose p-value is at most this are flagged.
    bins : int, default=20
        Bins of equal width over [0, 1].

    Attributes
    ----------
    edges_ : ndarray of shape (bins + 1,)
        Edges of the bins, dimensionless.
    shares_in_, shares_out_ : ndarray of shape (bins,) or None
        Shares of the rows of each group in the bins; each sums to 1.
    false_alarm_rate_, detection_rate_ : float or None
        Shares of inliers and of novelties whose p-value is at most `alpha`.
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import PValueHistogramDisplay
    >>> display = PValueHistogramDisplay.from_predictions(
    ...     np.linspace(0.01, 1, 100), [0.01, 0.02, 0.2], ax=Figure().subplots()
    ... )
    >>> display.false_alarm_rate_, round(display.detection_rate_, 2)
    (0.05, 0.67)
    """

    p_in: np.ndarray
    p_out: np.ndarray | None = None
    alpha: float = ALPHA
    bins: int = 20

    @classmethod
    def from_estimator(
        cls,
        detector: Any,
        X_in: Any,
        X_out: Any = None,
        *,
        alpha: float | None = None,
        bins: int = 20,
        ax: Any = None,
        **kwargs: Any,
    ) -> PValueHistogramDisplay:
        """Ask a fitted detector for the p-values of rows and draw them.

        Parameters
        ----------
        detector : object
            Fitted, with ``p_value(X)``: `skebm.ood.ConformalNoveltyDetector`, say; or a pipeline
            that ends in one, or a search over one.
        X_in : array-like of shape (n_in, d)
            Inliers that the detector was not fitted on.
        X_out : array-like of shape (n_out, d), default=None
            Novelties.
        alpha : float, default=None
            Level; ``None`` takes the detector's ``alpha``, 0.05 where it has none.
        bins : int, default=20
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        PValueHistogramDisplay
            The picture, with the p-values.

        Raises
        ------
        TypeError
            If the detector has no ``p_value``.
        ValueError
            If p-values are not one-dimensional and in [0, 1], or an option is unfit.
        """
        cls._pyplot()
        detector, X_in, X_out = last_step(detector, X_in, X_out)
        if not hasattr(detector, "p_value"):
            raise TypeError(
                f"detector must have the method p_value, got {type(detector).__name__}. "
                "Wrap it in ConformalNoveltyDetector."
            )
        p_out = None if X_out is None else detector.p_value(X_out)
        alpha = getattr(detector, "alpha", ALPHA) if alpha is None else alpha
        options: dict[str, Any] = {"alpha": alpha, "bins": bins, "ax": ax}
        return cls.from_predictions(detector.p_value(X_in), p_out, **options, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        p_in: Any,
        p_out: Any = None,
        *,
        alpha: float = ALPHA,
        bins: int = 20,
        ax: Any = None,
        **kwargs: Any,
    ) -> PValueHistogramDisplay:
        """Draw p-values that were computed elsewhere.

        Parameters
        ----------
        p_in : array-like of shape (n_in,)
            P-values of inliers, in [0, 1].
        p_out : array-like of shape (n_out,), default=None
            P-values of novelties.
        alpha, bins : float, int
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        PValueHistogramDisplay
            The picture, with the p-values.

        Raises
        ------
        ValueError, TypeError
            If p-values are not one-dimensional and in [0, 1], or an option is unfit.
        """
        p_in = _p_values("p_in", p_in)
        p_out = None if p_out is None else _p_values("p_out", p_out)
        return cls(p_in=p_in, p_out=p_out, alpha=alpha, bins=bins).plot(ax=ax, **kwargs)

    def _prepare(self) -> None:
        check_number("bins", self.bins, low=1, integer=True)
        check_number("alpha", self.alpha, low=0, high=1)
        self.edges_ = np.linspace(0, 1, int(self.bins) + 1)
        self.shares_in_, self.false_alarm_rate_ = self._count(self.p_in)
        self.shares_out_ = self.detection_rate_ = None
        if self.p_out is not None:
            self.shares_out_, self.detection_rate_ = self._count(self.p_out)

    def _draw(self, **kwargs: Any) -> None:
        groups: list[tuple[Any, ...]] = [
            ("inliers", "blue", self.p_in, self.shares_in_, self.false_alarm_rate_),
            ("novelties", "orange", self.p_out, self.shares_out_, self.detection_rate_),
        ]
        for name, color, p, shares, rate in groups[: 1 + (self.p_out is not None)]:
            label = f"{len(p)} {name}, {rate:.1%} flagged"
            draw_bars(self.ax_, shares * self.bins, self.edges_, color, label, **kwargs)
        self.ax_.axhline(1, color="black", linewidth=1, label="uniform")
        self.ax_.axvline(self.alpha, color="black", linestyle="--", label=f"alpha {self.alpha:g}")
        self.ax_.set(xlabel="p-value", ylabel="density", xlim=(0, 1))
        self.ax_.legend(fontsize="small")

    def _count(self, p: np.ndarray) -> tuple[np.ndarray, float]:
        return bin_shares(p, self.edges_), float(np.mean(p <= self.alpha))


def _p_values(name: str, values: Any) -> np.ndarray:
    values = check_scores(name, values, "Look at the scores behind them.")
    outside = values[(values < 0) | (values > 1)]
    if len(outside):
        raise ValueError(
            f"{name} must be between 0 and 1, got {outside[0]:g} ({len(outside)} of {len(values)} "
            "values are outside). Pass p-values, not scores."
        )
    return values
