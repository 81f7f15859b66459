"""Generators and energies of images of the paper BB: its tables, Jacobians, start and errors."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, batch_norm, interpolate, leaky_relu, relu

from skebm.energies import Conv, Residual
from skebm.networks import ConvGenerator, ResidualGenerator
from skebm.networks.feed_forward import activation_of
from tests.closed_forms import assert_slopes, assert_variance
from tests.generators import gen, randn
from tests.test_conv import n_parameters

# torch's own, where forward mode is first used
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is depre:DeprecationWarning")

GENERATORS = {
    "DCGAN": (ConvGenerator((6, 5, 4)), (2, 16, 20)),
    "DCGAN, plain": (ConvGenerator((6, 4), batch_norm=False, output="identity"), (1, 14, 14)),
    "residual": (ResidualGenerator((6, 5, 4)), (2, 16, 20)),
    "residual, plain": (ResidualGenerator((6, 4), False, "identity"), (1, 14, 14)),
}
each_generator = pytest.mark.parametrize("name", GENERATORS)


def generator_and_noise(name, n=3):
    """In float64 and eval mode, with batch normalization away from its start."""
    component, shape = GENERATORS[name]
    network = component.build(5, shape, gen(0)).double().eval()
    for i, layer in enumerate(batch_norms(network)):
        center, spread = randn(layer.num_features, seed=i), randn(layer.num_features, seed=i + 50)
        layer.running_mean.copy_(0.2 * center)
        layer.running_var.copy_((0.3 * spread).exp())
        with torch.no_grad():
            layer.weight.copy_((0.3 * center).exp())
            layer.bias.copy_(0.2 * spread)
    return network, randn(n, 5)


def batch_norms(network):
    return [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]


def convolution_size(n_in, n_out, side):
    return n_in * n_out * side**2 + n_out


@torch.no_grad()
def map_shapes(parts, x):
    """Shapes of the maps after each part that changes them, the last part included."""
    shapes = []
    for part in parts:
        x = part(x)
        if not shapes or shapes[-1] != tuple(x.shape[1:]):
            shapes.append(tuple(x.shape[1:]))
    return shapes


# -- the tables ------------------------------------------------------------------------------------


def test_the_energy_of_table_8():
    energy = Conv.dcgan().build((3, 32, 32), gen(0))
    assert energy.map_shapes == [
        *((64, 32, 32), (64, 16, 16), (128, 16, 16), (128, 8, 8)),
        *((256, 8, 8), (256, 4, 4), (512, 4, 4)),
    ]
    assert [tuple(layer.weight.shape) for layer in energy.layers] == [(1, 8192)]
    widths, sides = (3, 64, 64, 128, 128, 256, 256, 512), (3, 4, 3, 4, 3, 4, 3)
    rows = zip(widths[:-1], widths[1:], sides, strict=True)
    truth = sum(convolution_size(*row) for row in rows) + 8193
    assert n_parameters(energy) == truth == 2_935_873
    value = activation_of(energy.activation, energy.negative_slope).value
    assert value(torch.tensor([-2.0, 3.0])).tolist() == pytest.approx([-0.2, 3.0])


def test_the_energy_of_table_8_on_smaller_images():
    energy = Conv.dcgan(4, 2).build((1, 28, 28), gen(0))
    assert energy.map_shapes == [(4, 28, 28), (4, 14, 14), (8, 14, 14), (8, 7, 7), (16, 7, 7)]


def test_the_generator_of_table_8():
    network = ConvGenerator().build(128, (3, 32, 32), gen(0)).eval()
    assert map_shapes(network, torch.zeros(1, 128)) == [
        *((8192,), (512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 32, 32)),
    ]
    doublings = [(512, 256), (256, 128), (128, 64)]
    truth = 129 * 8192 + sum(convolution_size(a, b, 4) + 2 * b for a, b in doublings)
    assert n_parameters(network) == truth + convolution_size(64, 3, 3)
    names = [type(part).__name__ for part in network]
    doubling = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert names == ["Linear", "Unflatten", *doubling * 3, "Conv2d", "Tanh"]


def test_the_energy_of_table_9():
    energy = Residual().build((3, 64, 64), gen(0))
    assert map_shapes(energy.blocks, torch.zeros(1, 3, 64, 64)) == [
        *((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (1024, 4, 4)),
    ]
    widths = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
    sizes = [(a, b, 3) for a, b in widths] + [(b, b, 3) for _, b in widths]
    sizes += [(a, b, 1) for a, b in widths]
    assert n_parameters(energy) == sum(convolution_size(*s) for s in sizes) + 1025
    assert energy(torch.zeros(2, 3, 16, 16)).shape == (2,)


def test_the_generator_of_table_10():
    network = ResidualGenerator().build(128, (3, 64, 64), gen(0)).eval()
    assert map_shapes(network, torch.zeros(1, 128)) == [
        *((16384,), (1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (64, 64, 64)),
        (3, 64, 64),
    ]
    widths = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    sizes = [(a, b, 3) for a, b in widths] + [(b, b, 3) for _, b in widths]
    sizes += [(a, b, 1) for a, b in widths] + [(64, 3, 3)]
    normalization = sum(2 * (a + b) for a, b in widths) + 2 * 64
    truth = 129 * 16384 + normalization + sum(convolution_size(*s) for s in sizes)
    assert n_parameters(network) == truth


@pytest.mark.parametrize(
    "shape, first_map",
    [
        ((3, 32, 32), (16, 4, 4)),
        ((1, 28, 28), (8, 7, 7)),
        ((2, 14, 14), (4, 7, 7)),
        ((1, 8, 8), (4, 4, 4)),
        ((1, 64, 64), (16, 8, 8)),
        ((1, 16, 40), (8, 4, 10)),
        ((1, 24, 28), (8, 6, 7)),
        ((1, 8, 32), (4, 4, 16)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [ConvGenerator, ResidualGenerator])
def test_other_images_leave_out_the_first_channels(kind, shape, first_map):
    network = kind((16, 8, 4, 2)).build(6, shape, gen(0))
    assert map_shapes(network, torch.zeros(2, 6))[1] == first_map
    assert network(torch.zeros(2, 6)).shape == (2, *shape)


# -- the order of operations, as the tables print it -----------------------------------------------


def test_a_residual_generator_computes_what_table_10_says():
    network, z = generator_and_noise("residual")
    linear, unflatten, first, second, last_norm, _, last, _ = network

    def rectified(norm, a):
        mean, var = norm.running_mean, norm.running_var
        return relu(batch_norm(a, mean, var, norm.weight, norm.bias, eps=norm.eps))

    a = unflatten(linear(z))
    for block in (first, second):
        norm_1, _, _, convolution_1, norm_2, _, convolution_2 = block.left
        left = convolution_1(interpolate(rectified(norm_1, a), scale_factor=2, mode="nearest"))
        left = convolution_2(rectified(norm_2, left))
        a = left + block.right[0](interpolate(a, scale_factor=2, mode="nearest"))
    expected = last(rectified(last_norm, a)).tanh()
    torch.testing.assert_close(network(z), expected, rtol=1e-12, atol=1e-12)
    assert expected.std() > 0.01


def test_a_residual_energy_computes_what_table_9_says():
    energy, x = Residual((4, 5, 6)).build((2, 11, 12), gen(0)).double(), randn(3, 2, 11, 12)
    blocks = list(energy.blocks)[:-1]
    a = x
    for i, block in enumerate(blocks):
        one, two = (part for part in block.left if isinstance(part, torch.nn.Conv2d))
        (shortcut,) = (part for part in block.right if isinstance(part, torch.nn.Conv2d))
        left = two(leaky_relu(one(a if i == 0 else leaky_relu(a, 0.1)), 0.1))
        right = shortcut(a)
        if i < len(blocks) - 1:
            left, right = avg_pool2d(left, 2), avg_pool2d(right, 2)
        a = left + right
    expected = energy.output(leaky_relu(a, 0.1).sum((2, 3)))[:, 0]
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-12)


# -- start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index, fan_in, theirs",
    [
        (0, 50, lambda: torch.nn.Linear(50, 640)),
        (2, 32 * 16, lambda: torch.nn.ConvTranspose2d(40, 32, 4)),
        (-2, 32 * 9, lambda: torch.nn.Conv2d(32, 30, 3)),
    ],
    ids=["linear", "transposed", "convolution"],
)
def test_weights_start_as_torchs(index, fan_in, theirs):
    ours = ConvGenerator((40, 32)).build(50, (30, 8, 8), gen(0))[index]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = theirs()
    bound = fan_in**-0.5
    for layer in (ours, theirs):
        weight, bias = layer.weight.detach().flatten(), layer.bias.detach()
        assert 0.99 * bound < weight.abs().max() <= bound
        assert 0.8 * bound < bias.abs().max() <= bound
        assert_variance(weight, bound**2 / 3, 0.02)


# -- rows and batch normalization ------------------------------------------------------------------


@each_generator
def test_in_eval_mode_a_row_does_not_depend_on_the_others(name):
    network, z = generator_and_noise(name, 9)
    torch.testing.assert_close(network(z)[4:5], network(z[4:5]), rtol=1e-12, atol=1e-12)
    mixes = not torch.allclose(network.train()(z)[4:5], network(z[4:6])[:1])
    assert mixes == ("plain" not in name)


@pytest.mark.parametrize("name", ["DCGAN", "residual"])
def test_batch_normalization_uses_the_batch_in_train_mode_and_remembers_it(name):
    component, shape = GENERATORS[name]
    network, z = component.build(5, shape, gen(0)).double().train(), randn(16, 5)
    seen = []
    first = batch_norms(network)[0]
    first.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    network(z)
    before, after = (maps.transpose(0, 1).flatten(1) for maps in seen[0])
    truth = (before - before.mean(1, keepdim=True)) / (before.var(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(after, truth, rtol=0, atol=0.01)
    torch.testing.assert_close(first.running_mean, 0.1 * before.mean(1))
    torch.testing.assert_close(first.running_var, 0.9 + 0.1 * before.var(1))


@pytest.mark.parametrize("kind", [ConvGenerator, ResidualGenerator])
def test_tanh_bounds_the_images_and_the_identity_does_not(kind):
    bounded, free = (
        kind((6, 4), output=output).build(5, (1, 8, 8), gen(0)).eval()
        for output in ("tanh", "identity")
    )
    z = 100 * randn(20, 5).float()
    torch.testing.assert_close(bounded(z), free(z).tanh())
    assert bounded(z).abs().max() <= 1 < free(z).abs().max()
    plain = kind((6, 4), batch_norm=False).build(5, (1, 8, 8), gen(0))
    assert batch_norms(bounded) and not batch_norms(plain)


# -- Jacobians of generators -----------------------------------------------------------------------


@each_generator
def test_jacobian_products_forward_and_reverse_are_the_slope(name):
    network, z = generator_and_noise(name)
    v, h = randn(3, 5, seed=2), 1e-6
    with torch.no_grad():
        slope = (network(z + h * v) - network(z - h * v)) / (2 * h)
    value, tangent = torch.func.jvp(network, (z,), (v,))
    torch.testing.assert_close(tangent, slope, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(value, network(z))
    u = randn(*value.shape, seed=3)
    _, pull = torch.func.vjp(network, z)
    torch.testing.assert_close((pull(u)[0] * v).sum(), (u * slope).sum(), rtol=1e-6, atol=1e-7)
    assert slope.flatten(1).norm(dim=1).min() > 1e-3


@each_generator
def test_a_full_jacobian_by_rows_agrees(name):
    network, z = generator_and_noise(name)
    full = torch.func.vmap(torch.func.jacfwd(lambda row: network(row[None])[0]))(z)
    _, tangent = torch.func.jvp(network, (z,), (randn(3, 5, seed=2),))
    product = torch.einsum("nchwd,nd->nchw", full, randn(3, 5, seed=2))
    torch.testing.assert_close(product, tangent, rtol=1e-10, atol=1e-12)


@each_generator
def test_the_length_of_a_jacobian_product_trains(name):
    network, z = generator_and_noise(name)
    v = randn(3, 5, seed=2)

    def length():
        tangent = torch.func.jvp(network, (z,), (v,))[1]
        return tangent.square().flatten(1).sum(1).log().sum()

    assert_slopes(length, list(network.parameters()))


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ConvGenerator, ResidualGenerator])
@pytest.mark.parametrize("shape", [(1, 7, 8), (3, 6, 6), (1, 27, 27), (1, 4, 32)], ids=str)
def test_images_that_no_doubling_reaches_are_named(kind, shape):
    match = rf"image_shape must have even sides of at least 8 .* got \({shape[0]}, {shape[1]}, "
    with pytest.raises(ValueError, match=match):
        kind((8, 4, 2)).build(5, shape, gen(0))


@pytest.mark.parametrize("kind", [ConvGenerator, ResidualGenerator])
def test_bad_calls_of_generators(kind):
    with pytest.raises(ValueError, match=r"image_shape .* got rows of shape \(64,\)"):
        kind().build(5, (64,), gen(0))
    with pytest.raises(ValueError, match="latent_dim .* got 0"):
        kind((4, 2)).build(0, (1, 8, 8), gen(0))


def test_images_too_small_for_the_residual_energy_are_named():
    with pytest.raises(
        ValueError, match=r"image_shape .* residual energy, got rows of shape \(64,"
    ):
        Residual().build((64,), gen(0))
    with pytest.raises(ValueError, match=r"sides of at least 16 .* 5 blocks, got \(1, 15, 28\)"):
        Residual().build((1, 15, 28), gen(0))


def test_bad_parameters_of_the_preset():
    with pytest.raises(ValueError, match="width .* got 0"):
        Conv.dcgan(0)
    with pytest.raises(TypeError, match=r"n_halvings .* got 2\.5"):
        Conv.dcgan(n_halvings=2.5)
