"""The suite of costs: what its table says, which tree a process has, what an import loads."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import skebm

ROOT = Path(skebm.__file__).parents[1]
SUITE = ROOT / "examples" / "benchmarks" / "cost"
HEAVY = ("matplotlib", "pandas", "arviz_stats", "filelock", "torch._dynamo", "torch._inductor")
HEAVY += tuple(f"sklearn.{name}" for name in ("cluster", "covariance", "mixture", "neighbors"))


@pytest.fixture
def timing(monkeypatch):
    monkeypatch.syspath_prepend(SUITE)
    import _timing

    return _timing


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(SUITE)
    import run

    return run


def test_import_loads_nothing_heavy():
    code = (
        "import sys, sklearn, torch; before = set(sys.modules); import skebm;"
        "print(*(set(sys.modules) - before))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert "skebm" in out.split()
    assert not set(HEAVY) & set(out.split())


def test_ratios_are_medians_of_pairs_in_the_direction_of_the_bar(timing):
    pairs = np.array([[1.0, 2.0], [3.0, 4.0], [90.0, 100.0]])
    assert timing.compared("a", "b", pairs).ratio == "0.75"
    slow = timing.compared("a", "b", pairs, "<= 0.7")
    assert (slow.ratio, slow.bar, slow.met) == ("0.75", "<= 0.7", "NO")
    fast = timing.compared("a", "b", pairs, ">= 1.3")
    assert (fast.ours, fast.peer, fast.ratio, fast.met) == ("3 s", "4 s", "1.33", "yes")
    assert timing.limited("a", 500.0, "MB", 400.0)[2:] == ("500 MB", "400 MB", "1.25", "<= 1", "NO")


def test_rounds_are_interleaved_and_the_first_is_not_timed(timing):
    calls = []
    functions = [lambda name=name: calls.append(name) for name in "abc"]
    assert timing.interleaved(*functions, n=2).shape == (2, 3)
    assert "".join(calls) == "bca" + "abc" + "cab"


def test_a_process_says_which_tree_it_imports(timing):
    with timing.Tree(ROOT) as tree:
        assert tree.imported == skebm.__file__
        tree("rows", 80, 3)
        assert tree("fit", "NCEDensity", max_iter=2) > 0
        assert tree("score") == 80 * 8
        _, few = tree.peak("rows", 80, 3)
        _, many = tree.peak("rows", 1_000_000, 3)
        assert few < 10 < 24 < many < 200 or not Path("/proc/self/statm").exists()


def test_a_folder_without_the_package_is_refused(timing, tmp_path, capfd):
    with pytest.raises(RuntimeError, match="ended with status 1"):
        timing.Tree(tmp_path)
    assert "AssertionError" in capfd.readouterr().err


def test_quality_may_fall_by_a_standard_error(run):
    drops = np.array([[0.0, 1.0], [0.0, 3.0]])  # -2 +- 1
    assert run.not_lower("a", drops).met == "NO"
    assert run.not_lower("a", drops - (0.0, 1.5)).met == "yes"  # -0.5 +- 1
    line = run.not_lower("a", drops[:, ::-1])
    assert (line.ours, line.peer, line.ratio, line.met) == (
        "2.000",
        "0.000",
        "+2.000 ± 1.000",
        "yes",
    )


def test_slow_measurements_wait_to_be_asked(run):
    args = argparse.Namespace(only=None, all=False, before=ROOT)
    assert set(run.MEASUREMENTS) - set(run.asked(args)) == set(run.SLOW)
    args.all = True
    assert run.asked(args) == list(run.MEASUREMENTS)
    args.before = None
    assert not set(run.asked(args)) & set(run.SLOW)
    args.only = ["row", "rwo"]
    with pytest.raises(SystemExit, match="rwo"):
        run.asked(args)


@pytest.mark.slow
def test_an_earlier_commit_stands_beside(tmp_path):
    command = [sys.executable, str(SUITE / "run.py"), "--before", str(ROOT), "--rst", "table.txt"]
    done = subprocess.run(
        [*command, "--only", "sample", "tables", "wide"],
        env=os.environ | {"SKEBM_SMOKE": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(f"imported {skebm.__file__}") == 2
    for name in ("draws", "fit", "log likelihood", "AUROC", "100 x 20"):
        assert name in done.stdout
    table = (tmp_path / "table.txt").read_text().splitlines()
    assert table[0] == ".. csv-table::" and len(table) == 3 + len(done.stdout.splitlines()) - 3
