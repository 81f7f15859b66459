"""Settings that papers state, parameter by parameter, against the papers' text."""

import numpy as np
import pytest

from skebm import HybridCDDensity, SteinEBM, USPDensity
from skebm.bases import Gaussian
from skebm.datasets import rings_10d, six_modes, two_moons
from skebm.energies import MLP
from skebm.networks import Critic
from skebm.objectives import EnergyStep
from skebm.samplers import Langevin
from tests.cases import QUIET

pytestmark = QUIET


def test_usp_six_modes_are_those_of_appendix_b2():
    """Four layers of 512, slope 0.2; N = 50, epsilon = 0.05, n = n_s = 5k, Lambda 1k; plain SGD."""
    est = USPDensity.from_paper("six-modes")
    assert est.method == "ps-usp" and est.epsilon == 0.05 and est.batch_size == 1000
    assert est.n_points == 5000 and est.n_integration in (None, 5000)
    assert (est.repulsion.n_active, est.repulsion.n_inner) == (1000, 50)
    assert est.repulsion.combine and est.repulsion.n_maximize == est.repulsion.n_repel == 1
    energy = MLP((512,) * 4, "leaky_relu", negative_slope=0.2, n_frequencies=0, input_scale=1.0)
    assert est.energy == energy and est.energy.output == "identity"
    assert est.optimizer.method == "sgd" and est.optimizer.learning_rate == 1e-3
    assert_plain(est)


def test_usp_images_are_those_of_appendix_b2():
    """32, 64, 128 filters of 3 x 3, average pooling, slope 0.4; N = 100, epsilon = 10, Adam."""
    est = USPDensity.from_paper("fashion-mnist")
    assert est.method == "ps-usp" and est.epsilon == 10 and est.batch_size == 125
    assert est.n_points in (10_000, 25_000, 50_000) and est.n_integration == 625
    assert (est.repulsion.n_active, est.repulsion.n_inner) == (125, 100)
    energy = est.energy
    assert energy.channels == (32, 64, 128) and energy.pooling == "average"
    assert (energy.kernel_sizes, energy.strides) == (3, 1) and len(energy.hidden_sizes) == 1
    assert (energy.activation, energy.negative_slope) == ("leaky_relu", 0.4)
    assert est.optimizer.learning_rate == 1e-3 and est.optimizer.method == "adam"
    assert est.max_iter == 50 * 60_000 / 125 and est.image_shape == (1, 28, 28)
    assert_plain(est)


def test_hcd_rings_are_those_of_section_3():
    """T = 0.005, 10,000 updates, step 0.0005 / |E|, as many chains from N(0, I) as from data."""
    est = HybridCDDensity.from_paper("rings")
    assert (est.temperature, est.max_iter) == (0.005, 10_000)
    assert est.step_size == "adaptive" and EnergyStep().scale == 0.0005
    assert est.init.scheme == "hybrid" and est.init.noise_share == 1 and est.sampler == "langevin"
    assert not est.refine and est.energy.output == "quadratic"
    assert_plain(est)
    persistent = HybridCDDensity.from_paper("rings", init="persistent", step_size=0.05)
    assert (persistent.init, persistent.step_size) == ("persistent", 0.05)


def test_lsd_toys_are_those_of_appendix_b4():
    """Two layers of 300, Swish, Adam (0.5, 0.9) at 0.001, five updates of the critic."""
    est = SteinEBM.from_paper("toy")
    assert est.energy == MLP((300, 300), "silu", n_frequencies=0, input_scale=1.0)
    assert est.critic == Critic((300, 300), trace="gaussian")
    assert est.critic.activation in ("silu", "swish")
    assert est.base == Gaussian("diagonal") and est.learn_base and not est.calibrate
    assert (est.critic_steps, est.l2, est.batch_size) == (5, 10, 100)
    assert est.optimizer.learning_rate == 1e-3 and est.optimizer.betas == (0.5, 0.9)
    assert abs(est.max_iter * (est.critic_steps + 1) - 10_000) < est.critic_steps + 1
    assert est.n_iter_no_change is None
    assert_plain(est, base=True)


def assert_plain(est, base=False):
    """Nothing of ours: no judge, no running mean, no decay, no noise; no base but a flat one."""
    assert est.validation_fraction == 0 and est.data_noise == 0
    assert base or est.base in (None, "uniform")
    optimizer = est.optimizer
    assert not optimizer.averaging and optimizer.schedule == "constant"
    assert optimizer.weight_decay == 0


@pytest.mark.parametrize(
    ("make", "name", "density", "changes"),
    [
        (USPDensity.from_paper, "six-modes", six_modes(), {"n_points": 200}),
        (HybridCDDensity.from_paper, "rings", rings_10d(), {"n_steps": 5}),
        (SteinEBM.from_paper, "toy", two_moons(), {"critic_steps": 1}),
    ],
)
def test_settings_fit_and_are_not_shared(make, name, density, changes):
    est = make(name, max_iter=2, random_state=0, **changes).fit(density.sample(200, random_state=0))
    assert est.n_iter_ == 2 and np.isfinite(est.energy_samples(density.sample(5))).all()
    est.set_params(optimizer__learning_rate=9.0, energy__hidden_sizes=(7,))
    other = make(name)
    assert other.optimizer.learning_rate != 9 and other.energy.hidden_sizes != (7,)
    assert other.max_iter > 2
    with pytest.raises(ValueError, match=f"name must be one of .*{name!r}.*got 'imagenet'"):
        make("imagenet")


def test_chains_of_the_rings_are_unadjusted():
    est = HybridCDDensity.from_paper("rings", max_iter=2, n_steps=2, random_state=0)
    assert isinstance(est.fit(rings_10d().sample(200, random_state=0)).sampler_, Langevin)
