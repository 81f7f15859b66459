"""SteinEBM: the two players' gradients, what training reaches, and the estimator around them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from skebm.bases import Gaussian, Mixture, TorchDistribution
from skebm.bases.mixture import MixtureBase
from skebm.bases.uniform import UniformBase
from skebm.data import ArrayTable
from skebm.datasets import GaussianDensity, GaussianMixtureDensity
from skebm.energies import MLP, GaussianBernoulliRBM, LinearICA, Model, Zero
from skebm.energies.ica import ICAEnergy
from skebm.energies.learned_gaussian import LearnedGaussian, with_learned_gaussian
from skebm.energies.rbm import RBMEnergy
from skebm.energies.reweighted import Reweighted
from skebm.networks import Critic
from skebm.objectives import LearnedStein, Optimization
from skebm.train import Settings, train
from tests import cases
from tests.closed_forms import (
    Quadratic,
    assert_estimate,
    assert_mean,
    assert_variance,
    autograd_jacobian,
    autograd_score,
    grid,
    langevin_variance,
    normal_base,
    rbm_mixture,
)
from tests.contracts.test_copies import assert_same
from tests.generators import gen, randomized

pytestmark = cases.QUIET

# -- the learned Gaussian --------------------------------------------------------------------------

SHIFT, LOG_SCALE = [0.4, -0.7], [0.5, -0.3]


def tilted_base():
    mean, cov = np.array([[0.5, -1.0]]), np.array([[[1.2, 0.5], [0.5, 0.6]]])
    return MixtureBase.from_moments(np.ones(1), mean, cov, "cpu", torch.float64)


def moved(module, base=None):
    """A learned Gaussian around a module, away from its start."""
    energy = with_learned_gaussian(module, tilted_base() if base is None else base)
    with torch.no_grad():
        energy.shift.copy_(torch.tensor(SHIFT))
        energy.log_scale.copy_(torch.tensor(LOG_SCALE))
    return energy


def small_mlp():
    """A perceptron in float64 whose output layer is not 0."""
    return randomized(MLP((6,), n_frequencies=0).build((2,), gen(0)).double(), 1.0)


def rows(n=40, d=2, seed=1):
    return 1.5 * torch.randn(n, d, dtype=torch.float64, generator=gen(seed))


def test_without_energy_it_is_the_gaussian_with_the_moments_learned():
    base, energy, x = tilted_base(), moved(Zero()), rows()
    to_x = torch.linalg.inv(base.factors[0])  # y = (x - c) F is whitened
    mean = base.means[0] + torch.tensor(SHIFT, dtype=torch.float64) @ to_x
    cov = to_x.T @ torch.diag(torch.tensor(LOG_SCALE, dtype=torch.float64).mul(2).exp()) @ to_x
    truth = torch.distributions.MultivariateNormal(mean, cov).log_prob(x)
    torch.testing.assert_close(base.log_prob(x) - energy(x), truth, rtol=1e-6, atol=1e-6)
    cells, volume = grid(-12, 12, 500, 2)
    mass = (base.log_prob(cells) - energy(cells)).detach().exp().sum() * volume
    assert float(mass) == pytest.approx(1, abs=1e-6)  # log Z = 0


def test_it_starts_at_the_energy_alone():
    x, module = rows(), small_mlp()
    torch.testing.assert_close(with_learned_gaussian(module, tilted_base())(x), module(x))


def test_only_one_gaussian_has_moments_to_learn():
    module = small_mlp()
    two = MixtureBase.from_moments(np.full(2, 0.5), np.eye(2), np.stack([np.eye(2)] * 2), "cpu")
    low, high = torch.zeros(2), torch.ones(2)
    for base in (None, two, UniformBase(low, high, high)):
        assert with_learned_gaussian(module, base) is module
    assert isinstance(with_learned_gaussian(module, normal_base(2)), LearnedGaussian)


# -- the two players' steps ------------------------------------------------------------------------

STILL = 1e-30  # a learning rate
CONSTANT = {"weight_decay": 0.0, "schedule": "constant"}


def plain(rate):
    """Gradient descent; with a step of 1 it subtracts the gradient."""
    return Optimization(rate, method="sgd", **CONSTANT)


def a_model(temperature):
    """Float64: a perceptron in a learned Gaussian over a base."""
    return Model(moved(small_mlp()), tilted_base(), temperature)


def a_state(objective, model, d=2):
    """What the objective starts from, with the critic in float64 and away from its start."""
    state = objective.init(model, torch.zeros(4, d, dtype=torch.float64), gen(0))
    return state, randomized(state.modules["critic"].double(), 0.6)


def taken(before, module):
    """What a plain step of size 1 subtracted from each parameter: the gradient."""
    return {name: before[name] - p.detach() for name, p in module.named_parameters()}


def parameters_of(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("energy_l2", [0.0, 0.3])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_model_descends_the_discrepancy_of_a_fixed_critic(temperature, energy_l2):
    """All of mean[s . f + div f], by double backward: the trace has no share in it."""
    model, x = a_model(temperature), rows()
    still = Critic((7, 6), learning_rate=STILL)
    objective = LearnedStein(still, 1, 0.7, energy_l2, max_norm=1e9, optimization=plain(1.0))
    state, critic = a_state(objective, model)
    f, divergence = critic(x).detach(), autograd_jacobian(critic, x).diagonal(dim1=1, dim2=2).sum(1)
    score = model.energy.score(x) / temperature  # by autograd; the step has a closed form
    score = score + autograd_score(model.base.log_prob, x)
    loss = ((score * f).sum(1) + divergence).mean() + energy_l2 * model.energy(x).square().mean()
    named = dict(model.energy.named_parameters())
    expected = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    before = parameters_of(model.energy)
    objective.step(model, state, lambda: x, gen(1))
    for (name, got), truth in zip(taken(before, model.energy).items(), expected, strict=True):
        truth = torch.zeros_like(got) if truth is None else truth
        torch.testing.assert_close(got, truth, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_critic_ascends_the_penalized_discrepancy(temperature):
    model, x, l2 = a_model(temperature), rows(12), 0.7
    moving = Critic((7, 6), learning_rate=1.0)
    objective = LearnedStein(moving, 1, l2, max_norm=1e9, optimization=plain(STILL))
    state, critic = a_state(objective, model)
    score = autograd_score(lambda z: -model.energy(z) / temperature, x)
    score = score + autograd_score(model.base.log_prob, x)

    def gain():
        """Penalized discrepancy, the divergence by autograd."""
        f = critic(x).detach()
        stein = (score * f).sum(1) + autograd_jacobian(critic, x).diagonal(dim1=1, dim2=2).sum(1)
        return float(stein.mean() - l2 * f.square().sum(1).mean()), stein

    _, stein = gain()
    before = parameters_of(critic)
    _, row = objective.step(model, state, lambda: x, gen(1))
    assert float(row["discrepancy"]) == pytest.approx(float(stein.mean()), rel=1e-9)
    assert float(row["stein_sd"]) == pytest.approx(float(stein.std()), rel=1e-9)
    gradient, h = taken(before, critic), 1e-5
    for name, p in critic.named_parameters():
        direction = torch.randn(p.shape, dtype=torch.float64, generator=gen(3))
        values = []
        for sign in (1, -1):
            for other, start in before.items():
                dict(critic.named_parameters())[other].data.copy_(start)
            p.data.add_(sign * h * direction)
            values.append(gain()[0])
        slope = (values[0] - values[1]) / (2 * h)
        assert float((-gradient[name] * direction).sum()) == pytest.approx(slope, abs=1e-6), name


@pytest.mark.parametrize("trace", ["exact", "gaussian"])
def test_the_trace_in_training_is_the_critics(trace):
    """Reported Stein values have the spread of the probes, with the same rows in each step."""
    model, critic = a_model(1.0), Critic((5,), trace=trace)
    objective = LearnedStein(critic, 1, optimization=plain(STILL))
    state, _ = a_state(objective, model)
    found = [float(objective.step(model, state, rows, gen(i))[1]["discrepancy"]) for i in (1, 2)]
    assert (found[0] == pytest.approx(found[1], abs=1e-6)) == (trace == "exact")


@pytest.mark.parametrize(("own", "rate"), [(None, 0.03), (0.2, 0.2)])
def test_the_critic_steps_at_its_own_rate_or_at_that_of_the_energy(own, rate):
    settings = Optimization(0.03, (0.3, 0.8), weight_decay=0.05)
    objective = LearnedStein(Critic((5,), learning_rate=own), optimization=settings)
    groups = {
        k: o.param_groups[0] for k, o in a_state(objective, a_model(1.0))[0].optimizers.items()
    }
    assert (groups["energy"]["lr"], groups["critic"]["lr"]) == (0.03, rate)
    for group in groups.values():
        assert (group["betas"], group["weight_decay"]) == ((0.3, 0.8), 0.05)


@pytest.mark.parametrize("critic_steps", [1, 4])
def test_the_critic_moves_so_often_with_fresh_rows(critic_steps):
    model, drawn = a_model(1.0), []
    objective = LearnedStein(Critic((5,)), critic_steps, l2=0.7)
    state, critic = a_state(objective, model)
    constrained = []
    critic.constrain = lambda: constrained.append(1)

    def draw():
        drawn.append(1)
        return rows(8, seed=len(drawn))

    objective.step(model, state, draw, gen(1))
    assert len(constrained) == critic_steps and len(drawn) == critic_steps + 1


@pytest.mark.parametrize("which", ["energy", "critic"])
def test_gradients_are_scaled_down_to_the_largest_norm(which):
    model, rates = a_model(1.0), {"energy": STILL, "critic": STILL, which: 1.0}
    critic, steps = Critic((7,), learning_rate=rates["critic"]), plain(rates["energy"])
    objective = LearnedStein(critic, 1, l2=0.7, max_norm=0.01, optimization=steps)
    state, critic = a_state(objective, model)
    module = model.energy if which == "energy" else critic
    before = parameters_of(module)
    objective.step(model, state, rows, gen(1))
    norm = torch.cat([g.flatten() for g in taken(before, module).values()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("l2", "trace"), [(0.5, "exact"), (2.0, "exact"), (0.5, "gaussian"), (0.5, "rademacher")]
)
def test_a_critic_alone_reaches_its_optimum(l2, trace):
    """Model N(0, I), data N(mu, I): f* = -mu / (2 l2) everywhere, discrepancy |mu|^2 / (2 l2)."""
    mu, model, rng = torch.tensor([1.0, -0.5, 0.7]), Model(Quadratic(), None, 1.0), gen(0)
    critic = Critic((16,), learning_rate=0.01, trace=trace)
    objective = LearnedStein(
        critic, 50, l2, optimization=Optimization(STILL, (0.9, 0.99), **CONSTANT)
    )
    state = objective.init(model, torch.zeros(4, 3), rng)

    def draw():
        return mu + torch.randn(256, 3, generator=rng)

    for i in range(8):
        for group in state.optimizers["critic"].param_groups:
            group["lr"] = 0.01 * (1 - i / 8) ** 2
        state, _ = objective.step(model, state, draw, rng)
    critic, x = state.modules["critic"], mu + torch.randn(20_000, 3, generator=gen(9))
    with torch.no_grad():
        f, divergence = critic.value_and_divergence(x)
    optimum = -mu / (2 * l2)
    assert float((f - optimum).square().sum(1).mean().sqrt()) < 0.08 * float(optimum.norm())
    truth = float(mu @ mu) / (2 * l2)
    stein = (divergence - (x * f).sum(1)).mean()
    penalized = float(stein - l2 * f.square().sum(1).mean())
    assert float(stein) == pytest.approx(truth, rel=0.04)
    assert penalized == pytest.approx(truth / 2, rel=0.04)  # and none is better
    assert model.energy.k == 1


class Nothing(torch.nn.Module):
    """E = 0 with a parameter that has no effect."""

    def __init__(self, n_features=None):
        super().__init__()
        self.idle = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return 0 * self.idle * x.sum(-1)


def test_training_recovers_mean_and_scale():
    """The Gaussian of a base that is far off moves to the data's: algorithms.md 3.9, item 8."""
    mean, scale, rng = torch.tensor([0.6, -0.8]), torch.tensor([0.7, 1.4]), gen(0)
    x = mean + scale * torch.randn(4000, 2, generator=rng)
    base = normal_base(2, scale=2.0, mean=0.5)
    model = Model(with_learned_gaussian(Nothing(), base), base, 1.0)
    steps = Optimization(0.03, (0.5, 0.9), weight_decay=0.0)
    objective = LearnedStein(Critic((16,), learning_rate=0.02), 2, l2=1.0, optimization=steps)
    train(model, objective, ArrayTable(x), settings=Settings(250, 256), rng=rng)
    got_mean = 0.5 + 2 * model.energy.shift.detach()
    got_scale = 2 * model.energy.log_scale.detach().exp()
    torch.testing.assert_close(got_mean, x.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(got_scale, x.std(0), rtol=0.05, atol=0)


# -- the held-out discrepancy ----------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 40])  # 40: random probes, which are exact for these
def test_judgement_is_the_discrepancy_but_for_a_constant(d):
    """Two models' values differ as E|s_q - s_p|^2 / (2 l2) does, in closed form on N(0, I)."""
    l2, b, x, base = 0.8, 0.25, torch.randn(3000, d, generator=gen(0)), normal_base(d, scale=2.0)
    objective, values, losses, truths = LearnedStein(Critic((4,)), l2=l2), [], [], []
    for k, m in ((1.3, 0.2), (0.6, -0.4)):
        model = Model(Quadratic(k, mean=m), base, 1.0)
        state = objective.init(model, x, gen(1))
        values.append(objective.judge(model, state, x, lambda: None).value)
        score = -k * (x.double() - m) - b * x
        losses.append((0.5 * score.square().sum(1) - k * d) / l2)
        truths.append(d * ((1 - k - b) ** 2 + (k * m) ** 2) / (2 * l2))
        assert values[-1] == pytest.approx(-float(losses[-1].mean()), rel=1e-5)
    stderr = float((losses[1] - losses[0]).std()) / math.sqrt(len(x))
    assert_estimate(values[0] - values[1], stderr, truths[1] - truths[0], 0.05 * d)


def test_an_energy_with_kinks_is_judged_by_the_critic():
    kinked = MLP((6,), "leaky_relu", n_frequencies=0, output="quadratic").build((2,), gen(0))
    model, x = Model(kinked, normal_base(2), 1.0), rows().float()
    objective = LearnedStein(Critic((5,)), l2=0.9)
    state = objective.init(model, x, gen(1))
    critic, score = state.modules["critic"], model.potential_and_score(x)[1]
    f = critic(x).detach()
    stein = (score * f).sum(1) + autograd_jacobian(critic, x).diagonal(dim1=1, dim2=2).sum(1)
    penalized = float(stein.mean() - 0.9 * f.square().sum(1).mean())
    value = objective.judge(model, state, x, lambda: None).value
    assert value == pytest.approx(-penalized, rel=1e-4, abs=1e-6)


# -- the estimator ---------------------------------------------------------------------------------


def tiny(**params):
    return cases.tiny("SteinEBM", **{"calibrate": False, "learning_rate": 0.01, **params})


MODES = GaussianMixtureDensity([[-4.0, 0.0], [4.0, 1.0]], [0.8, 0.6], [0.8, 0.2])
STRETCH = np.array([1.0, 50.0])


def table(n=200, seed=0):
    """Two modes apart, 0.8 and 0.2, in columns of unlike units."""
    return MODES.sample(n, random_state=seed) * STRETCH + [0.0, 1e3]


BASES = {
    "gaussian": {"base": "gaussian"},
    "fixed gaussian": {"base": "gaussian", "learn_base": False},
    "diagonal": {"base": Gaussian("diagonal", inflation=1.3)},
    "mixture": {"base": Mixture(n_components=2)},
    "one component": {"base": Mixture(n_components=1)},
    "kernel": {"base": "kernel"},
    "uniform": {"base": "uniform"},
}


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("name", BASES)
def test_the_density_integrates_to_one(name, calibrate):
    est = tiny(**BASES[name], calibrate=calibrate, log_partition="auto").fit(table())
    axes = [np.linspace(-16, 16, 320), np.linspace(600, 1450, 320)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    mass = np.exp(est.score_samples(cells)).sum() * cell
    assert mass == pytest.approx(1, abs=0.005)
    lifted = isinstance(est.energy_, Reweighted)
    assert (est.calibration_ is not None) == calibrate and lifted <= calibrate
    if calibrate:
        n_components, ess, gain = est.calibration_
        assert n_components == 2 and ess > 40 and gain >= 0
    learned = any(isinstance(part, LearnedGaussian) for part in est.energy_.modules())
    assert learned == (name in ("gaussian", "diagonal"))
    assert not isinstance(est.energy_, Zero)


@pytest.fixture(scope="module")
def plain_scores():
    return tiny().fit(table()).score_samples(table(40, seed=1))


@pytest.mark.parametrize(
    "params",
    [
        {"critic__spectral_norm": True},
        {"critic__weight_clip": 0.01},
        {"critic__dropout": 0.5},
        {"critic__activation": "tanh", "critic__linear_skip": True},
        {"critic__learning_rate": 0.05},
        {"critic__trace": "gaussian"},
    ],
    ids=str,
)
def test_every_option_changes_the_fit(params, plain_scores):
    est = tiny().set_params(**params).fit(table())
    values = est.score_samples(table(40, seed=1))
    assert np.isfinite(values).all() and (values != plain_scores).any()
    assert {"discrepancy", "stein_sd", "critic_norm", "data_energy"} <= set(est.history_[-1])
    if "critic__weight_clip" in params:
        layers = est.critic_network_.network.layers
        assert max(float(p.abs().max()) for p in layers.parameters()) <= 0.01 + 1e-9


def test_the_critic_takes_rows_in_units_of_x_and_is_the_one_trained(monkeypatch):
    seen, step = [], LearnedStein.step

    def watched(self, model, state, draw, rng):
        seen.append(state.modules["critic"])
        return step(self, model, state, draw, rng)

    monkeypatch.setattr(LearnedStein, "step", watched)
    X = table()
    est = tiny().fit(X)
    values = est.critic_(X[:7])
    assert values.shape == (7, 2) and values.dtype == np.float64
    z = torch.from_numpy((X[:7] - X.mean(0)) / X.std(0)).float()
    with torch.no_grad():
        np.testing.assert_allclose(values, seen[-1](z), rtol=1e-3, atol=1e-4)


def test_dropout_of_the_critic_draws_by_the_seed():
    before = torch.get_rng_state()
    critic = Critic((6,), dropout=0.3, trace="gaussian")
    assert_same(*(tiny(critic=critic).fit(table()) for _ in range(2)), "SteinEBM")
    assert torch.get_rng_state().equal(before)


def test_a_warm_start_goes_on_with_its_critic():
    """At a rate of nothing it stays, under another seed too."""
    params = {"learning_rate": 1e-20, "random_state": 1}
    est = tiny(**params | {"random_state": 0}, warm_start=True).fit(table())
    before = est.critic_(table())
    np.testing.assert_array_equal(
        est.set_params(random_state=1).fit(table()).critic_(table()), before
    )
    assert est.n_iter_ == 8
    assert (tiny(**params).fit(table()).critic_(table()) != before).all()


def test_a_calibrated_warm_start_goes_on_with_the_energy_before_its_calibration():
    params = {"calibrate": True, "warm_start": True, "base": Mixture(n_components=2)}
    est, plain = (
        tiny(**params | {"calibrate": c}).fit(table()).fit(table()) for c in (True, False)
    )
    assert isinstance(est.energy_, Reweighted) and est.n_iter_ == 8
    z = torch.randn(50, 2, generator=gen(0))
    torch.testing.assert_close(est.energy_.module(z), plain.energy_(z))


# -- draws -----------------------------------------------------------------------------------------

LINE = 3 + 2 * np.random.RandomState(0).randn(4000, 1)


@pytest.fixture(scope="module")
def line():
    """The model is N(mean, sd^2) of these rows exactly."""
    est = tiny(energy=Nothing, learn_base=False, max_iter=1).fit(LINE)
    share = float(est.base_.tail_share)
    est.density_ = est.density_.without_tails()
    expected = stats.norm(*moments()).logpdf(LINE).mean()
    assert est.score(LINE) == pytest.approx(expected, abs=1e-4) and share < 0.02
    return est


def moments():
    return float(LINE.mean()), float(LINE.std())


def test_metropolis_draws_follow_the_density(line):
    draws = line.sample(8000, random_state=0, method="mala")[:, 0]
    mean, sd = moments()
    assert_mean(draws, mean, 0.03)
    assert_variance(draws, sd**2, 0.02)


@pytest.mark.parametrize(("step_size", "noise_std"), [(0.2, 0.1), (0.05, 0.4)])
def test_tempered_chains_have_their_known_variance(step_size, noise_std, line):
    """Eq. 19 samples another density, on a Gaussian of variance b^2 / (1 - (1 - a)^2)."""
    draws = line.sample(
        8000, 0, method="langevin", n_steps=120, step_size=step_size, noise_std=noise_std
    )
    mean, sd = moments()
    truth = sd**2 * langevin_variance(step_size, noise_std)
    assert_mean(draws[:, 0], mean, 0.05)
    assert_variance(draws[:, 0], truth, 0.02)


def test_chains_start_at_the_rows_given(line):
    starts = np.linspace(-5, 11, 9)[:, None]
    params = {"method": "langevin", "step_size": 0.1, "noise_std": 0.0, "init": starts}
    mean, _ = moments()
    moved = line.sample(9, 0, n_steps=3, **params)
    np.testing.assert_allclose(moved, mean + 0.9**3 * (starts - mean), rtol=1e-4, atol=1e-4)


MACHINE = {
    "B": np.array([[2.0, -1.0], [0.5, 1.5]]),
    "b": np.array([0.3, -0.2]),
    "c": np.array([0.4, -0.6]),
}


UNMOVED = {
    "base": None,
    "standardize": False,
    "optimizer": Optimization(1e-20, weight_decay=0.0),
    "log_partition": "auto",
}


@pytest.fixture(scope="module")
def machine():
    """The model is the restricted Boltzmann machine above, up to a step of 1e-20."""
    energy = GaussianBernoulliRBM(2, *MACHINE.values())
    return tiny(energy=energy, calibrate=True, **UNMOVED).fit(table() / STRETCH)


@pytest.mark.parametrize("method", ["auto", "mala", "gibbs"])
def test_draws_of_a_machine_follow_its_mixture(method, machine):
    _, means, mass, log_z = rbm_mixture(*MACHINE.values())
    draws = machine.sample(8000, 0, method=method, n_steps=60)
    center = mass @ means
    for j in range(2):
        assert_mean(draws[:, j], center[j], 0.05)
        assert_variance(draws[:, j], 1 + mass @ (means[:, j] - center[j]) ** 2, 0.02)
    assert machine.log_partition_.method == "exact" and machine.calibration_ is None
    assert machine.log_partition_.value == pytest.approx(log_z, abs=1e-5)


MIXING = np.array([[1.0, 0.4, 0.0], [-0.5, 1.1, 0.3], [0.2, 0.0, 0.7]])


@pytest.mark.parametrize("source", ["logistic", "laplace"])
@pytest.mark.parametrize("method", ["auto", "exact"])
def test_exact_draws_have_the_sources_of_the_model(source, method):
    X = np.random.RandomState(0).randn(60, 3)
    est = tiny(energy=LinearICA(source, MIXING), calibrate=True, **UNMOVED).fit(X)
    s = est.sample(5000, 0, method=method) @ MIXING
    for j in range(3):
        assert stats.kstest(s[:, j], source).pvalue > 1e-4
    correlation = np.corrcoef(s.T) - np.eye(3)
    assert np.abs(correlation).max() < 4 / math.sqrt(len(s))
    assert est.calibration_ is None and est.log_partition_.value == 0


@pytest.mark.parametrize(
    "params",
    [{"method": method} for method in ("auto", "mala", "gibbs", "exact")]
    + [
        {"method": "langevin", "noise_std": 0.0},  # but for where they start
        {"method": "langevin", "init": np.zeros((9, 1))},
    ],
    ids=str,
)
def test_each_method_draws_by_its_seed(params, line, machine):
    est = machine if params["method"] == "gibbs" else line
    if params["method"] == "exact":
        est = tiny(energy=LinearICA("laplace", MIXING), **UNMOVED)
        est.fit(np.random.RandomState(0).randn(60, 3))
    a, b, c = (est.sample(9, random_state=seed, n_steps=3, **params) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any(1).all()
    again = (est.sample(9, seed, n_steps=3, **params) for seed in (None, 0))
    np.testing.assert_array_equal(*again)


@pytest.mark.parametrize("method", ["exact", "gibbs"])
def test_a_model_that_cannot_be_drawn_from_directly_says_so(method, line, machine):
    with pytest.raises(ValueError, match=rf"method must be .*got '{method}'\. .* base=None"):
        line.sample(3, method=method)
    with pytest.raises(ValueError, match="got 'exact'. Exact draws need LinearICA"):
        machine.sample(3, method="exact")


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"method": "gibs"}, ValueError, "method must be one of .*got 'gibs'"),
        ({"method": None}, TypeError, "method must be one of .*got None"),
        ({"n_samples": 0, "method": "langevin"}, ValueError, "n_samples .* got 0"),
        ({"n_steps": 0, "method": "langevin"}, ValueError, "n_steps .* got 0"),
        ({"n_steps": 2.5, "method": "langevin"}, TypeError, r"n_steps .* got 2\.5"),
        ({"step_size": 0.0, "method": "langevin"}, ValueError, r"step_size .* got 0\.0"),
        ({"noise_std": -0.1, "method": "langevin"}, ValueError, r"noise_std .* got -0\.1"),
        ({"init": [[1.0]], "method": "langevin"}, ValueError, "init .*n_samples=3 rows, got 1"),
        ({"init": np.ones((3, 2)), "method": "langevin"}, ValueError, r"init .*got shape \(3, 2\)"),
        ({"init": [[np.nan]] * 3, "method": "langevin"}, ValueError, "NaN"),
    ],
    ids=str,
)
def test_sample_names_a_bad_argument(params, error, match, line):
    with pytest.raises(error, match=match):
        line.sample(**{"n_samples": 3, **params})


# -- what is learnt --------------------------------------------------------------------------------


def test_a_search_finds_the_learned_base_that_repairs_what_inflation_did():
    """With an energy that stays 0 the model is a Gaussian, and training finds the data's."""
    density = GaussianDensity([[4.0, 0.0], [0.0, 0.25]], mean=[10.0, -1.0])
    X, new = (density.sample(3000, random_state=s) for s in (0, 1))
    params = {
        "energy": Nothing,
        "base": Gaussian("diagonal", inflation=1.8),
        "critic": Critic((16,), learning_rate=0.02),
        "batch_size": 256,
        "max_iter": 150,
        "optimizer": Optimization(0.03, (0.5, 0.9), weight_decay=0.0),
        "n_iter_no_change": None,
        "validation_fraction": 0.1,
        "log_partition": "auto",
    }
    split = ShuffleSplit(1, test_size=0.3, random_state=0)
    search = GridSearchCV(tiny(**params), {"learn_base": [False, True]}, cv=split).fit(X)
    kl = 2 * (math.log(1.8) + 0.5 / 1.8**2 - 0.5)  # of the Gaussian that is not learned
    without, with_it = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"learn_base": True}
    assert with_it - without == pytest.approx(kl, abs=0.06)
    est = search.best_estimator_
    assert -0.01 < (density.log_density(new) - est.score_samples(new)).mean() < 0.02
    assert abs(est.log_partition_.value) < 0.01  # a Gaussian, whatever its moments


LINE_MODES = GaussianMixtureDensity([[-2.0], [2.0]], [0.6, 0.6], [0.8, 0.2])
TRAINED = {
    "critic": Critic((24, 24), learning_rate=0.005),
    "critic_steps": 3,
    "max_iter": 300,
    "batch_size": 128,
    "optimizer": Optimization(0.003, (0.5, 0.9), weight_decay=0.0),
    "energy": MLP((24, 24)),
    "validation_fraction": 0.3,
    "log_partition": "auto",
    "n_iter_no_change": None,
}


def gap_of(est, density=LINE_MODES):
    """Nats per row that the model is short of the density, on fresh rows."""
    new = density.sample(4000, random_state=1)
    return float((density.log_density(new) - est.score_samples(new)).mean())


def test_training_leaves_the_base_behind_and_calibration_adds_its_gain():
    X, new = (LINE_MODES.sample(n, random_state=s) for n, s in ((2000, 0), (4000, 1)))
    est = tiny(**TRAINED, calibrate=True).fit(X)
    raw = Model(est.energy_.module, est.base_, 1.0)
    axis, cell = grid(-6, 6, 4000, 1)
    log_z = float((-raw.potential(axis.float())).double().logsumexp(0)) + math.log(cell)
    at_new = raw.potential(est.density_.standardized(new)).numpy()
    score = float(-at_new.mean()) - log_z - math.log(X.std())
    assert est.score(new) == pytest.approx(score + est.calibration_[2], abs=0.03)
    base = GaussianDensity([[X.var()]], mean=[X.mean()])
    short = float((LINE_MODES.log_density(new) - base.log_density(new)).mean())
    assert gap_of(est) < 0.5 * short
    gain, stderr = est.validation_gain_
    assert gain > stderr and gain == pytest.approx(short - gap_of(est), abs=0.15)


def test_calibration_gives_a_base_of_wrong_weights_the_right_ones():
    """Shapes right and weights 0.5: what is left after calibration is the share's own error."""
    X = LINE_MODES.sample(2000, random_state=0)
    normal = torch.distributions.Normal
    parts = normal(torch.tensor([[-2.0], [2.0]]), torch.full((2, 1), 0.6))
    halves = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        torch.distributions.Independent(parts, 1),
    )
    still = {"standardize": False, "learning_rate": 1e-12, "validation_fraction": 0.1}
    still |= {"base": TorchDistribution(halves), "log_partition": "auto"}
    raw, done = (tiny(**still, calibrate=c).fit(X) for c in (False, True))
    kl = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert isinstance(raw.energy_, Zero) and gap_of(raw) == pytest.approx(kl, abs=0.02)
    assert isinstance(done.energy_, Reweighted) and abs(gap_of(done)) < 0.01
    share = (done.sample(4000, random_state=0) < 0).mean()
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 * (1 / 2000 + 1 / 4000))
    assert done.validation_gain_[0] == pytest.approx(kl, abs=4 * done.validation_gain_[1])


def shares(est):
    """Mass of each component of the calibration's mixture under the model, and its function."""
    cells = np.stack(np.meshgrid(np.linspace(-16, 16, 320), np.linspace(-9, 9, 320)), -1)
    cells = cells.reshape(-1, 2) * STRETCH + [0.0, 1e3]
    p = np.exp(est.score_samples(cells))

    def responsibilities(X):
        z = est.density_.standardized(X)
        return est.energy_.mixture.responsibilities(z).double().numpy()

    return p @ responsibilities(cells) / p.sum(), responsibilities


def test_calibration_counts_rows_by_their_weights():
    X = table(2000)
    left = X[:, 0] < 0
    X = np.concatenate([X[left][:300], X[~left][:300]])
    weight = np.where(X[:, 0] < 0, 1.0, 4.0)
    params = {"calibrate": True, "base": Mixture(n_components=2), "log_partition": "auto"}
    est = tiny(**params).fit(X, sample_weight=weight)
    got, responsibilities = shares(est)
    expected = np.average(responsibilities(X), axis=0, weights=weight)
    assert expected.max() == pytest.approx(0.8, abs=1e-3)
    np.testing.assert_allclose(got, expected, atol=0.01)


def test_a_dropped_energy_has_no_calibration():
    X = np.random.RandomState(0).randn(400, 2)
    est = tiny(calibrate=True, energy=Nothing, learn_base=False, validation_fraction=0.2).fit(X)
    assert isinstance(est.energy_, Zero) and est.calibration_ is None
    assert est.density_.proposal is est.base_ and est.log_partition_.method == "exact"


@pytest.mark.parametrize("shape", [(1, 1, 2), None])
def test_images_and_wide_tables_are_not_calibrated(shape):
    X = table() if shape else np.random.RandomState(0).randn(120, 33)
    params = {"log_partition": None} if shape is None else {"log_partition": "auto"}
    est = tiny(calibrate=True, image_shape=shape, energy="mlp", **params).fit(X)
    assert est.calibration_ is None and np.isfinite(est.score_samples(X)).all()


def test_chains_that_leave_for_infinity_are_an_error():
    with pytest.raises(ValueError, match=r"step_size must be small enough .* got 1e\+30"):
        tiny().fit(table()).sample(5, method="langevin", step_size=1e30, n_steps=50)


def test_the_critic_refuses_rows_of_another_width():
    with pytest.raises(ValueError, match=r"X must have 2 columns, got 3"):
        tiny().fit(table()).critic_(np.zeros((4, 3)))


@pytest.mark.parametrize(("alias", "kind"), [("ica", ICAEnergy), ("rbm", RBMEnergy)])
def test_the_models_have_aliases(alias, kind):
    est = tiny(energy=alias, base=None).fit(table())
    assert isinstance(est.energy_, kind)
