"""ImageFeatures: standardized components, what they leave, and differences of neighbors."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from skebm import USPDensity
from skebm.datasets import ImageFeatures

DIGITS = load_digits().data
SHAPES = [(6, 5), (1, 6, 5), (3, 2, 5)]


def pictures(n=40, d=30, seed=0):
    rng = np.random.RandomState(seed)
    return rng.normal(size=(n, 8)) @ rng.normal(size=(8, d)) + 0.1 * rng.normal(size=(n, d)) + 3


@pytest.mark.parametrize("shape", SHAPES)
def test_features_by_loops(shape):
    X, new = pictures(), pictures(seed=1)
    features = ImageFeatures(shape, n_components=4).fit(X)
    pca = PCA(4).fit(X)
    z = pca.transform(X)
    floor = 1e-3 * (X.max() - X.min())
    found = features.transform(new)
    for row, image in zip(found, new, strict=True):
        centered = image - X.mean(0)
        np.testing.assert_allclose(row[:4], (pca.components_ @ centered) / z.std(0, ddof=1))
        left = centered - pca.components_.T @ (pca.components_ @ centered)
        np.testing.assert_allclose(row[4], np.log(np.sqrt((left**2).mean()) + floor))
        channels = image.reshape((1, *shape)[-3:])
        across = [abs(c[i, j + 1] - c[i, j]) for c in channels for i, j in np.ndindex(len(c), 4)]
        down = [abs(c[i + 1, j] - c[i, j]) for c in channels for i, j in np.ndindex(len(c) - 1, 5)]
        np.testing.assert_allclose(
            row[5:], np.log([np.mean(across) + floor, np.mean(down) + floor])
        )


def test_components_of_the_training_rows_are_standard():
    z = ImageFeatures((8, 8), 20).fit_transform(DIGITS)[:, :20]
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(z.T), np.eye(20), atol=1e-6)


def test_units_of_the_pixels_move_logarithms_alone():
    few = ImageFeatures((8, 8), 10).fit_transform(DIGITS)
    many = ImageFeatures((8, 8), 10).fit_transform(DIGITS * 15.9375 + 7)
    np.testing.assert_allclose(few[:, :10], many[:, :10], atol=1e-8)
    np.testing.assert_allclose(many[:, 10:] - few[:, 10:], np.log(15.9375), rtol=1e-9)


def test_images_without_edges_are_far_from_all_others():
    features = ImageFeatures((8, 8)).fit(DIGITS)
    values = np.full((2, 64), [[0.0], [16.0]])
    assert (
        features.transform(values)[:, -2:] < features.transform(DIGITS)[:, -2:].min(0) - 3
    ).all()


@pytest.mark.parametrize(
    "shape, n, k, names",
    [
        (None, 40, 15, ["log_residual", "log_horizontal"]),
        ((1, 30), 40, 15, ["log_residual", "log_horizontal"]),
        ((30, 1), 40, 15, ["log_residual", "log_vertical"]),
        ((6, 5), 6, 5, ["log_residual", "log_horizontal", "log_vertical"]),
        ((30, 1, 1), 40, 15, ["log_residual"]),
    ],
)
def test_a_residual_is_left_and_lines_have_no_difference_across(shape, n, k, names):
    X = pictures(n)
    features = ImageFeatures(shape).fit(X)
    found = features.get_feature_names_out().tolist()
    assert found == [f"component{i}" for i in range(k)] + names
    assert features.transform(X).shape == (n, len(found)) and features.components_.shape == (k, 30)


def test_images_that_are_all_alike_are_finite():
    X = np.full((10, 9), 4.0)
    assert np.isfinite(ImageFeatures((3, 3)).fit(X).transform(pictures(5, 9))).all()


def test_blocks_of_rows_make_no_difference(monkeypatch):
    features = ImageFeatures((8, 8)).fit(DIGITS)
    whole = features.transform(DIGITS[:50])
    monkeypatch.setattr("skebm.datasets._image_features.BLOCK", 64 * 7)
    np.testing.assert_allclose(features.transform(DIGITS[:50]), whole, rtol=1e-12, atol=1e-12)


def test_a_pipeline_is_cloned_and_pickled():
    density = USPDensity(base="gaussian", data_noise=0, max_iter=25, random_state=0)
    model = clone(make_pipeline(ImageFeatures((8, 8), 10), density))
    scores = model.fit(DIGITS[:200]).score_samples(DIGITS[200:210])
    again = pickle.loads(pickle.dumps(model)).score_samples(DIGITS[200:210])
    np.testing.assert_array_equal(scores, again)
    assert model.set_params(imagefeatures__n_components=5).fit(DIGITS[:200])[-1].n_features_in_ == 8


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"image_shape": (8, 7)}, ValueError, r"64 columns of X, got \(8, 7\)"),
        ({"image_shape": 8}, TypeError, "got 8"),
        ({"image_shape": (1, 1, 8, 8)}, TypeError, r"got \(1, 1, 8, 8\)"),
        ({"image_shape": (8, 8.0)}, TypeError, r"image_shape must be .*8\.0"),
        ({"n_components": 0}, ValueError, "n_components must be .*got 0"),
    ],
)
def test_errors_have_the_value(params, error, message):
    with pytest.raises(error, match=message):
        ImageFeatures(**params).fit(DIGITS)


def test_scikit_learns_checks_pass():
    results = check_estimator(ImageFeatures(), on_skip=None)
    assert "check_transformer_general" in {r["check_name"] for r in results}


def test_frames_have_the_names_as_columns():
    features = ImageFeatures((8, 8), 10).set_output(transform="pandas")
    frame = features.fit_transform(DIGITS)
    assert frame.columns.tolist() == features.get_feature_names_out().tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_directions_along_which_nothing_differs_have_no_column(dtype):
    """They would be rounding, which a density would scale up to a column."""
    gray = DIGITS[:, :, None].repeat(3, 2).transpose(0, 2, 1).reshape(len(DIGITS), -1)
    features = ImageFeatures((3, 8, 8), 96).fit(gray.astype(dtype))
    rank = np.linalg.matrix_rank(DIGITS - DIGITS.mean(0))
    assert len(features.scale_) == rank < 96
    assert features.transform(gray).shape == (len(gray), rank + 3)


def test_components_are_standardized_far_from_zero_in_single_precision():
    rng = np.random.RandomState(0)
    X = (rng.randn(2000, 64) * np.linspace(1, 0.1, 64) + 1000).astype(np.float32)
    deviations = ImageFeatures((8, 8), 32).fit_transform(X)[:, :32].std(0)
    np.testing.assert_allclose(deviations, 1, atol=0.01)


def test_the_shape_is_that_of_the_fit():
    features = ImageFeatures((8, 8), 5).fit(DIGITS)
    before = features.transform(DIGITS[:9])
    np.testing.assert_array_equal(
        features.set_params(image_shape=(4, 16)).transform(DIGITS[:9]), before
    )
