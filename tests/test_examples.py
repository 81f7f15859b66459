"""The demo and every benchmark run, at tiny sizes, and print their tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
BENCHMARKS = sorted(
    path.name for path in (EXAMPLES / "benchmarks").glob("*.py") if path.name[0] != "_"
)


def run_script(path, folder):
    environment = {k: v for k, v in os.environ.items() if k != "SKEBM_DATA"}
    environment |= {"SKEBM_SMOKE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_there_are_benchmarks():
    assert len(BENCHMARKS) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_prints_its_table(name, tmp_path):
    lines = run_script(EXAMPLES / "benchmarks" / name, tmp_path).splitlines()
    assert lines[1].startswith("seeds 0") and "torch threads" in lines[1]
    header, rule = lines[2], lines[3]
    assert header.rstrip().endswith("met") and set(rule) == {"-", " "}
    verdicts = [line.split()[-1] for line in lines[4:] if line.split()[-1] in ("yes", "NO")]
    assert verdicts  # at this size they may be either


@pytest.mark.slow
def test_demo_prints_both_tables_and_writes_the_pictures(tmp_path):
    out = run_script(EXAMPLES / "demo.py", tmp_path)
    for method in ("HybridCDDensity", "KernelDensity", "GaussianMixture", "IsolationForest"):
        assert out.count(f"\n{method}") == 2
    for name in ("density.png", "history.png"):
        picture = tmp_path / "output" / name
        assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in out
