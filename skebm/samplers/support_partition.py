"""Points that spread evenly over the support of a density: climb it, and keep apart."""

from __future__ import annotations

__all__ = ["SupportInfo", "SupportPartition", "support_diagnostics"]

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm._components import Component, check_choice, check_number
from skebm.samplers._base import Target

TREE_COLUMNS = 8  # up to here a k-d tree on the CPU finds neighbors faster than all distances do
MOST_VIOLATORS = 8  # nearest points within epsilon that push, where a tree finds them
BLOCK = 1 << 22  # distances held at a time
MOST_QUERIES = 1000  # points whose neighbors the diagnostics look up in many columns
TINY = 1e-12  # under square roots: coincident points have no direction
NEAREST_SHARE = 1e-3  # of epsilon: directions from nearer points are rounding errors
REPEL_SHARE = 0.6  # of epsilon: automatic step of repulsion
LEAST_SHARE = 1 / 24  # of both steps, to which they fall: 0.05 epsilon for a pair that moves


class SupportInfo(NamedTuple):
    """How well points partition a support.

    Parameters
    ----------
    violation_rate : float
        Share of the points that have another one nearer than epsilon.
    coverage : float
        Share of the rows that have a point within epsilon.
    ess : float
        Effective number of points behind the weights, 1 / sum of w^2.
    largest_weight : float
        Of one point; near 1, a single point carries the integral.

    Examples
    --------
    >>> from skebm.samplers import SupportInfo
    >>> SupportInfo(0.1, 0.99, 812.0, 0.004).ess
    812.0
    """

    violation_rate: float
    coverage: float
    ess: float
    largest_weight: float


class SupportPartition(Component):
    r"""Move points toward higher density and away from each other, inside a box.

    One inner step moves each chosen point by ``step_repel`` times the sum of unit vectors away from
    the points nearer than `epsilon`, where there are any, and by ``step_maximize`` times the score
    of the density where there are none. Both moves are at most `epsilon` long and end in the box.
    A chosen point that is near has two terms in Eq. 14, so its unit vector counts twice; one at
    rest has one.

    Parameters
    ----------
    epsilon : float, default=0.05
        Distance that points keep, standardized units; smaller is finer and needs more points.
    n_active : int or None, default=1000
        Size of Lambda: points drawn at random and moved in one call; None moves all (USP).
    n_neighbors : int, "auto" or None, default="auto"
        Size of Gamma: resting points drawn at random in each inner step that push as well; None
        looks at all of them. ``"auto"`` is all of them where a k-d tree finds those nearby (on the
        CPU up to 8 columns), else as many as `n_active`.
    n_inner : int, default=50
        N: inner steps per call; more follows the density more closely.
    n_maximize, n_repel : int, default=1
        Steps of ascent, then of repulsion, per inner step; need ``combine=False``.
    combine : bool, default=True
        One step that climbs or repels point by point, instead of ascent, then repulsion.
    step_maximize : float, default=0.01
        Step of ascent that multiplies the score, standardized units squared.
    step_repel : float or "auto", default="auto"
        Step of repulsion per unit vector, standardized units; ``"auto"`` is 0.6 `epsilon`. Large
        steps spread points, small ones pack them: see `annealed`.

    Raises
    ------
    ValueError, TypeError
        From ``check``, on a bad parameter.

    Notes
    -----
    Cost per inner step: one energy gradient of the points that climb and ``n_active * (n_active +
    n_neighbors)`` distances, or two searches in a k-d tree, where only the 8 nearest points
    within epsilon push. No matrix of all pairs is ever made: distances come in blocks of 4 million.
    The bound of `epsilon` on both moves is ours; without it crowded points leap out of the box, and
    a steep energy throws points across it.

    At constant steps points do not reach the optimum of Eq. 11, a dense packing of the likeliest
    places: they overshoot epsilon, and a large ascent presses them together. `PartitionLikelihood`
    has both steps fall with its learning rate.

    References
    ----------
    .. [1] B. Kim and J. C. Ye, "Mitigating Out-of-Distribution Data Density Overestimation in
       Energy-Based Models". Eqs. 11-14, section 5.1 and appendix B.2.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import SupportPartition
    >>> rng = torch.Generator().manual_seed(0)
    >>> points = torch.rand(200, 2, generator=rng) * 0.01
    >>> box = torch.zeros(2), torch.ones(2)
    >>> flat = lambda x: (x.new_zeros(len(x)), torch.zeros_like(x))
    >>> partition = SupportPartition(epsilon=0.05, n_active=None, n_inner=300)
    >>> crowded = partition.move(flat, points, *box, rng)
    >>> float(points.std(0).min()) > 0.1
    True
    """

    def __init__(
        self,
        epsilon: float | str = 0.05,
        n_active: int | None = 1000,
        n_neighbors: int | str | None = "auto",
        n_inner: int = 50,
        n_maximize: int = 1,
        n_repel: int = 1,
        combine: bool = True,
        step_maximize: float = 0.01,
        step_repel: float | str = "auto",
    ) -> None:
        self.epsilon = epsilon
        self.n_active = n_active
        self.n_neighbors = n_neighbors
        self.n_inner = n_inner
        self.n_maximize = n_maximize
        self.n_repel = n_repel
        self.combine = combine
        self.step_maximize = step_maximize
        self.step_repel = step_repel

    def check(self) -> None:
        """Check every parameter."""
        check_number("epsilon", self.epsilon, low=0, open_low=True)
        if self.n_active is not None:
            check_number("n_active", self.n_active, low=1, integer=True)
        if self.n_neighbors is not None and self.n_neighbors != "auto":
            remedy = "Or use 'auto', or None for all points."
            check_number("n_neighbors", self.n_neighbors, low=0, integer=True, remedy=remedy)
        check_number("n_inner", self.n_inner, low=0, integer=True)
        check_choice("combine", self.combine, (True, False))
        for name in ("n_maximize", "n_repel"):
            check_number(name, getattr(self, name), low=0, integer=True)
            if self.combine and getattr(self, name) != 1:
                raise ValueError(
                    f"{name} must be 1 with combine=True, got {getattr(self, name)!r}. "
                    "Set combine=False."
                )
        check_number("step_maximize", self.step_maximize, low=0)
        if self.step_repel != "auto":
            check_number("step_repel", self.step_repel, low=0, remedy="Or use 'auto'.")

    def annealed(self, share: float) -> SupportPartition:
        """Return a copy whose two steps are these times `share`, at least a twenty-fourth.

        Parameters
        ----------
        share : float
            From 1, where points are to spread, to 0, where they are to settle; dimensionless.

        Returns
        -------
        SupportPartition
            With numbers for both steps.
        """
        share = min(1.0, max(LEAST_SHARE, share))
        climb, repel = share * float(self.step_maximize), share * self._repel_step()
        return self.with_params(step_maximize=climb, step_repel=repel)

    def move(
        self,
        target: Target,
        points: torch.Tensor,
        low: torch.Tensor,
        high: torch.Tensor,
        rng: torch.Generator,
    ) -> torch.Tensor:
        """Move a random choice of the points, in place; return their share that was too near.

        Parameters
        ----------
        target : callable
            Maps rows (m, d) to the potential U (m,) and the score, minus its gradient, (m, d).
        points : Tensor of shape (n, d)
            Standardized units.
        low, high : Tensor of shape (d,)
            The box.
        rng : torch.Generator
            Source of all randomness.

        Returns
        -------
        Tensor of shape ()
            Mean over the inner steps.
        """
        n, everyone = len(points), self.n_active is None or self.n_active >= len(points)
        order = torch.randperm(n, generator=rng, device=points.device)
        m = n if everyone else int(self.n_active or n)
        active, resting = order[:m], points[order[m:]]
        search = _Neighbors(float(self.epsilon), resting, self._n_gamma(points, m), rng)
        v, rate = points[active], points.new_zeros(())
        for _ in range(self.n_inner):
            v, violating = self._inner(target, v, search, low, high)
            rate += violating.float().mean() / self.n_inner
        sound = v.isfinite().all(1, keepdim=True)
        points[active] = torch.where(sound, v, points[active])
        return rate

    def _inner(
        self,
        target: Target,
        v: torch.Tensor,
        search: _Neighbors,
        low: torch.Tensor,
        high: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one inner step of active points v (m, d); return them and who was too near."""
        if not self.combine:
            for _ in range(self.n_maximize):
                v = (v + self._climb(target, v)).clamp(low, high)
            violating = torch.zeros(len(v), dtype=torch.bool, device=v.device)
            for _ in range(self.n_repel):
                push, violating = search(v)
                v = (v + self._bounded(push, self._repel_step())).clamp(low, high)
            return v, violating
        push, violating = search(v)
        move = self._bounded(push, self._repel_step())
        free = (~violating).nonzero().squeeze(1)
        if len(free):  # only those points need a gradient
            move[free] = self._climb(target, v[free])
        return (v + move).clamp(low, high), violating

    def _climb(self, target: Target, v: torch.Tensor) -> torch.Tensor:
        score = target(v)[1].nan_to_num(posinf=0, neginf=0)  # a broken energy moves no point
        return self._bounded(score, float(self.step_maximize))

    def _bounded(self, direction: torch.Tensor, step: float) -> torch.Tensor:
        """Return step times direction, shortened to epsilon where that is longer."""
        length = direction.norm(dim=1, keepdim=True) * step
        return direction * (step * (float(self.epsilon) / length.clamp(min=TINY)).clamp(max=1))

    def _repel_step(self) -> float:
        automatic = REPEL_SHARE * float(self.epsilon)
        return automatic if self.step_repel == "auto" else float(self.step_repel)

    def _n_gamma(self, points: torch.Tensor, n_active: int) -> int | None:
        if self.n_neighbors != "auto":
            return self.n_neighbors if self.n_neighbors is None else int(self.n_neighbors)
        return None if _tree_pays(points) else n_active


class _Neighbors:
    """Pushes away from points within epsilon: the other active ones, twice, and those at rest."""

    def __init__(
        self,
        epsilon: float,
        resting: torch.Tensor,
        n_gamma: int | None,
        rng: torch.Generator,
    ) -> None:
        self.epsilon, self.resting, self.n_gamma = epsilon, resting, n_gamma
        self.rng = rng
        self.tree: Any = None
        if n_gamma is None and _tree_pays(resting) and len(resting):
            self.tree = _tree(resting)

    def __call__(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return for each of v (m, d) the gradient of Eq. 14, and whether there was any."""
        if self.n_gamma is None and _tree_pays(v):
            found = _push_by_tree(v, _tree(v), v, self.epsilon, own=True)
            found = found._replace(push=2 * found.push)
            if self.tree is not None:
                more = _push_by_tree(v, self.tree, self.resting, self.epsilon, own=False)
                found = Pushes(*(a + b for a, b in zip(found, more, strict=True)))
            return self._parted(found)
        others = self.resting
        if self.n_gamma is not None and self.n_gamma < len(others):
            rows = torch.randint(len(others), (self.n_gamma,), generator=self.rng, device=v.device)
            others = others[rows]
        return self._parted(_push_by_distances(v, torch.cat([v, others]), self.epsilon))

    def _parted(self, found: Pushes) -> tuple[torch.Tensor, torch.Tensor]:
        """Send points that coincide, as those clamped into a corner do, in random directions."""
        push, near, coincident = found
        if coincident.any():
            direction = torch.empty_like(push).normal_(generator=self.rng)
            scale = coincident.to(push)[:, None] / math.sqrt(push.shape[1])
            push = push + scale * direction
        return push, near > 0


class Pushes(NamedTuple):
    """For each point a sum of unit vectors (m, d), and how many are near and coincide (m,)."""

    push: torch.Tensor
    near: torch.Tensor
    coincident: torch.Tensor


def support_diagnostics(
    points: torch.Tensor, log_weight: torch.Tensor, rows: torch.Tensor, epsilon: float
) -> SupportInfo:
    """Say how well points partition the support that rows are drawn from.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        Standardized units.
    log_weight : Tensor of shape (n,)
        Logarithms of their weights, up to a constant.
    rows : Tensor of shape (m, d)
        Rows of the data.
    epsilon : float
        Distance that points should keep.

    Returns
    -------
    SupportInfo
        In more than 8 columns the two rates come from at most 1,000 points and rows.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import support_diagnostics
    >>> points = torch.tensor([[0.0], [1.0], [2.0]])
    >>> support_diagnostics(points, torch.zeros(3), torch.tensor([[0.4], [9.0]]), 0.5)
    SupportInfo(violation_rate=0.0, coverage=0.5, ess=3.0, largest_weight=0.3333333333333333)
    """
    weight = log_weight.double().softmax(0)
    nearest = nearest_distances(_queries(points), points, own=True)
    beside = nearest_distances(_queries(rows), points)
    return SupportInfo(
        float((nearest < epsilon).double().mean()),
        float((beside <= epsilon).double().mean()),
        float(1 / weight.square().sum()),
        float(weight.max()),
    )


def log_knn_volumes(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    """Return d log r_k for each query (m, d), r_k the distance to its k-th neighbor among points.

    Up to a constant, the logarithm of the volume that a point stands for where points are unevenly
    dense. A query that is one of the points counts itself as the first.
    """
    radius = nearest_distances(queries, points, k=k + 1)
    return queries.shape[1] * radius.clamp(min=math.sqrt(TINY)).log()


def _queries(x: torch.Tensor) -> torch.Tensor:
    """Return all rows where a tree finds neighbors, else at most 1,000 evenly spread ones."""
    return x if _tree_pays(x) else x[:: 1 + (len(x) - 1) // MOST_QUERIES]


def _tree_pays(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.shape[1] <= TREE_COLUMNS


def _tree(x: torch.Tensor) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(x.numpy(), balanced_tree=False, compact_nodes=False)


def _push_by_tree(
    v: torch.Tensor, tree: Any, others: torch.Tensor, epsilon: float, *, own: bool
) -> Pushes:
    k = min(MOST_VIOLATORS + own, len(others))
    distance, index = tree.query(v.numpy(), k=range(1, k + 1), distance_upper_bound=epsilon)
    if own:
        distance[index == np.arange(len(v))[:, None]] = np.inf
    near = np.isfinite(distance)
    inverse = np.where(near, 1 / np.maximum(distance, NEAREST_SHARE * epsilon), 0)
    neighbors = others.numpy()[np.minimum(index, len(others) - 1)]
    push = v.numpy() * inverse.sum(1, keepdims=True) - np.einsum("ij,ijk->ik", inverse, neighbors)
    coincident = (distance < NEAREST_SHARE * epsilon).sum(1)
    counts = torch.from_numpy(near.sum(1)), torch.from_numpy(coincident)
    return Pushes(torch.from_numpy(push).to(v), *counts)


def _push_by_distances(v: torch.Tensor, others: torch.Tensor, epsilon: float) -> Pushes:
    """Return the gradient of Eq. 14 from all distances; the first rows of others are v itself."""
    found = []
    step, at = max(1, BLOCK // len(others)), 0
    for block in v.split(step):
        distance = _distances(block, others)
        index = torch.arange(len(block), device=v.device)
        distance[index, index + at] = math.inf
        inside = distance < epsilon
        inverse = torch.where(inside, 1 / distance.clamp(min=NEAREST_SHARE * epsilon), 0)
        inverse[:, : len(v)] *= 2
        push = block * inverse.sum(1, keepdim=True) - inverse @ others
        coincident = (distance < NEAREST_SHARE * epsilon).sum(1)
        found.append(Pushes(push, inside.sum(1), coincident))
        at += len(block)
    return Pushes(*(torch.cat(part) for part in zip(*found, strict=True)))


def nearest_distances(
    queries: torch.Tensor, points: torch.Tensor, *, own: bool = False, k: int = 1
) -> torch.Tensor:
    """Return each query's distance to its k-th point; with own, to the next one but itself."""
    k = min(k + own, len(points))
    if _tree_pays(points):
        distance, _ = _tree(points).query(queries.numpy(), k=[k])
        return torch.from_numpy(distance[:, 0]).to(points)
    blocks = queries.split(max(1, BLOCK // len(points)))
    return torch.cat([_distances(b, points).kthvalue(k, dim=1).values for b in blocks])


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return all distances (m, n); in many columns by a matrix product."""
    few = a.shape[1] <= TREE_COLUMNS
    mode = "donot_use_mm_for_euclid_dist" if few else "use_mm_for_euclid_dist"
    return torch.cdist(a, b, compute_mode=mode)


# densest lattices in 1 to 8 dimensions: share of space that balls fill (Conway and Sloane)
DENSEST = (1.0, 0.90690, 0.74048, 0.61685, 0.46526, 0.37295, 0.29530, 0.25367)


def log_room(n: int, epsilon: float, d: int) -> tuple[float, float]:
    """Return bounds on the log volume that n points at mutual distance epsilon take in d columns.

    Equal up to 8 columns, where the densest lattice is known; beyond, from the bounds of Blichfeldt
    and Minkowski on the density of packings.
    """
    ball = log_ball(epsilon / 2, d)
    if d <= len(DENSEST):
        room = math.log(n) + ball - math.log(DENSEST[d - 1])
        return room, room
    blichfeldt = math.log((d + 2) / 2) - 0.5 * d * math.log(2)
    minkowski = -d * math.log(2)
    return math.log(n) + ball - blichfeldt, math.log(n) + ball - minkowski


def log_ball(radius: float, d: int) -> float:
    """Return the log volume of a ball in d dimensions."""
    return 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1) + d * math.log(radius)
