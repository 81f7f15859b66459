"""What an issue has to say about the machine."""

from __future__ import annotations

__all__ = ["show_versions"]

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("skebm", "torch", "scikit-learn", "numpy", "scipy", "joblib", "narwhals", "safetensors"),
    *("arviz-stats", "threadpoolctl", "tqdm", "matplotlib", "pandas", "polars"),
)


def show_versions() -> None:
    """Print the versions of Python, of the packages that matter, and what torch computes on.

    Examples
    --------
    >>> import skebm
    >>> skebm.show_versions()
    python: 3...
    machine: ...
    skebm: ...
    """
    import torch

    print(f"python: {sys.version.split()[0]}")
    print(f"machine: {platform.platform()}")
    for name in PACKAGES:
        try:
            print(f"{name}: {version(name)}")
        except PackageNotFoundError:
            print(f"{name}: not installed")
    print(f"torch threads: {torch.get_num_threads()}")
    print(f"CUDA: {'yes' if torch.cuda.is_available() else 'no'}")
