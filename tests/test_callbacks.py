"""What scikit-learn's own callbacks hear of a fit."""

import numpy as np
import pytest

from skebm import EnergyDensity, HybridCDDensity
from skebm.energies import MLP
from skebm.exceptions import ConvergenceError
from skebm.objectives import Optimization

pytest.importorskip("sklearn.callback")
X = np.random.RandomState(0).randn(60, 2)
WEIGHT = np.ones(60)


class Recording:
    """Writes down what it hears; asks to stop after so many validations."""

    def __init__(self, stop_after=999):
        self.heard, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.heard.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
        self.heard.append(("begin", context.task_name))
        self.about = estimator, len(X), metadata["sample_weight"]

    def on_fit_task_end(self, estimator, context):
        self.heard.append(("end", context.task_name))
        return self.heard.count(("end", "validation")) >= self.stop_after

    def teardown(self, estimator, context):
        self.heard.append("teardown")


def fitted(cls=EnergyDensity, stop_after=999, **params):
    callback = Recording(stop_after)
    params |= {"energy": MLP((8,)), "base": "gaussian", "log_partition": None}
    est = cls(**params, random_state=0).set_callbacks(callback)
    est.fit(X, sample_weight=WEIGHT)
    return est, callback


@pytest.mark.parametrize("cls, phases", [(EnergyDensity, 1), (HybridCDDensity, 2)])
def test_callbacks_hear_the_fit_and_each_validation(cls, phases):
    est, callback = fitted(cls, max_iter=60, n_iter_no_change=None)
    validations = [("begin", "validation"), ("end", "validation")] * 4 * phases  # 0, 25, 50, 60
    fit = [("begin", "fit"), *validations, ("end", "fit")]
    assert callback.heard == ["setup", *fit, "teardown"]
    assert len(est.history_) == 4 * phases
    assert callback.about[0] is est and callback.about[1] == 60
    np.testing.assert_array_equal(callback.about[2], WEIGHT)
    est.fit(X)  # the callbacks stay, and are told that no weights are given
    assert len(callback.heard) == 2 * len(["setup", *fit, "teardown"]) and callback.about[2] is None


def test_callbacks_can_stop_training():
    assert fitted(stop_after=2, max_iter=500)[0].n_iter_ == 25


def test_callbacks_are_torn_down_after_a_failure():
    callback = Recording()
    est = EnergyDensity(base="gaussian", optimizer=Optimization(1e6), max_iter=200)
    with pytest.raises(ConvergenceError):
        est.set_callbacks(callback).fit(X)
    assert callback.heard[-1] == "teardown" and ("end", "fit") not in callback.heard
