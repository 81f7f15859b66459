"""A fit that was stopped goes on where it stood, and ends with the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cases import QUIET, each, factory, lasting, table, tiny
from tests.contracts.conftest import look_often, watch
from tests.contracts.test_copies import assert_same

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings(
        "ignore:training (goes on|is read):skebm.exceptions.CheckpointWarning"
    ),
]
N = 60  # updates in each phase: three validations, and an average over the last half


def estimator(name, **params):
    """NCE has noise of its own, which is fitted before training."""
    own = {"noise": "mixture"} if name == "NCEDensity" else {}
    return tiny(name, **own, **lasting(name, N), **params)


WHOLE = {}


def whole(name, fraction, updates, **params):
    """Return the fit that nothing stops, and how many updates it takes."""
    key = name, fraction, *params
    if key not in WHOLE:
        est = estimator(name, validation_fraction=fraction, **params)
        WHOLE[key] = est, count(est, updates)
    return WHOLE[key]


def interrupt(est, updates, number, **given):
    """Stop a fit in the update of that number."""
    updates.restart(stop_at=number)
    with pytest.raises(KeyboardInterrupt):
        est.fit(table(), **given)
    updates.restart()


def count(est, updates):
    """Fit, and return how many updates that took."""
    updates.restart()
    est.fit(table())
    return updates.count


@pytest.mark.parametrize("share", [0.45, 0.9])
@pytest.mark.parametrize("fraction", [0, 0.25], ids=["averaged", "judged"])
@each
def test_a_stopped_fit_resumes_with_the_same_bits(name, fraction, share, updates, slow, tmp_path):
    """Without held-out rows the second half of each phase keeps a running mean."""
    expected, total = whole(name, fraction, updates)
    params = {"validation_fraction": fraction, "checkpoint_dir": tmp_path}
    number = int(share * total)
    interrupt(estimator(name, **params), updates, number)
    est = estimator(name, **params)
    assert total - number <= count(est, updates) < total  # it went on
    assert_same(expected, est, name)


class Killed(BaseException):
    def __init__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def be_killed(name, folder, number):
    """Fit and die in the update of that number, in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        look_often(patch)
        watch(patch).restart(stop_at=number, error=Killed)
        estimator(name, checkpoint_dir=folder, energy=factory).fit(table())


@pytest.mark.parametrize("share", [0.45, 0.9])
def test_so_does_one_that_was_killed(share, updates, slow, tmp_path):
    """With an energy that only its code tells apart."""
    name, root = "HybridCDDensity", Path(__file__).parents[2]
    expected, total = whole(name, 0, updates, energy=factory)
    number = int(share * total)
    call = f"be_killed({name!r}, {str(tmp_path)!r}, {number})"
    code = f"import tests.plugin\nfrom tests.contracts.test_resume import be_killed\n{call}"
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert died.returncode == -signal.SIGKILL, died.stderr
    est = estimator(name, checkpoint_dir=tmp_path, energy=factory)
    assert total - number <= count(est, updates) < total
    assert_same(expected, est, name)


WEIGHT = 1 + np.arange(120) % 2
OTHERS = {
    "parameter": ({"learning_rate": 1e-3}, {}),
    "nested parameter": ({"energy__hidden_sizes": (5,)}, {}),
    "seed": ({"random_state": 1}, {}),
    "rows": ({}, {"X": table(seed=1)}),
    "weights": ({}, {"sample_weight": 3 - WEIGHT}),
}


@each
def test_another_fit_does_not_resume(name, updates, slow, tmp_path):
    """It comes to the number of updates that a fit from the start makes."""
    _, total = whole(name, 0, updates)
    interrupt(estimator(name, checkpoint_dir=tmp_path), updates, int(0.9 * N))
    given = {"sample_weight": WEIGHT}
    interrupt(estimator(name, checkpoint_dir=tmp_path), updates, int(0.9 * N), **given)
    for params, given in OTHERS.values():
        est = estimator(name, checkpoint_dir=tmp_path).set_params(**params)
        updates.restart(stop_at=total)
        with pytest.raises(KeyboardInterrupt):
            est.fit(**{"X": table(), **given})


@pytest.mark.parametrize("seed", [None, 3], ids=["no seed", "an instance"])
@each
def test_fits_without_a_number_for_a_seed_resume(name, seed, updates, slow, tmp_path):
    """An unfinished fit without a seed is taken over; a finished one is not."""

    def of(seed):
        state = None if seed is None else np.random.RandomState(seed)
        return estimator(name, checkpoint_dir=tmp_path, random_state=state)

    _, total = whole(name, 0, updates)
    interrupt(of(seed), updates, int(0.9 * N))
    first = of(seed)
    assert count(first, updates) < total
    if seed is None:
        second = of(seed)
        assert count(second, updates) == total
        assert (first.energy_samples(table()) != second.energy_samples(table())).any()


@each
def test_a_warm_start_goes_on_beside_a_checkpoint(name, updates, slow, tmp_path):
    est = tiny(name, checkpoint_dir=tmp_path, warm_start=True).fit(table())
    assert est.fit(table()).n_iter_ == 8


@each
def test_checkpoints_hold_no_code(name, slow, tmp_path):
    folder = tmp_path / "new" / "folder"
    tiny(name, checkpoint_dir=folder).fit(table())
    files = list(folder.iterdir())  # no temporary file is left behind
    assert files
    for file in files:
        assert torch.load(file, weights_only=True)
