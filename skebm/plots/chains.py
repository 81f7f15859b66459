"""Chains against steps: their energy, how they are accepted, how they move."""

from __future__ import annotations

__all__ = ["ChainDisplay"]

from dataclasses import dataclass
from typing import Any

import numpy as np

from skebm._components import check_choice, check_number
from skebm.diagnostics import Chains, run_chains
from skebm.plots._display import Display

BANDS = {"energy": "potential U (nats)", "model_energy": "energy E (nats)"}  # n values per record
LINES = {
    "acceptance": "acceptance probability",
    "step_size": "step size",
    "drift_to_noise": "drift / noise",
    "force": "mean force\n(nats per standardized unit)",
}
KINDS = (*BANDS, *LINES, "trace")
QUANTILES = (0.05, 0.95)
MOST_TRACES = 20  # more lines would be one blot


@dataclass(kw_only=True, eq=False, repr=False)
class ChainDisplay(Display):
    """Picture of what chains do as they run.

    Use `from_estimator` to run chains and draw them, `from_chains` to draw recorded ones.
    Keywords go to ``Axes.plot``.

    Parameters
    ----------
    chains : Chains
        Records of `skebm.diagnostics.run_chains`.
    kind : str, default="energy"
        What to draw:

        - ``"energy"``: the potential U that the chains sample, nats, mean over chains and a band
          from their 5 % to their 95 % quantile; ``"model_energy"``: E alone, likewise;
        - ``"acceptance"``, ``"step_size"``, ``"drift_to_noise"``, ``"force"``: one number per
          record;
        - ``"trace"``: one coordinate of the first 20 chains, in the units of X.
    coordinate : int, default=0
        Column of a trace.
    log_steps : bool, default=False
        Logarithmic step axis; the part up to the first record is linear, so that the start shows.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes, matplotlib Figure
        Where the picture is.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Fig. 9 (energy), Fig. 8A (acceptance).

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from skebm.diagnostics import Chains
    >>> from skebm.plots import ChainDisplay
    >>> energy, steps, one = np.ones((3, 8)), np.array([0, 10, 20]), np.ones(3)
    >>> chains = Chains(np.zeros((3, 8, 2)), energy, energy, steps, one, one, one, one)
    >>> display = ChainDisplay.from_chains(chains, ax=Figure().subplots())
    >>> display.ax_.get_xlabel()
    'step'
    """

    chains: Chains
    kind: str = "energy"
    coordinate: int = 0
    log_steps: bool = False

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        init: Any = "noise",
        *,
        sampler: Any = None,
        n_chains: int = 100,
        n_steps: int = 1000,
        record_every: int = 10,
        random_state: Any = None,
        kind: str = "energy",
        coordinate: int = 0,
        log_steps: bool = False,
        ax: Any = None,
        **kwargs: Any,
    ) -> ChainDisplay:
        """Run chains on a fitted estimator and draw them.

        Parameters
        ----------
        estimator : object
            A fitted estimator of this package.
        init : {"noise", "bank"} or array-like of shape (n, d), default="noise"
            Where chains start.
        sampler, n_chains, n_steps, record_every, random_state
            See `skebm.diagnostics.run_chains`, as for `init`.
        kind, coordinate, log_steps
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        ChainDisplay
            The picture, with its chains.

        Raises
        ------
        ValueError, TypeError
            As `skebm.diagnostics.run_chains`, or if the kind or the coordinate is unfit.
        """
        cls._pyplot()
        check_choice("kind", kind, KINDS)
        chains = run_chains(
            estimator,
            init,
            sampler=sampler,
            n_chains=n_chains,
            n_steps=n_steps,
            record_every=record_every,
            random_state=random_state,
        )
        options: dict[str, Any] = {"kind": kind, "coordinate": coordinate, "log_steps": log_steps}
        return cls.from_chains(chains, **options, ax=ax, **kwargs)

    @classmethod
    def from_chains(
        cls,
        chains: Chains,
        *,
        kind: str = "energy",
        coordinate: int = 0,
        log_steps: bool = False,
        ax: Any = None,
        **kwargs: Any,
    ) -> ChainDisplay:
        """Draw recorded chains.

        Parameters
        ----------
        chains : Chains
            Records.
        kind, coordinate, log_steps
            See the class.
        ax, **kwargs
            See `plot`.

        Returns
        -------
        ChainDisplay
            The picture, with its chains.

        Raises
        ------
        ValueError, TypeError
            If the kind or the coordinate is unfit.
        """
        display = cls(chains=chains, kind=kind, coordinate=coordinate, log_steps=log_steps)
        return display.plot(ax=ax, **kwargs)

    def _prepare(self) -> None:
        check_choice("kind", self.kind, KINDS)
        last = self.chains.positions.shape[2] - 1
        check_number("coordinate", self.coordinate, low=0, high=last, integer=True)

    def _draw(self, **kwargs: Any) -> None:
        steps = self.chains.steps
        if self.kind in BANDS:
            self._plot_band(getattr(self.chains, self.kind), **kwargs)
        elif self.kind in LINES:
            self.ax_.plot(steps, getattr(self.chains, self.kind), **kwargs)
        else:
            traces = self.chains.positions[:, :MOST_TRACES, self.coordinate]
            self.ax_.plot(steps, traces, **{"linewidth": 0.8, "alpha": 0.7, **kwargs})
        labels = {**BANDS, **LINES, "trace": f"x{self.coordinate}"}
        self.ax_.set(xlabel="step", ylabel=labels[self.kind])
        if len(steps) > 1:
            self.ax_.set_xlim(steps[0], steps[-1])
        if self.kind == "acceptance":
            self.ax_.set_ylim(0, 1.02)
        if self.log_steps and len(steps) > 1:
            self.ax_.set_xscale("symlog", linthresh=steps[1], linscale=0.5)

    def _plot_band(self, values: np.ndarray, **kwargs: Any) -> None:
        low, high = np.quantile(values, QUANTILES, axis=1)
        label = f"mean of {values.shape[1]} chains"
        steps = self.chains.steps
        (line,) = self.ax_.plot(steps, values.mean(axis=1), **{"label": label, **kwargs})
        style: dict[str, Any] = {"color": line.get_color(), "alpha": 0.25, "linewidth": 0}
        self.ax_.fill_between(steps, low, high, **style, label="5 % to 95 %")
        self.ax_.legend()
