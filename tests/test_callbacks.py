"""What scikit-learn's own callbacks hear of a fit."""

import numpy as np
import pytest
from sklearn.metrics import make_scorer

from skebm import EnergyDensity, HybridCDDensity
from skebm.energies import MLP
from skebm.estimators._given import labels_left
from skebm.exceptions import ConvergenceError, DataDegeneracyWarning
from skebm.objectives import Optimization
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
)

sklearn_callback = pytest.importorskip("sklearn.callback")
X = np.random.RandomState(0).randn(60, 2)
WEIGHT = np.ones(60)


class Recording:
    """Writes down what it hears; asks to stop after so many validations."""

    def __init__(self, stop_after=999):
        self.heard, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.heard.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
        self.heard.append(("begin", context.task_name))
        self.about = estimator, len(X), (metadata or {}).get("sample_weight")

    def on_fit_task_end(self, estimator, context):
        self.heard.append(("end", context.task_name))
        return self.heard.count(("end", "validation")) >= self.stop_after

    def teardown(self, estimator, context):
        self.heard.append("teardown")


def fitted(cls=EnergyDensity, stop_after=999, **params):
    callback = Recording(stop_after)
    params |= {"energy": MLP((8,)), "base": "gaussian", "log_partition": None}
    est = cls(**params, random_state=0).set_callbacks(callback)
    est.fit(X, sample_weight=WEIGHT)
    return est, callback


@pytest.mark.parametrize("cls, phases", [(EnergyDensity, 1), (HybridCDDensity, 2)])
def test_callbacks_hear_the_fit_and_each_validation(cls, phases):
    est, callback = fitted(cls, max_iter=60, n_iter_no_change=None)
    validations = [("begin", "validation"), ("end", "validation")] * 4 * phases  # 0, 25, 50, 60
    fit = [("begin", "fit"), *validations, ("end", "fit")]
    assert callback.heard == ["setup", *fit, "teardown"]
    assert len(est.history_) == 4 * phases
    assert callback.about[0] is est and callback.about[1] == 60
    np.testing.assert_array_equal(callback.about[2], WEIGHT)
    est.fit(X)  # the callbacks stay, and are told that no weights are given
    assert len(callback.heard) == 2 * len(["setup", *fit, "teardown"]) and callback.about[2] is None


def test_callbacks_can_stop_training():
    assert fitted(stop_after=2, max_iter=500)[0].n_iter_ == 25
    assert fitted(stop_after=1, max_iter=500)[0].n_iter_ == 0


def test_callbacks_are_torn_down_after_a_failure():
    callback = Recording()
    est = EnergyDensity(base="gaussian", optimizer=Optimization(1e6), max_iter=200)
    with pytest.raises(ConvergenceError):
        est.set_callbacks(callback).fit(X)
    assert callback.heard[-1] == "teardown" and ("end", "fit") not in callback.heard


def mean_of(y, scores, sample_weight=None):
    return np.average(scores, weights=sample_weight)


def monitored(est, X=X, **given):
    """Fit under scikit-learn's ScoringMonitor; the mean decisions that it wrote down."""
    mean = make_scorer(mean_of, response_method="decision_function")
    monitor = sklearn_callback.ScoringMonitor(scoring={"score": mean})
    est.set_callbacks(monitor).fit(X, np.zeros(len(X)), **given)
    return est, [row for row in monitor.get_logs().data if "score" in row]


@pytest.mark.parametrize("given", [{}, {"sample_weight": np.r_[np.zeros(20), np.ones(40)]}])
def test_a_monitor_scores_the_model_at_each_validation_and_at_the_end(given):
    params = {"energy": MLP((8,)), "base": "gaussian", "max_iter": 50, "random_state": 0}
    est, rows = monitored(EnergyDensity(**params), **given)
    assert [row["task_name"] for row in rows].count("validation") == 3  # 0, 25, 50
    (end,) = (row["score"] for row in rows if row["task_name"] == "fit")
    assert end == pytest.approx(est.decision_function(X[20:] if given else X).mean())
    alone = EnergyDensity(**params).fit(X, **given)  # monitoring changes nothing
    np.testing.assert_array_equal(alone.score_samples(X), est.score_samples(X))


def test_labels_are_those_of_the_rows_that_count():
    np.testing.assert_array_equal(labels_left([5, 6, 7, 8], [0, 1, 0, 2], 2), [6, 8])
    np.testing.assert_array_equal(labels_left([5, 6], [1, 1], 2), [5, 6])


class Propagated(Recording):
    """Reaches the estimators inside."""

    max_propagation_depth = None


@pytest.mark.parametrize(
    "cls, params, fits",
    [
        (ThresholdDetector, {}, 1),
        (ConformalNoveltyDetector, {"cv": 2}, 2),
        (EnsembleDensity, {"n_estimators": 2}, 2),
        (LikelihoodRatioDetector, {}, 2),
        (TypicalityDetector, {}, 1),
        (ScoreNormDetector, {}, 1),
    ],
)
def test_detectors_hand_callbacks_on(cls, params, fits):
    callback, inner = Propagated(stop_after=2), {"energy": MLP((8,)), "base": "gaussian"}
    est = EnergyDensity(**inner, max_iter=500, random_state=0)
    detector = cls(est, **params, random_state=0).set_callbacks(callback)
    detector.fit(np.random.RandomState(1).randn(200, 2))
    assert callback.heard[:2] == ["setup", ("begin", "fit")]
    assert callback.heard[-2:] == [("end", "fit"), "teardown"]
    assert callback.heard.count(("end", "validation")) == fits + 1  # the second one stops
    first = getattr(detector, "estimators_", None) or [
        getattr(detector, "estimator_", None) or detector.foreground_
    ]
    assert first[0].n_iter_ == 25 and not hasattr(first[0], "_skl_callbacks")


def test_a_detector_tears_down_its_callbacks_after_a_failure():
    callback = Propagated()
    with pytest.raises(ValueError, match="infinity"):
        ThresholdDetector(EnergyDensity()).set_callbacks(callback).fit(np.full((40, 2), np.inf))
    assert callback.heard[-1] == "teardown"


class Keeping(Propagated):
    """Saves the model as it is at each validation and at the end."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.scores = folder, []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if fitted_estimator is not None:
            fitted_estimator.save(self.folder / f"{len(self.scores)}")
            self.scores.append(fitted_estimator.score_samples(X))


@pytest.mark.parametrize("wrap", [False, True], ids=["alone", "inside"])
@pytest.mark.parametrize("cls", [EnergyDensity, HybridCDDensity])
def test_the_model_that_a_callback_is_given_can_be_saved(cls, wrap, tmp_path):
    callback = Keeping(tmp_path)
    est = cls(energy=MLP((8,)), base="gaussian", max_iter=2, random_state=0)
    est = ThresholdDetector(est, calibration_fraction=0.5) if wrap else est
    est.set_callbacks(callback).fit(X)
    assert len(callback.scores) >= 3
    for i, scores in enumerate(callback.scores):
        np.testing.assert_array_equal(cls.load(tmp_path / f"{i}").score_samples(X), scores)


@pytest.mark.parametrize("fraction", [0, 0.2])
@pytest.mark.parametrize("averaging", [True, False])
def test_the_model_after_the_last_update_is_what_the_fit_leaves(fraction, averaging, tmp_path):
    """Without validation that is the mean of the second half of the updates, if there is one."""
    callback = Keeping(tmp_path)
    est = EnergyDensity(energy=MLP((8,)), base="gaussian", log_partition=None, random_state=0)
    est.set_params(max_iter=60, validation_fraction=fraction)
    est.set_params(optimizer=Optimization(0.05, averaging=averaging))
    scores = est.set_callbacks(callback).fit(X).score_samples(X)
    *_, half, last, end = callback.scores
    np.testing.assert_array_equal(end, scores)
    np.testing.assert_array_equal(last, scores)
    assert fraction or np.abs(half - last).max() > 1e-3


def test_what_the_end_warns_of_is_not_said_at_each_validation(tmp_path):
    est = EnergyDensity(energy=MLP((8,)), base="gaussian", log_partition=None, random_state=0)
    est.set_params(max_iter=50).set_callbacks(Keeping(tmp_path))
    with pytest.warns(DataDegeneracyWarning, match="offset_ flags") as said:
        est.fit(X[:15])
    assert len(said) == 1
