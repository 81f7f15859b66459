"""Heavy tails, narrow structure and a few odd rows: numbers that stay true, or a warning."""

import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from scipy.stats import t as student
from torch.distributions import Independent, Normal

from skebm import EnergyDensity, HybridCDDensity, NCEDensity
from skebm.bases import Gaussian, Kernel, Mixture, TorchDistribution, Uniform
from skebm.bases.mixture import MixtureBase
from skebm.bases.tails import DOF, Defended, fit_defended
from skebm.data import Affine, ArrayTable, copy_groups, spacing, trimmed_moments
from skebm.data.table import split
from skebm.energies import MLP, Model, Zero
from skebm.energies.bounded import LIMIT, Bounded, Limited, bounded_by
from skebm.exceptions import DataDegeneracyWarning
from skebm.objectives import ImportanceLikelihood
from skebm.partition import LogPartition, Quadrature
from skebm.train.judge import held_out_given
from tests.closed_forms import assert_estimate, assert_mean, autograd_score
from tests.generators import gen


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def rows(n, d, seed=0):
    return torch.from_numpy(normal(n, d, seed)).float()


# -- tails -----------------------------------------------------------------------------------------


def test_a_far_row_costs_four_logs_of_its_distance_and_its_odd_column_alone():
    base = fit_defended(Gaussian(), rows(500, 10), None, gen(0))
    far = torch.zeros(3, 10, dtype=torch.float64)
    far[:, 4] = torch.tensor([1e2, 1e4, 1e8])
    value = base.log_prob(far)
    assert value[0] > -45 and value[2] > -100
    np.testing.assert_allclose(-value.diff(), 4 * np.log([1e2, 1e4]), rtol=1e-3)
    y = (far[1] - base.tail_location) / base.tail_scale
    truth = student.logpdf(y, DOF).sum() - float(
        base.tail_scale.log().sum() - base.tail_share.log()
    )
    assert float(value[1]) == pytest.approx(truth, abs=1e-5)


def test_scores_of_the_tails_are_their_gradient_wherever_a_row_is():
    base = fit_defended(Mixture(n_components=2), rows(200, 2), None, gen(0)).double()
    x = torch.tensor([[0.1, 0.2], [4.5, -0.3], [6.0, 7.0], [1e6, 0.0], [1e14, -1e14]]).double()
    value, score = base.log_prob_and_score(x)
    torch.testing.assert_close(value, base.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, autograd_score(base.log_prob, x), rtol=1e-8, atol=1e-20)
    assert torch.isfinite(score).all()


def test_draws_come_from_the_tails_in_their_share():
    base = Defended(
        Gaussian().fit(rows(500, 2), None, gen(0)),
        torch.tensor([50.0, -80.0]),
        torch.tensor([1.0, 4.0]),
        torch.tensor(0.25),
    )
    draws = base.sample(40_000, gen(1))
    tails = draws[draws[:, 0] > 25]
    assert_mean(draws[:, 0] > 25, 0.25, 0.003)
    assert_mean((tails[:, 1] + 80) / 4 < 1.0, student.cdf(1.0, DOF), 0.01)
    assert_mean((tails[:, 0] - 50) < -2.0, student.cdf(-2.0, DOF), 0.01)


@pytest.mark.parametrize("n_far", [0, 3, 60])
def test_a_few_rows_too_far_are_left_to_the_tails(n_far):
    x = rows(1000, 2)
    x[:n_far] += 1e5
    base = fit_defended(Gaussian(), x, None, gen(0))
    left = n_far if n_far < 20 else 0
    spread = float(torch.linalg.inv(base.core.factors[0]).diagonal().mean())
    assert (spread > 100) == (n_far == 60)
    assert float(base.tail_share) == pytest.approx(left / 1000 + 1e-3, rel=0.01)


def test_weights_say_what_is_a_few():
    x, weight = rows(1000, 1), torch.ones(1000)
    x[:5] = 1e5
    weight[:5] = 1000.0  # now most of the table
    assert float(fit_defended(Gaussian(), x, weight, gen(0)).tail_location) > 1e4
    weight[:500] = 9.0
    weight[:5] = 1e-3
    tails, shown = fit_defended(Gaussian(), x, weight, gen(0)), x[5:].repeat_interleave(9, 0)[:4455]
    shown = torch.cat([shown, x[500:]])
    torch.testing.assert_close(tails.tail_location, shown.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tails.tail_scale, shown.std(0, correction=0), atol=1e-5, rtol=1e-5)
    assert float(fit_defended(Gaussian(), x, weight, gen(0)).tail_share) < 2e-3


@pytest.mark.parametrize(
    "base", [Uniform(), TorchDistribution(Independent(Normal(torch.zeros(1), 1.0), 1))]
)
def test_boxes_and_known_distributions_stay_as_they_are(base):
    assert not isinstance(fit_defended(base, rows(100, 1), None, gen(0)), Defended)


def test_every_other_base_of_an_estimator_has_tails_and_answers_for_its_inner_one():
    est = NCEDensity(base=Kernel(n_centers=20), max_iter=2, random_state=0).fit(normal(100, 2))
    assert isinstance(est.base_, Defended) and est.base_.centers.shape == (20, 2)
    with pytest.raises(AttributeError, match="nothing"):
        _ = est.base_.nothing
    image = NCEDensity(base="gaussian", image_shape=(1, 2, 2), max_iter=2, random_state=0)
    assert not isinstance(image.fit(normal(100, 4)).base_, Defended)


@pytest.mark.filterwarnings("ignore:Some rows lie far closer")  # it loses 0.6 nats
@pytest.mark.parametrize("estimator", [NCEDensity, HybridCDDensity])
def test_density_falls_with_distance_and_no_row_costs_hundreds_of_nats(estimator):
    X = np.random.default_rng(0).standard_t(2, (300, 3))
    est = estimator(max_iter=50, random_state=0).fit(X)
    out = np.outer(10.0 ** np.arange(1, 10), [1.0, 0.0, 0.0])
    values = est.score_samples(out)
    assert (np.diff(values) < 0).all() and values[2] > -60
    assert est.score(np.random.default_rng(1).standard_t(2, (500, 3))) > -8


# -- energies stay in bounds -----------------------------------------------------------------------


def perceptron():
    energy = MLP(hidden_sizes=(8,), n_frequencies=0).build((2,), gen(0))
    for i, parameter in enumerate(energy.parameters()):
        torch.nn.init.normal_(parameter, std=0.7, generator=gen(i))
    return energy


def test_an_energy_is_limited_and_kept_to_the_rows():
    x = rows(200, 2)
    base = fit_defended(Mixture(n_components=2), x, None, gen(0))
    energy = bounded_by(perceptron(), base, x)
    assert isinstance(energy.module, Limited)
    values = energy(1e3 * rows(500, 2, seed=2))
    assert values.abs().max() <= LIMIT and values.std() > 1
    low, high = x.amin(0), x.amax(0)
    edge = high + 0.25 * (high - low)
    torch.testing.assert_close(energy(edge[None]), energy(edge[None] + 100))
    assert not torch.allclose(energy(high[None]), energy(edge[None]))
    plain = bounded_by(torch.nn.Flatten(0), Gaussian().fit(x, None, gen(0)), x)
    assert isinstance(plain, Bounded) and not isinstance(plain.module, Limited)


def test_tails_of_no_width_ask_for_double_precision():
    """As where one row sets a scale, is left to them, and all others are alike beside it."""
    core, share = Gaussian().fit(rows(100, 1), None, gen(0)), torch.tensor(0.01)
    narrow = Defended(core, torch.zeros(1), torch.tensor([1e-7]), share)
    assert narrow.inverse_width == pytest.approx(1e7)
    wide = Defended(core, torch.zeros(1), torch.tensor([50.0]), share)
    assert wide.inverse_width == core.inverse_width


def test_rows_too_far_do_not_widen_the_box():
    x = rows(1000, 2)
    x[0] = 1e9
    base = fit_defended(Gaussian(), x, None, gen(0))
    assert float(bounded_by(perceptron(), base, x).high.max()) < 100


def test_derivatives_of_a_limited_energy_are_those_of_autograd():
    energy = Limited(perceptron(), torch.tensor(2.0)).double()
    x, v = rows(20, 2).double(), rows(20, 2, seed=1).double()
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, energy(x))
    torch.testing.assert_close(gradient, autograd_score(energy, x))
    torch.testing.assert_close(energy.directional_derivative(x, v), (gradient * v).sum(1))
    assert energy.directional_derivative(x, v).requires_grad


def test_one_row_alone_does_not_make_an_energy():
    lift = torch.tensor([0.1, 0.2, -0.1, 0.0, 0.3, 100.0])
    model = Model(lambda x: -x[:, 0], Gaussian().fit(rows(50, 1), None, gen(0)), 1.0)
    held_out = held_out_given(model, LogPartition(0.0, 0.0, math.inf, "exact"), lift[:, None])
    assert held_out.gain == pytest.approx((0.1 + 0.2 - 0.1 + 0.0 + 0.3 + 0.3) / 6)


def test_a_point_that_was_held_out_alone_is_not_the_likeliest():
    X = np.r_[np.tile([[0.0, 0.0]], (20, 1)), normal(39, 2), [[60.0, -40.0]]]
    for seed in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            est = HybridCDDensity(max_iter=25, random_state=seed).fit(X)
        assert est.score_samples(X)[-1] < est.score_samples(normal(50, 2, seed=5)).min()


# -- scale -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_trimmed_moments_leave_out_one_percent_at_each_end(weighted):
    X = np.random.default_rng(0).permutation(np.arange(1000.0))[:, None]
    weight = np.ones(1000) if weighted else None
    mean, std = trimmed_moments(X, weight)
    inner = np.arange(10.0, 990.0)
    np.testing.assert_allclose([mean[0], std[0]], [inner.mean(), inner.std()], rtol=2e-3)
    X[:5] = 1e300
    np.testing.assert_allclose(trimmed_moments(X, weight)[1], inner.std(), rtol=0.02)


@pytest.mark.parametrize("odd", [[1e9], [-9999.0] * 4, [1e300], [-1e12, 1e15], [-1.7e308]])
def test_a_few_values_do_not_set_the_scale(odd):
    X = normal(1000, 2)
    clean = Affine.from_table(X)
    X[: len(odd), 1] = odd
    affine = Affine.from_table(X)
    assert affine.trimmed.tolist() == [1]
    np.testing.assert_allclose(affine.scale, clean.scale, rtol=0.1)
    np.testing.assert_allclose(affine.location, clean.location, atol=0.02)
    light = Affine.from_table(X, np.where(np.arange(1000) < len(odd), 1e-300, 1.0))
    np.testing.assert_allclose(light.scale, clean.scale, rtol=0.1)


@pytest.mark.parametrize("share, misled", [(0.01, True), (0.1, False)])
def test_a_second_group_is_no_glitch(share, misled):
    X = normal(1000, 1)
    X[: int(share * 1000)] += 1e4
    affine = Affine.from_table(X)
    assert bool(len(affine.trimmed)) == misled
    assert (affine.scale[0] > 100) != misled


@pytest.mark.parametrize("estimator", [NCEDensity, HybridCDDensity])
def test_a_glitch_leaves_the_density_of_the_others_and_is_told(estimator):
    X = normal(600, 1)
    X[7] = 1e9
    with pytest.warns(
        DataDegeneracyWarning, match=r"far out .* scale of columns \(1: column 0\)"
    ) as record:
        est = estimator(max_iter=25, random_state=0).fit(X)
    assert len(str(record[0].message).splitlines()) == 1
    fresh = normal(1000, 1, seed=1)
    assert est.score(fresh) == pytest.approx(norm.logpdf(fresh).mean(), abs=0.1)
    assert est.predict([[50.0]]) == -1 and est.predict([[0.0]]) == 1


# -- narrow structure ------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Mixture(max_components=3), Kernel()], ids=["mixture", "kernel"])
@pytest.mark.parametrize("apart", [1e3, 1e6])
def test_groups_far_apart_keep_their_widths(base, apart):
    X, fresh = (normal(600, 1, seed=s) + apart * (np.arange(600) % 2)[:, None] for s in (0, 1))
    truth = np.logaddexp(norm.logpdf(fresh), norm.logpdf(fresh, apart)).mean() - math.log(2)
    est = NCEDensity(base=base, max_iter=5, random_state=0).fit(X)
    assert est.score(fresh) == pytest.approx(truth, abs=0.1)  # in float32, in blocks
    assert est.score_samples(fresh[:200]).mean() == pytest.approx(
        est.score_samples(fresh)[:200].mean(), abs=0.02 if apart > 1e5 else 1e-3
    )


@pytest.mark.parametrize("eps, warned", [(1e-3, False), (1e-4, False), (1e-7, True)])
def test_a_thin_direction_is_resolved_or_told(eps, warned):
    a, b = normal(800, 2).T
    z = torch.from_numpy(np.c_[a, a + eps * b])
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        base = fit_defended(Mixture(n_components=1), z, None, gen(0)).core
    assert [w.category for w in record] == [DataDegeneracyWarning] * warned
    if not warned:
        truth = norm.logpdf(a).mean() + norm.logpdf(b).mean() - math.log(eps)
        assert float(base.log_prob(z).mean()) == pytest.approx(truth, abs=0.02)
        assert float(base.log_prob(z.float()).mean()) == pytest.approx(truth, abs=0.02)


def told(base, X):
    """The warnings of a fit to standardized rows X, and the base."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        base = fit_defended(base, torch.from_numpy(X).float(), None, gen(0))
    assert {w.category for w in record} <= {DataDegeneracyWarning}
    return [str(w.message) for w in record], base


def spiked(n, width, share, d=1, seed=0):
    rng = np.random.default_rng(seed)
    narrow = rng.random((n, 1)) < share
    return np.where(narrow, 3 + width * rng.normal(size=(n, d)), rng.normal(size=(n, d)))


@pytest.mark.parametrize(
    "X, loss",
    [
        (spiked(600, 1e-3, 0.5), 1.9),
        (spiked(600, 1e-3, 0.2), 0.7),
        (spiked(600, 1e-3, 0.5, d=2), 4.8),
        (np.exp(2 * normal(600, 1)) / 50, 0.8),
    ],
    ids=["half", "fifth", "2-d", "lognormal"],
)
def test_rows_that_one_bandwidth_blurs_are_told(X, loss):
    """By how much: what mixtures gain on it, about."""
    (message,), base = told(Kernel(), X)
    found = float(re.search(r"lose about (\S+) nats per row\. Use base='mixture'", message)[1])
    assert found == pytest.approx(loss, rel=0.5)
    mixed = fit_defended(Mixture(), torch.from_numpy(X).float(), None, gen(0))
    x = torch.from_numpy(X).float()
    gain = mixed.log_prob(x).mean() - base.log_prob_left_out(x, None).mean()
    assert gain > 0.5 * loss
    weight = torch.ones(len(X)).index_fill_(0, torch.arange(0, len(X), 2), 3.0)
    with pytest.warns(DataDegeneracyWarning, match="kernels of one bandwidth"):
        fit_defended(Kernel(), x, weight, gen(0))
    assert told(Kernel(bandwidth=0.5), X)[0] == []  # asked for


@pytest.mark.parametrize(
    "X",
    [
        normal(600, 1),
        normal(25, 2),
        normal(600, 5),
        np.random.default_rng(0).uniform(size=(600, 1)),
        np.random.default_rng(0).exponential(size=(600, 1)),
        np.random.default_rng(0).standard_t(3, size=(600, 1)),
        np.repeat(normal(200, 1), 3, axis=0),
        normal(600, 1) + 1e4 * (np.arange(600) % 2)[:, None],
        normal(4, 2),
    ],
    ids=["1-d", "few", "5-d", "uniform", "exponential", "t3", "copies", "groups", "4 rows"],
)
def test_rows_that_kernels_suit_are_not_told_of(X):
    assert told(Kernel(), X / X.std())[0] == []


def test_a_component_at_any_floor_is_told():
    """Neighbors far apart make a high floor: two columns of 12 are equal to 1e-5."""
    X = normal(400, 12)
    X[:, 1] = X[:, 0] + 1e-5 * X[:, 1]
    (message,), _ = told(Mixture(max_components=1), X)
    assert "closer than 0.0001 standard deviations to a line" in message


@pytest.mark.parametrize("base", ["kernel", "mixture", "gaussian", "uniform"])
@pytest.mark.parametrize("width", [1e-5, 1e-9, 1e-12])
def test_what_single_precision_cannot_tell_apart_is_told(base, width):
    X = np.c_[normal(300, 1), width * normal(300, 1, seed=1) + (np.arange(300) % 2)[:, None]]
    est = NCEDensity(base=base, max_iter=1, log_partition=None, random_state=0)
    est.set_params(standardize="affine")  # a bent column is as wide as any other
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        est.fit(pd.DataFrame(X, columns=["sound", "narrow"]))
    said = [str(w.message) for w in record if "single precision" in str(w.message)]
    assert len(said) == (width < 1e-6) and all("(1: narrow)" in text for text in said)


def test_a_narrow_component_is_computed_in_double_where_rows_are_float32():
    width, mean = 1e-6, 1.5
    base = MixtureBase.from_moments(
        np.ones(1), np.array([[mean]]), np.array([[[width**2]]]), "cpu", floor=1e-14
    )
    x = (mean + width * rows(200, 1, seed=3).double()).float()
    truth = norm.logpdf(x.double().numpy()[:, 0], mean, width)
    np.testing.assert_allclose(base.log_prob(x), truth, atol=1e-5)
    assert base.log_prob(x).dtype == base.sample(2, gen(0)).dtype == torch.float32


def test_one_row_alone_is_no_component_of_no_width():
    x = torch.cat([rows(30, 1), torch.tensor([[40.0]])])
    base = Mixture(n_components=2).fit(x, None, gen(0))
    alone = int(base.means[:, 0].argmax())
    assert float(base.means[alone]) == pytest.approx(40, abs=0.1)
    assert float(1 / base.factors[alone]) == pytest.approx(float(x[:30].std()), rel=0.5)


def test_spacing_is_the_median_distance_to_another_row():
    x = np.array([[0.0], [0.0], [1.0], [3.0], [7.0]])
    assert spacing(x) == 1.5  # 1, 1, 2, 4 for the different ones
    assert spacing(np.zeros((5, 2))) == 0


# -- copies ----------------------------------------------------------------------------------------


def test_copies_are_grouped_in_the_order_of_their_first_rows():
    x = normal(50, 3)
    z = np.r_[x, x[::-1]]
    assert copy_groups(x) is None
    np.testing.assert_array_equal(copy_groups(z), np.r_[np.arange(50), np.arange(50)[::-1]])


def test_copies_are_held_out_together():
    z = np.repeat(normal(100, 2), 3, axis=0)
    held_out = split(z, 0.1, gen(0))
    assert len(held_out) == 30
    kept = np.delete(z, held_out, axis=0)
    assert not (z[held_out][:, None] == kept).all(-1).any()
    discrete = np.random.default_rng(0).integers(3, size=(300, 2)).astype(float)
    assert len(np.unique(discrete[split(discrete, 0.1, gen(0))], axis=0)) > 5  # no copies


def test_repeated_measures_are_held_out_together():
    z = np.c_[np.repeat(normal(100, 2), 3, axis=0), np.random.default_rng(1).integers(2, size=300)]
    held_out = split(z, 0.1, gen(0))
    kept = np.delete(z, held_out, axis=0)
    assert not (z[held_out][:, None, :2] == kept[:, :2]).all(-1).any()


# -- left out --------------------------------------------------------------------------------------


def test_kernels_leave_each_row_out_exactly():
    x = rows(60, 2)
    base = Kernel(bandwidth=0.3).fit(x, None, gen(0))
    found = base.log_prob_left_out(x, None)
    for i in (0, 17, 59):
        rest = Kernel(bandwidth=0.3).fit(torch.cat([x[:i], x[i + 1 :]]), None, gen(0))
        assert float(found[i]) == pytest.approx(float(rest.log_prob(x[i : i + 1])), abs=1e-4)
    fresh = rows(20, 2, seed=1)
    torch.testing.assert_close(base.log_prob_left_out(fresh, None), base.log_prob(fresh))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_gaussian_leaves_a_fifth_of_the_rows_out(weighted):
    x = rows(100, 3)
    weight = torch.from_numpy(np.random.default_rng(3).integers(1, 4, 100)) if weighted else None
    fitted = x if weight is None else x.repeat_interleave(weight, 0)

    def moments(rows):
        return rows.mean(0).numpy()[None], np.cov(rows.numpy().T, bias=True)[None]

    def gaussian(rows):
        mean, covariance = moments(rows.double())
        return Mixture().fit(rows, None, gen(0)).from_moments(np.ones(1), mean, covariance, "cpu")

    found = gaussian(fitted).log_prob_left_out(x, weight)
    out = torch.arange(100) % 5 == 2
    rest = x[~out] if weight is None else x[~out].repeat_interleave(weight[~out], 0)
    expected = gaussian(rest).log_prob(x[out])
    torch.testing.assert_close(found[out], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("base", ["kernel", "gaussian", "mixture"])
def test_false_alarms_on_few_rows_are_near_five_percent(base):
    """With the ranks of scores that the fit has seen they are 11 % with kernels."""
    fresh, rates = normal(2000, 3, seed=99), []
    for seed in range(12):
        objective = ImportanceLikelihood(64)
        est = EnergyDensity(objective=objective, base=base, max_iter=1, random_state=seed)
        est.fit(normal(60, 3, seed=seed))
        assert isinstance(est.energy_, Zero) or est.n_iter_ == 1
        rates.append((est.predict(fresh) == -1).mean())
    assert 0.02 < np.mean(rates) < 0.09


def test_too_few_rows_say_what_their_ranks_promise():
    with pytest.warns(DataDegeneracyWarning, match="probability of about 1/13"):
        NCEDensity(max_iter=2, random_state=0).fit(normal(12, 1))


# -- far away --------------------------------------------------------------------------------------


def test_mass_beyond_the_grid_counts():
    rare = 4e-4
    weights, means = np.array([1 - rare, rare]), np.array([[0.0], [1000.0]])
    base = MixtureBase.from_moments(weights, means, np.ones((2, 1, 1)), "cpu")
    model = Model(Step(), base, 1.0)
    found = Quadrature().estimate(model, base, gen(0))
    truth = math.log1p(rare * math.expm1(5.0))
    assert_estimate(found.value, found.stderr, truth, 0.02)
    assert truth > 5 * found.stderr


class Step(torch.nn.Module):
    """E = -5 beyond 500."""

    def forward(self, x):
        return -5.0 * (x[:, 0] > 500)


def test_far_rows_without_a_base_are_the_same_in_any_number():
    energy = MLP(hidden_sizes=(8,), output="quadratic", n_frequencies=0)
    est = HybridCDDensity(
        base=None, energy=energy, max_iter=2, n_steps=1, log_partition=None, random_state=0
    ).fit(normal(60, 2))
    far = np.array([[3e13, -2e14], [1e6, 1e6], [5.0, 5.0]])
    few, many = est.score_samples(far), est.score_samples(np.resize(far, (300, 2)))[:3]
    np.testing.assert_allclose(many, few, rtol=1e-9)


@pytest.mark.parametrize("seed", [4, 10, 11])
def test_a_heavy_row_makes_no_component_of_no_width(seed):
    """It is repeated in proportion to its weight; EM would put a spike on it."""
    rng = gen(seed)
    x = (torch.rand(25, 1, generator=rng) < 0.5).float() + 0.2 * torch.randn(25, 1, generator=rng)
    weight = torch.randn(25, generator=rng).exp()
    assert Mixture().fit(x, weight, rng).inverse_width < 100


def test_of_many_held_out_rows_some_are_judged_and_scored():
    X = np.random.RandomState(0).standard_normal((60_000, 1))
    z, rng = torch.from_numpy(X), gen(0)
    held_out = split(X, 0.2, rng)
    table = ArrayTable.of(X, None, z, noise=np.zeros(1), held_out=held_out, rng=rng)
    assert len(held_out) == 12_000 and len(table.held_out) == 5000
    assert set(table.held_out.flatten().tolist()) < set(z[held_out].float().flatten().tolist())
    assert np.isin(np.float32(X[:1000]), table.held_out.numpy()).any()  # not the first alone
    assert np.isin(np.float32(X[-1000:]), table.held_out.numpy()).any()
