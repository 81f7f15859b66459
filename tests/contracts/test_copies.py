"""Files, pickles, copies and clones: the same bits afterwards."""

import copy
import json
import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skebm import networks
from tests import cases

pytestmark = cases.QUIET
NEW = cases.table(40, seed=1)
FILES = Path(__file__).parents[1] / "files_0_1_0"
ATTRIBUTES = ["offset_", "log_partition_", "history_", "n_iter_", "n_features_in_", "temperature_"]
ATTRIBUTES += ["validation_gain_", "data_noise_"]
ATTRIBUTES_OF = {
    "HybridCDDensity": ["sampler_"],
    "USPDensity": [
        f"{name}_" for name in ("support_points", "support_weights", "support_info", "epsilon")
    ]
    + ["domain_"],
    "NCEDensity": ["noise_log_partition_"],
    "SteinEBM": ["calibration_"],
    "BoundsEBM": ["lower_bound_", "upper_surrogate_", "cubo_", "fold_fraction_", "latent_dim_"],
}


def assert_same(a, b, name, X=NEW):
    for read in ("score_samples", "decision_function", "energy_samples", "score_function"):
        np.testing.assert_array_equal(getattr(a, read)(X), getattr(b, read)(X))
    np.testing.assert_array_equal(a.sample(9, random_state=3), b.sample(9, random_state=3))
    for attribute in ATTRIBUTES + ATTRIBUTES_OF.get(name, []) + ["bank_"] * hasattr(a, "bank_"):
        one, two = getattr(a, attribute), getattr(b, attribute)
        np.testing.assert_equal(two, one, attribute)  # nan equals nan
        assert type(two) is type(one), attribute
    if name == "SteinEBM":
        np.testing.assert_array_equal(a.critic_(X), b.critic_(X))
    if name == "BoundsEBM":
        made = (est.sample(9, random_state=3, method="generator") for est in (a, b))
        np.testing.assert_array_equal(*made)


def saved(est, folder, energy=None):
    est.save(folder / "model")
    return type(est).load(folder / "model", energy=energy)


def pickled(est, folder):
    joblib.dump(est, folder / "model.joblib")
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(est)).score_samples(NEW), est.score_samples(NEW)
    )
    return joblib.load(folder / "model.joblib")


TRIPS = {"save": saved, "pickle": pickled, "deepcopy": lambda est, folder: copy.deepcopy(est)}


@pytest.mark.parametrize("trip", TRIPS)
@cases.each_variant
def test_trips_keep_every_bit(name, variant, trip, tmp_path):
    est = cases.fitted_as(name, variant)
    back = TRIPS[trip](est, tmp_path)
    assert_same(est, back, name)
    np.testing.assert_equal(back.get_params(), est.get_params())
    assert type(back.base_) is type(est.base_)
    assert (est.energy_samples(NEW) == 0).all() == (variant == "dropped")
    if trip == "save" and variant in ("plain", "images", "batch norm"):
        assert_same(est, back.fit(cases.table()), name)  # it can be fitted again


@pytest.mark.parametrize("trip", TRIPS)
@cases.each
def test_a_callable_energy_comes_back_where_it_is_given(name, trip, tmp_path):
    est = cases.tiny(name, energy=cases.factory).fit(cases.table())
    assert np.isfinite(est.score_samples(NEW)).all() and est.energy_samples(NEW).std() > 0
    if trip != "save":
        return assert_same(est, TRIPS[trip](est, tmp_path), name)
    assert_same(est, saved(est, tmp_path, cases.factory), name)
    with pytest.raises(ValueError, match=r"energy must be given.*got None"):
        type(est).load(tmp_path / "model")


@cases.each
def test_names_come_back(name, tmp_path):
    frame = pd.DataFrame(cases.table(), columns=["length", "width"])
    est = cases.tiny(name).fit(frame)
    for back in (saved(est, tmp_path), pickle.loads(pickle.dumps(est))):
        assert list(back.feature_names_in_) == ["length", "width"]
        with pytest.raises(ValueError, match="order"):
            back.score_samples(frame[["width", "length"]])


@cases.each
def test_what_is_set_after_a_fit_waits_for_the_next(name, tmp_path):
    """The file holds the networks that were fitted, and the parameters as they are now."""
    est = copy.deepcopy(cases.fitted(name))
    est.set_params(energy__hidden_sizes=(5,), image_shape=(1, 1, 2))
    later = {
        "HybridCDDensity": {"temperature": 3.0},
        "SteinEBM": {"critic": networks.Critic((3,))},
        "BoundsEBM": {
            f"generator__{key}": value
            for key, value in (
                ("hidden_sizes", (3,)),
                ("observation_noise", 1.0),
                ("latent_dim", 1),
            )
        },
    }
    est.set_params(**later.get(name, {}))
    assert_same(est, cases.fitted(name), name)
    assert_same(est, pickle.loads(pickle.dumps(est)), name)
    back = saved(est, tmp_path)
    assert_same(est, back, name)
    assert back.get_params() == est.get_params()
    assert_same(est, saved(back, tmp_path), name)


@cases.each
def test_a_deep_copy_shares_nothing_with_its_original(name):
    twin, before = copy.deepcopy(cases.fitted(name)), cases.fitted(name).score_samples(NEW)
    with torch.no_grad():
        for value in twin.energy_.state_dict().values():
            value.add_(1.0)
    np.testing.assert_array_equal(cases.fitted(name).score_samples(NEW), before)
    assert (twin.score_samples(NEW) != before).any()


@cases.each_outlier_detector
def test_clones_are_unfitted_and_fit_alike(name):
    est = cases.detected(name)
    twin = clone(est)
    with pytest.raises(NotFittedError):
        twin.score_samples(NEW)
    assert repr(twin) == repr(est)
    np.testing.assert_array_equal(twin.fit(cases.table()).predict(NEW), est.predict(NEW))


@cases.each_outlier_detector
def test_detectors_pickle(name):
    est = cases.detected(name)
    for back in (pickle.loads(pickle.dumps(est)), copy.deepcopy(est)):
        np.testing.assert_array_equal(back.score_samples(NEW), est.score_samples(NEW))
        np.testing.assert_array_equal(back.decision_function(NEW), est.decision_function(NEW))
        assert back.offset_ == est.offset_


@cases.each
def test_a_pickled_warm_start_goes_on_with_the_same_bits(name):
    est = cases.tiny(name, warm_start=True).fit(cases.table())
    twin, before = pickle.loads(pickle.dumps(est)), est.energy_samples(NEW)
    assert_same(est.fit(cases.table()), twin.fit(cases.table()), name)
    assert est.n_iter_ == 8 and (est.energy_samples(NEW) != before).any()


@cases.each
def test_only_a_fitted_estimator_is_saved(name, tmp_path):
    with pytest.raises(NotFittedError):
        cases.build(name).save(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="existing folder"):
        cases.fitted(name).save(tmp_path / "nowhere" / "model")
    assert not list(tmp_path.iterdir())


@cases.each
def test_load_refuses_another_class_and_other_files(name, tmp_path):
    cls, other = cases.CLASSES[name], next(n for n in cases.CLASSES if n != name)
    cases.fitted(name).save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"must hold a {other}, got a {name}"):
        cases.CLASSES[other].load(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cls.load(tmp_path / "nowhere")
    (tmp_path / "other").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"file that save wrote, got '.*other'"):
        cls.load(tmp_path / "other")


OLD = json.loads((FILES / "expected.json").read_text())


def assert_old(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("key", OLD["scores"])
@pytest.mark.filterwarnings("ignore:The estimator was saved under other versions")
def test_files_of_0_1_0_load_and_score_as_they_did(key):
    old = OLD["scores"][key]
    est = cases.CLASSES[old["cls"]].load(FILES / f"{key}.safetensors")
    X = pd.DataFrame(OLD["X"], columns=getattr(est, "feature_names_in_", None))
    X = X if hasattr(est, "feature_names_in_") else X.to_numpy()
    assert_old(est.score_samples(X), old["log_density"])
    assert_old(est.decision_function(X), old["decision"])
    np.testing.assert_allclose(est.score_function(X), old["gradient"], rtol=1e-4, atol=1e-3)
    assert np.isfinite(est.sample(5, random_state=0)).all()


def test_every_estimator_of_0_1_0_has_its_file():
    assert {old["cls"] for old in OLD["scores"].values()} == set(cases.VARIANTS)
