"""The critic: its divergence against the Jacobian, its gradients, probes, dropout and bounds."""

import numpy as np
import pytest
import torch

from skebm.networks import Critic
from tests.closed_forms import assert_mean, assert_variance
from tests.generators import gen


def network(sizes, activation="swish", skip=False, d=4, scale=0.7, **options):
    """A critic in float64 with all parameters moved from their start."""
    net = Critic(sizes, activation, bool(skip), **options).build(d, gen(0)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=scale, generator=gen(parameter.numel()))
    return net


def rows(n=3, d=4, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=gen(seed))


def jacobian(net, x):
    """Dense, (n, d, d), by autograd."""
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda r: net(r[None])[0], r) for r in x]
    )


CASES = pytest.mark.parametrize(
    ("sizes", "activation", "skip"),
    [
        (s, a, k)
        for s in [(7,), (7, 6), (5, 6, 4)]
        for a in ["swish", "tanh"]
        for k in [False, True]
    ],
    ids=str,
)


@CASES
def test_divergence_is_the_trace_of_the_jacobian(sizes, activation, skip):
    net, x = network(sizes, activation, skip), rows()
    value, divergence = net.value_and_divergence(x)
    expected = jacobian(net, x).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(divergence, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, net(x))


@CASES
def test_parameter_gradients_agree_with_finite_differences(sizes, activation, skip):
    net, x = network(sizes, activation, skip), rows()

    def loss():
        value, divergence = net.value_and_divergence(x)
        return value.sin().sum() + divergence.square().sum()

    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=gen(5))
        with torch.no_grad():
            ends = []
            for step in (1e-5, -1e-5):
                parameter += step * direction
                ends.append(loss())
                parameter -= step * direction
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [(7,), (7, 6), (5, 6, 4)], ids=str)
def test_probes_give_the_quadratic_form_of_the_jacobian(sizes):
    net, x, v = network(sizes, skip=True), rows(), rows(seed=2)
    estimate = net.value_and_divergence(x, probes=v)[1]
    expected = torch.einsum("ni,nij,nj->n", v, jacobian(net, x), v)
    torch.testing.assert_close(estimate, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_hutchinson_has_its_known_mean_and_variance(law):
    net, x = network((7, 6), skip=True), rows(1)
    v = torch.randn(100_000, 4, dtype=torch.float64, generator=gen(3))
    v = v if law == "gaussian" else v.sign()
    estimates = net.value_and_divergence(x.expand(len(v), -1), probes=v)[1].detach().numpy()
    full = jacobian(net, x)[0].numpy()
    symmetric = (full + full.T) / 2
    variance = 2 * (symmetric**2).sum()
    if law == "rademacher":
        variance -= 2 * (np.diag(symmetric) ** 2).sum()
    assert_mean(estimates, np.trace(full), 0.02 * variance**0.5)
    assert_variance(estimates, variance, 0.02)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_dropout_leaves_out_its_share_and_keeps_the_mean(share):
    net = Critic(dropout=share).build(2, gen(0))
    mask = net._mask(torch.zeros(1000, 301), gen(4))
    if share == 0:
        assert mask is None
        return
    mask = mask.numpy().ravel()
    assert set(np.unique(mask)) == {0, np.float32(1 / (1 - share))}
    assert_mean(mask == 0, share, 0.001)
    assert_mean(mask, 1.0, 0.006)


def test_dropout_masks_value_and_divergence_alike():
    net, x = network((7, 6), dropout=0.5), rows()
    masks = [net._mask(torch.zeros(3, size), g) for g in [gen(6)] for size in (7, 6)]

    def masked(x, i):
        for layer, beta, mask in zip(net.layers, net.betas, masks, strict=False):
            z = layer(x)
            x = z * torch.sigmoid(beta * z) * mask[i]
        return net.layers[-1](x)

    value, divergence = net.value_and_divergence(x, rng=gen(6))
    for i, row in enumerate(x):
        torch.testing.assert_close(value[i], masked(row, i))
        full = torch.autograd.functional.jacobian(lambda r, i=i: masked(r, i), row)
        torch.testing.assert_close(divergence[i], full.trace())


def test_without_a_generator_nothing_is_left_out():
    net, x = Critic(dropout=0.5).build(3, gen(0)), torch.randn(5, 3, generator=gen(1))
    assert torch.equal(net.value_and_divergence(x)[0], net.value_and_divergence(x)[0])
    assert not torch.equal(net.value_and_divergence(x, rng=gen(0))[0], net(x))


def test_spectral_norms_come_down_to_one():
    net = Critic((20, 20), spectral_norm=True).build(5, gen(0))
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.mul_(10)
    for _ in range(100):  # one step of the power method each
        net.constrain()
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in net.layers]
    assert all(0.9 < norm < 1.02 for norm in norms), norms


def test_small_weights_stay_as_they_are():
    net = Critic((20, 20), spectral_norm=True).build(5, gen(0))
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.mul_(0.1)
    before = [layer.weight.clone() for layer in net.layers]
    net.constrain()
    assert all(torch.equal(a, b.weight) for a, b in zip(before, net.layers, strict=True))


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


@pytest.mark.parametrize(
    ("params", "error", "fragments"),
    [
        ({"hidden_sizes": ()}, TypeError, ["hidden_sizes", "nonempty", "()"]),
        ({"hidden_sizes": 300}, TypeError, ["hidden_sizes", "tuple", "300"]),
        ({"hidden_sizes": (0,)}, ValueError, ["hidden_sizes", ">= 1", "0"]),
        ({"activation": "relu"}, ValueError, ["activation", "'swish', 'tanh'", "'relu'"]),
        ({"linear_skip": "no"}, ValueError, ["linear_skip", "'no'"]),
        ({"dropout": 1.0}, ValueError, ["dropout", "<= 0.99", "1.0"]),
        ({"spectral_norm": None}, TypeError, ["spectral_norm", "None"]),
        ({"weight_clip": 0}, ValueError, ["weight_clip", "> 0", "0"]),
    ],
    ids=str,
)
def test_bad_parameters(params, error, fragments):
    with pytest.raises(error) as caught:
        Critic(**params).build(3, gen(0))
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value
