"""Kernelized and finite set discrepancies: other implementations, closed forms, blocks, units."""

import math

import numpy as np
import pytest
import torch

from skebm.data import torch_generator
from skebm.stein import (
    finite_set_stein_discrepancy,
    goodness_of_fit_test,
    kernel,
    kernelized_stein_discrepancy,
)
from skebm.stein._scores import evaluate_score, standardized
from skebm.stein.fssd import _power
from tests.closed_forms import assert_estimate

PRECISION = np.diag([1.0, 2.0, 0.5]) + 0.2
MEAN = np.array([0.3, -0.2, 0.1])
LOCATIONS = np.array([[0.0, 0.5, -1.0], [1.0, -0.3, 0.2]])
BANDWIDTH = 1.3


def gaussian_score(X):
    return (MEAN - X) @ PRECISION


def fixed_rows():
    i, j = np.arange(12)[:, None], np.arange(3)
    return 1.5 * np.sin(1 + i * (j + 1.7))


def gaussian_kernel(x, y):
    return (-0.5 * (x - y).square().sum() / BANDWIDTH**2).exp()


def stein_kernel_by_autograd(X):
    """The matrix of h, every derivative by automatic differentiation of the kernel."""
    score = torch.from_numpy(gaussian_score(X))
    h = np.empty((len(X), len(X)))
    for i, x in enumerate(torch.from_numpy(X)):
        for j, y in enumerate(torch.from_numpy(X)):
            x_, y_ = x.clone().requires_grad_(), y.clone().requires_grad_()
            k = gaussian_kernel(x_, y_)
            by_x, by_y = torch.autograd.grad(k, (x_, y_), create_graph=True)
            mixed = [torch.autograd.grad(by_x[a], y_, retain_graph=True)[0][a] for a in range(3)]
            s, t = score[i], score[j]
            h[i, j] = (s @ t * k + s @ by_y + t @ by_x + sum(mixed)).detach()
    return h


def witness_by_autograd(X, v):
    """Return the vector s(x) k(x, v) + grad_x k(x, v) of each row, (n, d)."""
    found = []
    for x, s in zip(torch.from_numpy(X), torch.from_numpy(gaussian_score(X)), strict=True):
        x_ = x.clone().requires_grad_()
        k = gaussian_kernel(x_, torch.from_numpy(v))
        found.append((s * k + torch.autograd.grad(k, x_)[0]).detach().numpy())
    return np.array(found)


def unshuffled(X):
    """Return rows that are in the order of X once they are permuted."""
    return X[np.argsort(np.random.RandomState(0).permutation(len(X)))]


def ksd_of_fixed_rows(statistic):
    return kernelized_stein_discrepancy(
        gaussian_score,
        unshuffled(fixed_rows()),
        bandwidth=BANDWIDTH,
        statistic=statistic,
        standardize=False,
    ).value


# Values of the formulas of kernel-gof (W. Jitkrittum, the program of the FSSD paper; revision
# 0a72e8e, KernelSteinTest, LinearKernelSteinTest and FSSD.compute_stat) on these rows; its FSSD
# statistic is n d J times the discrepancy.
@pytest.mark.parametrize(
    ("statistic", "recorded"),
    [("v", 1.3909572524721612), ("u", 0.6218767511258081), ("linear", -0.0818494878423864)],
)
def test_ksd_agrees_with_kernel_gof(statistic, recorded):
    assert ksd_of_fixed_rows(statistic) == pytest.approx(recorded, abs=1e-6)


def fssd_of_fixed_rows():
    return finite_set_stein_discrepancy(
        gaussian_score, fixed_rows(), LOCATIONS, bandwidth=BANDWIDTH, standardize=False
    ).value


def test_fssd_agrees_with_kernel_gof():
    assert fssd_of_fixed_rows() == pytest.approx(-0.03218635766894163, abs=1e-6)


def test_ksd_agrees_with_derivatives_of_the_kernel():
    h = stein_kernel_by_autograd(fixed_rows())
    n = len(h)
    assert ksd_of_fixed_rows("v") == pytest.approx(h.mean(), rel=1e-12)
    assert ksd_of_fixed_rows("u") == pytest.approx(
        (h.sum() - np.trace(h)) / (n * (n - 1)), rel=1e-12
    )
    pairs = [h[i, i + n // 2] for i in range(n // 2)]
    assert ksd_of_fixed_rows("linear") == pytest.approx(np.mean(pairs), rel=1e-12)


def test_fssd_agrees_with_derivatives_of_the_kernel():
    X = fixed_rows()
    tau = np.concatenate([witness_by_autograd(X, v) for v in LOCATIONS], axis=1) / math.sqrt(6)
    products = tau @ tau.T
    n = len(X)
    expected = (products.sum() - np.trace(products)) / (n * (n - 1))
    assert fssd_of_fixed_rows() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("statistic", ["u", "linear"])
def test_the_order_of_the_rows_does_not_bias_the_value(statistic):
    """Of N(0, 1) and the model N(1, 1)."""
    X = np.sort(np.random.default_rng(0).normal(size=(3000, 1)), axis=0)
    found = kernelized_stein_discrepancy(
        lambda x: 1 - x, X, bandwidth=2.0, statistic=statistic, standardize=False
    )
    assert_estimate(found.value, found.stderr, closed_form(np.ones(1), 1, 2.0), 0.05)


def closed_form(shift, d, width):
    """Squared discrepancy of N(0, I) from the model N(shift, I).

    The scores are s_p + shift, so by Stein's identity it is |shift|^2 E k(x, y), x - y ~ N(0, 2 I).
    """
    return shift @ shift * (1 + 2 / width**2) ** (-d / 2)


@pytest.mark.parametrize("statistic", ["u", "linear"])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_ksd_of_shifted_gaussians(statistic, shift):
    X, mean = np.random.default_rng(0).normal(size=(3000, 3)), np.full(3, shift)
    found = kernelized_stein_discrepancy(
        lambda x: mean - x, X, bandwidth=2.0, statistic=statistic, standardize=False
    )
    assert_estimate(found.value, found.stderr, closed_form(mean, 3, 2.0), 0.08)


def test_fssd_of_a_shifted_gaussian():
    X, mean, v = np.random.default_rng(0).normal(size=(5000, 2)), np.array([0.5, 0.0]), [[0.3, 0]]
    # E[s_q k] - E[s_p k] = mean E k(x, v), and E k is a Gaussian convolution
    smoothed = (1 + 1 / 4.0) ** (-1) * math.exp(-0.5 * 0.3**2 / (4 + 1))
    found = finite_set_stein_discrepancy(lambda x: mean - x, X, v, bandwidth=2.0, standardize=False)
    assert_estimate(found.value, found.stderr, (0.5 * smoothed) ** 2 / 2, 0.005)


def test_blocks_change_nothing(monkeypatch):
    X = np.random.default_rng(0).normal(size=(101, 3))
    whole = kernelized_stein_discrepancy(gaussian_score, X)
    monkeypatch.setattr(kernel, "ENTRIES", 700)
    blocks = kernelized_stein_discrepancy(gaussian_score, X)
    np.testing.assert_allclose(blocks, whole, rtol=1e-10)


def test_no_block_is_as_large_as_the_matrix(monkeypatch):
    monkeypatch.setattr(kernel, "ENTRIES", 5000)
    rows = standardized(
        *evaluate_score(gaussian_score, np.random.default_rng(0).normal(size=(500, 3))), True
    )
    sizes = [h.size for _, _, h in kernel.SteinKernel(rows, 1.0).upper()]
    assert max(sizes) <= 5000 and len(sizes) >= 25


@pytest.mark.parametrize("statistic", ["u", "v", "linear", "fssd"])
def test_units_do_not_matter(statistic):
    def value(score, X, v):
        if statistic == "fssd":
            return finite_set_stein_discrepancy(score, X, v)
        return kernelized_stein_discrepancy(score, X, statistic=statistic)

    X, scale = np.random.default_rng(0).normal(size=(60, 3)), np.array([1e-3, 1.0, 1e4])
    moved = value(
        lambda x: gaussian_score((x - 7) / scale) / scale, X * scale + 7, LOCATIONS * scale + 7
    )
    np.testing.assert_allclose(moved, value(gaussian_score, X, LOCATIONS), rtol=1e-7)


def test_the_median_is_of_distances_not_squares():
    X = np.array([[0.0], [1.0], [3.0], [7.0]])  # distances 1, 2, 3, 4, 6, 7
    found = kernelized_stein_discrepancy(lambda x: -x, X, standardize=False)
    assert found.bandwidth == pytest.approx(3.5)


@pytest.mark.parametrize("statistic", ["u", "linear"])
def test_the_optimized_bandwidth_is_at_a_maximum(statistic):
    X = np.random.default_rng(0).normal(size=(400, 2))

    def value(bandwidth):
        return kernelized_stein_discrepancy(
            lambda x: np.tanh(3 * x) - x, X, bandwidth=bandwidth, statistic=statistic
        )

    best = value("optimized")
    others = [value(best.bandwidth * factor).value for factor in (0.25, 0.5, 0.9, 1.1, 2, 4)]
    assert best.value >= max(others) - 1e-6


def test_the_stderr_is_that_of_repeated_samples():
    found = [
        kernelized_stein_discrepancy(
            lambda x: 0.5 - x, np.random.default_rng(i).normal(size=(200, 2)), bandwidth=1.5
        )
        for i in range(200)
    ]
    spread = np.std([f.value for f in found], ddof=1)
    mean = np.mean([f.stderr for f in found])
    assert spread * (1 - 4 / math.sqrt(400)) < mean < 1.15 * spread * (1 + 4 / math.sqrt(400))


def power(x, s, v, width):
    """The estimate over its standard deviation under the alternative, regularized, by hand."""
    difference = (v - x[:, None]) / width
    k = np.exp(-0.5 * np.square(difference).sum(2, keepdims=True))
    tau = ((s[:, None] + difference / width) * k).reshape(len(x), -1) / math.sqrt(v.size)
    h, mean, n = tau @ tau.T, tau.mean(0), len(x)
    spread = 4 * mean @ np.cov(tau.T, bias=True) @ mean
    return (h.sum() - np.trace(h)) / (n * (n - 1)) / math.sqrt(spread + 1e-2)


def test_locations_and_width_of_the_test_have_most_power_on_the_fifth_that_chooses():
    X, rng = np.random.default_rng(0).normal(size=(1000, 2)), np.random.default_rng(1)
    result = goodness_of_fit_test(gaussian_of_two, X, method="fssd", random_state=0)
    chosen = torch.randperm(1000, generator=torch_generator(0)).numpy()[:200]
    x, s, to_x = standardized(*evaluate_score(gaussian_of_two, X), True, reference=chosen)
    x, s, v = x[chosen], s[chosen], (result.locations - to_x.location) / to_x.scale
    best = power(x, s, v, result.bandwidth)
    tensors = (torch.as_tensor(a) for a in (x, s, v, math.log(result.bandwidth)))
    assert float(_power(*tensors)) == pytest.approx(best) and v.shape == (5, 2)
    for i in range(40):
        moved = v + (0.1 if i % 2 else 1.0) * rng.normal(size=v.shape)
        assert power(x, s, moved, result.bandwidth) < best
    for factor in (0.7, 1.4):
        assert power(x, s, v, factor * result.bandwidth) < best


def gaussian_of_two(x):
    return np.array([0.5, 0]) - x


@pytest.mark.parametrize(
    ("call", "error", "fragments"),
    [
        ({"bandwidth": -1.0}, ValueError, ["bandwidth", "> 0", "-1.0"]),
        ({"bandwidth": "wide"}, ValueError, ["bandwidth", "'median', 'optimized'", "'wide'"]),
        ({"statistic": "w"}, ValueError, ["statistic", "'u', 'v', 'linear'", "'w'"]),
        ({"standardize": 2}, TypeError, ["standardize", "2"]),
        ({"X": np.ones((9, 3))}, ValueError, ["X", "rows that differ"]),
        ({"X": np.ones((2, 3))}, ValueError, ["4"]),
    ],
    ids=str,
)
def test_bad_calls(call, error, fragments):
    with pytest.raises(error) as caught:
        kernelized_stein_discrepancy(gaussian_score, **{"X": fixed_rows(), **call})
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


def test_bad_calls_of_fssd():
    with pytest.raises(ValueError, match=r"locations must have 3 columns, got 2\."):
        finite_set_stein_discrepancy(gaussian_score, fixed_rows(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="bandwidth must be a number or 'median', got 'optimized'"):
        finite_set_stein_discrepancy(gaussian_score, fixed_rows(), LOCATIONS, bandwidth="optimized")
