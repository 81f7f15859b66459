"""Displays of chains and energies hold what they draw."""

import sys

import numpy as np
import pytest

from skebm import HybridCDDensity
from skebm.diagnostics import Chains, run_chains
from skebm.plots import ChainDisplay, EnergyHistogramDisplay
from tests.closed_forms import normal_overlap

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    X = np.random.RandomState(0).randn(150, 2) * [100.0, 1.0]
    return HybridCDDensity(base=None, max_iter=5, log_partition=None, random_state=0).fit(X)


@pytest.fixture
def chains():
    rng = np.random.default_rng(0)
    steps = np.array([0, 5, 10, 12])
    energy, lines = rng.normal(size=(2, 4, 30)), rng.uniform(size=(4, 4))
    return Chains(rng.normal(size=(4, 30, 3)), energy[0], energy[1], steps, *lines)


@pytest.mark.parametrize("kind", ["energy", "model_energy"])
def test_mean_and_band_of_the_chains(chains, kind):
    display = ChainDisplay.from_chains(chains, kind=kind, color="black")
    values = getattr(chains, kind)
    line, band = display.ax_.lines[0], display.ax_.collections[0]
    np.testing.assert_array_equal(line.get_xdata(), chains.steps)
    np.testing.assert_allclose(line.get_ydata(), values.mean(axis=1))
    corners = band.get_paths()[0].vertices
    for k, step in enumerate(chains.steps):
        drawn = corners[corners[:, 0] == step, 1]
        truth = np.quantile(values[k], [0.05, 0.95])
        np.testing.assert_allclose([drawn.min(), drawn.max()], truth)
    assert line.get_color() == "black" and display.figure_ is display.ax_.figure
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["mean of 30 chains", "5 % to 95 %"]
    assert "nats" in display.ax_.get_ylabel()


@pytest.mark.parametrize("kind", ["acceptance", "step_size", "drift_to_noise", "force"])
def test_one_number_per_record(chains, kind):
    display = ChainDisplay.from_chains(chains, kind=kind, ax=plt.figure().subplots())
    (line,) = display.ax_.lines
    np.testing.assert_array_equal(line.get_xydata().T, [chains.steps, getattr(chains, kind)])
    if kind == "acceptance":
        assert display.ax_.get_ylim() == (0, 1.02)


def test_traces_of_one_coordinate(chains):
    display = ChainDisplay.from_chains(chains, kind="trace", coordinate=2)
    assert len(display.ax_.lines) == 20 and display.ax_.get_ylabel() == "x2"
    for j, line in enumerate(display.ax_.lines):
        np.testing.assert_array_equal(line.get_ydata(), chains.positions[:, j, 2])


def test_a_logarithmic_axis_still_shows_the_start(chains):
    display = ChainDisplay.from_chains(chains, log_steps=True)
    assert display.ax_.get_xscale() == "symlog" and display.ax_.get_xlim() == (0, 12)
    display.figure_.canvas.draw()
    one = Chains(*(field[:1] for field in chains))
    assert ChainDisplay.from_chains(one, log_steps=True).ax_.get_xscale() == "linear"


def test_chains_of_an_estimator(fitted):
    settings = {"sampler": "langevin", "n_steps": 20, "record_every": 4, "random_state": 3}
    rows = [[100.0, 1.0], [0.0, 0.0]]
    display = ChainDisplay.from_estimator(fitted, rows, **settings, kind="force")
    truth = run_chains(fitted, rows, **settings)
    for drawn, field in zip(display.chains, truth, strict=True):
        np.testing.assert_array_equal(drawn, field)
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), truth.force)


def test_unfit_kinds_are_named_before_anything_runs(chains, fitted):
    with pytest.raises(ValueError, match=r"kind must be one of \['energy'.*'trace'\], got 'mean'"):
        ChainDisplay.from_chains(chains, kind="mean")
    with pytest.raises(ValueError, match="got 'mean'"):
        ChainDisplay.from_estimator(None, kind="mean")
    with pytest.raises(ValueError, match=r"coordinate must be .*<= 2, got 3"):
        ChainDisplay.from_chains(chains, kind="trace", coordinate=3)
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
    stairs = display.ax_.patches
    values, edges, _ = stairs[0].get_data()
    np.testing.assert_allclose(edges, [0, 2, 4, 6, 8])
    np.testing.assert_allclose(values, [0.3, 0.1, 0.1, 0])
    np.testing.assert_allclose(stairs[1].get_data()[0], [0.375, 0, 0, 0.125])
    assert display.overlap_ == pytest.approx(0.6) and display.ax_.get_xlabel() == "E"
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["100 held-out rows", "20 samples"]


def test_a_stray_energy_does_not_hide_the_rest():
    energy = np.linspace(0, 1, 1000)
    stray = np.append(energy[:-1], 1e9)
    display = EnergyHistogramDisplay.from_predictions(energy, stray)
    assert display.ax_.patches[0].get_data()[1][-1] < 1.1 and display.overlap_ > 0.99
    one = EnergyHistogramDisplay.from_predictions([2.0], [2.0])
    assert one.overlap_ == 1


def test_energies_of_an_estimator(fitted):
    X, rows = np.random.RandomState(1).randn(2, 40, 2) * [100.0, 1.0]
    display = EnergyHistogramDisplay.from_estimator(fitted, X, rows, bins=5, alpha=0.3)
    np.testing.assert_array_equal(display.energy_data, -fitted.score_samples(X))
    np.testing.assert_array_equal(display.energy_samples, -fitted.score_samples(rows))
    assert display.ax_.patches[0].get_alpha() == 0.3
    chains = run_chains(fitted, rows, n_steps=5)
    display = EnergyHistogramDisplay.from_estimator(fitted, X, chains, kind="model_energy")
    truth = fitted.energy_samples(chains.positions[-1])
    np.testing.assert_array_equal(display.energy_samples, truth)
    np.testing.assert_array_equal(display.energy_data, fitted.energy_samples(X))


def test_unfit_energies():
    with pytest.raises(ValueError, match=r"energy_data must be one-dimensional.*\(2, 1\)"):
        EnergyHistogramDisplay.from_predictions([[1.0], [2.0]], [1.0])
    with pytest.raises(ValueError, match="energy_samples must be finite, got 2 of 3"):
        EnergyHistogramDisplay.from_predictions([1.0], [np.nan, 1.0, np.inf])
    with pytest.raises(ValueError, match="bins must be .*>= 1, got 0"):
        EnergyHistogramDisplay.from_predictions([1.0], [1.0], bins=0)


@pytest.mark.parametrize("name", ["ChainDisplay", "EnergyHistogramDisplay"])
def test_without_matplotlib_the_error_says_what_to_install(name, monkeypatch, fitted):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    display = {"ChainDisplay": ChainDisplay, "EnergyHistogramDisplay": EnergyHistogramDisplay}[name]
    with pytest.raises(ImportError, match=rf"{name} .*skebm\[plot\]"):
        display.from_estimator(fitted, [[0.0, 0.0]], *[[[0.0, 0.0]]] * (name[0] == "E"))
