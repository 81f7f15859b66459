"""Exact maps, exact streams, and what makes a continuous likelihood unbounded."""

import numpy as np
import pytest
import torch

from skebm.data import (
    Standardizer,
    find_degeneracy,
    resolve_device,
    torch_generator,
    weighted_draws,
)
from tests.closed_forms import assert_estimate, assert_mean, assert_variance
from tests.generators import gen

# -- Standardizer ----------------------------------------------------------------------------------


def table(n=200, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * [1.0, 10.0, 0.1][:d] + [0.0, -5.0, 100.0][:d]


def test_rows_become_centered_with_unit_spread_and_come_back():
    X = table()
    s = Standardizer.from_table(X)
    np.testing.assert_allclose(s.location, X.mean(0), rtol=1e-13)
    np.testing.assert_allclose(s.scale, X.std(0), rtol=1e-13)
    z = s.transform(X)
    assert z.dtype == torch.float32
    np.testing.assert_allclose(s.inverse(z), X, rtol=0, atol=1e-6 * X.std(0).max())
    exact = (X - s.location) / s.scale
    np.testing.assert_allclose(s.inverse(torch.from_numpy(exact)), X, rtol=1e-14)


def test_log_volume_is_the_log_determinant_of_the_map_back():
    s = Standardizer(np.zeros(3), np.array([2.0, 0.5, 3.0]))
    jacobian = s.inverse(torch.eye(3, dtype=torch.float64)) - s.inverse(torch.zeros(3, 3))
    assert s.log_volume == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-14)
    assert Standardizer.identity(4).log_volume == 0.0


@pytest.mark.parametrize("a, b", [(4.0, 0.0), (0.001, 7.0), (1e9, -1e9), (1e-150, 0.0)])
def test_affine_maps_of_the_table_do_not_show_in_standardized_space(a, b):
    X = table()
    s, moved = Standardizer.from_table(X), Standardizer.from_table(a * X + b)
    np.testing.assert_allclose(moved.scale, a * s.scale, rtol=1e-9)
    assert moved.log_volume == pytest.approx(s.log_volume + 3 * np.log(a), rel=1e-9)
    torch.testing.assert_close(moved.transform(a * X + b), s.transform(X), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e9, 0.1])
def test_constant_columns_keep_unit_scale(offset):
    X = np.c_[table(d=1), np.full(200, offset)]
    s = Standardizer.from_table(X)
    assert s.scale[1] == 1 and s.location[1] == offset
    assert (s.transform(X)[:, 1] == 0).all()


def test_rounding_noise_around_a_large_offset_is_constant():
    noise = np.random.default_rng(0).standard_normal((50, 1)) * 1e-13
    assert Standardizer.from_table(1.0 + noise).scale[0] == 1
    assert Standardizer.from_table(noise).scale[0] < 1e-12  # no offset: it is the signal


@pytest.mark.parametrize("scale", [1e9, 1e300, 1e-300])
def test_extreme_scales_neither_overflow_nor_vanish(scale):
    X = table(d=2)
    s = Standardizer.from_table(X * scale)
    np.testing.assert_allclose(s.scale / scale, X.std(0), rtol=1e-12)
    assert np.isfinite(s.log_volume)
    torch.testing.assert_close(s.transform(X * scale), Standardizer.from_table(X).transform(X))


def test_far_rows_are_clipped_to_what_float32_can_square():
    s = Standardizer.from_table(table(d=1))
    z = s.transform(np.array([[1e300], [-np.finfo(float).max]]))
    assert z.square().isfinite().all() and z[0] > 0 > z[1]


def test_weights_count_rows():
    X, counts = table(n=20), np.random.default_rng(1).integers(0, 4, 20)
    weighted = Standardizer.from_table(X, counts.astype(float))
    repeated = Standardizer.from_table(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(weighted.location, repeated.location, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


def test_a_row_of_weight_zero_does_not_hide_that_a_column_is_constant():
    X = np.r_[[[7.7]], np.full((6, 1), 0.7)]
    weight = np.r_[0.0, np.full(6, 0.7)]
    assert Standardizer.from_table(X, weight).scale[0] == 1


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


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, torch.tensor([0.0, 1.0, 5.0, 0.0, 2.0, 0.0])])
def test_rows_are_drawn_in_proportion_to_their_weights(weight):
    x = torch.arange(6.0)[:, None]
    rows = weighted_draws(x, 40_000, weight=weight, rng=gen(0))()[:, 0].long()
    share = torch.ones(6) / 6 if weight is None else weight / weight.sum()
    seen = torch.bincount(rows, minlength=6) / 40_000
    for j in range(6):
        p = float(share[j])
        assert_estimate(float(seen[j]), np.sqrt(p * (1 - p) / 40_000), p, 0.003)


def test_noise_has_its_width_per_column_and_leaves_the_table_alone():
    x = torch.zeros(10, 2)
    draw = weighted_draws(x, 20_000, noise=torch.tensor([0.0, 0.3]), rng=gen(0))
    batch = draw()
    assert (batch[:, 0] == 0).all() and (x == 0).all()
    assert_mean(batch[:, 1], 0, 0.003)
    assert_variance(batch[:, 1], 0.09, 0.011)
    assert not draw().equal(batch)


def test_the_stream_is_that_of_the_generator_alone():
    x, weight = torch.randn(30, 2, generator=gen(0)), torch.rand(30, generator=gen(1))
    rng = gen(2)
    draw = weighted_draws(x, 8, weight=weight, noise=torch.ones(2), rng=rng)
    draw()
    state = rng.get_state()
    later = draw()
    resumed = gen(0)
    resumed.set_state(state)
    again = weighted_draws(x, 8, weight=weight, noise=torch.ones(2), rng=resumed)()
    assert later.equal(again)


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


def test_copied_rows_blur_every_column():
    z = RNG(0).standard_normal((400, 3))
    z[280:] = z[:120]
    assert found(z) == [("copied rows", [0, 1, 2])]
    np.testing.assert_array_equal(find_degeneracy(z).noise, 0.03)


def test_dependent_columns_are_those_of_the_relation():
    z = RNG(0).standard_normal((400, 4))
    z[:, 3] = (z[:, 0] + z[:, 1]) / np.sqrt(2)
    assert found(z) == [("linearly dependent columns", [0, 1, 3])]
    z[:, 3] += 1e-3 * RNG(1).standard_normal(400)
    assert found(z) == []


def test_copied_rows_are_found_beside_a_binary_column():
    z = with_column(np.sign(RNG(1).standard_normal(400)))
    z[280:] = z[:120]
    assert (find_degeneracy(z).noise > 0).all()


def test_the_message_names_columns_reason_and_noise():
    message = find_degeneracy(with_column(np.zeros(400))).message(["a", "b", "c"])
    assert "constant columns (1: b; noise 0.2)" in message and "data_noise=0" in message
