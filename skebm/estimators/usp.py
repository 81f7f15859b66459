"""USPDensity: maximum likelihood with the normalizer summed over points on the support."""

from __future__ import annotations

__all__ = ["USPDensity"]

import math
from typing import Any, Self

import numpy as np
import torch

from skebm._components import check_choice, check_number
from skebm._warn import warn
from skebm.bases import Uniform
from skebm.bases.uniform import UniformBase
from skebm.data import Table, Transform
from skebm.energies import Model
from skebm.estimators._base import DensityEstimator
from skebm.estimators._papers import USP, paper_settings
from skebm.estimators._run import MOST_ROWS, Learned, Run, places
from skebm.estimators._shared import documented, resolved
from skebm.exceptions import SupportWarning
from skebm.fitted.draws import FromPoints
from skebm.objectives import ImportanceLikelihood, Objective, PartitionLikelihood
from skebm.samplers import support_diagnostics
from skebm.train import TrainState

Box = tuple[torch.Tensor, torch.Tensor]
REPULSION = "n_active n_neighbors n_inner n_maximize n_repel combine step_maximize step_repel"
METHODS = ("importance", "ps-usp", "usp")
N_POINTS, N_AFRESH = 2000, 500  # by "auto": that go on, or in a box; drawn afresh near the rows
PATIENCE = 2  # times that of others, where points move: likelihoods fall before they come
SHOULDERS = 3.0  # of a uniform base, in their widths, that points may go to
RESTARTS = 100  # points for each one that restarts somewhere in the box at an update, by "auto"
IMAGE_SHARE = 5  # points in the sum per row of a batch of images: the paper's 625 to 125


@documented
class USPDensity(DensityEstimator):
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
        of persistent points at each update, ``"usp"`` all of them. `epsilon` to
        `init` are for these two.
    n_points : int or "auto", default="auto"
        n: points in the sum, at least 2; more lower the noise of the gradient. ``"auto"`` is 2,000,
        but 500 where they are drawn afresh from a base near the rows: their noise then is less than
        the batch's.
    epsilon : float or "auto", default="auto"
        Distance that points keep, standardized units; smaller is finer and needs more points.
        ``"auto"`` takes it from the nearest-neighbor distances of the rows, see
        `skebm.objectives.PartitionLikelihood`.
    repulsion : "auto" or SupportPartition, default="auto"
        How points move: half of them at each update, in 4 inner steps, by ``"auto"``; its `epsilon`
        is that of the estimator, and with ``"usp"`` all points move. Where there is no base or a
        flat one, ``"auto"`` also has a hundredth of the points start again somewhere in the box at
        each update, so that the energy does not fall without end where no point has been.
        ``repulsion__n_active`` works in ``set_params``.
    n_integration : int or None, default=None
        n_s: points drawn at random for the sum at each update; None takes all, for images five per
        row of a batch.
    domain : tuple (low, high) of float or array-like (n_features,), optional
        Box that bounds the points, units of X: the lows of all columns, then their highs. With
        ``base="uniform"`` it is the box of the base too; ``"importance"`` over another base has no
        use for it. None is the range of the rows widened by a quarter on each side, for images the
        range alone. In tables points may go three widths into a uniform base's shoulders where the
        box is given; else, as those of images, they stay in it.
    init : {"data", "uniform"} or array-like of shape (m, n_features), default="data"
        Where points start: at training rows, uniformly in the box, or at the given places, units of
        X (drawn with replacement where there are fewer than `n_points`).

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
    history_ : list of dict
        One row per 25 updates: loss and data energy (nats), violation rate, coverage,
        effective share and largest value of the weights, held-out log likelihood (nats per row,
        standardized space), its gain over the base and standard error.

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

    The base is by default the mean density of five mixtures, each fitted without a fifth of the
    rows (``"union"``): likelier on unseen rows than one, at up to five times its cost. What is
    judged and kept is a running mean of the energy's parameters over some 50 updates, at a constant
    rate (``Optimization(averaging=False)`` keeps the last ones). For the best likelihood take the
    mean density of three fits, ``skebm.ood.EnsembleDensity(USPDensity(), n_estimators=3,
    contamination=0.05)``: with ``contamination="auto"`` it would keep rows from all of them.

    The default is ``"importance"`` because on tables the moved points did not help: over a mixture
    base the energy of ``"ps-usp"`` lost to its base on held-out rows in 5 of 6 tables and was
    dropped, that of importance likelihood was kept in 19 of 23 (``docs/partition.rst``). In few
    columns without a near base, ``"ps-usp"`` finds modes from points in one of them
    (``examples/papers/usp/six_modes.py``).

    ``sample`` draws as `HybridCDDensity` does; without a base and with more than 32 columns it
    draws from the points by their weights.

    Deviations from the paper: a base density; Adam with decoupled weight decay and decay of the
    learning rate, with which both steps of the points fall; no step is longer than epsilon; up to 8
    columns all points push, not a random choice (of those within epsilon the nearest 8); Gamma is
    drawn with replacement; held-out rows choose the best snapshot. `from_paper` has the paper's
    settings. The sum stands for an integral only where points are evenly dense over the support: in
    many columns it is a heuristic, and the log density is normalized afterwards by `log_partition`.

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

    moved = {name: f"repulsion=SupportPartition({name}=...)" for name in REPULSION.split()}
    moved["weights"] = "EnergyDensity(objective=PartitionLikelihood(weights=...))"

    def __init__(
        self,
        *,
        method="importance",
        n_points="auto",
        epsilon="auto",
        repulsion="auto",
        n_integration=None,
        domain=None,
        init="data",
        energy="mlp",
        base="union",
        columns="auto",
        standardize="auto",
        data_noise="auto",
        max_iter=1000,
        batch_size=256,
        learning_rate=8e-3,
        optimizer="adam",
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
        self.epsilon = epsilon
        self.repulsion = repulsion
        self.n_integration = n_integration
        self.domain = domain
        self.init = init
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
        if self.method != "importance":
            return "method must be 'importance'"
        return super()._obstacle_to_codes()

    @classmethod
    def from_paper(cls, name: str, **changes: Any) -> Self:
        """Return an estimator with the paper's settings.

        Parameters
        ----------
        name : {"six-modes", "fashion-mnist"}
            The model of section 6 and appendix B.2: six modes in the plane, or images of 28 x 28.
        **changes : dict
            Parameters that replace the paper's.

        Returns
        -------
        USPDensity
            Unfitted: PS-USP with plain SGD or Adam, and no base (for six modes a box, which is one
            that is flat). The paper trains until it converges (six modes), or for at most 50
            epochs; it states neither the box, the steps, nor the size of Gamma, which are the
            package's.

        Raises
        ------
        ValueError
            If there are no such settings.

        Examples
        --------
        >>> from skebm import USPDensity
        >>> USPDensity.from_paper("six-modes").n_points
        5000
        """
        return cls(**paper_settings(USP, name, changes))

    @property
    def optimizer_defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """A constant rate where a running mean of the parameters is kept."""
        return {"schedule": "constant"} if self.method == "importance" else {}

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        check_choice("method", self.method, METHODS)
        if self.n_points != "auto":
            remedy = "Or use 'auto'."
            check_number("n_points", self.n_points, low=2, integer=True, remedy=remedy)
        box = self._box(table, transform, run)
        objective = self._objective(box, transform, run)
        model = self._model(box, table, run)
        smoothed = self.method == "importance" and run.optimization.averaging
        changes: dict[str, Any] = {"smoothed": smoothed}
        if isinstance(objective, PartitionLikelihood) and self.n_iter_no_change is not None:
            changes["n_iter_no_change"] = PATIENCE * self.n_iter_no_change
        learned = run.train(model, [objective], table, **changes)
        model, state = learned.model_or_base(), learned.states[0]
        if isinstance(objective, PartitionLikelihood):
            points, log_weight, epsilon, corners = _partition(model, objective, state)
        else:
            points, log_weight, corners = _drawn(model, self._n_points, run.rng)
            epsilon = math.nan
        info = support_diagnostics(points, log_weight, table.rows(MOST_ROWS).x, epsilon)
        if math.isnan(epsilon):  # no distance is kept
            info = info._replace(violation_rate=math.nan, coverage=math.nan)
        weights = log_weight.double().softmax(0)
        low, high = corners.double().cpu().numpy()
        if np.isfinite(low).all():
            low, high = transform.inverse(corners)
        if self.domain is not None and np.isfinite(low).all():
            low, high = _corners(self.domain, run.n_features)  # not rounded to float32
        places = transform.inverse(points)
        extras = {
            "support_points_": places if math.isnan(epsilon) else np.clip(places, low, high),
            "support_weights_": weights.cpu().numpy(),
            "support_info_": info,
            "epsilon_": epsilon,
            "domain_": (low, high),
        }
        draws = FromPoints(points, weights, run.is_near(learned.model))
        return learned._replace(draws=draws, extras=extras)

    @property
    def _n_points(self) -> int:
        if self.n_points != "auto":
            return int(self.n_points)
        near = self.base is not None and not isinstance(resolved(self, "base"), Uniform)
        return N_AFRESH if near and self.method == "importance" else N_POINTS

    def _objective(self, box: Box | None, transform: Transform, run: Run) -> Objective:
        if self.method == "importance":
            return ImportanceLikelihood(self._n_points, run.optimization)
        repulsion = resolved(self, "repulsion").with_params(epsilon=self.epsilon)
        if isinstance(self.repulsion, str):
            repulsion = repulsion.with_params(n_active=max(1, self._n_points // 2))
        if self.method == "usp":
            repulsion = repulsion.with_params(n_active=None, n_neighbors=None)
        else:
            check_number("n_active", repulsion.n_active, low=1, integer=True)
        component = None if self.base is None else resolved(self, "base")
        if box is not None and isinstance(component, Uniform) and self.image_shape is None:
            # shoulders have mass too; but an image would have many pixels in them, and no weight
            edge = SHOULDERS * component.shoulder * (box[1] - box[0])
            box = box[0] - edge, box[1] + edge
        n_integration = self.n_integration
        if n_integration is None and self.image_shape is not None:
            n_integration = IMAGE_SHARE * self.batch_size
        flat = component is None or isinstance(component, Uniform)
        helped = isinstance(self.repulsion, str) and flat and self.image_shape is None
        return PartitionLikelihood(
            self._n_points,
            repulsion,
            n_integration=n_integration,
            n_restarts=-(-self._n_points // RESTARTS) if helped else 0,
            start=places("init", self.init, transform, run.device),
            box=box,
            optimization=run.optimization,
        )

    def _box(self, table: Table, transform: Transform, run: Run) -> Box | None:
        """Return the box that `domain` asks for, standardized units; None: from the rows."""
        if self.domain is None:
            ones = torch.ones(run.n_features, device=run.device)
            return None if self.image_shape is None else (-ones, ones)
        low, high = _corners(self.domain, run.n_features)
        X = table.originals().X
        outside = ((X < low) | (X > high)).any(1).mean()
        if outside > 0:
            warn(
                f"domain must contain the rows of X, got {100 * outside:.3g} % outside. Give "
                "it in the units of X, wider than the data.",
                SupportWarning,
            )
        corners = transform.forward(np.stack([low, high]), run.device)
        return corners[0], corners[1]

    def _model(self, box: Box | None, table: Table, run: Run) -> Model:
        """Return what is to be trained; a uniform base has the box of the points."""
        component = None if self.base is None else resolved(self, "base")
        if run.before is not None or box is None or not isinstance(component, Uniform):
            return run.model(table)
        low, high = box
        base = UniformBase(low, high, component.shoulder * (high - low))
        return Model(run.new_energy(base, table), base, run.temperature)


def _partition(
    model: Model, objective: PartitionLikelihood, state: TrainState
) -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]:
    """Return the points that training left, their log weights, their distance and box."""
    buffers = state.objective.buffers
    box = torch.stack([buffers["low"], buffers["high"]])
    log_weight = objective.log_weights(model, state.objective)
    return buffers["points"], log_weight, float(buffers["epsilon"]), box


def _drawn(
    model: Model, n: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return draws of the base, their log weights, and the base's box."""
    assert model.base is not None  # importance likelihood refused None
    points = model.base.sample(n, rng)
    box = torch.tensor([[-1.0], [1.0]]) * torch.full((points.shape[1],), torch.inf)
    if isinstance(model.base, UniformBase):
        box = torch.stack([model.base.low, model.base.high])
    return points, -model.energy(points).detach(), box


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
