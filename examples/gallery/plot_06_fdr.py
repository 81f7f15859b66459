"""
p-values and false discoveries
==============================

Of many rows, those of ``select`` are novel but for a stated share: Benjamini and Hochberg's
procedure on conformal p-values.
"""

import matplotlib.pyplot as plt
import numpy as np

from skebm import NCEDensity
from skebm.datasets import GaussianMixtureDensity
from skebm.ood import ConformalNoveltyDetector

normal = GaussianMixtureDensity(np.array([[0.0, 0.0], [4.0, 4.0]]), 1.0)
X = normal.sample(4000, random_state=0)
rng = np.random.RandomState(1)
novel = np.array([0.0, 5.0]) + 0.5 * rng.normal(size=(60, 2))
T = np.concatenate([normal.sample(600, random_state=2), novel])
is_novelty = np.arange(len(T)) >= 600
detector = ConformalNoveltyDetector(NCEDensity(), random_state=0).fit(X)

# %%
levels = [0.02, 0.05, 0.1, 0.2, 0.3]
picked = [detector.select(T, fdr=level) for level in levels]
false = [(~is_novelty[chosen]).sum() / max(np.sum(chosen), 1) for chosen in picked]
power = [is_novelty[chosen].sum() / 60 for chosen in picked]
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.plot(levels, levels, color="gray", linestyle=":", label="promise")
ax.plot(levels, false, marker="o", label="false among those selected")
ax.plot(levels, power, marker="s", label="novelties found")
ax.set(xlabel="false discovery rate asked for", ylabel="share", ylim=(0, 1.02))
ax.legend()
assert power[2] > 0.8
