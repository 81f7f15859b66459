"""Learned discrepancies: closed forms, selection, units, and every kind of score."""

import pickle
import re

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

from skebm.data import torch_generator
from skebm.datasets import GaussianDensity
from skebm.exceptions import DataDegeneracyWarning
from skebm.networks import Critic
from skebm.stein import CriticSettings, goodness_of_fit_test, learned_stein_discrepancy
from skebm.stein._scores import evaluate_score
from tests import cases
from tests.closed_forms import assert_mean

SMALL = Critic((32, 32), learning_rate=5e-3)


def learned(score, X, network=SMALL, seed=0, standardize=False, **settings):
    critic = CriticSettings(network, **{"batch_size": 256, **settings})
    return learned_stein_discrepancy(
        score, X, critic=critic, standardize=standardize, random_state=seed
    )


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


@pytest.mark.parametrize(
    ("data", "model", "l2", "trace", "off", "error"),
    [
        ([1.0, 1.0], GaussianDensity(np.eye(2), [1.0, -0.5]), 0.5, "exact", 0.1, 0.02),
        ([1.0, 1.0], GaussianDensity(np.eye(2), [1.0, -0.5]), 2.0, "exact", 0.1, 0.02),
        ([1.0, 1.0], GaussianDensity(np.eye(2), [1.0, -0.5]), 0.5, "gaussian", 0.1, 0.1),
        ([1.0, 1.0], GaussianDensity(np.eye(2), [1.0, -0.5]), 0.5, "rademacher", 0.1, 0.1),
        ([1.0, 0.25], GaussianDensity(np.eye(2)), 0.5, "exact", 0.15, 0.1),
    ],
    ids=["shift", "more penalty", "gaussian probes", "signs", "covariance"],
)
def test_critic_and_value_are_those_of_the_difference_of_scores(data, model, l2, trace, off, error):
    """f* = (s_q - s_p) / (2 l2), and the value is E|s_q - s_p|^2 / (2 l2)."""
    density = GaussianDensity(np.diag(data))
    X, fresh = (density.sample(n, random_state=seed) for n, seed in ((8000, 0), (50_000, 1)))
    settings = {"l2": l2, "max_iter": 600, "split": (0.5, 0.1, 0.4)}
    network = SMALL.with_params(trace=trace, learning_rate=3e-3)
    found = learned(model, X, network, **settings)
    optimum = (model.score(fresh) - density.score(fresh)) / (2 * l2)
    norm = np.square(optimum).sum(axis=1).mean()
    assert np.square(found.critic(fresh) - optimum).sum(axis=1).mean() < error * norm
    assert found.value == pytest.approx(2 * l2 * norm, rel=off)


def test_the_right_model_has_no_discrepancy():
    found = learned(lambda x: -x, normal(4000, 3), max_iter=200)
    assert abs(found.value) <= 4 * found.stderr
    assert found.stderr < 0.05


@pytest.mark.parametrize("standardize", [False, True])
def test_stein_values_have_the_mean_of_the_identity(standardize):
    """For any critic the mean Stein value under N(0, I) is E[(s_q - s_p) . f]."""
    mean, X = np.array([0.5, 0.2, 0.0]), 3 + 2 * normal(500, 3)
    critic = learned(shifted(mean), X, standardize=standardize, max_iter=60).critic
    fresh = normal(40_000, 3, seed=1)
    stein = critic.stein_values(shifted(mean), fresh)
    assert_mean(stein - critic(fresh) @ mean, 0.0, 0.2)
    assert_mean(critic.stein_values(shifted(np.zeros(3)), fresh), 0.0, 0.2)


# -- training and selection ------------------------------------------------------------------------


@pytest.mark.parametrize("power", [False, True])
def test_the_best_of_the_history_is_kept_and_each_part_of_the_rows_has_its_use(power):
    X, model = normal(300, 2), shifted([1.0, 0.0])
    if power:
        critic = CriticSettings(SMALL, 0.3, 300, split=(0.7, 0.1, 0.2), n_iter_no_change=None)
        found = goodness_of_fit_test(model, X, critic=critic, standardize=False, random_state=0)
    else:
        found = learned(model, X, l2=0.3, max_iter=300, split=(0.7, 0.1, 0.2))
    order = torch.randperm(300, generator=torch_generator(0)).numpy()
    train, held_out, test = (
        found.critic.stein_values(model, X[part]) for part in np.split(order, [210, 240])
    )
    statistics = [row["statistic"] for row in found.history]
    best = found.history[int(np.argmax(statistics))]
    assert 0 < best["iteration"] < found.history[-1]["iteration"]
    assert best["train"] == pytest.approx(train.mean(), rel=1e-5)
    assert best["validation"] == pytest.approx(held_out.mean(), rel=1e-5)
    assert best["validation_sd"] == pytest.approx(held_out.std(ddof=1), rel=1e-5)
    penalty = 0.3 * np.square(found.critic(X[order[210:240]])).sum(1).mean()
    assert best["penalty"] == pytest.approx(penalty, rel=1e-5)
    for row in found.history:
        mean, sd = row["validation"], row["validation_sd"]
        rule = mean / (sd + 1e-6) if power else mean - row["penalty"]
        assert row["statistic"] == pytest.approx(rule)
    if power:
        assert found.n_test == 60
    else:
        assert found.value == pytest.approx(test.mean(), rel=1e-5)
        assert found.stderr == pytest.approx(test.std(ddof=1) / 60**0.5, rel=1e-5)


@pytest.mark.parametrize(
    "selection, statistic",
    [
        ("penalized", lambda row: row["validation"] - row["penalty"]),
        ("mean-sd", lambda row: row["validation"] - row["validation_sd"]),
        ("power", lambda row: row["validation"] / (row["validation_sd"] + 1e-6)),
    ],
)
def test_the_rule_that_chooses_is_a_setting(selection, statistic):
    found = learned(shifted([1.0, 0.0]), normal(200, 2), SMALL, max_iter=60, selection=selection)
    assert [row["statistic"] for row in found.history] == pytest.approx(
        [statistic(row) for row in found.history]
    )


def test_a_critic_in_few_columns_is_chosen_near_the_best_one():
    """Its Stein values have a mean of 1 / 3 and a deviation of 0.8, so mean - sd wants none."""
    X, wide = normal(2000, 1), lambda x: -x / 0.5
    settings = {"max_iter": 200, "batch_size": 500, "standardize": False}
    value = {
        rule: learned(wide, X, SMALL, selection=rule, **settings).critic.stein_values(
            wide, normal(40_000, 1, seed=1)
        )
        for rule in ("auto", "mean-sd")
    }
    assert value["auto"].mean() == pytest.approx(1.0, abs=0.1)  # (1 / v - 1)^2 / (2 l2)
    assert value["mean-sd"].mean() < 0.3


def test_selection_stops_an_overfitting_critic():
    """Fig. 10 of the paper: 100 rows, d = 10; the mean on training rows passes the bound of 10."""
    model, network = shifted(np.ones(10)), Critic((100, 100), learning_rate=3e-3)
    found = learned(model, normal(100, 10), network, max_iter=100, n_iter_no_change=None)
    best = max(found.history, key=lambda row: row["statistic"])
    assert found.history[-1]["train"] > 12
    assert best["iteration"] < 100 and best["train"] < found.history[-1]["train"]
    values = found.critic.stein_values(model, normal(20_000, 10, seed=1))
    assert 4 < values.mean() < 12  # of the chosen critic, on fresh rows; 10 is the optimum


@pytest.mark.parametrize(
    ("patience", "every", "max_iter", "iterations"),
    [
        (None, 10, 100, list(range(0, 101, 10))),
        (2, 10, 100, [0, 10, 20]),
        (None, 5, 7, [0, 5, 7]),  # the last iteration is assessed
    ],
)
def test_early_stopping_of_a_critic_that_stands_still(patience, every, max_iter, iterations):
    still = Critic((8,), learning_rate=1e-30)
    settings = {"n_iter_no_change": patience, "eval_every": every, "max_iter": max_iter}
    found = learned(lambda x: -x, normal(100, 2), still, **settings)
    assert [row["iteration"] for row in found.history] == iterations


def test_each_setting_acts_and_auto_is_what_it_says():
    """Batches as large as the training rows are all of them; other settings change the critic."""
    X, short = normal(100, 2), {"max_iter": 40, "eval_every": 20, "n_iter_no_change": None}
    plain = {"network": Critic((8,)), **short, "batch_size": None}
    auto = {"weight_decay": 0.0, "split": (0.5, 0.1, 0.4), "selection": "penalized"}

    def trained(**changes):
        return learned(lambda x: 1 - x, X, **{**plain, **changes}).history[-1]["train"]

    for changes in ({"batch_size": 50}, {"network": Critic((8,), learning_rate=1e-3)}, auto):
        assert trained(**changes) == trained()
    for changes in (
        {"batch_size": 20},
        {"weight_decay": 0.1},
        {"l2": 2.0},
        {"network": Critic((8,), learning_rate=1e-2)},
        {"network": Critic((8,), dropout=0.5)},
        {"network": Critic((8,), trace="gaussian")},
        {"network": Critic((8,), weight_clip=0.01)},
        {"seed": 1},
    ):
        assert trained(**changes) != trained(), changes


def test_a_spike_in_the_gradient_is_cut():
    """Scores of one row in 500 are wrong by 1e6; the critic learns from the others nevertheless."""
    X, mean = normal(2000, 2), np.array([1.0, -0.5])
    X[::500, 0] = 9 + 1e-3 * np.arange(4)

    def score(x):
        return np.where(x[:, :1] > 8, 1e6, 1.0) * (mean - x)

    found = learned(score, X, max_iter=300, batch_size=64, n_iter_no_change=None)
    assert np.isfinite(found.value)
    error = found.critic(normal(2000, 2, seed=1)) - mean
    assert np.square(error).sum(axis=1).mean() < 0.1 * mean @ mean


def test_heavy_tails_do_not_destroy_the_critic():
    X = np.random.default_rng(0).standard_t(1.5, size=(500, 2))
    found = learned(lambda x: -x, X, standardize=True, max_iter=50)
    assert np.isfinite(found.value) and np.isfinite(found.critic(X)).all()


# -- units and randomness --------------------------------------------------------------------------


def test_units_do_not_matter():
    X, scale = normal(200, 2), np.array([2.0**-10, 2.0**20])  # powers of two round to the same bits
    model = shifted([1.0, 0])
    first = learned(model, X, standardize=True, max_iter=30)
    moved = learned(lambda x: model(x / scale) / scale, X * scale, standardize=True, max_iter=30)
    assert moved.value == first.value
    np.testing.assert_array_equal(moved.critic(X * scale), first.critic(X) * scale)


def test_seeds_decide_and_global_state_stays():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    a, b, c = (learned(lambda x: -x, normal(100, 2), seed=s, max_iter=20).value for s in (0, 0, 1))
    assert a == b != c
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_results_pickle_and_print_in_one_short_line():
    found = learned(lambda x: -x, normal(100, 2), max_iter=5)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.critic(normal(9, 2)), found.critic(normal(9, 2)))
    assert repr(found) == f"LearnedSteinDiscrepancy(value={found.value}, stderr={found.stderr})"


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


SCALERS = [StandardScaler(), StandardScaler(with_std=False), RobustScaler(), MaxAbsScaler()]


@pytest.mark.parametrize("scaler", [*SCALERS, MinMaxScaler((-1, 3))], ids=str)
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
    model = cases.tiny("HybridCDDensity").fit(X)
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
    ids=lambda value: None,
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_bad_scores(score, error, fragments):
    with pytest.raises(error) as caught:
        learned_stein_discrepancy(score, normal(20, 2))
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.mark.parametrize(
    ("settings", "error", "fragments"),
    [
        ({"l2": 0}, ValueError, ["l2", "> 0", "0"]),
        ({"network": (300, 300)}, TypeError, ["network", "a Critic or 'auto'", "(300, 300)"]),
        ({"network": Critic((9,), trace="all")}, ValueError, ["trace", "'rademacher'", "'all'"]),
        ({"max_iter": 0}, ValueError, ["max_iter", ">= 1", "0"]),
        ({"batch_size": 1}, ValueError, ["batch_size", ">= 2", "1"]),
        ({"weight_decay": "no"}, TypeError, ["weight_decay", "'no'"]),
        ({"split": 0.8}, TypeError, ["split", "three", "0.8"]),
        ({"split": (0.8, 0.1, 0.2)}, ValueError, ["split", "sum to 1"]),
        ({"selection": "best"}, ValueError, ["selection", "'penalized'", "'best'"]),
        ({"split": (0.9, 0.1, 0.0)}, ValueError, ["split", "> 0"]),
        ({"split": (0.9, 0.05, 0.05)}, ValueError, ["at least 36 rows", "20"]),
        ({"eval_every": 0}, ValueError, ["eval_every", "0"]),
        ({"n_iter_no_change": 0}, ValueError, ["n_iter_no_change", "0"]),
        ({"device": "abacus"}, ValueError, ["device", "'abacus'"]),
    ],
    ids=str,
)
def test_bad_settings(settings, error, fragments):
    critic = CriticSettings(**settings)
    with pytest.raises(error) as caught:
        learned_stein_discrepancy(lambda x: -x, normal(20, 2), critic=critic)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.mark.parametrize(
    ("params", "error", "fragments"),
    [
        ({"critic": (300, 300)}, TypeError, ["critic", "a CriticSettings, a Critic", "(300, 300)"]),
        ({"critic": Critic(())}, TypeError, ["hidden_sizes", "nonempty", "()"]),
        ({"standardize": "yes"}, ValueError, ["standardize", "'yes'"]),
        ({"X": normal(9, 2)}, ValueError, ["at least 13 rows", "2 in each part", "got 9"]),
        ({"X": np.ones((20, 2))}, ValueError, ["X", "differ", "20 equal"]),
        ({"score": lambda x: 1e20 - x}, ValueError, ["at most 1e+15 in standardized units, got"]),
    ],
    ids=["tuple", "no layers", "standardize", "few rows", "equal rows", "far"],
)
def test_bad_arguments(params, error, fragments):
    with pytest.raises(error) as caught:
        learned_stein_discrepancy(**{"score": lambda x: -x, "X": normal(20, 2), **params})
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.1, 0.4), (0.01, 0.98, 0.01)], ids=str)
def test_the_rows_that_a_message_asks_for_are_enough(shares):
    with pytest.raises(ValueError, match="X must have at least") as caught:
        learned(lambda x: -x, normal(5, 2), split=shares)
    needed = int(re.search(r"at least (\d+) rows", str(caught.value))[1])
    assert np.isfinite(learned(lambda x: -x, normal(needed, 2), split=shares, max_iter=1).value)


def test_tiny_shares_do_not_hang():
    with pytest.raises(ValueError, match="must have at least"):
        learned(lambda x: -x, normal(5, 2), split=(1 - 2e-7, 1e-7, 1e-7))


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
    with pytest.warns(
        DataDegeneracyWarning, match=r"columns \(1: column 2\); .* \(1: column 1\)"
    ) as seen:
        found = learned_stein_discrepancy(lambda x: -x, X, critic=CriticSettings(max_iter=5))
    assert np.isfinite(found.value) and seen[0].filename == __file__
