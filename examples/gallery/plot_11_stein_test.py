"""
Is the model right? A Stein test
================================

The kernel Stein discrepancy tests whether rows follow a model from gradients of its log density
alone: here a mixture with one component, and larger ones.
"""

import matplotlib.pyplot as plt
from sklearn.mixture import GaussianMixture

from skebm.datasets import two_moons
from skebm.stein import goodness_of_fit_test

truth = two_moons()
X, fresh = truth.sample(2000, random_state=0), truth.sample(500, random_state=1)
sizes = [1, 2, 4, 16]
pvalues = []
for k in sizes:
    model = GaussianMixture(k, random_state=0).fit(X)
    pvalues.append(goodness_of_fit_test(model, fresh, method="ksd", random_state=0).pvalue)

# %%
fig, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.semilogx(sizes, pvalues, marker="o", base=2)
ax.axhline(0.05, color="gray", linestyle=":", label="0.05")
ax.set(xlabel="components", ylabel="p-value", ylim=(-0.02, 1))
ax.legend()
assert pvalues[0] < 0.01 and max(pvalues) > 0.05
