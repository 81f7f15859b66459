"""Pictures of detectors: the numbers that they hold are those of the metrics and of the rows."""

import sys
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
from skebm.datasets import GaussianDensity
from skebm.energies import MLP
from skebm.metrics import NoveltyScorer, ood_metrics
from skebm.ood import ConformalNoveltyDetector
from skebm.plots import (
    DensityPairsDisplay,
    HistoryDisplay,
    OODPrecisionRecallDisplay,
    OODRocDisplay,
    PValueHistogramDisplay,
    ScoreHistogramDisplay,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

CURVES = [OODRocDisplay, OODPrecisionRecallDisplay]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def labeled(score_in, score_out):
    novel = np.r_[np.zeros(len(score_in)), np.ones(len(score_out))]
    return novel, -np.r_[score_in, score_out]


def test_roc_is_that_of_scikit_learn_and_of_the_metrics(scores):
    score_in, sets = scores
    ax = plt.figure().subplots()
    display = OODRocDisplay.from_predictions(score_in, sets, ax=ax)
    assert display.ax_ is ax and list(display.fpr) == ["near", "far"]
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
    display.figure_.canvas.draw()


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
    display = OODPrecisionRecallDisplay.from_predictions(score_in, sets, name="forest")
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
    assert display.ax_.lines[3].get_ydata() == [display.chance["forest, far"]] * 2
    assert legend(display.ax_)[1] == "forest, far (AUPR 0.899, chance 0.205)"
    display.figure_.canvas.draw()


@pytest.mark.parametrize("display", CURVES)
def test_curves_of_estimators(display, rows):
    X, X_in, X_out = rows
    ax = plt.figure().subplots()
    mixture = GaussianMixture(random_state=0).fit(X)
    first = display.from_estimator(mixture, X_in, X_out, ax=ax)
    forest = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5, random_state=0))
    second = display.from_estimator(forest.fit(X), X_in, {"a": X_out}, ax=ax, linewidth=3)
    metrics = ood_metrics(mixture.score_samples(X_in), mixture.score_samples(X_out))
    held = first.auroc if display is OODRocDisplay else first.aupr
    name = "auroc" if display is OODRocDisplay else "aupr_out"
    assert held == {"GaussianMixture": metrics[name]}
    assert list(vars(second)["fpr" if display is OODRocDisplay else "recall"]) == ["Pipeline, a"]
    assert len(legend(ax)) == 2 and first.ax_ is second.ax_
    assert ax.lines[-2].get_linewidth() == 3


def test_an_unnamed_set_is_called_novelties(scores):
    assert list(OODRocDisplay.from_predictions(scores[0], scores[1]["far"]).fpr) == ["novelties"]


@pytest.mark.parametrize("display", [*CURVES, ScoreHistogramDisplay])
@pytest.mark.parametrize(
    ("score_in", "score_out", "message"),
    [
        ([0.0, np.nan], [1.0], "score_in must be finite, got 1 of 2 values"),
        ([0.0, 1.0], [-np.inf], "score_out must be finite, got 1 of 1 values"),
        ([[0.0], [1.0]], [1.0], r"score_in must be one-dimensional and not empty, .*\(2, 1\)"),
        ([0.0, 1.0], [], r"score_out must be one-dimensional and not empty, .*\(0,\)"),
    ],
)
def test_unfit_scores_are_named(display, score_in, score_out, message):
    with pytest.raises(ValueError, match=message):
        display.from_predictions(score_in, score_out)


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
    display = ScoreHistogramDisplay.from_predictions(
        score_in, score_out, threshold=-1.2, bins=17, ax=plt.figure().subplots()
    )
    assert len(display.edges_) == 18 and np.ptp(np.diff(display.edges_)) < 1e-12
    for shares, values in [(display.shares_in_, score_in), (display.shares_out_, score_out)]:
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
    display.figure_.canvas.draw()


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
    for estimator in (forest, make_pipeline(StandardScaler(), forest), OneClassSVM(nu=0.1)):
        display = ScoreHistogramDisplay.from_estimator(estimator.fit(X), X_in, X_out)
        assert display.false_alarm_rate_ == np.mean(estimator.predict(X_in) == -1)
        assert display.detection_rate_ == np.mean(estimator.predict(X_out) == -1)
    assert ScoreHistogramDisplay.from_estimator(forest, X_in, X_out, threshold=-1).threshold == -1
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


def test_pictures_of_an_energy_based_model(rows):
    X, X_in, X_out = rows
    energy = MLP(hidden_sizes=(4,), n_frequencies=2)
    options = {"max_iter": 2, "n_steps": 1, "log_partition": None, "random_state": 0}
    estimator = HybridCDDensity(energy=energy, base="gaussian", **options).fit(X)
    display = ScoreHistogramDisplay.from_estimator(estimator, X_in, X_out)
    assert display.threshold == estimator.offset_
    assert display.false_alarm_rate_ == np.mean(estimator.predict(X_in) == -1)
    area = OODRocDisplay.from_estimator(estimator, X_in, X_out).auroc["HybridCDDensity"]
    assert area == ood_metrics(display.score_in, display.score_out)["auroc"]
    pairs = DensityPairsDisplay.from_estimator(estimator, X, grid_resolution=5)
    assert pairs.log_density[1, 0].shape == (5, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bins": 0}, ValueError, "bins must be an integer >= 1, got 0"),
        ({"threshold": np.nan}, ValueError, "threshold must be a number, got nan"),
        ({"threshold": "auto"}, TypeError, "threshold must be a number, got 'auto'"),
    ],
)
def test_unfit_options_of_score_histograms(options, error, message):
    with pytest.raises(error, match=message):
        ScoreHistogramDisplay.from_predictions([0.0, 1.0], [0.0], **options)


def test_p_values_are_counted():
    p_in, p_out = np.r_[0.0, 0.05, np.linspace(0.06, 1, 38)], [0.01, 0.05, 0.5, 1.0]
    ax = plt.figure().subplots()
    display = PValueHistogramDisplay.from_predictions(p_in, p_out, bins=10, ax=ax)
    assert display.false_alarm_rate_ == 2 / 40
    assert display.detection_rate_ == 0.5
    np.testing.assert_array_equal(display.shares_in_, np.histogram(p_in, 10, (0, 1))[0] / 40)
    assert display.shares_out_.tolist() == [0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.25]
    values, edges, _ = ax.patches[0].get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(1, abs=1e-12)
    expected = ["40 inliers, 5.0% flagged", "4 novelties, 50.0% flagged", "uniform", "alpha 0.05"]
    assert legend(ax) == expected
    assert ax.lines[0].get_ydata() == [1, 1] and ax.lines[1].get_xdata() == [0.05, 0.05]
    display.figure_.canvas.draw()


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
    display = PValueHistogramDisplay.from_estimator(detector, X, X[:4])
    assert (display.alpha, display.false_alarm_rate_, display.detection_rate_) == (0.2, 0.2, 0.5)
    np.testing.assert_array_equal(display.p_out, X[:4, 0])
    assert PValueHistogramDisplay.from_estimator(detector, X, alpha=0.35).false_alarm_rate_ == 0.3
    del detector.alpha
    assert PValueHistogramDisplay.from_estimator(detector, X).alpha == 0.05


@pytest.mark.parametrize(
    ("p_in", "p_out", "options", "message"),
    [
        ([0.5, np.nan], None, {}, "p_in must be finite, got 1 of 2"),
        ([0.5, -3.0, 2.0], None, {}, r"p_in must be between 0 and 1, got -3 \(2 of 3"),
        ([0.5], [[0.5]], {}, r"p_out must be one-dimensional and not empty, .*\(1, 1\)"),
        ([0.5], None, {"alpha": 5}, "alpha must be a number >= 0 and <= 1, got 5"),
        ([0.5], None, {"bins": 0}, "bins must be an integer >= 1, got 0"),
    ],
)
def test_unfit_p_values_are_named(p_in, p_out, options, message):
    with pytest.raises(ValueError, match=message):
        PValueHistogramDisplay.from_predictions(p_in, p_out, **options)


def test_a_detector_without_p_values_is_named(rows):
    with pytest.raises(TypeError, match="detector must have the method p_value, got Gaussian"):
        PValueHistogramDisplay.from_estimator(GaussianMixture(), rows[0])


@pytest.fixture
def table():
    return np.random.RandomState(2).randn(50, 5) * [1, 2, 3, 4, 5]


def test_pairs_are_slices_of_score_samples(table):
    estimator = GaussianMixture(2, random_state=0).fit(table)
    row = table[7]
    display = DensityPairsDisplay.from_estimator(
        estimator, table, features=(4, 0, 2), at=row, grid_resolution=6
    )
    assert sorted(display.log_density) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    columns = (4, 0, 2)
    for (i, j), values in display.log_density.items():
        for a, b in [(0, 5), (3, 1)]:  # along column i, along column j
            point = row.copy()
            point[columns[i]] = display.grids[i][a]
            if i != j:
                point[columns[j]] = display.grids[j][b]
            held = values[a] if i == j else values[a, b]
            assert held == pytest.approx(estimator.score_samples([point])[0], abs=1e-9)
    np.testing.assert_array_equal(display.X, table[:, columns])
    np.testing.assert_array_equal(display.at, row[list(columns)])
    assert display.names == ["x4", "x0", "x2"]


def test_pairs_go_through_the_median_and_draw_normalized_slices(table):
    density = GaussianDensity(np.eye(5))
    estimator = SimpleNamespace(score_samples=density.log_density)
    display = DensityPairsDisplay.from_estimator(estimator, table, grid_resolution=30, cmap="magma")
    assert display.axes_.shape == (4, 4)
    np.testing.assert_array_equal(display.at, np.median(table, axis=0)[:4])
    for i in range(4):
        grid, curve = display.axes_[i, i].lines[0].get_data()
        assert auc(grid, curve) == pytest.approx(1, abs=1e-12)
        truth = np.exp(-0.5 * grid**2)
        np.testing.assert_allclose(curve, truth / auc(grid, truth), rtol=1e-9)
        for j in range(4):
            assert display.axes_[i, j].axison == (j <= i)
            assert len(display.axes_[i, j].lines) == (2 if i == j else j < i)
    panel = display.axes_[2, 1]
    assert panel.collections[0].get_cmap().name == "magma"
    np.testing.assert_array_equal(panel.collections[1].get_offsets(), table[:, [1, 2]])
    assert panel.lines[0].get_xydata().tolist() == [display.at[[1, 2]].tolist()]
    assert [ax.get_xlabel() for ax in display.axes_[3]] == ["x0", "x1", "x2", "x3"]
    display.figure_.canvas.draw()


def test_pairs_take_data_frames_and_given_axes(table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table[:, :2], columns=["age", "height"])
    estimator = GaussianMixture(random_state=0).fit(frame)  # warns about rows without names
    ax = plt.figure().subplots()
    display = DensityPairsDisplay.from_estimator(estimator, frame, grid_resolution=4, ax=ax)
    assert display.names == ["age", "height"]
    assert display.figure_ is ax.figure and not ax.axison
    assert all(panel in ax.child_axes for panel in display.axes_.ravel())
    display.figure_.canvas.draw()


def test_pairs_take_names_of_columns(table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table, columns=list("abcde"))
    estimator = GaussianMixture(random_state=0).fit(frame)
    options = {"grid_resolution": 3, "features": ["d", "b"]}
    display = DensityPairsDisplay.from_estimator(estimator, frame, **options)
    assert display.names == ["d", "b"]
    np.testing.assert_array_equal(display.X, table[:, [3, 1]])
    options["features"] = ["d", 1]
    assert DensityPairsDisplay.from_estimator(estimator, frame, **options).names == ["d", "b"]
    options["features"] = ["d", "age"]
    with pytest.raises(ValueError, match=r"got \['d', 'age'\]"):
        DensityPairsDisplay.from_estimator(estimator, frame, **options)


def test_a_slice_without_density_blames_the_row(table):
    top = KernelDensity(kernel="tophat", bandwidth=0.5).fit(table)
    with pytest.raises(ValueError, match=r"got -inf. Choose another `at`: .* 0 all over .* \[99"):
        DensityPairsDisplay.from_estimator(top, table, at=np.full(5, 99.0), grid_resolution=4)


def test_a_row_outside_the_table_is_on_the_grid(table):
    estimator = GaussianMixture(random_state=0).fit(table)
    row = np.full(5, 40.0)
    display = DensityPairsDisplay.from_estimator(
        estimator, table, features=[0, 1], at=row, grid_resolution=4
    )
    assert all(grid[-1] > 40 for grid in display.grids)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"features": (0, 5)}, r"2 to 4 different columns out of 5, got \(0, 5\)"),
        (ValueError, {"features": (0, 0)}, r"got \(0, 0\)"),
        (ValueError, {"features": (0,)}, r"got \(0,\)"),
        (ValueError, {"features": range(5)}, r"got range\(0, 5\)"),
        (ValueError, {"features": 3}, "got 3"),
        (ValueError, {"features": "ab"}, "got 'ab'"),
        (ValueError, {"at": [0.0, 1.0]}, r"at must be a finite row of 5 values, got \[0.0, 1.0\]"),
        (ValueError, {"at": [0.0, 1.0, 2.0, 3.0, np.nan]}, "at must be a finite row .*nan"),
        (ValueError, {"grid_resolution": 1}, "grid_resolution must be an integer >= 2, got 1"),
    ],
)
def test_unfit_pairs_are_named(table, error, options, message):
    estimator = GaussianMixture(random_state=0).fit(table)
    with pytest.raises(error, match=message):
        DensityPairsDisplay.from_estimator(estimator, table, **options)


def test_no_pairs_and_no_density_are_named(table):
    with pytest.raises(TypeError, match="method score_samples, got int"):
        DensityPairsDisplay.from_estimator(3, table)
    broken = SimpleNamespace(score_samples=lambda x: np.full(len(x), np.nan))
    with pytest.raises(ValueError, match="finite maximum, got nan"):
        DensityPairsDisplay.from_estimator(broken, table)
    with pytest.raises(ValueError, match="X must have at least 2 columns, got 1. Use Density"):
        DensityPairsDisplay.from_estimator(broken, table[:, :1])


def history(*iterations):
    rows = [{"iteration": i, "loss": 1.0 / (1 + k)} for k, i in enumerate(iterations)]
    rows[-1]["validation"] = -1.0
    return SimpleNamespace(history_=rows)


@pytest.mark.parametrize(
    ("iterations", "continued", "boundaries"),
    [
        ((0, 10, 20), (0, 10, 20), ()),
        ((0, 10, 0, 5), (0, 10, 10, 15), (10,)),
        ((0, 10, 2, 6), (0, 10, 12, 16), (10,)),
        ((0, 10, 0, 20, 0, 30), (0, 10, 10, 30, 30, 60), (10, 30)),
        ((0, 3, 3, 28), (0, 3, 3, 28), (3,)),
    ],
)
def test_history_goes_on_where_a_phase_begins(iterations, continued, boundaries):
    display = HistoryDisplay.from_estimator(history(*iterations))
    np.testing.assert_array_equal(display.curves["loss"][0], continued)
    np.testing.assert_array_equal(display.curves["validation"][0], continued[-1:])
    np.testing.assert_array_equal(display.boundaries, boundaries)
    for panel in display.axes_:
        assert [line.get_xdata()[0] for line in panel.lines[1:]] == list(boundaries)
    assert legend(display.axes_[1]) == ["loss", "next phase"][: 1 + bool(boundaries)]


@pytest.mark.parametrize(
    ("display", "tables"),
    [
        (OODRocDisplay, 2),
        (OODPrecisionRecallDisplay, 2),
        (ScoreHistogramDisplay, 2),
        (PValueHistogramDisplay, 1),
        (DensityPairsDisplay, 1),
    ],
)
def test_without_matplotlib_the_error_says_what_to_install(display, tables, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"{display.__name__} .*skebm\[plot\]"):
        display.from_estimator(None, *[[[0.0]]] * tables)
