"""Every energy against autograd, in both precisions and row by row; a user's module's contract."""

import copy
import pickle

import numpy as np
import pytest
import torch

from skebm.bases.mixture import MixtureBase
from skebm.energies import (
    MLP,
    Conv,
    Energy,
    GaussianBernoulliRBM,
    LinearICA,
    Model,
    Reconstruction,
    Residual,
    Zero,
    as_energy,
    build_energy,
    energy_and_score,
)
from skebm.energies.bounded import Bounded
from skebm.energies.learned_gaussian import LearnedGaussian
from skebm.energies.reweighted import Reweighted
from skebm.networks import FeedForward
from skebm.networks.feed_forward import ACTIVATIONS, activation_of
from tests.cases import factory
from tests.closed_forms import Quadratic, autograd_score
from tests.generators import gen, randomized

CHOICES = {"mlp": MLP, "reconstruction": Reconstruction}
OUTPUTS = ("identity", "quadratic", "linear-quadratic")
SIZES = ((5,), (6, 4), (4, 5, 3))
SMOOTH = MLP((6, 4), "silu", n_frequencies=3)


def images_factory(shape):
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 2), torch.nn.Flatten(), factory(27))


def mixture():
    cov = np.array([np.diag([1.0, 0.5, 2.0]), 0.6 * np.eye(3) + 0.2])
    means = np.array([[0.0, 1.0, 0.5], [1.0, -1.0, 0.0]])
    return MixtureBase.from_moments(np.array([0.3, 0.7]), means, cov, "cpu")


def bounded(module):
    return Bounded(module, torch.tensor([-1.0, -0.5, -1.5]), torch.tensor([0.5, 1.0, 1.5]))


def learned(module):
    return LearnedGaussian(module, mixture().factors[1], torch.tensor([0.2, 0.0, -0.3]))


def reweighted(module):
    return Reweighted(module, mixture(), torch.tensor([0.7, -1.3]))


# name: what build_energy takes and the shape of a row; or what wraps an energy of three columns
BUILT = {
    f"MLP {activation} {output} {m}": (
        MLP(SIZES[i], activation, output, m, learn_gamma=m > 0, negative_slope=0.3),
        (3,),
    )
    for activation in ACTIVATIONS
    for i, output in enumerate(OUTPUTS)
    for m in (0, 4)
}
BUILT |= {
    f"reconstruction {activation}": (Reconstruction(SIZES[i % 3], activation), (3,))
    for i, activation in enumerate(ACTIVATIONS)
}
CONVS = {
    "SP": (Conv((4, 5, 6, 3), (5, 3, 3, 3), 2, (4, 1, 1, 1)), (1, 28, 28)),
    "pyramid": (Conv((3, 6), (3, 4), (1, 2), 1, None, (), "leaky_relu"), (3, 10, 10)),
    "pooled, odd": (Conv((4, 5), 3, 1, 1, "average", (4, 3), "softplus"), (2, 11, 14)),
    "pixels left over": (Conv((3, 4), (2, 3), 3, 0), (1, 16, 18)),
    "attention": (Conv((4, 6), attention=(1, 2), activation="tanh"), (1, 8, 6)),
    "quadratic": (Conv((4,), hidden_sizes=(3,), output="quadratic"), (1, 7, 5)),
    "every term": (Conv((3,), output="linear-quadratic", learn_gamma=True), (2, 4, 4)),
    "dcgan": (Conv.dcgan(3, 2), (1, 12, 12)),
    "residual": (Residual((4, 5, 6)), (2, 11, 12)),
    "one block": (Residual((4,), 0.3), (1, 5, 6)),
}
BUILT |= {
    "RBM": (GaussianBernoulliRBM(4), (3,)),
    "ICA": (LinearICA(), (3,)),
    "ICA laplace": (LinearICA("laplace"), (3,)),
    "module": (factory, (3,)),
    "flat images": (Conv((4,), hidden_sizes=(3,), learn_gamma=True), (1, 4, 4)),
    "flat images, MLP": (MLP((5,)), (1, 4, 4)),
    "flat images, module": (images_factory, (1, 4, 4)),
}
WRAPPED = {
    "bounded": (bounded, SMOOTH),
    "bounded module": (bounded, factory),
    "learned Gaussian": (learned, SMOOTH),
    "learned Gaussian of a module": (learned, factory),
    "learned Gaussian alone": (learned, lambda d: Zero()),
    "reweighted": (reweighted, SMOOTH),
    "reweighted, bounded module": (lambda module: reweighted(bounded(module)), factory),
    "zero": (lambda module: module, lambda d: Zero()),
}
each_energy = pytest.mark.parametrize("name", [*BUILT, *CONVS, *WRAPPED])
CONSTANT = ("zero", "learned Gaussian alone")  # no seed changes them


def made(name, seed=0):
    if name in CONVS:
        component, shape = CONVS[name]
        return component.build(shape, gen(seed))
    if name in WRAPPED:
        wrap, inner = WRAPPED[name]
        return wrap(build_energy(inner, CHOICES, (3,), gen(seed)))
    component, shape = BUILT[name]
    return build_energy(component, CHOICES, shape, gen(seed))


def case(name, n=7, dtype=torch.float64):
    """A module with random parameters and rows, the same in both precisions."""
    shape = CONVS[name][1] if name in CONVS else (16 if "flat" in name else 3,)
    module = randomized(made(name), 0.4 if name in CONVS else 0.7)
    return module.to(dtype), torch.randn(n, *shape, generator=gen(1)).to(dtype)


def rows(n=7, d=3, seed=1, dtype=torch.float64):
    return torch.randn(n, d, dtype=dtype, generator=gen(seed))


# -- what holds for every energy -------------------------------------------------------------------


@each_energy
def test_value_and_score_are_autograds_without_a_graph(name):
    energy, x = case(name)
    before, truth = x.clone(), -autograd_score(energy, x)
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            value, score = energy_and_score(energy, x)
        torch.testing.assert_close(value, energy(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(score, truth, rtol=1e-10, atol=1e-12)
        assert not value.requires_grad and not score.requires_grad
    v, h = torch.randn(x.shape, dtype=x.dtype, generator=gen(2)), 1e-6
    slope = (energy(x + h * v) - energy(x - h * v)) / (2 * h)  # nothing inside rounds to float32
    torch.testing.assert_close(-(truth * v).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-6)
    assert (truth.abs().max() > 1e-3) == (name != "zero")
    assert x.equal(before) and all(p.grad is None for p in energy.parameters())
    assert isinstance(energy, Energy) == (name != "module")


def gradient(values, x):
    return torch.autograd.grad(values.sum() + 0 * x.sum(), x, create_graph=True)[0]


@each_energy
def test_derivatives_and_their_gradients_are_those_of_autograd(name):
    energy, x = case(name, 5)
    x, v = (
        x.requires_grad_(),
        torch.randn(x.shape, dtype=x.dtype, generator=gen(2)).requires_grad_(),
    )
    weight = torch.randn(len(x), dtype=x.dtype, generator=gen(3))
    slope, energy_ = gradient(energy(x), x) + 0 * x, as_energy(energy)
    along = (slope * v).flatten(1).sum(1)
    pairs = [
        (-(energy_.score(x) * v).flatten(1).sum(1), along),
        (energy_.directional_derivative(x, v), along),
        (energy_.laplacian(x, v), (gradient(along, x) * v).flatten(1).sum(1)),
    ]
    if x[0].numel() <= 60:
        columns = enumerate(slope.flatten(1).unbind(1))
        trace = sum(gradient(g, x).flatten(1)[:, i] for i, g in columns)
        pairs.append((energy_.laplacian(x), trace))
    leaves, largest = [x, v, *energy.parameters()], 0.0
    for ours, truth in pairs:
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-11)
        got, expected = (
            torch.autograd.grad(
                (weight * term).sum() + 0 * x.sum(),
                leaves,
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )
            for term in (ours, truth)
        )
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
            largest = max(largest, float(b.abs().max()))
    assert (largest > 1e-3) == (name != "zero")


@each_energy
def test_double_precision_gives_the_same_numbers(name):
    energy, x = case(name, 20, torch.float32)
    single = energy_and_score(energy, x)
    double = energy_and_score(copy.deepcopy(energy).double(), x.double())
    for one, two in zip(single, double, strict=True):
        assert one.dtype == torch.float32 and two.dtype == torch.float64
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-5 * float(two.abs().max()))


@each_energy
def test_in_double_precision_a_row_does_not_depend_on_its_place(name):
    energy, x = case(name, 9 if name in CONVS or "flat" in name else 30_000)  # that is in pieces
    value, score = energy_and_score(energy, x)
    for i in (0, len(x) // 2, len(x) - 1):
        alone, score_alone = energy_and_score(energy, x[i, None])
        torch.testing.assert_close(value[i, None], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(score[i, None], score_alone, rtol=1e-12, atol=1e-12)


@each_energy
def test_the_seed_and_the_state_say_everything(name):
    before = torch.get_rng_state()
    one, same, other = (made(name, seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    states = [[*module.state_dict().values()] for module in (one, same, other)]
    assert all(a.equal(b) for a, b in zip(*states[:2], strict=True))
    assert all(a.equal(b) for a, b in zip(*states[1:], strict=True)) == (name in CONSTANT)
    x = case(name, dtype=torch.float32)[1]
    value = randomized(one)(x)
    other.load_state_dict(one.state_dict())
    assert other(x).equal(value) and pickle.loads(pickle.dumps(one))(x).equal(value)


# -- the contract's own defaults -------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 1e300, float("inf")])
def test_zero_has_a_graph_at_any_row(size):
    x = torch.full((2, 3, 1), size, dtype=torch.float64, requires_grad=True)
    value = Zero()(x)
    value.sum().backward()
    assert value.tolist() == [0, 0] and value.dtype == x.dtype
    assert not x.grad.any() and x.grad.shape == x.shape


def test_a_closed_form_is_used_where_there_is_one():
    class Known(Energy):
        twice_differentiable = False

        def forward(self, x):
            return x.flatten(1).square().sum(1)

        def value_and_gradient(self, x):
            return self(x), torch.full_like(x, 3.0)

        def directional_derivative(self, x, v):
            return x.new_full((len(x),), 5.0)

        def laplacian(self, x, probes=None):
            return x.new_full((len(x),), 7.0) if probes is None else super().laplacian(x, probes)

        def exact_log_partition(self):
            return 11.0

    x = rows(5, 4)
    for energy in (Known(), build_energy(lambda shape: Known(), CHOICES, (1, 2, 2), gen(0))):
        assert (energy_and_score(energy, x)[1] == -3).all()
        assert (energy.directional_derivative(x, x) == 5).all()
        assert (energy.laplacian(x) == 7).all() and energy.laplacian(x).shape == (5,)
        assert energy.exact_log_partition() == 11
    assert as_energy(Quadratic()).exact_log_partition() is None


def test_a_score_has_a_graph_to_the_parameters_alone_whatever_the_mode():
    energy, x = Quadratic(1.5, 0.5).double(), rows()
    with torch.no_grad():
        score = as_energy(energy).score(x)
    torch.testing.assert_close(score, -autograd_score(energy, x))
    assert score.requires_grad and not x.requires_grad


def test_derivatives_of_an_energy_without_curvature_are_zero():
    linear, x = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0)).double(), rows()
    assert (as_energy(linear).laplacian(x) == 0).all()
    assert (as_energy(linear).laplacian(x, x) == 0).all()


# -- perceptrons -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_negative_slope_is_that_of_the_network(slope):
    component = MLP((4, 5), "leaky_relu", n_frequencies=0, negative_slope=slope)
    energy, x = randomized(component.build((3,), gen(0))).double(), rows(40)
    a = x
    for layer in energy.layers[:-1]:
        z = a @ layer.weight.T + layer.bias
        a = torch.where(z > 0, z, slope * z)
        assert (z < 0).any()
    expected = a @ energy.layers[-1].weight[0] + energy.layers[-1].bias
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-12)
    value, score = energy_and_score(energy, x)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, -autograd_score(energy, x), rtol=1e-10, atol=1e-12)
    along = energy.directional_derivative(x, rows(40, seed=2))
    torch.testing.assert_close(along, -(score * rows(40, seed=2)).sum(1), rtol=1e-10, atol=1e-12)


def test_negative_slope_is_that_of_leaky_relu_alone():
    z = torch.tensor([-2.0, 3.0])
    for name, activation in ACTIVATIONS.items():
        default, steep = activation_of(name), activation_of(name, 0.5)
        assert default.value(z).equal(activation.value(z))
        assert steep.value(z).equal(activation.value(z)) == (name != "leaky_relu")
    assert activation_of("leaky_relu", 0.5).value(z).tolist() == [-1.0, 3.0]


@pytest.mark.parametrize(
    "component", [MLP((6,)), Conv((3,), hidden_sizes=(4,))], ids=["MLP", "conv"]
)
@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_and_their_coefficients(output, component):
    shape = (2, 4, 4) if isinstance(component, Conv) else (3,)
    energy = component.with_params(output=output, learn_gamma=True).build(shape, gen(0)).double()
    x, inner = torch.randn(5, *shape, dtype=torch.float64, generator=gen(1)), energy.energy
    f = (inner if output == "identity" else inner.network)(x)
    assert energy.gamma == 0 and energy(x).equal(inner(x))
    assert inner(x).equal(0.5 * f.square() if output == "quadratic" else f)  # beta starts at 0
    with torch.no_grad():
        energy.gamma.fill_(0.7)
        if output == "linear-quadratic":
            inner.beta.fill_(2.0)
    values = {"identity": f, "quadratic": f.square() / 2, "linear-quadratic": f + f.square()}
    norm = x.square().flatten(1).sum(1)
    torch.testing.assert_close(energy(x), values[output] + 0.7 * x[0].numel() ** 0.5 * norm)


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


def test_input_scale_multiplies_the_first_layer_alone():
    plain = FeedForward(3, (5, 4), "tanh", gen(0))
    scaled = FeedForward(3, (5, 4), "tanh", gen(0), input_scale=3.0)
    assert scaled.layers[0].weight.equal(3 * plain.layers[0].weight)
    assert scaled.layers[1].weight.equal(plain.layers[1].weight)
    bound = 5**-0.5
    assert 0.8 * bound < plain.layers[1].weight.abs().max() <= bound


# -- reconstruction --------------------------------------------------------------------------------


def test_reconstruction_by_a_matrix():
    energy = randomized(Reconstruction((4,), negative_slope=1.0).build((3,), gen(0))).double()
    x = rows(20)
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
    energy = randomized(Reconstruction((6, 4), activation).build((3,), gen(0))).double()
    x = 1e8 * rows()
    with torch.no_grad():
        ratio = energy(x) / x.square().sum(1)
    if activation == "tanh":
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-6, atol=0)
    else:
        assert ((ratio - 1).abs() > 1e-3).any()


def test_reconstruction_slopes_and_starts():
    x, one = rows(dtype=torch.float32), Reconstruction((8,)).build((3,), gen(0))
    assert [tuple(layer.weight.shape) for layer in one.layers] == [(8, 3), (3, 8)]
    for layer, fan_in in zip(one.layers, (3, 8), strict=True):
        assert 0.8 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
        assert 0 < layer.bias.abs().max() <= fan_in**-0.5
    steep = Reconstruction((8,), negative_slope=0.9).build((3,), gen(0))
    assert steep.layers[0].weight.equal(one.layers[0].weight) and not steep(x).equal(one(x))


def test_reconstruction_of_the_paper():
    net = Reconstruction.paper().build((1,), gen(0))
    shapes = [(512, 1), (512, 512), (512, 512), (512, 512), (1, 512)]
    assert [tuple(layer.weight.shape) for layer in net.layers] == shapes
    assert sum(p.numel() for p in net.parameters()) == 789_505
    activation = activation_of(net.activation, net.negative_slope)
    assert activation.value(torch.tensor([-1.0, 1.0])).tolist() == pytest.approx([-0.2, 1.0])


# -- any module ------------------------------------------------------------------------------------


def test_a_factory_gets_the_columns_or_the_shape_and_its_module_images():
    seen = []

    class Convnet(torch.nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return x.square().sum((1, 2, 3))

    build_energy(lambda d: seen.append(d) or factory(d), CHOICES, (3,), gen(0))
    shaped = build_energy(lambda s: seen.append(s) or Convnet(), CHOICES, (1, 8, 8), gen(0))
    assert shaped(torch.ones(3, 64)).tolist() == [64.0] * 3
    assert seen[:2] == [3, (1, 8, 8)] and seen[-1] == (3, 1, 8, 8)


def test_the_check_of_a_factory_draws_nothing_and_leaves_its_module_in_training():
    before = torch.get_rng_state()
    module = build_energy(
        lambda d: torch.nn.Sequential(
            torch.nn.Linear(d, 1), torch.nn.Dropout(), torch.nn.Flatten(0)
        ),
        {},
        (3,),
        gen(0),
    )
    assert torch.get_rng_state().equal(before) and all(part.training for part in module.modules())


def test_aliases_and_components():
    assert isinstance(build_energy("mlp", CHOICES, (2,), gen(0)), FeedForward)
    assert build_energy(MLP((3,)), CHOICES, (2,), gen(0)).layers[1].weight.shape == (1, 3)
    with pytest.raises(ValueError, match=r"energy must be one of .* got 'mpl'"):
        build_energy("mpl", CHOICES, (2,), gen(0))


class Single(torch.nn.Module):
    """Has a constant that double() does not convert."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x):
        return (x @ self.matrix).square().sum(1)


class Rounded(torch.nn.Module):
    def forward(self, x):
        return x.float().square().sum(1)


@pytest.mark.parametrize(
    "bad, error, match",
    [
        (lambda d: torch.nn.Sequential(torch.nn.BatchNorm1d(d), factory(d)), ValueError, "at '0'"),
        (lambda d: torch.nn.Linear(d, 1), ValueError, r"got shape \(3, 1\)"),
        (lambda d: torch.nn.Flatten(0), ValueError, r"got shape \(6,\)"),
        (lambda d: 3.0, TypeError, r"returns 3\.0"),
        (lambda d: torch.sum, TypeError, "returns <built-in"),
        (lambda d: Quadratic(k=float("nan")), ValueError, "finite"),
        (lambda d: Single(torch.eye(d)), ValueError, "float64 too.* got .*dtype.*register"),
        (lambda d: Rounded(), ValueError, r"float64 too.* got torch\.float32.*register"),
    ],
    ids=["batch norm", "unsqueezed", "too many", "number", "function", "nan", "constant", "cast"],
)
def test_modules_that_break_the_contract(bad, error, match):
    with pytest.raises(error, match=match):
        build_energy(bad, CHOICES, (2,), gen(0))


def test_a_module_instead_of_a_factory_is_named():
    with pytest.raises(TypeError, match="energy must be"):
        build_energy(factory(2), CHOICES, (2,), gen(0))


# -- Model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("base", [None, mixture().double()], ids=["no base", "mixture"])
@pytest.mark.parametrize("kind", ["mlp", "module"])
def test_potential_and_score(kind, base, temperature):
    energy = randomized(MLP((6,)).build((3,), gen(0)) if kind == "mlp" else factory(3)).double()
    model, x = Model(energy, base, temperature), rows()
    potential, score = model(x)
    expected = energy(x) / temperature - (0 if base is None else base.log_prob(x))
    torch.testing.assert_close(potential, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.potential(x), expected, rtol=1e-12, atol=1e-12)

    def log_density(leaf):
        return -energy(leaf) / temperature + (0 if base is None else base.log_prob(leaf))

    torch.testing.assert_close(score, autograd_score(log_density, x), rtol=1e-10, atol=1e-12)
    assert not potential.requires_grad and not score.requires_grad


def test_zero_is_the_base():
    base, x = mixture().double(), rows()
    potential, score = Model(Zero(), base, 0.1).potential_and_score(x)
    torch.testing.assert_close(potential, -base.log_prob(x))
    torch.testing.assert_close(score, autograd_score(base.log_prob, x))
