"""A row's result is its own: whatever rows come with it, and wherever it stands among them.

The promise: the same call gives the same bits; in calls of up to 256 rows a row agrees with itself
to 1e-9, and in any two calls to 1e-5 (1 + |score|) nats.
"""

import numpy as np
import pytest

from tests.cases import QUIET, VARIANTS, detected, each_detector, fitted_as, table

pytestmark = QUIET
NEAR, MANY = 1e-9, 1e-5
FEW = 256
READS = ["score_samples", "energy_samples", "score_function"]
WAYS = [(name, "plain") for name in VARIANTS] + [
    ("HybridCDDensity", way) for way in ("mixture base", "kernel base", "reconstruction")
]
WAYS += [("USPDensity", "box"), ("SteinEBM", "uniform base"), ("SteinEBM", "machine")]


def rows(where):
    """600 rows: like the table, or up to a million deviations away."""
    X = table(600, seed=1)
    if where == "far":
        center = table().mean(0)
        X = center + (X - center) * np.logspace(1, 6, len(X))[:, None]
    return X


def read_one(est, read, X):
    """Results (n, k), in deviations of the columns where they are slopes."""
    values = getattr(est, read)(X).reshape(len(X), -1)
    return values * table().std(0) if read == "score_function" else values


def assert_near(got, expected, tolerance, size=1.0):
    allowed = tolerance * size * (1 + np.abs(expected).max(1, keepdims=True))
    assert (np.abs(got - expected) / allowed).max() <= 1


def assert_own(read, X, size):
    """A row's result hangs on no other row; `size` (n, 1) scales what single precision may lose."""
    n = len(X)
    alone = np.concatenate([read(X[i : i + 1]) for i in range(0, n, 37)])
    few = np.concatenate([read(X[i : i + FEW]) for i in range(0, n, FEW)])
    assert_near(few[::37], alone, NEAR)
    for count in (2, 3, 7, 64, 255, 256, 257, 600):
        chosen = np.random.RandomState(count).permutation(n)[:count]
        got, within = read(X[chosen]), count <= FEW
        np.testing.assert_array_equal(got, read(X[chosen]))
        assert_near(got, few[chosen], *(NEAR,) if within else (MANY, size[chosen]))
    again = np.arange(9000) % n  # more than a block
    assert_near(read(X[again]), few[again], MANY, size[again])


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize(("name", "variant"), WAYS)
def test_a_row_does_not_depend_on_the_others_nor_on_its_place(name, variant, where, read):
    est, X = fitted_as(name, variant), rows(where)
    size = np.ones((len(X), 1))
    if read != "score_samples":  # far out waves lose their phase, and kernels their weights
        most = np.inf if read == "energy_samples" else 1e3
        size += np.abs(est.score_samples(X)).clip(max=most)[:, None]
    assert_own(lambda rows: read_one(est, read, rows), X, size)


@each_detector
def test_nor_does_it_in_a_detector(name):
    X = rows("near")
    assert_own(lambda rows: read_one(detected(name), "score_samples", rows), X, np.ones((600, 1)))
