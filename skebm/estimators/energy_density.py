"""EnergyDensity: any objective, energy and base behind the scikit-learn surface."""

from __future__ import annotations

__all__ = ["EnergyDensity"]

from skebm.data import Table, Transform
from skebm.estimators._base import DensityEstimator
from skebm.estimators._run import Learned, Run
from skebm.estimators._shared import documented
from skebm.fitted.draws import ByMoves
from skebm.objectives import ImportanceLikelihood, Objective
from skebm.stein._scores import shown


@documented
class EnergyDensity(DensityEstimator):
    r"""Energy-based density :math:`p(x) = e^{-E(x)/T} p_0(x) / Z` by an objective of your choice.

    What the other estimators set for you is open here: any `skebm.objectives.Objective`, yours too,
    any energy, base and sampler that follow their contracts.

    Parameters
    ----------
    objective : Objective, default=None
        The training principle, with its own parameters: ``objective__n_points`` works in
        ``set_params``. None means `ImportanceLikelihood`. Where it has a parameter `optimization`
        that is None, it gets `optimizer` and `learning_rate`.
    temperature : float, default=1.0
        T (dimensionless); the density is exp(-E/T) p0 / Z.

    Attributes
    ----------
    history_ : list of dict
        One row per 25 updates: what the objective tells of each, and of held-out rows.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. The cost is the
    objective's. ``sample`` draws as `HybridCDDensity` does; without a base and with more than 32
    columns chains start at a Gaussian fitted to the rows and are only as good as 120
    Metropolis-adjusted steps make them. A saved file holds objectives of this package alone; pickle
    holds yours.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EnergyDensity
    >>> from skebm.objectives import NoiseContrastive
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = EnergyDensity(objective=NoiseContrastive(ratio=2.0), max_iter=25, random_state=0)
    >>> est.fit(X).score_samples(X[:3]).shape
    (3,)
    """

    def __init__(
        self,
        *,
        objective=None,
        temperature=1.0,
        energy="mlp",
        base="mixture",
        standardize="auto",
        data_noise="auto",
        max_iter=1000,
        batch_size=256,
        learning_rate=2e-3,
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
        self.objective = objective
        self.temperature = temperature
        self.energy = energy
        self.base = base
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

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        objective = ImportanceLikelihood() if self.objective is None else self.objective
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objective must be an Objective or None, got {shown(objective)}. Build one of "
                "skebm.objectives, or subclass Objective."
            )
        if objective.get_params(deep=False).get("optimization", 0) is None:
            objective = objective.with_params(optimization=run.optimization)
        learned = run.train(run.model(table), [objective], table)
        return learned._replace(draws=ByMoves(run.is_near(learned.model)))
