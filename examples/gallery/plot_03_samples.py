"""
Samples against data
====================

Draws of the base are chosen by their weights, and annealed where those are uneven. ``sample_info_``
says what they are worth.
"""

import matplotlib.pyplot as plt
from scipy.stats import ks_2samp

from skebm import USPDensity
from skebm.datasets import checkerboard

X = checkerboard().sample(3000, random_state=0)
est = USPDensity(max_iter=400, random_state=0).fit(X)
drawn = est.sample(3000, random_state=0)
print(f"{est.sample_info_.ess:.0f} effective of {est.sample_info_.n_candidates} draws of the base")

fig, axes = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for ax, rows, title in zip(axes, (X, drawn), ("data", "samples"), strict=True):
    ax.scatter(*rows.T, s=2)
    ax.set(title=title, aspect="equal")

# %%
largest = max(ks_2samp(X[:, j], drawn[:, j]).statistic for j in range(2))
print(f"largest Kolmogorov-Smirnov distance of a column: {largest:.3f}")
assert largest < 0.06
