"""The critic: its divergence against the Jacobian, probes, dropout and bounds."""

import itertools
import math

import numpy as np
import pytest
import torch

from skebm.networks import Critic
from tests.closed_forms import assert_mean, assert_variance, autograd_jacobian
from tests.generators import gen, randn, randomized


def network(sizes, activation="swish", skip=False, d=4, **options):
    """A critic in float64 with all parameters moved from their start."""
    return randomized(Critic(sizes, activation, skip, **options).build(d, gen(0)).double())


DEPTHS = pytest.mark.parametrize("sizes", [(7,), (7, 6), (5, 6, 4)], ids=str)


@DEPTHS
@pytest.mark.parametrize("activation", ["swish", "tanh"])
@pytest.mark.parametrize("skip", [False, True])
def test_divergence_is_the_trace_of_the_jacobian(sizes, activation, skip):
    net, x = network(sizes, activation, skip, trace="gaussian"), randn(3, 4)
    value, divergence = net.value_and_divergence(x)  # exact: without a generator
    expected = autograd_jacobian(net, x).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(divergence, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, net(x))


@DEPTHS
def test_signs_give_the_quadratic_form_of_the_jacobian(sizes):
    net, x = network(sizes, skip=True, trace="rademacher"), randn(1, 4)
    estimates = net.value_and_divergence(x.expand(10_000, -1), gen(2))[1].detach().numpy()
    signs = np.array(list(itertools.product([1], *[[-1, 1]] * 3)))
    forms = np.einsum("ni,ij,nj->n", signs, autograd_jacobian(net, x)[0].numpy(), signs)
    nearest = np.abs(estimates[:, None] - forms)
    np.testing.assert_allclose(nearest.min(1), 0, atol=1e-10)
    for share in np.bincount(nearest.argmin(1), minlength=8) / 10_000:
        assert abs(share - 1 / 8) < 4 * math.sqrt(1 / 8 * 7 / 8 / 10_000)


def test_gaussian_probes_have_the_trace_as_mean_and_its_known_variance():
    net, x = network((7, 6), skip=True, trace="gaussian"), randn(1, 4)
    estimates = net.value_and_divergence(x.expand(100_000, -1), gen(3))[1].detach().numpy()
    full = autograd_jacobian(net, x)[0].numpy()
    variance = ((full + full.T) ** 2).sum() / 2
    assert_mean(estimates, np.trace(full), 0.02 * variance**0.5)
    assert_variance(estimates, variance, 0.02)


@pytest.mark.parametrize(
    ("share", "depth", "trace"),
    [(0.0, 2, "exact"), (0.25, 1, "exact"), (0.5, 2, "rademacher"), (0.9, 3, "exact")],
)
def test_dropout_leaves_out_its_share_of_value_and_divergence(share, depth, trace):
    """Where all weights are the identity, a unit is 0 or one number, and so is its derivative."""
    net = Critic((30,) * depth, "tanh", dropout=share, trace=trace).build(30, gen(0)).double()
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.copy_(torch.eye(30))
            layer.bias.zero_()
        value, divergence = net.value_and_divergence(torch.ones(10_000, 30).double(), gen(4))
    unit, slope = 1.0, 1.0
    for _ in range(depth):
        slope *= (1 - math.tanh(unit) ** 2) / (1 - share)
        unit = math.tanh(unit) / (1 - share)
    assert_mean((value == 0).ravel(), 1 - (1 - share) ** depth, 0.001)
    np.testing.assert_allclose(value.unique(), [0, unit] if share else [unit], rtol=1e-6)
    np.testing.assert_allclose(divergence, slope * (value != 0).sum(1), rtol=1e-6)


def test_without_a_generator_nothing_is_left_out():
    net, x = Critic(dropout=0.5).build(3, gen(0)), torch.randn(5, 3, generator=gen(1))
    assert torch.equal(net.value_and_divergence(x)[0], net(x))
    assert not torch.equal(net.value_and_divergence(x, gen(0))[0], net(x))


@pytest.mark.parametrize(("factor", "low", "high"), [(10.0, 0.9, 1.02), (0.1, 0.0, 1.0)])
def test_spectral_norms_come_down_to_one_and_small_weights_stay(factor, low, high):
    net = Critic((20, 20), spectral_norm=True).build(5, gen(0))
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.mul_(factor)
    before = [layer.weight.clone() for layer in net.layers]
    for _ in range(100):  # one step of the power method each
        net.constrain()
    for start, layer in zip(before, net.layers, strict=True):
        assert low < float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) < high
        assert torch.equal(start, layer.weight) == (factor < 1)


def test_weights_are_clipped():
    net = Critic((20, 20), weight_clip=0.05).build(5, gen(0))
    net.constrain()
    largest = max(float(p.detach().abs().max()) for layer in net.layers for p in layer.parameters())
    assert largest == pytest.approx(0.05)


def test_linear_skip_starts_at_zero():
    plain, skip = (Critic((6,), linear_skip=k).build(3, gen(0)) for k in (False, True))
    x = torch.randn(5, 3, generator=gen(1))
    assert torch.equal(plain(x), skip(x))
    assert skip.skip.shape == (3, 3)
