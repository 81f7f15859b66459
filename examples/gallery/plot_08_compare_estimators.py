"""
Six estimators on five densities
================================

All with few updates, for the picture. Below each: how many nats per row it is below the truth.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skebm import (
    BoundsEBM,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from skebm.datasets import checkerboard, eight_modes, grid_25, swiss_roll, two_moons

TRUTHS = [two_moons(), checkerboard(), swiss_roll(), eight_modes(), grid_25()]
ESTIMATORS = [
    *(USPDensity(max_iter=150), NCEDensity(max_iter=100), HybridCDDensity(max_iter=50)),
    *(ScoreMatchingDensity(max_iter=100), SteinEBM(max_iter=25), BoundsEBM(max_iter=25)),
]
fig, axes = plt.subplots(5, 7, figsize=(13, 10), layout="constrained")
for line, truth in zip(axes, TRUTHS, strict=True):
    X, fresh = truth.sample(600, random_state=0), truth.sample(1000, random_state=1)
    line[0].scatter(*X.T, s=1)
    ticks = [np.linspace(a, b, 70) for a, b in zip(X.min(0) - 0.5, X.max(0) + 0.5, strict=True)]
    grid = np.stack([g.ravel() for g in np.meshgrid(*ticks)], axis=1)
    best = truth.log_density(fresh).mean()
    for ax, est in zip(line[1:], ESTIMATORS, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few updates
            est.set_params(random_state=0).fit(X)
        density = np.exp(est.score_samples(grid)).reshape(70, 70)
        ax.pcolormesh(*ticks, density, cmap="magma", vmax=np.quantile(density, 0.995))
        ax.set_xlabel(f"{est.score(fresh) - best:+.2f}")
for ax, name in zip(axes[0], ["rows", *(type(e).__name__ for e in ESTIMATORS)], strict=True):
    ax.set_title(name, fontsize=9)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
