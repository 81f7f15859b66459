"""
Filling in what is missing
==========================

Draws given the rest of the row keep spread and dependence of the columns; means and the usual
imputers shrink them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.impute import SimpleImputer

from skebm import USPDensity
from skebm.datasets import two_moons
from skebm.impute import DensityImputer

X = two_moons().sample(800, random_state=0)
rng = np.random.RandomState(1)
hidden = rng.uniform(size=len(X)) < 0.4
holed = X.copy()
holed[hidden, 1] = np.nan
est = USPDensity(max_iter=200, random_state=0)
filled = {
    "mean": SimpleImputer().fit_transform(holed),
    "conditional mean": DensityImputer(est, strategy="mean").fit_transform(holed),
    "conditional draw": DensityImputer(est, random_state=0).fit_transform(holed),
}

# %%
fig, axes = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
for ax, (name, rows) in zip(axes, {"truth": X, **filled}.items(), strict=True):
    ax.scatter(*X[~hidden].T, s=2, color="lightgray")
    ax.scatter(*rows[hidden].T, s=3)
    ax.set_title(name)

# %%
spread = {name: rows[hidden, 1].std() / X[hidden, 1].std() for name, rows in filled.items()}
print({name: round(float(value), 2) for name, value in spread.items()})
assert abs(spread["conditional draw"] - 1) < 0.15
