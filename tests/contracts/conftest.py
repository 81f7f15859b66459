"""What interrupts a fit, through public doors: an objective's step, an energy's forward pass."""

import itertools

import pytest

import skebm.objectives
from skebm.objectives import Objective
from tests.cases import Calls


class Updates:
    """Energy updates so far; the one numbered `stop_at` raises `error` in place of being made."""

    count, stop_at, error = 0, 0, KeyboardInterrupt

    def restart(self, stop_at=0, error=KeyboardInterrupt):
        self.count, self.stop_at, self.error = 0, stop_at, error


@pytest.fixture
def updates(monkeypatch):
    """Counts the updates of every objective."""
    found = Updates()
    for name in skebm.objectives.__all__:
        cls = getattr(skebm.objectives, name)
        if isinstance(cls, type) and issubclass(cls, Objective) and "step" in vars(cls):

            def step(self, *args, own=cls.step):
                found.count += 1
                if found.count == found.stop_at:
                    raise found.error
                return own(self, *args)

            monkeypatch.setattr(cls, "step", step)
    return found


@pytest.fixture
def calls():
    """The counter of watched energies, at its start."""
    Calls.count, Calls.stop_at, Calls.error = 0, 0, KeyboardInterrupt
    yield Calls
    Calls.count, Calls.stop_at = 0, 0


@pytest.fixture
def slow(monkeypatch):
    """A clock of seconds per look, so that what is written now and then is written each time."""
    monkeypatch.setattr("time.monotonic", itertools.count(0, 10).__next__)
