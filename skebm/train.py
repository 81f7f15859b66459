"""The one optimization loop. It knows no paper."""

from __future__ import annotations

__all__ = ["Best", "Settings", "TrainState", "train"]

import copy
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from skebm.data import weighted_draws
from skebm.energies import Model
from skebm.exceptions import ConvergenceError
from skebm.objectives import HeldOut, Objective, State

EXPLODED = 1e6  # mean energy of data, nats, that no model of standardized rows needs
RUNAWAY = 5.0  # held-out nats lost against the best snapshot
SECONDS_BETWEEN_CHECKPOINTS = 1.0
PLAIN = ("n_averaged", "start", "history_start", "retries", "lr_factor", "finished")


class Settings(NamedTuple):
    """How long and how to train.

    Parameters
    ----------
    max_iter : int
        Energy updates.
    batch_size : int
        Rows per batch.
    noise : Tensor of shape (d,), optional
        Standard deviation of Gaussian noise on training batches, standardized units.
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
    verbose : bool
        Show a progress bar.

    Examples
    --------
    >>> from skebm.train import Settings
    >>> Settings(max_iter=100).batch_size
    256
    """

    max_iter: int
    batch_size: int = 256
    noise: torch.Tensor | None = None
    eval_every: int = 25
    n_iter_no_change: int | None = None
    tol: float = 0.0
    max_retries: int = 3
    average: bool = True
    verbose: bool = False


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
    average : dict, optional
        Running mean of the energy's parameters where nothing is validated.
    n_averaged : int
        Parameter values in it.
    start, history_start : int
        Updates and history rows of earlier calls.
    retries : int
        Rescues so far.
    lr_factor : float
        Product of the reductions that they made.
    finished, interrupted : bool
        How the last call ended.

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
    average: dict[str, torch.Tensor] | None = None
    n_averaged: int = 0
    start: int = 0
    history_start: int = 0
    retries: int = 0
    lr_factor: float = 1.0
    finished: bool = False
    interrupted: bool = False

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
            "average": self.average,
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
        self.average = state["average"]
        for name in PLAIN:
            setattr(self, name, state[name])


Callback = Callable[[TrainState], bool | None]


def train(
    model: Model,
    objective: Objective,
    x: torch.Tensor,
    *,
    sample_weight: torch.Tensor | None = None,
    validation: torch.Tensor | None = None,
    settings: Settings,
    rng: torch.Generator,
    state: TrainState | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> TrainState:
    """Train a model's energy in place and leave the best parameters in it.

    Parameters
    ----------
    model : Model
        Energy, base and temperature.
    objective : Objective
        The training principle.
    x : Tensor of shape (n, ...)
        Training rows in standardized space.
    sample_weight : Tensor of shape (n,), optional
        Rows are drawn in proportion to it.
    validation : Tensor of shape (m, ...), optional
        Held-out rows. Without them, or where the objective cannot judge, training runs its length
        and the parameters of the second half are averaged (or the last ones kept, see `Settings`).
    settings : Settings
        Length, batches, stopping.
    rng : torch.Generator
        Source of all randomness.
    state : TrainState, optional
        Continue from its optimizers and buffers, and the parameters of `model`, for
        `settings.max_iter` further updates.
    callbacks : sequence of callable
        Each gets the state after every validation and may return True to stop.
    checkpoint : Path, optional
        File that holds the state; training resumes from it where it exists.

    Returns
    -------
    TrainState
        With history; ``model.energy`` holds the best parameters.

    Raises
    ------
    ConvergenceError
        If training diverges more than `settings.max_retries` times.

    Notes
    -----
    The learning rate follows half a cosine to 0, unless its optimizer says otherwise. The
    parameters before the first update are the first snapshot. Ctrl-C returns what was learnt with a
    ``ConvergenceWarning``.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Gaussian
    >>> from skebm.energies import MLP, Model
    >>> from skebm.objectives import ImportanceLikelihood
    >>> from skebm.train import Settings, train
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randn(100, 1, generator=rng)
    >>> base = Gaussian().fit(x, None, rng)
    >>> model = Model(MLP((8,)).build((1,), rng), base, 1.0)
    >>> objective = ImportanceLikelihood(64)
    >>> train(model, objective, x, settings=Settings(50), rng=rng).iteration
    50
    """
    if state is None:
        state = TrainState(0, model, objective.init(model, x, rng), rng)
        if checkpoint is not None and checkpoint.exists():
            state.load(torch.load(checkpoint, map_location=x.device, weights_only=True))
    else:
        state = copy.deepcopy(state)
        state.model.energy.load_state_dict(model.energy.state_dict())
        state.finished = state.interrupted = False
        state.best = state.average = None  # of rows that may have been others
        state.n_averaged = state.retries = 0
        state.lr_factor, state.start = 1.0, state.iteration
        state.history_start = len(state.history)
    loop = _Loop(objective, state, x, sample_weight, validation, settings, callbacks, checkpoint)
    if not state.finished:
        loop.run()
    _finish(state)
    if model.energy is not state.model.energy:
        model.energy.load_state_dict(state.model.energy.state_dict())
    return state


class _Loop:
    """One call of `train`: what is fixed while the state moves."""

    def __init__(
        self,
        objective: Objective,
        state: TrainState,
        x: torch.Tensor,
        sample_weight: torch.Tensor | None,
        validation: torch.Tensor | None,
        settings: Settings,
        callbacks: Sequence[Callback],
        checkpoint: Path | None,
    ) -> None:
        self.objective, self.state, self.settings, self.x = objective, state, settings, x
        self.validation, self.callbacks, self.checkpoint = validation, callbacks, checkpoint
        self.draw = weighted_draws(
            x,
            settings.batch_size,
            weight=sample_weight,
            noise=settings.noise,
            rng=state.rng,
        )
        if state.best is not None and state.best.held_out is None:
            self.validation = None  # resumed: the objective had said that it cannot judge
        self.rows: list[dict[str, torch.Tensor]] = []
        self.written = -math.inf
        self.bar: Any = None

    def run(self) -> None:
        state, settings = self.state, self.settings
        end = state.start + settings.max_iter
        self.bar = tqdm(
            total=settings.max_iter,
            initial=state.iteration - state.start,
            disable=not settings.verbose,
            desc="training",
        )
        try:
            if state.best is None:
                self._validate()
            stop = False
            while state.iteration < end and not stop:
                self._step()
                if state.iteration % settings.eval_every == 0 or state.iteration == end:
                    stop = self._validate()
            state.finished = True
        except KeyboardInterrupt:
            state.interrupted = True
            remedy = "Fit again for the rest."
            if self.checkpoint is None:
                remedy = "With checkpoint_dir or warm_start=True another fit goes on from there."
            warnings.warn(
                f"Training was interrupted after {state.iteration} of {end} updates; the best "
                f"parameters so far are kept, the last where nothing is validated. {remedy}",
                ConvergenceWarning,
                stacklevel=4,
            )
        finally:
            self.bar.close()
        self._write(now=True)

    def _step(self) -> None:
        state = self.state
        done = (state.iteration - state.start) / self.settings.max_iter
        decay = 0.5 * (1 + math.cos(math.pi * done))
        for optimizer in state.objective.optimizers.values():
            for group in optimizer.param_groups:
                factor = decay if group.get("decays", True) else 1.0
                group["lr"] = group["initial_lr"] * state.lr_factor * factor
        state.objective, row = self.objective.step(
            state.model, state.objective, self.draw, state.rng
        )
        state.iteration += 1
        self.rows.append(row)
        if self.validation is None and self.settings.average and done >= 0.5:
            self._accumulate()
        self.bar.update()

    def _accumulate(self) -> None:
        """Polyak average over the second half of the updates."""
        state, current = self.state, self.state.model.energy.state_dict()
        state.n_averaged += 1
        if state.average is None:
            state.average = {k: v.clone() for k, v in current.items()}
            return
        for name, value in state.average.items():
            if value.is_floating_point():
                value.lerp_(current[name], 1 / state.n_averaged)

    def _validate(self) -> bool:
        """Write a history row, keep the best snapshot, rescue; return whether to stop."""
        state = self.state
        row = self._row()
        held_out = self._held_out() if self._sound(row) else None
        if held_out is not None:
            row |= {"validation": held_out.value, "validation_gain": held_out.gain}
            row |= {"validation_stderr": held_out.stderr, "validation_ess": held_out.ess}
        if not self._sound(row) or self._ran_away(held_out):
            return self._rescue(row)
        state.history.append(row)
        if self._is_best(held_out):
            state.best = Best(state.iteration, held_out, _snapshot(state.model.energy))
        if self.bar is not None and held_out is not None:
            self.bar.set_postfix(validation=f"{held_out.value:.3f}")
        self._write()
        stops = [callback(state) for callback in self.callbacks]
        return self._exhausted() or any(stop is True for stop in stops)

    def _held_out(self) -> HeldOut | None:
        if self.validation is None:
            return None
        state = self.state
        held_out = self.objective.validate(state.model, state.objective, self.validation, state.rng)
        if held_out is None:
            self.validation = None  # the objective cannot judge: average instead
        return held_out

    def _row(self) -> dict[str, float]:
        row: dict[str, float] = {"iteration": self.state.iteration}
        if self.rows:
            names = list(self.rows[0])
            means = torch.stack([torch.stack([r[k] for r in self.rows]).mean() for k in names])
            row |= dict(zip(names, means.tolist(), strict=True))
        self.rows = []
        return row

    def _sound(self, row: dict[str, float]) -> bool:
        finite = all(math.isfinite(v) for k, v in row.items() if not k.startswith("validation"))
        parameters = torch.stack([p.sum() for p in self.state.model.energy.parameters()])
        small = abs(row.get("data_energy", 0.0)) < EXPLODED
        return finite and small and bool(parameters.isfinite().all())

    def _ran_away(self, held_out: HeldOut | None) -> bool:
        best = self.state.best
        if held_out is None or best is None or best.held_out is None:
            return False
        if self.state.model.base is None:
            return False  # nothing sound to fall back to: a young model comes and goes
        return held_out.gain < best.held_out.gain - RUNAWAY

    def _is_best(self, held_out: HeldOut | None) -> bool:
        best = self.state.best
        if best is None or held_out is None or best.held_out is None:
            return True  # the start; or nothing to compare: the last sound one
        if best.held_out.value == held_out.value == -math.inf:
            return True  # neither can be judged: the later one
        return held_out.value > best.held_out.value

    def _exhausted(self) -> bool:
        patience = self.settings.n_iter_no_change
        rows = self.state.history[self.state.history_start :]
        values = [row["validation"] for row in rows if "validation" in row]
        if patience is None or len(values) <= patience or max(values) == -math.inf:
            return False
        return max(values[-patience:]) <= max(values[:-patience]) + self.settings.tol

    def _rescue(self, row: dict[str, float]) -> bool:
        """Go back to the best snapshot with a smaller learning rate; give up in the end."""
        state, settings = self.state, self.settings
        state.retries += 1
        broken = not self._sound(row)
        if state.retries > settings.max_retries or state.best is None:
            if broken or state.best is None:
                raise ConvergenceError(
                    f"training diverged {state.retries} times, last after {state.iteration} "
                    f"updates (mean data energy {row.get('data_energy', math.nan):.3g} nats). "
                    "Lower learning_rate, raise data_noise, or use base='mixture'."
                )
            return True  # runs away from a sound best snapshot: keep that one
        state.model.energy.load_state_dict(state.best.energy)
        state.average, state.n_averaged = None, 0
        state.lr_factor *= 0.3
        state.objective = self.objective.recover(state.model, state.objective, self.x, state.rng)
        return False

    def _write(self, now: bool = False) -> None:
        if self.checkpoint is None:
            return
        if not now and time.monotonic() - self.written < SECONDS_BETWEEN_CHECKPOINTS:
            return
        self.written = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=self.checkpoint.parent, delete=False) as file:
            torch.save(self.state.state_dict(), file)
        os.replace(file.name, self.checkpoint)  # atomic: a killed fit leaves the old file


def _snapshot(energy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in energy.state_dict().items()}


def _finish(state: TrainState) -> None:
    """Put the best snapshot, or the average, into the model."""
    if state.best is not None and state.best.held_out is not None:
        state.model.energy.load_state_dict(state.best.energy)
    elif state.average is not None:
        state.model.energy.load_state_dict(state.average)
