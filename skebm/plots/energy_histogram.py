"""Energies of held-out rows beside those of samples."""

from __future__ import annotations

__all__ = ["EnergyHistogramDisplay"]

from typing import Any

import numpy as np

from skebm._components import check_choice, check_number
from skebm.diagnostics import Chains
from skebm.plots._matplotlib import require_pyplot
from skebm.plots._scores import bin_shares, check_scores

KINDS = {"energy": "minus log density (nats)", "model_energy": "energy E (nats)"}
CENTRAL = (0.005, 0.995)  # quantiles of each group that the bins span; a stray row hides nothing


class EnergyHistogramDisplay:
    """Histograms of energies of held-out rows and of samples, with the area that they share.

    Long-run samples of a good density estimator have the energies of held-out rows. Use
    `from_estimator` to compute one.

    Parameters
    ----------
    energy_data : ndarray of shape (n,)
        Energies of held-out rows, nats.
    energy_samples : ndarray of shape (m,)
        Energies of samples, nats.
    bins : int, default=30
        Bins of equal width, common to both. They span the central 99 % of each group; what is
        outside counts in the outermost bins.
    xlabel : str, default="energy (nats)"
        What the energies are.

    Attributes
    ----------
    overlap_ : float
        Area under both histograms, in [0, 1]; 1 where they agree. Chance lowers it where rows are
        few for the bins.
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of the axes.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Fig. 5.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from skebm.plots import EnergyHistogramDisplay
    >>> low, high = np.linspace(0, 1, 50), np.linspace(0.5, 1.5, 50)
    >>> display = EnergyHistogramDisplay.from_predictions(low, high, ax=Figure().subplots())
    >>> round(display.overlap_, 1)
    0.5
    """

    def __init__(
        self,
        *,
        energy_data: np.ndarray,
        energy_samples: np.ndarray,
        bins: int = 30,
        xlabel: str = "energy (nats)",
    ) -> None:
        self.energy_data = energy_data
        self.energy_samples = energy_samples
        self.bins = bins
        self.xlabel = xlabel

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        samples: Any,
        *,
        kind: str = "energy",
        bins: int = 30,
        ax: Any = None,
        **kwargs: Any,
    ) -> EnergyHistogramDisplay:
        """Evaluate a fitted estimator on rows and on samples and draw their energies.

        Parameters
        ----------
        estimator : object
            Fitted, with ``score_samples(X)``, or ``energy_samples(X)`` for ``"model_energy"``.
        X : array-like of shape (n, d)
            Held-out rows, units of X.
        samples : Chains or array-like of shape (m, d)
            Chains of `skebm.diagnostics.run_chains`, whose last positions are taken, or rows drawn
            from the model.
        kind : {"energy", "model_energy"}, default="energy"
            ``"energy"``: minus the log density, the potential U of the chains up to a constant.
            ``"model_energy"``: E alone, which differs from it where there is a base.
        bins : int, default=30
            Bins, see the class.
        ax : matplotlib Axes, default=None
            Where to draw; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.stairs``, for both.

        Returns
        -------
        EnergyHistogramDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If a table or an option is unfit, or an energy is not finite.
        """
        require_pyplot("EnergyHistogramDisplay")
        check_choice("kind", kind, tuple(KINDS))
        rows = samples.positions[-1] if isinstance(samples, Chains) else samples
        if kind == "energy":
            data, drawn = (-np.asarray(estimator.score_samples(table)) for table in (X, rows))
        else:
            data, drawn = (np.asarray(estimator.energy_samples(table)) for table in (X, rows))
        return cls.from_predictions(data, drawn, bins=bins, xlabel=KINDS[kind], ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        energy_data: Any,
        energy_samples: Any,
        *,
        bins: int = 30,
        xlabel: str = "energy (nats)",
        ax: Any = None,
        **kwargs: Any,
    ) -> EnergyHistogramDisplay:
        """Draw energies that were computed elsewhere.

        Parameters
        ----------
        energy_data : array-like of shape (n,)
            Energies of held-out rows, nats.
        energy_samples : array-like of shape (m,)
            Energies of samples, nats.
        bins : int, default=30
            Bins, see the class.
        xlabel : str, default="energy (nats)"
            What the energies are.
        ax : matplotlib Axes, default=None
            Where to draw; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.stairs``, for both.

        Returns
        -------
        EnergyHistogramDisplay
            The picture, with the energies.

        Raises
        ------
        ValueError, TypeError
            If energies are not one-dimensional and finite, or `bins` is unfit.
        """
        remedy = "Lower the step size of the chains."
        data = check_scores("energy_data", energy_data, remedy)
        samples = check_scores("energy_samples", energy_samples, remedy)
        display = cls(energy_data=data, energy_samples=samples, bins=bins, xlabel=xlabel)
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> EnergyHistogramDisplay:
        """Draw what is stored.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; ``None`` makes a figure.
        **kwargs
            Passed to ``Axes.stairs``, for both.

        Returns
        -------
        EnergyHistogramDisplay
            Itself, with `overlap_`, `ax_` and `figure_`.

        Raises
        ------
        ValueError, TypeError
            If `bins` is unfit.
        """
        plt = require_pyplot("EnergyHistogramDisplay")
        check_number("bins", self.bins, low=1, integer=True)
        groups = self.energy_data, self.energy_samples
        ends = np.concatenate([np.quantile(group, CENTRAL) for group in groups])
        edges = np.histogram_bin_edges(ends, bins=int(self.bins))
        shares = [bin_shares(group, edges) for group in groups]
        self.overlap_ = float(np.minimum(*shares).sum())
        self.ax_ = plt.subplots(layout="constrained")[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        labels = f"{len(groups[0])} held-out rows", f"{len(groups[1])} samples"
        for share, label, color in zip(shares, labels, ("tab:orange", "tab:blue"), strict=True):
            style = {"fill": True, "alpha": 0.5, "color": color, "label": label, **kwargs}
            self.ax_.stairs(share / np.diff(edges), edges, **style)
        self.ax_.set(xlabel=self.xlabel, ylabel="density (per nat)")
        self.ax_.legend(title=f"overlap {self.overlap_:.2f}")
        return self
