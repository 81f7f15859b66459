"""Learned discrepancies: closed forms, selection, units, and every kind of score."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skebm import HybridCDDensity
from skebm.datasets import GaussianDensity
from skebm.energies import MLP
from skebm.exceptions import DataDegeneracyWarning
from skebm.networks import Critic
from skebm.partition import ImportanceSampling
from skebm.stein import _training, learned_stein_discrepancy
from skebm.stein._scores import evaluate_score
from tests.closed_forms import assert_mean
from tests.generators import gen

SMALL = {
    "critic": Critic((32, 32)),
    "learning_rate": 5e-3,
    "batch_size": 256,
    "standardize": False,
    "random_state": 0,
}


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def shifted(mean):
    return lambda x: np.asarray(mean) - x


# -- truths ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("standardize", [False, True])
def test_shifted_gaussians_in_ten_columns(standardize):
    """|mu|^2 / (2 l2) = 10; the bar is 10 +- 0.5 with default settings."""
    found = learned_stein_discrepancy(
        shifted(np.ones(10)), normal(10_000, 10), standardize=standardize, random_state=0
    )
    assert abs(found.value - 10) < 0.5
    assert found.stderr < 0.15


@pytest.mark.parametrize("l2", [0.25, 1.0])
def test_the_critic_times_l2_is_half_the_difference_of_scores(l2):
    """f* = (s_q - s_p) / (2 l2), and the value is |s_q - s_p|^2 / (2 l2)."""
    mean = np.array([1.0, -0.5])
    found = learned_stein_discrepancy(shifted(mean), normal(4000, 2), l2=l2, max_iter=300, **SMALL)
    error = found.critic(normal(2000, 2, seed=1)) * 2 * l2 - mean
    assert np.square(error).sum(axis=1).mean() < 0.02 * mean @ mean
    assert found.value == pytest.approx(mean @ mean / (2 * l2), rel=0.1)


def test_gaussians_of_other_covariance():
    """E|s_q - s_p|^2 / (2 l2) = tr((Sp^-1 - Sq^-1)^2 Sp) / (2 l2)."""
    data, model = np.diag([1.0, 0.25]), np.diag([1.0, 1.0])
    difference = np.linalg.inv(data) - np.linalg.inv(model)
    truth = np.trace(difference @ difference @ data)
    X = GaussianDensity(data).sample(4000, random_state=0)
    found = learned_stein_discrepancy(GaussianDensity(model), X, max_iter=400, **SMALL)
    assert found.value == pytest.approx(truth, rel=0.15)
    fresh = GaussianDensity(data).sample(2000, random_state=1)
    error = found.critic(fresh) - fresh @ difference
    assert np.square(error).sum(axis=1).mean() < 0.1 * truth


@pytest.mark.parametrize("standardize", [False, True])
def test_stein_values_have_the_mean_of_the_identity(standardize):
    """For any critic the mean Stein value under N(0, I) is E[(s_q - s_p) . f]."""
    mean = np.array([0.5, 0.2, 0.0])
    options = {**SMALL, "standardize": standardize, "max_iter": 60}
    critic = learned_stein_discrepancy(shifted(mean), 3 + 2 * normal(500, 3), **options).critic
    fresh = normal(40_000, 3, seed=1)
    stein = critic.stein_values(shifted(mean), fresh)
    assert_mean(stein - critic(fresh) @ mean, 0.0, 0.2)
    assert_mean(critic.stein_values(shifted(np.zeros(3)), fresh), 0.0, 0.2)


def test_the_value_is_the_mean_over_the_test_rows():
    X, mean = normal(300, 2), [0.5, 0.0]
    found = learned_stein_discrepancy(shifted(mean), X, max_iter=30, **SMALL)
    rng = _training.torch.Generator().manual_seed(
        int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    )
    *_, test = _training._split(300, (0.8, 0.1, 0.1), rng)
    values = found.critic.stein_values(shifted(mean), X[test])
    assert len(test) == 30
    assert found.value == pytest.approx(values.mean(), rel=1e-5)
    assert found.stderr == pytest.approx(values.std(ddof=1) / 30**0.5, rel=1e-5)


@pytest.mark.parametrize("trace", ["gaussian", "rademacher"])
def test_probes_train_toward_the_same_critic(trace):
    mean = np.array([1.0, -0.5])
    found = learned_stein_discrepancy(
        shifted(mean), normal(4000, 2), trace=trace, max_iter=300, **SMALL
    )
    assert found.value == pytest.approx(mean @ mean, rel=0.1)


def test_the_right_model_has_no_discrepancy():
    found = learned_stein_discrepancy(lambda x: -x, normal(4000, 3), max_iter=200, **SMALL)
    assert abs(found.value) <= 4 * found.stderr
    assert found.stderr < 0.05


# -- training and selection ------------------------------------------------------------------------


def test_selection_stops_an_overfitting_critic():
    """Fig. 10 of the paper: 100 rows, d = 10; the mean on training rows passes the bound of 10."""
    found = learned_stein_discrepancy(
        shifted(np.ones(10)),
        normal(100, 10),
        critic=Critic((100, 100)),
        learning_rate=3e-3,
        max_iter=100,
        n_iter_no_change=None,
        standardize=False,
        random_state=0,
    )
    statistics = [row["statistic"] for row in found.history]
    best = found.history[int(np.argmax(statistics))]
    assert found.history[-1]["train"] > 12
    assert best["iteration"] < 100 and best["train"] < found.history[-1]["train"]
    values = found.critic.stein_values(shifted(np.ones(10)), normal(20_000, 10, seed=1))
    assert 4 < values.mean() < 12  # of the chosen critic, on fresh rows; 10 is the optimum


def test_the_chosen_critic_is_the_best_of_the_history(monkeypatch):
    seen = []
    assess = _training._assess

    def keep(critic, *args):
        row = assess(critic, *args)
        seen.append((row["statistic"], critic(normal(5, 2))))
        return row

    monkeypatch.setattr(_training, "_assess", keep)
    X = normal(60, 2)
    found = learned_stein_discrepancy(shifted([1.0, 0.0]), X, max_iter=300, **SMALL)
    best = max(seen, key=lambda pair: pair[0])
    np.testing.assert_array_equal(found.critic(normal(5, 2)), best[1])
    for row in found.history:
        assert row["statistic"] == pytest.approx(row["validation"] - row["validation_sd"])


@pytest.mark.parametrize(
    ("patience", "iterations"), [(None, list(range(0, 101, 10))), (2, [0, 10, 20])]
)
def test_early_stopping(monkeypatch, patience, iterations):
    monkeypatch.setattr(_training, "_assess", lambda *args: {"statistic": 0.0})
    found = learned_stein_discrepancy(
        lambda x: -x,
        normal(100, 2),
        max_iter=100,
        eval_every=10,
        n_iter_no_change=patience,
        **SMALL,
    )
    assert [row["iteration"] for row in found.history] == iterations


def test_the_last_iteration_is_assessed():
    found = learned_stein_discrepancy(
        lambda x: -x, normal(100, 2), max_iter=7, eval_every=5, **SMALL
    )
    assert [row["iteration"] for row in found.history] == [0, 5, 7]


def test_the_parts_have_their_shares_and_no_row_in_common():
    parts = _training._split(200, (0.7, 0.1, 0.2), gen(0))
    assert [len(part) for part in parts] == [140, 20, 40]
    assert sorted(np.concatenate(parts)) == list(range(200))


def test_batches_are_rows_of_the_training_part():
    rows = (torch.arange(50.0)[:, None], torch.arange(50.0)[:, None])
    assert _training._batch(rows, None, gen(0)) is rows
    assert _training._batch(rows, 50, gen(0)) is rows
    x, score = _training._batch(rows, 20, gen(0))
    assert x.shape == (20, 1) and torch.equal(x, score) and x.unique().numel() > 10


def test_a_spike_in_the_gradient_is_cut():
    network, clip = Critic((3,)).build(2, gen(0)), _training._Clip()

    def norm_after(size):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        network.layers[0].weight.grad[0, 0] = size
        clip(network)
        return float(network.layers[0].weight.grad[0, 0])

    assert norm_after(1.0) == pytest.approx(1.0)
    assert norm_after(4.0) == pytest.approx(4.0)
    assert norm_after(1e6) == pytest.approx(5 * clip.typical.item(), rel=0.25)


def test_heavy_tails_do_not_destroy_the_critic():
    X = np.random.default_rng(0).standard_t(1.5, size=(500, 2))
    found = learned_stein_discrepancy(lambda x: -x, X, max_iter=50, random_state=0)
    assert np.isfinite(found.value) and np.isfinite(found.critic(X)).all()


def test_bounded_critics_stay_in_their_bounds():
    for critic in (Critic((16, 16), spectral_norm=True), Critic((16, 16), weight_clip=0.02)):
        found = learned_stein_discrepancy(
            shifted([3.0, 0]), normal(200, 2), critic=critic, max_iter=50, random_state=0
        )
        for layer in found.critic.network.layers:
            norm = float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
            largest = float(layer.weight.detach().abs().max())
            assert norm < 1.05 if critic.spectral_norm else largest <= 0.02 + 1e-7


# -- units and randomness --------------------------------------------------------------------------


def test_units_do_not_matter():
    X, scale = normal(200, 2), np.array([2.0**-10, 2.0**20])  # powers of two round to the same bits
    options = {**SMALL, "standardize": True, "max_iter": 30}
    first = learned_stein_discrepancy(shifted([1.0, 0]), X, **options)
    moved = learned_stein_discrepancy(
        lambda x: shifted([1.0, 0])(x / scale) / scale, X * scale, **options
    )
    assert moved.value == first.value
    np.testing.assert_array_equal(moved.critic(X * scale), first.critic(X) * scale)


def test_seeds_decide_and_global_state_stays():
    X = normal(100, 2)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    options = {**SMALL, "max_iter": 20}
    a, b = (learned_stein_discrepancy(lambda x: -x, X, **options).value for _ in range(2))
    c = learned_stein_discrepancy(lambda x: -x, X, **{**options, "random_state": 1}).value
    assert a == b != c
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_critics_pickle():
    found = learned_stein_discrepancy(lambda x: -x, normal(100, 2), max_iter=5, **SMALL)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.critic(normal(9, 2)), found.critic(normal(9, 2)))


# -- what may stand for a score --------------------------------------------------------------------


def assert_gradient_of(log_density, model, X):
    """Against central differences of the log density, row by row."""
    found = evaluate_score(model, X)[1]
    step = 1e-5

    def slope(row):
        points = np.vstack([row + step * np.eye(len(row)), row - step * np.eye(len(row))])
        values = log_density(points)
        return (values[: len(row)] - values[len(row) :]) / (2 * step)

    np.testing.assert_allclose(found, [slope(row) for row in X], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("mixture", [GaussianMixture, BayesianGaussianMixture])
def test_mixtures(mixture, covariance):
    X = normal(60, 3) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 2]]) + np.arange(60)[:, None] % 2
    model = mixture(n_components=3, covariance_type=covariance, random_state=0, tol=0.1).fit(X)
    assert_gradient_of(model.score_samples, model, X[:9] + 0.1)


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_std=False),
        RobustScaler(),
        MaxAbsScaler(),
        MinMaxScaler((-1, 3)),
    ],
    ids=str,
)
def test_pipelines_of_scalers(scaler):
    X = normal(60, 2) * [3.0, 0.1] + 5
    model = make_pipeline(clone(scaler), "passthrough", GaussianMixture(2, random_state=0)).fit(X)
    shift = model.score_samples  # densities of the scaled rows: a constant apart
    assert_gradient_of(shift, model, X[:9])


def test_two_scalers_and_a_data_frame():
    X = pd.DataFrame(normal(60, 2) * [3.0, 0.1], columns=["a", "b"])
    model = make_pipeline(RobustScaler(), MinMaxScaler(), GaussianMixture(2, random_state=0))
    model.set_output(transform="pandas").fit(X)
    found = evaluate_score(model, X.iloc[:9])[1]
    step = 1e-6 * np.array([[1.0, 0.0]])
    up, down = (model.score_samples(X.iloc[:9] + sign * step) for sign in (1, -1))
    np.testing.assert_allclose(found[:, 0], (up - down) / 2e-6, rtol=1e-4, atol=1e-5)


def test_densities_of_the_package():
    density = GaussianDensity([[2.0, 0.5], [0.5, 1.0]], mean=[1.0, 0.0])
    assert_gradient_of(density.log_density, density, normal(9, 2))


def test_estimators_of_the_package():
    X = pd.DataFrame(normal(60, 2) * 3, columns=["a", "b"])
    model = HybridCDDensity(
        base="gaussian",
        max_iter=3,
        energy=MLP(hidden_sizes=(8,)),
        log_partition=ImportanceSampling(n_samples=256, max_samples=256),
        validation_fraction=0,
        random_state=0,
    ).fit(X)
    np.testing.assert_array_equal(evaluate_score(model, X)[1], model.score_function(X))


@pytest.mark.parametrize(
    ("score", "error", "fragments"),
    [
        (IsolationForest(), TypeError, ["score", "callable", "IsolationForest()"]),
        (GaussianDensity, TypeError, ["score", "class"]),
        (torch.nn.Linear(2, 2), TypeError, ["score", "Linear"]),
        (None, TypeError, ["score", "None"]),
        (GaussianMixture(), NotFittedError, ["GaussianMixture"]),
        (make_pipeline(PCA(), GaussianMixture()), TypeError, ["score", "PCA"]),
        (make_pipeline(MinMaxScaler(clip=True), GaussianMixture()), TypeError, ["MinMaxScaler"]),
        (np.sum, ValueError, ["score", "(20, 2)", "()"]),
        (np.ravel, ValueError, ["score", "(20, 2)", "(40,)"]),
        (np.log, ValueError, ["score", "finite", "of 40"]),
        (np.zeros((20, 2)), TypeError, ["score", "got ndarray of shape (20, 2)", "model first"]),
        (lambda x: -x + 0j, TypeError, ["score", "real", "complex128"]),
        (GaussianMixture, TypeError, ["the class GaussianMixture", "Instantiate and fit it"]),
    ],
    ids=[
        "forest",
        "class",
        "module",
        "none",
        "unfitted",
        "pca",
        "clip",
        "sum",
        "ravel",
        "nan",
        "array",
        "complex",
        "mixture class",
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_bad_scores(score, error, fragments):
    with pytest.raises(error) as caught:
        learned_stein_discrepancy(score, normal(20, 2))
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.mark.parametrize(
    ("params", "error", "fragments"),
    [
        ({"l2": 0}, ValueError, ["l2", "> 0", "0"]),
        ({"critic": (300, 300)}, TypeError, ["critic", "(300, 300)"]),
        ({"trace": "hutchinson"}, ValueError, ["trace", "'rademacher'", "'hutchinson'"]),
        ({"max_iter": 0}, ValueError, ["max_iter", ">= 1", "0"]),
        ({"batch_size": 1}, ValueError, ["batch_size", ">= 2", "1"]),
        ({"learning_rate": -1.0}, ValueError, ["learning_rate", "-1.0"]),
        ({"weight_decay": "no"}, TypeError, ["weight_decay", "'no'"]),
        ({"split": 0.8}, TypeError, ["split", "three", "0.8"]),
        ({"split": (0.8, 0.1, 0.2)}, ValueError, ["split", "sum to 1"]),
        ({"split": (0.9, 0.1, 0.0)}, ValueError, ["split", "> 0"]),
        ({"split": (0.9, 0.05, 0.05)}, ValueError, ["at least 36 rows", "20"]),
        ({"X": normal(9, 2)}, ValueError, ["at least 18 rows", "2 in each part", "got 9"]),
        ({"X": np.ones((20, 2))}, ValueError, ["X", "differ", "20 equal"]),
        ({"eval_every": 0}, ValueError, ["eval_every", "0"]),
        ({"n_iter_no_change": 0}, ValueError, ["n_iter_no_change", "0"]),
        ({"standardize": "yes"}, ValueError, ["standardize", "'yes'"]),
        ({"device": "abacus"}, ValueError, ["device", "'abacus'"]),
    ],
    ids=str,
)
def test_bad_parameters(params, error, fragments):
    with pytest.raises(error) as caught:
        learned_stein_discrepancy(lambda x: -x, **{"X": normal(20, 2), **params})
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.1, 0.4), (0.01, 0.98, 0.01)], ids=str)
def test_the_rows_that_a_message_asks_for_are_enough(shares):
    needed = _training._rows_needed(5, shares)
    assert min(len(part) for part in _training._split(needed, shares, gen(0))) >= 2
    with pytest.raises(ValueError, match=f"at least {needed} rows"):
        _training._split(5, shares, gen(0))


def test_tiny_shares_do_not_hang():
    with pytest.raises(ValueError, match="must have at least"):
        _training._split(5, (1 - 2e-7, 1e-7, 1e-7), gen(0))


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame], ids=["array", "frame"])
def test_scores_that_write_into_their_argument_leave_the_table(kind):
    X = normal(20, 2)
    table = kind(X.copy())

    def negative(x):
        x *= -1
        return x

    scaler = StandardScaler(copy=False)
    pipeline = make_pipeline(scaler, GaussianMixture()).fit(normal(50, 2, seed=1) + 3)
    for model, truth in ((negative, -X), (pipeline, evaluate_score(pipeline, X.copy())[1])):
        rows, values = evaluate_score(model, table)
        np.testing.assert_array_equal(rows, X)
        np.testing.assert_array_equal(np.asarray(table), X)
        np.testing.assert_allclose(values, truth)


def test_few_valued_columns_warn():
    X = np.column_stack([normal(100, 1), np.arange(100) % 3, np.ones(100)])
    with pytest.warns(DataDegeneracyWarning, match=r"columns \(1: 2\); .* \(1: 1\)") as seen:
        found = learned_stein_discrepancy(
            lambda x: -x, X, **{**SMALL, "max_iter": 5, "standardize": True}
        )
    assert np.isfinite(found.value) and seen[0].filename == __file__


def test_discrepancies_print_in_one_short_line():
    found = learned_stein_discrepancy(lambda x: -x, normal(100, 2), max_iter=5, **SMALL)
    assert repr(found) == f"LearnedSteinDiscrepancy(value={found.value}, stderr={found.stderr})"


def test_values_too_large_for_single_precision():
    with pytest.raises(ValueError, match="at most 1e\\+15 in standardized units, got"):
        learned_stein_discrepancy(lambda x: 1e20 - x, normal(20, 2))
