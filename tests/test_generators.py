"""Perceptrons from latents to rows: derivatives written out, their start, the paper's tables."""

import itertools
import math

import pytest
import torch

from skebm.networks import GeneratorNetwork, MLPGenerator
from tests.closed_forms import autograd_jacobian
from tests.generators import gen, moved, randn

ACTIVATIONS = ["tanh", "silu", "softplus", "prelu"]
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_output = pytest.mark.parametrize("output", ["identity", "tanh"])
each_norm = pytest.mark.parametrize("batch_norm", [False, True])
each_skip = pytest.mark.parametrize("linear_skip", [False, True])


def build(latent_dim=2, shape=(3,), seed=0, **parameters):
    sizes = parameters.pop("hidden_sizes", (7, 6))
    return MLPGenerator(sizes, **parameters).build(latent_dim, shape, gen(seed))


# -- derivatives -----------------------------------------------------------------------------------


@each_activation
@each_output
@each_norm
@each_skip
def test_jacobian_agrees_with_autograd(activation, output, batch_norm, linear_skip):
    options = {"output": output, "batch_norm": batch_norm, "linear_skip": linear_skip}
    network, z = moved(build(activation=activation, **options)), randn(5, 2)
    x, jacobian = network.value_and_jacobian(z)
    torch.testing.assert_close(x, network(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(jacobian, autograd_jacobian(network, z), rtol=1e-10, atol=1e-12)


@each_activation
@each_output
@each_norm
@each_skip
def test_change_of_the_jacobian_agrees_with_differences(
    activation, output, batch_norm, linear_skip
):
    options = {"output": output, "batch_norm": batch_norm, "linear_skip": linear_skip}
    network, z, v = moved(build(activation=activation, **options)), randn(5, 2), randn(5, 2, seed=2)
    x, jacobian, change = network.jacobian_and_change(z, v)
    h = 1e-5
    ahead, behind = (network.value_and_jacobian(z + step * v)[1] for step in (h, -h))
    torch.testing.assert_close(change, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((x, jacobian), network.value_and_jacobian(z))
    assert not change.requires_grad
    bends = activation != "prelu" or output == "tanh"
    assert (change.abs().max() > 1e-2) == bends


@pytest.mark.parametrize("hidden_sizes", [(5,), (7, 6, 5)])
@pytest.mark.parametrize(("latent_dim", "n"), [(1, 3), (4, 1), (4, 3)])
def test_derivatives_of_any_depth_and_of_one_row(hidden_sizes, latent_dim, n):
    network = moved(build(latent_dim, (4,), hidden_sizes=hidden_sizes, batch_norm=True))
    z, v, h = randn(n, latent_dim), randn(n, latent_dim, seed=2), 1e-5
    _, jacobian, change = network.jacobian_and_change(z, v)
    torch.testing.assert_close(jacobian, autograd_jacobian(network, z), rtol=1e-10, atol=1e-12)
    ahead, behind = (autograd_jacobian(network, z + step * v) for step in (h, -h))
    torch.testing.assert_close(change, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)


@each_activation
def test_the_jacobian_has_a_graph_through_parameters_and_latents(activation):
    network = moved(build(activation=activation, batch_norm=True, linear_skip=True))
    z, weights = (3 * randn(4, 2)).requires_grad_(), randn(4, 3, 2, seed=3)
    named = list(network.named_parameters())
    tensors = [z, *(p for _, p in named)]
    written_out = (network.value_and_jacobian(z)[1] * weights).sum()
    by_row = torch.func.vmap(torch.func.jacrev(lambda row: network(row[None])[0]))(z)
    found, expected = (
        torch.autograd.grad(value, tensors, materialize_grads=True)
        for value in (written_out, (by_row * weights).sum())
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    moving = {name for (name, _), g in zip(named, found[1:], strict=True) if g.abs().max() > 1e-3}
    assert moving >= {"layers.0.weight", "layers.1.weight", "layers.2.weight", "skip"}
    assert ("slopes.0" in moving) == (activation == "prelu")


def test_jacobians_take_running_statistics_in_either_mode():
    network, z = moved(build(batch_norm=True)), randn(6, 2)
    before = [b.clone() for b in network.buffers()]
    settled = network.value_and_jacobian(z), network.jacobian_and_change(z, z)
    network.train()
    training = network.value_and_jacobian(z), network.jacobian_and_change(z, z)
    torch.testing.assert_close(training, settled)
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    assert (network(z) - settled[0][0]).abs().max() > 0.01  # training mode is another map


def test_rows_of_images_are_flat_in_jacobians():
    network, z = moved(build(5, (2, 3, 4))), randn(3, 5)
    assert network(z).shape == (3, 2, 3, 4)
    x, jacobian = network.value_and_jacobian(z)
    assert torch.equal(x, network(z).flatten(1)) and jacobian.shape == (3, 24, 5)


# -- the start -------------------------------------------------------------------------------------


def test_weights_are_uniform_up_to_one_over_the_root_of_fan_in():
    network = build(4, (300,), hidden_sizes=(400, 200), input_scale=3.0, linear_skip=False)
    for layer, scale in zip(network.layers, (3.0, 1.0, 1.0), strict=True):
        bound = scale / math.sqrt(layer.in_features)
        assert 0.98 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize(("latent_dim", "scale"), [(1, 5.0), (3, 5.0), (4, 1.0)])
def test_auto_scale_bends_maps_of_few_latents(latent_dim, scale):
    automatic = build(latent_dim, (6,), linear_skip=False)
    given = build(latent_dim, (6,), input_scale=scale, linear_skip=False)
    plain = build(latent_dim, (6,), input_scale=1.0, linear_skip=False)
    z = randn(4, latent_dim).float()
    assert torch.equal(automatic(z), given(z))
    for name in ("weight", "bias"):
        first, unscaled = (getattr(n.layers[0], name) for n in (automatic, plain))
        torch.testing.assert_close(first, scale * unscaled)
        assert torch.equal(getattr(automatic.layers[1], name), getattr(plain.layers[1], name))


@pytest.mark.parametrize(
    ("latent_dim", "shape", "skips"),
    [(2, (2,), False), (3, (3,), False), (4, (4,), True), (4, (5,), False), (8, (2, 2, 2), True)],
)
def test_auto_skip_is_for_square_maps_of_many_latents(latent_dim, shape, skips):
    assert (build(latent_dim, shape).skip is not None) == skips


@pytest.mark.parametrize(("latent_dim", "shape"), [(4, (4,)), (2, (5,))])
def test_a_skip_starts_at_the_identity_beside_a_tenth(latent_dim, shape):
    z = randn(6, latent_dim).float()
    bare, with_skip = (build(latent_dim, shape, linear_skip=s)(z) for s in (False, True))
    expected = 0.1 * bare
    expected[:, :latent_dim] += z
    torch.testing.assert_close(with_skip, expected, rtol=1e-5, atol=1e-6)


def test_a_default_map_of_many_latents_starts_without_folds():
    network = MLPGenerator().build(10, (10,), gen(0))
    jacobian = network.value_and_jacobian(torch.randn(500, 10, generator=gen(1)))[1]
    assert (torch.linalg.slogdet(jacobian).sign > 0).all()


# -- the paper's tables ----------------------------------------------------------------------------


def count(sizes):
    """Linear layers between these widths; a slope and two vectors of each hidden layer."""
    linear = sum(a * b + b for a, b in itertools.pairwise(sizes))
    return linear + len(sizes[1:-1]) + 2 * sum(sizes[1:-1])


@pytest.mark.parametrize(
    ("preset", "sizes", "total"),
    [
        ("toy", (2, 100, 100, 2), 11_004),
        ("mnist", (128, 500, 1000, 2000, 2352), 7_280_855),
    ],
)
def test_presets_are_tables_6_and_7(preset, sizes, total):
    component = getattr(MLPGenerator, preset)()
    network = component.build(sizes[0], sizes[-1:], gen(0))
    assert [layer.in_features for layer in network.layers] == list(sizes[:-1])
    assert sum(p.numel() for p in network.parameters()) == count(sizes) == total
    assert network.skip is None and component.input_scale == 1.0
    assert [slope.item() for slope in network.slopes] == [0.25] * (len(sizes) - 2)
    rows = network(torch.randn(4, sizes[0], generator=gen(1)))
    assert preset == "toy" or rows.abs().max() <= 1
    assert (component.output == "tanh") == (preset == "mnist")


def test_layers_of_the_toy_generator_are_in_the_tables_order():
    """Linear, parametric ReLU, batch normalization: framework layers with its parameters."""
    network, nn = moved(MLPGenerator.toy().build(2, (2,), gen(0))), torch.nn
    layers = []
    for linear, slope, norm in zip(network.layers, network.slopes, network.norms, strict=False):
        activation = nn.PReLU().double()
        activation.weight.data = slope.data
        layers += [linear, activation, norm]
    reference = nn.Sequential(*layers, network.layers[-1])
    z = randn(9, 2)
    torch.testing.assert_close(network(z), reference(z))
    torch.testing.assert_close(network.train()(z), reference.train()(z))


def test_a_network_of_settings_alone_has_no_skip():
    network = GeneratorNetwork(2, (3,), MLPGenerator((4,)), gen(0))
    assert network.skip is None and network.norms is None and network.slopes is None
