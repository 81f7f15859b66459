"""Grid divergences, mode masses and the two-dimensional Kolmogorov-Smirnov distance."""

import math
import tracemalloc

import numpy as np
import pytest

from skebm import datasets
from skebm.datasets import GaussianDensity
from skebm.metrics import grid, grid_kl, ks_2d, mode_masses
from tests.closed_forms import assert_estimate, gaussian_kl, normal_box_mass

SP_BOX = (np.full(2, -1.6), np.full(2, 1.6))
P = GaussianDensity([[0.5, 0.2], [0.2, 0.3]], mean=[0.4, -1.0])
Q = GaussianDensity([[1.5, -0.3], [-0.3, 0.8]], mean=[-0.2, -0.5])
WIDE = ((-9.0, -8.0), (9.0, 7.0))  # holds both
KL = gaussian_kl(P.mean, P.cov, Q.mean, Q.cov)


def normal(mean, scale):
    return GaussianDensity(np.diag(np.square(scale)), mean)


# -- grid KL ---------------------------------------------------------------------------------------


def test_grid_kl_of_two_gaussians():
    result = grid_kl(P.log_density, Q.log_density, WIDE, q_log_partition=0.0)
    assert result.kl == pytest.approx(KL, abs=1e-10)
    assert (result.q_outside, result.p_outside, result.log_z) == pytest.approx((0, 0, 0), abs=1e-10)
    backward = grid_kl(Q.log_density, P.log_density, WIDE).kl
    assert backward == pytest.approx(gaussian_kl(Q.mean, Q.cov, P.mean, P.cov), abs=1e-10)
    line = [normal([m], [s]) for m, s in ((0.3, 0.5), (-0.1, 1.2))]
    on_line = grid_kl(line[0].log_density, line[1].log_density, (-12, 12), 100).kl
    assert on_line == pytest.approx(gaussian_kl([0.3], [[0.25]], [-0.1], [[1.44]]), abs=1e-10)


def test_grid_kl_of_a_density_and_itself_is_zero():
    p = datasets.eight_modes()
    result = grid_kl(p.log_density, p.log_density, ((-3, -3), (3, 3)))
    assert result.kl == pytest.approx(0, abs=1e-12)
    assert math.isnan(result.q_outside)
    assert all(type(value) is float for value in result)


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e4, 1e4])
def test_a_constant_in_log_q_moves_log_z_only(constant):
    result = grid_kl(
        P.log_density, lambda x: Q.log_density(x) + constant, WIDE, q_log_partition=constant
    )
    assert result.kl == pytest.approx(KL, abs=1e-8)
    assert result.log_z == pytest.approx(constant, abs=1e-8)
    assert result.q_outside == pytest.approx(0, abs=1e-8)


def test_a_wrong_partition_shows_as_a_share_below_zero():
    result = grid_kl(P.log_density, Q.log_density, WIDE, q_log_partition=-math.log(3))
    assert result.q_outside == pytest.approx(-2, abs=1e-8)
    assert grid_kl(P.log_density, Q.log_density, WIDE, q_log_partition=-1e4).q_outside == -np.inf


def test_the_papers_box_leaves_out_a_known_mass():
    p, q = datasets.eight_modes(), normal([0.3, -0.2], [1.0, 0.6])
    result = grid_kl(p.log_density, q.log_density, SP_BOX, 800, q_log_partition=0.0)
    p_inside = normal_box_mass(*SP_BOX, p.means, 0.15).mean()
    q_inside = normal_box_mass(*SP_BOX, q.mean, np.array([1.0, 0.6]))
    assert 1e-6 < 1 - p_inside < 1e-4 and 0.08 < 1 - q_inside < 0.2
    assert result.p_outside == pytest.approx(1 - p_inside, rel=1e-3)
    assert result.q_outside == pytest.approx(1 - q_inside, abs=1e-6)
    assert result.log_z == pytest.approx(math.log(q_inside), abs=1e-6)


def test_mass_outside_is_what_the_divergence_does_not_see():
    p, q = normal([0.2], [0.1]), normal([0.0], [1.0])
    result = grid_kl(p.log_density, q.log_density, (-1, 1), 2000, q_log_partition=0.0)
    whole = result.kl - math.log(1 - result.q_outside)  # p is inside
    assert whole == pytest.approx(gaussian_kl([0.2], [[0.01]], [0.0], [[1.0]]), abs=1e-12)
    assert whole - result.kl > 0.3


def test_outer_measures_the_share_of_an_unnormalized_density():
    p, q = normal([0.2, 0.1], [0.1, 0.2]), normal([0.0, 0.5], [1.0, 0.5])
    box, outer = ((-1.0, -0.6), (1.0, 1.0)), ((-7.03, -4.0), (8.0, 5.0))
    inside = normal_box_mass(*np.array(box), q.mean, np.array([1.0, 0.5]))
    shapes = []

    def log_q(x):
        shapes.append(x.shape)
        return q.log_density(x) + 7.0

    known = grid_kl(p.log_density, log_q, box, 100, q_log_partition=7.0)
    shapes.clear()
    found = grid_kl(p.log_density, log_q, box, 100, outer=outer)
    assert known.q_outside == pytest.approx(1 - inside, abs=1e-4)
    assert found == pytest.approx(known, abs=1e-12)
    cells = 100 * 100 + (302 + 100 + 350) * (213 + 100 + 250)  # of size 0.02 and 0.016, all whole
    assert sum(n for n, _ in shapes) == cells


def test_outer_of_whole_cells_gets_no_cell_more():
    n_rows = []

    def log_q(x):
        n_rows.append(len(x))
        return Q.log_density(x)

    rng = np.random.RandomState(0)
    for _ in range(50):
        low, side = rng.randn(2), rng.rand(2) + 0.5
        grid_kl(P.log_density, log_q, (low, low + side), 7, outer=(low, low + side))
        outer = (low - 3 / 7 * side, low + 8 / 7 * side)
        grid_kl(P.log_density, log_q, (low, low + side), 7, outer=outer)
    assert n_rows == [49, 49, 49, 121] * 50


def test_where_a_density_is_zero():
    board = datasets.checkerboard()
    box = ((-4, -4), (4, 4))

    def uniform(x):
        return np.full(len(x), -np.log(64))

    half = grid_kl(board.log_density, uniform, box, 80)
    assert half.kl == pytest.approx(np.log(2), abs=1e-12)
    assert half.p_outside == pytest.approx(0, abs=1e-12)
    assert grid_kl(uniform, board.log_density, box, 80).kl == np.inf


def test_densities_are_evaluated_in_blocks_of_every_cell(monkeypatch):
    seen = []

    def log_q(x):
        seen.append(x)
        return Q.log_density(x)

    whole = grid_kl(P.log_density, Q.log_density, WIDE, 30)
    monkeypatch.setattr(grid, "BLOCK", 77)
    assert grid_kl(P.log_density, log_q, WIDE, 30) == pytest.approx(whole, rel=1e-12, nan_ok=True)
    assert max(map(len, seen)) == 77
    rows = np.concatenate(seen)
    x, y = -9 + 0.6 * (np.arange(30) + 0.5), -8 + 0.5 * (np.arange(30) + 0.5)
    truth = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(rows, truth, atol=1e-13)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"n_grid": 0}, ValueError, "n_grid must be an integer >= 1, got 0"),
        ({"n_grid": 2.5}, TypeError, "n_grid must be an integer >= 1, got 2.5"),
        ({"n_grid": 5000}, ValueError, "at most 16777216 cells, got 25000000"),
        ({"domain": ((-1, -1, -1), (1, 1, 1))}, ValueError, r"d = 1 or 2, got shapes \[\(3,\)"),
        ({"domain": ((-1, -1),)}, ValueError, r"domain must be \(low, high\).*\[\(2,\)\]"),
        ({"domain": ((-1, 1), (-1, 1))}, ValueError, r"domain .*low < high, got \[-1.0, 1.0\]"),
        ({"domain": ((-1, -1), (1, np.inf))}, ValueError, r"domain .*finite.*got .*\[1.0, inf\]"),
        ({"log_p": P}, TypeError, "log_p must be callable, got <.*GaussianDensity"),
        ({"log_q": lambda x: x}, ValueError, r"log_q must be of shape \(40000,\).*\(40000, 2\)"),
        ({"log_q": lambda x: x[:, 0] / 0}, ValueError, "log_q .*got 20000 of 40000 values that"),
        ({"log_p": lambda x: x[:, 0] * np.nan}, ValueError, "log_p .*got 40000 of 40000"),
        ({"log_p": lambda x: x[:, 0] * 0 - 1e4}, ValueError, "log_p must have mass .*got 0"),
        ({"log_q": lambda x: x[:, 0] * 0 - np.inf}, ValueError, "log_q must have mass .*got 0"),
        ({"q_log_partition": np.nan}, ValueError, "q_log_partition must be a number, got nan"),
        ({"outer": ((-9, -8), (9, 6))}, ValueError, r"outer must hold domain, got .*\[9.0, 6.0\]"),
        ({"outer": ((-8, -8), (9, 7))}, ValueError, r"outer must hold domain, got \[-8.0, -8.0\]"),
        ({"domain": 3}, ValueError, r"domain must be \(low, high\).*\[\(1,\)\]"),
        ({"outer": (-9, 9)}, ValueError, r"outer must hold domain, got \[-9.0\]"),
        ({"outer": WIDE, "q_log_partition": 0.0}, ValueError, "outer must be None .*got .*9.0"),
    ],
)
def test_bad_grids_are_named(changes, error, message):
    arguments = {"log_p": P.log_density, "log_q": Q.log_density, "domain": WIDE, **changes}
    with pytest.raises(error, match=message), np.errstate(divide="ignore"):
        grid_kl(**arguments)


# -- mode masses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [None, 0.8])
@pytest.mark.parametrize("d", [1, 2, 12])
def test_mode_masses_equal_a_loop(d, radius):
    rng = np.random.RandomState(d)
    X, centers = rng.randn(300, d), rng.randn(7, d)
    counts, n_far = np.zeros(7), 0
    for row in X:
        distances = [math.dist(row, center) for center in centers]
        if radius is None or min(distances) <= radius:
            counts[np.argmin(distances)] += 1
        else:
            n_far += 1
    result = mode_masses(X, centers, radius)
    np.testing.assert_array_equal(result.masses, counts / 300)
    assert result.unassigned == pytest.approx(n_far / 300, abs=1e-15)
    assert (n_far > 0) == (radius is not None)


def test_mode_masses_count_a_row_at_the_radius_and_keep_empty_modes():
    result = mode_masses([[1.0], [1.5], [-3.0], [0.0]], [[0.0], [9.0], [-3.5]], radius=1)
    np.testing.assert_array_equal(result.masses, [0.5, 0, 0.25])
    assert result.unassigned == 0.25


def test_mode_masses_of_known_densities():
    density = datasets.GaussianMixtureDensity([[-1.0, 0], [1, 0], [0, 2]], 0.1, [0.5, 0.3, 0.2])
    X = density.sample(20_000, random_state=0)
    result = mode_masses(X, density.means, radius=0.2)
    inside = 1 - math.exp(-2)  # a disk of two standard deviations
    for mass, weight in zip(result.masses, density.weights, strict=True):
        share = weight * inside
        assert_estimate(mass, math.sqrt(share * (1 - share) / 20_000), share, 0.0036)
    assert result.masses.sum() + result.unassigned == pytest.approx(1, abs=1e-12)


def test_rings_are_modes_of_the_length():
    density = datasets.rings_10d()
    X = density.sample(9000, random_state=0)
    X = X[np.hypot(X[:, 0], X[:, 1]) > 1.5]  # drop the first ring
    length = np.linalg.norm(X[:, :2], axis=1, keepdims=True)
    masses, unassigned = mode_masses(length, density.radii[:, None], radius=0.5)
    assert masses[0] == 0 and unassigned < 1e-3
    assert_estimate(masses[1], math.sqrt(0.25 / len(X)), 0.5, 0.007)


@pytest.mark.parametrize(
    "X, centers, radius, error, message",
    [
        ([[0.0]], [[0.0, 1.0]], None, ValueError, "centers must have 1 columns, got 2"),
        ([[0.0]], [[1.0], [2.0], [1.0]], None, ValueError, "different, got 2 different rows of 3"),
        ([[0.0]], [[1.0]], 0, ValueError, "radius must be a number > 0, got 0"),
        ([[0.0]], [[1.0]], "big", TypeError, "radius must be a number > 0, got 'big'"),
        ([[np.nan]], [[1.0]], None, ValueError, "X contains NaN"),
        ([[0.0]], [[np.inf]], None, ValueError, "centers contains infinity"),
        ([0.0], [[1.0]], None, ValueError, "2D array"),
    ],
)
def test_bad_modes_are_named(X, centers, radius, error, message):
    with pytest.raises(error, match=message):
        mode_masses(X, centers, radius)


# -- Kolmogorov-Smirnov ----------------------------------------------------------------------------


def brute_force_ks(X, Y):
    statistics = []
    for points in (X, Y):
        largest = 0.0
        for x, y in points:
            for right in (False, True):
                for upper in (False, True):
                    shares = [
                        np.mean([(a > x) == right and (b > y) == upper for a, b in sample])
                        for sample in (X, Y)
                    ]
                    largest = max(largest, abs(shares[0] - shares[1]))
        statistics.append(largest)
    return sum(statistics) / 2


@pytest.mark.parametrize("n, m", [(1, 1), (1, 9), (16, 16), (31, 20), (17, 32)])
@pytest.mark.parametrize("n_values", [None, 3, 8], ids=["no ties", "3 values", "8 values"])
def test_ks_2d_equals_a_loop(n, m, n_values):
    for seed in range(3):
        rng = np.random.RandomState(seed)
        X, Y = rng.randn(n, 2), rng.randn(m, 2) @ [[1, 0.7], [0, 0.5]] + 0.3
        if n_values:
            X, Y = (np.round(sample * n_values / 5) for sample in (X, Y))
        assert ks_2d(X, Y) == pytest.approx(brute_force_ks(X, Y), abs=1e-14)


def test_ks_2d_by_hand():
    # around (0, 0) no row of Y is with those of X; around (1, 1) all are in the lower left
    assert ks_2d([[0, 0]] * 5, [[1, 1]] * 3) == 0.5
    X, Y = [[0, 0], [2, 2]], [[0, 2], [2, 0]]  # equal in each column; 1/2 around (0, 0), else 0
    assert ks_2d(X, Y) == 0.25


def test_ks_2d_of_equal_samples_is_zero_and_swapping_changes_nothing():
    rng = np.random.RandomState(0)
    for X, Y in [(rng.randn(200, 2), rng.randn(91, 2)), (rng.randint(4, size=(50, 2)),) * 2]:
        assert ks_2d(X, X) == 0
        assert ks_2d(X, rng.permutation(X)) == 0
        assert ks_2d(X, np.concatenate([X, X])) == 0
        assert ks_2d(X, Y) == ks_2d(Y, X)


def test_ks_2d_depends_on_the_order_within_columns_only():
    rng = np.random.RandomState(0)
    X, Y = rng.randn(80, 2), rng.randn(60, 2) + 0.2
    mapped = [np.column_stack([np.exp(x), y**3 + y]) for x, y in (X.T, Y.T)]
    assert ks_2d(*mapped) == ks_2d(X, Y)
    assert ks_2d(X[:, ::-1], Y[:, ::-1]) == ks_2d(X, Y)
    for signs in ([-1, 1], [1, -1], [-1, -1]):
        change = abs(ks_2d(X * signs, Y * signs) - ks_2d(X, Y))
        assert change <= (1 / 80 + 1 / 60) / 2 + 1e-12


def test_ks_2d_has_the_papers_benchmark():
    density = datasets.eight_modes()
    rng = np.random.RandomState(0)
    values = [ks_2d(density.sample(1000, rng), density.sample(1000, rng)) for _ in range(20)]
    assert 0.045 < np.mean(values) < 0.06  # Table 1 of SP: 0.0519, standard deviation 0.0109
    assert 0.004 < np.std(values) < 0.016
    shifted = ks_2d(density.sample(1000, rng), density.sample(1000, rng) + 0.1)
    assert shifted > 0.09


def test_ks_2d_holds_no_table_of_pairs():
    rng = np.random.RandomState(0)
    X, Y = rng.randn(10_000, 2), rng.randn(10_000, 2)
    tracemalloc.start()
    value = ks_2d(X, Y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6  # bytes; a bit per pair would be 12.5e6
    assert 0.005 < value < 0.035


@pytest.mark.parametrize(
    "X, Y, message",
    [
        ([[0.0]], [[0.0, 1.0]], "X must have 2 columns, got 1"),
        ([[0.0, 1.0]], [[0.0, 1.0, 2.0]], "Y must have 2 columns, got 3"),
        ([[0.0, 1.0]], [[0.0, np.nan]], "Y contains NaN"),
        (np.empty((0, 2)), [[0.0, 1.0]], "0 sample"),
    ],
)
def test_bad_samples_are_named(X, Y, message):
    with pytest.raises(ValueError, match=message):
        ks_2d(X, Y)
