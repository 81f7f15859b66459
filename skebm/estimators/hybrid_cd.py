"""HybridCDDensity: contrastive divergence from data, noise or a bank, over a base density."""

from __future__ import annotations

__all__ = ["HybridCDDensity"]

import torch
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number, resolve
from skebm.estimators._base import EnergyDensity
from skebm.estimators._parameters import ALIASES
from skebm.estimators._preparation import Prepared
from skebm.objectives import (
    ContrastiveDivergence,
    EnergyStep,
    ImportanceLikelihood,
    Objective,
    Optimization,
)
from skebm.samplers import MALA, Langevin, SampleBank, Sampler, run
from skebm.train import TrainState

INITS = ("hybrid", "data", "noise", "persistent", "persistent-refresh")
REFRESH_RATE = 0.05
START_STEP = 0.05  # of the adapted step, standardized units squared


class HybridCDDensity(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)/T} p_0(x) / Z` by hybrid contrastive divergence.

    Short Markov chains start at the data and at noise; training lowers the energy of the data and
    raises it where the chains end. The base :math:`p_0` is fitted first, so that training starts as
    good as a classical model, and the energy is kept only where it improves on the base.

    Parameters
    ----------
    init : {"hybrid", "data", "noise", "persistent", "persistent-refresh"}, default="hybrid"
        Where training chains start: at the data (contrastive divergence), at noise, at both, or in
        a bank of chains that go on from update to update, some of them started afresh.
    cd_weight : float, default=25.0
        lambda (dimensionless): weight of the data-started bracket in ``"hybrid"``; larger favors
        the density near data, smaller favors generation from noise.
    noise_share : float, default=0.25
        With ``"hybrid"``, chains from noise per row of the batch (dimensionless); the paper has 1.
    sampler : {"mala", "langevin", "sghmc", "hmc"} or Sampler, default="mala"
        Chains in training.
    n_steps : int, default=10
        Steps per chain and update.
    step_size : float, "auto", "adaptive" or EnergyStep, default="auto"
        Step eps that multiplies the gradient of E, standardized units squared (for HMC and SGHMC a
        time, standardized units). ``"auto"`` keeps a sampler instance's own, adapts that of MALA
        and HMC to their `target_accept` and is 0.01 for the others; ``"adaptive"`` is the paper's
        0.0005 / mean|E(x)| at most 0.05, an `EnergyStep`.
    noise_std : float, optional
        Noise of a Langevin step, standardized units, decoupled from its drift: short-run Langevin,
        whose chains sample another temperature than the model's. Needs ``sampler="langevin"``.
    temperature : float, default=1.0
        T (dimensionless); the density is exp(-E/T).
    bank_size : int, default=60000
        Chains in the bank of the persistent inits.
    refresh_rate : float, default=0.05
        With ``init="persistent-refresh"``, the probability of a start from noise (dimensionless).
    refresh : {"iteration", "chain"}, default="iteration"
        Whether that is decided once per update or for each chain.
    start_noise : {"auto", "base", "normal", "uniform"} or array-like (m, d), default="auto"
        What noise is: draws from the base, N(0, s^2 I) or uniform on [-s, s]^d in standardized
        space, or the given rows (units of X) drawn with replacement; ``"auto"`` is the base where
        there is one, else ``"normal"``.
    start_scale : float, default=1.0
        s, standardized units.
    energy : {"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy, ``"mlp"`` by default; ``"conv"`` and ``"residual"`` need `image_shape`;
        ``"ica"`` and ``"rbm"`` (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable
        gets the number of columns (or the image shape) and returns a new ``torch.nn.Module`` that
        maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"mixture", "gaussian", "kernel", "uniform"}, base component or None, default="mixture"
        The normalized reference density; None means p0 = 1, which needs an energy that grows (such
        as ``MLP(output="quadratic")``).
    standardize : bool, default=True
        Shift and scale each column; undone in everything returned.
    data_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
    refine : bool, default=True
        After the chains, take up to `max_iter` updates of importance likelihood with the base as
        proposal; needs a base and is skipped without one.
    max_iter : int, default=600
        Energy updates of each phase.
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
        Smallest gain in held-out log likelihood that counts, nats per row.
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
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per `eval_every` updates, those of `refine` after those of the chains: losses and
        brackets (nats), acceptance, step size and force (mean norm of the gradient of U = E/T - log
        p0 where chains end), held-out log likelihood (nats per row, standardized space), its gain
        over the base and standard error.
    n_iter_ : int
        Updates made by contrastive divergence.
    validation_gain_ : tuple of float or None
        Held-out gain over the base and its standard error, nats per row.
    data_noise_ : ndarray of shape (n_features,)
        Noise per column, standardized units.
    sampler_ : Sampler
        The training sampler with its last step size, stated for the potential U.
    temperature_ : float
        T.
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

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. One update takes
    `n_steps` gradients of two batches; scoring n rows takes one forward pass of base and energy.
    Validation rows are not used for training, so that thresholds and the comparison with the base
    are honest. Deviations from the paper: a base density; MALA instead of unadjusted chains; noise
    chains start at base draws (at N(0, I) where ``base=None``), one for four rows; Adam with
    decoupled weight decay; `refine`. The paper's setting is ``base=None, refine=False,
    sampler="langevin", noise_share=1, averaging=False, validation_fraction=0`` with a `step_size`
    and a `temperature`. Without a base the model is judged, normalized and sampled through a
    mixture fitted near it (`Defensive`).

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import HybridCDDensity
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = HybridCDDensity(max_iter=25, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape
    (3,)
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        *,
        init="hybrid",
        cd_weight=25.0,
        noise_share=0.25,
        sampler="mala",
        n_steps=10,
        step_size="auto",
        noise_std=None,
        temperature=1.0,
        bank_size=60_000,
        refresh_rate=REFRESH_RATE,
        refresh="iteration",
        start_noise="auto",
        start_scale=1.0,
        energy="mlp",
        base="mixture",
        standardize=True,
        data_noise="auto",
        refine=True,
        max_iter=600,
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
        self.init = init
        self.cd_weight = cd_weight
        self.noise_share = noise_share
        self.sampler = sampler
        self.n_steps = n_steps
        self.step_size = step_size
        self.noise_std = noise_std
        self.temperature = temperature
        self.bank_size = bank_size
        self.refresh_rate = refresh_rate
        self.refresh = refresh
        self.start_noise = start_noise
        self.start_scale = start_scale
        self.energy = energy
        self.base = base
        self.standardize = standardize
        self.data_noise = data_noise
        self.refine = refine
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

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        phases: list[Objective] = [self._chains(optimization)]
        if self.refine and self.base is not None:
            phases.append(ImportanceLikelihood(optimization=optimization))
        return phases

    @property
    def bank_(self):
        """Rows of the bank of the persistent inits, ndarray (bank_size, n_features), units of X."""
        check_is_fitted(self)
        if "bank" not in self._kept:
            raise AttributeError(
                f"bank_ needs init='persistent' or 'persistent-refresh', got {self.init!r}."
            )
        return self._standardizer.inverse(self._kept["bank"])

    def _chains(self, optimization: Optimization) -> ContrastiveDivergence:
        check_choice("init", self.init, INITS)
        check_number("cd_weight", self.cd_weight, low=0)
        check_number("n_steps", self.n_steps, low=1, integer=True)
        check_choice("refine", self.refine, (True, False))
        check_choice("averaging", self.averaging, (True, False))
        sampler, energy_step, automatic = self._chosen_sampler()
        return ContrastiveDivergence(
            start=self.init.removesuffix("-refresh"),
            cd_weight=self.cd_weight,
            sampler=sampler,
            n_steps=self.n_steps,
            noise_share=self.noise_share,
            adapt_step=automatic,
            energy_step=energy_step,
            bank=self._chosen_bank(),
            noise=self._places("start_noise", self.start_noise),
            noise_scale=self.start_scale,
            optimization=optimization,
        )

    def _chosen_sampler(self) -> tuple[Sampler, EnergyStep | None, bool]:
        """Return the sampler, what sets its step from energies, and whether acceptance does."""
        sampler = resolve(self.sampler, *ALIASES["sampler"], "sampler")
        step = self.step_size
        if self.noise_std is not None:
            if not isinstance(sampler, Langevin):
                raise ValueError(
                    f"noise_std must be None with {type(sampler).__name__}, got "
                    f"{self.noise_std!r}. Use sampler='langevin'."
                )
            sampler = sampler.with_params(noise_std=self.noise_std)
        if isinstance(step, EnergyStep):
            return sampler, step, False
        if isinstance(step, str) and step == "adaptive":
            return sampler, EnergyStep(), False
        if isinstance(step, str) and step == "auto":
            if isinstance(sampler, MALA) and isinstance(self.sampler, str):
                sampler = MALA(START_STEP)
            return sampler, None, True
        remedy = "Or use 'auto' or 'adaptive'."
        check_number("step_size", step, low=0, open_low=True, remedy=remedy)
        return sampler.with_params(step_size=float(step)), None, False

    def _chosen_bank(self) -> SampleBank | None:
        for name, default in (("refresh_rate", REFRESH_RATE), ("refresh", "iteration")):
            value = getattr(self, name)
            if value != default and self.init != "persistent-refresh":
                raise ValueError(
                    f"{name} must be left at {default!r} with init={self.init!r}, got {value!r}. "
                    "Use init='persistent-refresh'."
                )
        if not self.init.startswith("persistent"):
            return None
        rate = self.refresh_rate if self.init == "persistent-refresh" else 0.0
        return SampleBank(self.bank_size, rate, self.refresh)

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        assert isinstance(objective, ContrastiveDivergence)
        self.sampler_ = objective.current_sampler(state.model, state.objective)
        bank = state.objective.buffers.get("bank")
        return {} if bank is None else {"bank": bank.cpu()}

    def _noise(self, n: int, rng: torch.Generator) -> torch.Tensor:
        like = torch.empty(0, self.n_features_in_, device=self.device_)
        objective = self._chains(self._optimization())
        return objective.noise_starts(self._model(), like, n, rng)

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        bank = self._kept.get("bank")
        if bank is None:
            starts = self._noise(n, rng)
        else:
            rows = torch.randint(len(bank), (n,), generator=rng, device=self.device_)
            starts = bank.to(self.device_)[rows]
        state, _ = run(self.sampler_, self._model(), starts, self.n_steps, rng)
        return state.x
