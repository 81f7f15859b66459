"""Tables on which a continuous likelihood is unbounded or floats are strained: sound or warned."""

import math
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from skebm import EnergyDensity
from skebm.bases import Mixture
from skebm.exceptions import DataDegeneracyWarning
from skebm.partition import ImportanceSampling
from tests import cases

tiny = partial(
    cases.tiny,
    "HybridCDDensity",
    base=Mixture(max_components=2),
    max_iter=10,
    validation_fraction=0.1,
    log_partition=ImportanceSampling(n_samples=4096, max_samples=4096),
)


def normal(n, d, seed=0):
    return np.random.RandomState(seed).randn(n, d)


def with_column(column):
    """Three sound columns, and one made of their row numbers and a seed."""

    def make(seed):
        X = normal(100, 4, seed)
        X[:, 1] = column(X, np.random.RandomState(seed + 50))
        return X

    return make


def copied(seed):
    X = normal(100, 4, seed)
    X[70:] = X[:30]
    return X


def blobs(seed):
    X = normal(100, 3, seed)
    X[::2] += 1e4
    return X


def named(seed):
    X = pd.DataFrame(normal(100, 3, seed), columns=["length", "width", "age in years"])
    X["age in years"] = np.random.RandomState(seed).randint(3, size=100)
    return X


# name -> (seed -> table, what the warning says of which columns, or None)
TABLES = {
    "constant": (with_column(lambda X, rng: 7.5), r"constant columns \(1: column 1; noise 0.2\)"),
    "constant, huge": (with_column(lambda X, rng: 1e200), r"constant columns \(1: column 1; "),
    "constant, 0.1": (with_column(lambda X, rng: 0.1), r"constant columns \(1: column 1; "),
    "duplicated": (
        with_column(lambda X, rng: X[:, 3]),
        r"linearly dependent columns \(2: column 1, column 3; noise 0.03\)",
    ),
    "sum of others": (
        with_column(lambda X, rng: X[:, 0] - 2 * X[:, 2]),
        r"linearly dependent columns \(3: column 0, column 1, column 2; ",
    ),
    "30 % copies": (copied, None),
    "integers": (
        with_column(lambda X, rng: rng.poisson(3, 100)),
        r"columns with repeated values \(1: column 1; ",
    ),
    "binary": (
        with_column(lambda X, rng: rng.randint(2, size=100)),
        r"columns with repeated values \(1: column 1; noise 0.2\)",
    ),
    "times 1e9": (with_column(lambda X, rng: 1e9 * X[:, 1]), None),
    "times 1e-9, far from 0": (with_column(lambda X, rng: 1 + 1e-9 * X[:, 1]), None),
    "5 rows": (lambda seed: normal(5, 3, seed), r"ranks of 5 rows promise no less"),
    "2 rows": (lambda seed: normal(2, 3, seed), r"ranks of 2 rows promise no less"),
    "300 columns": (lambda seed: normal(60, 300, seed), None),
    "heavy tails": (lambda seed: np.random.RandomState(seed).standard_cauchy((100, 3)), None),
    "blobs 1e4 apart": (blobs, None),
    "names": (named, r"columns with repeated values \(1: age in years; "),
}


def fit(est, X, message):
    """Fit, and see the documented warning or none at all."""
    if message is None:
        return est.fit(X)
    with pytest.warns(DataDegeneracyWarning, match=message) as record:
        est.fit(X)
    assert len(record) == 1
    return est


@pytest.mark.parametrize("base", [Mixture(max_components=2), "kernel"], ids=["mixture", "kernel"])
@pytest.mark.parametrize("name", TABLES)
def test_a_degenerate_table_gives_a_sound_model(name, base):
    make, message = TABLES[name]
    X, fresh = make(0), make(1)
    est = fit(tiny(base=base), X, message)
    if name == "heavy tails" and base == "kernel":  # which bent columns suit
        fit(tiny(base=base, standardize="affine"), X, "kernels of one bandwidth blur them")
    for rows in (X, fresh):
        values = est.score_samples(rows)
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 1e280  # not the stand-in for an overflow either
        assert np.isfinite(est.score_function(rows)).all()
    samples = est.sample(50, random_state=0)
    assert samples.shape == (50, X.shape[1])
    assert np.isfinite(samples).all()
    assert (est.predict(X) == -1).mean() <= 0.1
    assert np.isfinite(list(est.log_partition_[:2])).all()
    assert all(parameter.isfinite().all() for parameter in est.energy_.parameters())


def test_a_constant_column_comes_back_near_its_value():
    make, message = TABLES["constant"]
    est = fit(tiny(), make(0), message)
    assert est.data_noise_.tolist() == [0.0, 0.2, 0.0, 0.0]
    column = est.sample(500, random_state=0)[:, 1]
    assert column.mean() == pytest.approx(7.5, abs=0.1)
    assert column.std() == pytest.approx(0.2, abs=0.1)
    moved = make(0)[:5]
    moved[:, 1] += 10
    assert (est.predict(moved) == -1).all()


def test_a_scaled_column_counts_like_any_other():
    X = normal(100, 4)
    scaled = X * [1, 1e9, 1, 1e-9]
    est, other = tiny().fit(X), tiny().fit(scaled)
    np.testing.assert_allclose(other.score_samples(scaled), est.score_samples(X), atol=1e-3)
    spread = other.sample(300, random_state=0).std(0) / scaled.std(0)
    assert (np.abs(spread - 1) < 0.4).all()


def test_blobs_far_apart_both_get_samples():
    est = tiny().fit(blobs(0))
    share = (est.sample(400, random_state=0)[:, 0] > 5e3).mean()
    assert 0.3 < share < 0.7
    assert (est.predict([[5e3, 5e3, 5e3]]) == -1).all()


def test_copies_do_not_carry_away_the_likelihood():
    est = tiny(base="kernel", max_iter=30).fit(copied(0))
    assert est.score(copied(0)) < 5  # unbounded were a copy a kernel of its own
    centers = est.base_.centers
    assert not est.data_noise_.any() and len(centers) == len(centers.unique(dim=0))


@pytest.mark.parametrize("data_noise", [0.0, 0.1, np.float32(0.1)])
def test_noise_that_the_user_sets_is_taken_without_a_warning(data_noise):
    make, _ = TABLES["binary"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataDegeneracyWarning)
        warnings.simplefilter("ignore", UserWarning)
        est = tiny(data_noise=data_noise).fit(make(0))
    np.testing.assert_array_equal(est.data_noise_, np.full(4, float(data_noise)))
    assert np.isfinite(est.score_samples(make(1))).all()


@pytest.mark.filterwarnings("ignore::skebm.exceptions.DataDegeneracyWarning")
def test_training_rows_alone_decide_on_the_noise():
    """Three equal values of 40 are no atom, three of the 20 that are not held out are one."""
    X, found = normal(40, 3), []
    X[[3, 7, 9], 1] = X[3, 1]
    for seed in range(12):
        est = tiny(base="gaussian", max_iter=1, validation_fraction=0.5, random_state=seed)
        found.append(est.fit(X).data_noise_.any())
    assert 0 < sum(found) < 8  # all three are trained on in an eighth of the splits


@pytest.mark.parametrize("noise", [0.0, 0.75])
def test_noise_reaches_the_base_and_the_rows_that_judge(noise):
    """Each as wide as 1 + noise^2 on standardized rows."""
    X, variance = normal(4000, 1), 1 + noise**2
    params = {"base": "gaussian", "data_noise": noise, "max_iter": 1, "batch_size": 4000}
    est = EnergyDensity(random_state=0, **params).fit(5 + 3 * X)
    of_base = 0.5 * float(est.base_.log_prob(torch.zeros(1, 1)).exp()) ** -2 / math.pi
    assert of_base == pytest.approx(variance, rel=0.05)
    judged = -2 * est.history_[0]["validation"] - math.log(2 * math.pi * variance)
    assert judged == pytest.approx(1, abs=4 * math.sqrt(2 / 400))  # their mean square, over it


def test_a_table_of_one_row_repeated_is_sound():
    X = np.tile([[1.0, 2.0]], (30, 1))
    est = fit(tiny(), X, r"constant columns \(2: column 0, column 1; noise 0.2\)")
    assert np.isfinite(est.score_samples(X)).all()
    assert est.predict([[9.0, 9.0]])[0] == -1


def test_a_weighted_degenerate_table_is_sound():
    make, message = TABLES["binary"]
    est = tiny()
    with pytest.warns(DataDegeneracyWarning, match=message):
        est.fit(make(0), sample_weight=np.arange(100) % 3)
    assert np.isfinite(est.score_samples(make(1))).all()


@pytest.mark.parametrize(("n_values", "n_columns"), [(2, 1), (3, 2)])
@pytest.mark.filterwarnings("ignore::skebm.exceptions.DataDegeneracyWarning")
def test_tables_of_few_values_keep_most_of_their_rows(n_values, n_columns):
    """Rows share their scores by the dozen: all or none of such an atom are flagged."""
    X = np.random.RandomState(0).randint(0, n_values, (300, n_columns)).astype(float)
    est = tiny().fit(X)
    assert (est.predict(X) == -1).mean() <= 0.06
    assert (est.predict(X + 20.0) == -1).all()
