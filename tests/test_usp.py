"""USPDensity: points in the units of X, boxes, and what it learns of two modes."""

import types

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skebm import EnergyDensity, USPDensity
from skebm.bases import Gaussian, Uniform
from skebm.bases.uniform import UniformBase
from skebm.datasets import two_modes_1d
from skebm.energies import MLP, Conv, energy_and_score
from skebm.energies.bounded import Bounded, bounded_by
from skebm.exceptions import SupportWarning
from skebm.objectives import HeldOut, PartitionLikelihood
from skebm.samplers import SupportInfo, SupportPartition
from skebm.train.loop import _ran_away
from skebm.train.state import Best
from tests import cases
from tests.generators import gen, randomized

METHODS = ["ps-usp", "usp", "importance"]

pytestmark = cases.QUIET


def moves(**params):
    """How few points are moved."""
    return SupportPartition(**{"n_active": 20, "n_inner": 3, **params})


def tiny(**params):
    return cases.tiny("USPDensity", **{"n_points": 60, "repulsion": moves(), **params})


def table(n=150, seed=0):
    """Rows of X > 0 around (3, 1150)."""
    return cases.table(n, seed) * [1.0, 1.25] + [0.0, 1375.0]


# -- points ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["gaussian", "uniform"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_points_and_weights(method, base):
    est = tiny(method=method, base=base).fit(table())
    assert est.support_points_.shape == (60, 2) and est.support_points_.dtype == np.float64
    assert est.support_weights_.shape == (60,) and (est.support_weights_ >= 0).all()
    assert est.support_weights_.sum() == pytest.approx(1, abs=1e-12)
    info = est.support_info_
    assert isinstance(info, SupportInfo)
    assert info.ess == pytest.approx(1 / (est.support_weights_**2).sum())
    assert info.largest_weight == pytest.approx(est.support_weights_.max())
    assert np.isfinite(est.score_samples(table(seed=1))).all() and est.sample(5).shape == (5, 2)
    importance = method == "importance"
    for value in (info.violation_rate, info.coverage, est.epsilon_):
        assert np.isnan(value) == importance
    assert np.isinf(est.domain_).all() == (importance and base != "uniform")
    named = {"loss", "data_energy", "ess_share"}
    if not importance:
        named |= {"violation_rate", "coverage", "largest_weight"}
    assert named <= set(est.history_[-1])


def test_weights_are_those_of_eq_10_under_the_fitted_model():
    est = tiny(n_points=40, learning_rate=0.05).fit(table())
    log_weight = est.score_samples(est.support_points_)  # log p~ up to a constant
    expected = np.exp(log_weight - log_weight.max())
    np.testing.assert_allclose(est.support_weights_, expected / expected.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("domain", "init"),
    [
        ((-50.0, 1500.0), "data"),
        (([0.0, 990.0], [9.0, 1400.0]), "data"),
        (np.array([[0, 900], [9, 2000]]), "uniform"),
        ([0, [9, 1e4]], "uniform"),
    ],
    ids=["numbers", "per column", "array", "both"],
)
@pytest.mark.parametrize("base", ["gaussian", "uniform"])
def test_the_domain_bounds_the_points(base, domain, init):
    est = tiny(domain=domain, init=init, base=base, repulsion=moves(step_repel=9.0)).fit(table())
    low, high = (np.broadcast_to(np.asarray(c, dtype=float), 2) for c in domain)
    slack = 1e-5 * (high - low)
    assert (est.support_points_ >= low - slack).all()
    assert (est.support_points_ <= high + slack).all()
    for got, asked in zip(est.domain_, (low, high), strict=True):
        np.testing.assert_allclose(got, asked, rtol=1e-5, atol=slack.max())
    if base == "uniform":
        corners = torch.stack([est.base_.low, est.base_.high])
        np.testing.assert_allclose(est.density_.transform.inverse(corners), est.domain_, atol=1e-3)
        shoulder = Uniform().shoulder * (est.base_.high - est.base_.low)
        torch.testing.assert_close(est.base_.shoulder, shoulder)


def test_without_a_domain_the_box_is_the_widened_range():
    X = table()
    est = tiny().fit(X)
    span = X.max(0) - X.min(0)
    np.testing.assert_allclose(est.domain_[0], X.min(0) - span / 4, rtol=1e-5)
    np.testing.assert_allclose(est.domain_[1], X.max(0) + span / 4, rtol=1e-5)


def test_points_start_at_the_places_given():
    """None moves: a jitter of a tenth of epsilon is left, in the units of X."""
    places = np.array([[2.0, 1100.0], [4.0, 1200.0], [6.0, 1050.0]])
    est = tiny(init=places, repulsion=moves(n_inner=0), epsilon=0.1).fit(table())
    apart = np.abs(est.support_points_[:, None] - places) / table().std(0)
    nearest = apart.max(2).argmin(1)
    assert apart.max(2).min(1).max() < 5 * 0.01 and set(nearest) == {0, 1, 2}


@pytest.mark.parametrize("start", ["data", "uniform"])
def test_points_start_at_the_rows_or_everywhere(start):
    X = table()
    est = tiny(init=start, repulsion=moves(n_inner=0), epsilon=1e-3, n_points=400).fit(X)
    apart = np.abs(est.support_points_[:, None] - X) / X.std(0)
    at_rows = apart.max(2).min(1) < 1e-3
    assert at_rows.all() if start == "data" else at_rows.mean() < 0.05
    if start == "uniform":
        (low, high), points = est.domain_, est.support_points_
        share = (points < (low + high) / 2).mean(0)
        assert np.abs(share - 0.5).max() < 4 * 0.5 / 20


def test_while_points_spread_patience_is_doubled():
    """Likelihoods fall before points come to where the mass has gone."""
    params = {"base": "uniform", "n_iter_no_change": 4, "validation_fraction": 0.3, "tol": 9.0}
    assert tiny(method="ps-usp", max_iter=150, **params).fit(table()).n_iter_ == 150
    assert tiny(method="importance", max_iter=150, **params).fit(table()).n_iter_ < 150


@pytest.mark.parametrize(("base", "gone"), [(None, False), ("uniform", False), ("gaussian", True)])
def test_only_a_base_that_is_not_flat_is_gone_back_to(base, gone):
    fallbacks = {"uniform": Uniform(), "gaussian": Gaussian()}
    fitted = None if base is None else fallbacks[base].fit(torch.randn(9, 2), None, gen(0))
    best = Best(0, HeldOut(-1.0, 0.0, 0.1, 100.0), {})
    state = types.SimpleNamespace(best=best, model=types.SimpleNamespace(base=fitted))
    assert _ran_away(HeldOut(-9.0, -8.0, 0.1, 100.0), state) is gone


def test_points_may_go_to_the_shoulders_of_a_uniform_base():
    est = tiny(method="ps-usp", base="uniform", domain=([0, 1000], [6, 1300]))
    ones = torch.ones(2)
    low, high = est._objective((-ones, ones), None, no_run()).box
    assert (low < -1.03).all() and (high > 1.03).all()
    points = est.fit(table()).support_points_
    assert (points >= [0, 1000]).all() and (points <= [6, 1300]).all()
    low, high = est.set_params(base="gaussian")._objective((-ones, ones), None, no_run()).box
    assert torch.equal(low, -ones) and torch.equal(high, ones)


def test_points_of_images_have_weight_over_a_uniform_base():
    """In its shoulders, where many pixels would be at once, one image had nearly all."""
    X = load_digits().data[:300]
    params = {"method": "ps-usp", "image_shape": (1, 8, 8), "energy": Conv((4,)), "n_points": 100}
    params |= {"max_iter": 50, "validation_fraction": 0, "data_noise": 0.0, "random_state": 0}
    est = USPDensity(base="uniform", log_partition=None, **params).fit(X)
    assert est.support_info_.ess > 50
    assert est.density_.transform.forward(est.support_points_).abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("params", "n_active"),
    [({"n_points": 500}, 250), ({}, 1000), ({"repulsion": SupportPartition(n_active=7)}, 7)],
)
def test_half_of_the_points_move_by_default(params, n_active):
    found = USPDensity(method="ps-usp", **params)._objective(None, None, no_run()).partition
    assert found.n_active == n_active
    assert found.n_inner == (50 if n_active == 7 else 4)


@pytest.mark.parametrize(
    ("params", "n_restarts"),
    [
        ({"base": "uniform"}, 20),
        ({"base": None, "n_points": 500}, 5),
        ({"base": None, "image_shape": (1, 8, 8)}, 0),
        ({"base": "union"}, 0),
        ({"base": "uniform", "repulsion": SupportPartition()}, 0),
    ],
)
def test_by_default_points_restart_where_no_base_is_near(params, n_restarts):
    box = torch.zeros(2), torch.ones(2)
    found = USPDensity(method="ps-usp", **params)._objective(box, None, no_run())
    assert found.n_restarts == n_restarts


def no_run():
    """Return what an objective reads of a fit."""
    return types.SimpleNamespace(optimization=None, device="cpu")


def test_only_the_stochastic_method_leaves_points_at_rest():
    places = np.random.RandomState(0).uniform([0, 990], [9, 1300], (60, 2))
    params = {"init": places, "max_iter": 1, "epsilon": 1e-3}
    params |= {"repulsion": moves(step_maximize=0.5), "energy": MLP((8,), output="quadratic")}
    shares = {}
    for method in ("ps-usp", "usp"):
        est = tiny(method=method, **params).fit(table())
        apart = np.abs(est.support_points_[:, None] - places) / table().std(0)
        shares[method] = (apart.max(2).min(1) > 6e-4).mean()  # beyond the jitter
    assert shares["usp"] > 0.9 and shares["ps-usp"] == pytest.approx(1 / 3, abs=0.05)


# -- outside the box -------------------------------------------------------------------------------

DIRECTIONS = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (-1.0, 0.3)]


@pytest.fixture(scope="module")
def boxed():
    """Rows that crowd toward the borders: the energy falls outward, and would go on to."""
    X = np.random.RandomState(0).beta(0.4, 0.4, size=(500, 2))
    params = {"method": "importance", "base": "uniform", "n_points": 400, "max_iter": 60}
    return tiny(**params, learning_rate=0.01, energy=MLP((16,)), log_partition="auto").fit(X)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_density_falls_along_rays_that_leave_the_box(boxed, direction):
    low, high = (c.numpy() for c in (boxed.base_.low, boxed.base_.high))
    z = np.array(direction)
    walls = np.where(z > 0, high, low)
    exit_at = min(w / c for w, c in zip(walls, z, strict=True) if c)  # from the origin
    lengths = exit_at * np.r_[1.0, 1 + np.geomspace(1e-2, 1e5, 40)]
    inverse = boxed.density_.transform.inverse
    rays = inverse(torch.from_numpy(np.outer(lengths, z)))
    values = boxed.score_samples(rays)
    assert np.isfinite(values).all()
    leaving = values[1:]  # where one column is outside and others are not, E still varies
    if (z == 0).any():
        assert (np.diff(values) < 0).all()
    assert (np.diff(leaving[20:]) < 0).all() and leaving[-1] < -1e8
    corner = np.where(z > 0, high + 0.01, low - 0.01)
    diagonal = inverse(torch.from_numpy(corner + np.outer(lengths, np.sign(z))))
    if (z != 0).all():  # beyond a corner E is that of the corner
        assert (np.diff(boxed.score_samples(diagonal)) < 0).all()


def test_the_energy_alone_would_have_grown_the_density_outside(boxed):
    """Somewhere the trained module, without its box, goes on falling."""
    assert isinstance(boxed.energy_, Bounded)
    inner, edge = boxed.energy_.module, boxed.base_.high * torch.tensor(DIRECTIONS).sign()
    with torch.no_grad():
        assert (inner(3 * edge) - inner(edge)).min() < -1
        corner = (edge != 0).all(1)
        assert torch.equal(boxed.energy_(3 * edge)[corner], boxed.energy_(1.5 * edge)[corner])


def test_with_a_box_the_density_integrates_to_one(boxed):
    axis = np.linspace(-2, 3, 1200)
    cells = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(boxed.score_samples(cells)).sum() * (axis[1] - axis[0]) ** 2
    assert mass == pytest.approx(1, abs=1e-3)


def test_a_bounded_energy_is_the_energy_inside_and_flat_outside():
    low, high = torch.tensor([-1.0, -0.5]), torch.tensor([0.5, 1.0])
    inner = randomized(MLP((8,), n_frequencies=4).build((2,), gen(0)), 1.0)
    energy = Bounded(inner, low, high)
    x = torch.randn(200, 2, generator=gen(1))
    inside = ((x > low) & (x < high)).all(1)
    value, score = energy_and_score(energy, x)
    torch.testing.assert_close(value[inside], inner(x[inside]))
    assert inside.any() and not score[(x > high).all(1) | (x < low).all(1)].any()
    assert bounded_by(inner, UniformBase(low, high, high), x).high is high


def test_a_warm_start_goes_on_with_its_points():
    X = table()
    est = tiny(warm_start=True).fit(X)
    first = est.support_points_
    second = est.fit(X).support_points_
    assert not np.array_equal(first, second)
    est.set_params(repulsion__n_inner=0)
    np.testing.assert_array_equal(est.fit(X).support_points_, second)  # not drawn anew


# -- what is learnt --------------------------------------------------------------------------------


AXIS = np.linspace(-2, 2, 8001)[:, None]


def gap(est):
    """Nats per row that the model, normalized on a grid, is short of the density."""
    density = two_modes_1d()
    new, scores = density.sample(4000, random_state=1), est.score_samples(AXIS)
    log_z = np.logaddexp.reduce(scores) + np.log(AXIS[1, 0] - AXIS[0, 0])
    return float((density.log_density(new) - est.score_samples(new)).mean() + log_z)


def masses(est):
    """Of the left and the right half of the line."""
    mass = np.exp(est.score_samples(AXIS)) * (AXIS[1] - AXIS[0])
    return mass[AXIS[:, 0] < 0].sum(), mass[AXIS[:, 0] >= 0].sum()


def two_modes(**params):
    X = two_modes_1d().sample(1000, random_state=0)
    defaults = {
        "base": "uniform",
        "domain": (-1.0, 1.0),
        "energy": MLP((32, 32)),
        "batch_size": 200,
        "n_iter_no_change": None,
        "random_state": 0,
    }
    params = {**defaults, **params}
    if params.get("init") == "right":
        params["init"] = X[X[:, 0] > 0]
    return USPDensity(**params).fit(X)


def test_importance_from_the_box_learns_two_modes():
    """Fig. 1c of the paper: uniform points need no chain to cross the gap."""
    est = two_modes(method="importance", n_points=500, max_iter=100)
    assert est.log_partition_.method == "quadrature"
    assert gap(est) == pytest.approx(0, abs=0.05)
    assert masses(est) == pytest.approx((0.5, 0.5), abs=0.05)


def test_half_of_the_box_does_not_do():
    """The same but for points on the right alone: the left mode's energy falls unchecked."""
    whole = UniformBase.sample

    def half(self, n, rng):
        x = whole(self, n, rng)
        return torch.where(x < 0, -x, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UniformBase, "sample", half)
        est = two_modes(method="importance", n_points=500, max_iter=100, validation_fraction=0)
    assert gap(est) > 0.3


CROWDED = SupportPartition(epsilon=0.3, n_active=75, n_inner=10, step_repel=0.06)
FROM_ONE = {"n_points": 150, "max_iter": 150}


def crowded(**params):
    return two_modes(method="ps-usp", init="right", epsilon=0.3, **FROM_ONE, **params)


def test_points_from_one_mode_find_the_other():
    """Fig. 4's stress test on the line. Points that cannot keep their distance fill the box."""
    est = crowded(repulsion=CROWDED)
    assert np.mean(est.support_points_ < 0) == pytest.approx(0.5, abs=0.1)
    assert masses(est) == pytest.approx((0.5, 0.5), abs=0.1)
    assert gap(est) < 0.15


def test_with_weights_by_volume_they_do_too():
    X = two_modes_1d().sample(1000, random_state=0)
    start = torch.tensor((X[X > 0, None] - X.mean()) / X.std())
    objective = PartitionLikelihood(150, CROWDED, start=start, weights="knn")
    params = {"base": "uniform", "energy": MLP((32, 32)), "batch_size": 200, "random_state": 1}
    params |= {"learning_rate": 8e-3, "max_iter": 150, "n_iter_no_change": None}
    est = EnergyDensity(objective=objective, **params).fit(X)
    assert masses(est) == pytest.approx((0.5, 0.5), abs=0.1)
    assert gap(est) < 0.15


def test_points_that_stay_in_one_mode_do_not_do():
    est = crowded(repulsion=SupportPartition(n_active=75, n_inner=0))
    assert (est.support_points_ > 0).all() and not est.energy_kept_  # the base was likelier
    assert est.support_info_.coverage < 0.7
    assert gap(est) > 0.5


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::skebm.exceptions.DataDegeneracyWarning")
def test_images_live_in_the_unit_box_and_sum_five_points_per_row(monkeypatch):
    X, seen = load_digits().data[:200], []
    step = PartitionLikelihood.step

    def watched(self, *args):
        seen.append(self.n_integration)
        return step(self, *args)

    monkeypatch.setattr(PartitionLikelihood, "step", watched)
    est = tiny(
        base=None,
        energy=Conv((4, 8)),
        image_shape=(1, 8, 8),
        n_points=300,
        repulsion=moves(n_active=30),
        batch_size=16,
        max_iter=4,
        log_partition="auto",
    ).fit(X)
    assert seen == [80] * 4 and est.log_partition_ is None
    np.testing.assert_allclose(est.domain_, [np.zeros(64), np.full(64, 16.0)], atol=1e-5)
    points = est.support_points_
    assert points.shape == (300, 64) and points.min() >= -1e-5 and points.max() <= 16 + 1e-5
    assert np.isfinite(est.score_samples(X)).all() and est.sample(3).shape == (3, 64)
    assert 0 < est.support_info_.coverage <= 1
    est.set_params(n_integration=50).fit(X)
    assert seen[4:] == [50] * 4


def test_rows_outside_the_domain_are_told():
    with pytest.warns(
        SupportWarning, match=r"domain must contain the rows of X, got 100 % outside"
    ):
        tiny(domain=(-5.0, -4.0)).fit(table())


def test_images_without_a_base_are_drawn_from_the_points():
    X = np.random.RandomState(0).uniform(0, 16, (40, 64))
    est = tiny(base=None, image_shape=(1, 8, 8), energy="conv", data_noise=0.0).fit(X)
    rows, points = est.sample(30, random_state=0), est.support_points_
    gaps = np.abs(rows[:, None] - points).max(2).min(1)
    assert gaps.max() < 1e-4


@pytest.mark.parametrize(
    ("params", "n"), [({}, 500), ({"base": "uniform"}, 2000), ({"method": "ps-usp"}, 2000)]
)
def test_fewer_points_are_enough_where_they_are_drawn_afresh_near_the_rows(params, n):
    est = USPDensity(max_iter=1, repulsion=moves(), random_state=0, **params)
    assert len(est.fit(table()).support_points_) == n


def test_without_a_base_importance_likelihood_says_what_it_needs():
    with pytest.raises(ValueError, match="base must be a normalized density .* got None"):
        USPDensity(base=None, max_iter=1).fit(table())
