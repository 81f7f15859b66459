"""Exact maps, exact streams, and what makes a continuous likelihood unbounded."""

import numpy as np
import pytest
import torch

from skebm.data import (
    Affine,
    ArrayTable,
    find_degeneracy,
    resolve_device,
    spacing,
    torch_generator,
)
from skebm.data.table import split
from tests.closed_forms import assert_estimate, assert_mean, assert_variance
from tests.generators import gen

# -- the affine map --------------------------------------------------------------------------------


def table(n=200, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * [1.0, 10.0, 0.1][:d] + [0.0, -5.0, 100.0][:d]


def test_rows_become_centered_with_unit_spread_and_come_back():
    X = table()
    s = Affine.from_table(X)
    np.testing.assert_allclose(s.location, X.mean(0), rtol=1e-13)
    np.testing.assert_allclose(s.scale, X.std(0), rtol=1e-13)
    z = s.forward(X)
    assert z.dtype == torch.float32
    np.testing.assert_allclose(s.inverse(z), X, rtol=0, atol=1e-6 * X.std(0).max())
    exact = (X - s.location) / s.scale
    np.testing.assert_allclose(s.inverse(torch.from_numpy(exact)), X, rtol=1e-14)


def test_log_slope_is_that_of_the_map_in_each_column():
    s, X, h = Affine(np.zeros(3), np.array([2.0, 0.5, 3.0])), table(), 1e-6
    ahead, behind = (s.forward(X + e, dtype=torch.float64).numpy() for e in (h, -h))
    slope = np.broadcast_to(np.exp(s.log_slope(X)), X.shape)
    np.testing.assert_allclose((ahead - behind) / (2 * h), slope, rtol=1e-6)
    assert s.log_slope(X).shape == s.slope_gradient(X).shape == (1, 3)
    assert not s.slope_gradient(X).any() and not Affine.identity(4).log_slope(X).any()


def test_images_go_to_one_and_minus_one_by_one_map():
    X = np.array([[0.0, 10.0], [30.0, 20.0]])
    s = Affine.from_images(X)
    assert s.forward(X).flatten().tolist() == pytest.approx([-1, -1 / 3, 1, 1 / 3])
    assert np.ptp(s.scale) == np.ptp(s.location) == 0
    assert Affine.from_images(np.ones((2, 2))).scale.tolist() == [1, 1]


@pytest.mark.parametrize("a, b", [(4.0, 0.0), (0.001, 7.0), (1e9, -1e9), (1e-150, 0.0)])
def test_affine_maps_of_the_table_do_not_show_in_standardized_space(a, b):
    X = table()
    s, moved = Affine.from_table(X), Affine.from_table(a * X + b)
    np.testing.assert_allclose(moved.scale, a * s.scale, rtol=1e-9)
    np.testing.assert_allclose(moved.log_slope(X), s.log_slope(X) - np.log(a), atol=1e-8)
    torch.testing.assert_close(moved.forward(a * X + b), s.forward(X), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e9, 0.1])
def test_constant_columns_keep_unit_scale(offset):
    X = np.c_[table(d=1), np.full(200, offset)]
    s = Affine.from_table(X)
    assert s.scale[1] == 1 and s.location[1] == offset
    assert (s.forward(X)[:, 1] == 0).all()


def test_rounding_noise_around_a_large_offset_is_constant():
    noise = np.random.default_rng(0).standard_normal((50, 1)) * 1e-13
    assert Affine.from_table(1.0 + noise).scale[0] == 1
    assert Affine.from_table(noise).scale[0] < 1e-12  # no offset: it is the signal


@pytest.mark.parametrize("scale", [1e9, 1e300, 1e-300])
def test_extreme_scales_neither_overflow_nor_vanish(scale):
    X = table(d=2)
    s = Affine.from_table(X * scale)
    np.testing.assert_allclose(s.scale / scale, X.std(0), rtol=1e-12)
    assert np.isfinite(s.log_slope(X)).all()
    torch.testing.assert_close(s.forward(X * scale), Affine.from_table(X).forward(X))


def test_far_rows_are_clipped_to_what_float32_can_square():
    s = Affine.from_table(table(d=1))
    z = s.forward(np.array([[1e300], [-np.finfo(float).max]]))
    assert z.square().isfinite().all() and z[0] > 0 > z[1]


def test_weights_count_rows():
    X, counts = table(n=20), np.random.default_rng(1).integers(0, 4, 20)
    weighted = Affine.from_table(X, counts.astype(float))
    repeated = Affine.from_table(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(weighted.location, repeated.location, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


def test_a_row_of_weight_zero_does_not_hide_that_a_column_is_constant():
    X = np.r_[[[7.7]], np.full((6, 1), 0.7)]
    weight = np.r_[0.0, np.full(6, 0.7)]
    assert Affine.from_table(X, weight).scale[0] == 1


# -- randomness and devices ------------------------------------------------------------------------


def test_generators_follow_random_state_and_leave_the_global_ones_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    instance = np.random.RandomState(3)
    first, second = (torch.rand(4, generator=torch_generator(instance)) for _ in range(2))
    again = torch.rand(4, generator=torch_generator(np.random.RandomState(3)))
    by_int = torch.rand(4, generator=torch_generator(3))
    fresh = [torch.rand(4, generator=torch_generator(None)) for _ in range(2)]
    assert first.equal(again) and first.equal(by_int)
    assert not first.equal(second) and not fresh[0].equal(fresh[1])
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu") == resolve_device(torch.device("cpu"))
    assert resolve_device("auto").type in ("cpu", "cuda")
    for bad in ("gpu", "cuda:99", 3.5, None):
        with pytest.raises(ValueError, match=f"device must be .*got {bad!r}"):
            resolve_device(bad)


# -- tables ----------------------------------------------------------------------------------------

WEIGHT = torch.tensor([0.0, 1.0, 5.0, 0.0, 2.0, 0.0])


@pytest.mark.parametrize("weight", [None, WEIGHT, 1e-9 * WEIGHT, 1e9 * WEIGHT])
def test_rows_are_drawn_in_proportion_to_their_weights(weight):
    rows = ArrayTable(torch.arange(6.0)[:, None], weight).draw(40_000, gen(0))[:, 0].long()
    share = torch.ones(6) / 6 if weight is None else WEIGHT / WEIGHT.sum()
    seen = torch.bincount(rows, minlength=6) / 40_000
    for j in range(6):
        p = float(share[j])
        assert_estimate(float(seen[j]), np.sqrt(p * (1 - p) / 40_000), p, 0.003)


def test_noise_has_its_width_per_column_and_leaves_the_table_alone():
    x = torch.zeros(20_000, 2)
    table, rng = ArrayTable(x, noise=np.array([0.0, 0.3]), rng=gen(1)), gen(0)
    one, two, fixed = table.draw(20_000, rng), table.draw(20_000, rng), table.rows().x
    for rows in (one, two, fixed):
        assert not rows[:, 0].any()
        assert_mean(rows[:, 1], 0, 0.003)
        assert_variance(rows[:, 1], 0.09, 0.011)
    assert not one.equal(two) and fixed.equal(table.rows().x)  # batches are fresh, rows are not
    assert table.rows(noised=False).x is x and not x.any()


def test_a_reservoir_has_so_many_distinct_rows_with_their_weights():
    x = torch.arange(100.0)[:, None]
    table = ArrayTable(x, x[:, 0] + 1, rng=gen(3))
    few = table.rows(10)
    assert few.x.shape == (10, 1) and len(few.x.unique()) == 10
    assert few.weight.equal(few.x[:, 0] + 1)
    assert few.x.equal(table.rows(10).x) and few.x.equal(table.rows(30).x[:10])
    assert not few.x.equal(ArrayTable(x, rng=gen(4)).rows(10).x)
    assert few.x.mean() > 10  # no first ten
    for most in (None, 100, 999):
        assert table.rows(most).x.equal(x) and table.rows(most).weight.equal(x[:, 0] + 1)
    assert ArrayTable(x).rows(10).weight is None


def test_rows_repeat_in_proportion_to_their_weights():
    x = torch.arange(8.0)[:, None]
    weight = torch.tensor([0.0, 4.0, 0.5, 0.5, 1.0, 0.0, 2.0, 0.0])
    counts = ArrayTable(x, weight).rows().by_weight(gen(0))[:, 0].long().bincount(minlength=8)
    assert counts.sum() == 8 and ((counts - weight).abs() < 1).all()
    assert ArrayTable(x).rows().by_weight(gen(0)) is x


def made(X, weight=None, fraction=0.25, noise=0.0, transform=None, seed=0):
    rng = gen(seed)
    held_out = split(X, fraction, rng)
    transform = transform or Affine.identity(X.shape[1])
    noise = np.full(X.shape[1], noise)
    return ArrayTable.of(
        X,
        weight,
        transform.forward(X, dtype=torch.float64),
        noise=noise,
        held_out=held_out,
        rng=rng,
    )


def test_training_and_held_out_rows_are_all_rows_and_no_row_is_both():
    X = np.arange(80.0)[:, None] * 3 + 7
    table = made(X, transform=Affine(np.array([7.0]), np.array([3.0])))
    trained = set(table.draw(5000, gen(1))[:, 0].tolist())
    held_out = table.held_out[:, 0].tolist()
    assert table.n_rows == len(trained) == 60 and len(held_out) == len(set(held_out)) == 20
    assert not trained & set(held_out) and trained | set(held_out) == set(range(80))
    assert trained == set(table.rows().x[:, 0].tolist())
    rows, weight, trained, numbers, holed = table.originals()
    assert weight is None and rows is X and numbers.tolist() == held_out
    assert set(made(X, seed=1).held_out[:, 0].tolist()) != set(X[numbers, 0])
    assert holed is None


@pytest.mark.parametrize("n, fraction, expected", [(20, 0.1, 2), (19, 0.5, 0), (50, 0.0, 0)])
def test_few_rows_are_not_split(n, fraction, expected):
    table = made(np.arange(float(n))[:, None], fraction=fraction)
    assert table.n_rows == n - expected
    assert (0 if table.held_out is None else len(table.held_out)) == expected
    assert (
        len(split(RNG(0).standard_normal((100, 1)), 0.999, gen(0))) == 98
    )  # two are left to train on


def test_batches_and_held_out_rows_carry_the_noise():
    X = np.zeros((8000, 2))
    table = made(X, noise=0.5, fraction=0.5)
    for rows in (table.draw(4000, gen(1)), table.held_out, table.rows().x):
        assert_variance(rows.flatten(), 0.25, 0.02)
        assert_variance(rows[:, 0] + rows[:, 1], 0.5, 0.03)
    assert not table.rows(noised=False).x.any()


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_heavy_group_has_its_share_of_weight_everywhere(scale):
    """Of draws, of held-out rows; light rows that are held out make room for heavy ones."""
    X = np.repeat([[0.0], [1.0]], [900, 100], axis=0)
    weight = scale * np.where(X[:, 0] == 1, 9.0, 1.0)
    table = made(X, weight, fraction=0.4)
    numbers = split(X, 0.4, gen(0))
    share = weight[numbers] @ X[numbers, 0] / weight[numbers].sum()
    assert len(table.held_out) == 400
    assert float(table.held_out.mean()) == pytest.approx(share, abs=1.5 / 400)
    assert float(table.originals().X[table.originals().held_out].mean()) == pytest.approx(
        float(table.held_out.mean())
    )
    kept = np.delete(np.arange(1000), numbers)
    p = weight[kept] @ X[kept, 0] / weight[kept].sum()
    drawn = table.draw(40_000, gen(1)).mean()
    assert_estimate(float(drawn), np.sqrt(p * (1 - p) / 40_000), p, 0.003)
    assert 0.45 < share < 0.55 and table.originals().weight is weight


# -- degeneracy ------------------------------------------------------------------------------------

RNG = np.random.default_rng


def found(z):
    return [(reason, columns) for reason, columns in find_degeneracy(z).reasons]


def with_column(column, n=400):
    z = RNG(0).standard_normal((n, 3))
    z[:, 1] = column
    return z


def test_sound_tables_get_no_noise():
    for n, d in [(10, 2), (10, 20), (400, 5), (3, 1)]:
        degeneracy = find_degeneracy(RNG(n).standard_normal((n, d)))
        assert degeneracy.reasons == [] and not degeneracy.noise.any()


@pytest.mark.parametrize(
    "column, reason, noise",
    [
        (np.zeros(400), "constant columns", 0.2),
        (np.sign(RNG(1).standard_normal(400)), "columns with repeated values", 0.2),
        (RNG(1).integers(-5, 6, 400) * 0.3, "columns with repeated values", 0.09),
        (
            np.where(RNG(1).random(400) < 0.3, 0, RNG(2).standard_normal(400)),
            "columns with repeated values",
            0.05,
        ),
    ],
    ids=["constant", "binary", "integer", "zero-inflated"],
)
def test_atoms_are_found_in_their_column_alone(column, reason, noise):
    degeneracy = find_degeneracy(with_column(column))
    assert degeneracy.reasons == [(reason, [1])]
    np.testing.assert_allclose(degeneracy.noise, [0, noise, 0], atol=1e-12)


def test_copies_of_whole_rows_are_found_and_get_no_noise():
    z = RNG(0).standard_normal((400, 3))
    z[280:] = z[:120]
    assert found(z) == [("copied rows", [0, 1, 2])]
    assert not find_degeneracy(z).noise.any()


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_rows_that_are_copies_in_sound_columns_alone_get_noise_below_their_spacing(scale):
    z = scale * RNG(0).standard_normal((400, 3))
    z[280:] = z[:120]
    z[:, 1] = np.sign(RNG(1).standard_normal(400))
    noise, distinct = find_degeneracy(z).noise, np.unique(z[:, [0, 2]], axis=0)
    assert noise[1] == 0.2
    np.testing.assert_allclose(noise[[0, 2]], min(0.03, 0.3 * spacing(distinct)))


def test_dependent_columns_are_those_of_the_relation():
    z = RNG(0).standard_normal((400, 4))
    z[:, 3] = (z[:, 0] + z[:, 1]) / np.sqrt(2)
    assert found(z) == [("linearly dependent columns", [0, 1, 3])]
    z[:, 3] += 1e-3 * RNG(1).standard_normal(400)
    assert found(z) == []


def test_the_message_names_columns_reason_and_noise():
    message = find_degeneracy(with_column(np.zeros(400))).message(["a", "b", "c"])
    assert "constant columns (1: b; noise 0.2)" in message and "data_noise=0" in message
