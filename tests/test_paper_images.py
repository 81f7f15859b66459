"""The reproductions on images: what their shared functions compute, against closed forms."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

PATH = Path(__file__).parents[1] / "examples" / "papers" / "_images.py"


@pytest.fixture(scope="module")
def images():
    spec = importlib.util.spec_from_file_location("paper_images", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def covariance(rng, d, rank):
    factor = rng.standard_normal((d, rank))
    return factor @ factor.T


def test_frechet_distance_of_axis_aligned_gaussians(images):
    m1, m2 = np.array([1.0, -2.0]), np.array([0.5, 1.0])
    s1, s2 = np.array([0.3, 2.0]), np.array([1.0, 0.5])
    truth = np.square(m1 - m2).sum() + np.square(s1 - s2).sum()
    found = images.frechet_gaussians(m1, np.diag(s1**2), m2, np.diag(s2**2))
    assert found == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("rank", [5, 2])
def test_frechet_distance_agrees_with_the_matrix_root(images, rank):
    rng = np.random.default_rng(0)
    mean_1, mean_2 = rng.standard_normal((2, 5))
    cov_1, cov_2 = covariance(rng, 5, rank), covariance(rng, 5, 5)
    root = sqrtm(sqrtm(cov_2) @ cov_1 @ sqrtm(cov_2)).real  # cov_2 is never singular
    truth = np.square(mean_1 - mean_2).sum() + np.trace(cov_1 + cov_2 - 2 * root)
    for moments in ((mean_1, cov_1, mean_2, cov_2), (mean_2, cov_2, mean_1, cov_1)):
        assert images.frechet_gaussians(*moments) == pytest.approx(truth, abs=1e-6)


def test_frechet_distance_of_rows_uses_their_moments(images):
    rows = np.random.default_rng(0).standard_normal((50, 3))
    assert images.frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-10)
    moved = rows + np.array([3.0, 0.0, 4.0])
    assert images.frechet_distance(rows, moved) == pytest.approx(25, rel=1e-9)
    truth = np.trace(np.cov(rows, rowvar=False))  # 3 x - x is 2 x
    about_zero = rows - rows.mean(0)
    assert images.frechet_distance(about_zero, 3 * about_zero) == pytest.approx(4 * truth)


def test_pooling_averages_windows(images):
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) * 16
    assert images.pooled(image, 2).tolist() == [[40.0, 72.0, 168.0, 200.0]]
    assert np.array_equal(images.pooled(image, 1)[0], image.ravel())


def test_features_are_the_hidden_layer_that_classifies(images):
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = np.clip(8.0 * np.eye(3)[y] + rng.uniform(0, 4, (300, 3)), 0, 16)
    features = images.Features(X, y, 16.0, width=8, epochs=200)
    net = features.net
    logits = features(X) @ net.coefs_[1] + net.intercepts_[1]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, net.predict_proba(X / 16), rtol=1e-9)
    assert net.score(X / 16, y) > 0.95
    beyond, clipped = (np.c_[np.full(300, first), X[:, 1:]] for first in (100.0, 16.0))
    assert np.array_equal(features(beyond), features(clipped))


def test_montage_puts_images_in_reading_order(images):
    X = np.repeat(np.arange(3.0), 4).reshape(3, 4)
    grid = images.montage(X, 2, 2)
    assert grid.shape == (5, 5)
    assert grid[0, 0] == 0 and grid[0, 3] == 1 and grid[3, 0] == 2
    assert np.isnan(grid[2]).all() and np.isnan(grid[3:, 3:]).all()


def test_digits_stand_in_where_there_is_no_data(images, monkeypatch):
    monkeypatch.delenv("SKEBM_DATA", raising=False)
    pictures = images.read_pictures("unused", "unused", {"unused": "unused"})
    assert pictures.X.shape[1] == pictures.side**2 == 64 and set(pictures.y) == set(range(5))
    shared = {row.tobytes() for row in pictures.X} & {row.tobytes() for row in pictures.X_test}
    assert not shared and len(pictures.X_test) > 200 and "SKEBM_DATA" in pictures.name
    assert pictures.X.max() == pictures.high


@pytest.mark.data
def test_images_are_read_and_pooled(images, data_dir):
    pictures = images.read_pictures("mnist_train10k", "mnist_test", {"K": "kmnist_test"}, pool=2)
    assert pictures.X.shape == (10_000, 196) and pictures.others["K"].shape == (10_000, 196)
    assert pictures.X.max() <= pictures.high == 255.0
