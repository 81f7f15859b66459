"""Searches and ensembles on a cluster of dask find what they find in one process."""

import warnings

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GridSearchCV

from skebm import NCEDensity
from skebm.ood import EnsembleDensity
from tests.cases import QUIET

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, *QUIET]


@pytest.fixture(scope="module")
def cluster():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.LocalCluster(**options) as local, distributed.Client(local):
            yield


@pytest.fixture(scope="module")
def rows():
    return np.random.RandomState(0).randn(200, 2)


def on_dask(estimator, X):
    with joblib.parallel_config("dask"):
        return estimator.fit(X)


def test_a_search_equals_the_serial_one(cluster, rows):
    est = NCEDensity(max_iter=5, random_state=0)
    search = GridSearchCV(est, {"base": ["gaussian", "mixture"]}, cv=2, n_jobs=2)
    there, here = on_dask(search, rows), GridSearchCV(est, search.param_grid, cv=2).fit(rows)
    for key in ("mean_test_score", "split0_test_score", "split1_test_score"):
        assert_array_equal(there.cv_results_[key], here.cv_results_[key])
    assert_array_equal(there.score_samples(rows), here.score_samples(rows))


def test_an_ensemble_equals_the_serial_one(cluster, rows):
    est = EnsembleDensity(NCEDensity(max_iter=5), n_estimators=3, n_jobs=2, random_state=0)
    there = on_dask(est, rows).score_samples(rows)
    assert_array_equal(there, est.set_params(n_jobs=1).fit(rows).score_samples(rows))


def test_blocks_by_dask_ml_are_those_of_partial_fit():
    wrappers, da = pytest.importorskip("dask_ml.wrappers"), pytest.importorskip("dask.array")
    X = np.random.default_rng(0).normal(size=(1000, 2))
    lazy, est = da.from_array(X, chunks=(250, 2)), NCEDensity(max_iter=5, random_state=0)
    streamed = wrappers.Incremental(est, shuffle_blocks=False).fit(lazy)
    for block in np.split(X, 4):
        est.partial_fit(block)
    assert_array_equal(streamed.estimator_.score_samples(X), est.score_samples(X))
    assert_array_equal(wrappers.ParallelPostFit(est).predict(lazy).compute(), est.predict(X))
