"""SteinEBM: a density trained by minimizing a learned Stein discrepancy."""

from __future__ import annotations

__all__ = ["SteinEBM"]

from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm._ranks import same
from skebm._surroundings import own_settings
from skebm.bases import Gaussian
from skebm.data import Table, Transform
from skebm.energies import Model
from skebm.energies.ica import ICAEnergy
from skebm.energies.learned_gaussian import with_learned_gaussian
from skebm.energies.rbm import RBMEnergy
from skebm.estimators._base import DensityEstimator
from skebm.estimators._papers import LSD, paper_settings
from skebm.estimators._run import MOST_ROWS, Learned, Run, places
from skebm.estimators._shared import documented, resolved
from skebm.fitted import Draws, Trained
from skebm.fitted.calibration import calibrate
from skebm.fitted.draws import UNKNOWN, ByChains, ByEnergy
from skebm.fitted.normalization import MOST_COLUMNS
from skebm.objectives import ChainStart, LearnedStein
from skebm.partition import ImportanceSampling
from skebm.samplers import Gibbs, Langevin, run
from skebm.train.judge import held_out_given

METHODS = ("auto", "mala", "langevin", "exact", "gibbs")
NEEDS = {
    "exact": "Exact draws need LinearICA",
    "gibbs": "Block Gibbs needs GaussianBernoulliRBM",
}


@documented
class SteinEBM(DensityEstimator):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` of least learned Stein discrepancy.

    A critic learns where the scores of model and data differ, and the model learns to leave it
    nothing to find: neither chains nor a normalizer are needed in training. Afterwards the weights
    of separated modes, which scores do not show, are put right by maximum likelihood.

    Parameters
    ----------
    critic : Critic or "auto", default="auto"
        The critic's layers, its own learning rate and how its divergence is had; ``"auto"`` means
        two hidden layers of 128 with swish and a first layer scaled by 4; the paper has
        ``Critic((300, 300))``. ``critic__hidden_sizes`` works in ``set_params``.
    critic_steps : int, default=5
        C: updates of the critic per update of the energy; more follow the model more closely.
    l2 : float, default=1.0
        Lambda: penalty on the critic's mean squared norm; larger makes the model's steps smaller.
    energy_l2 : float, default=0.0
        Penalty on the mean squared energy; the released code has 0.001 for images.
    learn_base : bool, default=True
        With a Gaussian base, learn its mean and scales too (Eq. 15); no effect with other bases.
    calibrate : bool, default=True
        After training, fit ``log q + a . r(x)`` by maximum likelihood, r the responsibilities of a
        mixture chosen by the Bayesian information criterion: each mode keeps its shape and gets its
        weight. Left out for images, above 32 columns, for linear ICA and Boltzmann machines, and
        with a warning where importance draws do not reach the model.

    Attributes
    ----------
    critic_ : callable
        The opponent at the end of training, (n, n_features) in units of X to (n, n_features) on
        standardized space: it looked at the energy of the last update, before a better snapshot
        was put back and before calibration. For a discrepancy of the fitted density use
        `skebm.stein.learned_stein_discrepancy`.
    critic_network_ : Trained
        The critic's network on standardized space.
    calibration_ : tuple (int, float, float) or None
        Components of the mixture, effective draws and held-out gain in nats per row of the
        calibration; None where there was none.
    history_ : list of dict
        One row per 25 updates: discrepancy and standard deviation of Stein values on
        training batches, mean squared norm of the critic, data energy (nats), ``validation`` (minus
        the held-out discrepancy, but for a constant; see `skebm.objectives.LearnedStein`) and the
        gain over the base in held-out log likelihood, before calibration, with its standard error.

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

    Deviations from the paper: decay of the learning rate and decoupled weight decay; the critic's
    gradient is clipped at five times its running norm; the exact trace in place of Hutchinson's
    estimate (``Critic(trace="gaussian")`` is the paper's); an early stop; `energy_l2` squares the
    energy with its learned Gaussian, the released code that of the network alone; a mixture as
    default base, as for the other estimators, whose moments are not learned; calibration.
    `from_paper` has the paper's settings.

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

    optimizer_defaults = {"betas": (0.5, 0.9)}
    moved = {
        "critic_learning_rate": "critic=Critic(learning_rate=...)",
        "trace": "critic=Critic(trace=...)",
    }

    def __init__(
        self,
        *,
        critic="auto",
        critic_steps=5,
        l2=1.0,
        energy_l2=0.0,
        learn_base=True,
        calibrate=True,
        energy="mlp",
        base="mixture",
        standardize="auto",
        data_noise="auto",
        max_iter=1000,
        batch_size=256,
        learning_rate=2e-3,
        optimizer="adam",
        validation_fraction=0.1,
        n_iter_no_change=6,
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
        self.energy_l2 = energy_l2
        self.learn_base = learn_base
        self.calibrate = calibrate
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

    @classmethod
    def from_paper(cls, name: str, **changes: Any) -> Self:
        """Return an estimator with the paper's settings.

        Parameters
        ----------
        name : {"toy"}
            The densities in two dimensions of Figure 4 and appendix B.4.
        **changes : dict
            Parameters that replace the paper's.

        Returns
        -------
        SteinEBM
            Unfitted: a network beside a Gaussian whose moments are learnt, five updates of the
            critic for one of the energy, no calibration; `l2` and the batch are those of the
            released code.

        Raises
        ------
        ValueError
            If there are no such settings.

        Examples
        --------
        >>> from skebm import SteinEBM
        >>> SteinEBM.from_paper("toy").critic_steps
        5
        """
        return cls(**paper_settings(LSD, name, changes))

    @property
    def critic_(self) -> Any:
        """The critic, a callable (n, n_features) -> (n, n_features)."""
        transform = self._fitted().transform
        return _CriticOfRows(self.critic_network_.network, transform)

    @own_settings()
    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        method: str = "auto",
        n_steps: int = 1000,
        step_size: float = 0.01,
        noise_std: float = 0.1,
        init: Any = None,
    ) -> np.ndarray:
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
        if method == "auto":
            return super().sample(n_samples, random_state)
        direct = _direct_method(self.density_.model)
        if method in NEEDS and method != direct:
            raise ValueError(
                f"method must be 'auto', 'mala' or 'langevin' with this model, got {method!r}. "
                f"{NEEDS[method]} with base=None."
            )
        density, rng = self.density_, self._rng(random_state)
        if method in ("mala", "exact"):
            draws = Draws() if method == "mala" else ByEnergy(False)
            z, self.sample_info_ = draws.sample(density.model, density.proposal, n_samples, rng)
            return density.transform.inverse(z)
        check_number("n_steps", n_steps, low=1, integer=True)
        starts = places("init", init, density.transform, density.device)
        starts = density.noise(n_samples, rng) if starts is None else starts
        if len(starts) != n_samples:
            raise ValueError(f"init must have n_samples={n_samples} rows, got {len(starts)}.")
        sampler = Gibbs() if method == "gibbs" else Langevin(step_size, noise_std=noise_std)
        state, _ = run(sampler, density.model, starts, n_steps, rng)
        if not state.x.isfinite().all():
            raise ValueError(
                f"step_size must be small enough for stable chains, got {step_size!r}: they left "
                "for infinity. Lower it, or use method='mala'."
            )
        self.sample_info_ = UNKNOWN
        return density.transform.inverse(state.x)

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        for name in ("learn_base", "calibrate"):
            check_choice(name, getattr(self, name), (True, False))
        critic = resolved(self, "critic")
        objective = LearnedStein(
            critic,
            self.critic_steps,
            self.l2,
            energy_l2=self.energy_l2,
            optimization=run.optimization,
        )
        model = run.model(table)
        gaussian = isinstance(resolved(self, "base") if self.base else None, Gaussian)
        if self.learn_base and gaussian and run.before is None:
            model = model._replace(energy=with_learned_gaussian(model.energy, model.base))
        learned = self._calibrated(run.train(model, [objective], table), table, run)
        direct = _direct_method(learned.model)
        chains = ByChains(Langevin(0.01), 1000, ChainStart(), by_weights=run.is_near(model))
        draws = ByEnergy(False) if direct == "exact" else chains
        state = learned.states[0].objective.modules["critic"].state_dict()
        network = Trained(critic, (run.n_features,), **state)
        extras = {**learned.extras, "critic_network_": network}
        return learned._replace(draws=draws, extras=extras)

    def _calibrated(self, learned: Learned, table: Table, run: Run) -> Learned:
        """Put the weights of modes right, and judge again."""
        model, left_out = learned.model, learned._replace(extras={"calibration_": None})
        tabular = self.image_shape is None and run.n_features <= MOST_COLUMNS
        if not (self.calibrate and tabular) or isinstance(model.energy, RBMEnergy | ICAEnergy):
            return left_out
        done = calibrate(model, *table.rows(MOST_ROWS), table.held_out, run.rng)
        if done is None:
            return left_out
        lifted, held_out = model._replace(energy=done.energy), learned.held_out
        if table.held_out is not None:
            log_z = ImportanceSampling().estimate(lifted, done.proposal, run.rng)
            held_out = same(held_out_given(lifted, log_z, table.held_out))
        better = learned._replace(model=lifted, held_out=held_out, proposal=done.proposal)
        about = (done.n_components, done.ess, done.gain) if better.earned else None
        return better._replace(extras={"calibration_": about})


def _direct_method(model: Model) -> str | None:
    """Return the method that draws from the energy itself, where there is one."""
    if model.base is not None or model.temperature != 1:
        return None
    if isinstance(model.energy, RBMEnergy):
        return "gibbs"
    return "exact" if isinstance(model.energy, ICAEnergy) else None


class _CriticOfRows:
    """A critic behind numpy rows in the units of X."""

    def __init__(self, network: torch.nn.Module, transform: Transform) -> None:
        self.network, self.transform = network, transform

    @own_settings()
    @torch.no_grad()
    def __call__(self, X: Any) -> np.ndarray:
        X = check_array(X, dtype=np.float64)
        d = self.transform.n_features
        if X.shape[1] != d:
            raise ValueError(f"X must have {d} columns, got {X.shape[1]}. Use those of fit.")
        device = next(self.network.parameters()).device
        return self.network(self.transform.forward(X, device)).double().cpu().numpy()
