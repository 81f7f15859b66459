"""Several processes fit one model: the same bits on all, the rows of all, and no rank left waiting.

Each test starts processes of a gloo group that meet in a file; what they return, or raise, comes
back in the order of their ranks.
"""

import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist

from skebm import BoundsEBM, EnergyDensity, NCEDensity, USPDensity, _ranks
from skebm.bases import Gaussian
from skebm.data import streamed
from skebm.data.sources import MappedRows
from skebm.estimators import _base, _pooling, _preparation, _run, _streaming
from skebm.exceptions import CheckpointWarning
from skebm.objectives import DenoisingScoreMatching, descend
from skebm.train import judge, not_distributed
from tests import cases
from tests.cases import bits

pytestmark = [*cases.QUIET, pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")]
SECONDS = 20  # that ranks wait for each other
CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
FAST = {"base": "gaussian", "standardize": "affine", "random_state": 0}
CONTEXT.set_forkserver_preload(["tests.test_distributed"])


def work(rank, n, meeting, results, function, args):
    """One rank: put what the function returns or raises among the results."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if os.uname().sysname == "Linux" else "lo0"
    dist.init_process_group(
        "gloo", f"file://{meeting}", timedelta(seconds=SECONDS), world_size=n, rank=rank
    )
    try:
        found = function(*args)
    except Exception as error:
        found = type(error)(str(error) + "".join(getattr(error, "__notes__", [])))
    results.put((rank, found))
    results.close()
    results.join_thread()
    dist.destroy_process_group()


def on_ranks(function, *args, n=2, expected=None):
    """Return what a function returns, or raises, on each rank."""
    with tempfile.TemporaryDirectory() as folder:
        results = CONTEXT.Queue()
        ranks = [
            CONTEXT.Process(target=work, args=(i, n, f"{folder}/meeting", results, function, args))
            for i in range(n)
        ]
        for process in ranks:
            process.start()
        found = dict(results.get(timeout=60) for _ in range(expected or n))
        for process in ranks:
            process.join(10)
            process.kill()
    return [found.get(i) for i in range(n)]


@cache
def curved(n, seed=0):
    """Rows (n, 2) that no Gaussian has, sorted by their first column."""
    X = np.random.default_rng(seed).normal(size=(n, 2))
    X[:, 1] = 0.4 * X[:, 1] + X[:, 0] ** 2
    return X[np.argsort(X[:, 0])]


def share_of(X):
    """Return this rank's rows: of two, the first has the lowest quarter."""
    cut = len(X) // 4
    return [X[:cut], X[cut:]][dist.get_rank()]


def found(est):
    """Every number of a fit, as bytes, whichever objects share them."""
    attributes = {k: v for k, v in vars(est).items() if k.endswith("_") and k != "density_"}
    density, buffer = est.density_, io.BytesIO()
    pickler = cases._Bits(buffer)
    pickler.fast = True
    pickler.dump([density.model.base, density.model.energy.state_dict(), density.transform])
    pickler.dump([density.proposal, density.log_partition, density.draws, attributes])
    return buffer.getvalue()


def averaged_beside():
    """Average a gradient and an acceptance, of which the second rank has three quarters."""
    mine = float(dist.get_rank())
    parameter, acceptance = torch.nn.Parameter(torch.ones(2)), torch.tensor(10 * mine)
    with _ranks.sharing([0.25, 0.75][dist.get_rank()]):
        descend(torch.optim.SGD([parameter], lr=1.0), mine * parameter.sum(), beside=[acceptance])
    return parameter.tolist(), float(acceptance)


def test_numbers_travel_with_gradients():
    assert on_ranks(averaged_beside) == [([0.25, 0.25], 7.5)] * 2


def lead(X, several, one):
    """Mean and standard error of log densities of one fit over another's, nats a row."""
    gained = several - one
    return gained.mean(), gained.std() / len(X) ** 0.5


# -- the same bits ---------------------------------------------------------------------------------


def fit_tiny(names):
    X = cases.table()
    told = {}
    for name in names:
        est = cases.tiny(name).fit(share_of(X))
        told[name] = (found(est), est.score_samples(X).tobytes())
    blocks = cases.tiny("HybridCDDensity", init="persistent")
    for block in np.array_split(X, 3):
        blocks.partial_fit(share_of(block))
    return told | {"blocks": (found(blocks), blocks.n_iter_)}


NAMES = [name for name in cases.CLASSES if name != "BoundsEBM"]


def test_all_ranks_end_with_the_same_bits():
    first, second = on_ranks(fit_tiny, NAMES)
    for name in first:
        assert first[name] == second[name], name


def unlike():
    """Round apart, as unlike machines do, only more."""
    r, rng = dist.get_rank(), np.random.RandomState(dist.get_rank())

    def off(module, name, change):
        exact = getattr(module, name)
        setattr(module, name, lambda *args, **kwargs: change(exact, *args, **kwargs))

    def of_row(exact, *args, **kwargs):
        value = exact(*args, **kwargs)
        return value._replace(value=value.value + rng.normal(), gain=value.gain + rng.normal())

    off(_base, "choose_transform", lambda f, X, *rest: f(X * (1 + 1e-3 * r), *rest))
    off(_run, "fit_defended", lambda f, base, x, *rest: f(base, x + 1e-3 * r, *rest))
    off(_preparation, "split", lambda f, z, *rest: f(z, *rest)[r:])
    off(judge, "held_out_given", of_row)
    off(_base, "normalize", lambda f, *args: f(*args)._replace(value=1e-3 * r))
    off(_base, "threshold", lambda f, *args: f(*args) + 1e-3 * r)
    est = NCEDensity(**FAST, max_iter=200, n_iter_no_change=2).fit(share_of(curved(300)))
    return found(est), est.n_iter_


def test_ranks_on_unlike_machines_agree():
    first, second = on_ranks(unlike)
    assert first == second


SEEN: dict = {"rows": [], "numbers": [], "parameters": []}


class Watched(DenoisingScoreMatching):
    """Takes down what a rank draws."""

    def init(self, model, x, rng):
        SEEN["parameters"] += [p.sum().item() for p in model.energy.parameters()]
        return super().init(model, x, rng)

    def step(self, model, state, draw, rng):
        SEEN["rows"].append(draw()[:2].tolist())
        SEEN["numbers"].append(torch.rand(1, generator=rng).item())
        return super().step(model, state, draw, rng)


def watch():
    est = EnergyDensity(objective=Watched(), **FAST, max_iter=5)
    est.fit(curved(300))  # the same rows on both
    return SEEN


def test_ranks_begin_alike_and_draw_apart():
    first, second = on_ranks(watch)
    assert first["parameters"] == second["parameters"]
    for name in ("rows", "numbers"):
        assert not [a for a in first[name] if a in second[name]]


class Loose(Watched):
    """Takes its steps without the others."""

    def step(self, model, state, draw, rng):
        loss = self.losses(model, draw(), rng).mean()
        loss.backward()
        state.optimizers["energy"].step()
        return state, {"loss": loss.detach()}


def part():
    EnergyDensity(objective=Loose(), **FAST, max_iter=50).fit(share_of(curved(300)))


def test_ranks_that_part_are_told():
    for error in on_ranks(part):
        assert "parameters must be the same on all ranks after an update" in str(error)


# -- the rows of all -------------------------------------------------------------------------------

TRAINED = {**FAST, "max_iter": 400, "n_iter_no_change": None}


def fit_shards(X, weight):
    mine = None if weight is None else share_of(weight)
    return NCEDensity(**TRAINED).fit(share_of(X), sample_weight=mine).score_samples(curved(4000, 1))


@pytest.mark.parametrize("weighted", [False, True])
def test_sorted_shards_are_as_good_as_one_table(weighted):
    X, weight = curved(1500), None
    if weighted:  # every row of the first shard three times, but it weighs as much
        X = np.repeat(X, np.where(np.arange(len(X)) < 375, 3, 1), axis=0)
        weight = np.repeat([1.0, 3.0], [3 * 375, len(X) - 3 * 375])
        order = np.argsort(np.arange(len(X)) % 4 != 0, kind="stable")  # both in both shards
        X, weight = X[order], weight[order]
    both = on_ranks(fit_shards, X, weight)
    np.testing.assert_array_equal(*both)
    one = NCEDensity(**TRAINED).fit(X, sample_weight=weight).score_samples(curved(4000, 1))
    gaussian = NCEDensity(**{**TRAINED, "max_iter": 1}).fit(X, sample_weight=weight)
    assert one.mean() > gaussian.score(curved(4000, 1)) + 0.2  # there is something to learn
    mean, stderr = lead(X, both[0], one)
    assert abs(mean) < 2 * stderr + 0.02 and stderr < 0.015


def pool():
    """Samples of unequal shards: of equal rows, of weighted ones, of other shards, of sources."""
    _pooling.MOST_KEPT = 2000
    X, r = np.arange(8000.0)[:, None] + [[0.0, 0.5]], dist.get_rank()
    told = []
    for cut, weights in ((2000, (None, 1.0)), (2000, (1.0, 3.0)), (7000, (None, None))):
        mine = [X[:cut], X[cut:]][r]
        rows, weight, stream = _pooling.pooled(mine, None, weights[r], None, seed=5)
        told.append((rows[:, 0], weight, stream.share))
    uneven = np.where(np.arange(2000) % 2, 1.0, [0.5, 6.0][r])
    mine = X[2000 * r :][:2000]
    told.append(_pooling.pooled(mine, uneven / uneven.max(), uneven, None, seed=5))
    stream = streamed.Stream(
        MappedRows(np.repeat(X[2000 * r :][:2000], 1 + 2 * r, axis=0)), None, 0, 0
    )
    rows, weight, stream = _pooling.pooled(mine, None, None, stream, seed=5)
    told.append((rows[:, 0], weight, stream.share))
    told[3] = (told[3].X[:, 0], told[3].weight, told[3].stream.share)
    return told


def test_a_sample_of_all_ranks_is_in_proportion_to_weights():
    first, second = on_ranks(pool)
    assert [share for _, _, share in first] == pytest.approx([0.25, 0.1, 0.875, 0.75 / 4.25, 0.25])
    assert [share for _, _, share in second] == pytest.approx([0.75, 0.9, 0.125, 3.5 / 4.25, 0.75])
    for (a, weight, _), (b, other, _), low in zip(
        first, second, (0.25, 0.1, 0.25, 0.75 / 4.25, 0.25), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(weight, other)
        assert len(np.unique(a)) == len(a) == 2000
        share = np.ones(2000) if weight is None else weight
        assert abs(share[a < 2000].sum() / share.sum() - low) < 4 * (low / 2000) ** 0.5
    assert [weight is None for _, weight, _ in first] == [True, True, True, False, True]
    np.testing.assert_array_equal(first[0][0], first[2][0])  # however the rows are dealt out


def fit_sources(folder):
    for module in (_pooling, _streaming, streamed):
        module.MOST_KEPT = 500
    X = np.load(f"{folder}/rows.npy", mmap_mode="r")
    mine = share_of(X)
    est = NCEDensity(**FAST, max_iter=50).fit(mine)
    return found(est), est.density_.transform.location


def test_sources_of_more_rows_than_are_kept(tmp_path):
    X = curved(4000)
    np.save(tmp_path / "rows.npy", X)
    (first, shift), (second, _) = on_ranks(fit_sources, tmp_path)
    assert first == second
    assert (np.abs(shift - X.mean(0)) < 4 * X.std(0) / 500**0.5).all()


# -- no rank is left waiting -----------------------------------------------------------------------


class OfLambda(Gaussian):
    """A base that cannot be sent."""

    def fit(self, x, weight, rng):
        base = super().fit(x, weight, rng)
        base.odd = lambda: None
        return base


def unfit():
    """Everything that one of the ranks, or none, can fit; what each of them raises."""
    X, r = curved(100), dist.get_rank()
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 1, "x", "y")})
    holed = np.where(np.arange(200).reshape(100, 2) == 7, np.nan, X)
    bad = [
        (NCEDensity(), [X, X * np.inf][r]),
        (NCEDensity(), [X, X[:, :1]][r]),
        (NCEDensity(max_iter=[5, 6][r]), X),
        ([NCEDensity, USPDensity][r](), X),
        (BoundsEBM(), X),
        (USPDensity(), frame),
        (NCEDensity(base="mixture"), holed),
        (NCEDensity(checkpoint_dir="/dev/null/x"), X),
        (EnergyDensity(objective=Watched(), base=OfLambda()), X),
    ]
    told = []
    for est, rows in bad:
        with pytest.raises((ValueError, OSError, RuntimeError, AttributeError)) as error:
            est.fit(rows)
        told.append(str(error.value) + "".join(getattr(error.value, "__notes__", [])))
    est = NCEDensity(**FAST, max_iter=1).fit(X)  # and goes on
    return [*told, est.n_iter_]


def test_what_one_rank_cannot_fit_none_does():
    first, second = on_ranks(unfit)
    for told in (first, second):
        assert "ank 1 of 2" in told[0] and "infinity" in told[0]
        assert "columns of X must be the same on all ranks, got 2 on rank 0 and 1" in told[1]
        assert "max_iter must be the same on all ranks, got 5 on rank 0 and 6 on rank 1" in told[2]
        assert "got 'NCEDensity' on rank 0 and 'USPDensity' on rank 1" in told[3]
        assert "got BoundsEBM. Fit on one, in skebm.train.not_distributed()" in told[4]
        assert "X must hold plain numbers on 2 ranks, got others in b." in told[5]
        assert "X must have no missing values on 2 ranks, got NaN." in told[6]
        assert "ank 0 of 2" in told[7] and "Not a directory" in told[7]
        assert "pickle" in told[8] and told[9] == 1


def stop_one(how):
    """Let the second rank stop at its third validation, in one way or another."""
    n = iter(range(10))

    def on_validation(task, state):
        if next(n) < 2 or dist.get_rank() == 0:
            return False
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raises":
            raise OSError("no more")
        return True

    _run.FitTask.on_validation = on_validation
    start = time.monotonic()
    try:
        return NCEDensity(**FAST, max_iter=100).fit(share_of(curved(200))).n_iter_
    except RuntimeError as error:
        return f"{error}", time.monotonic() - start


def test_a_callback_stops_all_ranks():
    assert on_ranks(stop_one, "stops") == [50, 50]


def test_a_callback_that_fails_fails_all_ranks():
    first, second = on_ranks(stop_one, "raises")
    assert "rank 1 of 2" in first[0] and "OSError: no more" in first[0]
    assert isinstance(second, OSError) and "This was rank 1 of 2" in str(second)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_rank_that_dies_is_an_error_on_the_others():
    (message, seconds), other = on_ranks(stop_one, "dies", expected=1)
    assert message and seconds < SECONDS + 5 and other is None


def fit_apart():
    X, r = curved(200), dist.get_rank()
    cls = [NCEDensity, USPDensity][r]
    with not_distributed():
        est = cls(**FAST, max_iter=25 * (r + 1)).fit(X[r:])
    together = NCEDensity(**FAST, max_iter=25).fit(X)
    return est.n_iter_, bits(est), found(together)


def test_ranks_can_fit_models_of_their_own():
    first, second = on_ranks(fit_apart)
    assert (first[0], second[0]) == (25, 50) and first[2] == second[2]
    assert first[1] == bits(NCEDensity(**FAST, max_iter=25).fit(curved(200)))


# -- interrupted, and alone ------------------------------------------------------------------------


def fit_until(folder, n):
    """Fit, and be interrupted at the n-th validation."""
    count = iter(range(n - 1, -1, -1))

    def on_validation(task, state):
        if not next(count):
            raise KeyboardInterrupt

    _run.FitTask.on_validation = on_validation
    with pytest.raises(KeyboardInterrupt):
        NCEDensity(**FAST, max_iter=200, checkpoint_dir=folder).fit(share_of(curved(200)))
    return sorted(path.suffixes[0] for path in Path(folder).glob("*.pt"))


def test_a_checkpoint_goes_on_with_as_many_ranks_and_with_one(tmp_path):
    assert on_ranks(fit_until, tmp_path, 3)[0] == [".0", ".base0"]
    on_ranks(fit_until, tmp_path, 3)
    est = NCEDensity(**FAST, max_iter=200, checkpoint_dir=tmp_path)
    with pytest.warns(CheckpointWarning, match="goes on from .* after 125 updates"):
        est.fit(curved(200))
    assert est.n_iter_ == 200 and len(est.history_) == 9
    whole = NCEDensity(**FAST, max_iter=200).fit(curved(200))
    mean, stderr = lead(curved(4000, 1), *(e.score_samples(curved(4000, 1)) for e in (est, whole)))
    assert abs(mean) < 2 * stderr + 0.05


def test_the_page_runs_under_torchrun(tmp_path):
    root = Path(__file__).parents[1]
    page = (root / "docs" / "scale.rst").read_text(encoding="utf-8")
    code = re.search(r":caption: fit.py\n\n((?:   .*\n|\n)+)", page)[1]
    (tmp_path / "fit.py").write_text(textwrap.dedent(code))
    np.save(tmp_path / "rows.npy", curved(300))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "fit.py"]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    est = NCEDensity.load(tmp_path / "density.safetensors")
    middle = est.density_.transform.inverse(torch.zeros(1, 2))[0]
    assert est.n_iter_ == 25
    np.testing.assert_allclose(middle, curved(300).mean(0), atol=0.1)  # of both ranks' rows


def fit_alone():
    return bits(NCEDensity(**FAST, max_iter=50).fit(curved(200)))


def test_a_group_of_one_changes_nothing():
    assert on_ranks(fit_alone, n=1) == [fit_alone()]
