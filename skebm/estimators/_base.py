"""What every estimator shares: fit reads as the data flow, reads return the units of X."""

from __future__ import annotations

__all__ = ["DensityEstimator"]

import copy
import warnings
from abc import abstractmethod
from contextlib import nullcontext
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import DensityMixin, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import check_number, resolve
from skebm._ranks import all_or_none, n_ranks, same
from skebm._surroundings import own_settings, threads
from skebm._tables import naming_columns, weighted_mean
from skebm._warn import warn
from skebm.data import Table, Transform, torch_generator
from skebm.data.streamed import MOST_KEPT
from skebm.energies import Model, Zero
from skebm.estimators._callbacks import CallbackSupportMixin, with_callbacks
from skebm.estimators._completion import complete
from skebm.estimators._conditional import ConditionalReads, takes_holes
from skebm.estimators._files import Saved
from skebm.estimators._given import Columns, TableChecks, labels_left
from skebm.estimators._pooling import check_alike, pooled
from skebm.estimators._preparation import prepare
from skebm.estimators._run import Before, Learned, Run, listed_codes
from skebm.estimators._shared import ALIASES, optimization_of, resolved
from skebm.estimators._standardization import choose_transform
from skebm.estimators._streaming import (
    FLOATS,
    BlockReads,
    opened,
    reach_of,
    sampling_seed,
)
from skebm.exceptions import DataDegeneracyWarning, NormalizationWarning
from skebm.fitted import FittedDensity
from skebm.fitted.density import missing
from skebm.fitted.normalization import normalize
from skebm.fitted.threshold import threshold
from skebm.objectives import Optimization
from skebm.partition import PartitionMethod
from skebm.train import TrainState

STRUCTURE = ("energy", "base", "image_shape", "generator", "entropy", "critic", "temperature")


class DensityEstimator(
    ConditionalReads,
    BlockReads,
    TableChecks,
    CallbackSupportMixin,
    OutlierMixin,
    DensityMixin,
    Saved,
):
    """Abstract density estimator and novelty detector over an energy and a base.

    Subclasses have a constructor and ``_learn``. What follows is shared by all: `documented` adds
    it to their docstrings, with their own defaults.

    Parameters
    ----------
    energy : {"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy; ``"conv"`` and ``"residual"`` need `image_shape`; ``"ica"`` and ``"rbm"``
        (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable gets the number of
        columns (or the image shape) and returns a new ``torch.nn.Module`` that maps (n, n_features)
        to (n,) nats, in the precision of its rows and without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"union", "mixture", "gaussian", "kernel", "uniform"}, base component or None
        The normalized reference density p0; ``"union"`` is the mean density of five mixtures, each
        fitted without a fifth of the rows. But for ``"uniform"``, images and known distributions
        with heavy tails under it (of Student's t with 3 degrees of freedom and a share of 0.001 to
        0.01). The energy is learnt in a box around the rows; a perceptron moves a log density by 5
        nats at most. None means p0 = 1, which has no normalizer unless the energy grows (such as
        ``MLP(output="quadratic")``).
    columns : "auto" or dict
        What the columns are. ``"auto"`` takes arrays as they are, and looks at data frames: text,
        booleans, categories and numbers of at most 12 values are codes; other whole or rounded
        numbers a lattice, whose values are spread over the cells around them (the density of a
        value is the mean over its cell, times the step its probability); values that 5 % of the
        rows repeat beside others codes of their own, dates days. A dict from names (or numbers) of
        columns to ``"category"``, ``"number"`` or ``"continuous"`` (as it is) says otherwise, for
        arrays too. Log densities count codes, and are per unit of the numbers.
    standardize : {"auto", "affine", "marginal", True, False}
        Map of each column, undone in everything returned: log densities are those of X.
        ``"affine"``, or True, shifts and scales; where less than 2 % of the rows would set a scale,
        it is that of the others, with a warning. ``"marginal"`` bends each column to a normal one
        as well, see `skebm.data.Marginal`, but for those that get noise. ``"auto"`` does so where
        that makes a small mixture likelier on held-out rows by more than 0.25 nats and two standard
        errors, but never with lengths given in standardized units, a uniform, known or no base, or
        ``validation_fraction=0``. Images are scaled to [-1, 1].
    data_noise : float or "auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
        Copies of whole rows count as weights.
    max_iter : int
        Energy updates.
    batch_size : int
        Rows per update, drawn with replacement; those of all ranks together, at least two of each.
    learning_rate : float
        Step of the optimizer (dimensionless), with half a cosine of decay to 0.
    optimizer : {"adam", "sgd"} or Optimization
        Adam, plain gradient descent, or all settings in one: an `Optimization` brings its own
        learning rate, decay of weights and rate, and averaging.
    validation_fraction : float
        Share of the rows held out to judge progress. Below 20 rows none are, and the model is its
        base; with 0 the energy is trained unjudged and its parameters are averaged.
    n_iter_no_change : int or None
        Validations, one every 25 updates, without a gain of `tol` after which training stops.
    tol : float
        Smallest gain in held-out log likelihood that counts, nats per row.
    log_partition : {"auto", "quadrature", "importance", "ais", "reverse-ais"}, instance or None
        How log Z is estimated; None leaves ``score_samples`` unnormalized.
    contamination : float or "auto"
        ``"auto"``: ``offset_`` is the score of rank 0.05 (m + 1) among m held-out ones, below which
        a new row falls with a probability of 5 %; with fewer than 40 of them all rows count,
        training rows as scored without their part in the base. It is moved up to flag a row of X
        where that flags at most 7.5 % of new ones. Rows worth less than 19 equal ones promise
        less, which a warning says. A float in (0, 0.5]: that fraction of the training rows, by
        weight, is flagged.
    image_shape : tuple of int, optional
        (channels, height, width) of flattened rows; one global affine map to [-1, 1] then replaces
        the scaling of columns, and ``log_partition="auto"`` means None.
    device : str or torch.device
        ``"auto"`` takes CUDA where it is there, else the CPU.
    checkpoint_dir : str or Path, optional
        Folder for base and training state; an interrupted fit of the same parameters and rows goes
        on, and says so. A file that cannot be read is set aside; a full disk does not stop the fit.
        Fits that run at the same time share no state.
    warm_start : bool
        Continue from the last fit, with its scaling and base, for `max_iter` more updates; the
        networks, temperature and optimizer (but for its rate) must be the same.
    verbose : int
        1 shows a progress bar of the training with held-out nats and the time that is left, 2
        prints a line for each phase and validation. The logger ``skebm`` gets these lines anyhow.
    random_state : int, RandomState instance or None
        Seed. The same seed, machine and thread count give the same bits.

    Attributes
    ----------
    density_ : FittedDensity
        The density, which diagnostics, plots and tests read.
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    energy_kept_ : bool
        Whether the energy is part of the model; False where the base alone is, since the held-out
        gain was within its standard error, nothing could be held out, or training diverged.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and
        method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per 25 updates: loss and data energy (nats), held-out log likelihood (nats per row,
        standardized space), its gain over the base and standard error.
    n_iter_ : int
        Updates made, those of a base that was kept in the end and of the fits that a warm start
        goes on from among them.
    validation_gain_ : tuple of float or None
        Held-out gain over the base and its standard error, nats per row.
    data_noise_ : ndarray of shape (n_features,)
        Noise per column, standardized units.
    temperature_ : float
        T, dimensionless.
    schema_ : Schema
        What the columns are, where some are not plain numbers.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Column names, where X had them.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad table or parameter.
    ConvergenceError
        From ``fit``, if training diverges in spite of three smaller learning rates.
    """

    density_: FittedDensity
    optimizer_defaults: dict[str, Any] = {}  # of the optimization, unless an instance is given
    fits_on_ranks = True  # of torch.distributed, together

    @abstractmethod
    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        """Train a model on a table: the paper."""

    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn the density of the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a source
            Training rows, finite numbers. Memory maps, `skebm.data.parquet`, a torch ``Dataset`` or
            ``DataLoader``, dask arrays and data frames of numbers and any `skebm.data.Source` of
            more than 100,000 rows are read in passes: batches come from all rows, the rest from
            100,000 of them.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Nonnegative weights, in any unit; a row counts in proportion to its weight. Equal
            weights are no weights.

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

        Notes
        -----
        Whatever stops it, Ctrl-C too, an earlier fit stays as it was. With `checkpoint_dir` the
        same call goes on from the last validation.

        Under a process group of ``torch.distributed`` all ranks call it, each with its own rows and
        weights in one unit, and end with the same model; `skebm.train.not_distributed` lets each
        fit its own. Rows are numbers without holes then.
        """
        with all_or_none():
            before = self._before()
            X, sample_weight, names, stream = opened(self, X, sample_weight)
            y = y if stream is None else None
            X, weight, columns = self._checked(X, sample_weight, before, names)
            if stream is not None and columns.schema is not None:
                raise ValueError(
                    f"columns must be 'auto' for more rows than {MOST_KEPT:,} of a source, got "
                    f"{self.columns!r}: they are numbers alone. Read a table that fits in memory."
                )
            if n_ranks() > 1:
                self._check_ranks(X, columns)
        if n_ranks() > 1:
            check_alike(self, X.shape[1], columns.given, before is None)
            seed = sampling_seed(self)
            X, weight, stream = pooled(X, weight, sample_weight, stream, seed)
            y = None
            if before is None and columns.reach is not None:
                columns.reach = reach_of(X)
        size, weighted = X.shape[0] * X.shape[1] ** 2, sample_weight is not None
        labels, schema = labels_left(y, sample_weight, len(X)), columns.schema
        run = Run(self, X, weight, before, weighted, labels, schema)
        with own_settings(), threads(size, blas=True), run, stream or nullcontext():
            completions, centers = None, None
            if schema is not None:
                centers, X = X, schema.spread(X, np.random.RandomState(0))
            if missing(X) is not None:
                completions = complete(X, weight, columns.names, schema)
                X = completions.drawn[:, 0]
                run.phases.done("completions", f"{len(completions.drawn[0])} of each row")
            transform = same(choose_transform(X, weight, run, columns.names))
            table = prepare(X, weight, transform, run, columns.names, completions, centers, stream)
            kind = type(transform).__name__
            run.phases.done("table", f"{X.shape[0]} x {X.shape[1]}, {kind} columns")
            run.task.rebuild = partial(self._so_far, table, transform, run, columns)
            learned = self._learn(table, transform, run)
            learned = learned._replace(extras=same(learned.extras, run.device))
            learned.tell(run.optimization.learning_rate, bool(run.verbose))
            run.phases.done("training", f"{learned.states[0].iteration} updates")
            model = learned.model_or_base()
            proposal = learned.proposal_for(model, table, run.rng)
            if proposal is not model.base:
                proposal = same(proposal, run.device)
            log_z = same(normalize(model, proposal, self._method(model), run.rng))
            known = log_z and f"{log_z.value:.4g} +- {log_z.stderr:.2g} nats, {log_z.method}"
            run.phases.done("log Z", known or "left out")
            density = FittedDensity(
                model,
                transform,
                proposal,
                log_z,
                learned.draws,
                source=run.source,
                device=run.device,
            )
            offset = same(threshold(density, table, self.contamination))
            found = self._found(density, learned, offset, table.noise, columns)
            run.phases.done("threshold", f"{offset:.4g}")
            run.end(found)
        return self._remember(found)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a source
            Rows in the units of the training table.

        Returns
        -------
        ndarray of shape (n_samples,), of dask for dask
            Log density in nats, in the units of X, finite; unnormalized where ``log_partition_`` is
            None. Up to 256 rows are computed in double precision and a row's value depends on the
            others by less than 1e-9 (1 + its size); with more, by 1e-5 (1 + its size).
        """
        return self._read(X, self._log_density)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Nonnegative weights of the mean, in any unit.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, nats per row: the convention of GaussianMixture;
            KernelDensity's ``score`` is the sum.
        """
        values = np.asarray(self.score_samples(X))
        if self.log_partition_ is None:
            warn(
                "score is a mean of unnormalized log densities (log_partition=None), which cannot "
                "be compared between models. Set log_partition to a method, 'importance' say.",
                NormalizationWarning,
            )
        return weighted_mean(values, sample_weight)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw rows from the fitted density.

        Draws from the base (without one, from a mixture near the data) are chosen by their weights.
        Where those are uneven, they go to the density through temperatures in between, resampled
        and moved by Metropolis-adjusted Langevin steps at each. ``sample_info_`` holds the
        effective number of draws, and acceptance and R-hat of the chains. Without a base and with
        more than 32 columns no such draws are near the data: chains then run as in training, and
        are only as good as the training made them.

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
        check_number("n_samples", n_samples, low=1, integer=True)
        rows, self.sample_info_ = self.density_.draw(n_samples, self._rng(random_state))
        return rows if self._schema() is None else self._schema().decode(rows)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: at least 0 for inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. One with missing values counts as its completions do on average, so that no row is
            flagged for having holes.

        Returns
        -------
        ndarray of shape (n_samples,)
            Nats above the threshold.
        """
        return self._read(X, self._decision)

    def predict(self, X: Any) -> np.ndarray:
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

    def energy_samples(self, X: Any) -> np.ndarray:
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
        X = self._rows(X)
        return self.density_.energy(X)

    def score_function(self, X: Any) -> np.ndarray:
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
        schema = self._schema() if self._fitted() else None
        if schema is not None and schema.has_codes:
            raise TypeError(
                "X must have no columns of codes for a gradient, got "
                f"{listed_codes(schema)}. Leave them out of the fit, or call them 'continuous' in "
                "columns."
            )
        X = self._rows(X)
        return self.density_.score_function(X)

    @property
    def energy_(self) -> Any:
        """E on standardized space, a module."""
        return self._fitted().model.energy

    @property
    def energy_kept_(self) -> bool:
        """Whether the energy is part of the model, a bool; else it is the base alone."""
        model = self._fitted().model
        return model.base is None or not isinstance(model.energy, Zero)

    @property
    def base_(self) -> Any:
        """The base density on standardized space."""
        return self._fitted().model.base

    @property
    def temperature_(self) -> float:
        """T, dimensionless."""
        return self._fitted().model.temperature

    @property
    def log_partition_(self) -> Any:
        """The estimate of log Z, a LogPartition or None."""
        return self._fitted().log_partition

    def set_params(self, **params: Any) -> Self:
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
                if name == "optimizer":  # with what the alias stood for here
                    rate = params.get("learning_rate", self.learning_rate)
                    own = {"learning_rate": rate, **self.optimizer_defaults}
                    params[name] = params[name].with_params(**own)
        return super().set_params(**params)

    def __repr__(self, **kwargs):
        text = super().__repr__(**kwargs)
        unnormalized = hasattr(self, "density_") and self.log_partition_ is None
        return f"{text} (unnormalized)" if unnormalized else text

    def _log_density(self, rows: np.ndarray, log_unseen: Any) -> np.ndarray:
        return self.density_.log_density(rows) + log_unseen

    def _decision(self, rows: np.ndarray, log_unseen: Any) -> np.ndarray:
        return self.density_.log_density_of_completions(rows) + log_unseen - self.offset_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "density_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        base = self.base
        if isinstance(base, str):
            base = ALIASES["base"][0].get(base, lambda: None)()
        tags.input_tags.allow_nan = takes_holes(base, self.image_shape)
        return tags

    def _before(self) -> Before | None:
        """Return what a warm start goes on from; refuse one with other networks."""
        before: Before | None = getattr(self, "_warm", None) if self.warm_start else None
        if before is None:
            return None
        now = self._structure()
        for name, value in before.structure.items():
            if now[name] != value and not (callable(value) and callable(now[name])):
                raise ValueError(
                    f"{name} must be that of the last fit with warm_start=True, {value!r}, got "
                    f"{now[name]!r}. Set warm_start=False to start anew."
                )
        return before

    def _structure(self) -> dict[str, Any]:
        """Return the parameters that a warm start cannot change, aliases as what they stand for."""
        params = self.get_params(deep=False)
        names = [name for name in STRUCTURE if name in params]
        found = {n: resolved(self, n) if isinstance(params[n], str) else params[n] for n in names}
        found["standardize"] = "affine" if self.standardize is True else self.standardize
        free = Optimization()  # its rate and whether parameters are averaged may be others
        found["optimizer"] = optimization_of(self).with_params(
            learning_rate=free.learning_rate, averaging=free.averaging
        )
        return copy.deepcopy(found)

    def _method(self, model: Model) -> PartitionMethod | None:
        """Return how log Z is estimated; automatic, for images it is not unless it is known."""
        automatic = isinstance(self.log_partition, str) and self.log_partition == "auto"
        known = isinstance(model.energy, Zero) and model.base is not None
        left_out = automatic and self.image_shape is not None and not known
        return None if self.log_partition is None or left_out else resolved(self, "log_partition")

    def _so_far(
        self, table: Table, transform: Transform, run: Run, columns: Columns, state: TrainState
    ) -> dict[str, Any]:
        """Return what `fit` would find had training stopped at a state; nothing is drawn of `run`.

        A game's proposal takes no part: callbacks may come at every validation.
        """
        energy = copy.deepcopy(state.model.energy)
        energy.load_state_dict(state.leaves())
        held_out = None if state.best is None else state.best.held_out
        model = state.model._replace(energy=energy)
        learned = Learned(model, [state], held_out, True, kept=run.kept)
        model, rng = learned.model_or_base(), torch_generator(0, run.device)
        proposal = learned.proposal_for(model, table, rng)
        with warnings.catch_warnings():  # the end says it
            warnings.simplefilter("ignore", NormalizationWarning)
            warnings.simplefilter("ignore", DataDegeneracyWarning)
            log_z = normalize(model, proposal, self._method(model), rng)
            density = FittedDensity(
                model, transform, proposal, log_z, None, source=run.source, device=run.device
            )
            offset = threshold(density, table, self.contamination)
        return self._found(density, learned, offset, table.noise, columns)

    def _found(
        self,
        density: FittedDensity,
        learned: Learned,
        offset: float,
        noise: np.ndarray,
        columns: Columns,
    ) -> dict[str, Any]:
        """Return all fitted attributes."""
        found = {
            "density_": density,
            "offset_": offset,
            "history_": learned.history,
            "n_iter_": learned.states[0].iteration,
            "validation_gain_": learned.gain,
            "data_noise_": noise,
            "n_features_in_": columns.n,
            **learned.extras,
        }
        if columns.given is not None:
            found["feature_names_in_"] = columns.given
        if columns.schema is not None:
            found["schema_"] = columns.schema
        if self.warm_start:
            state = learned.states, density.transform, self._structure(), columns.schema
            found["_warm"] = Before(*state, columns.reach)
        return found

    def _remember(self, found: dict[str, Any]) -> DensityEstimator:
        """Set what the fit found: all of it here, and nothing that can fail."""
        kept = {k: v for k, v in vars(self).items() if not (k.endswith("_") or k == "_warm")}
        self.__dict__ = kept | found  # at once, and without what an earlier fit found
        return self

    def _fitted(self) -> FittedDensity:
        check_is_fitted(self)
        return self.density_

    def _rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        if self._schema() is not None:
            rows, _ = self._encoded(X, FLOATS)
            if missing(rows) is not None:
                raise ValueError(
                    "X must have no missing or unseen values here, got some. Fill them in first."
                )
            return rows
        with np.errstate(all="ignore"), naming_columns(X):  # as in `_checked`
            return validate_data(self, X, dtype=FLOATS, reset=False)

    def _rng(self, random_state: Any) -> Any:
        seed = self.random_state if random_state is None else random_state
        return torch_generator(seed, self.density_.device)
