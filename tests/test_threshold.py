"""Where novelty starts, for scores that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skebm.data import ArrayTable, Originals
from skebm.exceptions import DataDegeneracyWarning
from skebm.fitted.threshold import quantile, threshold


def normal(n, mean=0.0, seed=0):
    return mean + np.random.default_rng(seed).normal(size=n)


def exponential(n):
    return np.random.default_rng(7).exponential(size=n)


RANK = "weibull"  # numpy's name of rank q (m + 1)


def rank(values):
    """The value that a further one falls below with a probability of 5 %."""
    return np.quantile(values, 0.05, method=RANK)


def offset(trained, fresh=(), contamination="auto", weight=None, numbers=None, base=None):
    """The offset where rows score their first column, training rows before held-out ones."""
    scores = np.concatenate([trained, fresh])
    held_out = np.arange(len(trained), len(scores)) if numbers is None else numbers
    originals = Originals(scores[:, None], weight, np.arange(len(trained)), held_out)
    table = ArrayTable(torch.zeros(len(trained), 1), originals=originals)
    base = base and SimpleNamespace(**base)
    density = SimpleNamespace(log_density=lambda X: X[:, 0], model=SimpleNamespace(base=base))
    return threshold(density, table, contamination)


@pytest.mark.parametrize("apart", [50.0, -50.0])
def test_the_automatic_offset_is_the_quantile_of_held_out_scores(apart):
    fresh = normal(100, seed=1)
    found = offset(normal(300, apart), fresh)
    lowest = fresh.min() if apart > 0 else -np.inf
    assert found == pytest.approx(rank(fresh)) and found > lowest


@pytest.mark.parametrize("n, guarded", [(39, True), (40, False)])
def test_few_held_out_rows_do_not_raise_it_above_the_quantile_of_all(n, guarded):
    trained, fresh = normal(300), normal(n, 20.0, seed=1)
    everything = rank(np.concatenate([trained, fresh]))
    expected = everything if guarded else rank(fresh)
    assert offset(trained, fresh) == pytest.approx(expected)
    low = normal(n, -20.0)  # but may lower it
    lowered = np.quantile(low, 0.05) if guarded else rank(low)
    assert offset(trained, low) == pytest.approx(lowered)


def test_held_out_rows_that_repeat_count_as_often():
    trained, fresh = normal(300, 99.0), np.arange(50.0)
    numbers = 300 + np.repeat(np.arange(50), np.r_[60, np.ones(49, dtype=int)])
    weight = np.r_[np.ones(300), 60, np.ones(49)]
    found = offset(trained, fresh, weight=weight, numbers=numbers)
    assert found == 0.0  # more than 7.5 % score 0


def test_held_out_rows_that_repeat_have_the_rank_that_they_are_worth():
    """Fifty once and fifty twice are worth 90: rank 4.55, of 0.6 for one and 1.2 for two."""
    numbers = 300 + np.repeat(np.arange(100), np.repeat([1, 2], 50))
    found = offset(normal(300, 999.0), np.arange(100.0), numbers=numbers)
    assert found == pytest.approx(4.55 / 0.6 - 1)


def test_uneven_held_out_rows_are_few():
    """One of them fills half of the 100 places: they are worth 4, so that all rows count."""
    trained, weight = normal(300, 5.0), np.r_[np.ones(300), np.full(51, 0.2)]
    weight[300] = 10.0
    numbers = 300 + np.r_[np.zeros(50, dtype=int), np.arange(1, 51)]
    everything = np.r_[trained, 99.0, normal(50, 5.0, seed=1)]
    found = offset(trained, everything[300:], weight=weight, numbers=numbers)
    assert found == pytest.approx(quantile(everything, weight, 0.05, of_unseen=True))


def test_weighted_rows_promise_what_they_are_worth():
    weight = np.r_[np.full(5, 300.0), np.ones(295)]
    with pytest.warns(DataDegeneracyWarning, match=r"about 1/8\.16: .* them worth 7\.16, promise"):
        offset(normal(300), weight=weight)
    offset(normal(300), weight=weight.clip(max=30))  # worth 41


def test_ranks_of_weighted_rows_are_those_of_as_many_equal_ones():
    weight = np.repeat([1.0, 3.0], 50)  # worth 80
    found = quantile(np.arange(100.0), weight, 0.1, of_unseen=True)
    assert found == pytest.approx(0.1 * 81 / 0.4 - 1)


def unseen(gained):
    """A base that its training rows gained so much from."""
    return {
        "log_prob": lambda x: x.new_tensor(gained.tolist()),
        "log_prob_left_out": lambda x, weight: x.new_zeros(len(x)),
    }


@pytest.mark.parametrize("sign", [1, -1])
def test_what_training_rows_gained_from_the_base_does_not_count(sign):
    """But where it flags few new rows the lowest of the table is flagged."""
    trained, gained = normal(100, 10.0), np.linspace(0, 9, 100)[::sign]
    left = trained - gained
    most, between = np.quantile(left, 0.075, method=RANK), np.sort(trained)[:2].mean()
    assert between > most  # no row can be flagged at that price, and none is paid
    expected = rank(left)
    assert offset(trained, base=unseen(gained)) == pytest.approx(expected)
    fresh = normal(50)
    assert offset(trained, fresh, base=unseen(gained)) == pytest.approx(rank(fresh))


@pytest.mark.parametrize(("gain", "flagged"), [(0.3, 1), (50.0, 0)])
def test_a_row_is_flagged_where_that_flags_few_new_ones(gain, flagged):
    trained = np.arange(60.0)
    gained = np.where(trained < 5, gain * 10, 0.0) if flagged else np.full(60, gain)
    found = offset(trained, base=unseen(gained))
    assert np.count_nonzero(trained < found) == flagged


@pytest.mark.parametrize("n", [2, 3, 9])
def test_ranks_of_few_rows_promise_little(n):
    with pytest.warns(DataDegeneracyWarning, match=f"about 1/{n + 1}: the ranks of {n} rows"):
        assert offset(np.arange(float(n))) == 0.0
    assert offset(np.arange(40.0)) == pytest.approx(0.05 * 41 - 1)


def test_an_atom_is_flagged_as_a_whole_or_not_at_all():
    scores = np.r_[np.zeros(10), np.arange(1.0, 91.0)]
    assert offset(scores) == 0.0
    assert offset(np.zeros(30)) == 0.0
    assert offset(np.r_[np.zeros(2), np.arange(1.0, 99.0)]) == pytest.approx(0.05 * 101 - 2)


@pytest.mark.parametrize("contamination", [0.01, 0.2, 0.5])
def test_a_number_is_the_flagged_share_of_weight(contamination):
    """Of training and held-out rows together, to the weight of one of them."""
    trained, fresh = normal(300), normal(100, 3.0, seed=1)
    scores = np.r_[trained, fresh]
    weight = 0.01 + exponential(400) * (scores > 0)
    found = offset(trained, fresh, contamination, weight)
    share = weight[scores < found].sum() / weight.sum()
    assert share == pytest.approx(contamination, abs=2 * weight.max() / weight.sum())
    plain = offset(trained, fresh, contamination)
    assert plain == pytest.approx(np.quantile(scores, contamination))
    assert abs(found - plain) > 0.05


@pytest.mark.parametrize("held_out", [0, 20])
def test_weights_move_an_automatic_offset_that_rests_on_all_rows(held_out):
    scores = np.arange(100.0)
    weight = np.where(scores < 50, 1.0, 99.0)
    found = offset(scores[: 100 - held_out], scores[100 - held_out :], weight=weight)
    assert found == pytest.approx(52, abs=1.0)  # 5 % of 5000 lies two heavy rows above 50
    repeated = offset(np.repeat(scores, weight.astype(int)))
    assert found == pytest.approx(repeated, abs=1.0)


@pytest.mark.parametrize("q", [0.0, 0.03, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_equal_weights_give_the_quantile_of_numpy(n, q):
    values = normal(n)
    expected = pytest.approx(np.quantile(values, q), abs=1e-9)
    assert quantile(values, None, q) == expected == quantile(values, np.full(n, 0.3), q)


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1e307])
def test_the_scale_of_weights_does_not_matter(scale):
    values, weight = normal(60), exponential(60)
    found = [quantile(values, w, 0.1) for w in (weight, scale * weight)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
