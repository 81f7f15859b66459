"""Recorded chains against exact targets, and statistics of draws against known series."""

import copy
import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity
from skebm.data import ArrayTable, torch_generator
from skebm.diagnostics import (
    Chains,
    copy_ratio,
    effective_sample_size,
    force_correlation,
    nearest_neighbors,
    run_chains,
    split_rhat,
    summarize,
)
from skebm.diagnostics import chains as chains_module
from skebm.energies import MLP, Model, Zero
from skebm.fitted import Draws
from skebm.objectives import ChainStart, ContrastiveDivergence
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank
from skebm.train import Settings, train
from tests.closed_forms import (
    Quadratic,
    ar1,
    ar1_time,
    assert_mean,
    assert_variance,
    half_chains,
    langevin_variance,
    normal_base,
)

SCALE, SHIFT = np.array([1000.0, 0.01]), np.array([5000.0, -3.0])


def table(n, seed=0):
    return np.random.RandomState(seed).randn(n, 2) * SCALE + SHIFT


@pytest.fixture(scope="module")
def fitted():
    """A small fit that keeps its energy, with the columns of the table far from unit scale."""
    X = np.concatenate([table(300) - 3 * SCALE, table(300, 1) + 3 * SCALE])
    return HybridCDDensity(
        base="gaussian", max_iter=25, log_partition="importance", random_state=0
    ).fit(X)


@pytest.fixture(scope="module")
def persistent():
    start = ChainStart("persistent", bank=SampleBank(300))
    settings = {"init": start, "batch_size": 64, "log_partition": None, "max_iter": 5}
    return HybridCDDensity(**settings, random_state=0).fit(table(200))


@pytest.fixture
def exact(fitted):
    """The same with the density N(0.5, I / 4) in standardized space, at temperature 2."""
    estimator = copy.deepcopy(fitted)
    estimator.density_.model = Model(Quadratic(8.0, 0.5).requires_grad_(False), None, 2.0)
    return estimator


def to_x(estimator, z):
    return z * estimator.density_.transform.scale + estimator.density_.transform.location


def to_z(estimator, x):
    return (x - estimator.density_.transform.location) / estimator.density_.transform.scale


def exact_rows(estimator, n, seed=0, s=0.5):
    return to_x(estimator, 0.5 + s * np.random.RandomState(seed).randn(n, 2))


# -- run_chains ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [MALA(0.15), HMC(0.3), SGHMC(0.005)], ids=repr)
def test_exact_draws_stay_in_distribution(exact, sampler):
    chains = run_chains(exact, exact_rows(exact, 20_000), sampler=sampler, n_steps=25)
    assert chains.steps.tolist() == [0, 10, 20, 25]
    assert chains.positions.shape == (4, 20_000, 2)
    for column in range(2):
        scale, location = (
            getattr(exact.density_.transform, k)[column] for k in ("scale", "location")
        )
        x = chains.positions[-1, :, column]
        assert_mean(x, location + 0.5 * scale, 0.0036 * scale)
        assert_variance(x, scale**2 / 4, 0.011)
    assert_mean(chains.energy[-1], 1.0, 0.0075)  # d / 2
    assert_mean(np.exp(-chains.energy[-1]), 0.5, 0.0025)  # U is exponential in two dimensions


@pytest.mark.parametrize("noise_std", [None, 0.3])
def test_langevin_has_its_stationary_variance_and_balance(exact, noise_std):
    sampler = Langevin(0.1, noise_std=noise_std)
    b = sampler.noise_scale
    variance = langevin_variance(0.1, b, 0.5)
    rows = exact_rows(exact, 20_000, s=math.sqrt(variance))
    chains = run_chains(exact, rows, sampler=sampler, n_steps=20)
    z = to_z(exact, chains.positions[-1])
    assert_variance(z[:, 0], variance, 0.011)
    truth = 0.1 * math.sqrt(variance) / 0.25 / b
    assert chains.drift_to_noise[[0, -1]] == pytest.approx(truth, rel=0.015)
    np.testing.assert_allclose(chains.step_size, 0.1, rtol=1e-6)
    np.testing.assert_array_equal(chains.acceptance, [np.nan, 1, 1])


def test_mala_balance_at_stationarity_is_the_formula_of_the_docstring(exact):
    chains = run_chains(exact, exact_rows(exact, 20_000), sampler=MALA(0.1), n_steps=10)
    assert chains.drift_to_noise == pytest.approx(math.sqrt(0.1 / 2) / 0.5, rel=0.015)
    for sampler in ("hmc", "sghmc"):
        assert np.isnan(run_chains(exact, n_steps=10, sampler=sampler).drift_to_noise).all()


@pytest.mark.parametrize("name", ["langevin", "mala", "hmc", "sghmc"])
def test_records_are_of_the_positions_beside_them(exact, name):
    rows = exact_rows(exact, 30, s=3.0)
    chains = run_chains(exact, rows, sampler=name, n_steps=12, record_every=4)
    np.testing.assert_allclose(chains.positions[0], rows, rtol=2e-6)
    away = to_z(exact, chains.positions) - 0.5
    square = np.square(away).sum(-1)
    np.testing.assert_allclose(chains.energy, 2 * square, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(chains.model_energy, 4 * square, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(chains.force, 4 * np.sqrt(square).mean(1), rtol=1e-4)
    assert not np.array_equal(chains.positions[1], chains.positions[2])
    assert np.isnan(chains.acceptance[0]) and (chains.acceptance[1:] > 0.3).all()


def test_energies_are_those_of_the_estimator(fitted):
    assert fitted.validation_gain_[0] > 0  # it has an energy of its own
    chains = run_chains(fitted, table(15, 3), n_steps=10)
    for k in range(2):
        x = chains.positions[k]
        shift = fitted.log_partition_.value - fitted.density_.transform.log_slope(x).sum()
        truth = -fitted.score_samples(x) - shift
        np.testing.assert_allclose(chains.energy[k], truth, rtol=1e-4, atol=1e-4)
        truth = fitted.energy_samples(x)
        np.testing.assert_allclose(chains.model_energy[k], truth, rtol=1e-4, atol=1e-4)


def test_same_seed_same_bits_and_no_global_randomness(fitted):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two, own, other = (
        run_chains(fitted, n_chains=7, n_steps=20, random_state=seed) for seed in (0, 0, None, 1)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.positions, own.positions)  # the estimator's seed is 0
    assert not np.array_equal(one.positions[0], other.positions[0])
    assert torch.get_rng_state().equal(before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("name", ["langevin", "mala", "hmc", "sghmc"])
def test_looking_does_not_change_the_chains(fitted, name):
    often = run_chains(fitted, n_chains=9, sampler=name, n_steps=12, record_every=1)
    rarely = run_chains(fitted, n_chains=9, sampler=name, n_steps=12, record_every=6)
    np.testing.assert_array_equal(often.positions[::6], rarely.positions)
    mean = often.acceptance[1:].reshape(2, 6).mean(1)
    np.testing.assert_allclose(rarely.acceptance[1:], mean, rtol=1e-6)


def test_noise_is_that_of_the_estimator(fitted):
    chains = run_chains(fitted, n_chains=50, n_steps=0, random_state=4)
    z = fitted.density_.noise(50, torch_generator(4))
    np.testing.assert_array_equal(chains.positions[0], fitted.density_.transform.inverse(z))
    assert chains.steps.tolist() == [0]


def test_the_bank(persistent, fitted):
    chains = run_chains(persistent, "bank", n_chains=300, n_steps=0)
    np.testing.assert_array_equal(
        *(np.unique(rows, axis=0) for rows in (chains.positions[0], persistent.bank_))
    )
    few = run_chains(persistent, "bank", n_chains=40, n_steps=0).positions[0]
    assert len(np.unique(few, axis=0)) == 40
    assert (nearest_neighbors(few, persistent.bank_).distances == 0).all()
    with pytest.raises(ValueError, match=r"n_chains must be .*<= 300, got 301"):
        run_chains(persistent, "bank", n_chains=301)
    with pytest.raises(ValueError, match=r"no bank, got 'bank' for HybridCD.*init='persistent'"):
        run_chains(fitted, "bank")


def test_the_warm_up_counts_and_ends(exact):
    sampler = MALA(1e-3, n_warmup=30)
    chains = run_chains(exact, sampler=sampler, n_steps=60)
    assert chains.step_size[0] == pytest.approx(1e-3)
    assert (np.diff(chains.step_size[:4]) > 0).all()
    assert len(np.unique(chains.step_size[3:])) == 1
    assert np.isfinite(chains.drift_to_noise).all()


def test_the_default_sampler_is_that_of_training(fitted):
    own = run_chains(fitted, n_steps=10)
    np.testing.assert_array_equal(own.step_size, np.float32(fitted.sampler_.step_size))
    bare = copy.deepcopy(fitted)
    bare.density_.draws = Draws()
    assert run_chains(bare, n_steps=0).step_size == pytest.approx(0.05)


def test_an_interrupted_run_returns_its_records(fitted, monkeypatch):
    whole, calls, run = run_chains(fitted, n_chains=5, n_steps=50), [], chains_module.run

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(chains_module, "run", stop)
    with pytest.warns(ConvergenceWarning, match="after 30 of 50 steps"):
        part = run_chains(fitted, n_chains=5, n_steps=50)
    assert part.steps.tolist() == [0, 10, 20, 30]
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a, b[:4])


def test_chains_that_run_off_are_told(exact):
    with pytest.warns(ConvergenceWarning, match=r"6 of 6 chains .*after 200 steps of Langevin"):
        chains = run_chains(exact, n_chains=6, n_steps=200, sampler=Langevin(3.0))
    assert np.isfinite(chains.positions[0]).all()
    with pytest.raises(ValueError, match="draws must be finite"):
        summarize(chains)


def test_progress_is_shown_on_demand(fitted, capsys):
    run_chains(fitted, n_chains=2, n_steps=20)
    assert capsys.readouterr().err == ""
    run_chains(fitted, n_chains=2, n_steps=20, progress=True)
    assert "20/20" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, options, message",
    [
        (ValueError, {"init": "data"}, r"init must be one of \['noise', 'bank'\], got 'data'"),
        (ValueError, {"init": [[1.0, 2.0, 3.0]]}, "3 features.* expecting 2"),
        (ValueError, {"init": [[1.0, float("nan")]]}, "NaN"),
        (ValueError, {"n_chains": 0}, "n_chains must be .*>= 1, got 0"),
        (TypeError, {"n_steps": 1.5}, r"n_steps must be an integer.*got 1\.5"),
        (ValueError, {"n_steps": -1}, "n_steps must be .*>= 0, got -1"),
        (ValueError, {"record_every": 0}, "record_every must be .*>= 1, got 0"),
        (ValueError, {"sampler": "nuts"}, r"\['hmc', 'langevin', 'mala', 'sghmc'\].*got 'nuts'"),
        (TypeError, {"sampler": 0.1}, r"instance of Sampler, got 0\.1"),
        (ValueError, {"sampler": MALA(-1.0)}, r"step_size must be a number > 0, got -1\.0"),
    ],
    ids=repr,
)
def test_bad_requests_are_named(fitted, error, options, message):
    with pytest.raises(error, match=message):
        run_chains(fitted, **options)


def test_not_fitted():
    for call in (run_chains, lambda e: copy_ratio(e, [[0.0]])):
        with pytest.raises(NotFittedError):
            call(HybridCDDensity())


@pytest.mark.parametrize("call", [run_chains, lambda e: copy_ratio(e, [[0.0]])])
def test_others_have_no_energy(call):
    for other, found in (
        (GaussianMixture().fit(np.eye(2)), "a density of skebm, got GaussianMixture"),
        (HybridCDDensity, "got 'the class HybridCDDensity'"),
        (None, "fitted density of skebm, got None"),
    ):
        with pytest.raises(TypeError, match=found):
            call(other)


# -- effective sample size and R-hat ---------------------------------------------------------------


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_ess_of_a_series_with_known_memory(rho):
    rng = np.random.default_rng(0)
    n, m = 8000, 4
    times = [n * m / effective_sample_size(ar1(rho, n, m, rng)) for _ in range(40)]
    assert_mean(times, ar1_time(rho), 0.015 * ar1_time(rho))
    if rho < 0:
        assert np.mean(times) < 0.4  # worth more than as many independent draws


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_ess_of_many_short_chains(rho):
    rng = np.random.default_rng(0)
    n, m = 60, 400
    times = [n * m / effective_sample_size(ar1(rho, n, m, rng)) for _ in range(40)]
    assert np.mean(times) == pytest.approx(ar1_time(rho), rel=0.16)  # biased, in both directions


def test_chains_that_disagree_are_worth_little():
    draws = np.random.default_rng(0).normal(size=(500, 4))
    assert effective_sample_size(draws) > 1500
    assert effective_sample_size(draws + 10 * np.arange(4)) < 5  # one per chain


def test_rhat_sees_chains_that_differ_in_place_scale_or_tail_alone():
    draws = np.random.default_rng(0).normal(size=(400, 4))
    assert split_rhat(draws) < 1.01
    assert split_rhat(draws + np.array([0, 0, 0, 0.5])) > 1.03
    assert split_rhat(draws * [1, 1, 1, 3]) > 1.1  # of the draws as they are: 1.00
    drifting = draws + np.linspace(0, 1, 400)[:, None]
    assert split_rhat(drifting) > 1.03
    cauchy = np.random.default_rng(1).standard_cauchy((400, 4))
    assert split_rhat(cauchy) < 1.01 < 1.1 < split_rhat(cauchy + np.array([0, 0, 0, 3]))


@pytest.mark.parametrize("function", [effective_sample_size, split_rhat])
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e307])
def test_statistics_of_draws_have_no_unit(function, scale):
    draws = ar1(0.5, 60, 3, np.random.default_rng(0)) + 0.5
    assert function(scale * draws) == pytest.approx(function(draws), rel=1e-6)
    both = function(np.stack([draws, scale * draws], axis=-1))
    np.testing.assert_allclose(both, function(draws), rtol=1e-6)


def test_effective_sizes_hold_without_a_variance():
    cauchy = np.random.default_rng(0).standard_cauchy((1000, 4))
    assert effective_sample_size(cauchy) == pytest.approx(4000, rel=0.2)
    assert effective_sample_size(np.repeat(cauchy, 4, axis=0)) < 6000


def test_one_chain():
    slow = ar1(0.9, 2000, 1, np.random.default_rng(0))
    assert 2000 / effective_sample_size(slow) == pytest.approx(19, rel=0.4)
    assert split_rhat(slow) < 1.1 < split_rhat(slow + np.linspace(0, 9, 2000)[:, None])
    assert np.isnan(split_rhat(slow[:7]))


def test_rhat_of_independent_draws_is_one():
    rng = np.random.default_rng(0)
    values = [split_rhat(rng.normal(size=(200, 6))) for _ in range(100)]
    assert 0.995 < min(values) and np.mean(values) < 1.005


def test_half_chains_leave_out_the_middle_and_columns_are_apart():
    draws = np.random.default_rng(0).normal(size=(101, 3, 2)) * [1.0, 1e-6] + [0.0, 1e6]
    spoiled = draws.copy()
    spoiled[50] = 1e9
    for function in (effective_sample_size, split_rhat):
        each = function(draws)
        assert each.shape == (2,)
        np.testing.assert_array_equal(function(spoiled), each)
        for j in range(2):
            assert each[j] == pytest.approx(function(draws[..., j]), rel=1e-3)
        unit = function((draws[..., 1] - 1e6) * 1e6)
        assert each[1] == pytest.approx(unit, rel=1e-3)  # 1e6 has 1e-10 of resolution
        assert isinstance(function(draws[..., 0]), float)


def test_constant_and_stuck_chains():
    assert np.isnan(effective_sample_size(np.full((10, 2), 0.1)))
    assert np.isnan(split_rhat(np.full((10, 2), 0.1)))
    stuck = np.tile([0.1, 0.2, 0.7], (20, 1))
    assert split_rhat(stuck) == np.inf
    assert effective_sample_size(stuck) == 3  # one per chain
    one = np.random.default_rng(0).normal(size=(20, 3)) * [1, 1, 0]
    assert split_rhat(one) > 1.1


@pytest.mark.parametrize("function", [effective_sample_size, split_rhat])
def test_unfit_draws(function):
    with pytest.raises(ValueError, match=r"got shape \(3, 5\)"):
        function(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"got shape \(50,\)"):
        function(np.zeros(50))
    with pytest.raises(ValueError, match="got 2 of 50 values"):
        function(np.array([np.nan, np.inf] + [0.0] * 48).reshape(25, 2))


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.95])
@pytest.mark.parametrize("n", [8, 11, 301, 20_000])
def test_agreement_with_arviz(rho, n):
    draws = ar1(rho, n, 4, np.random.default_rng(n))
    theirs = array_stats.rhat(draws, chain_axis=1, draw_axis=0)
    assert split_rhat(draws) == pytest.approx(float(theirs), rel=1e-12)
    theirs = array_stats.ess(draws, chain_axis=1, draw_axis=0)
    assert effective_sample_size(draws) == pytest.approx(float(theirs), rel=1e-12)
    if n > 1000:  # ranks change little of normal draws
        theirs = array_stats.ess(half_chains(draws).T, method="identity")
        assert effective_sample_size(draws) == pytest.approx(float(theirs), rel=0.03)


def test_a_summary_leaves_out_the_burn_in(exact):
    chains = run_chains(exact, exact_rows(exact, 50, s=5.0), sampler=MALA(0.1), n_steps=400)
    summary = summarize(chains)
    late = chains.positions[20:]
    assert summary.n_draws == 21 * 50
    np.testing.assert_array_equal(summary.ess, effective_sample_size(late))
    np.testing.assert_array_equal(summary.rhat, split_rhat(late))
    assert summary.energy_ess == effective_sample_size(chains.energy[20:])
    assert summary.energy_rhat == split_rhat(chains.energy[20:])
    assert 300 < summary.ess.min() and summary.rhat.max() < 1.03
    often = run_chains(exact, chains.positions[0], sampler=MALA(0.02), n_steps=80, record_every=1)
    assert summarize(often, burn_in=0).energy_rhat > 1.03  # the way in from far
    with pytest.raises(ValueError, match=r"burn_in .* got 1\.5"):
        summarize(chains, burn_in=1.5)
    with pytest.raises(ValueError, match="Record more often"):
        summarize(chains, burn_in=0.95)


# -- neighbors -------------------------------------------------------------------------------------


def lattice(h, n=5):
    return h * np.stack(np.meshgrid(*[np.arange(n)] * 2), axis=-1).reshape(-1, 2)


def test_neighbors_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    samples, rows = rng.normal(size=(20, 3)), rng.normal(size=(50, 3)) * [1, 10, 100]
    for unit in (None, 2.0, rows.std(axis=0)):
        apart = samples[:, None] - rows
        distances = np.linalg.norm(apart if unit is None else apart / unit, axis=-1)
        found = nearest_neighbors(samples, rows, 4, scale=unit)
        np.testing.assert_allclose(found.distances, np.sort(distances)[:, :4], rtol=1e-12)
        np.testing.assert_array_equal(found.indices, distances.argsort()[:, :4])


@pytest.mark.parametrize(
    "error, options, message",
    [
        (ValueError, {"samples": [[1.0]]}, "2 columns of X_train, got 1"),
        (ValueError, {"n_neighbors": 26}, "n_neighbors .*<= 25, got 26"),
        (ValueError, {"scale": 0.0}, r"scale must be positive .*got 0\.0"),
        (ValueError, {"scale": [1.0, 1.0, 1.0]}, r"got \[1\.0, 1\.0, 1\.0\]"),
        (ValueError, {"samples": [[1.0, float("nan")]]}, "NaN"),
    ],
    ids=repr,
)
def test_unfit_neighbors(error, options, message):
    with pytest.raises(error, match=message):
        nearest_neighbors(**{"samples": [[0.0, 0.0]], "X_train": lattice(1.0), **options})


def test_copies_on_a_lattice(fitted):
    rows = to_x(fitted, lattice(0.3))
    for away in (0.0, 0.03, 0.12):
        samples = to_x(fitted, lattice(0.3) + np.array([away, 0]))
        ratio = copy_ratio(fitted, samples, np.concatenate([rows, rows[:20]]))  # copies of its own
        np.testing.assert_allclose(ratio, away / 0.3, atol=1e-5)
    with pytest.raises(ValueError, match="2 distinct rows, got 1"):
        copy_ratio(fitted, rows, np.repeat(rows[:1], 9, axis=0))


def test_independent_draws_are_as_near_as_the_reference_to_itself(fitted):
    samples, rows = table(5000, 1), table(5000, 2)  # more rows than are probed
    assert np.median(copy_ratio(fitted, samples, rows)) == pytest.approx(1, abs=0.06)
    assert np.median(copy_ratio(fitted, samples + SCALE, rows)) > 1.2


def test_chains_forget_the_bank(persistent, fitted):
    chains = run_chains(persistent, "bank", n_steps=100)
    copied, ran = (copy_ratio(persistent, chains.positions[k]) for k in (0, -1))
    assert copied.max() < 1e-6 and 0.5 < np.median(ran) < 2
    same = copy_ratio(persistent, chains.positions[-1], persistent.bank_)
    np.testing.assert_allclose(same, ran, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="no bank, got 'bank'"):
        copy_ratio(fitted, table(3))
    with pytest.raises(ValueError, match=r"\['bank'\], got 'data'"):
        copy_ratio(fitted, table(3), "data")
    with pytest.raises(ValueError, match="3 features"):
        copy_ratio(fitted, [[1.0, 2.0, 3.0]], table(3))


# -- force and energy difference -------------------------------------------------------------------


def history(n=4000, key="noise_bracket"):
    """Force a d_t - b d_{t-2} + e_t, with d and e independent N(0, 1)."""
    rng = np.random.default_rng(0)
    d, e = rng.normal(size=(2, n + 2))
    return [
        {"iteration": t, key: d[t], "force": 5 + 0.8 * d[t] - 0.6 * d[t - 2] + e[t]}
        for t in range(2, n + 2)
    ]


def test_force_correlation_finds_its_lags():
    rows = [*history(), {"iteration": 4002, "loss": 1.0}]  # of a phase without chains
    found = force_correlation(rows, max_lag=4)
    assert found.lags.tolist() == [0, 1, 2, 3, 4]
    truth = np.array([0.8, 0, -0.6, 0, 0]) / math.sqrt(2)
    np.testing.assert_allclose(found.stderr, 1 / np.sqrt(4000 - np.arange(5)))
    assert (np.abs(found.correlation - truth) < 4 * found.stderr).all()


def test_which_difference():
    rows = [{**row, "loss": -row["noise_bracket"], "cd_bracket": 0.5} for row in history(60)]
    both = [force_correlation(rows, key=key).correlation for key in (None, "noise_bracket")]
    np.testing.assert_array_equal(*both)
    other = force_correlation(rows, key="loss").correlation
    np.testing.assert_allclose(other, -both[0], rtol=1e-12)
    only = [{k: row[k] for k in ("iteration", "force", "loss")} for row in rows]
    np.testing.assert_array_equal(force_correlation(only).correlation, other)


@pytest.mark.parametrize(
    "rows, options, message",
    [
        ([{"iteration": 1, "loss": 1.0}], {}, r"'force', got the keys \['iteration', 'loss'\]"),
        ([{"iteration": 1, "force": 1.0}], {}, "hold 'noise_bracket'"),
        (history(20), {"key": "cd_bracket"}, "hold 'cd_bracket'"),
        (history(14), {}, r"at least 15 rows \(max_lag \+ 10\), got 14"),
        (history(100)[::5], {}, "got rows 5 updates apart.*eval_every=1"),
        ([{**row, "force": 2.0} for row in history(20)], {}, r"force must .* got values from 2\.0"),
        ([{**row, "force": np.nan} for row in history(20)], {}, "force must be finite"),
        (history(20), {"max_lag": -1}, "max_lag .*got -1"),
    ],
    ids=["force", "difference", "key", "few", "gaps", "constant", "nan", "lag"],
)
def test_unfit_histories(rows, options, message):
    with pytest.raises(ValueError, match=message):
        force_correlation(rows, **options)


def test_the_history_of_a_training():
    model = Model(MLP((8,)).build((2,), torch_generator(0)), normal_base(2), 1.0)
    rows = ArrayTable(torch.randn(200, 2, generator=torch_generator(0)))
    settings = Settings(20, eval_every=1)
    state = train(model, ContrastiveDivergence(), rows, settings=settings, rng=torch_generator(0))
    found = force_correlation(state.history)
    assert np.isfinite(found.correlation).all()
    np.testing.assert_allclose(found.stderr, 1 / np.sqrt(np.arange(20, 14, -1)))


def test_a_base_alone_can_be_run(exact):
    exact.density_.model = Model(Zero(), normal_base(2, scale=0.5), 2.0)
    chains = run_chains(exact, n_chains=2000, sampler=MALA(0.1), n_steps=10)
    assert isinstance(chains, Chains) and not chains.model_energy.any()
    u = chains.energy - math.log(2 * math.pi / 4)
    assert_mean(u[-1], 1.0, 0.03)
