"""USPDensity: maximum likelihood with the normalizer summed over points on the support."""

from __future__ import annotations

__all__ = ["USPDensity"]

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._components import check_choice, check_number
from skebm.bases import Base, BaseComponent, Uniform
from skebm.bases.uniform import UniformBase
from skebm.estimators._base import EnergyDensity
from skebm.estimators._preparation import Prepared
from skebm.exceptions import SupportWarning
from skebm.objectives import ImportanceLikelihood, Objective, Optimization, PartitionLikelihood
from skebm.samplers import SupportInfo, SupportPartition, support_diagnostics
from skebm.train import TrainState

METHODS = ("importance", "ps-usp", "usp")
IMAGE_SHARE = 5  # points in the sum per row of a batch of images: the paper's 625 to 125


class USPDensity(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)} p_0(x) / Z` by uniform support partitioning.

    Maximum likelihood with the normalizer written as a weighted sum over points, without Markov
    chains. By default the points are drawn afresh from the base. With ``method="ps-usp"`` they go
    on, climb the density that is being learnt and keep apart, so that they come to partition its
    support and cross gaps that short chains do not.

    Parameters
    ----------
    method : {"importance", "ps-usp", "usp"}, default="importance"
        ``"importance"`` draws points afresh from the base at each update, with ``base="uniform"``
        uniformly from the box: exact in the limit of many points. ``"ps-usp"`` moves a random part
        of persistent points at each update, ``"usp"`` all of them. `n_active` to `init` and
        `weights` are for these two.
    n_points : int, default=2000
        n: points in the sum, at least 2; more lower the noise of the gradient.
    n_active : int, default=200
        Size of Lambda: points moved per update, with ``"ps-usp"``.
    n_neighbors : int, "auto" or None, default="auto"
        Size of Gamma: points at rest, drawn at random in each inner step, that push the active
        ones; None looks at all. ``"auto"`` is all up to 8 columns on the CPU, where a k-d tree
        finds those nearby, else as many as `n_active`. Unused by ``"usp"``, where all are active.
    epsilon : float or "auto", default="auto"
        Distance that points keep, standardized units; smaller is finer and needs more points.
        ``"auto"`` takes it from the nearest-neighbor distances of the rows, see
        `skebm.objectives.PartitionLikelihood`.
    n_inner : int, default=10
        N: inner steps per update; more follows the density more closely.
    n_maximize, n_repel : int, default=1
        Steps of ascent, then of repulsion, per inner step; need ``combine=False``.
    combine : bool, default=True
        Point by point, ascend where no other point is nearer than epsilon, else repel.
    step_maximize : float, default=0.01
        Step of ascent that multiplies the score, standardized units squared; steps are never longer
        than epsilon.
    step_repel : float or "auto", default="auto"
        Step of repulsion per unit vector, standardized units; ``"auto"`` is 0.6 epsilon.
    domain : tuple (low, high) of float or array-like (n_features,), optional
        Box that bounds the points, units of X: the lows of all columns, then their highs. With
        ``base="uniform"`` it is the box of the base too; ``"importance"`` over another base has no
        use for it. None is the range of the rows widened by a quarter on each side, for images the
        range alone.
    init : {"data", "uniform"} or array-like of shape (m, n_features), default="data"
        Where points start: at training rows, uniformly in the box, or at the given places, units of
        X (drawn with replacement where there are fewer than `n_points`).
    n_integration : int or None, default=None
        n_s: points drawn at random for the sum at each update; None takes all, for images five per
        row of a batch.
    weights : {"plain", "knn"}, default="plain"
        ``"plain"`` takes points as evenly dense, as the paper does; ``"knn"`` multiplies each
        weight by the volume of the ball up to the fifth neighbor, which corrects uneven points in
        few columns and is noise in many.
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
    max_iter : int, default=1500
        Energy updates.
    batch_size : int, default=256
        Rows per update, drawn with replacement.
    eval_every : int, default=25
        Updates between validations; ``history_`` has one row for each.
    learning_rate : float, default=0.008
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
    n_iter_no_change : int or None, default=24
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
    support_points_ : ndarray of shape (n_points, n_features)
        The points, units of X; with ``"importance"`` a last draw from the base.
    support_weights_ : ndarray of shape (n_points,)
        Their weights in Eq. 10 under the fitted model; they sum to 1.
    support_info_ : SupportInfo
        Violation rate, coverage of the training rows (both nan with ``"importance"``), effective
        sample size and largest weight.
    epsilon_ : float
        The distance in use, standardized units; nan with ``"importance"``.
    domain_ : tuple of ndarray of shape (n_features,)
        The box in use, units of X; infinite with ``"importance"`` over a base without a box.
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per `eval_every` updates: loss and data energy (nats), violation rate, coverage,
        effective share and largest value of the weights, held-out log likelihood (nats per row,
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

    Warns
    -----
    SupportWarning
        From ``fit``, where the points at distance epsilon do not fit into the box or, up to 32
        columns, cannot cover the data, and where rows lie outside `domain`.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. ``score_samples`` is
    finite everywhere: with ``base="uniform"`` a row outside the box gets the energy of the nearest
    point of the box and the base's Gaussian shoulder, so its log density falls with the square of
    its distance to the box. One update takes `n_inner` gradients of at most `n_active` points, the
    distances among them, and one energy gradient of a batch and the points in the sum; memory is
    that of the points.

    The default is ``"importance"`` because on tables the moved points did not help: over a mixture
    base the energy of ``"ps-usp"`` lost to its base on held-out rows in 5 of 6 tables and was
    dropped, that of importance likelihood was kept in 19 of 23
    (``examples/benchmarks/usp_novelty.py``). In few columns without a near base, ``"ps-usp"`` finds
    modes from points in one of them (``examples/papers/usp_six_modes.py``).

    ``sample`` draws as `HybridCDDensity` does; without a base and with more than 32 columns it
    draws from the points by their weights.

    Deviations from the paper: a base density; Adam with decoupled weight decay and decay of the
    learning rate; no step is longer than epsilon; up to 8 columns all points push, not a random
    choice (of those within epsilon the nearest 8); held-out rows choose the best snapshot. The
    paper's setting is ``base="uniform"``, ``n_points=5000``, ``n_active=1000``, ``n_inner=50``,
    ``epsilon=0.05`` and ``Optimization(1e-3, method="sgd", schedule="constant", weight_decay=0)``.
    It states neither the steps nor the size of Gamma. The sum stands for an integral only where
    points are evenly dense over the support: in many columns it is a heuristic, and the log density
    is normalized afterwards by `log_partition`.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Eqs. 10-14, sections 4.1 and 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import USPDensity
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = USPDensity(base="uniform", n_points=300, max_iter=25, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape, est.support_points_.shape
    ((3,), (300, 2))
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    def __init__(
        self,
        *,
        method="importance",
        n_points=2000,
        n_active=200,
        n_neighbors="auto",
        epsilon="auto",
        n_inner=10,
        n_maximize=1,
        n_repel=1,
        combine=True,
        step_maximize=0.01,
        step_repel="auto",
        domain=None,
        init="data",
        n_integration=None,
        weights="plain",
        energy="mlp",
        base="mixture",
        standardize=True,
        data_noise="auto",
        max_iter=1500,
        batch_size=256,
        eval_every=25,
        learning_rate=8e-3,
        optimizer="adam",
        averaging=True,
        weight_decay=0.01,
        validation_fraction=0.1,
        n_iter_no_change=24,
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
        self.method = method
        self.n_points = n_points
        self.n_active = n_active
        self.n_neighbors = n_neighbors
        self.epsilon = epsilon
        self.n_inner = n_inner
        self.n_maximize = n_maximize
        self.n_repel = n_repel
        self.combine = combine
        self.step_maximize = step_maximize
        self.step_repel = step_repel
        self.domain = domain
        self.init = init
        self.n_integration = n_integration
        self.weights = weights
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
    def support_points_(self):
        """The points, ndarray (n_points, n_features), units of X."""
        check_is_fitted(self)
        points = self._standardizer.inverse(self._kept["points"])
        return points if self.method == "importance" else np.clip(points, *self.domain_)

    @property
    def support_weights_(self):
        """Weights of the points in Eq. 10, ndarray (n_points,), summing to 1."""
        check_is_fitted(self)
        return self._kept["weights"].numpy()

    @property
    def support_info_(self):
        """Violation rate, coverage, effective sample size and largest weight, SupportInfo."""
        check_is_fitted(self)
        return SupportInfo(*self._kept["info"].tolist())

    @property
    def epsilon_(self):
        """Distance that points kept, standardized units."""
        check_is_fitted(self)
        return float(self._kept["epsilon"])

    @property
    def domain_(self):
        """Lower and upper corner of the box, each ndarray (n_features,), units of X."""
        check_is_fitted(self)
        low, high = self._standardizer.inverse(self._kept["box"])
        if self.domain is not None and np.isfinite(low).all():
            return _corners(self.domain, self.n_features_in_)  # not rounded to float32
        return low, high

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        check_choice("method", self.method, METHODS)
        check_number("n_points", self.n_points, low=2, integer=True)
        check_choice("averaging", self.averaging, (True, False))
        if self.method == "importance":
            return [ImportanceLikelihood(self.n_points, optimization)]
        check_number("n_active", self.n_active, low=1, integer=True)
        everyone = self.method == "usp"
        partition = SupportPartition(
            self.epsilon,
            n_active=None if everyone else self.n_active,
            n_neighbors=None if everyone else self.n_neighbors,
            n_inner=self.n_inner,
            n_maximize=self.n_maximize,
            n_repel=self.n_repel,
            combine=self.combine,
            step_maximize=self.step_maximize,
            step_repel=self.step_repel,
        )
        n_integration = self.n_integration
        if n_integration is None and self.image_shape is not None:
            n_integration = IMAGE_SHARE * self.batch_size
        return [
            PartitionLikelihood(
                self.n_points,
                partition,
                n_integration=n_integration,
                start=self._places("init", self.init),
                box=self._box(),
                weights=self.weights,
                optimization=optimization,
            )
        ]

    def _prepare(self, X: np.ndarray, weight: np.ndarray | None, rng: torch.Generator) -> Prepared:
        prepared = super()._prepare(X, weight, rng)
        if self.domain is not None:
            low, high = _corners(self.domain, self.n_features_in_)
            outside = ((X < low) | (X > high)).any(1).mean()
            if outside > 0:
                warnings.warn(
                    f"domain must contain the rows of X, got {100 * outside:.3g} % outside. Give "
                    "it in the units of X, wider than the data.",
                    SupportWarning,
                    stacklevel=4,
                )
        return prepared

    def _box(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the box that `domain` asks for, standardized units; None: from the rows."""
        d = self.n_features_in_
        if self.domain is None:
            if self.image_shape is None:
                return None
            return torch.full((d,), -1.0), torch.full((d,), 1.0)
        low, high = _corners(self.domain, d)
        box = self._standardizer.transform(np.stack([low, high]), self.device_)
        return box[0], box[1]

    def _fit_base(
        self,
        component: BaseComponent,
        rows: torch.Tensor,
        weight: torch.Tensor | None,
        rng: torch.Generator,
    ) -> Base:
        box = self._box()
        base = super()._fit_base(component, rows, weight, rng)
        if box is None or not isinstance(component, Uniform):
            return base
        low, high = (corner.to(rows) for corner in box)
        return UniformBase(low, high, component.shoulder * (high - low))

    def _players(
        self, objective: Objective, state: TrainState, prepared: Prepared
    ) -> dict[str, torch.Tensor]:
        model, rows = self._model(), prepared.x
        if isinstance(objective, PartitionLikelihood):
            buffers = state.objective.buffers
            points, epsilon = buffers["points"], float(buffers["epsilon"])
            log_weight = objective.log_weights(model, state.objective)
            box = torch.stack([buffers["low"], buffers["high"]])
        else:
            assert model.base is not None  # importance likelihood refused None
            points, epsilon = model.base.sample(self.n_points, state.rng), float("nan")
            log_weight = -model.energy(points).detach()
            box = torch.tensor([[-1.0], [1.0]]) * torch.full((points.shape[1],), torch.inf)
            if isinstance(model.base, UniformBase):
                box = torch.stack([model.base.low, model.base.high])
        info = support_diagnostics(points, log_weight, rows, epsilon)
        if self.method == "importance":  # no distance is kept
            info = info._replace(violation_rate=float("nan"), coverage=float("nan"))
        kept = {
            "points": points,
            "weights": log_weight.double().softmax(0),
            "info": torch.tensor(info, dtype=torch.float64),
            "epsilon": torch.tensor(epsilon),
            "box": box,
        }
        return {name: tensor.detach().cpu() for name, tensor in kept.items()}

    def _generate(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw from the points by their weights: chains would leave the box that was learnt."""
        weight = self._kept["weights"].to(self.device_)
        rows = torch.multinomial(weight, n, replacement=True, generator=rng)
        return self._kept["points"].to(self.device_)[rows]


def _corners(domain: Any, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Check `domain` and return its corners, each (d,)."""
    remedy = "Give the lows, then the highs: a number or one per column for each."
    if not isinstance(domain, tuple | list | np.ndarray) or len(domain) != 2:
        raise TypeError(f"domain must be a pair (low, high), got {domain!r}. {remedy}")
    try:
        low, high = (np.broadcast_to(np.asarray(c, dtype=np.float64), (d,)) for c in domain)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"domain must hold numbers for {d} columns, got {domain!r}. {remedy}"
        ) from error
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ValueError(f"domain must have finite low < high, got {domain!r}. {remedy}")
    return low, high
