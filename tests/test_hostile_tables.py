"""Random tables of the ugliest columns: a documented error, or a density that keeps its promises.

``SKEBM_HOSTILE=10000 pytest tests/test_hostile_tables.py`` makes that many tables.
"""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from skebm import (
    BoundsEBM,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from skebm.energies import MLP
from skebm.exceptions import ConvergenceError, NormalizationWarning
from skebm.networks import Critic, MLPGenerator
from skebm.partition import ImportanceSampling

N_TABLES, AT_ONCE = int(os.environ.get("SKEBM_HOSTILE", 240)), 10
LARGEST = 1.7e308

COLUMNS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "constant": lambda rng, n: np.full(n, rng.choice([0.0, 7.5, -1e200, 1e-310])),
    "binary": lambda rng, n: rng.integers(2, size=n).astype(float),
    "counts": lambda rng, n: rng.poisson(rng.choice([0.1, 3, 1000]), n).astype(float),
    "rounded": lambda rng, n: rng.standard_normal(n).round(rng.integers(3)),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "lognormal": lambda rng, n: rng.lognormal(0, rng.choice([1, 3, 20]), n),
    "zero-inflated": lambda rng, n: np.where(rng.random(n) < 0.6, 0, rng.gamma(2, size=n)),
    "glitch": lambda rng, n: np.r_[rng.choice([1e9, -1e300, 1e15]), rng.standard_normal(n - 1)],
    "code": lambda rng, n: np.where(rng.random(n) < 0.03, -9999.0, rng.standard_normal(n)),
    "groups": lambda rng, n: rng.standard_normal(n) + 10 ** rng.uniform(1, 6) * (np.arange(n) % 2),
    "time stamps": lambda rng, n: 1.7e9 + 86400 * rng.random(n),
    "far from 0": lambda rng, n: 1e12 + 1e-3 * rng.standard_normal(n),
    "tiny": lambda rng, n: rng.choice([1e-200, 1e-310, 5e-324]) * rng.integers(-9, 9, size=n),
    "huge": lambda rng, n: rng.choice([1e20, 1e200, LARGEST]) * rng.uniform(-1, 1, size=n),
    "ends": lambda rng, n: rng.choice([-LARGEST, LARGEST, 0.0], size=n),
    "sorted": lambda rng, n: np.sort(rng.exponential(size=n)),
    "one odd": lambda rng, n: np.r_[np.zeros(n - 1), 1.0],
}
RELATIONS = {
    "copy": lambda rng, c: c.copy(),
    "nearly": lambda rng, c: c * (1 + 10 ** rng.uniform(-12, -2) * rng.standard_normal(len(c))),
    "square": lambda rng, c: np.clip(c, -1e150, 1e150) ** 2,
    "minus": lambda rng, c: -c,
}


def network():
    return MLP(hidden_sizes=(6,), n_frequencies=0)


def common(rng):
    return {
        "base": str(rng.choice(["mixture", "kernel", "gaussian", "uniform"])),
        "energy": network(),
        "max_iter": 3,
        "batch_size": 16,
        "log_partition": ImportanceSampling(2048, 2048),
        "random_state": int(rng.integers(100)),
    }


ESTIMATORS = {
    "bounds": lambda rng: BoundsEBM(
        refine=False,
        **common(rng) | {"base": None, "generator": MLPGenerator((6,))},
    ),
    "hybrid": lambda rng: HybridCDDensity(n_steps=2, **common(rng)),
    "nce": lambda rng: NCEDensity(**common(rng)),
    "score": lambda rng: ScoreMatchingDensity(**common(rng)),
    "stein": lambda rng: SteinEBM(critic=Critic((6,)), critic_steps=1, **common(rng)),
    "usp": lambda rng: USPDensity(n_points=64, **common(rng)),
}


def hostile(seed):
    """Return a table, weights and an estimator, and what they are in words."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.choice([2, 3, 7, 25, 60, 150])), int(rng.choice([1, 1, 2, 3, 5]))
    kinds = list(rng.choice(list(COLUMNS), d))
    columns = [COLUMNS[kind](rng, n) for kind in kinds]
    if d > 1 and rng.random() < 0.3:
        kind = str(rng.choice(list(RELATIONS)))
        columns[-1] = np.clip(RELATIONS[kind](rng, columns[0]), -LARGEST, LARGEST)
        kinds[-1] = f"{kind} of the first"
    X = np.column_stack(columns)
    if rng.random() < 0.15:
        X = X[rng.integers(n, size=n)]
        kinds.append("rows drawn with replacement")
    weight = None
    if rng.random() < 0.25:
        weight = rng.exponential(size=n) * 10.0 ** rng.integers(-250, 250)
        kinds.append("weights")
    name = str(rng.choice(list(ESTIMATORS)))
    est = ESTIMATORS[name](rng)
    return X, weight, est, f"seed {seed}: {n} rows of {', '.join(kinds)}; {est!r}"


def fitted(est, X, weight):
    """Fit; return what was warned of, or None where a documented error refuses the table."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        try:
            est.fit(X, sample_weight=weight)
        except (ValueError, ConvergenceError) as error:
            assert ", got " in str(error) or isinstance(error, ConvergenceError), error
            return None
    return [w.category for w in record]


def log_integral(est, X):
    """The log of the integral of a density of one column, by trapezoids finer nearer to rows."""
    centers = np.unique(X[:, 0])
    centers = centers[np.linspace(0, len(centers) - 1, min(len(centers), 40)).astype(int)]
    scale = float(np.exp(-est.density_.transform.log_slope(X[:1])[0, 0]))
    steps = scale * np.logspace(-9, 5, 1500)
    wide = np.linspace(2 * X.min() - X.max(), 2 * X.max() - X.min(), 6001)  # a uniform base's box
    grid = np.unique(np.r_[(centers[:, None] + np.r_[-steps[::-1], 0.0, steps]).ravel(), wide])
    log_density = est.score_samples(grid[:, None])
    middle = np.logaddexp(log_density[1:], log_density[:-1]) - np.log(2)
    return np.logaddexp.reduce(middle + np.log(np.diff(grid)))


def check(seed):
    X, weight, est, about = hostile(seed)
    categories = fitted(est, X, weight)
    if categories is None:
        return
    rows = X[:50]
    scores = est.score_samples(rows)
    assert np.isfinite(scores).all(), about
    assert np.isfinite(est.score_function(rows)).all(), about
    drawn = est.sample(5, random_state=0)
    assert drawn.shape == (5, X.shape[1]) and np.isfinite(drawn).all(), about
    assert set(est.predict(rows)) <= {-1, 1}, about
    alone = np.array([est.score_samples(row[None])[0] for row in rows[:3]])
    np.testing.assert_allclose(alone, scores[:3], rtol=1e-9, atol=1e-9, err_msg=about)
    many = est.score_samples(np.resize(rows, (300, X.shape[1])))[: len(rows)]
    np.testing.assert_allclose(many, scores, rtol=1e-5, atol=1e-5, err_msg=about)
    with tempfile.TemporaryDirectory() as folder:
        est.save(Path(folder) / "model")
        again = type(est).load(Path(folder) / "model")
    assert np.array_equal(again.score_samples(rows), scores), about
    assert again.offset_ == est.offset_, about
    sized = (
        np.ptp(X) > max(1e-9 * np.abs(X).max(), 1e-290) and np.abs(X).max() < 1e290
    )  # for a grid
    if X.shape[1] == 1 and sized and NormalizationWarning not in categories:
        total, error = log_integral(est, X), est.log_partition_.stderr
        assert abs(total) < 0.05 + 5 * error, f"{about}: log integral {total}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, N_TABLES, AT_ONCE))
def test_a_hostile_table_is_refused_in_words_or_gives_a_density_that_keeps_its_promises(first):
    for seed in range(first, min(first + AT_ONCE, N_TABLES)):
        check(seed)
