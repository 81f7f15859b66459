"""The loop: what it keeps, restores, gives up on and resumes, mostly under a scripted objective."""

import copy
import math
import sys
from functools import partial

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from skebm.data import ArrayTable
from skebm.energies import MLP, LinearICA, Model
from skebm.exceptions import ConvergenceError
from skebm.networks import MLPGenerator
from skebm.objectives import (
    BidirectionalBounds,
    ContrastiveDivergence,
    ExactLikelihood,
    HeldOut,
    ImportanceLikelihood,
    Objective,
    Optimization,
    State,
)
from skebm.objectives._base import descend
from skebm.samplers import MALA
from skebm.train import Settings, train
from tests import cases
from tests.closed_forms import Quadratic, normal_base
from tests.generators import gen

# that a resumed training says so is in ``contracts.test_checkpoints``
pytestmark = pytest.mark.filterwarnings("ignore:training (goes on|is read)")
ROWS, HELD_OUT = torch.zeros(8, 1), torch.ones(3, 1)


class Scripted(Objective):
    """Update i sets the energy's k to ``path(i)`` and tells the k from before."""

    def __init__(self, path=float, at_step=None):
        self.path = path
        self.at_step = at_step

    def init(self, model, x, rng):
        optimizer = Optimization(learning_rate=1.0).build(model.energy)
        return State({"energy": optimizer}, {}, {"count": torch.zeros(())})

    def step(self, model, state, draw, rng):
        count = state.buffers["count"] + 1
        before = model.energy.k.detach().clone()
        if self.at_step is not None:
            self.at_step(int(count), state)
        with torch.no_grad():
            model.energy.k.fill_(self.path(int(count)))
        return state._replace(buffers={"count": count}), {"data_energy": before}


def scripted(objective, max_iter=20, *, worth=None, held_out=HELD_OUT, model=None, **keywords):
    """Train it; a model of k is worth ``worth(k)``, over a base worth 0."""

    def judge(model, rows):
        assert rows is held_out
        value = None if worth is None else worth(model.energy.k.item())
        return value if value is None else HeldOut(value, value, 0.1, 100.0)

    names = set(Settings._fields) & set(keywords)
    settings = {"eval_every": 1} | {name: keywords.pop(name) for name in names}
    before = keywords.get("state")
    if model is None:
        model = copy.deepcopy(before.model) if before else Model(Quadratic(0.0), None, 1.0)
    return train(
        model,
        objective,
        ArrayTable(ROWS, held_out=held_out),
        settings=Settings(max_iter, **settings),
        **{"rng": gen(0), "judge": judge, **keywords},
    )


def over_base():
    return Model(Quadratic(0.0), normal_base(1), 1.0)


def peak_at_7(k):
    return -0.1 * abs(k - 7)


def k(state):
    return state.model.energy.k.item()


def rate(state):
    return state.optimizers["energy"].param_groups[0]["lr"]


def cosine(i, n):
    return 0.5 * (1 + math.cos(math.pi * i / n))


def interrupt_at(iteration):
    def callback(state):
        if state.iteration == iteration:
            raise KeyboardInterrupt

    return callback


# -- learning --------------------------------------------------------------------------------------

MEAN, SD = 0.8, 0.5


def shifted(n=2000, seed=0):
    return MEAN + SD * torch.randn(n, 1, generator=gen(seed))


def new_model(seed=0, columns=1):
    energy = MLP((16,), n_frequencies=0).build((columns,), gen(seed))
    return Model(energy, normal_base(columns), 1.0)


def kl(model):
    """KL(data, model) on a grid, both normalized there."""
    x = torch.linspace(-5, 6, 4001)[:, None]
    log_p = -0.5 * ((x[:, 0] - MEAN) / SD).square()
    log_q = -model.potential(x)
    log_p, log_q = (v.double().log_softmax(0) for v in (log_p, log_q))
    return float((log_p.exp() * (log_p - log_q)).sum())


LEARNERS = {
    "importance": ImportanceLikelihood(256, Optimization(1e-2)),
    "hybrid": ContrastiveDivergence(
        cd_weight=1.0, sampler=MALA(0.3), n_steps=5, optimization=Optimization(1e-2)
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_training_learns_a_shifted_gaussian(name):
    model = new_model()
    before = kl(model)
    assert before == pytest.approx(math.log(1 / SD) + (SD**2 + MEAN**2 - 1) / 2, abs=1e-4)
    table = ArrayTable(shifted(), held_out=shifted(1000, seed=1))
    state = train(model, LEARNERS[name], table, settings=Settings(200), rng=gen(0))
    assert kl(model) < 0.05 * before
    values = [row["validation"] for row in state.history]
    assert values[0] < values[-1] and state.best.held_out.value == max(values)
    assert state.best.held_out.gain == pytest.approx(before, abs=0.1)
    assert [row["iteration"] for row in state.history] == list(range(0, 201, 25))


def test_an_objective_starts_from_rows_by_weight_without_noise():
    seen = []

    class Watch(Scripted):
        def init(self, model, x, rng):
            seen.append(x)
            return super().init(model, x, rng)

    weight = torch.tensor([8.0] + 7 * [0.0])
    x = torch.arange(8.0)[:, None] + 5
    table = ArrayTable(x, weight, noise=torch.tensor([0.3]).numpy(), rng=gen(1))
    train(Model(Quadratic(), None, 1.0), Watch(), table, settings=Settings(1), rng=gen(0))
    assert seen[0].equal(torch.full((8, 1), 5.0))  # as many, by weight


# -- every objective -------------------------------------------------------------------------------

OBJECTIVES = [
    *(part for part in cases.OBJECTIVES.values() if isinstance(part, Objective)),
    BidirectionalBounds("zero-centered-gp", "mutual-information", MLPGenerator((8,))),
    BidirectionalBounds("zero-centered-gp", "variational", MLPGenerator((8,))),
]


def caller(frame):
    """Who called ``optimizer.step()``, seen from its hook."""
    while frame.f_globals["__name__"].startswith("torch."):
        frame = frame.f_back
    return frame.f_code


@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_every_player_is_updated_and_every_update_goes_through_descend(objective):
    callers, moved, model = set(), set(), new_model(columns=2)
    if isinstance(objective, ExactLikelihood):
        model = Model(LinearICA().build((2,), gen(0)), None, 1.0)

    def seen(optimizer, *_):
        callers.add(caller(sys._getframe(1)))
        moved.add(optimizer)

    table = ArrayTable(torch.randn(50, 2, generator=gen(0)))
    hook = register_optimizer_step_pre_hook(seen)
    try:
        state = train(model, objective, table, settings=Settings(2, 16), rng=gen(0))
    finally:
        hook.remove()
    assert callers == {descend.__code__} and moved == set(state.objective.optimizers.values())


# -- rates, decay, stopping ------------------------------------------------------------------------


class Idle(ImportanceLikelihood):
    """Updates with a gradient of 0."""

    def step(self, model, state, draw, rng):
        descend(state.optimizers["energy"], 0.0 * model.energy.k)
        return state, {"rate": torch.tensor(rate(state))}


@pytest.mark.parametrize("method", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_updates_follow_the_schedule_and_shrink_by_rate_times_decay(method, schedule):
    optimization = Optimization(0.5, weight_decay=0.2, method=method, schedule=schedule)
    model = Model(Quadratic(3.0), normal_base(1), 1.0)
    state = scripted(Idle(optimization=optimization), 8, held_out=None, model=model, average=False)
    rates = [0.5 * (cosine(i, 8) if schedule == "cosine" else 1.0) for i in range(8)]
    assert [row["rate"] for row in state.history[1:]] == pytest.approx(rates, rel=1e-6)
    assert k(state) == pytest.approx(3 * math.prod(1 - 0.2 * r for r in rates), rel=1e-5)


def test_the_best_snapshot_comes_back():
    state = scripted(Scripted(), worth=peak_at_7)
    assert k(state) == 7 == state.best.iteration and state.iteration == 20
    assert state.finished and len(state.history) == 21


def test_the_start_is_a_snapshot():
    model = Model(Quadratic(7.0), None, 1.0)
    state = scripted(Scripted(lambda i: 7.0 + i), worth=peak_at_7, model=model)
    assert k(state) == 7 and state.best.iteration == 0


@pytest.mark.parametrize(
    "tol, patience, last", [(0.0, 3, 10), (0.0, None, 20), (0.25, 3, 20), (0.35, 3, 3)]
)
def test_patience(tol, patience, last):
    # gains of 0.1 for seven validations: tol 0.25 over three of them is still a gain
    worth = peak_at_7 if tol == 0 else lambda k: 0.1 * k
    state = scripted(Scripted(), worth=worth, n_iter_no_change=patience, tol=tol)
    assert state.iteration == last and state.finished


def test_a_callback_sees_every_validation_and_may_stop():
    seen = []

    def callback(state):
        seen.append(state.iteration)
        return state.iteration >= 6

    state = scripted(Scripted(), worth=peak_at_7, callbacks=[callback], eval_every=3)
    assert seen == [0, 3, 6] and state.iteration == 6 and state.finished and k(state) == 6


def test_a_row_has_the_means_since_the_last_one():
    state = scripted(Scripted(), 7, eval_every=3)
    means = [(row["iteration"], row["data_energy"]) for row in state.history[1:]]
    assert means == [(3, 1.0), (6, 4.0), (7, 6.0)]


# -- averaging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [None, HELD_OUT], ids=["no rows", "no verdict"])
@pytest.mark.parametrize("max_iter, truth", [(1, 1.0), (10, 8.0), (11, 9.0)])
def test_without_a_verdict_the_second_half_is_averaged(held_out, max_iter, truth):
    state = scripted(Scripted(), max_iter, held_out=held_out, n_iter_no_change=1)
    assert k(state) == pytest.approx(truth, rel=1e-6)
    assert state.iteration == max_iter and "validation" not in state.history[-1]
    last = scripted(Scripted(), max_iter, held_out=held_out, average=False)
    assert k(last) == max_iter and last.average is None


def test_a_verdict_leaves_nothing_to_average():
    state = scripted(Scripted(), 10, worth=lambda k: k)
    assert k(state) == 10 and state.average is None


def test_a_rescue_does_not_leave_nan_in_the_average():
    path = lambda i: math.nan if 13 <= i <= 15 else 1.0  # noqa: E731
    state = scripted(Scripted(path), held_out=None, eval_every=5)
    assert state.retries == 1 and k(state) == 1


# -- rescue ----------------------------------------------------------------------------------------


def test_divergence_is_rescued_with_a_smaller_step():
    rates, recovered = [], []

    class Recovers(Scripted):
        def recover(self, model, state, x, rng):
            recovered.append((model.energy.k.item(), x))
            return state._replace(buffers={"count": torch.tensor(100.0)})

    objective = Recovers(
        lambda i: math.nan if i == 3 else min(i, 6.0),
        at_step=lambda i, s: rates.append(rate(s) / cosine(i - 1 if i < 9 else i - 98, 8)),
    )
    state = scripted(objective, 8, worth=peak_at_7)
    assert state.retries == 1 and k(state) == 6
    assert rates == pytest.approx([1, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert all(math.isfinite(v) for row in state.history for v in row.values())
    assert [row["iteration"] for row in state.history] == [0, 1, 2, 4, 5, 6, 7, 8]
    (at, rows), count = *recovered, state.objective.buffers["count"]
    assert at == 2 and rows.equal(ROWS) and count == 105  # put back first, then what it returned


@pytest.mark.parametrize("k_at, force_at", [(2, 0), (4, 0), (0, 2)])
def test_nan_anywhere_between_validations_is_noticed(k_at, force_at):
    """An early energy shows in the next row, the last one in the parameters, a force in its row."""

    class Tells(Scripted):
        def step(self, *args):
            state, row = super().step(*args)
            force = math.nan if state.buffers["count"] == force_at else 1.0
            return state, row | {"force": torch.tensor(force)}

    state = scripted(Tells(lambda i: math.nan if i == k_at else 1.0), 8, eval_every=4)
    assert state.retries == 1 and [row["iteration"] for row in state.history] == [0, 8]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e7])
@pytest.mark.parametrize("max_retries", [0, 2])
def test_it_gives_up_after_the_bounded_number_of_rescues(value, max_retries, tmp_path):
    steps, starts, path = [], [], tmp_path / "fit.pt"
    model = Model(Quadratic(0.5), None, 1.0)

    def at_step(i, state):
        steps.append(i)
        starts.append(model.energy.k.item())

    options = {"eval_every": 4, "max_retries": max_retries, "worth": lambda k: 0.0}
    with pytest.raises(ConvergenceError, match=rf"diverged {max_retries + 1} times.*learning_rate"):
        scripted(Scripted(lambda i: value, at_step), 50, model=model, checkpoint=path, **options)
    assert len(steps) == 4 * (max_retries + 1)
    assert starts[::4] == [0.5] * (max_retries + 1)  # each try starts at the sound snapshot
    assert torch.load(path, weights_only=True)["energy"]["k"] == 0.5  # and so would the next fit


def test_running_away_ends_with_the_best_snapshot():
    starts, model = [], over_base()
    objective = Scripted(
        lambda i: 1.0 if i == 1 else 9.0, at_step=lambda i, s: starts.append(model.energy.k.item())
    )
    state = scripted(objective, 30, worth=lambda k: -float(k), model=model)
    assert k(state) == 0 and state.retries == 4 and state.finished
    assert starts == [0, 1, 0, 0, 0]  # 1 is fine; each of the four at 9 went back to the best
    state = scripted(Scripted(lambda i: 4.9), 30, worth=lambda k: -float(k), model=over_base())
    assert state.retries == 0 and state.iteration == 30


@pytest.mark.filterwarnings("ignore:(std|var)")
def test_batches_of_one_row_train():
    settings = Settings(10, batch_size=1, eval_every=2)
    table = ArrayTable(shifted(50))
    state = train(new_model(), LEARNERS["hybrid"], table, settings=settings, rng=gen(0))
    assert state.retries == 0


# -- models that cannot be judged yet --------------------------------------------------------------


def vague_at(low, high):
    """Worth more and more, but too vague to tell between two updates."""
    return lambda k: -math.inf if low <= k <= high else k


@pytest.mark.parametrize("worth", [vague_at(3, 9), lambda k: -20.0 if 3 <= k <= 9 else k])
def test_a_model_without_a_base_may_get_worse_before_it_gets_better(worth):
    """Held-out likelihood of a young one comes and goes; over a base that is a runaway."""
    state = scripted(Scripted(), worth=worth)
    assert state.retries == 0 and state.iteration == 20 and k(state) == 20
    assert scripted(Scripted(), worth=worth, model=over_base()).retries > 0


def test_where_nothing_can_be_judged_the_last_model_is_kept():
    state = scripted(Scripted(), worth=vague_at(0, 99), n_iter_no_change=2)
    assert state.iteration == 20 and k(state) == 20


def test_a_judged_snapshot_outlives_vague_ones():
    assert k(scripted(Scripted(), worth=vague_at(5, 99))) == 4


# -- checkpoints -----------------------------------------------------------------------------------


class Stumbles(ImportanceLikelihood):
    """Its fifth update breaks the energy."""

    def init(self, model, x, rng):
        return super().init(model, x, rng)._replace(buffers={"count": torch.zeros(())})

    def step(self, model, state, draw, rng):
        state, row = super().step(model, state, draw, rng)
        count = state.buffers["count"] + 1
        if count == 5:
            next(model.energy.parameters()).data.fill_(math.nan)
        return state._replace(buffers={"count": count}), row


GAME = BidirectionalBounds(generator=MLPGenerator((4,)), optimization=Optimization(1e-2))
# objective, held-out rows: judged ones keep the best, others the average of the second half
FITS = {
    "importance": (LEARNERS["importance"], shifted(50, seed=1)),
    "hybrid": (LEARNERS["hybrid"], shifted(50, seed=1)),
    "stumbles": (Stumbles(256, Optimization(1e-2)), shifted(50, seed=1)),
    "unjudged": (LEARNERS["importance"], None),
    "stumbles unjudged": (Stumbles(256, Optimization(1e-2)), None),
    "game": (GAME, shifted(50, seed=1)),
}


def learn(name, seed=0, objective=None, **keywords):
    before = keywords.get("state")
    model = copy.deepcopy(before.model) if before else new_model()
    fit, held_out = FITS[name]
    table = ArrayTable(shifted(200), held_out=held_out, noise=torch.tensor([0.1]).numpy())
    settings = Settings(40, batch_size=32, eval_every=10)
    state = train(model, objective or fit, table, settings=settings, rng=gen(seed), **keywords)
    assert parameters(model.energy).equal(parameters(state.model.energy))
    return state


def parameters(energy):
    return torch.cat([p.detach().flatten() for p in energy.parameters()])


def leaves(value):
    """All numbers and tensors of a state, by their place in it."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {(key, *rest): v for key, part in pairs for rest, v in leaves(part).items()}
    return {} if value is None else {(): value}


PLAIN = ("iteration", "start", "history_start", "retries", "lr_factor", "finished")


def same(one, two):
    """Two states agree to the bit: energy, players, moments, best, average, history."""
    assert [getattr(one, name) for name in PLAIN] == [getattr(two, name) for name in PLAIN]
    a, b = leaves(one.state_dict()), leaves(two.state_dict())
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(*map(torch.as_tensor, (a[key], b[key])))] == []


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("iteration", [0, 10, 30])
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(name, iteration, tmp_path):
    path, whole, seen = tmp_path / "fit.pt", learn(name), []
    assert (whole.average is None) == (name in ("importance", "hybrid", "stumbles"))
    assert (whole.lr_factor == 0.3) == name.startswith("stumbles")
    at = 20 if iteration == 10 and name.startswith("stumbles") else iteration
    with pytest.raises(KeyboardInterrupt):
        learn(name, checkpoint=path, callbacks=[interrupt_at(at)])
    resumed = learn(name, checkpoint=path, callbacks=[lambda s: seen.append(s.iteration)])
    same(resumed, whole)
    assert seen == [row["iteration"] for row in whole.history if row["iteration"] > at]
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pt"]  # written aside, then moved


def test_a_finished_checkpoint_is_read_not_trained(tmp_path):
    path, steps = tmp_path / "fit.pt", []
    options = {"worth": peak_at_7, "n_iter_no_change": 3, "checkpoint": path}
    for _ in range(2):  # it had stopped early, and stays so
        state = scripted(Scripted(at_step=lambda i, s: steps.append(i)), **options)
        assert k(state) == 7 and state.iteration == 10 == len(steps)


# -- warm start ------------------------------------------------------------------------------------


def test_a_warm_start_goes_on_counting_and_leaves_the_first_state_alone():
    rates = []
    objective = Scripted(at_step=lambda i, s: rates.append(rate(s)))
    first = scripted(objective, 5, worth=peak_at_7)
    second = scripted(objective, 5, worth=peak_at_7, state=first)
    assert (first.iteration, second.iteration) == (5, 10)
    assert [row["iteration"] for row in second.history] == [*range(6), *range(5, 11)]
    assert len(first.history) == 6 and k(first) == 5 and k(second) == 7
    assert rates[:5] == rates[5:]  # the decay starts afresh


def test_a_warm_start_draws_from_the_rng_that_it_is_given():
    first, rng = learn("hybrid"), gen(5)
    second = learn("hybrid", seed=5, state=first)
    assert second.iteration == 80 and second.best.held_out.value > first.best.held_out.value
    same(learn("hybrid", seed=5, state=first), second)
    other = learn("hybrid", seed=6, state=first)
    assert not parameters(other.model.energy).equal(parameters(second.model.energy))
    third = scripted(Scripted(), 2, state=scripted(Scripted(), 2), rng=rng)
    assert third.rng is rng


def test_a_warm_start_goes_on_from_the_models_parameters_and_the_moments():
    first = learn("importance")
    model = new_model(seed=3)
    table = ArrayTable(shifted(200))
    settings = Settings(1, 32, average=False)
    second = train(model, FITS["importance"][0], table, settings=settings, rng=gen(0), state=first)
    start = parameters(new_model(seed=3).energy)
    moved = (parameters(model.energy) - start).abs().max()
    assert 0 < moved < 0.05  # one update of rate 0.01, from the model's own parameters
    steps = [s["step"] for s in second.objective.optimizers["energy"].state.values()]
    assert set(map(float, steps)) == {41.0}


def test_a_warm_start_beside_a_checkpoint(tmp_path):
    """It does not read the file of the call before, nor does a new training read its."""
    learnt, path = partial(scripted, Scripted(), 5, worth=peak_at_7), tmp_path / "fit.pt"
    first = learnt(checkpoint=path)
    assert learnt(state=first, checkpoint=path).iteration == 10
    assert learnt(checkpoint=path).iteration == 5


def test_a_warm_start_averages_its_own_second_half():
    objective = Scripted()
    first = scripted(objective, 4, held_out=None)
    alone = scripted(Scripted(lambda i: i + 4.0), 4, held_out=None)
    second = scripted(objective, 4, held_out=None, state=first)
    assert k(second) == pytest.approx(k(alone))


def test_a_warm_start_has_patience_of_its_own():
    objective = Scripted(lambda i: 1.0)
    first = scripted(objective, 20, worth=peak_at_7, n_iter_no_change=3)
    second = scripted(objective, 20, worth=peak_at_7, n_iter_no_change=3, state=first)
    assert first.iteration >= 3 and second.iteration - first.iteration >= 3


def test_a_warm_start_has_rescues_and_a_rate_of_its_own():
    rates = []
    objective = Scripted(
        lambda i: math.nan if i % 10 in (1, 2, 3) else 1.0, lambda i, s: rates.append(rate(s))
    )
    first = scripted(objective, 10, worth=peak_at_7)
    second = scripted(objective, 10, worth=peak_at_7, state=first)
    assert first.retries == second.retries == 3  # as many as there are
    assert rates[4] == pytest.approx(0.3**3 * cosine(4, 10)) and rates[:10] == rates[10:]


def test_a_warm_start_judges_afresh():
    """Rows may have been others: the best of the first call is no measure for the second."""
    first = scripted(Scripted(), 3, worth=lambda k: 100.0 + k)
    second = scripted(Scripted(), 3, worth=peak_at_7, state=first)
    assert second.best.held_out.value <= 0 and k(second) == 6
