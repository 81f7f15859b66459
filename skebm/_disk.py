"""Files that are whole or not there at all."""

from __future__ import annotations

__all__ = ["replacing"]

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file beside another and put it in its place once it is whole.

    Whatever fails, a full disk or Ctrl-C, leaves the old file as it was and nothing beside it.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(f"{path.name[:100]}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(aside, "xb") as file:  # of the umask's mode, as other files
            yield file
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
