"""Data flows one way: a module imports only from places above its own in ``PLACES``."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "skebm"
PLACES = """_versions _talk _warn exceptions _tables _components _disk _ranks _surroundings inside
    data
    networks bases energies datasets samplers partition objectives train fitted stein diagnostics
    metrics estimators ood impute export plots""".split()
MODULES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})  # the top may import all


def imported(source, package):
    """Every name of skebm that ``source`` imports, as parts; ``package`` resolves relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else ()
            module = node.module.split(".") if node.module else ()
            names = [[*parents, *module, alias.name] for alias in node.names]
        else:
            continue
        yield from (name for name in names if name[0] == "skebm")


def upward(source, package, place):
    """The imports of ``source`` that do not come from ``place`` or from above it."""
    allowed = PLACES[: PLACES.index(place) + 1]
    return [".".join(n) for n in imported(source, package) if len(n) < 2 or n[1] not in allowed]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_come_from_above(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    assert parts[1] in PLACES, f"{parts[1]} is not a place of the package; add it to PLACES"
    assert upward(path.read_text(encoding="utf-8"), parts[:-1], parts[1]) == []


@pytest.mark.parametrize(
    ("place", "source", "found"),
    [
        ("samplers", "from ..partition import AIS", ["skebm.partition.AIS"]),
        ("samplers", "from .. import estimators", ["skebm.estimators"]),
        ("samplers", "def f():\n    import skebm.train", ["skebm.train"]),
        ("samplers", "from skebm import HybridCDDensity", ["skebm.HybridCDDensity"]),
        ("samplers", "import skebm", ["skebm"]),
        ("samplers", "from . import mala\nfrom .mala import MALA\nfrom ..energies import MLP", []),
        ("samplers", "import torch\nfrom skebm._components import Component", []),
        ("energies", "from ..datasets import RBMDensity", ["skebm.datasets.RBMDensity"]),
    ],
)
def test_no_place_may_look_down(place, source, found):
    assert upward(source, ("skebm", place), place) == found


def test_optimizers_step_in_one_place():
    """All others go through `descend`: what an update needs is done there for every player."""
    steps = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr == "step" and not (node.args or node.keywords)
    }
    assert steps == {"objectives/_base.py"}
