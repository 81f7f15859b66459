"""Calibration: mode weights become those of the rows, shapes stay, and it knows when to refuse."""

import math

import numpy as np
import pytest
import torch

from skebm.bases.mixture import MixtureBase
from skebm.energies import Model, Zero
from skebm.energies.reweighted import Reweighted
from skebm.exceptions import NormalizationWarning
from skebm.fitted.calibration import N_DRAWS, calibrate
from tests.closed_forms import Quadratic, assert_estimate, assert_mean, grid
from tests.generators import gen

MEANS, SCALE, SHARE = (-3.0, 3.0), 0.5, 0.8
AXIS, CELL = grid(-12, 12, 6000, 1)
AXIS = AXIS.float()


def two_modes(left):
    """The density of two modes, the left one of this mass."""
    means, cov = np.array(MEANS)[:, None], np.full((2, 1, 1), SCALE**2)
    return MixtureBase.from_moments(np.array([left, 1 - left]), means, cov, "cpu")


class Surprise(torch.nn.Module):
    """E = -T log q + 7 for a base q."""

    def __init__(self, base, temperature=1.0):
        super().__init__()
        self.base = base
        self.temperature = temperature

    def forward(self, x):
        return -self.temperature * self.base.log_prob(x) + 7


def model_of(kind, left):
    """Two modes as a base, as an energy, and as an energy at temperature 2."""
    if kind == "base":
        return Model(Zero(), two_modes(left), 1.0)
    temperature = 2.0 if kind == "hot energy" else 1.0
    return Model(Surprise(two_modes(left), temperature), None, temperature)


def log_density(model, x):
    """Normalized by quadrature."""
    log_z = (-model.potential(AXIS).double()).logsumexp(0) + math.log(CELL)
    return (-model.potential(x).double() - log_z).numpy()


def left_mass(model):
    p = np.exp(log_density(model, AXIS)) * CELL
    return p[AXIS[:, 0].numpy() < 0].sum()


KINDS = pytest.mark.parametrize("kind", ["base", "energy", "hot energy"])


@KINDS
@pytest.mark.parametrize("held_out", [True, False])
def test_masses_become_those_of_the_rows(kind, held_out):
    model, truth = model_of(kind, 0.5), two_modes(SHARE)
    rows, fresh = truth.sample(4000, gen(0)), truth.sample(20_000, gen(1))
    done = calibrate(model, rows, None, fresh[:400] if held_out else None, gen(2))
    after = model._replace(energy=done.energy)
    assert isinstance(done.energy, Reweighted) and done.n_components == 2
    assert left_mass(model) == pytest.approx(0.5, abs=1e-3)
    stderr = math.sqrt(SHARE * (1 - SHARE) / len(rows))
    assert_estimate(left_mass(after), stderr, SHARE, 0.007)
    # maximum likelihood over the weights is the share of rows, but for the draws' own error
    assert left_mass(after) == pytest.approx(float((rows < 0).float().mean()), abs=0.005)
    short = truth.log_prob(fresh).double().numpy() - log_density(after, fresh)
    assert short.mean() == pytest.approx(0, abs=0.01)
    before = truth.log_prob(fresh).double().numpy() - log_density(model, fresh)
    kl = SHARE * math.log(2 * SHARE) + (1 - SHARE) * math.log(2 * (1 - SHARE))
    assert_mean(before, kl, 0.005)


@KINDS
def test_each_mode_keeps_its_shape(kind):
    model, rows = model_of(kind, 0.5), two_modes(SHARE).sample(2000, gen(0))
    done = calibrate(model, rows, None, None, gen(2))
    near = torch.linspace(-2, 2, 41)[:, None] * SCALE + MEANS[0]
    lift = log_density(model._replace(energy=done.energy), near) - log_density(model, near)
    np.testing.assert_allclose(lift, lift.mean(), atol=1e-3)


def test_rows_count_in_proportion_to_their_weights():
    rows = two_modes(0.5).sample(4000, gen(0))
    weight = torch.where(rows[:, 0] < 0, 4.0, 1.0).double()
    model = model_of("base", 0.5)
    done = calibrate(model, rows, weight, None, gen(2))
    share = float(weight[rows[:, 0] < 0].sum() / weight.sum())
    assert share == pytest.approx(0.8, abs=0.01)
    assert left_mass(model._replace(energy=done.energy)) == pytest.approx(share, abs=0.005)


@KINDS
def test_the_gain_is_the_change_in_held_out_log_likelihood(kind):
    model, truth = model_of(kind, 0.5), two_modes(SHARE)
    rows, held_out = truth.sample(2000, gen(0)), truth.sample(500, gen(1))
    done = calibrate(model, rows, None, held_out, gen(2))
    change = log_density(model._replace(energy=done.energy), held_out)
    change = (change - log_density(model, held_out)).mean()
    assert done.gain == pytest.approx(change, abs=0.005) and done.gain > 0.1


def test_what_loses_on_held_out_rows_is_not_kept():
    model = model_of("base", 0.5)
    rows, held_out = two_modes(SHARE).sample(2000, gen(0)), two_modes(0.2).sample(500, gen(1))
    done = calibrate(model, rows, None, held_out, gen(2))
    assert done.energy is model.energy and done.gain == 0 and done.n_components == 2


def test_with_one_component_the_energy_stays():
    rows = torch.randn(2000, 2, generator=gen(0))
    model = Model(Quadratic(1.0), None, 1.0)
    done = calibrate(model, rows, None, rows[:100], gen(1))
    assert done.energy is model.energy and done.n_components == 1
    assert done.gain == pytest.approx(0, abs=1e-6)
    assert done.ess > 0.5 * N_DRAWS


def test_a_model_that_the_draws_do_not_reach_is_left_alone():
    rows = two_modes(SHARE).sample(1000, gen(0))
    model = Model(Quadratic(1e4, mean=40.0), None, 1.0)
    told = rf"calibrate=True was left out: {N_DRAWS} draws .* 2 components are worth \d+ of"
    with pytest.warns(NormalizationWarning, match=told):
        assert calibrate(model, rows, None, None, gen(1)) is None


def test_a_model_that_is_nowhere_finite_is_left_alone():
    rows = two_modes(SHARE).sample(1000, gen(0))
    model = Model(Quadratic(math.nan), None, 1.0)
    with pytest.warns(NormalizationWarning, match="worth nan of"):
        assert calibrate(model, rows, None, None, gen(1)) is None


def test_the_proposal_is_a_density_beyond_the_rows():
    rows = two_modes(SHARE).sample(1000, gen(0))
    proposal = calibrate(model_of("base", 0.5), rows, None, None, gen(1)).proposal
    wide = torch.linspace(-60, 60, 60_001)[:, None]
    log_prob = proposal.log_prob(wide).double()
    assert float(log_prob.exp().sum()) * 120 / 60_000 == pytest.approx(1, abs=1e-4)
    near = two_modes(SHARE).log_prob(wide).double()
    inside = wide[:, 0].abs() < 10
    assert (log_prob - near)[inside].min() > math.log(0.5)  # nowhere far below the truth


# -- the reweighted energy -------------------------------------------------------------------------


def three(dtype=torch.float64):
    rng = np.random.RandomState(0)
    factors = rng.randn(3, 2, 2)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(2)
    return MixtureBase.from_moments(
        np.array([0.5, 0.3, 0.2]), 1.5 * rng.randn(3, 2), covariances, "cpu", dtype
    )


def test_the_lift_of_a_reweighted_energy_is_between_its_values():
    lifts = torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64)
    x = 2 * torch.randn(60, 2, dtype=torch.float64, generator=gen(0))
    inner = Quadratic(0.4, mean=0.5)
    lift = inner(x) - Reweighted(inner, three(), lifts)(x)
    assert (lift < 2.0).all() and (lift > -1.3).all() and lift.std() > 0.3


def test_responsibilities_are_bayes_rule():
    mixture = three()
    x = 2 * torch.randn(60, 2, dtype=torch.float64, generator=gen(0))
    share = mixture.responsibilities(x)
    parts = []
    for k in range(3):
        alone = MixtureBase(
            torch.zeros(1, dtype=torch.float64), mixture.means[k : k + 1], mixture.factors[k, None]
        )
        parts.append(alone.log_prob(x) + mixture.log_weights[k] - mixture.log_prob(x))
    torch.testing.assert_close(share, torch.stack(parts, 1).exp(), rtol=1e-10, atol=1e-12)
    values = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(mixture.averaged(x, values)[0], share @ values)


@KINDS
def test_a_lift_of_log_four_moves_half_and_half_to_four_fifths(kind):
    model = model_of(kind, 0.5)
    lifts = model.temperature * torch.tensor([math.log(4.0), 0.0])
    lifted = model._replace(energy=Reweighted(model.energy, two_modes(0.5), lifts))
    assert left_mass(model) == pytest.approx(0.5, abs=1e-4)
    assert left_mass(lifted) == pytest.approx(0.8, abs=1e-4)
