"""What interrupts a fit, through public doors: an objective's step, an energy's forward pass."""

import itertools

import pytest

import skebm.objectives
from skebm.objectives import Objective
from tests.cases import Calls


class Updates:
    """Energy updates so far; the one numbered `stop_at` raises `error` in place of being made.

    `draw` is what the last of them got its batches from.
    """

    count, stop_at, error, draw = 0, 0, KeyboardInterrupt, None

    def restart(self, stop_at=0, error=KeyboardInterrupt):
        self.count, self.stop_at, self.error = 0, stop_at, error


def watch(patch):
    """Count the updates of every objective from now on."""
    found = Updates()
    for name in skebm.objectives.__all__:
        cls = getattr(skebm.objectives, name)
        if isinstance(cls, type) and issubclass(cls, Objective) and "step" in vars(cls):

            def step(self, model, state, draw, rng, own=cls.step):
                found.count, found.draw = found.count + 1, draw
                if found.count == found.stop_at:
                    raise found.error
                return own(self, model, state, draw, rng)

            patch.setattr(cls, "step", step)
    return found


def look_often(patch):
    """Set a clock of seconds per look, so that what is written now and then is each time."""
    patch.setattr("time.monotonic", itertools.count(0, 10).__next__)


@pytest.fixture
def updates(monkeypatch):
    """The number of updates that objectives make."""
    return watch(monkeypatch)


@pytest.fixture
def slow(monkeypatch):
    """Training that takes its time, as far as its clock goes."""
    look_often(monkeypatch)


@pytest.fixture
def calls():
    """The counter of watched energies, at its start."""
    Calls.count, Calls.stop_at, Calls.error = 0, 0, KeyboardInterrupt
    yield Calls
    Calls.count, Calls.stop_at = 0, 0
