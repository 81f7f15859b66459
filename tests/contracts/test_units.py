"""A table in other units gives the same model in other units."""

import numpy as np
import pytest

from tests.cases import NATS, PLACES, QUIET, VARIANTS, each, fitted, fitted_as, table, tiny

pytestmark = QUIET
NEW = table(40, seed=1)


def in_units(name, variant, a, b):
    """The estimator fitted to a X + b, with what is given in the units of X moved too."""
    params = dict(VARIANTS[name][variant]) if variant != "plain" else {}
    if isinstance(params.get("init"), np.ndarray):
        params["init"] = a * params["init"] + b
    if "domain" in params:
        params["domain"] = tuple(a * np.asarray(corner) + b for corner in params["domain"])
    return tiny(name, **params).fit(a * table() + b)


def assert_follows(one, two, name, a, b, nats, deviations):
    """`two` is `one` in units of a X + b: to so many nats, and deviations of the columns."""
    volume = np.log(a).sum()
    for read in ("score_samples", "decision_function", "energy_samples"):
        shift = volume if read == "score_samples" else 0.0
        expected = getattr(one, read)(NEW) - shift
        np.testing.assert_allclose(getattr(two, read)(a * NEW + b), expected, rtol=nats, atol=nats)
    spread = a * table().std(0)
    slopes = (est.score_function(x) for est, x in ((one, NEW), (two, a * NEW + b)))
    slope, scaled = next(slopes) * table().std(0), next(slopes) * spread
    np.testing.assert_allclose(scaled, slope, rtol=10 * nats, atol=10 * nats)
    drawn, moved = (est.sample(9, random_state=1) for est in (one, two))
    pairs = [(drawn, moved)]
    pairs += [(getattr(one, place), getattr(two, place)) for place in PLACES.get(name, [])]
    for before, after in pairs:
        finite = np.nan_to_num(np.asarray(after), posinf=0, neginf=0) / spread
        expected = np.nan_to_num(a * np.asarray(before) + b, posinf=0, neginf=0) / spread
        np.testing.assert_allclose(finite, expected, rtol=1e-12, atol=deviations)
    for attribute, sign in ({"offset_": 1} | NATS.get(name, {})).items():
        before, after = (np.ravel(getattr(est, attribute))[0] for est in (one, two))
        assert after == pytest.approx(before - sign * volume, abs=nats, nan_ok=True)


@each
@pytest.mark.parametrize("power", [-30, 7])
def test_powers_of_two_change_no_bit_of_the_model(name, power):
    a = 2.0 ** np.array([power, -power])
    two = in_units(name, "plain", a, 0.0)
    np.testing.assert_array_equal(two.energy_samples(a * NEW), fitted(name).energy_samples(NEW))
    assert_follows(fitted(name), two, name, a, 0.0, 1e-10, 1e-12)


UNITS = [(name, "plain") for name in VARIANTS] + [
    ("USPDensity", "box"),
    ("USPDensity", "places"),
    ("USPDensity", "importance"),
]


@pytest.mark.parametrize(("name", "variant"), UNITS)
@pytest.mark.parametrize("a", [7.0, np.array([1e-3, 3.7e4])], ids=["both", "each"])
def test_shifts_and_scales_move_the_log_density_by_the_log_volume(name, variant, a):
    a, b = a * np.ones(2), 5.0 * a
    two = in_units(name, variant, a, b)
    assert_follows(fitted_as(name, variant), two, name, a, b, 2e-3, 2e-3)
