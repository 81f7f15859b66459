"""Pictures of detectors: the numbers that they hold are those of the metrics and of the rows."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.metrics import auc, precision_recall_curve, roc_curve
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skebm import HybridCDDensity
from skebm.metrics import NoveltyScorer, ood_metrics
from skebm.ood import ConformalNoveltyDetector
from skebm.plots import (
    OODPrecisionRecallDisplay,
    OODRocDisplay,
    PValueHistogramDisplay,
    ScoreHistogramDisplay,
)
from tests.test_plots import legend

plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = pytest.mark.usefixtures("close_figures")

CURVES = [OODRocDisplay, OODPrecisionRecallDisplay]


@pytest.fixture
def scores():
    """In-distribution scores and two sets of novelties, rounded so that there are ties."""
    rng = np.random.RandomState(0)
    near, far = rng.randn(83) - 0.5, rng.randn(31) - 3
    return np.round(rng.randn(120), 1), {"near": np.round(near, 1), "far": np.round(far, 1)}


@pytest.fixture
def rows():
    rng = np.random.RandomState(1)
    return rng.randn(80, 2), rng.randn(60, 2), rng.randn(40, 2) * 3


def labeled(score_in, score_out):
    novel = np.r_[np.zeros(len(score_in)), np.ones(len(score_out))]
    return novel, -np.r_[score_in, score_out]


def test_roc_is_that_of_scikit_learn_and_of_the_metrics(scores):
    score_in, sets = scores
    display = OODRocDisplay.from_predictions(score_in, sets)
    ax = display.ax_
    assert list(display.fpr) == ["near", "far"]
    drawn = zip(ax.lines[1::2], ax.lines[2::2], sets.items(), strict=True)
    for line, point, (name, score_out) in drawn:
        fpr, tpr, _ = roc_curve(*labeled(score_in, score_out), drop_intermediate=False)
        np.testing.assert_array_equal(display.fpr[name], fpr)
        np.testing.assert_array_equal(display.tpr[name], tpr)
        np.testing.assert_array_equal(line.get_xydata(), np.c_[fpr, tpr])
        metrics = ood_metrics(score_in, score_out)
        assert display.auroc[name] == metrics["auroc"]
        assert auc(fpr, tpr) == pytest.approx(metrics["auroc"], abs=1e-12)
        assert (point.get_color(), len(point.get_xdata())) == (line.get_color(), 1)
    assert legend(ax)[0] == "near (AUROC {:.3f}, FPR95 {:.2f})".format(
        display.auroc["near"], display.fpr95["near"]
    )


@pytest.mark.parametrize("n_in", [19, 20, 40, 60, 100, 173])
def test_the_dot_is_where_fpr95_is_read(n_in):
    rng = np.random.RandomState(n_in)
    score_in, score_out = np.round(rng.randn(n_in), 1), np.round(rng.randn(50) - 1, 1)
    display = OODRocDisplay.from_predictions(score_in, score_out)
    (x,), (y,) = display.ax_.lines[2].get_data()
    threshold = max(t for t in score_in if np.mean(score_in >= t) >= 0.95)
    assert x == pytest.approx(np.mean(score_in < threshold), abs=1e-12)
    assert x <= 0.05
    assert y == pytest.approx(np.mean(score_out < threshold), abs=1e-12)


def test_precision_and_recall_are_those_of_scikit_learn_and_of_the_metrics(scores):
    score_in, sets = scores
    options = {"name": "forest", "linewidth": 3}
    display = OODPrecisionRecallDisplay.from_predictions(score_in, sets, **options)
    assert list(display.aupr) == ["forest, near", "forest, far"]
    for (name, score_out), line in zip(sets.items(), display.ax_.lines[::2], strict=True):
        label = f"forest, {name}"
        precision, recall, _ = precision_recall_curve(*labeled(score_in, score_out))
        np.testing.assert_array_equal(display.precision[label], precision)
        np.testing.assert_array_equal(display.recall[label], recall)
        np.testing.assert_array_equal(line.get_xydata(), np.c_[recall, precision])
        assert display.aupr[label] == ood_metrics(score_in, score_out)["aupr_out"]
        area = -np.sum(np.diff(recall) * precision[:-1])
        assert display.aupr[label] == pytest.approx(area, abs=1e-12)
        assert display.chance[label] == len(score_out) / (120 + len(score_out))
        assert line.get_linewidth() == 3
    assert display.ax_.lines[3].get_ydata() == [display.chance["forest, far"]] * 2
    assert legend(display.ax_)[1] == "forest, far (AUPR 0.899, chance 0.205)"


@pytest.mark.parametrize(
    ("display", "held", "metric"),
    [(OODRocDisplay, "auroc", "auroc"), (OODPrecisionRecallDisplay, "aupr", "aupr_out")],
)
def test_curves_of_estimators(display, held, metric, rows):
    X, X_in, X_out = rows
    ax = plt.figure().subplots()
    mixture = GaussianMixture(random_state=0).fit(X)
    first = display.from_estimator(mixture, X_in, X_out, ax=ax)
    forest = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5, random_state=0))
    second = display.from_estimator(forest.fit(X), X_in, {"a": X_out}, ax=ax)
    metrics = ood_metrics(mixture.score_samples(X_in), mixture.score_samples(X_out))
    assert getattr(first, held) == {"GaussianMixture": metrics[metric]}
    assert list(getattr(second, held)) == ["Pipeline, a"]
    assert len(legend(ax)) == 2


def test_an_unnamed_set_is_called_novelties(scores):
    assert list(OODRocDisplay.from_predictions(scores[0], scores[1]["far"]).fpr) == ["novelties"]


@pytest.mark.parametrize("display", CURVES)
def test_unfit_sets_are_named(display):
    with pytest.raises(ValueError, match="score_out of 'far' must be finite, got 1 of 1"):
        display.from_predictions([0.0, 1.0], {"near": [0.5], "far": [np.nan]})
    with pytest.raises(ValueError, match=r"score_out must hold at least one set, got \{\}"):
        display.from_predictions([0.0, 1.0], {})


@pytest.mark.parametrize("display", [*CURVES, ScoreHistogramDisplay])
def test_unfit_estimators_are_named(display, rows):
    X, X_in, X_out = rows
    with pytest.raises(TypeError, match="estimator must have score_samples, got StandardScaler"):
        display.from_estimator(StandardScaler().fit(X), X_in, X_out)
    tophat = KernelDensity(kernel="tophat", bandwidth=1.0).fit(X)
    with pytest.raises(ValueError, match=r"score_samples\(X_out\) must be finite, got 1 of 41"):
        display.from_estimator(tophat, X, np.vstack([X[:40], [[50.0, 50.0]]]))
    broken = SimpleNamespace(score_samples=lambda X: np.full(len(X), np.nan))
    with pytest.raises(ValueError, match="got 60 of 60 values"):
        display.from_estimator(broken, X_in, X_out)


def test_score_histogram_counts_every_row(scores):
    score_in, score_out = scores[0], scores[1]["near"]
    options = {"threshold": -1.2, "bins": 17, "xlabel": "nats", "hatch": "/"}
    display = ScoreHistogramDisplay.from_predictions(score_in, score_out, **options)
    assert display.ax_.get_xlabel().startswith("nats") and display.ax_.patches[0].get_hatch() == "/"
    assert len(display.edges_) == 18 and np.ptp(np.diff(display.edges_)) < 1e-12
    groups = [(display.shares_in_, score_in), (display.shares_out_, score_out)]
    for (shares, values), bars in zip(groups, display.ax_.patches, strict=True):
        np.testing.assert_array_equal(bars.get_data()[0], shares)
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        inner = np.histogram(values, display.edges_)[0][1:-1] / len(values)
        np.testing.assert_array_equal(shares[1:-1], inner)
    assert display.false_alarm_rate_ == np.sum(score_in < -1.2) / 120
    assert display.detection_rate_ == np.sum(score_out < -1.2) / 83
    assert -1.2 in score_in, "a row on the threshold is no false alarm"
    texts = legend(display.ax_)
    assert texts[0] == f"120 inliers, {display.false_alarm_rate_:.1%} below (false alarms)"
    assert texts[1] == f"83 novelties, {display.detection_rate_:.1%} below (detected)"
    assert texts[2] == "threshold -1.2"


def test_far_novelties_fall_into_the_first_bin():
    score_in = np.linspace(0, 10, 1001)
    score_out = np.r_[np.linspace(-5000, -3000, 30), np.linspace(0, 10, 10)]
    display = ScoreHistogramDisplay.from_predictions(score_in, score_out)
    low, high = 0.05, 9.95  # the central 99 %
    assert display.edges_[0] == pytest.approx(low - 3 * (high - low))
    assert display.shares_out_[0] == 0.75
    assert "0.5% of inliers, 77.5% of novelties" in display.ax_.get_xlabel()
    near = ScoreHistogramDisplay.from_predictions([0.0, 1, 2], [0.0, 1, 2], bins=3)
    assert near.shares_in_.sum() == pytest.approx(1)
    assert near.false_alarm_rate_ is near.detection_rate_ is None
    assert legend(near.ax_) == ["3 inliers", "3 novelties"]


def test_equal_scores_and_far_thresholds_are_drawn():
    display = ScoreHistogramDisplay.from_predictions(np.ones(5), [-3.0, 1.0], bins=4)
    assert display.shares_in_.tolist() == [0, 0, 0, 1]
    assert display.shares_out_.tolist() == [0.5, 0, 0, 0.5]
    assert ScoreHistogramDisplay.from_predictions([2.0], [2.0]).shares_in_.sum() == 1
    far = ScoreHistogramDisplay.from_predictions(np.ones(5), np.ones(5), threshold=-9)
    assert far.edges_[[0, -1]].tolist() == [-9, 1]
    assert far.false_alarm_rate_ == 0


def test_the_threshold_of_estimators_is_theirs(rows):
    X, X_in, X_out = rows
    forest = IsolationForest(n_estimators=5, contamination=0.1, random_state=0)
    short = HybridCDDensity(base="gaussian", max_iter=2, log_partition=None, random_state=0)
    for estimator in (forest, make_pipeline(StandardScaler(), forest), OneClassSVM(nu=0.1), short):
        display = ScoreHistogramDisplay.from_estimator(estimator.fit(X), X_in, X_out)
        assert display.false_alarm_rate_ == np.mean(estimator.predict(X_in) == -1)
        assert display.detection_rate_ == np.mean(estimator.predict(X_out) == -1)
    options = {"threshold": -1, "bins": 3, "xlabel": "depth"}
    display = ScoreHistogramDisplay.from_estimator(forest, X_in, X_out, **options)
    assert vars(display).items() >= options.items()
    mixture = GaussianMixture(random_state=0).fit(X)
    assert ScoreHistogramDisplay.from_estimator(mixture, X_in, X_out).threshold is None


def ones(X):
    return np.ones(len(X))


VARIANTS = {"cv": {"cv": 3}, "ties": {"ties": "random"}, "weight": {"weight": ones}, "plain": {}}


def searched(detector):
    return GridSearchCV(detector, {"alpha": [0.2]}, scoring=NoveltyScorer(n_novelties=9), cv=2)


@pytest.mark.parametrize("wrap", ["alone", "pipeline", "search"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_threshold_of_p_values_is_not_drawn_among_scores(rows, variant, wrap):
    X, X_in, X_out = rows
    options = {"alpha": 0.2, "random_state": 0, **VARIANTS[variant]}
    detector = ConformalNoveltyDetector(KernelDensity(), **options)
    if wrap == "pipeline":
        detector = make_pipeline(StandardScaler(), detector)
    detector = (searched(detector) if wrap == "search" else detector).fit(X)
    scores = ScoreHistogramDisplay.from_estimator(detector, X_in, X_out)
    share = np.mean(detector.predict(X_in) == -1)
    if variant == "plain":
        assert scores.false_alarm_rate_ == share
    else:
        assert scores.threshold is scores.false_alarm_rate_ is None
    p_values = PValueHistogramDisplay.from_estimator(detector, X_in, X_out)
    assert (p_values.alpha, p_values.false_alarm_rate_) == (0.2, share)
    assert p_values.detection_rate_ == np.mean(detector.predict(X_out) == -1)


@pytest.mark.parametrize("display", [*CURVES, ScoreHistogramDisplay])
def test_labels_in_place_of_rows_are_named(display, rows):
    model, labels = GaussianMixture().fit(rows[0]), np.arange(60) % 2
    with pytest.raises(ValueError, match=r"X_out must be .*shape \(60,\).* X\[y == 1\]"):
        display.from_estimator(model, rows[1], labels)
    if display in CURVES:
        with pytest.raises(ValueError, match=r"X_out of 'far' must be a table"):
            display.from_estimator(model, rows[1], {"near": rows[2], "far": labels})


def test_p_values_are_counted():
    p_in, p_out = np.r_[0.0, 0.05, np.linspace(0.06, 1, 38)], [0.01, 0.05, 0.5, 1.0]
    display = PValueHistogramDisplay.from_predictions(p_in, p_out, bins=10)
    ax = display.ax_
    assert display.false_alarm_rate_ == 2 / 40
    assert display.detection_rate_ == 0.5
    np.testing.assert_array_equal(display.shares_in_, np.histogram(p_in, 10, (0, 1))[0] / 40)
    assert display.shares_out_.tolist() == [0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.25]
    values, edges, _ = ax.patches[0].get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(1, abs=1e-12)
    expected = ["40 inliers, 5.0% flagged", "4 novelties, 50.0% flagged", "uniform", "alpha 0.05"]
    assert legend(ax) == expected
    assert ax.lines[0].get_ydata() == [1, 1] and ax.lines[1].get_xdata() == [0.05, 0.05]


def test_uniform_p_values_lie_on_the_line():
    n, bins = 20_000, 10
    p = np.random.RandomState(0).uniform(size=n)
    display = PValueHistogramDisplay.from_predictions(p, bins=bins)
    heights = display.ax_.patches[0].get_data()[0]
    stderr = np.sqrt((bins - 1) / n)
    assert stderr < 0.03
    assert np.abs(heights - 1).max() < 4 * stderr
    assert display.shares_out_ is display.detection_rate_ is None


def test_p_values_of_detectors():
    detector = SimpleNamespace(p_value=lambda X: X[:, 0], alpha=0.2)
    X = np.linspace(0.1, 1, 10)[:, None]
    display = PValueHistogramDisplay.from_estimator(detector, X, X[:4], bins=7)
    assert display.bins == 7
    assert (display.alpha, display.false_alarm_rate_, display.detection_rate_) == (0.2, 0.2, 0.5)
    np.testing.assert_array_equal(display.p_out, X[:4, 0])
    assert PValueHistogramDisplay.from_estimator(detector, X, alpha=0.35).false_alarm_rate_ == 0.3
    del detector.alpha
    assert PValueHistogramDisplay.from_estimator(detector, X).alpha == 0.05


def test_scores_are_no_p_values():
    with pytest.raises(ValueError, match=r"p_in must be between 0 and 1, got -3 \(2 of 3"):
        PValueHistogramDisplay.from_predictions([0.5, -3.0, 2.0])


def test_a_detector_without_p_values_is_named(rows):
    with pytest.raises(TypeError, match="detector must have the method p_value, got Gaussian"):
        PValueHistogramDisplay.from_estimator(GaussianMixture(), rows[0])
