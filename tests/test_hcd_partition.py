"""The rings' script: energies without a log Z, and log Z of a thin cone far from the origin."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gammaln

from examples.papers.hcd import _partition, rings
from skebm.energies import Energy, Model
from skebm.partition import AIS

D, OFFSET, TEMPERATURE = 10, 0.96, 0.005
# widths at this temperature, as those of a model of the rings
WIDTHS = torch.tensor([0.08, 0.24, 0.27, 0.3, 0.4, 0.5, 0.57, 0.8, 1.1, 4.4])
SCALES = WIDTHS * OFFSET / TEMPERATURE / 2**0.5
ANNEALING = rings.PATIENT._replace(
    rough=AIS(128, n_steps=15, max_spread=0.005, min_ess=0.0),
    fine=AIS(1024, n_steps=20, max_spread=0.005, min_ess=0.0),
)
CENTER = torch.zeros(D).index_fill_(0, torch.tensor(D - 1), 12.0)


class Cone(Energy):
    """f(x) = offset + sum_j |x_j - m_j| / s_j."""

    def forward(self, x):
        return OFFSET + ((x - CENTER).abs() / SCALES).sum(1)

    def value_and_gradient(self, x):
        return self(x), (x - CENTER).sign() / SCALES


class Plane(Energy):
    """f(x) = 1 + a . x."""

    a = torch.arange(1.0, D + 1)

    def forward(self, x):
        return 1 + x @ self.a

    def value_and_gradient(self, x):
        return self(x), self.a.expand_as(x).clone()


class Squared(Energy):
    """f^2 / 2."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 0.5 * self.network(x).square()

    def value_and_gradient(self, x):
        f, gradient = self.network.value_and_gradient(x)
        return 0.5 * f.square(), f[:, None] * gradient


def log_z_of_the_cone():
    """Return log Z by the radius sum_j |x_j| / s_j, whose shells' volume is in closed form."""
    top = OFFSET**2 / (2 * TEMPERATURE)
    integral, _ = quad(
        lambda r: r ** (D - 1) * np.exp(top - (OFFSET + r) ** 2 / (2 * TEMPERATURE)), 0, 1
    )
    volume = D * np.log(2) + float(SCALES.double().log().sum()) - gammaln(D)
    return volume + np.log(integral) - top


def test_log_z_of_a_thin_cone_far_out_is_found_with_its_error():
    model = Model(Squared(Cone()), None, TEMPERATURE)
    x = CENTER.expand(3, D).clone()
    rng = torch.Generator().manual_seed(0)
    value, log_z = _partition.mean_log_density(model, _partition.wide(D), x, ANNEALING, rng)
    assert log_z.stderr < 0.1 and log_z.trusted
    assert abs(log_z.value - log_z_of_the_cone()) < 4 * log_z.stderr
    assert value == pytest.approx(-(OFFSET**2) / (2 * TEMPERATURE) - log_z.value, abs=1e-4)


def test_estimates_that_disagree_widen_the_error():
    """Chains that stop far from the cone's tip give a log Z that is too low by a hundred nats."""
    poor = ANNEALING._replace(rough=AIS(64, n_steps=1, max_levels=5, min_ess=0.0))
    model = Model(Squared(Cone()), None, TEMPERATURE)
    rng = torch.Generator().manual_seed(1)
    _, log_z = _partition.mean_log_density(
        model, _partition.wide(D), CENTER[None].clone(), poor, rng
    )
    assert abs(log_z.value - log_z_of_the_cone()) < 1
    assert log_z.stderr > 5 and not log_z.trusted


def test_signs_far_out_are_those_of_the_linear_part():
    annealing, rng = ANNEALING, torch.Generator().manual_seed(0)
    steepest = float(Plane.a.norm())
    found = _partition.both_signs_far_out(Plane(), D, annealing, rng)
    assert found == pytest.approx((-steepest, steepest), rel=1e-3)
    least, most = _partition.both_signs_far_out(Cone(), D, annealing, rng)
    assert least == pytest.approx(float(1 / SCALES.max()), rel=0.05)
    assert most == pytest.approx(float((1 / SCALES).norm()), rel=1e-2)


def test_a_box_has_its_volume():
    density = _partition.box(D, 4.5)
    width = 9 + (2 * np.pi) ** 0.5 * 9 * _partition.SHOULDER
    at = density.log_prob(torch.tensor([[0.0] * D, [4.4] * D]))
    assert at.tolist() == pytest.approx([-D * np.log(width)] * 2, abs=1e-4)
    assert float(density.log_prob(torch.full((1, D), 4.6))) < -500


@pytest.mark.parametrize(("network", "finite"), [(Plane(), False), (Cone(), True)])
def test_an_energy_with_both_signs_far_out_has_no_likelihood_but_in_the_box(network, finite):
    est = SimpleNamespace(
        energy_=Squared(network),
        temperature_=TEMPERATURE,
        random_state=0,
        init=SimpleNamespace(scheme="data"),
    )
    args = argparse.Namespace(mode="smoke", box=True)
    found = rings.plain_likelihoods(est, np.zeros((5, D)), args)
    assert np.isfinite(found[0]) == finite and np.isfinite(found[2])
    if not finite:
        assert found[:2] == [-np.inf, 0.0]
