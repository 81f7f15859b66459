"""The one place that imports matplotlib, when a picture is asked for."""

from __future__ import annotations

__all__ = ["require_pyplot"]

from typing import Any


def require_pyplot(caller: str) -> Any:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        If matplotlib is not installed; names the caller and the extra that brings it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. Install it with `pip install skebm[plot]`."
        ) from error
    return plt
