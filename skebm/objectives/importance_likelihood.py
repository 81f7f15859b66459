"""Maximum likelihood with the normalizer importance-sampled from the base."""

from __future__ import annotations

__all__ = ["ImportanceLikelihood"]

import math

import torch

from skebm._components import check_number
from skebm.bases import Base
from skebm.energies import Model
from skebm.objectives._base import Draw, Objective, Optimization, State, descend


class ImportanceLikelihood(Objective):
    r"""Minimize :math:`\mathrm{mean}\, E(x) + \log \mathrm{mean}_i e^{-E(u_i)}`, u from the base.

    The gradient is the self-normalized importance estimate of the likelihood gradient: weights
    :math:`w_i \propto e^{-E(u_i)}` on the gradient of the energy at the draws. Draws from another
    proposal q carry :math:`w_i \propto e^{-E(u_i)} p_0(u_i) / q(u_i)`.

    Parameters
    ----------
    n_points : int, default=500
        Fresh base draws per update; more lowers the gradient's variance and bias.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.
    proposal : Base, default=None
        Normalized density q near the model that points are drawn from; None means the base.

    Raises
    ------
    ValueError
        From ``init``, without a base or a proposal or on a bad parameter.

    Notes
    -----
    No chain. One energy gradient for the batch and the draws per update. The history holds the
    weights' effective share of the draws (``ess_share``); where it falls toward 1 / n_points, a few
    draws carry the gradient and the base is too far from the data.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Eq. 10.

    Examples
    --------
    >>> from skebm.objectives import ImportanceLikelihood
    >>> ImportanceLikelihood(n_points=1024)
    ImportanceLikelihood(n_points=1024)
    """

    def __init__(
        self,
        n_points: int = 500,
        optimization: Optimization | None = None,
        proposal: Base | None = None,
    ) -> None:
        self.n_points = n_points
        self.optimization = optimization
        self.proposal = proposal

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer."""
        check_number("n_points", self.n_points, low=2, integer=True)
        if model.base is None and self.proposal is None:
            raise ValueError(
                "base must be a normalized density for importance likelihood, got None. "
                "Use base='mixture' or 'uniform'."
            )
        optimizer = (self.optimization or Optimization()).build(model.energy)
        return State({"energy": optimizer}, {}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step of Eq. 10 with fresh points."""
        source = self.proposal if self.proposal is not None else model.base
        assert source is not None  # init refused None
        x, u = draw(), source.sample(self.n_points, rng)
        energy = model.energy(torch.cat([x, u])) / model.temperature
        at_data, at_points = energy[: len(x)], energy[len(x) :]
        log_weight = -at_points
        if self.proposal is not None:
            log_weight = log_weight - relative_log_prob(self.proposal, model.base, u)
        log_z = log_weight.logsumexp(0) - math.log(len(u))
        loss = at_data.mean() + log_z
        descend(state.optimizers["energy"], loss)
        weight = log_weight.detach().softmax(0)
        return state, {
            "loss": loss.detach(),
            "data_energy": at_data.detach().mean(),
            "ess_share": 1 / (weight.square().sum() * len(u)),
        }


@torch.no_grad()
def relative_log_prob(proposal: Base, base: Base | None, x: torch.Tensor) -> torch.Tensor:
    """Return log q(x) - log p0(x), shape (n,), with p0 = 1 where there is no base."""
    log_prob = proposal.log_prob(x)
    return log_prob if base is None else log_prob - base.log_prob(x)
