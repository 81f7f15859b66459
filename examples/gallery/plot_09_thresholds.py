"""
Thresholds
==========

``offset_`` is read from ranks of held-out rows, so that 5 % of new rows fall below it. Other rules
are one argument away.
"""

from skebm import NCEDensity
from skebm.datasets import load_novelty
from skebm.ood import ThresholdDetector
from skebm.plots import ScoreHistogramDisplay

X, T, is_novelty = load_novelty("breast_cancer")
normal, novel = T[~is_novelty], T[is_novelty]
est = NCEDensity(random_state=0).fit(X)
display = ScoreHistogramDisplay.from_estimator(est, normal, novel, threshold=est.offset_)
display.ax_.set(xlim=(-60, 60), xlabel="log density, nats")

# %%
# A quantile of the training scores instead, for any estimator with ``score_samples``.
for detector in (est, ThresholdDetector(NCEDensity(random_state=0)).fit(X)):
    flagged = [(detector.predict(rows) == -1).mean() for rows in (normal, novel)]
    print(f"{type(detector).__name__}: {flagged[0]:.3f} of benign, {flagged[1]:.3f} of malignant")
    assert flagged[0] < 0.25 < 0.6 < flagged[1]
