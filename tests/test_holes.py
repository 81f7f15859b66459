"""Rows with missing values: marginals, conditionals, fits and imputation against closed forms."""

import copy
import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from scipy.stats import t as student
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skebm import HybridCDDensity, NCEDensity, SteinEBM, USPDensity
from skebm.bases import Gaussian, Kernel, Mixture, ProbabilisticPCA, TorchDistribution, Uniform
from skebm.bases._conditional import Conditionals
from skebm.bases.tails import fit_defended
from skebm.data import Originals
from skebm.data.table import CompletedTable
from skebm.energies import MLP
from skebm.estimators._completion import complete
from skebm.exceptions import DataDegeneracyWarning
from skebm.fitted import holes as holes_module
from skebm.fitted.holes import N_DRAWS
from skebm.impute import DensityImputer
from skebm.ood import ConformalNoveltyDetector, NoveltyDetector, ThresholdDetector
from skebm.plots import ConditionalDisplay
from tests.cases import QUIET
from tests.closed_forms import assert_mean
from tests.generators import gen

pytestmark = QUIET
BASES = {
    "gaussian": Gaussian(),
    "mixture": Mixture(n_components=3),
    "union": Mixture(n_components=2, n_folds=3),
    "kernel": Kernel(),
    "principal": ProbabilisticPCA(n_components=2),
}
each_base = pytest.mark.parametrize("name", BASES)
defended = pytest.mark.parametrize("tails", [False, True], ids=["plain", "tails"])


def dependent(n, seed=0, d=4):
    x = torch.randn(n, d, generator=gen(seed)).cumsum(1)
    x[:, 1] += 3 * (torch.arange(n) % 2)
    return x


def fitted_base(name, tails):
    x = dependent(200)
    if tails:
        return fit_defended(BASES[name], x, None, gen(1))
    return BASES[name].fit(x, None, gen(1))


def conditioned(components, hidden, x):
    """Log marginals, and each component's share, mean and covariance of what is hidden."""
    h, g = np.flatnonzero(hidden), np.flatnonzero(~hidden)
    parts = []
    for i, mean in enumerate(components.means.numpy()):
        L = components.factors[i if len(components.factors) > 1 else 0].numpy()
        S, m = np.linalg.inv(L @ L.T), mean
        log_p = multivariate_normal(m[g], S[np.ix_(g, g)]).logpdf(x[g])
        slope = S[np.ix_(h, g)] @ np.linalg.inv(S[np.ix_(g, g)])
        at = m[h] + slope @ (x[g] - m[g])
        spread = S[np.ix_(h, h)] - slope @ S[np.ix_(g, h)]
        parts.append((float(components.log_weights[i]) + log_p, at, spread))
    if components.tails is not None:
        share, location, scale = (part.numpy() for part in components.tails)
        log_p = share + student(3).logpdf((x - location) / scale)[g].sum() - np.log(scale[g]).sum()
        parts.append((log_p, location[h], np.diag(3 * scale[h] ** 2)))
    log_p = np.array([part[0] for part in parts])
    return logsumexp(log_p), np.exp(log_p - logsumexp(log_p)), parts


# -- bases -----------------------------------------------------------------------------------------


@each_base
@defended
def test_components_are_the_density(name, tails):
    base = fitted_base(name, tails)
    x = torch.cat([dependent(20, 1), 30 * dependent(3, 2)]).double()
    double = copy.deepcopy(base).double()
    assert_allclose(base.components().log_prob(x), double.log_prob(x), rtol=1e-6, atol=1e-6)


@each_base
@defended
@pytest.mark.parametrize("hidden", [[0], [1, 3], [0, 1, 2]])
def test_marginals_and_conditionals_are_exact(name, tails, hidden):
    base = fitted_base(name, tails)
    components = base.components()
    mask = np.isin(np.arange(4), hidden)
    conditionals = Conditionals(components, torch.from_numpy(mask))
    rows = torch.cat([dependent(3, 1), 20 * dependent(1, 2)]).double()
    given = rows[:, ~mask]
    for i, row in enumerate(rows.numpy()):
        log_p, share, parts = conditioned(components, mask, row)
        assert_allclose(conditionals.log_prob(given)[i], log_p, rtol=1e-6, atol=1e-6)
        mean = sum(s * part[1] for s, part in zip(share, parts, strict=True))
        assert_allclose(conditionals.means(given)[i], mean, rtol=1e-6, atol=1e-6)


@each_base
def test_conditional_draws_have_the_conditional_moments(name):
    components = fitted_base(name, tails=False).components()
    mask = np.array([True, False, False, True])
    conditionals = Conditionals(components, torch.from_numpy(mask))
    row, n = dependent(1, 1).double(), 40_000
    _, share, parts = conditioned(components, mask, row[0].numpy())
    u = torch.rand(1, n, generator=gen(0), dtype=torch.float64)
    z = torch.randn(1, n, 2, generator=gen(1), dtype=torch.float64)
    drawn = conditionals.draw(row[:, ~mask], u, z, torch.ones(1, n, 2).double())[0]
    mean = sum(s * part[1] for s, part in zip(share, parts, strict=True))
    for j in range(2):
        assert_mean(drawn[:, j], mean[j], 0.05)
    outer = sum(
        s * (part[2] + np.outer(part[1] - mean, part[1] - mean))
        for s, part in zip(share, parts, strict=True)
    )
    centered = drawn - torch.from_numpy(mean)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        assert_mean(centered[:, i] * centered[:, j], outer[i, j], 0.08)


def test_draws_of_tails_are_student_s():
    base = fitted_base("gaussian", tails=True)
    components = base.components()
    tails = components.tails._replace(log_share=torch.zeros(()).double())
    far = dataclasses.replace(components, log_weights=components.log_weights - 1e9, tails=tails)
    mask = torch.tensor([True, False, False, False])
    n = 20_000
    z, g = (torch.randn(1, n, 1, k, generator=gen(k), dtype=torch.float64) for k in (1, 3))
    u = torch.rand(1, n, generator=gen(0), dtype=torch.float64)
    row = torch.zeros(1, 3).double()
    drawn = Conditionals(far, mask).draw(row, u, z[..., 0], g.square().sum(3))[0, :, 0]
    y = (drawn - tails.location[0]) / tails.scale[0]
    assert_mean((y.abs() < 1).double(), student(3).cdf(1) - student(3).cdf(-1), 0.004)
    assert_mean((y > 4).double(), student(3).sf(4), 0.001)


@pytest.mark.parametrize(
    "base", [Uniform(), TorchDistribution(torch.distributions.Normal(torch.zeros(2), 1.0))]
)
def test_bases_without_conditionals_say_so(base):
    x = torch.randn(50, 2, generator=gen(0))
    if isinstance(base, TorchDistribution):
        normal = torch.distributions.Independent(
            torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1
        )
        base = TorchDistribution(normal)
    with pytest.raises(TypeError, match=r"base must have conditional .* got (Uniform|Torch)"):
        base.fit(x, None, gen(0)).components()


# -- the model -------------------------------------------------------------------------------------

D = 4
MEANS = np.array([[0, 0, 0, 0], [3, 3, -2, 1], [-3, 2, 2, -1]]) * 1.0
WEIGHTS = np.array([0.5, 0.3, 0.2])
COV = 0.4 * np.eye(D) + 0.6


def truth(n, seed=0):
    rng = np.random.RandomState(seed)
    k = rng.choice(3, n, p=WEIGHTS)
    return MEANS[k] + rng.multivariate_normal(np.zeros(D), COV, size=n)


def log_truth(X):
    out = np.zeros(len(X))
    for i, row in enumerate(X):
        g = np.flatnonzero(~np.isnan(row))
        if len(g):
            logs = [multivariate_normal(m[g], COV[np.ix_(g, g)]).logpdf(row[g]) for m in MEANS]
            out[i] = logsumexp(logs, b=WEIGHTS)
    return out


def holed(X, share=0.3, seed=9):
    out = np.where(np.random.RandomState(seed).uniform(size=X.shape) < share, np.nan, X)
    out[:, 0] = np.where(np.isnan(out).all(1), X[:, 0], out[:, 0])  # something is left
    return out


@pytest.fixture(scope="module")
def bent():
    """A model whose energy has work: its base is one Gaussian."""
    return USPDensity(base="gaussian", standardize="affine", random_state=0).fit(truth(3000))


@pytest.fixture(scope="module")
def plain():
    """A model that is its base."""
    return USPDensity(base=Mixture(3), standardize="affine", max_iter=1, random_state=0).fit(
        truth(3000)
    )


def test_a_model_that_is_its_base_is_exact(plain):
    assert not plain.energy_kept_
    P = holed(truth(60, 1))
    found = plain.density_.holes.observed(P)
    assert_array_equal(found.stderr, 0)
    z = plain.density_.transform.forward(np.nan_to_num(P), dtype=torch.float64)
    components = plain.base_.components()
    slope = plain.density_.transform.log_slope(P)[0]
    for i, row in enumerate(P):
        mask = np.isnan(row)
        if mask.all():
            continue
        value, _, _ = conditioned(components, mask, z[i].numpy())
        assert_allclose(found.log_density[i], value + slope[~mask].sum(), rtol=1e-6, atol=1e-6)


def test_rows_with_holes_have_the_log_density_of_what_is_there(bent):
    """As near the truth as whole rows are."""
    assert bent.energy_kept_
    T = truth(600, 1)
    whole = bent.score_samples(T) - log_truth(T)
    P = holed(T)
    P = P[np.isnan(P).any(1)]
    off = bent.score_samples(P) - log_truth(P)
    assert abs(off.mean()) < abs(whole.mean()) + 0.05
    assert np.abs(off).mean() < np.abs(whole).mean() + 0.05
    base_alone = USPDensity(base="gaussian", standardize="affine", max_iter=1, random_state=0)
    alone = base_alone.fit(truth(3000)).score_samples(P) - log_truth(P)
    assert np.abs(off).mean() < 0.5 * np.abs(alone).mean()


def test_reported_errors_are_the_actual_ones(bent, monkeypatch):
    P = holed(truth(80, 2), 0.5)
    P = P[np.isnan(P).any(1) & ~np.isnan(P).all(1)]
    reader = bent.density_.holes
    log_z = bent.log_partition_.stderr
    values, errors = [], []
    for seed in range(40):
        fixed = lambda group, n, seed=seed: reader._random(  # noqa: E731
            1, int(group.hidden.sum()), n, gen(seed)
        )
        monkeypatch.setattr(reader, "_numbers", fixed)
        found = reader.observed(P)
        values.append(found.log_density)
        errors.append(np.sqrt(np.maximum(found.stderr**2 - log_z**2, 0)))
    actual, reported = np.std(values, axis=0), np.mean(errors, axis=0)
    ratio = np.sqrt((reported**2).mean() / (actual**2).mean())
    assert 0.7 < ratio < 1.4
    assert np.median(reported) < 0.15


@pytest.mark.parametrize("n_given", [1, 2])
def test_densities_of_what_is_there_integrate_to_one(bent, n_given):
    axis = np.linspace(-9, 9, 400 if n_given == 1 else 60)
    grid = np.stack(np.meshgrid(*[axis] * n_given, indexing="ij"), -1).reshape(-1, n_given)
    X = np.full((len(grid), D), np.nan)
    X[:, 1 : 1 + n_given] = grid
    found = bent.density_.holes.observed(X)
    p = np.exp(found.log_density) * (axis[1] - axis[0]) ** n_given
    # all rows share their draws, so their errors do not average out
    assert abs(p.sum() - 1) < 3 * (p @ found.stderr) + 0.01
    assert p @ found.stderr < 0.2


def test_whole_rows_are_untouched_and_empty_ones_score_zero(bent):
    T = truth(50, 3)
    alone = bent.score_samples(T[5:])
    mixed = T.copy()
    mixed[:4, 0], mixed[4] = np.nan, np.nan
    among = bent.score_samples(mixed)
    assert_array_equal(among[5:], alone)
    assert among[4] == 0.0
    assert_allclose(bent.score_samples(mixed[:1]), among[:1], rtol=1e-12)
    assert_allclose(bent.score_samples(mixed[[3, 0]])[1], among[0], rtol=1e-12)


def test_rows_are_not_flagged_for_having_holes(bent):
    T = truth(3000, 4)
    whole = (bent.predict(T) == -1).mean()
    assert (bent.predict(holed(T, 0.4)) == -1).mean() < whole + 0.01
    far = np.array([[np.nan, 40.0, 0.0, np.nan]])
    assert bent.predict(far)[0] == -1
    nothing = np.full((1, D), np.nan)
    assert bent.predict(nothing)[0] == 1
    P = holed(truth(40, 5), 0.4)
    drawn = bent.conditional_sample(P, n_samples=400, random_state=0)
    mean = bent.score_samples(drawn.reshape(-1, D)).reshape(40, 400).mean(1)
    assert np.abs(bent.decision_function(P) + bent.offset_ - mean).mean() < 0.25
    assert np.abs(bent.score_samples(P) - mean)[np.isnan(P).any(1)].mean() > 0.5


def test_conditional_draws_and_means_follow_the_truth(bent):
    row = np.array([[np.nan, 2.5, np.nan, 0.0]])
    drawn = bent.conditional_sample(row, n_samples=4000, random_state=1)
    assert drawn.shape == (1, 4000, D)
    assert_array_equal(drawn[0, :, [1, 3]].T, np.tile([2.5, 0.0], (4000, 1)))
    g, h = [1, 3], [0, 2]
    logs = np.array([multivariate_normal(m[g], COV[np.ix_(g, g)]).logpdf(row[0, g]) for m in MEANS])
    share = WEIGHTS * np.exp(logs)
    share /= share.sum()
    slope = COV[np.ix_(h, g)] @ np.linalg.inv(COV[np.ix_(g, g)])
    mean = share @ (MEANS[:, h] + (row[0, g] - MEANS[:, g]) @ slope.T)
    assert_allclose(drawn[0][:, h].mean(0), mean, atol=0.25)
    assert_allclose(bent.conditional_mean(row)[0, h], mean, atol=0.25)
    assert_allclose(drawn[0][:, h].mean(0), bent.conditional_mean(row)[0, h], atol=0.15)


def test_one_draw_is_a_table_and_a_whole_row_comes_back(bent):
    T = truth(6, 5)
    P = T.copy()
    P[:3, 2] = np.nan
    drawn = bent.conditional_sample(P, random_state=0)
    assert drawn.shape == P.shape and not np.isnan(drawn).any()
    assert_array_equal(drawn[3:], T[3:])
    assert_array_equal(drawn[:3, [0, 1, 3]], T[:3, [0, 1, 3]])
    assert_array_equal(bent.conditional_sample(P, random_state=0), drawn)
    assert not np.array_equal(bent.conditional_sample(P, random_state=1), drawn)
    assert_array_equal(bent.conditional_mean(T), T)


def test_conditional_scores_are_differences(bent):
    T = truth(40, 6)
    found = bent.conditional_score_samples(T, given=[0, 2])
    alone = T.copy()
    alone[:, [1, 3]] = np.nan
    assert_allclose(found, bent.score_samples(T) - bent.score_samples(alone))
    assert_array_equal(bent.conditional_score_samples(T, given=range(D)), 0)
    assert_allclose(bent.conditional_score_samples(T, given=[]), bent.score_samples(T))
    frame = pd.DataFrame(T, columns=list("abcd"))
    named = USPDensity(base=Mixture(2), max_iter=2, random_state=0).fit(frame)
    by_name = named.conditional_score_samples(frame, given=["a", "c"])
    assert_allclose(by_name, named.conditional_score_samples(frame, given=[0, 2]))
    for bad in ("z", 7, 1.5):
        with pytest.raises(ValueError, match=rf"given must hold columns of X, got {bad!r}"):
            named.conditional_score_samples(frame, given=[bad])


def test_transformed_columns_have_conditionals_too():
    X = np.exp(truth(1500))
    est = USPDensity(standardize="marginal", max_iter=100, random_state=0).fit(X)
    P = holed(np.exp(truth(300, 1)))
    P = P[np.isnan(P).any(1)]
    jacobian = np.nansum(np.log(P), axis=1)
    off = est.score_samples(P) - (log_truth(np.log(P)) - jacobian)
    assert np.abs(off).mean() < 0.4 and abs(off.mean()) < 0.15
    drawn = est.conditional_sample(P, random_state=0)
    assert (drawn > 0).mean() > 0.98 and not np.isnan(drawn).any()


def test_a_copy_and_a_file_give_the_same_numbers(bent, tmp_path):
    P = holed(truth(30, 7))
    score = bent.score_samples(P)
    bent.save(tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(bent)), USPDensity.load(tmp_path / "model")):
        assert_allclose(other.score_samples(P), score, rtol=1e-9)


def test_few_effective_completions_are_told(bent, monkeypatch):
    monkeypatch.setattr(holes_module, "FEWEST_EFFECTIVE", 0.999)
    with pytest.warns(match=rf"rest on fewer than {N_DRAWS} of {N_DRAWS} completions"):
        bent.score_samples(holed(truth(30, 7)))


# -- fits ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Rows lie closer")  # where means are filled in
@pytest.mark.parametrize("cls", [USPDensity, NCEDensity, HybridCDDensity])
def test_a_fit_with_holes_is_near_one_without(cls):
    X, T = truth(1200), truth(2000, 1)
    scores = {}
    for name, table in {
        "whole": X,
        "holes": holed(X, 0.2),
        "means": SimpleImputer().fit_transform(holed(X, 0.2)),
    }.items():
        params = {"data_noise": 0} if name == "means" else {}  # means repeat
        scores[name] = cls(random_state=0, max_iter=150, **params).fit(table).score(T)
    assert scores["holes"] > scores["means"] + 0.3
    assert scores["holes"] > scores["whole"] - 0.12


def test_a_table_without_holes_is_fitted_as_ever():
    X = truth(200)
    one, two = (USPDensity(max_iter=5, random_state=0).fit(X) for _ in range(2))
    holey = USPDensity(max_iter=5, random_state=0).fit(holed(X, 0.01))
    assert_array_equal(one.score_samples(X), two.score_samples(X))
    assert not np.array_equal(one.score_samples(X), holey.score_samples(X))


def test_completions_keep_what_is_there_and_follow_the_rest():
    X = np.random.RandomState(0).multivariate_normal([0, 5], [[1, 0.9], [0.9, 1]], size=2000)
    P = X.copy()
    P[::3, 1] = np.nan
    found = complete(P, None, ["a", "b"])
    assert found.drawn.shape == (2000, 8, 2) and not np.isnan(found.drawn).any()
    known = ~np.isnan(P)
    assert_array_equal(found.drawn[:, 0][known], P[known])
    assert_array_equal(found.log_q[known.all(1)], 0)
    residual = found.drawn[::3, :, 1] - 5 - 0.9 * X[::3, 0, None]
    assert abs(residual.mean()) < 0.05 and residual.std() == pytest.approx(0.19**0.5, abs=0.04)
    density = norm.logpdf(residual, scale=0.19**0.5)
    assert np.abs(found.log_q[::3] - density).mean() < 0.15


def test_completions_weigh_rows():
    X = truth(400)
    P = X.copy()
    P[:200, 0] = np.nan
    weight = np.r_[np.ones(300), np.zeros(100) + 1e-9]
    X[300:, 0] += 50
    found = complete(np.where(np.isnan(P), np.nan, X), weight, list("abcd"))
    assert found.drawn[:200, :, 0].max() < 30


def test_a_batch_draws_completions_by_their_weights():
    X = truth(100)
    P = X.copy()
    P[:50, 0] = np.nan
    seen = []

    class Table(USPDensity):
        def _learn(self, table, transform, run):
            seen.append(table)
            return super()._learn(table, transform, run)

    Table(max_iter=2, random_state=0).fit(P)
    (table,) = seen
    table.reweigh(lambda z: 1e3 * (z[:, 0] - 1).abs())  # a model that wants it at 1
    drawn = table.draw(2000, gen(0))
    table.reweigh(lambda z: 1e3 * (z[:, 0] + 1).abs())
    other = table.draw(2000, gen(0))
    assert drawn[:, 0].mean() > other[:, 0].mean() + 0.2
    assert_array_equal(drawn[:, 1:], other[:, 1:])


def test_completions_that_were_seldom_drawn_count_for_more():
    """Of two, one nine times as likely to be drawn: a flat model draws the other nine times."""
    x = torch.tensor([[0.0, 5.0]])
    originals = Originals(np.zeros((1, 2)), None, np.array([0]), np.arange(0))
    table = CompletedTable(x, originals=originals)
    drawn = torch.tensor([[[0.0, 5.0], [1.0, 5.0]]])
    table.complete(drawn, torch.log(torch.tensor([[0.9, 0.1]])), np.array([[np.nan, 5.0]]))
    table.reweigh(lambda z: torch.zeros(len(z)))
    assert_mean(table.draw(4000, gen(0))[:, 0].double().numpy(), 0.9, 0.01)
    table.reweigh(lambda z: np.log(81.0) * z[:, 0])  # a model that has the first 81 times
    assert_mean(table.draw(4000, gen(0))[:, 0].double().numpy(), 0.1, 0.01)


@pytest.mark.parametrize(
    "params", [{"base": "uniform"}, {"base": None, "energy": MLP(output="quadratic")}]
)
def test_other_bases_refuse_missing_values_at_fit_and_after(params):
    X = truth(100)
    est = NCEDensity(max_iter=2, noise="gaussian", random_state=0, **params)
    with pytest.raises(ValueError, match=r"no missing values with base (Uniform|None), got .*NaN"):
        clone_of = copy.deepcopy(est)
        clone_of.fit(holed(X))
    est.fit(X)
    for read in ("score_samples", "predict", "conditional_mean", "conditional_sample"):
        with pytest.raises(ValueError, match=r"no missing values with base (Uniform|NoneType)"):
            getattr(est, read)(holed(X))


def test_bad_tables_are_named():
    X = truth(60)
    X[:, 2] = np.nan
    with pytest.raises(ValueError, match="values in every column, got none in column 2"):
        USPDensity(max_iter=2).fit(X)
    X = truth(60)
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        USPDensity(max_iter=2).fit(X)
    X = truth(60)
    X[3] = np.nan
    weight = np.arange(1.0, 61)
    with pytest.warns(DataDegeneracyWarning, match="1 of 60 rows have no value"):
        est = USPDensity(max_iter=2, random_state=0).fit(X, sample_weight=weight)
    without = USPDensity(max_iter=2, random_state=0)
    without.fit(np.delete(X, 3, 0), sample_weight=np.delete(weight, 3))
    assert_array_equal(est.offset_, without.offset_)
    for read in ("score_function", "energy_samples"):
        with pytest.raises(ValueError, match="NaN"):
            getattr(est, read)(X)


def test_searches_pipelines_and_games_take_holes():
    P = holed(truth(150), 0.1)
    search = GridSearchCV(
        USPDensity(max_iter=2, random_state=0), {"learning_rate": [1e-3, 1e-2]}, cv=2
    )
    assert np.isfinite(search.fit(P).best_score_)
    pipe = make_pipeline(DensityImputer(USPDensity(max_iter=2)), NCEDensity(max_iter=2))
    assert np.isfinite(pipe.fit(P).score(P))
    assert np.isfinite(SteinEBM(max_iter=3, random_state=0).fit(P).score(P))


# -- imputation ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.IterativeImputer. Early stopping")
def test_imputation_beats_what_people_use():
    """Where columns depend on each other through groups, which a linear model does not see."""
    X = truth(1500)
    P = holed(X, 0.2)
    hidden = np.isnan(P)
    off = {}
    for name, imputer in {
        "density": DensityImputer(USPDensity(max_iter=150), strategy="mean", random_state=0),
        "linear": IterativeImputer(random_state=0),
        "mean": SimpleImputer(),
    }.items():
        filled = imputer.fit_transform(P)
        assert_array_equal(filled[~hidden], X[~hidden])
        off[name] = np.sqrt(np.mean((filled - X)[hidden] ** 2))
    assert off["density"] < off["linear"] < off["mean"]


def test_intervals_of_draws_cover(bent):
    T = truth(400, 8)
    P = T.copy()
    j = np.random.RandomState(0).randint(D, size=400)
    P[np.arange(400), j] = np.nan
    drawn = bent.conditional_sample(P, n_samples=256, random_state=0)[np.arange(400), :, j]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    inside = (T[np.arange(400), j] >= low) & (T[np.arange(400), j] <= high)
    assert_mean(inside.astype(float), 0.9, 0.02)


def test_intervals_of_single_values_are_those_of_the_truth():
    """The columns of a Gaussian, each given the others."""
    rng = np.random.RandomState(0)
    X = rng.multivariate_normal(np.zeros(D), COV, size=3000)
    est = USPDensity(base="gaussian", max_iter=1, random_state=0).fit(X)
    T = X[:300]
    inverse = np.linalg.inv(COV)
    middle, width = T - T @ inverse / np.diag(inverse), 1 / np.sqrt(np.diag(inverse))
    low, high = np.moveaxis(est.conditional_interval(T, coverage=0.8), 2, 0)
    away = norm.ppf(0.9) * width
    assert np.abs(low - (middle - away)).mean() < 0.1 * away.mean()
    assert np.abs(high - (middle + away)).mean() < 0.1 * away.mean()
    wider = est.conditional_interval(T[:3], coverage=0.95)
    assert (wider[..., 0] < low[:3]).all() and (wider[..., 1] > high[:3]).all()
    assert_array_equal(est.conditional_interval(T[5:6], 0.8)[0, :, 0], low[5])  # rows stand alone
    found = est.score_values(T)
    assert_allclose(found, norm.logpdf(T, middle, width), rtol=0.1, atol=0.1)
    holes = T.copy()
    holes[:, 2] = np.nan
    assert np.isnan(est.score_values(holes)[:, 2]).all()
    with pytest.raises(ValueError, match=r"coverage must be .* got 0"):
        est.conditional_interval(T, coverage=0)


def test_an_imputer_is_a_transformer(tmp_path):
    frame = pd.DataFrame(holed(truth(80)), columns=list("abcd"))
    imputer = DensityImputer(USPDensity(max_iter=2), random_state=0).set_output(transform="pandas")
    filled = imputer.fit_transform(frame)
    assert list(filled.columns) == list("abcd") and not filled.isna().any(axis=None)
    assert_array_equal(imputer.get_feature_names_out(), list("abcd"))
    pd.testing.assert_frame_equal(imputer.transform(frame), filled)
    other = DensityImputer(USPDensity(max_iter=2), random_state=1).fit(frame).transform(frame)
    assert not np.array_equal(other, filled)
    imputer.save(tmp_path / "imputer")
    assert_allclose(DensityImputer.load(tmp_path / "imputer").transform(frame), filled, rtol=1e-6)
    with pytest.raises(ValueError, match="strategy must be one of .* got 'median'"):
        DensityImputer(strategy="median").fit(frame)


def test_detectors_take_holes_and_keep_their_rates():
    """Ranks are valid where calibration rows have holes as new ones do."""
    rates = []
    for seed in range(12):
        P = holed(truth(240, seed), 0.2, seed)
        detector = ConformalNoveltyDetector(
            USPDensity(base=Mixture(3), max_iter=1), alpha=0.1, calibration_fraction=0.333
        )
        detector.set_params(random_state=seed).fit(P)
        fresh = holed(truth(300, 100 + seed), 0.2, 100 + seed)
        rates.append((detector.predict(fresh) == -1).mean())
    assert_mean(np.array(rates), 0.1, 0.02)


def test_a_novelty_detector_takes_holes():
    P, fresh = holed(truth(400), 0.2), holed(truth(200, 5), 0.2, 5)
    assert np.isnan(fresh).any(1).sum() > 100
    detector = NoveltyDetector(NCEDensity(max_iter=25), random_state=0).fit(P)
    score = detector.score_samples(fresh)
    assert_allclose(detector.score_samples(fresh[50:60]), score[50:60], rtol=1e-6, atol=1e-6)
    assert (detector.predict(fresh) == -1).mean() < 0.12  # holes are no novelty
    strange = fresh.copy()
    strange[:, 0] = 8.0
    assert (detector.predict(strange) == -1).mean() > 0.95
    trimmed = NoveltyDetector(NCEDensity(max_iter=2), contamination=0.1, random_state=0).fit(P)
    assert len(trimmed.kept_) == 360
    inner = ThresholdDetector(NCEDensity(max_iter=2))
    with pytest.raises(ValueError, match=r"estimator must be a density of skebm .* got Threshold"):
        NoveltyDetector(inner).fit(P)


def test_a_picture_of_a_conditional_density(bent):
    row = np.array([0.0, 5.0, np.nan, 0.0])
    figure = Figure()
    shown = ConditionalDisplay.from_estimator(bent, row, column=1, ax=figure.subplots())
    total = np.trapezoid(shown.density, shown.values)
    inside = (shown.values >= shown.interval[0]) & (shown.values <= shown.interval[1])
    assert total == pytest.approx(1) and shown.value == 5.0
    held = np.trapezoid(np.where(inside, shown.density, 0), shown.values)
    assert held == pytest.approx(0.9, abs=0.08)
    with pytest.raises(ValueError, match="level must be .* got 0"):
        ConditionalDisplay.from_estimator(bent, row, column=1, level=0)
