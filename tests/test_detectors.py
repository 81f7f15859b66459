"""Detectors over any density: what all have in common, then one by one."""

import math
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import beta, multivariate_normal, norm
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, PowerTransformer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from skebm.exceptions import CalibrationWarning, EnsembleWarning, NormalizationWarning
from skebm.inside import scorers
from skebm.ood import (
    ConformalNoveltyDetector,
    EnsembleDensity,
    LikelihoodRatioDetector,
    ScoreNormDetector,
    ThresholdDetector,
    TypicalityDetector,
)
from tests import cases
from tests.closed_forms import assert_estimate, assert_mean, gaussian_entropy

EXAMPLE = Path(__file__).parents[1] / "examples" / "pyod_conventions.py"
COV = np.array([[2.0, 0.6], [0.6, 0.5]])


class Known(BaseEstimator):
    """A Gaussian that is known, fitted from the start."""

    def __init__(self, cov=((1.0,),), mean=0.0):
        self.cov = cov
        self.mean = mean

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def score_samples(self, X):
        cov = np.asarray(self.cov)
        mean = np.broadcast_to(self.mean, len(cov))
        return np.atleast_1d(multivariate_normal(mean, cov).logpdf(X))

    def score_function(self, X):
        return (self.mean - np.asarray(X)) @ np.linalg.inv(self.cov)


class Column(BaseEstimator):
    """Scores that are one of the columns; it keeps the rows that it was fitted to."""

    def __init__(self, j=0):
        self.j = j

    def fit(self, X, y=None):
        self.X_ = X
        return self

    def score_samples(self, X):
        return X[:, self.j] if isinstance(X, np.ndarray) else np.zeros(X.shape[0])


class Seeded(Column):
    """A density that is its seed alone: uniform on one of many unit intervals."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def score_samples(self, X):
        return np.full(len(X), -float(self.random_state % 1000))


def normal(n, d=2, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d))


def correlated(n, seed=0):
    return np.random.RandomState(seed).multivariate_normal([0, 0], COV, size=n)


def mixture(**params):
    return GaussianMixture(2, reg_covar=1e-3, random_state=0, **params)


# -- what all have in common -----------------------------------------------------------------------


def detectors(inner):
    """Each kind of detector once, over one density."""
    folds = ConformalNoveltyDetector(inner, alpha=0.1, cv=2, random_state=0)
    return cases.detectors(inner) | {"cross-conformal": folds}


NAMES = sorted(detectors(None))
PREFIT = [
    "TypicalityDetector",
    "ScoreNormDetector",
    "ThresholdDetector",
    "ConformalNoveltyDetector",
]  # of one estimator
SPLIT = ["TypicalityDetector", "LikelihoodRatioDetector", "ScoreNormDetector", "ThresholdDetector"]
ANY_SCORES = sorted({*NAMES} - {"ScoreNormDetector", "NoveltyDetector"})
READS = ["score_samples", "decision_function", "predict", "p_value"]
INNER = {
    "kernels": KernelDensity(),
    "mixture": GaussianMixture(2),
    "pipeline": make_pipeline(StandardScaler(), GaussianMixture(2)),
}
CHECKED = {
    **detectors(KernelDensity()),
    "ensemble, bootstrap": EnsembleDensity(KernelDensity(), n_estimators=2, bootstrap=True),
    "score norm, mixture": ScoreNormDetector(GaussianMixture(reg_covar=1e-3)),
    "threshold, training": ThresholdDetector(GaussianMixture(reg_covar=1e-3), method="training"),
}
SCORE_RULE = "decision_function is p_value - offset_ with cv, and not score_samples - offset_"


def readings(detector, X):
    """All that a detector says of rows."""
    return np.array([getattr(detector, n)(X) for n in READS if hasattr(detector, n)])


FEW = pytest.mark.filterwarnings("ignore:held-out rows must be at least 19 for a contamination")


def inside(detector):
    """The first of the fitted densities."""
    return next(iter(scorers(detector)), None) or detector.foreground_


# the tables of the checks have few rows, and kernels have no randomness
@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
@pytest.mark.filterwarnings("ignore::skebm.exceptions.EnsembleWarning")
@pytest.mark.parametrize("name", CHECKED)
def test_scikit_learns_checks_pass(name):
    unmet = {"check_outliers_train": SCORE_RULE} if name == "cross-conformal" else {}
    detector = clone(CHECKED[name])
    if isinstance(detector, ConformalNoveltyDetector):  # the tables of the checks have 10 rows
        detector.set_params(alpha=0.2, calibration_fraction=0.5)
    results = check_estimator(detector, expected_failed_checks=unmet, on_skip=None, on_fail=None)
    status = {
        s: {r["check_name"] for r in results if r["status"] == s} for s in ("xfail", "passed")
    }
    failed = [r for r in results if r["status"] not in ("passed", "skipped", "xfail")]
    assert failed == [] and status["xfail"] == set(unmet) and is_outlier_detector(detector)
    wanted = {"check_outliers_train", "check_fit_idempotent", "check_methods_subset_invariance"}
    assert wanted - set(unmet) <= status["passed"]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_settles_all_and_nothing_outside_changes(name, inner):
    """Also where the inner estimator has no seed of its own."""
    X, estimator = normal(80), clone(INNER[inner])
    before = np.random.get_state()[1].copy()
    one, other, another = (
        readings(clone(detectors(estimator)[name]).set_params(random_state=seed).fit(X), X)
        for seed in (0, 0, 1)
    )
    unseeded = clone(detectors(estimator)[name]).set_params(random_state=None).fit(X)
    assert_array_equal(one, other)
    if name != "NoveltyDetector" or inner != "kernels":  # which have no randomness, and few rows
        assert not np.array_equal(one, another)
    assert_array_equal(readings(unseeded, X), readings(unseeded, X))
    assert_array_equal(np.random.get_state()[1], before)
    assert not any(key.endswith("_") and key[0] != "_" for key in vars(estimator))


@pytest.mark.parametrize("wrap", [clone, lambda inner: make_pipeline(StandardScaler(), inner)])
@pytest.mark.parametrize("name", NAMES)
def test_an_inner_seed_stays_the_users_and_gets_one_where_there_is_none(name, wrap):
    """An ensemble alone replaces it, for members have to differ."""

    def seed(given):
        fitted = inside(detectors(wrap(GaussianMixture(random_state=given)))[name].fit(normal(80)))
        return next(v for k, v in fitted.get_params().items() if k.endswith("random_state"))

    assert isinstance(seed(None), int) and seed(None) == seed(None)
    assert (seed(7) == 7) is (name != "EnsembleDensity")


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("name", NAMES)
def test_data_frames_reach_the_estimator_and_columns_are_held_to(name, kind):
    X, names = normal(70), ["a", "b"]
    frame = kind(dict(zip(names, X.T, strict=True)))
    detector = detectors(make_pipeline(StandardScaler(), KernelDensity()))[name].fit(frame)
    assert list(inside(detector).feature_names_in_) == list(detector.feature_names_in_) == names
    bare = clone(detector).fit(X)
    assert_allclose(readings(detector, frame), readings(bare, X), atol=1e-12)
    with pytest.raises(ValueError, match="feature names"):
        detector.predict(frame[["b", "a"]])


def holed(X):
    return np.where(np.abs(X) > 2, np.nan, X)


def frame_of_text(X):
    return pl.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 0, "yes", "no")})


def words(X):
    return np.where(X > 0, "yes", "no").astype(object)


ENCODER = make_column_transformer((OrdinalEncoder(), ["b"]), remainder="passthrough")
TABLES = {
    "holes": (holed, make_pipeline(SimpleImputer(), KernelDensity())),
    "sparse": (csr_array, make_pipeline(TruncatedSVD(2, random_state=0), KernelDensity())),
    "text": (frame_of_text, make_pipeline(ENCODER, KernelDensity())),
    "words": (words, make_pipeline(OrdinalEncoder(), KernelDensity())),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", ANY_SCORES)
def test_a_table_that_the_estimator_takes_is_taken(name, table):
    """The gradient alone needs complete numbers."""
    make, inner = TABLES[table]
    rows = make(normal(70, 3 - (table == "text")))
    detector = detectors(inner)[name].fit(rows)
    assert detector.score_samples(rows).shape == (70,)
    with pytest.raises((TypeError, ValueError)):  # what the estimator refuses is refused
        detectors(KernelDensity())[name].fit(rows)


@pytest.mark.parametrize("name", NAMES)
def test_tags_are_those_of_the_estimator(name):
    assert get_tags(detectors(IsolationForest())[name]).input_tags.allow_nan
    assert not get_tags(detectors(KernelDensity())[name]).input_tags.allow_nan


@pytest.mark.parametrize("name", PREFIT)
def test_prefit_takes_the_estimator_as_it_is(name):
    density = mixture().fit(normal(100))
    detector = detectors(density)[name].set_params(prefit=True).fit(normal(50, seed=1))
    assert detector.estimator_ is density
    with pytest.raises(NotFittedError, match=r"unfitted Gaussian.* sklearn\.frozen\.Frozen"):
        detectors(mixture())[name].set_params(prefit=True).fit(normal(50))
    frozen = detectors(FrozenEstimator(density))[name].set_params(prefit=True)
    again = clone(frozen).fit(normal(50, seed=1))  # the clone keeps it fitted
    assert_array_equal(again.score_samples(normal(9)), detector.score_samples(normal(9)))


@pytest.mark.parametrize("name", SPLIT)
def test_too_few_held_out_rows_for_the_level_are_told(name):
    """19 rows are the fewest of which the lowest has a level of 5 %."""
    detector = detectors(KernelDensity())[name].set_params(calibration_fraction=0.25)
    detector.fit(normal(76))
    level = "level" if name == "ThresholdDetector" else "alpha"
    with pytest.warns(CalibrationWarning, match=f"19 for {level} 0.05, got 18: .* 0.053 of"):
        detector.fit(normal(72))
    detector.set_params(**{level: 0.06}).fit(normal(72))


def test_the_rate_that_a_warning_tells_is_the_rate():
    with pytest.warns(CalibrationWarning, match=r"got 6: a share of 0\.14 of normal"):
        rates = false_alarm_rates("held-out", 6, 1000)
    assert_mean(rates, 1 / 7, 0.005)


@pytest.mark.parametrize("name", ANY_SCORES)
def test_foreign_nan_scores_and_missing_scores_are_refused(name):
    X = normal(40)
    X[::3, 0] = np.inf
    detector = detectors(Column())[name]
    with pytest.raises((ValueError, TypeError), match="infinity"):
        detector.fit(X)
    with pytest.raises(TypeError, match="got StandardScaler"):
        detectors(StandardScaler())[name].fit(normal(40))


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        *((name, {"calibration_fraction": 0.95}, ValueError, "got 0.95") for name in SPLIT),
        *((name, {"calibration_fraction": 0}, ValueError, "got 0") for name in SPLIT),
        *((name, {"prefit": "yes"}, ValueError, "got 'yes'") for name in SPLIT),
        ("TypicalityDetector", {"alpha": 0.7}, ValueError, "alpha must be .* got 0.7"),
        ("TypicalityDetector", {"batch_size": 0}, ValueError, "batch_size must be .* got 0"),
        ("TypicalityDetector", {"n_bootstrap": 2.5}, TypeError, "n_bootstrap must be .* got 2.5"),
        ("LikelihoodRatioDetector", {"mutation_rate": 0}, ValueError, "mutation_rate .* got 0"),
        ("LikelihoodRatioDetector", {"alpha": "low"}, TypeError, "alpha must be .* got 'low'"),
        ("ScoreNormDetector", {"alpha": 0.0}, ValueError, "alpha must be .* got 0.0"),
        (
            "ThresholdDetector",
            {"method": "best"},
            ValueError,
            "method must be one of .* got 'best'",
        ),
        ("ThresholdDetector", {"level": 0.6}, ValueError, "level must be .* got 0.6"),
        ("ThresholdDetector", {"confidence": 1.0}, ValueError, "confidence must be .* got 1.0"),
        ("EnsembleDensity", {"n_estimators": 0}, ValueError, "n_estimators must be .* got 0"),
        ("EnsembleDensity", {"max_samples": 1.5}, ValueError, "max_samples must be .* got 1.5"),
        ("EnsembleDensity", {"max_samples": 41}, ValueError, "max_samples must be .* got 41 of 40"),
        ("EnsembleDensity", {"bootstrap": "no"}, ValueError, "bootstrap must be .* got 'no'"),
        ("EnsembleDensity", {"contamination": "none"}, ValueError, "contamination .* got 'none'"),
        ("EnsembleDensity", {"contamination": 0.6}, ValueError, "contamination .* got 0.6"),
        ("EnsembleDensity", {"validation_fraction": 1}, ValueError, "validation_fraction .* got 1"),
    ],
)
def test_unfit_parameters_are_refused_at_fit(name, params, error, message):
    detector = detectors(KernelDensity())[name].set_params(**params)
    with pytest.raises(error, match=message):
        detector.fit(normal(40))


# -- typicality ------------------------------------------------------------------------------------


def test_typicality_is_the_distance_from_the_entropy():
    X, new = correlated(40_000), correlated(50, seed=1)
    detector = TypicalityDetector(Known(COV), prefit=True, random_state=0).fit(X)
    log_p, entropy = Known(COV).score_samples, gaussian_entropy(COV)
    assert_mean(-log_p(X), entropy, 0.01)
    assert detector.entropy_ == pytest.approx(-log_p(X).mean(), rel=1e-12)
    assert_allclose(detector.score_samples(new), -np.abs(log_p(new) + detector.entropy_))
    assert_allclose(detector.batch_score(new), -abs(log_p(new).mean() + detector.entropy_))
    flagged = np.mean(detector.predict(X) == -1)
    assert flagged == pytest.approx(0.05, abs=1e-4)


def test_the_likeliest_row_of_many_columns_is_not_typical():
    X, mode = normal(600, 100), np.zeros((1, 100))
    detector = TypicalityDetector(GaussianMixture(covariance_type="diag"), random_state=0).fit(X)
    assert detector.estimator_.score_samples(mode) > detector.estimator_.score_samples(X).max()
    assert detector.predict(mode) == [-1]
    assert detector.predict(3 * X[:1]) == [-1] and not detector.is_typical(mode)
    by_density = ThresholdDetector(GaussianMixture(covariance_type="diag"), random_state=0).fit(X)
    assert by_density.predict(mode) == [1]


@pytest.mark.parametrize("size", [1, 20, 200])
def test_batch_pvalues_are_uniform_for_normal_batches(size):
    """At 200 of 200 held-out rows the error of their mean is as large as the batch's."""
    pvalues = []
    for seed in range(300):
        X = normal(200 + size, 1, seed)
        detector = TypicalityDetector(Known(), prefit=True, n_bootstrap=99, random_state=seed)
        pvalues.append(detector.fit(X[:200]).batch_pvalue(X[200:]))
    assert_mean(pvalues, 0.5, 0.018)
    assert_mean(np.array(pvalues) <= 0.1, 0.1, 0.021)


def test_batches_are_judged_by_their_size():
    X = normal(500, 20)
    detector = TypicalityDetector(mixture(), batch_size=30, random_state=0).fit(X)
    inside, outside = normal(30, 20, seed=5), 1.15 * normal(30, 20, seed=5)
    assert detector.is_typical(inside) and not detector.is_typical(outside)
    assert detector.batch_pvalue(inside) > 0.05 >= detector.batch_pvalue(outside)
    assert np.mean([detector.is_typical(outside[[i]]) for i in range(30)]) > 0.5  # one tells less
    assert detector.batch_pvalue(inside) == detector.batch_pvalue(inside)
    single = clone(detector).set_params(batch_size=1).fit(X)
    assert detector.batch_offset_ > single.batch_offset_
    known = TypicalityDetector(Column().fit(X), prefit=True, random_state=0).fit(X)
    typical = np.full((9000, 20), -known.entropy_)  # drawn in blocks of rows, none is nearer
    assert known.batch_pvalue(typical) == 1


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 1 / 3])
def test_batches_are_typical_where_their_pvalue_is_above_alpha(alpha):
    """At 19 batches the p-value of a batch on the threshold is alpha itself, or next to it."""
    X = normal(40)
    for n_bootstrap in (19, 29, 99):
        detector = TypicalityDetector(Known(np.eye(2)), prefit=True, alpha=alpha, random_state=0)
        detector.set_params(n_bootstrap=n_bootstrap).fit(X)
        batches = [scale * normal(5, seed=seed) for seed in range(20) for scale in (0.6, 1, 1.5)]
        pvalues = np.array([detector.batch_pvalue(batch) for batch in batches])
        typical = [detector.is_typical(batch) for batch in batches]
        assert_array_equal(typical, pvalues > alpha)
        assert any(typical) and not all(typical)


def test_bootstraps_too_small_for_alpha_are_refused():
    detector = TypicalityDetector(KernelDensity(), n_bootstrap=18)
    with pytest.raises(ValueError, match="n_bootstrap must be at least 1 / alpha - 1 = 19, got 18"):
        detector.fit(normal(80))
    detector.set_params(n_bootstrap=19).fit(normal(80))


def test_typicality_needs_finite_held_out_scores():
    X = np.append(np.linspace(0, 1, 60), np.arange(40) * 1e3)[:, None]
    detector = TypicalityDetector(KernelDensity(kernel="tophat"), random_state=0)
    with pytest.raises(ValueError, match=r"must be finite, got \d+ of 30"):
        detector.fit(X)


# -- likelihood ratio ------------------------------------------------------------------------------


def test_the_ratio_of_two_known_gaussians_is_exact():
    wide, narrow = Known(np.eye(2) * 4.0), Known(COV)
    X = correlated(99)
    detector = LikelihoodRatioDetector(narrow, wide, prefit=True).fit(X)
    precision = np.linalg.inv(COV) - np.eye(2) / 4
    truth = 0.5 * (math.log(16) - np.linalg.slogdet(COV)[1]) - 0.5 * np.einsum(
        "ni,ij,nj->n", X, precision, X
    )
    assert_allclose(detector.score_samples(X), truth, atol=1e-12)
    assert detector.offset_ == pytest.approx(np.sort(truth)[4])  # 0.05 * (99 + 1) = 5th


def test_without_a_background_broken_dependence_is_found():
    X = correlated(1500)
    broken = np.array([[1.5, -0.75]])  # each entry about one standard deviation off
    detector = LikelihoodRatioDetector(GaussianMixture(), random_state=0).fit(X)
    assert detector.predict(broken) == [-1] and detector.predict(-broken * [1, -1]) == [1]
    rho = detector.background_.covariances_[0][0, 1] / COV[0, 1]
    assert_estimate(rho, 0.1, 0.8**2, 0.1)  # both entries of a pair survive


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_mutations_keep_columns_and_come_at_their_rate(rate):
    X = np.arange(20_000.0).reshape(-1, 2)
    kept, changed = kept_and_changed(X, rate)
    assert_mean((changed != kept).ravel(), rate, 0.005)
    assert_array_equal(np.sort(changed, axis=0), kept)  # no value twice
    kept, changed = (table.toarray() for table in kept_and_changed(csr_array(X), rate))
    assert_array_equal(np.sort(changed, axis=0), kept)
    assert_mean((changed != kept).ravel(), rate, 0.005)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_mutations_of_data_frames_keep_the_types_of_columns(kind):
    frame = kind({"a": list(range(26)), "b": list("abcdefghijklmnopqrstuvwxyz")})
    kept, changed = kept_and_changed(frame, 1.0)
    assert type(changed) is kind and list(changed.dtypes) == list(frame.dtypes)
    for name in "ab":
        assert set(changed[name]) == set(kept[name]) and list(changed[name]) != list(kept[name])


def kept_and_changed(X, rate):
    """The rows of the foreground, and what became of them in the background."""
    detector = LikelihoodRatioDetector(Column(), mutation_rate=rate, calibration_fraction=1e-9)
    with pytest.warns(CalibrationWarning, match="got 1"):
        detector.set_params(random_state=0).fit(X)
    return detector.foreground_.X_, detector.background_.X_


def test_a_background_is_fitted_to_its_own_rows():
    X, shared = normal(100), 5 + normal(77, seed=1)
    detector = LikelihoodRatioDetector(GaussianMixture(), random_state=0)
    assert_allclose(detector.fit(X, X_background=shared).background_.means_[0], shared.mean(axis=0))
    detector.set_params(background=GaussianMixture()).fit(X, X_background=shared)
    assert_allclose(detector.background_.means_[0], shared.mean(axis=0))
    detector.fit(X)  # the same rows as the foreground: the ratio of equals
    assert_allclose(detector.score_samples(X), 0, atol=1e-9)
    assert detector.offset_ == pytest.approx(0, abs=1e-9)


def test_zero_densities_make_infinite_ratios_but_no_nan():
    top = KernelDensity(kernel="tophat", bandwidth=0.5).fit([[0.0]])
    wide = KernelDensity(kernel="tophat", bandwidth=1.0).fit([[1.0]])
    detector = LikelihoodRatioDetector(top, wide, prefit=True).fit(np.full((30, 1), 0.3))
    scores = detector.score_samples([[0.3], [-0.3], [1.5], [9.0]])
    assert_allclose(scores, [math.log(2), np.inf, -np.inf, -np.inf])
    assert_array_equal(detector.predict([[0.3], [-0.3], [1.5], [9.0]]), [1, 1, -1, -1])


def test_prefit_ratios_need_both():
    density = mixture().fit(normal(50))
    with pytest.raises(ValueError, match="background must be .* got None"):
        LikelihoodRatioDetector(density, prefit=True).fit(normal(20))
    with pytest.raises(ValueError, match="got X_background too"):
        LikelihoodRatioDetector(density, density, prefit=True).fit(normal(20), None, normal(20))


# -- norm of the gradient --------------------------------------------------------------------------


def test_the_norm_of_a_gaussian_is_scaled_by_its_columns():
    X = correlated(300) * [1, 50]
    cov = COV * np.outer([1, 50], [1, 50])
    detector = ScoreNormDetector(Known(cov), prefit=True).fit(X)
    truth = -np.linalg.norm(X @ np.linalg.inv(cov) * X.std(axis=0), axis=1)
    assert_allclose(detector.score_samples(X), truth, rtol=1e-10)
    assert_allclose(detector.score_samples(X[:1]), truth[:1], rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_kernels_agrees_with_differences(weighted):
    X, new = correlated(60), correlated(5, seed=1) + 3
    weight = np.random.RandomState(2).uniform(0.1, 3, size=60) if weighted else None
    kernels = KernelDensity(bandwidth=0.4).fit(X, sample_weight=weight)
    detector = ScoreNormDetector(kernels, prefit=True).fit(X)
    slopes = [
        approx_fprime(x, lambda z: kernels.score_samples(z[None])[0], 1e-6) * X.std(axis=0)
        for x in new
    ]
    assert_allclose(detector.score_samples(new), -np.linalg.norm(slopes, axis=1), rtol=1e-4)


def test_kernels_far_from_zero_and_from_their_centers_have_a_gradient():
    kernels = KernelDensity(bandwidth=0.5).fit([[1e6], [1e6 + 1]])
    rows = np.repeat([[1e6], [1e6 + 1]], 10, axis=0)
    detector = ScoreNormDetector(kernels, prefit=True).fit(rows)
    assert_allclose(detector.score_samples([[1e6 + 0.5], [1e6 + 101.0]]), [0, -200], atol=1e-6)


@pytest.mark.parametrize("inner", ["kernels", "mixture"])
def test_the_norm_does_not_depend_on_units(inner):
    X = normal(200)
    a, b = (
        ScoreNormDetector(make_pipeline(StandardScaler(), INNER[inner]), random_state=0)
        .fit(Z)
        .score_samples(Z[:9])
        for Z in (X, 7 + X * [3, 1000])
    )
    assert_allclose(a, b, rtol=1e-6)


def test_searches_are_seen_through_and_constant_columns_ignored():
    X = np.column_stack([normal(90, 1), np.full(90, 4.0)])
    search = GridSearchCV(KernelDensity(), {"bandwidth": [0.3, 0.6]}, cv=3)
    detector = ScoreNormDetector(search, random_state=0).fit(X)
    assert detector.scale_[1] == 0
    best = ScoreNormDetector(detector.estimator_.best_estimator_, prefit=True).fit(X)
    assert_array_equal(detector.score_samples(X), best.score_samples(X))
    assert_allclose(detector.score_samples(X + np.array([0, 10])), best.score_samples(X))


FOREST = IsolationForest(n_estimators=2, random_state=0)
BENT = make_pipeline(PowerTransformer(), GaussianMixture())


@pytest.mark.parametrize(
    ("inner", "error", "message"),
    [
        (KernelDensity(kernel="tophat"), ValueError, "got kernel 'tophat'"),
        (KernelDensity(metric="manhattan"), ValueError, "metric 'manhattan'"),
        (FOREST, TypeError, "density with score_function, .* KernelDensity, .* got IsolationFor"),
        (TypicalityDetector(KernelDensity()), TypeError, "got TypicalityDetector"),
        (BENT, TypeError, "column scalers and a density, got PowerTransformer"),
    ],
    ids=["kernel", "metric", "forest", "typicality", "transformer"],
)
def test_what_has_no_gradient_is_refused(inner, error, message):
    with pytest.raises(error, match=message):
        ScoreNormDetector(inner).fit(normal(100))


# -- ensembles -------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_density_of_its_members():
    X, new = normal(120), normal(30, seed=1) * 2
    ensemble = EnsembleDensity(mixture(), n_estimators=3, bootstrap=True, random_state=0).fit(X)
    members = np.stack([m.score_samples(new) for m in ensemble.estimators_])
    assert_allclose(ensemble.score_samples(new), logsumexp(members, axis=0) - math.log(3))
    assert ensemble.score(new) == pytest.approx(ensemble.score_samples(new).mean())
    assert_allclose(ensemble.disagreement(new), members.std(axis=0))
    for member, rows in zip(ensemble.estimators_, ensemble.estimators_samples_, strict=True):
        again = clone(member).fit(X[rows])  # the rows told are those used
        assert_allclose(again.score_samples(new), member.score_samples(new))


def test_an_ensemble_integrates_to_one():
    X = normal(50, 1)
    inner = KernelDensity(bandwidth=0.3)
    ensemble = EnsembleDensity(inner, max_samples=20, random_state=0).fit(X)
    grid = np.linspace(-8, 8, 4001)[:, None]
    assert np.trapezoid(np.exp(ensemble.score_samples(grid)), dx=16 / 4000) == pytest.approx(1)
    assert {len(set(rows)) for rows in ensemble.estimators_samples_} == {20}


@FEW
def test_identical_members_agree_and_seeds_make_them_differ():
    X = normal(80)
    alike = EnsembleDensity(KernelDensity(), random_state=0)
    with pytest.warns(EnsembleWarning, match="5 that are equal at all 80 rows. Set bootstrap=True"):
        alike.fit(X)
    alike.set_params(n_estimators=1).fit(X)  # one is equal to none
    with pytest.warns(EnsembleWarning, match="2 that are equal"):
        alike.set_params(n_estimators=2).fit(X)
    assert_allclose(alike.disagreement(X), 0, atol=1e-12)
    assert_allclose(alike.score_samples(X), alike.estimators_[0].score_samples(X))
    seeded = EnsembleDensity(Seeded(random_state=1), n_estimators=4, random_state=0).fit(X)
    assert len({member.random_state for member in seeded.estimators_}) == 4
    assert (seeded.disagreement(X) > 1).all()
    nested = EnsembleDensity(make_pipeline(StandardScaler(), Seeded()), random_state=0).fit(X)
    assert len({member[-1].random_state for member in nested.estimators_}) == 5


def test_members_without_mass_disagree_without_bound():
    X = np.array([[0.0], [1.0], [5.0], [6.0], [7.0], [8.0]])
    inner = KernelDensity(kernel="tophat", bandwidth=0.4)
    ensemble = EnsembleDensity(inner, contamination=0.5, n_estimators=3, random_state=0)
    with pytest.warns(EnsembleWarning, match="3 that are equal at all 6"):
        ensemble.fit(X)
    ensemble.estimators_[0] = clone(inner).fit([[0.0]])
    assert_array_equal(ensemble.disagreement([[0.0], [6.0], [99.0]])[1:], [np.inf, 0])
    assert ensemble.score_samples([[99.0]]) == [-np.inf]


def test_out_of_bag_rows_set_the_threshold():
    X = normal(300)
    ensemble = EnsembleDensity(mixture(), max_samples=0.5, random_state=0).fit(X)
    fresh = []
    for i in range(300):
        unseen = [
            m
            for m, rows in zip(ensemble.estimators_, ensemble.estimators_samples_, strict=True)
            if i not in rows
        ]
        scores = [m.score_samples(X[[i]])[0] for m in unseen]
        fresh += [logsumexp(scores) - math.log(len(scores))] if unseen else []
    assert 270 < len(fresh) < 300  # about 1 in 32 is seen by all five
    assert ensemble.offset_ == pytest.approx(fifth(fresh))


def fifth(scores):
    return np.quantile(scores, 0.05, method="weibull")


@pytest.mark.filterwarnings("ignore::skebm.exceptions.EnsembleWarning")
def test_few_rows_set_no_threshold_above_that_of_all():
    """The scores are the rows; of some seeds the rows that no member has seen are the higher."""
    X = np.arange(400.0)[:, None]
    for n_fresh in (39, 40):
        higher = set()
        for seed in range(8):
            ensemble = EnsembleDensity(Column(), validation_fraction=n_fresh / 400)
            ensemble.set_params(n_estimators=2, random_state=seed).fit(X)
            own = fifth(np.setdiff1d(np.arange(400), ensemble.estimators_samples_[0]))
            lower = min(own, fifth(X)) if n_fresh < 40 else own
            assert ensemble.offset_ == pytest.approx(lower)
            higher.add(own > fifth(X))
        assert higher == {True, False}


@pytest.mark.filterwarnings("ignore::skebm.exceptions.EnsembleWarning")
def test_an_ensemble_says_that_few_held_out_rows_promise_less():
    """Of 25 rows 2 are held out: a new one is the lowest of 3 once in 3 times, not in 20."""
    X, mixtures = normal(25), EnsembleDensity(mixture(), n_estimators=2, random_state=0)
    message = r"at least 19 for a contamination of 0\.05, got 2: a share of 0\.33 .* bootstrap=True"
    with pytest.warns(CalibrationWarning, match=message):
        mixtures.fit(X)
    clone(mixtures).set_params(bootstrap=True, n_estimators=5).fit(X)
    clone(mixtures).set_params(contamination=0.05).fit(X)
    clone(mixtures).fit(normal(200))
    heavy = np.r_[np.full(10, 1e3), np.ones(190)]
    members = EnsembleDensity(KernelDensity(), bootstrap=True, n_estimators=2, random_state=0)
    with pytest.warns(CalibrationWarning, match="at least 19 for a contamination"):
        members.fit(normal(200), sample_weight=heavy)


@FEW
def test_the_mean_of_unnormalized_members_is_told():
    X = normal(60)
    ensemble = EnsembleDensity(cases.tiny("HybridCDDensity", log_partition=None), n_estimators=2)
    with pytest.warns(NormalizationWarning, match="mean density, got 2 of 2 with log_partition=N"):
        ensemble.set_params(random_state=0).fit(X)
    with pytest.warns(NormalizationWarning, match="mean of unnormalized"):
        ensemble.score(X)


def test_without_out_of_bag_rows_some_are_held_out():
    X = normal(200)
    ensemble = EnsembleDensity(mixture(), validation_fraction=0.2, random_state=0).fit(X)
    (rows,) = {tuple(rows) for rows in ensemble.estimators_samples_}
    held = np.setdiff1d(np.arange(200), rows)
    assert len(held) == 40
    assert ensemble.offset_ == pytest.approx(fifth(ensemble.score_samples(X[held])))
    ensemble.set_params(contamination=0.1).fit(X)  # nothing is held out
    assert len(ensemble.estimators_samples_[0]) == 200
    assert np.count_nonzero(ensemble.predict(X) == -1) == 20


def test_overfitted_members_do_not_raise_false_alarms():
    """At this bandwidth training rows score far above new ones."""
    X, new = normal(300, 3), normal(1000, 3, seed=1)
    kernels = KernelDensity(bandwidth=0.15)
    ensemble = EnsembleDensity(kernels, n_estimators=10, bootstrap=True, random_state=0).fit(X)
    naive = ThresholdDetector(kernels, method="training", random_state=0).fit(X)
    assert np.mean(ensemble.predict(new) == -1) < 0.1 < 0.3 < np.mean(naive.predict(new) == -1)


@pytest.mark.parametrize("inner", ["kernels", "mixture"])
def test_draws_come_from_all_members(inner):
    X = 3 + normal(60, 1)
    member = {"kernels": KernelDensity(bandwidth=0.5), "mixture": GaussianMixture()}[inner]
    ensemble = EnsembleDensity(member, n_estimators=4, max_samples=5, random_state=0).fit(X)
    draws = ensemble.sample(8000, random_state=1)
    assert draws.shape == (8000, 1) and ensemble.sample().shape == (1, 1)
    grid = np.linspace(-6, 12, 3001)
    density = np.exp(ensemble.score_samples(grid[:, None]))
    for power in (1, 2):
        moment = np.trapezoid(density * grid**power, grid)
        assert_mean(draws[:, 0] ** power, moment, 0.1)
    assert_array_equal(draws, ensemble.sample(8000, random_state=1))
    assert not np.array_equal(draws, ensemble.sample(8000, random_state=2))
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 4 / 8000**0.5  # shuffled


@FEW
@pytest.mark.parametrize("inner", [KernelDensity(), GaussianMixture(random_state=0)], ids=str)
@pytest.mark.filterwarnings("ignore::skebm.exceptions.EnsembleWarning")
def test_members_draw_with_seeds_of_their_own(inner):
    """Members that are equal would draw equal rows."""
    ensemble = EnsembleDensity(inner, n_estimators=4, random_state=0).fit(normal(60))
    draws = np.concatenate([ensemble.sample(200, random_state=seed) for seed in range(3)])
    assert len(np.unique(draws.round(9), axis=0)) == 600


@FEW
def test_members_that_cannot_sample_are_named():
    ensemble = EnsembleDensity(make_pipeline(StandardScaler(), mixture()), random_state=0)
    with pytest.raises(TypeError, match="must have sample, got Pipeline"):
        ensemble.fit(normal(50)).sample(3)


def test_members_fit_in_parallel_to_the_same():
    X = normal(60)
    ensemble = EnsembleDensity(mixture(), bootstrap=True, n_estimators=2, random_state=0)
    one = ensemble.fit(X).score_samples(X)
    with parallel_config("threading"):
        assert_array_equal(one, ensemble.set_params(n_jobs=2).fit(X).score_samples(X))


# -- thresholds ------------------------------------------------------------------------------------


def false_alarm_rates(method, n, n_draws, **params):
    """The true rates of thresholds from n known scores each, N(0, 1)."""
    detector = ThresholdDetector(Column(), method=method, prefit=True, **params)
    detector.estimator.fit([[0.0]])
    random = np.random.RandomState(0)
    offsets = [detector.fit(random.normal(size=(n, 1))).offset_ for _ in range(n_draws)]
    return norm.cdf(offsets)


def test_held_out_thresholds_have_their_level_on_average():
    rates = false_alarm_rates("held-out", 39, 1000)  # the second of 39
    assert_mean(rates, 0.05, 0.0015)
    draws = np.random.RandomState(0).normal(size=(1000, 39))
    with pytest.raises(AssertionError):  # numpy's own quantile lies too high
        assert_mean(norm.cdf(np.quantile(draws, 0.05, axis=1)), 0.05, 0.0015)


@pytest.mark.parametrize(("n", "rank"), [(45, 1), (93, 2), (200, 6)])
def test_tolerance_limits_keep_their_promise(n, rank):
    rates = false_alarm_rates("false-positive-rate", n, 1000)
    stderr = (0.9 * 0.1 / 1000) ** 0.5
    assert np.mean(rates <= 0.05) >= 0.9 - 4 * stderr
    assert_mean(rates, rank / (n + 1), 0.0015)
    draws = np.sort(np.random.RandomState(1).normal(size=(1000, n)))
    higher = norm.cdf(draws[:, 2 * rank - 1])  # twice the rank breaks it, and that is seen
    assert np.mean(higher <= 0.05) < 0.9 - 4 * stderr


def test_tolerance_limits_have_the_rank_of_wilks():
    """The share below the k-th of n scores is Beta(k, n + 1 - k)."""
    for n in (2, 3, 7, 20, 44, 45, 93, 200, 999):
        ranks, X = np.arange(1, n + 1), np.arange(1.0, n + 1)[:, None]
        for level in (0.001, 0.01, 0.05, 0.1, 0.2, 1 / 3, 0.49):
            for confidence in (0.05, 0.3, 0.5, 0.9, 0.99, 0.9999):
                rank = np.count_nonzero(beta.cdf(level, ranks, n + 1 - ranks) >= confidence)
                assert tolerance_limit(X, level, confidence) == rank
    assert tolerance_limit(np.arange(1.0, 16)[:, None], 0.5, 0.5) == 8  # the middle, on the tie


def tolerance_limit(X, level, confidence):
    """The threshold from known scores; 0 where they are too few."""
    detector = ThresholdDetector(Column().fit(X), prefit=True, method="false-positive-rate")
    try:
        return detector.set_params(level=level, confidence=confidence).fit(X).offset_
    except ValueError as error:
        assert f"got {len(X)}" in str(error)
        return 0


def test_tolerance_limits_tell_how_many_rows_they_need():
    detector = ThresholdDetector(KernelDensity(), method="false-positive-rate", random_state=0)
    with pytest.raises(ValueError, match="at least 45 for level 0.05 .* got 30"):
        detector.fit(normal(100))
    assert detector.fit(normal(150)).n_calibration_ == 45
    with pytest.raises(ValueError, match="at least 299 .* 0.95, got 45"):
        detector.set_params(level=0.01, confidence=0.95).fit(normal(150))


def test_training_thresholds_flag_their_share_of_the_training_rows():
    X = normal(200)
    detector = ThresholdDetector(KernelDensity(), method="training", level=0.1).fit(X)
    assert np.count_nonzero(detector.predict(X) == -1) == 20
    assert detector.n_calibration_ == 200
    assert_allclose(detector.estimator_.score_samples(X), KernelDensity().fit(X).score_samples(X))


def test_held_out_rows_are_not_fitted_to():
    detector = ThresholdDetector(Column(), calibration_fraction=0.4).fit(normal(50))
    assert len(detector.estimator_.X_) == 30 and detector.n_calibration_ == 20


def test_constant_scores_flag_nothing():
    detector = ThresholdDetector(Column(), method="held-out").fit(np.ones((70, 1)))
    assert_array_equal(detector.predict(np.ones((3, 1))), 1)


@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
@pytest.mark.parametrize(
    ("scores", "level", "expected"),
    [
        (np.arange(1.0, 100.0), 0.05, 5.0),
        (np.arange(1.0, 100.0), 0.055, 5.5),
        (np.arange(1.0, 4.0), 0.05, 1.0),
        (np.r_[-np.inf, np.arange(1.0, 99.0)], 0.015, 1.0),
        (np.r_[0.0, np.full(98, np.inf)], 0.015, 0.0),
    ],
    ids=["fifth", "between", "few", "beside -inf", "beside inf"],
)
def test_quantiles_lie_between_order_statistics(scores, level, expected):
    """Ratios may be infinite on both sides."""
    X = np.column_stack([np.minimum(scores, 0), -np.maximum(scores, 0)])[::-1]
    densities = Column(0).fit(X), Column(1).fit(X)
    detector = LikelihoodRatioDetector(*densities, alpha=level, prefit=True).fit(X)
    assert detector.offset_ == pytest.approx(expected)


def test_too_many_zero_densities_are_refused():
    X = np.append(np.linspace(0, 1, 60), np.arange(40) * 1e3)[:, None]
    tophat = KernelDensity(kernel="tophat")
    with pytest.raises(ValueError, match=r"offset_ must be finite, got -inf .* of 30"):
        ThresholdDetector(tophat, random_state=0).fit(X)


# -- PyOD's conventions ----------------------------------------------------------------------------


def test_the_example_runs(capsys):
    """It asserts that rankings and labels agree."""
    runpy.run_path(str(EXAMPLE))
    assert capsys.readouterr().out.count("flagged") == 2
