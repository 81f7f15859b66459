"""Energies of images: the papers' sizes, attention, and a fit from end to end."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import avg_pool2d, silu

from skebm import HybridCDDensity
from skebm.energies import Conv, Residual, build_energy
from skebm.networks import NonLocal
from skebm.networks.feed_forward import activation_of
from tests.generators import gen, randomized

MNIST = (1, 28, 28)
OUTPUTS = ["identity", "quadratic", "linear-quadratic"]


def images(shape, n=3, seed=1, dtype=torch.float64):
    return torch.randn(n, *shape, dtype=dtype, generator=gen(seed))


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


# -- the networks of the papers --------------------------------------------------------------------


def test_strided_has_the_sizes_of_sp_table_3():
    net = Conv.strided(output="identity").build(MNIST, gen(0))
    assert net.map_shapes == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 2, 2)]
    seen, x = [], images(MNIST, dtype=torch.float32)
    for convolution in net.convolutions:
        x = convolution(x)
        seen.append(tuple(x.shape[1:]))
    assert seen == net.map_shapes
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(64, 256), (1, 64)]
    convolutions = (16 * 25 + 16) + (32 * 16 * 9 + 32) + (64 * 32 * 9 + 64) + (64 * 64 * 9 + 64)
    assert n_parameters(net) == convolutions + (256 * 64 + 64) + (64 + 1) == 76_993


def test_lenet_has_the_sizes_of_lenet_5():
    net = Conv.lenet().build(MNIST, gen(0)).network
    assert net.map_shapes == [(6, 14, 14), (16, 5, 5)]
    linear = (400 * 120 + 120) + (120 * 84 + 84) + (84 + 1)
    assert n_parameters(net) == (6 * 25 + 6) + (16 * 6 * 25 + 16) + linear


def test_pyramid_doubles_its_widths():
    net = Conv.pyramid(width=128, attention=False).build((3, 32, 32), gen(0))
    assert net.map_shapes == [(128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4)]
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(1, 1024 * 16)]
    small = Conv.pyramid(width=4).build(MNIST, gen(0))
    assert small.map_shapes == [(4, 28, 28), (8, 14, 14), (16, 7, 7), (32, 3, 3)]
    assert sorted(small.attention) == ["1", "2"]
    assert n_parameters(small.attention["1"]) == 4 * 4 * 2  # q, k, v and W, without biases


def test_the_network_of_usp_can_be_said():
    component = Conv((32, 64, 128), 3, 1, 0, "average", (128,), "leaky_relu", 0.4)
    net = component.build(MNIST, gen(0))
    assert net.map_shapes == [(32, 13, 13), (64, 5, 5), (128, 1, 1)]
    value = activation_of(net.activation, net.negative_slope).value
    assert value(torch.tensor([-2.0, 3.0])).tolist() == pytest.approx([-0.8, 3.0])


# -- start -----------------------------------------------------------------------------------------


def test_weights_start_as_stated():
    net = Conv((64, 64), hidden_sizes=(256,)).build((3, 16, 16), gen(0))
    kernels = net.convolutions[1].weight
    assert kernels.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert all((layer.bias == 0).all() for layer in net.convolutions)
    wide = net.layers[0]
    assert wide.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert wide.bias.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("make", [Conv.strided, Conv.lenet], ids=lambda f: f.__name__)
def test_a_quadratic_energy_does_not_start_stationary(make):
    energy, x = make("quadratic").build(MNIST, gen(0)), images(MNIST, 16, dtype=torch.float32)
    value = energy(x)
    (value.mean() - energy(images(MNIST, 16, 2, torch.float32)).mean()).backward()
    assert all(p.grad.abs().max() > 0 for p in energy.parameters())
    assert 0 < value.max() < 0.1


# -- stages and positions -----------------------------------------------------------------------


def test_attention_starts_as_the_identity():
    block, maps = NonLocal(6, gen(0)), images((6, 4, 5), dtype=torch.float32)
    assert block(maps).equal(maps)
    shape, x = (1, 8, 8), images((1, 8, 8), dtype=torch.float32)
    plain, attentive = (Conv((4, 6), attention=a).build(shape, gen(0)) for a in ((), (1, 2)))
    attentive.load_state_dict(plain.state_dict(), strict=False)
    assert attentive(x).equal(plain(x))


def test_a_stage_is_convolution_activation_pooling_attention():
    component = Conv((4, 6), pooling="average", strides=1, attention=(1,), hidden_sizes=(5,))
    net, x = randomized(component.build((1, 9, 8), gen(0)).double(), 0.4), images((1, 9, 8))
    first, second = net.convolutions
    a = net.attention["1"](avg_pool2d(silu(first(x)), 2))
    a = avg_pool2d(silu(second(a)), 2)
    hidden, last = net.layers
    torch.testing.assert_close(net(x), last(silu(hidden(a.flatten(1))))[:, 0])


def test_attention_is_the_softmax_over_positions():
    block, maps = randomized(NonLocal(5, gen(0)).double(), 0.4), images((5, 2, 3), 2)
    parts = (block.query, block.key, block.value, block.output)
    q, k, v, w = (part.weight[:, :, 0, 0] for part in parts)
    assert q.shape == (2, 5) and w.shape == (5, 2)
    for image, got in zip(maps, block(maps), strict=True):
        pixels = image.flatten(1).T
        for i, pixel in enumerate(pixels):
            odds = torch.stack([torch.exp((q @ pixel) @ (k @ a) / math.sqrt(2)) for a in pixels])
            mixed = sum(o * (v @ a) for o, a in zip(odds / odds.sum(), pixels, strict=True))
            torch.testing.assert_close(got.flatten(1)[:, i], pixel + w @ mixed)


def test_attention_moves_with_the_positions():
    block, maps = randomized(NonLocal(6, gen(0)).double(), 0.4), images((6, 4, 5))
    order = torch.randperm(20, generator=gen(3))

    def permuted(m):
        return m.flatten(2)[:, :, order].view_as(m)

    torch.testing.assert_close(block(permuted(maps)), permuted(block(maps)))
    assert (block(maps) - maps).abs().max() > 0.1


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters, match",
    [
        ({"kernel_sizes": 11}, "kernel_sizes .* got 11 at stage 1.* 10 x 10"),
        ({"kernel_sizes": (3, 3)}, r"kernel_sizes .* 3 entries .* got \(3, 3\)"),
        ({"paddings": 0}, "kernel_sizes .* got 3 at stage 3.* 1 x 1"),
        ({"pooling": "average"}, "pooling .* got a map of 1 x 1 at stage 2"),
        ({"attention": (4,)}, "attention .* <= 3, got 4"),
    ],
)
def test_maps_that_no_stage_takes_are_named(parameters, match):
    with pytest.raises(ValueError, match=match):
        Conv(**parameters).build((1, 8, 8), gen(0))


def test_rows_that_are_no_images_are_named():
    with pytest.raises(ValueError, match=r"image_shape .* got rows of shape \(64,\)"):
        build_energy(Conv(), {}, (64,), gen(0))


# -- behind an estimator ---------------------------------------------------------------------------


DIGITS = Conv((8, 16), hidden_sizes=(16,), output="quadratic")


@pytest.mark.parametrize(
    "energy", [DIGITS, DIGITS.with_params(attention=(1,)), Residual((4, 8))], ids=repr
)
def test_a_fit_on_digits_saves_and_loads(energy, tmp_path):
    X = load_digits().data[:200]
    own = {"energy": energy, "image_shape": (1, 8, 8), "base": None, "data_noise": 0.05}
    est = HybridCDDensity(**own, max_iter=3, random_state=0).fit(X)
    assert isinstance(est.energy_, torch.nn.Module) and est.log_partition_ is None
    before = est.energy_samples(X)
    est.save(tmp_path / "digits.skebm")
    back = HybridCDDensity.load(tmp_path / "digits.skebm")
    assert (back.energy_samples(X) == before).all() and before.std() > 0
    assert back.energy == energy and back.energy is not energy
