"""What the README and the pages show runs, and prints what they say."""

import contextlib
import importlib.util
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from skebm.datasets import load_novelty
from tests.cases import QUIET
from tests.test_mixed import frame

ROOT = Path(__file__).parents[1]
NEEDED = re.compile(r"^\s*(?:import|from) (\w+)", re.M)
PAGES = ["tour", "tables", "missing", "explain", "search"]
PAGES += ["tutorial_novelty", "tutorial_trust", "tutorial_images"]
pytestmark = QUIET


def blocks(name):
    """The code of a page, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return re.findall(r"```python\n(.*?)```", text, re.S)
    found = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text, re.M)
    return [re.sub(r"^   ", "", block, flags=re.M) for block in found]


def runs(block, names):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
        warnings.simplefilter("ignore")
        exec(block, names)
    return out.getvalue()


@pytest.fixture
def customers(tmp_path, monkeypatch):
    table = frame(300).rename(columns={"day": "since"})
    table.loc[7, "amount"], table.loc[8, "city"], table.loc[9, "age"] = 5000.0, None, 150
    table.to_csv(tmp_path / "customers.csv", index_label="id")
    monkeypatch.chdir(tmp_path)


def test_the_readme_runs_and_prints_what_it_says(customers):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (promised,) = re.findall(r"prints:\n\n```\n(.*?)```", text, re.S)
    names: dict = {}
    first, second, *others = blocks("README.md")
    assert runs(first, names).startswith(promised)
    runs(second, names)
    assert {7, 9} <= set(names["odd"].index)
    said = dict(zip(names["odd"].index, names["why"], strict=True))
    assert said[7].startswith("amount 5000; given the rest ") and said[9].startswith("age 150; ")
    assert names["whole"].dtypes.equals(names["table"].dtypes)
    assert not names["whole"].isna().any(axis=None)
    for block in others:
        runs(block, names)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"docs/{name}.rst" for name in PAGES])
def test_a_page_runs_from_top_to_bottom(name, customers):
    names: dict = {}
    found = blocks(name)
    assert found
    for block in found:
        runs(block, names)


@pytest.mark.slow
def test_the_page_on_large_tables_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("docs/scale.rst"):
        if {"parquet", "dask"} & set(re.findall(r"\w+", block)):
            pytest.importorskip("dask"), pytest.importorskip("pyarrow")
        runs(block, names)
    assert names["scores"].shape == (150_000,) and names["est"].n_iter_ == 5 * 25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/index.rst", "docs/choose.rst"])
def test_snippets_that_want_a_table_run(name):
    if name == "docs/choose.rst":
        pytest.importorskip("zuko")
    X, T, _ = load_novelty("iris")
    holes = np.where(np.random.RandomState(0).uniform(size=T.shape) < 0.2, np.nan, T)
    names = {"X": X, "X_new": T, "X_with_holes": holes}
    for block in blocks(name):
        runs(block.replace("range(2000)", "range(3)"), names)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks("docs/interoperability.rst"))))
def test_other_packages_take_our_estimators(number):
    from skebm import NCEDensity

    block = blocks("docs/interoperability.rst")[number]
    for package in set(NEEDED.findall(block)) - {"skebm"}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    X, T, is_novelty = load_novelty("iris")
    names = {"X": np.concatenate([X, T]), "np": np}
    names["y"] = np.r_[np.zeros(len(X)), is_novelty].astype(int)
    names["est"] = NCEDensity(max_iter=2, data_noise=0.1, random_state=0).fit(X)
    runs(block, names)
