"""
Images: which digit is new?
===========================

An energy over pixels, on top of a Gaussian with principal directions. The digit 8 was left out of
the training rows.
"""

import matplotlib.pyplot as plt
import numpy as np

from skebm import NCEDensity
from skebm.bases import ProbabilisticPCA
from skebm.datasets import load_novelty
from skebm.metrics import ood_metrics

X, T, is_novelty = load_novelty("digits")
rng = np.random.RandomState(0)
X, T = (rows + rng.uniform(size=rows.shape) for rows in (X, T))
est = NCEDensity(
    base=ProbabilisticPCA(n_components=20), image_shape=(1, 8, 8), max_iter=100, random_state=0
)
est.fit(X)
score = est.score_samples(T)
auroc = ood_metrics(score[~is_novelty], score[is_novelty])["auroc"]
print(f"AUROC of the 8 against the other digits: {auroc:.3f}")

# %%
order = np.argsort(score)
fig, axes = plt.subplots(2, 10, figsize=(9, 2.2), layout="constrained")
for line, chosen, title in zip(axes, (order[:10], order[-10:]), ("least", "most"), strict=True):
    for ax, i in zip(line, chosen, strict=True):
        ax.imshow(T[i].reshape(8, 8), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(f"{title} likely", fontsize=8)
assert auroc > 0.7
