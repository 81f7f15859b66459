"""Whatever stops a fit comes out of it, and an earlier fit is whole to the bit."""

import copy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from skebm.exceptions import ConvergenceError
from tests import cases

pytestmark = cases.QUIET
NEW, OTHER = cases.table(40, seed=1), cases.table(90, seed=5)
OWN_FAULT = {
    "HybridCDDensity": "cd_weight",
    "USPDensity": "n_points",
    "ScoreMatchingDensity": "noise_std",
    "NCEDensity": "noise_ratio",
    "SteinEBM": "critic_steps",
    "BoundsEBM": "penalty_weight",
    "EnergyDensity": "temperature",
}


def picture(est, folder):
    """All that can be seen of a fitted estimator, as bytes."""
    found = {"bits": cases.bits(est)}
    for read in ("score_samples", "decision_function", "score_function"):
        found[read] = getattr(est, read)(NEW).tobytes()
    found["draws"] = est.sample(9, random_state=3).tobytes()
    est.save(folder / "picture")
    return found | {"file": (folder / "picture").read_bytes(), "offset": est.offset_}


def with_infinity():
    X = OTHER.copy()
    X[7, 1] = np.inf
    return X


# what goes wrong -> (parameters, table, error)
FAULTS = {
    "own parameter": lambda name: (
        {OWN_FAULT[name]: cases.BAD[OWN_FAULT[name]][0][0]},
        OTHER,
        (ValueError, TypeError),
    ),
    "shared parameter": lambda name: ({"contamination": 0.6}, OTHER, ValueError),
    "table": lambda name: ({}, with_infinity(), ValueError),
    "width": lambda name: ({"image_shape": (1, 1, 2)}, OTHER[:, :1], ValueError),
    "divergence": lambda name: (
        {"energy": cases.Diverging, **cases.lasting(name, 150)},
        OTHER,
        ConvergenceError,
    ),
}
for error in (KeyboardInterrupt, MemoryError):
    for key, faulty in (("base", cases.FaultyBase), ("log_partition", cases.FaultyPartition)):
        fault = {key: faulty(error())}, OTHER, error
        FAULTS[f"{error.__name__} in {key}"] = lambda name, fault=fault: fault


def failing(est, params, X, error):
    """Fit with other parameters, which fails; put the parameters back."""
    before = est.get_params(deep=False)
    with pytest.raises(error):
        est.set_params(**params).fit(X)
    return est.set_params(**{key: before[key] for key in params})


@pytest.mark.parametrize("fault", FAULTS)
@cases.each
def test_a_failed_refit_changes_no_bit(name, fault, calls, tmp_path):
    est = copy.deepcopy(cases.fitted(name))
    before = picture(est, tmp_path)
    failing(est, *FAULTS[fault](name))
    assert picture(est, tmp_path) == before


@pytest.mark.parametrize("fault", FAULTS)
@cases.each
def test_a_failed_first_fit_leaves_nothing(name, fault, calls):
    est = cases.tiny(name)
    before = set(vars(est))
    failing(est, *FAULTS[fault](name))
    assert set(vars(est)) == before
    for read in (est.score_samples, est.predict, est.energy_samples):
        with pytest.raises(NotFittedError):
            read(NEW)
    with pytest.raises(NotFittedError):
        est.sample()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("warm_start", [False, True], ids=["anew", "warm"])
@cases.each
def test_a_refit_stopped_in_training_changes_no_bit(
    name, warm_start, which, error, updates, tmp_path
):
    est = cases.tiny(name, warm_start=warm_start).fit(cases.table())
    twin = copy.deepcopy(est)
    before = picture(est, tmp_path)
    updates.restart()
    copy.deepcopy(est).fit(cases.table())
    updates.restart(stop_at=1 if which == "first" else updates.count, error=error)
    failing(est, {}, cases.table(), error)
    updates.restart()
    assert picture(est, tmp_path) == before
    if warm_start:  # and goes on as if nothing had happened
        a, b = (e.fit(cases.table()).score_samples(NEW) for e in (est, twin))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
@cases.each
def test_a_refit_stopped_at_any_look_at_the_energy_changes_no_bit(name, share, calls, tmp_path):
    """From the first pass, in training, to the last, which sets the threshold."""
    est = copy.deepcopy(cases.fitted(name))
    before = picture(est, tmp_path)
    cases.tiny(name, energy=cases.Watched).fit(OTHER)
    total, calls.count = calls.count, 0
    calls.stop_at = 1 + round(share * (total - 1))
    failing(est, {"energy": cases.Watched}, OTHER, KeyboardInterrupt)
    assert picture(est, tmp_path) == before


@cases.each
def test_ctrl_c_comes_out_of_a_search(name, updates):
    from sklearn.model_selection import GridSearchCV

    updates.restart(stop_at=2)
    search = GridSearchCV(cases.tiny(name), {"batch_size": [16, 32]}, cv=2, error_score="raise")
    with pytest.raises(KeyboardInterrupt):
        search.fit(cases.table())
    assert updates.count == 2


@cases.each
def test_a_good_fit_after_a_failed_one_is_the_same_fit(name, updates):
    est = cases.tiny(name)
    updates.restart(stop_at=2)
    failing(est, {}, OTHER, KeyboardInterrupt)
    updates.restart()
    est.fit(cases.table())
    np.testing.assert_array_equal(est.score_samples(NEW), cases.fitted(name).score_samples(NEW))


@cases.each_detector
def test_a_detector_s_failed_refit_changes_no_score(name):
    est = copy.deepcopy(cases.detected(name))
    before = est.score_samples(NEW), est.offset_
    with pytest.raises(ValueError, match="infinity"):
        est.fit(with_infinity())
    np.testing.assert_array_equal(est.score_samples(NEW), before[0])
    assert est.offset_ == before[1]


@cases.each_detector
def test_a_detector_s_failed_first_fit_leaves_nothing(name):
    est = cases.build(name)
    with pytest.raises(ValueError, match="infinity"):
        est.fit(with_infinity())
    with pytest.raises(NotFittedError):
        est.score_samples(NEW)
