"""The training contract: an objective owns its players."""

from __future__ import annotations

__all__ = ["Draw", "HeldOut", "Likelihood", "Objective", "Optimization", "State", "descend"]

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from skebm._components import Component, check_choice, check_number
from skebm._ranks import average_gradients
from skebm.energies import Model
from skebm.objectives._optimizers import SGD, AdamW


class HeldOut(NamedTuple):
    """A model on held-out rows, nats per row in standardized space.

    Parameters
    ----------
    value : float
        What chooses the snapshot, larger is better: mean log density minus the standard error of
        log Z, so that a vague log Z does not look good, and minus infinity where log Z cannot be
        trusted; `LearnedStein` has minus its held-out discrepancy here.
    gain : float
        Mean log density minus the base's on the same rows; where it falls 5 nats below that of the
        best snapshot, training goes back. NaN where it is unknown.
    stderr : float
        Standard error of the gain: rows and log Z together.
    ess : float
        Effective number of reference draws behind log Z; infinite where log Z is exact.

    Examples
    --------
    >>> from skebm.objectives import HeldOut
    >>> HeldOut(-2.0, 0.1, 0.02, 9000.0).gain
    0.1
    """

    value: float
    gain: float
    stderr: float
    ess: float


Draw = Callable[[], torch.Tensor]
Likelihood = Callable[[], HeldOut | None]
EXPLODED = 1e6  # nats that no energy of standardized rows, and no chain of one, needs
RESCUED_STEP = 0.3  # of a sampler's step, after a rescue
METHODS = ("adam", "sgd")
SCHEDULES = ("cosine", "constant")


class Optimization(Component):
    """Adam with decoupled weight decay, or plain gradient descent.

    Parameters
    ----------
    learning_rate : float, default=2e-3
        Step (dimensionless for Adam), before its decay.
    betas : tuple of float, default=(0.5, 0.99)
        Decay rates of Adam's two moments; unused by ``"sgd"``.
    weight_decay : float, default=0.01
        Decoupled decay; larger keeps the energy closer to 0, the model closer to its base.
    method : {"adam", "sgd"}, default="adam"
        ``"sgd"`` is gradient descent without momentum.
    schedule : {"cosine", "constant"}, default="cosine"
        Half a cosine down to 0 over the updates of a fit, or no decay.
    averaging : bool, default=True
        Where nothing is held out or can be judged, keep the mean of the parameters over the second
        half of the updates instead of the last ones; `USPDensity` also judges, and keeps, a running
        mean over some 50 updates.

    Raises
    ------
    ValueError, TypeError
        From ``build``, on a bad parameter.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019. Alg. 2.

    Examples
    --------
    >>> import torch
    >>> from skebm.objectives import Optimization
    >>> type(Optimization().build(torch.nn.Linear(2, 1))).__name__
    'AdamW'
    """

    def __init__(
        self,
        learning_rate: float = 2e-3,
        betas: tuple[float, float] = (0.5, 0.99),
        weight_decay: float = 0.01,
        method: str = "adam",
        schedule: str = "cosine",
        averaging: bool = True,
    ) -> None:
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.method = method
        self.schedule = schedule
        self.averaging = averaging

    def build(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """Return an optimizer of the module's parameters."""
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_choice("method", self.method, METHODS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("averaging", self.averaging, (True, False))
        optimizer = self._adam(module) if self.method == "adam" else self._sgd(module)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            group["decays"] = self.schedule == "cosine"
        return optimizer

    def _adam(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        if not (isinstance(self.betas, tuple | list) and len(self.betas) == 2):
            raise TypeError(f"betas must be two numbers in [0, 1), got {self.betas!r}.")
        for beta in self.betas:
            check_number("betas", beta, low=0)
            if beta >= 1:
                raise ValueError(
                    f"betas must be below 1, got {beta!r}. The usual are (0.9, 0.999)."
                )
        return AdamW(
            module.parameters(),
            lr=self.learning_rate,
            betas=(float(self.betas[0]), float(self.betas[1])),
            weight_decay=self.weight_decay,
            fused=True,
        )

    def _sgd(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        return SGD(
            module.parameters(),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=True,
        )


class State(NamedTuple):
    """What an objective carries from step to step.

    Parameters
    ----------
    optimizers : dict of str to torch.optim.Optimizer
        ``"energy"`` is always there.
    modules : dict of str to torch.nn.Module
        Players beside the energy: a critic, a generator.
    buffers : dict of str to Tensor
        Banks, points, adapted step sizes.

    Examples
    --------
    >>> from skebm.objectives import State
    >>> State({}, {}, {}).buffers
    {}
    """

    optimizers: dict[str, torch.optim.Optimizer]
    modules: dict[str, torch.nn.Module]
    buffers: dict[str, torch.Tensor]

    def state_dict(self) -> dict:
        """Return plain tensors and numbers, fit for ``torch.save`` without code."""
        return {
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "modules": {k: v.state_dict() for k, v in self.modules.items()},
            "buffers": dict(self.buffers),
        }

    def load(self, state: dict) -> State:
        """Return this state with the tensors of `state_dict` in it."""
        for k, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][k])
        for k, module in self.modules.items():
            module.load_state_dict(state["modules"][k])
        return self._replace(buffers=dict(state["buffers"]))


class Objective(Component):
    """Parameters of a training principle; nothing in it changes while training."""

    @abstractmethod
    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make optimizers, further players and buffers for training rows x (n, ...)."""

    @abstractmethod
    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Make one energy update; return the next state and a row of 0-d tensors."""

    def judge(
        self, model: Model, state: State, rows: torch.Tensor, likelihood: Likelihood
    ) -> HeldOut | None:
        """Judge the model on held-out rows by their likelihood, or by a statistic of its own.

        ``likelihood()`` gives the mean log density. None: nothing can be judged, so training has a
        fixed length and averages the parameters.
        """
        return likelihood()

    def recover(self, model: Model, state: State, x: torch.Tensor, rng: torch.Generator) -> State:
        """Return a sound state after training went astray and the energy was put back.

        Moments are forgotten, and where there is a sampler (a buffer ``step_factor``) its step is
        lowered: chains that fly apart do so at any learning rate.
        """
        for optimizer in state.optimizers.values():
            optimizer.state.clear()
        factor = state.buffers.get("step_factor")
        if factor is None:
            return state
        return state._replace(buffers={**state.buffers, "step_factor": RESCUED_STEP * factor})


def descend(
    optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    loss: torch.Tensor,
    max_norm: float | torch.Tensor | None = None,
    beside: Sequence[torch.Tensor] = (),
) -> torch.Tensor | None:
    """Take one step of each optimizer on a scalar loss.

    Parameters
    ----------
    optimizers : Optimizer or sequence of Optimizer
        Those whose parameters move.
    loss : Tensor of shape ()
        With a graph. Where ranks fit together, gradients are the mean over all of them.
    max_norm : float or Tensor of shape (), optional
        Norm that the gradient is scaled down to where it is larger.
    beside : sequence of Tensor, optional
        Tensors of the parameters' type without gradients, which become their means over ranks that
        fit together.

    Returns
    -------
    Tensor of shape () or None
        Norm of the gradient as it was, where there is a bound on it; it may be infinite.

    Examples
    --------
    >>> import torch
    >>> from skebm.objectives import Optimization, descend
    >>> line = torch.nn.Linear(2, 1)
    >>> loss = line(torch.ones(1, 2)).sum()
    >>> descend(Optimization(1.0, method="sgd", weight_decay=0.0).build(line), loss)
    >>> bool(line(torch.ones(1, 2)).sum() < loss)
    True
    """
    if isinstance(optimizers, torch.optim.Optimizer):
        optimizers = [optimizers]
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    average_gradients(parameters, beside)
    norm = None
    if max_norm is not None:
        bound: Any = max_norm  # a tensor does too, and the device is not waited for
        norm = torch.nn.utils.clip_grad_norm_(parameters, bound, foreach=True)
    for optimizer in optimizers:
        optimizer.step()
    return norm
