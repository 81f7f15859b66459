"""The sampler contract and the loop that runs any of them."""

from __future__ import annotations

__all__ = ["Sampler", "SamplerInfo", "Target", "as_target", "run"]

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from skebm._components import Component
from skebm.energies import Model

Target = Model | Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class SamplerInfo(NamedTuple):
    """What a human wants to know of a step, or of a run.

    Parameters
    ----------
    acceptance : Tensor of shape ()
        Mean acceptance probability over chains (and, after ``run``, over steps); 1 for chains
        without a Metropolis test.
    step_size : Tensor of shape ()
        Step size in use, standardized units squared.
    energy : Tensor of shape (n,)
        Potential U of each chain, nats: after the step with a Metropolis test, before it without.
    score : Tensor of shape (n, ...)
        Minus the gradient of U where `energy` was taken, nats per standardized unit.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import SamplerInfo
    >>> info = SamplerInfo(torch.tensor(0.5), torch.tensor(0.1), torch.zeros(3), torch.zeros(3, 2))
    >>> info.acceptance
    tensor(0.5000)
    """

    acceptance: torch.Tensor
    step_size: torch.Tensor
    energy: torch.Tensor
    score: torch.Tensor


class Sampler(Component):
    """Parameters of a Markov chain; ``init`` and ``step`` hold the algorithm.

    A *target* is a callable ``x -> (U, score)`` with U (n,) the potential in nats and the score
    (n, ...) minus its gradient. Chains sample ``exp(-U)``. A `Model` is one, and is passed as it
    is: a sampler of one kind of model may look into it. With ``metropolis = True`` the sampler
    tests its proposals, ``init`` takes a `log_step` carried over from earlier chains, and there is
    a `target_accept`.
    """

    metropolis = False
    step_size: Any = None  # None: its steps have no size

    @abstractmethod
    def init(self, target: Target, x: torch.Tensor) -> Any:
        """Return the state of chains that stand at x (n, ...)."""

    def for_energy(self, temperature: float) -> Sampler:
        """Return the sampler of U = E / T for a `step_size` that multiplies the gradient of E."""
        if temperature == 1:
            return self
        raise NotImplementedError(f"{type(self).__name__} has no rule for temperatures but 1.")

    @abstractmethod
    def step(self, target: Target, state: Any, rng: torch.Generator) -> tuple[Any, SamplerInfo]:
        """Advance every chain once."""


def as_target(target: torch.nn.Module | Target) -> Target:
    """Return what samplers take: a model, or a callable ``x -> (U, score)``.

    Parameters
    ----------
    target : Model, torch.nn.Module or callable
        A module is taken as the energy of a model without a base at temperature 1.

    Returns
    -------
    Model or callable
        ``x -> (U, score)``.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import as_target
    >>> target = as_target(lambda x: (0.5 * x.square().sum(-1), -x))
    >>> target(torch.ones(1, 2))
    (tensor([1.]), tensor([[-1., -1.]]))
    """
    return Model(target, None, 1.0) if isinstance(target, torch.nn.Module) else target


def run(
    sampler: Sampler,
    target: torch.nn.Module | Target,
    x: torch.Tensor,
    n_steps: int,
    rng: torch.Generator,
    *,
    state: Any = None,
    progress: bool = False,
) -> tuple[Any, SamplerInfo]:
    """Run every chain for a number of steps.

    Parameters
    ----------
    sampler : Sampler
        The algorithm.
    target : Model, torch.nn.Module or callable
        What to sample, see `as_target`.
    x : Tensor of shape (n, ...)
        Where the n chains start, standardized space.
    n_steps : int
        Steps; 0 returns the start.
    rng : torch.Generator
        Source of randomness.
    state : NamedTuple, optional
        Start from this state of the sampler instead of ``sampler.init(target, x)``.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    state : NamedTuple
        The sampler's last state; ``state.x`` (n, ...) are the positions.
    info : SamplerInfo
        Acceptance averaged over steps; step size and energy of the last step.

    Notes
    -----
    No autograd graph is built and nothing is copied to the host.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import Langevin, run
    >>> rng = torch.Generator().manual_seed(0)
    >>> quadratic = lambda x: (0.5 * x.square().sum(-1), -x)
    >>> state, info = run(Langevin(0.1), quadratic, torch.zeros(4, 2), 10, rng)
    >>> state.x.shape
    torch.Size([4, 2])
    """
    target = as_target(target)
    with torch.no_grad():
        if state is None:
            state = sampler.init(target, x)
        one = torch.ones((), device=x.device)
        info, total = SamplerInfo(one, one * 0, x.new_zeros(len(x)), torch.zeros_like(x)), one * 0
        for _ in tqdm(range(n_steps), disable=not progress, desc="sampling", leave=False):
            state, info = sampler.step(target, state, rng)
            total = total + info.acceptance
    return state, info._replace(acceptance=total / n_steps) if n_steps else info
