"""Perceptron: each of its passes against the same network written with torch's own functions."""

import pytest
import torch
from torch.nn import functional

from skebm.energies import MLP
from skebm.networks import FeedForward, _passes
from skebm.networks.jacobian import load_forward_rules
from tests.generators import gen, randn, randomized

ACTIVATIONS = {
    "silu": functional.silu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.3),
}
SIZES = ((5,), (6, 4), (4, 7, 3))
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_frequency = pytest.mark.parametrize("n_frequencies", [0, 4])
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def network(activation="silu", sizes=(6, 4), n_frequencies=0, dtype=torch.float64):
    net = FeedForward(3, sizes, activation, gen(0), n_frequencies=n_frequencies, negative_slope=0.3)
    return randomized(net).to(dtype)


def truth(net, x):
    if net.n_frequencies:
        phase = x @ net.frequencies
        x = torch.cat([x, phase.sin(), phase.cos()], 1)
    *inner, last = net.layers
    for layer in inner:
        x = ACTIVATIONS[net.activation](layer(x))
    return last(x)[:, 0]


def by_parameters(value, net, **options):
    """Gradient of a loss with a different weight for each row."""
    seed = randn(len(value), seed=5).to(value)
    return torch.autograd.grad(value, list(net.parameters()), seed, **options)


def close(actual, expected, dtype=torch.float64):
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def is_written_out(value):
    return type(value.grad_fn).__name__ == "TrainingPassBackward"


# -- the pass that training takes ------------------------------------------------------------------


@each_activation
@each_frequency
@each_dtype
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_of_parameters_are_those_of_autograd(activation, n_frequencies, dtype, sizes):
    net = network(activation, sizes, n_frequencies, dtype)
    for n in (9, 1, 0):
        x = 3 * randn(n, 3, dtype=dtype)
        value, expected = net(x), truth(net, x)
        assert is_written_out(value)
        close(value, expected, dtype)
        found = by_parameters(value, net)
        close(found, by_parameters(expected, net), dtype)
        assert all(g.stride() == p.stride() for g, p in zip(found, net.parameters(), strict=True))


def test_both_sides_of_softplus_and_sigmoid_have_their_limits():
    for activation in ACTIVATIONS:
        net, x = network(activation), 40 * randn(20, 3)
        close(by_parameters(net(x), net), by_parameters(truth(net, x), net))
        close(net.value_and_gradient(x)[0], truth(net, x).detach())


@pytest.mark.parametrize("kept", [0, 1 << 24])
def test_graphs_that_live_together_do_not_share_memory(kept, monkeypatch):
    monkeypatch.setattr(_passes, "MOST_LENT", kept)
    net, (x, y, z) = network(), (randn(8, 3, seed=s) for s in range(3))
    net(x)  # leaves memory for the next
    first, second = net(x), net(y)
    again = by_parameters(first, net, retain_graph=True)
    third = net(z)
    for value, rows in ((third, z), (second, y), (first, x)):
        close(by_parameters(value, net), by_parameters(truth(net, rows), net))
    close(again, by_parameters(truth(net, x), net))
    with pytest.raises(RuntimeError, match="second time"):
        by_parameters(first, net)


def test_memory_is_used_again_and_does_not_pile_up():
    net, x = network(), randn(12, 3)
    lent = _passes._MEMORY.__dict__.setdefault("lent", {})
    lent.clear()
    places = [[z.data_ptr() for z in net(x).grad_fn.memory.layers] for _ in range(2)]
    assert places[0] == places[1]
    for n in range(1, 12):
        values = [net(x[:n]) for _ in range(n)]
        del values
    assert 0 < len(lent) <= _passes.MOST_KEPT
    assert max(map(len, lent.values())) == _passes.MOST_KEPT


def test_frozen_parameters_get_no_gradient():
    net, x = network(n_frequencies=2), randn(6, 3)
    net.requires_grad_(False)
    assert not net(x).requires_grad
    net.layers[-1].requires_grad_(True)
    net(x).square().sum().backward()
    found = [p.grad for p in net.layers[-1].parameters()]
    expected = torch.autograd.grad(truth(net, x).square().sum(), net.layers[-1].parameters())
    close(found, list(expected))
    assert net.layers[0].weight.grad is None and net.frequencies.grad is None


@each_activation
@each_frequency
def test_second_derivatives_in_parameters_are_those_of_autograd(activation, n_frequencies):
    net, x = network(activation, n_frequencies=n_frequencies), randn(5, 3)
    norms = []
    for forward in (net, lambda x: truth(net, x)):
        first = by_parameters(forward(x).square(), net, create_graph=True)
        norm = sum(g.square().sum() for g in first)
        norms.append(torch.autograd.grad(norm, list(net.parameters()), allow_unused=True))
    for found, expected in zip(*norms, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            close(found, expected)


@each_activation
def test_rows_that_want_a_gradient_get_it_once_and_twice(activation):
    net, x = network(activation, n_frequencies=2), randn(5, 3).requires_grad_(True)
    found = []
    for forward in (net, lambda x: truth(net, x)):
        value = forward(x)
        (score,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        loss = score.square().sum() + value.sum()
        found.append(torch.autograd.grad(loss, [x, *net.parameters()], allow_unused=True))
    assert not is_written_out(net(x))
    for actual, expected in zip(*found, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None:
            close(actual, expected)


def test_the_same_step_gives_the_same_bits():
    first, second = (by_parameters(net(randn(300, 3)), net) for net in (network(), network()))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def test_transforms_and_batched_gradients_take_the_plain_network():
    load_forward_rules()
    net, x, v = network(), randn(5, 3), randn(5, 3, seed=2)
    _, score = net.value_and_gradient(x)
    along = (score * v).sum(1)
    per_row = torch.func.vmap(torch.func.grad(lambda row: net(row[None])[0]))(x)
    close(per_row.detach(), score)
    close(torch.func.jvp(net, (x,), (v,))[1].detach(), along)
    with torch.autograd.forward_ad.dual_level():
        dual = net(torch.autograd.forward_ad.make_dual(x, v))
        close(torch.autograd.forward_ad.unpack_dual(dual).tangent.detach(), along)
    with torch.no_grad():
        close(torch.func.vmap(net)(x[:, None])[:, 0], net(x))
    parameters, rows = list(net.parameters()), torch.eye(5, dtype=x.dtype)
    jacobians = [
        torch.autograd.grad(f(x), parameters, rows, is_grads_batched=True)
        for f in (net, lambda x: truth(net, x))
    ]
    close(*jacobians)


# -- the passes without a graph --------------------------------------------------------------------


@each_activation
@each_frequency
@each_dtype
@pytest.mark.parametrize("rows_each", [1, 4, 11, 1000])
def test_pieces_give_what_all_rows_give(activation, n_frequencies, dtype, rows_each, monkeypatch):
    net, x = network(activation, (6, 4), n_frequencies, dtype), 2 * randn(11, 3, dtype=dtype)
    monkeypatch.setattr(_passes, "CHUNK_BYTES", rows_each * 6 * x.element_size())
    leaf = x.clone().requires_grad_(True)
    expected = truth(net, leaf)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    with torch.no_grad():
        value = net(x)
    assert not value.requires_grad
    close(value, expected.detach(), dtype)
    for found, right in zip(net.value_and_gradient(x), (expected.detach(), slope), strict=True):
        close(found, right, dtype)


@pytest.mark.parametrize("d", [1, 3, _passes.NARROW, _passes.NARROW + 1])
def test_narrow_and_wide_rows_have_the_same_derivative(d):
    net = randomized(FeedForward(d, (8, 6), "silu", gen(0))).double()
    x = randn(7, d).requires_grad_(True)
    (slope,) = torch.autograd.grad(truth(net, x).sum(), x)
    found = net.value_and_gradient(x.detach())[1]
    close(found, slope)
    assert found.is_contiguous()


def test_no_rows():
    net, x = network(), randn(0, 3)
    value, gradient = net.value_and_gradient(x)
    with torch.no_grad():
        assert net(x).shape == value.shape == (0,) and gradient.shape == (0, 3)


def test_results_do_not_lie_in_memory_that_the_next_call_writes_to():
    net, x = network(), randn(6, 3)
    with torch.no_grad():
        results = net(x), *net.value_and_gradient(x)
        before = [r.clone() for r in results]
        net(-x), net.value_and_gradient(-x), net(-x[:2])
    assert all(a.equal(b) for a, b in zip(results, before, strict=True))


def test_inference_mode_leaves_no_memory_of_its_own_behind():
    net, x = network(), randn(6, 3)
    _passes._MEMORY.__dict__.clear()
    with torch.inference_mode():
        net(x), net.value_and_gradient(x)
    close(net.value_and_gradient(x)[0], truth(net, x).detach())
    with torch.no_grad():
        close(net(x), truth(net, x))


def test_a_network_in_another_precision_than_its_rows_is_refused():
    net = MLP((4,)).build((3,), gen(0))
    for context in (torch.no_grad, torch.enable_grad):
        with context(), pytest.raises(RuntimeError, match=r"dtype|type|Float"):
            net(randn(2, 3))
