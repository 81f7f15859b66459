"""The file of a training state: read with suspicion, written aside, never the end of a fit."""

from __future__ import annotations

__all__ = ["read_checkpoint", "set_aside", "write_checkpoint"]

import io
import os
import zlib
from pathlib import Path
from typing import Any

import torch

from skebm._disk import replacing
from skebm._warn import warn
from skebm.exceptions import CheckpointWarning


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what `write_checkpoint` wrote under this name; None where there is nothing of it.

    Parameters
    ----------
    path : Path
        The file. One that is empty, damaged or of another fit is set aside, with a warning.
    device : torch.device
        Where its tensors go.

    Returns
    -------
    dict or None
        The values.
    """
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        if saved["of"] != _mark(path):
            raise ValueError("it was written under another name")
    except Exception as error:
        set_aside(path, error)
        return None
    return saved


def set_aside(path: Path, error: Exception) -> None:
    """Rename a file that cannot be gone on from, and say so."""
    aside = path.with_name(f"{path.name}.unread")
    os.replace(path, aside)
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warn(
        f"checkpoint {str(path)!r} must be one of this fit, got one that cannot be read "
        f"({reason[:200]}). It is set aside as {aside.name!r}, and the training starts anew.",
        CheckpointWarning,
    )


def write_checkpoint(path: Path, values: dict[str, Any]) -> bool:
    """Write values; on a full disk, say, keep the old file, warn and return False."""
    try:
        buffer = io.BytesIO()
        torch.save({**values, "of": _mark(path)}, buffer)
        with replacing(path) as file:
            file.write(buffer.getbuffer())
    except (OSError, RuntimeError) as error:
        warn(
            f"checkpoint {str(path)!r} could not be written ({error}). The training goes on; "
            "stopped, it would start from the file as it was. Make room in the folder.",
            CheckpointWarning,
        )
        return False
    return True


def _mark(path: Path) -> int:
    """Return what a name leaves in its file, for names say whose it is."""
    return zlib.crc32(path.name.encode())
