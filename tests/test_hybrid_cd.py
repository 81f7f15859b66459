"""HybridCDDensity's public contract: units, thresholds, samples, thrift with log Z, sklearn use."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import cross_val_score

from skebm import HybridCDDensity
from skebm.energies import MLP, Zero
from skebm.exceptions import NormalizationWarning
from skebm.partition import AIS, ImportanceSampling
from tests import cases

SHIFT, SCALE = 100.0, 10.0


def tiny(**params):
    defaults = {
        "max_iter": 20,
        "n_steps": 2,
        "batch_size": 256,
        "validation_fraction": 0.1,
        "energy": MLP(hidden_sizes=(8,), n_frequencies=4),
        "log_partition": ImportanceSampling(n_samples=4096, max_samples=4096),
    }
    return cases.tiny("HybridCDDensity", **{**defaults, **params})


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


def grid(est, d, n=400):
    """Cell centers over +-8 standard deviations of `two_modes`, and the volume of a cell."""
    edges = np.linspace(SHIFT - 8 * SCALE * 2.1, SHIFT + 8 * SCALE * 2.1, n + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(*[centers] * d, indexing="ij"), -1).reshape(-1, d)
    return points, (edges[1] - edges[0]) ** d


@pytest.fixture(scope="module")
def X():
    return two_modes(300, 0, d=2)


@pytest.fixture(scope="module")
def fitted(X):
    return tiny().fit(X)


@pytest.fixture(scope="module")
def strong_1d():
    est = strong().fit(two_modes(800, 0))
    assert not isinstance(est.energy_, Zero)  # else the tests below would look at the base alone
    assert est.validation_gain_[0] > 0.1
    return est


@pytest.fixture(scope="module")
def strong_2d():
    est = strong().fit(two_modes(800, 1, d=2))
    assert not isinstance(est.energy_, Zero)
    return est


# -- scikit-learn's contract ---------------------------------------------------------------------


# -- density in the units of X -------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2])
def test_density_integrates_to_one_in_the_units_of_x(d, strong_1d, strong_2d):
    est = strong_1d if d == 1 else strong_2d
    points, cell = grid(est, d)
    assert np.exp(est.score_samples(points)).sum() * cell == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("params", [{}, {"temperature": 2.0}, {"temperature": 0.5}])
def test_log_density_is_energy_over_temperature_and_base_and_log_z(params):
    X = two_modes(200, 0, d=2)
    est = strong(max_iter=50, validation_fraction=0, **params).fit(X)
    z = torch.from_numpy((X - X.mean(0)) / X.std(0))
    base = est.base_.double().log_prob(z).numpy()
    est.base_.float()
    energy = est.energy_samples(X)
    assert energy.std() > 0.05
    expected = -energy / params.get("temperature", 1.0) + base - est.log_partition_.value
    expected -= np.log(X.std(0)).sum()
    np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_density_at_another_temperature_integrates_to_one(temperature):
    est = strong(temperature=temperature, max_iter=50).fit(two_modes(400, 0))
    assert not isinstance(est.energy_, Zero)
    assert est.temperature_ == temperature
    points, cell = grid(est, 1)
    assert np.exp(est.score_samples(points)).sum() * cell == pytest.approx(1, abs=0.01)


def test_energy_samples_are_the_energy_alone_on_standardized_rows(strong_1d):
    X = two_modes(800, 0)
    z = torch.from_numpy((X - X.mean(0)) / X.std(0)).float()
    with torch.no_grad():
        expected = strong_1d.energy_(z).numpy()
    np.testing.assert_allclose(strong_1d.energy_samples(X), expected, atol=1e-4)


def test_standardize_false_works_in_the_units_of_x():
    X = (two_modes(300, 0) - SHIFT) / SCALE
    est = strong(standardize=False, max_iter=50).fit(X)
    plain = est.base_.log_prob(torch.from_numpy(X).float()).numpy()
    expected = plain - est.energy_samples(X) - est.log_partition_.value
    np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-4)
    edges = np.linspace(-12, 12, 2001)[:, None]
    assert np.exp(est.score_samples(edges)).sum() * 0.012 == pytest.approx(1, abs=0.01)
    far = strong(standardize=False, max_iter=2).fit(X * 1000)
    assert far.sample(50, random_state=0).std() > 100


# -- thresholds ----------------------------------------------------------------------------------


def test_auto_offset_is_the_quantile_of_held_out_rows(X, monkeypatch):
    seen = {}
    original = HybridCDDensity._offset

    def spy(self, X, held_out, *rest):
        seen["held_out"] = held_out
        return original(self, X, held_out, *rest)

    monkeypatch.setattr(HybridCDDensity, "_offset", spy)
    est = tiny(validation_fraction=0.3).fit(X)
    assert len(seen["held_out"]) == 90
    assert (est.predict(X[seen["held_out"]]) == -1).sum() in (4, 5)  # 5 % of 90


# -- the base ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_an_energy_that_earns_nothing_is_dropped_and_log_z_is_exact(seed):
    X = np.random.RandomState(seed).randn(120, 2)  # the Gaussian base is the truth
    est = tiny(random_state=seed).fit(X)
    gains = [row for row in est.history_ if "validation" in row]
    best = max(gains, key=lambda row: row["validation"])
    earned = best["validation_gain"] > best["validation_stderr"]
    assert isinstance(est.energy_, Zero) == (not earned)
    if not earned:
        assert tuple(est.log_partition_)[:2] == (0.0, 0.0)
        assert est.validation_gain_ == (0.0, 0.0)
        z = torch.from_numpy((X - X.mean(0)) / X.std(0)).float()
        expected = est.base_.log_prob(z).numpy() - np.log(X.std(0)).sum()
        np.testing.assert_allclose(est.score_samples(X), expected, atol=1e-5)


def test_some_energy_is_dropped_among_those_seeds():
    X = np.random.RandomState(0).randn(120, 2)
    kept = [not isinstance(tiny(random_state=s).fit(X).energy_, Zero) for s in range(4)]
    assert not all(kept)


@pytest.mark.parametrize("learning_rate", [2e-3, 1.0])
def test_never_worse_than_the_base_on_fresh_rows(learning_rate):
    X, fresh = two_modes(300, 0, d=2), two_modes(2000, 1, d=2)
    est = strong(learning_rate=learning_rate, max_iter=50).fit(X)
    z = torch.from_numpy((fresh - X.mean(0)) / X.std(0)).float()
    base = est.base_.log_prob(z).numpy() - np.log(X.std(0)).sum()
    gain = est.score_samples(fresh) - base
    assert gain.mean() >= -2 * gain.std() / len(gain) ** 0.5 - 0.02


def test_a_quadratic_energy_needs_no_base():
    energy = MLP(hidden_sizes=(16,), n_frequencies=0, output="quadratic")
    est = strong(base=None, energy=energy).fit(two_modes(400, 0))
    assert est.base_ is None
    points, cell = grid(est, 1, 2000)
    expected = -est.energy_samples(points) - est.log_partition_.value
    expected -= np.log(two_modes(400, 0).std())
    np.testing.assert_allclose(est.score_samples(points), expected, rtol=1e-5, atol=1e-4)
    assert np.exp(est.score_samples(points)).sum() * cell == pytest.approx(1, abs=0.01)
    samples = est.sample(200, random_state=0)
    assert samples.shape == (200, 1)
    assert abs(samples.mean() - SHIFT) < 2 * SCALE


# -- log Z ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["auto", "quadrature", "importance", "ais", AIS(n_chains=512)])
def test_each_log_partition_alias_agrees_with_quadrature(alias, strong_1d):
    est = strong(log_partition=alias).fit(two_modes(800, 0))
    truth, result = strong_1d.log_partition_, est.log_partition_
    assert truth.stderr < 1e-3
    assert abs(truth.value) > 0.01  # or 0 would do
    assert result.stderr <= 0.05
    assert abs(result.value - truth.value) <= 4 * result.stderr + 1e-3
    expected = {"auto": "quadrature"}.get(alias, alias) if isinstance(alias, str) else "ais"
    assert result.method == expected


def test_without_log_partition_scores_are_unnormalized_and_say_so(strong_1d):
    X = two_modes(800, 0)
    est = strong(log_partition=None)
    assert "unnormalized" not in repr(est)
    est.fit(X)
    assert est.log_partition_ is None
    assert repr(est).endswith("(unnormalized)")
    values = est.score_samples(X)
    expected = strong_1d.score_samples(X) + strong_1d.log_partition_.value
    np.testing.assert_allclose(values, expected, atol=1e-5)
    with pytest.warns(NormalizationWarning, match="log_partition=None"):
        assert est.score(X) == values.mean()
    assert set(est.predict(X)) == {-1, 1}
    assert np.isfinite(est.sample(5, random_state=0)).all()
    assert "unnormalized" not in repr(strong_1d)


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


def _p_value(est, samples):
    """Kolmogorov-Smirnov p-value of rows against the estimator's own density on a fine grid."""
    points, cell = grid(est, 1, 20_000)
    mass = np.exp(est.score_samples(points)) * cell
    return stats.kstest(samples[:, 0], lambda x: np.interp(x, points[:, 0], mass.cumsum())).pvalue


def test_samples_follow_the_density(strong_1d):
    assert _p_value(strong_1d, strong_1d.sample(4000, random_state=0)) > 1e-3


def test_that_test_rejects_base_draws(strong_1d, monkeypatch):
    monkeypatch.setattr(strong_1d, "energy_", Zero())
    draws = strong_1d.sample(4000, random_state=0)
    monkeypatch.undo()
    assert _p_value(strong_1d, draws) < 1e-6


def test_sample_reports_how_it_went(strong_1d):
    strong_1d.sample(100, random_state=0)
    info = strong_1d.sample_info_
    assert 100 < info.ess < info.n_candidates
    assert 0.3 < info.acceptance < 1


# -- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", [True, False])
def test_warm_start_continues(refine, X):
    est = tiny(warm_start=True, refine=refine, validation_fraction=0).fit(X)
    first, base = est.n_iter_, [buffer.clone() for buffer in est.base_.buffers()]
    before = est.energy_samples(X)
    est.fit(X)
    assert (first, est.n_iter_) == (20, 40)
    iterations = [row["iteration"] for row in est.history_]
    assert iterations == sorted(iterations)
    assert iterations[-1] == (80 if refine else 40)
    assert (est.energy_samples(X) != before).any()
    for a, b in zip(est.base_.buffers(), base, strict=True):
        assert torch.equal(a, b)


def test_every_phase_of_a_warm_start_counts(X):
    est = tiny(warm_start=True, validation_fraction=0).fit(X)
    twin = copy.deepcopy(est).set_params(cd_weight=1e4)
    assert (est.fit(X).energy_samples(X) != twin.fit(X).energy_samples(X)).any()


def test_a_warm_start_leaves_the_model_it_started_from_alone(X):
    est = tiny(warm_start=True, validation_fraction=0).fit(X)
    energy = est.energy_
    before = [p.clone() for p in energy.parameters()]
    est.fit(X)
    assert all(torch.equal(a, b) for a, b in zip(before, energy.parameters(), strict=True))


def test_refinement_gains_and_can_be_left_out():
    X, fresh = two_modes(800, 0), two_modes(4000, 7)
    settings = {"max_iter": 30, "learning_rate": 0.02, "n_steps": 1}
    plain, refined = (strong(refine=r, **settings).fit(X) for r in (False, True))
    assert plain.history_[-1]["iteration"] == 30
    assert refined.history_[-1]["iteration"] == 60
    assert refined.score(fresh) > plain.score(fresh) + 0.01


class Conv(torch.nn.Module):
    """A small convolutional energy: (n, 1, 4, 4) -> (n,)."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.inner(x)).square().mean((1, 2, 3))


@pytest.mark.parametrize("base", ["gaussian", None])
def test_images_go_to_a_convolutional_energy_as_images(base):
    X = np.random.RandomState(0).rand(60, 16) * 255
    shapes = []

    def factory(shape):
        shapes.append(shape)
        return Conv()

    est = tiny(energy=factory, image_shape=(1, 4, 4), log_partition="auto", base=base)
    est.set_params(max_iter=3, n_steps=1, validation_fraction=0).fit(X)
    assert shapes == [(1, 4, 4)]
    assert est.log_partition_ is None  # "auto" means None for images
    z = 2 * (X - X.min()) / (X.max() - X.min()) - 1  # one global map to [-1, 1]
    with torch.no_grad():
        expected = est.energy_(torch.from_numpy(z).float().reshape(-1, 1, 4, 4)).numpy()
    np.testing.assert_allclose(est.energy_samples(X), expected, atol=1e-5)
    assert np.isfinite(est.score_samples(X)).all()
    assert est.score_function(X).shape == (60, 16)
    assert est.sample(3, random_state=0).shape == (3, 16)


# -- inside scikit-learn -------------------------------------------------------------------------


def test_cross_validation_prefers_the_right_model():
    X = two_modes(400, 0)
    good = cross_val_score(strong(max_iter=100), X, cv=2)
    plain = cross_val_score(strong(max_iter=1, learning_rate=1e-9), X, cv=2)
    assert (good > plain + 0.05).all()


def test_defaults_fit_a_table_without_tuning():
    est = HybridCDDensity(random_state=0).fit(two_modes(150, 0))
    points, cell = grid(est, 1, 4000)
    assert np.exp(est.score_samples(points)).sum() * cell == pytest.approx(1, abs=0.01)
    fresh = two_modes(2000, 1)
    truth = np.logaddexp(
        *(stats.norm(SHIFT + m * SCALE, 5).logpdf(fresh) for m in (-20 / SCALE, 2))
    )
    gap = (truth[:, 0] - np.log(2) - est.score_samples(fresh)).mean()
    assert -0.01 < gap < 0.1
    assert est.sample(10).shape == (10, 1)
