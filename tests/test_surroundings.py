"""Settings of the caller, threads and forks change no number and stop nothing."""

import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

import skebm
from skebm import _surroundings
from skebm._surroundings import own_settings, threads
from skebm.diagnostics import run_chains
from skebm.networks import Critic
from skebm.stein import CriticSettings, goodness_of_fit_test
from tests import cases

pytestmark = cases.QUIET
X = cases.table()
BIG = np.vstack([X, X, X])  # beyond the rows that are computed in double precision


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def coarse_products():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "matmul precision": coarse_products,
    "numpy raises": lambda: np.errstate(all="raise"),
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


@each_setting
@cases.each
def test_a_callers_settings_change_no_fit(name, setting):
    with SETTINGS[setting]():
        est = cases.tiny(name).fit(X)
    assert cases.bits(est) == cases.bits(cases.fitted(name))


@each_setting
@cases.each
def test_nor_a_read(name, setting):
    est = cases.fitted(name)
    reads = [
        lambda: est.score_samples(X),
        lambda: est.score_samples(BIG),
        lambda: est.score_function(X),
        lambda: est.energy_samples(BIG),
        lambda: est.sample(9, random_state=0),
    ]
    if name == "SteinEBM":
        reads += [lambda: est.critic_(X), lambda: est.sample(5, 0, method="langevin", n_steps=3)]
    if name == "BoundsEBM":
        reads += [lambda: est.sample(5, 0, method="generator")]
    for read in reads:
        expected = read()
        with SETTINGS[setting]():
            values = read()
        np.testing.assert_array_equal(values, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of few rows and short chains
@each_setting
def test_nor_a_diagnosis(setting):
    est, critic = cases.fitted("NCEDensity"), CriticSettings(Critic((4,)), max_iter=3)

    def look():
        chains = run_chains(est, n_chains=4, n_steps=3, random_state=0)
        tests = [
            goodness_of_fit_test(est, X, method=method, random_state=0, **own).statistic
            for method, own in (("lsd", {"critic": critic}), ("fssd", {}))
        ]
        return [chains.positions, *tests]

    expected = look()
    with SETTINGS[setting]():
        found = look()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_settings_are_put_back_whatever_happens():
    def now():
        return (
            torch.get_default_dtype(),
            torch.empty(0).device.type,
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_float32_matmul_precision(),
            np.geterr()["over"],
            torch.get_num_threads(),
        )

    def inside():
        with own_settings(), threads(0.0):
            assert now() == (torch.float32, "cpu", True, False, False, "highest", "warn", 1)
            raise KeyboardInterrupt

    for manager in SETTINGS.values():
        with manager():
            before = now()
            with pytest.raises(KeyboardInterrupt):
                inside()
            assert now() == before


def test_fits_in_two_threads_share_the_default_dtype():
    """The first that ends does not take it from the other."""
    with default_dtype():
        entered, left = threading.Event(), threading.Event()

        def first():
            with own_settings():
                entered.set()
                left.wait(10)

        thread = threading.Thread(target=first)
        thread.start()
        entered.wait(10)
        with own_settings():
            left.set()
            thread.join()
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float64


# -- threads ---------------------------------------------------------------------------------------


@pytest.fixture
def four():
    """A caller with four threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("work", "n"), [(0, 1), (0.9, 1), (1.0, 2), (2.5, 3), (99, 4), (np.inf, 4)]
)
def test_threads_are_what_the_work_earns(work, n, four):
    with threads(work * _surroundings.EARNED):
        assert torch.get_num_threads() == n
        with threads(np.inf):  # never more than the caller's
            assert torch.get_num_threads() == 4
        with threads(0):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == n
    assert torch.get_num_threads() == 4


def test_a_small_fit_and_small_scores_take_one_thread(four):
    seen = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            pools = [pool["num_threads"] for pool in threadpool_info()]
            seen.append((torch.get_num_threads(), max(pools)))
            return self.scale * x.square().sum(1)

    est = cases.tiny("NCEDensity", energy=lambda n: Watched(), max_iter=2).fit(X)
    assert set(seen) == {(1, 1)}
    seen.clear()
    est.score_samples(X)
    assert {n for n, _ in seen} == {1}
    seen.clear()
    est.score_samples(np.tile(X, (50, 1)))
    assert {n for n, _ in seen} == {4} and torch.get_num_threads() == 4


def test_convolutions_take_all():
    """They use each parameter many times."""
    conv = torch.nn.Conv2d(1, 2, 3)
    assert skebm.energies.Model(conv, None, 1.0).multiply_adds(1) == np.inf


# -- forks -----------------------------------------------------------------------------------------

FORK = """
import multiprocessing, sys, warnings
import numpy as np, torch
torch.set_num_threads(2)
warnings.simplefilter("ignore")
from sklearn.cluster import KMeans
from skebm import NCEDensity
X = np.random.default_rng(0).normal(size=(5000, 3))
KMeans(3, n_init=1, random_state=0).fit(X)  # wakes scikit-learn's threads
torch.randn(3000, 3000) @ torch.randn(3000, 30)  # and torch's
est = NCEDensity(max_iter=3, random_state=0).fit(X)
expected = est.score_samples(X)

def work(i):
    again = NCEDensity(max_iter=3, random_state=0).fit(X[:300])
    return torch.get_num_threads(), est.score_samples(X), again.score_samples(X[:20])

with multiprocessing.get_context("fork").Pool(2) as pool:
    for n, scores, _ in pool.map_async(work, range(2)).get(timeout=60):
        assert n == 1 and np.allclose(scores, expected, rtol=1e-4, atol=1e-4)
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_worker_fits_and_scores():
    environment = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    environment["PYTHONPATH"] = str(Path(skebm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr


def test_a_first_fit_loads_no_compiler_and_no_algebra():
    """torch's optimizers import its compiler, its empty layers a computer algebra system."""
    code = (
        "import sys, numpy as np, skebm;"
        "X = np.random.RandomState(0).randn(60, 2);"
        "skebm.NCEDensity(max_iter=2).fit(X); skebm.HybridCDDensity(max_iter=2).fit(X);"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]", out.stderr
