"""log Z of Gaussian energies, which every method has to give within its own error."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch

from skebm.bases import Gaussian
from skebm.energies import Model, Zero
from skebm.exceptions import NormalizationWarning
from skebm.fitted.normalization import normalize
from skebm.partition import (
    AIS,
    Auto,
    ImportanceSampling,
    LogPartition,
    Quadrature,
    ReverseAIS,
    reverse_ais,
)
from skebm.partition._base import from_log_weights, widened
from tests.closed_forms import Quadratic, assert_estimate, gaussian_log_z, normal_base, tilted_log_z
from tests.generators import gen


def problem(d, kind):
    """A model, a proposal and log Z; the tilt shrinks with d as a trained energy's does."""
    k, proposal = 0.5 / d**0.5, normal_base(d)
    if kind == "base is proposal":
        return Model(Quadratic(k), proposal, 1.0), proposal, tilted_log_z(d, k)
    if kind == "cold":
        return Model(Quadratic(0.3 * k), proposal, 0.3), proposal, tilted_log_z(d, k)
    if kind == "no base":
        return Model(Quadratic(1 + k), None, 1.0), proposal, gaussian_log_z(d, 1 + k)
    base, variance = normal_base(d, 1.1), 1.1**2  # another base than the proposal
    return Model(Quadratic(k), base, 1.0), proposal, tilted_log_z(d, k * variance)


METHODS = {
    "quadrature": (Quadrature(), (1, 2, 3)),
    "importance": (ImportanceSampling(), (1, 2, 3, 10, 30)),
    "ais": (AIS(n_chains=512, n_steps=1), (1, 2, 3, 10, 30)),
    "reverse-ais": (ReverseAIS(n_chains=512, n_steps=1, n_equilibration=20), (1, 3, 10)),
}
CASES = [(name, d) for name, (_, dims) in METHODS.items() for d in dims]


@pytest.mark.parametrize("kind", ["base is proposal", "no base", "another base", "cold"])
@pytest.mark.parametrize("name, d", CASES)
def test_gaussian_log_z(name, d, kind):
    model, proposal, truth = problem(d, kind)
    result = METHODS[name][0].estimate(model, proposal, gen(0))
    assert result.method == name and result.trusted
    if name == "quadrature":
        assert result.value == pytest.approx(truth, abs=2e-4) and result.stderr <= 1e-3
    else:
        assert_estimate(result.value, result.stderr, truth, 0.05)


def test_quadrature_resolves_a_narrow_well():
    model = Model(Quadratic(1e6, mean=0.4), None, 1.0)  # sd 0.001 in a box of about 12
    result = Quadrature(tol=1e-4).estimate(model, normal_base(1), gen(0))
    assert result.value == pytest.approx(gaussian_log_z(1, 1e6), abs=1e-3)


def test_quadrature_on_a_given_box():
    model = Model(Quadratic(), None, 1.0)
    box = (np.full(2, -8.0), np.full(2, 8.0))
    result = Quadrature(domain=box).estimate(model, normal_base(2, 0.01, 5.0), gen(0))
    assert result.value == pytest.approx(gaussian_log_z(2), abs=1e-4)


def test_quadrature_admits_mass_outside_its_box():
    result = Quadrature(domain=([-1.0], [1.0])).estimate(
        Model(Quadratic(), None, 1.0), normal_base(1), gen(0)
    )
    assert abs(result.value - gaussian_log_z(1)) <= 4 * result.stderr


@pytest.mark.parametrize(
    "method",
    [ImportanceSampling(n_samples=1024), AIS(n_chains=64), ReverseAIS(n_chains=64)],
    ids=repr,
)
def test_same_seed_same_number_and_no_global_randomness(method):
    before = torch.get_rng_state()
    model, proposal, _ = problem(2, "no base")
    one, two, other = (method.estimate(model, proposal, gen(s)).value for s in (0, 0, 1))
    assert one == two != other and torch.get_rng_state().equal(before)


def test_a_zero_energy_is_normalized_exactly():
    proposal = normal_base(3)
    for method in (ImportanceSampling(n_samples=64), AIS(n_chains=64)):
        result = method.estimate(Model(Zero(), proposal, 1.0), proposal, gen(0))
        assert result.value == pytest.approx(0, abs=1e-6) and result.stderr < 1e-6


# -- annealing -------------------------------------------------------------------------------------


def test_ais_bridges_what_importance_sampling_cannot():
    proposal, d = normal_base(5, scale=3.0, mean=3.0), 5
    model, truth = Model(Quadratic(), None, 1.0), gaussian_log_z(5)
    result = AIS(n_chains=512, n_steps=1, max_spread=0.005).estimate(model, proposal, gen(0))
    assert_estimate(result.value, result.stderr, truth, 0.05)
    direct = ImportanceSampling(n_samples=512, max_samples=512).estimate(model, proposal, gen(0))
    assert direct.stderr > 3 * result.stderr and d == proposal.n_features


def test_ais_errors_are_honest():
    model, proposal, truth = problem(3, "no base")
    method = AIS(n_chains=32, n_steps=1, max_spread=0.2, min_ess=0)
    results = [method.estimate(model, proposal, gen(s)) for s in range(20)]
    z = np.array([(r.value - truth) / r.stderr for r in results])
    assert 0.5 < z.std() < 1.6 and abs(z.mean()) < 4 / math.sqrt(20)


# -- importance sampling ---------------------------------------------------------------------------


def hard_problem():
    """A narrow model far out: annealing loses weight on the way."""
    return Model(Quadratic(60.0, mean=2.0), None, 1.0), normal_base(8), gaussian_log_z(8, 60.0)


def test_the_bracket_holds_on_average_and_is_open_where_annealing_is_coarse():
    model, proposal, truth = hard_problem()
    x = 2.0 + torch.randn(512, 8, generator=gen(5)) / 60**0.5  # exact draws
    bracket = ReverseAIS(n_chains=512, n_steps=1).bracket(model, proposal, gen(0), x)
    assert bracket.lower < truth < bracket.upper
    assert bracket.upper - bracket.lower > 4 * math.hypot(*bracket[2:4])
    assert max(bracket.lower_stderr, bracket.upper_stderr) < 0.1
    for result in (bracket.forward, bracket.reverse):
        assert_estimate(result.value, result.stderr, truth, 0.25)  # what the tail hides is in it


def test_the_bracket_stands_without_draws_from_the_model():
    model, proposal, truth = hard_problem()
    result = ReverseAIS(n_chains=512, n_steps=1).estimate(model, proposal, gen(1))
    assert result.method == "reverse-ais"
    assert_estimate(result.value, result.stderr, truth, 0.15)


def test_chains_that_come_down_from_the_wrong_place_open_the_bracket():
    """Draws that are not the model's: the two directions no longer agree."""
    model, proposal, truth = hard_problem()
    x = 2.6 + torch.randn(512, 8, generator=gen(5)) / 60**0.5
    bracket = ReverseAIS(n_chains=512, n_steps=1).bracket(model, proposal, gen(0), x)
    assert abs(bracket.reverse.value - truth) > 1 or bracket.upper - bracket.lower > 1


def test_half_of_the_gap_between_up_and_down_counts_as_error():
    model, proposal, _ = hard_problem()
    method = ReverseAIS(n_chains=128, n_steps=1, n_equilibration=4)
    forward, reverse = method.bracket(model, proposal, gen(1))[4:6]
    chance = math.hypot(forward.stderr, reverse.stderr) / 2
    expected = math.hypot(abs(forward.value - reverse.value) / 2, chance)
    assert method.estimate(model, proposal, gen(1)).stderr == pytest.approx(expected, rel=1e-6)
    assert expected > 1.1 * chance


def test_chains_come_down_from_rows_that_were_drawn_by_weight(monkeypatch):
    """All weight on one end: without moves, every chain starts there."""
    anneal, seen = AIS.anneal, []

    def on_row_7(self, *args):
        up = anneal(self, *args)
        log_weight = torch.full_like(up.log_weight, -1e3)
        log_weight[7] = 0.0
        seen.append(up.x[7])
        return up._replace(log_weight=log_weight)

    def climb(path, ladder, x, *args, **kwargs):
        seen.append(x)
        return x, torch.zeros(len(x))

    monkeypatch.setattr(AIS, "anneal", on_row_7)
    monkeypatch.setattr(reverse_ais, "climb", climb)
    model, proposal, _ = problem(2, "no base")
    ReverseAIS(n_chains=16, n_steps=1, n_equilibration=0).bracket(model, proposal, gen(0))
    assert torch.equal(seen[1], seen[0].expand(16, 2))


def test_importance_errors_are_honest():
    model, proposal, truth = problem(3, "no base")
    method = ImportanceSampling(n_samples=512, max_samples=512)
    results = [method.estimate(model, proposal, gen(s)) for s in range(20)]
    z = np.array([(r.value - truth) / r.stderr for r in results])
    assert 0.5 < z.std() < 1.6 and abs(z.mean()) < 4 / math.sqrt(20)


def test_importance_sampling_doubles_until_the_tolerance():
    model, proposal, truth = problem(5, "no base")
    coarse = ImportanceSampling(n_samples=64, max_samples=64).estimate(model, proposal, gen(0))
    fine = ImportanceSampling(n_samples=64, tol=0.01).estimate(model, proposal, gen(0))
    assert coarse.stderr > 0.02 and fine.stderr <= 0.01 and fine.ess > 10 * coarse.ess
    assert_estimate(fine.value, fine.stderr, truth, 0.01)


def test_weights_far_from_zero_give_the_same_error():
    log_w = torch.randn(200, generator=gen(0), dtype=torch.float64)
    near, far = from_log_weights(log_w, "x"), from_log_weights(log_w + 1e4, "x")
    w = log_w.exp().numpy()
    assert near.value == pytest.approx(np.log(w.mean()), rel=1e-12)
    spread = w.std(ddof=1) / w.mean() / 200**0.5
    assert spread < near.stderr < 2.5 * spread  # the tail is in it
    assert near.ess == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-12)
    assert far.value == pytest.approx(near.value + 1e4, rel=1e-12)
    assert far.stderr == pytest.approx(near.stderr, rel=1e-9)
    assert far.pareto_k == pytest.approx(near.pareto_k, rel=1e-9)


def pareto_log_weights(k, n, seed):
    """Weights of mean 1 whose tail is exactly a Pareto one of shape k."""
    u = torch.rand(n, dtype=torch.float64, generator=gen(seed))
    return -k * u.log() + math.log(1 - k)


@pytest.mark.parametrize("k, most_trusted", [(0.3, 1.0), (0.6, 0.8), (0.7, 0.5)])
def test_errors_hold_what_heavy_tails_of_weights_hide(k, most_trusted):
    """From k = 0.5 on the variance is infinite, and that of any sample of it is too small."""
    found = [from_log_weights(pareto_log_weights(k, 2000, seed), "x") for seed in range(200)]
    value, stderr = np.array([(r.value, r.stderr) for r in found]).T
    assert np.mean(np.abs(value) <= 2 * stderr) >= 0.9
    assert np.mean([r.trusted for r in found]) <= most_trusted
    assert np.mean([r.pareto_k for r in found]) == pytest.approx(k, abs=0.1)
    if k == 0.3:  # and no more than that where nothing is hidden
        assert stderr.mean() < 1.5 * value.std() and all(r.trusted for r in found)


def test_one_weight_that_is_most_of_the_sum_is_no_estimate():
    log_w = torch.zeros(4096, dtype=torch.float64)
    log_w[7] = 12.0
    result = from_log_weights(log_w + 0.1 * torch.randn(4096, generator=gen(0)), "x")
    assert result.stderr > 1 and not result.trusted


def test_even_weights_have_no_tail():
    result = from_log_weights(torch.full((100,), 3.0), "x")
    assert result[:3] == (pytest.approx(3.0), pytest.approx(0, abs=1e-9), pytest.approx(100))
    assert result.pareto_k == -math.inf and result.trusted
    two = from_log_weights(torch.tensor([0.0, 1.0] * 500), "x")
    assert two.pareto_k == -math.inf and two.trusted


@pytest.mark.parametrize("lost", [math.nan, -math.inf])
def test_weights_that_are_no_numbers_are_told(lost):
    log_w = 0.1 * torch.randn(1000, generator=gen(0))
    log_w[3] = lost
    result = from_log_weights(log_w, "x")
    assert result.trusted is (lost < 0)  # a weight of 0 is one
    assert not from_log_weights(torch.full((1000,), lost), "x").trusted


def test_two_estimates_that_contradict_each_other_widen_the_error():
    near, far = (LogPartition(v, 0.01, 1e4, "x") for v in (0.0, 1.0))
    assert widened(near, far).stderr == pytest.approx(0.49)
    assert widened(near, near) == near
    assert widened(near, far._replace(stderr=0.5)) == near


def test_auto_does_not_trust_weights_with_a_heavy_tail():
    """A model twice as wide as its base: k is 1 - 1/4, and ten times the draws do not help."""
    base = normal_base(6)
    model = Model(Quadratic(0.25 - 1), base, 1.0)
    draws = ImportanceSampling(max_samples=16384).estimate(model, base, gen(0))
    assert draws.pareto_k > 0.6 and not draws.trusted
    result = Auto().estimate(model, base, gen(0))
    truth = tilted_log_z(6, 0.25 - 1)
    assert abs(result.value - truth) <= 3 * result.stderr


@pytest.mark.parametrize(
    "value, stderr, ess, trusted",
    [
        (0.0, 0.1, 50.0, True),
        (0.0, 0.11, 1e4, False),
        (0.0, 0.01, 49.0, False),
        (math.nan, 0.01, 1e4, False),
        (0.0, math.nan, 1e4, False),
        (math.inf, 0.01, 1e4, False),
    ],
)
def test_trust(value, stderr, ess, trusted):
    result = LogPartition(value, stderr, ess, "x")
    assert result.trusted is trusted and (result.doubts() is None) is trusted


@pytest.mark.parametrize("k, trusted", [(-math.inf, True), (0.7, True), (0.71, False)])
def test_trust_ends_with_the_tail(k, trusted):
    result = LogPartition(0.0, 0.05, 1e4, "x", k)
    assert result.trusted is trusted
    assert trusted or "Pareto k of the weights 0.71" in result.doubts()
    assert not result._replace(pareto_k=math.nan).trusted
    assert result._replace(stderr=0.03).trusted  # a tail that hides next to nothing


def test_the_tail_goes_where_an_estimate_goes():
    result = LogPartition(0.0, 0.05, 1e4, "x", 0.8)
    assert result == (0.0, 0.05, 1e4, "x") and len(result) == 4
    copies = copy.deepcopy(result), pickle.loads(pickle.dumps(result)), result._replace(value=1.0)
    assert all(c.pareto_k == 0.8 and not c.trusted for c in copies)


# -- auto ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d, method", [(1, "quadrature"), (2, "quadrature"), (3, "importance")])
def test_auto_takes_the_method_of_the_dimension(d, method):
    model, proposal, truth = problem(d, "base is proposal")
    result = Auto().estimate(model, proposal, gen(0))
    assert result.method == method
    assert_estimate(result.value, max(result.stderr, 1e-4), truth, 0.02)


def test_auto_anneals_where_draws_miss():
    model, proposal = Model(Quadratic(), None, 1.0), normal_base(10, scale=3.0, mean=3.0)
    result = Auto().estimate(model, proposal, gen(0))
    assert result.method == "ais"
    assert_estimate(result.value, result.stderr, gaussian_log_z(10), 0.05)


def test_auto_takes_more_draws_before_it_anneals():
    """With the default number of draws the standard error is 0.07."""
    model, proposal = Model(Quadratic(), None, 1.0), normal_base(10, scale=2.0, mean=1.0)
    few = ImportanceSampling().estimate(model, proposal, gen(0))
    result = Auto().estimate(model, proposal, gen(0))
    assert few.stderr > 0.05 and result.method == "importance"
    assert_estimate(result.value, result.stderr, gaussian_log_z(10), 0.05)


class Spike(torch.nn.Module):
    """A spike of width 2e-4 on a flat energy: it has a third of the mass of N(0, 1) and it."""

    def forward(self, x):
        return -(2500 * (-0.5 * ((x[:, 0] - 0.1237) / 2e-4).square()).exp()).log1p()


def test_auto_warns_where_grid_and_draws_disagree():
    proposal = normal_base(1)
    mass = 2500 * 2e-4 * math.exp(-0.5 * 0.1237**2)  # sqrt(2 pi) cancels
    with pytest.warns(NormalizationWarning, match=r"by quadrature and 0\.\d+ \+- .* importance"):
        result = Auto().estimate(Model(Spike(), proposal, 1.0), proposal, gen(3))
    assert 0.2 < abs(result.value - math.log1p(mass)) < 3 * result.stderr


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain, d, match",
    [
        (None, 4, "quadrature for 4 columns"),
        (([0.0], [1.0]), 2, "domain must be two arrays of 2"),
        (([1.0], [0.0]), 1, "low < high"),
    ],
)
def test_bad_domains(domain, d, match):
    with pytest.raises(ValueError, match=match):
        Quadrature(domain=domain).estimate(Model(Quadratic(), None, 1.0), normal_base(d), gen(0))


class Plateau(torch.nn.Module):
    """An energy that ends at a height."""

    def __init__(self, height):
        super().__init__()
        self.height = height

    def forward(self, x):
        return (0.5 * x.square().sum(1)).clamp(max=self.height)


def test_an_energy_that_does_not_outgrow_the_space_is_told():
    """From where it ends on there is more mass than near the rows, and no draw has been there."""
    method, base = ImportanceSampling(4096), normal_base(2)
    with pytest.warns(NormalizationWarning, match="does not outgrow the space at 1000 times"):
        normalize(Model(Plateau(18.0), None, 1.0), base, method, gen(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        normalize(Model(Plateau(1e4), None, 1.0), base, method, gen(0))
        normalize(Model(Plateau(0.1), base, 1.0), base, method, gen(0))  # the base outgrows it


class Squared(torch.nn.Module):
    """f(x)^2 / 2, where f(x) / |x| is 0.24 to 1.5 by direction, less a shift."""

    def __init__(self, shift):
        super().__init__()
        self.A, self.shift = torch.randn(6, 6, generator=gen(1)), shift

    def forward(self, x):
        f = (x @ self.A).abs().sum(1) / 6 - self.shift * x.norm(dim=1)
        return 0.5 * f.square()


@pytest.mark.parametrize(("shift", "told"), [(0.35, True), (0.1, False), (-0.2, False)])
def test_an_energy_that_is_flat_along_few_directions_is_told(shift, told):
    """Where f has both signs far out {f = 0} reaches to infinity, and there is no log Z."""
    model, base = Model(Squared(shift), None, 0.005), normal_base(6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        normalize(model, base, ImportanceSampling(256, max_samples=256), gen(0))
    flat = [w for w in caught if "does not outgrow the space" in str(w.message)]
    assert len(flat) == told


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("widths", "law"),
    [
        ([1.0], lambda z: 0.5 * z.square()),  # drawn rows in the very middle
        ([1.0, 1e3], lambda z: 0.5 * z.square()),  # directions turn from the thin to the wide one
        ([1.0] * 10, lambda z: 2 * (z.square() / 3).log1p()),  # tails that reach far along a column
    ],
)
def test_a_sound_energy_is_not_told(widths, law, seed):
    """Gaussians, and Student's t with three degrees of freedom in each of ten columns."""
    s = torch.tensor(widths)
    base = Gaussian().fit(torch.randn(2000, len(s), generator=gen(9)) * s, None, gen(0))
    model = Model(Law(s, law), None, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        normalize(model, base, ImportanceSampling(256, max_samples=256), gen(seed))
    assert not [w for w in caught if "does not outgrow the space" in str(w.message)]


def test_directions_without_a_number_hide_no_others():
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.where(x[:, 0] > 100, float("nan"), Plateau(18.0)(x))

    with pytest.warns(NormalizationWarning, match="does not outgrow the space at 1000 times"):
        normalize(Model(Broken(), None, 1.0), normal_base(2), ImportanceSampling(4096), gen(0))


class Law(torch.nn.Module):
    """The sum of a law's energies over scaled columns."""

    def __init__(self, s, law):
        super().__init__()
        self.s, self.law = s, law

    def forward(self, x):
        return self.law(x / self.s).sum(1)
