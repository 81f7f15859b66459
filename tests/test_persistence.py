"""Files: what is written of parameters, and no code from a file."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributions import Independent, Normal

from skebm import HybridCDDensity
from skebm.bases import Kernel, TorchDistribution
from skebm.energies import MLP, Zero
from skebm.partition import AIS
from skebm.samplers import MALA
from tests import cases


def tiny(**params):
    return cases.tiny("HybridCDDensity", **params)


def table(n=150, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(3.0, size=(n, 2)) * [1.0, 50.0] + [0.0, 1e3]


def assert_same(a, b, X=None):
    X = table(seed=1) if X is None else X
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    np.testing.assert_array_equal(a.energy_samples(X), b.energy_samples(X))
    np.testing.assert_array_equal(a.score_function(X), b.score_function(X))
    np.testing.assert_array_equal(a.predict(X), b.predict(X))
    np.testing.assert_array_equal(a.sample(20, random_state=3), b.sample(20, random_state=3))


@pytest.fixture(scope="module")
def fitted():
    est = tiny().fit(table())
    assert not isinstance(est.energy_, Zero)
    return est


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def edit(path, change):
    """Rewrite the header of a saved estimator."""
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["skebm"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    change(header)
    save_file(tensors, str(path), metadata={"skebm": json.dumps(header)})


# -- round trips ---------------------------------------------------------------------------------


def test_parameters_survive_components_included(tmp_path):
    est = tiny(
        base=Kernel(n_centers=50),
        sampler=MALA(step_size=0.02),
        energy=MLP(hidden_sizes=(6, 5), activation="softplus"),
        log_partition=AIS(n_chains=64),
        contamination=0.1,
        device=torch.device("cpu"),
        checkpoint_dir=tmp_path / "checkpoints",
        validation_fraction=np.float32(0.25),
        max_iter=np.int64(5),
        tol=np.float64(0.01),
    ).fit(table())
    est.save(tmp_path / "model")
    before, after = est.get_params(), HybridCDDensity.load(tmp_path / "model").get_params()
    for name in ("device", "checkpoint_dir"):
        before[name] = str(before[name])
    assert after == before
    assert isinstance(after["base"], Kernel) and after["base"].n_centers == 50
    assert isinstance(after["energy"].hidden_sizes, tuple)


def test_a_random_state_instance_is_not_saved_but_pickled(tmp_path):
    est = tiny(random_state=np.random.RandomState(7)).fit(table())
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert loaded.random_state is None
    assert_same(est, loaded)
    twin = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(twin.sample(5), est.sample(5))


# -- what save and load refuse -------------------------------------------------------------------


def test_save_refuses_a_torch_distribution(tmp_path):
    base = TorchDistribution(Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    est = tiny(base=base).fit(table())
    with pytest.raises(TypeError, match=r"base must be .*got TorchDistributionBase"):
        est.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_load_refuses_another_class(saved):
    class OtherDensity(HybridCDDensity):
        pass

    with pytest.raises(ValueError, match=r"must hold a OtherDensity, got a HybridCDDensity"):
        OtherDensity.load(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_load_refuses_foreign_safetensors(metadata, tmp_path):
    save_file({"weight": torch.zeros(3)}, str(tmp_path / "other"), metadata=metadata)
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
    assert loaded.device_.type == "cpu"
    assert_same(fitted, loaded)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (["os", "system"], r"outside skebm: os\.system"),
        (["subprocess", "Popen"], r"outside skebm: subprocess\.Popen"),
        (["skebmish", "Thing"], "outside skebm"),
        (["skebm.train", "train"], r"skebm\.train\.train, which is no component"),
        (["skebm._components", "importlib"], "no component"),
        (["skebm.energies", "Missing"], "no component"),
    ],
)
def test_load_builds_no_class_that_is_not_a_component_of_skebm(component, message, saved):
    poison = {"component": component, "params": {"args": "touch poisoned"}}
    edit(saved, lambda header: header["params"].update(energy=poison))
    with pytest.raises(ValueError, match=message):
        HybridCDDensity.load(saved)


@pytest.mark.parametrize(
    "path", ["os.system", "torch.nn.Linear", "skebm.bases.kernel.check_number", "skebm.bases.x.Y"]
)
def test_load_builds_no_base_that_is_not_one_of_skebm(path, saved):
    edit(saved, lambda header: header.update(base=path))
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        HybridCDDensity.load(saved)
