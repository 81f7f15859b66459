"""Tests, comparisons and the scorer: levels, formulas by hand, power, and what they cannot see."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2, kstest, norm
from scipy.stats import t as student
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm.data import torch_generator
from skebm.datasets import GaussianDensity, GaussianMixtureDensity
from skebm.exceptions import DataDegeneracyWarning
from skebm.networks import Critic
from skebm.stein import (
    CriticSettings,
    _procedures,
    compare_models,
    goodness_of_fit_test,
    kernel,
    kernelized_stein_discrepancy,
    learned_stein_discrepancy,
    stein_score,
)
from skebm.stein._scores import evaluate_score, shuffled, standardized
from skebm.stein.fssd import finite_set_terms
from tests.closed_forms import assert_estimate
from tests.generators import gen

METHODS = ["lsd", "ksd", "lksd", "fssd"]
QUICK = CriticSettings(Critic((8,), learning_rate=1e-2), max_iter=10, eval_every=10)


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def right(x):
    return -x


def off(x):
    return 0.5 - x


def quick(score, X, method, seed=0, critic=QUICK, **options):
    return goodness_of_fit_test(
        score, X, method=method, critic=critic, random_state=seed, **options
    )


# -- level, power and sign -------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "repeats"), [("lsd", 100), ("ksd", 200), ("lksd", 200)])
def test_p_values_are_uniform_where_the_model_is_right(method, repeats):
    options = {} if method == "lsd" else {"n_draws": 300}
    assert_uniform(
        [quick(right, normal(150, 2, i), method, i, **options).pvalue for i in range(repeats)]
    )


def test_p_values_of_fixed_locations_are_uniform_where_the_model_is_right(monkeypatch):
    fixed = np.array([[0.0, 0.3], [1.0, -1.0]]), 1.2
    monkeypatch.setattr(_procedures, "optimize_locations", lambda *args: fixed)
    assert_uniform(
        [quick(right, normal(200, 2, i), "fssd", i, n_draws=300).pvalue for i in range(200)]
    )


def assert_uniform(pvalues):
    assert kstest(pvalues, "uniform").pvalue > 1e-4
    rejected, stderr = np.mean(np.array(pvalues) <= 0.05), math.sqrt(0.05 * 0.95 / len(pvalues))
    assert_estimate(rejected, stderr, 0.05, 0.022)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("score", [off, lambda x: -2 * x], ids=["mean", "variance"])
def test_wrong_models_are_rejected(method, score):
    result = quick(score, normal(2000, 2), method, critic=QUICK.with_params(max_iter=100))
    assert result.reject and result.pvalue < 0.02 and result.statistic > 2


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.06])
def test_restricted_boltzmann_machines(sigma):
    """Hidden units in {-1, 1}, d = 50, perturbed weights: Fig. 5 of the paper by default."""
    rng = np.random.default_rng(3)
    B, b, c = rng.choice([-1.0, 1.0], (50, 40)), rng.normal(size=50), rng.normal(size=40)
    X = rng.normal(size=(1000, 50))
    for _ in range(300):
        h = np.where(rng.random((1000, 40)) < 1 / (1 + np.exp(-X @ B - 2 * c)), 1.0, -1.0)
        X = h @ B.T / 2 + b + rng.normal(size=X.shape)
    W = B + sigma * rng.normal(size=B.shape)
    result = goodness_of_fit_test(
        lambda x: b - x + 0.5 * np.tanh(0.5 * x @ W + c) @ W.T, X, random_state=0
    )
    assert result.reject == (sigma > 0)
    assert sigma == 0 or result.statistic > 8


def test_no_test_sees_the_weights_of_separated_modes():
    """Two modes 16 standard deviations apart, 0.8 of the rows in one; the model says 0.2."""
    means, scales = np.array([[-8.0], [8.0]]), np.ones(2)
    X = GaussianMixtureDensity(means, scales, [0.8, 0.2]).sample(1000, random_state=0)
    wrong = GaussianMixtureDensity(means, scales, [0.2, 0.8])
    for method in METHODS:
        assert quick(wrong, X, method).pvalue > 0.001
    weights = [np.mean(X < 0), 0.8]
    assert np.ptp(weights) < 0.05  # the rows do have other weights than the model


@pytest.mark.parametrize("bandwidth", ["median", "optimized"])
@pytest.mark.parametrize("method", ["ksd", "lksd"])
def test_sorted_rows_of_the_right_model_pass(method, bandwidth):
    options = {"bandwidth": bandwidth, "n_draws": 200}
    pvalues = [
        quick(right, np.sort(normal(500, 1, i), 0), method, i, **options).pvalue for i in range(30)
    ]
    assert kstest(pvalues, "uniform").pvalue > 1e-4
    assert np.sum(np.array(pvalues) <= 0.05) <= 8  # 1.5 expected; more than 8 has a chance of 1e-5


def test_few_test_rows_warn_and_have_the_law_of_t():
    with pytest.warns(UserWarning, match="has 8 test rows; below 50.*method='ksd'"):
        result = quick(off, normal(20, 2), "lsd")
    assert result.n_test == 8
    assert result.pvalue == pytest.approx(student.sf(result.statistic, 7))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("column", [np.full(150, 3.0), np.arange(150) % 2], ids=["one", "two"])
def test_columns_that_are_not_continuous_warn(method, column):
    X = pd.DataFrame({"good": normal(150, 1)[:, 0], "flat": column})
    with pytest.warns(DataDegeneracyWarning, match=r"X must come .* columns.* \(1: flat\)") as seen:
        result = quick(right, X, method)
    assert len(seen) == 1 and seen[0].filename == __file__
    assert np.isfinite([result.statistic, result.pvalue]).all()


def test_comparisons_warn_once_of_such_columns():
    X = np.column_stack([normal(60, 2), np.ones(60)])
    with pytest.warns(DataDegeneracyWarning, match=r"constant columns \(1: column 2\)") as seen:
        found = compare_models([right, off], X, method="ksd")
    assert len(seen) == 1 and seen[0].filename == __file__
    assert np.isfinite(list(found.value.values())).all()


def test_a_kernel_that_sees_no_pair_does_not_divide_by_zero():
    result = quick(right, normal(40, 2), "lksd", bandwidth=1e-6)
    assert result.statistic == 0 and not result.reject


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide_and_results_print_in_one_short_line(method):
    X = normal(150, 2)
    a, b = (quick(off, X, method, seed=3) for _ in range(2))
    assert (a.statistic, a.pvalue, a.bandwidth) == (b.statistic, b.pvalue, b.bandwidth)
    text = repr(a)
    assert text.startswith("GoodnessOfFit(statistic=") and f"method={method!r}" in text
    assert len(text) < 250 and not any(
        word in text for word in ("critic", "history", "locations", "array")
    )


# -- formulas by hand ------------------------------------------------------------------------------


def test_the_learned_statistic_and_its_p_value():
    X = normal(300, 2)
    result = quick(off, X, "lsd")
    test = torch.randperm(300, generator=torch_generator(0)).numpy()[180:]
    values = result.critic.stein_values(off, X[test])
    t = math.sqrt(120) * values.mean() / values.std(ddof=1)
    assert result.n_test == 120
    assert result.statistic == pytest.approx(t, rel=1e-3)
    assert result.pvalue == pytest.approx(student.sf(t, 119), rel=1e-3)
    assert result.reject == (result.pvalue <= 0.05)


def test_auto_settings_of_a_test_are_its_own():
    X, short = normal(200, 2), CriticSettings(max_iter=3, eval_every=1)
    own = {"weight_decay": 5e-4, "split": (0.5, 0.1, 0.4), "network": Critic(dropout=0.5)}
    own["selection"] = "power"
    found = quick(off, X, "lsd", critic=short)
    assert quick(off, X, "lsd", critic=short.with_params(**own)).statistic == found.statistic
    for name, other in (("weight_decay", 0.0), ("network", Critic()), ("split", (0.6, 0.1, 0.3))):
        changed = short.with_params(**{**own, name: other})
        assert quick(off, X, "lsd", critic=changed).statistic != found.statistic, name
    still = CriticSettings(Critic((4,), learning_rate=1e-30), eval_every=1)
    assert len(quick(off, X, "lsd", critic=still).history) == 1 + 3


def test_signs_give_nearly_the_normal_p_value():
    critic, X = QUICK.with_params(split=(0.1, 0.1, 0.8)), normal(2000, 2)
    by_law = quick(right, X, "lsd", 1, critic)
    by_signs = quick(right, X, "lsd", 1, critic, n_draws=20_000)
    p = by_law.pvalue
    assert by_signs.statistic == by_law.statistic and by_signs.pvalue != p
    assert abs(by_signs.pvalue - p) < 4 * math.sqrt(p * (1 - p) / 20_000) + 0.01


def test_signs_are_fair_and_independent():
    signs = _procedures._signs(200, 500, gen(0))
    assert signs.shape == (200, 500) and set(np.unique(signs)) == {-1, 1}
    assert_estimate(signs.mean(), 1 / math.sqrt(1e5), 0.0, 0.004)
    products = signs[:, :-1] * signs[:, 1:]
    assert_estimate(products.mean(), 1 / math.sqrt(products.size), 0.0, 0.004)


@pytest.mark.parametrize("entries", [1 << 21, 300])
def test_the_wild_bootstrap_block_by_block(monkeypatch, entries):
    monkeypatch.setattr(kernel, "ENTRIES", entries)
    X, rng = normal(40, 2), torch_generator(0)
    rows = standardized(*shuffled(evaluate_score(off, X), rng), True)
    width = kernel.choose_bandwidth(rows, "median")
    h = kernel.SteinKernel(rows, width).block(slice(None), slice(None))
    signs = _procedures._signs(40, 99, rng)
    draws = [w @ h @ w / 40 for w in signs.T]
    statistic = h.sum() / 40
    result = quick(off, X, "ksd", n_draws=99)
    assert result.statistic == pytest.approx(statistic)
    assert result.pvalue == (1 + np.sum(np.array(draws) >= statistic)) / 100


def test_the_linear_statistic():
    X = normal(41, 2)
    rows = standardized(*shuffled(evaluate_score(off, X), torch_generator(0)), True)
    width = kernel.choose_bandwidth(rows, "median")
    h = kernel.SteinKernel(rows, width).block(slice(None), slice(None))
    terms = np.array([h[i, i + 20] for i in range(20)])
    t = math.sqrt(20) * terms.mean() / math.sqrt(np.mean(terms**2))
    result = quick(off, X, "lksd")
    assert (result.n_test, result.bandwidth) == (40, width)
    assert result.statistic == pytest.approx(t)
    assert result.pvalue == pytest.approx(norm.sf(t))


def test_the_null_of_one_location_is_a_shifted_chi_square(monkeypatch):
    monkeypatch.setattr(_procedures, "N_LOCATIONS", 1)
    X = normal(100, 1)
    result = quick(right, X, "fssd", n_draws=40_000)
    test = torch.randperm(100, generator=torch_generator(0)).numpy()
    rows = standardized(*evaluate_score(right, X), True, reference=test[:20])
    rows = rows._replace(x=rows.x[test[20:]], score=rows.score[test[20:]])
    v = (result.locations - rows.standardizer.location) / rows.standardizer.scale
    terms, moments = finite_set_terms(rows, v, result.bandwidth)
    truth = chi2.sf(result.statistic / moments.item() + 1, 1)
    assert result.n_test == 80
    assert result.statistic == pytest.approx(80 * terms.mean())
    assert_estimate(result.pvalue, math.sqrt(truth * (1 - truth) / 40_000), truth, 0.0026)


def test_locations_are_in_the_units_of_the_rows():
    X = 1000 + 5 * normal(400, 2)
    locations = quick(lambda x: (1000 - x) / 25, X, "fssd").locations
    assert locations.shape == (5, 2)
    assert (np.abs(locations - 1000) < 5 * 5).all()


@pytest.mark.parametrize("method", ["ksd", "lksd"])
def test_an_optimized_width_is_chosen_on_other_rows(method):
    X = normal(200, 2)
    result = quick(off, X, method, bandwidth="optimized")
    table = shuffled(evaluate_score(off, X), torch_generator(0))
    rows = standardized(*table, True, reference=np.arange(40))
    chosen = rows._replace(x=rows.x[:40], score=rows.score[:40])
    assert result.bandwidth == kernel.choose_bandwidth(chosen, "optimized", method == "lksd")
    assert result.n_test == 160


@pytest.mark.parametrize("method", METHODS)
def test_units_do_not_matter(method):
    X, scale = normal(150, 2), np.array([2.0**-9, 2.0**12])
    first = quick(off, X, method)
    moved = quick(lambda x: off(x / scale) / scale, X * scale, method)
    assert moved.pvalue == pytest.approx(first.pvalue, rel=1e-6)
    assert moved.statistic == pytest.approx(first.statistic, rel=1e-6)


@pytest.mark.parametrize(
    ("params", "error", "fragments"),
    [
        ({"method": "mmd"}, ValueError, ["method", "'lsd', 'ksd', 'lksd', 'fssd'", "'mmd'"]),
        ({"alpha": 0}, ValueError, ["alpha", "> 0", "0"]),
        ({"alpha": 1.5}, ValueError, ["alpha", "< 1", "1.5"]),
        ({"alpha": 1.0}, ValueError, ["alpha", "> 0 and < 1", "1.0"]),
        ({"alpha": "low"}, TypeError, ["alpha", "'low'"]),
        ({"method": "ksd", "n_draws": 18}, ValueError, ["n_draws", ">= 19", "0.05", "18"]),
        ({"method": "fssd", "n_draws": 10}, ValueError, ["n_draws", ">= 19", "10"]),
        ({"n_draws": 1000, "alpha": 1e-4}, ValueError, ["n_draws", ">= 9999", "1000"]),
        ({"method": "ksd", "alpha": 1e-4}, ValueError, ["n_draws", ">= 9999", "1000"]),
        ({"method": "ksd", "X": np.ones((9, 2))}, ValueError, ["X", "differ", "9 equal"]),
        ({"n_draws": 0}, ValueError, ["n_draws", ">= 1", "0"]),
        ({"method": "ksd", "bandwidth": 0}, ValueError, ["bandwidth", "> 0", "0"]),
        ({"critic": "mlp", "method": "ksd"}, TypeError, ["critic", "'mlp'"]),
        ({"method": "fssd", "X": normal(7, 2)}, ValueError, ["8 rows", "7"]),
    ],
    ids=str,
)
def test_bad_calls(params, error, fragments):
    with pytest.raises(error) as caught:
        goodness_of_fit_test(right, **{"X": normal(40, 2), **params})
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


def test_the_fewest_draws_that_can_reject_are_enough():
    found = quick(off, normal(200, 2), "ksd", n_draws=19)
    assert found.pvalue == 0.05 and found.reject
    assert quick(off, normal(40, 2), "lksd", n_draws=None, alpha=1e-9).pvalue > 0  # draws nothing


@pytest.mark.parametrize(
    "model",
    [right, GaussianMixture(), GaussianDensity(np.eye(2)), make_pipeline(GaussianMixture())],
    ids=["function", "mixture", "density", "pipeline"],
)
def test_rows_and_model_the_other_way_round(model):
    with pytest.raises(TypeError, match=r"X must be a table .* got .*Give the model first"):
        goodness_of_fit_test(normal(40, 2), model)


# -- comparisons -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lsd", "ksd", "lksd"])
def test_models_are_ranked_by_their_distance(method):
    models = {f"mean {m}": GaussianDensity(np.eye(2), [m, 0]) for m in (1.0, 0.0, 2.0)}
    critic = CriticSettings(Critic((16, 16), learning_rate=5e-3), max_iter=150)
    result = compare_models(models, normal(1500, 2), method=method, critic=critic, random_state=0)
    assert result.ranking == ["mean 0.0", "mean 1.0", "mean 2.0"]
    assert result.value["mean 0.0"] < result.value["mean 1.0"] < result.value["mean 2.0"]
    assert result.pvalue["mean 0.0"] == 1 and result.difference_stderr["mean 0.0"] == 0
    assert max(result.pvalue["mean 1.0"], result.pvalue["mean 2.0"]) < 1e-3
    assert result.method == method


def test_comparison_values_are_those_of_the_single_functions():
    X, options = normal(300, 2), {"critic": QUICK, "random_state": 0}
    learned = learned_stein_discrepancy(off, X, **options)
    found = compare_models([right, off], X, **options)
    assert (found.value[1], found.stderr[1]) == pytest.approx((learned.value, learned.stderr))
    order = torch.randperm(300, generator=torch_generator(5)).numpy()  # of the comparison
    same = X[order][np.argsort(np.random.RandomState(0).permutation(300))]
    for method, statistic in (("ksd", "u"), ("lksd", "linear")):
        single = kernelized_stein_discrepancy(off, same, bandwidth="optimized", statistic=statistic)
        found = compare_models([right, off], X, method=method, random_state=5)
        assert (found.value[1], found.stderr[1]) == pytest.approx((single.value, single.stderr))


@pytest.mark.parametrize("method", ["lsd", "ksd", "lksd"])
def test_a_model_does_not_differ_from_itself(method):
    options = {"critic": QUICK, "random_state": 0}
    result = compare_models([off, off], normal(200, 2), method=method, **options)
    assert result.value[0] == result.value[1]
    assert result.difference == {0: 0, 1: 0} and result.pvalue == {0: 1, 1: 1}


def test_the_pairs_of_a_comparison_are_not_neighbors():
    """Of N(0, 1) and the model N(0, 4): pairs of sorted rows are never near, so h is another."""
    X = np.sort(normal(4000, 1), axis=0)
    found = [
        compare_models([lambda x: -x / 4], rows, method="lksd", bandwidth=1.0, random_state=0)
        for rows in (X, np.random.default_rng(1).permutation(X))
    ]
    spread = math.hypot(found[0].stderr[0], found[1].stderr[0])
    assert_estimate(found[0].value[0] - found[1].value[0], spread, 0.0, 0.03)


def test_differences_are_those_of_paired_terms():
    """Over disjoint pairs of rows the terms are known: h of either model at the same pair."""
    X, models = normal(400, 1), {"a": lambda x: 0.02 - x, "b": lambda x: 0.12 - x}
    options = {"bandwidth": 1.5, "standardize": False}
    found = compare_models(models, X, method="lksd", **options, random_state=0)
    order = torch.randperm(400, generator=torch_generator(0)).numpy()
    x, y = X[order[:200], 0], X[order[200:], 0]
    k, w = np.exp(-0.5 * (x - y) ** 2 / 2.25), 1 / 2.25
    terms = {}
    for name, mean in (("a", 0.02), ("b", 0.12)):
        s, t = mean - x, mean - y
        terms[name] = k * (s * t + w * (s - t) * (x - y) + w - w**2 * (x - y) ** 2)
    first, last = found.ranking
    difference = terms[last] - terms[first]
    assert found.value[first] == pytest.approx(terms[first].mean())
    assert found.difference[last] == pytest.approx(difference.mean())
    assert found.difference_stderr[last] == pytest.approx(difference.std(ddof=1) / math.sqrt(200))


def test_p_values_of_models_that_are_equally_far_are_uniform_on_both_sides():
    """Models N(m, I) and N(-m, I) for rows of N(0, I): symmetric, so a fixed pair of names."""
    z, pvalues = [], []
    for seed in range(150):
        result = compare_models(
            {"left": lambda x: -0.7 - x, "right": lambda x: 0.7 - x},
            normal(200, 2, seed),
            method="ksd",
            bandwidth=1.5,
            standardize=False,
        )
        last = result.ranking[1]
        sign = -1 if last == "left" else 1
        z.append(sign * result.difference[last] / result.difference_stderr[last])
        pvalues.append(result.pvalue[last])
    assert kstest(z, "norm").pvalue > 1e-4
    assert 1 - 4 / math.sqrt(300) < np.std(z) < 1 + 4 / math.sqrt(300)
    np.testing.assert_allclose(pvalues, 2 * norm.sf(np.abs(z)))
    assert max(pvalues) > 0.9


@pytest.mark.parametrize(
    ("models", "params", "error", "fragments"),
    [
        ([], {}, ValueError, ["models", "at least one"]),
        (right, {}, TypeError, ["models", "dict or a list"]),
        ([right], {"method": "fssd"}, ValueError, ["method", "'lsd', 'ksd', 'lksd'", "'fssd'"]),
        ({"a": None}, {"method": "ksd"}, TypeError, ["models['a'] must", "None"]),
        ({"50%": GaussianMixture()}, {}, NotFittedError, ["models['50%'] must be fitted", "fit"]),
        ([right, np.sum], {"method": "ksd"}, ValueError, ["models[1] must return shape"]),
        ({"b": lambda x: 1e20 - x}, {}, ValueError, ["models['b'] and X", "at most 1e+15"]),
        (normal(30, 2), {}, TypeError, ["models", "ndarray of shape (30, 2)"]),
        ([right], {"bandwidth": "best", "method": "ksd"}, ValueError, ["bandwidth", "'best'"]),
    ],
    ids=["none", "function", "fssd", "model", "unfitted", "shape", "huge", "array", "bandwidth"],
)
def test_bad_comparisons(models, params, error, fragments):
    with pytest.raises(error) as caught:
        compare_models(models, normal(20, 2), **params)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


# -- the scorer ------------------------------------------------------------------------------------


def three_modes(n=450, seed=0):
    means = np.array([[-3.0, 0], [3, 0], [0, 4]])
    return GaussianMixtureDensity(means, np.ones(3), np.ones(3) / 3).sample(n, random_state=seed)


def test_grid_search_finds_the_components():
    search = GridSearchCV(
        GaussianMixture(random_state=0),
        {"n_components": [1, 3]},
        scoring=stein_score,
        cv=KFold(3, shuffle=True, random_state=0),
    ).fit(three_modes())
    assert search.best_params_ == {"n_components": 3}
    assert np.diff(search.cv_results_["mean_test_score"]) > 0.2


def test_scores_of_data_frames_and_pipelines():
    X = three_modes()
    model = GaussianMixture(3, random_state=0, tol=1e-8, max_iter=500)
    frame = pd.DataFrame((X - X.mean(0)) / X.std(0), columns=["a", "b"])
    plain = cross_val_score(model, frame, scoring=stein_score)
    pipeline = make_pipeline(StandardScaler(), model)
    scaled = cross_val_score(pipeline, 7 + 100 * frame, scoring=stein_score)
    np.testing.assert_allclose(plain, scaled, rtol=0.01)
    assert plain.shape == (5,) and (plain < 0).all()


def test_larger_is_better_and_nothing_is_random():
    X = three_modes(600)
    good, bad = (GaussianMixture(k, random_state=0).fit(three_modes(seed=1)) for k in (3, 1))
    assert stein_score(good, X) > stein_score(bad, X) + 0.05
    assert stein_score(good, X) == stein_score(good, X)
    found = kernelized_stein_discrepancy(good, X, bandwidth="optimized").value
    assert stein_score(good, X, y=None) == -found
