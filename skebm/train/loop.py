"""The one optimization loop. It knows no paper."""

from __future__ import annotations

__all__ = ["train"]

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from skebm._ranks import (
    all_or_none,
    averaged,
    gathered,
    n_ranks,
    not_distributed,
    rank,
    same,
    sharing,
)
from skebm._talk import Phases
from skebm._warn import warn
from skebm.bases.uniform import UniformBase
from skebm.data import Table
from skebm.energies import Model
from skebm.exceptions import CheckpointWarning, ConvergenceError
from skebm.objectives import HeldOut, Objective
from skebm.objectives._base import EXPLODED
from skebm.train.checkpoint import read_checkpoint, set_aside, write_checkpoint
from skebm.train.judge import HeldOutLikelihood
from skebm.train.state import Best, Settings, TrainState

RUNAWAY = 5.0  # held-out nats lost against the best snapshot
RESCUED_RATE = 0.3  # of the learning rate, after a rescue
MOST_ROWS = 100_000  # of a table, that an objective sees at its start
SECONDS_BETWEEN_CHECKPOINTS = 1.0
FEWEST = 2  # rows that a rank draws
NEW = 0.02  # share of the last parameters in a running mean of some 50 updates

Callback = Callable[[TrainState], bool | None]


def train(
    model: Model,
    objective: Objective,
    table: Table,
    *,
    settings: Settings,
    rng: torch.Generator,
    state: TrainState | None = None,
    judge: HeldOutLikelihood | None = None,
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
    table : Table
        Batches and held-out rows in standardized space. Without the latter, or where the objective
        cannot judge, training runs its length and the parameters of the second half are averaged
        (or the last ones kept, see `Settings`). Where it has a `share`, all ranks train together.
    settings : Settings
        Length, batches, stopping.
    rng : torch.Generator
        Source of all randomness.
    state : TrainState, optional
        Continue from its optimizers and buffers, and the parameters of `model`, for
        `settings.max_iter` further updates.
    judge : HeldOutLikelihood, optional
        What held-out rows are judged by; None makes one from the base, or near the rows.
    callbacks : sequence of callable
        Each gets the state after every validation and may return True to stop.
    checkpoint : Path, optional
        File that holds the state; training without `state` resumes from it where it exists, and
        says so. One that cannot be read is set aside; one that cannot be written stays as it was.

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
    parameters before the first update are the first snapshot. Whatever stops the loop, Ctrl-C too,
    leaves by its own exception; `checkpoint` then has the state as of a validation at most a second
    before the last.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Gaussian
    >>> from skebm.data import ArrayTable
    >>> from skebm.energies import MLP, Model
    >>> from skebm.objectives import ImportanceLikelihood
    >>> from skebm.train import Settings, train
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randn(100, 1, generator=rng)
    >>> model = Model(MLP((8,)).build((1,), rng), Gaussian().fit(x, None, rng), 1.0)
    >>> objective = ImportanceLikelihood(64)
    >>> train(model, objective, ArrayTable(x), settings=Settings(50), rng=rng).iteration
    50
    """
    if judge is None and table.held_out is not None:
        judge = HeldOutLikelihood(model, _reservoir(table, rng), rng)
    if state is None:
        state = TrainState(0, model, objective.init(model, _reservoir(table, rng), rng), rng)
        if checkpoint is not None:
            _resume(state, checkpoint)
    else:
        state = _continued(state, model, rng)
    with not_distributed() if table.share is None else nullcontext():
        _agree(state)
        if not state.finished:
            _set_apart(rng)
            _Loop(objective, state, table, settings, judge, callbacks, checkpoint).run()
            _agree(state)
    state.model.energy.load_state_dict(state.leaves())
    if model.energy is not state.model.energy:
        model.energy.load_state_dict(state.model.energy.state_dict())
    return state


def _resume(state: TrainState, checkpoint: Path) -> None:
    """Take over what a checkpoint holds, and say so."""
    saved = read_checkpoint(checkpoint, state.rng.device)
    if saved is None:
        return
    try:
        if saved["start"] != 0:  # what a warm start left is no part of this training
            return
        copy.deepcopy(state).load(saved)  # all of it or nothing
    except Exception as error:
        set_aside(checkpoint, error)
        return
    state.load(saved)
    how = "is read, finished," if state.finished else "goes on"
    warn(
        f"training {how} from {str(checkpoint)!r} after {state.iteration} updates. Delete the file "
        "to start anew.",
        CheckpointWarning,
    )


def _agree(state: TrainState) -> None:
    """Take over the first rank's state."""
    if n_ranks() > 1:
        first = same(state.state_dict(), state.rng.device)
        if rank() > 0:
            state.load(first)


def _set_apart(rng: torch.Generator) -> None:
    """Give each rank random numbers of its own."""
    if n_ranks() > 1:
        seed = torch.randint(2**62, (), generator=rng, device=rng.device)
        rng.manual_seed(int(seed) + rank())


def _reservoir(table: Table, rng: torch.Generator) -> torch.Tensor:
    """Return what an objective sees of the training rows at its start."""
    return table.rows(MOST_ROWS, noised=False).by_weight(rng)


def _continued(state: TrainState, model: Model, rng: torch.Generator) -> TrainState:
    """Return a copy that goes on from the parameters of `model`, with rescues and judgment anew."""
    state = copy.deepcopy(state)
    state.model.energy.load_state_dict(model.energy.state_dict())
    state.rng, state.finished = rng, False
    state.best = state.average = None  # of rows that may have been others
    state.retries, state.lr_factor = 0, 1.0
    state.start, state.history_start = state.iteration, len(state.history)
    return state


class _Loop:
    """One call of `train`: what is fixed while the state moves."""

    def __init__(
        self,
        objective: Objective,
        state: TrainState,
        table: Table,
        settings: Settings,
        judge: HeldOutLikelihood | None,
        callbacks: Sequence[Callback],
        checkpoint: Path | None,
    ) -> None:
        self.objective, self.state, self.settings, self.table = objective, state, settings, table
        self.judge, self.callbacks, self.checkpoint = judge, callbacks, checkpoint
        self.held_out = table.held_out
        if state.best is not None and state.best.held_out is None:
            self.held_out = None  # resumed: the objective had said that it cannot judge
        size = settings.batch_size
        if table.share is not None:
            size = max(round(table.share * size), FEWEST)
        self.draw = partial(table.draw, size, state.rng)
        self.rows: list[dict[str, torch.Tensor]] = []
        self.written, self.pending = -math.inf, False
        self.phases = Phases(settings.verbose)

    def run(self) -> None:
        """Update and validate up to the end, or until validation says to stop."""
        state, settings = self.state, self.settings
        end, stop = state.start + settings.max_iter, False
        with tqdm(
            total=settings.max_iter,
            initial=state.iteration - state.start,
            disable=settings.verbose != 1,
            desc="training",
        ) as bar:
            try:
                if state.best is None:
                    stop = self._validate(bar)
                else:
                    self.table.reweigh(self._judged_model().potential)
                while state.iteration < end and not stop:
                    self._update()
                    bar.update()
                    if state.iteration % settings.eval_every == 0 or state.iteration == end:
                        stop = self._validate(bar)
                state.finished = True
            finally:  # an update that was cut short cannot be gone on from
                if not self.pending:
                    self._write(now=True)

    def _update(self) -> None:
        state, self.pending = self.state, True
        done = (state.iteration - state.start) / self.settings.max_iter
        decay = 0.5 * (1 + math.cos(math.pi * done))
        for optimizer in state.objective.optimizers.values():
            for group in optimizer.param_groups:
                factor = decay if group.get("decays", True) else 1.0
                group["lr"] = group["initial_lr"] * state.lr_factor * factor
        with sharing(self.table.share):
            state.objective, row = self.objective.step(
                state.model, state.objective, self.draw, state.rng
            )
        state.iteration += 1
        self.rows.append(row)
        late = self.held_out is None and self.settings.average and done >= 0.5
        if late or self.settings.smoothed:
            how = smooth if self.settings.smoothed else None
            state.average = state.average or AveragedModel(state.model.energy)
            state.average.multi_avg_fn = how  # not among what is written
            state.average.update_parameters(state.model.energy)

    def _validate(self, bar: Any) -> bool:
        """Write a history row, judge it and act on the verdict; return whether to stop."""
        state, row = self.state, self._row()
        _check_alike(state.model)
        sound = _is_sound(row, state.model)
        sound, held_out = same((sound, self._judged() if sound else None))
        if sound and held_out is None:
            self.held_out = None  # nothing can be judged: average instead
        if not sound or _ran_away(held_out, state):
            stop, self.pending = self._rescue(row, sound), False
            return stop
        if held_out is not None:
            row |= {"validation": held_out.value, "validation_gain": held_out.gain}
            row |= {"validation_stderr": held_out.stderr, "validation_ess": held_out.ess}
            bar.set_postfix(validation=f"{held_out.value:.3f}")
            gain = f"{held_out.gain:.3f} +- {held_out.stderr:.3f}"
            self.phases.say(f"update {state.iteration}: {gain} nats above the base, held out")
        state.history.append(row)
        self.table.reweigh(self._judged_model().potential)
        if _is_best(held_out, state.best):
            energy = self._judged_model().energy.state_dict()
            snapshot = {k: v.detach().clone() for k, v in energy.items()}
            state.best = Best(state.iteration, held_out, snapshot)
        self.pending = False
        self._write()
        with all_or_none(), not_distributed():
            stops = [callback(state) for callback in self.callbacks]
        stop = any(stop is True for stop in stops)
        return any(gathered(stop)) or _exhausted(state, self.settings)

    def _row(self) -> dict[str, float]:
        """Return the means over the updates since the last row."""
        row: dict[str, float] = {"iteration": self.state.iteration}
        if self.rows:
            names = list(self.rows[0])
            means = torch.stack([torch.stack([r[k] for r in self.rows]).mean() for k in names])
            with sharing(self.table.share):
                (means,) = averaged([means])
            row |= dict(zip(names, means.tolist(), strict=True))
        self.rows = []
        return row

    def _judged(self) -> HeldOut | None:
        if self.held_out is None:
            return None
        model, rows, judge = self._judged_model(), self.held_out, self.judge
        assert judge is not None  # made where rows are held out
        likelihood = partial(judge, model, rows)
        return self.objective.judge(model, self.state.objective, rows, likelihood)

    def _judged_model(self) -> Model:
        """Return the model as it is, or with the running mean of its parameters."""
        model, average = self.state.model, self.state.average
        if self.settings.smoothed and average is not None:
            return model._replace(energy=average.module)
        return model

    def _rescue(self, row: dict[str, float], sound: bool) -> bool:
        """Go back to the best snapshot with smaller steps, of chains too; give up in the end."""
        state, settings = self.state, self.settings
        state.retries += 1
        if state.retries > settings.max_retries or state.best is None:
            if not sound or state.best is None:
                raise ConvergenceError(
                    f"training diverged {state.retries} times, last after {state.iteration} "
                    f"updates (mean data energy {row.get('data_energy', math.nan):.3g} nats). "
                    "Lower learning_rate, raise data_noise, or use base='mixture'."
                )
            return True  # runs away from a sound best snapshot: keep that one
        state.model.energy.load_state_dict(state.best.energy)
        state.average = None
        state.lr_factor *= RESCUED_RATE
        x = _reservoir(self.table, state.rng)
        state.objective = self.objective.recover(state.model, state.objective, x, state.rng)
        return False

    def _write(self, now: bool = False) -> None:
        if self.checkpoint is None:
            return
        if not now and time.monotonic() - self.written < SECONDS_BETWEEN_CHECKPOINTS:
            return
        if not write_checkpoint(self.checkpoint, self.state.state_dict()):
            self.checkpoint = None  # once is enough
        self.written = time.monotonic()


def _check_alike(model: Model) -> None:
    """Refuse ranks whose parameters have parted by more than rounding."""
    if n_ranks() == 1:
        return
    told = gathered([float(p.detach().double().sum()) for p in model.energy.parameters()])
    if not np.allclose(told, told[0], 1e-3, 1e-3, equal_nan=True):
        raise RuntimeError(
            f"parameters must be the same on all ranks after an update, got sums of {told}. An "
            "objective of your own takes its steps by skebm.objectives.descend."
        )


@torch.no_grad()
def smooth(means: Any, parameters: Any, n_averaged: Any) -> None:
    """Move running means toward the last parameters."""
    for mean, parameter in zip(means, parameters, strict=True):
        mean.lerp_(parameter, NEW)


def _is_sound(row: dict[str, float], model: Model) -> bool:
    """Whether all numbers and parameters are finite, and energies of a size that can be."""
    parameters = torch.stack([p.sum() for p in model.energy.parameters()])
    small = abs(row.get("data_energy", 0.0)) < EXPLODED
    return small and all(map(math.isfinite, row.values())) and bool(parameters.isfinite().all())


def _ran_away(held_out: HeldOut | None, state: TrainState) -> bool:
    """Whether a model has left its best snapshot for good."""
    if held_out is None or state.best is None or state.best.held_out is None:
        return False
    if state.model.base is None or isinstance(state.model.base, UniformBase):
        return False  # nothing sound to fall back to: a young model comes and goes
    return held_out.gain < state.best.held_out.gain - RUNAWAY


def _is_best(held_out: HeldOut | None, best: Best | None) -> bool:
    if best is None or held_out is None or best.held_out is None:
        return True  # the start; or nothing to compare: the last sound one
    if best.held_out.value == held_out.value == -math.inf:
        return True  # neither can be judged: the later one
    return held_out.value > best.held_out.value


def _exhausted(state: TrainState, settings: Settings) -> bool:
    """Whether patience has come to its end."""
    patience = settings.n_iter_no_change
    rows = state.history[state.history_start :]
    values = [row["validation"] for row in rows if "validation" in row]
    if patience is None or len(values) <= patience or max(values) == -math.inf:
        return False
    return max(values[-patience:]) <= max(values[:-patience]) + settings.tol
