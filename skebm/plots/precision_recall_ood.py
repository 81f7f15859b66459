"""Precision and recall of sets of novelties against the same in-distribution rows."""

from __future__ import annotations

__all__ = ["OODPrecisionRecallDisplay"]

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from skebm.metrics import ood_metrics
from skebm.plots._matplotlib import require_pyplot
from skebm.plots._scores import check_scores, estimator_scores, named_sets, named_tables


class OODPrecisionRecallDisplay:
    """Precision against recall for one or several sets of novelties, with AUPR and chance.

    Novelties are the positive class: recall is the share of them that scores below a threshold,
    precision the share of novelties among all rows below it. Use `from_estimator` or
    `from_predictions` to compute one.

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
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of the axes.

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

    def __init__(
        self,
        *,
        precision: dict[str, np.ndarray],
        recall: dict[str, np.ndarray],
        aupr: dict[str, float],
        chance: dict[str, float],
    ) -> None:
        self.precision = precision
        self.recall = recall
        self.aupr = aupr
        self.chance = chance

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
    ) -> OODPrecisionRecallDisplay:
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
        OODPrecisionRecallDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If the estimator has no ``score_samples``, a score is not finite, or X_out is no table
            of rows: labels, say.
        """
        require_pyplot("OODPrecisionRecallDisplay")
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
    ) -> OODPrecisionRecallDisplay:
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
        OODPrecisionRecallDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError
            If scores are not one-dimensional and finite, or there is no set.
        """
        require_pyplot("OODPrecisionRecallDisplay")
        score_in = check_scores("score_in", score_in, "Look at the rows that they belong to.")
        return cls._compute(score_in, named_sets(score_out, name)).plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> OODPrecisionRecallDisplay:
        """Draw what is stored.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, also beside curves that are there; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.plot``, for every curve.

        Returns
        -------
        OODPrecisionRecallDisplay
            Itself, with `ax_` and `figure_`.
        """
        plt = require_pyplot("OODPrecisionRecallDisplay")
        self.ax_ = plt.subplots(layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        for name, precision in self.precision.items():
            label = f"{name} (AUPR {self.aupr[name]:.3f}, chance {self.chance[name]:.3f})"
            style = {"drawstyle": "steps-post", "label": label, **kwargs}
            (line,) = self.ax_.plot(self.recall[name], precision, **style)
            self.ax_.axhline(self.chance[name], color=line.get_color(), linestyle=":", zorder=1)
        self.ax_.set(
            xlabel="recall (share of novelties flagged)",
            ylabel="precision (share of novelties among flagged rows)",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        self.ax_.legend(title="dotted: chance", fontsize="small")
        return self

    @classmethod
    def _compute(
        cls, score_in: np.ndarray, sets: dict[str, np.ndarray]
    ) -> OODPrecisionRecallDisplay:
        precision, recall, aupr, chance = {}, {}, {}, {}
        for name, score_out in sets.items():
            novel = np.repeat([0, 1], [len(score_in), len(score_out)])
            novelty = -np.concatenate([score_in, score_out])
            precision[name], recall[name], _ = precision_recall_curve(novel, novelty)
            aupr[name] = ood_metrics(score_in, score_out)["aupr_out"]
            chance[name] = len(score_out) / len(novel)
        return cls(precision=precision, recall=recall, aupr=aupr, chance=chance)
