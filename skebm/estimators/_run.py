"""One fit's means and result: randomness, device, checkpoint, callbacks; what was learnt."""

from __future__ import annotations

__all__ = ["Before", "Learned", "Run", "listed_codes", "places"]

import copy
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array

from skebm._ranks import all_or_none, rank, same
from skebm._surroundings import threads
from skebm._talk import Phases
from skebm._warn import warn
from skebm.bases import Base, BaseComponent, Mixture
from skebm.bases.mixed import MixedMixture
from skebm.bases.tails import fit_defended
from skebm.bases.uniform import UniformBase
from skebm.data import Schema, Table, Transform, resolve_device
from skebm.energies import Model, Zero, build_energy
from skebm.energies.aliases import ENERGIES
from skebm.energies.bounded import bounded_by
from skebm.energies.coded import coded
from skebm.estimators._callbacks import FitTask
from skebm.estimators._checkpoint import Checkpoint
from skebm.estimators._shared import optimization_of, resolved
from skebm.fitted import Draws
from skebm.fitted.energy import EnergySource
from skebm.fitted.normalization import MOST_COLUMNS, near
from skebm.objectives import HeldOut, Objective, Optimization
from skebm.train import HeldOutLikelihood, Settings, TrainState, train

FOLLOWING = {"energy", "log_z", "critic"}  # optimizers whose rate is that of the energy
MOST_ROWS = 100_000  # that a base is fitted to


class Reach(NamedTuple):
    """How far known rows reach: lowest and highest of each column, units of X, and their number."""

    low: np.ndarray
    high: np.ndarray
    n_rows: int


class Before(NamedTuple):
    """What a warm start goes on from."""

    states: list[TrainState]
    transform: Transform
    structure: dict[str, Any]  # the parameters that it cannot change
    schema: Schema | None = None
    reach: Reach | None = None  # of the rows of the first fit
    is_block: bool = False  # of partial_fit, whose rows are few of many
    kept: bool = False  # the energy, for which earlier blocks spoke
    model: Model | None = None  # where a fit left it without its states


class Learned(NamedTuple):
    """What training leaves.

    Parameters
    ----------
    model : Model
        With the best energy.
    states : list of TrainState
        Of the phases.
    held_out : HeldOut or None
        What the model is worth on rows that it has not seen; None where nothing was judged.
    judged : bool
        Whether an energy could earn its place; with too few rows to hold out, it cannot.
    proposal : Base, optional
        Normalized density near the model, where it has one beside its base.
    draws : Draws, optional
        How it is drawn from; None is by weights.
    extras : dict, optional
        Further fitted attributes.
    kept : bool
        Whether earlier blocks of rows spoke for the energy.
    """

    model: Model
    states: list[TrainState]
    held_out: HeldOut | None
    judged: bool
    proposal: Base | None = None
    draws: Draws | None = None
    extras: dict[str, Any] = {}
    kept: bool = False

    @property
    def earned(self) -> bool:
        """Whether the energy stays: it gains more than a standard error on its base.

        One that earlier blocks of rows spoke for goes if it loses as much.
        """
        if self.model.base is None:
            return True
        found = self.held_out
        least = 0.0 if found is None else -found.stderr if self.kept else found.stderr
        return self.judged and (found is None or found.gain > least)

    def model_or_base(self) -> Model:
        """Return the model, or its base where the energy does not improve on it."""
        return self.model if self.earned else self.model._replace(energy=Zero())

    def proposal_for(self, model: Model, table: Table, rng: torch.Generator) -> Base:
        """Return a normalized density near the model."""
        if self.proposal is None or (isinstance(model.energy, Zero) and model.base is not None):
            return near(model, table, rng)
        return self.proposal

    def tell(self, learning_rate: float, verbose: bool) -> None:
        """Warn if training diverged for nothing; say what became of the energy if `verbose`.

        Over a base, an energy that ran away once and was sound with smaller steps may fail to earn
        its place as any other does.
        """
        retries = max((state.retries for state in self.states), default=0)
        if retries and (self.model.base is None or (not self.earned and retries > 1)):
            left = "" if self.earned else "; the model is its base alone"
            warn(
                f"training diverged (rescues: {retries}) at learning_rate {learning_rate:g} and "
                f"went back{left}. Lower learning_rate.",
                ConvergenceWarning,
            )
        if verbose and self.model.base is not None:
            kept = "energy kept" if self.earned else "base kept, without energy"
            found = self.held_out
            gain = (
                "none was measured" if found is None else f"{found.gain:.4g} +- {found.stderr:.2g}"
            )
            print(f"{kept}: held-out gain over the base, nats per row: {gain}")

    @property
    def gain(self) -> tuple[float, float] | None:
        """Held-out gain over the base and its standard error."""
        if not self.earned:
            return 0.0, 0.0
        return None if self.held_out is None else (self.held_out.gain, self.held_out.stderr)

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of all phases, counted on."""
        rows, done = [], 0
        for state in self.states:
            rows += [{**row, "iteration": row["iteration"] + done} for row in state.history]
            done += state.iteration
        return rows


class Run:
    """What a fit works with; nothing of it is kept.

    Attributes
    ----------
    rng : torch.Generator
        Equal on all ranks; while they train, each has numbers of its own.
    verbose : int
        0 but on the first rank.
    before : Before or None
        What a warm start goes on from.
    schema : Schema or None
        What the columns are, where some are not plain numbers.
    coded : Schema or None
        The same where some of them are codes.
    """

    def __init__(
        self,
        estimator: Any,
        X: np.ndarray,
        weight: np.ndarray | None,
        before: Before | None,
        weighted: bool = False,
        y: Any = None,
        schema: Schema | None = None,
    ) -> None:
        self.params: Any = estimator
        self.verbose = int(estimator.verbose) if rank() == 0 else 0
        self.schema, self.phases = schema, Phases(self.verbose)
        self.coded = schema if schema is not None and schema.has_codes else None
        self.before, self.n_features = before, X.shape[1]
        self.device = resolve_device(estimator.device)
        self.temperature = float(getattr(estimator, "temperature", 1.0))
        # equal weights are None here, but callbacks hear of weights where any were given
        told = np.ones(len(X)) if weighted and weight is None else weight
        self.task = FitTask(estimator, X, y, told)
        with all_or_none():
            self.checkpoint = Checkpoint(estimator, X, weight)
        self.rng = torch.Generator(self.device).manual_seed(same(self.checkpoint.seed))

    @property
    def kept(self) -> bool:
        """Whether earlier blocks of rows spoke for the energy."""
        return self.before is not None and self.before.is_block and self.before.kept

    @property
    def source(self) -> EnergySource:
        """What builds the energy."""
        shape, schema = self.params.image_shape, self.coded
        n = self.n_features if schema is None else schema.n_numbers + sum(schema.n_levels)
        return EnergySource(
            copy.deepcopy(self.params.energy), (n,) if shape is None else tuple(shape)
        )

    @property
    def optimization(self) -> Optimization:
        """Return the optimizer's settings: those of an instance, else the estimator's own."""
        return optimization_of(self.params)

    def model(self, table: Table) -> Model:
        """Return what is to be trained: that of a warm start, else base and energy anew."""
        if self.before is not None:
            return self._model_before(self.before, table)
        chosen = None if self.params.base is None else resolved(self.params, "base")
        base = None if chosen is None else self.fit_base(chosen, table)
        return Model(self.new_energy(base, table), base, self.temperature)

    def _model_before(self, before: Before, table: Table) -> Model:
        """Return what an earlier fit ended with, a new energy where it kept none."""
        if before.states:
            return copy.deepcopy(before.states[-1].model)
        model = copy.deepcopy(before.model)
        assert model is not None  # of a fit without states
        if isinstance(model.energy, Zero) and model.base is not None:
            return model._replace(energy=self.new_energy(model.base, table))
        return model

    def new_energy(self, base: Base | None, table: Table) -> torch.nn.Module:
        """Build a fresh energy, kept to a box where it has a base."""
        energy = build_energy(self.source.energy, ENERGIES, self.source.shape, self.rng)
        if self.coded is not None:
            numbers = table.rows(MOST_ROWS, noised=False).x[:, : self.coded.n_numbers]
            absent = torch.tensor(self.coded.absent, dtype=torch.long).reshape(-1, 3)
            levels = torch.tensor(self.coded.n_levels)
            return coded(energy, numbers, levels.to(numbers.device), absent.to(numbers.device))
        if base is None or (self.is_image and not isinstance(base, UniformBase)):
            return energy
        return bounded_by(energy, base, table.rows(MOST_ROWS, noised=False).x)

    def fit_base(self, component: BaseComponent, table: Table) -> Base:
        """Fit a normalized density to the training rows; with heavy tails, but for images."""
        if self.coded is not None:
            component = self._with_codes(component, self.coded)
        fit = component.fit if self.is_image else functools.partial(fit_defended, component)
        base = self.checkpoint.base(lambda: fit(*table.rows(MOST_ROWS), self.rng), self.rng)
        base = same(base, self.device)
        kind = type(getattr(base, "core", base)).__name__.removesuffix("Base")
        parts = getattr(base, "log_weights", None)  # of mixtures
        self.phases.done("base", kind if parts is None else f"{kind} of {len(parts)} components")
        return base

    def _with_codes(self, component: BaseComponent, schema: Schema) -> MixedMixture:
        """Return the mixture that has tables for codes."""
        if not isinstance(component, Mixture):
            raise ValueError(
                f"base must be a mixture for columns of codes ({listed_codes(schema)}), got "
                f"{type(component).__name__}. Use base='union' or 'mixture', or give an array of "
                "numbers."
            )
        return MixedMixture(component, schema.n_levels, schema.absent)

    @property
    def is_image(self) -> bool:
        """Whether rows are images, whose columns are of one kind and bounded."""
        return self.params.image_shape is not None

    def is_near(self, model: Model) -> bool:
        """Whether draws of a proposal can be weighed: without a base in few columns alone."""
        return model.base is not None or self.n_features <= MOST_COLUMNS

    def can_judge(self, table: Table, model: Model) -> bool:
        """Whether an energy could earn its place."""
        asked = model.base is not None and self.params.validation_fraction > 0
        return table.held_out is not None or not asked

    def settings(self, **changes: Any) -> Settings:
        """Return what the loop is told."""
        p = self.params
        told = Settings(
            max_iter=p.max_iter,
            batch_size=p.batch_size,
            n_iter_no_change=p.n_iter_no_change,
            tol=p.tol,
            average=self.optimization.averaging,
            verbose=self.verbose,
        )
        return told._replace(**changes)

    def train(
        self, model: Model, objectives: Sequence[Objective], table: Table, **changes: Any
    ) -> Learned:
        """Train by one principle after the other; one update where no energy could stay."""
        judged = self.can_judge(table, model)
        settings = self.settings(**changes) if judged else self.settings(max_iter=1)
        states = [
            self.phase(i, model, objective, table, settings)
            for i, objective in enumerate(objectives)
        ]
        best = states[-1].best
        held_out = None if best is None else best.held_out
        return Learned(model, states, held_out, judged, kept=self.kept)

    def phase(
        self,
        i: int,
        model: Model,
        objective: Objective,
        table: Table,
        settings: Settings,
        *,
        judge: HeldOutLikelihood | None = None,
        state: int | None = None,
    ) -> TrainState:
        """Train by one principle, numbered for the checkpoint; `state` numbers the earlier one."""
        model.energy.requires_grad_(True).eval()  # dropout would draw from torch's global state
        with threads(model.multiply_adds(settings.batch_size)):
            return train(
                model,
                objective,
                table,
                settings=settings,
                rng=self.rng,
                state=self._earlier(i if state is None else state),
                judge=judge,
                callbacks=[self.task.on_validation],
                checkpoint=self.checkpoint.phase(i),
            )

    def _earlier(self, at: int) -> TrainState | None:
        """Return the state that a phase of a warm start goes on from, at this fit's rate."""
        if self.before is None or at >= len(self.before.states):
            return None
        state = copy.deepcopy(self.before.states[at])
        optimizers = state.objective.optimizers
        faster = self.optimization.learning_rate / _rate(optimizers["energy"])
        for name in FOLLOWING & optimizers.keys():
            if name != "critic" or resolved(self.params, "critic").learning_rate is None:
                for group in optimizers[name].param_groups:
                    group["initial_lr"] *= faster
        return state

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.checkpoint.release()

    def end(self, found: dict[str, Any]) -> None:
        """Forget the checkpoint of a fit without a seed, and tell the callbacks."""
        self.checkpoint.close()
        self.task.end(found)


def listed_codes(schema: Schema, most: int = 3) -> str:
    """Return the names of the columns that have codes, of many the first."""
    names = schema.names[schema.n_numbers :]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["initial_lr"])


def places(name: str, value: Any, transform: Transform, device: torch.device) -> Any:
    """Return rows that a parameter holds as standardized rows; a choice as it is."""
    if value is None or isinstance(value, str):
        return value
    rows = check_array(value, dtype=np.float64, input_name=name)
    if rows.shape[1] != transform.n_features:
        raise ValueError(
            f"{name} must have the {transform.n_features} columns of X, got shape {rows.shape}. "
            "Give places in the units of X."
        )
    return transform.forward(rows, device)
