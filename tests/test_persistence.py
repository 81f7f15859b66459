"""Save, load, pickle and resume: the same bits afterwards, and no code from a file."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch.distributions import Independent, Normal

import skebm.train
from skebm import HybridCDDensity, SteinEBM
from skebm.bases import Kernel, Mixture, TorchDistribution
from skebm.energies import MLP, Reconstruction, Zero
from skebm.networks import Critic
from skebm.objectives import ContrastiveDivergence
from skebm.partition import AIS, ImportanceSampling
from skebm.samplers import MALA


def tiny(**params):
    defaults = {
        "base": "gaussian",
        "max_iter": 20,
        "n_steps": 2,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=2048, max_samples=2048),
        "validation_fraction": 0,  # nothing held out: the trained energy is always kept
        "refine": False,
        "random_state": 0,
    }
    return HybridCDDensity(**{**defaults, **params})


def table(n=150, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(3.0, size=(n, 2)) * [1.0, 50.0] + [0.0, 1e3]


def factory(n_features):
    """A callable energy that pickles."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Flatten(0)
    )


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


@pytest.mark.parametrize(
    "params",
    [
        {"base": "gaussian"},
        {"base": Mixture(n_components=2)},
        {"base": "kernel"},
        {"base": "uniform"},
        {"base": None, "energy": MLP((8,), output="quadratic", n_frequencies=0)},
        {"energy": MLP((4, 4), activation="tanh", output="linear-quadratic")},
        {"energy": MLP((4, 4), activation="leaky_relu", negative_slope=0.3)},
        {"energy": Reconstruction((8, 4), negative_slope=0.3)},
        {"base": None, "energy": Reconstruction((8,), activation="tanh")},
        {"base": "gaussian", "log_partition": None},
        {"base": "kernel", "temperature": 2.0, "standardize": False},
        {"energy": "mlp", "max_iter": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning")
def test_save_and_load_give_the_same_bits(params, tmp_path):
    est = tiny(**params).fit(table())
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(str(tmp_path / "model"))
    assert_same(est, loaded)
    assert loaded.log_partition_ == est.log_partition_
    assert type(loaded.log_partition_) is type(est.log_partition_)
    for name in ("offset_", "n_iter_", "history_", "n_features_in_", "validation_gain_"):
        assert getattr(loaded, name) == getattr(est, name)
    assert loaded.temperature_ == est.temperature_
    np.testing.assert_array_equal(loaded.data_noise_, est.data_noise_)
    assert type(loaded.base_) is type(est.base_)
    assert repr(loaded) == repr(est)


def test_a_dropped_energy_is_saved_as_such(tmp_path):
    rng = np.random.RandomState(0)
    for seed in range(5):
        est = tiny(random_state=seed, validation_fraction=0.1).fit(rng.randn(100, 2))
        if isinstance(est.energy_, Zero):
            break
    assert isinstance(est.energy_, Zero)
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert isinstance(loaded.energy_, Zero)
    assert_same(est, loaded, rng.randn(10, 2))


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


def test_a_loaded_estimator_can_be_fitted_again(saved, fitted):
    loaded = HybridCDDensity.load(saved).fit(table())
    assert_same(fitted, loaded)


def test_feature_names_survive(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(table(), columns=["length", "width"])
    est = tiny().fit(frame)
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert list(loaded.feature_names_in_) == ["length", "width"]
    np.testing.assert_array_equal(loaded.score_samples(frame), est.score_samples(frame))
    with pytest.raises(ValueError, match="order"):
        loaded.score_samples(frame[["width", "length"]])


def test_a_random_state_instance_is_not_saved_but_pickled(tmp_path):
    est = tiny(random_state=np.random.RandomState(7)).fit(table())
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert loaded.random_state is None
    assert_same(est, loaded)
    twin = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(twin.sample(5), est.sample(5))


@pytest.mark.parametrize("trip", ["pickle", "joblib", "deepcopy"])
@pytest.mark.parametrize(
    "params",
    [
        {"base": Mixture(n_components=2)},
        {"base": "kernel"},
        {"energy": factory},
        {"base": TorchDistribution(Independent(Normal(torch.zeros(2), torch.ones(2)), 1))},
    ],
    ids=["mixture", "kernel", "callable", "torch"],
)
def test_pickle_joblib_and_deepcopy_give_the_same_bits(trip, params, tmp_path):
    est = tiny(**params).fit(table())
    if trip == "pickle":
        twin = pickle.loads(pickle.dumps(est))
    elif trip == "joblib":
        joblib.dump(est, tmp_path / "model.joblib")
        twin = joblib.load(tmp_path / "model.joblib")
    else:
        twin = copy.deepcopy(est)
    assert_same(est, twin)
    assert twin.get_params().keys() == est.get_params().keys()


def test_a_pickled_warm_start_continues_with_the_same_bits():
    est = tiny(warm_start=True).fit(table())
    twin = pickle.loads(pickle.dumps(est))
    assert_same(est.fit(table()), twin.fit(table()))
    assert twin.n_iter_ == 40


def test_a_deep_copy_shares_nothing_with_its_original(fitted):
    twin, before = copy.deepcopy(fitted), fitted.score_samples(table())
    with torch.no_grad():
        for parameter in twin.energy_.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(fitted.score_samples(table()), before)
    assert (twin.score_samples(table()) != before).any()


def stein(**params):
    defaults = {
        "critic": Critic((6, 5), "tanh", linear_skip=True),
        "critic_steps": 1,
        "critic_learning_rate": 0.01,
        "base": Mixture(n_components=2),
        "calibrate": True,
        "max_iter": 4,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=2048, max_samples=2048),
        "validation_fraction": 0,
        "random_state": 0,
    }
    return SteinEBM(**{**defaults, **params})


def test_a_stein_model_keeps_its_critic_and_calibration(tmp_path):
    rng = np.random.RandomState(0)
    X = np.r_[rng.randn(200, 2) - 4, rng.randn(50, 2) + 4]
    est = stein().fit(X)
    est.save(tmp_path / "model")
    loaded = SteinEBM.load(tmp_path / "model")
    assert_same(est, loaded, X)
    np.testing.assert_array_equal(est.critic_(X), loaded.critic_(X))
    assert type(loaded.calibration_) is tuple and loaded.calibration_ == est.calibration_
    assert loaded.get_params() == est.get_params()
    tensors = dict(est._proposal.state_dict())
    assert tensors.keys() == loaded._proposal.state_dict().keys()
    with pytest.raises(ValueError, match="must hold a HybridCDDensity, got a SteinEBM"):
        HybridCDDensity.load(tmp_path / "model")
    poison = {"component": ["os", "system"], "params": {"args": "touch poisoned"}}
    edit(tmp_path / "model", lambda header: header["params"].update(critic=poison))
    with pytest.raises(ValueError, match=r"outside skebm: os\.system"):
        SteinEBM.load(tmp_path / "model")


def test_checkpoints_of_a_critic_hold_no_code(tmp_path):
    stein(checkpoint_dir=tmp_path).fit(table())
    (checkpoint,) = tmp_path.iterdir()
    state = torch.load(checkpoint, weights_only=True)
    assert state["finished"] and "critic" in state["objective"]["modules"]


def test_what_is_set_after_a_fit_waits_for_the_next(tmp_path):
    """The file holds the networks that were fitted, and the parameters as they are now."""
    est = tiny().fit(table())
    est.set_params(energy__hidden_sizes=(5,), image_shape=(1, 1, 2))
    est.save(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model")
    assert_same(est, loaded)
    assert loaded.get_params() == est.get_params()
    loaded.save(tmp_path / "again")
    assert_same(est, HybridCDDensity.load(tmp_path / "again"))
    est = tiny(energy=factory).fit(table())
    est.set_params(energy="mlp").save(tmp_path / "model")
    assert_same(est, HybridCDDensity.load(tmp_path / "model", energy=factory))


def test_a_critic_does_not_follow_parameters_set_after_the_fit(tmp_path):
    X = table()
    est = stein().fit(X)
    before = est.critic_(X)
    est.set_params(critic=Critic((3,)))
    np.testing.assert_array_equal(est.critic_(X), before)
    est.save(tmp_path / "model")
    np.testing.assert_array_equal(SteinEBM.load(tmp_path / "model").critic_(X), before)


# -- what save and load refuse -------------------------------------------------------------------


def test_a_callable_energy_has_to_be_given_again(tmp_path):
    est = tiny(energy=factory).fit(table())
    est.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"energy must be given.*got None"):
        HybridCDDensity.load(tmp_path / "model")
    loaded = HybridCDDensity.load(tmp_path / "model", energy=factory)
    assert loaded.energy is factory
    assert_same(est, loaded)


def test_save_needs_a_fitted_estimator(tmp_path):
    with pytest.raises(NotFittedError):
        tiny().save(tmp_path / "model")


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


def test_load_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        HybridCDDensity.load(tmp_path / "nowhere")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_load_refuses_foreign_safetensors(metadata, tmp_path):
    save_file({"weight": torch.zeros(3)}, str(tmp_path / "other"), metadata=metadata)
    with pytest.raises(ValueError, match=r"file that save wrote, got '.*other'"):
        HybridCDDensity.load(tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"a": 1}) * 50])
def test_load_refuses_what_is_no_safetensors_file(content, tmp_path):
    (tmp_path / "other").write_bytes(content)
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


@pytest.fixture
def steps(monkeypatch):
    """Counts updates; ``steps.stop_after`` interrupts with Ctrl-C."""
    original = ContrastiveDivergence.step

    class Steps:
        count, stop_after = 0, 10**9

    def step(*args):
        if Steps.count >= Steps.stop_after:
            raise KeyboardInterrupt
        Steps.count += 1
        return original(*args)

    monkeypatch.setattr(ContrastiveDivergence, "step", step)
    monkeypatch.setattr(skebm.train, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    return Steps


def interrupted(est, X, steps, after):
    steps.stop_after = after
    with pytest.warns(ConvergenceWarning, match=f"interrupted after {after}"):
        est.fit(X)
    steps.count, steps.stop_after = 0, 10**9
    return est


def test_an_interrupted_fit_resumes(steps, tmp_path):
    est = interrupted(tiny(checkpoint_dir=tmp_path), table(), steps, 8).fit(table())
    assert steps.count == 12
    assert est.n_iter_ == 20
    assert_same(est, tiny().fit(table()))


def test_an_interrupted_fit_without_a_seed_resumes(steps, tmp_path):
    est = tiny(checkpoint_dir=tmp_path, random_state=None)
    interrupted(est, table(), steps, 8).fit(table())
    assert steps.count == 12


def test_an_interrupted_fit_with_a_random_state_instance_resumes(steps, tmp_path):
    first, second = (
        tiny(checkpoint_dir=tmp_path, random_state=np.random.RandomState(3)) for _ in range(2)
    )
    interrupted(first, table(), steps, 8)
    second.fit(table())
    assert steps.count == 12


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"learning_rate": 1e-3}, 0),
        ({"energy": MLP(hidden_sizes=(8,), n_frequencies=5)}, 0),
        ({"random_state": 1}, 0),
        ({}, 1),
    ],
    ids=["parameter", "nested parameter", "seed", "rows"],
)
def test_another_fit_does_not_resume(change, rows, steps, tmp_path):
    interrupted(tiny(checkpoint_dir=tmp_path), table(), steps, 8)
    est = tiny(checkpoint_dir=tmp_path, **change).fit(table(seed=rows))
    assert steps.count == 20
    assert_same(est, tiny(**change).fit(table(seed=rows)))


def test_other_weights_do_not_resume(steps, tmp_path):
    interrupted(tiny(checkpoint_dir=tmp_path), table(), steps, 8)
    tiny(checkpoint_dir=tmp_path).fit(table(), sample_weight=np.arange(150) % 2)
    assert steps.count == 20


def test_a_finished_fit_without_a_seed_is_not_taken_over(steps, tmp_path):
    est = tiny(checkpoint_dir=tmp_path, random_state=None)
    first = est.fit(table()).score_samples(table())
    second = est.fit(table()).score_samples(table())
    assert steps.count == 40
    assert (first != second).any()


def test_warm_start_goes_on_beside_a_checkpoint(steps, tmp_path):
    est = tiny(checkpoint_dir=tmp_path, warm_start=True).fit(table())
    assert est.fit(table()).n_iter_ == 40
    assert steps.count == 40


def test_checkpoints_hold_no_code(tmp_path):
    tiny(checkpoint_dir=tmp_path / "new" / "folder").fit(table())
    (checkpoint,) = (tmp_path / "new" / "folder").iterdir()  # no temporary file is left behind
    assert torch.load(checkpoint, weights_only=True)["finished"]


def test_each_phase_has_its_checkpoint(tmp_path):
    est = tiny(checkpoint_dir=tmp_path, refine=True).fit(table())
    assert len(list(tmp_path.iterdir())) == 2
    assert_same(est, tiny(refine=True).fit(table()))
