"""Checkpoints that are damaged, foreign, unwritable or another fit's, and what a resumed fit says.

That stopped fits go on with the same bits is in ``test_resume``.
"""

import errno
import multiprocessing
import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from skebm import HybridCDDensity, NCEDensity, _disk
from skebm.bases import Gaussian, TorchDistribution
from skebm.exceptions import CheckpointWarning
from tests import cases

pytestmark = cases.QUIET
X = cases.table()


def fit(folder, cls="NCEDensity", **params):
    params = {"noise": "conditional"} | params if cls == "NCEDensity" else params
    return cases.tiny(cls, checkpoint_dir=folder, **params).fit(X)


def scores(est):
    return est.score_samples(X[:20])


@pytest.fixture(scope="module")
def fresh():
    return scores(fit(None))


def state_file(folder):
    return next(folder.glob("*.0.pt"))


# -- what cannot be read ---------------------------------------------------------------------------


def overwritten(path):
    path.write_bytes(b"nonsense" * 50)


def emptied(path):
    path.write_bytes(b"")


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_program(path):
    torch.save({"weights": torch.zeros(3)}, path)


def of_another_fit(path):
    other = path.parent / "other"
    fit(other, energy=cases.ENERGY.with_params(hidden_sizes=(5,)))
    shutil.copy(state_file(other), path)
    shutil.rmtree(other)


def of_another_fit_of_this_shape(path):
    other = path.parent / "other"
    fit(other, learning_rate=0.1)
    shutil.copy(state_file(other), path)
    shutil.rmtree(other)


def of_other_shapes(path):
    saved = torch.load(path, weights_only=True)
    saved["energy"] = {k: v.reshape(-1)[:1] for k, v in saved["energy"].items()}
    torch.save(saved, path)


def with_a_part_missing(path):
    saved = torch.load(path, weights_only=True)
    del saved["history"]
    torch.save(saved, path)


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = (overwritten, emptied, halved, of_another_program, of_another_fit, a_folder)
DAMAGE += (of_another_fit_of_this_shape, of_other_shapes, with_a_part_missing)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_cannot_be_read_is_set_aside(damage, fresh, tmp_path):
    fit(tmp_path)
    path = state_file(tmp_path)
    damage(path)
    with pytest.warns(CheckpointWarning, match=rf"{path.name}.*set aside as '{path.name}.unread'"):
        est = fit(tmp_path)
    np.testing.assert_array_equal(scores(est), fresh)
    assert path.with_name(f"{path.name}.unread").exists()
    with pytest.warns(CheckpointWarning, match="is read, finished, from"):
        fit(tmp_path)  # the new one is whole


@pytest.mark.filterwarnings("ignore:training is read")
def test_so_is_a_damaged_base(fresh, tmp_path):
    fit(tmp_path)
    (path,) = tmp_path.glob("*.base0.pt")
    path.write_bytes(b"")
    with pytest.warns(CheckpointWarning, match=r"base0.pt' must be one of this fit.*set aside"):
        est = fit(tmp_path)
    np.testing.assert_array_equal(scores(est), fresh)


# -- what cannot be written ------------------------------------------------------------------------


def full(monkeypatch):
    """Let files be opened, but not written."""

    def opened(path, mode):
        file = open(path, mode)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, data):
                file.write(bytes(data)[:10])
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    monkeypatch.setattr(_disk, "open", opened, raising=False)


def test_a_full_disk_keeps_the_fit_going(fresh, tmp_path, monkeypatch):
    full(monkeypatch)
    with pytest.warns(CheckpointWarning, match=r"could not be written.*No space left") as caught:
        est = fit(tmp_path)
    np.testing.assert_array_equal(scores(est), fresh)
    assert not list(tmp_path.iterdir())
    assert len(caught) == 2  # the base and the training, once each


@pytest.mark.filterwarnings("ignore:training goes on")
def test_a_full_disk_leaves_the_old_state(updates, slow, tmp_path, monkeypatch):
    updates.restart(stop_at=30)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, max_iter=60)
    path = state_file(tmp_path)
    data = path.read_bytes()
    full(monkeypatch)
    updates.restart(stop_at=28)
    with (
        pytest.warns(CheckpointWarning, match="could not be written"),
        pytest.raises(KeyboardInterrupt),
    ):
        fit(tmp_path, max_iter=60)
    assert path.read_bytes() == data
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".pt", ".lock")]


# -- fits at the same time -------------------------------------------------------------------------


def at_once(folder, barrier, queue):
    """Fit, without a seed and with one, while another process is at the same."""
    torch.set_num_threads(1)

    def energy(n_features):
        barrier.wait(60)  # both have chosen their files
        return cases.factory(n_features)

    for seed in (None, 0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            est = fit(folder, random_state=seed, energy=energy)
            barrier.wait(60)
        said = [str(w.message) for w in caught if w.category is CheckpointWarning]
        queue.put((seed, scores(est), said))


def test_two_processes_in_one_folder_share_no_state(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    pair = [context.Process(target=at_once, args=(tmp_path, barrier, queue)) for _ in range(2)]
    for process in pair:
        process.start()
    results = [queue.get(timeout=120) for _ in range(4)]
    for process in pair:
        process.join(60)
    (_, a, said_a), (_, b, said_b) = (result for result in results if result[0] is None)
    assert (a != b).any() and not said_a + said_b  # two fits, as without a folder
    (_, a, said_a), (_, b, said_b) = (result for result in results if result[0] == 0)
    np.testing.assert_array_equal(a, b)  # the same one twice, of which one is written
    (said,) = said_a + said_b
    assert "another is running" in said and str(tmp_path) in said


def test_a_fit_that_fails_lets_others_have_its_files(updates, slow, tmp_path):
    """Even while its exception, and with it its frames, is alive."""
    updates.restart(stop_at=30)
    with pytest.raises(KeyboardInterrupt) as alive:
        fit(tmp_path, random_state=None, max_iter=60)
    updates.restart()
    with pytest.warns(CheckpointWarning, match="training goes on from") as caught:
        fit(tmp_path, random_state=None, max_iter=60)
    assert alive and len(caught) == 1
    assert not list(tmp_path.iterdir())  # nothing is left of a finished fit without a seed


# -- what is gone on from --------------------------------------------------------------------------


class Counted(Gaussian):
    fits = 0

    def fit(self, x, weight, rng):
        type(self).fits += 1
        rng.manual_seed(rng.initial_seed() + 1)  # as if it had drawn
        return super().fit(x, weight, rng)


def test_the_base_is_not_fitted_again(updates, slow, tmp_path, monkeypatch):
    monkeypatch.setattr(Counted, "fits", 0)
    expected = cases.tiny("HybridCDDensity", base=Counted()).fit(X)
    updates.restart(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, "HybridCDDensity", base=Counted())
    updates.restart()
    with pytest.warns(CheckpointWarning, match="goes on from .* after 0 updates"):
        est = fit(tmp_path, "HybridCDDensity", base=Counted())
    assert Counted.fits == 2  # of `expected`, and of the one that was stopped
    np.testing.assert_array_equal(scores(est), scores(expected))


def test_a_base_without_a_plain_form_is_fitted_again(tmp_path):
    normal = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    base = TorchDistribution(torch.distributions.Independent(normal, 1))
    est = HybridCDDensity(base=base, max_iter=2, random_state=0, checkpoint_dir=tmp_path)
    est.set_params(energy=cases.ENERGY, log_partition=cases.LOG_Z, n_steps=1).fit(X)
    assert not list(tmp_path.glob("*base*"))


def test_a_resumed_fit_says_so(updates, slow, tmp_path):
    updates.restart(stop_at=30)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, max_iter=60)
    updates.restart()
    path = state_file(tmp_path)
    with pytest.warns(CheckpointWarning, match=rf"goes on from '.*{path.name}' after 25 updates"):
        fit(tmp_path, max_iter=60)
    with pytest.warns(CheckpointWarning, match=r"is read, finished, from .* after 60 updates"):
        fit(tmp_path, max_iter=60)


def test_equal_weights_are_the_same_fit(tmp_path):
    fit(tmp_path)
    with pytest.warns(CheckpointWarning, match="is read, finished, from"):
        est = cases.tiny("NCEDensity", noise="conditional", checkpoint_dir=tmp_path)
        est.fit(X, sample_weight=np.full(len(X), 7.0))
    assert isinstance(est, NCEDensity) and os.listdir(tmp_path)
