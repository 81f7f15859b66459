"""One way through pipelines, searches, frozen estimators and detectors, and to their scores."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skebm.datasets import GaussianDensity
from skebm.inside import read_scores, scorers, unwrap
from skebm.metrics import NoveltyScorer, bits_per_dim, log_likelihood_scorer
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ThresholdDetector,
    TypicalityDetector,
)
from skebm.plots import DensityDisplay
from skebm.stein import stein_score

X = np.random.RandomState(0).normal(size=(60, 2)) * [1, 30]
PLAIN = make_pipeline(MinMaxScaler(), StandardScaler(), GaussianMixture()).fit(X)
SCALERS = PLAIN[:-1]


def wrapped():
    """The same density, in other wrappings; the last two are for gradients alone."""
    frozen = FrozenEstimator(PLAIN)
    search = GridSearchCV(PLAIN, {"gaussianmixture__n_components": [1]}, cv=2)
    return {
        "nested": make_pipeline(MinMaxScaler(), make_pipeline(StandardScaler(), GaussianMixture())),
        "transformers": make_pipeline(
            make_pipeline("passthrough", *(step for _, step in SCALERS.steps), "passthrough"),
            "passthrough",
            GaussianMixture(),
        ),
        "frozen transformer": make_pipeline(FrozenEstimator(SCALERS), GaussianMixture()),
        "frozen": frozen,
        "search": search,
        "frozen search": FrozenEstimator(search.fit(X)),
        "threshold": ThresholdDetector(frozen, prefit=True),
        "conformal": ConformalNoveltyDetector(frozen, prefit=True),
    }


@pytest.mark.parametrize("name", wrapped())
def test_what_is_inside_is_found(name):
    wrapper = wrapped()[name].fit(X, None)
    detector = name in ("threshold", "conformal")
    steps, last = unwrap(wrapper, detectors=True)
    assert [type(step) for step in steps] == [MinMaxScaler, StandardScaler]
    assert type(last) is GaussianMixture
    assert unwrap(wrapper)[1] is (wrapper if detector else last)
    np.testing.assert_allclose(stein_score(wrapper, X), stein_score(PLAIN, X))
    inner = wrapper
    while scorers(inner):
        (inner,) = scorers(inner)
    assert inner is last
    for read in (read_scores, lambda model, rows: log_likelihood_scorer(model, rows)["score"]):
        np.testing.assert_allclose(read(wrapper, X), read(PLAIN, X))
    if not detector:
        assert bits_per_dim(wrapper, X) == pytest.approx(bits_per_dim(PLAIN, X))
        direct = bits_per_dim(GaussianMixture().fit(X), X)  # in the units of X, too
        assert bits_per_dim(wrapper, X) == pytest.approx(direct, rel=1e-4)


def test_what_scores_in_other_ways_is_not_opened():
    kernels = FrozenEstimator(KernelDensity().fit(X))
    for detector in (
        TypicalityDetector(kernels, prefit=True),
        LikelihoodRatioDetector(kernels, kernels, prefit=True),
        EnsembleDensity(KernelDensity(), n_estimators=2, bootstrap=True, random_state=0),
        IsolationForest(n_estimators=2),
    ):
        assert unwrap(detector.fit(X), detectors=True) == ([], detector)
    ensemble = EnsembleDensity(KernelDensity(), n_estimators=2, bootstrap=True).fit(X)
    assert scorers(ensemble) == ensemble.estimators_
    pipeline = make_pipeline(StandardScaler(), ThresholdDetector(KernelDensity(), level=0.1)).fit(X)
    assert unwrap(pipeline)[1] is pipeline[-1]
    assert unwrap(pipeline, detectors=True)[1] is pipeline[-1].estimator_


class Returns:
    def __init__(self, scores):
        self.score_samples = lambda X: scores


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.full(60, np.nan), r"below infinity, got 60 of 60 values that are not \(60 NaN\)"),
        (np.r_[np.inf, np.zeros(59)], r"Returns must be numbers .*, got 1 of 60 .* \(0 NaN\)"),
        (np.zeros((60, 2)), r"of shape \(60,\), got shape \(60, 2\)"),
        (np.zeros(59), r"of shape \(60,\), got shape \(59,\)"),
        (0.0, r"of shape \(60,\), got shape \(\)"),
    ],
)
def test_scores_are_one_number_for_each_row(scores, message):
    for read in (read_scores, log_likelihood_scorer, NoveltyScorer(n_novelties=60), bits_per_dim):
        with pytest.raises(ValueError, match=message):
            read(Returns(scores), X)


def test_what_has_no_scores_is_refused():
    for read in (read_scores, log_likelihood_scorer, NoveltyScorer(), bits_per_dim):
        with pytest.raises(TypeError, match="have score_samples, got StandardScaler"):
            read(StandardScaler().fit(X), X)


def test_densities_of_0_are_scores():
    far = np.full((1, 2), 99.0)
    assert read_scores(KernelDensity(kernel="tophat").fit(X), far) == [-np.inf]
    truth = GaussianDensity(np.eye(2))
    truth.score_samples = truth.log_density
    assert read_scores(truth, far.tolist()) == pytest.approx(-np.log(2 * np.pi) - 99**2)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_pictures_of_data_frames_keep_the_names(kind):
    frame = kind({"a": X[:, 0], "b": X[:, 1]})
    model = GaussianMixture().fit(frame)  # warns about rows without names
    display = DensityDisplay.from_estimator(model, frame, grid_resolution=5)
    assert (display.xlabel, display.ylabel) == ("a", "b")


def test_columns_may_have_other_names_than_text():
    frame = pd.DataFrame(X)
    mixed = DensityDisplay.from_estimator(GaussianMixture().fit(X), frame, grid_resolution=5)
    assert mixed.xlabel == "0"
