"""A row's score is its own, whatever the other rows, their number, kind and precision."""

import copy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from skebm.bases import Gaussian, Kernel, Mixture
from skebm.bases._base import log_sum_exp
from skebm.data import Affine
from tests import cases
from tests.generators import gen

pytestmark = cases.QUIET
KINDS = {
    "kernel": ("NCEDensity", {"base": Kernel(n_centers=100)}, 1.0),
    "mixture": ("HybridCDDensity", {"base": Mixture(n_components=3)}, 1.0),
    "narrow": (
        "ScoreMatchingDensity",
        {"base": Mixture(n_components=1), "data_noise": 0},
        1e-3,  # of one column, given another
    ),
    "narrow kernels": ("NCEDensity", {"base": Kernel(100, bandwidth=1e-3)}, 1.0),
}
kinds = pytest.mark.parametrize("kind", KINDS)
calls = pytest.mark.parametrize("function", ["score_samples", "score_function"])


def rows(n, width=1.0, seed=0):
    x = cases.table(n, seed)
    x[:, 1] = (1 - width) * 40 * x[:, 0] + width * x[:, 1]
    return x


@cache
def fitted(kind):
    name, params, width = KINDS[kind]
    return cases.tiny(name, **params).fit(rows(120, width))


def among(n, kind):
    """Rows like those of the fit, and a few that are farther out."""
    x = rows(n, KINDS[kind][2], seed=1)
    x[3] += 3 * x.std(0)
    return x


def assert_close(values, truth, tolerance):
    norm = np.abs(truth) if truth.ndim == 1 else np.linalg.norm(truth, axis=1, keepdims=True)
    assert (np.abs(values - truth) / (1 + norm)).max() < tolerance


@calls
@kinds
def test_a_row_scores_alone_as_among_others(kind, function):
    X, score = among(10_000, kind), getattr(fitted(kind), function)
    exact, coarse = score(X[:256]), 1e-5 if function == "score_samples" else 1e-4
    assert_close(np.concatenate([score(X[i, None]) for i in range(20)]), exact[:20], 1e-9)
    assert_close(score(X[:257])[:256], exact, coarse)
    assert_close(score(X)[:256], exact, coarse)


def test_kernels_in_thirty_columns_lose_nothing_among_many_rows():
    """Exponents are sums of thousands, which the columns' units may cancel to a score near 0."""
    X = load_breast_cancer().data
    est = cases.tiny("NCEDensity", base=Kernel(bandwidth=0.06)).fit(X)
    assert not est.density_._is_narrow
    rng = np.random.default_rng(0)
    rows = X[rng.integers(len(X), size=2000)] + 0.1 * X.std(0) * rng.normal(size=(2000, 30))
    alone = np.concatenate([est.score_samples(part) for part in np.split(rows, 10)])
    np.testing.assert_allclose(est.score_samples(rows), alone, rtol=0, atol=5e-6)


@cases.each
def test_every_estimator_scores_in_single_precision_as_in_double(name):
    est, X = cases.fitted(name), cases.table(3000, seed=1).astype(np.float32)
    doubles = est.score_samples(X[:200].astype(np.float64))
    for given in (X, pd.DataFrame(X), np.asfortranarray(X)):
        assert_close(est.score_samples(given)[:200], doubles, 1e-5)
    assert_close(est.score_samples(X[:200]), doubles, 1e-9)
    assert_close(est.score_samples(X[:200].tolist()), doubles, 1e-9)


def test_a_memory_map_scores_as_an_array_and_is_not_copied(tmp_path):
    est, X = cases.fitted("HybridCDDensity"), cases.table(5000, seed=1).astype(np.float32)
    X.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=X.shape)
    assert np.shares_memory(est._rows(mapped), mapped)
    for function in ("score_samples", "score_function", "energy_samples", "predict"):
        assert np.array_equal(getattr(est, function)(mapped), getattr(est, function)(X))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_number_among_many_in_single_precision_is_refused(value):
    X = cases.table(5000).astype(np.float32)
    X[4321, 1] = value
    with pytest.raises(ValueError, match="NaN" if np.isnan(value) else "infinity"):
        cases.fitted("NCEDensity").energy_samples(X)


def test_large_offsets_in_single_precision_are_differences_in_double():
    X = cases.table(300).astype(np.float32) + np.float32([2**20, 0])
    affine = Affine(np.array([2.0**20 + 0.01, -300.0]), np.array([0.1, 50.0]))
    truth = (X.astype(np.float64) - affine.location) / affine.scale
    np.testing.assert_allclose(affine.forward(X, dtype=torch.float64), truth, rtol=1e-14)
    np.testing.assert_allclose(affine.forward(X), truth, rtol=1e-7)


@pytest.mark.parametrize("component", [Kernel(30), Mixture(n_components=2), Gaussian()])
def test_what_a_base_prepares_follows_its_tensors(component):
    """Whether they are loaded, converted or copied."""
    x = torch.from_numpy(cases.table(60)).float()
    x = (x - x.mean(0)) / x.std(0)
    one, other = component.fit(x, None, gen(0)), component.fit(3 * x - 1, None, gen(0))
    truth = other.log_prob(x)
    one.load_state_dict(other.state_dict())
    assert one.log_prob(x).equal(truth)
    twin = copy.deepcopy(one).double().float()
    assert twin.log_prob(x).equal(truth) and twin.sample(3, gen(1)).equal(other.sample(3, gen(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_exponentials_are_those_of_torch(dtype):
    joint = 300 * torch.randn(4, 500, dtype=dtype, generator=gen(0))
    joint[0, :7] = torch.tensor([-1e30, 0.0, -3e38, 1e-3, -torch.inf, 3e38, 80.0])
    joint = joint.requires_grad_(True)
    found, truth = log_sum_exp(joint), joint.logsumexp(0)
    torch.testing.assert_close(found, truth)
    (slope,) = torch.autograd.grad(found.sum(), joint)
    torch.testing.assert_close(slope, torch.autograd.grad(truth.sum(), joint)[0])
    nothing = torch.full((3, 2), -torch.inf, dtype=dtype)
    assert log_sum_exp(nothing).equal(nothing[0]) and log_sum_exp(nothing * 0).isnan().all()
