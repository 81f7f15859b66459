"""BoundsEBM: an energy and a generator that bound the likelihood from both sides."""

from __future__ import annotations

__all__ = ["BoundsEBM"]

import copy
import math
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm._surroundings import own_settings
from skebm._warn import warn
from skebm.bases import Base, Defensive
from skebm.data import Table, Transform
from skebm.energies import Model
from skebm.estimators._base import DensityEstimator
from skebm.estimators._papers import bounds_settings
from skebm.estimators._run import MOST_ROWS, Learned, Run
from skebm.estimators._shared import documented, resolved
from skebm.exceptions import GeneratorWarning, NormalizationWarning
from skebm.fitted import Bound, Bounds, Draws, Trained
from skebm.fitted.bounds import IMAGE_COLUMNS, MOST_DENSE, GeneratorReport, report_generator
from skebm.fitted.draws import UNKNOWN, ByGenerator
from skebm.fitted.normalization import MOST_COLUMNS
from skebm.networks import value_and_jacobian
from skebm.networks._evaluating import evaluating
from skebm.networks.jacobian import MOST_EXACT
from skebm.objectives import BidirectionalBounds, ImportanceLikelihood, Optimization
from skebm.objectives._generator_entropy import minority, orientation
from skebm.objectives.bidirectional_bounds import FlatRows
from skebm.partition import AIS, ImportanceSampling
from skebm.train import HeldOutLikelihood, TrainState
from skebm.train.judge import held_out_given

FOLDED = 0.1  # share of latents with the rarer orientation from which a fit is tried again
FEW_ROWS = 4000  # of the table, and as many generated, behind the proposal; and behind bounds
FARTHEST = 100.0  # standardized units; generated rows beyond say nothing of where the model is
N_FOLD_LATENTS, N_FOLD_IMAGES = 4096, 256
BLOCK = 1024  # rows
FOLD_COLUMNS = 1 << 18  # of Jacobians above 64 latents
REFINE = Optimization()
METHODS = ("auto", "generator", "mala")
MOST_PASSES = 150  # of a game over the rows
MOST_REFINED = 2000  # updates that refine=True stands for at most


@documented
class BoundsEBM(DensityEstimator):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` with a generator beside it.

    The energy is trained without Markov chains: a generator G, a network from noise z to rows,
    raises a lower bound of the mean negative log likelihood, and the energy lowers an upper one.
    Afterwards G draws rows in one pass, and importance likelihood puts the energy's scale right.

    Parameters
    ----------
    bound : {"bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp"} or UpperBound
        What holds the energy back, ``"bidirectional"`` by default: the paper's upper bound; a
        penalty on its slope at the data (the paper's EBM-0GP); or those of Wasserstein critics,
        which use no entropy and are not refined: their energy is not trained as a density, whatever
        its normalized scores say. ``bound__exponent`` and ``bound__probe`` work in ``set_params``.
    entropy : str or GeneratorEntropy, default="logdet"
        How the generator's entropy is had: ``"logdet"`` exactly, ``"singular-value"`` by the
        paper's bound (iterated beyond 64 latents), ``"hutchinson"``, or
        ``"mutual-information"`` (MEG) and ``"variational"`` (VERA), which go with
        ``bound="zero-centered-gp"``. A `GeneratorEntropy` has its weight and the push against
        folds: ``entropy__fold_penalty`` works in ``set_params``.
    generator : {"mlp", "conv", "residual"} or GeneratorComponent, default="mlp"
        The generator with its latents, noise, learning rate and betas; ``"conv"`` and
        ``"residual"`` need `image_shape`. ``generator__latent_dim`` works in ``set_params``.
    margin : float, default=0.0
        Zeta, nats: the penalty acts above it. The paper's 1 leaves it shut most of the time.
    penalty_weight : float or "auto", default="auto"
        M / s_1^2 of the upper bound; ``"auto"`` is 0.001 / d as in the paper (which takes 0.1 / d
        where density matters more than generation), 10 for ``"wgan-gp"``, 0.01 for zero-centered
        penalties.
    n_restarts : int, default=2
        Trainings at most: another is made while the last one folds.
    refine : bool or int, default=True
        Go on by importance likelihood for at most so many updates (True: as many as the training
        had, at most 2,000; False or 0: none), with draws from a mixture that is fitted to training
        rows and generated ones (above 32 columns from the base; not at all there without a base,
        nor for images).
    max_iter : int, default=500
        Updates of energy and generator in a training; at most 150 for each batch that the rows
        fill, unless `n_iter_no_change` is None. Narrow modes take more: the 25 Gaussians of the
        paper 6000.
    learning_rate : float, default=0.0005
        Step of the energy's optimizer (dimensionless), with half a cosine of decay to 0. The
        refinement has its own, 0.002.
    optimizer : {"adam", "sgd"} or Optimization, default="adam"
        Of both networks; an `Optimization` brings its own learning rate, betas and decay for the
        energy, and the schedule of both.
    validation_fraction : float, default=0.1
        Share of the rows held out: they stop the refinement, judge the energy against the base, and
        carry the bounds. With 0 the training rows carry them.
    n_iter_no_change : int or None, default=12
        Validations without a gain of `tol` after which the refinement stops; None never stops it
        early, and lets few rows have all of `max_iter`.

    Attributes
    ----------
    game_ : BidirectionalBounds
        The game that was played.
    generator_ : torch.nn.Module
        G in evaluation mode: latents (n, latent_dim_) to rows (n, n_features) of standardized
        space.
    latent_dim_ : int
        d.
    lower_bound_ : Bound
        Lower bound of the held-out mean negative log likelihood of the fitted density, nats per
        row, in the units of X, valid where the generator is injective; from at most 4,000 rows,
        without `data_noise`. nan with fewer latents than columns and no `observation_noise`; with
        fewer latents and noise, a bound that asks for no injectivity.
    upper_surrogate_ : Bound
        The paper's upper objective there, which is no upper bound, see Notes; nan with another
        `bound` or fewer latents.
    cubo_ : Bound
        Upper bound by importance weights, half the log of their second moment, with the effective
        number of squared weights: the larger of that from the generator and of that from a mixture
        of rows, generated rows and a wide Gaussian (above 32 columns from the base, where there is
        one). Below some hundreds it is an underestimate, and no effective number tells of a mode
        that neither of them meets. nan with fewer
        latents than columns, with `observation_noise`, above 512 latents, and where the generator
        is degenerate: its density is not known there.
    fold_fraction_ : float
        Share of latents at which the determinant of the Jacobian has the rarer sign; nan if it is
        not square, and above 512 latents.
    history_ : list of dict
        One row per 25 updates, means since the last; the first of each phase holds its
        start alone. Of the game: ``lower_bound`` on batches (nats, standardized space),
        ``penalty``, ``hinge_open`` (share of updates), ``fold`` (share of latents), ``s1_low`` and
        ``s1_median`` (5 % quantile and median of s_1), ``data_energy``, ``generated_energy``; some
        go with some of the bounds and entropies alone, see `BidirectionalBounds`. Of
        the refinement, which counts on: ``loss``, ``ess_share`` of the draws, held-out log
        likelihood ``validation`` (-inf where log Z was not to be trusted) and ``validation_gain``
        over the base.
    n_iter_ : int
        Updates of the training that was kept.

    Warns
    -----
    GeneratorWarning
        From ``fit`` and `bounds`, where the generator folds (``fold_fraction_`` above 0.1) or is
        degenerate; from ``fit``, where it has fewer latents than rows have columns.
    NormalizationWarning
        From ``fit``, where log Z is vague.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. An update takes one
    pass of the energy over two batches and one directional derivative, and the generator's Jacobian
    once, d passes (twice for other entropies than the log determinant): with many latents a random
    part of the batch carries it. A fit ends with
    the bounds: Jacobians and penalties at 16,384 latents, fewer above 8 latent dimensions, seconds.

    An entropy of weight 1 spreads images. For images to look at ``bound="zero-centered-gp"`` with
    ``penalty_weight=1.0`` and ``entropy=GeneratorEntropy(weight=0.01)`` drew better ones, and a
    weight below 1 gives up the bounds.

    With fewer than 20 rows none are held out to judge an energy: the generator is trained, and the
    base is the density.

    What the bounds certify. ``lower_bound_`` holds, up to its standard error, if G never maps two
    latents to one row; ``fold_fraction_`` of 0 is necessary for that, not sufficient. Where G folds
    the change of variables counts entropy that is not there. Above 512 latents, and from 65 on
    where rows have more columns, the bound rests on iterated singular values, which are too large
    by a factor that ``entropy__n_lobpcg`` brings down.
    ``upper_surrogate_`` is what the energy is trained on: the paper's theorem needs constants M and
    m that nobody can compute, its proof exchanges an average over a path for one over the generator
    (Eq. 23), Eq. 18 fails where rows have more columns than latents, and a generator that misses a
    mode has no penalty there. Do not report it as a bound. ``cubo_`` is an upper bound in
    expectation, of what its draws see: an effective sample size near the number of draws says that
    weights are even where there are draws, nothing of places where there are none.
    `log_partition_` has an error bar, and is what ``score`` uses.

    Over a base the energy is learnt inside the box of the training rows, widened by a quarter on
    each side, and has its value at the nearest point of the box outside: nothing in the game looks
    there, and steep energies would heap mass where the base is faint.

    Deviations from the paper: a base density; the box; refinement; the exact log determinant
    instead of :math:`d \log s_1`; no margin; a smooth generator without batch normalization and
    with a first layer scaled up; the push against folds; decay of the learning rates. `from_paper`
    has the paper's settings.

    References
    ----------
    .. [1] C. Geng, J. Wang, Z. Gao, J. Frellsen and S. Hauberg, "Bounds all around: training
       energy-based models with bidirectional bounds". Eqs. 8-20, appendices B and C.
    .. [2] A. B. Dieng, D. Tran, R. Ranganath, J. Paisley and D. M. Blei, "Variational Inference via
       chi Upper Bound Minimization", NeurIPS 2017. Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import BoundsEBM
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = BoundsEBM(max_iter=50, refine=50, n_restarts=1, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape, est.sample(5, method="generator").shape
    ((3,), (5, 2))
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    optimizer_defaults = {"betas": (0.0, 0.9), "weight_decay": 0.0}
    fits_on_ranks = False
    moved = {
        "entropy_weight": "entropy=GeneratorEntropy(weight=...)",
        "fold_penalty": "entropy=GeneratorEntropy(fold_penalty=...)",
        "generator_betas": "generator=MLPGenerator(betas=...)",
        "generator_learning_rate": "generator=MLPGenerator(learning_rate=...)",
        "latent_dim": "generator=MLPGenerator(latent_dim=...)",
        "n_lobpcg": "entropy=GeneratorEntropy(n_lobpcg=...)",
        "observation_noise": "generator=MLPGenerator(observation_noise=...)",
        "penalty_exponent": "bound=UpperBound(exponent=...)",
        "probe": "bound=UpperBound(probe=...)",
        "refine_iter": "refine=..., a number of updates",
    }

    def __init__(
        self,
        *,
        bound="bidirectional",
        entropy="logdet",
        generator="mlp",
        margin=0.0,
        penalty_weight="auto",
        n_restarts=2,
        refine=True,
        energy="mlp",
        base="mixture",
        standardize="auto",
        data_noise="auto",
        max_iter=500,
        batch_size=256,
        learning_rate=5e-4,
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
        self.bound = bound
        self.entropy = entropy
        self.generator = generator
        self.margin = margin
        self.penalty_weight = penalty_weight
        self.n_restarts = n_restarts
        self.refine = refine
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
        name : {"toy", "mnist", "cifar10", "animeface"}
            A row of the paper's Table 11. The images need `image_shape` in `changes`, and
            ``"mnist"`` needs `max_iter`: the paper's 60 epochs are ``60 * n_samples / 64``.
        **changes : dict
            Parameters that replace the paper's. `learning_rate` goes into `optimizer` and the
            generator, where these are not among them.

        Returns
        -------
        BoundsEBM
            Unfitted: no base, no refinement, margin 1, no push against folds, one training,
            singular-value entropy with 2 iterations of LOBPCG (with which the lower bound is none
            above 64 latents), constant learning rates, and the networks of Tables 6 to 10. Where
            those have parametric ReLU the energy has a leaky one of its initial slope, 0.25, and no
            energy has batch normalization.

        Raises
        ------
        ValueError
            If there is no such row.

        Examples
        --------
        >>> from skebm import BoundsEBM
        >>> BoundsEBM.from_paper("toy").max_iter
        150000
        """
        return cls(**bounds_settings(name, changes))

    @property
    def generator_(self) -> Any:
        """The generator in evaluation mode, latents to rows of standardized space."""
        network = self._fitted().draws.generator.network
        return network if self.game_.image_shape is None else FlatRows(network).eval()

    @property
    def latent_dim_(self) -> int:
        """Length of the generator's latents."""
        return self._fitted().draws.latent_dim

    def sample(self, n_samples: int = 1, random_state: Any = None, *, method: str = "auto") -> Any:
        """Draw rows from the fitted density, or from the generator in one pass.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw.
        random_state : int, RandomState instance or None, default=None
            None takes the estimator's own ``random_state``.
        method : {"auto", "generator", "mala"}, default="auto"
            ``"mala"`` resamples draws near the data by their weights and moves them by
            Metropolis-adjusted steps: rows of the density that ``score_samples`` gives.
            ``"generator"`` is one pass of the generator, whose density is another. ``"auto"`` is
            ``"mala"``, but the generator for images and, above 32 columns, without a base.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of X.

        Raises
        ------
        ValueError
            If there is no such method.
        """
        check_is_fitted(self)
        check_choice("method", method, METHODS)
        check_number("n_samples", n_samples, low=1, integer=True)
        if method == "auto":
            return super().sample(n_samples, random_state)
        density, rng = self.density_, self._rng(random_state)
        if method == "generator":
            self.sample_info_ = UNKNOWN
            with own_settings():
                return density.transform.inverse(density.draws.generate(n_samples, rng))
        if density.model.base is None and density.n_features > MOST_COLUMNS:
            raise ValueError(
                f"method must be 'generator' without a base above {MOST_COLUMNS} columns, got "
                f"{method!r}. No starts of such chains are near the density."
            )
        with own_settings():
            z, self.sample_info_ = Draws().sample(density.model, density.proposal, n_samples, rng)
        return density.transform.inverse(z)

    @own_settings()
    def bounds(self, X: Any, random_state: Any = None) -> Any:
        """Bound the mean negative log likelihood of rows from both sides.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, at best others than those of ``fit``.
        random_state : int, RandomState instance or None, default=None
            Of latents and chains; None takes the estimator's own ``random_state``.

        Returns
        -------
        Bounds
            Lower bound, the paper's upper surrogate, CUBO, and an estimate by annealed importance
            sampling, nats per row, in the units of X; and the share of folded latents.

        Warns
        -----
        GeneratorWarning
            Where the generator folds or is degenerate.
        NormalizationWarning
            Where the estimate by annealed importance sampling cannot be trusted.

        Notes
        -----
        Up to 16,384 latents with their Jacobians, fewer above 8 latent dimensions; then the chains
        of `skebm.partition.AIS`, which take most of the time: from seconds to a minute.
        """
        X = self._rows(X)
        density, rng = self.density_, self._rng(random_state)
        at_rows = _unnormalized(density.model, density.transform, X, density.device)
        known = density.model.base is not None or density.n_features <= MOST_COLUMNS
        report = report_generator(
            density.model,
            self.game_,
            self.generator_,
            density.n_features,
            at_rows,
            rng,
            density.proposal if known else None,
        )
        _warn_of(report, self.game_)
        chains = AIS().estimate(density.model, density.proposal, rng)
        doubts = chains.doubts()
        if doubts is not None:
            warn(doubts, NormalizationWarning)
        spread = float(at_rows.var()) / len(X) if len(X) > 1 else math.nan
        value = float(at_rows.mean()) + chains.value
        ais = Bound(value, math.sqrt(spread + chains.stderr**2), chains.ess)
        return Bounds(report.lower, report.surrogate, report.cubo, ais, report.fold)

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        game = self._game(run)
        chosen = self._play(game, run.model(table), table, run)
        near = self._proposal_near(game, chosen, table, run)
        states = [chosen, *self._refined(chosen, near, table, run)]
        model, best = states[-1].model, states[-1].best
        held_out = None if best is None else best.held_out
        source = model.base if near is None else near
        if held_out is None and table.held_out is not None and source is not None:
            log_z = ImportanceSampling().estimate(model, source, run.rng)
            held_out = held_out_given(model, log_z, table.held_out)
        learned = Learned(model, states, held_out, run.can_judge(table, model), near, kept=run.kept)
        network = chosen.objective.modules["generator"]
        final, fresh = learned.model_or_base(), _fresh(table, run.rng)
        at_rows = _unnormalized(final, transform, fresh, run.device)
        report = report_generator(
            final, game, network, run.n_features, at_rows, run.rng, near or final.base
        )
        _warn_of(report, game)
        extras = {
            "game_": game,
            "lower_bound_": report.lower,
            "upper_surrogate_": report.surrogate,
            "cubo_": report.cubo,
            "fold_fraction_": report.fold,
        }
        by_weights = run.is_near(model) and self.image_shape is None
        draws = ByGenerator(_trained(game, network, run), game.noise(), by_weights)
        return learned._replace(draws=draws, extras=extras)

    def _game(self, run: Run) -> BidirectionalBounds:
        if not isinstance(self.refine, bool):
            check_number("refine", self.refine, low=0, integer=True, remedy="Or True or False.")
        check_number("n_restarts", self.n_restarts, low=1, integer=True)
        generator = resolved(self, "generator")
        game = BidirectionalBounds(
            resolved(self, "bound"),
            resolved(self, "entropy"),
            copy.deepcopy(generator),
            self.penalty_weight,
            self.margin,
            self.image_shape,
            run.optimization,
        )
        game.check()
        if self.batch_size == 1 and getattr(generator, "batch_norm", False):
            raise ValueError(
                "batch_size must be >= 2 with a generator that normalizes over the batch, got 1. "
                "Set generator__batch_norm=False or more rows."
            )
        latents = game.latents((run.n_features,))
        if latents < run.n_features:
            lost = "the lower bound rests on observation_noise and is loose"
            if game.noise() == 0:
                lost = "its density lives on a surface and there are no bounds"
            warn(
                f"latent_dim={latents} is below the {run.n_features} columns of X: "
                f"energy slopes off the generator's surface go unpenalized, and {lost}. Use "
                "latent_dim=None for tables.",
                GeneratorWarning,
            )
        return game

    def _play(self, game: BidirectionalBounds, model: Model, table: Table, run: Run) -> TrainState:
        """Play the game, again while it folds; return the best outcome."""
        most = self.max_iter
        if self.n_iter_no_change is not None:  # few rows are learnt by heart
            n_batches = table.n_rows / self.batch_size
            most = min(most, math.ceil(MOST_PASSES * max(n_batches, 1)))
        # no average of a game's parameters: it did worse
        settings = run.settings(max_iter=most, average=False)
        played: list[tuple[float, TrainState]] = []  # the smaller the better
        for i in range(1 if run.before is not None else self.n_restarts):
            if i > 0:
                model = model._replace(energy=run.new_energy(model.base, table))
            state = run.phase(i, model, game, table, settings, state=0)
            if not _fold_fraction(game, state, run.rng) > FOLDED:
                return state
            played.append((-_held_out_gain(state, table, run.rng), state))
        return min(played, key=lambda pair: pair[0])[1]

    def _refined(
        self, chosen: TrainState, near: Base | None, table: Table, run: Run
    ) -> list[TrainState]:
        """Go on by importance likelihood, where there are draws to refine with."""
        model = chosen.model
        played = chosen.iteration - chosen.start
        most = min(played, MOST_REFINED) if self.refine is True else int(self.refine)
        critic = resolved(self, "bound").is_wasserstein
        if most == 0 or critic or self.image_shape is not None or (near or model.base) is None:
            return []
        judge = None
        if table.held_out is not None:
            judge = HeldOutLikelihood(model, table.rows(MOST_ROWS).x, run.rng, near)
        settings = run.settings(max_iter=most if run.can_judge(table, model) else 1, average=False)
        objective = ImportanceLikelihood(optimization=REFINE, proposal=near)
        i = self.n_restarts
        return [run.phase(i, model, objective, table, settings, judge=judge, state=1)]

    def _proposal_near(
        self, game: BidirectionalBounds, chosen: TrainState, table: Table, run: Run
    ) -> Base | None:
        """Return a mixture fitted to rows and as many generated ones, with a wide Gaussian."""
        if run.n_features > MOST_COLUMNS or self.image_shape is not None:
            return None
        rows = _some_rows(*table.rows(MOST_ROWS), run.rng)
        network = chosen.objective.modules["generator"]
        d = int(chosen.objective.buffers["latent_dim"])
        z = rows.new_empty(len(rows), d).normal_(generator=run.rng)
        with torch.no_grad(), evaluating(network):
            made = network(z)
        spread = made.isfinite().all() and float(made.abs().max()) < FARTHEST
        return Defensive().fit(torch.cat([rows, made]) if spread else rows, None, run.rng)


def _trained(game: BidirectionalBounds, network: torch.nn.Module, run: Run) -> Trained:
    """Return the generator beside what built it."""
    shape = (run.n_features,)
    if game.image_shape is not None and not game.maker.flat:
        shape, network = tuple(game.image_shape), network.module  # type: ignore[assignment]
    return Trained(game.maker, (game.latents((run.n_features,)), shape), **network.state_dict())


def _unnormalized(
    model: Model, transform: Transform, X: np.ndarray, device: torch.device
) -> torch.Tensor:
    """Return minus the log density of rows in the units of X, but for log Z: (n,), double."""
    z = transform.forward(X, device)
    potential = torch.cat([model.potential(block) for block in z.split(BLOCK)]).double()
    return potential - torch.from_numpy(transform.log_slope(X).sum(1)).to(device)


def _fresh(table: Table, rng: torch.Generator) -> np.ndarray:
    """Return at most 4000 held-out rows in the units of X, or training rows by their weights."""
    X, weight, _, held_out, _ = table.originals()
    if len(held_out):
        X, weight = X[held_out], None
    weights = None if weight is None else torch.from_numpy(weight).to(rng.device)
    index = _some_rows(torch.arange(len(X), device=rng.device), weights, rng)
    return X[index.cpu().numpy()]


def _warn_of(report: GeneratorReport, game: BidirectionalBounds) -> None:
    if report.fold > FOLDED:
        pushed = game.spread.kind == "logdet" and not game.upper.is_wasserstein
        remedy = "Raise max_iter, entropy__fold_penalty or n_restarts, or set another random_state."
        if not pushed:
            remedy = "Raise n_restarts or set another random_state; entropy='logdet' with "
            remedy += "bound='bidirectional' pushes against folds."
        warn(
            f"the generator folds: at a share of {report.fold:.2g} of the latents the "
            "determinant of its Jacobian has the rarer sign. It may miss modes, and the lower "
            f"bound is void. {remedy}",
            GeneratorWarning,
        )
    if report.degenerate > 0:
        warn(
            f"the generator is degenerate: at a share of {report.degenerate:.2g} of the "
            "latents its Jacobian has a singular value below 1e-6, taken as that. The lower "
            "bound is in doubt there and CUBO does not exist. Use wider hidden layers or fewer "
            "latents.",
            GeneratorWarning,
        )


def _fold_fraction(game: BidirectionalBounds, state: TrainState, rng: torch.Generator) -> float:
    """Return the share of latents with the rarer orientation; 0 where it is not defined."""
    network, d = state.objective.modules["generator"], int(state.objective.buffers["latent_dim"])
    n = N_FOLD_LATENTS if d <= MOST_EXACT else FOLD_COLUMNS // d
    n = n if game.image_shape is None else N_FOLD_IMAGES
    z = torch.empty(n, d, device=rng.device).normal_(generator=rng)
    with torch.no_grad(), evaluating(network):
        if d > MOST_DENSE or network(z[:1]).shape[1] != d:
            return 0.0
        blocks = z.split(max(IMAGE_COLUMNS // d, 1))
        signs = torch.cat([orientation(value_and_jacobian(network, b)[1]) for b in blocks])
    return float(minority(signs).double().mean())


def _some_rows(
    rows: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
) -> torch.Tensor:
    """Return at most 4000 rows (m, d), drawn in proportion to their weights."""
    if weight is None:
        order = torch.randperm(len(rows), generator=rng, device=rows.device)
    else:
        order = torch.multinomial(weight.double(), len(rows), True, generator=rng)
    return rows[order[:FEW_ROWS]]


def _held_out_gain(state: TrainState, table: Table, rng: torch.Generator) -> float:
    """Return the held-out gain of a training's outcome, nats per row; -inf where unknown."""
    x = table.rows(MOST_ROWS, noised=False).by_weight(rng)
    judge = HeldOutLikelihood(state.model, x, rng)
    held_out = judge(state.model, x if table.held_out is None else table.held_out)
    return -math.inf if held_out is None else held_out.gain
