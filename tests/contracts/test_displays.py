"""Every display draws what an estimator says, and leaves it and everything else alone."""

import numpy as np
import pytest
import torch

from tests.cases import CLASSES, DISPLAYS, QUIET, bits, display, fitted

plt = pytest.importorskip("matplotlib.pyplot")
pytestmark = [*QUIET, pytest.mark.usefixtures("close_figures")]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", DISPLAYS)
def test_a_display_of_any_estimator(kind, name):
    est = fitted(name)
    before = bits(est), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    shown = display(kind, est)
    axes = np.ravel(shown.ax_ if hasattr(shown, "ax_") else shown.axes_)
    assert any(ax.has_data() for ax in axes) and shown.figure_ is axes[0].figure
    if hasattr(shown, "ax_"):
        figure, ax = plt.subplots()
        assert shown.plot(ax=ax) is shown and shown.ax_ is ax and shown.figure_ is figure
        assert ax.has_data()
    after = bits(est), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before
