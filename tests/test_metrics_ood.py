"""The metrics against their definitions, written out threshold by threshold."""

import numpy as np
import pytest

from skebm.metrics import ood_metrics


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
