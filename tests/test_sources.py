"""Tables that do not fit in memory: every kind of source, batches from all of it, going on."""

import subprocess
import sys
import textwrap
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from skebm import HybridCDDensity, NCEDensity, USPDensity
from skebm.data import Affine, Source, parquet
from skebm.data._reservoir import Reservoir
from skebm.data.sources import MappedRows, as_source
from skebm.data.streamed import MOST_KEPT, Stream, StreamedTable
from skebm.estimators import _base
from skebm.exceptions import DriftWarning
from tests import cases
from tests.cases import bits, each, table, tiny

pytestmark = cases.QUIET
N = 300_000
FAST = {"base": "gaussian", "random_state": 0}


@cache
def curved(n=N, seed=0):
    """Rows (n, 4) that no Gaussian has, sorted by their first column."""
    X = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    X[:, 1] += X[:, 0] ** 2
    X[:, 2] += np.sin(2 * X[:, 0])
    return X[np.argsort(X[:, 0])]


def mapped(X, folder):
    path = folder / "rows.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


class Once(IterableDataset):
    """Rows one after the other."""

    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return iter(torch.from_numpy(self.X))


class Blocks(Source):
    """A source of one's own, counting its passes."""

    def __init__(self, *blocks):
        self.given, self.passes = blocks, 0

    def blocks(self):
        self.passes += 1
        return iter(self.given)


# -- kinds -----------------------------------------------------------------------------------------


def kinds(X, folder):
    """The same rows as each kind of source that is always there."""
    tensor = torch.from_numpy(X)
    return {
        "memmap": mapped(X, folder),
        "dataset": TensorDataset(tensor, tensor[:, 0]),
        "loader": DataLoader(TensorDataset(tensor), 50),
        "images": DataLoader(TensorDataset(tensor[:, None, None]), 50),
        "stream": Once(X),
        "own": Blocks(X[:7], X[7:]),
    }


@pytest.mark.parametrize("kind", ["memmap", "dataset", "loader", "images", "stream", "own"])
def test_a_small_source_is_an_array_to_the_bit(kind, tmp_path):
    X, weight = table().astype(np.float32), np.arange(120.0)
    expected = tiny("NCEDensity").fit(X, sample_weight=weight)
    source = kinds(X, tmp_path)[kind]
    est = tiny("NCEDensity").fit(source, sample_weight=weight)
    assert bits(est) == bits(expected)
    for read in ("score_samples", "decision_function", "predict"):
        np.testing.assert_allclose(getattr(est, read)(source), getattr(expected, read)(X), 1e-9)
    assert est.score(source, sample_weight=weight) == pytest.approx(
        expected.score(X, sample_weight=weight)
    )
    assert sum(map(len, est.score_blocks(source))) == 120


def test_small_sources_may_have_holes(tmp_path):
    X = table()
    X[3, 1] = np.nan
    one, two = (tiny("NCEDensity").fit(x) for x in (X, Blocks(X[:50], X[50:])))
    assert bits(one) == bits(two)
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(Blocks(X)))


def test_what_joblib_maps_is_an_array(tmp_path):
    folder = tmp_path / "joblib_memmapping_folder_1"
    folder.mkdir()
    assert as_source(mapped(table(), folder)) is None
    assert isinstance(as_source(mapped(table(), tmp_path)), MappedRows)


def test_scores_have_every_block():
    est, X = tiny("NCEDensity").fit(table()), table(1000, seed=1)
    source = Blocks(X[:400], X[400:999], X[999:])
    np.testing.assert_allclose(est.score_samples(source), est.score_samples(X), 1e-5)
    assert [len(block) for block in est.score_blocks(source)] == [400, 599, 1]


def test_parquet_is_read_by_columns(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame(table(), columns=["a", "b"]).assign(n=np.arange(120), text="x")
    for i, part in enumerate((frame[:70], frame[70:])):
        part.to_parquet(tmp_path / f"{i}.parquet")
    with pytest.raises(ValueError, match=r"got others in column 'text'.*Leave such columns out"):
        parquet(tmp_path)
    with pytest.raises(ValueError, match=r"columns must be some of .*got \['c'\]"):
        parquet(tmp_path, ["c"])
    source = parquet(str(tmp_path), ["a", "b"])
    assert (source.n_rows, source.n_features) == (120, 2)
    est, expected = (tiny("NCEDensity").fit(x) for x in (source, frame[["a", "b"]]))
    np.testing.assert_array_equal(est.feature_names_in_, ["a", "b"])
    np.testing.assert_allclose(
        est.score_samples(source), expected.score_samples(frame[["a", "b"]]), 1e-9
    )
    with pytest.raises(ValueError, match=r"columns of the fit in their order, \['a', 'b'\]"):
        est.score_samples(parquet(tmp_path, ["b", "a"]))
    with pytest.raises(ValueError, match="the 2 columns of the fit, got 3"):
        est.score_samples(parquet(tmp_path, ["a", "b", "n"]))


def test_dask_is_scored_lazily(tmp_path):
    da, dd = pytest.importorskip("dask.array"), pytest.importorskip("dask.dataframe")
    pd, X = pytest.importorskip("pandas"), table(1000)
    array = da.from_array(X, chunks=(300, 1))
    frame = dd.from_pandas(pd.DataFrame(X, columns=["a", "b"]), npartitions=3)
    est, named = tiny("NCEDensity").fit(array), tiny("NCEDensity").fit(frame)
    expected = tiny("NCEDensity").fit(X)
    assert bits(est) == bits(expected)
    for model, source in ((est, array), (named, frame)):
        for read in ("score_samples", "decision_function", "predict"):
            lazy = getattr(model, read)(source)
            assert isinstance(lazy, da.Array)
            np.testing.assert_allclose(lazy.compute(), getattr(expected, read)(X), 1e-5)
        assert model.score(source) == pytest.approx(expected.score(X), rel=1e-5)
    few = named.score_samples(frame[frame.b > -310]).compute()  # some partition may be left empty
    np.testing.assert_allclose(few, expected.score_samples(X[X[:, 1] > -310]), 1e-5)
    assert len(named.score_samples(frame[frame.b > 1e9]).compute()) == 0
    with pytest.raises(ValueError, match="columns of the fit, got 1"):
        est.score_samples(array[:, :1])
    with pytest.raises(ValueError, match="got others in column 'c'"):
        est.fit(frame.assign(c="text"))


def test_dask_scores_on_a_cluster(tmp_path):
    da, distributed = pytest.importorskip("dask.array"), pytest.importorskip("distributed")
    est, X = tiny("NCEDensity").fit(table()), table(1000)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        scores = est.score_samples(da.from_array(X, chunks=(300, 2))).compute()
    np.testing.assert_allclose(scores, est.score_samples(X), 1e-5)


# -- more rows than are kept -----------------------------------------------------------------------


def test_a_sorted_file_is_fitted_as_its_rows_in_memory(tmp_path):
    X, T = curved(), curved(20_000, seed=1)
    some = np.random.default_rng(2).permutation(N)[:MOST_KEPT]
    expected = NCEDensity(**FAST).fit(X[some])
    est = NCEDensity(**FAST).fit(mapped(X, tmp_path))
    difference = est.score_samples(T) - expected.score_samples(T)
    stderr = difference.std() / len(T) ** 0.5
    assert stderr < 0.01 and abs(difference.mean()) < 0.02 + 4 * stderr
    assert est.energy_kept_ and est.validation_gain_[0] > 0.2


def of_source(source, weight=None, **split):
    """A stream, and the table that draws from it, with a tenth of its sample held out."""
    stream = Stream(source, weight, 0, 0)
    X, share = stream.survey()
    transform, rng = Affine.identity(X.shape[1]), torch.Generator().manual_seed(0)
    made = StreamedTable.of(
        X,
        share,
        torch.from_numpy(X),
        noise=np.zeros(X.shape[1]),
        held_out=np.arange(0, len(X), 10),
        rng=rng,
    )
    return stream, made.follow(stream, transform), rng


@pytest.mark.parametrize("random_access", [True, False])
def test_batches_come_from_all_rows_once(random_access):
    X = np.arange(250_000.0)[:, None]
    source = MappedRows(X) if random_access else Blocks(*np.array_split(X, 7))
    stream, made, rng = of_source(source)
    with stream:
        batches = [made.draw(256, rng)[:, 0] for _ in range(800)]
    drawn, held_out = torch.cat(batches).numpy(), made.originals().X[made.originals().held_out]
    assert np.unique(drawn).size == drawn.size
    assert not np.isin(drawn, held_out).any()
    kept = made.originals().X[:, 0]
    assert kept.size == MOST_KEPT and not np.isin(drawn, kept).all()
    for values in (kept, drawn, *batches[::100]):  # uniform over the whole
        z = (values.mean() - 125_000) / (250_000 / 12**0.5 / len(values) ** 0.5)
        assert abs(z) < 4
        counts = np.histogram(values, bins=5, range=(0, 250_000))[0]
        assert counts.min() > 0.1 * len(values)


@pytest.mark.parametrize("random_access", [True, False])
def test_a_long_training_takes_fresh_rows_again(random_access):
    X = np.arange(1e6).reshape(-1, 25)[:, :1] + np.zeros(40)  # pools have 104,857 rows
    X = np.concatenate([X] * 3) + np.arange(3).repeat(40_000)[:, None]
    source = MappedRows(X) if random_access else Blocks(*np.array_split(X, 7))
    stream, made, rng = of_source(source)
    with stream:
        first, second = (made.draw(90_000, rng)[:, 0].numpy() for _ in range(2))
    for drawn in (first, second):
        assert np.unique(drawn).size > 0.9 * drawn.size and drawn.max() > 0.99 * X.max()
    assert not np.array_equal(np.sort(first), np.sort(second))


@pytest.mark.parametrize("random_access", [True, False])
def test_weights_arrive_in_the_sample_and_in_batches(random_access):
    X = np.linspace(0, 1, 240_001)[:, None]
    weight = np.where(X[:, 0] > 0.5, 3.0, 1.0)
    weight[X[:, 0] < 0.1] = 0.0
    source = MappedRows(X) if random_access else Blocks(*np.array_split(X, 7))
    stream, made, rng = of_source(source, weight)
    with stream:
        drawn = made.draw(100_000, rng)[:, 0].numpy()
    kept, share = made.originals().X[:, 0], made.originals().weight
    assert drawn.min() >= 0.1 and kept[share > 0].min() >= 0.1
    heavy = 1.5 / 1.9
    # heavy rows are held out more often: up to 0.1 x 100,000 / 240,001 of them
    assert -0.012 < (drawn > 0.5).mean() - heavy < 4 * (heavy * (1 - heavy) / 1e5) ** 0.5
    assert abs(share[kept > 0.5].sum() / share.sum() - heavy) < 4 * (0.25 / 1e5) ** 0.5


def test_a_weighted_file_is_fitted_by_its_weights(tmp_path):
    X = curved(120_000)
    weight = (X[:, 0] > 0).astype(float)
    est = NCEDensity(**FAST, max_iter=50).fit(mapped(X, tmp_path), sample_weight=weight)
    assert abs(est.sample(2000)[:, 0].mean() - (2 / np.pi) ** 0.5) < 0.1


def test_a_reservoir_is_unbiased_and_its_rows_are_in_order():
    totals, heavy = [], []
    weight = np.random.default_rng(0).exponential(size=2000) ** 2
    for seed in range(200):
        kept = Reservoir(300, np.random.default_rng(seed))
        for block in np.array_split(np.arange(2000), 9):
            kept.add(block[:, None], weight[block])
        rows, share = kept.rows()
        assert (np.diff(rows[:, 0]) > 0).all() and len(rows) == 300
        totals.append(share[rows[:, 0] < 500].sum())
        heavy.append(weight.argmax() in rows)
    z = (np.mean(totals) - weight[:500].sum()) / (np.std(totals) / 200**0.5)
    assert abs(z) < 4 and all(heavy) and np.std(totals) < 0.1 * weight[:500].sum()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    code = """
        import sys, tempfile, threading, time
        import numpy as np
        from skebm import NCEDensity

        def anonymous():  # MiB
            with open("/proc/self/status") as file:
                return next(int(s.split()[1]) / 1024 for s in file if s.startswith("RssAnon"))

        n, peak = int(sys.argv[1]), 0.0
        with tempfile.TemporaryFile() as file:
            X = np.memmap(file, np.float32, "w+", shape=(n, 10))
            for start in range(0, n, 100_000):
                X[start : start + 100_000] = np.random.default_rng(start).normal(size=(100_000, 10))

            def watch():
                global peak
                while True:
                    peak = max(peak, anonymous())
                    time.sleep(0.005)

            threading.Thread(target=watch, daemon=True).start()
            start = anonymous()
            est = NCEDensity(base="gaussian", max_iter=25, random_state=0).fit(X)
            for _ in est.score_blocks(X):
                pass
            print(peak - start)
    """
    few, many = (
        float(subprocess.check_output([sys.executable, "-c", textwrap.dedent(code), str(n)]))
        for n in (300_000, 4_000_000)
    )
    assert many - few < 80  # one more copy of all rows in single precision is 141 MiB


# -- what is refused -------------------------------------------------------------------------------


def test_long_sources_must_be_finite_numbers():
    X = curved(MOST_KEPT + 10)
    X = np.concatenate([X, [[0, np.nan, 0, 0]]])
    est = NCEDensity(**FAST)
    with pytest.raises(ValueError, match=r"finite in a source .* in 1 of 100,011\. Fill them in"):
        est.fit(Blocks(X))
    with pytest.raises(ValueError, match="columns must be 'auto' for more rows than 100,000"):
        USPDensity(columns={0: "number"}).fit(Blocks(np.round(X[:-1])))


@pytest.mark.parametrize(
    ("source", "weight", "message"),
    [
        (Blocks(table()), np.ones(50), "one number per row, got 50 for at least 120"),
        (Blocks(table()), np.ones(150), r"shape \(120,\), got 150"),
        (Blocks(table()), -np.ones(120), "finite and >= 0, got 120 values"),
        (DataLoader(torch.ones(9, 2), shuffle=True), np.ones(9), "a DataLoader that shuffles"),
        (
            DataLoader(torch.ones(9, 2), sampler=WeightedRandomSampler([1.0] * 9, 9)),
            np.ones(9),
            "sample_weight must be None",
        ),
        (Blocks(table(), table()[:, :1]), None, r"shape \(m, 2\), got float64 of \(120, 1\)"),
        (Blocks(table().astype(object)), None, "blocks must be numbers .* got object"),
        (Blocks(), None, "X must have rows, got a source without any"),
        (DataLoader([{"x": 1.0}]), None, "got a batch of dict"),
    ],
)
def test_unfit_sources_are_refused(source, weight, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny("NCEDensity").fit(source, sample_weight=weight)


def test_a_wrong_parameter_is_told_before_a_pass():
    source = Blocks(table())
    source.n_features = 2
    with pytest.raises(ValueError, match=r"contamination must be .* got 0\.7"):
        tiny("NCEDensity", contamination=0.7).fit(source)
    assert source.passes == 0


def test_a_source_that_is_read_once_is_refused():
    rows = iter(np.array_split(curved(120_000), 5))

    class Spent(Source):
        def blocks(self):
            return rows

    with pytest.raises(ValueError, match="same rows in each pass, got none in the second"):
        NCEDensity(**FAST, max_iter=5).fit(Spent())


def test_passes_are_told(capsys):
    NCEDensity(**FAST, max_iter=2, verbose=2).fit(Blocks(*np.array_split(curved(120_000), 5)))
    said = capsys.readouterr().out
    assert "pass: 120,000 rows, of which 100,000 are kept" in said
    assert "rows to train on: 120,000 of 120,000" in said


# -- going on --------------------------------------------------------------------------------------


def bananas(n, seed):
    X = np.random.default_rng(seed).normal(size=(n, 2))
    X[:, 1] += X[:, 0] ** 2
    return X


@pytest.mark.parametrize(
    "est",
    [
        NCEDensity(**FAST, max_iter=150),
        USPDensity(**FAST, max_iter=150),
        HybridCDDensity(**FAST, max_iter=50),
    ],
)
def test_later_blocks_are_learnt(est):
    T, est = bananas(5000, seed=9), clone(est)
    one = est.partial_fit(bananas(100, seed=0)).score_samples(T)
    transform, base = est.density_.transform, est.base_
    for seed in range(1, 4):
        assert est.partial_fit(bananas(1000, seed)) is est
    gain = est.score_samples(T) - one
    assert gain.mean() > 0.1 and gain.mean() > 4 * gain.std() / len(T) ** 0.5
    assert est.density_.transform is transform and not est.warm_start
    z = torch.zeros(1, 2)
    assert est.base_.log_prob(z).equal(base.log_prob(z))


def test_the_normalizer_is_estimated_anew():
    rng = np.random.default_rng(0)
    est = NCEDensity(**FAST, max_iter=100, log_partition="quadrature").partial_fit(
        rng.normal(size=(100, 1))
    )
    grid = np.linspace(-12, 12, 4001)[:, None]
    for _ in range(3):
        est.partial_fit(rng.normal(size=(1000, 1)) ** 2 - 1)
        assert np.trapezoid(np.exp(est.score_samples(grid)), grid[:, 0]) == pytest.approx(
            1, abs=1e-3
        )


def test_a_small_block_does_not_undo_an_energy():
    est = NCEDensity(**FAST, max_iter=100).partial_fit(bananas(2000, seed=0))
    for seed in range(1, 6):
        est.partial_fit(bananas(40, seed=seed))
        assert est.energy_kept_


def test_a_partial_fit_that_fails_changes_nothing(monkeypatch):
    est = tiny("NCEDensity").partial_fit(table())
    before = bits(est)

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(_base, "threshold", fail)
    with pytest.raises(MemoryError):
        est.partial_fit(table(seed=1))
    assert bits(est) == before
    monkeypatch.undo()
    assert est.partial_fit(table(seed=1)).n_iter_ == 8


@each
def test_every_estimator_goes_on(name):
    est = tiny(name)
    for seed in range(3):
        est.partial_fit(table(seed=seed))
    assert est.n_iter_ == 3 * tiny(name).fit(table()).n_iter_
    assert np.isfinite(est.score_samples(table())).all()
    again = tiny(name)
    for seed in range(3):
        again.partial_fit(table(seed=seed))
    assert bits(again) == bits(est)


def test_drift_is_told_and_chance_is_not():
    rng = np.random.default_rng(0)
    for n in (40, 1000):
        est = tiny("NCEDensity").partial_fit(rng.normal(size=(n, 3)))
        for _ in range(3):
            est.partial_fit(rng.normal(size=(500, 3)))
    drifted = rng.normal(size=(500, 3))
    drifted[:100, 1] += 30
    with pytest.warns(
        DriftWarning, match=r"beyond those of the first block \(20 % in column 1\): "
    ):
        est.partial_fit(drifted)


def test_drift_is_told_of_every_block():
    """The reach stays that of the first block, which scaling and base know."""
    rng = np.random.default_rng(0)
    est = tiny("NCEDensity").partial_fit(rng.normal(size=(500, 3)))
    for _ in range(2):
        with pytest.warns(DriftWarning, match=r"100 % in column 1"):
            est.partial_fit(rng.normal(loc=[0, 30, 0], size=(500, 3)))
    est.partial_fit(rng.normal(size=(500, 3)))


def test_new_categories_are_drift():
    pd, rng = pytest.importorskip("pandas"), np.random.default_rng(0)

    def frame(*levels):
        return pd.DataFrame({"x": rng.normal(size=100), "c": rng.choice(levels, 100)})

    est = USPDensity(max_iter=5, random_state=0).partial_fit(frame("a", "b"))
    est.partial_fit(frame("b", "a"))
    for _ in range(2):
        with pytest.warns(DriftWarning, match=r"\(\d+ % with new categories\)"):
            est.partial_fit(frame("a", "b", "c"))


@each
def test_blocks_may_follow_a_fit(name, tmp_path):
    est = tiny(name).fit(table())
    one, transform = est.energy_samples(table()), est.density_.transform
    est.save(tmp_path / "est")
    for estimator in (est, type(est).load(tmp_path / "est")):
        estimator.partial_fit(table(seed=1)).partial_fit(table(seed=2))
        moved = np.abs(estimator.energy_samples(table()) - one).max()
        assert 0 < moved and estimator.data_noise_.shape == (2,)
    assert est.density_.transform is transform


def test_a_block_must_be_large_enough():
    est = NCEDensity(**FAST, max_iter=2).partial_fit(bananas(50, 0))
    with pytest.raises(ValueError, match="at least 20 rows in partial_fit, got 19"):
        est.partial_fit(bananas(19, 1))
    est.set_params(validation_fraction=0).partial_fit(bananas(19, 1))


def test_blocks_may_be_sources(tmp_path):
    est = NCEDensity(**FAST, max_iter=25).partial_fit(mapped(curved(120_000), tmp_path))
    est.partial_fit(curved(1000, seed=1))
    assert est.n_iter_ == 50
