"""Detectors by neighbors, and what adds them up."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm, rankdata
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from skebm import NCEDensity
from skebm.exceptions import CalibrationWarning
from skebm.ood import (
    ConformalNoveltyDetector,
    KernelScoreDetector,
    LocalMahalanobisDetector,
    NeighborDistanceDetector,
    NoveltyDetector,
    feature_contributions,
)
from skebm.ood import _members as members
from skebm.ood.kernel_score import GRID
from skebm.ood.novelty import LOCAL
from tests.cases import QUIET
from tests.closed_forms import assert_mean

pytestmark = QUIET
each = pytest.mark.parametrize("cls", LOCAL)
SMALL = NCEDensity(max_iter=2)


def normal(n, d=3, seed=0):
    return np.random.RandomState(seed).normal(size=(n, d)) * [1, 50, 0.1][:d] + 7


def standard(X, Y):
    return (Y - X.mean(0)) / X.std(0)


# -- members against plain sums --------------------------------------------------------------------


def kernel_scores(rows, x, h):
    weight = np.exp(-((rows - x) ** 2).sum(1) / (2 * h**2))
    return -np.linalg.norm(x - weight @ rows / weight.sum()) / h


def neighbor_scores(rows, x, k):
    return -np.sort(np.linalg.norm(rows - x, axis=1))[k - 1]


def doubled(X, Z, z):
    """Standardized rows, and normal quantiles of their ranks, which go on in straight lines."""
    out = []
    for j in range(Z.shape[1]):
        scores = norm.ppf((rankdata(Z[:, j]) - 0.5) / len(Z))
        scores = (scores - scores.mean()) / scores.std()
        order = np.argsort(Z[:, j])
        low, high = np.quantile(Z[:, j], [0.1, 0.9])
        beyond = z[:, j] - z[:, j].clip(Z[:, j].min(), Z[:, j].max())
        inside = np.interp(z[:, j], Z[order, j], scores[order])
        out.append(inside + beyond * (norm.ppf(0.9) - norm.ppf(0.1)) / (high - low))
    return np.concatenate([z, np.stack(out, 1)], 1) / 2**0.5


def local_scores(rows, x, k, a):
    near = rows[np.argsort(np.linalg.norm(rows - x, axis=1))[:k]]
    S = np.cov(near.T, bias=True)
    d = len(S)
    S = (1 - a) * S + (a * np.trace(S) / d + 1e-3) * np.eye(d)
    v = x - near.mean(0)
    return -((v @ np.linalg.solve(S, v)) ** 0.5)


def test_kernel_scores_are_those_of_the_sum():
    X, Y = normal(60), normal(7, seed=1)
    detector = KernelScoreDetector(0.5).fit(X)
    Z = standard(X, X)
    truth = [kernel_scores(Z, z, 0.5) for z in standard(X, Y)]
    assert_allclose(detector.score_samples(Y), truth, rtol=1e-9)
    left_out = [kernel_scores(np.delete(Z, i, 0), Z[i], 0.5) for i in range(60)]
    assert_allclose(detector.unseen_scores_, left_out, rtol=1e-9)


def test_the_bandwidth_is_the_likeliest_of_rows_that_are_left_out():
    X = np.concatenate([normal(60), normal(60) + np.array([6, 0, 0])])
    Z = torch.from_numpy(standard(X, X))
    square = torch.cdist(Z, Z).square().fill_diagonal_(np.inf)
    value = [(-square / (2 * h**2)).logsumexp(1).mean() - 3 * np.log(h) for h in GRID]
    assert KernelScoreDetector().fit(X).bandwidth_ == GRID[int(np.argmax(value))]


def test_neighbor_distances_are_those_of_the_sorted_rows():
    X, Y = normal(60), normal(7, seed=1)
    detector = NeighborDistanceDetector(3).fit(X)
    Z = standard(X, X)
    truth = [neighbor_scores(Z, z, 3) for z in standard(X, Y)]
    assert_allclose(detector.score_samples(Y), truth, rtol=1e-9)
    left_out = [neighbor_scores(np.delete(Z, i, 0), Z[i], 3) for i in range(60)]
    assert_allclose(detector.unseen_scores_, left_out, rtol=1e-9)


@pytest.mark.parametrize(("k", "shrinkage"), [(20, 0.3), (3, 0.3), (12, 1.0), (12, 0.0)])
def test_local_distances_are_those_of_the_shrunk_covariance(k, shrinkage):
    X, Y = normal(90), normal(7, seed=1)
    Y[0] *= 3
    detector = LocalMahalanobisDetector(k, shrinkage=shrinkage).fit(X)
    Z, z = standard(X, X), standard(X, Y)
    places, at = doubled(X, Z, Z), doubled(X, Z, z)
    truth = [local_scores(places, row, k, shrinkage) for row in at]
    assert_allclose(detector.score_samples(Y), truth, rtol=1e-6)
    left_out = [local_scores(np.delete(places, i, 0), places[i], k, shrinkage) for i in range(90)]
    assert_allclose(detector.unseen_scores_, left_out, rtol=1e-6)


# -- what members have in common -------------------------------------------------------------------


@each
@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
def test_scikit_learns_checks_pass(cls):
    check_estimator(cls(alpha=0.1), on_skip=None)


@each
def test_units_constant_columns_and_blocks_do_not_matter(cls, monkeypatch):
    X, Y = normal(80), normal(9, seed=1)
    one = cls().fit(X)
    two = cls().fit(1e-3 * X - 5)
    assert_allclose(two.score_samples(1e-3 * Y - 5), one.score_samples(Y), rtol=1e-7)
    flat = np.column_stack([X, np.full(80, 0.1)])
    odd = np.column_stack([Y, np.full(9, 8.0)])
    assert_allclose(cls().fit(flat).score_samples(odd), one.score_samples(Y), rtol=1e-9)
    monkeypatch.setattr(members, "BLOCK_VALUES", 200)
    assert_allclose(one.score_samples(Y), cls().fit(X).score_samples(Y), rtol=1e-12)


@each
def test_the_threshold_flags_a_share_of_new_rows(cls):
    rates = []
    for seed in range(30):
        detector = cls(alpha=0.1).fit(normal(150, seed=seed))
        rates.append((detector.predict(normal(500, seed=1000 + seed)) == -1).mean())
    assert_mean(np.array(rates), 0.1, 0.008)


@each
def test_many_rows_are_thinned_and_few_are_enough(cls, monkeypatch):
    monkeypatch.setattr(members, "MOST_ROWS", 50)
    detector = cls(random_state=0).fit(normal(200))
    assert len(detector.rows_) == 50 and len(detector.unseen_scores_) == 50
    other = cls(random_state=1).fit(normal(200))
    assert not np.array_equal(other.rows_, detector.rows_)
    with pytest.warns(CalibrationWarning):
        few = cls().fit(normal(3))
    assert np.isfinite(few.score_samples(normal(4, seed=1))).all()
    with pytest.warns(CalibrationWarning):
        assert np.isfinite(cls().fit(np.ones((5, 2))).score_samples([[1, 1], [2, 2]])).all()


@each
def test_a_file_keeps_it(cls, tmp_path):
    detector = cls().fit(normal(60))
    detector.save(tmp_path / "detector")
    scores = (
        d.score_samples(normal(9, seed=1)) for d in (detector, cls.load(tmp_path / "detector"))
    )
    assert_allclose(*scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("detector", "error", "message"),
    [
        (KernelScoreDetector(0.0), ValueError, "bandwidth must be .* got 0.0. Or use 'auto'"),
        (KernelScoreDetector("wide"), TypeError, "bandwidth must be .* got 'wide'"),
        (NeighborDistanceDetector(0), ValueError, "n_neighbors must be .* got 0"),
        (LocalMahalanobisDetector(2.5), TypeError, "n_neighbors must be .* got 2.5"),
        (LocalMahalanobisDetector(shrinkage=1.5), ValueError, "shrinkage must be .* got 1.5"),
        (NeighborDistanceDetector(alpha=0.7), ValueError, "alpha must be .* got 0.7"),
        (NoveltyDetector(SMALL, alpha=0), ValueError, "alpha must be .* got 0"),
        (NoveltyDetector(SMALL, contamination=0.7), ValueError, "contamination .* got 0.7"),
        (NoveltyDetector(SMALL, contamination="auto"), TypeError, "contamination .* got 'auto'"),
        (NoveltyDetector(3), TypeError, "estimator must"),
    ],
)
def test_unfit_parameters_are_refused_at_fit(detector, error, message):
    with pytest.raises(error, match=message):
        detector.fit(normal(40))


# -- the sum ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector():
    return NoveltyDetector(SMALL, random_state=0).fit(normal(200))


@pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning")
def test_scikit_learns_checks_pass_of_the_sum():
    check_estimator(NoveltyDetector(GaussianMixture(reg_covar=1e-3), alpha=0.1), on_skip=None)


def test_the_score_is_the_sum_of_members_in_units_of_their_spread(detector):
    Y = normal(9, seed=1)
    total = np.zeros(9)
    for member, (middle, low) in zip(detector.members_, detector.quantiles_, strict=True):
        total += (member.score_samples(Y) - middle) / (middle - low)
        if hasattr(member, "unseen_scores_"):
            assert_allclose(np.quantile(member.unseen_scores_, [0.5, 0.01]), [middle, low])
    assert_allclose(detector.score_samples(Y), total, rtol=1e-9)
    assert [type(m).__name__ for m in detector.members_][-1] == "NCEDensity"
    assert_allclose(detector.decision_function(Y), total - detector.offset_, rtol=1e-9)


def test_the_density_counts_as_if_its_base_had_not_seen_the_row():
    X = normal(120)
    detector = NoveltyDetector(NCEDensity(max_iter=1, validation_fraction=0), random_state=0).fit(X)
    density = detector.members_[-1]
    z, base = density.density_.standardized(X), density.base_
    gained = (base.log_prob(z) - base.log_prob_left_out(z, None)).double().numpy()
    assert gained.mean() > 0.1
    unseen = density.score_samples(X) - gained.clip(0)
    assert_allclose(detector.quantiles_[-1], np.quantile(unseen, [0.5, 0.01]), rtol=1e-4)


def test_p_values_count_unseen_scores(detector):
    Y = normal(50, seed=1)
    score = detector.score_samples(Y)
    truth = [(1 + (detector.unseen_scores_ <= s).sum()) / 201 for s in score]
    assert_allclose(detector.p_value(Y), truth)
    flagged = detector.predict(Y) == -1
    assert (detector.p_value(Y)[flagged] <= 0.05 + 1 / 201).all()


def test_a_new_normal_row_is_flagged_as_often_as_was_asked():
    rates = []
    for seed in range(25):
        detector = NoveltyDetector(GaussianMixture(), alpha=0.1, random_state=0)
        detector.fit(normal(150, seed=seed))
        rates.append((detector.predict(normal(400, seed=1000 + seed)) == -1).mean())
    assert_mean(np.array(rates), 0.1, 0.01)


def test_conformal_ranks_of_it_are_exact():
    p = []
    for seed in range(20):
        X = normal(130, seed=seed)  # 39 calibrate
        conformal = ConformalNoveltyDetector(
            NoveltyDetector(GaussianMixture()), alpha=0.1, random_state=seed
        ).fit(X)
        p.append((conformal.predict(normal(300, seed=1000 + seed)) == -1).mean())
    assert_mean(np.array(p), 0.1, 0.02)


def dirty(seed=0, share=0.1):
    """Normal rows with scattered novelties among them, then new ones of both kinds."""
    rng = np.random.RandomState(seed)
    n = round(300 * share)
    odd = rng.normal(size=(n + 60, 3)) * 4
    X = np.concatenate([rng.normal(size=(300 - n, 3)), odd[:n]])
    return X, np.concatenate([rng.normal(size=(200, 3)), odd[n:]]), np.arange(260) >= 200


def test_contamination_leaves_out_the_strangest_rows():
    X, Y, is_odd = dirty()
    area = {}
    for share in (0.0, 0.15):
        fitted = NoveltyDetector(GaussianMixture(), contamination=share, random_state=0).fit(X)
        area[share] = roc_auc_score(is_odd, -fitted.score_samples(Y))
        assert len(fitted.kept_) == 300 - round(300 * share)
        if share:
            assert (fitted.predict(X) == -1).sum() == round(300 * share)
    assert area[0.15] >= area[0.0]
    one = np.concatenate([normal(99), [[900, 900, 900]]])
    kept = NoveltyDetector(GaussianMixture(), contamination=0.01, random_state=0).fit(one).kept_
    assert_array_equal(kept, np.arange(99))


def test_weights_count_rows():
    X = np.concatenate([normal(100), normal(100) + np.array([9, 0, 0])])
    weight = np.repeat([1.0, 0.0], 100)
    detector = NoveltyDetector(SMALL, random_state=0).fit(X, sample_weight=weight)
    assert detector.score_samples(X[100:]).max() < detector.score_samples(X[:100]).min()
    uneven = np.repeat([1.0, 0.05], 100)
    one, two = (
        NoveltyDetector(SMALL, random_state=0).fit(X, sample_weight=w) for w in (None, uneven)
    )
    middle = [detector.members_[2].location_[0] for detector in (one, two)]
    assert middle[0] == pytest.approx(11.5, abs=0.5) and middle[1] < 8
    gap = [d.score_samples(X[:100]).mean() - d.score_samples(X[100:]).mean() for d in (one, two)]
    assert gap[1] > gap[0] + 0.5


def test_contributions_name_the_odd_column(detector):
    rows = np.tile(normal(200).mean(0), (3, 1)) + np.diag([6, 300, 0.6])
    for method in ("conditional", "mode"):
        found = detector.contributions(rows, method=method)
        assert found.shape == (3, 3) and (found.argmax(1) == [0, 1, 2]).all()
    assert_allclose(
        detector.contributions(rows),
        feature_contributions(detector, rows, reference=detector._reference),
    )


def test_a_seed_settles_all_and_frames_are_held_to():
    frame = pd.DataFrame(normal(80), columns=["a", "b", "c"])
    one, two = (NoveltyDetector(SMALL, random_state=3).fit(frame) for _ in range(2))
    assert_array_equal(one.score_samples(frame), two.score_samples(frame))
    assert list(one.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        one.predict(frame[["b", "a", "c"]])
    assert clone(one).estimator is not one.estimator


def test_a_file_keeps_all(tmp_path, detector):
    detector.save(tmp_path / "novelty")
    other = NoveltyDetector.load(tmp_path / "novelty")
    Y = normal(9, seed=1)
    assert_allclose(other.score_samples(Y), detector.score_samples(Y), rtol=1e-12, atol=1e-12)
    assert_array_equal(other.p_value(Y), detector.p_value(Y))


def test_the_default_density_is_nce_and_others_may_have_no_base():
    assert NoveltyDetector().inside("estimator").__class__ is NCEDensity
    fitted = NoveltyDetector(make_pipeline(StandardScaler(), KernelDensity()), random_state=0).fit(
        normal(60)
    )
    assert fitted.predict([[7, 7, 7], [70, 7, 7]]).tolist() == [1, -1]


def test_equal_scores_of_a_member_add_nothing():
    X = np.repeat(normal(6), 20, axis=0)  # every row has copies: the fifth neighbor is one
    detector = NoveltyDetector(GaussianMixture(reg_covar=1e-2), random_state=0).fit(X)
    assert np.isfinite(detector.score_samples(np.concatenate([X, normal(3, seed=1)]))).all()
