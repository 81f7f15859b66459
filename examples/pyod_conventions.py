"""A detector of skebm under PyOD's conventions, and back.

skebm, as scikit-learn: ``decision_function`` high for normal rows, ``predict`` +1, novelties -1.
PyOD: high for abnormal rows, labels 0 and 1 (above ``threshold_``); keeps the training rows' own.
Run: python examples/pyod_conventions.py (with PyOD or without)
"""

import numpy as np
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from skebm.datasets import load_novelty
from skebm.ood import ThresholdDetector

try:
    from pyod.models.base import BaseDetector
except ImportError:  # the part of it that is used here

    class BaseDetector:
        def __init__(self, contamination=0.1):
            self.contamination = contamination

        def _set_n_classes(self, y):
            self._classes = 2

        def _process_decision_scores(self):
            self.threshold_ = np.percentile(self.decision_scores_, 100 * (1 - self.contamination))
            self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)

        def predict(self, X):
            return (self.decision_function(X) > self.threshold_).astype(int)

        def predict_proba(self, X):
            low, high = self.decision_scores_.min(), self.decision_scores_.max()
            novel = np.clip((self.decision_function(X) - low) / (high - low), 0, 1)
            return np.stack([1 - novel, novel], axis=1)[:, : self._classes]


class AsPyOD(BaseDetector):
    def __init__(self, detector, contamination=0.1, own_threshold=False):
        super().__init__(contamination=contamination)
        self.detector, self.own_threshold = detector, own_threshold

    def fit(self, X, y=None):
        self._set_n_classes(y)  # predict_proba needs it
        self.detector_ = clone(self.detector).fit(X)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()  # sets threshold_ and labels_ from contamination
        if self.own_threshold:  # offset_ is where decision_function is 0
            self.threshold_, self.labels_ = 0.0, (self.decision_scores_ > 0).astype(int)
        return self

    def decision_function(self, X):
        return -self.detector_.decision_function(X)


X, X_test, is_novelty = load_novelty("breast_cancer")
density = GaussianMixture(reg_covar=1e-3, random_state=0)
for method in ("training", "held-out"):
    detector = ThresholdDetector(density, method=method, level=0.1, random_state=0).fit(X)
    wrapped = AsPyOD(detector, contamination=0.1, own_threshold=method == "held-out").fit(X)
    labels = wrapped.predict(X_test)
    rates = [f"{labels[rows].mean():.2f}" for rows in (is_novelty, ~is_novelty)]
    print(f"{method:9s} flagged: {rates[0]} of novelties, {rates[1]} of normal rows")
    order = np.argsort(wrapped.decision_function(X_test), kind="stable")
    assert (np.diff(detector.score_samples(X_test)[order]) <= 0).all()  # one ranking, reversed
    assert (labels == (detector.predict(X_test) == -1)).all()
    proba = wrapped.predict_proba(X_test)
    assert proba.shape == (len(X_test), 2) and np.allclose(proba.sum(axis=1), 1)
    assert (np.diff(proba[order, 1]) >= 0).all()
    assert (wrapped.labels_ == (detector.predict(X) == -1)).all()
