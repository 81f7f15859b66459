"""Estimators on a GPU against the same ones moved to the CPU; skipped where there is none."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import skebm
from skebm.bases import TorchDistribution
from skebm.datasets import eight_modes
from skebm.diagnostics import run_chains
from skebm.energies import MLP, Conv
from skebm.exceptions import CheckpointWarning
from skebm.impute import DensityImputer
from skebm.networks import Critic, MLPGenerator
from skebm.ood import NoveltyDetector
from skebm.stein import CriticSettings, learned_stein_discrepancy
from tests.cases import QUIET

DEVICE = "cuda"
pytestmark = [
    *QUIET,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: make test-cuda"),
]
X = eight_modes().sample(600, random_state=0)
PIXELS = np.random.RandomState(0).uniform(0, 255, (80, 64))
SMALL = {"max_iter": 12, "random_state": 0}
KINDS = {
    "usp": skebm.USPDensity(**SMALL),
    "ps-usp": skebm.USPDensity(method="ps-usp", n_points=100, **SMALL),
    "hcd": skebm.HybridCDDensity(**SMALL),
    "no base": skebm.HybridCDDensity(base=None, refine=False, **SMALL),
    "bank": skebm.HybridCDDensity(init="persistent", **SMALL),
    "nce": skebm.NCEDensity(**SMALL),
    "marginal": skebm.NCEDensity(standardize="marginal", **SMALL),
    "score matching": skebm.ScoreMatchingDensity(**SMALL),
    "stein": skebm.SteinEBM(calibrate=True, **SMALL),
    "bounds": skebm.BoundsEBM(n_restarts=1, **SMALL),
    "flat base": skebm.EnergyDensity(base="uniform", **SMALL),
}


def here(estimator):
    return copy.deepcopy(estimator).set_params(device=DEVICE)


def moved(fitted, device="cpu"):
    """Return the same fit on another device."""
    other = copy.deepcopy(fitted)
    other.density_ = other.density_.to(torch.device(device))
    return other


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return here(KINDS[request.param]).fit(X)


def test_a_fit_is_on_the_device_and_scores_as_on_the_cpu(fitted):
    assert fitted.density_.device.type == DEVICE
    there = moved(fitted)
    for call in ("score_samples", "score_function", "energy_samples"):
        assert_allclose(getattr(fitted, call)(X), getattr(there, call)(X), rtol=1e-3, atol=1e-4)
    assert_array_equal(fitted.predict(X[:50]), there.predict(X[:50]))


def test_rows_with_holes_score_as_on_the_cpu(fitted):
    if fitted.base in (None, "uniform"):
        pytest.skip("no conditional densities")
    holes = X[:20].copy()
    holes[::2, 0] = np.nan
    found, expected = (est.score_samples(holes) for est in (fitted, moved(fitted)))
    assert_allclose(found, expected, atol=0.3)  # sums over draws of their own
    assert np.isfinite(found).all()


def test_samples_are_the_rows_of_numpy(fitted):
    rows = fitted.sample(50, random_state=0)
    assert rows.shape == (50, 2) and np.isfinite(rows).all()
    assert_array_equal(rows, fitted.sample(50, random_state=0))


def test_files_and_pickles_keep_the_scores(fitted, tmp_path):
    fitted.save(tmp_path / "model.skebm")
    for again in (
        type(fitted).load(tmp_path / "model.skebm"),
        pickle.loads(pickle.dumps(fitted)),
    ):
        assert again.density_.device.type == DEVICE
        assert_allclose(again.score_samples(X), fitted.score_samples(X), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_goes_on(tmp_path):
    est = here(KINDS["hcd"]).set_params(checkpoint_dir=tmp_path)
    whole = est.fit(X).score_samples(X)
    with pytest.warns(CheckpointWarning, match="is read"):
        again = here(est).fit(X)
    assert_allclose(again.score_samples(X), whole, atol=1e-5)


def test_partial_fit_and_warm_start_stay_there():
    est = here(KINDS["nce"]).set_params(warm_start=True).fit(X)
    assert est.fit(X).density_.device.type == DEVICE
    assert est.partial_fit(X[:100]).density_.device.type == DEVICE
    assert np.isfinite(est.score_samples(X)).all()


class FromTheCPU(MLPGenerator):
    """A generator as users write it, who need not know of devices."""

    def build(self, latent_dim, shape, rng):
        return super().build(latent_dim, shape, torch.Generator().manual_seed(0))


class CriticFromTheCPU(Critic):
    def build(self, n_features, rng):
        return super().build(n_features, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "estimator",
    [
        skebm.BoundsEBM(generator=FromTheCPU((8,)), n_restarts=1, **SMALL),
        skebm.SteinEBM(critic=CriticFromTheCPU((8,)), **SMALL),
        skebm.EnergyDensity(
            energy=lambda n: torch.nn.Sequential(torch.nn.Linear(n, 1), torch.nn.Flatten(0)),
            **SMALL,
        ),
        skebm.EnergyDensity(
            base=TorchDistribution(
                torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
            ),
            energy=MLP((8,)),
            **SMALL,
        ),
    ],
    ids=["generator", "critic", "energy", "distribution"],
)
def test_networks_of_users_are_moved_there(estimator):
    assert np.isfinite(here(estimator).fit(X).score_samples(X)).all()


@pytest.mark.parametrize("kind", [skebm.HybridCDDensity, skebm.BoundsEBM], ids=["hcd", "bounds"])
def test_images(kind):
    est = kind(energy=Conv((4,)), image_shape=(1, 8, 8), **SMALL | {"max_iter": 3})
    if kind is skebm.BoundsEBM:
        est.set_params(generator="conv", n_restarts=1)
    est = here(est).fit(PIXELS)
    assert_allclose(est.energy_samples(PIXELS), moved(est).energy_samples(PIXELS), rtol=1e-3)


def test_chains_run_there(fitted):
    assert np.isfinite(run_chains(fitted, n_chains=10, n_steps=3).positions).all()


def test_tools_around():
    holes = X[:40].copy()
    holes[::3, 1] = np.nan
    density = here(KINDS["usp"])
    assert np.isfinite(DensityImputer(density).fit(X).transform(holes)).all()
    assert np.isfinite(NoveltyDetector(density).fit(X).score_samples(X)).all()
    settings = CriticSettings(Critic((8,)), max_iter=20, device=DEVICE)
    found = learned_stein_discrepancy(lambda x: -x, X, critic=settings, random_state=0)
    assert np.isfinite(found.value)
