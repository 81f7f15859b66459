"""Points that partition a support: their moves, their room, the loss that sums over them."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal
from torch.overrides import TorchFunctionMode

from skebm.bases import TorchDistribution
from skebm.bases.uniform import UniformBase
from skebm.energies import MLP, Model
from skebm.exceptions import SupportWarning
from skebm.objectives import Optimization, PartitionLikelihood
from skebm.objectives.support_partition import automatic_epsilon, check_room
from skebm.samplers import SupportInfo, SupportPartition, support_diagnostics
from skebm.samplers import support_partition as module
from skebm.samplers.support_partition import log_knn_volumes, log_room
from tests.closed_forms import (
    Quadratic,
    assert_mean,
    assert_variance,
    gaussian_log_z,
    grid,
    normal_base,
)
from tests.generators import gen, randomized

FEW, MANY = 2, 20  # columns: neighbors come from a tree, or from all distances


def flat(x):
    return x.new_zeros(len(x)), torch.zeros_like(x)


def steep(x):
    """A slope that would throw points far out of any box."""
    return -1e6 * x.sum(1), torch.full_like(x, 1e6)


def uniform(n, d, seed=0, dtype=torch.float32):
    return torch.rand(n, d, generator=gen(seed), dtype=dtype)


def box(d, low=0.0, high=1.0):
    return torch.full((d,), low), torch.full((d,), high)


def crowd(d, n=60):
    """Points, an epsilon at which each has a few violators, and the most that any has."""
    x = uniform(n, d)
    distance = torch.cdist(x.double(), x.double()).fill_diagonal_(math.inf)
    epsilon = 1.0001 * float(distance.flatten().kthvalue(n).values)
    return x, epsilon, int((distance < epsilon).sum(1).max())


def gradient_of_eq_14(points, epsilon, active):
    """By autograd at each active point, and whether any other is within epsilon of it."""
    chosen = torch.zeros(len(points), dtype=torch.bool)
    chosen[active] = True
    points = points.double()
    free = points.clone().requires_grad_()
    u = torch.where(chosen[:, None], free, points)
    pairs = (chosen[:, None] & ~torch.eye(len(u), dtype=torch.bool)).nonzero()  # i, j in the union
    distance = (u[pairs[:, 0]] - u[pairs[:, 1]]).norm(dim=1)
    distance.clamp(max=epsilon).sum().backward()
    near = torch.zeros_like(chosen)
    near[pairs[distance < epsilon, 0]] = True
    return free.grad, near


def moved(before, after):
    return (before != after).any(1)


# -- repulsion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_active", [60, 25])
@pytest.mark.parametrize(
    "d, n_neighbors", [(FEW, None), (FEW, 60), (MANY, None)], ids=["tree", "distances", "columns"]
)
def test_repulsion_is_eq_14(d, n_neighbors, n_active):
    """Points follow its gradient; those that nobody is near stay, as the resting do."""
    points, epsilon, most = crowd(d)
    assert 2 <= most < module.MOST_VIOLATORS
    active = torch.randperm(60, generator=gen(0))[:n_active]
    push, near = gradient_of_eq_14(points, epsilon, active)
    before = points.clone()
    partition = SupportPartition(epsilon, n_active, n_neighbors, n_inner=1, step_repel=1e-3)
    rate = partition.move(flat, points, *box(d, -9, 9), gen(0))
    went = moved(before, points)
    assert 0 < went.sum() < n_active and went.equal(near)
    assert float(rate) == pytest.approx(float(went.sum()) / n_active)
    found = (points - before)[went].double() / 1e-3
    torch.testing.assert_close(found, push[went], rtol=0, atol=2e-4)


@pytest.mark.parametrize("d", [FEW, MANY])
def test_a_point_does_not_push_itself(d):
    points = uniform(1, d)
    before = points.clone()
    assert SupportPartition(9.0, n_inner=1).move(flat, points, *box(d, -9, 9), gen(0)) == 0
    assert points.equal(before)


@pytest.mark.parametrize("d", [FEW, MANY])
def test_resting_points_push_but_do_not_move(d):
    points = torch.full((2, d), 0.5)
    points[1, 0] += 0.1
    before = points.clone()
    partition = SupportPartition(0.5, n_active=1, n_neighbors=None, n_inner=1, step_repel=0.02)
    rate = partition.move(flat, points, *box(d), gen(0))
    one = moved(before, points)
    assert one.sum() == 1 and rate == 1
    step = (points - before)[one][0]
    assert step[0] == pytest.approx(0.02 * (1 if one[1] else -1), rel=1e-3)
    assert step[1:].abs().max() < 1e-6


def test_a_random_choice_of_the_resting_points_pushes():
    """Nine points on one side of a tenth: where it is the one that moves, four of them push it."""
    pushes, partition = [], SupportPartition(0.5, 1, n_neighbors=4, n_inner=1, step_repel=1e-3)
    for seed in range(60):
        points = torch.tensor([[0.4, 0.5]]).repeat(10, 1)
        points[0, 0] = 0.5
        partition.move(flat, points, *box(FEW), gen(seed))
        pushes.append(float(points[0, 0] - 0.5) / 1e-3)
    pushed = [push for push in pushes if push]
    assert pushed and pushed == pytest.approx([4.0] * len(pushed), abs=1e-3)


@pytest.mark.parametrize("d", [FEW, MANY])
def test_two_points_part_until_they_are_epsilon_apart(d):
    points = torch.full((2, d), 0.5)
    points[1] += 0.05 / math.sqrt(d)
    apart = [float((points[0] - points[1]).norm())]
    for _ in range(20):
        partition = SupportPartition(0.4, n_inner=1, step_repel=0.04)
        partition.move(flat, points, *box(d), gen(0))
        apart.append(float((points[0] - points[1]).norm()))
    steps = torch.tensor(apart).diff()
    assert apart[0] == pytest.approx(0.05, rel=1e-2) and (steps[:2] > 0.15).all()
    assert 0.4 <= apart[-1] < 0.4 + 2 * 0.08 and not steps[5:].any()


def test_the_automatic_step_is_six_tenths_of_epsilon():
    """Of a point at rest, whose one unit vector then pushes."""
    points = torch.tensor([[0.5, 0.45], [0.5, 0.55]])
    SupportPartition(0.2, 1, n_inner=1).move(flat, points, *box(2), gen(0))
    assert float(points[1, 1] - points[0, 1]) == pytest.approx(0.1 + 0.6 * 0.2)


@pytest.mark.parametrize("d", [FEW, MANY])
def test_points_that_keep_their_distance_rest_under_a_flat_density(d):
    points = torch.full((3, d), 0.5)
    points[1, 0], points[2, 0] = 0.1, 0.9
    before = points.clone()
    assert SupportPartition(0.39, n_inner=5).move(flat, points, *box(d), gen(0)) == 0
    assert points.equal(before)


# -- moves -----------------------------------------------------------------------------------------


def test_climbing_goes_to_the_mode():
    energy = Quadratic(2.0, mean=0.3)
    points = torch.tensor([[0.9, 0.1]])
    partition = SupportPartition(1.0, n_inner=7, step_maximize=0.1)
    rate = partition.move(Model(energy, None, 1.0), points, *box(2), gen(0))
    expected = 0.3 + torch.tensor([[0.6, -0.2]]) * (1 - 0.1 * 2.0) ** 7
    torch.testing.assert_close(points, expected)
    assert rate == 0


@pytest.mark.parametrize("combine", [True, False])
@pytest.mark.parametrize("d", [FEW, MANY])
@pytest.mark.parametrize("target", [flat, steep])
def test_points_end_in_the_box_and_no_move_is_longer_than_epsilon(target, d, combine):
    """Repulsion that would throw them far, and a slope that is steeper still."""
    points, epsilon = 0.5 + 0.1 * uniform(300, d), 0.08 * math.sqrt(d)
    low, high = box(d, 0.45, 0.7)
    longest = 0.0
    for i in range(10):
        before = points.clone()
        partition = SupportPartition(epsilon, None, n_inner=1, combine=combine, step_repel=1.0)
        partition.move(target, points, low, high, gen(i))
        longest = max(longest, float((points - before).norm(dim=1).max()))
        assert (points >= low).all() and (points <= high).all()
    moves = 1 if combine else 2
    assert 0.9 * epsilon < longest <= moves * epsilon * (1 + 1e-4)


def test_without_combine_ascent_and_repulsion_alternate():
    """Two steps of ascent, three of repulsion, twice, against the loops."""
    x, epsilon, _ = crowd(FEW, 30)
    sizes = []

    def target(v):
        sizes.append(len(v))
        return 0.5 * v.square().sum(1), -v

    points = x.clone()
    partition = SupportPartition(
        epsilon,
        None,
        n_inner=2,
        n_maximize=2,
        n_repel=3,
        combine=False,
        step_maximize=0.05,
        step_repel=0.01,
    )
    rate = partition.move(target, points, *box(FEW), gen(0))
    v, rates = x.double(), []
    for _ in range(2):
        for _ in range(2):
            v = (v - 0.05 * v).clamp(0, 1)
        for _ in range(3):
            push, near = gradient_of_eq_14(v, epsilon, torch.arange(30))
            length = 0.01 * push.norm(dim=1, keepdim=True)
            v = (v + 0.01 * push * (epsilon / length.clamp(min=epsilon))).clamp(0, 1)
        rates.append(near.double().mean())
    torch.testing.assert_close(points.double(), v, rtol=0, atol=1e-4)
    assert sizes == [30] * 4 and 0 < float(rate) == pytest.approx(float(sum(rates)) / 2)


def test_combined_each_point_climbs_or_repels():
    """Two of three points are too near: only the third needs a gradient."""
    points, sizes = torch.tensor([[0.5, 0.5], [0.55, 0.5], [0.9, 0.9]]), []

    def target(v):
        sizes.append(len(v))
        return steep(v)[0], torch.ones_like(v)

    partition = SupportPartition(0.1, None, n_inner=1, step_maximize=0.01, step_repel=0.01)
    rate = partition.move(target, points, *box(2), gen(0))
    expected = torch.tensor([[0.48, 0.5], [0.57, 0.5], [0.91, 0.91]])
    torch.testing.assert_close(points, expected, atol=1e-4, rtol=0)
    assert sizes == [1] and float(rate) == pytest.approx(2 / 3)


@pytest.mark.parametrize("d", [FEW, MANY])
@pytest.mark.parametrize("n_active, expected", [(7, 7), (50, 50), (80, 50), (None, 50)])
def test_as_many_points_move_as_were_asked_for(n_active, expected, d):
    points = uniform(50, d)
    before = points.clone()
    SupportPartition(9.0, n_active, n_inner=2).move(flat, points, *box(d, -9, 9), gen(0))
    assert moved(before, points).sum() == expected


@pytest.mark.parametrize("n_neighbors", ["auto", 5, 0, None])
@pytest.mark.parametrize("d", [FEW, MANY])
def test_the_same_seed_gives_the_same_bits(d, n_neighbors):
    partition, results = SupportPartition(0.3 * math.sqrt(d), 20, n_neighbors, n_inner=5), []
    for seed in (0, 0, 1):
        points = uniform(60, d)
        partition.move(flat, points, *box(d), gen(seed))
        results.append(points)
    assert results[0].equal(results[1]) and not results[0].equal(results[2])


def radii_on_a_gaussian(shares, n=300, epsilon=0.05):
    """Quartiles of the radius of points, in radii of a disc that a dense packing of them fills."""
    rng, target = gen(0), Model(Quadratic(1 / 0.09), None, 1.0)
    points = 0.3 * torch.randn(n, 2, generator=rng)
    partition = SupportPartition(epsilon, None, step_maximize=0.002)
    for share in shares:
        partition.annealed(share).move(target, points, *box(2, -3, 3), rng)
    disc = epsilon * math.sqrt(n * math.sqrt(3) / (2 * math.pi))
    return points.norm(dim=1).quantile(torch.tensor([0.25, 0.5, 0.75, 1.0])) / disc


def test_annealed_steps_reach_the_optimum_of_eq_11():
    """The likeliest places, epsilon apart, are a disc; constant steps leave a cloud around it."""
    optimum = torch.tensor([0.25, 0.5, 0.75, 1.0]).sqrt()
    annealed = radii_on_a_gaussian(np.minimum(1, 1 + np.cos(np.pi * np.arange(24) / 24)))
    torch.testing.assert_close(annealed[:3], optimum[:3], rtol=0.06, atol=0)
    torch.testing.assert_close(annealed[3], optimum[3], rtol=0.1, atol=0)  # the rim stays loose
    assert (radii_on_a_gaussian([1.0] * 24) - optimum > 0.1).all()


def test_no_step_falls_below_a_twenty_fourth():
    partition = SupportPartition(0.2, step_maximize=0.12)
    assert partition.annealed(2.0) == partition.with_params(step_repel=0.12)
    for share, expected in ((0.5, 0.5), (0.0, 1 / 24)):
        steps = partition.annealed(share)
        assert steps.step_repel == pytest.approx(0.12 * expected)
        assert steps.step_maximize == pytest.approx(0.12 * expected)


@pytest.mark.parametrize("combine", [True, False])
@pytest.mark.parametrize("d", [1, FEW, MANY])
def test_coincident_points_part(d, combine):
    points = torch.full((40, d), 0.5)
    partition = SupportPartition(0.1, 30, n_inner=10, combine=combine, step_repel=0.01)
    rate = partition.move(flat, points, *box(d, -9, 9), gen(0))
    assert points.isfinite().all() and rate > 0
    assert len(points.unique(dim=0)) == 30 + 1  # those that moved have parted


@pytest.mark.parametrize("combine", [True, False])
@pytest.mark.parametrize("d", [FEW, MANY])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_energy_moves_no_point(broken, d, combine):
    points = uniform(20, d)
    before = points.clone()

    def target(v):
        return torch.full((len(v),), broken), torch.full_like(v, broken)

    SupportPartition(1e-4, n_inner=3, combine=combine).move(target, points, *box(d), gen(0))
    assert points.equal(before)


def test_points_from_one_corner_spread_over_the_box():
    """Where they would fill twice the box, each quadrant comes to hold a quarter."""
    n = 500
    points, epsilon = 0.05 * uniform(n, 2), math.sqrt(2 / (0.866 * n))
    partition = SupportPartition(epsilon, None, n_inner=600)
    for steps in (partition, partition.annealed(0).with_params(n_inner=200)):
        steps.move(flat, points, *box(2), gen(0))
    right, up = (points > 0.5).T
    shares = [float((a & b).float().mean()) for a in (right, ~right) for b in (up, ~up)]
    stderr = math.sqrt(0.25 * 0.75 / n)  # of independent draws: a lattice is more even
    assert stderr < 0.02 and max(abs(share - 0.25) for share in shares) < stderr
    assert np.histogram(points[:, 0], 10, (0, 1))[0].min() > 0.5 * n / 10
    assert len(points.unique(dim=0)) > 0.95 * n


class Largest(TorchFunctionMode):
    """Records the size of the largest tensor made."""

    size = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.size = max(self.size, out.numel())
        return out


@pytest.mark.parametrize("n_active", [None, 2000])
def test_no_matrix_of_all_pairs_is_made(n_active):
    n, points = 3000, uniform(3000, MANY)
    with Largest() as largest:
        partition = SupportPartition(1.0, n_active, None, n_inner=1)
        partition.move(flat, points, *box(MANY), gen(0))
        log_knn_volumes(points, points, 5)
        support_diagnostics(points, torch.zeros(n), points, 1.0)
    assert n * 1000 <= largest.size <= module.BLOCK < n * n


# -- what is told of points ------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, MANY])
def test_diagnostics_by_hand(d):
    points, rows = torch.zeros(4, d), torch.zeros(5, d)
    points[:, 0] = torch.tensor([0.0, 0.1, 5.0, 9.0])
    rows[:, 0] = torch.tensor([0.2, 4.8, 5.3, 7.0, 9.0])
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4])
    info = support_diagnostics(points, weight.log() + 7, rows, 0.25)
    assert isinstance(info, SupportInfo)
    assert info == pytest.approx((0.5, 0.6, 1 / 0.3, 0.4), rel=1e-5)


@pytest.mark.parametrize("d", [1, MANY])
def test_sorted_rows_are_not_judged_by_their_first_ones(d):
    points, rows = torch.zeros(2, d), torch.zeros(4000, d)
    points[1, 0], rows[2000:, 0] = 90.0, 50.0
    info = support_diagnostics(points, torch.zeros(2), rows, 0.25)
    assert info.coverage == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("d", [1, FEW, 3, MANY])
def test_knn_volumes_by_brute_force(d):
    points = uniform(50, d)
    queries = points[10:30]
    distance = (queries[:, None].double() - points[None].double()).norm(dim=2)
    expected = d * distance.sort(1).values[:, 5].log()
    torch.testing.assert_close(
        log_knn_volumes(queries, points, 5).double(), expected, rtol=1e-4, atol=1e-4
    )


def test_knn_volumes_of_a_grid():
    """Four neighbors at the spacing, the next four at its diagonal."""
    points, cell = grid(0.0, 1.0, 20, 2)
    points = points.float()
    inner = (points > 0.1).all(1) & (points < 0.9).all(1)
    for k, factor in ((4, 1.0), (5, 2.0)):
        volume = log_knn_volumes(points, points, k)[inner]
        torch.testing.assert_close(volume, torch.full_like(volume, math.log(factor * cell)))


def test_fewer_points_than_neighbors_have_volumes():
    assert log_knn_volumes(uniform(3, 2), uniform(3, 2), 5).isfinite().all()


def test_room_of_the_known_lattices():
    """Segments, hexagons; in three columns the face-centered cubes."""
    for d, cell in ((1, 1.0), (2, math.sqrt(3) / 2), (3, math.sqrt(0.5)), (8, 1 / 16)):
        least, most = log_room(700, 0.3, d)
        assert least == most == pytest.approx(math.log(700 * cell * 0.3**d), abs=1e-4)


def test_bounds_on_the_room_are_in_order():
    rooms = [log_room(1000, 0.5, d) for d in range(9, 60)]
    assert all(least < most for least, most in rooms)
    for d, (least, most) in enumerate(rooms, 9):  # 2^-d against (d/2 + 1) 2^(-d/2)
        assert most - least == pytest.approx(0.5 * d * math.log(2) + math.log(d / 2 + 1))
    eight, nine = log_room(1000, 1.0, 8)[0], log_room(1000, 1.0, 9)
    assert nine[0] < eight < nine[1]  # the ninth dimension is no jump


# -- automatic epsilon and its warnings ------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
def test_automatic_epsilon_scales_with_the_data_and_the_points(d):
    x, far = uniform(400, d), box(d, -1e6, 1e6)
    one = automatic_epsilon(x, 1000, *far, gen(0))
    apart = torch.cdist(x.double(), x.double()).fill_diagonal_(math.inf).amin(1).median()
    assert one == pytest.approx(float(apart) * (50 * 400 / 1000) ** (1 / d), rel=1e-3)
    assert automatic_epsilon(7 * x, 1000, *far, gen(0)) == pytest.approx(7 * one, rel=1e-4)
    more = automatic_epsilon(x, 1000 * 2**d, *far, gen(0))
    assert more == pytest.approx(one / 2, rel=1e-4)


@pytest.mark.parametrize("d", [1, 2, 12])
def test_automatic_epsilon_leaves_half_of_the_box(d):
    x = uniform(400, d)
    epsilon = automatic_epsilon(x, 10_000, *box(d, 0.49, 0.51), gen(0))
    _, most = log_room(10_000, epsilon, d)
    assert most == pytest.approx(math.log(0.5 * 0.02**d), rel=1e-4)


def test_automatic_epsilon_without_distinct_rows():
    assert automatic_epsilon(torch.zeros(9, 2), 100, *box(2, -99, 99), gen(0)) > 0


def told(n, epsilon, d=2, spread=0.0, low=0.0, high=10.0):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_room(n, epsilon, *box(d, low, high), spread)
    assert all(w.category is SupportWarning for w in caught)
    return " ".join(str(w.message) for w in caught)


@pytest.mark.parametrize("d", [1, 2, 12])
def test_points_that_fit_and_cover_need_no_warning(d):
    """Data of volume 1 in a box of side 10: distances from the one limit to the other."""
    n = 1000
    most = math.exp((-log_room(n, 1.0, d)[1]) / d)  # covers volume 1 at the loosest
    least = math.exp((math.log(10.0**d) - log_room(n, 1.0, d)[0]) / d)
    assert 1.05 * most < 0.95 * least
    assert told(n, 1.05 * most, d) == told(n, 0.95 * least, d) == ""
    cover = rf"epsilon must let {n} points cover the data, got {0.9 * most:.3g}"
    assert cover in told(n, 0.9 * most, d) and "Raise epsilon" in told(n, 0.9 * most, d)
    assert told(n, 0.9 * most, d, spread=None) == ""  # nothing to compare with
    edge = least * 10 / (10 - least)  # centers may lie on the border
    room = rf"epsilon must leave room for {n} points in the box, got {1.1 * edge:.3g}"
    assert room in told(n, 1.1 * edge, d) and "Lower epsilon" in told(n, 1.1 * edge, d)


def test_the_warnings_tell_by_how_much():
    assert "0.14 of its volume" in told(10, math.exp(2) / 10, d=1, spread=4.0, high=1e3)
    n, epsilon = 1000, 0.1
    factor = n * epsilon / (1 + epsilon)
    assert f"{factor:.2g} times its volume" in told(n, epsilon, d=1, high=1.0)
    assert "e^-28 of its volume" in told(10, 0.1, d=1, spread=28.0, high=1e20)


@pytest.mark.parametrize("epsilon, message", [(1e-4, "cover the data"), (3.0, "leave room")])
def test_init_warns(epsilon, message):
    x = torch.randn(200, 2, generator=gen(0))
    objective = PartitionLikelihood(500, SupportPartition(epsilon))
    model = Model(MLP((4,)).build((2,), gen(0)), normal_base(2), 1.0)
    with pytest.warns(SupportWarning, match=message):
        objective.init(model, x, gen(0))
    PartitionLikelihood(500, SupportPartition("auto")).init(model, x, gen(0))


# -- the loss --------------------------------------------------------------------------------------


def mlp(seed=0):
    return randomized(MLP((6,), n_frequencies=0).build((FEW,), gen(seed)).double(), 1.0, seed)


def float64_base(kind):
    if kind is None:
        return None
    if kind == "uniform":
        low, high = (corner.double() for corner in box(FEW, -4.0, 4.0))
        return UniformBase(low, high, 0.01 * (high - low))
    normal = Normal(torch.zeros(FEW).double(), torch.full((FEW,), 1.3).double())
    rows = torch.zeros(2, FEW).double()
    return TorchDistribution(Independent(normal, 1)).fit(rows, None, gen(0))


def rows(n=32):
    return 0.7 * torch.randn(n, FEW, dtype=torch.float64, generator=gen(1)) + 0.2


def still(n=200, **params):
    """Points that stay where they start."""
    partition = SupportPartition(params.pop("epsilon", 0.35), n_inner=0)
    return PartitionLikelihood(n, partition, **{"optimization": Optimization(1e-12), **params})


def explicit_gradient(model, x, u, volume):
    """Eq. 10: the energies' gradients at the data, less those at the points by weight."""
    energy = model.energy(u)
    log_p0 = 0.0 if model.base is None else model.base.log_prob(u)
    weight = (volume * (log_p0 - energy / model.temperature).exp()).detach()
    weight = weight / weight.sum()
    loss = (model.energy(x).mean() - (weight * energy).sum()) / model.temperature
    grads = torch.autograd.grad(loss, list(model.energy.parameters()))
    return torch.cat([g.flatten() for g in grads]), weight


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("weights", ["plain", "knn"])
@pytest.mark.parametrize("kind", [None, "normal", "uniform"])
def test_the_gradient_is_that_of_eq_10(kind, weights, temperature):
    model, x = Model(mlp(), float64_base(kind), temperature), rows()
    state = still(weights=weights).init(model, x.float(), gen(0))
    u = state.buffers["points"] = state.buffers["points"].double()
    state, row = still(weights=weights).step(model, state, lambda: x, gen(1))
    grad = torch.cat([p.grad.flatten() for p in model.energy.parameters()])
    distance = (u[:, None] - u[None]).norm(dim=2).sort(1).values[:, 5]
    volume = distance**FEW if weights == "knn" else torch.ones(len(u))
    expected, weight = explicit_gradient(model, x, u, volume)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-6)
    assert float(row["ess_share"]) == pytest.approx(
        float(1 / weight.square().sum()) / 200, rel=1e-6
    )
    assert float(row["largest_weight"]) == pytest.approx(float(weight.max()), rel=1e-6)
    log_weight = still(weights=weights).log_weights(model, state)
    torch.testing.assert_close(log_weight.softmax(0), weight, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("left, share", [(1.0, 1.0), (0.5, 1.0), (0.25, 0.5), (0.0, 1 / 24)])
def test_steps_fall_with_the_second_half_of_the_learning_rate(left, share, monkeypatch):
    moved_with = []

    def move(self, target, points, low, high, rng):
        moved_with.append((self.step_maximize, self.step_repel))
        return points.new_zeros(())

    monkeypatch.setattr(SupportPartition, "move", move)
    model = Model(MLP((4,)).build((FEW,), gen(0)), None, 1.0)
    objective = PartitionLikelihood(200, SupportPartition(0.4, step_maximize=0.2))
    state = objective.init(model, rows().float(), gen(0))
    for rescued in (1.0, 0.3):  # a rescue lowers the rate and the ascent, and anneals nothing
        state.buffers["step_factor"] = rescued
        for group in state.optimizers["energy"].param_groups:
            group["lr"] = left * group["initial_lr"] * rescued
        objective.step(model, state, lambda: rows().float(), gen(1))
        assert moved_with.pop() == pytest.approx((0.2 * share * rescued, 0.24 * share))


@pytest.mark.parametrize("base", [None, "uniform"])
@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_on_a_grid_the_loss_is_the_riemann_likelihood(base):
    """mean E + log sum over the points + log of a cell = -mean log p, p normalized exactly."""
    k, x = 2.0, rows()
    u, cell = grid(-4.0, 4.0, 100, FEW)
    model = Model(Quadratic(k).double(), float64_base(base), 1.0)
    objective = still(len(u))
    state = objective.init(model, x.float(), gen(0))
    state.buffers["points"] = u
    _, row = objective.step(model, state, lambda: x, gen(1))
    log_p = -0.5 * k * x.square().sum(1) - gaussian_log_z(FEW, k)
    shift = 0.0 if base is None else float(model.base.log_prob(x[:1]))  # its height in the box
    riemann = float(row["loss"]) + math.log(cell)
    assert riemann - shift == pytest.approx(-float(log_p.mean()), abs=1e-6)
    log_weight, distance = objective.log_weights(model, state), float(state.buffers["epsilon"])
    info = support_diagnostics(u, log_weight, x, distance)
    assert info.ess == pytest.approx(4 * math.pi / k / cell, rel=1e-5)  # of a Gaussian's weights
    assert info.violation_rate == 1 and info.coverage == 1


def test_the_sum_takes_as_many_points_as_asked_for():
    seen, x = [], rows().float()
    for n_integration in (None, 40, 200, 999):
        model = Model(Quadratic(), normal_base(FEW), 1.0)
        objective = still(n_integration=n_integration)
        state = objective.init(model, x, gen(0))
        model.energy.register_forward_hook(lambda module, args, out: seen.append(len(out)))
        objective.step(model, state, lambda: x, gen(1))
    assert seen == [32 + 200, 32 + 40, 32 + 200, 32 + 200]


@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_points_that_restart_are_new_and_uniform_in_the_box():
    """As many as asked for, others at each update; the rest stay, where none moves."""
    x, low, high = rows().float(), torch.tensor([-3.0, 0.0]), torch.tensor([5.0, 1.0])
    model = Model(Quadratic(), None, 1.0)
    objective = still(5000, n_restarts=4000, box=(low, high), start="data")
    state = objective.init(model, x, gen(0))
    before = [state.buffers["points"].clone()]
    for k in range(2):
        objective.step(model, state, lambda: x, gen(k))
        before.append(state.buffers["points"].clone())
    went = [moved(a, b) for a, b in itertools.pairwise(before)]
    assert went[0].sum() == went[1].sum() == 4000 and not went[0].equal(went[1])
    share = (before[1][went[0]] - low) / (high - low)
    assert share.min() >= 0 and share.max() <= 1
    for column in share.T:
        assert_mean(column.numpy(), 0.5, 0.01)
        assert_variance(column.numpy(), 1 / 12, 0.02)


@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_a_step_tells_coverage_and_violations():
    x = torch.zeros(4, FEW)
    x[:, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    model = Model(Quadratic(), normal_base(FEW, 3.0), 1.0)
    objective = PartitionLikelihood(
        4, SupportPartition(3.0, n_inner=1, step_repel=0.0), optimization=Optimization(1e-12)
    )
    state = objective.init(model, x, gen(0))
    state.buffers["epsilon"] = torch.tensor(0.3)
    points = torch.tensor([[0.0, 0.0], [0.0, 0.2], [1.2, 0.0], [2.5, 2.5]])
    state.buffers["points"] = points
    _, row = objective.step(model, state, lambda: x, gen(1))
    assert float(row["violation_rate"]) == 0.5 and float(row["coverage"]) == 0.5
    slope = torch.tensor([1.2, 0.0]) * (1 + 1 / 9)  # of U: the energy's and the base's
    expected = torch.tensor([1.2, 0.0]) - 0.01 * slope
    torch.testing.assert_close(state.buffers["points"][2], expected)


@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("start", ["data", "array", "uniform"])
def test_points_start_where_they_are_told_to(start, n):
    """At rows or places, but for a jitter of a tenth of epsilon; everywhere in the box."""
    x = torch.randn(100, FEW, generator=gen(3))
    places = torch.tensor([[0.5, 0.5], [-0.5, 0.2], [99.0, 0.0]])  # the last one is outside
    epsilon, (low, high) = 0.5, box(FEW, -5.0, 5.0)
    objective = still(
        n, epsilon=epsilon, start=places if start == "array" else start, box=(low, high)
    )
    state = objective.init(Model(Quadratic(), None, 1.0), x, gen(0))
    points = state.buffers["points"]
    assert points.shape == (n, FEW) and (points >= low).all() and (points <= high).all()
    if start == "uniform":
        spread = float(points.var(0).mean())
        assert spread == pytest.approx(100 / 12, rel=4 * math.sqrt(0.8 / (2 * n)))
    else:
        source = (places if start == "array" else x).clamp(low, high)
        distance, nearest = torch.cdist(points, source).min(1)
        assert distance.max() < 5 * 0.1 * epsilon  # a normal length in two columns
        distinct = len(nearest.unique())
        assert distinct == 3 if start == "array" else distinct > 15
    again = objective.recover(Model(Quadratic(), None, 1.0), state, x, gen(7))
    assert again.buffers["points"].shape == (n, FEW)
    assert not again.buffers["points"].equal(points)


@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
@pytest.mark.parametrize("base", [None, "normal", "uniform"])
def test_the_box_is_that_of_the_base_or_of_the_widened_rows(base):
    x = torch.tensor([[0.0, -2.0], [1.0, 2.0], [0.5, 0.0]]).repeat(20, 1)
    x = x + 1e-3 * torch.randn(60, FEW, generator=gen(0))
    model = Model(Quadratic(), None, 1.0)
    if base == "normal":
        model = model._replace(base=normal_base(FEW))
    if base == "uniform":
        model = model._replace(base=UniformBase(*box(FEW, -3.0, 7.0), torch.full((FEW,), 0.1)))
    state = still(50, epsilon=0.3).init(model, x, gen(0))
    corners = torch.stack([state.buffers["low"], state.buffers["high"]])
    expected = torch.tensor([[-0.25, -3.0], [1.25, 3.0]])
    if base == "uniform":
        expected = torch.tensor([[-3.0, -3.0], [7.0, 7.0]])
    torch.testing.assert_close(corners, expected, atol=0.02, rtol=0)


def test_several_repulsions_are_for_points_that_alternate():
    objective = PartitionLikelihood(partition=SupportPartition(n_repel=2))
    with pytest.raises(ValueError, match=r"n_repel must be 1 .* got 2\. Set combine"):
        objective.init(Model(Quadratic(), normal_base(FEW), 1.0), rows().float(), gen(0))
