"""Files of estimators and detectors: whole, their own, and every hostile one a ValueError."""

import os
import stat

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity, NCEDensity, SteinEBM
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
)
from tests import cases
from tests.test_persistence import OLD, edit

pytestmark = cases.QUIET
NEW = cases.table(40, seed=1)


@pytest.fixture
def saved(tmp_path):
    cases.fitted("HybridCDDensity").save(tmp_path / "model")
    return tmp_path / "model"


# -- damage ----------------------------------------------------------------------------------------


def flipped(data, rng):
    at = rng.integers(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.integers(8))]) + data[at + 1 :]


def flipped_in_the_header(data, rng):
    end = 8 + int.from_bytes(data[:8], "little")
    return flipped(data[:end], rng) + data[end:]


def cut(data, rng):
    return data[: rng.integers(len(data))]


def without_a_part(data, rng):
    a, b = np.sort(rng.integers(len(data), size=2))
    return data[:a] + data[b + 1 :]


def overwritten(data, rng):
    a, n = rng.integers(len(data)), rng.integers(1, 60)
    return data[:a] + rng.bytes(len(data[a : a + n])) + data[a + n :]


def longer(data, rng):
    return data + rng.bytes(rng.integers(1, 9))


DAMAGE = (flipped, flipped_in_the_header, cut, without_a_part, overwritten, longer)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_refused(damage, saved):
    rng, data = np.random.default_rng(0), saved.read_bytes()
    for _ in range(40):
        mutated = damage(data, rng)
        if mutated != data:
            saved.write_bytes(mutated)
            with pytest.raises(ValueError, match=r"file that save wrote, got '.*model'"):
                HybridCDDensity.load(saved)


@pytest.mark.filterwarnings("ignore:The estimator was saved under other versions")
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_file_without_a_checksum_loads_or_is_refused(damage, tmp_path):
    """Those of version 0.1 have none: an error is a ValueError all the same."""
    rng, path = np.random.default_rng(0), tmp_path / "old"
    data = next(file for file in OLD if "stein" in file.stem.lower()).read_bytes()
    for _ in range(12):
        path.write_bytes(damage(data, rng))
        try:
            SteinEBM.load(path).score_samples(NEW)
        except ValueError:
            pass


# -- forgery: right checksums, wrong contents ------------------------------------------------------


def put(*keys, value):
    """What sets an entry of a nested header."""

    def change(header):
        for key in keys[:-1]:
            header = header[key]
        assert keys[-1] in header
        header[keys[-1]] = value

    return change


FORGED = {
    "format of the future": put("format", value=3),
    "no format": put("format", value=None),
    "params of another": put("params", value={"nothing": 1}),
    "no params": put("params", value=None),
    "factory": put("density", "energy", "factory", value=True),
    "shape": put("density", "energy", "shape", value=[3]),
    "wrapper": put("density", "energy", "wrappers", value=["Bounded"]),
    "component": put("density", "energy", "component", value=[1]),
    "kind": put("density", "parts", "base", "kind", value="array"),
    "columns": put("attributes", "n_features_in_", "value", value=3),
    "offset": put("attributes", "offset_", "value", value="high"),
    "infinite offset": put("attributes", "offset_", "value", value=float("inf")),
    "names": put("names", value=["a"]),
    "estimators": put("estimators", value=[{}]),
    "inner": put("inner", value={"energy": 4}),
    "versions": put("versions", value=[]),
    "temperature": put("density", "parts", "temperature", "value", value="hot"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_header_is_refused(name, saved):
    edit(saved, FORGED[name])
    with pytest.raises(ValueError):
        HybridCDDensity.load(saved)


def each_tensor(change):
    def all_of_them(tensors):
        tensors.update({k: change(v) for k, v in tensors.items() if k.startswith("density.")})

    return all_of_them


@pytest.mark.parametrize(
    "change",
    [
        each_tensor(lambda t: t.double()),
        each_tensor(lambda t: t.half()),
        each_tensor(lambda t: t * float("nan")),
        each_tensor(lambda t: t / 0),
        each_tensor(lambda t: t[:0] if t.ndim else t[None]),
        each_tensor(lambda t: torch.stack([t, t])),
        lambda tensors: tensors.clear() or tensors.update(x=torch.zeros(1)),
    ],
    ids=["float64", "float16", "nan", "infinite", "empty", "more", "none"],
)
def test_forged_tensors_are_refused(change, saved):
    edit(saved, lambda header: None, change)
    with pytest.raises(ValueError):
        HybridCDDensity.load(saved)


def test_a_header_that_asks_for_memory_gets_none(saved):
    """A hundred thousand hidden units, twice, are 40 GB."""
    sizes = {"hidden_sizes": {"tuple": [100_000, 100_000]}}
    edit(saved, lambda header: header["density"]["energy"]["component"]["params"].update(sizes))
    with pytest.raises(ValueError, match=r"asks for 10000000000 numbers"):
        HybridCDDensity.load(saved)


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="the umask is POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_of_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        cases.fitted("NCEDensity").save(tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == mode


def test_what_is_written_over_a_loaded_file_does_not_reach_it(saved, tmp_path):
    loaded = HybridCDDensity.load(saved)
    before = loaded.score_samples(NEW)
    with open(saved, "r+b") as file:
        file.write(bytes(len(saved.read_bytes())))
    np.testing.assert_array_equal(loaded.score_samples(NEW), before)


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    data = saved.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cases.fitted("HybridCDDensity").save(saved)
    assert saved.read_bytes() == data and list(saved.parent.iterdir()) == [saved]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="path must be a file, got the folder"):
        cases.fitted("NCEDensity").save(tmp_path)


# -- detectors -------------------------------------------------------------------------------------

INNER = cases.tiny("NCEDensity")
DETECTORS = {
    "conformal": lambda: ConformalNoveltyDetector(INNER, alpha=0.1, random_state=0),
    "conformal cv": lambda: ConformalNoveltyDetector(INNER, alpha=0.1, cv=3, ties="random"),
    "ensemble": lambda: EnsembleDensity(INNER, n_estimators=3, bootstrap=True, random_state=0),
    "ratio": lambda: LikelihoodRatioDetector(INNER, cases.tiny("ScoreMatchingDensity")),
    "prefit": lambda: LikelihoodRatioDetector(
        cases.fitted("NCEDensity"), cases.fitted("HybridCDDensity"), prefit=True
    ),
    "norm": lambda: ScoreNormDetector(INNER, random_state=np.random.RandomState(0)),
    "threshold": lambda: ThresholdDetector(INNER, method="training"),
    "typicality": lambda: TypicalityDetector(INNER, random_state=0),
    "nested": lambda: ThresholdDetector(EnsembleDensity(INNER, n_estimators=2, bootstrap=True)),
}
READS = ("score_samples", "decision_function", "predict", "p_value", "disagreement")


@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
@pytest.mark.filterwarnings("ignore::skebm.exceptions.DataDegeneracyWarning")
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_its_file(name, tmp_path):
    detector = DETECTORS[name]().fit(cases.table())
    detector.save(tmp_path / "detector")
    loaded = type(detector).load(tmp_path / "detector")
    for read in READS:
        if hasattr(detector, read):
            values = getattr(detector, read)(NEW)
            np.testing.assert_array_equal(getattr(loaded, read)(NEW), values)
    assert vars(loaded).keys() == vars(detector).keys()
    assert loaded.n_features_in_ == 2


def test_members_are_written_once(tmp_path):
    """`estimator_`, `estimators_` and what calibrates share them, in the file too."""
    detector = DETECTORS["conformal"]().fit(cases.table())
    detector.save(tmp_path / "detector")
    loaded = ConformalNoveltyDetector.load(tmp_path / "detector")
    assert loaded.estimator_ is loaded.estimators_[0] and not hasattr(loaded.estimator, "density_")


@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
def test_what_skebm_cannot_write_names_joblib(tmp_path):
    detectors = [
        ThresholdDetector(GaussianMixture()).fit(cases.table()),
        EnsembleDensity(GaussianMixture(), bootstrap=True).fit(cases.table()),
        ConformalNoveltyDetector(INNER, alpha=0.1, weight=len_of).fit(cases.table()),
    ]
    for detector in detectors:
        with pytest.raises(TypeError, match=r"joblib"):
            detector.save(tmp_path / "detector")
    assert not list(tmp_path.iterdir())


def len_of(X):
    return np.ones(len(X))


def test_only_a_fitted_detector_is_saved_and_only_its_class_loads_it(tmp_path):
    with pytest.raises(NotFittedError):
        ThresholdDetector(INNER).save(tmp_path / "detector")
    ThresholdDetector(INNER, method="training").fit(cases.table()).save(tmp_path / "detector")
    with pytest.raises(ValueError, match="must hold a TypicalityDetector, got a ThresholdDetector"):
        TypicalityDetector.load(tmp_path / "detector")
    with pytest.raises(ValueError, match="must hold a NCEDensity, got a ThresholdDetector"):
        NCEDensity.load(tmp_path / "detector")


def test_a_detector_of_a_factory_is_given_it_again(tmp_path):
    inner = cases.tiny("NCEDensity", energy=cases.factory)
    detector = ThresholdDetector(inner, method="training").fit(cases.table())
    detector.save(tmp_path / "detector")
    with pytest.raises(ValueError, match="energy must be given"):
        ThresholdDetector.load(tmp_path / "detector")
    loaded = ThresholdDetector.load(tmp_path / "detector", energy=cases.factory)
    np.testing.assert_array_equal(loaded.score_samples(NEW), detector.score_samples(NEW))


def test_an_estimator_inside_is_of_skebm(tmp_path):
    ThresholdDetector(INNER, method="training").fit(cases.table()).save(tmp_path / "detector")
    for where in (["os", "system"], ["skebm.energies", "MLP"], ["skebm.train", "train"]):
        edit(
            tmp_path / "detector",
            lambda header, where=where: header["estimators"][0].update(
                {"module": where[0], "class": where[1]}
            ),
        )
        with pytest.raises(ValueError, match=r"outside skebm|no part of skebm"):
            ThresholdDetector.load(tmp_path / "detector")


def test_the_energy_of_a_file_is_built_without_the_callers_settings(saved):
    expected = HybridCDDensity.load(saved).score_samples(NEW)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            loaded = HybridCDDensity.load(saved)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(loaded.score_samples(NEW), expected)
