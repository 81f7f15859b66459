"""Ctrl-C, a real SIGINT to the processes of a terminal, stops whatever fits, at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import skebm

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals to groups are POSIX")

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from sklearn.model_selection import GridSearchCV
from skebm import NCEDensity
from skebm.ood import EnsembleDensity

class Slow(NCEDensity):
    def fit(self, X, y=None, sample_weight=None):
        Path(sys.argv[2], str(np.random.default_rng().integers(1 << 62))).touch()
        return super().fit(X, y, sample_weight)

X = np.random.default_rng(0).normal(size=(200, 2))
grid = {"learning_rate": [1e-3, 2e-3, 4e-3]}
est = Slow(max_iter=10**7, n_iter_no_change=None)
kinds = {
    "script": lambda: est,
    "search": lambda: GridSearchCV(est, grid, cv=2),
    "parallel search": lambda: GridSearchCV(est, grid, cv=2, n_jobs=2),
    "ensemble": lambda: EnsembleDensity(est, n_estimators=3),
}
if __name__ == "__main__":
    kinds[sys.argv[1]]().fit(X)
    print("it went on")
"""

# how many fits have begun when Ctrl-C is pressed
KINDS = {"script": 1, "search": 1, "parallel search": 2, "ensemble": 1}


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(group):
    """Whether a process of the group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_stops(kind, tmp_path):
    script, begun = tmp_path / "fit.py", tmp_path / "begun"
    script.write_text(textwrap.dedent(SCRIPT))
    begun.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(skebm.__file__).parents[1]), str(tmp_path)])
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), kind, str(begun)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(list(begun.iterdir())) == KINDS[kind], 120)
        time.sleep(1)  # until they train
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT, err
        assert "it went on" not in out and "KeyboardInterrupt" in err
        assert len(list(begun.iterdir())) == KINDS[kind]  # no other candidate has begun
        wait_for(lambda: not alive(process.pid), 30)  # nor does a worker stay
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
