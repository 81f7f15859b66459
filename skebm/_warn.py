"""Warnings that name the line of the caller, however deep inside they arise."""

from __future__ import annotations

__all__ = ["warn"]

import sys
import warnings
from types import FrameType

BETWEEN = {"skebm", "sklearn", "joblib", "contextlib"}  # packages that call each other here


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the nearest line outside of skebm and of what calls it on a user's behalf.

    scikit-learn wraps methods in some frames more, so that a fixed ``stacklevel`` names these.
    """
    here: FrameType | None = sys._getframe(1)
    at = here
    while at is not None and _package(at) in BETWEEN:
        at = at.f_back
    at = at or here  # a thread or a process that is ours from its first line on
    assert at is not None
    warnings.warn_explicit(
        message,
        category,
        at.f_code.co_filename,
        at.f_lineno,
        at.f_globals.get("__name__") or "__main__",
        at.f_globals.setdefault("__warningregistry__", {}),
    )


def _package(frame: FrameType) -> str:
    return (frame.f_globals.get("__name__") or "").partition(".")[0]
