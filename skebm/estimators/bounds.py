"""BoundsEBM: an energy and a generator that bound the likelihood from both sides."""

from __future__ import annotations

__all__ = ["BoundsEBM"]

import copy
import math
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number, resolve
from skebm.bases import Base, Defensive
from skebm.bases.uniform import UniformBase
from skebm.data import torch_generator
from skebm.energies import Model, Zero
from skebm.energies.bounded import Bounded
from skebm.estimators._base import EnergyDensity, SampleInfo
from skebm.estimators._bounds import (
    IMAGE_COLUMNS,
    MOST_DENSE,
    NO_REPORT,
    Bound,
    Bounds,
    GeneratorReport,
    potential_of,
    report_generator,
)
from skebm.estimators._bounds_paper import paper_settings
from skebm.estimators._callbacks import FitTask
from skebm.estimators._checkpoint import Checkpoint
from skebm.estimators._normalization import MOST_COLUMNS
from skebm.estimators._parameters import ALIASES
from skebm.estimators._preparation import Prepared
from skebm.exceptions import GeneratorWarning
from skebm.networks import value_and_jacobian
from skebm.networks._modes import evaluating
from skebm.networks.jacobian import MOST_EXACT
from skebm.objectives import (
    BidirectionalBounds,
    HeldOut,
    ImportanceLikelihood,
    Objective,
    Optimization,
)
from skebm.objectives._generator_entropy import minority, orientation
from skebm.objectives._held_out import (
    held_out_given,
    held_out_likelihood,
    proposal_for,
    reference_draws,
)
from skebm.partition import AIS, ImportanceSampling
from skebm.train import TrainState

FOLDED = 0.1  # share of latents with the rarer orientation from which a fit is tried again
MOST_ROWS = 4000  # of the table, and as many generated, behind the proposal
FARTHEST = 100.0  # standardized units; generated rows beyond say nothing of where the model is
IMAGE_LATENTS = 128
BOX_MARGIN = 0.25  # of the rows' range, on each side
N_FOLD_LATENTS, N_FOLD_IMAGES = 4096, 256
FOLD_COLUMNS = 1 << 18  # of Jacobians above 64 latents
REFINE = Optimization()
METHODS = ("auto", "generator", "mala")
NUMBER = (int, float, np.number)


class BoundsEBM(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` with a generator beside it.

    The energy is trained without Markov chains: a generator G, a network from noise z to rows,
    raises a lower bound of the mean negative log likelihood, and the energy lowers an upper one.
    Afterwards G draws rows in one pass, and importance likelihood puts the energy's scale right.

    Parameters
    ----------
    bound : {"bidirectional", "zero-centered-gp", "wgan-gp", "wgan-0gp"}, default="bidirectional"
        What holds the energy back: the paper's upper bound; a penalty on its slope at the data (the
        paper's EBM-0GP); or those of Wasserstein critics, which use no entropy and are not refined:
        their energy is not trained as a density, whatever its normalized scores say.
    entropy : str, default="logdet"
        How the generator's entropy is had: ``"logdet"`` exactly, ``"singular-value"`` by the
        paper's bound (iterated beyond 64 latents), ``"hutchinson"``, or
        ``"mutual-information"`` (MEG) and ``"variational"`` (VERA), which go with
        ``bound="zero-centered-gp"``.
    generator : {"mlp", "conv", "residual"} or GeneratorComponent, default="mlp"
        The generator; ``"conv"`` and ``"residual"`` need `image_shape`.
        ``generator__hidden_sizes`` works in ``set_params``.
    latent_dim : int, default=None
        Length d of z; None is the number of columns, the case in which the theory holds, and at
        most 128 for images. With fewer the generator's density lives on a surface: there are no
        bounds without `observation_noise`, and energy slopes off the surface go unpenalized.
    observation_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on generated rows, standardized units; it gives the
        generator a density in the full space. ``"auto"`` is 0.05 for ``entropy="variational"``,
        else 0.
    margin : float, default=0.0
        Zeta, nats: the penalty acts above it. The paper's 1 leaves it shut most of the time.
    penalty_weight : float or "auto", default="auto"
        M / s_1^2 of the upper bound; ``"auto"`` is 0.001 / d as in the paper (which takes 0.1 / d
        where density matters more than generation), 10 for ``"wgan-gp"``, 0.01 for zero-centered
        penalties.
    penalty_exponent : float, default=2.0
        p, at least 1. Other values than 2 cost twice as much or more.
    probe : {"gaussian", "sphere"}, default="gaussian"
        Random directions of the penalty; ``"sphere"`` is the paper's variant with :math:`|v|^2` in
        the place of d.
    entropy_weight : float, default=1.0
        Factor on the generator's entropy; any other than 1 trains a tempered density.
    fold_penalty : float, default=10.0
        How hard latents whose Jacobian has the rarer orientation are pushed back, for a square
        generator with ``entropy="logdet"``; 0 is the paper.
    n_lobpcg : int, default=10
        Iterations for the smallest singular value beyond 64 latent dimensions; the paper's code
        takes 2, with which the lower bound is none.
    n_restarts : int, default=2
        Trainings at most: another is made while the last one folds.
    refine : bool, default=True
        Go on by importance likelihood, with draws from a mixture that is fitted to training rows
        and generated ones (above 32 columns from the base; not at all there without a base, nor for
        images, nor after a game that was interrupted).
    refine_iter : int, default=2000
        Updates of it, at most.
    betas : tuple of float, default=(0.0, 0.9)
        Adam's decay rates, energy and generator.
    generator_learning_rate : float, default=0.002
        Step of the generator's optimizer (dimensionless).
    generator_betas : tuple of float, optional
        Adam's decay rates for the generator; None takes `betas`.
    energy : {"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy, ``"mlp"`` by default; ``"conv"`` and ``"residual"`` need `image_shape`;
        ``"ica"`` and ``"rbm"`` (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable
        gets the number of columns (or the image shape) and returns a new ``torch.nn.Module`` that
        maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"mixture", "gaussian", "kernel", "uniform"}, base component or None, default="mixture"
        The normalized reference density p0. All but None have full support. None means p0 = 1,
        the paper's setting, which has no normalizer unless the energy grows.
    standardize : bool, default=True
        Shift and scale each column; undone in everything returned.
    data_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
    max_iter : int, default=1000
        Updates of energy and generator in a training. Narrow modes take more: the 25 Gaussians of
        the paper 6000.
    batch_size : int, default=256
        Rows per update, drawn with replacement, and latents.
    eval_every : int, default=25
        Updates between rows of ``history_``, and between validations of the refinement.
    learning_rate : float, default=0.0005
        Step of the energy's optimizer (dimensionless), with half a cosine of decay to 0. The
        refinement has its own, 0.002.
    optimizer : {"adam", "sgd"} or Optimization, default="adam"
        Of both networks; an `Optimization` brings its own learning rate, betas and decay for the
        energy, and the schedule of both.
    weight_decay : float, default=0.0
        Decoupled decay of the energy's weights; the refinement takes 0.01.
    validation_fraction : float, default=0.1
        Share of the rows held out: they stop the refinement, judge the energy against the base, and
        carry the bounds. With 0 the training rows carry them.
    n_iter_no_change : int or None, default=None
        Validations without a gain of `tol` after which the refinement stops; None never stops it
        early.
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
        number of squared weights. Below some hundreds it is an underestimate. nan with fewer
        latents than columns, with `observation_noise`, above 512 latents, and where the generator
        is degenerate: its density is not known there.
    fold_fraction_ : float
        Share of latents at which the determinant of the Jacobian has the rarer sign; nan if it is
        not square, and above 512 latents.
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per `eval_every` updates, means since the last; the first of each phase holds its
        start alone. Of the game: ``lower_bound`` on batches (nats, standardized space),
        ``penalty``, ``hinge_open`` (share of updates), ``fold`` (share of latents), ``s1_low`` and
        ``s1_median`` (5 % quantile and median of s_1), ``data_energy``, ``generated_energy``; some
        go with some of the bounds and entropies alone, see `BidirectionalBounds`. Of
        the refinement, which counts on: ``loss``, ``ess_share`` of the draws, held-out log
        likelihood ``validation`` (-inf where log Z was not to be trusted) and ``validation_gain``
        over the base.
    n_iter_ : int
        Updates of the training that was kept.
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
    GeneratorWarning
        From ``fit`` and `bounds`, where the generator folds (``fold_fraction_`` above 0.1) or is
        degenerate; from ``fit``, where it has fewer latents than rows have columns.
    NormalizationWarning
        From ``fit``, where log Z is vague.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. An update takes one
    pass of the energy over two batches and one directional derivative, and the generator's Jacobian
    twice, d passes each: with many latents a random part of the batch carries it. A fit ends with
    the bounds: Jacobians and penalties at 16,384 latents, fewer above 8 latent dimensions, seconds.

    With fewer than 20 rows none are held out to judge an energy: the generator is trained, and the
    base is the density.

    What the bounds certify. ``lower_bound_`` holds, up to its standard error, if G never maps two
    latents to one row; ``fold_fraction_`` of 0 is necessary for that, not sufficient. Where G folds
    the change of variables counts entropy that is not there. Above 512 latents, and from 65 on
    where rows have more columns, the bound rests on iterated singular values, which are too large
    by a factor that `n_lobpcg` brings down.
    ``upper_surrogate_`` is what the energy is trained on: the paper's theorem needs constants M and
    m that nobody can compute, its proof exchanges an average over a path for one over the generator
    (Eq. 23), Eq. 18 fails where rows have more columns than latents, and a generator that misses a
    mode has no penalty there. Do not report it as a bound. ``cubo_`` is an upper bound in
    expectation. `log_partition_` has an error bar, and is what ``score`` uses.

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
    >>> est = BoundsEBM(max_iter=50, refine_iter=50, n_restarts=1, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape, est.sample(5, method="generator").shape
    ((3,), (5, 2))
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    averaging = False  # of a game's parameters: it did worse

    def __init__(
        self,
        *,
        bound="bidirectional",
        entropy="logdet",
        generator="mlp",
        latent_dim=None,
        observation_noise="auto",
        margin=0.0,
        penalty_weight="auto",
        penalty_exponent=2.0,
        probe="gaussian",
        entropy_weight=1.0,
        fold_penalty=10.0,
        n_lobpcg=10,
        n_restarts=2,
        refine=True,
        refine_iter=2000,
        betas=(0.0, 0.9),
        generator_learning_rate=2e-3,
        generator_betas=None,
        energy="mlp",
        base="mixture",
        standardize=True,
        data_noise="auto",
        max_iter=1000,
        batch_size=256,
        eval_every=25,
        learning_rate=5e-4,
        optimizer="adam",
        weight_decay=0.0,
        validation_fraction=0.1,
        n_iter_no_change=None,
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
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.margin = margin
        self.penalty_weight = penalty_weight
        self.penalty_exponent = penalty_exponent
        self.probe = probe
        self.entropy_weight = entropy_weight
        self.fold_penalty = fold_penalty
        self.n_lobpcg = n_lobpcg
        self.n_restarts = n_restarts
        self.refine = refine
        self.refine_iter = refine_iter
        self.betas = betas
        self.generator_learning_rate = generator_learning_rate
        self.generator_betas = generator_betas
        self.energy = energy
        self.base = base
        self.standardize = standardize
        self.data_noise = data_noise
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.eval_every = eval_every
        self.learning_rate = learning_rate
        self.optimizer = optimizer
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

    @classmethod
    def from_paper(cls, name, **changes):
        """Return an estimator with the paper's settings.

        Parameters
        ----------
        name : {"toy", "mnist", "cifar10", "animeface"}
            A row of the paper's Table 11. The images need `image_shape` in `changes`, and
            ``"mnist"`` needs `max_iter`: the paper's 60 epochs are ``60 * n_samples / 64``.
        **changes : dict
            Parameters that replace the paper's. `learning_rate`, `betas` and `weight_decay` go into
            `optimizer`, where that is not among them.

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
        return cls(**paper_settings(name, changes))

    @property
    def generator_(self):
        """The generator in evaluation mode, latents to rows of standardized space."""
        check_is_fitted(self)
        return self._network()

    def _network(self) -> torch.nn.Module:
        played = self._played
        shape = tuple(played.image_shape or (self.n_features_in_,))
        rng = torch.Generator(self.device_).manual_seed(0)
        network = played.build_generator(shape, rng)
        state = {
            k.removeprefix("generator."): v.to(self.device_)
            for k, v in self._kept.items()
            if k.startswith("generator.")
        }
        network.load_state_dict(state)
        return network.requires_grad_(False).eval()

    def sample(self, n_samples=1, random_state=None, *, method="auto"):
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
        far = self.base_ is None and self.n_features_in_ > MOST_COLUMNS
        images = self._played.image_shape is not None
        if method == "generator" or (method == "auto" and (far or images)):
            seed = self.random_state if random_state is None else random_state
            rows = self._generate(n_samples, torch_generator(seed, self.device_))
            self.sample_info_ = SampleInfo(math.nan, 0, math.nan)
            return self._standardizer.inverse(rows)
        if far:
            raise ValueError(
                f"method must be 'generator' without a base above {MOST_COLUMNS} columns, got "
                f"{method!r}. No starts of such chains are near the density."
            )
        return super().sample(n_samples, random_state)

    def bounds(self, X, random_state=None):
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

        Notes
        -----
        Up to 16,384 latents with their Jacobians, fewer above 8 latent dimensions; then the chains
        of `skebm.partition.AIS`, which take most of the time: from seconds to a minute.
        """
        X = self._checked(X)
        seed = self.random_state if random_state is None else random_state
        rng = torch_generator(seed, self.device_)
        model, rows = self._model(), self._standardizer.transform(X, self.device_)
        report = self._report(rows, rng)
        self._warn_of(report, stacklevel=3)
        chains = AIS().estimate(model, self._proposal, rng)
        at_rows = potential_of(model, rows)
        spread = float(at_rows.var()) / len(rows) if len(rows) > 1 else math.nan
        ais = Bound(
            float(at_rows.mean()) + chains.value + self._standardizer.log_volume,
            math.sqrt(spread + chains.stderr**2),
            chains.ess,
        )
        return Bounds(report.lower, report.surrogate, report.cubo, ais, report.fold)

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        z = torch.empty(n, self.latent_dim_, device=self.device_).normal_(generator=rng)
        noise = self._played.noise()
        network = self.generator_
        with torch.no_grad():
            x = torch.cat([network(block) for block in z.split(4096)])
        return x + noise * torch.empty_like(x).normal_(generator=rng) if noise else x

    @property
    def latent_dim_(self):
        """Length of the generator's latents."""
        check_is_fitted(self)
        return self._played.latents((self.n_features_in_,))

    @property
    def fold_fraction_(self):
        """Share of latents with the rarer sign of the Jacobian's determinant."""
        return float(self._reported("fold")[0])

    @property
    def lower_bound_(self):
        """Lower bound of the held-out mean negative log likelihood, nats per row, units of X."""
        return Bound(*self._reported("lower").tolist())

    @property
    def upper_surrogate_(self):
        """The paper's upper objective there: no bound."""
        return Bound(*self._reported("surrogate").tolist())

    @property
    def cubo_(self):
        """Upper bound by the second moment of importance weights, nats per row, units of X."""
        return Bound(*self._reported("cubo").tolist())

    def _reported(self, name: str) -> torch.Tensor:
        check_is_fitted(self)
        return self._kept[f"report.{name}"]

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        check_choice("refine", self.refine, (True, False))
        check_number("refine_iter", self.refine_iter, low=1, integer=True)
        check_number("n_restarts", self.n_restarts, low=1, integer=True)
        game = self._game(optimization)
        game.check()
        if self.batch_size == 1 and getattr(game.generator, "batch_norm", False):
            raise ValueError(
                "batch_size must be >= 2 with a generator that normalizes over the batch, got 1. "
                "Set generator__batch_norm=False or more rows."
            )
        latents = game.latents((self.n_features_in_,))
        if latents < self.n_features_in_:
            lost = "the lower bound rests on observation_noise and is loose"
            if game.noise() == 0:
                lost = "its density lives on a surface and there are no bounds"
            warnings.warn(
                f"latent_dim={latents} is below the {self.n_features_in_} columns of X: "
                f"energy slopes off the generator's surface go unpenalized, and {lost}. Use "
                "latent_dim=None for tables.",
                GeneratorWarning,
                stacklevel=5,
            )
        return [game]

    def _game(self, optimization: Optimization) -> BidirectionalBounds:
        component = resolve(self.generator, *ALIASES["generator"], "generator")
        check_number("generator_learning_rate", self.generator_learning_rate, low=0, open_low=True)
        betas = self.betas if self.generator_betas is None else self.generator_betas
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        numbers = pair and all(isinstance(b, NUMBER) and 0 <= b < 1 for b in betas)
        if self.generator_betas is not None and not numbers:
            error = ValueError if pair else TypeError
            raise error(
                f"generator_betas must be two numbers in [0, 1), got {betas!r}. None takes betas."
            )
        latent_dim = self.latent_dim
        if latent_dim is None and self.image_shape is not None:
            latent_dim = min(IMAGE_LATENTS, self.n_features_in_)
        return BidirectionalBounds(
            bound=self.bound,
            entropy=self.entropy,
            generator=component,
            latent_dim=latent_dim,
            observation_noise=self.observation_noise,
            margin=self.margin,
            penalty_weight=self.penalty_weight,
            penalty_exponent=self.penalty_exponent,
            probe=self.probe,
            entropy_weight=self.entropy_weight,
            fold_penalty=self.fold_penalty,
            n_lobpcg=self.n_lobpcg,
            image_shape=self.image_shape,
            optimization=optimization,
            generator_optimization=optimization.with_params(
                learning_rate=self.generator_learning_rate, betas=betas, weight_decay=0.0
            ),
        )

    def _optimization(self) -> Optimization:
        optimization = super()._optimization()
        if isinstance(self.optimizer, Optimization):
            return optimization
        return optimization.with_params(betas=self.betas)

    def _train(
        self,
        objectives: list[Objective],
        prepared: Prepared,
        checkpoint: Checkpoint,
        rng: torch.Generator,
        task: FitTask,
    ) -> list[TrainState]:
        """Play the game, again while it folds; keep the best outcome and refine it."""
        game = objectives[0]
        assert isinstance(game, BidirectionalBounds)
        before = self._train_states if self._continues() else None
        if not before:
            low, high = prepared.x.amin(0), prepared.x.amax(0)
            margin = BOX_MARGIN * (high - low)
            self._box = (low - margin, high + margin)
        model = before[-1].model if before else self._new_model(prepared, rng)
        settings = self._settings(prepared)
        settings_of_game = settings._replace(max_iter=self.max_iter)  # needs no held-out rows
        attempts: list[TrainState] = []
        ranks: list[tuple[bool, float]] = []  # the smaller the better
        for i in range(1 if before else self.n_restarts):
            if i > 0:
                model = model._replace(energy=self._new_energy(model.base, rng))
            phases = [(i, game, before[0] if before else None)]
            attempts += self._run_phases(
                model, phases, settings_of_game, prepared, checkpoint, rng, task
            )
            if attempts[-1].interrupted:
                ranks.append((True, math.inf))  # only the first may be kept unfinished
                break
            if not _fold_fraction(game, attempts[-1], rng) > FOLDED:
                ranks.append((False, 0.0))
                break
            ranks.append((True, -_held_out_gain(attempts[-1], prepared, rng)))
        chosen = attempts[ranks.index(min(ranks))]
        chosen.interrupted = attempts[-1].interrupted
        self._near = self._proposal_near(game, chosen, prepared, rng)
        if chosen.interrupted or not self._refines(model):
            return [chosen]
        refinement = ImportanceLikelihood(optimization=REFINE, proposal=self._near)
        again = before[1] if before and len(before) > 1 else None
        phases = [(self.n_restarts, refinement, again)]
        if self._can_judge(prepared):
            settings = settings._replace(max_iter=self.refine_iter)
        refined = self._run_phases(chosen.model, phases, settings, prepared, checkpoint, rng, task)
        return [chosen, *refined]

    def _wrapped(self, energy: torch.nn.Module, base: Base | None) -> torch.nn.Module:
        """Keep the energy to a box around the rows: the game does not look beyond."""
        if base is None or isinstance(base, UniformBase) or self.image_shape is not None:
            return super()._wrapped(energy, base)
        nowhere = torch.zeros(2, self.n_features_in_, device=self.device_)  # a loaded state has it
        return Bounded(energy, *self.__dict__.get("_box", (nowhere[0], nowhere[1])))

    def _refines(self, model: Model) -> bool:
        """Whether there are draws to refine with."""
        if self.image_shape is not None or self.bound.startswith("wgan"):
            return False
        return bool(self.refine) and (self._near is not None or model.base is not None)

    def _proposal_near(
        self,
        game: BidirectionalBounds,
        state: TrainState,
        prepared: Prepared,
        rng: torch.Generator,
    ) -> Base | None:
        """Return a mixture fitted to rows and as many generated ones, with a wide Gaussian."""
        if self.n_features_in_ > MOST_COLUMNS or self.image_shape is not None:
            return None
        rows = _some_rows(prepared.noised(rng), prepared.weight, rng)
        network = state.objective.modules["generator"]
        d = int(state.objective.buffers["latent_dim"])
        z = rows.new_empty(len(rows), d).normal_(generator=rng)
        with torch.no_grad(), evaluating(network):
            made = network(z)
        spread = made.isfinite().all() and float(made.abs().max()) < FARTHEST
        return Defensive().fit(torch.cat([rows, made]) if spread else rows, None, rng)

    def _outcome(
        self, state: TrainState, prepared: Prepared, rng: torch.Generator
    ) -> tuple[Model, HeldOut | None]:
        model, held_out = super()._outcome(state, prepared, rng)
        source = self._near if self._near is not None else model.base
        if held_out is not None or prepared.validation is None or source is None:
            return model, held_out
        log_z = ImportanceSampling().estimate(model, source, rng)
        return model, held_out_given(model, log_z, prepared.validation)

    def _choose_proposal(self, prepared: Prepared, rng: torch.Generator) -> Base:
        near: Base | None = self.__dict__.pop("_near")
        self.__dict__.pop("_box", None)  # the energy has it
        if near is None or (isinstance(self.energy_, Zero) and self.base_ is not None):
            return super()._choose_proposal(prepared, rng)
        return near

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        network = state.objective.modules["generator"].state_dict()
        return {f"generator.{name}": tensor.detach().cpu() for name, tensor in network.items()}

    def _complete(self, prepared: Prepared, rng: torch.Generator) -> None:
        self._played = copy.deepcopy(self._game(self._optimization()))
        rows, weight = prepared.clean_validation, None
        if rows is None:
            rows, weight = prepared.x, prepared.weight
        rows = _some_rows(rows, weight, rng)
        try:
            report = self._report(rows, rng)
        except KeyboardInterrupt:
            report = NO_REPORT
            warnings.warn(
                "The evaluation of the bounds was interrupted: lower_bound_, upper_surrogate_ and "
                "cubo_ are nan. bounds(X) evaluates them on any rows.",
                ConvergenceWarning,
                stacklevel=4,
            )
        for name in ("lower", "surrogate", "cubo"):
            values = torch.tensor(getattr(report, name), dtype=torch.float64)
            self._kept[f"report.{name}"] = values
        self._kept["report.fold"] = torch.tensor([report.fold], dtype=torch.float64)
        self._warn_of(report, stacklevel=5)

    def _report(self, rows: torch.Tensor, rng: torch.Generator) -> GeneratorReport:
        return report_generator(
            self._model(),
            self._played,
            self._network(),
            self._played.latents((self.n_features_in_,)),
            rows,
            self._standardizer.log_volume,
            rng,
        )

    def _warn_of(self, report: GeneratorReport, stacklevel: int) -> None:
        played = self._played
        if report.fold > FOLDED:
            pushed = played.entropy == "logdet" and not played.bound.startswith("wgan")
            remedy = "Raise max_iter, fold_penalty or n_restarts, or set another random_state."
            if not pushed:
                remedy = "Raise n_restarts or set another random_state; entropy='logdet' with "
                remedy += "bound='bidirectional' pushes against folds."
            warnings.warn(
                f"the generator folds: at a share of {report.fold:.2g} of the latents the "
                "determinant of its Jacobian has the rarer sign. It may miss modes, and the lower "
                f"bound is void. {remedy}",
                GeneratorWarning,
                stacklevel=stacklevel,
            )
        if report.degenerate > 0:
            warnings.warn(
                f"the generator is degenerate: at a share of {report.degenerate:.2g} of the "
                "latents its Jacobian has a singular value below 1e-6, taken as that. The lower "
                "bound is in doubt there and CUBO does not exist. Use wider hidden layers or fewer "
                "latents.",
                GeneratorWarning,
                stacklevel=stacklevel,
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
    return rows[order[:MOST_ROWS]]


def _held_out_gain(state: TrainState, prepared: Prepared, rng: torch.Generator) -> float:
    """Return the held-out gain of a training's outcome, nats per row; -inf where unknown."""
    rows = prepared.x if prepared.validation is None else prepared.validation
    near = proposal_for(state.model, prepared.x, rng)
    draws = reference_draws(state.model, near, rng)
    held_out = held_out_likelihood(state.model, draws, rows)
    return -math.inf if held_out is None else held_out.gain
