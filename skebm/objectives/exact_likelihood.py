"""Maximum likelihood of an energy that is normalized by construction."""

from __future__ import annotations

__all__ = ["ExactLikelihood"]

import torch

from skebm.energies import Model, as_energy
from skebm.objectives._base import Draw, Objective, Optimization, State, descend


class ExactLikelihood(Objective):
    r"""Minimize :math:`\mathrm{mean}\, E(x)` where :math:`\int e^{-E} = 1` for all parameters.

    Such an `Energy` says so: its ``exact_log_partition()`` returns 0.

    Parameters
    ----------
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError
        From ``init``, if the energy does not say that it is normalized, beside a base, or at a
        temperature other than 1.

    Notes
    -----
    One energy gradient of the batch per update. Held-out rows are judged exactly.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Section 8.1.

    Examples
    --------
    >>> from skebm.objectives import ExactLikelihood
    >>> ExactLikelihood()
    ExactLikelihood()
    """

    def __init__(self, optimization: Optimization | None = None) -> None:
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Check that the energy is normalized and make its optimizer."""
        log_z = as_energy(model.energy).exact_log_partition()
        if log_z != 0:
            raise ValueError(
                "energy must be normalized for exact likelihood (exact_log_partition() of 0), got "
                f"{type(model.energy).__name__} with {log_z}. Use ImportanceLikelihood."
            )
        if model.base is not None:
            raise ValueError(
                f"base must be None for exact likelihood, got {type(model.base).__name__}. The "
                "product of two densities has a normalizer of its own."
            )
        if model.temperature != 1:
            raise ValueError(
                f"temperature must be 1 for exact likelihood, got {model.temperature!r}."
            )
        return State({"energy": (self.optimization or Optimization()).build(model.energy)}, {}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step on the mean energy of a batch."""
        loss = model.energy(draw()).mean()
        descend(state.optimizers["energy"], loss)
        return state, {"loss": loss.detach(), "data_energy": loss.detach()}
