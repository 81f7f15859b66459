"""Energies against autograd, and the contract that a user's module has to keep."""

import numpy as np
import pytest
import torch

from skebm.bases.mixture import MixtureBase
from skebm.energies import MLP, Model, Reconstruction, Zero, build_energy, energy_and_score
from skebm.networks import FeedForward
from skebm.networks.feed_forward import ACTIVATIONS, activation_of
from tests.closed_forms import Quadratic, autograd_score
from tests.generators import gen

CHOICES = {"mlp": MLP, "reconstruction": Reconstruction}


def randomized(component, d=3, seed=0):
    """A module in float64 whose every parameter is nonzero."""
    module = component.build((d,), gen(seed)).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.7 * torch.randn(p.shape, dtype=p.dtype, generator=gen(seed + p.numel())))
    return module


def rows(n=7, d=3, seed=1, dtype=torch.float64):
    return torch.randn(n, d, dtype=dtype, generator=gen(seed))


@pytest.mark.parametrize("output", ["identity", "quadratic", "linear-quadratic"])
@pytest.mark.parametrize("hidden_sizes", [(5,), (6, 4), (4, 5, 3)])
@pytest.mark.parametrize("activation", ["silu", "softplus", "tanh", "leaky_relu"])
@pytest.mark.parametrize("n_frequencies", [0, 4])
def test_closed_form_gradient_is_autograd(n_frequencies, activation, hidden_sizes, output):
    energy = randomized(MLP(hidden_sizes, activation, output, n_frequencies=n_frequencies))
    x = rows()
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, energy(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, autograd_score(energy, x), rtol=1e-10, atol=1e-12)
    assert gradient.abs().max() > 1e-3
    assert not value.requires_grad and not gradient.requires_grad


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_negative_slope_is_that_of_the_network(slope):
    energy = randomized(MLP((4, 5), "leaky_relu", n_frequencies=0, negative_slope=slope))
    x = rows(40)
    a = x
    for layer in energy.layers[:-1]:
        z = a @ layer.weight.T + layer.bias
        a = torch.where(z > 0, z, slope * z)
        assert (z < 0).any()
    expected = a @ energy.layers[-1].weight[0] + energy.layers[-1].bias
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, autograd_score(energy, x), rtol=1e-10, atol=1e-12)


def test_negative_slope_is_that_of_leaky_relu_alone():
    z = torch.tensor([-2.0, 3.0])
    for name, activation in ACTIVATIONS.items():
        default, steep = activation_of(name), activation_of(name, 0.5)
        assert default.value(z).equal(activation.value(z))
        assert steep.value(z).equal(activation.value(z)) == (name != "leaky_relu")
    assert activation_of("leaky_relu", 0.5).value(z).tolist() == [-1.0, 3.0]


def test_quadratic_output_is_half_the_square():
    energy, x = randomized(MLP((6,), output="quadratic")), rows()
    f, grad_f = energy.network.value_and_gradient(x)
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, f.square() / 2, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, f[:, None] * grad_f, rtol=1e-13, atol=0)
    assert (value >= 0).all()


def test_beta_starts_at_zero_and_learns():
    energy = MLP((6,), output="linear-quadratic").build((3,), gen(0)).double()
    x = rows()
    f = energy.network(x)
    assert energy.beta == 0 and torch.equal(energy(x), f)
    energy(x).sum().backward()
    torch.testing.assert_close(energy.beta.grad, f.square().sum() / 2)
    with torch.no_grad():
        energy.beta.fill_(2.0)
    torch.testing.assert_close(energy(x), f + f.square())
    assert "beta" in dict(energy.named_parameters())


@pytest.mark.parametrize("output", ["identity", "quadratic", "linear-quadratic"])
def test_gamma_starts_at_zero_and_adds_the_squared_norm(output):
    plain = MLP((6,), output=output).build((3,), gen(0)).double()
    energy, x = MLP((6,), output=output, learn_gamma=True).build((3,), gen(0)).double(), rows()
    assert energy.gamma == 0 and torch.equal(energy(x), plain(x))
    energy(x).sum().backward()
    torch.testing.assert_close(energy.gamma.grad, 3**0.5 * x.square().sum())
    with torch.no_grad():
        energy.gamma.fill_(0.7)
    value, gradient = energy.value_and_gradient(x)
    plain_value, plain_gradient = plain.value_and_gradient(x)
    torch.testing.assert_close(value, plain_value + 0.7 * 3**0.5 * x.square().sum(1))
    torch.testing.assert_close(gradient, plain_gradient + 1.4 * 3**0.5 * x)
    torch.testing.assert_close(value, energy(x))
    torch.testing.assert_close(gradient, autograd_score(energy, x))
    assert not value.requires_grad and not gradient.requires_grad


def test_pointwise_is_the_network_of_the_toy_experiments():
    net = MLP.pointwise().build((2,), gen(0))
    sizes = [(32, 2), (64, 32), (64, 64), (64, 64), (1, 64)]
    assert [tuple(layer.weight.shape) for layer in net.layers] == sizes
    for layer, (_, fan_in) in zip(net.layers[:-1], sizes[:-1], strict=True):
        assert 0.9 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
    signed = torch.tensor([-2.0, 2.0])
    activation = activation_of(net.activation, net.negative_slope)
    assert activation.value(signed).tolist() == pytest.approx([-0.1, 2.0])
    squared = MLP.pointwise("quadratic").build((2,), gen(0))
    assert (squared(rows(d=2, dtype=torch.float32)) > 0).all()


def test_starts():
    x = rows(dtype=torch.float32)
    assert (MLP((8,)).build((3,), gen(0))(x) == 0).all()
    assert (MLP((8,), output="quadratic").build((3,), gen(0))(x) > 0).any()
    one, same, other = (MLP((8,), output="quadratic").build((3,), gen(s))(x) for s in (0, 0, 1))
    assert one.equal(same) and not one.equal(other)


def test_input_scale_multiplies_the_first_layer_alone():
    plain = FeedForward(3, (5, 4), "tanh", gen(0))
    scaled = FeedForward(3, (5, 4), "tanh", gen(0), input_scale=3.0)
    assert scaled.layers[0].weight.equal(3 * plain.layers[0].weight)
    assert scaled.layers[1].weight.equal(plain.layers[1].weight)
    bound = 5**-0.5
    assert 0.8 * bound < plain.layers[1].weight.abs().max() <= bound


@pytest.mark.parametrize(
    "parameters, error, match",
    [
        ({"hidden_sizes": ()}, TypeError, r"hidden_sizes .* got \(\)"),
        ({"hidden_sizes": 5}, TypeError, "hidden_sizes .* got 5"),
        ({"hidden_sizes": (0,)}, ValueError, "hidden_sizes .* got 0"),
        ({"hidden_sizes": (2.5,)}, TypeError, r"hidden_sizes .* got 2\.5"),
        ({"activation": "relu"}, ValueError, "activation .* got 'relu'"),
        ({"output": "cubic"}, ValueError, "output .* got 'cubic'"),
        ({"input_scale": 0.0}, ValueError, r"input_scale .* got 0\.0"),
        ({"learn_gamma": 2}, TypeError, "learn_gamma .* got 2"),
        ({"negative_slope": -0.1}, ValueError, r"negative_slope .* >= 0 .* got -0\.1"),
        ({"negative_slope": 1.5}, ValueError, r"negative_slope .* <= 1, got 1\.5"),
    ],
)
def test_bad_parameters(parameters, error, match):
    with pytest.raises(error, match=match):
        MLP(**parameters).build((2,), gen(0))


def test_images_reach_an_mlp_as_flat_rows_and_a_factory_as_images():
    flat = build_energy("mlp", CHOICES, (1, 8, 8), gen(0))
    assert flat(torch.zeros(3, 64)).shape == (3,)
    seen = []

    class Convnet(torch.nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return x.square().sum((1, 2, 3))

    shaped = build_energy(lambda shape: Convnet(), CHOICES, (1, 8, 8), gen(0))
    assert shaped(torch.ones(3, 64)).tolist() == [64.0] * 3
    assert seen[-1] == (3, 1, 8, 8)


# -- reconstruction --------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_sizes", [(5,), (6, 4), (4, 5, 3)])
@pytest.mark.parametrize("activation", ["silu", "softplus", "tanh", "leaky_relu"])
@pytest.mark.parametrize("n", [7, 30_000], ids=["one piece", "pieces"])
def test_reconstruction_gradient_is_autograd(n, activation, hidden_sizes):
    energy, x = randomized(Reconstruction(hidden_sizes, activation)), rows(n)
    before = x.clone()
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, energy(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, autograd_score(energy, x), rtol=1e-10, atol=1e-12)
    assert (value > 0).all() and gradient.abs().max() > 1e-3 and x.equal(before)
    assert not value.requires_grad and not gradient.requires_grad


@pytest.mark.parametrize("d", [1, 5])
def test_reconstruction_gradient_in_float32(d):
    energy = Reconstruction(negative_slope=0.4).build((d,), gen(0))
    x = rows(50, d, dtype=torch.float32)
    value, gradient = energy.value_and_gradient(x)
    truth = autograd_score(energy, x)
    torch.testing.assert_close(value, energy(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, truth, rtol=0, atol=1e-5 * truth.abs().max().item())


def test_reconstruction_by_a_matrix():
    energy, x = randomized(Reconstruction((4,), negative_slope=1.0)), rows(20)
    first, last = energy.layers
    with torch.no_grad():
        first.bias.zero_()
        last.bias.zero_()
    rest = torch.eye(3, dtype=torch.float64) - last.weight @ first.weight
    value, gradient = energy.value_and_gradient(x)
    torch.testing.assert_close(value, (x @ rest.T).square().sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, 2 * x @ rest.T @ rest, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4, 3))
        last.weight.copy_(torch.eye(3, 4))
    value, gradient = energy.value_and_gradient(x)  # g(x) = x, which nothing forbids
    assert (value == 0).all() and (gradient == 0).all()


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_reconstruction_grows_as_its_notes_say(activation):
    energy, x = randomized(Reconstruction((6, 4), activation)), 1e8 * rows()
    with torch.no_grad():
        ratio = energy(x) / x.square().sum(1)
    if activation == "tanh":
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-6, atol=0)
    else:
        assert ((ratio - 1).abs() > 1e-3).any()


def test_reconstruction_slopes_starts_and_images():
    x = rows(dtype=torch.float32)
    one, same, other = (Reconstruction((8,)).build((3,), gen(s)) for s in (0, 0, 1))
    assert one(x).equal(same(x)) and not one(x).equal(other(x))
    assert [tuple(layer.weight.shape) for layer in one.layers] == [(8, 3), (3, 8)]
    for layer, fan_in in zip(one.layers, (3, 8), strict=True):
        assert 0.8 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
        assert 0 < layer.bias.abs().max() <= fan_in**-0.5
    steep = Reconstruction((8,), negative_slope=0.9).build((3,), gen(0))
    assert steep.layers[0].weight.equal(one.layers[0].weight) and not steep(x).equal(one(x))
    flat = build_energy("reconstruction", CHOICES, (1, 4, 4), gen(0))
    assert flat(torch.zeros(3, 16)).shape == (3,)


def test_reconstruction_of_the_paper():
    net = Reconstruction.paper().build((1,), gen(0))
    shapes = [(512, 1), (512, 512), (512, 512), (512, 512), (1, 512)]
    assert [tuple(layer.weight.shape) for layer in net.layers] == shapes
    assert sum(p.numel() for p in net.parameters()) == 789_505
    activation = activation_of(net.activation, net.negative_slope)
    assert activation.value(torch.tensor([-1.0, 1.0])).tolist() == pytest.approx([-0.2, 1.0])


@pytest.mark.parametrize(
    "parameters, error, match",
    [
        ({"hidden_sizes": ()}, TypeError, r"hidden_sizes .* got \(\)"),
        ({"hidden_sizes": 5}, TypeError, "hidden_sizes .* got 5"),
        ({"hidden_sizes": (4, 0)}, ValueError, "hidden_sizes .* got 0"),
        ({"activation": "relu"}, ValueError, "activation .* got 'relu'"),
        ({"negative_slope": -0.1}, ValueError, r"negative_slope .* >= 0 .* got -0\.1"),
        ({"negative_slope": 1.5}, ValueError, r"negative_slope .* <= 1, got 1\.5"),
        ({"negative_slope": None}, TypeError, "negative_slope .* got None"),
    ],
)
def test_bad_parameters_of_a_reconstruction(parameters, error, match):
    with pytest.raises(error, match=match):
        Reconstruction(**parameters).build((2,), gen(0))


# -- any module ------------------------------------------------------------------------------------


class Squeezed(torch.nn.Sequential):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


def factory(d):
    return Squeezed(torch.nn.Linear(d, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def test_a_factory_gets_the_columns_and_draws_from_the_generator():
    before = torch.get_rng_state()
    one, same, other = (build_energy(factory, CHOICES, (3,), gen(s)) for s in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert one[0].weight.equal(same[0].weight) and not one[0].weight.equal(other[0].weight)


def test_an_image_factory_gets_the_shape():
    seen = []
    build_energy(lambda s: seen.append(s) or Flat(), CHOICES, (1, 2, 3), gen(0))
    assert seen == [(1, 2, 3)]


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1).square().sum(1)


def test_score_of_any_module_is_autograd_without_a_graph():
    energy, x = build_energy(factory, CHOICES, (3,), gen(0)).double(), rows()
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            value, score = energy_and_score(energy, x)
        assert not value.requires_grad and not score.requires_grad
        torch.testing.assert_close(score, -autograd_score(energy, x), rtol=1e-12, atol=1e-14)
    assert all(p.grad is None for p in energy.parameters()) and not x.requires_grad


def test_aliases_and_components():
    assert isinstance(build_energy("mlp", CHOICES, (2,), gen(0)), FeedForward)
    assert build_energy(MLP((3,)), CHOICES, (2,), gen(0)).layers[1].weight.shape == (1, 3)
    with pytest.raises(ValueError, match=r"energy must be one of .* got 'mpl'"):
        build_energy("mpl", CHOICES, (2,), gen(0))


@pytest.mark.parametrize(
    "bad, error, match",
    [
        (lambda d: Squeezed(torch.nn.BatchNorm1d(d), torch.nn.Linear(d, 1)), ValueError, "at '0'"),
        (lambda d: torch.nn.Linear(d, 1), ValueError, r"got shape \(3, 1\)"),
        (lambda d: torch.nn.Flatten(0), ValueError, r"got shape \(6,\)"),
        (lambda d: 3.0, TypeError, r"returns 3\.0"),
        (lambda d: torch.sum, TypeError, "returns <built-in"),
        (lambda d: Quadratic(k=float("nan")), ValueError, "finite"),
    ],
    ids=["batch norm", "unsqueezed", "too many", "number", "function", "nan"],
)
def test_modules_that_break_the_contract(bad, error, match):
    with pytest.raises(error, match=match):
        build_energy(bad, CHOICES, (2,), gen(0))


def test_a_module_instead_of_a_factory_is_named():
    with pytest.raises(TypeError, match="energy must be"):
        build_energy(factory(2), CHOICES, (2,), gen(0))


# -- Model -----------------------------------------------------------------------------------------


def two_gaussians():
    cov = np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 2.0]]])
    means = np.array([[0.0, 1.0], [2.0, -1.0]])
    return MixtureBase.from_moments(np.array([0.3, 0.7]), means, cov, "cpu", torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("base", [None, two_gaussians()], ids=["no base", "mixture"])
@pytest.mark.parametrize("kind", ["mlp", "module"])
def test_potential_and_score(kind, base, temperature):
    energy = randomized(MLP((6,)), 2) if kind == "mlp" else factory(2).double()
    model, x = Model(energy, base, temperature), rows(d=2)
    potential, score = model.potential_and_score(x)
    expected = energy(x) / temperature - (0 if base is None else base.log_prob(x))
    torch.testing.assert_close(potential, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.potential(x), expected, rtol=1e-12, atol=1e-12)

    def log_density(leaf):
        return -energy(leaf) / temperature + (0 if base is None else base.log_prob(leaf))

    torch.testing.assert_close(score, autograd_score(log_density, x), rtol=1e-10, atol=1e-12)
    assert not potential.requires_grad and not score.requires_grad


def test_zero_is_the_base():
    base, x = two_gaussians(), rows(d=2)
    potential, score = Model(Zero(), base, 0.1).potential_and_score(x)
    torch.testing.assert_close(potential, -base.log_prob(x))
    torch.testing.assert_close(score, autograd_score(base.log_prob, x))
