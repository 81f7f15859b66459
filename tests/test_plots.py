"""Displays hold what they draw, so the numbers are tested and the drawing is run."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skebm.datasets import GaussianDensity
from skebm.plots import DensityDisplay, HistoryDisplay

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

ROWS = [
    {"iteration": 0, "loss": 1.0, "cd_bracket": 0.1},
    {"iteration": 10, "loss": 0.5, "cd_bracket": 0.2, "validation": -2.0},
    {"iteration": 20, "cd_bracket": 0.3, "validation": -1.5, "seconds": 1.0},
    {"iteration": 30, "loss": 0.2, "cd_bracket": 0.4, "validation": None},
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(40, 3) * [1.0, 2.0, 3.0]


def as_estimator(density):
    return SimpleNamespace(score_samples=density.log_density)


def test_curve_is_the_density(X):
    density = GaussianDensity([[1.0]])
    display = DensityDisplay.from_estimator(as_estimator(density), X[:, :1], grid_resolution=30)
    line = display.ax_.lines[0]
    np.testing.assert_allclose(line.get_ydata(), np.exp(-0.5 * display.xx0**2) / np.sqrt(2 * np.pi))
    span = np.ptp(X[:, 0])
    assert display.xx0[[0, -1]] == pytest.approx(
        [X[:, 0].min() - 0.1 * span, X[:, 0].max() + 0.1 * span]
    )
    np.testing.assert_array_equal(display.ax_.lines[1].get_xdata(), X[:, 0])  # the rug
    assert display.figure_ is display.ax_.figure


def test_contours_put_each_value_at_its_point(X):
    density = GaussianDensity(np.diag([1.0, 9.0]))
    display = DensityDisplay.from_estimator(
        as_estimator(density), X[:, :2], grid_resolution=7, ax=plt.figure().subplots()
    )
    for i, j in [(0, 0), (2, 5), (6, 1)]:
        truth = density.log_density([[display.xx0[j], display.xx1[i]]])[0]
        assert display.log_density[i, j] == pytest.approx(truth, abs=1e-12)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x0", "x1")
    display.figure_.canvas.draw()


def test_colors_span_twelve_nats_below_the_maximum(X):
    display = DensityDisplay.from_estimator(
        as_estimator(GaussianDensity(1e-4 * np.eye(2))), X[:, :2], grid_resolution=9
    )
    drawn = display.ax_.collections[0]
    top = display.log_density.max()
    assert top - display.log_density.min() > 1000
    np.testing.assert_allclose([drawn.levels[0], drawn.levels[-1]], [top - 12, top])


def test_a_slice_keeps_the_other_columns_at_their_median(X):
    density = GaussianDensity(np.diag([1.0, 4.0, 9.0]))
    display = DensityDisplay.from_estimator(
        as_estimator(density), X, features=(2, 0), grid_resolution=5
    )
    row = [display.xx1[3], np.median(X[:, 1]), display.xx0[1]]
    assert display.log_density[3, 1] == pytest.approx(density.log_density([row])[0], abs=1e-12)
    np.testing.assert_array_equal(display.X, X[:, [2, 0]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x2", "x0")


def test_samples_are_drawn_with_the_seed(X):
    estimator = KernelDensity(bandwidth=0.5).fit(X[:, :2])
    display = DensityDisplay.from_estimator(
        estimator, X[:, :2], n_samples=15, random_state=3, grid_resolution=5
    )
    np.testing.assert_array_equal(display.samples, estimator.sample(15, random_state=3))
    np.testing.assert_array_equal(display.ax_.collections[-1].get_offsets(), display.samples)
    one = KernelDensity(bandwidth=0.5).fit(X[:, :1])
    curve = DensityDisplay.from_estimator(one, X[:, :1], n_samples=15, random_state=3)
    assert curve.samples.shape == (15, 1)


def test_data_frames_keep_their_names(X):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :2], columns=["age", "height"])
    estimator = GaussianMixture(random_state=0).fit(frame)  # warns about rows without names
    display = DensityDisplay.from_estimator(estimator, frame, grid_resolution=5)
    assert (display.xlabel, display.ylabel) == ("age", "height")


def test_constant_columns_and_keywords(X):
    X = np.column_stack([X[:, 0], np.full(len(X), 5.0)])
    display = DensityDisplay.from_estimator(
        as_estimator(GaussianDensity(np.eye(2), [0, 5])), X, grid_resolution=5, cmap="magma"
    )
    assert display.xx1[[0, -1]].tolist() == [4, 6]
    assert display.ax_.collections[0].get_cmap().name == "magma"


@pytest.mark.parametrize(
    "error, options, message",
    [
        (ValueError, {}, "features must be two different columns out of 3, got None"),
        (ValueError, {"features": (0, 3)}, r"got \(0, 3\)"),
        (ValueError, {"features": (1, 1)}, r"got \(1, 1\)"),
        (ValueError, {"features": (0, 1), "grid_resolution": 1}, "grid_resolution .*>= 2, got 1"),
        (ValueError, {"features": (0, 1), "n_samples": -1}, "n_samples .*>= 0, got -1"),
        (TypeError, {"features": (0, 1), "n_samples": 5}, "method sample, got SimpleNamespace"),
    ],
)
def test_bad_requests_are_named(X, error, options, message):
    with pytest.raises(error, match=message):
        DensityDisplay.from_estimator(as_estimator(GaussianDensity(np.eye(3))), X, **options)


def test_not_an_estimator_and_not_a_density(X):
    with pytest.raises(TypeError, match="method score_samples, got int"):
        DensityDisplay.from_estimator(3, X[:, :1])
    broken = SimpleNamespace(score_samples=lambda x: np.full(len(x), np.nan))
    with pytest.raises(ValueError, match="finite maximum, got nan"):
        DensityDisplay.from_estimator(broken, X[:, :1])


def test_history_draws_two_panels_and_skips_rows_without_the_key():
    display = HistoryDisplay.from_estimator(SimpleNamespace(history_=ROWS))
    assert list(display.curves) == ["validation", "cd_bracket", "loss"]
    np.testing.assert_array_equal(display.curves["validation"], [[10, 20], [-2.0, -1.5]])
    np.testing.assert_array_equal(display.curves["loss"], [[0, 10, 30], [1.0, 0.5, 0.2]])
    above, below = display.axes_
    np.testing.assert_array_equal(above.lines[0].get_ydata(), [-2.0, -1.5])
    assert [line.get_label() for line in below.lines] == ["cd_bracket", "loss"]
    assert display.figure_ is above.figure


def test_history_keys_and_given_axes():
    fitted = SimpleNamespace(history_=ROWS)
    ax = plt.figure().subplots()
    assert HistoryDisplay.from_estimator(fitted, keys=["seconds"], ax=ax).axes_.tolist() == [ax]
    display = HistoryDisplay.from_estimator(fitted, ax=plt.figure().subplots())
    assert len(display.axes_) == 2
    display.figure_.canvas.draw()


def test_history_of_a_game_shows_its_bound_or_all_there_is():
    game = [{"iteration": i, "lower_bound": -i, "fold": 0.1} for i in (0, 5)]
    refined = [*game, {"iteration": 5, "loss": 1.0, "validation": 2.0}]
    for rows, keys in ((game, ["lower_bound"]), (refined, ["validation", "loss", "lower_bound"])):
        display = HistoryDisplay.from_estimator(SimpleNamespace(history_=rows))
        assert list(display.curves) == keys
    critic = [{"iteration": 1, "data_energy": 1.0, "penalty": 0.5}]
    display = HistoryDisplay.from_estimator(SimpleNamespace(history_=critic))
    assert list(display.curves) == ["data_energy", "penalty"]


def test_history_errors():
    fitted = SimpleNamespace(history_=ROWS)
    with pytest.raises(ValueError, match=r"got \['acceptance'\].*'cd_bracket'.*'validation'"):
        HistoryDisplay.from_estimator(fitted, keys=["acceptance"])
    with pytest.raises(ValueError, match=r"holds \[\]"):
        HistoryDisplay.from_estimator(SimpleNamespace(history_=[]))
    with pytest.raises(NotFittedError, match="got SimpleNamespace without"):
        HistoryDisplay.from_estimator(SimpleNamespace())


@pytest.mark.parametrize("display, X", [(DensityDisplay, [[[0.0], [1.0]]]), (HistoryDisplay, [])])
def test_without_matplotlib_the_error_says_what_to_install(display, X, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"{display.__name__} .*skebm\[plot\]"):
        display.from_estimator(SimpleNamespace(history_=ROWS), *X)
