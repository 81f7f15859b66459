"""
Base against energy
===================

The base is a classical density, here one Gaussian; the energy learns what it misses. Held-out rows
decide whether it stays.
"""

import matplotlib.pyplot as plt
import numpy as np

from skebm import USPDensity
from skebm.datasets import swiss_roll

X = swiss_roll().sample(3000, random_state=0)
est = USPDensity(base="gaussian", max_iter=600, random_state=0).fit(X)
alone = USPDensity(base="gaussian", max_iter=1, random_state=0).fit(X)

low, high = X.min(0) - 1, X.max(0) + 1
axes_ = [np.linspace(a, b, 120) for a, b in zip(low, high, strict=True)]
grid = np.stack([g.ravel() for g in np.meshgrid(*axes_)], axis=1)
fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, model, title in zip(axes, (alone, est), ("base alone", "base and energy"), strict=True):
    image = model.score_samples(grid).reshape(120, 120)
    ax.pcolormesh(*axes_, image, vmin=-9, vmax=-2, cmap="viridis")
    ax.set_title(f"{title}: {model.score(X):.2f} nats per row")

# %%
gain, stderr = est.validation_gain_
print(f"held-out gain of the energy: {gain:.2f} ± {stderr:.2f} nats per row")
assert est.energy_kept_ and gain > 0.3
