"""Sphinx configuration. Building needs no network: no intersphinx, no remote theme."""

import re
from importlib.metadata import version as installed_version

project = "skebm"
author = "the skebm developers"
copyright = "2026, the skebm developers"
release = version = installed_version("skebm")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
html_theme = "alabaster"
html_theme_options = {"description": "Energy-based densities in scikit-learn style"}

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False  # what a package exports is what its page shows
autodoc_typehints = "none"  # types are in the docstrings
numpydoc_show_class_members = False  # autodoc lists them

REQUEST_METHOD = re.compile(r"set_\w+_request$")  # scikit-learn adds these to every estimator


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out what a class has from torch, scikit-learn or Python rather than from skebm."""
    member = obj.fget if isinstance(obj, property) else obj
    module = getattr(member, "__module__", None) or ""
    if what in ("class", "exception") and (
        not module.startswith("skebm") or REQUEST_METHOD.match(name)
    ):
        return True
    return None


def setup(app):
    """Connect the hook above."""
    app.connect("autodoc-skip-member", skip_foreign)
