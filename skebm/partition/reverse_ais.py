"""Annealing up and back down: a bracket on log Z."""

from __future__ import annotations

__all__ = ["LogPartitionBracket", "ReverseAIS"]

import math
from typing import NamedTuple

import torch

from skebm._components import check_number
from skebm.bases import Base
from skebm.energies import Model
from skebm.partition._base import LogPartition, PartitionMethod, from_log_weights
from skebm.partition.ais import AIS, Path, climb
from skebm.samplers import MALA, run


class LogPartitionBracket(NamedTuple):
    """Bounds on log Z that hold on average, standardized space.

    Parameters
    ----------
    lower : float
        Mean of the log weights up the ladder, nats.
    upper : float
        Mean of the log weights down the ladder, nats.
    lower_stderr : float
        Standard error of `lower`, nats.
    upper_stderr : float
        Standard error of `upper`, nats.
    forward : LogPartition
        log Z by the weights up (``"ais"``).
    reverse : LogPartition
        log Z by the weights down (``"reverse-ais"``).

    Examples
    --------
    >>> from skebm.partition import LogPartition, LogPartitionBracket
    >>> z = LogPartition(0.0, 0.01, 900.0, "ais")
    >>> LogPartitionBracket(-0.1, 0.1, 0.02, 0.02, z, z).upper
    0.1
    """

    lower: float
    upper: float
    lower_stderr: float
    upper_stderr: float
    forward: LogPartition
    reverse: LogPartition


class ReverseAIS(PartitionMethod):
    r"""Annealed importance sampling in both directions.

    Weights from the proposal up to the model satisfy :math:`E[\log w] \le \log Z`; weights of
    chains that start at draws from the model and come down satisfy
    :math:`E[\log w] \ge \log Z`.

    Parameters
    ----------
    n_chains : int, default=1024
        Chains in each direction.
    n_steps : int, default=2
        Transitions per temperature.
    n_equilibration : int, default=200
        Metropolis-adjusted steps at the model before chains come down, from the resampled ends of
        those that went up; unused where draws from the model are given.
    verbose : bool, default=False
        Show a progress bar.

    Raises
    ------
    ValueError, TypeError
        From ``estimate`` and ``bracket``, on a bad parameter.

    Notes
    -----
    The upper bound holds for exact draws from the model, which nobody has of a trained one: ends of
    the chains up stand in for them. A mode that no chain has found is then missing from both
    bounds. Give `x` (held-out rows do, if the model is to be judged as if it were right) for an
    independent check. ``estimate`` returns the middle, with an error that covers the bracket. Cost:
    twice that of `AIS`.

    References
    ----------
    .. [1] R. Grosse, S. Ancha and D. Roy, "Measuring the reliability of MCMC inference with
       bidirectional Monte Carlo", NeurIPS 2016. Section 3.

    Examples
    --------
    >>> from skebm.partition import ReverseAIS
    >>> ReverseAIS(n_chains=512)
    ReverseAIS(n_chains=512)
    """

    def __init__(
        self,
        n_chains: int = 1024,
        n_steps: int = 2,
        n_equilibration: int = 200,
        verbose: bool = False,
    ) -> None:
        self.n_chains = n_chains
        self.n_steps = n_steps
        self.n_equilibration = n_equilibration
        self.verbose = verbose

    def estimate(self, model: Model, proposal: Base, rng: torch.Generator) -> LogPartition:
        """Estimate log Z by the middle of the bracket; see the class."""
        bracket = self.bracket(model, proposal, rng)
        value = 0.5 * (bracket.forward.value + bracket.reverse.value)
        half = 0.5 * abs(bracket.forward.value - bracket.reverse.value)
        stderr = 0.5 * math.hypot(bracket.forward.stderr, bracket.reverse.stderr)
        ess = min(bracket.forward.ess, bracket.reverse.ess)
        k = max(bracket.forward.pareto_k, bracket.reverse.pareto_k)
        return LogPartition(value, math.hypot(half, stderr), ess, "reverse-ais", k)

    def bracket(
        self,
        model: Model,
        proposal: Base,
        rng: torch.Generator,
        x: torch.Tensor | None = None,
    ) -> LogPartitionBracket:
        """Return the bounds on log Z; `x` (n, d) are draws from the model, where there are any."""
        check_number("n_equilibration", self.n_equilibration, low=0, integer=True)
        up = AIS(self.n_chains, self.n_steps, verbose=self.verbose).anneal(model, proposal, rng)
        if x is None:
            x = self._draws(model, up.x, up.log_weight, rng)
        path = Path(model, proposal)
        _, down = climb(path, up.ladder, x, self.n_steps, rng, down=True, verbose=self.verbose)
        inverse = from_log_weights(-down, "reverse-ais")
        reverse = inverse._replace(value=-inverse.value)
        (lower, lower_stderr), (upper, upper_stderr) = _mean(up.log_weight), _mean(down)
        return LogPartitionBracket(lower, upper, lower_stderr, upper_stderr, up.result, reverse)

    def _draws(
        self,
        model: Model,
        ends: torch.Tensor,
        log_weight: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        rows = torch.multinomial(
            log_weight.double().softmax(0), len(ends), replacement=True, generator=rng
        )
        warm_up = self.n_equilibration // 2
        state, _ = run(MALA(0.05, n_warmup=warm_up), model, ends[rows], warm_up, rng)
        frozen = MALA(float(state.log_step.exp()))
        state, _ = run(frozen, model, state.x, self.n_equilibration - warm_up, rng)
        return state.x


def _mean(log_weight: torch.Tensor) -> tuple[float, float]:
    values = log_weight.double()
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))
