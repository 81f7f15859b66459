"""What the loop is told, and what it carries from update to update."""

from __future__ import annotations

__all__ = ["Best", "Settings", "TrainState"]

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.optim.swa_utils import AveragedModel

from skebm.energies import Model
from skebm.objectives import HeldOut, State

PLAIN = ("start", "history_start", "retries", "lr_factor", "finished")


class Settings(NamedTuple):
    """How long and how to train.

    Parameters
    ----------
    max_iter : int
        Energy updates.
    batch_size : int
        Rows per batch.
    eval_every : int
        Updates between validations; history has one row for each.
    n_iter_no_change : int, optional
        Validations without a gain of `tol` after which training stops; None never stops early.
    tol : float
        Smallest gain in held-out nats that counts.
    max_retries : int
        Times that a diverging fit goes back to its best snapshot with a lower learning rate.
    average : bool
        Where nothing is validated, keep the mean of the parameters over the second half of the
        updates; else the last ones.
    smoothed : bool
        Validate, and keep, a running mean of the parameters over some 50 updates in place of the
        last ones.
    verbose : int
        1 shows a progress bar, 2 prints a line for each validation; the log gets those anyhow.

    Examples
    --------
    >>> from skebm.train import Settings
    >>> Settings(max_iter=100).batch_size
    256
    """

    max_iter: int
    batch_size: int = 256
    eval_every: int = 25
    n_iter_no_change: int | None = None
    tol: float = 0.0
    max_retries: int = 3
    average: bool = True
    smoothed: bool = False
    verbose: int = 0


class Best(NamedTuple):
    """The best snapshot so far.

    Parameters
    ----------
    iteration : int
        Updates made before it.
    held_out : HeldOut or None
        What it scored.
    energy : dict of str to Tensor
        Parameters of the energy.

    Examples
    --------
    >>> from skebm.train import Best
    >>> Best(0, None, {}).iteration
    0
    """

    iteration: int
    held_out: HeldOut | None
    energy: dict[str, torch.Tensor]


@dataclass
class TrainState:
    """Everything that training needs to go on; can be copied, written, read and continued.

    Parameters
    ----------
    iteration : int
        Updates made.
    model : Model
        Holds the energy being trained.
    objective : State
        Players, optimizers and buffers.
    rng : torch.Generator
        Source of all randomness.
    history : list of dict
        One row per validation.
    best : Best, optional
        Best snapshot.
    average : AveragedModel, optional
        Running mean of the energy's parameters, where there is one.
    start, history_start : int
        Updates and history rows of earlier calls.
    retries : int
        Rescues so far.
    lr_factor : float
        Product of the reductions that they made.
    finished : bool
        Whether the last call came to its end.

    Examples
    --------
    >>> from skebm.train import TrainState
    >>> TrainState.__dataclass_fields__["iteration"].type
    'int'
    """

    iteration: int
    model: Model
    objective: State
    rng: torch.Generator
    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    average: AveragedModel | None = None
    start: int = 0
    history_start: int = 0
    retries: int = 0
    lr_factor: float = 1.0
    finished: bool = False

    def leaves(self) -> dict[str, torch.Tensor]:
        """Return the energy's parameters as training leaves them where it stops here."""
        if self.best is not None and self.best.held_out is not None:
            return self.best.energy
        energy = self.model.energy if self.average is None else self.average.module
        return energy.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and strings alone, so that reading them runs no code."""
        best = self.best and (
            self.best.iteration,
            self.best.held_out and list(self.best.held_out),
            self.best.energy,
        )
        return {
            "iteration": self.iteration,
            "energy": self.model.energy.state_dict(),
            "objective": self.objective.state_dict(),
            "rng": self.rng.get_state(),
            "history": self.history,
            "best": best,
            "average": self.average and self.average.state_dict(),
            **{name: getattr(self, name) for name in PLAIN},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` wrote."""
        self.iteration = state["iteration"]
        self.model.energy.load_state_dict(state["energy"])
        self.objective = self.objective.load(state["objective"])
        self.rng.set_state(state["rng"].cpu())
        self.history = state["history"]
        if state["best"]:
            iteration, held_out, energy = state["best"]
            self.best = Best(iteration, held_out and HeldOut(*held_out), energy)
        if state["average"]:
            self.average = AveragedModel(self.model.energy)
            self.average.load_state_dict(state["average"])
        for name in PLAIN:
            setattr(self, name, state[name])
