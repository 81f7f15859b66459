"""The densities are the truths of other tests, so here they meet closed forms only."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skebm import datasets
from skebm.datasets import (
    Checkerboard,
    GaussianDensity,
    GaussianMixtureDensity,
    ICADensity,
    KnownDensity,
    RBMDensity,
    RingsDensity,
    SwissRollDensity,
    TwoMoonsDensity,
    load_novelty,
    read_npz_table,
)
from tests.closed_forms import assert_mean, assert_variance, gaussian_entropy, rice_mean

COV = np.array([[2.0, 0.6], [0.6, 0.5]])


class Logistic(KnownDensity):
    """A user's own: no more than its mathematics."""

    n_features, entropy = 1, 2.0

    def _log_density(self, x):
        return -2 * np.logaddexp(x[:, 0] / 2, -x[:, 0] / 2)

    def _score(self, x):
        return -np.tanh(x / 2)

    def _draw(self, n, rng):
        return rng.logistic(size=(n, 1))


SMOOTH = {
    "own": Logistic,
    "gaussian": lambda: GaussianDensity(COV, mean=[1.0, -2.0]),
    "mixture": lambda: GaussianMixtureDensity(
        [[0.0, 1.0], [2.0, -1.0]], [[0.5, 1.0], [1.5, 0.7]], [0.3, 0.7]
    ),
    "mixture_3d": lambda: GaussianMixtureDensity(np.eye(3), [0.5, 1.0, 2.0]),
    "two_modes_1d": datasets.two_modes_1d,
    "six_modes": datasets.six_modes,
    "eight_modes": datasets.eight_modes,
    "grid_25": datasets.grid_25,
    "two_moons": datasets.two_moons,
    "two_moons_narrow": lambda: TwoMoonsDensity(noise=0.05),
    "swiss_roll": datasets.swiss_roll,
    "swiss_roll_wide": lambda: SwissRollDensity(noise=1.0),
    "rings_10d": datasets.rings_10d,
    "rings_2d": lambda: RingsDensity((0.5, 2.0), wide=0.2, n_features=2),
    "rbm": lambda: RBMDensity([[1.0, -0.5, 0.3], [0.2, 1.5, -1.0]], [0.5, -1.0], [0.3, 0.0, -0.4]),
    "ica": lambda: ICADensity.random(4, random_state=0),
}
ALL = {
    **SMOOTH,
    "checkerboard": datasets.checkerboard,
    "ica_laplace": lambda: ICADensity.random(4, "laplace", random_state=0),
}
PLANAR = {  # half width of a box that holds the density, grid points per axis
    "gaussian": (16, 200),
    "mixture": (16, 300),
    "six_modes": (2.2, 200),
    "eight_modes": (2.5, 150),
    "grid_25": (1.7, 500),
    "two_moons": (3.2, 200),
    "swiss_roll": (4.7, 120),
    "swiss_roll_wide": (12, 60),
    "rings_2d": (4, 200),
    "checkerboard": (4.5, 180),
}


def grid(name):
    half, n = PLANAR[name]
    axis = (np.arange(n) + 0.5) / n * 2 * half - half  # midpoints, clear of the cells' edges
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), (2 * half / n) ** 2


# -- numbers known in advance ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, entropy",
    [
        ("two_modes_1d", -0.883647),
        ("six_modes", 0.024465),
        ("eight_modes", 1.093234),
        ("grid_25", -2.013851),
        ("swiss_roll", 2.669646),
        ("rings_10d", -20.538319),
    ],
)
def test_entropy_of_the_toys(name, entropy):
    assert ALL[name]().entropy == pytest.approx(entropy, abs=1e-6)


def test_entropies_in_closed_form():
    gaussian = np.log(2 * np.pi * np.e) + 0.5 * np.log(np.linalg.det(COV))
    assert GaussianDensity(COV).entropy == pytest.approx(gaussian, abs=1e-13)
    assert Checkerboard().entropy == np.log(32)
    apart = GaussianMixtureDensity([[-50.0], [50.0]], [0.5, 2.0], [0.25, 0.75])
    mixing = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    parts = 0.5 * np.log(2 * np.pi * np.e) + 0.25 * np.log(0.5) + 0.75 * np.log(2.0)
    assert apart.entropy == pytest.approx(mixing + parts, abs=1e-12)
    single = GaussianMixtureDensity([[3.0, 4.0]], [[0.1, 20.0]])
    truth = GaussianDensity(np.diag([0.01, 400.0])).entropy
    assert single.entropy == pytest.approx(truth, abs=1e-12)
    assert ALL["mixture_3d"]().entropy is None


def test_entropy_says_when_the_quadrature_does_not_settle():
    density = GaussianMixtureDensity([[0.0, 0.0], [0.0, 0.0]], [1.0, 1e-4])
    with pytest.warns(ConvergenceWarning, match=r"may be off by .* nats"):
        assert np.isfinite(density.entropy)


def test_gaussian_matches_its_formula():
    x, mean = np.array([[0.3, -1.0], [4.0, 2.0]]), np.array([1.0, -2.0])
    precision = np.linalg.inv(COV)
    density = GaussianDensity(COV, mean)
    square = np.einsum("ni,ij,nj->n", x - mean, precision, x - mean)
    truth = -0.5 * square - np.log(2 * np.pi) - 0.5 * np.log(np.linalg.det(COV))
    np.testing.assert_allclose(density.log_density(x), truth, rtol=1e-13)
    np.testing.assert_allclose(density.score(x), -(x - mean) @ precision, rtol=1e-13)


def test_a_mixture_of_equal_parts_is_one_gaussian():
    x = np.random.RandomState(0).randn(20, 3)
    mixture = GaussianMixtureDensity(np.ones((4, 3)), 1.5, [0.1, 0.2, 0.3, 0.4])
    gaussian = GaussianDensity(2.25 * np.eye(3), np.ones(3))
    np.testing.assert_allclose(mixture.log_density(x), gaussian.log_density(x), rtol=1e-13)
    np.testing.assert_allclose(mixture.score(x), gaussian.score(x), rtol=1e-12, atol=1e-14)


def test_scales_per_component_and_per_axis_are_told_apart():
    means = np.zeros((2, 2))
    np.testing.assert_array_equal(
        GaussianMixtureDensity(means, [1.0, 3.0]).scales, [[1, 1], [3, 3]]
    )
    np.testing.assert_array_equal(
        GaussianMixtureDensity(means, [[1.0, 3.0]] * 2).scales, [[1, 3], [1, 3]]
    )


def two_half_circles(share):
    first = np.column_stack([np.cos(np.pi * share), np.sin(np.pi * share)])
    return np.concatenate([first, [1.0, 0.5] - first])


def spiral(share):
    angle = 1.5 * np.pi * (1 + 2 * share)
    return np.column_stack([angle * np.cos(angle), angle * np.sin(angle)]) / 5


@pytest.mark.parametrize(
    "cls, curve, noise",
    [(TwoMoonsDensity, two_half_circles, noise) for noise in (0.03, 0.1, 0.5, 3.0)]
    + [(SwissRollDensity, spiral, noise) for noise in (0.05, 0.2, 1.0, 4.0)],
)
def test_curves_agree_with_a_brute_force_sum(cls, curve, noise):
    nodes, weights = np.polynomial.legendre.leggauss(10)  # on each of 2000 panels
    points = curve((np.arange(2000)[:, None] + 0.5 * (nodes + 1)).ravel() / 2000)
    weights = np.resize(weights, len(points)) / (2 * len(points) / 10)
    special = [[0, 0], [1, 0.5], [1, 0], [-1, 0], [0, 0.5], [2, 0.5], [0, -1e-9], [0, -1.5]]
    special += [[1e-3, 0], [0.2, 0], [0, 3.5], [6, -5], points[0], points[-1]]
    x = np.concatenate([special, 1.5 * np.random.RandomState(0).randn(25, 2)])
    log_density, score = [], []
    for row in x:
        exponent = -np.square(row - points).sum(axis=1) / (2 * noise**2)
        mass = weights * np.exp(exponent - exponent.max())
        log_density.append(exponent.max() + np.log(mass.sum() / (2 * np.pi * noise**2)))
        score.append((mass @ points / mass.sum() - row) / noise**2)
    density = cls(noise)
    np.testing.assert_allclose(density.log_density(x), log_density, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(density.score(x), score, rtol=1e-9, atol=1e-9)


def test_two_moons_far_away_have_the_gradient_of_a_point():
    score = TwoMoonsDensity(0.1).score([[0.0, 1e4]])  # the nearest point is (0, 1)
    np.testing.assert_allclose(score, [[0.0, (1 - 1e4) / 0.01]], rtol=1e-4, atol=1e-6)


def test_swiss_roll_far_away_has_the_density_of_the_nearest_point():
    noise, far = 0.2, 1e4
    density, end = datasets.swiss_roll(), 4.5 * np.pi / 5  # at (0, end) the spiral stops
    fall = (far - end) / (5 * noise**2)  # nats per radian of the angle, back from there
    peak = -0.5 * ((far - end) / noise) ** 2 - np.log(2 * np.pi * noise**2)
    truth = peak - np.log(3 * np.pi * fall)
    assert density.log_density([[0.0, far]])[0] - truth == pytest.approx(0, abs=1e-3)
    score = density.score([[0.0, far], [0.0, -far]])[:, 1]
    np.testing.assert_allclose(
        score, [(end - far) / 0.04, (far - 3.5 * np.pi / 5) / 0.04], rtol=1e-6
    )


@pytest.mark.parametrize("wide", [0.1, 0.7])
def test_rings_agree_with_a_sum_over_the_angle(wide):
    x = np.concatenate([[[0, 0], [1, 0], [0, 2.5]], 2 * np.random.RandomState(0).randn(15, 2)])
    angle = 2 * np.pi * np.arange(2000) / 2000  # the trapezoidal rule, exact for periodic ones
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    truth = 0.0
    for radius in (1, 2, 3):
        squares = np.square(x[:, None] - radius * circle).sum(axis=2)
        truth += np.exp(-squares / (2 * wide**2)).mean(axis=1) / (6 * np.pi * wide**2)
    density = RingsDensity(wide=wide)
    np.testing.assert_allclose(density.log_marginal(x), np.log(truth), rtol=1e-12, atol=1e-12)


def test_rings_marginal_integrates_the_other_columns_out():
    density = RingsDensity(wide=0.2, narrow=0.05, n_features=4)
    xy = np.random.RandomState(0).randn(4, 2)
    z = np.linspace(-8, 8, 65)  # standard deviations
    columns = np.stack(np.meshgrid(0.2 * z, 0.05 * z), axis=-1).reshape(-1, 2)
    for row in xy:
        rows = np.column_stack([np.tile(row, (len(columns), 1)), columns])
        integral = np.exp(density.log_density(rows)).sum() * 0.2 * 0.05 * (z[1] - z[0]) ** 2
        assert np.log(integral) == pytest.approx(density.log_marginal([row])[0], abs=1e-12)


def test_rings_in_ten_columns_are_a_plane_times_gaussians():
    density = datasets.rings_10d()
    variances = [0.01] + [1e-4] * 7
    x = density.sample(50, random_state=0)
    x[:10, 2:] = 0  # the slice
    others = GaussianDensity(np.diag(variances))
    truth = density.log_marginal(x[:, :2]) + others.log_density(x[:, 2:])
    np.testing.assert_allclose(density.log_density(x), truth, rtol=1e-13)
    np.testing.assert_allclose(density.score(x)[:, 2:], others.score(x[:, 2:]), rtol=1e-13)
    plane = RingsDensity(n_features=2)
    assert plane.entropy == pytest.approx(2.648949, abs=1e-6)
    assert density.entropy == pytest.approx(
        plane.entropy + gaussian_entropy(np.diag(variances)), abs=1e-12
    )
    np.testing.assert_allclose(plane.score(x[:, :2]), density.score(x)[:, :2], rtol=1e-13)


def test_a_ring_of_radius_zero_is_a_gaussian():
    x = np.random.RandomState(0).randn(20, 3)
    ring, gaussian = RingsDensity([0.0], 0.5, n_features=3), GaussianDensity(0.25 * np.eye(3))
    np.testing.assert_allclose(ring.log_density(x), gaussian.log_density(x), rtol=1e-13)
    np.testing.assert_allclose(ring.score(x), gaussian.score(x), rtol=1e-13)
    assert ring.entropy == pytest.approx(gaussian.entropy, abs=1e-12)


def test_rings_at_the_center_and_far_out():
    density = datasets.rings_10d()
    np.testing.assert_array_equal(density.score(np.zeros((1, 10))), 0)
    center = np.log(np.exp(-0.5 * np.square([10, 20, 30])).mean() / (2 * np.pi * 0.01))
    assert density.log_marginal([[0.0, 0.0]])[0] == pytest.approx(center, rel=1e-13)
    far = 10.0 ** np.arange(3, 301, 9)
    for direction in (np.eye(10)[0], -np.eye(10)[1], np.eye(10)[9], np.ones(10)):
        x = far[:, None] * direction
        score = density.score(x)
        length = np.maximum(1, np.hypot(x[:, 0], x[:, 1]))
        to_ring = x[:, 0] * (1 - 3 / length)  # from there only the outer ring matters
        np.testing.assert_allclose(score[:, 0], -100 * to_ring, rtol=1e-8)
        np.testing.assert_allclose(score[:, 9], -1e4 * x[:, 9], rtol=1e-13)
    top = np.full((1, 10), np.finfo(float).max)
    assert density.log_density(top) == -np.inf and (density.score(top) == -np.inf).all()


def test_checkerboard_cells():
    x = [[0.5, 0.5], [0.5, 2.5], [-0.5, 0.5], [-0.5, -0.5], [-4, -4], [4, 0], [5, 5], [0, 0]]
    inside = np.array([True, False, False, True, True, False, False, True])
    log_density, score = Checkerboard().log_density(x), Checkerboard().score(x)
    np.testing.assert_array_equal(log_density, np.where(inside, -np.log(32), -np.inf))
    np.testing.assert_array_equal(score[inside], 0)
    assert np.isnan(score[~inside]).all()


# -- what holds for all ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANAR)
def test_density_integrates_to_one_and_gives_the_entropy(name):
    density = ALL[name]()
    x, area = grid(name)
    log_density = density.log_density(x)
    p = np.exp(log_density)
    assert p.sum() * area == pytest.approx(1, abs=1e-8)
    seen = p > 0
    assert -(p[seen] * log_density[seen]).sum() * area == pytest.approx(density.entropy, abs=1e-7)


@pytest.mark.parametrize("name", SMOOTH)
def test_score_is_the_gradient(name):
    density = SMOOTH[name]()
    near = density.sample(12, random_state=0)
    x = np.concatenate([near, near + np.random.RandomState(1).randn(*near.shape)])
    step = 1e-5 * np.eye(density.n_features)
    truth = np.stack(
        [(density.log_density(x + h) - density.log_density(x - h)) / 2e-5 for h in step], axis=1
    )
    np.testing.assert_allclose(density.score(x), truth, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_samples_come_from_the_density(name):
    density = ALL[name]()
    x = density.sample(20_000, random_state=0)
    assert x.shape == (20_000, density.n_features)
    assert x.dtype == np.float64
    log_density = density.log_density(x)
    assert np.isfinite(log_density).all()
    if name == "checkerboard":
        return
    if density.entropy is not None:
        assert_mean(-log_density, density.entropy, largest_stderr=0.02)
    score = density.score(x)
    for j in range(density.n_features):  # Stein: E[score_j] = 0, E[x_j score_j] = -1
        assert_mean(score[:, j], 0, largest_stderr=0.02 * score.std())
        assert_mean(x[:, j] * score[:, j], -1, largest_stderr=0.45)


@pytest.mark.parametrize("name", SMOOTH)
def test_far_rows_are_never_nan(name):
    density = SMOOTH[name]()
    d, far = density.n_features, 10.0 ** np.arange(3, 301, 9)
    for direction in (np.ones(d), -np.eye(d)[0], np.eye(d)[-1]):
        log_density = density.log_density(far[:, None] * direction)
        finite = far < (
            np.inf if name in ("own", "ica") else 1e150
        )  # the others' tails are squares
        assert np.isfinite(log_density[finite]).all() and (log_density[~finite] == -np.inf).all()
        assert (np.diff(log_density[finite]) < 0).all()
        score = density.score(far[:, None] * direction)
        assert np.isfinite(score).all() and (score @ direction < 0).all()


def test_the_wider_component_rules_far_away():
    density = GaussianMixtureDensity([[0.0, 0.0], [9.0, 0.0]], [0.5, 2.0], [0.9, 0.1])
    x = [[-1e160, 0.0], [1e160, 1e300], [3e150, -1e150]]
    np.testing.assert_allclose(density.log_density(x), [-np.inf, -np.inf, -1.25e300], rtol=1e-13)
    np.testing.assert_allclose(density.score(x), -np.array(x) / 4, rtol=1e-13)


def test_sample_moments():
    x = GaussianDensity(COV, [1.0, -2.0]).sample(20_000, random_state=1) - [1.0, -2.0]
    assert_mean(x[:, 0] * x[:, 1], 0.6, largest_stderr=0.01)
    assert_mean(x[:, 0] ** 2, 2.0, largest_stderr=0.03)
    mixture = SMOOTH["mixture"]().sample(20_000, random_state=1)
    assert_mean(mixture[:, 0], 0.7 * 2, largest_stderr=0.02)
    assert_mean(mixture[:, 1], 0.3 - 0.7, largest_stderr=0.02)
    moons = datasets.two_moons().sample(20_000, random_state=1)
    assert_mean(moons[:, 0], 0.5, largest_stderr=0.01)
    assert_mean(moons[:, 1], 0.25, largest_stderr=0.01)
    assert_mean(moons[:, 0] ** 2, 0.5 * (0.5 + 1.5) + 0.01, largest_stderr=0.01)
    roll = datasets.swiss_roll().sample(20_000, random_state=1)
    assert_mean(roll[:, 0], 0.4, largest_stderr=0.02)  # integrals of t cos t and t sin t
    assert_mean(roll[:, 1], 2 / (15 * np.pi), largest_stderr=0.02)
    square = (4.5**3 - 1.5**3) * np.pi**2 / (9 * 25) + 2 * 0.04
    assert_mean(np.square(roll).sum(axis=1), square, largest_stderr=0.02)
    rings = datasets.rings_10d().sample(30_000, random_state=1)
    length = np.hypot(rings[:, 0], rings[:, 1])
    for radius, mean in [(1, 1.00501), (2, 2.00250), (3, 3.00167)]:
        assert rice_mean(radius, 0.1) == pytest.approx(mean, abs=6e-6)
        here = np.abs(length - radius) < 0.5
        assert_mean(here.astype(float), 1 / 3, largest_stderr=0.003)
        assert_mean(length[here], rice_mean(radius, 0.1), largest_stderr=0.0011)
        assert_mean(np.square(length[here]), radius**2 + 0.02, largest_stderr=0.007)
    for column, variance in zip(rings[:, 2:].T, [0.01] + [1e-4] * 7, strict=True):
        assert_variance(column, variance, largest_stderr=0.009)
    cells = np.floor(Checkerboard().sample(20_000, random_state=1) / 2)
    for corner in np.unique(cells, axis=0):
        assert_mean((cells == corner).all(axis=1).astype(float), 1 / 8, largest_stderr=0.003)


@pytest.mark.parametrize("name", ALL)
def test_samples_repeat_and_leave_the_global_generator_alone(name):
    density = ALL[name]()
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = density.sample(5, random_state=7)
    np.testing.assert_array_equal(first, density.sample(5, np.random.RandomState(7)))
    assert not np.array_equal(first, density.sample(5, random_state=8))
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("name", ALL)
def test_a_row_does_not_depend_on_its_block(name, monkeypatch):
    density = ALL[name]()
    x = density.sample(50, random_state=0)
    log_density, score = density.log_density(x), density.score(x)
    monkeypatch.setattr(datasets._base, "BLOCK_VALUES", 400)
    np.testing.assert_allclose(density.log_density(x), log_density, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(density.score(x), score, rtol=1e-12, atol=1e-10)


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_rows_and_counts_are_checked(name):
    density = ALL[name]()
    d = density.n_features
    for read in (density.log_density, density.score):
        with pytest.raises(ValueError, match=f"X must have {d} columns, got {d + 1}"):
            read(np.zeros((1, d + 1)))
        with pytest.raises(ValueError, match="X contains NaN"):
            read(np.full((2, d), np.nan))
    with pytest.raises(ValueError, match=r"n must be an integer >= 1, got 0\."):
        density.sample(0)
    with pytest.raises(TypeError, match=r"n must be an integer >= 1, got 2\.5"):
        density.sample(2.5)
    with pytest.raises(ValueError, match="random_state must be an int .* got 'a'"):
        density.sample(1, "a")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GaussianDensity([1.0, 2.0]), r"shape \(d, d\), got \(2,\)"),
        (lambda: GaussianDensity([[1.0, 2.0], [2.0, 1.0]]), "positive definite, got .* -1"),
        (lambda: GaussianDensity([[1.0, 0.5], [0.0, 1.0]]), "symmetric, got .* 0.5"),
        (lambda: GaussianDensity(np.eye(2), [1.0]), r"mean must have shape \(2,\), got \(1,\)"),
        (lambda: GaussianDensity([[np.nan]]), "cov must be finite, got 1"),
        (lambda: GaussianMixtureDensity([0.0], 1.0), r"means must have shape \(k, d\), got \(1,\)"),
        (lambda: GaussianMixtureDensity([[0.0]], 0.0), "scales must be > 0, got 0"),
        (lambda: GaussianMixtureDensity([[0.0]], [1, 2]), r"scales must .*got \(2,\)"),
        (lambda: GaussianMixtureDensity([[0.0]], 1, [0.9]), "weights must sum to 1, got 0.9"),
        (lambda: GaussianMixtureDensity([[0.0]] * 2, 1, [-1, 2]), "weights must be > 0, got -1"),
        (lambda: GaussianMixtureDensity([[0.0]], 1, [0.5, 0.5]), r"weights .*got \(2,\)"),
        (lambda: TwoMoonsDensity(0.0), "noise must be .*> 0, got 0.0"),
        (lambda: datasets.swiss_roll(-0.1), "noise must be .*> 0, got -0.1"),
        (lambda: SwissRollDensity(np.inf), "noise must be .*got inf"),
        (lambda: RingsDensity([]), r"radii must have shape \(k,\), got \(0,\)"),
        (lambda: RingsDensity([1, -2]), "radii must be >= 0, got -2"),
        (lambda: RingsDensity([np.inf]), "radii must be finite, got 1"),
        (lambda: RingsDensity(wide=0), "wide must be a number > 0, got 0"),
        (lambda: RingsDensity(narrow=-0.5), "narrow must be a number > 0, got -0.5"),
        (lambda: RingsDensity(n_features=1), "n_features must be an integer >= 2, got 1"),
        (lambda: datasets.rings_10d().log_marginal([[0.0]]), "XY must have 2 columns, got 1"),
        (lambda: load_novelty("mnist"), r"\['breast_cancer', 'digits', 'iris', 'wine'\].*'mnist'"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, n_normal, n_novel, d",
    [
        ("breast_cancer", 357, 212, 30),
        ("wine", 130, 48, 13),
        ("iris", 100, 50, 4),
        ("digits", 1623, 174, 64),
    ],
)
def test_load_novelty(name, n_normal, n_novel, d):
    X_train, X_test, is_novelty = load_novelty(name)
    assert X_train.shape == (n_normal // 2, d)
    assert X_test.shape == (n_normal - n_normal // 2 + n_novel, d)
    assert is_novelty.dtype == bool
    assert is_novelty.sum() == n_novel
    np.testing.assert_array_equal(X_train, load_novelty(name)[0])
    assert not np.array_equal(X_train, load_novelty(name, random_state=1)[0])


def test_load_novelty_labels_the_right_rows():
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    X_train, X_test, is_novelty = load_novelty("iris")
    np.testing.assert_array_equal(np.sort(X_test[is_novelty], 0), np.sort(X[y == 2], 0))
    normal = np.concatenate([X_train, X_test[~is_novelty]])
    np.testing.assert_array_equal(np.sort(normal, 0), np.sort(X[y != 2], 0))


def test_read_npz_table(tmp_path):
    X = np.arange(6, dtype=np.int32).reshape(3, 2)
    np.savez(tmp_path / "a.npz", X=X, y=np.array([[0.0], [1.0], [1.0]]))
    got, y = read_npz_table(tmp_path / "a.npz")
    assert got.dtype == np.float64
    assert y.dtype.kind == "i"
    np.testing.assert_array_equal(got, X)
    np.testing.assert_array_equal(y, [0, 1, 1])
    np.savez_compressed(tmp_path / "b.npz", X=X)
    assert read_npz_table(str(tmp_path / "b.npz"))[1] is None


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"data": np.eye(2)}, r"'X', got \['data'\]"),
        ({"X": np.array([[1.0, np.nan], [2.0, 3.0], [np.inf, 0.0]])}, "got 2 of 3 rows"),
        ({"X": np.zeros(3)}, r"got shape \(3,\)"),
        ({"X": np.array([["a", "b"]])}, "numeric table"),
        ({"X": np.array([[None, 1]], dtype=object)}, "plain numeric arrays"),
        ({"X": np.eye(2), "y": np.zeros(3)}, r"y must have shape \(2,\), got \(3,\)"),
        ({"X": np.eye(2), "y": np.array([0.0, 0.5])}, "y must hold integers, got float64"),
    ],
)
def test_read_npz_table_refuses(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_npz_table(tmp_path / "a.npz")


def test_read_npz_table_wants_an_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got '.*none\.npz'"):
        read_npz_table(tmp_path / "none.npz")
    np.save(tmp_path / "a.npy", np.eye(2))
    with pytest.raises(ValueError, match=r"\.npz archive, got '.*a\.npy'"):
        read_npz_table(tmp_path / "a.npy")
