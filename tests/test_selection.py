"""Scorers in searches, their errors against closed forms, and novelty without labels."""

import copy
import pickle
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import kstest, norm, uniform
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import IsolationForest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skebm.datasets import two_moons
from skebm.exceptions import EnsembleWarning, SelectionWarning
from skebm.inside import is_normalized
from skebm.metrics import NoveltyScorer, best_within_error, log_likelihood_scorer
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
)
from skebm.partition import LogPartition
from skebm.stein import stein_score
from tests import cases
from tests.closed_forms import assert_estimate

CV = KFold(3, shuffle=True, random_state=0)
MOONS = two_moons().sample(450, random_state=0)
PLANE = np.random.RandomState(0).randn(300, 2)


class Scores(BaseEstimator):
    """A 'density' whose scores are the first column of X, with a log Z of known error; NaN: none.

    Its own score is their mean.
    """

    def __init__(self, log_z_error=None):
        self.log_z_error = log_z_error

    def fit(self, X, y=None):
        if self.log_z_error is not None:
            z = LogPartition(0.0, self.log_z_error, 1000.0, "importance")
            self.log_partition_ = None if np.isnan(self.log_z_error) else z
        return self

    def score_samples(self, X):
        return np.asarray(X)[:, 0]

    def score(self, X, y=None):
        return float(self.score_samples(X).mean())


tiny = partial(cases.tiny, "HybridCDDensity")


# -- log likelihood and its errors -----------------------------------------------------------------


def test_the_mean_and_its_errors():
    X = np.random.RandomState(0).randn(50, 1)
    found = log_likelihood_scorer(Scores(0.25).fit(X), X)
    assert found == {
        "score": pytest.approx(X.mean()),
        "stderr": pytest.approx(X.std(ddof=1) / np.sqrt(50)),
        "log_partition_stderr": 0.25,
    }


def test_held_out_log_likelihood_of_the_truth_is_minus_its_entropy():
    truth = GaussianMixture(random_state=0).fit(PLANE)
    truth.means_, truth.precisions_cholesky_ = np.zeros((1, 2)), np.eye(2)[None]
    rows = np.random.RandomState(1).randn(4000, 2)
    found = log_likelihood_scorer(truth, rows)
    assert_estimate(found["score"], found["stderr"], -np.log(2 * np.pi) - 1, 0.017)


def test_the_last_step_of_a_pipeline_has_the_log_z_error():
    inner = make_pipeline(StandardScaler(), tiny())
    pipeline = make_pipeline(StandardScaler(), inner).fit(PLANE)
    z = pipeline[-1][-1].log_partition_
    assert z.stderr > 0
    assert log_likelihood_scorer(pipeline, PLANE)["log_partition_stderr"] == z.stderr
    kernels = make_pipeline(StandardScaler(), KernelDensity()).fit(PLANE)
    assert log_likelihood_scorer(kernels, PLANE)["log_partition_stderr"] == 0


def wrapped(density):
    """What scores by one density, each with it alone inside."""
    return {
        "threshold": ThresholdDetector(density, random_state=0),
        "conformal": ConformalNoveltyDetector(density, random_state=0),
        "frozen": ThresholdDetector(FrozenEstimator(density), prefit=True),
        "search": GridSearchCV(density, {"log_z_error": [density.log_z_error]}, cv=2),
        "pipeline": make_pipeline(StandardScaler(), ThresholdDetector(density, random_state=0)),
        "ensemble of 1": EnsembleDensity(density, n_estimators=1, random_state=0),
    }


WRAPPERS = sorted(wrapped(Scores()))


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_have_the_log_z_error_of_their_density(name):
    wrapper = wrapped(Scores(0.25).fit(PLANE))[name].fit(PLANE)
    assert log_likelihood_scorer(wrapper, PLANE)["log_partition_stderr"] == 0.25


@pytest.mark.parametrize("name", WRAPPERS)
def test_unnormalized_models_are_refused_inside_wrappers(name):
    wrapper = wrapped(Scores(np.nan).fit(PLANE))[name].fit(PLANE)
    assert not is_normalized(wrapper)
    with pytest.raises(ValueError, match="normalized, got Scores with log_partition=None"):
        log_likelihood_scorer(wrapper, PLANE)


@pytest.mark.parametrize("bag", ["ensemble", "folds"])
def test_members_errors_are_averaged_as_independent(bag):
    if bag == "ensemble":
        model = EnsembleDensity(Scores(0.1), n_estimators=4, bootstrap=True, random_state=0)
        with pytest.warns(EnsembleWarning, match="4 that are equal"):  # the scores are the rows
            model.fit(PLANE)
    else:
        model = ConformalNoveltyDetector(Scores(0.1), cv=4, random_state=0).fit(PLANE)
    for member, error in zip(model.estimators_, (0.1, 0.2, 0.3, 0.4), strict=True):
        member.log_partition_ = member.log_partition_._replace(stderr=error)
    found = log_likelihood_scorer(model, PLANE)["log_partition_stderr"]
    assert found == pytest.approx(np.sqrt(0.3) / 4)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
@pytest.mark.parametrize(
    "model",
    [
        LikelihoodRatioDetector(KernelDensity()),
        ScoreNormDetector(KernelDensity()),
        TypicalityDetector(KernelDensity(), n_bootstrap=50),
        IsolationForest(n_estimators=2, random_state=0),
        OneClassSVM(),
        LocalOutlierFactor(novelty=True),
    ],
    ids=["ratio", "norm", "typicality", "forest", "svm", "lof"],
)
def test_scores_that_are_no_log_densities_are_refused(model, inside):
    model = make_pipeline(StandardScaler(), ThresholdDetector(model)) if inside else clone(model)
    model.fit(PLANE)
    kind = type(model[-1].estimator if inside else model).__name__
    with pytest.raises(TypeError, match=rf"got {kind}\. Use scoring=NoveltyScorer\(\)"):
        log_likelihood_scorer(model, PLANE)
    assert 0 <= NoveltyScorer("uniform", 50)(model, PLANE) <= 1


def test_rows_of_density_0_and_single_rows():
    model = KernelDensity(kernel="tophat", bandwidth=0.5).fit(PLANE)
    far = log_likelihood_scorer(model, [[0.0, 0.0], [99.0, 0.0]])
    assert far["score"] == -np.inf and far["stderr"] == np.inf
    one = log_likelihood_scorer(model, [[0.0, 0.0]])
    assert np.isfinite(one["score"]) and one["stderr"] == np.inf


def test_unnormalized_models_are_refused():
    model = tiny(log_partition=None).fit(PLANE)
    with pytest.raises(ValueError, match="normalized, got HybridCDDensity with log_partition=None"):
        log_likelihood_scorer(model, PLANE)


# -- the best candidate, and whether it is ---------------------------------------------------------


def results(scores, log_z=None, rows=None):
    """A table of results from scores (n_candidates, n_splits) and errors of the same shape."""
    scores = np.asarray(scores, dtype=float)
    table = {"mean_test_score": scores.mean(axis=1)}
    metrics = {"score": scores, "log_partition_stderr": log_z, "stderr": rows}
    for name, values in metrics.items():
        if values is not None:
            for k, column in enumerate(np.asarray(values, dtype=float).T):
                table[f"split{k}_test_{name}"] = column
    return table


def numbers(caught):
    """Lead, error, its part over splits and its part from log Z, as the message tells them."""
    words = str(caught[0].message).replace("(", " ").replace(",", " ").split()
    return [float(w) for w in words if w.replace(".", "", 1).replace("e-", "", 1).isdigit()]


def test_a_clear_lead_is_no_warning():
    assert best_within_error(results([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2], [0.0, 0.1, 0.3]])) == 1


def test_the_difference_is_paired():
    """Splits that differ by 10 nats do not hide a difference of 0.1 that is in each of them."""
    hard, lead = np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.1, 0.11, 0.09, 0.1])
    assert best_within_error(results([hard, hard + lead])) == 1


def test_the_message_has_lead_and_errors():
    table = results([[1.0, 2.0], [1.3, 2.1]], [[0.3, 0.4], [0.0, 0.0]])
    with pytest.warns(SelectionWarning, match="for candidate 0; 1 of 1 others") as caught:
        assert best_within_error(table) == 1
    found = [value for value in numbers(caught) if value not in (0, 1)]
    np.testing.assert_allclose(found[:4], [0.2, np.hypot(0.1, 0.25), 0.1, 0.25], rtol=2e-3)


def test_log_z_alone_can_hide_a_difference():
    scores = [[1.0, 1.0, 1.0], [1.2, 1.2, 1.2]]
    assert best_within_error(results(scores, np.full((2, 3), 0.1))) == 1  # 0.2 against 0.08
    with pytest.warns(SelectionWarning, match=r"0\.2 against 0\.245 \(0 over splits, 0\.245 from"):
        assert best_within_error(results(scores, np.full((2, 3), 0.3))) == 1


def test_the_closest_in_error_need_not_be_the_runner_up():
    table = results([[1.0, 1.0], [0.9, 0.9], [0.8, 0.8]], [[0, 0], [0.01, 0.01], [0.5, 0.5]])
    with pytest.warns(SelectionWarning, match="for candidate 2; 1 of 2 others"):
        assert best_within_error(table) == 0


def test_equal_candidates_are_told():
    with pytest.warns(SelectionWarning, match="got 0 against 0"):
        assert best_within_error(results([[1.0, 2.0], [1.0, 2.0]])) == 0


def test_one_split_leans_on_its_rows():
    assert best_within_error(results([[1.0], [2.0]], rows=[[0.3], [0.4]])) == 1
    with pytest.warns(SelectionWarning, match=r"0\.4 against 0\.5 "):
        assert best_within_error(results([[1.0], [1.4]], rows=[[0.3], [0.4]])) == 1


def test_failed_candidates_are_left_out():
    assert best_within_error(results([[np.nan, 1.0], [1.0, 1.0], [-np.inf, 0.0]])) == 1
    assert best_within_error(results([[3.0, 3.0]])) == 0
    with pytest.raises(ValueError, match="finite mean_test_score, got 2 that are not"):
        best_within_error(results([[np.nan, 1.0], [-np.inf, 1.0]]))
    with pytest.raises(ValueError, match=r"have mean_test_score, got \['mean_test_auroc'\]"):
        best_within_error({"mean_test_auroc": np.ones(2)})


def test_false_alarms_and_misses_are_as_rare_as_the_error_says():
    """Equal candidates: a lead of more than one error of 8 paired splits is Student's, 2-sided."""
    rng, quiet = np.random.RandomState(0), 0
    for _ in range(300):
        try:
            best_within_error(results(rng.randn(2, 8)))
        except SelectionWarning:  # the suite turns warnings into errors
            continue
        quiet += 1
    expected = 0.3506  # P(T > 1) on both sides, 7 degrees of freedom
    assert_estimate(quiet / 300, np.sqrt(expected * (1 - expected) / 300), expected, 0.03)


# -- novelties -------------------------------------------------------------------------------------

CORRELATED = np.random.RandomState(1).multivariate_normal([0, 5], [[1, 0.9], [0.9, 1]], 1500)


class Recorder(list):
    """Keeps the tables that it scores."""

    def score_samples(self, X):
        self.append(X)
        return np.zeros(len(X))


def novelties(kind, rows=CORRELATED, n=4000):
    seen = Recorder()
    assert NoveltyScorer(kind, n)(seen, rows) == 0.5
    assert seen[0] is rows
    return seen[1]


def test_permuted_novelties_keep_the_marginals_and_lose_the_dependence():
    found = novelties("permuted")
    assert all(set(found[:, j]) <= set(CORRELATED[:, j]) for j in range(2))
    assert all(kstest(found[:, j], CORRELATED[:, j]).pvalue > 1e-4 for j in range(2))
    assert abs(np.corrcoef(found.T)[0, 1]) < 4 / np.sqrt(4000)


def test_uniform_novelties_fill_the_wider_box():
    found = novelties("uniform")
    low, high = CORRELATED.min(axis=0), CORRELATED.max(axis=0)
    margin = 0.05 * (high - low)
    assert (found > low - margin).all() and (found < high + margin).all()
    assert (found < low).any(axis=0).all() and (found > high).any(axis=0).all()
    law = uniform(low[0] - margin[0], (high - low + 2 * margin)[0])
    assert kstest(found[:, 0], law.cdf).pvalue > 1e-4


def test_jittered_novelties_move_half_of_the_columns_by_their_deviation():
    rows = np.array([[-1.0, -10, -100, 0, 3], [1, 10, 100, 0, 4]])
    step = novelties("jittered", rows)
    near = np.where(np.abs(step - rows[0]) < np.abs(step - rows[1]), rows[0], rows[1])
    moved = (step != near) & (rows.std(axis=0) > 0)
    assert set((step != near)[:, [0, 1, 2, 4]].sum(axis=1)) <= {2, 3}  # column 3 is constant
    share = moved[:, 0].mean()
    assert_estimate(share, np.sqrt(0.24 / 4000), 0.6, 0.01)
    spread = step[:, 1].var()  # rows at -10 and 10, noise of 10 in 3 of 5
    assert spread == pytest.approx(100 + 0.6 * 100, rel=0.1)


def test_mixed_novelties_are_a_third_each():
    found = novelties("mixed", n=3000)
    same = np.isin(found, CORRELATED).all(axis=1)
    assert same[:1000].all() and not same[1000:].any()
    half = np.isin(found[2000:], CORRELATED).any(axis=1)
    assert half.all() and not np.isin(found[1000:2000], CORRELATED).any()


def test_the_novelty_score_of_the_truth_is_known():
    """N(0, s^2) rows in one column against a box: P(|x| < |u|) in closed form."""
    rows = np.random.RandomState(0).randn(4000, 1)
    half = 0.55 * np.ptp(rows)  # the box is nearly [-half, half]
    centre = 0.5 * (rows.max() + rows.min())
    u = np.linspace(centre - half, centre + half, 20001)
    truth = np.mean(norm.cdf(np.abs(u)) - norm.cdf(-np.abs(u)))
    model = GaussianMixture(random_state=0).fit(rows)
    model.means_, model.precisions_cholesky_ = np.zeros((1, 1)), np.ones((1, 1, 1))
    found = NoveltyScorer("uniform", 4000)(model, rows)
    assert_estimate(found, 0.5 / np.sqrt(4000), truth, 0.008)


def test_a_better_model_finds_more_of_every_kind():
    train, held_out = CORRELATED[:1000], CORRELATED[1000:]
    right = GaussianMixture(random_state=0).fit(train)
    wrong = GaussianMixture(covariance_type="diag", random_state=0).fit(train)
    for kind in ("permuted", "uniform", "jittered", "mixed"):
        scorer = NoveltyScorer(kind)
        assert scorer(right, held_out) > scorer(wrong, held_out) + 0.03, kind
    blind = NoveltyScorer("permuted", 4000)(wrong, held_out)
    assert 0.35 < blind < 0.65  # the marginals alone tell nothing


def test_the_scorer_is_a_value():
    model = GaussianMixture(3, random_state=0).fit(MOONS)
    scorer = NoveltyScorer("mixed", 200, random_state=4)
    state = np.random.get_state()[1].copy()
    value = scorer(model, MOONS)
    assert scorer(model, MOONS) == value
    for other in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer), clone(scorer)):
        assert other == scorer and other(model, MOONS) == value
    assert NoveltyScorer("mixed", 200, random_state=5)(model, MOONS) != value
    assert np.array_equal(np.random.get_state()[1], state)
    assert repr(scorer) == "NoveltyScorer(kind='mixed', n_novelties=200, random_state=4)"


def test_density_0_is_the_lowest_rank():
    model = KernelDensity(kernel="tophat", bandwidth=0.2).fit(MOONS)
    value = NoveltyScorer("uniform")(model, MOONS)
    inside = np.isfinite(model.score_samples(novelties("uniform", MOONS, 1000)))
    assert 1 - inside.mean() <= value < 1


@pytest.mark.parametrize(
    ("params", "X", "error", "message"),
    [
        ({"kind": "shuffled"}, PLANE, ValueError, "kind must be one of .*'mixed'.*, got 'shuff"),
        ({"n_novelties": 0}, PLANE, ValueError, "n_novelties must be an integer >= 1, got 0"),
        ({"n_novelties": 9.5}, PLANE, TypeError, "n_novelties must be an integer >= 1, got 9.5"),
        ({}, PLANE[:, :1], ValueError, "at least 2 columns with kind='permuted', got 1"),
        ({"kind": "mixed"}, PLANE[:, :1], ValueError, "2 columns with kind='mixed', got 1"),
        ({}, PLANE[:1], ValueError, "minimum of 2 is required"),
        ({}, PLANE * np.nan, ValueError, "X contains NaN"),
    ],
    ids=["kind", "none", "real", "column", "mixed-column", "row", "nan"],
)
def test_bad_calls(params, X, error, message):
    scorer = NoveltyScorer(**params)  # not before it is called
    with pytest.raises(error, match=message):
        scorer(Scores().fit(PLANE), X)


# -- searches --------------------------------------------------------------------------------------


def test_grid_search_on_log_likelihood_with_its_error():
    search = GridSearchCV(
        KernelDensity(),
        {"bandwidth": [0.02, 0.15, 2.0]},
        scoring=log_likelihood_scorer,
        refit=best_within_error,
        cv=CV,
    ).fit(MOONS)
    assert search.best_params_ == {"bandwidth": 0.15}
    assert (search.cv_results_["mean_test_stderr"] > 0).all()
    assert (search.cv_results_["mean_test_log_partition_stderr"] == 0).all()
    assert search.best_estimator_.score_samples(MOONS).shape == (450,)
    found = log_likelihood_scorer(search.best_estimator_, MOONS)  # as the docstring says
    assert found["score"] == pytest.approx(search.best_estimator_.score(MOONS) / 450)
    best = search.cv_results_["mean_test_score"][search.best_index_]
    assert best == search.cv_results_["mean_test_score"].max()
    with pytest.raises(KeyError):  # the docstring would have to change
        search.score(MOONS)
    assert not hasattr(search, "best_score_")


def test_grid_search_over_ours_says_when_it_cannot_tell():
    """Two seeds of one model differ by less than their errors."""
    search = GridSearchCV(
        tiny(),
        {"random_state": [0, 1]},
        scoring=log_likelihood_scorer,
        refit=best_within_error,
        cv=2,
    )
    with pytest.warns(SelectionWarning, match="samples of log_partition"):
        search.fit(PLANE)
    errors = [search.cv_results_[f"split{k}_test_log_partition_stderr"] for k in range(2)]
    assert (np.array(errors) > 0).all()


def test_the_log_likelihood_scorer_in_other_tools():
    model = GaussianMixture(random_state=0)
    table = cross_validate(model, MOONS, scoring=log_likelihood_scorer, cv=CV)
    np.testing.assert_allclose(table["test_score"], cross_val_score(model, MOONS, cv=CV))
    search = RandomizedSearchCV(
        model,
        {"n_components": [1, 8]},
        n_iter=2,
        scoring=log_likelihood_scorer,
        refit=best_within_error,
        cv=CV,
        random_state=0,
    )
    assert search.fit(MOONS).best_params_ == {"n_components": 8}


def halving(model, params, scoring, cv=CV):
    return HalvingRandomSearchCV(
        model,
        params,
        scoring=scoring,
        cv=cv,
        factor=2,
        n_candidates=2,
        min_resources="exhaust",
        random_state=0,
    )


@pytest.mark.parametrize("search", [GridSearchCV, halving], ids=["grid", "halving"])
@pytest.mark.parametrize(
    "scoring", [NoveltyScorer(), stein_score, None], ids=["novelty", "stein", "likelihood"]
)
def test_searches_find_the_dependence(search, scoring):
    """The mean log likelihood of a mixture is its own score."""
    params = {"covariance_type": ["diag", "full"]}
    model = GaussianMixture(random_state=0)
    found = search(model, params, scoring=scoring, cv=CV).fit(CORRELATED[:450])
    assert found.best_params_ == {"covariance_type": "full"}


@pytest.mark.parametrize(
    ("search", "scoring"),
    [(GridSearchCV, NoveltyScorer(n_novelties=200)), (halving, stein_score)],
    ids=["grid-novelty", "halving-stein"],
)
def test_searches_over_ours(search, scoring):
    """The unnormalized: neither scorer needs log Z. Rows on a line have no use for a box."""
    t = np.random.RandomState(0).randn(120, 1)
    rows = np.hstack([t, t + 0.3 * np.random.RandomState(1).randn(120, 1)])
    model = tiny(log_partition=None)
    found = search(model, {"base": ["gaussian", "uniform"]}, scoring=scoring, cv=2).fit(rows)
    assert found.best_params_ == {"base": "gaussian"}


def test_the_class_in_place_of_an_instance_is_named():
    search = GridSearchCV(KernelDensity(), {"bandwidth": [1.0]}, scoring=NoveltyScorer, cv=2)
    with pytest.raises(TypeError, match=r"the class NoveltyScorer. Pass NoveltyScorer\(\)"):
        search.set_params(error_score="raise").fit(PLANE)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_a_search_over_what_is_no_density(kind):
    pipeline = make_pipeline(StandardScaler(), IsolationForest(n_estimators=20, random_state=0))
    frame = kind({"a": MOONS[:, 0], "b": MOONS[:, 1]})  # without names there would be a warning
    scores = cross_val_score(pipeline, frame, scoring=NoveltyScorer("uniform"), cv=CV)
    assert ((scores > 0.6) & (scores < 1)).all()
