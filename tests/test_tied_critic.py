"""A critic of the form of the best one: its value, its divergence, and what it learns."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skebm import EnergyDensity
from skebm.bases import Gaussian
from skebm.data import ArrayTable
from skebm.datasets import ICADensity
from skebm.energies import MLP, Energy, LinearICA, Model
from skebm.objectives import LearnedStein, Optimization, TiedCritic
from skebm.train import Settings, train
from tests.cases import QUIET
from tests.generators import gen

pytestmark = QUIET


class Quadratic(Energy):
    """N(0, 1 / precision); its derivatives are those of autograd."""

    def __init__(self, precision):
        super().__init__()
        self.precision = torch.nn.Parameter(torch.as_tensor(precision))

    def forward(self, x):
        return 0.5 * self.precision * x.square().sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("d", [3, 40])
def test_value_and_divergence_are_those_of_the_difference_of_scores(temperature, d):
    model = Model(Quadratic(2.0), None, temperature)
    network = TiedCritic().build(model, l2=0.5)
    x = torch.randn(7, d, generator=gen(0))
    assert network(x).abs().max() == 0
    with torch.no_grad():
        network.copy.precision.fill_(3.0)
    value, divergence = network.value_and_divergence(x)
    assert_allclose(value.detach(), x / temperature, rtol=1e-5)  # (-2 + 3) / (2 lambda T)
    assert_allclose(divergence.detach(), np.full(7, d / temperature), rtol=1e-4)
    probed = network.value_and_divergence(x, gen(1))[1]  # of this Hessian probes are exact
    assert_allclose(probed.detach(), divergence.detach(), rtol=1e-4)


def test_gradients_reach_the_copy_and_not_the_model():
    energy = LinearICA().build((3,), gen(0))
    network = TiedCritic().build(Model(energy, None, 1.0), l2=0.5)
    assert [name for name, _ in network.named_parameters()] == ["copy.B"]
    value, divergence = network.value_and_divergence(torch.randn(9, 3, generator=gen(1)))
    (value.square().sum() + divergence.sum()).backward()
    assert energy.B.grad is None and network.copy.B.grad.abs().max() > 0


def test_it_compares_with_the_model_that_is_trained():
    """A state that was copied, or restored, is beside the model of the call."""
    objective, x = LearnedStein(TiedCritic(0.1), critic_steps=1), torch.randn(64, 2)
    model = Model(Quadratic(1.0), None, 1.0)
    state = copy.deepcopy(objective.init(model, x, gen(0)))
    other = Model(Quadratic(4.0), None, 1.0)
    state.optimizers["energy"] = objective.init(other, x, gen(0)).optimizers["energy"]
    before = float(other.energy.precision.detach())
    objective.step(other, state, lambda: x, gen(0))
    network = state.modules["critic"]
    assert network._others[0] is other.energy and float(other.energy.precision.detach()) != before


def test_the_copy_learns_the_data():
    """Critic steps alone: the copy's precision comes to that of the rows, the value to Eq. 9."""
    x = 0.5 * torch.randn(20_000, 2, generator=gen(0))  # precision 4
    model = Model(Quadratic(1.0), None, 1.0)
    optimization = Optimization(0.05, weight_decay=0.0, schedule="constant")
    objective = LearnedStein(TiedCritic(0.05), 150, l2=0.5, optimization=optimization)
    state = objective.init(model, x, gen(0))
    _, info = objective.step(model, state, lambda: x, gen(0))
    precision = float(2 * len(x) / x.square().sum())
    found = float(state.modules["critic"].copy.precision.detach())
    assert abs(found - precision) < 0.1
    assert_allclose(float(info["discrepancy"]), (precision - 1) ** 2 / precision * 2, rtol=0.1)


def test_ica_comes_near_the_truth_in_many_columns():
    """Where whitening alone is a nat below it, and a perceptron learns nothing beyond that."""
    density = ICADensity.random(20, random_state=3)
    X, T = density.sample(20_000, random_state=0), density.sample(5000, random_state=1)
    variances, axes = np.linalg.eigh(np.cov(X, rowvar=False))
    whitening = axes / np.sqrt(variances) @ axes.T
    volume = -0.5 * np.log(variances).sum()
    x, t = (torch.from_numpy(rows @ whitening).float() for rows in (X, T))
    energy = LinearICA(init=np.pi / 3**0.5 * np.eye(20)).build((20,), gen(0))

    def gap():
        with torch.no_grad():
            return float(density.log_density(T).mean() + energy(t).double().mean()) - volume

    before = gap()
    model = Optimization(0.02, (0.5, 0.99), weight_decay=0.0)
    objective = LearnedStein(TiedCritic(0.02), 2, max_norm=1e3, optimization=model)
    settings = Settings(400, 500, eval_every=400, average=False)
    train(Model(energy, None, 1.0), objective, ArrayTable(x), settings=settings, rng=gen(0))
    assert before > 0.3 and gap() < 0.1 * before


def test_kinks_are_refused_and_estimators_take_it():
    kinked = LinearICA("laplace").build((2,), gen(0))
    with pytest.raises(ValueError, match="energy must be smooth for a TiedCritic, got ICAEnergy"):
        LearnedStein(TiedCritic()).init(Model(kinked, None, 1.0), torch.zeros(4, 2), gen(0))
    with pytest.raises(ValueError, match="learning_rate must be a number > 0, got -1"):
        TiedCritic(-1).build(Model(Quadratic(1.0), None, 1.0), 0.5)
    objective = LearnedStein(TiedCritic(), critic_steps=1)
    energy = MLP((8,))
    est = EnergyDensity(objective=objective, energy=energy, base=Gaussian(), max_iter=3)
    X = np.random.RandomState(0).randn(100, 2)
    assert np.isfinite(est.fit(X).score_samples(X)).all()
