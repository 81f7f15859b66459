"""Energies of held-out rows beside those of samples."""

from __future__ import annotations

__all__ = ["EnergyHistogramDisplay"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from skebm._components import check_choice, check_number
from skebm.diagnostics import Chains
from skebm.plots._display import Display, draw_bars
from skebm.plots._scores import bin_shares, check_scores

KINDS = {"energy": "minus log density (nats)", "model_energy": "energy E (nats)"}
CENTRAL = (0.005, 0.995)  # quantiles of each group that the bins span; a stray row hides nothing


@dataclass(kw_only=True, eq=False, repr=False)
class EnergyHistogramDisplay(Display):
    """Histograms of energies of held-out rows and of samples, with the area that they share.

    Long-run samples of a good density estimator have the energies of held-out rows. Use
    `from_estimator` to compute one. Keywords go to ``Axes.stairs``.

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
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

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

    energy_data: np.ndarray
    energy_samples: np.ndarray
    bins: int = 30
    xlabel: str = "energy (nats)"

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
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        EnergyHistogramDisplay
            The picture, with what was computed.

        Raises
        ------
        ValueError, TypeError
            If a table or an option is unfit, or an energy is not finite.
        """
        cls._pyplot()
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
        bins, xlabel : int, str
            See the class.
        ax, **kwargs
            See `plot`.

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

    def _prepare(self) -> None:
        check_number("bins", self.bins, low=1, integer=True)

    def _draw(self, **kwargs: Any) -> None:
        groups = self.energy_data, self.energy_samples
        ends = np.concatenate([np.quantile(group, CENTRAL) for group in groups])
        edges = np.histogram_bin_edges(ends, bins=int(self.bins))
        shares = [bin_shares(group, edges) for group in groups]
        self.overlap_ = float(np.minimum(*shares).sum())
        labels = f"{len(groups[0])} held-out rows", f"{len(groups[1])} samples"
        for share, color, label in zip(shares, ("orange", "blue"), labels, strict=True):
            draw_bars(self.ax_, share / np.diff(edges), edges, color, label, **kwargs)
        self.ax_.set(xlabel=self.xlabel, ylabel="density (per nat)")
        self.ax_.legend(title=f"overlap {self.overlap_:.2f}")
