"""ROC and precision-recall curves of sets of novelties against the same in-distribution rows."""

from __future__ import annotations

__all__ = ["OODPrecisionRecallDisplay", "OODRocDisplay"]

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from skebm.metrics import ood_metrics
from skebm.plots._display import Display
from skebm.plots._scores import check_scores, estimator_scores, named_sets, named_tables

C = TypeVar("C", bound="_Curves")
FRAME: dict[str, Any] = {"xlim": (-0.01, 1.01), "ylim": (-0.01, 1.01), "aspect": "equal"}


class _Curves(Display):
    """Curves of sets of novelties; every field holds its values by the name of the set."""

    @classmethod
    def from_estimator(
        cls: type[C],
        estimator: Any,
        X_in: Any,
        X_out: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> C:
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
        ax, **kwargs
            See `plot`.

        Returns
        -------
        Display
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If the estimator has no ``score_samples``, a score is not finite, or X_out is no table
            of rows: labels, say.
        """
        cls._pyplot()
        name = type(estimator).__name__ if name is None else name
        score_in = estimator_scores("score_samples(X_in)", estimator, X_in)
        return cls._of_sets(score_in, named_tables(estimator, X_out, name)).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls: type[C],
        score_in: Any,
        score_out: Any,
        *,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> C:
        """Draw the curves of scores that were computed elsewhere.

        Parameters
        ----------
        score_in : array-like of shape (n_in,)
            Scores of in-distribution rows, higher for inliers; any unit.
        score_out : array-like of shape (n_out,) or dict of str to such
            Scores of novelties: one set, or several by name.
        name : str, default=None
            Name for the legend; of several sets, what stands before each of their names.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        Display
            The picture, with what was computed.

        Raises
        ------
        ValueError
            If scores are not one-dimensional and finite, or there is no set.
        """
        score_in = check_scores("score_in", score_in, "Look at the rows that they belong to.")
        return cls._of_sets(score_in, named_sets(score_out, name)).plot(ax=ax, **kwargs)

    @classmethod
    def _of_sets(cls: type[C], score_in: np.ndarray, sets: dict[str, np.ndarray]) -> C:
        held: dict[str, dict[str, Any]] = {}
        for name, score_out in sets.items():
            novel = np.repeat([0, 1], [len(score_in), len(score_out)])
            novelty = -np.concatenate([score_in, score_out])
            curve = cls._curve(novel, novelty, ood_metrics(score_in, score_out))
            for field, value in curve.items():
                held.setdefault(field, {})[name] = value
        return cls(**held)

    @staticmethod
    @abstractmethod
    def _curve(novel: np.ndarray, novelty: np.ndarray, metrics: dict[str, float]) -> dict:
        """Return what each field holds of one set, from labels, 1 for novelties, and -scores."""


@dataclass(kw_only=True, eq=False, repr=False)
class OODRocDisplay(_Curves):
    """ROC curves of one or several sets of novelties, with AUROC and the point of FPR95.

    Novelties are the positive class: the curve shows which share of them scores below a threshold
    (detected) against the share of in-distribution rows that does (false alarms). Use
    `from_estimator` or `from_predictions` to compute one. Keywords go to ``Axes.plot``.

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
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

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

    fpr: dict[str, np.ndarray]
    tpr: dict[str, np.ndarray]
    auroc: dict[str, float]
    fpr95: dict[str, float]

    def _draw(self, **kwargs: Any) -> None:
        self.ax_.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, zorder=1)
        for name, fpr in self.fpr.items():
            label = f"{name} (AUROC {self.auroc[name]:.3f}, FPR95 {self.fpr95[name]:.2f})"
            (line,) = self.ax_.plot(fpr, self.tpr[name], **{"label": label, **kwargs})
            last = np.searchsorted(fpr, 0.05, side="right") - 1  # most false alarms allowed
            point = fpr[last], 1 - self.fpr95[name]
            self.ax_.plot(*point, "o", color=line.get_color(), clip_on=False)
        self.ax_.set(
            xlabel="false alarms (share of in-distribution rows flagged)",
            ylabel="detected (share of novelties flagged)",
            **FRAME,
        )
        self.ax_.legend(loc="lower right", title="dot: 95 % of inliers accepted", fontsize="small")

    @staticmethod
    def _curve(novel: np.ndarray, novelty: np.ndarray, metrics: dict[str, float]) -> dict:
        fpr, tpr, _ = roc_curve(novel, novelty, drop_intermediate=False)
        return {"fpr": fpr, "tpr": tpr, "auroc": metrics["auroc"], "fpr95": metrics["fpr95"]}


@dataclass(kw_only=True, eq=False, repr=False)
class OODPrecisionRecallDisplay(_Curves):
    """Precision against recall for one or several sets of novelties, with AUPR and chance.

    Novelties are the positive class: recall is the share of them that scores below a threshold,
    precision the share of novelties among all rows below it. Use `from_estimator` or
    `from_predictions` to compute one. Keywords go to ``Axes.plot``.

    Parameters
    ----------
    precision : dict of str to ndarray of shape (k,)
        Precisions, dimensionless, by the name of the set; k differs between sets.
    recall : dict of str to ndarray of shape (k,)
        Recalls, decreasing, dimensionless.
    aupr : dict of str to float
        Average precisions, ``aupr_out`` of `skebm.metrics.ood_metrics`.
    chance : dict of str to float
        Share of novelties among all rows: the precision of scores that know nothing.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    Notes
    -----
    Precision depends on how many novelties there are, so curves of sets of different sizes cannot
    be compared. A dotted line in the color of the curve shows the level of chance.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import OODPrecisionRecallDisplay
    >>> display = OODPrecisionRecallDisplay.from_predictions(
    ...     [0.9, 0.8, 0.4, 0.7], [0.1, 0.2, 0.5], name="forest", ax=Figure().subplots()
    ... )
    >>> round(display.aupr["forest"], 3), round(display.chance["forest"], 3)
    (0.917, 0.429)
    """

    precision: dict[str, np.ndarray]
    recall: dict[str, np.ndarray]
    aupr: dict[str, float]
    chance: dict[str, float]

    def _draw(self, **kwargs: Any) -> None:
        for name, precision in self.precision.items():
            label = f"{name} (AUPR {self.aupr[name]:.3f}, chance {self.chance[name]:.3f})"
            style = {"drawstyle": "steps-post", "label": label, **kwargs}
            (line,) = self.ax_.plot(self.recall[name], precision, **style)
            self.ax_.axhline(self.chance[name], color=line.get_color(), linestyle=":", zorder=1)
        self.ax_.set(
            xlabel="recall (share of novelties flagged)",
            ylabel="precision (share of novelties among flagged rows)",
            **FRAME,
        )
        self.ax_.legend(title="dotted: chance", fontsize="small")

    @staticmethod
    def _curve(novel: np.ndarray, novelty: np.ndarray, metrics: dict[str, float]) -> dict:
        precision, recall, _ = precision_recall_curve(novel, novelty)
        held = {"precision": precision, "recall": recall}
        return {**held, "aupr": metrics["aupr_out"], "chance": float(np.mean(novel))}
