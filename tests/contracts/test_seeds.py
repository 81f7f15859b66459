"""Seeds settle everything, and nothing outside is touched."""

import copy

import numpy as np
import pytest
import torch

from tests import cases

pytestmark = cases.QUIET
NEW = cases.table(9, seed=1)


def global_states():
    kind, keys, *rest = np.random.get_state()
    return kind, keys.tolist(), rest, torch.get_rng_state().tolist()


@cases.each
def test_the_same_seed_gives_the_same_bits(name):
    assert cases.footprint(cases.tiny(name).fit(cases.table()), NEW) == cases.footprint(
        cases.fitted(name), NEW
    )


@cases.each
def test_another_seed_gives_others(name):
    one, two = (
        cases.footprint(cases.fitted(name), NEW),
        cases.footprint(cases.tiny(name, random_state=1).fit(cases.table()), NEW),
    )
    assert one["energy"] != two["energy"] and one["draws"] != two["draws"]


@cases.each_outlier_detector
def test_a_detector_is_its_seed_too(name):
    again = cases.build(name).fit(cases.table())
    np.testing.assert_array_equal(again.score_samples(NEW), cases.detected(name).score_samples(NEW))
    assert again.offset_ == cases.detected(name).offset_


@cases.each
def test_an_instance_is_advanced(name):
    fits = []
    for seed in (np.random.RandomState(3), np.random.RandomState(3)):
        est = cases.tiny(name, random_state=seed)
        fits.append([est.fit(cases.table()).energy_samples(NEW) for _ in range(2)])
        fits[-1].append(est.sample(5))
        assert (est.sample(5) != fits[-1][-1]).any()
    np.testing.assert_array_equal(fits[0][0], fits[1][0])
    np.testing.assert_array_equal(fits[0][1], fits[1][1])
    np.testing.assert_array_equal(fits[0][2], fits[1][2])
    assert (fits[0][0] != fits[0][1]).any()


@cases.each
def test_draws_have_their_own_seed(name):
    est = cases.fitted(name)
    a, b, c = (est.sample(9, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any() and a.dtype == np.float64
    np.testing.assert_array_equal(est.sample(9), est.sample(9, random_state=est.random_state))
    rng = np.random.RandomState(5)
    first, second = est.sample(9, random_state=rng), est.sample(9, random_state=rng)
    assert (first != second).any()
    again = est.sample(9, random_state=np.random.RandomState(5))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(0)], ids=str)
@cases.each_outlier_detector
def test_global_random_states_are_not_touched(name, random_state):
    before = global_states()
    est = cases.build(name, random_state=random_state).fit(cases.table())
    est.score_samples(NEW), est.predict(NEW)
    if name in cases.CLASSES:
        est.sample(5), est.sample(5, random_state=1), est.score_function(NEW)
    assert global_states() == before


@cases.each
def test_without_a_seed_fits_differ(name):
    one, two = (
        cases.tiny(name, random_state=None).fit(cases.table()).energy_samples(NEW) for _ in range(2)
    )
    assert (one != two).any()


@cases.each_outlier_detector
def test_reading_changes_no_fitted_value(name):
    est = copy.deepcopy(cases.detected(name))
    before = cases.bits(est)
    est.score_samples(NEW), est.predict(NEW), est.decision_function(NEW)
    if name in cases.CLASSES:
        est.score(NEW), est.energy_samples(NEW), est.score_function(NEW), est.sample(3)
    assert cases.bits(est) == before
