"""The pages of the reference: one for each package of skebm, with all that it exports."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import skebm

ORDER = "ood impute plots metrics stein diagnostics datasets bases energies samplers objectives"


def places() -> list[str]:
    """Return the public packages and modules, the most used ones first.

    The estimators are those of skebm itself.
    """
    found = [p.name for p in pkgutil.iter_modules(skebm.__path__) if p.name[0] != "_"]
    found.remove("estimators")
    first = [name for name in ORDER.split() if name in found]
    return ["skebm", *(f"skebm.{n}" for n in [*first, *sorted(set(found) - set(first))])]


def page(name: str) -> str:
    """Return the text of one page."""
    module = importlib.import_module(name)
    shown = [n for n in module.__all__ if not n.startswith("__")]
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree: generated", ""]
    return "\n".join([*lines, *(f"   {n}" for n in shown), ""])


def write(folder: Path) -> None:
    """Write all pages, and the list of them."""
    folder.mkdir(exist_ok=True)
    for name in places():
        (folder / f"{name}.rst").write_text(page(name), encoding="utf-8")
