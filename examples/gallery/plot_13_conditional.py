"""
One value given the others
==========================

The density of one column given the rest of a row, its middle 90 %, and the value that the row has.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from skebm import USPDensity
from skebm.plots import ConditionalDisplay

table = load_iris(as_frame=True).data
X = table.to_numpy() + np.random.RandomState(0).uniform(-0.05, 0.05, table.shape)
est = USPDensity(max_iter=200, random_state=0).fit(X)

# %%
row = np.array([6.5, 3.0, 5.5, 0.3])  # a large flower with tiny petals
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, column in zip(axes, (0, 3), strict=True):
    display = ConditionalDisplay.from_estimator(est, row, column=column, ax=ax)
    ax.set_xlabel(table.columns[column])
low, high = est.conditional_interval(row[None])[0, 3]
print(f"petal width {row[3]} cm; given the rest {low:.1f} to {high:.1f} cm")
assert low > 0.5
