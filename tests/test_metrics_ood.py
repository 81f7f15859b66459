"""The metrics against their definitions, threshold by threshold; intervals against closed forms."""

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from skebm.metrics import ood, ood_metrics
from tests.closed_forms import assert_estimate


def brute_force(score_in, score_out):
    score_in, score_out = np.asarray(score_in, float), np.asarray(score_out, float)
    thresholds = np.unique(np.concatenate([score_in, score_out, [np.inf]]))[::-1]
    tpr = np.array([np.mean(score_in >= t) for t in thresholds])
    fpr = np.array([np.mean(score_out >= t) for t in thresholds])
    difference = score_in[:, None] - score_out
    return {
        "auroc": np.mean((difference > 0) + 0.5 * (difference == 0)),
        "aupr_in": average_precision(score_in, score_out),
        "aupr_out": average_precision(-score_out, -score_in),
        "fpr95": min(f for t, f in zip(tpr, fpr, strict=True) if t >= 0.95),
        "fpr80": min(f for t, f in zip(tpr, fpr, strict=True) if t >= 0.80),
        "detection_error": min(0.5 * (1 - tpr) + 0.5 * fpr),
    }


def average_precision(positive, negative):
    total = previous = 0.0
    for t in np.unique(positive)[::-1]:
        n_hits = np.sum(positive >= t)
        recall = n_hits / len(positive)
        total += (recall - previous) * n_hits / (n_hits + np.sum(negative >= t))
        previous = recall
    return total


@pytest.mark.parametrize("n_in, n_out, n_values", [(20, 20, 4), (40, 7, 1000), (5, 60, 10)])
def test_metrics_equal_their_definitions(n_in, n_out, n_values):
    for seed in range(5):
        rng = np.random.RandomState(seed)
        score_in = rng.randint(n_values, size=n_in) + n_values // 4  # few values: many ties
        score_out = rng.randint(n_values, size=n_out)
        assert ood_metrics(score_in, score_out) == pytest.approx(
            brute_force(score_in, score_out), abs=1e-12
        )


def test_areas_are_those_of_scikit_learn():
    rng = np.random.RandomState(0)
    score, is_in = rng.randn(5000).round(1), rng.uniform(size=5000) < 0.3
    metrics = ood_metrics(score[is_in], score[~is_in])
    assert metrics["auroc"] == pytest.approx(roc_auc_score(is_in, score), abs=1e-14)
    ap_in, ap_out = (average_precision_score(is_in == k, (2 * k - 1) * score) for k in (1, 0))
    assert metrics["aupr_in"] == pytest.approx(ap_in, abs=1e-14)
    assert metrics["aupr_out"] == pytest.approx(ap_out, abs=1e-14)


def test_perfect_and_reversed_separation():
    good = ood_metrics([3.0, 4.0], [1.0, 2.0])
    assert good == {
        "auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0, "fpr80": 0, "detection_error": 0,
    }  # fmt: skip
    bad = ood_metrics([1.0, 2.0], [3.0, 4.0])
    assert (bad["auroc"], bad["fpr95"], bad["detection_error"]) == (0, 1, 0.5)


def test_constant_scores_are_worth_nothing():
    metrics = ood_metrics(np.zeros(30), np.zeros(10))
    assert metrics == {
        "auroc": 0.5, "aupr_in": 0.75, "aupr_out": 0.25,
        "fpr95": 1, "fpr80": 1, "detection_error": 0.5,
    }  # fmt: skip


def test_fpr_counts_a_share_that_is_met_exactly():
    score_in = np.arange(20.0)  # 19 of 20 score 1 or more: exactly 95 %
    assert ood_metrics(score_in, [0.5, 0.5, 1.5, 30.0])["fpr95"] == 0.5
    assert ood_metrics(score_in, [3.5, 4.5])["fpr80"] == 0.5
    assert ood_metrics(score_in, score_in)["fpr95"] == 0.95  # the curve is a straight line


def test_metrics_do_not_change_under_an_increasing_map():
    rng = np.random.RandomState(0)
    score_in, score_out = rng.randn(30) + 1, rng.randn(30)
    assert ood_metrics(score_in, score_out) == ood_metrics(np.exp(score_in), np.exp(score_out))
    assert all(type(value) is float for value in ood_metrics(score_in, score_out).values())


@pytest.mark.parametrize(
    "score_in, score_out, message",
    [
        ([], [1.0], r"score_in must .* not empty, got shape \(0,\)"),
        ([1.0], [[1.0]], r"score_out must be one-dimensional .*\(1, 1\)"),
        ([1.0, np.nan, np.nan], [1.0], r"score_in must be finite, got 2 of 3 .*2 NaN"),
        ([1.0], [np.inf, np.nan, 0.0], r"score_out must be finite, got 2 of 3 .*1 NaN"),
    ],
)
def test_bad_scores_are_named(score_in, score_out, message):
    with pytest.raises(ValueError, match=message):
        ood_metrics(score_in, score_out)


# -- intervals -------------------------------------------------------------------------------------


def intervals(score_in, score_out, n_bootstrap, **settings):
    metrics = ood_metrics(score_in, score_out, n_bootstrap=n_bootstrap, **settings)
    return {name: metrics[f"{name}_interval"] for name in ood_metrics(score_in, score_out)}


def test_intervals_stand_beside_the_metrics():
    rng = np.random.RandomState(0)
    score_in, score_out = rng.randn(30) + 1, rng.randn(20)
    plain = ood_metrics(score_in, score_out)
    metrics = ood_metrics(score_in, score_out, n_bootstrap=50, random_state=0)
    assert list(metrics) == [*plain, *(f"{name}_interval" for name in plain)]
    assert {name: metrics[name] for name in plain} == plain
    for name in plain:
        low, high = metrics[f"{name}_interval"]
        assert type(low) is type(high) is float and 0 <= low < high <= 1


def test_intervals_repeat_and_leave_the_global_generator_alone():
    scores = np.random.RandomState(0).randn(2, 30)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = intervals(*scores, 20, random_state=7)
    assert first == intervals(*scores, 20, random_state=np.random.RandomState(7))
    assert first != intervals(*scores, 20, random_state=8)
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("confidence, n, k", [(0.5, 40, 16), (0.8, 40, 16), (0.98, 36, 7)])
def test_ends_are_quantiles_of_a_binomial(confidence, n, k):
    # k of n OOD rows outscore the only value in distribution
    score_out = np.repeat([1.0, -1.0], [k, n - k])
    found = intervals(np.zeros(40), score_out, 20_000, confidence=confidence, random_state=0)
    ends = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    counts = binom.ppf(ends, n, k / n)
    for end, count in zip(ends, counts, strict=True):  # 20,000 resamples know their quantile
        stderr = np.sqrt(end * (1 - end) / 20_000)
        assert binom.cdf(count - 1, n, k / n) < end - 4 * stderr
        assert binom.cdf(count, n, k / n) > end + 4 * stderr
    assert found["fpr95"] == found["fpr80"] == pytest.approx(tuple(counts / n))
    assert found["auroc"] == pytest.approx(tuple(1 - counts[::-1] / n))
    assert found["detection_error"] == pytest.approx(tuple(counts / n / 2))


@pytest.mark.parametrize("n_in, n_out", [(300, 300), (400, 60)])
def test_width_is_that_of_resampling_both_sides(n_in, n_out):
    rng = np.random.RandomState(1)
    score_in, score_out = (rng.randn(n_in) + 1).round(1), rng.randn(n_out).round(1)
    difference = score_in[:, None] - score_out
    wins = (difference > 0) + 0.5 * (difference == 0)  # the bootstrap's own population
    rows, columns = wins.mean(axis=1).var(), wins.mean(axis=0).var()
    variance = (wins.var() + (n_out - 1) * rows + (n_in - 1) * columns) / (n_in * n_out)
    n, end = 8000, 0.1  # the interval is from the 10 % to the 90 % quantile
    low, high = intervals(score_in, score_out, n, confidence=0.8, random_state=0)["auroc"]
    density = norm.pdf(norm.ppf(end))
    both = 2 * (end * (1 - end) - end**2) / n / density**2  # of the difference of two quantiles
    truth = 2 * norm.ppf(1 - end)
    assert_estimate((high - low) / np.sqrt(variance), np.sqrt(both), truth, largest_stderr=0.03)


def test_the_resamples_have_the_metrics_that_their_rows_have(monkeypatch):
    score_in, score_out = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.0, 2.0, 1.0])
    found = intervals(score_in, score_out, 7, confidence=0.999, random_state=0)
    rng, resamples = np.random.RandomState(0), []
    rows_in, rows_out = rng.randint(4, size=(7, 4)), rng.randint(3, size=(7, 3))
    for i, j in zip(rows_in, rows_out, strict=True):
        resamples.append(brute_force(score_in[i], score_out[j]))
    for name, ends in found.items():
        values = [metrics[name] for metrics in resamples]
        assert ends == pytest.approx(tuple(np.quantile(values, [0.0005, 0.9995])), abs=1e-12)
    monkeypatch.setattr(ood, "BLOCK_VALUES", 21)  # blocks of three, three and one
    rng, values = np.random.RandomState(0), []
    for b in (3, 3, 1):
        rows_in, rows_out = rng.randint(4, size=(b, 4)), rng.randint(3, size=(b, 3))
        for i, j in zip(rows_in, rows_out, strict=True):
            values.append(brute_force(score_in[i], score_out[j])["auroc"])
    ends = intervals(score_in, score_out, 7, confidence=0.999, random_state=0)["auroc"]
    assert ends == pytest.approx(tuple(np.quantile(values, [0.0005, 0.9995])), abs=1e-12)


def test_intervals_cover_the_truth():
    # 95 % is nominal; over 4,000 repetitions with 50 + 50 scores auroc was covered in 93.8 %,
    # fpr80 in 96.1 %, so both are expected within four standard errors of 95 % here
    truths = {"auroc": norm.cdf(0.5**0.5), "fpr80": norm.cdf(-1 - norm.ppf(0.2))}
    hits = dict.fromkeys(truths, 0)
    for seed in range(600):
        rng = np.random.RandomState(seed)
        found = intervals(rng.randn(60) + 1, rng.randn(60), 300, random_state=rng)
        for name, truth in truths.items():
            low, high = found[name]
            hits[name] += low <= truth <= high
    for n_hits in hits.values():
        assert_estimate(n_hits / 600, np.sqrt(0.95 * 0.05 / 600), 0.95, largest_stderr=0.009)


def test_perfect_separation_has_no_width():
    found = intervals([3.0, 4.0, 5.0], [1.0, 2.0], 100, random_state=0)
    assert found["auroc"] == found["aupr_in"] == found["aupr_out"] == (1, 1)
    assert found["fpr95"] == found["fpr80"] == found["detection_error"] == (0, 0)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"n_bootstrap": -1}, ValueError, "n_bootstrap must be an integer >= 0, got -1"),
        ({"n_bootstrap": 99.5}, TypeError, "n_bootstrap must be an integer >= 0, got 99.5"),
        ({"n_bootstrap": True}, TypeError, "n_bootstrap must be an integer >= 0, got True"),
        ({"confidence": 0}, ValueError, "confidence must be a number > 0 and <= 0.999, got 0"),
        ({"confidence": 95}, ValueError, "confidence must be .*<= 0.999, got 95. Write 95 % as"),
        ({"confidence": np.nan}, ValueError, "confidence must be .*got nan"),
        ({"confidence": "95%"}, TypeError, "confidence must be a number .*got '95%'"),
        (
            {"n_bootstrap": 5, "random_state": "a"},
            ValueError,
            "random_state .*got 'a'",
        ),
    ],
    ids=["negative", "fraction", "flag", "zero", "percent", "nan", "text", "seed"],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        ood_metrics([1.0, 2.0], [0.0, 1.0], **settings)
