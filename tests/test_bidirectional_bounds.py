"""Bounds from both sides: the paper's code transcribed, Gaussians in closed form, entropies."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from skebm.bases import Defensive
from skebm.bases.mixture import MixtureBase
from skebm.data import ArrayTable
from skebm.energies import MLP, Model
from skebm.fitted import bounds as fitted_bounds
from skebm.fitted.bounds import report_generator
from skebm.networks import FeedForward, GeneratorComponent, MLPGenerator, smallest_singular_value
from skebm.objectives import (
    BidirectionalBounds,
    GeneratorEntropy,
    Optimization,
    UpperBound,
    _generator_entropy,
)
from skebm.objectives._generator_entropy import (
    information_term,
    jacobian_term,
    minority,
    noisy_log_density,
    orientation,
    posterior_term,
)
from skebm.objectives.bidirectional_bounds import volume_change
from skebm.objectives.game_settings import BOUNDS, BY_JACOBIAN, ENTROPIES
from skebm.train import Settings, train
from tests.closed_forms import (
    Quadratic,
    assert_estimate,
    assert_mean,
    assert_slopes,
    gaussian_kl,
    normal_base,
)
from tests.generators import gen, randn, randomized

PAIRS = [
    (bound, entropy)
    for bound, entropy in itertools.product(BOUNDS, ENTROPIES)
    if bound != "bidirectional" or entropy in BY_JACOBIAN
]
STILL = Optimization(learning_rate=1e-30, weight_decay=0.0, method="sgd", schedule="constant")
DOWNHILL = STILL.with_params(learning_rate=1.0)  # an update is minus the gradient
each_by_jacobian = pytest.mark.parametrize("entropy", BY_JACOBIAN)


def linear(weight, bias=None):
    """The generator z -> W z + b in the precision of W."""
    weight = torch.as_tensor(weight)
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    module.weight.data = weight.clone()
    module.bias.data = torch.zeros(len(weight)).to(weight) if bias is None else bias.clone()
    return module


class Gaussian(torch.nn.Module):
    """E of N(b, W W^T), a parameter's multiple of it: the energy that matches `linear`."""

    def __init__(self, weight, bias, k=1.0):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(k).to(weight))
        self.inverse, self.bias = torch.linalg.inv(weight), bias

    def forward(self, x):
        return 0.5 * self.k * ((x - self.bias) @ self.inverse.T).square().sum(-1)


class OfBase(torch.nn.Module):
    """The energy of a normalized density: log Z is 0."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return -self.base.log_prob(x)


class Given(GeneratorComponent):
    """A module that is there already."""

    def __init__(
        self, module, latent_dim=None, observation_noise="auto", learning_rate=2e-3, betas=None
    ):
        self.module = module
        self.latent_dim = latent_dim
        self.observation_noise = observation_noise
        self.learning_rate = learning_rate
        self.betas = betas

    def build(self, latent_dim, shape, rng):
        return self.module


def perceptron(d, rows, seed=0):
    """A smooth generator without a written-out Jacobian, float64."""
    nn = torch.nn
    network = nn.Sequential(nn.Linear(d, 6), nn.Tanh(), nn.Linear(6, rows))
    return randomized(network.double(), seed=seed)


def written_out(d, rows, seed=0):
    return MLPGenerator((6,), "silu").build(d, (rows,), gen(seed)).double()


def energy_of(columns, seed=5):
    return FeedForward(columns, (7,), "silu", gen(seed), input_scale=2.0).double()


def wide_base(columns, dtype=torch.float64):
    """N(0.3, 1.44 I) as a base."""
    means, cov = np.full((1, columns), 0.3), 1.44 * np.eye(columns)[None]
    return MixtureBase.from_moments(np.ones(1), means, cov, "cpu", dtype)


def gradients(value, module):
    return torch.autograd.grad(
        value, list(module.parameters()), allow_unused=True, materialize_grads=True
    )


# -- the paper's code, with explicit Jacobians and second derivatives by autograd ------------------


def transcribed_volume(network, z, entropy):
    """The entropy's Jacobian term by singular values (n,), and the Jacobians, with graphs."""
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda r: network(r[None]).flatten(), row, create_graph=True
            )
            for row in z
        ]
    )
    s = torch.linalg.svdvals(jacobian)
    volume = s.log().sum(1) if entropy == "logdet" else s.shape[1] * s[:, -1].log()
    return volume, jacobian


def transcribed_potential(model, x):
    """U written out for the one base of these tests."""
    value = model.energy(x) / model.temperature
    return value if model.base is None else value + 0.5 * (x - 0.3).square().sum(1) / 1.44


def transcribed_vector(model, network, z, entropy):
    """u = grad U(G(z)) J + grad_z log p_g(G(z)), the generator's part detached."""
    z = z.clone().requires_grad_()
    volume, jacobian = transcribed_volume(network, z, entropy)
    (q,) = torch.autograd.grad((0.5 * z.square().sum(1) + volume).sum(), z)
    x = network(z).detach().requires_grad_()
    potential = transcribed_potential(model, x)
    (slope,) = torch.autograd.grad(potential.sum(), x, create_graph=True)
    return torch.einsum("nD,nDd->nd", slope, jacobian.detach()) - q


def assert_same_terms(found, expected, energy, atol, atol_of_slopes):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=atol)
    slopes = (gradients(terms.mean(), energy) for terms in (found, expected))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=atol_of_slopes)


@pytest.mark.parametrize("entropy", ["logdet", "singular-value"])
@pytest.mark.parametrize("build", [written_out, perceptron])
@pytest.mark.parametrize(("rows", "d"), [(2, 2), (3, 3), (3, 2)])
@pytest.mark.parametrize(("with_base", "temperature"), [(False, 1.0), (True, 1.7)])
def test_the_penalty_is_that_of_the_papers_code(entropy, build, rows, d, with_base, temperature):
    network, z = build(d, rows), randn(6, d)
    model = Model(energy_of(rows), wide_base(rows) if with_base else None, temperature)
    found = BidirectionalBounds(entropy=entropy).penalty_terms(model, network, z, gen(3))
    v = torch.empty_like(z).normal_(generator=gen(3))
    expected = (transcribed_vector(model, network, z, entropy) * v).sum(1).square()
    assert_same_terms(found, expected, model.energy, 1e-10, 1e-9)
    for p in network.parameters():
        assert p.grad is None  # nothing reaches the generator


@pytest.mark.parametrize("exponent", [1.0, 3.0])
@pytest.mark.parametrize("entropy", ["logdet", "singular-value"])
@pytest.mark.parametrize(("build", "rows"), [(written_out, 2), (perceptron, 3)])
def test_other_exponents_take_the_norm_of_the_whole_vector(exponent, entropy, build, rows):
    network, z = build(2, rows), randn(6, 2)
    model = Model(energy_of(rows), wide_base(rows), 1.7)
    objective = BidirectionalBounds(UpperBound(exponent=exponent), entropy)
    found = objective.penalty_terms(model, network, z, gen(3))
    expected = transcribed_vector(model, network, z, entropy).norm(dim=1) ** exponent
    assert_same_terms(found, expected, model.energy, 1e-8, 1e-8)


@pytest.mark.parametrize(("probe", "share"), [("gaussian", 1.0), ("sphere", 1 / 3)])
def test_probes_estimate_the_squared_length(probe, share):
    """Gaussian ones |u|^2, those of length one |u|^2 / d."""
    network, z = written_out(3, 3), randn(1, 3)
    model = Model(energy_of(3), None, 1.0)
    truth = float(transcribed_vector(model, network, z, "logdet").detach().square().sum())
    objective = BidirectionalBounds(UpperBound(probe=probe))
    with torch.no_grad():
        terms = objective.penalty_terms(model, network, z.expand(20_000, 3), gen(0))
    assert_mean(terms / truth / share, 1.0, largest_stderr=0.012)


# -- truths of linear generators -------------------------------------------------------------------

WEIGHTS = {
    "two": [[1.5, 0.4], [-0.3, 0.7]],
    "reflected": [[0.4, 1.5], [0.7, -0.3]],
    "three": [[1.0, 0.2, 0.0], [0.1, 0.8, -0.3], [0.0, 0.5, 1.2]],
}


def matched(name, dtype=torch.float64, k=1.0):
    """A square linear generator, a model with the energy of its density, and log Z."""
    weight = torch.tensor(WEIGHTS[name], dtype=dtype)
    bias = torch.arange(len(weight)).to(dtype) * 0.5 - 0.2
    log_z = 0.5 * len(weight) * math.log(2 * math.pi) + float(torch.linalg.slogdet(weight)[1])
    return linear(weight, bias), Model(Gaussian(weight, bias, k), None, 1.0), log_z


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
@each_by_jacobian
def test_the_penalty_of_a_matching_pair_is_0(name, exponent, entropy):
    objective = BidirectionalBounds(UpperBound(exponent=exponent), entropy)
    network, model, _ = matched(name)
    z = randn(20, len(WEIGHTS[name]))
    assert objective.penalty_terms(model, network, z, gen(0)).max() < 1e-5
    network, model, _ = matched(name, k=1.2)
    terms = objective.penalty_terms(model, network, z, gen(0))
    if exponent == 2:
        v = torch.empty_like(z).normal_(generator=gen(0))
        expected = 0.04 * (z * v).sum(1).square()
    else:
        expected = (0.2 * z.norm(dim=1)) ** exponent
    torch.testing.assert_close(terms, expected, rtol=1e-5, atol=1e-8)


def settled(network, model, entropy, x, bound="bidirectional", noise="auto"):
    """One update that moves nothing, with its row and the second batch of latents."""
    generator = Given(network, observation_noise=noise, learning_rate=1e-30)
    objective = BidirectionalBounds(bound, entropy, generator, optimization=STILL)
    state = objective.init(model, x, gen(0))
    rng, d = gen(7), network.weight.shape[1]
    _, _, second = (torch.empty(len(x), d).normal_(generator=rng) for _ in range(3))
    _, row = objective.step(model, state, lambda: x, gen(7))
    return row, second


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_lower_bound_of_a_batch_is_the_true_likelihood(name):
    """Up to the prior's entropy, exact in the bound and a mean over latents in the energy."""
    network, model, log_z = matched(name, torch.float32)
    x = randn(200, len(WEIGHTS[name]), dtype=torch.float32)
    row, z = settled(network, model, "logdet", x)
    truth = float(model.potential(x).double().mean()) + log_z
    drawn = z.shape[1] / 2 - float(z.double().square().sum(1).mean()) / 2
    assert float(row["lower_bound"]) - drawn == pytest.approx(truth, abs=1e-5)
    assert row["penalty"] < 1e-9 and row["fold"] == 0
    s = torch.linalg.svdvals(network.weight.detach())[-1]
    assert row["s1_low"] == pytest.approx(float(s), rel=1e-5) == row["s1_median"]


def test_the_singular_value_bound_lies_below_by_the_unequal_singular_values():
    network, model, log_z = matched("two", torch.float32)
    x = randn(200, 2, dtype=torch.float32)
    row, z = settled(network, model, "singular-value", x)
    s = torch.linalg.svdvals(network.weight.detach()).log()
    truth = float(model.potential(x).double().mean()) + log_z - float(s[0] - s[1])
    drawn = 1 - float(z.double().square().sum(1).mean()) / 2
    assert float(row["lower_bound"]) - drawn == pytest.approx(truth, abs=1e-5)


def reported(network, model, rows, generator=None, **parameters):
    objective = BidirectionalBounds(generator=generator, **parameters)
    at_rows = model.potential(rows).detach().double()
    return report_generator(model, objective, network, rows.shape[1], at_rows, gen(3))


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_report_on_a_matching_pair_is_exact(name):
    """U + log p_g is constant there: no bound has a spread from the generator's rows."""
    network, model, log_z = matched(name, torch.float32)
    rows = randn(50, len(WEIGHTS[name]), dtype=torch.float32)
    report = reported(network, model, rows)
    truth = float(model.potential(rows).double().mean()) + log_z
    assert report.cubo.value == pytest.approx(truth, abs=1e-5)
    assert report.cubo.ess == pytest.approx(16384, rel=1e-4)
    for bound in (report.lower, report.surrogate):
        assert bound.value == pytest.approx(truth, abs=1e-5)
        assert bound.stderr == pytest.approx(float(model.potential(rows).std()) / 50**0.5, rel=1e-4)
    assert report.fold == report.degenerate == 0


@pytest.mark.parametrize("bound", BOUNDS[1:])
def test_there_is_no_surrogate_of_another_bound(bound):
    network, model, _ = matched("two", torch.float32)
    report = reported(network, model, torch.zeros(3, 2), bound=bound)
    assert math.isnan(report.surrogate.value) and math.isfinite(report.lower.value)


@pytest.mark.parametrize("s", [0.7, 1.5])
def test_the_lower_bound_falls_short_by_the_divergence(s):
    """Generator N(0, 1), model N(0, s^2): KL = log s + 1 / (2 s^2) - 1/2."""
    network, model = linear(torch.ones(1, 1)), Model(Quadratic(1 / s**2), None, 1.0)
    row = torch.tensor([[0.6], [0.6]])  # rows that add nothing to the standard error
    report = reported(network, model, row)
    likelihood = 0.18 / s**2 + 0.5 * math.log(2 * math.pi * s**2)
    kl = gaussian_kl([0.0], [[1.0]], [0.0], [[s**2]])
    assert kl == pytest.approx(math.log(s) + 0.5 / s**2 - 0.5)
    assert_estimate(report.lower.value, report.lower.stderr, likelihood - kl, 0.02)
    assert kl > 4 * report.lower.stderr
    penalty = (1 / s**2 - 1) ** 2  # |u|^2 = (1 / s^2 - 1)^2 z^2
    added = (report.surrogate.value - report.lower.value) / 0.001
    assert added == pytest.approx(penalty, rel=0.1)


def test_a_margin_and_a_weight_enter_the_surrogate():
    network, model, _ = matched("two", torch.float32, k=2.0)
    rows = randn(20, 2, dtype=torch.float32)
    plain, closed, half = (
        reported(network, model, rows, penalty_weight=w, margin=m)
        for w, m in ((1.0, 0.0), (1.0, 1e3), (0.5, 0.5))
    )
    added = plain.surrogate.value - plain.lower.value
    assert added == pytest.approx(2.0, rel=0.1)  # E[(z . v)^2] = d
    assert closed.surrogate.value == closed.lower.value
    assert half.surrogate.value - half.lower.value == pytest.approx(added / 2 - 0.5, rel=1e-5)


def test_a_generator_with_noise_has_a_bound_below_the_likelihood(monkeypatch):
    """W z + 0.5 e onto two columns; the model is N(0, W W^T + 0.25 I)."""
    monkeypatch.setattr(fitted_bounds, "N_LATENTS", 4096)
    weight = torch.tensor([[1.0], [0.5]])
    cov = weight @ weight.T + 0.25 * torch.eye(2)
    root = torch.linalg.cholesky(cov)
    model = Model(Gaussian(root, torch.zeros(2)), None, 1.0)
    row = torch.tensor([[0.6, -0.2], [0.6, -0.2]])
    network = linear(weight)
    report = reported(network, model, row, Given(network, 1, 0.5))
    truth = float(model.potential(row)[0]) + math.log(2 * math.pi) + 0.5 * float(cov.logdet())
    assert_estimate(report.lower.value, report.lower.stderr, truth, 0.03)
    assert math.isnan(report.cubo.value) and math.isnan(report.fold)
    no_noise = reported(network, model, row, Given(network, 1))
    assert math.isnan(no_noise.lower.value) and no_noise.lower.ess == 0


# -- updates: the energy's -------------------------------------------------------------------------


def small_model(temperature=1.7, base=True):
    energy = MLP((6,), n_frequencies=0).build((2,), gen(5))
    return Model(energy, wide_base(2, torch.float32) if base else None, temperature)


def flat(parameters):
    return torch.cat([p.detach().flatten().clone() for p in parameters])


def energy_update(objective, model, x):
    """Minus the energy's gradient in one step, with its row and the generator."""
    still = MLPGenerator((5,), learning_rate=1e-30)
    state = objective.with_params(optimization=DOWNHILL, generator=still).init(model, x, gen(0))
    before = flat(model.energy.parameters())
    _, row = objective.step(model, state, lambda: x, gen(7))
    return flat(model.energy.parameters()) - before, row, state.modules["generator"]


def expected_energy_update(model, x, fake, penalty):
    """Minus the gradient of the energies' difference plus a penalty."""
    value = (model.energy(x).mean() - model.energy(fake).mean()) / model.temperature + penalty
    return -flat(gradients(value, model.energy))


def slope_norms(model, x):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(transcribed_potential(model, x).sum(), x, create_graph=True)
    return slope.norm(dim=1)


@pytest.mark.parametrize(
    ("bound", "weight"), [("wgan-gp", 10.0), ("wgan-0gp", 0.01), ("zero-centered-gp", 0.01)]
)
def test_penalties_of_slopes_are_those_of_their_papers(bound, weight):
    x, model, copy = randn(30, 2, dtype=torch.float32), small_model(), small_model()
    objective = BidirectionalBounds(bound)
    assert objective.weight(2) == weight
    objective = objective.with_params(penalty_weight=3.0)
    found, row, network = energy_update(objective, model, x)
    rng = gen(7)
    fake = network(torch.empty(30, 2).normal_(generator=rng)).detach()
    if bound == "wgan-gp":
        u = torch.rand(30, 1, generator=rng)
        penalty = (slope_norms(copy, u * x + (1 - u) * fake) - 1).square().mean()
    else:
        penalty = slope_norms(copy, x).square().mean()
    torch.testing.assert_close(row["penalty"], penalty.detach(), rtol=1e-5, atol=1e-6)
    expected = expected_energy_update(copy, x, fake, 3.0 * penalty)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(row["data_energy"], (copy.energy(x) / 1.7).mean().detach())
    torch.testing.assert_close(row["generated_energy"], (copy.energy(fake) / 1.7).mean().detach())


@pytest.mark.parametrize(("margin", "opened"), [(0.0, 1.0), (1.0, 1.0), (1e6, 0.0)])
def test_the_energy_lowers_the_hinged_upper_bound(margin, opened):
    """Where the hinge is closed the energy is a plain Wasserstein critic."""
    x, model, copy = randn(30, 2, dtype=torch.float32), small_model(), small_model()
    objective = BidirectionalBounds(penalty_weight=2.0, margin=margin)
    found, row, network = energy_update(objective, model, x)
    rng = gen(7)
    z, v = (torch.empty(30, 2).normal_(generator=rng) for _ in range(2))
    terms = (transcribed_vector(copy, network, z, "logdet") * v).sum(1).square()
    torch.testing.assert_close(row["penalty"], terms.mean().detach(), rtol=1e-3, atol=1e-4)
    assert float(row["hinge_open"]) == opened
    expected = expected_energy_update(copy, x, network(z).detach(), opened * 2.0 * terms.mean())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "weight"),
    [
        ({}, 0.001 / 8),
        ({"bound": UpperBound(probe="sphere")}, 0.001),
        ({"bound": UpperBound(exponent=3.0, probe="sphere")}, 0.001 / 8),  # no probe: not divided
        ({"penalty_weight": 0.1}, 0.1),
        ({"penalty_weight": 0}, 0.0),
    ],
)
def test_the_automatic_weight_is_the_papers(parameters, weight):
    assert BidirectionalBounds(**parameters).weight(8) == weight


# -- updates: the generator's ----------------------------------------------------------------------


def generator_update(objective, model, x, network, noise="auto"):
    """Minus the generator's gradient in one step at a fixed energy, and the latents behind it."""
    moving = Given(network, observation_noise=noise, learning_rate=1.0)
    objective = objective.with_params(generator=moving, optimization=STILL)
    state = objective.init(model, x, gen(0))
    before, rng = flat(network.parameters()), gen(7)
    first = torch.empty(len(x), 2).normal_(generator=rng)  # the energy's latents
    if objective.upper.kind == "bidirectional" or objective.noise() > 0:
        torch.empty(len(x), 2).normal_(generator=rng)  # probes, or noise
    if objective.upper.kind == "wgan-gp":
        torch.rand(len(x), 1, generator=rng)
    shared = objective.upper.kind == "bidirectional" and objective.spread.kind == "logdet"
    z = first if shared else torch.empty(len(x), 2).normal_(generator=rng)
    objective.step(model, state, lambda: x, gen(7))
    return flat(network.parameters()) - before, z


def generator_for_updates():
    return MLPGenerator((6,), "silu").build(2, (2,), gen(11))


@pytest.mark.parametrize("bound", ["wgan-gp", "wgan-0gp"])
@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_critic_moves_the_generator_by_its_slope_alone(bound, entropy):
    """Minus score . x has the gradient of the mean potential; no entropy joins it."""
    x, model, network = randn(30, 2, dtype=torch.float32), small_model(), generator_for_updates()
    reference = generator_for_updates()
    noise = 1e-30 if entropy == "variational" else 0.0
    found, z = generator_update(BidirectionalBounds(bound, entropy), model, x, network, noise)
    expected = -flat(gradients(transcribed_potential(model, reference(z)).mean(), reference))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("entropy", ["logdet", "singular-value"])
@pytest.mark.parametrize("bound", ["bidirectional", "zero-centered-gp"])
@pytest.mark.parametrize("entropy_weight", [1.0, 0.3])
def test_the_generator_raises_the_lower_bound(entropy, bound, entropy_weight):
    x, model, network = randn(30, 2, dtype=torch.float32), small_model(), generator_for_updates()
    reference = generator_for_updates()
    spread = GeneratorEntropy(entropy, weight=entropy_weight, fold_penalty=0.0)
    found, z = generator_update(BidirectionalBounds(bound, spread), model, x, network)
    volume, _ = transcribed_volume(reference, z, entropy)
    value = transcribed_potential(model, reference(z)).mean() - entropy_weight * volume.mean()
    torch.testing.assert_close(found, -flat(gradients(value, reference)), rtol=1e-3, atol=1e-4)
    assert found.abs().max() > 0.1


class Plain(torch.nn.Module):
    """A perceptron without its written-out derivatives."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        return self.network(z)


@pytest.mark.parametrize(("rows", "d"), [(2, 2), (4, 3), (40, 40)])
@pytest.mark.parametrize("probe", ["gaussian", "sphere"])
@pytest.mark.parametrize(("weight", "fold_penalty"), [(1.0, 0.0), (0.3, 10.0)])
def test_one_look_serves_both_players_as_two_do(rows, d, probe, weight, fold_penalty):
    """Each player's move is that of the general way at the same latents; some of them folded."""
    many = d > 3  # fewer of the latents carry Jacobians, which then are well conditioned
    generator = MLPGenerator((48,), "silu", input_scale=6.0, linear_skip=many)
    network = generator.build(d, (rows,), gen(3))
    spread = GeneratorEntropy(weight=weight, fold_penalty=fold_penalty)
    parts = {"entropy": spread, "penalty_weight": 0.7, "optimization": DOWNHILL}
    objective = BidirectionalBounds(UpperBound(probe=probe), **parts)
    x, found = randn(30, rows, dtype=torch.float32), []
    for generator in (copy.deepcopy(network), Plain(copy.deepcopy(network))):
        energy = MLP((6,), n_frequencies=0).build((rows,), gen(5))
        model = Model(energy, wide_base(rows, torch.float32), 1.7)
        game = objective.with_params(generator=Given(generator, d, learning_rate=1.0))
        state, before = game.init(model, x, gen(0)), flat(energy.parameters())
        same = itertools.cycle([torch.empty(30, d).normal_(generator=gen(7))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(game.__class__, "_latents", lambda *args, same=same: next(same).clone())
            _, row = game.step(model, state, lambda: x, gen(9))
        moves = flat(energy.parameters()) - before, flat(generator.parameters())
        found.append((*moves, row["penalty"], row["fold"]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    assert row["fold"] > 0 or rows != d or many


def test_observation_noise_spreads_generated_rows():
    x, network = torch.zeros(20_000, 2), linear(torch.zeros(2, 2))
    model = Model(Quadratic(), None, 1.0)
    row, _ = settled(network, model, "logdet", x, bound="wgan-0gp", noise=0.3)
    # a mean of n squares of N(0, 0.09)
    stderr = 0.09 / math.sqrt(20_000)
    assert_estimate(float(row["generated_energy"]), stderr, 0.09, largest_stderr=0.001)


@pytest.mark.parametrize("betas", [None, (0.1, 0.2)])
def test_the_generator_owns_its_optimizer(betas):
    """And what its entropy needs has the same; the energy's decay is not for it."""
    generator = MLPGenerator((5,), learning_rate=0.03, betas=betas)
    energys = Optimization(0.5, (0.7, 0.8), weight_decay=0.4, schedule="constant")
    objective = BidirectionalBounds(
        "zero-centered-gp", "mutual-information", generator, optimization=energys
    )
    state = objective.init(small_model(), torch.zeros(4, 2), gen(0))
    for name, expected in (
        ("energy", (0.5, (0.7, 0.8), 0.4, False)),
        ("generator", (0.03, betas or (0.7, 0.8), 0.0, False)),
        ("statistics", (0.03, betas or (0.7, 0.8), 0.0, False)),
    ):
        (group,) = state.optimizers[name].param_groups
        found = [group[key] for key in ("initial_lr", "betas", "weight_decay", "decays")]
        assert found == list(expected)


# -- entropies by the Jacobian ---------------------------------------------------------------------


@each_by_jacobian
@pytest.mark.parametrize(("rows", "d"), [(2, 2), (3, 3), (3, 2)])
def test_gradients_of_entropies_agree_with_differences(entropy, rows, d):
    network, z = written_out(d, rows), randn(40, d)

    def loss():
        return jacobian_term(network, z, entropy, 10, 0.0, gen(4)).loss

    assert_slopes(loss, list(network.parameters()), least=0.01)


class Bent(torch.nn.Module):
    """(z1 + c z1^2, z2), with determinant 1 + 2 c z1: folded where z1 < -1 / (2 c)."""

    def __init__(self, c):
        super().__init__()
        self.c = torch.nn.Parameter(torch.tensor(c))

    def forward(self, z):
        return torch.stack([z[:, 0] + self.c * z[:, 0].square(), z[:, 1]], 1)

    def determinant(self, z):
        return 1 + 2 * self.c * z[:, 0]


class Mirrored(Bent):
    """The same but for a reflection: then the positive determinants are the rarer ones."""

    def forward(self, z):
        return super().forward(z).flip(1)


@pytest.mark.parametrize("kind", [Bent, Mirrored])
def test_a_folded_latent_is_pushed_through_zero_instead_of_spread(kind):
    network, z = kind(0.4), randn(500, 2, dtype=torch.float32)
    det = network.determinant(z).detach().double()
    folded, volume = det < 0, det.abs().log()
    assert 0.05 < folded.double().mean() < 0.2
    term = jacobian_term(network, z, "logdet", 10, 10.0, gen(0))
    torch.testing.assert_close(term.volume.double(), volume, rtol=1e-4, atol=1e-4)
    assert term.fold.item() == pytest.approx(folded.double().mean())
    by_c = 2 * z[:, 0].double() / det  # of the log volume
    pushed = 10 * (volume - volume.mean()).exp() * by_c
    expected = torch.where(folded, pushed, -by_c).mean()
    (found,) = gradients(term.loss, network)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    # alone, the folded ones ask for less bend under the penalty and for more without
    for fold_penalty, sign in ((10.0, 1), (0.0, -1)):
        term = jacobian_term(network, z, "logdet", 10, fold_penalty, gen(0))
        share = gradients(term.loss, network)[0].double() + by_c[~folded].sum() / len(z)
        assert share.sign() == sign


def test_the_penalty_unfolds_a_generator():
    z, shares = randn(500, 2, dtype=torch.float32), []
    for fold_penalty in (10.0, 0.0):
        network = Bent(0.4)
        for _ in range(60):
            term = jacobian_term(network, z, "logdet", 10, fold_penalty, gen(0))
            with torch.no_grad():
                network.c -= 0.01 * gradients(term.loss, network)[0].clamp(-1, 1)
        shares.append(jacobian_term(network, z, "logdet", 10, 0.0, gen(0)).fold.item())
    assert shares[0] < 0.02 < 0.08 < shares[1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_generator_without_folds_feels_no_penalty(sign):
    weight = torch.tensor([[0.1, 1.5], [0.8, 0.2]], dtype=torch.float64)
    network, z = linear(weight * torch.tensor([1.0, sign])), randn(50, 2)
    terms = [jacobian_term(network, z, "logdet", 1, f, gen(0)) for f in (0.0, 10.0)]
    assert terms[1].fold == 0 and torch.equal(terms[0].loss, terms[1].loss)
    bare, penalized = (gradients(term.loss, network) for term in terms)
    assert torch.equal(bare[0], penalized[0])
    expected = -torch.linalg.inv(network.weight.detach()).T  # of log |det W|
    torch.testing.assert_close(bare[0], expected)


def test_orientation_and_minority():
    jacobian = randn(200, 3, 3)
    for d in (1, 2, 3):
        part = jacobian[:, :d, :d]
        assert torch.equal(orientation(part), torch.linalg.det(part) < 0)
    flags = torch.tensor([True, False, False, True, False])
    assert torch.equal(minority(flags), flags) and torch.equal(minority(~flags), flags)
    assert not minority(torch.ones(4, dtype=torch.bool)).any()


@pytest.mark.parametrize(("rows", "d"), [(1, 1), (4, 1), (2, 2), (3, 2), (3, 3), (6, 4)])
def test_the_change_of_a_volume_agrees_with_differences(rows, d):
    jacobian, change, h = randn(30, rows, d), randn(30, rows, d, seed=2), 1e-6

    def volume(j):
        return 0.5 * torch.linalg.slogdet(j.mT @ j)[1]

    expected = (volume(jacobian + h * change) - volume(jacobian - h * change)) / (2 * h)
    found = volume_change(jacobian, change)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(volume_change(jacobian.float(), change.float()).isfinite(), found > -1e9)


@pytest.mark.parametrize(("rows", "d"), [(4, 1), (2, 2), (3, 2), (3, 3), (6, 4)])
def test_the_change_of_no_volume_is_0(rows, d):
    flat_ones = torch.zeros(2, rows, d)
    flat_ones[1, :, 1:] = 1.0  # of rank 1 if d > 1
    found = volume_change(flat_ones, randn(2, rows, d, dtype=torch.float32))
    assert torch.equal(found, torch.zeros(2))


# -- the posterior's entropy gradient (VERA) -------------------------------------------------------


def posterior_score(weight, z, x, noise, width, seed=0):
    """What the term takes for the score of the generator's density at x."""
    x = x.clone().requires_grad_()
    log_width = torch.tensor(width, dtype=x.dtype).log()
    loss, _ = posterior_term(linear(weight), log_width, x, z, noise, gen(seed))
    return len(x) * torch.autograd.grad(loss, x)[0]


def test_the_posterior_gives_the_score_of_a_linear_generator(monkeypatch):
    """Its density is N(0, W W^T + noise^2 I)."""
    weight, noise, n = torch.tensor([[1.0], [0.5]]), 0.5, 200
    z = randn(n, 1, dtype=torch.float32)
    x = z @ weight.T + noise * randn(n, 2, seed=2, dtype=torch.float32)
    truth = -x @ torch.linalg.inv(weight @ weight.T + noise**2 * torch.eye(2))
    size = truth.square().mean()
    few = posterior_score(weight, z, x, noise, [0.8])
    monkeypatch.setattr(_generator_entropy, "N_POSTERIOR", 4000)
    many = posterior_score(weight, z, x, noise, [0.8])
    assert (many - truth).square().mean() < 1e-3 * size
    assert (many - truth).square().mean() < (few - truth).square().mean() < 0.1 * size
    wrong = posterior_score(weight, z, x, 1.2 * noise, [0.8])
    assert (wrong - truth).square().mean() > 0.01 * size


@pytest.mark.parametrize(("n_posterior", "low", "high"), [(1000, 0.97, 1.03), (20, 0.8, 0.97)])
def test_the_posteriors_loss_has_minus_the_entropys_gradient(monkeypatch, n_posterior, low, high):
    """x = w z + s e has entropy log(w^2 + s^2) / 2 + const; few draws shrink its gradient."""
    monkeypatch.setattr(_generator_entropy, "N_POSTERIOR", n_posterior)
    n, noise, w = 20_000, 0.5, 0.8
    z, e = randn(n, 1, dtype=torch.float32), randn(n, 1, seed=2, dtype=torch.float32)
    network = linear(torch.tensor([[w]]))
    log_width = torch.tensor([-0.5])
    x = network(z) + noise * e
    loss, _ = posterior_term(network, log_width, x, z, noise, gen(0))
    found = gradients(loss, network)[0].item()
    assert low < found / (-w / (w**2 + noise**2)) < high


@pytest.mark.parametrize("ratio", [1.0, 1.3, 0.6])
def test_the_width_settles_at_the_posteriors(ratio):
    """The bound's slope in log width t of x = w z + noise is 1 - t^2 / s^2, s^-2 = 1 + w^2/noise^2.

    Latents that do not meet are so many experiments.
    """
    d, w, noise = 20_000, 0.8, 0.5
    network = torch.nn.Module()
    network.forward = lambda z: w * z
    z, e = randn(1, d, dtype=torch.float32), randn(1, d, seed=2, dtype=torch.float32)
    width = ratio / math.sqrt(1 + w**2 / noise**2)
    log_width = torch.full((d,), math.log(width), requires_grad=True)
    x = w * z + noise * e
    _, loss = posterior_term(network, log_width, x, z, noise, gen(0))
    (found,) = torch.autograd.grad(loss, log_width)
    assert_mean(found, ratio**2 - 1, largest_stderr=0.025)


def test_the_density_of_a_noisy_generator_is_estimated_from_above():
    weight, noise, n = torch.tensor([[1.0], [0.5]]), 0.3, 4000
    cov = weight @ weight.T + noise**2 * torch.eye(2)
    density = torch.distributions.MultivariateNormal(torch.zeros(2), cov)
    own = randn(n, 1, dtype=torch.float32) @ weight.T
    x = own + noise * randn(n, 2, seed=2, dtype=torch.float32)
    gaps = []
    for k in (5, 100, 5000):
        centers = randn(k, 1, seed=3, dtype=torch.float32) @ weight.T
        gap = noisy_log_density(centers, x, own, noise) - density.log_prob(x)
        gaps.append(gap.double().mean().item())
    assert gaps[0] > 0.1 and gaps[0] > gaps[1] > abs(gaps[2])
    assert_estimate(gaps[2], 0.005, 0.0, largest_stderr=0.005)
    single = noisy_log_density(own[:0], x, own, noise)  # no centers: the density given the latent
    normal = torch.distributions.Normal(own, noise).log_prob(x).sum(1)
    torch.testing.assert_close(single, normal, rtol=1e-4, atol=1e-4)


# -- information (MEG) -----------------------------------------------------------------------------


class Product(torch.nn.Module):
    """T(x, z) = a x z."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, pair):
        return self.a * pair[:, 0] * pair[:, 1]


def test_information_is_the_jensen_shannon_estimate():
    x, z = randn(50, 1), randn(50, 1, seed=2)
    a, b = x[:, 0].numpy(), z[:, 0].numpy()
    joint, product = 0.7 * a * b, 0.7 * a * np.roll(b, 1)
    expected = np.logaddexp(0, -joint).mean() + np.logaddexp(0, product).mean()
    assert information_term(Product(0.7), x, z).item() == pytest.approx(expected, rel=1e-12)
    nothing = information_term(Product(0.0), x, z).item()
    assert nothing == pytest.approx(2 * math.log(2))


class LogRatio(torch.nn.Module):
    """c log p(x, z) / (p(x) p(z)) of a correlated Gaussian pair."""

    def __init__(self, rho):
        super().__init__()
        self.rho, self.c = rho, torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, pair):
        x, z = pair.unbind(1)
        rest = 1 - self.rho**2
        quadratic = self.rho * (2 * x * z - self.rho * (x**2 + z**2)) / (2 * rest)
        return self.c * (quadratic - 0.5 * math.log(rest))


@pytest.mark.parametrize("rho", [0.8, 0.5])
def test_the_log_ratio_of_densities_is_the_best_statistic(rho):
    """There the estimate is stationary; with the ratio of another correlation it is not."""
    n, parts = 100_000, 100
    z = randn(n, 1)
    x = 0.8 * z + 0.6 * randn(n, 1, seed=2)
    statistics = LogRatio(rho)
    found = [
        gradients(information_term(statistics, a, b), statistics)[0].item()
        for a, b in zip(x.split(n // parts), z.split(n // parts), strict=True)
    ]
    if rho == 0.8:
        assert_mean(found, 0.0, largest_stderr=0.002)
    else:
        assert np.mean(found) < -0.01


# -- training --------------------------------------------------------------------------------------

CRITIC = {"iteration", "data_energy", "generated_energy", "penalty"}
OF_ENTROPY = {
    **{name: {"lower_bound", "fold", "s1_low", "s1_median"} for name in BY_JACOBIAN},
    "mutual-information": {"information"},
    "variational": {"posterior_width"},
}


def tensors_of(state):
    modules = [state.model.energy, *state.objective.modules.values()]
    return [t for m in modules for t in (*m.parameters(), *m.buffers())]


def trained(objective, columns=2, max_iter=3, n=64, batch_size=32):
    energy = MLP((8,), n_frequencies=0).build((columns,), gen(1))
    model = Model(energy, normal_base(columns), 1.0)
    table = ArrayTable(randn(n, columns, dtype=torch.float32))
    settings = Settings(max_iter, batch_size=batch_size, eval_every=1)
    return train(model, objective, table, settings=settings, rng=gen(0))


def assert_sound(state, updates):
    assert state.iteration == updates and state.retries == 0
    assert all(math.isfinite(v) for row in state.history for v in row.values())
    assert all(t.isfinite().all() for t in tensors_of(state))


@pytest.mark.parametrize(("bound", "entropy"), PAIRS)
def test_every_pair_trains_and_tells_what_it_saw(bound, entropy):
    objective = BidirectionalBounds(bound, entropy, MLPGenerator((8,)))
    state = trained(objective)
    assert_sound(state, 3)
    moved = {name for name, optimizer in state.objective.optimizers.items() if optimizer.state}
    assert moved == ({"energy", "generator"} if "wgan" in bound else {*state.objective.optimizers})
    names = CRITIC if bound.startswith("wgan") else CRITIC | OF_ENTROPY[entropy]
    names = names | {"hinge_open"} if bound == "bidirectional" else names
    assert all(set(row) == names for row in state.history[1:])
    again = trained(objective)
    for one, other in zip(tensors_of(state), tensors_of(again), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("entropy", BY_JACOBIAN)
def test_fewer_latents_than_columns_train(entropy, exponent):
    generator = MLPGenerator((8,), latent_dim=2)
    objective = BidirectionalBounds(UpperBound(exponent=exponent), entropy, generator)
    assert_sound(trained(objective, columns=4), 3)


def test_rows_of_images_are_flattened():
    images = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Unflatten(1, (1, 2, 3)))
    shape = (1, 2, 3)
    state = trained(BidirectionalBounds(generator=Given(images, 2), image_shape=shape), columns=6)
    assert_sound(state, 3)
    network = state.objective.modules["generator"]
    assert network(torch.zeros(5, 2)).shape == (5, 6)
    assert network.module(torch.zeros(5, 2)).shape == (5, 1, 2, 3)
    flat = BidirectionalBounds(generator=MLPGenerator((8,), latent_dim=2), image_shape=shape)
    network = flat.build_generator((1, 2, 3), gen(0))
    assert network.value_and_jacobian(torch.zeros(5, 2))[1].shape == (5, 6, 2)  # written out


class Recorder(torch.nn.Module):
    """A generator that counts the rows of each Jacobian."""

    def __init__(self, d):
        super().__init__()
        self.network, self.seen = MLPGenerator((d + 2,)).build(d, (d + 10,), gen(0)), []

    def forward(self, z):
        return self.network(z)

    def value_and_jacobian(self, z):
        self.seen.append(len(z))
        return self.network.value_and_jacobian(z)


def test_many_latents_iterate_for_the_smallest_singular_value():
    network = Recorder(70)
    spread = GeneratorEntropy("singular-value", n_lobpcg=2)
    objective = BidirectionalBounds(entropy=spread, generator=Given(network, 70))
    state = trained(objective, columns=80, max_iter=2, batch_size=8)
    assert_sound(state, 2)
    assert network.seen == []
    z = randn(200, 70, dtype=torch.float32)
    exact = smallest_singular_value(network, z, solver="exact").value
    low, median = (state.history[-1][name] for name in ("s1_low", "s1_median"))
    assert float(exact.max()) < low < median < 1  # too large: two iterations are too few


@pytest.mark.parametrize("entropy", BY_JACOBIAN[1:])
def test_the_history_has_the_smallest_singular_values(entropy):
    """Of a linear generator, where every latent has the same."""
    network, model, _ = matched("three", torch.float32)
    row, _ = settled(network, model, entropy, randn(50, 3, dtype=torch.float32))
    s = float(torch.linalg.svdvals(network.weight.detach())[-1])
    assert row["s1_low"] == pytest.approx(s, rel=1e-4) == row["s1_median"]


@pytest.mark.parametrize(("d", "rows"), [(50, 20), (80, 16)])
def test_few_rows_carry_large_jacobians(d, rows):
    network = Recorder(d)
    objective = BidirectionalBounds(generator=Given(network, d))
    assert_sound(trained(objective, columns=d + 10, max_iter=1, n=200, batch_size=200), 1)
    assert max(network.seen) == rows


def with_batch_norm():
    nn = torch.nn
    return nn.Sequential(nn.Linear(2, 8), nn.PReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2))


@each_by_jacobian
def test_batch_normalization_keeps_its_statistics_of_whole_batches(entropy):
    """Two batches of generated rows per update; Jacobians use what was kept and add nothing."""
    network = with_batch_norm()
    state = trained(BidirectionalBounds(entropy=entropy, generator=Given(network)))
    network = state.objective.modules["generator"]
    assert_sound(state, 3)
    assert int(network[2].num_batches_tracked) == 6
    assert network.training and all(m.training for m in network.modules())
    assert (network[2].running_mean != 0).all()


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_recover_starts_anew_beside_the_energy(entropy):
    objective = BidirectionalBounds("zero-centered-gp", entropy, MLPGenerator((8,)))
    model, x = small_model(base=False), randn(32, 2, dtype=torch.float32)
    state = objective.init(model, x, gen(0))
    for optimizer in state.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0123
    state, _ = objective.step(model, state, lambda: x, gen(1))
    with torch.no_grad():
        for p in state.modules["generator"].parameters():
            p.fill_(math.nan)
    energy = flat(model.energy.parameters())
    fresh = objective.recover(model, state, x, gen(2))
    assert torch.equal(flat(model.energy.parameters()), energy)
    assert fresh.optimizers.keys() == state.optimizers.keys()
    for name, optimizer in fresh.optimizers.items():
        assert optimizer.param_groups[0]["lr"] == 0.0123 and not optimizer.state
        player = model.energy if name == "energy" else fresh.modules[name]
        mine = optimizer.param_groups[0]["params"]
        assert all(a is b for a, b in zip(mine, player.parameters(), strict=True))
    fresh, row = objective.step(model, fresh, lambda: x, gen(3))
    assert all(value.isfinite() for value in row.values())
    assert flat(fresh.modules["generator"].parameters()).isfinite().all()


def constant():
    network = MLPGenerator((8, 8)).build(2, (2,), gen(0))
    network.layers[0].weight.data.zero_()
    return network


def of_rank_1():
    return linear(torch.tensor([[1.0, 2.0], [0.5, 1.0]]))


def narrow():
    return MLPGenerator((1,)).build(2, (2,), gen(0))


@pytest.mark.parametrize("build", [constant, of_rank_1, narrow])
@pytest.mark.parametrize(("bound", "entropy"), PAIRS[:6])
@pytest.mark.parametrize("exponent", [2.0, 1.0])
def test_a_degenerate_generator_makes_nothing_infinite(build, bound, entropy, exponent):
    network = build()
    objective = BidirectionalBounds(
        UpperBound(bound, exponent), entropy, Given(network), penalty_weight=1.0
    )
    assert_sound(trained(objective, max_iter=5), 5)


@pytest.mark.parametrize("build", [constant, of_rank_1, narrow])
def test_a_degenerate_generator_is_reported(build):
    report = reported(build(), Model(Quadratic(), None, 1.0), torch.zeros(3, 2))
    assert report.degenerate == 1 and math.isnan(report.cubo.value)
    assert math.isfinite(report.lower.value) and report.lower.value < -5


@pytest.mark.parametrize("d", [70, 76])
def test_a_lost_direction_among_many_is_reported(monkeypatch, d):
    monkeypatch.setattr(fitted_bounds, "N_ITERATED", 32)
    scales = torch.ones(d)
    scales[3] = 0.0
    model, rows = Model(Quadratic(), None, 1.0), torch.zeros(3, d)
    report = reported(linear(scales.diag()), model, rows, entropy="singular-value")
    assert report.degenerate == 1


# -- bad parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "parameters"),
    [
        ("observation_noise .*got -1.*'auto'", {"generator": MLPGenerator(observation_noise=-1)}),
        ("with bound='bidirectional', got 'variational'", {"entropy": "variational"}),
        ("got 'mutual-information'.*Use", {"entropy": "mutual-information"}),
        (
            r"observation_noise must be > 0 with entropy='variational', got 0\. Use 'auto'",
            {
                "bound": "zero-centered-gp",
                "entropy": "variational",
                "generator": MLPGenerator(observation_noise=0),
            },
        ),
    ],
)
def test_bad_parameters_are_named_at_init(message, parameters):
    objective = BidirectionalBounds(**parameters)  # the constructor stores, no more
    with pytest.raises(ValueError, match=message):
        objective.init(small_model(), torch.zeros(4, 2), gen(0))


def test_cubo_sees_a_mode_that_the_generator_misses():
    """Half of the model is at 8; the generator is exact at 0, its weights are even there."""
    means = np.array([[0.0, 0.0], [8.0, 8.0]])
    cov = np.eye(2)[None].repeat(2, 0)
    two = MixtureBase.from_moments(np.array([0.5, 0.5]), means, cov, "cpu")
    model = Model(OfBase(two), None, 1.0)
    rows = two.sample(400, gen(5))
    at_rows = model.potential(rows).double()
    objective = BidirectionalBounds(generator=Given(linear(torch.eye(2))))
    parts = model, objective, linear(torch.eye(2)), 2, at_rows, gen(3)
    blind = report_generator(*parts).cubo
    truth = float(at_rows.mean())
    assert blind.value == pytest.approx(truth - math.log(2), abs=0.01) and blind.ess > 16000
    near = Defensive().fit(rows, None, gen(4))
    seen = report_generator(*parts, near).cubo
    assert truth - 2 * seen.stderr < seen.value < truth + 0.3
