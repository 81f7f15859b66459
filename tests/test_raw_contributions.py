"""Contributions of raw columns, which a pipeline encodes, imputes and scales."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from skebm.ood import ThresholdDetector, feature_contributions

MEANS = np.array([0.0, 3.0, -1.0])  # of the number given its category, sd 1
SHARES = np.array([0.5, 0.3, 0.2])
RANDOM = np.random.RandomState(0)
CODE = RANDOM.choice(3, size=200, p=SHARES)
NUMBER = MEANS[CODE] + RANDOM.normal(size=200)
OTHER = np.where(RANDOM.uniform(size=200) < 0.1, np.nan, RANDOM.normal(size=200))


class Known(BaseEstimator):
    """The density of (number, three dummies, other number) as drawn above."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def score_samples(self, X):
        X = np.asarray(X, dtype=np.float64)
        dummies = X[:, 1:4]
        given = norm.logpdf(X[:, 0] - dummies @ MEANS) + dummies @ np.log(SHARES)
        return given + norm.logpdf(X[:, 4])

    def score_function(self, X):
        off = X[:, 0] - X[:, 1:4] @ MEANS
        dummies = off[:, None] * MEANS + np.log(SHARES)
        return np.column_stack([-off, dummies, -X[:, 4]])


def table(kind):
    frame = pd.DataFrame({"x": NUMBER, "c": np.array(["u", "v", "w"])[CODE], "z": OTHER})
    if kind == "categories":
        return frame.astype({"c": "category"}), ["x", "c", "z"]
    if kind == "codes":
        return frame.assign(c=CODE), ["x", "c", "z"]
    if kind == "numbers":  # as names, which are not the places
        return frame.astype({"c": "category"}).set_axis([1, 2, 0], axis=1), [0, 1, 2]
    if kind == "array":
        return frame.to_numpy(), [0, 1, 2]
    if kind == "polars":
        return pl.DataFrame({name: frame[name].tolist() for name in "xcz"}), ["x", "c", "z"]
    return frame, ["x", "c", "z"]


def pipeline(frame, names, last=None):
    encoder = OneHotEncoder(sparse_output=False)
    steps = make_column_transformer(
        ("passthrough", [names[0]]),
        (encoder, [names[1]]),
        (SimpleImputer(strategy="constant", fill_value=0.0), [names[2]]),
    )
    return make_pipeline(steps, last or Known()).fit(frame)


KINDS = ["text", "categories", "codes", "array", "numbers", "polars"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["pipeline", "detector"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_input_column_has_the_gain_of_all_that_is_made_of_it(kind, wrapped):
    frame, names = table(kind)
    model = pipeline(frame, names)
    if wrapped:
        model = ThresholdDetector(model, prefit=True).fit(frame)
    rows = frame[:12]
    other, scores = np.nan_to_num(OTHER[:12]), Known().score_samples
    log = np.stack(
        [
            scores(np.column_stack([NUMBER[:12], np.tile(np.eye(3)[k], (12, 1)), other]))
            for k in range(3)
        ],
        axis=1,
    )
    own = log[np.arange(12), CODE[:12]]
    found = feature_contributions(model, rows, method="mode", reference=frame)
    assert found.shape == (12, 3)
    z = NUMBER[:12] - MEANS[CODE[:12]]
    np.testing.assert_allclose(found[:, 0], z**2 / 2, atol=0.02)
    np.testing.assert_allclose(found[:, 1], log.max(axis=1) - own, atol=1e-9)
    np.testing.assert_allclose(found[:, 2], other**2 / 2, atol=0.02)
    found = feature_contributions(model, rows, reference=frame)
    expected = (softmax(log, axis=1) * log).sum(axis=1) - own
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-9)
    np.testing.assert_allclose(found[:, 0], (z**2 - 1) / 2, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_adds_up_the_dummies_of_a_column(kind):
    frame, names = table(kind)
    model = pipeline(frame, names)
    inner = np.asarray(model[:-1].transform(frame), dtype=np.float64)
    found = feature_contributions(model, frame[:12], method="gradient", reference=frame)
    slopes = 0.5 * Known().score_function(inner[:12]) * (np.median(inner, axis=0) - inner[:12])
    by_column = np.column_stack([slopes[:, 0], slopes[:, 1:4].sum(axis=1), slopes[:, 4]])
    np.testing.assert_allclose(found, by_column, atol=1e-12)


def test_codes_that_an_encoder_must_know_are_no_numbers():
    frame = pd.DataFrame({"x": NUMBER, "k": 3 * CODE})
    steps = make_column_transformer((OrdinalEncoder(), ["k"]), remainder=StandardScaler())
    model = make_pipeline(steps, GaussianMixture(random_state=0)).fit(frame)
    assert np.isfinite(feature_contributions(model, frame[:5], reference=frame)).all()


def test_mixed_columns_have_no_gradient_of_their_own():
    frame, names = table("text")
    mixed = make_pipeline(pipeline(frame, names)[0], PCA(3), GaussianMixture()).fit(frame)
    with pytest.raises(TypeError, match="transform each column by itself"):
        feature_contributions(mixed, frame[:5], method="gradient", reference=frame)
    assert feature_contributions(mixed, frame[:5], reference=frame).shape == (5, 3)


def test_reference_rows_of_another_table():
    frame, names = table("text")
    model = pipeline(frame, names)
    for reference, message in [
        (frame[["c", "x", "z"]], r"columns of X, \['x', 'c', 'z'\], got \['c', 'x', 'z'\]"),
        (frame[:3], "at least 4 rows, got 3"),
        (None, "got None with Pipeline"),
    ]:
        with pytest.raises(ValueError, match=message):
            feature_contributions(model, frame[:5], reference=reference)
