"""HybridCDDensity: densities in the units of X, log Z, bases, samples and the refinement."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import cross_val_score

from skebm import HybridCDDensity
from skebm.bases import Kernel
from skebm.energies import MLP, Zero
from skebm.exceptions import NormalizationWarning
from skebm.partition import ImportanceSampling
from tests import cases
from tests.generators import gen

SHIFT, SCALE = 100.0, 10.0
OWN = {"max_iter": 20, "n_steps": 2, "validation_fraction": 0.1, "batch_size": 256}
OWN["log_partition"] = ImportanceSampling(n_samples=4096, max_samples=4096)
tiny = partial(cases.tiny, "HybridCDDensity", **OWN)


def strong(**params):
    """Enough updates to move away from a Gaussian base, and a log Z that is nearly exact."""
    defaults = {
        "max_iter": 150,
        "learning_rate": 0.01,
        "energy": MLP(hidden_sizes=(16,), n_frequencies=8, max_frequency=3.0),
        "log_partition": "quadrature",
        "validation_fraction": 0.25,
    }
    return tiny(**{**defaults, **params})


def two_modes(n, seed, d=1):
    """Half the rows around -2 and half around 2 in each column, in units with a shift and scale."""
    rng = np.random.RandomState(seed)
    side = np.where(rng.rand(n, 1) < 0.5, -2.0, 2.0)
    return SHIFT + SCALE * (side + 0.5 * rng.randn(n, d))


def grid(d, n=400):
    """Cell centers over +-8 standard deviations of `two_modes`, and the volume of a cell."""
    edges = np.linspace(SHIFT - 8 * SCALE * 2.1, SHIFT + 8 * SCALE * 2.1, n + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(*[centers] * d, indexing="ij"), -1).reshape(-1, d)
    return points, (edges[1] - edges[0]) ** d


def assert_normalized(est, d=1, n=400):
    points, cell = grid(d, n)
    assert np.exp(est.score_samples(points)).sum() * cell == pytest.approx(1, abs=0.01)


def base_log_density(est, X, fitted_to):
    """That of the base alone, in the units of X."""
    mean, std = fitted_to.mean(0), fitted_to.std(0)
    base = copy.deepcopy(est.base_).double()
    return base.log_prob(torch.from_numpy((X - mean) / std)).numpy() - np.log(std).sum()


@pytest.fixture(scope="module")
def X():
    return two_modes(300, 0, d=2)


@pytest.fixture(scope="module")
def strong_1d():
    est = strong().fit(two_modes(800, 0))
    assert est.validation_gain_[0] > 0.1  # else the tests below would look at the base alone
    return est


# -- density in the units of X -------------------------------------------------------------------


@pytest.mark.parametrize(("d", "temperature"), [(1, 1.0), (2, 1.0), (1, 0.5), (1, 2.0)])
def test_density_integrates_to_one_in_the_units_of_x(d, temperature):
    est = strong(temperature=temperature, max_iter=50).fit(two_modes(400, 1, d))
    assert not isinstance(est.energy_, Zero) and est.temperature_ == temperature
    assert_normalized(est, d)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_log_density_is_energy_over_temperature_and_base_and_log_z(temperature):
    X = two_modes(200, 0, d=2)
    est = strong(max_iter=50, validation_fraction=0, temperature=temperature).fit(X)
    z = torch.from_numpy((X - X.mean(0)) / X.std(0)).float()
    energy = est.energy_samples(X)
    np.testing.assert_allclose(energy, est.energy_(z).numpy(), atol=1e-4)
    assert energy.std() > 0.05
    expected = -energy / temperature + base_log_density(est, X, X) - est.log_partition_.value
    np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-4)


def test_standardize_false_works_in_the_units_of_x():
    X = (two_modes(300, 0) - SHIFT) / SCALE
    est = strong(standardize=False, max_iter=50).fit(X)
    plain = est.base_.log_prob(torch.from_numpy(X).float()).numpy()
    expected = plain - est.energy_samples(X) - est.log_partition_.value
    np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-4)
    far = strong(standardize=False, max_iter=2).fit(X * 1000)
    assert far.sample(50, random_state=0).std() > 100


# -- thresholds ----------------------------------------------------------------------------------


def test_the_automatic_offset_is_the_quantile_of_held_out_rows(X):
    """A kernel base so narrow that rows it was fitted to score far above all others."""
    est = tiny(base=Kernel(bandwidth=0.003), validation_fraction=0.3, max_iter=1).fit(X)
    scores = np.sort(est.score_samples(X))
    assert scores[90:].min() > scores[:90].max() + 1  # the 90 are those held out
    assert est.offset_ == pytest.approx(np.quantile(scores[:90], 0.05, method="weibull"))
    assert (est.predict(X) == -1).sum() == 4  # rank 0.05 * 91


# -- the base ------------------------------------------------------------------------------------


def test_an_energy_that_earns_nothing_is_dropped_and_log_z_is_exact():
    X, kept = np.random.RandomState(0).randn(120, 2), []  # the Gaussian base is the truth
    for seed in range(4):
        est = tiny(random_state=seed).fit(X)
        best = max((r for r in est.history_ if "validation" in r), key=lambda r: r["validation"])
        kept.append(best["validation_gain"] > best["validation_stderr"])
        assert isinstance(est.energy_, Zero) == (not kept[-1])
        if not kept[-1]:
            assert tuple(est.log_partition_)[:2] == est.validation_gain_ == (0.0, 0.0)
            expected = base_log_density(est, X, X)
            np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-5)
    assert not all(kept)


def test_a_quadratic_energy_needs_no_base():
    energy = MLP(hidden_sizes=(16,), n_frequencies=0, output="quadratic")
    X = two_modes(400, 0)
    est = strong(base=None, energy=energy).fit(X)
    assert est.base_ is None
    points, _ = grid(1, 2000)
    expected = -est.energy_samples(points) - est.log_partition_.value - np.log(X.std())
    np.testing.assert_allclose(est.score_samples(points), expected, rtol=1e-5, atol=1e-4)
    assert_normalized(est, n=2000)
    assert abs(est.sample(200, random_state=0).mean() - SHIFT) < 2 * SCALE


# -- log Z ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["auto", "importance", "ais"])
def test_each_log_partition_alias_agrees_with_quadrature(alias, strong_1d):
    est = strong(log_partition=alias).fit(two_modes(800, 0))
    truth, result = strong_1d.log_partition_, est.log_partition_
    assert truth.stderr < 1e-3 and truth.method == "quadrature"
    assert abs(truth.value) > 0.01  # or 0 would do
    assert result.stderr <= 0.05
    assert abs(result.value - truth.value) <= 4 * result.stderr + 1e-3
    assert result.method == {"auto": "quadrature"}.get(alias, alias)


def test_a_log_z_that_cannot_be_trusted_warns_with_its_numbers():
    crude = ImportanceSampling(n_samples=8, max_samples=8)
    with pytest.warns(NormalizationWarning, match=r"standard error of [\d.e-]+ nats .*sample size"):
        strong(log_partition=crude, max_iter=50).fit(two_modes(400, 0))


# -- samples -------------------------------------------------------------------------------------


def test_samples_have_the_moments_of_the_data():
    rng = np.random.RandomState(0)
    X = rng.gamma(4, size=(600, 2)) @ np.array([[30.0, 2.0], [0.0, 1.0]]) + [1000.0, -5.0]
    est = tiny(max_iter=50, validation_fraction=0).fit(X)  # nothing held out: the energy stays
    samples = est.sample(4000, random_state=0)
    assert (np.abs(samples.mean(0) - X.mean(0)) < 0.15 * X.std(0)).all()
    np.testing.assert_allclose(samples.std(0), X.std(0), rtol=0.15)
    assert np.corrcoef(samples.T)[0, 1] == pytest.approx(np.corrcoef(X.T)[0, 1], abs=0.05)


def test_samples_follow_the_density_and_draws_of_the_base_do_not(strong_1d):
    """Kolmogorov-Smirnov against the estimator's own density on a fine grid."""
    points, cell = grid(1, 20_000)
    mass = (np.exp(strong_1d.score_samples(points)) * cell).cumsum()

    def p_value(rows):
        return stats.kstest(rows[:, 0], lambda x: np.interp(x, points[:, 0], mass)).pvalue

    assert p_value(strong_1d.sample(4000, random_state=0)) > 1e-3
    draws = strong_1d.density_.transform.inverse(strong_1d.base_.sample(4000, gen(0)))
    assert p_value(draws) < 1e-6


def test_sample_reports_how_it_went(strong_1d):
    strong_1d.sample(100, random_state=0)
    info = strong_1d.sample_info_
    assert 100 < info.ess < info.n_candidates
    moved = info.n_levels > 0  # where its weights call for it
    assert 0.3 < info.acceptance < 1 if moved else info.acceptance == 1


# -- two phases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", [True, False])
def test_a_warm_start_goes_on_with_every_phase(refine, X):
    est = tiny(warm_start=True, refine=refine, validation_fraction=0).fit(X)
    first, before = est.n_iter_, est.energy_samples(X)
    energy, base = est.energy_, copy.deepcopy(est.base_.state_dict())
    weights = copy.deepcopy(energy.state_dict())
    twin = copy.deepcopy(est).set_params(cd_weight=1e4)
    est.fit(X)
    assert (first, est.n_iter_) == (20, 40)
    iterations = [row["iteration"] for row in est.history_]
    assert iterations == sorted(iterations) and iterations[-1] == (80 if refine else 40)
    assert (est.energy_samples(X) != before).any()
    assert (est.energy_samples(X) != twin.fit(X).energy_samples(X)).any()  # the first phase counts
    torch.testing.assert_close(dict(est.base_.state_dict()), dict(base), rtol=0, atol=0)
    torch.testing.assert_close(dict(energy.state_dict()), dict(weights), rtol=0, atol=0)


def test_refinement_gains_and_can_be_left_out():
    X, fresh = two_modes(800, 0), two_modes(4000, 7)
    settings = {"max_iter": 30, "learning_rate": 0.02, "n_steps": 1}
    plain, refined = (strong(refine=r, **settings).fit(X) for r in (False, True))
    assert plain.history_[-1]["iteration"] == 30
    assert refined.history_[-1]["iteration"] == 60
    assert refined.score(fresh) > plain.score(fresh) + 0.01


# -- images and defaults ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["gaussian", None])
def test_images_go_to_a_convolutional_energy_as_images(base):
    X = np.random.RandomState(0).rand(60, 16) * 255
    shapes = []

    def factory(shape):
        shapes.append(shape)
        nn = torch.nn
        layers = nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 1)
        return nn.Sequential(*layers, nn.Flatten(0))

    est = tiny(energy=factory, image_shape=(1, 4, 4), log_partition="auto", base=base)
    est.set_params(max_iter=3, n_steps=1, validation_fraction=0).fit(X)
    assert shapes == [(1, 4, 4)]
    assert est.log_partition_ is None  # "auto" means None for images
    z = 2 * (X - X.min()) / (X.max() - X.min()) - 1  # one global map to [-1, 1]
    expected = est.energy_(torch.from_numpy(z).float().reshape(-1, 1, 4, 4)).numpy()
    np.testing.assert_allclose(est.energy_samples(X), expected, atol=1e-5)
    assert np.isfinite(est.score_samples(X)).all()
    assert est.score_function(X).shape == (60, 16)
    assert est.sample(3, random_state=0).shape == (3, 16)


def test_cross_validation_prefers_the_right_model():
    X = two_modes(400, 0)
    good = cross_val_score(strong(max_iter=100), X, cv=2)
    plain = cross_val_score(strong(max_iter=1, learning_rate=1e-9), X, cv=2)
    assert (good > plain + 0.05).all()


def test_defaults_fit_a_table_without_tuning():
    est = HybridCDDensity(random_state=0).fit(two_modes(150, 0))
    assert_normalized(est, n=4000)
    fresh = two_modes(2000, 1)
    truth = np.logaddexp(*(stats.norm(SHIFT + m * SCALE, 5).logpdf(fresh) for m in (-2, 2)))
    gap = (truth[:, 0] - np.log(2) - est.score_samples(fresh)).mean()
    assert -0.01 < gap < 0.1


@pytest.mark.parametrize("step", [0.02, 0.3])
def test_a_number_is_the_step_of_the_chains_and_stays(step):
    est = HybridCDDensity(base="gaussian", step_size=step, max_iter=3, random_state=0)
    assert est.fit(np.random.RandomState(0).randn(60, 2)).sampler_.step_size == pytest.approx(step)
