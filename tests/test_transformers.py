"""Dequantize, Logit and bits per dimension."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import logistic, norm
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.estimator_checks import check_estimator

from skebm.datasets import Dequantize, Logit
from skebm.exceptions import NormalizationWarning
from skebm.metrics import bits_per_dim
from tests.closed_forms import assert_estimate, assert_mean, assert_variance

BYTES = np.random.RandomState(0).randint(256, size=(50, 4))


class Density(BaseEstimator):
    """A product of one density over the columns, given by its log."""

    def __init__(self, log_density):
        self.log_density = log_density

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def score_samples(self, X):
        return self.log_density(X).sum(axis=1)


class Ends(np.random.RandomState):
    """Noise at its two ends in turn."""

    def randint(self, high, size, dtype):
        ends = np.zeros(size, dtype=dtype)
        ends.flat[::2] = high - 1
        return ends


def uniform(X):
    assert ((X > 0) & (X < 1)).all()
    return np.zeros_like(X)


def transposed(X):
    return np.zeros_like(X).T


def uniform_in_logits(y):
    """Log density of the logit of a uniform variable, alpha = 0."""
    return logistic.logpdf(y)


# -- Dequantize ------------------------------------------------------------------------------------


def test_noise_is_uniform_and_independent():
    X = np.tile(np.arange(256), (400, 1))
    noise = Dequantize(random_state=0).fit(X).transform(X) * 256 - X
    assert_mean(noise.ravel(), 1 / 2, 0.002)
    assert_variance(noise.ravel(), 1 / 12, 0.004)
    assert_mean(np.exp(2j * np.pi * noise).real.ravel(), 0.0, 0.003)
    steps = (noise - 1 / 2)[:, 1:] * (noise - 1 / 2)[:, :-1]
    assert_mean(steps.ravel(), 0.0, 0.001)
    assert len(np.unique(noise)) == noise.size


@pytest.mark.parametrize("levels", [2, 3, 255, 256, 1000, 2**16])
def test_the_ends_of_the_noise_stay_inside_and_come_back(levels):
    X = np.repeat(np.arange(levels), 2)[:, None]
    y = Dequantize(levels, Ends(0)).fit(X).transform(X)
    assert y.dtype == np.float64 and y.min() > 0 and y.max() < 1
    assert len(np.unique(y)) == len(y)
    assert (np.floor(y[:, 0] * levels) == X[:, 0]).all()
    back = Dequantize(levels).fit(X).inverse_transform(y)
    assert back.dtype == np.int64 and (back == X).all()


@pytest.mark.parametrize("levels", [2, 7, 256, 2**16])
def test_integers_come_back(levels):
    X = np.random.RandomState(1).randint(levels, size=(300, 20))
    dequantize = Dequantize(levels, random_state=0).fit(X)
    assert (dequantize.inverse_transform(dequantize.transform(X)) == X).all()


def test_what_is_outside_goes_to_the_nearest_level():
    dequantize = Dequantize(4).fit([[0, 3, 1, 2]])
    assert dequantize.inverse_transform([[-1e300, 1.0, 0.25, 7.0]]).tolist() == [[0, 3, 1, 3]]


def test_same_seed_same_noise_and_without_one_every_call_draws():
    first, again = (Dequantize(random_state=3).fit(BYTES) for _ in range(2))
    assert (first.transform(BYTES) == again.transform(BYTES)).all()
    assert (first.transform(BYTES) == first.transform(BYTES)).all()
    assert (Dequantize(random_state=4).fit_transform(BYTES) != first.transform(BYTES)).all()
    for seed in (None, np.random.RandomState(0)):
        dequantize = Dequantize(random_state=seed).fit(BYTES)
        assert (dequantize.transform(BYTES) != dequantize.transform(BYTES)).all()


@pytest.mark.parametrize("levels", [3, 256])
def test_volume_of_dequantize_is_that_of_its_numerical_jacobian(levels):
    X = np.random.RandomState(0).randint(levels - 1, size=(5, 3))
    dequantize = Dequantize(levels, random_state=0).fit(X)  # the same noise at every call
    columns = [dequantize.transform(X + row) - dequantize.transform(X) for row in np.eye(3)]
    _, truth = np.linalg.slogdet(np.stack(columns, axis=1))
    np.testing.assert_allclose(dequantize.log_volume(X), truth, rtol=1e-10)
    np.testing.assert_allclose(dequantize.log_volume(X), np.full(5, -3 * math.log(levels)))


@pytest.mark.parametrize(
    ("X", "found"),
    [
        ([[0.5, 1]], r"integers from 0 to 255, got 0\.5 \(1 of 2 values\)"),
        ([[-1, 256]], r"got -1 \(2 of 2 values\)"),
        ([[0, 256]], "got 256"),
        ([[0, math.nan]], "NaN"),
    ],
    ids=["fraction", "negative", "too large", "nan"],
)
def test_dequantize_refuses_what_is_no_level(X, found):
    fitted = Dequantize().fit([[0, 255]])
    for call in (Dequantize().fit, fitted.transform, fitted.log_volume):
        with pytest.raises(ValueError, match=found):
            call(X)


@pytest.mark.parametrize(
    ("levels", "error"), [(1, ValueError), (2**16 + 1, ValueError), (2.0, TypeError)]
)
def test_dequantize_refuses_levels(levels, error):
    with pytest.raises(error, match=rf"levels must be an integer .* got {levels}\."):
        Dequantize(levels).fit([[0]])


# -- Logit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05])
def test_logit_is_the_formula_and_its_inverse_is_exact(alpha):
    low = np.concatenate([np.geomspace(1e-9, 0.5, 200), [0.25]])
    X = np.stack([low, 1 - low], axis=1)
    logit = Logit(alpha).fit(X)
    p = alpha + (1 - 2 * alpha) * X
    np.testing.assert_allclose(logit.transform(X), np.log(p / (1 - p)), atol=1e-7)
    np.testing.assert_allclose(logit.transform(X)[:, 0], -logit.transform(1 - X)[:, 0], atol=1e-7)
    error = np.abs(logit.inverse_transform(logit.transform(X)) - X)
    assert (error <= 1e-14 * (alpha + X)).all() and error.max() <= 1e-15
    assert (error[X > alpha / 100] <= 2e-12 * X[X > alpha / 100]).all()


def test_ends_come_back_and_what_is_beyond_goes_to_them():
    X = np.array([[0.0, 1.0], [5e-324, 1 - 2**-53]])
    logit = Logit().fit(X)
    y = logit.transform(X)
    np.testing.assert_allclose(y[0], [-math.log(1e6 - 1), math.log(1e6 - 1)], rtol=1e-14)
    np.testing.assert_allclose(logit.inverse_transform(y), X, atol=2e-15)
    assert logit.inverse_transform([[-1e5, 1e5], [-14, 14]]).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05, 0.4])
def test_volume_of_logit_is_that_of_its_numerical_jacobian(alpha):
    X = np.random.RandomState(0).uniform(0.01, 0.99, size=(20, 3))
    logit, h = Logit(alpha).fit(X), 1e-5
    steps = h * np.eye(3)
    columns = [(logit.transform(X + s) - logit.transform(X - s)) / (2 * h) for s in steps]
    _, truth = np.linalg.slogdet(np.stack(columns, axis=1))
    np.testing.assert_allclose(logit.log_volume(X), truth, atol=2e-6)


@pytest.mark.parametrize(
    ("alpha", "X", "found"),
    [
        (1e-6, [[0.5, 1.5]], r"in \[0, 1\], got 1\.5 \(1 of 2 values\)"),
        (1e-6, [[-0.1, 0.5]], r"got -0\.1"),
        (0.0, [[0.0, 0.5]], r"in \(0, 1\) where alpha is 0, got 0 "),
        (0.0, [[0.5, 1.0]], "got 1 "),
        (1e-6, [[0.5, math.inf]], "infinity"),
    ],
    ids=["above", "below", "at 0", "at 1", "infinite"],
)
def test_logit_refuses_what_is_outside(alpha, X, found):
    fitted = Logit(alpha).fit([[0.5, 0.5]])
    for call in (Logit(alpha).fit, fitted.transform, fitted.log_volume):
        with pytest.raises(ValueError, match=found):
            call(X)


@pytest.mark.parametrize(
    ("alpha", "error"), [(0.5, ValueError), (-1e-9, ValueError), ("small", TypeError)]
)
def test_logit_refuses_alpha(alpha, error):
    with pytest.raises(error, match=rf"alpha must be a number .* got {alpha!r}\."):
        Logit(alpha).fit([[0.5]])


# -- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Dequantize, Logit])
def test_reads_ask_for_fit_and_for_as_many_columns(cls):
    for call in (cls().transform, cls().inverse_transform, cls().log_volume):
        with pytest.raises(NotFittedError):
            call([[0, 1]])
    fitted = cls().fit([[0, 1, 0]])
    with pytest.raises(ValueError, match="3 columns, got 2"):
        fitted.inverse_transform([[0, 1]])
    with pytest.raises(ValueError, match="expecting 3 features"):
        fitted.log_volume([[0, 1]])


def test_pixels_go_to_logits_and_back_with_their_names():
    table = pd.DataFrame(BYTES, columns=[f"pixel {j}" for j in range(4)])
    pipe = make_pipeline(Dequantize(random_state=0), Logit()).set_output(transform="pandas")
    y = pipe.fit_transform(table)
    assert y.columns.tolist() == table.columns.tolist() == pipe[1].feature_names_in_.tolist()
    back = pipe.inverse_transform(y.to_numpy())
    assert (back == BYTES).all()
    with_names = make_pipeline(*pipe, Density(uniform_in_logits)).fit(table)
    assert bits_per_dim(with_names, table).value == pytest.approx(8, abs=1e-3)


class AnyLevels(Dequantize):
    """Takes the tables of scikit-learn's checks, which hold no integers."""

    def _check_values(self, X):
        return np.floor(X) % self.levels


class AnyReals(Logit):
    """Takes the tables of scikit-learn's checks, which leave [0, 1]."""

    def _check_values(self, X):
        return X % 1


def checked(estimator):
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    return {
        state: {r["check_name"]: r["exception"] for r in results if r["status"] == state}
        for state in ("failed", "passed")
    }


@pytest.mark.parametrize("cls", [AnyLevels, AnyReals])
def test_scikit_learns_checks_pass_where_every_table_is_taken(cls):
    status = checked(cls())  # Dequantize is tagged non-deterministic: a row's noise is its place's
    assert status["failed"] == {}
    ran = set(status["passed"])
    assert {"check_transformer_preserve_dtypes", "check_estimators_pickle"} <= ran
    assert {"check_fit_idempotent", "check_n_features_in", "check_readonly_memmap_input"} <= ran


def reasons(error):
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(("cls", "rule"), [(Dequantize, "integers from 0 to 255"), (Logit, "in [")])
def test_scikit_learns_checks_fail_by_the_range_of_their_tables_alone(cls, rule):
    failed = checked(cls())["failed"]
    assert len(failed) > 10  # no tag says which values a table may hold
    for error in failed.values():
        assert any(f"X must be {rule}" in text for text in reasons(error))


# -- bits per dimension ----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("seed", [0, None])
def test_the_uniform_density_has_the_bits_of_its_levels(levels, seed):
    X, bits = BYTES % levels, math.log2(levels)
    pipe = make_pipeline(Dequantize(levels, seed), Density(uniform)).fit(X)
    assert bits_per_dim(pipe, X) == (pytest.approx(bits, rel=1e-15), 0.0)
    # in logit space each row differs, and cancels its volume, if both are of the same draw
    pipe = make_pipeline(Dequantize(levels, seed), Logit(0.0), Density(uniform_in_logits)).fit(X)
    assert bits_per_dim(pipe, X) == pytest.approx((bits, 0), abs=1e-12)


def bits_of_bytes(mean, sd):
    """Entropy of a Gaussian cut into unit cells, the expectation of the bound, its spread: bits."""
    k, (nodes, weights) = np.arange(256), np.polynomial.legendre.leggauss(40)
    mass = np.diff(norm.cdf(np.arange(257), mean, sd))
    values = -norm.logpdf(k[:, None] + (nodes + 1) / 2, mean, sd) / math.log(2)
    bound = mass @ values @ weights / 2
    spread = mass @ (values - bound) ** 2 @ weights / 2
    seen = mass[mass > 0]
    return mass, -seen @ np.log2(seen), bound, math.sqrt(spread)


@pytest.mark.parametrize("sd", [0.5, 2.0, 20.0])
def test_bits_of_a_discretized_gaussian(sd):
    mean, d = 117.3, 2
    mass, entropy, bound, spread = bits_of_bytes(mean, sd)
    X = np.random.RandomState(0).choice(256, size=(20_000, d), p=mass / mass.sum())
    gaussian = Density(norm(mean / 256, sd / 256).logpdf)
    result = bits_per_dim(make_pipeline(Dequantize(random_state=1), gaussian).fit(X), X)
    assert_estimate(*result, bound, 0.01)
    assert result.stderr == pytest.approx(spread / math.sqrt(d * len(X)), rel=0.05)
    gap = 1 / (24 * sd**2 * math.log(2))  # the limit for wide densities
    assert bound - entropy > 0.2 if sd < 1 else bound - entropy == pytest.approx(gap, rel=0.02)


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_bits_in_logit_space_are_the_formula_per_pixel(alpha):
    pipe = make_pipeline(Dequantize(random_state=0), Logit(alpha), Density(norm(0, 3).logpdf))
    y = pipe.fit(BYTES)[:-1].transform(BYTES)
    p = 1 / (1 + np.exp(-y))
    rows = (np.log2(p) + np.log2(1 - p) - norm(0, 3).logpdf(y) / math.log(2)).mean(axis=1)
    rows += 8 - math.log2(1 - 2 * alpha)
    truth = rows.mean(), rows.std(ddof=1) / math.sqrt(len(rows))
    assert bits_per_dim(pipe, BYTES) == pytest.approx(truth, rel=1e-9)


def by_hand(pipe, X):
    unit = pipe[0].transform(X)
    y = pipe[1].transform(unit)
    nats = pipe[-1].score_samples(pipe[2].transform(y))
    nats = nats + pipe[0].log_volume(X) + pipe[1].log_volume(unit) - np.log(pipe[2].scale_).sum()
    return -nats.mean() / X.shape[1] / math.log(2)


def test_bits_of_a_pipeline_are_those_by_hand():
    parts = Dequantize(random_state=0), Logit(), StandardScaler(), GaussianMixture(2)
    pipe = make_pipeline(*parts).fit(BYTES)
    assert bits_per_dim(pipe, BYTES).value == pytest.approx(by_hand(pipe, BYTES), rel=1e-12)


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_std=False),
        RobustScaler(),
        MaxAbsScaler(),
        MinMaxScaler(feature_range=(-3, 4)),
        "passthrough",
        make_pipeline(MinMaxScaler(), "passthrough", Logit(0.1)),
    ],
    ids=["standard", "centered", "robust", "maximum", "range", "nothing", "pipeline"],
)
def test_scaling_does_not_change_the_bits(scaler):
    """The Gaussian of most likelihood moves with every affine map; the density of X does not."""
    X = np.random.RandomState(0).normal(size=(200, 3)) * [1, 10, 0.1] + [5, 0, 2]
    gaussian = GaussianMixture(reg_covar=0)
    first = [Logit(0.1)] if not isinstance(scaler, str) and hasattr(scaler, "steps") else []
    X = MinMaxScaler().fit_transform(X) if first else X
    without = make_pipeline(*first, gaussian).fit(X)
    truth = bits_per_dim(without if first else gaussian, X)
    found = bits_per_dim(make_pipeline(scaler, GaussianMixture(reg_covar=0)).fit(X), X)
    assert found == pytest.approx(truth, rel=1e-9)
    whole = make_pipeline("passthrough", make_pipeline(scaler, GaussianMixture(reg_covar=0)))
    assert bits_per_dim(whole.fit(X), X) == pytest.approx(truth, rel=1e-9)


def test_bits_without_a_pipeline_are_the_entropy():
    model = Density(norm(3, 2).logpdf)
    X = np.random.RandomState(0).normal(3, 2, size=(10_000, 2))
    assert_estimate(*bits_per_dim(model, X), norm(3, 2).entropy() / math.log(2), 0.01)
    value, stderr = bits_per_dim(model, X[:1])
    assert value == pytest.approx(-norm(3, 2).logpdf(X[0]).mean() / math.log(2))
    assert math.isnan(stderr)


def test_a_row_of_density_zero_is_infinite():
    outside = Density(lambda X: np.where(X == 0, -np.inf, 0.0))
    assert bits_per_dim(outside, BYTES % 2).value == math.inf


def test_an_unnormalized_density_warns():
    model = Density(uniform)
    model.log_partition_ = None
    with pytest.warns(NormalizationWarning, match="log_partition=None"):
        bits_per_dim(make_pipeline(Dequantize(), model).fit(BYTES), BYTES)


class Short(Logit):
    def log_volume(self, X):
        return super().log_volume(X)[:-1]


class NotNumbers(Logit):
    def log_volume(self, X):
        return super().log_volume(X) * math.nan


@pytest.mark.parametrize(
    ("model", "error", "found"),
    [
        (make_pipeline(PowerTransformer(), GaussianMixture()), TypeError, "got PowerTransformer"),
        (make_pipeline(MinMaxScaler(clip=True), GaussianMixture()), ValueError, "got True"),
        (make_pipeline(StandardScaler(), StandardScaler()), TypeError, "got StandardScaler"),
        (make_pipeline(MinMaxScaler((0, 0.9)), Short(), GaussianMixture()), ValueError, r"\(49,\)"),
        (
            make_pipeline(MinMaxScaler((0, 0.9)), NotNumbers(), GaussianMixture()),
            ValueError,
            "got 50 of 50 values that are not",
        ),
        (Density(transposed), ValueError, r"\(50,\), got shape \(4,\)"),
    ],
    ids=["no volume", "clips", "no density", "short", "nan", "columns"],
)
def test_what_has_no_bits_is_refused(model, error, found):
    with pytest.raises(error, match=found):
        bits_per_dim(model.fit(BYTES), BYTES)


def test_images_that_are_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"X must have shape \(n, d\), got \(50, 2, 2\)"):
        bits_per_dim(make_pipeline(Dequantize(), Density(uniform)), BYTES.reshape(-1, 2, 2))


def test_other_scores_have_no_check_that_could_catch_them():
    """A documented limit: a score that is no log density passes in silence."""
    forest = IsolationForest(n_estimators=5, random_state=0).fit(BYTES)
    assert math.isfinite(bits_per_dim(forest, BYTES).value)
