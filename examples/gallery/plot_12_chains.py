"""
Chains from noise and from data
===============================

Energies of chains that start at noise and at rows. Where both settle at the same level, short and
long chains see one density.
"""

from skebm import HybridCDDensity
from skebm.datasets import two_moons
from skebm.plots import ChainDisplay
from skebm.samplers import MALA

X = two_moons().sample(1000, random_state=0)
est = HybridCDDensity(base="gaussian", max_iter=100, random_state=0).fit(X)

# %%
options = {"sampler": MALA(0.02), "n_steps": 300, "record_every": 5, "random_state": 0}
display = ChainDisplay.from_estimator(est, "noise", label="from noise", **options)
ChainDisplay.from_estimator(est, X[:100], label="from data", ax=display.ax_, **options)
display.ax_.legend()
