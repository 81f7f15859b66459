"""Displays hold what they draw, so the numbers are tested; what all displays do is tested once."""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import auc
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import skebm.plots
from skebm import HybridCDDensity
from skebm.datasets import GaussianDensity
from skebm.diagnostics import Chains, run_chains
from skebm.plots import (
    ChainDisplay,
    DensityDisplay,
    DensityPairsDisplay,
    EnergyHistogramDisplay,
    HistoryDisplay,
    PValueHistogramDisplay,
    ScoreHistogramDisplay,
)
from tests.closed_forms import normal_overlap

plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = pytest.mark.usefixtures("close_figures")

ROWS = [
    {"iteration": 0, "loss": 1.0, "cd_bracket": 0.1},
    {"iteration": 10, "loss": 0.5, "cd_bracket": 0.2, "validation": -2.0},
    {"iteration": 20, "cd_bracket": 0.3, "validation": -1.5, "seconds": 1.0},
    {"iteration": 30, "loss": 0.2, "cd_bracket": 0.4, "validation": None},
]


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(40, 3) * [1.0, 2.0, 3.0]


@pytest.fixture
def chains():
    rng = np.random.default_rng(0)
    steps = np.array([0, 5, 10, 12])
    energy, lines = rng.normal(size=(2, 4, 30)), rng.uniform(size=(4, 4))
    return Chains(rng.normal(size=(4, 30, 3)), energy[0], energy[1], steps, *lines)


def as_estimator(density):
    return SimpleNamespace(score_samples=density.log_density)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -- what all displays do --------------------------------------------------------------------------

DISPLAYS = {  # tables that from_estimator takes, artists that the keywords of plot reach
    "ChainDisplay": (0, 1),
    "ConditionalDisplay": (1, 1),
    "DensityDisplay": (1, 1),
    "DensityPairsDisplay": (1, 1),
    "EnergyHistogramDisplay": (2, 2),
    "HistoryDisplay": (0, 3),
    "OODPrecisionRecallDisplay": (2, 1),
    "OODRocDisplay": (2, 1),
    "PValueHistogramDisplay": (2, 2),
    "ScoreHistogramDisplay": (2, 2),
}
every_display = pytest.mark.parametrize("name", skebm.plots.__all__)


@pytest.fixture
def draw(X, chains):
    """Return a function that draws the display of a name, from 40 rows and two columns."""
    fitted = as_estimator(GaussianDensity(np.eye(2)))
    fitted.p_value = lambda X: np.linspace(0, 1, len(X))
    fitted.history_ = ROWS

    def from_estimator(name, **options):
        display = getattr(skebm.plots, name)
        if name == "ChainDisplay":
            return display.from_chains(chains, **options)
        if name == "ConditionalDisplay":
            values, density = np.linspace(-2, 2, 9), np.full(9, 0.25)
            stored = {"interval": (-1.0, 1.0), "level": 0.5, "value": 0.5}
            return display(values=values, density=density, **stored).plot(**options)
        return display.from_estimator(fitted, *[X[:, :2]] * DISPLAYS[name][0], **options)

    return from_estimator


def drawn_on(display):
    return np.ravel(display.axes_ if hasattr(display, "axes_") else display.ax_)


@every_display
def test_axes_are_made_or_those_given(draw, name):
    display = draw(name)
    (made,) = map(plt.figure, plt.get_fignums())
    assert display.figure_ is made and all(ax.figure is made for ax in drawn_on(display))
    left, right = plt.figure().subplots(1, 2)
    assert display.plot(ax=left) is display
    for ax, shown in ((left, display), (right, draw(name, ax=right))):
        assert shown.figure_ is ax.figure
        assert all(panel in (ax, *ax.child_axes) for panel in drawn_on(shown))
    assert len(plt.get_fignums()) == 2
    left.figure.canvas.draw()


@every_display
def test_keywords_reach_matplotlib(draw, name):
    artists = [a for ax in drawn_on(draw(name, zorder=7.5)) for a in ax.get_children()]
    assert sum(artist.get_zorder() == 7.5 for artist in artists) == DISPLAYS[name][1]


@every_display
def test_without_matplotlib_the_error_says_what_to_install(name, draw, monkeypatch):
    shown = draw(name)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for call in (shown.plot, lambda: shown.from_estimator(None, *[None] * DISPLAYS[name][0])):
        with pytest.raises(ImportError, match=rf"{name} needs matplotlib.*skebm\[plot\]"):
            call()


def test_matplotlib_is_imported_inside_functions_alone():
    for path in Path(skebm.__file__).parent.rglob("*.py"):
        body = ast.parse(path.read_text("utf-8")).body
        imports = [ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not any("matplotlib" in line for line in imports), path


@pytest.mark.parametrize(
    ("name", "error", "options", "message"),
    [
        ("ChainDisplay", ValueError, {"kind": "E"}, r"kind must be one of \['energy'.*, got 'E'"),
        ("ChainDisplay", ValueError, {"coordinate": 3}, r"coordinate must be .*<= 2, got 3"),
        ("DensityDisplay", ValueError, {"log_density": np.array([np.nan])}, "maximum, got nan"),
        ("DensityPairsDisplay", ValueError, {"log_density": {(0, 0): [-np.inf]}}, "got -inf"),
        ("EnergyHistogramDisplay", ValueError, {"bins": 0}, "bins must be .*>= 1, got 0"),
        ("PValueHistogramDisplay", ValueError, {"bins": 0}, "bins must be .*>= 1, got 0"),
        ("PValueHistogramDisplay", ValueError, {"alpha": 5}, "alpha .*>= 0 and <= 1, got 5"),
        ("ScoreHistogramDisplay", ValueError, {"bins": 0}, "bins must be .*>= 1, got 0"),
        ("ScoreHistogramDisplay", ValueError, {"threshold": np.nan}, "threshold .* got nan"),
        ("ScoreHistogramDisplay", TypeError, {"threshold": "auto"}, "threshold .* got 'auto'"),
    ],
)
def test_what_cannot_be_drawn_makes_no_figure(draw, name, error, options, message):
    display = draw(name)
    plt.close("all")
    vars(display).update(options)
    with pytest.raises(error, match=message):
        display.plot()
    assert not plt.get_fignums()


# -- densities -------------------------------------------------------------------------------------

DENSITIES = [DensityDisplay, DensityPairsDisplay]


def test_curve_is_the_density(X):
    density = GaussianDensity([[1.0]])
    options = {"grid_resolution": 30, "color": "red"}
    display = DensityDisplay.from_estimator(as_estimator(density), X[:, :1], **options)
    line = display.ax_.lines[0]
    assert line.get_color() == "red"
    np.testing.assert_allclose(line.get_ydata(), np.exp(-0.5 * display.xx0**2) / np.sqrt(2 * np.pi))
    span = np.ptp(X[:, 0])
    assert display.xx0[[0, -1]] == pytest.approx(
        [X[:, 0].min() - 0.1 * span, X[:, 0].max() + 0.1 * span]
    )
    np.testing.assert_array_equal(display.ax_.lines[1].get_xdata(), X[:, 0])  # the rug


@pytest.mark.parametrize("display", DENSITIES)
def test_contours_run_through_points_of_their_levels(X, display):
    density = GaussianDensity(np.diag([1.0, 9.0]))  # a transposed picture would be another one
    drawn = display.from_estimator(as_estimator(density), X[:, :2], grid_resolution=61)
    pairs = display is DensityPairsDisplay
    panel, top = (drawn.axes_[1, 0], drawn.log_density[1, 0].max()) if pairs else (drawn.ax_, 0)
    contours, n_bands = panel.collections[0], 0
    for k, path in enumerate(contours.get_paths()):
        if len(path.vertices):  # no point is 12 nats below the maximum
            values, n_bands = density.log_density(path.vertices) - top, n_bands + 1
            assert contours.levels[k] - 0.02 < values.min()
            assert values.max() < contours.levels[k + 1] + 0.02
    assert n_bands == 10
    np.testing.assert_array_equal(panel.collections[1].get_offsets(), X[:, :2])


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


def test_a_constant_column_gets_a_range(X):
    X = np.column_stack([X[:, 0], np.full(len(X), 5.0)])
    density = as_estimator(GaussianDensity(np.eye(2), [0, 5]))
    display = DensityDisplay.from_estimator(density, X, grid_resolution=5)
    assert display.xx1[[0, -1]].tolist() == [4, 6]


@pytest.mark.parametrize("features", [["weight", "age"], ["weight", 0]])
@pytest.mark.parametrize("display", DENSITIES)
def test_data_frames_keep_their_names_and_columns_have_them(X, display, features):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["age", "height", "weight"])
    estimator = GaussianMixture(random_state=0).fit(frame)  # warns about rows without names
    shown = display.from_estimator(estimator, frame, features=features, grid_resolution=3)
    names = shown.names if display is DensityPairsDisplay else [shown.xlabel, shown.ylabel]
    assert names == ["weight", "age"]
    np.testing.assert_array_equal(shown.X, X[:, [2, 0]])
    with pytest.raises(ValueError, match=r"got \['age', 'size'\]"):
        display.from_estimator(estimator, frame, features=["age", "size"])


BAD_FEATURES = [
    (DensityDisplay, None, "two different columns out of 3, got None"),
    (DensityDisplay, (0, 3), r"got \(0, 3\)"),
    (DensityDisplay, (1, 1), r"got \(1, 1\)"),
    (DensityDisplay, (0, 1, 2), r"got \(0, 1, 2\)"),
    (DensityPairsDisplay, (0, 3), r"2 to 4 different columns out of 3, got \(0, 3\)"),
    (DensityPairsDisplay, (0, 0), r"got \(0, 0\)"),
    (DensityPairsDisplay, (0,), r"got \(0,\)"),
    (DensityPairsDisplay, (0, 1.5), r"got \(0, 1.5\)"),
    (DensityPairsDisplay, 3, "got 3"),
    (DensityPairsDisplay, "ab", "got 'ab'"),
]


@pytest.mark.parametrize(
    ("display", "error", "options", "message"),
    [
        *((cls, ValueError, {"features": j}, message) for cls, j, message in BAD_FEATURES),
        (DensityDisplay, ValueError, {"n_samples": -1}, "n_samples .*>= 0, got -1"),
        (DensityDisplay, TypeError, {"n_samples": 5}, "method sample, got SimpleNamespace"),
        *((cls, ValueError, {"grid_resolution": 1}, "integer >= 2, got 1") for cls in DENSITIES),
        (DensityPairsDisplay, ValueError, {"at": [0.0, 1.0]}, r"row of 3 values, got \[0.0, 1.0\]"),
        (DensityPairsDisplay, ValueError, {"at": [0.0, 1.0, np.nan]}, "at must be a finite row"),
    ],
)
def test_unfit_requests_are_named(X, display, error, options, message):
    with pytest.raises(error, match=message):
        display.from_estimator(as_estimator(GaussianDensity(np.eye(3))), X, **options)


@pytest.mark.parametrize("display", DENSITIES)
def test_not_an_estimator_and_not_a_density_are_named(X, display):
    with pytest.raises(TypeError, match="method score_samples, got int"):
        display.from_estimator(3, X[:, :2])
    broken = SimpleNamespace(score_samples=lambda x: np.full(len(x), np.nan))
    with pytest.raises(ValueError, match="finite maximum, got nan"):
        display.from_estimator(broken, X[:, :2])


# -- pairs of columns ------------------------------------------------------------------------------


@pytest.fixture
def table():
    return np.random.RandomState(2).randn(50, 5) * [1, 2, 3, 4, 5]


def test_pairs_are_slices_of_score_samples(table):
    estimator = GaussianMixture(2, random_state=0).fit(table)
    row, columns = table[7], (4, 0, 2)
    display = DensityPairsDisplay.from_estimator(
        estimator, table, features=columns, at=row, grid_resolution=6
    )
    assert sorted(display.log_density) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
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
    estimator = as_estimator(GaussianDensity(np.eye(5)))
    display = DensityPairsDisplay.from_estimator(estimator, table, grid_resolution=30)
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
    np.testing.assert_array_equal(panel.collections[1].get_offsets(), table[:, [1, 2]])
    assert panel.lines[0].get_xydata().tolist() == [display.at[[1, 2]].tolist()]
    assert [ax.get_xlabel() for ax in display.axes_[3]] == ["x0", "x1", "x2", "x3"]


def test_pairs_fill_the_place_of_the_axes_given(table):
    estimator, ax = as_estimator(GaussianDensity(np.eye(5))), plt.figure().add_axes([0, 0, 1, 1])
    display = DensityPairsDisplay.from_estimator(estimator, table, grid_resolution=3, ax=ax)
    display.figure_.canvas.draw()  # places the panels
    corners = [display.axes_[i, j].get_position().extents for i, j in ((3, 0), (2, 0), (0, 3))]
    assert corners[0][:2] == pytest.approx([0, 0], abs=1e-9)
    assert corners[0][3] < corners[1][1] and corners[2][2:] == pytest.approx([1, 1], abs=1e-9)


def test_a_slice_without_density_blames_the_row(table):
    top = KernelDensity(kernel="tophat", bandwidth=0.5).fit(table)
    with pytest.raises(ValueError, match=r"got -inf. Choose another `at`: .* 0 all over .* \[99"):
        DensityPairsDisplay.from_estimator(top, table, at=np.full(5, 99.0), grid_resolution=4)
    with pytest.raises(ValueError, match="X must have at least 2 columns, got 1. Use Density"):
        DensityPairsDisplay.from_estimator(top, table[:, :1])


def test_a_row_outside_the_table_is_on_the_grid(table):
    display = DensityPairsDisplay.from_estimator(
        as_estimator(GaussianDensity(np.eye(5))), table, at=np.full(5, 40.0), grid_resolution=4
    )
    assert all(grid[-1] > 40 for grid in display.grids)


# -- histories -------------------------------------------------------------------------------------


def test_history_draws_two_panels_and_skips_rows_without_the_key():
    fitted = SimpleNamespace(history_=ROWS)
    display = HistoryDisplay.from_estimator(fitted)
    assert list(display.curves) == ["validation", "cd_bracket", "loss"]
    np.testing.assert_array_equal(display.curves["validation"], [[10, 20], [-2.0, -1.5]])
    np.testing.assert_array_equal(display.curves["loss"], [[0, 10, 30], [1.0, 0.5, 0.2]])
    above, below = display.axes_
    np.testing.assert_array_equal(above.lines[0].get_ydata(), [-2.0, -1.5])
    assert [line.get_label() for line in below.lines] == ["cd_bracket", "loss"]
    assert above.get_xlim() == below.get_xlim()
    ax = plt.figure().subplots()
    assert HistoryDisplay.from_estimator(fitted, keys=["seconds"], ax=ax).axes_.tolist() == [ax]
    assert ax.lines[0].get_marker() == "."  # a line needs two points


def test_history_of_a_game_shows_its_bound_or_all_there_is():
    game = [{"iteration": i, "lower_bound": -i, "fold": 0.1} for i in (0, 5)]
    refined = [*game, {"iteration": 5, "loss": 1.0, "validation": 2.0}]
    critic = [{"iteration": 1, "data_energy": 1.0, "penalty": 0.5}]
    for rows, keys in (
        (game, ["lower_bound"]),
        (refined, ["validation", "loss", "lower_bound"]),
        (critic, ["data_energy", "penalty"]),
    ):
        assert list(HistoryDisplay.from_estimator(SimpleNamespace(history_=rows)).curves) == keys


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
    rows = [{"iteration": i, "loss": 1.0 / (1 + k)} for k, i in enumerate(iterations)]
    rows[-1]["validation"] = -1.0
    display = HistoryDisplay.from_estimator(SimpleNamespace(history_=rows))
    np.testing.assert_array_equal(display.curves["loss"][0], continued)
    np.testing.assert_array_equal(display.curves["validation"][0], continued[-1:])
    np.testing.assert_array_equal(display.boundaries, boundaries)
    for panel in display.axes_:
        assert [line.get_xdata()[0] for line in panel.lines[1:]] == list(boundaries)
    assert legend(display.axes_[1]) == ["loss", "next phase"][: 1 + bool(boundaries)]


def test_history_errors():
    fitted = SimpleNamespace(history_=ROWS)
    with pytest.raises(ValueError, match=r"got \['acceptance'\].*'cd_bracket'.*'validation'"):
        HistoryDisplay.from_estimator(fitted, keys=["acceptance"])
    with pytest.raises(ValueError, match=r"holds \[\]"):
        HistoryDisplay.from_estimator(SimpleNamespace(history_=[]))
    with pytest.raises(NotFittedError, match="got SimpleNamespace without"):
        HistoryDisplay.from_estimator(SimpleNamespace())


# -- chains ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    X = np.random.RandomState(0).randn(150, 2) * [100.0, 1.0]
    return HybridCDDensity(base=None, max_iter=5, log_partition=None, random_state=0).fit(X)


@pytest.mark.parametrize("kind", ["energy", "model_energy"])
def test_mean_and_band_of_the_chains(chains, kind):
    display = ChainDisplay.from_chains(chains, kind=kind)
    values = getattr(chains, kind)
    line, band = display.ax_.lines[0], display.ax_.collections[0]
    np.testing.assert_array_equal(line.get_xdata(), chains.steps)
    np.testing.assert_allclose(line.get_ydata(), values.mean(axis=1))
    corners = band.get_paths()[0].vertices
    for k, step in enumerate(chains.steps):
        drawn = corners[corners[:, 0] == step, 1]
        truth = np.quantile(values[k], [0.05, 0.95])
        np.testing.assert_allclose([drawn.min(), drawn.max()], truth)
    assert legend(display.ax_) == ["mean of 30 chains", "5 % to 95 %"]
    assert "nats" in display.ax_.get_ylabel()


@pytest.mark.parametrize("kind", ["acceptance", "step_size", "drift_to_noise", "force"])
def test_one_number_per_record(chains, kind):
    display = ChainDisplay.from_chains(chains, kind=kind, linewidth=3)
    (line,) = display.ax_.lines
    assert line.get_linewidth() == 3
    np.testing.assert_array_equal(line.get_xydata().T, [chains.steps, getattr(chains, kind)])
    if kind == "acceptance":
        assert display.ax_.get_ylim() == (0, 1.02)


def test_traces_of_one_coordinate(chains):
    display = ChainDisplay.from_chains(chains, kind="trace", coordinate=2, linewidth=3)
    assert display.ax_.lines[0].get_linewidth() == 3
    assert len(display.ax_.lines) == 20 and display.ax_.get_ylabel() == "x2"
    for j, line in enumerate(display.ax_.lines):
        np.testing.assert_array_equal(line.get_ydata(), chains.positions[:, j, 2])


def test_a_logarithmic_axis_still_shows_the_start(chains):
    display = ChainDisplay.from_chains(chains, log_steps=True)
    assert display.ax_.get_xscale() == "symlog" and display.ax_.get_xlim() == (0, 12)
    assert display.ax_.xaxis.get_transform().linthresh == 5
    display.figure_.canvas.draw()
    one = Chains(*(field[:1] for field in chains))
    assert ChainDisplay.from_chains(one, log_steps=True).ax_.get_xscale() == "linear"


def test_chains_of_an_estimator(fitted):
    settings = {"sampler": "langevin", "n_steps": 20, "record_every": 4, "random_state": 3}
    rows = [[100.0, 1.0], [0.0, 0.0]]
    options = {"kind": "trace", "coordinate": 1, "log_steps": True}
    display = ChainDisplay.from_estimator(fitted, rows, **settings, **options)
    truth = run_chains(fitted, rows, **settings)
    for drawn, field in zip(display.chains, truth, strict=True):
        np.testing.assert_array_equal(drawn, field)
    assert vars(display).items() >= options.items()


def test_unfit_kinds_are_named_before_anything_runs():
    with pytest.raises(ValueError, match="got 'mean'"):
        ChainDisplay.from_estimator(None, kind="mean")
    with pytest.raises(ValueError, match="got 'E'"):
        EnergyHistogramDisplay.from_estimator(None, [[0.0]], [[0.0]], kind="E")


# -- energies of rows and samples ------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 1.0, 6.0])
def test_overlap_of_two_normals(shift):
    rng = np.random.default_rng(0)
    data, samples = rng.normal(size=100_000), rng.normal(size=50_000) + shift
    display = EnergyHistogramDisplay.from_predictions(data, samples)
    assert display.overlap_ == pytest.approx(normal_overlap(shift), abs=0.012)
    title = display.ax_.get_legend().get_title().get_text()
    assert title == f"overlap {display.overlap_:.2f}"


def test_histograms_are_densities_on_common_bins():
    data, samples = np.repeat([0.0, 2.0, 4.0], [60, 20, 20]), np.repeat([0.0, 8.0], [15, 5])
    display = EnergyHistogramDisplay.from_predictions(data, samples, bins=4, xlabel="E")
    values, edges, _ = display.ax_.patches[0].get_data()
    np.testing.assert_allclose(edges, [0, 2, 4, 6, 8])
    np.testing.assert_allclose(values, [0.3, 0.1, 0.1, 0])
    np.testing.assert_allclose(display.ax_.patches[1].get_data()[0], [0.375, 0, 0, 0.125])
    assert display.overlap_ == pytest.approx(0.6) and display.ax_.get_xlabel() == "E"
    assert legend(display.ax_) == ["100 held-out rows", "20 samples"]


def test_a_stray_energy_does_not_hide_the_rest():
    energy = np.linspace(0, 1, 1000)
    stray = np.append(energy[:-1], 1e9)
    display = EnergyHistogramDisplay.from_predictions(energy, stray)
    assert display.ax_.patches[0].get_data()[1][-1] < 1.1 and display.overlap_ > 0.99
    assert EnergyHistogramDisplay.from_predictions([2.0], [2.0]).overlap_ == 1


def test_energies_of_an_estimator(fitted):
    X, rows = np.random.RandomState(1).randn(2, 40, 2) * [100.0, 1.0]
    display = EnergyHistogramDisplay.from_estimator(fitted, X, rows)
    np.testing.assert_array_equal(display.energy_data, -fitted.score_samples(X))
    np.testing.assert_array_equal(display.energy_samples, -fitted.score_samples(rows))
    chains = run_chains(fitted, rows, n_steps=5)
    display = EnergyHistogramDisplay.from_estimator(fitted, X, chains, kind="model_energy", bins=5)
    truth = fitted.energy_samples(chains.positions[-1])
    np.testing.assert_array_equal(display.energy_samples, truth)
    np.testing.assert_array_equal(display.energy_data, fitted.energy_samples(X))
    assert display.bins == 5 and display.xlabel == "energy E (nats)"


@pytest.mark.parametrize(
    ("display", "fields"),
    [
        (EnergyHistogramDisplay, ("energy_data", "energy_samples")),
        (ScoreHistogramDisplay, ("score_in", "score_out")),
        (PValueHistogramDisplay, ("p_in", "p_out")),
        (skebm.plots.OODRocDisplay, ("score_in", "score_out")),
        (skebm.plots.OODPrecisionRecallDisplay, ("score_in", "score_out")),
    ],
)
def test_unfit_predictions_are_named(display, fields):
    for values, message in (
        ([0.5, np.nan, np.inf], "must be finite, got 2 of 3 values"),
        ([[0.5], [1.0]], r"must be one-dimensional and not empty, .*\(2, 1\)"),
        ([], r"must be one-dimensional and not empty, .*\(0,\)"),
    ):
        with pytest.raises(ValueError, match=f"{fields[0]} {message}"):
            display.from_predictions(values, [0.5])
        with pytest.raises(ValueError, match=f"{fields[1]} {message}"):
            display.from_predictions([0.5], values)
