"""Sphinx configuration. Neither building nor reading needs a network."""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import _reference

_reference.write(Path(__file__).parent / "reference")

project = "skebm"
author = "the skebm developers"
copyright = "2026, the skebm developers"
release = version = installed_version("skebm")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "_mathml",
    "myst_parser",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "gallery/*.ipynb", "gallery/*.md5"]
html_math_renderer = "mathml"
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
suppress_warnings = ["config.cache"]  # the hook of the gallery cannot be pickled

html_theme = "pydata_sphinx_theme"
html_title = "skebm"
html_static_path = ["_static"]
html_css_files = ["skebm.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
}
html_copy_source = False
html_sidebars = {name: [] for name in ("install", "tour", "changelog", "contributing", "index")}
html_sidebars["reference/**"] = []

autosummary_generate = True
toc_object_entries_show_parents = "hide"  # long names would not fit beside the text
autodoc_typehints = "none"  # types are in the docstrings
numpydoc_show_class_members = False  # autodoc lists them
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": "plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,
    "plot_gallery": os.environ.get("SKEBM_GALLERY", "1") != "0",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": None,
    "write_computation_times": False,  # a page that fetches scripts
}

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
