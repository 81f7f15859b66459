"""Tables of numbers, whole numbers, dates, amounts with atoms and categories."""

import copy
import itertools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skebm import HybridCDDensity, NCEDensity, USPDensity
from skebm.bases import Mixture
from skebm.bases._conditional import Conditionals
from skebm.bases.mixed import MixedBase, MixedMixture
from skebm.data import Affine, Category, MixedTransform, Number, Schema
from skebm.data._columns import codes_of, lattice_step
from skebm.energies import MLP, Model
from skebm.energies.coded import coded
from skebm.estimators._completion import complete
from skebm.fitted import Draws
from skebm.fitted.density import cell_offsets
from skebm.impute import DensityImputer
from skebm.ood import (
    ConformalNoveltyDetector,
    NoveltyDetector,
    feature_contributions,
    reasons,
)
from tests.cases import QUIET
from tests.closed_forms import assert_mean
from tests.generators import gen

pytestmark = QUIET
CITIES = np.array(["Lima", "Oslo", "Rome"])


def frame(n=600, seed=0):
    """Older people live in Oslo, a third of the amounts are 0, the others depend on the city."""
    rng = np.random.RandomState(seed)
    k = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    amount = np.where(rng.uniform(size=n) < 1 / 3, 0.0, np.exp(rng.normal(2 + k, 0.5)))
    age = rng.normal(40 + 15 * (k == 1), 8).round().astype(int)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.randint(0, 500, n), unit="D")
    return pd.DataFrame(
        {
            "city": CITIES[k],
            "age": age,
            "amount": amount,
            "day": day,
            "member": rng.uniform(size=n) < np.array([0.2, 0.5, 0.9])[k],
            "height": rng.normal(170, 10, n),
        }
    )


def in_polars(table):
    return pl.DataFrame({name: column.to_list() for name, column in table.items()})


def holed(table, share=0.2, seed=3):
    hidden = np.random.RandomState(seed).uniform(size=table.shape) < share
    hidden[hidden.all(1), 0] = False
    return table.astype({"age": "Int64", "member": "boolean"}).mask(hidden)


@pytest.fixture(scope="module")
def fitted():
    return USPDensity(max_iter=200, random_state=0).fit(frame())


@pytest.fixture(scope="module")
def fitted_to_holes():
    return USPDensity(max_iter=50, random_state=0).fit(holed(frame()))


# -- the columns -----------------------------------------------------------------------------------


def test_a_value_has_its_code_whatever_type_of_number_it_is():
    """1 and 1.0 are one level, "1" is another; -1 is missing, -2 unseen."""
    np.testing.assert_array_equal(
        codes_of((1, 2, "x"), [1.0, "1", None, 2, "x"]), [0, -2, -1, 1, 2]
    )


def test_columns_are_found():
    city, age, amount, day, member, height = Schema.of(frame()).columns
    assert isinstance(city, Category) and city.levels == tuple(CITIES)
    assert isinstance(member, Category) and member.levels == (False, True)
    assert isinstance(age, Number) and age.step == 1 and age.atoms == ()
    assert isinstance(amount, Number) and amount.step == 0 and amount.atoms == (0.0,)
    assert isinstance(day, Number) and day.step == 1 and day.dated == "datetime"
    assert isinstance(height, Number) and not (height.step or height.atoms)
    assert amount.low > 0 and height.low == -np.inf  # amounts reach an end, heights fade out


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0, 2, 4, 10], 2),
        ([1, 4, 7], 3),
        ([0.1, 0.35, 0.6], 0.25),
        ([0.01, 19.99, 1234.5], 0.01),
        ([np.pi, np.e, 7], 0),
        ([1e5 + 0.123456789, 2e5 + 0.98765432], 0),
        ([5], 0),
        ([1e15, 1e15 + 8], 0),
    ],
)
def test_steps_are_decimal(values, step):
    assert lattice_step(np.sort(np.array(values, dtype=float))) == pytest.approx(step)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(100) % 12, "category"),
        (np.arange(100) % 13, "lattice"),
        (np.linspace(0, 1, 10) ** 2, "number"),
        (np.repeat([0.5, 2.25], 2), "category"),
        (np.array(["1", 1, "b", None] * 25, dtype=object), "category"),
        (np.array([1.0, 2.5, None, 3.25] * 25, dtype=object), "category"),
        (np.linspace(0, 1, 100) ** 2, "number"),
        (np.r_[np.zeros(20), np.linspace(1, 9, 80) ** 2.1], "atoms"),
        (np.r_[np.zeros(40), np.random.RandomState(0).randint(1, 60, 160)], "atoms"),
        (np.random.RandomState(0).poisson(3, 500) + np.arange(500) // 480, "category"),
        (np.random.RandomState(0).geometric(0.1, 500), "lattice"),
    ],
)
def test_kinds_of_columns(values, kind):
    (found,) = Schema.of(pd.DataFrame({"a": values})).columns
    if isinstance(found, Category):
        assert kind == "category"
    else:
        assert kind == ("atoms" if found.atoms else "lattice" if found.step else "number")


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.linspace(0, 1, 100), 0, 1),  # many near both ends
        (np.r_[0, np.linspace(0.9, 1, 50), 1 + 9 * np.linspace(0, 1, 50) ** 4], 0, np.inf),  # short
        (np.r_[0, np.linspace(0.9, 1, 50), np.linspace(1, 2, 50)], -np.inf, 2),
        (np.linspace(0, 1, 29), -np.inf, np.inf),  # too few to tell
        (np.random.RandomState(0).standard_normal(500), -np.inf, np.inf),
    ],
)
def test_ends_that_values_reach(values, low, high):
    """An end is one where 8 % of the values are near it, or that is near beside the other."""
    for sign, ends in ((1, (low, high)), (-1, (-high, -low))):
        (found,) = Schema.of(pd.DataFrame({"a": sign * values})).columns
        assert (found.low, found.high) == ends


def lattice(*heaps):
    """Counts 10 to 79, ten each, and many more of some."""
    return np.r_[np.repeat(np.arange(10, 80), 10), *(np.full(n, at) for at, n in heaps)]


@pytest.mark.parametrize(
    ("values", "atoms"),
    [
        (lattice((10, 80)), (10,)),  # 90 for the 50 of 5 values near the end
        (lattice((10, 30)), ()),  # 40 are not five times those near
        (lattice((40, 80)), ()),  # inside twice as many are near: ten values
        (lattice((40, 130)), (40,)),
        (lattice((10, 80), (40, 130)), (10, 40)),
        (np.r_[np.full(80, 10), np.repeat(np.arange(10, 30), 10)], ()),  # few values
    ],
)
def test_atoms_of_a_lattice_stand_out(values, atoms):
    (found,) = Schema.of(pd.DataFrame({"a": values})).columns
    assert found.step == 1 and found.atoms == atoms


def test_levels_are_told_apart_by_type():
    table = pd.DataFrame({"a": np.array([1, "1", True] * 5, dtype=object)})
    schema = Schema.of(table)
    assert len(schema.columns[0].levels) == 3
    assert len(set(schema.encode(table)[0].ravel())) == 3
    assert (schema.encode(table.assign(a=np.str_("1")))[0] == schema.encode(table)[0][1]).all()


def test_declared_levels_are_kept():
    values = pd.Categorical(["low", "high"] * 20, categories=["low", "mid", "high"], ordered=True)
    schema = Schema.of(pd.DataFrame({"a": values}))
    assert schema.columns[0].levels == ("low", "mid", "high")
    back = schema.decode(np.array([[1.0], [2.0]]))["a"]
    assert back.dtype == values.dtype and list(back) == ["mid", "high"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_come_back(library):
    table = frame(100).assign(
        zone=lambda t: t["day"].dt.tz_localize("UTC").dt.tz_convert("Europe/Rome"),
        fixed=lambda t: t["day"].astype("datetime64[ms]").dt.tz_localize("Etc/GMT+3"),
    )
    if library == "polars":
        table = in_polars(table).with_columns(
            pl.col("age").cast(pl.Int16),
            pl.col("day").cast(pl.Date),
            pl.col("city").cast(pl.Enum(["Rome", "Oslo", "Lima", "Kyiv"])),
            pl.col("height").cast(pl.Float32).cast(pl.Float64),
            pl.col("city").cast(pl.Categorical).alias("town"),
            pl.col("fixed").dt.cast_time_unit("ns"),
        )
    schema = Schema.of(table)
    rows, log_unseen = schema.encode(table)
    assert not np.isnan(rows).any() and not log_unseen.any()
    back = schema.decode(rows)
    if library == "pandas":
        pd.testing.assert_frame_equal(back, table, check_column_type=False)
    else:
        assert back.schema == table.schema and back.equals(table)
    assert schema.names[: schema.n_numbers] == ["age", "amount", "day", "height", "zone", "fixed"]


def test_missing_and_unseen_values_are_holes():
    schema = Schema.of(frame())
    table = holed(frame(50, 1), 0.3)
    rows, log_unseen = schema.encode(table)
    assert_array_equal(np.isnan(rows[:, 4]), table["city"].isna())
    assert_array_equal(np.isnan(rows[:, 0]), table["age"].isna())
    assert_array_equal(np.isnan(rows[:, [1, 6]]).all(1), table["amount"].isna())
    assert not log_unseen.any()
    new = frame(3, 1).assign(city=["Rome", "Paris", "Oslo"])
    rows, log_unseen = schema.encode(new)
    assert np.isnan(rows[1, 4]) and log_unseen[1] < -3 and not log_unseen[[0, 2]].any()


@pytest.mark.parametrize("start", [0.125, -3.0, 0.3, 100.0625])
@pytest.mark.parametrize("step", [1.0, 0.1, 0.5])
def test_lattices_start_anywhere(start, step):
    x = np.round(np.random.RandomState(0).randint(0, 40, 200) * step, 1) + start
    x[0] = start
    X = np.column_stack([x, np.random.RandomState(1).randn(200)])
    schema = Schema.of(X, {0: "number"})
    assert schema.columns[0].step == step
    back = schema.decode(schema.encode(X)[0])
    assert np.abs(back - X).max() <= 1e-9 * (1 + abs(start))


def counts_beside_a_number(n=600):
    """A count of 8 values, which are read as codes, and a date."""
    random = np.random.RandomState(0)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.randint(0, 700, n), unit="D")
    return pd.DataFrame(
        {"calls": random.randint(0, 8, n), "day": day, "plan": ["a", "b"] * (n // 2)}
    )


def test_unseen_numbers_of_a_column_of_codes_are_rarer_the_farther_they_are():
    schema = Schema.of(counts_beside_a_number())
    assert isinstance(schema.columns[0], Category)
    new = counts_beside_a_number(6).assign(calls=[3, 8, 9, 25, -5, 100_000])
    log_p = schema.encode(new)[1]
    unseen = np.log(schema.columns[0].unseen)
    spread = np.arange(8).std()
    share = np.log(max(2 * spread / 3, 1))
    expected = unseen - 4 * np.log1p(np.array([1, 2, 18, 5, 99_993]) / spread) - share
    assert_allclose(log_p[1:], expected)
    assert log_p[0] == 0
    assert_allclose(schema.encode_unseen(new, 0), -log_p)
    # all numbers beyond the ends together have at most the probability of what was not seen
    far = counts_beside_a_number(40_000).assign(calls=np.r_[8:20_008, -20_000:0])
    assert np.exp(schema.encode(far)[1]).sum() <= schema.columns[0].unseen


@pytest.fixture(scope="module")
def detector_of_counts():
    return NoveltyDetector(USPDensity(max_iter=20), random_state=0).fit(counts_beside_a_number())


@pytest.mark.parametrize("column, value", [("calls", 25), ("calls", -5), ("plan", "c")])
def test_values_that_no_row_had_are_novelties(detector_of_counts, column, value):
    usual = counts_beside_a_number()[:20]
    assert (detector_of_counts.predict(usual) == 1).mean() > 0.8
    assert (detector_of_counts.predict(usual.assign(**{column: value})) == -1).all()


def test_an_unseen_value_counts_by_itself(detector_of_counts, monkeypatch):
    row = counts_beside_a_number()[:1].assign(plan="c")
    with_it = detector_of_counts.score_samples(row)
    monkeypatch.setattr("skebm.ood.novelty.RARE", 1e-300)
    log_unseen = detector_of_counts.estimator_.schema_.encode(row)[1]
    alone = detector_of_counts.score_samples(row)
    assert_allclose(with_it - alone, log_unseen - np.log(0.05), rtol=1e-6)
    assert log_unseen[0] < np.log(0.05)


def test_reasons_name_days_and_what_was_not_seen(detector_of_counts):
    row = counts_beside_a_number()[:1]
    late = reasons(detector_of_counts, row.assign(day=pd.Timestamp("2031-05-05")))[0][0]
    assert str(late).startswith("day 2031-05-05; given the rest 20") and " 00:00" not in str(late)
    assert late.low < late.high < pd.Timestamp("2022-01-01")
    unseen = reasons(detector_of_counts, row.assign(plan="c"))[0][0]
    assert str(unseen).startswith("plan c (not seen before); given the rest ")
    with pytest.raises(NotFittedError):
        reasons(NoveltyDetector(), row)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda n: [f"2020-{k % 12 + 1:02}-{k % 28 + 1:02}" for k in range(n)], "dates as text"),
        (lambda n: [f"1,{k:03}.50" for k in range(n)], "numbers as text. Make them numbers"),
        (lambda n: ["unknown", *range(n - 1)], "numbers beside text such as 'unknown'"),
        (lambda n: [f"C{k}" for k in range(n)], "as an identifier has"),
        (lambda n: [[k] for k in range(n)], "must hold numbers, dates or categories, got a list"),
        (lambda n: [np.inf] * n, "must be finite"),
        (lambda n: [np.inf, 1.0] * (n // 2), "must be finite"),
    ],
)
def test_messages_say_what_a_column_looks_like(values, said):
    table = counts_beside_a_number(200).assign(odd=values(200))
    with pytest.raises(ValueError, match=f"^column 'odd' .*{said}"):
        Schema.of(table)


def test_rows_of_another_table_are_named(detector_of_counts):
    schema = detector_of_counts.estimator_.schema_
    row = counts_beside_a_number()[:1]
    with pytest.raises(ValueError, match="X must have the columns of the fit, got none called"):
        schema.encode(row.drop(columns="day"))
    with pytest.raises(ValueError, match="X must have the columns of the fit, got none called"):
        schema.encode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="column 'day' must hold numbers or dates"):
        schema.encode(row.assign(day="2020-01-01"))
    with pytest.raises(ValueError, match="column 'calls' must be finite"):
        schema.encode(row.assign(calls=np.inf))


def test_a_mapping_says_what_columns_are():
    X = np.column_stack([np.arange(60) % 4, np.random.RandomState(0).randn(60)])
    assert Schema.of(X).is_plain
    assert isinstance(Schema.of(X, {0: "category"}).columns[0], Category)
    table = frame(60)
    assert isinstance(Schema.of(table, {"age": "category"}).columns[1], Category)
    assert Schema.of(table, {"age": "continuous"}).columns[1].step == 0


@pytest.mark.parametrize(
    ("change", "error", "pattern"),
    [
        ({"a": [str(i) for i in range(120)]}, {}, r"column 'a' must have at most 50 .* got 120"),
        ({"a": [np.inf, *range(119)]}, {}, "column 'a' must be finite, got infinite"),
        ({"a": pd.to_timedelta(range(120), unit="D")}, {}, "column 'a' must .* got durations"),
        ({"a": range(120)}, {"b": "category"}, "columns must name columns of X, got 'b'"),
        ({"a": range(120)}, {"a": "ordinal"}, r"columns must be one of .* got 'ordinal' for 'a'"),
        ({"a": ["x", "y"] * 60}, {"a": "number"}, "column 'a' must hold numbers for 'number'"),
    ],
)
def test_bad_columns_are_named(change, error, pattern):
    with pytest.raises(ValueError, match=pattern):
        USPDensity(columns=error or "auto", max_iter=1).fit(pd.DataFrame(change))


def test_bad_settings_are_named():
    table = frame(80)
    with pytest.raises(TypeError, match=r"columns must be 'auto' or a dict .* got 'yes'"):
        USPDensity(columns="yes").fit(table)
    with pytest.raises(ValueError, match=r"base must be 'union' or 'mixture' .* \(city, age, am"):
        NCEDensity().fit(table)
    with pytest.raises(ValueError, match=r"method must be 'importance' with columns of codes"):
        USPDensity(method="ps-usp").fit(table)
    with pytest.raises(ValueError, match=r"log_partition must be 'auto' or 'importance'"):
        USPDensity(log_partition="ais").fit(table)
    with pytest.raises(ValueError, match=r"noise must be 'base' with columns"):
        NCEDensity(base="mixture", noise="conditional").fit(table)
    with pytest.raises(ValueError, match=r"X must hold numbers, got .* in column 'day'"):
        HybridCDDensity().fit(table)
    with pytest.raises(ValueError, match=r"at least 2 rows, got n_samples = 1"):
        USPDensity().fit(table[:1])


def test_plain_numbers_are_fitted_as_ever():
    X = np.random.RandomState(0).randn(120, 3)
    plain = USPDensity(max_iter=25, random_state=0).fit(X)
    table = pd.DataFrame(X, columns=list("abc"))
    named = USPDensity(max_iter=25, random_state=0).fit(table)
    assert not hasattr(plain, "schema_") and not hasattr(named, "schema_")
    assert_array_equal(plain.score_samples(X), named.score_samples(table))
    codes = X.copy()
    codes[:, 0] = np.arange(120) % 3  # of an array a number all the same
    assert not hasattr(USPDensity(max_iter=1, data_noise=0.1).fit(codes), "schema_")
    kept = HybridCDDensity(max_iter=1, data_noise=0.1)
    kept.fit(pd.DataFrame(codes, columns=list("abc")))
    assert kept.sample(2).shape == (2, 3)


# -- the base --------------------------------------------------------------------------------------


def of_codes(n=4000):
    """A code of three levels that moves a number, one of two, and a number that may be absent."""
    rng = np.random.RandomState(0)
    code, other = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.randint(0, 2, n)
    z = rng.normal(size=(n, 2))
    z[:, 0] += 4 * code
    z[:, 1] += z[:, 0]
    z[other == 0, 1] = 0.0
    return torch.from_numpy(np.column_stack([z, code, other]))


LEVELS, ABSENT = (3, 2), ((1, 1, 1),)


@pytest.fixture(scope="module")
def base():
    return MixedMixture(Mixture(4, n_folds=2), LEVELS, ABSENT).fit(of_codes(), None, gen(0))


def test_one_component_has_moments_and_frequencies():
    x = of_codes()
    found = MixedMixture(Mixture(1), LEVELS, ABSENT).fit(x, None, gen(0))
    there = x[:, 3] == 1
    assert_allclose(found.means[0, 0], x[:, 0].mean(), atol=1e-6)
    slope = np.polyfit(x[there, 0], x[there, 1], 1)
    assert_allclose(found.means[0, 1], np.polyval(slope, float(x[:, 0].mean())), atol=0.02)
    share = found.log_tables[0].exp()
    assert_allclose(share[:3], torch.bincount(x[:, 2].long()) / len(x), atol=1e-3)
    assert_allclose(share[3:].sum(), 1, rtol=1e-9)


def test_weights_sum_to_one(base):
    weights = torch.cat([base.log_weights, base.log_tail_share[None]]).exp()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert 0 < float(base.log_tail_share.exp()) < 0.02


def test_the_base_sums_to_one(base):
    """Over the codes, and over a grid of the numbers that exist."""
    grid = torch.linspace(-60, 70, 521, dtype=torch.float64)
    total = 0.0
    a, b = (g.reshape(-1) for g in torch.meshgrid(grid, grid, indexing="ij"))
    for code in range(3):
        rows = torch.stack([a, b, torch.full_like(a, code), torch.ones_like(a)], 1)
        total += float(base.log_prob(rows).exp().sum()) * 0.25**2
        rows = torch.stack([grid, grid, torch.full_like(grid, code), torch.zeros_like(grid)], 1)
        total += float(base.log_prob(rows).exp().sum()) * 0.25
    assert total == pytest.approx(1, abs=2e-3)  # what tails have beyond


def test_absent_numbers_do_not_matter(base):
    x = of_codes(50)
    other = x.clone()
    other[x[:, 3] == 0, 1] = 5.0
    assert_array_equal(base.log_prob(x), base.log_prob(other))
    other[:, 1] = 5.0
    assert not np.allclose(base.log_prob(x), base.log_prob(other))


@pytest.mark.parametrize("hidden", [p for p in itertools.product([0, 1], repeat=4) if any(p)])
def test_marginals_are_sums_and_integrals(base, hidden):
    """Of the joint density over what is hidden, number 1 of rows in which it exists."""
    hidden = torch.tensor(hidden, dtype=torch.bool)
    row = torch.tensor([[1.0, 2.0, 1.0, 1.0]], dtype=torch.float64)
    found = Conditionals(base.components(), hidden).log_prob(row[:, ~hidden])
    grid, step = torch.linspace(-40, 50, 901, dtype=torch.float64), 0.1
    axes = [
        (grid if j < 2 else torch.arange(float(LEVELS[j - 2])).double()) if h else row[0, j : j + 1]
        for j, h in enumerate(hidden.tolist())
    ]
    if hidden[:2].all():
        axes[0] = axes[0][::3]
        axes[1] = axes[1][::3]
        step *= 3
    rows = torch.stack([g.reshape(-1) for g in torch.meshgrid(*axes, indexing="ij")], 1)
    density = base.log_prob(rows).exp()
    lone = rows[:, 3] == 0  # of these the other number does not exist
    if hidden[1] and hidden[3]:
        density = torch.where(lone, density / len(axes[1]) / step, density)
    total = density.sum() * step ** int(hidden[:2].sum())
    if not (hidden[3] and not hidden[1]):
        assert_allclose(found[0].exp(), total, rtol=5e-3)


def test_draws_have_the_frequencies(base):
    x = base.sample(40_000, gen(1)).double()
    codes = base.components().codes
    share = base.components().log_weights.exp() @ codes.log_tables.exp()
    share += base.log_tail_share.exp() * codes.log_tail.exp()
    for level in range(3):
        assert_mean((x[:, 2] == level).double().numpy(), float(share[level]), 0.01)
    assert (x[x[:, 3] == 0, 1] == 0).all()
    inside = x[(x[:, 2] == 2) & (x[:, 0].abs() < 20), 0]
    assert_mean(inside.numpy(), 8.0, 0.2)


def test_weights_are_repeats():
    x = of_codes(300)
    twice = torch.cat([x, x[:100]])
    weight = torch.ones(300, dtype=torch.float64)
    weight[:100] = 2.0
    by_weight = MixedMixture(Mixture(1), LEVELS, ABSENT).fit(x, weight, gen(0))
    by_rows = MixedMixture(Mixture(1), LEVELS, ABSENT).fit(twice, None, gen(0))
    assert_allclose(by_weight.log_tables, by_rows.log_tables, atol=0.06)


def test_the_map_leaves_codes_alone():
    inner = Affine(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    mixed = MixedTransform(inner, np.zeros(2), np.array([[1, 0, 1]]), 1, np.array([[9.0]]))
    X = np.array([[3.0, 6.0, 1.0], [3.0, 6.0, 0.0]])
    assert_array_equal(mixed.forward(X), [[1, 1, 1], [1, 0, 0]])
    assert_allclose(mixed.log_slope(X), -np.log([[2, 4, 1], [2, 1, 1]]))
    assert_array_equal(mixed.with_atoms(X)[:, 1], [6, 9])
    assert_array_equal(mixed.inverse(mixed.forward(X))[0], X[0])


def test_the_energy_sees_what_exists_in_a_box_and_is_bounded():
    module = MLP((8,), n_frequencies=0).build((2 + 5,), gen(0))
    torch.nn.init.normal_(module.layers[-1].weight, 0, 50, generator=gen(1))
    x = of_codes(300).float()
    energy = coded(module, x[:, :2], torch.tensor(LEVELS), torch.tensor(ABSENT))
    value = energy(x).detach()
    assert 1 < float(value.abs().max()) <= 3
    other = x.clone()
    other[x[:, 3] == 0, 1] = 2.0
    assert_array_equal(energy(other).detach(), value)
    other[:, 1] = 2.0
    assert (energy(other).detach() != value).any()
    far = x.clone()
    far[:, 0] = 1e6
    further = far + torch.tensor([1e6, 0, 0, 0])
    assert_array_equal(energy(far).detach(), energy(further).detach())
    codes = x.clone()
    codes[:, 2] = (codes[:, 2] + 1) % 3
    assert (energy(codes).detach() != value).any()


# -- the model -------------------------------------------------------------------------------------


def test_a_table_of_codes_sums_to_one():
    rng = np.random.RandomState(0)
    a = rng.randint(0, 4, 1500)
    b = (a + rng.randint(0, 2, 1500)) % 4
    c = (a * b + rng.randint(0, 3, 1500)) % 3
    table = pd.DataFrame({"a": a, "b": b, "c": c}).astype(str)
    est = USPDensity(base=Mixture(2), random_state=0).fit(table)
    assert est.energy_kept_  # two components are too few
    cells = pd.DataFrame([*itertools.product("0123", "0123", "012")], columns=list("abc"))
    log_p = est.score_samples(cells)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=3 * est.log_partition_.stderr + 1e-3)
    truth = table.value_counts(normalize=True)
    found = pd.Series(np.exp(log_p), index=pd.MultiIndex.from_frame(cells))
    assert (found.reindex(truth.index) - truth).abs().max() < 0.015
    joint = log_p.reshape(4, 4, 3)
    exact = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    proba = est.conditional_proba(cells, "b").reshape(4, 4, 3, 4)
    assert_allclose(proba[:, 0], np.exp(exact).transpose(0, 2, 1), atol=1e-6)


def test_toys_with_all_kinds_integrate_to_one():
    """A code, a whole number, and an amount with zeros."""
    table = frame(800)[["city", "age", "amount"]]
    est = USPDensity(random_state=0, max_iter=200).fit(table)
    log_amounts = np.linspace(-4, 8, 121)
    amounts = np.exp(log_amounts)
    ages = np.arange(0, 100)
    total = 0.0
    for city in CITIES:
        grid = pd.DataFrame(
            [*itertools.product([city], ages, amounts)], columns=["city", "age", "amount"]
        )
        density = np.exp(est.score_samples(grid)).reshape(len(ages), -1)
        total += np.trapezoid(density * amounts, log_amounts, axis=1).sum()
        total += np.exp(est.score_samples(grid.iloc[:: len(amounts)].assign(amount=0.0))).sum()
    assert total == pytest.approx(1, abs=3 * est.log_partition_.stderr + 0.01)


def test_lattices_are_means_over_their_cells(fitted):
    """The density of an age is smooth enough for the middle to be near the mean, and sums to 1."""
    row = frame(1, 5)
    alone = pd.concat([row] * 120, ignore_index=True).assign(age=np.arange(-10, 110))
    others = row.astype({"age": "Int64"}).assign(age=pd.NA)
    total = np.exp(fitted.score_samples(alone)).sum()
    assert_allclose(np.log(total), fitted.score_samples(others)[0], atol=0.1)


def test_a_cell_has_points_all_over_it(fitted):
    offsets = cell_offsets(np.array([2.0, 0.0]), 3)
    assert_allclose(np.sort(offsets[:, 0]), np.arange(-7, 8, 2) / 8)
    assert not offsets[:, 1:].any()
    density = copy.copy(fitted.density_)
    rows = fitted.schema_.encode(frame(40, 5))[0]
    plain = copy.copy(density.transform)
    plain.steps = np.zeros_like(plain.steps)
    density.transform = plain
    every = [
        density.log_density(rows + o) for o in cell_offsets(fitted.schema_.steps, rows.shape[1])
    ]
    mean = np.logaddexp.reduce(every, axis=0) - np.log(len(every))
    assert_allclose(fitted.density_.log_density(rows), mean, rtol=1e-9)
    assert np.ptp(every, axis=0).min() > 1e-4  # an age matters within its year


def test_rows_to_learn_from_are_spread_over_their_cells():
    schema = Schema.of(frame())
    rows = schema.encode(frame())[0]
    learnt = schema.spread(rows, np.random.RandomState(0))
    moved = learnt - rows
    assert np.abs(moved[:, 0]).max() <= 0.5 and moved[:, 0].std() > 0.25
    assert not moved[:, 3].any() and not moved[:, schema.n_numbers :].any()
    absent = rows[:, 6] == 0
    assert not moved[~absent, 1].any() and len(np.unique(learnt[absent, 1])) == absent.sum()
    there = rows[~absent, 1]
    assert there.min() <= learnt[absent, 1].min() < learnt[absent, 1].max() <= there.max()


def test_the_model_is_near_the_truth(fitted):
    fresh = frame(500, 7)
    k = fresh["city"].map({"Lima": 0, "Oslo": 1, "Rome": 2}).to_numpy()
    p = np.log(np.array([0.5, 0.3, 0.2])[k])
    age = fresh["age"].to_numpy()
    middle = 40 + 15 * (k == 1)
    p += np.log(norm.cdf((age + 0.5 - middle) / 8) - norm.cdf((age - 0.5 - middle) / 8))
    amount = fresh["amount"].to_numpy()
    some = amount > 0
    p += np.where(some, np.log(2 / 3), np.log(1 / 3))
    log_amount = np.log(np.where(some, amount, 1))
    p += np.where(some, norm.logpdf(log_amount, 2 + k, 0.5) - log_amount, 0)
    share = np.array([0.2, 0.5, 0.9])[k]
    p += np.log(np.where(fresh["member"], share, 1 - share)) - np.log(500)
    p += norm.logpdf(fresh["height"], 170, 10)
    off = fitted.score_samples(fresh) - p
    assert -0.6 < off.mean() < 0.0


def test_samples_are_tables_of_the_same_kind(fitted):
    drawn = fitted.sample(500, random_state=0)
    assert list(drawn.columns) == list(frame(2).columns)
    pd.testing.assert_series_equal(drawn.dtypes, frame(2).dtypes)
    assert set(drawn["city"]) == set(CITIES) and (drawn["amount"] >= 0).all()
    assert_mean((drawn["amount"] == 0).to_numpy(float), 1 / 3, 0.03)
    assert_mean((drawn["city"] == "Oslo").to_numpy(float), 0.3, 0.03)
    assert drawn["age"][drawn["city"] == "Oslo"].mean() > 50 > 45 > drawn["age"].median() > 38
    assert drawn["day"].between("2020-01-01", "2021-05-14").all()


def test_uneven_weights_are_met_by_more_draws_and_no_moves():
    """A level of one row in a thousand is 400 times as likely to the energy."""

    class Level(torch.nn.Module):
        def forward(self, x):
            return torch.where(x[:, 2] == 2, -6.0, 0.0)

    x = of_codes()
    x[:, 2] = torch.where(torch.arange(len(x)) % 1000 == 0, 2.0, x[:, 2].clamp(max=1))
    base = MixedMixture(Mixture(1), LEVELS, ABSENT).fit(x, None, gen(0))
    tail, tables = base.log_tail_share.exp(), base.components().codes
    share = (1 - tail) * tables.log_tables.exp()[0, 2] + tail * tables.log_tail.exp()[2]
    share = float(share) * np.exp(6)
    drawn, info = Draws().sample(Model(Level(), base, 1.0), base, 2000, gen(1))
    assert (drawn[:, 2] == 2).double().mean() == pytest.approx(share / (share + 1), abs=0.04)
    assert info.acceptance == 1 and info.n_levels == 0 and info.ess > 100


def test_unseen_categories_score_low_and_count(fitted):
    fresh = frame(40, 2)
    strange = fresh.assign(city="Paris")
    hidden = fresh.assign(city=None)
    (city, *_) = fitted.schema_.columns
    expected = fitted.score_samples(hidden) + np.log(city.unseen)
    assert_allclose(fitted.score_samples(strange), expected)
    assert (fitted.predict(strange) == -1).mean() > 0.5
    kept = fitted.conditional_sample(strange.astype({"age": "Int64"}).assign(age=pd.NA))
    assert set(kept["city"]) == {"Paris"} and not kept["age"].isna().any()


def test_rows_with_holes(fitted_to_holes):
    est, fresh = fitted_to_holes, holed(frame(60, 4))
    score = est.score_samples(fresh)
    assert np.isfinite(score).all()
    assert_allclose(est.score_samples(fresh[:9]), score[:9], rtol=1e-6, atol=1e-6)
    nothing = holed(frame(1), 1.0).astype(object)
    nothing.iloc[0] = None
    assert est.score_samples(nothing)[0] == 0
    filled = est.conditional_mean(fresh)
    assert not filled.isna().any(axis=None) and list(filled.columns) == list(fresh.columns)
    known = fresh.notna()
    assert (filled.astype(object).eq(fresh.astype(object)) | ~known).all(axis=None)
    first, second = est.conditional_sample(fresh, n_samples=2, random_state=0)
    assert (first["city"] != second["city"]).any()
    assert (filled["age"] == filled["age"].round()).all()
    assert (est.predict(fresh) == -1).mean() < 0.3


def test_completions_do_not_look_at_numbers_that_do_not_exist():
    schema = Schema.of(frame(200))
    rows = schema.spread(schema.encode(frame(200))[0], np.random.RandomState(0))
    rows[np.random.RandomState(1).uniform(size=200) < 0.3, 0] = np.nan
    absent = np.flatnonzero(rows[:, 6] == 0)
    other = rows.copy()
    other[absent, 1] = np.roll(rows[absent, 1], 1)  # the same mean and spread
    one, two = (complete(X, None, schema.names, schema) for X in (rows, other))
    assert_allclose(one.drawn[:, :, 0], two.drawn[:, :, 0])
    assert_allclose(one.log_q, two.log_q, atol=1e-9)
    assert one.log_q[~np.isnan(rows[:, 0])].any() == 0
    hidden = np.isnan(rows[:, 0])
    truth = frame(200)["age"].to_numpy()[hidden]
    assert abs(one.drawn[hidden, :, 0].mean() - truth.mean()) < 4
    rows[:60, [1, 6]] = np.nan  # whether there is an amount, and which
    found = complete(rows, None, schema.names, schema)
    zero = (found.drawn[:60, :, 6] == 0) & ~np.isnan(rows[:60, [0]])
    assert -2 < np.median(found.log_q[:60][zero]) < -0.5  # a probability of a third, no density


def test_what_is_missing_follows_the_rest(fitted):
    table = frame(400, 6)
    proba = fitted.conditional_proba(table, "city")
    assert fitted.schema_.levels("city") == tuple(CITIES)
    assert_allclose(proba.sum(1), 1)
    right = CITIES[proba.argmax(1)] == table["city"]
    assert right.mean() > 0.6
    interval = fitted.conditional_interval(table)
    assert np.isnan(interval[:, [0, 4]]).all()
    low, high = interval[:, 1].T
    assert_mean(((low <= table["age"]) & (table["age"] <= high)).to_numpy(float), 0.9, 0.03)
    filled = fitted.conditional_mean(table.astype({"age": "Int64"}).assign(age=pd.NA))
    off = (filled["age"].astype(float) - table["age"]).std()
    assert off < 0.95 * table["age"].std()
    values = fitted.score_values(table)
    own = np.log(proba[np.arange(400), np.searchsorted(CITIES, table["city"])])
    assert_allclose(values[:, 0], own, atol=1e-5)
    given = fitted.conditional_score_samples(table, given=["age", "amount", "day", 4, 5])
    assert_allclose(given, own, atol=0.35)
    with pytest.raises(ValueError, match="column must be one of codes, got 'age'"):
        fitted.conditional_proba(table, "age")


def test_the_oddest_code_is_the_least_likely_one(fitted):
    table = frame(50, 6)
    values = fitted.score_values(table)[:, [0, 4]]
    rows, _ = fitted.schema_.encode(table)
    assert_allclose(fitted.odd_codes(rows), values.min(1), atol=1e-6)
    assert 0 < (values.argmin(1) == 0).sum() < 50
    rows[:, 4] = np.nan  # a missing city is not odd
    member = fitted.score_values(table.assign(city=None))[:, 4]
    assert_allclose(fitted.odd_codes(rows), member, atol=1e-6)


def test_contributions_are_means_given_the_rest_less_the_own_value(fitted):
    table = frame(60, 6)
    gains = feature_contributions(fitted, table)
    p = fitted.conditional_proba(table, "city")
    own = np.log(p[np.arange(60), np.searchsorted(CITIES, table["city"])])
    assert_allclose(gains[:, 0], (p * np.log(p)).sum(1) - own, atol=1e-5)
    away = np.abs(table["height"] - 170) / 10  # of a Gaussian that depends on nothing
    assert np.corrcoef(gains[:, 5], (away**2 - 1) / 2)[0, 1] > 0.9
    odd = feature_contributions(fitted, table.assign(age=140, amount=5000.0))
    assert (odd[:, 1] > 5).all() and (odd[:, 2] > 3).all()
    hidden = table.assign(city=None, amount=np.nan)
    assert not feature_contributions(fitted, hidden)[:, [0, 2]].any()
    with pytest.raises(ValueError, match="method must be one of .'conditional'., got 'mode'"):
        feature_contributions(fitted, table, method="mode")


def test_gradients_are_refused(fitted):
    with pytest.raises(TypeError, match=r"X must have no columns of codes .* got city, member"):
        fitted.score_function(frame(3))
    assert np.isfinite(fitted.energy_samples(frame(3))).all()
    with pytest.raises(ValueError, match="X must have no missing or unseen values here"):
        fitted.energy_samples(holed(frame(20)))


def test_other_columns_are_refused(fitted):
    with pytest.raises(ValueError, match="feature names"):
        fitted.score_samples(frame(3).rename(columns={"age": "years"}))
    with pytest.raises(ValueError, match=r"column 'age' must hold numbers .* got text"):
        fitted.score_samples(frame(3).assign(age=["a", "b", "c"]))


def test_files_copies_and_clones(fitted, tmp_path):
    fresh = frame(30, 3)
    fitted.save(tmp_path / "model")
    back = USPDensity.load(tmp_path / "model")
    assert_array_equal(back.score_samples(fresh), fitted.score_samples(fresh))
    pd.testing.assert_frame_equal(back.sample(5, 0), fitted.sample(5, 0))
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.score_samples(fresh), fitted.score_samples(fresh))
    assert clone(fitted).columns == "auto"


def few_kinds(n=200):
    """Tables that lack one kind of column or another."""
    rng = np.random.RandomState(0)
    age, height = rng.normal(40, 10, n).round(), rng.randn(n)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.randint(0, 300, n), unit="D")
    two = np.where(rng.uniform(size=n) < 0.3, 0.0, rng.exponential(5, n))
    return {
        "lattice": pd.DataFrame({"age": age, "height": height}),
        "lattice with holes": pd.DataFrame(
            {"age": np.where(height > 1, np.nan, age), "height": height}
        ),
        "days": pd.DataFrame({"day": day}),
        "constant": pd.DataFrame({"a": ["x"] * n, "b": np.ones(n), "height": height}),
        "one level": pd.DataFrame({"a": ["x"] * n}),
        "a single row of a level": pd.DataFrame({"a": ["x"] * (n - 1) + ["y"], "height": height}),
        "few rows": pd.DataFrame({"a": list("xyxyxyxy"), "height": height[:8]}),
        "flags with holes": pd.DataFrame(
            {"a": pd.array([True, None, False, True] * (n // 4), dtype="boolean"), "b": height}
        ),
        "two atoms": pd.DataFrame(
            {"a": np.where(rng.uniform(size=n) < 0.3, 99.0, two), "height": height}
        ),
        "names that are numbers": pd.DataFrame({0: list("xyxz") * (n // 4), 1: height}),
    }


@pytest.mark.filterwarnings("ignore:offset_ flags a new row")  # of eight rows
@pytest.mark.parametrize("name", few_kinds())
def test_tables_of_few_kinds(name):
    table = few_kinds()[name]
    table = table[~table.isna().all(axis=1)]
    table.index = np.arange(len(table)) + 100
    est = USPDensity(max_iter=2, random_state=0).fit(table)
    assert np.isfinite(est.score_samples(table)).all()
    drawn = est.sample(20, random_state=0)
    assert drawn.dtypes.equals(table.dtypes)
    filled = est.conditional_mean(table)
    assert filled.index.equals(table.index) and not filled.isna().any(axis=None)
    est.fit(table, sample_weight=np.arange(len(table)) + 1.0)
    assert np.isfinite(est.score(table))


def test_lattices_alone_have_the_usual_base():
    table = few_kinds(400)["lattice"]
    est = USPDensity(max_iter=2, random_state=0).fit(table)
    assert not isinstance(est.base_, MixedBase) and est.schema_.columns[0].step == 1
    ages = pd.DataFrame({"age": np.arange(-20.0, 100), "height": 0.0})
    total = np.exp(est.score_samples(ages)).sum()  # of ages, the height's density at 0
    alone = est.score_samples(pd.DataFrame({"age": [np.nan], "height": [0.0]}))[0]
    assert np.log(total) == pytest.approx(alone, abs=0.02)
    assert (est.sample(50)["age"] % 1 == 0).all()
    assert est.score_function(ages).shape == (120, 2)


def test_a_column_of_nothing_is_named():
    with pytest.raises(ValueError, match=r"X must have values in every column, got none in a\."):
        USPDensity().fit(pd.DataFrame({"a": [None] * 40, "b": np.random.RandomState(0).randn(40)}))


def test_polars_frames_and_arrays():
    table = in_polars(frame(150))
    est = USPDensity(max_iter=2, random_state=0).fit(table)
    assert isinstance(est.sample(3), pl.DataFrame)
    other = USPDensity(max_iter=2, random_state=0).fit(frame(150))
    assert_allclose(est.score_samples(table), other.score_samples(frame(150)))
    X = np.column_stack([np.arange(150) % 3, np.random.RandomState(0).randn(150)])
    est = USPDensity(columns={0: "category"}, max_iter=2, random_state=0).fit(X)
    drawn = est.sample(50, random_state=0)
    assert isinstance(drawn, np.ndarray) and set(drawn[:, 0]) == {0.0, 1.0, 2.0}


def test_noise_contrastive_estimation_learns_codes():
    est = NCEDensity(base="mixture", random_state=0, max_iter=100).fit(frame())
    other = USPDensity(base="mixture", random_state=0, max_iter=1).fit(frame())
    fresh = frame(300, 8)
    assert est.score(fresh) > other.score(fresh) - 0.1
    assert len(est.sample(4)) == 4


def test_a_warm_start_keeps_the_columns():
    est = USPDensity(warm_start=True, max_iter=2, random_state=0).fit(frame(120))
    before = est.schema_
    est.fit(frame(200, 5))
    assert est.schema_ is before


def test_searches_imputers_and_detectors_take_tables():
    table = holed(frame(160))
    search = GridSearchCV(USPDensity(max_iter=2), {"batch_size": [8, 16]}, cv=2).fit(table)
    assert np.isfinite(search.best_score_)
    filled = DensityImputer(USPDensity(max_iter=2), random_state=0).fit_transform(table)
    assert not filled.isna().any(axis=None)
    detector = ConformalNoveltyDetector(USPDensity(max_iter=2), random_state=0).fit(frame(200))
    assert (detector.predict(frame(200, 9)) == -1).mean() < 0.2


def test_a_detector_finds_the_odd_value_and_says_why(tmp_path):
    detector = NoveltyDetector(USPDensity(max_iter=50), random_state=0).fit(frame())
    assert len(detector.members_) == 4 and detector.quantiles_.shape == (5, 2)
    middle, low = detector.quantiles_[4]  # log probabilities of the oddest code
    assert -1.5 < middle < -0.1 and low < middle - 1
    fresh = frame(200, 9)
    assert (detector.predict(fresh) == -1).mean() < 0.13
    assert (detector.predict(holed(fresh)) == -1).mean() < 0.2
    strange = fresh[:20].assign(age=140)
    assert (detector.predict(strange) == -1).all()
    why = reasons(detector, strange[:4], n_columns=2)
    assert [row[0].column for row in why] == ["age"] * 4
    assert all(row[0].low > 15 and row[0].high < 90 for row in why)
    assert str(why[0][0]).startswith("age 140; given the rest ")
    assert (detector.contributions(strange[:4]).argmax(1) == 1).all()
    unseen = fresh[:5].assign(city="Paris")
    assert feature_contributions(detector.estimator_, unseen).argmax(1).tolist() == [0] * 5
    assert "city Paris (not seen before)" in str(reasons(detector, unseen)[0][0])
    detector.save(tmp_path / "detector")
    back = NoveltyDetector.load(tmp_path / "detector")
    assert_allclose(back.score_samples(fresh), detector.score_samples(fresh))
    trimmed = NoveltyDetector(USPDensity(max_iter=2), contamination=0.1, random_state=0)
    assert len(trimmed.fit(fresh).kept_) == 180
    with pytest.raises(TypeError, match=r"estimator must have a density of skebm inside, got"):
        reasons(IsolationForest(random_state=0).fit(fresh[["age"]]), fresh)


def test_swapped_categories_are_found_by_the_least_likely_one():
    """Where columns depend, and the joint density is spread over others."""
    rng = np.random.RandomState(0)
    a = rng.randint(0, 4, 1200)
    table = pd.DataFrame({"a": a, "b": (a + (rng.uniform(size=1200) < 0.05)) % 4}).astype(str)
    table["c"] = rng.randint(0, 10, 1200).astype(str)
    est = USPDensity(random_state=0, max_iter=50).fit(table[:800])
    bad = table[800:].assign(b=((a[800:] + 2) % 4).astype(str))
    good, odd = (est.score_values(t)[:, :2].min(1) for t in (table[800:], bad))
    assert np.quantile(good, 0.1) > np.quantile(odd, 0.9)
