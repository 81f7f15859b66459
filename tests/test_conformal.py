"""Conformal p-values against hand counts, and their guarantees over a thousand draws."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from sklearn.base import BaseEstimator, clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, train_test_split
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm.exceptions import CalibrationWarning
from skebm.ood import ConformalNoveltyDetector
from tests.closed_forms import assert_estimate, assert_mean

N_DRAWS = 1000


class FirstColumn(BaseEstimator):
    """Scores a row by its first column, rounded down to a multiple of ``step`` if there is one."""

    def __init__(self, step=None):
        self.step = step

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def score_samples(self, X):
        first = np.asarray(X, dtype=float)[:, 0]
        return first if self.step is None else self.step * np.floor(first / self.step)


class FittedNormal(FirstColumn):
    """The square distance to the mean in standard deviations, with the sign turned."""

    def fit(self, X, y=None):
        self.mean_, self.scale_ = X.mean(axis=0), X.std(axis=0)
        return super().fit(X)

    def score_samples(self, X):
        return -(((X - self.mean_) / self.scale_) ** 2).sum(axis=1)


class Returns(FirstColumn):
    """Returns one value for all rows."""

    def score_samples(self, X):
        return np.full(len(X), self.step)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def prefitted(calibration, *, step=None, **params):
    model = FirstColumn(step).fit(calibration)
    return ConformalNoveltyDetector(model, prefit=True, **params).fit(calibration)


def normal(n, d=2, seed=0):
    return np.random.RandomState(seed).randn(n, d)


# -- p-values by hand ------------------------------------------------------------------------------


def test_p_values_are_the_counts_by_hand():
    detector = prefitted(column(2, 1, 3, 2), alpha=0.3)
    p = detector.p_value(column(0.5, 1, 1.5, 2, 2.5, 3, 4))
    np.testing.assert_array_equal(p, np.array([1, 2, 2, 4, 4, 5, 5]) / 5)
    np.testing.assert_array_equal(detector.calibration_scores_, [1, 2, 2, 3])
    assert (detector.n_calibration_, detector.n_features_in_) == (4, 1)


def test_random_ties_share_the_tied_scores_and_the_row():
    detector = prefitted(column(2, 1, 3, 2), alpha=0.3, ties="random", random_state=0)
    rows = np.repeat(column(0.5, 1, 2, 4), 2000, axis=0)
    p = 5 * detector.p_value(rows).reshape(4, 2000)
    low, high = np.array([0, 0, 1, 4]), np.array([1, 2, 4, 5])
    for values, a, b in zip(p, low, high, strict=True):
        assert kstest(values, "uniform", args=(a, b - a)).pvalue > 1e-4


def test_weighted_p_values_are_the_sums_by_hand():
    detector = prefitted(column(2, 1, 3, 2), alpha=0.3, weight=first_column)
    p = detector.p_value(column(0.5, 1, 2, 2.5, 4))
    truth = [0.5 / 8.5, (1 + 1) / 9, (1 + 4 + 2) / 10, (5 + 2.5) / 10.5, 1]
    np.testing.assert_allclose(p, truth, rtol=1e-15)
    assert detector.offset_ == 0.3


def first_column(X):
    return np.asarray(X)[:, 0]


def test_equal_weights_change_nothing():
    X, new = normal(60), normal(40, seed=1)
    plain = ConformalNoveltyDetector(GaussianMixture(), alpha=0.1, random_state=0)
    weighted = clone(plain).set_params(weight=all_three)
    p = plain.fit(X).p_value(new)
    np.testing.assert_allclose(weighted.fit(X).p_value(new), p, rtol=1e-14)


def all_three(X):
    return np.full(len(X), 3.0)


def test_a_split_is_that_of_train_test_split():
    X, new = normal(80), normal(30, seed=1)
    detector = ConformalNoveltyDetector(KernelDensity(), alpha=0.1, random_state=3).fit(X)
    train, held_out = train_test_split(X, test_size=0.3, random_state=3)
    model = KernelDensity().fit(train)
    scores = model.score_samples(held_out)
    np.testing.assert_array_equal(detector.calibration_scores_, np.sort(scores))
    counts = (scores[:, None] <= model.score_samples(new)).sum(axis=0)
    np.testing.assert_array_equal(detector.p_value(new), (1 + counts) / 25)
    np.testing.assert_array_equal(detector.score_samples(new), model.score_samples(new))


def test_cross_conformal_p_values_are_the_pooled_counts():
    X, new = normal(31), normal(30, seed=1)
    detector = ConformalNoveltyDetector(KernelDensity(), alpha=0.1, cv=3, random_state=5).fit(X)
    counts, scores = np.zeros(30), []
    for train, held_out in KFold(3, shuffle=True, random_state=5).split(X):
        model = KernelDensity().fit(X[train])
        scores.append(model.score_samples(new))
        counts += (model.score_samples(X[held_out])[:, None] <= scores[-1]).sum(axis=0)
    np.testing.assert_array_equal(detector.p_value(new), (1 + counts) / 32)
    np.testing.assert_allclose(detector.score_samples(new), np.mean(scores, axis=0), rtol=1e-14)
    assert [len(s) for s in detector.calibration_scores_] == [11, 10, 10]
    assert len(detector.estimators_) == 3 and detector.estimator_ is None
    assert detector.n_calibration_ == 31


# -- one rule, three readings ----------------------------------------------------------------------


VARIANTS = {
    "split": {},
    "random": {"ties": "random"},
    "weight": {"weight": all_three},
    "cv": {"cv": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.15, 0.3, 0.7, 1 / 3, 0.999])
def test_the_readings_agree_at_every_level_and_size(variant, alpha):
    grid = np.arange(-50, 1050)[:, None] / 1000
    for n in sorted({max(4, int(np.ceil(1 / alpha))), 19, 20, 29, 39, 99, 100}):
        if n < 1 / alpha:
            continue
        X = np.random.RandomState(n).uniform(size=(n, 1)).round(2)  # ties
        params = {"prefit": "cv" not in VARIANTS[variant], **VARIANTS[variant]}
        detector = ConformalNoveltyDetector(
            FirstColumn().fit(X), alpha=alpha, random_state=0, **params
        ).fit(X)
        is_novel = detector.p_value(grid) <= alpha
        np.testing.assert_array_equal(detector.predict(grid) == -1, is_novel)
        np.testing.assert_array_equal(detector.decision_function(grid) < 0, is_novel)
        assert is_novel.any() and not is_novel.all()


@pytest.mark.parametrize("n, alpha, k", [(20, 0.05, 1), (39, 0.05, 2), (99, 0.3, 30), (9, 0.7, 7)])
def test_the_threshold_is_the_kth_smallest_score(n, alpha, k):
    detector = prefitted(column(*range(1, n + 1)), alpha=alpha)
    assert detector.offset_ == k  # 0.3 * 100 and 0.7 * 10 are not whole in floating point
    np.testing.assert_array_equal(detector.decision_function(column(k - 0.5, k)), [-0.5, 0])
    np.testing.assert_array_equal(detector.predict(column(k - 0.5, k)), [-1, 1])


def test_a_p_value_at_alpha_is_a_novelty_for_every_rule():
    detector = prefitted(column(*range(1, 20), 20), alpha=2 / 21, weight=all_three)
    assert detector.p_value(column(1.5)) == detector.offset_  # 2 / 21
    assert -1e-300 < detector.decision_function(column(1.5))[0] < 0
    assert detector.predict(column(1.5)) == -1


def test_log_densities_of_minus_infinity_are_novelties():
    X = np.linspace(0, 1, 200)[:, None]
    box = KernelDensity(kernel="tophat", bandwidth=0.1)
    detector = ConformalNoveltyDetector(box, random_state=0).fit(X)
    np.testing.assert_array_equal(detector.decision_function(column(9)), -np.inf)
    np.testing.assert_array_equal(detector.p_value(column(9)), 1 / 61)
    narrow = box.set_params(bandwidth=0.006)  # rows without a neighbor that trains have density 0
    detector = ConformalNoveltyDetector(narrow, random_state=0).fit(X)
    assert detector.offset_ == -np.inf
    assert detector.calibration_scores_.max() > -np.inf
    np.testing.assert_array_equal(detector.decision_function(column(9)), 0)
    assert detector.predict(column(9)) == 1
    assert detector.p_value(column(9)) > 0.05


def test_selection_is_benjamini_hochberg_by_hand():
    detector = prefitted(column(*range(1, 100)), alpha=0.05)
    rows = column(0, 0, 2.5, 3.5, 40, 60, 70, 80, 90, 95)  # p = 1, 1, 3, 4, 41, ... of 100
    np.testing.assert_array_equal(np.flatnonzero(detector.select(rows, fdr=0.1)), [0, 1, 2, 3])
    np.testing.assert_array_equal(np.flatnonzero(detector.select(rows, fdr=0.05)), [0, 1])
    with pytest.warns(CalibrationWarning, match="at least 124 to select the 2 "):
        assert not detector.select(rows, fdr=0.04).any()
    labels = detector.predict(rows, fdr=0.1)
    np.testing.assert_array_equal(labels, [-1] * 4 + [1] * 6)
    assert labels.dtype.kind == "i"


@pytest.mark.filterwarnings("ignore:n_calibration_ must be at least")
def test_p_values_on_the_line_are_selected_whatever_their_rounding():
    detector = prefitted(column(*range(1, 100)), alpha=0.05)
    for j in range(1, 100):
        for m in (3, 7, 10):
            if j * m < 100:
                rows = column(j - 0.5, *[200] * (m - 1))  # one p-value j / 100, the others 1
                assert detector.select(rows, fdr=j * m / 100)[0]
                assert not detector.select(rows, fdr=0.999 * j * m / 100)[0]


# -- guarantees over draws -------------------------------------------------------------------------


def rates(draw, n_draws=N_DRAWS, n_new=50):
    """Share of novelties among new rows in each of independent draws of (calibration, new)."""
    rng = np.random.RandomState(0)
    return np.array([np.mean(draw(rng, n_new)) for _ in range(n_draws)])


@pytest.mark.parametrize("n, alpha", [(99, 0.05), (45, 0.1)])
def test_the_false_alarm_rate_is_k_over_n_plus_1(n, alpha):
    def draw(rng, n_new):
        detector = prefitted(rng.randn(n, 1), alpha=alpha)
        return detector.predict(rng.randn(n_new, 1)) == -1

    values = rates(draw)
    truth = np.floor(alpha * (n + 1) + 1e-9) / (n + 1)
    assert alpha - 1 / (n + 1) < truth <= alpha + 1e-12
    assert_mean(values, truth, largest_stderr=0.0025)


def test_a_poor_fit_keeps_the_rate():
    def draw(rng, n_new):
        detector = ConformalNoveltyDetector(
            FittedNormal(), alpha=0.2, calibration_fraction=0.5, random_state=rng
        ).fit(rng.randn(18, 4))  # 9 rows train: their own scores would be far too high
        return detector.predict(rng.randn(n_new, 4)) == -1

    assert_mean(rates(draw, 500), 0.2, largest_stderr=0.007)


def test_random_ties_make_p_values_uniform_on_few_valued_scores():
    rng, p = np.random.RandomState(0), []
    for _ in range(500):
        detector = prefitted(rng.randn(9, 1), step=1.0, alpha=0.2, ties="random", random_state=rng)
        p.append(detector.p_value(rng.randn(20, 1)))
    assert_mean(np.mean(p, axis=1), 0.5, largest_stderr=0.01)
    for level in (0.1, 0.25, 0.5, 0.9):
        assert_mean(np.mean(np.array(p) <= level, axis=1), level, largest_stderr=0.01)


def test_conservative_ties_stay_below_the_level_on_few_valued_scores():
    def draw(rng, n_new):
        detector = prefitted(rng.randn(39, 1), step=1.0, alpha=0.2)
        return detector.predict(rng.randn(n_new, 1)) == -1

    assert 0.02 < rates(draw, 200).mean() < 0.2


def density_ratio(X):
    """N(-1, 1) over N(0, 1), up to a factor."""
    return np.exp(-X[:, 0])


def test_weights_hold_the_rate_where_rows_have_moved():
    def draw(weight, ties):
        def novelties(rng, n_new):
            params = {"alpha": 0.1, "weight": weight, "ties": ties, "random_state": rng}
            detector = prefitted(rng.randn(60, 1), **params)
            return detector.predict(rng.randn(n_new, 1) - 1) == -1

        return novelties

    assert rates(draw(None, "conservative"), 100).mean() > 0.3
    weighted = rates(draw(density_ratio, "conservative"), 500)
    stderr = weighted.std() / np.sqrt(500)
    assert stderr < 0.005
    assert 0.02 < weighted.mean() <= 0.1 + 4 * stderr
    assert_mean(rates(draw(density_ratio, "random"), 500), 0.1, largest_stderr=0.008)  # exact


def test_selection_holds_the_false_discovery_rate():
    rng = np.random.RandomState(0)
    fdp, power = np.zeros(N_DRAWS), np.zeros(N_DRAWS)
    for i in range(N_DRAWS):
        detector = prefitted(rng.randn(199, 1), alpha=0.05)
        batch = rng.randn(40, 1)
        batch[30:] -= 3
        chosen = detector.select(batch, fdr=0.2)
        fdp[i] = chosen[:30].sum() / max(chosen.sum(), 1)
        power[i] = chosen[30:].mean()
    stderr = fdp.std() / np.sqrt(N_DRAWS)
    assert stderr < 0.006
    assert 0.1 < fdp.mean() <= 0.2 + 4 * stderr
    assert power.mean() > 0.5
    assert_estimate(fdp.mean(), stderr, 0.2 * 30 / 40, 0.006)  # BH's rate, times the normal share


def test_cross_conformal_rate_is_near_its_level():
    def draw(rng, n_new):
        detector = ConformalNoveltyDetector(FittedNormal(), alpha=0.1, cv=3, random_state=rng)
        return detector.fit(rng.randn(39, 2)).predict(rng.randn(n_new, 2)) == -1

    values = rates(draw, 400)
    stderr = values.std() / np.sqrt(400)
    assert stderr < 0.0035
    assert values.mean() <= 2 * 0.1 + 4 * stderr
    assert abs(values.mean() - 0.1) <= 0.004 + 4 * stderr


# -- weights and calls -----------------------------------------------------------------------------


def test_weights_see_data_frames_as_they_are():
    frame = pd.DataFrame(normal(60), columns=["a", "b"])
    named = prefitted(frame, alpha=0.1, weight=norm_of_named)
    plain = prefitted(frame.to_numpy(), alpha=0.1, weight=row_norm)
    np.testing.assert_array_equal(named.p_value(frame), plain.p_value(frame.to_numpy()))


def norm_of_named(X):
    return np.sqrt(X["a"] ** 2 + X["b"] ** 2)


def row_norm(X):
    return np.sqrt((X**2).sum(axis=1))


def test_a_pipeline_passes_the_false_discovery_rate_on():
    pipeline = make_pipeline(
        StandardScaler(), ConformalNoveltyDetector(GaussianMixture(), random_state=0)
    ).fit(100 * normal(200))
    np.testing.assert_array_equal(pipeline.predict([[0, 0], [900, 900]], fdr=0.2), [1, -1])


def test_random_ties_are_those_of_the_seed():
    X, new = normal(60), normal(20, seed=1)
    first, second, other = (
        prefitted(X, step=1.0, alpha=0.1, ties="random", random_state=seed).p_value(new)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


# -- errors ----------------------------------------------------------------------------------------


def nothing(X):
    return np.zeros(len(X))


BAD_PARAMETERS = [
    ({"alpha": 0.0}, ValueError, r"alpha must be in \(0, 1\), got 0.0."),
    ({"alpha": 1}, ValueError, r"alpha must be in \(0, 1\), got 1."),
    ({"alpha": np.nan}, ValueError, r"alpha must be in \(0, 1\), got nan."),
    ({"alpha": "5 %"}, TypeError, "alpha must be a number in .*got '5 %'."),
    ({"calibration_fraction": 0}, ValueError, "calibration_fraction .*got 0."),
    ({"calibration_fraction": 1.0}, ValueError, "calibration_fraction .*got 1.0."),
    (
        {"calibration_fraction": 0.999},
        ValueError,
        "calibration_fraction must leave rows to train, got 0.999 of 60",
    ),
    ({"cv": 1}, ValueError, "cv must be an integer >= 2, got 1."),
    ({"cv": 2.5}, TypeError, "cv must be an integer >= 2, got 2.5."),
    ({"cv": 5, "prefit": True}, ValueError, "cv must be None .*got 5."),
    ({"prefit": "yes"}, ValueError, "prefit must be one of .*got 'yes'."),
    ({"ties": "mid"}, ValueError, "ties must be one of .*'random'.*got 'mid'."),
    ({"weight": 2.0}, TypeError, "weight must be a function .*got 2.0."),
    ({"weight": np.asarray}, ValueError, r"weight must be of shape \(18,\), got shape \(18, 2\)."),
    ({"weight": first_column}, ValueError, r"weight must be at least 0, got \d+ of 18 "),
    ({"weight": nothing}, ValueError, "above 0 .*got 0 for all 18."),
    ({"alpha": 0.05}, ValueError, "1 / alpha = 20, got 18 .of 60 rows"),
    (
        {"alpha": 0.01},
        ValueError,
        "at least 1 / alpha = 100, got 18 .*more rows, or a larger calibration_fraction or alpha",
    ),
    (
        {"alpha": 0.01, "cv": 5},
        ValueError,
        "at least 1 / alpha = 100, got 60 .*more rows, or a larger alpha",
    ),
    (
        {"estimator": LocalOutlierFactor()},
        TypeError,
        "estimator must have score_samples, got LocalOutlierFactor.",
    ),
    (
        {"estimator": Returns(-2.5)},
        ValueError,
        "calibration scores must differ, got 18 times -2.5. Set ties='random'",
    ),
    (
        {"estimator": Returns(-2.5), "cv": 3},
        ValueError,
        "calibration scores must differ, got 60 times -2.5.",
    ),
]


@pytest.mark.parametrize(("params", "error", "message"), BAD_PARAMETERS)
def test_unfit_parameters_are_named(params, error, message):
    params = {"estimator": KernelDensity(), "alpha": 0.1, "random_state": 0, **params}
    detector = ConformalNoveltyDetector(**params)
    with pytest.raises(error, match=message):
        detector.fit(normal(60))


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.1, np.nan])
def test_an_unfit_false_discovery_rate_is_named(fdr):
    detector = prefitted(normal(30))
    for read in (detector.predict, detector.select):
        with pytest.raises(ValueError, match=rf"fdr must be in \(0, 1\), got {fdr}."):
            read(normal(5), fdr=fdr)
    with pytest.raises(TypeError, match="fdr must be a number"):
        detector.select(normal(5), fdr=None)


def test_constant_scores_with_random_ties_tell_nothing_and_hold():
    detector = ConformalNoveltyDetector(Returns(1.0), ties="random", random_state=0)
    p = detector.fit(normal(100)).p_value(normal(4000, seed=1))
    assert kstest(p, "uniform").pvalue > 1e-4
