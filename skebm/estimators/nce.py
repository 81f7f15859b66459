"""NCEDensity: an energy that tells data from noise, and its own log Z."""

from __future__ import annotations

__all__ = ["NCEDensity"]

from skebm._components import check_number, resolve
from skebm.bases import BaseComponent
from skebm.data import Table, Transform
from skebm.energies import Zero
from skebm.estimators._base import DensityEstimator
from skebm.estimators._run import MOST_ROWS, Learned, Run
from skebm.estimators._shared import ALIASES, documented
from skebm.fitted.draws import ByMoves
from skebm.objectives import ConditionalNoiseContrastive, NoiseContrastive, Objective

NOISES: dict[str, type] = ALIASES["base"][0]


@documented
class NCEDensity(DensityEstimator):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` by noise-contrastive estimation.

    The energy is trained to tell rows from draws of a known density, and log Z is learnt beside it;
    with ``noise="conditional"`` rows are told from noised copies of themselves.

    Parameters
    ----------
    noise : str or base component, default="base"
        Where noise is drawn from: ``"base"``, the base of the model; ``"mixture"``, ``"gaussian"``,
        ``"kernel"``, ``"uniform"`` or a component, another density fitted to the rows; or
        ``"conditional"``, a Gaussian around each row.
    noise_ratio : float, default=2.0
        Noise draws for each row; with ``"conditional"`` a whole number of copies. More lower the
        gradient's variance.
    noise_std : float, default=0.3
        Standard deviation of ``"conditional"`` noise, standardized units.

    Attributes
    ----------
    noise_log_partition_ : float
        log Z as noise-contrastive estimation has it for the fitted energy, nats, standardized
        space, from the training rows; nan with ``"conditional"``. ``log_partition_`` is an
        estimate with a standard error, and what ``score_samples`` uses.
    history_ : list of dict
        One row per 25 updates: loss and data energy (nats), learned log Z (nats, not with
        ``"conditional"``), share told apart (0.5 to 1), held-out log likelihood (nats per row,
        standardized space), its gain over the base and standard error.

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
    (``docs/benchmarks.md``). Few updates, large steps and two draws for each row are for the
    time that they save; twice the draws, or more updates, are for where a tenth of a nat counts.

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
        noise_ratio=2.0,
        noise_std=0.3,
        energy="mlp",
        base="kernel",
        columns="auto",
        standardize="auto",
        data_noise="auto",
        max_iter=300,
        batch_size=256,
        learning_rate=1.2e-2,
        optimizer="adam",
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
        self.columns = columns
        self.standardize = standardize
        self.data_noise = data_noise
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
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

    def _obstacle_to_codes(self) -> str:
        if not isinstance(self.noise, str) or self.noise != "base":
            return "noise must be 'base'"
        return super()._obstacle_to_codes()

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        objective = self._objective(table, run)
        learned = run.train(run.model(table), [objective], table)
        log_z = float("nan")
        if isinstance(objective, NoiseContrastive):
            rows, model = table.rows(MOST_ROWS).by_weight(run.rng), learned.model_or_base()
            known = isinstance(model.energy, Zero) and model.base is not None
            log_z = 0.0 if known else objective.estimate_log_z(model, rows, run.rng)
        draws = ByMoves(run.is_near(learned.model))
        return learned._replace(draws=draws, extras={"noise_log_partition_": log_z})

    def _objective(self, table: Table, run: Run) -> Objective:
        if isinstance(self.noise, str) and self.noise == "conditional":
            remedy = "It is a number of copies with noise='conditional'."
            check_number("noise_ratio", self.noise_ratio, low=1, remedy=remedy)
            if self.noise_ratio != int(self.noise_ratio):
                raise ValueError(
                    f"noise_ratio must be a whole number, got {self.noise_ratio!r}. {remedy}"
                )
            n = int(self.noise_ratio)
            return ConditionalNoiseContrastive(self.noise_std, n, run.optimization)
        check_number("noise_ratio", self.noise_ratio, low=0, open_low=True)
        noise = None
        if not (isinstance(self.noise, str) and self.noise == "base"):
            own: dict[str, type] = {"base": object, "conditional": object}
            component = resolve(self.noise, own | NOISES, BaseComponent, "noise")
            noise = run.fit_base(component, table)
        return NoiseContrastive(noise, self.noise_ratio, run.optimization)
