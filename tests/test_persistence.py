"""Files: what they hold and refuse, no code from them; and a killed fit that goes on from its own.

That copies, pickles and files keep every bit, and that stopped fits resume, is in ``contracts``.
"""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch.distributions import Independent, Normal

import skebm
from skebm import HybridCDDensity, SteinEBM
from skebm.bases import Kernel, TorchDistribution
from skebm.energies import MLP
from skebm.networks import Critic
from skebm.partition import AIS, ImportanceSampling
from skebm.samplers import MALA


def tiny(cls=HybridCDDensity, **params):
    defaults = {
        "base": "gaussian",
        "max_iter": 20,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=2048, max_samples=2048),
        "validation_fraction": 0,  # nothing held out: the trained energy is always kept
        "random_state": 0,
    }
    own = {"n_steps": 2, "refine": False} if cls is HybridCDDensity else {"critic": Critic((6,))}
    return cls(**{**defaults, **own, **params})


def table(n=150, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(3.0, size=(n, 2)) * [1.0, 50.0] + [0.0, 1e3]


def factory(n_features):
    """A callable energy with layers that behave otherwise in training."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 8),
        torch.nn.Tanh(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 1),
        torch.nn.Flatten(0),
    )


def assert_same(a, b, X=None):
    X = table(seed=1) if X is None else X
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    np.testing.assert_array_equal(a.sample(20, random_state=3), b.sample(20, random_state=3))
    np.testing.assert_array_equal(a.data_noise_, b.data_noise_)
    assert (a.offset_, a.n_iter_, a.history_) == (b.offset_, b.n_iter_, b.history_)


@pytest.fixture(scope="module")
def fitted():
    return tiny(data_noise=0.2).fit(table())


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


def test_a_file_is_the_fit_and_can_be_fitted_again(saved, fitted):
    loaded = HybridCDDensity.load(str(saved))
    assert_same(fitted, loaded)
    np.testing.assert_array_equal(loaded.data_noise_, [0.2, 0.2])
    assert_same(fitted, loaded.fit(table()))


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


OLD = sorted((Path(__file__).parent / "files_0_1_0").glob("*.safetensors"))


@pytest.mark.filterwarnings("ignore:The estimator was saved under other versions")
@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
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


def test_load_refuses_another_class(saved):
    class OtherDensity(HybridCDDensity):
        pass

    for cls in (OtherDensity, SteinEBM):
        with pytest.raises(ValueError, match=f"must hold a {cls.__name__}, got a HybridCDDensity"):
            cls.load(saved)


FOREIGN = [b"", b"hello", pickle.dumps({"a": 1}) * 50, None, {"format": "pt"}]


@pytest.mark.parametrize("content", FOREIGN, ids=lambda content: str(content)[:9])
def test_load_refuses_what_save_did_not_write(content, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "other").write_bytes(content)
    else:
        save_file({"weight": torch.zeros(3)}, str(tmp_path / "other"), metadata=content)
    with pytest.raises(ValueError, match=r"file that save wrote, got '.*other'"):
        HybridCDDensity.load(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        HybridCDDensity.load(tmp_path / "nowhere")


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
    (["skebmish", "Thing"], "outside skebm"),
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
    tiny(SteinEBM, max_iter=2).fit(table()).save(tmp_path / "model")

    def change(header):
        critic = header["attributes"]["critic_network_"]["parts"]["component"]
        critic["value"]["component"] = ["os", "system"]

    edit(tmp_path / "model", change)
    with pytest.raises(ValueError, match=r"outside skebm: os\.system"):
        SteinEBM.load(tmp_path / "model")


# -- a killed fit ----------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
import numpy as np, torch
torch.set_num_threads(1)
import skebm.train.loop
from skebm import HybridCDDensity
from skebm.objectives import ContrastiveDivergence, ImportanceLikelihood

folder, kill_at = sys.argv[1], int(sys.argv[2])
skebm.train.loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
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
        energy=factory, checkpoint_dir=checkpoint_dir,
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


def run_script(folder, kill_at):
    script = folder / "fit.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(folder), str(kill_at)]
    environment = os.environ | {"PYTHONPATH": str(Path(skebm.__file__).parents[1])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_killed_fit_resumes_and_ends_with_the_same_bits(tmp_path):
    """Killed in the refinement, with an energy that only its code tells apart."""
    killed = run_script(tmp_path, 140)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    states = [torch.load(file, weights_only=True) for file in tmp_path.glob("*.[0-9].pt")]
    assert sorted((s["iteration"], s["finished"]) for s in states) == [(25, False), (100, True)]
    again = run_script(tmp_path, 0)
    assert again.returncode == 0, again.stderr
    result = np.load(tmp_path / "result.npz")
    assert result["steps"].tolist() == [75, 200]  # it went on, rather than starting again
    assert result["n_iter"].tolist() == [100, 100]
    np.testing.assert_array_equal(result["resumed"], result["whole"])
    np.testing.assert_array_equal(result["a"], result["b"])
