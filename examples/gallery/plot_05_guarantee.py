"""
Novelties with a guarantee
==========================

Split-conformal ranks turn any score into p-values: of new normal rows at most a share alpha is
flagged, whatever the density is like.
"""

from skebm.datasets import load_novelty
from skebm.ood import ConformalNoveltyDetector, NoveltyDetector
from skebm.plots import PValueHistogramDisplay

X, T, is_novelty = load_novelty("breast_cancer")
detector = ConformalNoveltyDetector(NoveltyDetector(), alpha=0.1, random_state=0).fit(X)
normal, novel = T[~is_novelty], T[is_novelty]

# %%
# p-values of benign rows are uniform, those of malignant ones near 0.
PValueHistogramDisplay.from_estimator(detector, normal, novel)

# %%
false_alarms = (detector.predict(normal) == -1).mean()
found = (detector.predict(novel) == -1).mean()
print(f"false alarms {100 * false_alarms:.1f} % (10 % promised), found {100 * found:.0f} %")
assert false_alarms < 0.2 and found > 0.8
