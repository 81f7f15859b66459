"""What every estimator shares: fit reads as the data flow, reads return the units of X."""

from __future__ import annotations

__all__ = ["EnergyDensity"]

import copy
import warnings
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin
from sklearn.utils import check_array
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from skebm._components import check_choice, check_number, resolve
from skebm.bases import Base, BaseComponent
from skebm.data import resolve_device, torch_generator
from skebm.energies import Model, Zero, build_energy
from skebm.energies.bounded import bounded_by
from skebm.estimators._callbacks import CallbackSupportMixin, FitTask, with_callbacks
from skebm.estimators._checkpoint import Checkpoint
from skebm.estimators._normalization import (
    MOST_COLUMNS,
    choose_proposal,
    estimate_log_partition,
)
from skebm.estimators._parameters import ALIASES, check_shared
from skebm.estimators._persistence import load_estimator, place, portable_state, save_estimator
from skebm.estimators._preparation import Prepared, choose_standardizer, prepare
from skebm.estimators._reading import draw_samples, evaluate, finite
from skebm.exceptions import NormalizationWarning
from skebm.objectives import HeldOut, Objective, Optimization
from skebm.objectives._base import METHODS
from skebm.train import Settings, TrainState, train

HELD_OUT_QUANTILE, FEW_HELD_OUT = 0.05, 40
STRUCTURE = ("energy", "base", "image_shape", "generator", "latent_dim", "entropy", "critic")


class SampleInfo(NamedTuple):
    """How the last ``sample`` went.

    Parameters
    ----------
    ess : float
        Effective number of base draws that the samples were chosen from.
    n_candidates : int
        Base draws made.
    acceptance : float
        Mean acceptance of the Metropolis-adjusted moves afterwards.
    """

    ess: float
    n_candidates: int
    acceptance: float


class EnergyDensity(CallbackSupportMixin, OutlierMixin, DensityMixin, BaseEstimator):
    """Abstract density estimator and novelty detector over an energy and a base.

    Subclasses have a constructor and ``_objectives``. See `HybridCDDensity` for the parameters.
    """

    @abstractmethod
    def _objectives(self, optimization: Optimization) -> list[Objective]:
        """Return the training principles that the parameters describe, one per phase."""

    @with_callbacks
    def fit(self, X, y=None, sample_weight=None):
        """Learn the density of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, finite numbers.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Nonnegative weights; a row counts in proportion to its weight.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If X or a parameter is unfit; the message names it.
        ConvergenceError
            If training diverges and smaller steps do not help.
        """
        X = validate_data(
            self, X, dtype=np.float64, order="C", ensure_min_samples=2, reset=not self._continues()
        )
        X, weight = _weighted_rows(X, sample_weight)
        check_shared(self)
        if self._continues():
            self._check_structure()
        self.device_ = resolve_device(self.device)
        self.temperature_ = float(getattr(self, "temperature", 1.0))
        task = FitTask(self, X, weight)
        checkpoint = Checkpoint.of(self, X, weight)
        rng = torch.Generator(self.device_).manual_seed(checkpoint.seed)
        prepared = self._prepare(X, weight, rng)
        objectives = self._objectives(self._optimization())
        states = self._train(objectives, prepared, checkpoint, rng, task)
        self._keep(states, prepared, rng)
        self._proposal = self._choose_proposal(prepared, rng)
        self._kept = self._players(objectives[0], states[0], prepared)
        self.log_partition_ = estimate_log_partition(self, rng)
        self._complete(prepared, rng)
        self.offset_ = self._offset(X, prepared.held_out)
        if not states[-1].interrupted:
            checkpoint.close()
        task.end()
        return self

    def score_samples(self, X):
        """Return the log density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the units of the training table.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log density in nats, in the units of X, finite; unnormalized where ``log_partition_`` is
            None. A row's value does not depend on the other rows.
        """
        return self._log_density(self._checked(X))

    def _log_density(self, X: np.ndarray) -> np.ndarray:
        model = self._model()
        log_z = 0.0 if self.log_partition_ is None else self.log_partition_.value
        shift = log_z + self._standardizer.log_volume
        return finite(-evaluate(self, X, model.potential) - shift)

    def score(self, X, y=None):
        """Return the mean log density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : None
            Ignored.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, nats per row: the convention of GaussianMixture;
            KernelDensity's ``score`` is the sum.
        """
        values = self.score_samples(X)
        if self.log_partition_ is None:
            warnings.warn(
                "score is a mean of unnormalized log densities (log_partition=None), which cannot "
                "be compared between models. Set log_partition to a method, 'importance' say.",
                NormalizationWarning,
                stacklevel=2,
            )
        return float(values.mean())

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the fitted density.

        Draws from the base (without one, from a mixture near the data) are resampled by their
        weights, then moved by Metropolis-adjusted Langevin steps that leave the density unchanged.
        ``sample_info_`` holds the effective number of draws and the acceptance. Without a base and
        with more than 32 columns no such draws are near the data: chains then run as in training,
        and are only as good as the training made them.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's own ``random_state``.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of X.
        """
        check_is_fitted(self)
        seed = self.random_state if random_state is None else random_state
        check_number("n_samples", n_samples, low=1, integer=True)
        rng = torch_generator(seed, self.device_)
        if self.base_ is None and self.n_features_in_ > MOST_COLUMNS:
            z, info = self._generate(n_samples, rng), (float("nan"), 0, float("nan"))
        else:
            z, info = draw_samples(self, n_samples, rng)
        self.sample_info_ = SampleInfo(*info)
        return self._standardizer.inverse(z)

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``: at least 0 for inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Nats above the threshold.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Return +1 for inliers and -1 for novelties.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            +1 where ``decision_function`` is at least 0.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def energy_samples(self, X):
        """Return the energy E alone, without base, temperature and normalizer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the units of X.

        Returns
        -------
        ndarray of shape (n_samples,)
            E in nats, a function on standardized space; defined up to a constant.
        """
        X = self._checked(X)
        return finite(evaluate(self, X, self.energy_))

    def score_function(self, X):
        """Return the gradient of the log density at each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in the units of X.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Nats per unit of X. Needs no normalizer.
        """
        X = self._checked(X)
        model = self._model()
        score = evaluate(self, X, lambda z: model.potential_and_score(z)[1], X.shape[1:])
        return finite(score / self._standardizer.scale)

    def save(self, path):
        """Write the fitted estimator to one file: tensors and a JSON header, no pickle.

        Parameters
        ----------
        path : str or Path
            File to write, in safetensors format.

        Raises
        ------
        TypeError
            If the base wraps a torch distribution or a parameter has no plain form.
        FileNotFoundError
            If the folder does not exist.

        Notes
        -----
        The state of the training is not written: after `load` a fit with ``warm_start=True`` begins
        anew. Pickle keeps it.
        """
        check_is_fitted(self)
        save_estimator(self, path)

    @classmethod
    def load(cls, path, energy=None):
        """Read an estimator that `save` wrote; no code from the file is run.

        Parameters
        ----------
        path : str or Path
            File to read.
        energy : callable, optional
            The factory, for a model whose energy was a callable.

        Returns
        -------
        estimator
            Fitted, on the device that its ``device`` parameter names here.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no saved estimator of this class, or its energy factory is missing.
        """
        return load_estimator(cls, path, energy)

    def set_params(self, **params):
        """Set parameters; ``energy__hidden_sizes`` works on an alias too.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        for name in {key.split("__")[0] for key in params if "__" in key} & set(ALIASES):
            value = params.get(name, getattr(self, name, None))
            if isinstance(value, str):
                params[name] = resolve(value, *ALIASES[name], name)
        return super().set_params(**params)

    def __repr__(self, **kwargs):
        text = super().__repr__(**kwargs)
        unnormalized = hasattr(self, "energy_") and self.log_partition_ is None
        return f"{text} (unnormalized)" if unnormalized else text

    def __getstate__(self):
        return portable_state(super().__getstate__())

    def __setstate__(self, state):
        super().__setstate__(state)
        place(self)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def _continues(self) -> bool:
        return bool(self.warm_start) and hasattr(self, "_train_states")

    def _current_structure(self) -> dict[str, Any]:
        """Return the parameters that a warm start cannot change, aliases as what they stand for."""
        names = [name for name in STRUCTURE if name in self.get_params(deep=False)]
        found = {name: getattr(self, name) for name in names}
        for name in set(found) & set(ALIASES):
            if isinstance(found[name], str):
                found[name] = resolve(found[name], *ALIASES[name], name)
        return copy.deepcopy(found)

    def _check_structure(self) -> None:
        now = self._current_structure()
        for name, value in self._structure.items():
            if now[name] != value and not (callable(value) and callable(now[name])):
                raise ValueError(
                    f"{name} must be that of the last fit with warm_start=True, {value!r}, got "
                    f"{now[name]!r}. Set warm_start=False to start anew."
                )

    def _model(self) -> Model:
        return Model(self.energy_, self.base_, self.temperature_)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _column_names(self) -> list[str]:
        names = getattr(self, "feature_names_in_", None)
        return [f"column {j}" for j in range(self.n_features_in_)] if names is None else list(names)

    def _prepare(self, X: np.ndarray, weight: np.ndarray | None, rng: torch.Generator) -> Prepared:
        if not self._continues():
            self._standardizer = choose_standardizer(
                X, weight, self.standardize, self.image_shape is not None
            )
        prepared = prepare(
            X,
            weight,
            standardizer=self._standardizer,
            data_noise=self.data_noise,
            validation_fraction=self.validation_fraction,
            names=self._column_names(),
            rng=rng,
        )
        self.data_noise_ = prepared.noise
        return prepared

    def _train(
        self,
        objectives: list[Objective],
        prepared: Prepared,
        checkpoint: Checkpoint,
        rng: torch.Generator,
        task: FitTask,
    ) -> list[TrainState]:
        before = self._train_states if self._continues() else None
        model = before[-1].model if before else self._new_model(prepared, rng)
        known = before or []
        phases = [
            (i, objective, known[i] if i < len(known) else None)
            for i, objective in enumerate(objectives)
        ]
        settings = self._settings(prepared)
        return self._run_phases(model, phases, settings, prepared, checkpoint, rng, task)

    def _run_phases(
        self,
        model: Model,
        phases: list[tuple[int, Objective, TrainState | None]],
        settings: Settings,
        prepared: Prepared,
        checkpoint: Checkpoint,
        rng: torch.Generator,
        task: FitTask,
    ) -> list[TrainState]:
        """Train one model by numbered principles, one after the other, each from its state."""
        model.energy.requires_grad_(True).eval()  # dropout would draw from torch's global state
        states: list[TrainState] = []
        for i, objective, before in phases:
            state = train(
                model,
                objective,
                prepared.x,
                sample_weight=prepared.weight,
                validation=prepared.validation,
                settings=settings,
                rng=rng,
                state=before,
                callbacks=[task.on_validation],
                checkpoint=checkpoint.phase(i),
            )
            states.append(state)
            if state.interrupted:
                break
        return states

    def _settings(self, prepared: Prepared) -> Settings:
        return Settings(
            max_iter=self.max_iter if self._can_judge(prepared) else 1,
            batch_size=self.batch_size,
            noise=torch.from_numpy(prepared.noise).to(prepared.x) if prepared.noise.any() else None,
            eval_every=self.eval_every,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
            average=bool(getattr(self, "averaging", True)),
            verbose=bool(self.verbose),
        )

    def _new_model(self, prepared: Prepared, rng: torch.Generator) -> Model:
        aliases, kind = ALIASES["base"]
        base: Base | None = None
        rows = prepared.noised(rng)
        if self.base is not None:
            component = resolve(self.base, aliases, kind, "base")
            base = self._fit_base(component, rows, prepared.weight, rng)
        return Model(self._new_energy(base, rng), base, float(self.temperature_))

    def _new_energy(self, base: Base | None, rng: torch.Generator) -> torch.nn.Module:
        energy = build_energy(self.energy, ALIASES["energy"][0], self._energy_shape(), rng)
        return self._wrapped(energy, base)

    def _places(self, name: str, value: Any) -> Any:
        """Return rows that a parameter holds as standardized rows; a choice as it is."""
        if value is None or isinstance(value, str):
            return value
        rows = check_array(value, dtype=np.float64, input_name=name)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"{name} must have the {self.n_features_in_} columns of X, got shape {rows.shape}. "
                "Give places in the units of X."
            )
        return self._standardizer.transform(rows, self.device_)

    def _fit_base(
        self,
        component: BaseComponent,
        rows: torch.Tensor,
        weight: torch.Tensor | None,
        rng: torch.Generator,
    ) -> Base:
        return component.fit(rows, weight, rng)

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        """Return what else the first phase leaves, to be kept and saved: chains or points."""
        return {}

    def _noise(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return n starts of noise for chains, standardized space."""
        if self.base_ is not None:
            return self.base_.sample(n, rng)
        noise = torch.empty(n, self.n_features_in_, device=self.device_)
        return noise.normal_(generator=rng)

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Return the ends of n chains that start at noise (or the bank) and run as in training."""
        raise NotImplementedError(f"{type(self).__name__} cannot sample without a base.")

    def _optimization(self) -> Optimization:
        method = getattr(self, "optimizer", "adam")
        if isinstance(method, Optimization):
            return method
        check_choice("optimizer", method, METHODS, "Or pass an Optimization.")
        return Optimization(self.learning_rate, weight_decay=self.weight_decay, method=method)

    def _energy_shape(self) -> tuple[int, ...]:
        return (self.n_features_in_,) if self.image_shape is None else tuple(self.image_shape)

    def _can_judge(self, prepared: Prepared) -> bool:
        """Whether an energy could earn its place; with too few rows to hold out, it cannot."""
        asked = self.base is not None and self.validation_fraction > 0
        return prepared.validation is not None or not asked

    def _keep(self, states: list[TrainState], prepared: Prepared, rng: torch.Generator) -> None:
        """Keep what was learnt; where it does not beat the base, the base."""
        model, held_out = self._outcome(states[-1], prepared, rng)
        self.base_ = model.base
        self._built = (copy.deepcopy(self.energy), self._energy_shape())
        self.history_, done = [], 0
        for state in states:
            self.history_ += [
                {**row, "iteration": row["iteration"] + done} for row in state.history
            ]
            done += state.iteration
        self.n_iter_ = states[0].iteration
        self.validation_gain_ = None if held_out is None else (held_out.gain, held_out.stderr)
        judged = self._can_judge(prepared)
        earned = judged and (held_out is None or held_out.gain > held_out.stderr)
        self.energy_ = copy.deepcopy(model.energy).requires_grad_(False).eval()
        if model.base is not None and not earned:
            self.energy_, self.validation_gain_ = Zero(), (0.0, 0.0)
        if self.warm_start:
            self._train_states = states
            self._structure = self._current_structure()

    def _outcome(
        self, state: TrainState, prepared: Prepared, rng: torch.Generator
    ) -> tuple[Model, HeldOut | None]:
        """Return the model that training leaves, and what it is worth on held-out rows."""
        return state.model, None if state.best is None else state.best.held_out

    def _choose_proposal(self, prepared: Prepared, rng: torch.Generator) -> Base:
        return choose_proposal(self, prepared, rng)

    def _complete(self, prepared: Prepared, rng: torch.Generator) -> None:
        """Set what else a fit leaves, once the density is normalized."""

    def _wrapped(self, energy: torch.nn.Module, base: Base | None) -> torch.nn.Module:
        """Return what is trained: the energy, kept to the box of a uniform base."""
        return bounded_by(energy, base)

    def _offset(self, X: np.ndarray, held_out: np.ndarray) -> float:
        scores = self._log_density(X)
        if self.contamination != "auto":
            return float(np.percentile(scores, 100 * self.contamination))
        fresh = scores[held_out] if len(held_out) else scores
        offset = float(np.quantile(fresh, HELD_OUT_QUANTILE))
        if len(held_out) < FEW_HELD_OUT:  # their 5 % quantile is about their smallest score
            offset = min(offset, float(np.quantile(scores, HELD_OUT_QUANTILE)))
        lowest = np.unique(scores)[:2]  # halfway between them: one row is flagged, none is on it
        if np.count_nonzero(scores == lowest[0]) > max(HELD_OUT_QUANTILE * len(scores), 1):
            return offset  # an atom: all of its rows or none
        between = lowest.mean() if lowest.mean() > lowest[0] else lowest[-1]
        return max(offset, float(between))


def _weighted_rows(X: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Check the weights and leave out rows of weight 0."""
    if sample_weight is None:
        return X, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if np.count_nonzero(weight) < 2:
        raise ValueError(
            "sample_weight must be positive for at least 2 rows, got "
            f"{np.count_nonzero(weight)}. Leave it out to weight all rows alike."
        )
    return X[weight > 0], weight[weight > 0]
