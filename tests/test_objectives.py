"""Gradients of the training principles against their explicit forms."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from skebm.bases import TorchDistribution
from skebm.energies import MLP, Model, Zero
from skebm.networks import Critic
from skebm.objectives import (
    BidirectionalBounds,
    ChainStart,
    ContrastiveDivergence,
    ImportanceLikelihood,
    LearnedStein,
)
from skebm.samplers import MALA, Gibbs, Langevin, SampleBank
from skebm.train import HeldOutLikelihood
from skebm.train.judge import N_REFERENCE
from tests.closed_forms import Quadratic, assert_estimate, assert_mean, normal_base, tilted_log_z
from tests.generators import gen, randomized

D = 2
STILL = Langevin(0.05, noise_std=0.0)  # no noise: schemes that draw differently meet exactly


def mlp(seed=0, shift=0.0):
    energy = randomized(MLP((6,), n_frequencies=0).build((D,), gen(seed)).double(), 1.0, seed)
    with torch.no_grad():
        energy.layers[-1].bias += shift
    return energy


def float64_base():
    normal = Normal(torch.zeros(D, dtype=torch.float64), torch.full((D,), 1.3).double())
    return TorchDistribution(Independent(normal, 1)).fit(torch.zeros(2, D).double(), None, gen(0))


def rows(n=32, seed=1, dtype=torch.float64):
    return 0.7 * torch.randn(n, D, dtype=dtype, generator=gen(seed)) + 0.2


def gradient(objective, *, model=None, seed=2, x=None):
    """The gradient of one step, flattened, and the step's row."""
    model = model or Model(mlp(), None, 1.0)
    x = rows() if x is None else x
    state = objective.init(model, x, gen(0))
    _, row = objective.step(model, state, lambda: x, gen(seed))
    return torch.cat([p.grad.flatten() for p in model.energy.parameters()]), row


def explicit(loss, energy):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(energy.parameters()))])


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=atol)


# -- contrastive divergence ------------------------------------------------------------------------


def cd(start="data", **parameters):
    parameters = {"sampler": STILL, "n_steps": 4, **parameters}
    return ContrastiveDivergence(ChainStart(start, noise_share=1.0), **parameters)


def test_without_cd_weight_the_hybrid_is_the_noise_scheme():
    hybrid, _ = gradient(cd("hybrid", cd_weight=0.0))
    noise, _ = gradient(cd("noise"))
    close(hybrid, noise)
    assert noise.abs().max() > 1e-3


@pytest.mark.parametrize("weight", [1.0, 25.0])
def test_brackets_add_linearly(weight):
    hybrid, row = gradient(cd("hybrid", cd_weight=weight))
    noise, noise_row = gradient(cd("noise"))
    data, data_row = gradient(cd("data"))
    close(hybrid, noise + weight * data)
    close(row["loss"], noise_row["loss"] + weight * data_row["loss"])
    close(row["cd_bracket"], data_row["loss"])
    close(row["noise_bracket"], noise_row["loss"])


@pytest.mark.parametrize("sampler", [STILL, Langevin(0.1), MALA(0.3)], ids=repr)
def test_no_steps_no_gradient_from_data(sampler):
    grad, row = gradient(cd(sampler=sampler, n_steps=0))
    assert grad.abs().max() < 1e-14 and abs(row["loss"]) < 1e-14


@pytest.mark.parametrize("start", ["data", "noise", "hybrid"])
def test_negatives_carry_no_gradient(start):
    energy, x, a = mlp(), rows(), 0.05
    noise = torch.empty(x.shape).normal_(generator=gen(2)).double()

    def moved(u, create_graph):
        leaf = u.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=create_graph)
        return u - a * slope

    def loss(create_graph):
        from_data, from_noise = (energy(moved(u, create_graph)).mean() for u in (x, noise))
        cd_bracket, noise_bracket = energy(x).mean() - from_data, energy(x).mean() - from_noise
        total = {"data": cd_bracket, "noise": noise_bracket}
        return total.get(start, noise_bracket + 25 * cd_bracket)

    grad, _ = gradient(cd(start, n_steps=1))
    close(grad, explicit(loss(False), energy))
    assert (grad - explicit(loss(True), energy)).abs().max() > 1e-3


@pytest.mark.parametrize("start", ["data", "noise", "hybrid"])
@pytest.mark.parametrize("sampler", [Langevin(0.1), MALA(0.3)], ids=repr)
def test_the_offset_of_the_energy_has_no_gradient_and_no_effect(start, sampler):
    objective = cd(start, sampler=sampler)
    grad, row = gradient(objective)
    shifted, shifted_row = gradient(objective, model=Model(mlp(shift=100.0), None, 1.0))
    assert abs(grad[-1]) < 1e-12
    close(shifted, grad, atol=1e-10)
    close(shifted_row["loss"], row["loss"], atol=1e-10)


class Cold(torch.nn.Module):
    """beta E0."""

    def __init__(self, beta):
        super().__init__()
        self.beta = torch.nn.Parameter(torch.tensor(beta, dtype=torch.float64))
        self.inner = mlp().requires_grad_(False)

    def forward(self, x):
        return self.beta * self.inner(x)


@pytest.mark.parametrize("start", ["data", "noise", "hybrid"])
def test_coldness_identity(start):
    model = Model(Cold(1.7), None, 1.0)
    objective = cd(start, sampler=MALA(0.3))
    state = objective.init(model, rows(), gen(0))
    _, row = objective.step(model, state, rows, gen(2))
    close(model.energy.beta.grad, row["loss"] / 1.7)
    assert abs(row["loss"]) > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_a_langevin_step_multiplies_the_gradient_of_the_energy(temperature):
    x = rows()
    energy = mlp()
    model = Model(energy, None, temperature)
    end = x + 0.05 * -energy.value_and_gradient(x)[1]
    expected = (energy(x) - energy(end)).mean()
    _, row = gradient(cd(n_steps=1), model=model, x=x)
    close(row["loss"], expected.detach())


def test_at_the_data_density_the_bracket_is_zero():
    model = Model(Quadratic(), None, 1.0)
    x = torch.randn(20_000, D, generator=gen(3))
    _, row = gradient(cd(sampler=MALA(0.5), n_steps=10), model=model, x=x)
    stderr = float(row["cd_bracket_std"]) / math.sqrt(len(x))
    assert_estimate(float(row["cd_bracket"]), stderr, 0, 0.012)


def test_the_step_size_moves_toward_its_acceptance():
    model, x = Model(Quadratic(), None, 1.0), rows(200, dtype=torch.float32)
    for adapt, start in [(True, 5.0), (True, 0.05), (False, 5.0)]:
        objective = cd(sampler=MALA(start), adapt_step=adapt)
        state = objective.init(model, x, gen(0))
        before = state.buffers["log_step"].clone()
        after, row = objective.step(model, state, lambda: x, gen(2))
        moved = float(after.buffers["log_step"] - before)
        assert moved == pytest.approx(0.1 * (float(row["acceptance"]) - 0.67) * adapt, abs=1e-6)
        assert state.buffers["log_step"] == before  # states are values
        assert float(row["step_size"]) == pytest.approx(start)


def test_noise_comes_from_the_base():
    base = normal_base(D, scale=0.1, mean=4.0)
    model = Model(Quadratic(), base, 1.0)
    x = torch.zeros(4000, D)
    _, row = gradient(cd("noise", sampler=MALA(0.1), n_steps=0), model=model, x=x)
    energy = -row["loss"]  # mean |x|^2 / 2 of base draws
    assert float(energy) == pytest.approx(16.01, abs=4 * 0.4 * 1.5 / math.sqrt(4000))


def test_fewer_chains_start_from_noise():
    seen = []
    energy = Quadratic()
    energy.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    objective = ContrastiveDivergence(ChainStart(noise_share=0.25), sampler=STILL, n_steps=1)
    gradient(objective, model=Model(energy, None, 1.0), x=rows(32, dtype=torch.float32))
    assert seen[-1] == 32 + 8 + 32


@pytest.mark.parametrize("start", ["data", "noise", "hybrid"])
@pytest.mark.filterwarnings("ignore:(std|var)")
def test_a_batch_of_one_row_has_finite_statistics(start):
    model = Model(Quadratic(), normal_base(D), 1.0)
    _, row = gradient(cd(start), model=model, x=rows(1, dtype=torch.float32))
    assert all(math.isfinite(v) for v in row.values())


# -- importance likelihood -------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_gradient_is_the_self_normalized_one_of_usp_eq_10(temperature):
    energy, base, x = mlp(), float64_base(), rows()
    u = base.sample(100, gen(2))
    w = (-energy(u) / temperature).softmax(0).detach()
    expected = explicit((energy(x).mean() - (w * energy(u)).sum()) / temperature, energy)
    grad, row = gradient(ImportanceLikelihood(100), model=Model(energy, base, temperature))
    close(grad, expected)
    assert float(row["ess_share"]) == pytest.approx(float(1 / w.square().sum() / 100), rel=1e-9)


def test_importance_likelihood_ignores_the_offset():
    base = float64_base()
    grad, row = gradient(ImportanceLikelihood(64), model=Model(mlp(), base, 1.0))
    shifted, moved = gradient(ImportanceLikelihood(64), model=Model(mlp(shift=300.0), base, 1.0))
    close(shifted, grad, atol=1e-10)
    close(moved["loss"], row["loss"], atol=1e-10)
    assert abs(grad[-1]) < 1e-12


def test_a_flat_energy_weighs_draws_alike():
    energy = MLP((6,), n_frequencies=0).build((D,), gen(0)).double()  # 0 everywhere
    base, x = float64_base(), rows()
    expected = explicit(energy(x).mean() - energy(base.sample(64, gen(2))).mean(), energy)
    grad, row = gradient(ImportanceLikelihood(64), model=Model(energy, base, 1.0))
    close(grad, expected)
    close(row["ess_share"], torch.tensor(1.0).double())
    close(row["loss"], torch.tensor(0.0).double())


def test_the_loss_is_the_negative_log_likelihood_ratio():
    k, x = 0.4, rows(500, dtype=torch.float32)
    model = Model(Quadratic(k), normal_base(D), 1.0)
    _, row = gradient(ImportanceLikelihood(4096), model=model, x=x)
    truth = float(0.5 * k * x.square().sum(1).mean()) + tilted_log_z(D, k)
    assert float(row["loss"]) == pytest.approx(truth, abs=4 * 0.3 / math.sqrt(4096))


def test_the_gradient_vanishes_on_average_at_the_data_density():
    k = 0.5  # data N(0, 1 / (1 + k))
    x = torch.randn(20_000, D, generator=gen(1)) / (1 + k) ** 0.5
    grads = []
    for seed in range(20):
        model = Model(Quadratic(k), normal_base(D), 1.0)
        batch = x[1000 * seed : 1000 * (seed + 1)]
        grad, _ = gradient(ImportanceLikelihood(2000), model=model, x=batch, seed=seed)
        grads.append(float(grad))
    assert_mean(grads, 0, 0.01)


def test_importance_likelihood_needs_a_base():
    with pytest.raises(ValueError, match=r"base must be a normalized density .* got None"):
        ImportanceLikelihood().init(Model(mlp(), None, 1.0), rows(), gen(0))


# -- judging ---------------------------------------------------------------------------------------


def judged(model, x, **keywords):
    return HeldOutLikelihood(model, x, gen(2), **keywords)(model, x)


def of_gaussian(k, n=3000):
    """Rows of N(0, 1 / (1 + k)), their log density and that of N(0, 1)."""
    x = torch.randn(n, D, generator=gen(1)) / (1 + k) ** 0.5
    square = x.square().sum(1)
    exact = -0.5 * (1 + k) * square + math.log((1 + k) / (2 * math.pi))
    return x, exact, -0.5 * square - math.log(2 * math.pi)


@pytest.mark.parametrize("near", [None, normal_base(D, 1.1)], ids=["alone", "proposal"])
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_held_out_likelihood_of_a_gaussian(with_base, temperature, near):
    k = 0.5
    x, exact, log_base = of_gaussian(k)
    tilt = k if with_base else 1 + k
    model = Model(Quadratic(tilt * temperature), normal_base(D) if with_base else None, temperature)
    held_out = judged(model, x, proposal=near)
    gain = exact - log_base if with_base else exact
    by_draws = math.sqrt(
        1 / held_out.ess - 1 / N_REFERENCE
    )  # the same rows: log Z is all the error
    assert_estimate(held_out.gain, by_draws + 1e-5, float(gain.mean()), 0.01)
    known = float(log_base.mean()) if with_base else 0.0
    assert known + held_out.gain - held_out.value == pytest.approx(by_draws, rel=0.02, abs=1e-5)
    stderr = math.hypot(float(gain.std()) / math.sqrt(3000), by_draws)
    assert held_out.stderr == pytest.approx(stderr, rel=0.02)


def test_draws_of_a_proposal_are_used():
    """As far away as it is, few of them count; those of the base would."""
    x, _, _ = of_gaussian(0.5)
    model = Model(Quadratic(0.5), normal_base(D), 1.0)
    share = judged(model, x, proposal=normal_base(D, mean=2.0)).ess / judged(model, x).ess
    assert share < 0.1


def test_held_out_of_the_base_itself_is_exact():
    base, x = normal_base(D), rows(200, dtype=torch.float32)
    held_out = judged(Model(Zero(), base, 1.0), x)
    assert (
        held_out.gain == 0 and held_out.stderr == 0 and held_out.ess == pytest.approx(N_REFERENCE)
    )
    assert held_out.value == pytest.approx(float(base.log_prob(x).mean()), rel=1e-5)


def test_nothing_is_near_in_40_columns():
    assert judged(Model(Quadratic(), None, 1.0), torch.randn(50, 40, generator=gen(1))) is None


def test_too_few_effective_draws_are_worth_nothing():
    model = Model(Quadratic(1e5, mean=3.0), normal_base(D), 1.0)
    held_out = judged(model, rows(20, dtype=torch.float32))
    assert held_out.value == held_out.gain == -math.inf and held_out.ess < 50


def test_a_judge_uses_the_same_draws_for_every_energy():
    base, x = normal_base(D), rows(50, dtype=torch.float32)
    judge = HeldOutLikelihood(Model(Zero(), base, 1.0), x, gen(2))
    one, _, again = (judge(Model(Quadratic(k), base, 1.0), x) for k in (0.3, 0.5, 0.3))
    assert one == again and one.gain != 0
    assert one == judged(Model(Quadratic(0.3), base, 1.0), x)


@pytest.mark.parametrize("with_base", [True, False])
def test_stein_judges_by_its_own_statistic(with_base):
    """Of N(0, 1/k): mean k^2 x^2 / 2 - k d, over l2; the gain stays that in likelihood.

    A base adds to the score; the divergence of its own is a constant, and left out.
    """
    k, l2, temperature = 0.8, 0.25, 0.5
    x, _, _ = of_gaussian(0.5, 500)
    model = Model(Quadratic(k * temperature), normal_base(D) if with_base else None, temperature)
    objective = LearnedStein(Critic((4,)), l2=l2)
    state, slope = objective.init(model, x, gen(0)), k + 1.0 * with_base
    held_out = objective.judge(model, state, x, lambda: judged(model, x))
    fisher = 0.5 * slope**2 * float(x.square().sum(1).mean()) - k * D
    assert held_out.value == pytest.approx(-fisher / l2, rel=1e-5)
    assert held_out[1:] == judged(model, x)[1:]
    for unknown in (None, held_out._replace(gain=-math.inf)):
        alone = objective.judge(model, state, x, lambda given=unknown: given)
        assert alone.value == held_out.value and math.isnan(alone.gain)


@pytest.mark.parametrize("objective", [ContrastiveDivergence(), ImportanceLikelihood()], ids=repr)
def test_others_are_judged_by_likelihood_and_games_not_at_all(objective):
    model, x = Model(Quadratic(0.3), normal_base(D), 1.0), rows(50, dtype=torch.float32)
    held_out = judged(model, x)
    assert objective.judge(model, None, x, lambda: held_out) is held_out
    assert BidirectionalBounds().judge(model, None, x, lambda: held_out) is None


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective, error, match",
    [
        (
            ContrastiveDivergence(ChainStart("noise", bank=SampleBank())),
            ValueError,
            "bank must be None with scheme='noise', got SampleBank",
        ),
        (ContrastiveDivergence(sampler=Gibbs()), TypeError, r"with a step_size, got Gibbs\(\)"),
        (ContrastiveDivergence(sampler=MALA(0.0)), ValueError, r"step_size .* got 0\.0"),
    ],
)
def test_parts_that_do_not_go_together(objective, error, match):
    with pytest.raises(error, match=match):
        objective.init(Model(mlp(), normal_base(D), 1.0), rows(dtype=torch.float32), gen(0))


def test_a_judge_asks_the_base_again_where_rows_are_others():
    base, x = normal_base(D), rows(60, dtype=torch.float32)
    model = Model(Quadratic(0.3), base, 1.0)
    judge = HeldOutLikelihood(model, x, gen(2))
    both = judge(model, x[:30]), judge(model, 3 * x[30:])
    assert [of.value for of in both] == [
        HeldOutLikelihood(model, x, gen(2))(model, part).value for part in (x[:30], 3 * x[30:])
    ]
