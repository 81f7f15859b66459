"""Save, load, pickle and resume: the same bits afterwards, and no code from a file."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributions import Independent, Normal

import skebm.train
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


# -- checkpoints ---------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
import numpy as np, torch
torch.set_num_threads(1)
import skebm.train
from skebm import HybridCDDensity, SteinEBM
from skebm.energies import MLP
from skebm.objectives import ContrastiveDivergence, ImportanceLikelihood

folder, kill_at, energy = sys.argv[1], int(sys.argv[2]), sys.argv[3]
skebm.train.SECONDS_BETWEEN_CHECKPOINTS = 0.0
rng = np.random.RandomState(0)
X, probe = rng.gamma(3.0, size=(150, 2)), rng.gamma(3.0, size=(40, 2))
steps = [0]

def counted(step):
    def count(*args):
        steps[0] += 1
        if steps[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)
    return count

def factory(n_features):
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Flatten(0)
    )

def fit(checkpoint_dir):
    steps[0] = 0
    est = HybridCDDensity(
        base="gaussian", max_iter=100, n_steps=2, n_iter_no_change=None, random_state=0,
        energy=factory if energy == "callable" else MLP(hidden_sizes=(8,), n_frequencies=4),
        checkpoint_dir=checkpoint_dir,
    ).fit(X)
    return est, steps[0]

for phase in (ContrastiveDivergence, ImportanceLikelihood):
    phase.step = counted(phase.step)
est, n = fit(folder)
whole, m = fit(None)
np.savez(os.path.join(folder, "result.npz"), steps=[n, m], n_iter=[est.n_iter_, whole.n_iter_],
         resumed=est.score_samples(probe), whole=whole.score_samples(probe),
         a=est.sample(9, random_state=0), b=whole.sample(9, random_state=0))
"""


def run_script(folder, kill_at, energy):
    script = folder / "fit.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(folder), str(kill_at), energy]
    environment = os.environ | {"PYTHONPATH": str(Path(skebm.train.__file__).parents[1])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("kill_at", "energy", "written"),
    [(70, "mlp", [(50, False)]), (140, "callable", [(25, False), (100, True)])],
    ids=["among the chains", "in the refinement of a callable energy"],
)
def test_a_killed_fit_resumes_and_ends_with_the_same_bits(kill_at, energy, written, tmp_path):
    killed = run_script(tmp_path, kill_at, energy)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    states = [torch.load(file, weights_only=True) for file in tmp_path.glob("*.pt")]
    assert sorted((s["iteration"], s["finished"]) for s in states) == written
    again = run_script(tmp_path, 0, energy)
    assert again.returncode == 0, again.stderr
    result = np.load(tmp_path / "result.npz")
    left = 200 - sum(iteration for iteration, _ in written)
    assert result["steps"].tolist() == [left, 200]  # it went on, rather than starting again
    assert result["n_iter"].tolist() == [100, 100]
    np.testing.assert_array_equal(result["resumed"], result["whole"])
    np.testing.assert_array_equal(result["a"], result["b"])
