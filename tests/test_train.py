"""The loop: what it keeps, restores, gives up on and resumes, mostly under a scripted objective."""

import copy
import math

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skebm.energies import MLP, Model
from skebm.exceptions import ConvergenceError
from skebm.objectives import (
    ContrastiveDivergence,
    HeldOut,
    ImportanceLikelihood,
    Objective,
    Optimization,
    State,
)
from skebm.samplers import MALA
from skebm.train import Settings, train
from tests.closed_forms import Quadratic, normal_base
from tests.generators import gen

ROWS = torch.zeros(8, 1)


class Scripted(Objective):
    """Update i sets the energy's k to ``path(i)``; a model of that k is worth ``worth(k)``."""

    def __init__(self, path=float, worth=None, at_step=None):
        self.path = path
        self.worth = worth
        self.at_step = at_step

    def init(self, model, x, rng):
        optimizer = Optimization(learning_rate=1.0).build(model.energy)
        return State({"energy": optimizer}, {}, {"count": torch.zeros(())})

    def step(self, model, state, draw, rng):
        count = state.buffers["count"] + 1
        if self.at_step is not None:
            self.at_step(int(count), state)
        with torch.no_grad():
            model.energy.k.fill_(self.path(int(count)))
        return state._replace(buffers={"count": count}), {"data_energy": model.energy.k.detach()}

    def validate(self, model, state, batch, rng):
        if self.worth is None:
            return None
        worth = self.worth(model.energy.k.item())
        return HeldOut(worth, worth, 0.1, 100.0)  # a base worth 0: the gain is the value


def scripted(objective, max_iter=20, *, validation=ROWS, model=None, eval_every=1, **keywords):
    names = {"n_iter_no_change", "tol", "max_retries"} & set(keywords)
    settings = Settings(
        max_iter, eval_every=eval_every, **{name: keywords.pop(name) for name in names}
    )
    before = keywords.get("state")
    if model is None:
        model = copy.deepcopy(before.model) if before else Model(Quadratic(0.0), None, 1.0)
    return train(
        model,
        objective,
        ROWS,
        settings=settings,
        validation=validation,
        rng=gen(0),
        **keywords,
    )


def peak_at_7(k):
    return -0.1 * abs(k - 7)


def k(state):
    return state.model.energy.k.item()


def interrupt_at(iteration):
    def callback(state):
        if state.iteration == iteration:
            raise KeyboardInterrupt

    return callback


# -- learning --------------------------------------------------------------------------------------

MEAN, SD = 0.8, 0.5


def shifted(n=2000, seed=0):
    return MEAN + SD * torch.randn(n, 1, generator=gen(seed))


def new_model(seed=0):
    energy = MLP((16,), n_frequencies=0).build((1,), gen(seed))
    return Model(energy, normal_base(1), 1.0)


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
    state = train(
        model,
        LEARNERS[name],
        shifted(),
        validation=shifted(1000, seed=1),
        settings=Settings(200),
        rng=gen(0),
    )
    assert kl(model) < 0.05 * before
    values = [row["validation"] for row in state.history]
    assert values[0] < values[-1] and state.best.held_out.value == max(values)
    assert state.best.held_out.gain == pytest.approx(before, abs=0.1)
    assert [row["iteration"] for row in state.history] == list(range(0, 201, 25))


def test_weights_choose_the_rows():
    x = torch.cat([shifted(500), shifted(500) - 3])
    weight = torch.cat([torch.ones(500), torch.zeros(500)])
    model = new_model()
    train(
        model,
        LEARNERS["importance"],
        x,
        sample_weight=weight,
        settings=Settings(150),
        rng=gen(0),
    )
    assert kl(model) < 0.06


def test_noise_is_added_to_batches():
    seen = []

    class Watch(Scripted):
        def step(self, model, state, draw, rng):
            seen.append(draw())
            return super().step(model, state, draw, rng)

    settings = Settings(1, batch_size=5000, noise=torch.tensor([0.3]))
    train(Model(Quadratic(), None, 1.0), Watch(), ROWS, settings=settings, rng=gen(0))
    assert float(seen[0].std()) == pytest.approx(0.3, rel=4 / math.sqrt(2 * 5000))


@pytest.mark.parametrize("name", LEARNERS)
def test_same_seed_same_bits_and_no_global_randomness(name):
    before = torch.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        states.append(
            train(
                new_model(),
                LEARNERS[name],
                shifted(200),
                validation=shifted(50, seed=1),
                settings=Settings(30, batch_size=32, eval_every=10),
                rng=gen(seed),
            )
        )
    one, two, other = (parameters(s.model.energy) for s in states)
    assert one.equal(two) and not one.equal(other)
    assert states[0].history == states[1].history
    assert torch.get_rng_state().equal(before)


def parameters(energy):
    return torch.cat([p.detach().flatten() for p in energy.parameters()])


# -- learning rate, stopping -----------------------------------------------------------------------


def test_the_learning_rate_follows_half_a_cosine():
    rates = []
    scripted(Scripted(at_step=lambda i, s: rates.append(rate(s))), max_iter=8)
    assert rates == pytest.approx([cosine(i, 8) for i in range(8)], rel=1e-12)


def cosine(i, n):
    return 0.5 * (1 + math.cos(math.pi * i / n))


def rate(state):
    return state.optimizers["energy"].param_groups[0]["lr"]


def test_the_best_snapshot_comes_back():
    state = scripted(Scripted(worth=peak_at_7))
    assert k(state) == 7 == state.best.iteration and state.iteration == 20
    assert state.finished and not state.interrupted and len(state.history) == 21


def test_the_start_is_a_snapshot():
    model = Model(Quadratic(7.0), None, 1.0)
    state = scripted(Scripted(lambda i: 7.0 + i, worth=peak_at_7), model=model)
    assert k(state) == 7 and state.best.iteration == 0


@pytest.mark.parametrize(
    "tol, patience, last", [(0.0, 3, 10), (0.0, None, 20), (0.25, 3, 20), (0.35, 3, 3)]
)
def test_patience(tol, patience, last):
    # gains of 0.1 for seven validations: tol 0.25 over three of them is still a gain
    state = scripted(
        Scripted(worth=lambda k: peak_at_7(k) if tol == 0 else 0.1 * k),
        n_iter_no_change=patience,
        tol=tol,
    )
    assert state.iteration == last and state.finished


def test_a_callback_sees_every_validation_and_may_stop():
    seen = []

    def callback(state):
        seen.append(state.iteration)
        return state.iteration >= 6

    state = scripted(Scripted(worth=peak_at_7), callbacks=[callback], eval_every=3)
    assert seen == [0, 3, 6] and state.iteration == 6 and state.finished and k(state) == 6


# -- averaging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [None, ROWS], ids=["no rows", "no verdict"])
@pytest.mark.parametrize(
    "max_iter, truth",
    [
        (1, 1.0),
        (10, 8.0),
        (11, 9.0),
    ],
)
def test_without_a_verdict_the_second_half_is_averaged(validation, max_iter, truth):
    state = scripted(Scripted(), max_iter, validation=validation)
    assert k(state) == pytest.approx(truth, rel=1e-6)


def test_the_average_lies_in_the_second_half():
    assert 6 <= k(scripted(Scripted(), 10, validation=None)) <= 10


def test_a_rescue_does_not_leave_nan_in_the_average():
    path = lambda i: math.nan if 13 <= i <= 15 else 1.0  # noqa: E731
    state = scripted(Scripted(path), validation=None, eval_every=5)
    assert state.retries == 1 and k(state) == 1


def test_averaging_survives_an_interruption(tmp_path):
    path, worth = tmp_path / "fit.pt", Scripted()
    with pytest.warns(ConvergenceWarning):
        scripted(worth, 10, callbacks=[interrupt_at(3)], checkpoint=path)
    assert k(scripted(worth, 10, checkpoint=path)) == k(scripted(worth, 10))


# -- rescue ----------------------------------------------------------------------------------------


def test_divergence_is_rescued_with_a_smaller_step():
    rates = []
    state = scripted(
        Scripted(
            lambda i: math.nan if i == 3 else 5.0 if i < 3 else 6.0,
            worth=peak_at_7,
            at_step=lambda i, s: rates.append(rate(s) / cosine(i - 1, 8)),
        ),
        max_iter=8,
    )
    assert state.retries == 1 and k(state) == 6
    assert rates == pytest.approx([1, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert all(math.isfinite(v) for row in state.history for v in row.values())
    assert [row["iteration"] for row in state.history] == [0, 1, 2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e7])
@pytest.mark.parametrize("max_retries", [0, 2])
def test_it_gives_up_after_the_bounded_number_of_rescues(value, max_retries):
    steps, starts = [], []
    model = Model(Quadratic(0.0), None, 1.0)

    def at_step(i, state):
        steps.append(i)
        starts.append(model.energy.k.item())

    objective = Scripted(lambda i: value, worth=lambda k: 0.0, at_step=at_step)
    with pytest.raises(ConvergenceError, match=rf"diverged {max_retries + 1} times.*learning_rate"):
        scripted(objective, 50, eval_every=4, max_retries=max_retries, model=model)
    assert len(steps) == 4 * (max_retries + 1)
    assert starts[::4] == [0.0] * (max_retries + 1)  # each try starts at the sound snapshot


def test_running_away_ends_with_the_best_snapshot():
    model = Model(Quadratic(0.0), normal_base(1), 1.0)
    objective = Scripted(lambda i: 1.0 if i == 1 else 9.0, worth=lambda k: -float(k))
    state = scripted(objective, 30, model=model)
    assert k(state) == 0 and state.retries == 4 and state.finished
    assert state.iteration == 5  # 1 is fine; four at 9 are not
    state = scripted(Scripted(lambda i: 4.9, worth=lambda k: -float(k)), 30)
    assert state.retries == 0 and state.iteration == 30


@pytest.mark.filterwarnings("ignore:(std|var)")
def test_batches_of_one_row_train():
    state = train(
        new_model(),
        LEARNERS["hybrid"],
        shifted(50),
        settings=Settings(10, batch_size=1, eval_every=2),
        rng=gen(0),
    )
    assert state.retries == 0


# -- interruption ----------------------------------------------------------------------------------


def test_an_interruption_leaves_what_was_learnt():
    def at_step(i, state):
        if i == 10:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted after 9 of 20 updates"):
        state = scripted(Scripted(worth=peak_at_7, at_step=at_step))
    assert state.interrupted and not state.finished and state.iteration == 9
    assert k(state) == 7 and len(state.history) == 10


# -- checkpoints -----------------------------------------------------------------------------------


def learn(name, **keywords):
    before = keywords.get("state")
    model = copy.deepcopy(before.model) if before else new_model()
    state = train(
        model,
        LEARNERS[name],
        shifted(200),
        validation=shifted(50, seed=1),
        settings=Settings(40, batch_size=32, eval_every=10, noise=torch.tensor([0.1])),
        rng=gen(0),
        **keywords,
    )
    assert parameters(model.energy).equal(parameters(state.model.energy))
    return state


def same(one, two):
    assert one.iteration == two.iteration and one.history == two.history
    assert one.best.iteration == two.best.iteration and one.best.held_out == two.best.held_out
    assert parameters(one.model.energy).equal(parameters(two.model.energy))
    assert one.rng.get_state().equal(two.rng.get_state())
    for name, buffer in one.objective.buffers.items():
        assert buffer.equal(two.objective.buffers[name])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("iteration", [0, 20])
def test_a_resumed_fit_has_the_bits_of_an_uninterrupted_one(name, iteration, tmp_path):
    path = tmp_path / "fit.pt"
    with pytest.warns(ConvergenceWarning, match=f"after {iteration} of 40"):
        part = learn(name, checkpoint=path, callbacks=[interrupt_at(iteration)])
    assert part.interrupted and part.iteration == iteration
    seen = []
    resumed = learn(name, checkpoint=path, callbacks=[lambda s: seen.append(s.iteration)])
    assert seen == [i for i in (10, 20, 30, 40) if i > iteration]
    same(resumed, learn(name))
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pt"]  # written aside, then moved


def test_resuming_between_validations_has_the_same_parameters(tmp_path):
    path, steps = tmp_path / "fit.pt", []

    class Stops(ImportanceLikelihood):
        def step(self, *args):
            steps.append(1)
            if len(steps) == 16:
                raise KeyboardInterrupt
            return super().step(*args)

    def fit(objective, path):
        options = {"settings": Settings(40, 32, eval_every=10), "rng": gen(0)}
        return train(new_model(), objective, shifted(200), checkpoint=path, **options)

    with pytest.warns(ConvergenceWarning, match="after 15 of 40"):
        fit(Stops(256), path)
    resumed, whole = fit(Stops(256), path), fit(ImportanceLikelihood(256), None)
    assert parameters(resumed.model.energy).equal(parameters(whole.model.energy))


def test_a_finished_checkpoint_is_read_not_trained(tmp_path):
    path = tmp_path / "fit.pt"
    done = learn("importance", checkpoint=path)

    def never(state):
        raise AssertionError("trained again")

    same(learn("importance", checkpoint=path, callbacks=[never]), done)


def test_checkpoints_hold_no_code(tmp_path):
    path = tmp_path / "fit.pt"
    learn("hybrid", checkpoint=path)
    assert torch.load(path, weights_only=True)["iteration"] == 40


# -- warm start ------------------------------------------------------------------------------------


def test_a_warm_start_goes_on_counting_and_leaves_the_first_state_alone():
    rates = []
    objective = Scripted(worth=peak_at_7, at_step=lambda i, s: rates.append(rate(s)))
    first = scripted(objective, 5)
    second = scripted(objective, 5, state=first)
    assert (first.iteration, second.iteration) == (5, 10)
    assert [row["iteration"] for row in second.history] == [*range(6), *range(5, 11)]
    assert len(first.history) == 6 and k(first) == 5 and k(second) == 7
    assert rates[:5] == rates[5:]  # the decay starts afresh


def test_a_warm_start_goes_on_learning():
    first = learn("importance")
    second = learn("importance", state=first)
    assert second.iteration == 80 and second.best.held_out.value > first.best.held_out.value
    assert not parameters(first.model.energy).equal(parameters(second.model.energy))


def test_a_warm_start_beside_a_checkpoint(tmp_path):
    objective, path = Scripted(worth=peak_at_7), tmp_path / "fit.pt"
    first = scripted(objective, 5, checkpoint=path)
    assert scripted(objective, 5, state=first, checkpoint=path).iteration == 10


def test_a_warm_start_averages_its_own_second_half():
    objective = Scripted()
    first = scripted(objective, 4, validation=None)
    alone = scripted(Scripted(lambda i: i + 4.0), 4, validation=None)
    second = scripted(objective, 4, validation=None, state=first)
    assert k(second) == pytest.approx(k(alone))


def test_a_warm_start_has_patience_of_its_own():
    objective = Scripted(lambda i: 1.0, worth=peak_at_7)
    first = scripted(objective, 20, n_iter_no_change=3)
    second = scripted(objective, 20, n_iter_no_change=3, state=first)
    assert first.iteration >= 3 and second.iteration - first.iteration >= 3


# -- models that cannot be judged yet --------------------------------------------------------------


def vague_at(low, high):
    """Worth more and more, but too vague to tell between two updates."""

    def worth(k):
        return -math.inf if low <= k <= high else k

    return worth


def test_a_vague_value_without_a_base_is_no_reason_to_stop():
    """Held-out likelihood of a young model without a base comes and goes."""
    state = scripted(Scripted(worth=vague_at(3, 9)))
    assert state.retries == 0 and state.iteration == 20 and k(state) == 20


def test_a_model_without_a_base_may_get_worse_before_it_gets_better():
    state = scripted(Scripted(worth=lambda k: -20.0 if 3 <= k <= 9 else k))
    assert state.retries == 0 and k(state) == 20


def test_a_vague_value_of_a_model_with_a_base_is_a_runaway():
    model = Model(Quadratic(0.0), normal_base(1), 1.0)
    state = scripted(Scripted(worth=vague_at(3, 9)), model=model)
    assert state.retries > 0


def test_where_nothing_can_be_judged_the_last_model_is_kept():
    state = scripted(Scripted(worth=vague_at(0, 99)), n_iter_no_change=2)
    assert state.iteration == 20 and k(state) == 20


def test_a_judged_snapshot_outlives_vague_ones():
    state = scripted(Scripted(worth=vague_at(5, 99)))
    assert k(state) == 4


@pytest.mark.parametrize("average, kept", [(True, 15.5), (False, 20.0)])
def test_the_mean_or_the_last_parameters(average, kept):
    model = Model(Quadratic(0.0), None, 1.0)
    settings = Settings(20, eval_every=5, average=average)
    state = train(model, Scripted(), ROWS, settings=settings, rng=gen(0))
    assert k(state) == pytest.approx(kept)
