"""``sample_weight``: rows count in proportion to it."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from skebm.ood import EnsembleDensity
from tests.cases import QUIET, each, lasting, table, tiny

pytestmark = QUIET
NEW = table(40, seed=1)
WEIGHT = 1.0 + np.arange(120) % 3


@pytest.mark.parametrize("fraction", [0, 0.25])
@each
def test_rows_of_no_weight_have_no_influence(name, fraction):
    """Wherever they stand and whatever they say, the bits are those of the table without them."""
    X, est = table(), tiny(name, validation_fraction=fraction).fit(table(), sample_weight=WEIGHT)
    far = 1e3 * table(60, seed=2)
    at = np.sort(np.random.RandomState(0).randint(0, 120, 60))
    for places in (at, np.full(60, 120)):
        both, weight = np.insert(X, places, far, axis=0), np.insert(WEIGHT, places, 0.0)
        other = tiny(name, validation_fraction=fraction).fit(both, sample_weight=weight)
        np.testing.assert_array_equal(other.score_samples(NEW), est.score_samples(NEW))
        np.testing.assert_array_equal(other.sample(5), est.sample(5))
        assert other.offset_ == est.offset_


@each
def test_weights_are_a_matter_of_proportion(name):
    one, two = (tiny(name).fit(table(), sample_weight=w * WEIGHT) for w in (1.0, 8.0))
    np.testing.assert_allclose(two.score_samples(NEW), one.score_samples(NEW), rtol=1e-6)


@each
def test_columns_are_standardized_by_weight(name):
    est = tiny(name).fit(table(), sample_weight=WEIGHT)
    mean = np.average(table(), axis=0, weights=WEIGHT)
    np.testing.assert_allclose(est.density_.transform.location, mean)


@each
def test_weights_count_as_repeats_do(name):
    """Half the rows around -2 and half around 2, the latter four times."""
    X = np.random.RandomState(0).randn(200, 1) * 0.7 + np.repeat([[-2.0], [2.0]], 100, axis=0)
    weight = np.repeat([1, 4], 100)
    params = {"base": "kernel", "data_noise": 0.03, **lasting(name, 30)}
    if name == "USPDensity":  # the sum over 50 moved points is coarser than the bound below
        params["method"] = "importance"
    weighted = tiny(name, **params).fit(X, sample_weight=weight)
    repeated = tiny(name, **params).fit(np.repeat(X, weight, axis=0))
    axis = np.linspace(-12, 12, 2000)[:, None]
    for est in (weighted, repeated):
        mass = np.exp(est.score_samples(axis))
        assert mass[axis[:, 0] > 0].sum() / mass.sum() == pytest.approx(0.8, abs=0.05)
    plain = tiny(name, **params).fit(X)
    mass = np.exp(plain.score_samples(axis))
    assert mass[axis[:, 0] > 0].sum() / mass.sum() < 0.6


@pytest.mark.parametrize("contamination", [0.05, 0.2, 0.5])
@each
def test_a_float_contamination_flags_that_share_of_the_weight(name, contamination):
    """To the weight of one row; heavy rows lie apart, so counting rows would say another share."""
    X = table()
    weight = np.where(np.argsort(np.argsort(X[:, 0])) > 90, 9.0, 1.0)
    est = tiny(name, contamination=contamination).fit(X, sample_weight=weight)
    share = weight[est.predict(X) == -1].sum() / weight.sum()
    assert share == pytest.approx(contamination, abs=weight.max() / weight.sum())


WEIGHTS = [
    (-np.ones(120), "sample_weight must be finite and >= 0"),
    (np.r_[-1e-9, np.ones(119)], "sample_weight must be finite and >= 0"),
    (np.ones(119), "sample_weight"),
    (np.ones((120, 1)), "[Ss]ample.weight"),
    (np.zeros(120), "[Ss]ample.weight"),
    (np.r_[1.0, np.zeros(119)], "sample_weight must be positive for at least 2 rows"),
    (np.r_[np.nan, np.ones(119)], "sample_weight must be finite and >= 0"),
    (["a"] * 120, r"sample_weight must hold numbers, got \['a', 'a'"),
    ("balanced", "sample_weight must hold numbers, got 'balanced'"),
]


@pytest.mark.parametrize(("weight", "message"), WEIGHTS, ids=lambda v: None)
@each
def test_bad_weights_are_refused(name, weight, message):
    with pytest.raises(ValueError, match=message):
        tiny(name).fit(table(), sample_weight=weight)


SCORED = {
    "estimator": lambda: tiny("NCEDensity", base="gaussian"),
    "ensemble": lambda: EnsembleDensity(GaussianMixture(), bootstrap=True, random_state=0),
}


@pytest.mark.parametrize("new", SCORED.values(), ids=SCORED)
def test_a_weighted_score_takes_what_a_weighted_fit_takes(new):
    X, est = table(), new().fit(table())
    values = est.score_samples(X)
    for scale in (1.0, 1e-300, 1e308 / WEIGHT.max()):
        expected = values @ WEIGHT / WEIGHT.sum()
        assert est.score(X, sample_weight=scale * WEIGHT) == pytest.approx(expected, rel=1e-12)
    assert est.score(X, sample_weight=1e308) == pytest.approx(values.mean(), rel=1e-12)
    assert est.score(X, sample_weight=np.eye(1, 120)[0]) == values[0]
    for weight, message in WEIGHTS:
        if "2 rows" not in message:
            with pytest.raises(ValueError, match=message):
                est.score(X, sample_weight=weight)
