"""Maximum likelihood with the normalizer summed over points that partition the support."""

from __future__ import annotations

__all__ = ["PartitionLikelihood"]

import math

import torch

from skebm._components import check_choice, check_number
from skebm._warn import warn
from skebm.bases import Uniform
from skebm.bases.uniform import UniformBase
from skebm.energies import Model
from skebm.exceptions import SupportWarning
from skebm.objectives._base import Draw, Objective, Optimization, State, descend
from skebm.samplers import SupportPartition
from skebm.samplers.support_partition import log_ball, log_knn_volumes, log_room, nearest_distances

STARTS = ("data", "uniform")
WEIGHTS = ("plain", "knn")
K = 5  # neighbors behind a point's volume
JITTER = 0.1  # of epsilon, on starts that may coincide
OVERFLOW = 50.0  # of "auto": points for each one that the data's own spacing asks for
LARGEST_SHARE = 0.5  # of the box that points at the automatic distance take
MOST_ROWS = 2000  # behind "auto"
MOST_COLUMNS = 32  # where nearest neighbors tell an entropy
EULER = 0.5772156649
FALL = 2.0  # of the share of the learning rate that is left, to which steps of points fall
WATCHED = 64  # rows of a batch whose coverage the history follows


class PartitionLikelihood(Objective):
    r"""Minimize :math:`\mathrm{mean}\, E(x) + \log \sum_i v_i\, e^{-U(u_i)}`, u moved to fit U.

    The points u_i climb the density and keep apart (`SupportPartition`), so that they come to
    partition its support, and go on from update to update. The gradient of the loss is that of the
    likelihood with the self-normalized weights :math:`w_i \propto v_i e^{-U(u_i)}` of Eq. 10.

    Parameters
    ----------
    n_points : int, default=5000
        n.
    partition : SupportPartition, default=None
        How points move; None means the defaults. With ``epsilon="auto"`` it is chosen from the
        nearest-neighbor distances of the rows, see Notes.
    n_integration : int or None, default=None
        n_s: points drawn at random for the sum; None takes all.
    n_restarts : int, default=0
        Points that go to new places, uniform in the box, at each update: where no point has been,
        the energy could fall without end, and far modes would wait for points to spread.
    start : {"data", "uniform"} or Tensor of shape (m, d), default="data"
        Where points start: at rows, uniformly in the box, or at the given places (drawn with
        replacement where there are fewer than n), standardized units.
    box : tuple of Tensor, default=None
        Lower and upper corner, standardized units. None means the box of a uniform base, or else
        the range of the rows widened as that base would.
    weights : {"plain", "knn"}, default="plain"
        v: 1, as in the paper, or the volume of the ball that reaches a point's fifth neighbor,
        which corrects for points that are unevenly dense.
    optimization : Optimization, default=None
        Optimizer settings; None means the defaults.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter.

    Warns
    -----
    SupportWarning
        From ``init``, where the points at distance epsilon do not fit into the box or, up to 32
        columns, cannot cover the data.

    Notes
    -----
    Both steps of the points fall with the learning rate, once half of it is gone, down to 1 / 24 of
    themselves (`SupportPartition.annealed`): large ones spread the points, small ones come to the
    optimum of Eq. 11. At a constant rate they stay as they are.

    Automatic epsilon: :math:`r\,(50\,m/n)^{1/d}`, r the median distance of m <= 2,000 rows to the
    next one, or less where the points would take more than half of the box. In two columns, points
    at that distance take some ten times the volume of the data, as in the paper's example; in many,
    it is the data's own spacing. The sum is the paper's Riemann sum: it is right where points are
    evenly dense over the support and blind elsewhere. The base enters through U = E - log p0, and
    through the held-out likelihood, which comes from importance weights. The history holds the
    share of moved points nearer than epsilon (``violation_rate``), the share of 64 rows within
    epsilon of a point (``coverage``), and effective share and largest value of the weights
    (``ess_share``, ``largest_weight``).

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Eq. 10 and section 5.1.

    Examples
    --------
    >>> from skebm.objectives import PartitionLikelihood
    >>> PartitionLikelihood(n_points=1000)
    PartitionLikelihood(n_points=1000)
    """

    def __init__(
        self,
        n_points: int = 5000,
        partition: SupportPartition | None = None,
        n_integration: int | None = None,
        n_restarts: int = 0,
        start: str | torch.Tensor = "data",
        box: tuple[torch.Tensor, torch.Tensor] | None = None,
        weights: str = "plain",
        optimization: Optimization | None = None,
    ) -> None:
        self.n_points = n_points
        self.partition = partition
        self.n_integration = n_integration
        self.n_restarts = n_restarts
        self.start = start
        self.box = box
        self.weights = weights
        self.optimization = optimization

    def init(self, model: Model, x: torch.Tensor, rng: torch.Generator) -> State:
        """Make the optimizer, epsilon, the box and the points."""
        self._check()
        optimizer = (self.optimization or Optimization()).build(model.energy)
        low, high = self._box(model, x)
        epsilon = (self.partition or SupportPartition()).epsilon
        if isinstance(epsilon, str):
            epsilon = automatic_epsilon(x, self.n_points, low, high, rng)
        distance = torch.tensor(epsilon, dtype=x.dtype, device=x.device)
        buffers = {"epsilon": distance, "low": low, "high": high}
        buffers["step_factor"] = torch.ones((), device=x.device)
        buffers["points"] = self._starts(x, buffers, rng)
        check_room(self.n_points, epsilon, low, high, entropy_of_rows(x, rng))
        return State({"energy": optimizer}, {}, buffers)

    def step(
        self, model: Model, state: State, draw: Draw, rng: torch.Generator
    ) -> tuple[State, dict[str, torch.Tensor]]:
        """Move the points, then take one step of Eq. 10."""
        x, buffers = draw(), state.buffers
        points, epsilon = buffers["points"], float(buffers["epsilon"])
        partition = self.partition or SupportPartition()
        rescued = float(buffers.get("step_factor", 1.0))  # which has lowered the rate as well
        climb = partition.step_maximize * rescued
        partition = partition.with_params(epsilon=epsilon, step_maximize=climb)
        (group,) = state.optimizers["energy"].param_groups
        left = group["lr"] / group["initial_lr"] / rescued
        partition = partition.annealed(FALL * left)
        if self.n_restarts:
            self._restart(buffers, rng)
        rate = partition.move(model, points, buffers["low"], buffers["high"], rng)
        u = self._chosen(points, rng)
        energy = model.energy(torch.cat([x, u])) / model.temperature
        at_data, at_points = energy[: len(x)], energy[len(x) :]
        log_weight = self._log_volumes(model, u, points) - at_points
        loss = at_data.mean() + log_weight.logsumexp(0)
        descend(state.optimizers["energy"], loss)
        weight = log_weight.detach().softmax(0)
        beside = nearest_distances(x[:WATCHED], points)
        return state, {
            "loss": loss.detach(),
            "data_energy": at_data.detach().mean(),
            "violation_rate": rate,
            "coverage": (beside <= epsilon).float().mean(),
            "ess_share": 1 / (weight.square().sum() * len(u)),
            "largest_weight": weight.max(),
        }

    def recover(self, model: Model, state: State, x: torch.Tensor, rng: torch.Generator) -> State:
        """Forget moments and points, which may have followed a broken energy; climb more slowly."""
        state = super().recover(model, state, x, rng)
        points = self._starts(x, state.buffers, rng)
        return state._replace(buffers={**state.buffers, "points": points})

    @torch.no_grad()
    def log_weights(self, model: Model, state: State) -> torch.Tensor:
        """Return log v_i - U(u_i) of all points (n,), nats."""
        points = state.buffers["points"]
        blocks = points.split(4096)
        energy = torch.cat([model.energy(block) for block in blocks]) / model.temperature
        return self._log_volumes(model, points, points) - energy

    def _check(self) -> None:
        check_number("n_points", self.n_points, low=2, integer=True)
        partition = self.partition or SupportPartition()
        automatic = isinstance(partition.epsilon, str) and partition.epsilon == "auto"
        (partition.with_params(epsilon=1.0) if automatic else partition).check()
        if self.n_integration is not None:
            check_number("n_integration", self.n_integration, low=1, integer=True)
        check_number("n_restarts", self.n_restarts, low=0, high=self.n_points, integer=True)
        if not isinstance(self.start, torch.Tensor):
            check_choice("init", self.start, STARTS, "Or pass an array of points.")
        check_choice("weights", self.weights, WEIGHTS)

    def _box(self, model: Model, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.box is not None:
            return self.box[0].to(x), self.box[1].to(x)
        base = model.base
        if not isinstance(base, UniformBase):
            base = Uniform().fit(x, None, torch.Generator())
        return base.low, base.high

    def _starts(
        self, x: torch.Tensor, buffers: dict[str, torch.Tensor], rng: torch.Generator
    ) -> torch.Tensor:
        low, high, device = buffers["low"], buffers["high"], x.device
        if isinstance(self.start, str) and self.start == "uniform":
            return _uniform(self.n_points, low, high, rng)
        source = x if isinstance(self.start, str) else self.start.to(x)
        if len(source) < self.n_points:
            rows = torch.randint(len(source), (self.n_points,), generator=rng, device=device)
        else:
            rows = torch.randperm(len(source), generator=rng, device=device)
        starts = source[rows[: self.n_points]]
        noise = torch.empty_like(starts).normal_(generator=rng)
        scale = JITTER * buffers["epsilon"] / math.sqrt(x.shape[1])
        return (starts + scale * noise).clamp(low, high)

    def _restart(self, buffers: dict[str, torch.Tensor], rng: torch.Generator) -> None:
        points = buffers["points"]
        rows = torch.randperm(len(points), generator=rng, device=points.device)
        places = _uniform(self.n_restarts, buffers["low"], buffers["high"], rng)
        points[rows[: self.n_restarts]] = places

    def _chosen(self, points: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        if self.n_integration is None or self.n_integration >= len(points):
            return points
        rows = torch.randperm(len(points), generator=rng, device=points.device)
        return points[rows[: self.n_integration]]

    def _log_volumes(self, model: Model, u: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Return log v_i + log p0(u_i), what the energy does not change."""
        total = u.new_zeros(len(u)) if model.base is None else model.base.log_prob(u)
        return total + log_knn_volumes(u, points, K) if self.weights == "knn" else total


def _uniform(n: int, low: torch.Tensor, high: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, len(low), generator=rng, device=low.device)


def automatic_epsilon(
    x: torch.Tensor,
    n_points: int,
    low: torch.Tensor,
    high: torch.Tensor,
    rng: torch.Generator,
) -> float:
    """Return the distance that n points should keep to cover rows x (m, d) and overflow them."""
    distance, d = _spacings(x, rng), x.shape[1]
    spacing = float(distance.median()) if len(distance) else 1.0
    _, most = log_room(n_points, 1.0, d)
    fits = float((high - low).double().log().sum()) + math.log(LARGEST_SHARE) - most
    return min(
        spacing * (OVERFLOW * min(len(x), MOST_ROWS) / n_points) ** (1 / d), math.exp(fits / d)
    )


def entropy_of_rows(x: torch.Tensor, rng: torch.Generator) -> float | None:
    """Return the nearest-neighbor entropy of rows x (m, d), nats; None beyond 32 columns.

    Kozachenko and Leonenko's estimate: log(m - 1) + log V_d + 0.577 + d mean(log r).
    """
    d = x.shape[1]
    distance = _spacings(x, rng).double()
    if d > MOST_COLUMNS or not len(distance):
        return None
    m = max(len(distance), 2)
    return math.log(m - 1) + log_ball(1.0, d) + EULER + d * float(distance.log().mean())


def _spacings(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return the distances of at most 2,000 rows to the next other one, without zeros."""
    order = torch.randperm(len(x), generator=rng, device=x.device)
    rows = x[order[:MOST_ROWS]]
    distance = nearest_distances(rows, rows, own=True)
    return distance[distance > 0]


def check_room(
    n_points: int, epsilon: float, low: torch.Tensor, high: torch.Tensor, spread: float | None
) -> None:
    """Warn where n points at distance epsilon cannot cover the data or do not fit into the box.

    Their room is that of the densest packing known; `spread` is the entropy of the data in nats,
    the logarithm of the volume that it fills.
    """
    least, most = log_room(n_points, epsilon, len(low))
    box = float((high - low + epsilon).double().log().sum())  # centers may lie on its border
    if least > box:
        warn(
            f"epsilon must leave room for {n_points} points in the box, got {epsilon:.3g}: at that "
            f"distance they take {_times(least - box)} times its volume, so many stay too near. "
            "Lower epsilon or n_points.",
            SupportWarning,
        )
    elif spread is not None and most < spread:
        warn(
            f"epsilon must let {n_points} points cover the data, got {epsilon:.3g}: at that "
            f"distance they fill {_times(most - spread)} of its volume, so modes may be missed. "
            "Raise epsilon or n_points.",
            SupportWarning,
        )


def _times(log: float) -> str:
    return f"{math.exp(log):.2g}" if abs(log) < 20 else f"e^{log:.0f}"
