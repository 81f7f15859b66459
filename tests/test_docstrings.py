"""Docstrings and pages: complete, with an example, and exact about what they cite.

The set of numpydoc checks is ``[tool.numpydoc_validation]`` in pyproject.toml. Modules are found by
listing the package, so whatever is added is checked.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.hooks.validate_docstrings import parse_config
from numpydoc.validate import validate
from sklearn.base import OutlierMixin

import skebm
from tests import test_pages

ROOT = Path(__file__).parents[1]
CHECKS = parse_config(ROOT)["checks"]
SOURCES = sorted((ROOT / "skebm").rglob("*.py"))
ELSEWHERE = {*test_pages.PAGES, "choose", "index", "interoperability", "scale"}
PAGES = [p for p in sorted((ROOT / "docs").glob("*.rst")) if p.stem not in ELSEWHERE]
LOCATOR = re.compile(
    r"\b(Eqs?|Equations?|Algs?|Algorithms?|Secs?|[Ss]ections?|Tables?|Props?|Propositions?"
    r"|Fig|Figures?|Theorems?|Lemmas?|Corollary|Definition|Appendix|App|[Cc]hapters?|Ch)\b\.?\s+"
    r"\(?([A-Z]\b|[A-Z]?\.?\d)"
)


def public_modules():
    """The package, its subpackages, and its top-level modules; nothing with an underscore."""
    names = ["skebm"]
    for info in pkgutil.walk_packages(skebm.__path__, "skebm."):
        hidden = any(part.startswith("_") for part in info.name.split("."))
        if not hidden and (info.ispkg or info.name.count(".") == 1):
            names.append(info.name)
    return [importlib.import_module(name) for name in names]


def public_objects():
    """Classes and functions of skebm that a public ``__all__`` names, each once."""
    members = [getattr(m, name) for m in public_modules() for name in getattr(m, "__all__", ())]
    ours = [m for m in members if callable(m) and m.__module__.startswith("skebm")]
    return sorted(set(ours), key=label)


def public_methods(cls):
    """Methods and properties without an underscore that skebm, not a library, defines."""
    for name, member in inspect.getmembers(cls):
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isroutine(function):
            if getattr(function, "__module__", "").startswith("skebm"):
                yield name, member


def label(obj):
    return f"{obj.__module__}.{obj.__qualname__}"


def complaints(obj, ignore=()):
    errors = validate(get_doc_object(obj))["errors"]
    return [f"{code} {text}" for code, text in errors if code in CHECKS - set(ignore)]


def is_record(cls):
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def is_abstract(cls):
    return any(getattr(m, "__isabstractmethod__", False) for _, m in inspect.getmembers(cls))


def exempt(obj):
    """Checks that make no sense for records, errors, abstract classes, inherited constructors."""
    if not inspect.isclass(obj):
        return set()
    codes = set()
    if is_record(obj) or is_abstract(obj) or issubclass(obj, BaseException):
        codes |= {"EX01"}
    if not (getattr(obj.__init__, "__module__", None) or "").startswith("skebm"):
        codes |= {"PR01", "PR02", "PR03"}  # the signature is a library's
    return codes


OBJECTS = public_objects()
CLASSES = [obj for obj in OBJECTS if inspect.isclass(obj)]
ESTIMATORS = [cls for cls in CLASSES if issubclass(cls, OutlierMixin)]


@pytest.mark.parametrize("obj", OBJECTS, ids=label)
def test_public_objects_are_documented(obj):
    assert complaints(obj, exempt(obj)) == []


@pytest.mark.parametrize("cls", [c for c in CLASSES if is_record(c)], ids=label)
def test_fields_of_records_are_documented(cls):
    doc = get_doc_object(cls)
    described = {entry.name for part in ("Parameters", "Attributes") for entry in doc[part]}
    assert set(cls._fields) - described == set()


@pytest.mark.parametrize("cls", CLASSES, ids=label)
def test_methods_are_documented_or_inherit(cls):
    bare = [name for name, _ in public_methods(cls) if not inspect.getdoc(getattr(cls, name))]
    assert bare == []


@pytest.mark.parametrize("cls", ESTIMATORS, ids=label)
def test_estimator_methods_are_documented_in_full(cls):
    found = {n: complaints(m, {"EX01"}) for n, m in public_methods(cls) if inspect.isroutine(m)}
    assert {name: errors for name, errors in found.items() if errors} == {}


def docstrings(path):
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, documented)]
    return [doc for doc in map(ast.get_docstring, nodes) if doc]


def unlocated(doc):
    """References in a docstring that do not say which equation, algorithm or section is meant."""
    _, *sections = re.split(r"^References\n-+\n", doc, flags=re.MULTILINE)
    text = "\n".join(re.split(r"^\S.*\n-{3,}$", s, flags=re.MULTILINE)[0] for s in sections)
    entries = re.split(r"^\.\. \[", text, flags=re.MULTILINE)
    entries = [" ".join(entry.split()) for entry in entries if entry.strip()]
    return [entry for entry in entries if not LOCATOR.search(entry)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_references_name_an_equation(path):
    assert [entry for doc in docstrings(path) for entry in unlocated(doc)] == []


def test_an_inexact_reference_is_found():
    exact = '.. [1] A. Author, "A title",\n   Journal 1, 2000. Eq. 3.'
    bare = ".. [2] B. Author, Journal 2, 2001."
    doc = f"Summary.\n\nReferences\n----------\n{exact}\n{bare}\n\nExamples\n--------\n>>> 1\n1"
    assert unlocated(doc) == ["2] B. Author, Journal 2, 2001."]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_all_stands_first(path):
    body = ast.parse(path.read_text("utf-8")).body
    assert ast.get_docstring(ast.Module(body, [])), "a module says what it is for"
    future = [isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in body]
    first = body[1 + sum(future)]  # the language puts __future__ before everything
    assert isinstance(first, ast.Assign) and ast.unparse(first.targets[0]) == "__all__"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_code_on_pages_runs(path, tmp_path, monkeypatch):
    blocks = re.findall(
        r"^\.\. code-block:: python\n\n((?:[ ]{3}.*\n|\n)+)", path.read_text("utf-8"), re.MULTILINE
    )
    blocks = [b for b in blocks if "import onnxruntime" not in b or find_spec("onnxruntime")]
    source = "\n".join(textwrap.dedent(block) for block in blocks)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, str(path), "exec"), {"__name__": path.stem})
