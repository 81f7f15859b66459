"""What comes in and what is said of it: names, widths, bad rows, thresholds."""

import copy
import inspect

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from skebm.energies import MLP
from skebm.exceptions import NormalizationWarning
from skebm.objectives import DenoisingScoreMatching
from tests import cases

pytestmark = cases.QUIET
X = cases.table()
NEW = cases.table(40, seed=1)
NAN, INF = X.copy(), X.copy()
NAN[:, 1], INF[3, 1] = np.nan, np.inf

TABLES = [
    (NAN, ValueError, "values in every column, got none in column 1"),
    (INF, ValueError, "infinity"),
    (X[:1], ValueError, "minimum of 2 is required"),
    (X[:0], ValueError, "minimum of 2 is required"),
    (X[:, :0], ValueError, "0 feature"),
    (X[0], ValueError, "Expected 2D array, got 1D"),
    (X[None], ValueError, "dim 3"),
    (X.astype(complex), ValueError, "Complex data not supported"),
    (
        np.array([["a", "b"], ["c", "d"]]),
        ValueError,
        r"X must hold numbers, got text in column 0 \('a'\)",
    ),
    (None, ValueError, "Expected 2D array"),
    (sparse.csr_matrix(X), TypeError, "[Ss]parse"),
]


@pytest.mark.parametrize(("bad", "error", "message"), TABLES, ids=lambda v: None)
@cases.each
def test_a_bad_table_is_refused(name, bad, error, message):
    with pytest.raises(error, match=message):
        cases.tiny(name).fit(bad)


@pytest.mark.parametrize("bad", [NAN, INF, X[0], X[:0]], ids=["nan", "inf", "1d", "empty"])
@cases.each_outlier_detector
def test_detectors_refuse_bad_tables(name, bad):
    with pytest.raises(ValueError, match="every col|NaN|infinity|2D array|minimum of|n_samples=0"):
        clone(cases.build(name)).fit(bad)


WIDE = {  # there is no base to draw from
    "NCEDensity": {"noise": "gaussian"},
    "EnergyDensity": {"objective": DenoisingScoreMatching()},
}
READS = ["score_samples", "decision_function", "predict"]
OWN_READS = ["score", "energy_samples", "score_function"]
BAD_ROWS = [
    (X[:, :1], "1 features?.*expecting 2"),
    (np.c_[X, X], "4 features.*expecting 2"),
    (INF, "infinity"),
    (X[0], "Expected 2D array"),
    (X[:0], "minimum of 1 is required"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS, ids=lambda v: None)
@cases.each_outlier_detector
def test_reads_refuse_bad_rows(name, rows, message):
    est = cases.detected(name)
    for read in READS + OWN_READS * hasattr(est, "energy_"):
        with pytest.raises(ValueError, match=message):
            getattr(est, read)(rows)


@cases.each_outlier_detector
def test_reads_need_a_fit(name):
    est = clone(cases.build(name))
    for read in READS + OWN_READS * hasattr(est, "energy") + ["p_value"] * hasattr(est, "p_value"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(est, read)(X)


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("5", TypeError), (None, TypeError)],
)
@cases.each
def test_draws_refuse_bad_numbers_and_need_a_fit(name, n, error):
    with pytest.raises(error, match=f"n_samples must be an integer >= 1, got {n!r}"):
        cases.fitted(name).sample(n)
    with pytest.raises(ValueError, match="'seed'"):
        cases.fitted(name).sample(3, random_state="seed")
    with pytest.raises(NotFittedError):
        cases.tiny(name).sample(3)


@cases.each_outlier_detector
def test_frames_give_names_and_guard_their_order(name):
    frame = pd.DataFrame(X, columns=["width", "height"])
    est = clone(cases.build(name)).fit(frame)
    assert list(est.feature_names_in_) == ["width", "height"] and est.n_features_in_ == 2
    with pytest.raises(ValueError, match="order|feature names"):
        est.score_samples(frame[["height", "width"]])
    with pytest.warns(UserWarning, match="valid feature names"):
        est.score_samples(X)
    assert not hasattr(cases.detected(name), "feature_names_in_")


# -- what is read ----------------------------------------------------------------------------------


@cases.each
def test_reads_agree_with_one_another(name):
    est = cases.fitted(name)
    scores = est.score_samples(NEW)
    assert scores.shape == (40,) and scores.dtype == np.float64
    assert est.score_samples(NEW.astype(np.float32)).dtype == np.float64
    assert est.score(NEW) == est.score(NEW, y=np.zeros(40)) == scores.mean()
    assert isinstance(est.score(NEW), float)
    assert est.energy_samples(NEW).shape == (40,) and est.energy_samples(NEW).std() > 0
    slope, step = est.score_function(NEW), 1e-3 * X.std(0)
    for j, e in enumerate(np.diag(step)):
        rise = est.score_samples(NEW + e) - est.score_samples(NEW - e)
        np.testing.assert_allclose(slope[:, j] * step[j], rise / 2, atol=2e-5, rtol=1e-2)
    assert est.sample().shape == (1, 2) and est.sample(7).dtype == np.float64
    assert est.history_[-1].keys() >= {"iteration"} and est.n_iter_ == 4


@cases.each_outlier_detector
def test_decisions_are_scores_above_the_offset(name):
    est = cases.detected(name)
    assert is_outlier_detector(est) and get_tags(est).estimator_type == "outlier_detector"
    assert not get_tags(est).target_tags.required
    above = est.decision_function(X)
    if name != "ConformalNoveltyDetector":
        np.testing.assert_array_equal(above, est.score_samples(X) - est.offset_)
    labels = est.predict(X)
    assert labels.dtype.kind == "i" and set(labels) <= {-1, 1}
    np.testing.assert_array_equal(labels == 1, above >= 0)
    assert est.predict(3e3 * X[:1])[0] == -1
    again = clone(cases.build(name)).fit_predict(X, np.arange(120))  # a target is ignored
    np.testing.assert_array_equal(again, labels)


@cases.each
def test_a_row_on_the_threshold_is_an_inlier(name):
    est = copy.deepcopy(cases.fitted(name))
    est.offset_ = float(est.score_samples(X[:1])[0])
    assert est.predict(X[:1])[0] == 1


@cases.each
def test_what_is_computed_from_a_fit_needs_one(name):
    properties = inspect.getmembers(
        type(cases.tiny(name)), lambda member: isinstance(member, property)
    )
    for attribute, _ in properties:
        if attribute.endswith("_") and not attribute.startswith("_"):
            with pytest.raises(NotFittedError):
                getattr(cases.tiny(name), attribute)


@cases.each_variant
def test_far_rows_are_outliers_with_finite_scores(name, variant):
    est = cases.fitted_as(name, variant)
    far = [[s * r, r] for r in (1e6, 1e30, 1e300, np.finfo(float).max) for s in (1, -1)]
    values = est.score_samples(far)
    assert np.isfinite(values).all() and (values < est.score_samples(X).min()).all()
    assert (est.predict(far) == -1).all()
    assert np.isfinite(est.energy_samples(far)).all()
    assert np.isfinite(est.score_function(far)).all()


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.3, 0.5])
@cases.each
def test_a_float_contamination_flags_exactly_that_share(name, contamination):
    labels = cases.tiny(name, contamination=contamination).fit(X).predict(X)
    assert (labels == -1).sum() == round(contamination * 120)


@pytest.mark.parametrize(("n", "most"), [(5, 1), (12, 1), (30, 2), (120, 6)])
@pytest.mark.filterwarnings("ignore:offset_ flags a new row")
@cases.each
def test_auto_contamination_flags_at_most_about_one_in_twenty_of_its_rows(name, n, most):
    assert (cases.tiny(name).fit(X[:n]).predict(X[:n]) == -1).sum() <= most


def test_unnormalized_scores_say_so():
    est = cases.fitted_as("HybridCDDensity", "unnormalized")
    assert repr(est).endswith("(unnormalized)") and est.log_partition_ is None
    assert "unnormalized" not in repr(cases.fitted("HybridCDDensity"))
    with pytest.warns(NormalizationWarning, match="log_partition=None"):
        assert est.score(NEW) == est.score_samples(NEW).mean()


@cases.each
def test_searches_over_pipelines_choose_by_score(name):
    pipeline = make_pipeline(StandardScaler(), cases.tiny(name))
    key = f"{name.lower()}__energy__hidden_sizes"
    search = GridSearchCV(pipeline, {key: [(4,), (6,)]}, cv=2, error_score="raise").fit(X)
    means = search.cv_results_["mean_test_score"]
    assert len(set(means)) == 2 and np.isfinite(means).all()
    best = search.best_estimator_
    assert best[-1].energy.hidden_sizes == [(4,), (6,)][int(means.argmax())]
    assert search.score(X) == best.score_samples(X).mean()


@cases.each
def test_a_model_is_never_worse_than_its_base(name):
    """Rows that a Gaussian fits exactly: held-out rows keep the energy from harm."""
    rows, new = (np.random.RandomState(s).randn(400, 2) for s in (0, 99))
    params = {"validation_fraction": 0.2, "learning_rate": 0.05, **cases.lasting(name, 50)}
    est = cases.tiny(name, **params).fit(rows)
    gain, stderr = est.validation_gain_
    assert gain > stderr or (gain == 0 and not est.energy_samples(new).any())
    assert est.score(new) > GaussianMixture().fit(rows).score(new) - 0.05


@pytest.mark.parametrize("n", [2, 5, 19])
@pytest.mark.filterwarnings("ignore:offset_ flags a new row")
@cases.each
def test_few_rows_leave_the_base(name, n):
    est = cases.tiny(name, validation_fraction=0.1, data_noise=0.1).fit(X[:n])
    assert not est.energy_samples(X).any() and est.validation_gain_ == (0, 0)
    assert np.isfinite(est.score_samples(X)).all() and est.sample(3).shape == (3, 2)


@cases.each
def test_wide_tables_without_a_base_are_drawn(name):
    rows = np.random.RandomState(0).randn(60, 33)
    energy = MLP((8,), n_frequencies=0, output="quadratic")
    est = cases.tiny(name, base=None, energy=energy, log_partition=None, **WIDE.get(name, {}))
    draws = est.fit(rows).sample(5)
    assert draws.shape == (5, 33) and np.isfinite(draws).all() and np.ptp(draws) > 0
