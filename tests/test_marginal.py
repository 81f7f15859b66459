"""Columns bent to normal ones: exact inverses and slopes, tails, units, and when it is done."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, lognorm, norm
from scipy.stats import t as student

from skebm import NCEDensity, ScoreMatchingDensity, USPDensity
from skebm.bases import Gaussian, Kernel, Mixture, TorchDistribution
from skebm.data import Affine, Marginal
from skebm.data._spline import FEW, MOST_STEPS, Splines
from skebm.estimators import _standardization as standardization
from skebm.exceptions import DataDegeneracyWarning
from tests.cases import QUIET

pytestmark = QUIET


def splines(d=4, n_knots=12, seed=0):
    """Splines of 2 to n_knots knots, in columns that are padded."""
    rng = np.random.RandomState(seed)
    parts = np.empty((3, d, n_knots))
    for j in range(d):
        k = rng.randint(2, n_knots + 1)
        parts[:2, j, :k], parts[2, j, :k] = np.sort(rng.normal(size=(2, k))), rng.gamma(2, size=k)
        parts[:, j, k:] = parts[:, j, k - 1 : k]  # the last knot again
    return Splines(*parts, np.r_[np.full(d - 1, 2.0), 1e30]), parts


def skewed(n=2000, seed=0):
    """Rows (n, 3): a lognormal, one of two groups, one bent by the first."""
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(n, 3))
    group = 4 * (rng.uniform(size=n) < 0.4)
    return np.column_stack([np.exp(1.5 * z[:, 0]), group + 0.5 * z[:, 1], z[:, 0] + 0.5 * z[:, 2]])


# -- splines ---------------------------------------------------------------------------------------


def test_splines_have_their_knots_and_slopes():
    spline, (x, y, slopes) = splines()
    at = torch.from_numpy(x)
    np.testing.assert_allclose(spline.forward(at), y, rtol=1e-12)
    np.testing.assert_allclose(spline.log_slope(at).exp(), slopes, rtol=1e-9)


def test_splines_increase_and_invert_far_beyond_their_knots_too():
    spline, _ = splines()
    x = torch.sort(5 * torch.randn(4, 3000, dtype=torch.float64), 1).values
    x[:, 0], x[:, -1] = -1e15, 1e15
    y = spline.forward(x)
    assert (y.diff(dim=1) >= 0).all()
    torch.testing.assert_close(spline.inverse(y), x, rtol=1e-9, atol=1e-9)


def test_slopes_of_splines_are_derivatives():
    spline, _ = splines()
    x = 3 * torch.randn(4, 400, dtype=torch.float64)
    h = 1e-6
    slope = (spline.forward(x + h) - spline.forward(x - h)) / (2 * h)
    torch.testing.assert_close(spline.log_slope(x), slope.log(), rtol=1e-5, atol=1e-5)
    curve = (spline.log_slope(x + h) - spline.log_slope(x - h)) / (2 * h)
    off = (spline.slope_gradient(x) - curve).abs() / (1 + curve.abs())
    assert off.quantile(0.98) < 1e-5  # the others are next to a knot
    both = spline.value_and_log_slope(x)
    torch.testing.assert_close(both, (spline.forward(x), spline.log_slope(x)))


@pytest.mark.parametrize("n_knots", [12, 3000])
def test_many_values_are_found_as_few_are(n_knots):
    spline, _ = splines(n_knots=n_knots)
    x = 3 * torch.randn(4, FEW + 1, dtype=torch.float64)
    x[:, :3] = torch.tensor([0.0, 1e15, -1e15])
    assert (spline._by_x._table[1] <= MOST_STEPS) == (n_knots == 12)  # by a table, or searched for
    one_by_one = torch.cat([spline.forward(part) for part in x.split(500, 1)], 1)
    assert spline.forward(x).equal(one_by_one)


# -- the map ---------------------------------------------------------------------------------------


def test_columns_become_normal():
    X, fresh = skewed(5000), skewed(5000, seed=1)
    u = Marginal.from_table(X).forward(fresh)
    assert all(kstest(column, "norm").statistic < 0.04 for column in u.numpy().T)
    assert kstest(Affine.from_table(X).forward(fresh)[:, 0].numpy(), "norm").statistic > 0.2


def test_a_density_of_bent_columns_is_one_of_x():
    marginal = Marginal.from_table(skewed()[:, 1:2])
    x = np.linspace(-60, 60, 400_001)[:, None]
    u, log_slope = marginal.forward_and_log_slope(x)
    density = np.exp(norm.logpdf(u[:, 0].numpy()) + log_slope)
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1, abs=1e-4)


def test_the_inverse_is_exact_and_slopes_are_of_x():
    X = skewed()
    marginal = Marginal.from_table(X)
    u = marginal.forward(X, dtype=torch.float64)
    np.testing.assert_allclose(marginal.inverse(u), X, rtol=1e-9, atol=1e-9 * X.std())
    h = 1e-6 * X.std(0)
    ends = (marginal.forward(X + s * h, dtype=torch.float64).numpy() for s in (1, -1))
    slope = (next(ends) - next(ends)) / (2 * h)
    np.testing.assert_allclose(marginal.log_slope(X), np.log(slope), rtol=1e-4, atol=1e-4)
    both = marginal.forward_and_log_slope(X)
    torch.testing.assert_close(both[0], u)
    np.testing.assert_allclose(both[1], marginal.log_slope(X).sum(1))
    curve = (marginal.log_slope(X + h) - marginal.log_slope(X - h)) / (2 * h)
    off = np.abs(marginal.slope_gradient(X) - curve) * X.std(0)
    assert np.quantile(off, 0.98) < 1e-3


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
@settings(max_examples=200, deadline=None)
def test_every_number_has_a_place(value):
    marginal = (
        MARGINALS[0]
        if MARGINALS
        else MARGINALS.append(Marginal.from_table(skewed()[:, :1])) or MARGINALS[0]
    )
    x = np.array([[value]])
    u, log_slope = marginal.forward_and_log_slope(x)
    assert np.isfinite(u.numpy()).all() and np.isfinite(log_slope).all()
    assert np.isfinite(marginal.slope_gradient(x)).all() and np.isfinite(marginal.inverse(u)).all()
    assert abs(float(u)) < 1e3  # nats of a heavy tail, not hundreds


MARGINALS: list[Marginal] = []


@pytest.mark.parametrize("a", [1e-300, 1e-9, 3.0, 1e290])
def test_units_do_not_matter(a):
    X = skewed()
    one, two = Marginal.from_table(X), Marginal.from_table(a * X)
    torch.testing.assert_close(one.forward(X), two.forward(a * X), rtol=1e-5, atol=1e-5)
    volume = 3 * np.log(a)
    np.testing.assert_allclose(
        one.forward_and_log_slope(X)[1] - volume, two.forward_and_log_slope(a * X)[1], atol=1e-6
    )


def test_weights_are_repeats():
    X, counts = skewed(800), np.random.RandomState(0).randint(0, 4, size=800)
    weighted = Marginal.from_table(X, counts.astype(float))
    repeated = Marginal.from_table(np.repeat(X, counts, axis=0))
    for name, value in weighted.state().items():
        np.testing.assert_allclose(value, repeated.state()[name], rtol=1e-9, atol=1e-12)
    assert not np.allclose(weighted.knots[0, :3], Marginal.from_table(X).knots[0, :3])


def test_a_normal_column_stays_straight_and_few_rows_do():
    assert Marginal.from_table(np.random.RandomState(0).normal(size=(2000, 1))).is_straight
    few = Marginal.from_table(skewed(15))
    assert few.is_straight and not Marginal.from_table(skewed(400)).is_straight
    torch.testing.assert_close(
        few.forward(skewed()), Affine.from_table(skewed(15)).forward(skewed())
    )


def test_straight_columns_are_as_affine_ones():
    X = skewed()
    marginal = Marginal.from_table(X, straight=np.array([True, False, True]))
    affine = Affine.from_table(X)
    same = torch.isclose(marginal.forward(X), affine.forward(X), rtol=1e-6, atol=1e-6)
    assert same[:, [0, 2]].all() and not same[:, 1].all()
    assert np.abs(marginal.slope_gradient(X)[:, [0, 2]]).max() < 1e-20


def test_many_rows_are_read_in_part(monkeypatch):
    X = skewed(12_000)
    seen = []
    fitted = Marginal.from_table.__globals__["_fitted"]
    monkeypatch.setitem(
        Marginal.from_table.__globals__,
        "_fitted",
        lambda z, *of: seen.append(z.shape) or fitted(z, *of),
    )
    Marginal.from_table(X)
    assert seen == [(3, 10_000)]


def test_it_can_be_copied_pickled_and_packed():
    X = skewed()
    marginal = Marginal.from_table(X)
    for other in (
        copy.deepcopy(marginal),
        pickle.loads(pickle.dumps(marginal)),
        Marginal(**marginal.state()),
    ):
        assert other.forward(X).equal(marginal.forward(X))
    assert len(pickle.dumps(marginal)) < 20_000


# -- what heavy tails cost -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "most"),
    [(lognorm(3), 0.15), (student(1), 0.15), (norm(), 0.03)],
    ids=["s3", "t1", "n"],
)
def test_one_column_s_log_density_is_near_the_truth(truth, most):
    gaps = []
    for seed in range(4):
        draws = truth.rvs(size=6000, random_state=seed)[:, None]
        X, fresh = draws[:2000], draws[2000:]
        u, log_slope = Marginal.from_table(X).forward_and_log_slope(fresh)
        # with the tails that bases have
        u = u[:, 0].numpy()
        log_prob = np.logaddexp(norm.logpdf(u) + np.log(0.999), student(3).logpdf(u) + np.log(1e-3))
        gaps.append((truth.logpdf(fresh[:, 0]) - log_prob - log_slope).mean())
    assert -0.01 < np.mean(gaps) < most


# -- when ------------------------------------------------------------------------------------------


def chosen(X, cls=USPDensity, **params):
    est = cls(max_iter=2, random_state=0, **params)
    with warnings.catch_warnings():  # of few rows and dependent columns
        warnings.simplefilter("ignore", DataDegeneracyWarning)
        return type(est.fit(X).density_.transform).__name__


LINE = np.column_stack([skewed(), skewed()[:, :2].sum(1)])


@pytest.mark.parametrize(
    ("X", "params", "kind"),
    [
        (skewed(), {}, "Marginal"),
        (skewed(), {"standardize": "affine"}, "Affine"),
        (skewed(), {"standardize": True}, "Affine"),
        (np.random.RandomState(0).normal(size=(500, 2)), {}, "Affine"),
        (np.random.RandomState(0).normal(size=(500, 2)), {"standardize": "marginal"}, "Marginal"),
        (skewed(15), {}, "Affine"),
        (LINE, {}, "Affine"),  # bent columns are no sum
        (skewed(), {"validation_fraction": 0}, "Affine"),
        (skewed(), {"data_noise": 0.01}, "Affine"),
        (skewed(), {"base": "uniform"}, "Affine"),
        (skewed(), {"base": Kernel(bandwidth=0.3)}, "Affine"),
        (skewed(), {"base": "kernel"}, "Marginal"),
        (skewed(), {"method": "ps-usp", "n_points": 50}, "Affine"),
        (skewed(), {"cls": NCEDensity}, "Marginal"),
        (skewed(), {"cls": NCEDensity, "noise": "conditional", "noise_std": 0.2}, "Affine"),
        (skewed(), {"cls": NCEDensity, "base": None, "noise": "gaussian"}, "Affine"),
        (skewed(), {"cls": ScoreMatchingDensity}, "Marginal"),
    ],
)
def test_columns_are_bent_where_that_pays_and_nothing_was_given_for_straight_ones(X, params, kind):
    assert chosen(X, **params) == kind


def test_known_distributions_get_straight_columns():
    known = torch.distributions.Independent(torch.distributions.StudentT(3.0 * torch.ones(3)), 1)
    assert chosen(skewed(), base=TorchDistribution(known)) == "Affine"


def test_columns_with_noise_stay_straight():
    X = skewed()
    X[:, 1] = np.round(X[:, 1])
    with pytest.warns(DataDegeneracyWarning, match="repeated values"):
        est = USPDensity(max_iter=2, random_state=0, standardize="marginal").fit(X)
    straight = est.density_.transform.bend > 1e9
    assert straight.tolist() == [
        False,
        True,
        True,
    ]  # the last is a normal one and est.data_noise_[1] > 0


def test_the_choice_is_the_same_for_every_seed_and_base_and_a_warm_start_keeps_it():
    X = skewed(600)
    maps = [
        USPDensity(base=base, max_iter=2, random_state=seed).fit(X).density_.transform
        for base, seed in ((Mixture(2), 0), (Gaussian(), 5))
    ]
    assert maps[0].forward(X).equal(maps[1].forward(X))
    est = USPDensity(max_iter=2, warm_start=True, random_state=0).fit(X)
    first = est.density_.transform
    est.fit(np.random.RandomState(0).normal(size=(300, 3)))
    assert est.density_.transform.forward(X).equal(first.forward(X))
    with pytest.raises(ValueError, match=r"standardize must be that of the last fit.*'auto'"):
        est.set_params(standardize="affine").fit(X)


def test_the_decision_weighs_rows():
    """Rows of a Gaussian, and lognormal ones of no weight, or of all of it."""
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.normal(size=(400, 2)), np.exp(2 * rng.normal(size=(400, 2)))])
    for heavy, kind in ((0, "Affine"), (1, "Marginal")):
        weight = np.where(np.arange(800) // 400 == heavy, 1.0, 1e-9)
        est = USPDensity(max_iter=2, random_state=0).fit(X, sample_weight=weight)
        assert type(est.density_.transform).__name__ == kind


def decided(X, gains, monkeypatch):
    """What is decided where held-out rows gain this much, in turn."""
    calls = []

    def log_density(transform, rows, weight, out):
        calls.append(transform)
        return np.resize(gains, len(out)) * isinstance(transform, Marginal)

    monkeypatch.setattr(standardization, "_log_density", log_density)
    bent = standardization._gains(X, None, np.zeros(X.shape[1], bool))
    assert len(calls) == 2
    return bent


@pytest.mark.parametrize(
    ("gains", "bent"),
    [
        ([0.3], True),
        ([0.2], False),  # too little
        ([0.4 + 6.0, 0.4 - 6.0], False),  # within two standard errors
        ([0.4 + 1.0, 0.4 - 1.0], True),
        ([1e4] + 499 * [0.0], False),  # one row's
    ],
)
def test_bending_has_to_gain_more_than_chance_and_than_one_row_does(gains, bent, monkeypatch):
    assert decided(skewed(2000), gains, monkeypatch) is bent


def test_likelihood_gains_where_columns_are_bent():
    X, fresh = skewed(1000), skewed(4000, seed=1)
    bent, straight = (
        USPDensity(standardize=kind, max_iter=50, random_state=0).fit(X)
        for kind in ("auto", "affine")
    )
    gain = bent.score_samples(fresh) - straight.score_samples(fresh)
    assert gain.mean() > 0.1 and gain.mean() > 4 * gain.std() / 4000**0.5
    x = fresh[:5]
    slope = bent.score_function(x)
    h = 1e-6 * X.std(0)
    for j in range(3):
        step = h[j] * np.eye(3)[j]
        ends = [bent.score_samples(x + s * step) for s in (1, -1)]
        np.testing.assert_allclose(
            slope[:, j], (ends[0] - ends[1]) / (2 * h[j]), rtol=1e-3, atol=1e-3 / X.std(0)[j]
        )
    assert kstest(bent.sample(4000, random_state=0)[:, 0], lognorm(1.5).cdf).statistic < 0.08


def test_saving_keeps_the_map(tmp_path):
    X = skewed(400)
    est = USPDensity(max_iter=5, random_state=0).fit(X)
    est.save(tmp_path / "model")
    other = USPDensity.load(tmp_path / "model")
    assert isinstance(other.density_.transform, Marginal)
    np.testing.assert_array_equal(other.score_samples(X), est.score_samples(X))


def test_glitches_are_told_of_as_before():
    X = np.random.RandomState(0).normal(size=(500, 2))
    X[3, 1] = 1e9
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est = USPDensity(max_iter=2, random_state=0, standardize="marginal").fit(X)
    assert any(issubclass(w.category, DataDegeneracyWarning) for w in caught)
    assert est.score_samples(X[3:4])[0] > -80


def test_a_column_has_the_spline_that_it_has_alone():
    """Columns are fitted side by side, with as many values held out as they have different ones."""
    rng = np.random.RandomState(0)
    X = np.column_stack(
        [np.exp(rng.randn(600)), rng.exponential(size=600).round(1), rng.randn(600)]
    )
    X = np.column_stack([X, np.exp(2 * rng.randn(600)).round(), rng.choice([0.0, 1.0], 600)])
    together = Marginal.from_table(X)
    n_knots = []
    for j in range(X.shape[1]):
        alone = Marginal.from_table(X[:, j, None])
        here = together.forward(X, dtype=torch.float64)[:, j]
        torch.testing.assert_close(here, alone.forward(X[:, j, None], dtype=torch.float64)[:, 0])
        n_knots.append(alone.knots.shape[1])
    assert len(set(n_knots)) > 2  # neither all bent alike nor all straight


@pytest.mark.parametrize(("n", "d", "most"), [(200, 2, 4), (100, 30, 2), (100, 80, 1)])
def test_the_mixtures_that_decide_have_no_more_components_than_rows_bear(n, d, most, monkeypatch):
    asked = []
    monkeypatch.setattr(standardization, "Mixture", lambda k: asked.append(k) or Mixture(k))
    X = np.exp(np.random.RandomState(0).randn(n, d))
    standardization._gains(X, None, np.zeros(d, bool))
    assert asked == [most] * 2


def test_columns_in_parts_are_fitted_as_those_side_by_side(monkeypatch):
    X = np.exp(np.random.RandomState(0).randn(200, 5))
    whole = Marginal.from_table(X)
    monkeypatch.setitem(Marginal.from_table.__globals__, "CHUNK", 400)
    for name, value in Marginal.from_table(X).state().items():
        np.testing.assert_array_equal(value, whole.state()[name])
