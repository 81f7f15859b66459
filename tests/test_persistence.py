"""Files: what they hold and refuse, and no code from them.

That copies, pickles and files keep every bit, and that stopped fits resume, is in ``contracts``.
"""

import hashlib
import json
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch.distributions import Independent, Normal

import skebm
from skebm import HybridCDDensity, SteinEBM
from skebm.bases import TorchDistribution
from skebm.partition import AIS
from tests import cases
from tests.cases import table
from tests.contracts import test_copies as copies

pytestmark = cases.QUIET
NEW = table(40, seed=1)


def factory(n_features):
    """A callable energy with layers that behave otherwise in training."""
    return torch.nn.Sequential(torch.nn.Dropout(0.5), cases.factory(n_features))


tiny = partial(cases.tiny, "HybridCDDensity")


def assert_same(a, b, X=NEW):
    copies.assert_same(a, b, type(a).__name__, X)


@pytest.fixture
def fitted():
    return cases.fitted("HybridCDDensity")


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def edit(path, change, change_tensors=lambda tensors: None):
    """Rewrite the header or the tensors of a saved estimator, with the checksum of the result."""
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["skebm"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    change(header)
    change_tensors(tensors)
    header["sha256"] = "0" * 64
    data = save(tensors, metadata={"skebm": json.dumps(header)})
    seal = hashlib.sha256(data).hexdigest()
    path.write_bytes(data.replace(b"0" * 64, seal.encode(), 1))


# -- what a file holds -----------------------------------------------------------------------------


def test_parameters_that_are_no_plain_values_survive(tmp_path):
    others = {"log_partition": AIS(n_chains=64), "contamination": 0.1, "tol": np.float64(0.01)}
    places = {"device": torch.device("cpu"), "checkpoint_dir": tmp_path / "checkpoints"}
    est = tiny(**others, **places).fit(table())
    est.save(tmp_path / "model")
    before, after = est.get_params(), HybridCDDensity.load(tmp_path / "model").get_params()
    assert after == before | {key: str(value) for key, value in places.items()}
    assert isinstance(after["energy"].hidden_sizes, tuple)


def test_a_random_state_instance_is_not_saved_but_pickled(tmp_path):
    est = tiny(random_state=np.random.RandomState(7)).fit(table())
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert loaded.random_state is None
    assert_same(est, loaded)
    twin = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(twin.sample(5), est.sample(5))


def test_a_callable_energy_has_to_be_given_again(tmp_path):
    est = tiny(energy=factory).fit(table())
    est.set_params(energy="mlp").save(tmp_path / "model")  # what was fitted is what counts
    with pytest.raises(ValueError, match=r"energy must be given.*got None"):
        HybridCDDensity.load(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model", energy=factory)
    assert loaded.energy is factory
    assert not any(module.training for module in loaded.energy_.modules())  # nothing drops out
    assert_same(est, loaded)


def test_a_torch_distribution_is_not_saved_but_pickled(tmp_path):
    base = TorchDistribution(Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    est = tiny(base=base).fit(table())
    with pytest.raises(TypeError, match=r"base must be .*got TorchDistributionBase"):
        est.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert_same(est, pickle.loads(pickle.dumps(est)))


OLD = sorted(copies.FILES.glob("*.safetensors"))


@pytest.mark.filterwarnings("ignore:The estimator was saved under other versions")
@pytest.mark.parametrize("file", OLD, ids=lambda file: file.stem)
def test_files_of_0_1_0_are_written_anew_with_the_same_bits(file, tmp_path):
    with safe_open(str(file), "pt") as old:
        cls = getattr(skebm, json.loads(old.metadata()["skebm"])["class"])
    est = cls.load(file)
    est.save(tmp_path / "anew")
    loaded, X = cls.load(tmp_path / "anew"), est.sample(40, random_state=0)
    if hasattr(est, "feature_names_in_"):
        X = pd.DataFrame(X, columns=est.feature_names_in_)
    assert_same(est, loaded, X)
    assert loaded.get_params() == est.get_params()


# -- what load refuses -----------------------------------------------------------------------------


FOREIGN = [b"", b"hello", pickle.dumps({"a": 1}) * 50, None, {"format": "pt"}]


@pytest.mark.parametrize("content", FOREIGN, ids=lambda content: str(content)[:9])
def test_load_refuses_what_save_did_not_write(content, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "other").write_bytes(content)
    else:
        save_file({"weight": torch.zeros(3)}, str(tmp_path / "other"), metadata=content)
    with pytest.raises(ValueError, match=r"file that save wrote, got '.*other'"):
        HybridCDDensity.load(tmp_path / "other")


def test_load_warns_of_version_drift(saved, fitted):
    edit(saved, lambda header: header["versions"].update(torch="1.0.0"))
    with pytest.warns(UserWarning, match=r"torch 1\.0\.0 -> "):
        loaded = HybridCDDensity.load(saved)
    assert_same(fitted, loaded)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_load_falls_back_to_the_cpu(saved, fitted):
    edit(saved, lambda header: header["params"].update(device="cuda"))
    with pytest.warns(UserWarning, match="cuda, which this machine lacks"):
        loaded = HybridCDDensity.load(saved)
    assert loaded.density_.device.type == "cpu"
    assert_same(fitted, loaded)


def component(where):
    return {"component": where, "params": {"args": "touch poisoned"}}


def plain(where):
    return {"kind": "plain", "value": {"named": where, "values": ["touch poisoned"]}}


# where a file names a class -> what puts another there
PLACES = {
    "parameter": lambda header, where: header["params"].update(energy=component(where)),
    "energy": lambda header, where: header["density"]["energy"].update(component=component(where)),
    "base": lambda header, where: header["density"]["parts"]["base"].update({"class": where}),
    "part": lambda header, where: header["density"]["parts"]["transform"].update({"class": where}),
    "tuple": lambda header, where: header["attributes"].update(offset_=plain(where)),
}
HOSTILE = [
    (["os", "system"], r"outside skebm: os\.system"),
    (["subprocess", "Popen"], r"outside skebm: subprocess\.Popen"),
    (["builtins", "eval"], r"outside skebm: builtins\.eval"),
    (["skebmish", "Thing"], "outside skebm"),
    (["tests.cases", "Calls"], "outside skebm"),
    (["skebm._components", "check_number"], "no part"),
    (["skebm.energies.zero", "Zero"], "no part"),
    (["skebm.train", "train"], r"skebm\.train\.train, which is no part of skebm"),
    (["skebm._components", "importlib"], "no part"),
    (["skebm.energies", "Missing"], "no part"),
    (["skebm.exceptions", "ConvergenceError"], "no part"),
]


@pytest.mark.parametrize(("where", "message"), HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_load_builds_no_class_that_is_not_of_the_kind_and_of_skebm(place, where, message, saved):
    edit(saved, lambda header: PLACES[place](header, where))
    with pytest.raises(ValueError, match=message):
        HybridCDDensity.load(saved)


def test_a_critic_is_built_from_skebm_alone(tmp_path):
    cases.tiny("SteinEBM").fit(table()).save(tmp_path / "model")

    def change(header):
        critic = header["attributes"]["critic_network_"]["parts"]["component"]
        critic["value"]["component"] = ["os", "system"]

    edit(tmp_path / "model", change)
    with pytest.raises(ValueError, match=r"outside skebm: os\.system"):
        SteinEBM.load(tmp_path / "model")
