"""Fixtures of the whole suite; settings of the process are in ``tests/plugin.py``."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "skebm",
    deadline=None,
    max_examples=20,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("skebm")


@pytest.fixture
def close_figures():
    """Leave no figure open."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def data_dir():
    """Folder of the larger real tables and images; what asks for it skips where there is none."""
    folder = os.environ.get("SKEBM_DATA")
    if not folder:
        pytest.skip("SKEBM_DATA is unset: it names the folder of the larger real data")
    if not Path(folder).is_dir():
        pytest.fail(f"SKEBM_DATA must be a folder, got {folder!r}.")
    return Path(folder)
