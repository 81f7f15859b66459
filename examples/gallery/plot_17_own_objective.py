"""
Your own objective
==================

An objective is an ``init`` and a ``step``. This one raises the energy at uniform points and lowers
it at rows; `EnergyDensity` does the rest: base, early stop, log Z, thresholds.
"""

import torch

from skebm import EnergyDensity
from skebm.datasets import checkerboard
from skebm.objectives import Objective, Optimization, State
from skebm.plots import DensityDisplay


class Contrast(Objective):
    """Logistic regression between rows and uniform points around them."""

    def __init__(self, margin=0.2):
        self.margin = margin

    def init(self, model, x, rng):
        """Make the optimizer, and remember the box of the rows."""
        box = {"low": x.amin(0) - self.margin, "high": x.amax(0) + self.margin}
        return State({"energy": Optimization().build(model.energy)}, {}, box)

    def step(self, model, state, draw, rng):
        """Take one step."""
        x, (low, high) = draw(), (state.buffers["low"], state.buffers["high"])
        u = low + (high - low) * torch.rand(x.shape, generator=rng)
        log_u = -(high - low).log().sum()
        ratio = [model.base.log_prob(rows) - model.energy(rows) - log_u for rows in (x, u)]
        loss = torch.nn.functional.softplus(-ratio[0]).mean()
        loss = loss + torch.nn.functional.softplus(ratio[1]).mean()
        optimizer = state.optimizers["energy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return state, {"loss": loss.detach()}


# %%
X = checkerboard().sample(2000, random_state=0)
est = EnergyDensity(objective=Contrast(), base="gaussian", max_iter=600, random_state=0).fit(X)
display = DensityDisplay.from_estimator(est, X[:300])
gain, stderr = est.validation_gain_
display.ax_.set_title(f"{gain:.2f} ± {stderr:.2f} nats above the base")
assert gain > 0.1
