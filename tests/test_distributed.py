"""Several processes fit one model: the same bits on all, the rows of all, and no rank left waiting.

Each test starts processes of a gloo group that meet in a file; what they return, or raise, comes
back in the order of their ranks.
"""

import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from skebm import (
    BoundsEBM,
    EnergyDensity,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from tests import cases
from tests.cases import bits

pytestmark = [*cases.QUIET, pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo")]
SECONDS = 20  # that ranks wait for each other
CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
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
