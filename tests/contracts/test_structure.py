"""What is nobody's business but its owner's, read from the sources and from fitted estimators."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.cases import CLASSES, QUIET, each, fitted

pytestmark = QUIET
PACKAGE = Path(__file__).parents[2] / "skebm"
SOURCES = sorted(PACKAGE.rglob("*.py"))
OUTSIDE = [path for path in SOURCES if "estimators" not in path.relative_to(PACKAGE).parts]
TUPLES = {"_replace", "_asdict", "_fields", "_field_defaults", "_make"}  # a NamedTuple's own
# how torch converts modules, and scikit-learn's hooks for callbacks and metadata: no public door
PROTOCOLS = {"_apply", "_init_callback_context", "_metadata_request", "_skl_callbacks"}
LOOKS = {"getattr", "hasattr", "setattr", "delattr"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in TUPLES | PROTOCOLS


def root(node):
    """What a chain of attributes starts from."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", None)


def private_reads(source):
    """Private attributes of other objects that a module reads, by name or by ``getattr``."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    lines = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = {(a.asname or a.name).split(".")[0] for line in lines for a in line.names}
    found = []
    for node in nodes:
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in LOOKS:
            owner, name = node.args[0], getattr(node.args[1], "value", None)
        else:
            continue
        at_home = getattr(owner, "id", None) in {"self", "cls"} | classes or root(owner) in imports
        on_super = isinstance(owner, ast.Call) and getattr(owner.func, "id", None) == "super"
        if isinstance(name, str) and is_private(name) and not at_home and not on_super:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nobody_reads_what_is_private_in_another_object(path):
    assert private_reads(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "n"),
    [
        ("est._model()", 1),
        ("self.estimator_._standardizer.inverse(z)", 1),
        ("getattr(inner, '_kept', None)", 1),
        ("hasattr(est, '_kept')", 1),
        ("target.__self__._played", 1),
        ("self._kept, cls._of(x), super()._fit(x), state._replace(x=1)._fields", 0),
        ("import numpy as np\nnp.linalg._core\ngetattr(est, name)\nest.__dict__\nest.fit_", 0),
        ("class A:\n    pass\nA._made()", 0),
    ],
)
def test_private_reads_are_found(source, n):
    assert len(private_reads(source)) == n


# -- imports ---------------------------------------------------------------------------------------


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imported(path):
    """Modules of skebm that one imports at its top."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def test_imports_run_in_no_circle():
    graph = {name: set(imported(path)) - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 200  # relative imports would be missed
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# -- estimators ------------------------------------------------------------------------------------


@each
def test_a_fitted_estimator_has_at_most_two_private_attributes(name):
    private = {key for key in vars(fitted(name)) if key.startswith("_")}
    assert len({key for key in private if not key.startswith(("_skl", "_sklearn"))}) <= 2, private


def ancestors(cls):
    """Classes of skebm that a class inherits from."""
    return [base for base in cls.__mro__[1:] if base.__module__.startswith("skebm.")]


def test_subclasses_fill_in_one_abstract_method_and_at_most_two_others():
    abstract, overridden = set(), set()
    for cls in CLASSES.values():
        inherited = {key: value for base in ancestors(cls) for key, value in vars(base).items()}
        abstract |= {k for k, v in inherited.items() if getattr(v, "__isabstractmethod__", False)}
        overridden |= {k for k in vars(cls) if k in inherited and not k.startswith("__")}
    hooks = {key for key in overridden if key.startswith("_")}
    assert len(abstract) == 1 and abstract <= hooks
    assert len(hooks - abstract) <= 2, sorted(hooks - abstract)
