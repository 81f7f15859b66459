"""``sample_weight`` and other metadata through detectors, to the inside and to the threshold."""

import copy

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
)
from skebm.ood._quantiles import lower_quantile, tolerance_limit, training_quantile

pytestmark = [
    pytest.mark.filterwarnings("ignore::skebm.exceptions.EnsembleWarning"),
    # an ensemble holds 20 of the 200 rows out, which with weights are worth fewer
    pytest.mark.filterwarnings("ignore:held-out rows must be at least 19 for a contamination"),
]
DETECTORS = [
    ThresholdDetector,
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    TypicalityDetector,
]
every = pytest.mark.parametrize("cls", DETECTORS)
X = np.random.RandomState(0).normal(size=(200, 2))
WEIGHT = np.where(X[:, 0] > 0, 5.0, 1.0)
KERNELS = KernelDensity(bandwidth=0.5)


class Told(KernelDensity):
    """Kernels that remember what their fit was told of each row."""

    def fit(self, X, y=None, sample_weight=None, place=None):
        self.told_ = np.asarray(X)[:, 0], sample_weight, place
        return super().fit(X, sample_weight=sample_weight)


def threshold(detector):
    return detector.offset_, detector.score_samples(X[:20])


def same(a, b):
    np.testing.assert_array_equal(threshold(a)[1], threshold(b)[1])
    assert a.offset_ == b.offset_


@every
def test_equal_weights_are_none_and_scale_does_not_matter(cls):
    plain = cls(KERNELS, random_state=0).fit(X)
    same(cls(KERNELS, random_state=0).fit(X, sample_weight=np.full(200, 1e-40)), plain)
    weighted = cls(KERNELS, random_state=0).fit(X, sample_weight=WEIGHT)
    same(cls(KERNELS, random_state=0).fit(X, sample_weight=2.0**900 * WEIGHT), weighted)
    assert np.abs(weighted.score_samples(X) - plain.score_samples(X)).max() > 0.1


@every
def test_rows_of_weight_0_are_not_there(cls):
    gone = np.arange(200) % 4 == 0
    detector = cls(KERNELS, random_state=0).fit(X, sample_weight=np.where(gone, 0.0, WEIGHT))
    same(detector, cls(KERNELS, random_state=0).fit(X[~gone], sample_weight=WEIGHT[~gone]))
    if cls is EnsembleDensity:
        assert not gone[np.concatenate(detector.estimators_samples_)].any()


@every
@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: make_pipeline(StandardScaler(), e),
        lambda e: GridSearchCV(make_pipeline(StandardScaler(), e), {"told__bandwidth": [0.5]}),
        lambda e: ThresholdDetector(e, method="training"),
    ],
    ids=["pipeline", "search", "detector"],
)
def test_weights_find_their_way_through_what_wraps_the_density(cls, wrap):
    if cls is ScoreNormDetector:
        pytest.skip("takes columns' scalers alone")
    detector = cls(wrap(Told(bandwidth=0.5)), random_state=0).fit(X, sample_weight=WEIGHT)
    inner = getattr(detector, "estimators_", None) or [
        getattr(detector, "estimator_", None) or detector.foreground_
    ]
    inner = getattr(inner[0], "best_estimator_", getattr(inner[0], "estimator_", inner[0]))
    first, weight, _ = (inner[-1] if hasattr(inner, "steps") else inner).told_
    order = np.argsort(first)
    ratio = weight[order] / weight[order][-1]
    np.testing.assert_allclose(np.unique(ratio), [0.2, 1])
    assert (np.diff(ratio) >= 0).all()  # the row's own


@every
def test_an_estimator_without_weights_says_so(cls):
    with pytest.raises(TypeError, match="sample_weight must be None .* with GaussianMixture"):
        cls(GaussianMixture()).fit(X, sample_weight=WEIGHT)


@every
def test_metadata_is_routed_row_by_row(cls):
    with sklearn.config_context(enable_metadata_routing=True):
        told = Told(bandwidth=0.5).set_fit_request(sample_weight=True, place=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        detector = cls(told, random_state=0)
        pipeline = make_pipeline(scaler, detector)
        pipeline.fit(X, sample_weight=WEIGHT, place=X[:, 0])
        inner = getattr(pipeline[-1], "estimators_", None) or [
            getattr(pipeline[-1], "estimator_", None) or pipeline[-1].foreground_
        ]
        first, weight, place = inner[0].told_
        np.testing.assert_allclose(first, (place - X[:, 0].mean()) / X[:, 0].std())
        np.testing.assert_allclose(weight / weight.max(), np.where(place > 0, 1, 0.2))
        own = cls(told, random_state=0).set_fit_request(sample_weight=True)
        own.fit(X, sample_weight=WEIGHT, place=X[:, 0])
        with pytest.raises(UnsetMetadataPassedError):
            cls(Told()).fit(X, sample_weight=WEIGHT)
    with pytest.raises(TypeError, match=r"metadata must be routed, got \['place'\]"):
        cls(told).fit(X, place=X[:, 0])


@pytest.mark.parametrize(
    "weight, message",
    [
        (-WEIGHT, "sample_weight must be finite and >= 0, got 200 values"),
        (np.r_[np.nan, WEIGHT[1:]], "sample_weight must be finite"),
        (WEIGHT[1:], r"sample_weight must be of shape \(200,\), got shape \(199,\)"),
        (np.eye(1, 200)[0], "positive for at least 2 rows, got 1"),
        (["a"] * 200, r"sample_weight must hold numbers, got \['a', 'a'"),
    ],
)
@every
def test_bad_weights(cls, weight, message):
    with pytest.raises(ValueError, match=message):
        cls(KERNELS).fit(X, sample_weight=weight)


def test_prefit_estimators_keep_their_own_weights():
    density = KERNELS.fit(X)
    for inner, prefit in ((density, True), (FrozenEstimator(density), False)):
        found = ThresholdDetector(inner, prefit=prefit, random_state=0).fit(X, sample_weight=WEIGHT)
        np.testing.assert_array_equal(found.score_samples(X), density.score_samples(X))


# -- quantiles -------------------------------------------------------------------------------------


def test_a_weighted_quantile_is_that_of_as_many_equal_scores():
    """Draws of N(0, 1) by weights exp(x), from N(-1, 1), have the quantiles of N(0, 1)."""
    x = np.random.RandomState(1).normal(size=40_000) - 1
    weight = np.exp(x)
    assert lower_quantile(x, 0.05, weight) == pytest.approx(-1.645, abs=0.04)
    assert training_quantile(x, 0.05, weight) == pytest.approx(-1.645, abs=0.04)
    limit = tolerance_limit(x, 0.05, 0.9, weight)
    assert -1.72 < limit < lower_quantile(x, 0.05, weight)


def test_few_rows_of_large_weight_promise_what_few_rows_promise():
    scores, weight = np.arange(100.0), np.where(np.arange(100) < 5, 1.0, 1e-9)
    assert lower_quantile(scores, 0.05, weight) == 0.0  # of 5.0 rows: the lowest
    with pytest.raises(ValueError, match="at least 45 .* got 5"):
        tolerance_limit(scores, 0.05, 0.9, weight)
    with pytest.warns(UserWarning, match="at least 19 for level 0.05, got"):
        ThresholdDetector(KERNELS, random_state=0).fit(X, sample_weight=np.exp(6 * X[:, 0]))


def test_weighted_conformal_p_values_by_hand():
    scores = np.array([[0.1], [0.2], [0.3], [0.4], [0.5]])
    weight = np.array([1.0, 2.0, 3.0, 2.0, 2.0])  # mean 2
    detector = ConformalNoveltyDetector(First().fit(scores), prefit=True, alpha=0.3)
    detector.fit(scores, sample_weight=weight)
    found = detector.p_value([[0.0], [0.25], [0.9]])
    np.testing.assert_allclose(found, [2 / 12, (3 + 2) / 12, 1.0])


class First(BaseEstimator):
    """Scores a row by its first value."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        return np.asarray(X, dtype=float)[:, 0]


@every
@pytest.mark.parametrize("kind", ["missing", "sparse"])
def test_what_the_estimator_takes_the_detector_takes(cls, kind):
    if cls is ScoreNormDetector:
        pytest.skip("has a gradient to take")
    table = np.where(np.arange(400).reshape(200, 2) % 7 == 0, np.nan, X)
    table = sparse.csr_array(X) if kind == "sparse" else table
    forest = IsolationForest(n_estimators=5, random_state=0)
    found = cls(forest, random_state=0).fit(table, sample_weight=WEIGHT).predict(table)
    assert found.shape == (200,) and set(found) <= {-1, 1}


@pytest.mark.parametrize("method", ["held-out", "training", "false-positive-rate"])
def test_a_threshold_counts_rows_by_their_weights(method):
    """Scores are known: half of the rows score high, and hold nearly all of the weight."""
    rows = np.r_[np.full(100, 3.0), np.zeros(100)][:, None] + 0.01 * np.arange(200)[:, None]
    inner = KERNELS if method == "training" else KernelDensity(bandwidth=0.5).fit([[0.0], [0.5]])
    prefit = method != "training"
    detector = ThresholdDetector(inner, method=method, level=0.1, prefit=prefit, random_state=0)
    weight = np.where(np.arange(200) < 100, 1e-3, 1.0)
    plain = copy.copy(detector).fit(rows)
    heavy = copy.copy(detector).fit(rows, sample_weight=weight)
    scores = heavy.score_samples(rows)
    below = weight[scores < heavy.offset_].sum() / weight.sum()
    assert below <= 0.101 and abs(heavy.offset_ - plain.offset_) > 1e-3
