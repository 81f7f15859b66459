"""Files of ONNX: onnxruntime finds the log densities and decisions that the estimator finds."""

import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch.distributions import Distribution, Independent, MultivariateNormal
from torch.distributions import Uniform as Box

from skebm import NCEDensity, USPDensity
from skebm.bases import ProbabilisticPCA, TorchDistribution
from skebm.data.marginal import STRAIGHT
from skebm.energies import MLP, Conv, Energy, GaussianBernoulliRBM, LinearICA, Reconstruction
from skebm.export import to_onnx
from tests.cases import BASES, CLASSES, tiny

N, FAST = 10_000, ("kernel", "gaussian")
X = np.random.RandomState(0).normal(size=(300, 2))
X = np.c_[np.exp(X[:, 0]), 1e3 + 40 * X[:, 1] + 20 * X[:, 0]]  # bent and straight, when marginal
WIDE = np.random.RandomState(0).normal(size=(300, 20))
IMAGES = np.random.RandomState(0).uniform(size=(100, 64))
SQUARED = {"base": None, "log_partition": None, "energy": MLP((6,), output="quadratic")}


def smooth(d):
    """An energy with an operation that onnxruntime has in single precision alone."""
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(d, 4), torch.nn.GELU(), linear(4, 1), torch.nn.Flatten(0))


class Overflowing(Energy):
    """Half a square that is not a number far out."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (0.5 * self.slope * x.square() + 0 * x.exp()).sum(1)


class Branching(Overflowing):
    """What no export can follow."""

    def forward(self, x):
        return 0.1 * self.slope * (x if x.isfinite().all() else 0 * x).tanh().sum(1)


CASES = {  # every estimator, base, transform and kind of energy
    "kernel": ("HybridCDDensity", {"base": "kernel", "temperature": 2.0}, X),
    "union": ("USPDensity", {"base": "union", "standardize": "affine"}, WIDE),
    "mixture": ("NCEDensity", {"base": "mixture", "standardize": "marginal"}, X),
    "sources": ("SteinEBM", {"base": None, "energy": LinearICA(), "log_partition": "auto"}, X),
    "uniform": ("ScoreMatchingDensity", {"base": "uniform", "standardize": "marginal"}, X),
    "squared": ("BoundsEBM", SQUARED, X),
    "gaussian": ("EnergyDensity", {"base": "gaussian", "temperature": 0.5}, X),
    "as it is": ("NCEDensity", {"standardize": False, "energy": GaussianBernoulliRBM(3)}, X / 1e3),
    "defensive": ("NCEDensity", {"base": BASES["Defensive"], "energy": Reconstruction((5,))}, X),
    "principal": ("HybridCDDensity", {"base": ProbabilisticPCA(1)}, X),
    "box": (
        "NCEDensity",
        {"base": TorchDistribution(Independent(Box(torch.full((2,), -60.0), 60.0), 1))},
        X,
    ),
    "known": (
        "NCEDensity",
        {
            "base": TorchDistribution(MultivariateNormal(torch.zeros(2), 2 * torch.eye(2) + 1)),
            "energy": smooth,
        },
        X,
    ),
    "overflow": (
        "ScoreMatchingDensity",
        {"base": None, "log_partition": None, "energy": lambda d: Overflowing()},
        X,
    ),
    "images": (
        "HybridCDDensity",
        {
            "image_shape": (1, 8, 8),
            "base": "gaussian",
            "energy": Conv((3, 3), strides=1, pooling="average", attention=(1,)),
        },
        IMAGES,
    ),
}


@cache
def fitted(case):
    name, params, rows = CASES[case]
    est = tiny(name, **params).fit(rows)
    if case == "gaussian":
        est.offset_ = 1e6 + 1 / 3  # which float32 does not hold
    return est


@pytest.fixture(scope="session")
def travel(tmp_path_factory):
    """What onnxruntime makes of the file of a case."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1

    @cache
    def travelled(case):
        folder = tmp_path_factory.mktemp("onnx")
        to_onnx(fitted(case), folder / "density.onnx")
        assert [p.name for p in folder.iterdir()] == ["density.onnx"]  # nothing lies beside it
        return runtime.InferenceSession(folder / "density.onnx", options)

    return travelled


def near_and_far(rows):
    """N rows: of the table with noise, far out in all directions, and in some columns alone."""
    rng, (mean, std) = np.random.RandomState(1), (rows.mean(0), rows.std(0))
    out = rows[rng.randint(len(rows), size=N)] + 0.1 * std * rng.normal(size=(N, rows.shape[1]))
    sizes = 10.0 ** rng.uniform(0, 9, size=(N // 2, 1))
    out[: N // 2] = mean + sizes * std * rng.normal(size=(N // 2, rows.shape[1]))
    out[: N // 4, 0] = mean[0]
    out[0] = 1e300
    return out


def assert_same(session, est, rows):
    log_density, decision = session.run(None, {"X": rows})
    expected = est.score_samples(rows)
    allowed = 1e-5 * (1 + np.abs(expected))
    assert log_density.dtype == decision.dtype == np.float64
    assert log_density.shape == decision.shape == (len(rows),)
    assert (np.abs(log_density - expected) <= allowed).all()
    assert (np.abs(decision - est.decision_function(rows)) <= allowed).all()


@pytest.mark.parametrize(
    "case", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_scores_are_those_of_the_estimator(case, travel):
    est, rows, session = fitted(case), near_and_far(CASES[case][2]), travel(case)
    assert est.energy_kept_ and abs(est.offset_) > 0.1
    assert_same(session, est, rows)
    for i in (0, 1, N // 4, N - 1):
        assert_same(session, est, rows[i : i + 1])


def test_there_is_a_case_for_every_estimator():
    assert {name for name, _, _ in CASES.values()} == set(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mixture", "principal"])
def test_few_rows_agree_as_closely_as_doubles_do(case, travel):
    """The estimator computes up to 256 rows in double precision, and no number may be less."""
    est, rows, session = fitted(case), near_and_far(X)[1:], travel(case)
    if case == "mixture":
        bend = est.density_.transform.bend
        assert len(set(bend == STRAIGHT)) == 2  # a column of either kind
    for part in (rows[:200], rows[-200:]):
        log_density, decision = session.run(None, {"X": part})
        np.testing.assert_allclose(log_density, est.score_samples(part), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(decision, est.decision_function(part), rtol=1e-9, atol=1e-9)


def test_the_file_says_what_it_takes_and_gives(travel):
    session = travel("gaussian")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("X", "tensor(double)", ["n", 2])
    found = [(out.name, out.type) for out in session.get_outputs()]
    assert found == [("log_density", "tensor(double)"), ("decision", "tensor(double)")]
    rows = X[:4].copy()
    rows[1, 0], rows[2, 1] = np.nan, np.inf
    for out in session.run(None, {"X": rows}):
        assert np.isnan(out).tolist() == [False, True, True, False]
    assert [len(out) for out in session.run(None, {"X": X[:0]})] == [0, 0]


def test_an_energy_that_cannot_travel_leaves_the_earlier_file(tmp_path):
    pytest.importorskip("onnxscript")
    path = tmp_path / "density.onnx"
    path.write_bytes(b"earlier")
    est = tiny("NCEDensity", energy=lambda d: Branching()).fit(X)
    with pytest.raises(TypeError, match=r"must have an energy .* got Bounded.*which raised"):
        to_onnx(est, path)
    assert path.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


def test_validation_of_distributions_is_put_back(travel, monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", True)  # zuko turns it off
    travel("gaussian")
    with pytest.raises(ValueError, match="within the support"):
        Box(0.0, 1.0).log_prob(torch.tensor(2.0))


def test_what_is_no_density_is_refused(tmp_path):
    with pytest.raises(TypeError, match="must be a density estimator of skebm, got Pipeline"):
        to_onnx(make_pipeline(NCEDensity()), tmp_path / "file")
    with pytest.raises(NotFittedError):
        to_onnx(NCEDensity(), tmp_path / "file")
    frame = pd.DataFrame({"city": ["Rome", "Oslo"] * 50, "size": np.arange(100) / 7})
    est = USPDensity(max_iter=2, random_state=0).fit(frame)
    with pytest.raises(ValueError, match="must be fitted to columns of plain numbers, got .*city"):
        to_onnx(est, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install skebm\[onnx\]"):
        to_onnx(fitted("gaussian"), tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_skebm_does_not_import_it():
    code = "import skebm, sys; print({'skebm.export', 'onnx', 'onnxscript'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
