"""Scores of in-distribution rows beside those of novelties, and the threshold between them."""

from __future__ import annotations

__all__ = ["ScoreHistogramDisplay"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from skebm._components import check_number
from skebm.plots._display import Display, draw_bars
from skebm.plots._scores import bin_shares, check_scores, estimator_scores, last_step

CENTRAL = (0.005, 0.995)  # quantiles of each group that the bins span, if within reach
REACH = 3.0  # widths of the in-distribution range that the bins may go beyond it on either side


@dataclass(kw_only=True, eq=False, repr=False)
class ScoreHistogramDisplay(Display):
    """Histograms of the scores of in-distribution rows and of novelties, with a threshold.

    Use `from_estimator` or `from_predictions` to compute one. Keywords go to ``Axes.stairs``.

    Parameters
    ----------
    score_in : ndarray of shape (n_in,)
        Scores of in-distribution rows, higher for inliers.
    score_out : ndarray of shape (n_out,)
        Scores of novelties.
    threshold : float, default=None
        Rows that score less are flagged; units of the scores. ``None`` draws no threshold.
    bins : int, default=40
        Bins of equal width, common to both. They span the central 99 % of each group, but go no
        further from those of the in-distribution rows than three times their range; they take in
        the threshold. What is outside counts in the outermost bins, and the label says how much.
    xlabel : str, default="score (higher: more normal)"
        What the scores are: ``"log density (nats)"``, say.

    Attributes
    ----------
    edges_ : ndarray of shape (bins + 1,)
        Edges of the bins, units of the scores.
    shares_in_, shares_out_ : ndarray of shape (bins,)
        Shares of the rows of each group in the bins; each sums to 1.
    false_alarm_rate_, detection_rate_ : float or None
        Shares of in-distribution rows and of novelties below the threshold.
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import ScoreHistogramDisplay
    >>> display = ScoreHistogramDisplay.from_predictions(
    ...     np.linspace(-2, 0, 50),
    ...     np.linspace(-4000, -1, 20),
    ...     threshold=-1.9,
    ...     ax=Figure().subplots(),
    ... )
    >>> display.false_alarm_rate_, display.detection_rate_
    (0.06, 0.95)
    """

    score_in: np.ndarray
    score_out: np.ndarray
    threshold: float | None = None
    bins: int = 40
    xlabel: str = "score (higher: more normal)"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_in: Any,
        X_out: Any,
        *,
        threshold: float | None = None,
        bins: int = 40,
        xlabel: str = "score (higher: more normal)",
        ax: Any = None,
        **kwargs: Any,
    ) -> ScoreHistogramDisplay:
        """Score rows with a fitted estimator and draw the histograms.

        Parameters
        ----------
        estimator : object
            Fitted, with ``score_samples(X)``, higher for inliers.
        X_in : array-like of shape (n_in, d)
            In-distribution rows that the estimator was not fitted on.
        X_out : array-like of shape (n_out, d)
            Novelties.
        threshold : float, default=None
            Rows that score less are flagged; ``None`` takes ``offset_`` of the estimator, or of the
            last step of a pipeline, or of the best estimator of a search. It draws none where there
            is none, nor where it is one of p-values: ConformalNoveltyDetector with `cv`, `weight`
            or random ties; see `PValueHistogramDisplay`.
        bins, xlabel : int, str
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        ScoreHistogramDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If the estimator has no ``score_samples``, a score is not finite, or an option is unfit.
        """
        cls._pyplot()
        display = cls(
            score_in=estimator_scores("score_samples(X_in)", estimator, X_in),
            score_out=estimator_scores("score_samples(X_out)", estimator, X_out),
            threshold=_offset(estimator) if threshold is None else threshold,
            bins=bins,
            xlabel=xlabel,
        )
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        score_in: Any,
        score_out: Any,
        *,
        threshold: float | None = None,
        bins: int = 40,
        xlabel: str = "score (higher: more normal)",
        ax: Any = None,
        **kwargs: Any,
    ) -> ScoreHistogramDisplay:
        """Draw scores that were computed elsewhere.

        Parameters
        ----------
        score_in : array-like of shape (n_in,)
            Scores of in-distribution rows, higher for inliers; any unit.
        score_out : array-like of shape (n_out,)
            Scores of novelties.
        threshold : float, default=None
            Rows that score less are flagged; ``None`` draws none.
        bins, xlabel : int, str
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        ScoreHistogramDisplay
            The picture, with the scores.

        Raises
        ------
        ValueError, TypeError
            If scores are not one-dimensional and finite, or an option is unfit.
        """
        remedy = "Look at the rows that they belong to."
        score_in = check_scores("score_in", score_in, remedy)
        score_out = check_scores("score_out", score_out, remedy)
        options: dict[str, Any] = {"threshold": threshold, "bins": bins, "xlabel": xlabel}
        return cls(score_in=score_in, score_out=score_out, **options).plot(ax=ax, **kwargs)

    def _prepare(self) -> None:
        check_number("bins", self.bins, low=1, integer=True)
        if self.threshold is not None:
            check_number("threshold", self.threshold)
        self._count()

    def _draw(self, **kwargs: Any) -> None:
        inliers = self._label("inliers", self.score_in, self.false_alarm_rate_, "false alarms")
        novelties = self._label("novelties", self.score_out, self.detection_rate_, "detected")
        draw_bars(self.ax_, self.shares_in_, self.edges_, "blue", inliers, **kwargs)
        draw_bars(self.ax_, self.shares_out_, self.edges_, "orange", novelties, **kwargs)
        if self.threshold is not None:
            label = f"threshold {self.threshold:.4g}"
            self.ax_.axvline(self.threshold, color="black", linestyle="--", label=label)
        self.ax_.set(xlabel=self.xlabel + self._beyond(), ylabel="share of rows per bin")
        self.ax_.legend(fontsize="small")

    def _count(self) -> None:
        low, high = _span(self.score_in, self.score_out)
        self.false_alarm_rate_ = self.detection_rate_ = None
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
            self.false_alarm_rate_ = float(np.mean(self.score_in < self.threshold))
            self.detection_rate_ = float(np.mean(self.score_out < self.threshold))
        self.edges_ = np.histogram_bin_edges([low, high], bins=int(self.bins))
        self.shares_in_ = bin_shares(self.score_in, self.edges_)
        self.shares_out_ = bin_shares(self.score_out, self.edges_)

    def _label(self, name: str, scores: np.ndarray, rate: float | None, flagged: str) -> str:
        flags = "" if rate is None else f", {rate:.1%} below ({flagged})"
        return f"{len(scores)} {name}{flags}"

    def _beyond(self) -> str:
        """Say what the outermost bins hold that lies beyond them."""
        groups = self.score_in, self.score_out
        outside = [np.mean((s < self.edges_[0]) | (s > self.edges_[-1])) for s in groups]
        if not any(outside):
            return ""
        return (
            f"\noutermost bins hold all beyond: {outside[0]:.1%} of inliers, "
            f"{outside[1]:.1%} of novelties"
        )


def _span(score_in: np.ndarray, score_out: np.ndarray) -> tuple[float, float]:
    """Central ranges of both; that of the novelties as far as it is within reach."""
    low, high = np.quantile(score_in, CENTRAL)
    low_out, high_out = np.quantile(score_out, CENTRAL)
    reach = REACH * (high - low) or np.inf  # equal scores have no width to measure by
    low_out, high_out = np.clip([low_out, high_out], low - reach, high + reach)
    return float(min(low, low_out)), float(max(high, high_out))


def _offset(estimator: Any) -> float | None:
    (last,) = last_step(estimator)
    if getattr(last, "threshold_of_", "score_samples") != "score_samples":
        return None
    offset = getattr(last, "offset_", None)
    return None if offset is None else float(np.squeeze(offset))  # OneClassSVM: shape (1,)
