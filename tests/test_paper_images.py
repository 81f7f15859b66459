"""The reproductions on images: what their shared functions compute, against closed forms."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "examples" / "papers" / "_images.py"


@pytest.fixture(scope="module")
def images():
    spec = importlib.util.spec_from_file_location("paper_images", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
