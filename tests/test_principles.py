"""Estimators of one principle: the objective behind them, draws far from a base, two moons."""

import math

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from skebm.datasets import two_moons
from skebm.energies import MLP, Model
from skebm.objectives import (
    ConditionalNoiseContrastive,
    DenoisingScoreMatching,
    NoiseContrastive,
    ScoreMatching,
)
from tests import cases
from tests.cases import table
from tests.closed_forms import Quadratic, assert_mean, assert_variance
from tests.generators import gen

pytestmark = cases.QUIET
COPIES = {"noise": "conditional", "noise_ratio": 3, "noise_std": 0.2}
LEVELS = {"noise_std": 0.2, "n_levels": 3, "max_noise_std": 0.6}
SLICES = {"n_projections": 2, "projections": "gaussian"}
MATCHING = "ScoreMatchingDensity"


@pytest.mark.parametrize(
    ("name", "params", "objective"),
    [
        ("NCEDensity", {"noise_ratio": 3.0}, NoiseContrastive(ratio=3.0)),
        ("NCEDensity", COPIES, ConditionalNoiseContrastive(0.2, 3)),
        (MATCHING, {"method": "denoising"} | LEVELS, DenoisingScoreMatching(0.2)),
        (MATCHING, {"method": "multi-level"} | LEVELS, DenoisingScoreMatching(0.2, 3, 0.6)),
        (MATCHING, {"method": "exact"} | SLICES, ScoreMatching("exact")),
        (MATCHING, {"method": "sliced"} | SLICES, ScoreMatching("sliced", 2, "gaussian")),
    ],
)
def test_parameters_reach_the_objective(name, params, objective):
    """The bits are those of the generic estimator that is told the same."""
    est = cases.tiny(name, **params).fit(table())
    rate = {"learning_rate": est.learning_rate}
    generic = cases.tiny("EnergyDensity", objective=objective, **rate).fit(table())
    np.testing.assert_array_equal(est.energy_samples(table()), generic.energy_samples(table()))
    assert abs(est.energy_samples(table())).max() > 0
    if name == "NCEDensity":
        assert math.isnan(est.noise_log_partition_) == (params is COPIES)


@pytest.mark.parametrize(
    ("name", "params"), [("NCEDensity", {"noise": "gaussian"}), (MATCHING, {})]
)
def test_above_32_columns_without_a_base_draws_are_moved_to_the_model(name, params):
    """From a Gaussian fitted to the rows, around 0, to what the model is now."""
    X = np.random.RandomState(0).randn(200, 40)
    wide = {"base": None, "energy": MLP((8,), output="quadratic"), "log_partition": None}
    est = cases.tiny(name, standardize=False, **wide, **params).fit(X)
    proposed = est.density_.proposal.sample(500, gen(0))
    assert_mean(proposed.flatten(), 0.0, largest_stderr=0.02)
    est.density_.model = Model(Quadratic(1.0, mean=4.0).requires_grad_(False), None, 1.0)
    rows = est.sample(500).flatten()
    assert_mean(rows, 4.0, largest_stderr=0.01)
    assert_variance(rows, 1.0, largest_stderr=0.02)


MOONS = [("NCEDensity", {"noise": noise}, 150, 0.3) for noise in ("base", "uniform", "conditional")]
METHODS = ("denoising", "multi-level", "exact", "sliced")
MOONS += [(MATCHING, {"method": method}, 300, 0.15) for method in METHODS]


@pytest.mark.parametrize(("name", "params", "max_iter", "least"), MOONS)
def test_the_energy_earns_its_place_on_two_moons(name, params, max_iter, least):
    moons = two_moons()
    X, fresh = moons.sample(1500, 0), moons.sample(1000, 1)
    shared = {"base": "gaussian", "batch_size": 128, "random_state": 1}
    shared |= {"energy": MLP((48, 48), n_frequencies=16), "max_iter": max_iter}
    est = cases.CLASSES[name](**shared, **params).fit(X)
    gain, stderr = est.validation_gain_
    assert gain > 3 * stderr and stderr < 0.15
    alone = GaussianMixture().fit(X)
    lift = est.score_samples(fresh) - alone.score_samples(fresh)
    assert lift.mean() > 4 * lift.std() / math.sqrt(len(lift))
    assert alone.score(fresh) + least < est.score(fresh) < -moons.entropy
