"""NCEDensity: an energy that tells data from noise, and its own log Z."""

from __future__ import annotations

__all__ = ["NCEDensity"]

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number, resolve
from skebm.bases import BaseComponent
from skebm.energies import Zero
from skebm.estimators._base import EnergyDensity
from skebm.estimators._parameters import ALIASES
from skebm.estimators._preparation import Prepared
from skebm.estimators._reading import settle
from skebm.objectives import (
    ConditionalNoiseContrastive,
    NoiseContrastive,
    Objective,
    Optimization,
)
from skebm.train import TrainState

NOISES: dict[str, type] = ALIASES["base"][0]


class NCEDensity(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` by noise-contrastive estimation.

    The energy is trained to tell rows from draws of a known density, and log Z is learnt beside it;
    with ``noise="conditional"`` rows are told from noised copies of themselves.

    Parameters
    ----------
    noise : str or base component, default="base"
        Where noise is drawn from: ``"base"``, the base of the model; ``"mixture"``, ``"gaussian"``,
        ``"kernel"``, ``"uniform"`` or a component, another density fitted to the rows; or
        ``"conditional"``, a Gaussian around each row.
    noise_ratio : float, default=4.0
        Noise draws for each row; with ``"conditional"`` a whole number of copies. More lower the
        gradient's variance.
    noise_std : float, default=0.3
        Standard deviation of ``"conditional"`` noise, standardized units.
    energy : {"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy, ``"mlp"`` by default; ``"conv"`` and ``"residual"`` need `image_shape`;
        ``"ica"`` and ``"rbm"`` (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable
        gets the number of columns (or the image shape) and returns a new ``torch.nn.Module`` that
        maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"mixture", "gaussian", "kernel", "uniform"}, base component or None, default="kernel"
        The normalized reference density p0. All but None have full support; None means p0 = 1,
        which has no normalizer unless the energy grows (``MLP(output="quadratic")``).
    standardize : bool, default=True
        Shift and scale each column; undone in everything returned.
    data_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
    max_iter : int, default=600
        Energy updates.
    batch_size : int, default=256
        Rows per update, drawn with replacement.
    eval_every : int, default=25
        Updates between validations; ``history_`` has one row for each.
    learning_rate : float, default=0.004
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
    noise_log_partition_ : float
        log Z as noise-contrastive estimation has it for the fitted energy, nats, standardized
        space, from the training rows; nan with ``"conditional"``. ``log_partition_`` is an
        estimate with a standard error, and what ``score_samples`` uses.
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per `eval_every` updates: loss and data energy (nats), learned log Z (nats, not with
        ``"conditional"``), share told apart (0.5 to 1), held-out log likelihood (nats per row,
        standardized space), its gain over the base and standard error.
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

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. ``score_samples`` is
    finite everywhere. One update is one energy gradient of a batch and its noise. Noise should be
    near the data, and over all of the model: from noise that is told apart at a glance nothing is
    learnt, and where neither rows nor noise fall the energy is left alone, so noise nearer than the
    base does not pull down what the base has too much of elsewhere. That is why it is the base by
    default. ``noise_log_partition_`` counts the mass where rows and noise are; a model without a
    base can have more, which ``log_partition_`` finds.

    The kernel base detects novelties best on real tables without tuning; for log likelihoods,
    above all in many columns, ``base="mixture"`` is better, and so is `USPDensity`
    (``docs/benchmarks.md``). Step and ratio are from five tables, mixture base, held-out gain over
    it: four draws for each row and a step of 0.004 brought 0.65 nats on magic.gamma (0.26 at 0.002,
    0.18 with one draw at 0.002) and 0.81 on satellite (0.43 at 0.002), but on yeast 0.53 (0.60 at
    0.002). On two moons every setting gained 0.04, on Pima none.

    ``"conditional"`` noise cannot see how mass is shared between modes that are many times
    `noise_std` apart. A base that has the shares right keeps them, and the held-out likelihood
    chooses the snapshot; none of that certifies them.

    ``sample`` draws as `HybridCDDensity` does; without a base and with more than 32 columns chains
    start at a Gaussian fitted to the rows and are only as good as 120 Metropolis-adjusted steps
    make them.

    References
    ----------
    .. [1] M. Gutmann and A. Hyvarinen, "Noise-Contrastive Estimation: A New Estimation Principle
       for Unnormalized Statistical Models", AISTATS 2010. Section 2.
    .. [2] C. Ceylan and M. U. Gutmann, "Conditional Noise-Contrastive Estimation of Unnormalised
       Models", ICML 2018. Eqs. 8, 9 and 13.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import NCEDensity
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = NCEDensity(base="gaussian", max_iter=25, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape, abs(est.noise_log_partition_) < 0.5
    ((3,), True)
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        *,
        noise="base",
        noise_ratio=4.0,
        noise_std=0.3,
        energy="mlp",
        base="kernel",
        standardize=True,
        data_noise="auto",
        max_iter=600,
        batch_size=256,
        eval_every=25,
        learning_rate=4e-3,
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
        self.noise = noise
        self.noise_ratio = noise_ratio
        self.noise_std = noise_std
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
    def noise_log_partition_(self):
        """Learned log Z, float, nats; nan with conditional noise."""
        check_is_fitted(self)
        return float(self._kept["log_z"])

    def _prepare(self, X: np.ndarray, weight: np.ndarray | None, rng: torch.Generator) -> Prepared:
        component = self._component()
        prepared = super()._prepare(X, weight, rng)
        self._noise_density = None
        if component is not None:
            rows = prepared.noised(rng)
            self._noise_density = component.fit(rows, prepared.weight, rng)
        return prepared

    def _component(self) -> Any:
        """Return what the noise density is fitted with; None where the noise is not its own."""
        if isinstance(self.noise, str) and self.noise in ("base", "conditional"):
            return None
        own: dict[str, type] = {"base": object, "conditional": object}
        return resolve(self.noise, own | NOISES, BaseComponent, "noise")

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        check_choice("averaging", self.averaging, (True, False))
        if isinstance(self.noise, str) and self.noise == "conditional":
            remedy = "It is a number of copies with noise='conditional'."
            check_number("noise_ratio", self.noise_ratio, low=1, remedy=remedy)
            if self.noise_ratio != int(self.noise_ratio):
                raise ValueError(
                    f"noise_ratio must be a whole number, got {self.noise_ratio!r}. {remedy}"
                )
            n = int(self.noise_ratio)
            return [ConditionalNoiseContrastive(self.noise_std, n, optimization)]
        check_number("noise_ratio", self.noise_ratio, low=0, open_low=True)
        return [NoiseContrastive(self._noise_density, self.noise_ratio, optimization)]

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        del self._noise_density  # its draws have done their work
        log_z = float("nan")
        if isinstance(objective, NoiseContrastive):
            rows = prepared.noised(state.rng)
            log_z = objective.estimate_log_z(self._model(), rows, state.rng)
            if isinstance(self.energy_, Zero) and self.base_ is not None:
                log_z = 0.0  # the model is its base
        return {"log_z": torch.tensor(log_z, dtype=torch.float64)}

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Run chains from the Gaussian of the rows."""
        return settle(self._model(), self._proposal.sample(n, rng), rng)
