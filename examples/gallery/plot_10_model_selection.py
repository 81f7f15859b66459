"""
Model selection and its error
=============================

Held-out log densities in one unit compare any settings. Differences need error bars: the same rows
are harder or easier for all.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, KFold

from skebm import USPDensity
from skebm.bases import Mixture
from skebm.datasets import eight_modes

X = eight_modes().sample(400, random_state=0)
sizes = [2, 4, 8, 12]
search = GridSearchCV(
    USPDensity(max_iter=1, standardize="affine", random_state=0),  # bases alone
    {"base": [Mixture(k) for k in sizes]},
    cv=KFold(3, shuffle=True, random_state=0),
).fit(X)

# %%
folds = np.array([search.cv_results_[f"split{i}_test_score"] for i in range(3)])
best = folds.mean(0).argmax()
off = folds - folds[:, [best]]
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.errorbar(sizes, off.mean(0), yerr=off.std(0, ddof=1) / np.sqrt(3), fmt="o-", capsize=4)
ax.set(xlabel="components", ylabel="held-out nats below the best")
print("best:", sizes[best], "components")
assert sizes[best] in (8, 12)
