"""The demo and every benchmark run, at tiny sizes, and print their tables."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.papers.lsd import ica, images

EXAMPLES = Path(__file__).parents[1] / "examples"
BENCHMARKS = sorted(
    str(path.relative_to(EXAMPLES / "benchmarks"))
    for path in (EXAMPLES / "benchmarks").rglob("*.py")
    if path.name[0] != "_"
)
GALLERY = sorted((EXAMPLES / "gallery").glob("plot_*.py"))
PAPERS = sorted(
    str(path.relative_to(EXAMPLES / "papers"))
    for path in (EXAMPLES / "papers").rglob("*.py")
    if path.name[0] != "_"
)


def small():
    environment = {k: v for k, v in os.environ.items() if k != "SKEBM_DATA"}
    return environment | {"SKEBM_SMOKE": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}


def run_script(path, folder, *options):
    command = [sys.executable, str(path), *options]
    done = subprocess.run(command, cwd=folder, env=small(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_there_are_benchmarks():
    assert len(BENCHMARKS) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_prints_its_table(name, tmp_path):
    lines = run_script(EXAMPLES / "benchmarks" / name, tmp_path).splitlines()
    assert "torch threads" in lines[1]
    header, rule = lines[2], lines[3]
    assert header.rstrip().endswith("met") and set(rule) == {"-", " "}
    verdicts = [line.split()[-1] for line in lines[4:] if line.split()[-1] in ("yes", "NO")]
    assert verdicts  # at this size they may be either


def test_there_are_reproductions():
    assert len(PAPERS) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_reproduction_prints_tables_and_draws(name, tmp_path):
    out = run_script(EXAMPLES / "papers" / name, tmp_path)
    assert "mode smoke" in out and "paper" in out and "----" in out
    pictures = [line.split()[-1] for line in out.splitlines() if line.startswith("wrote ")]
    assert pictures
    for picture in pictures:
        assert Path(picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hcd/images.py", "lsd/critic.py", "lsd/ica.py"])
def test_hours_of_a_mode_are_told_before_it_runs(name, tmp_path):
    """Of estimators, and of what is trained by hand; nothing else is done or kept."""
    lines = run_script(EXAMPLES / "papers" / name, tmp_path, "--hours").splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("fit "))
    *fits, total = ([*line.split()] for line in lines[header + 2 :])
    assert total[0] == "all" and len(fits) >= 2
    hours = [float(fit[-1]) for fit in fits]
    for fit, value in zip(fits, hours, strict=True):
        updates, times, each = map(float, fit[-4:-1])
        assert value == pytest.approx(updates * times * each / 3.6e6, rel=0.02) and value > 0
    assert float(total[-1]) == pytest.approx(sum(hours), rel=0.02)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sp/mnist.py", ["--seeds", "2"], "unrecognized arguments: --seeds 2"),
        ("sp/nets.py", ["--updates", "10"], "updates must be a multiple of 4, got 10."),
        ("lsd/ica.py", ["--dimensions", "20"], "must be among (3,) in mode smoke, got [20]."),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name, options, words, tmp_path):
    command = [sys.executable, str(EXAMPLES / "papers" / name), *options]
    done = subprocess.run(command, cwd=tmp_path, env=small(), capture_output=True, text=True)
    assert done.returncode in (1, 2) and words in done.stderr


@pytest.mark.slow
def test_a_kept_model_is_read_and_not_fitted_again(tmp_path):
    script, name = EXAMPLES / "papers" / "sp" / "mnist.py", "noise, quadratic, eta 0.001"
    first = run_script(script, tmp_path, "--only", name, "--updates", "3")
    (model,) = tmp_path.glob("output/*.safetensors")
    kept = model.read_bytes(), model.stat().st_mtime_ns
    again = run_script(script, tmp_path, "--only", "--updates", "3")
    assert (model.read_bytes(), model.stat().st_mtime_ns) == kept
    row = [line for line in first.splitlines() if line.startswith("noise, quadratic  0.001")]
    assert len(row) == 1 and row[0] in again.splitlines()
    assert "wrote" in again and "wrote" not in first


@pytest.mark.slow
def test_pilots_change_one_thing_at_a_time(tmp_path):
    script = EXAMPLES / "papers" / "usp" / "images.py"
    lines = run_script(script, tmp_path, "--pilots").splitlines()
    rows = lines[lines.index(next(line for line in lines if "-----" in line)) + 1 :]
    names = ["none", "epsilon falls", "standardized pixels", "4 times", "3 times", "a hundredth"]
    assert len(rows) == len(names) and all(map(str.startswith, rows, names))
    assert all(0 <= float(value) <= 100 for row in rows for value in row.split()[-6:-1])


def test_rows_and_updates_of_stein_training_are_chosen():
    few = argparse.Namespace(mode="quick", dimensions=[50], starts=["random"])
    keys = list(ica.tasks("logistic", few))
    assert keys and {key[1:3] for key in keys} == {(50, "random")}
    assert {ica.ML, ica.TIED} <= {key[3] for key in keys} and not list(ica.tasks("laplace", few))
    every = argparse.Namespace(mode="quick", dimensions=None, starts=ica.STARTS)
    assert {key[1] for key in ica.tasks("logistic", every)} == {10, 20, 50}
    of_mode = images.size_of(argparse.Namespace(mode="quick", updates=None))
    asked = images.size_of(argparse.Namespace(mode="quick", updates=[24, 6, 24]))
    assert of_mode.updates == (600,) and asked == of_mode._replace(updates=(6, 24))


@pytest.mark.slow
def test_parts_of_the_work_are_read_together(tmp_path):
    """Two processes with repetitions and files of their own; a third that only reads."""
    script = EXAMPLES / "papers" / "lsd" / "tests.py"
    for first, methods in ((0, ["LSD", "KSD"]), (1, ["KSD"])):
        options = ["--first", str(first), "--seeds", str(first + 1), "--part", f"_{first}"]
        run_script(script, tmp_path, *options, "--methods", *methods)
    files = {p.name: len(p.read_text().splitlines()) for p in tmp_path.glob("output/*.csv")}
    assert files == {"lsd_tests_smoke_0.csv": 1 + 2 * 2, "lsd_tests_smoke_1.csv": 1 + 2}
    out = run_script(script, tmp_path, "--show")
    header, _, row = out.splitlines()[2:5]
    assert "columns, repetition" not in out and header.split()[:3] == ["columns", "sigma", "n"]
    assert row.split()[2] == "0-2"  # of no method in both, of KSD two


@pytest.mark.slow
def test_ctrl_c_in_a_reproduction_leaves_the_earlier_fit(tmp_path):
    """The interrupted fit raises and sets nothing; the script goes on with what it had."""
    script = tmp_path / "long.py"
    script.write_text(
        "import argparse, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may ignore it\n"
        f"sys.path.append({str(EXAMPLES.parent)!r})\n"
        "from examples.papers.hcd import rings as hcd_rings\n"
        "args = argparse.Namespace(mode='smoke', smoke=True, output=hcd_rings.Path('.'))\n"
        "est = hcd_rings.estimator('hybrid', 'safe', 0, args).set_params(checkpoint_dir=None)\n"
        "est.set_params(max_iter=2)  # torch's imports at the first step may swallow Ctrl-C\n"
        "slow = hcd_rings.Optimization(1e-6)  # a quick machine would diverge before Ctrl-C\n"
        "X = hcd_rings.rings('safe').sample(500, random_state=0)\n"
        "est.set_params(optimizer=slow).fit(X).set_params(max_iter=100_000)\n"
        "print('fitting', flush=True)\n"
        "try:\n"
        "    est.fit(X)\n"
        "except KeyboardInterrupt:\n"
        "    print(est.sample(3).shape, est.n_iter_)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=small(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "fitting\n"
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    assert "(3, 10) 2" in out


@pytest.mark.slow
def test_model_selection_prints_its_searches_and_draws_the_curve(tmp_path):
    out = run_script(EXAMPLES / "model_selection.py", tmp_path)
    assert out.count("AUROC") >= 3
    pictures = list((tmp_path / "output").glob("*.png"))
    assert pictures and all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


@pytest.mark.slow
def test_demo_finds_explains_and_writes_a_report(tmp_path):
    out = run_script(EXAMPLES / "demo.py", tmp_path)
    for method in ("NoveltyDetector", "IsolationForest", "GaussianMixture"):
        assert method in out
    assert "row 4: age 131; given the rest " in out
    for name in ("density.png", "p_values.png", "customers.png"):
        assert (tmp_path / "output" / name).read_bytes().startswith(b"\x89PNG")
    report = (tmp_path / "output" / "report.html").read_text()
    assert report.count("<img") == 3 and "report.html" in out


@pytest.mark.slow
@pytest.mark.parametrize("path", GALLERY, ids=lambda p: p.stem)
def test_a_script_of_the_gallery_is_short_and_documented(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60 and text.startswith('"""\n')
