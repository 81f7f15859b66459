"""SteinEBM: a density trained by minimizing a learned Stein discrepancy."""

from __future__ import annotations

__all__ = ["SteinEBM"]

import copy
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm.bases import Base, Gaussian
from skebm.data import torch_generator
from skebm.energies import Model, Zero
from skebm.energies.ica import ICAEnergy
from skebm.energies.learned_gaussian import with_learned_gaussian
from skebm.energies.rbm import RBMEnergy
from skebm.estimators._base import EnergyDensity
from skebm.estimators._calibration import Calibration, calibrate
from skebm.estimators._normalization import MOST_COLUMNS
from skebm.estimators._preparation import Prepared
from skebm.networks import Critic
from skebm.objectives import HeldOut, LearnedStein, Objective, Optimization
from skebm.objectives._held_out import held_out_given
from skebm.partition import ImportanceSampling
from skebm.samplers import Gibbs, Langevin, run
from skebm.train import TrainState

CRITIC = Critic((128, 128), input_scale=4.0)
METHODS = ("auto", "mala", "langevin", "exact", "gibbs")
NEEDS = {
    "exact": "Exact draws need LinearICA",
    "gibbs": "Block Gibbs needs GaussianBernoulliRBM",
}


class SteinEBM(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` of least learned Stein discrepancy.

    A critic learns where the scores of model and data differ, and the model learns to leave it
    nothing to find: neither chains nor a normalizer are needed in training. Afterwards the weights
    of separated modes, which scores do not show, are put right by maximum likelihood.

    Parameters
    ----------
    critic : Critic, default=None
        The critic's layers; None means two hidden layers of 128
        with swish and a first layer scaled by 4; the paper has ``Critic((300, 300))``.
    critic_steps : int, default=5
        C: updates of the critic per update of the energy; more follow the model more closely.
    l2 : float, default=1.0
        Lambda: penalty on the critic's mean squared norm; larger makes the model's steps smaller.
    trace : {"exact", "gaussian", "rademacher"}, default="exact"
        The critic's divergence in training: its closed form, or Hutchinson's estimate with one
        such probe per row, as in the paper.
    energy_l2 : float, default=0.0
        Penalty on the mean squared energy; the released code has 0.001 for images.
    learn_base : bool, default=True
        With a Gaussian base, learn its mean and scales too (Eq. 15); no effect with other bases.
    calibrate : bool, default=True
        After training, fit ``log q + a . r(x)`` by maximum likelihood, r the responsibilities of a
        mixture chosen by the Bayesian information criterion: each mode keeps its shape and gets its
        weight. Left out for images, above 32 columns, for linear ICA and Boltzmann machines, and
        with a warning where importance draws do not reach the model.
    betas : tuple of float, default=(0.5, 0.9)
        Decay rates of Adam's moments, for energy and critic.
    critic_learning_rate : float, optional
        Step of the critic's optimizer; None takes `learning_rate`.
    energy : {"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy, ``"mlp"`` by default; ``"conv"`` and ``"residual"`` need `image_shape`;
        ``"ica"`` and ``"rbm"`` (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable
        gets the number of columns (or the image shape) and returns a new ``torch.nn.Module`` that
        maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"mixture", "gaussian", "kernel", "uniform"}, base component or None, default="mixture"
        The normalized reference density p0. All but None have full support. ``"uniform"`` with an
        energy from data alone is the paper's setting on a bounded domain; None means p0 = 1, which
        has no normalizer unless the energy grows (``energy="reconstruction"``).
    standardize : bool, default=True
        Shift and scale each column; undone in everything returned.
    data_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
    max_iter : int, default=1000
        Energy updates.
    batch_size : int, default=256
        Rows per update, drawn with replacement.
    eval_every : int, default=25
        Updates between validations; ``history_`` has one row for each.
    learning_rate : float, default=0.002
        Step of the optimizer (dimensionless), with half a cosine of decay to 0.
    optimizer : {"adam", "sgd"} or Optimization, default="adam"
        Adam, plain gradient descent, or all settings in one: an `Optimization` brings its own
        learning rate, decay and schedule.
    averaging : bool, default=True
        Where nothing is held out or can be judged, keep the mean of the parameters over the second
        half of the updates instead of the last ones.
    weight_decay : float, default=0.01
        Decoupled decay of the energy's weights; larger stays nearer to the base.
    validation_fraction : float, default=0.1
        Share of the rows held out to judge progress. Below 20 rows none are, and the model is its
        base; with 0 the energy is trained unjudged and its parameters are averaged.
    n_iter_no_change : int or None, default=12
        Validations without a gain of `tol` after which training stops.
    tol : float, default=0.0
        Smallest fall of the held-out discrepancy that counts, its own unit.
    log_partition : {"auto", "quadrature", "importance", "ais", "reverse-ais"}, instance or None
        How log Z is estimated, by default ``"auto"``; None leaves ``score_samples`` unnormalized.
    contamination : float or "auto", default="auto"
        ``"auto"``: ``offset_`` is the 5 % quantile of held-out scores (with fewer than 40 of them
        the lower of theirs and all rows'), moved up if needed so that at least one row of X is
        flagged (none where more than 5 % of the rows share the lowest score, as in tables of few
        values). A float in (0, 0.5]: that fraction of the training rows is flagged.
    image_shape : tuple of int, optional
        (channels, height, width) of flattened rows; one global affine map to [-1, 1] then replaces
        the scaling of columns, and ``log_partition="auto"`` means None.
    device : str or torch.device, default="auto"
        ``"auto"`` takes CUDA where it is there, else the CPU.
    checkpoint_dir : str or Path, optional
        Folder for the training state; an interrupted fit of the same parameters and rows goes on.
    warm_start : bool, default=False
        Continue from the last fit, with its scaling and base, for `max_iter` more updates; the
        networks must be the same.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seed. The same seed, machine and thread count give the same bits.

    Attributes
    ----------
    critic_ : callable
        The opponent at the end of training, (n, n_features) in units of X to (n, n_features) on
        standardized space: it looked at the energy of the last update, before a better snapshot
        was put back and before calibration. For a discrepancy of the fitted density use
        `skebm.stein.learned_stein_discrepancy`.
    calibration_ : tuple (int, float, float) or None
        Components of the mixture, effective draws and held-out gain in nats per row of the
        calibration; None where there was none.
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per `eval_every` updates: discrepancy and standard deviation of Stein values on
        training batches, mean squared norm of the critic, data energy (nats), ``validation`` (minus
        the held-out discrepancy, but for a constant; see `skebm.objectives.LearnedStein`) and the
        gain over the base in held-out log likelihood, before calibration, with its standard error.
    n_iter_ : int
        Updates made.
    validation_gain_ : tuple of float or None
        Held-out gain over the base and its standard error, nats per row.
    data_noise_ : ndarray of shape (n_features,)
        Noise per column, standardized units.
    temperature_ : float
        1.
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

    Warns
    -----
    NormalizationWarning
        From ``fit``, where log Z is vague or the calibration's draws do not reach the model.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. One update takes
    `critic_steps` updates of the critic, each with one score of a batch, and one directional
    derivative of the energy. Training stops early on the discrepancy of held-out rows, which needs
    no normalizer.

    What this cannot certify: the score of a mixture of separated modes is nearly the same whatever
    their weights, so that neither the discrepancy nor training by it sees them. Weights are then
    wherever the optimizer left them. ``calibrate=True`` repairs those between the components of the
    mixture, not within one; an energy over ``base="mixture"`` starts with weights that are right.
    As for every estimator here, an energy that does not beat its base in held-out log likelihood is
    dropped: that judgement needs log Z, and is the one place where training's result meets it.

    Deviations from the paper: decay of the learning rate and decoupled weight decay; clipped
    gradients; the critic moves first; a mixture as default base, as for the other estimators,
    whose moments are not learned; calibration. The paper's toy setting is
    ``base=Gaussian("diagonal")``, ``energy=MLP((300, 300), n_frequencies=0, input_scale=1.0)``,
    ``l2=10``, ``learning_rate=1e-3``, ``weight_decay=0``, ``batch_size=100``, ``max_iter=1667``
    (its 10,000 iterations count the critic's), ``calibrate=False``.

    References
    ----------
    .. [1] W. Grathwohl, K.-C. Wang, J.-H. Jacobsen, D. Duvenaud and R. Zemel, "Cutting out the
       Middle-Man: Training and Evaluating Energy-Based Models without Sampling". Alg. 3, Eqs. 6-11
       and 15, appendix B.4.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import SteinEBM
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = SteinEBM(max_iter=25, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape
    (3,)
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        *,
        critic=None,
        critic_steps=5,
        l2=1.0,
        trace="exact",
        energy_l2=0.0,
        learn_base=True,
        calibrate=True,
        betas=(0.5, 0.9),
        critic_learning_rate=None,
        energy="mlp",
        base="mixture",
        standardize=True,
        data_noise="auto",
        max_iter=1000,
        batch_size=256,
        eval_every=25,
        learning_rate=2e-3,
        optimizer="adam",
        averaging=True,
        weight_decay=0.01,
        validation_fraction=0.1,
        n_iter_no_change=12,
        tol=0.0,
        log_partition="auto",
        contamination="auto",
        image_shape=None,
        device="auto",
        checkpoint_dir=None,
        warm_start=False,
        verbose=0,
        random_state=None,
    ):
        self.critic = critic
        self.critic_steps = critic_steps
        self.l2 = l2
        self.trace = trace
        self.energy_l2 = energy_l2
        self.learn_base = learn_base
        self.calibrate = calibrate
        self.betas = betas
        self.critic_learning_rate = critic_learning_rate
        self.energy = energy
        self.base = base
        self.standardize = standardize
        self.data_noise = data_noise
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.eval_every = eval_every
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.averaging = averaging
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.log_partition = log_partition
        self.contamination = contamination
        self.image_shape = image_shape
        self.device = device
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    @property
    def critic_(self):
        """The critic, a callable (n, n_features) -> (n, n_features)."""
        check_is_fitted(self)
        rng = torch.Generator().manual_seed(0)
        network = self._played.build(self.n_features_in_, rng)
        network.load_state_dict(
            {k.removeprefix("critic."): v for k, v in self._kept.items() if k.startswith("critic.")}
        )
        return _CriticOfRows(network, self._standardizer)

    def sample(
        self,
        n_samples=1,
        random_state=None,
        *,
        method="auto",
        n_steps=1000,
        step_size=0.01,
        noise_std=0.1,
        init=None,
    ):
        """Draw rows from the fitted density, or from tempered chains as the paper does.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's own ``random_state``.
        method : {"auto", "mala", "langevin", "exact", "gibbs"}, default="auto"
            ``"mala"`` resamples draws near the data by their weights and moves them by
            Metropolis-adjusted steps. ``"exact"`` draws from linear ICA, ``"gibbs"`` runs block
            Gibbs on a restricted Boltzmann machine, both without a base. ``"langevin"`` is Eq. 19:
            steps `step_size`, noise `noise_std`, a density that depends on both. ``"auto"`` is
            exact where that is possible, else MALA.
        n_steps : int, default=1000
            Of ``"langevin"`` and ``"gibbs"``.
        step_size : float, default=0.01
            epsilon of Eq. 19, standardized units squared.
        noise_std : float, default=0.1
            sigma of Eq. 19, standardized units.
        init : array-like of shape (n_samples, n_features), optional
            Where these chains start, units of X; None takes draws from the base, or from N(0, I) in
            standardized space where there is none. Unused by the other methods.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of X.

        Raises
        ------
        ValueError
            If the model is not one that the method can draw from.
        """
        check_is_fitted(self)
        check_choice("method", method, METHODS)
        check_number("n_samples", n_samples, low=1, integer=True)
        direct = self._direct_method()
        if method == "auto":
            method = "exact" if direct == "exact" else "mala"
        if method == "mala":
            return super().sample(n_samples, random_state)
        if method in NEEDS and method != direct:
            raise ValueError(
                f"method must be 'auto', 'mala' or 'langevin' with this model, got {method!r}. "
                f"{NEEDS[method]} with base=None."
            )
        rng = torch_generator(
            self.random_state if random_state is None else random_state, self.device_
        )
        if method == "exact":
            assert isinstance(self.energy_, ICAEnergy)  # else refused above
            return self._standardizer.inverse(self.energy_.sample(n_samples, rng))
        check_number("n_steps", n_steps, low=1, integer=True)
        starts = self._noise(n_samples, rng) if init is None else self._places("init", init)
        if len(starts) != n_samples:
            raise ValueError(f"init must have n_samples={n_samples} rows, got {len(starts)}.")
        sampler = Gibbs() if method == "gibbs" else Langevin(step_size, noise_std=noise_std)
        state, _ = run(sampler, self._model(), starts, n_steps, rng)
        if not state.x.isfinite().all():
            raise ValueError(
                f"step_size must be small enough for stable chains, got {step_size!r}: they left "
                "for infinity. Lower it, or use method='mala'."
            )
        return self._standardizer.inverse(state.x)

    def _direct_method(self) -> str | None:
        """Return the method that draws from the energy itself, where there is one."""
        if self.base_ is not None or self.temperature_ != 1:
            return None
        if isinstance(self.energy_, RBMEnergy):
            return "gibbs"
        return "exact" if isinstance(self.energy_, ICAEnergy) else None

    def _optimization(self) -> Optimization:
        optimization = super()._optimization()
        if isinstance(self.optimizer, Optimization):
            return optimization
        return optimization.with_params(betas=self.betas)

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        for name in ("learn_base", "calibrate", "averaging"):
            check_choice(name, getattr(self, name), (True, False))
        if self.critic is not None and not isinstance(self.critic, Critic):
            raise TypeError(
                f"critic must be a Critic or None, got {self.critic!r}. "
                "Use skebm.networks.Critic(hidden_sizes=(300, 300))."
            )
        critic = self.critic or CRITIC
        if self.trace != "exact":
            critic = critic.with_params(trace=self.trace)
        if self.critic_learning_rate is not None:
            remedy = "Or None for learning_rate."
            check_number(
                "critic_learning_rate",
                self.critic_learning_rate,
                low=0,
                open_low=True,
                remedy=remedy,
            )
            critic = critic.with_params(learning_rate=self.critic_learning_rate)
        return [
            LearnedStein(
                critic, self.critic_steps, self.l2, self.energy_l2, optimization=optimization
            )
        ]

    def _wrapped(self, energy: torch.nn.Module, base: Base | None) -> torch.nn.Module:
        energy = super()._wrapped(energy, base)
        gaussian = isinstance(self.base, Gaussian) or self.base == "gaussian"
        return with_learned_gaussian(energy, base) if self.learn_base and gaussian else energy

    def _outcome(
        self, state: TrainState, prepared: Prepared, rng: torch.Generator
    ) -> tuple[Model, HeldOut | None]:
        model, held_out = super()._outcome(state, prepared, rng)
        self._calibration, self.calibration_ = None, None
        tabular = self.image_shape is None and self.n_features_in_ <= MOST_COLUMNS
        if not (self.calibrate and tabular) or isinstance(model.energy, RBMEnergy | ICAEnergy):
            return model, held_out
        rows = prepared.noised(rng)
        done = calibrate(model, rows, prepared.weight, prepared.validation, rng)
        if done is None:
            return model, held_out
        model, self._calibration = model._replace(energy=done.energy), done
        self.calibration_ = (done.n_components, done.ess, done.gain)
        if prepared.validation is None:
            return model, held_out
        log_z = ImportanceSampling().estimate(model, done.proposal, rng)
        return model, held_out_given(model, log_z, prepared.validation)

    def _choose_proposal(self, prepared: Prepared, rng: torch.Generator) -> Base:
        done: Calibration | None = self.__dict__.pop("_calibration", None)
        if isinstance(self.energy_, Zero):
            done, self.calibration_ = None, None
        if done is None:
            return super()._choose_proposal(prepared, rng)
        return done.proposal

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        self._played = copy.deepcopy(self.critic or CRITIC)
        critic = state.objective.modules["critic"].state_dict()
        return {f"critic.{name}": tensor.detach().cpu() for name, tensor in critic.items()}

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Run MALA-sized Langevin chains from noise: nothing nearer is there in many columns."""
        state, _ = run(Langevin(0.01), self._model(), self._noise(n, rng), 1000, rng)
        return state.x


class _CriticOfRows:
    """A critic behind numpy rows in the units of X."""

    def __init__(self, network: torch.nn.Module, standardizer: Any) -> None:
        self.network, self.standardizer = network, standardizer

    @torch.no_grad()
    def __call__(self, X: Any) -> np.ndarray:
        X = check_array(X, dtype=np.float64)
        d = len(self.standardizer.scale)
        if X.shape[1] != d:
            raise ValueError(f"X must have {d} columns, got {X.shape[1]}. Use those of fit.")
        return self.network(self.standardizer.transform(X, torch.device("cpu"))).double().numpy()
