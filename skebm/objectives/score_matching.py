"""Score matching: exact, with the trace of the Hessian, or sliced, with random probes."""

from __future__ import annotations

__all__ = ["ScoreMatching"]

import torch

from skebm._components import check_choice, check_number
from skebm.energies import Energy, Model, as_energy
from skebm.networks import ConvNet, FeedForward
from skebm.objectives._base import Draw, Objective, Optimization, State, descend

METHODS = ("exact", "sliced")
PROJECTIONS = ("gaussian", "rademacher")
_KINKED = (torch.nn.ReLU, torch.nn.LeakyReLU, torch.nn.PReLU, torch.nn.ReLU6, torch.nn.Hardtanh)


class ScoreMatching(Objective):
    r"""Minimize :math:`\mathrm{mean}\, \tfrac12 |s(x)|^2 + \mathrm{tr}\, \nabla s(x)`.

    The score :math:`s = -\nabla E/T + \nabla \log p_0` is that of the whole model, base included.
    Up to a constant of the data the loss is half the mean squared distance to the data's score. The
    base's part of the trace does not depend on the parameters and is left out.

    Parameters
    ----------
    method : {"exact", "sliced"}, default="exact"
        ``"exact"`` takes the trace; ``"sliced"`` estimates it by :math:`v^T \nabla s\, v`.
    n_projections : int, default=1
        Probes v per row of ``"sliced"``; more lower the gradient's variance.
    projections : {"gaussian", "rademacher"}, default="gaussian"
        Law of the probes. With signs, ``"rademacher"``, the variance is never larger.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter or an energy with kinks, such as leaky ReLU: its second
        derivative is zero almost everywhere, and the loss would miss what happens at the kinks.

    Notes
    -----
    ``"exact"`` takes one backward pass through the gradient for each column per update,
    ``"sliced"`` one for each probe. No normalizer is needed, and so none is felt: between modes
    that are far apart the score does not depend on their weights, and training can move mass from
    one to the other unpunished. Held-out likelihood therefore chooses the snapshot, where there is
    a base or a table of at most 32 columns; a base that has the weights keeps them.

    References
    ----------
    .. [1] A. Hyvarinen, "Estimation of Non-Normalized Statistical Models by Score Matching",
       Journal of Machine Learning Research 6, 2005. Section 2.
    .. [2] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Eq. 16.

    Examples
    --------
    >>> from skebm.objectives import ScoreMatching
    >>> ScoreMatching("sliced", n_projections=4)
    ScoreMatching(method='sliced', n_projections=4)
    """

    def __init__(
        self,
        method: str = "exact",
        n_projections: int = 1,
        projections: str = "gaussian",
        optimization: Optimization | None = None,
    ) -> None:
        self.method = method
        self.n_projections = n_projections
        self.projections = projections
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer and the reference draws."""
        check_choice("method", self.method, METHODS)
        check_number("n_projections", self.n_projections, low=1, integer=True)
        check_choice("projections", self.projections, PROJECTIONS)
        check_smooth(model.energy)
        optimizer = (self.optimization or Optimization()).build(model.energy)
        return State({"energy": optimizer}, {}, {})

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Take one step on a batch."""
        x = draw()
        loss = self.losses(model, x, rng).mean()
        descend(state.optimizers["energy"], loss)
        with torch.no_grad():
            at_data = model.energy(x) / model.temperature
        return state, {"loss": loss.detach(), "data_energy": at_data.mean()}

    def losses(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Return the loss of each row (n,), nats per standardized unit squared."""
        score = model_score(model, x)
        trace = self._trace(model.energy, x, rng) / model.temperature
        return 0.5 * score.square().flatten(1).sum(1) - trace

    def _trace(
        self, energy: torch.nn.Module, x: torch.Tensor, rng: torch.Generator
    ) -> torch.Tensor:
        if self.method == "exact":
            return as_energy(energy).laplacian(x)
        draws = [
            as_energy(energy).laplacian(x, probes_like(x, self.projections, rng))
            for _ in range(self.n_projections)
        ]
        return torch.stack(draws).mean(0)


def model_score(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return the score of the model, base included, with a graph through the parameters."""
    score = as_energy(model.energy).score(x) / model.temperature
    if model.base is None:
        return score
    with torch.no_grad():
        base_score = model.base.log_prob_and_score(x)[1]
    return score + base_score


def probes_like(x: torch.Tensor, projections: str, rng: torch.Generator) -> torch.Tensor:
    """Return directions with mean 0 and covariance I, one for each row."""
    if projections == "gaussian":
        return torch.empty_like(x).normal_(generator=rng)
    return torch.empty_like(x).bernoulli_(0.5, generator=rng).mul_(2).sub_(1)


def kink_in(energy: torch.nn.Module) -> torch.nn.Module | None:
    """Return a part of the energy without second derivatives for the loss; None: it has them."""
    for part in energy.modules():
        smooth = not isinstance(part, Energy | FeedForward | ConvNet) or part.twice_differentiable
        if isinstance(part, _KINKED) or not smooth:
            return part
    return None


def check_smooth(energy: torch.nn.Module) -> None:
    """Raise unless every part of the energy has the second derivatives that the loss needs."""
    part = kink_in(energy)
    if part is not None:
        raise ValueError(
            "energy must be twice differentiable for score matching, got "
            f"{type(part).__name__} with kinks. Use a smooth one (activation='silu', logistic "
            "sources), or denoising score matching."
        )
