"""ROC curves of sets of novelties against the same in-distribution rows."""

from __future__ import annotations

__all__ = ["OODRocDisplay"]

from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from skebm.metrics import ood_metrics
from skebm.plots._matplotlib import require_pyplot
from skebm.plots._scores import check_scores, estimator_scores, named_sets, named_tables


class OODRocDisplay:
    """ROC curves of one or several sets of novelties, with AUROC and the point of FPR95.

    Novelties are the positive class: the curve shows which share of them scores below a threshold
    (detected) against the share of in-distribution rows that does (false alarms). Use
    `from_estimator` or `from_predictions` to compute one.

    Parameters
    ----------
    fpr : dict of str to ndarray of shape (k,)
        Shares of in-distribution rows flagged, by the name of the set; k differs between sets.
    tpr : dict of str to ndarray of shape (k,)
        Shares of novelties flagged.
    auroc : dict of str to float
        Areas under the curves, dimensionless, as `skebm.metrics.ood_metrics`.
    fpr95 : dict of str to float
        Shares of novelties accepted where at least 95 % of in-distribution rows are, likewise.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of the axes.

    Notes
    -----
    The dot on a curve is where FPR95 is read: 95 % of in-distribution rows are accepted, so at most
    5 % are false alarms, and a share of ``1 - fpr95`` of the novelties is detected.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import OODRocDisplay
    >>> near, far = [0.1, 0.2, 0.5], [0.0, 0.1]
    >>> display = OODRocDisplay.from_predictions(
    ...     [0.9, 0.8, 0.4, 0.7], {"near": near, "far": far}, ax=Figure().subplots()
    ... )
    >>> {name: round(area, 3) for name, area in display.auroc.items()}
    {'near': 0.917, 'far': 1.0}
    """

    def __init__(
        self,
        *,
        fpr: dict[str, np.ndarray],
        tpr: dict[str, np.ndarray],
        auroc: dict[str, float],
        fpr95: dict[str, float],
    ) -> None:
        self.fpr = fpr
        self.tpr = tpr
        self.auroc = auroc
        self.fpr95 = fpr95

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_in: Any,
        X_out: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> OODRocDisplay:
        """Score rows with a fitted estimator and draw the curves.

        Parameters
        ----------
        estimator : object
            Fitted, with ``score_samples(X)``, higher for inliers.
        X_in : array-like of shape (n_in, d)
            In-distribution rows that the estimator was not fitted on.
        X_out : array-like of shape (n_out, d) or dict of str to such
            Novelties: one set, or several by name.
        name : str, default=None
            Name for the legend, see `from_predictions`; ``None`` takes the estimator's class.
        ax : matplotlib Axes, default=None
            Where to draw; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.plot``, for every curve.

        Returns
        -------
        OODRocDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If the estimator has no ``score_samples``, a score is not finite, or X_out is no table
            of rows: labels, say.
        """
        require_pyplot("OODRocDisplay")
        name = type(estimator).__name__ if name is None else name
        score_in = estimator_scores("score_samples(X_in)", estimator, X_in)
        return cls._compute(score_in, named_tables(estimator, X_out, name)).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        score_in: Any,
        score_out: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> OODRocDisplay:
        """Draw the curves of scores that were computed elsewhere.

        Parameters
        ----------
        score_in : array-like of shape (n_in,)
            Scores of in-distribution rows, higher for inliers; any unit.
        score_out : array-like of shape (n_out,) or dict of str to such
            Scores of novelties: one set, or several by name.
        name : str, default=None
            Name for the legend; of several sets, what stands before each of their names.
        ax : matplotlib Axes, default=None
            Where to draw; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.plot``, for every curve.

        Returns
        -------
        OODRocDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError
            If scores are not one-dimensional and finite, or there is no set.
        """
        require_pyplot("OODRocDisplay")
        score_in = check_scores("score_in", score_in, "Look at the rows that they belong to.")
        return cls._compute(score_in, named_sets(score_out, name)).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> OODRocDisplay:
        """Draw what is stored.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, also beside curves that are there; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.plot``, for every curve.

        Returns
        -------
        OODRocDisplay
            Itself, with `ax_` and `figure_`.
        """
        plt = require_pyplot("OODRocDisplay")
        self.ax_ = plt.subplots(layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        self.ax_.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, zorder=1)
        for name, fpr in self.fpr.items():
            label = f"{name} (AUROC {self.auroc[name]:.3f}, FPR95 {self.fpr95[name]:.2f})"
            (line,) = self.ax_.plot(fpr, self.tpr[name], **{"label": label, **kwargs})
            self.ax_.plot(*self._point(name), "o", color=line.get_color(), clip_on=False)
        self.ax_.set(
            xlabel="false alarms (share of in-distribution rows flagged)",
            ylabel="detected (share of novelties flagged)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        self.ax_.legend(loc="lower right", title="dot: 95 % of inliers accepted", fontsize="small")
        return self

    @classmethod
    def _compute(cls, score_in: np.ndarray, sets: dict[str, np.ndarray]) -> OODRocDisplay:
        fpr, tpr, auroc, fpr95 = {}, {}, {}, {}
        for name, score_out in sets.items():
            novel = np.repeat([0, 1], [len(score_in), len(score_out)])
            novelty = -np.concatenate([score_in, score_out])
            fpr[name], tpr[name], _ = roc_curve(novel, novelty, drop_intermediate=False)
            metrics = ood_metrics(score_in, score_out)
            auroc[name], fpr95[name] = metrics["auroc"], metrics["fpr95"]
        return cls(fpr=fpr, tpr=tpr, auroc=auroc, fpr95=fpr95)

    def _point(self, name: str) -> tuple[float, float]:
        last = np.searchsorted(self.fpr[name], 0.05, side="right") - 1  # most false alarms allowed
        return self.fpr[name][last], 1 - self.fpr95[name]
