"""EnergyDensity: whatever objective it is given trains, with its parameters and the optimizer."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from torch.distributions import Normal

from skebm import EnergyDensity
from skebm.bases import Gaussian
from skebm.objectives import (
    DenoisingScoreMatching,
    ImportanceLikelihood,
    Objective,
    Optimization,
    ScoreMatching,
    State,
)
from tests import cases
from tests.cases import table
from tests.closed_forms import Quadratic, assert_variance

pytestmark = cases.QUIET
tiny = partial(cases.tiny, "EnergyDensity")
OWN = {"ExactLikelihood": {"energy": "ica", "base": None, "log_partition": "auto"}}
FAMILIES = [name for name, part in cases.OBJECTIVES.items() if isinstance(part, Objective)]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_and_is_kept(family, tmp_path):
    objective, params = cases.OBJECTIVES[family].with_params(optimization=None), OWN.get(family, {})
    before = clone(objective)
    est, X = tiny(objective=objective, **params).fit(table()), table(20, seed=1)
    still = tiny(objective=objective, **params, optimizer=Optimization(1e-20)).fit(table())
    assert est.n_iter_ == 4 and np.isfinite(est.score_samples(X)).all()
    assert np.abs(est.energy_samples(X) - still.energy_samples(X)).max() > 1e-5  # it moved
    assert est.sample(5).shape == (5, 2) and np.isfinite(est.sample(5)).all()
    est.save(tmp_path / "model")
    back = EnergyDensity.load(tmp_path / "model")
    assert back.objective == est.objective == before  # a fit leaves it as it was given
    np.testing.assert_array_equal(back.score_samples(X), est.score_samples(X))
    np.testing.assert_array_equal(back.sample(5), est.sample(5))


class Falling(Objective):
    """An energy k |z|^2 / 2 falls with k: a gradient of 3, whatever the rows."""

    def __init__(self, optimization=None):
        self.optimization = optimization

    def init(self, model, x, rng):
        return State({"energy": self.optimization.build(model.energy)}, {}, {})

    def step(self, model, state, draw, rng):
        loss = 3 * model.energy.k + 0 * model.energy(draw()).mean()
        state.optimizers["energy"].zero_grad()
        loss.backward()
        state.optimizers["energy"].step()
        return state, {"loss": loss.detach()}


SLOW = Optimization(0.01, method="sgd")


class Alone(Falling):
    """One that knows no optimization but its own."""

    optimization = SLOW

    def __init__(self):
        pass


def flat(n_features):
    return Quadratic(0.0)


@pytest.mark.parametrize(
    ("objective", "params", "moved"),
    [
        (Falling(), {"learning_rate": 0.25, "optimizer": "sgd"}, 0.75),
        (Falling(), {"learning_rate": 0.25}, 0.25),  # Adam's first step is its rate
        (Falling(), {"learning_rate": 0.25, "optimizer": Optimization(0.2, method="sgd")}, 0.6),
        (Falling(SLOW), {"learning_rate": 0.25, "optimizer": "sgd"}, 0.03),
        (Alone(), {"learning_rate": 0.25, "optimizer": "sgd"}, 0.03),
    ],
)
def test_the_optimizer_reaches_objectives_that_bring_none(objective, params, moved):
    params = {"log_partition": None, **params}  # it gets wider than what its base reaches
    est = tiny(objective=objective, energy=flat, max_iter=1, **params).fit(table())
    assert float(est.energy_.k) == pytest.approx(-moved, rel=1e-5)
    assert objective.optimization == (None if type(objective) is Falling and moved > 0.1 else SLOW)


def test_an_objective_from_outside_is_not_saved_but_pickled(tmp_path):
    est = tiny(objective=Falling(), energy=flat).fit(table())
    with pytest.raises(
        TypeError, match=r"objective must have a plain form to be saved, got Falling"
    ):
        est.save(tmp_path / "model")
    back = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(back.score_samples(table()), est.score_samples(table()))


def test_a_search_reaches_the_objective_and_finds_the_better_noise():
    """Denoising learns rows with their noise: N(0, 1 + s^2), too wide by a known divergence."""
    X = np.random.RandomState(0).randn(1000, 1) * 7
    still = {"energy": flat, "base": Gaussian(inflation=1.5), "log_partition": "auto"}
    est = tiny(objective=DenoisingScoreMatching(), **still, max_iter=150, batch_size=256)
    est.set_params(optimizer=Optimization(0.05, weight_decay=0.0))
    split = ShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(est, {"objective__noise_std": [1.5, 0.1]}, cv=split).fit(X)
    assert search.best_params_ == {"objective__noise_std": 0.1}
    assert search.best_estimator_.objective == DenoisingScoreMatching(0.1)
    worse, better = search.cv_results_["mean_test_score"]
    lost = 0.5 * (math.log(3.25) + 1 / 3.25 - 1) - 0.5 * (math.log(1.01) + 1 / 1.01 - 1)
    assert better - worse == pytest.approx(lost, abs=0.05)
    assert est.objective == DenoisingScoreMatching()  # a search leaves what it was given


def test_no_objective_is_importance_likelihood():
    one, two = (
        tiny(objective=objective).fit(table()) for objective in (None, ImportanceLikelihood())
    )
    np.testing.assert_array_equal(one.score_samples(table()), two.score_samples(table()))


def test_a_temperature_divides_the_energy():
    """k |x|^2 / 2 at T is N(0, T / k), in scores and draws."""
    still = {"base": None, "standardize": False, "log_partition": "auto"}
    still |= {
        "optimizer": Optimization(1e-20, weight_decay=0.0),
        "energy": lambda d: Quadratic(2.0),
    }
    X = np.random.RandomState(0).randn(200, 1)
    for temperature in (1.0, 3.0):
        est = tiny(**still, objective=ScoreMatching("exact"), temperature=temperature).fit(X)
        truth = Normal(0.0, math.sqrt(temperature / 2)).log_prob(torch.from_numpy(X))[:, 0]
        np.testing.assert_allclose(est.score_samples(X), truth, atol=1e-3)
        np.testing.assert_allclose(est.energy_samples(X), X[:, 0] ** 2, rtol=1e-6)
        assert_variance(est.sample(4000)[:, 0], temperature / 2, 0.03)
        assert est.temperature_ == temperature
