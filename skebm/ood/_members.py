"""What detectors by neighbors share: standardized columns, blocks, a threshold on unseen rows."""

from __future__ import annotations

__all__ = ["LocalDetector", "judged_rows"]

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skebm._components import check_number
from skebm._surroundings import own_settings
from skebm._tables import naming_columns
from skebm.estimators._files import Saved
from skebm.ood._base import atomic
from skebm.ood._quantiles import lower_quantile, warn_if_few
from skebm.ood._splits import own_random_state

MOST_ROWS = 20_000  # that are kept
MOST_JUDGED = 1200  # rows that are scored without themselves
BLOCK_VALUES = 2**22  # distances at a time: 32 MiB


class LocalDetector(OutlierMixin, Saved):
    """Abstract detector that scores a row by the training rows near it.

    Columns are shifted and scaled to standard deviation 1, constant ones left out. Of more than
    20,000 rows so many are kept, at random.
    """

    alpha: float
    random_state: Any
    offset_: float
    scores_are_log_densities = False

    @atomic
    def fit(self, X: Any, y: Any = None) -> Self:
        """Keep the rows, and choose the threshold on rows that are scored without themselves.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Normal rows, finite numbers.
        y : None
            Ignored, labels too.

        Returns
        -------
        self : object
            The fitted detector.
        """
        check_number("alpha", self.alpha, low=0, high=0.5, open_low=True)
        X = self._table(X, reset=True)
        random = own_random_state(self.random_state)
        if len(X) > MOST_ROWS:
            X = X[random.permutation(len(X))[:MOST_ROWS]]
        self.learn(X, judged_rows(len(X), random))
        warn_if_few(len(self.unseen_scores_), "alpha", self.alpha)
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Return how near the training rows each row is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            At most 0, higher for more normal rows.
        """
        check_is_fitted(self, "offset_")
        return self.scores_of(self._table(X, reset=False))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return ``score_samples(X) - offset_``: at least 0 for inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Units of ``score_samples``.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Return +1 for inliers and -1 for novelties.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of int of shape (n_samples,)
            +1 where ``decision_function`` is at least 0.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def learn(self, X: np.ndarray, judged: np.ndarray) -> None:
        """Keep rows, and choose the threshold on some of them.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
            Rows, checked.
        judged : ndarray of int of shape (m,)
            Numbers of those that are scored without themselves.
        """
        self._check()
        mean, largest = X.mean(0), np.abs(X).max(0)
        std = (X - mean).std(0)
        self.location_, self.scale_ = mean, np.where(std > 1e-12 * largest, std, np.inf)
        with own_settings():
            self._keep(self._standardized(X))
        self.unseen_scores_ = self.scores_of(X[judged], judged)
        self.offset_ = lower_quantile(self.unseen_scores_, self.alpha)

    def scores_of(self, X: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of rows that are checked.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
            Rows.
        own : ndarray of int of shape (n,), optional
            Their numbers among the rows that are kept, for those that are: each is left out for
            itself.

        Returns
        -------
        ndarray of shape (n,)
            At most 0.
        """
        z, out = self._standardized(X), np.empty(len(X))
        size = max(1, BLOCK_VALUES // len(self.rows_))
        with own_settings(), torch.no_grad():
            for start in range(0, len(X), size):
                block = slice(start, start + size)
                out[block] = self._far(z[block], None if own is None else own[block])
        return np.negative(out, out=out)

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        varies = np.isfinite(self.scale_)
        if not varies.any():
            return np.zeros((len(X), 1))
        return (X[:, varies] - self.location_[varies]) / self.scale_[varies]

    def _table(self, X, *, reset: bool) -> np.ndarray:
        with naming_columns(X):
            return validate_data(
                self, X, dtype=np.float64, reset=reset, ensure_min_samples=2 if reset else 1
            )

    @abstractmethod
    def _check(self) -> None:
        """Check the parameters."""

    @abstractmethod
    def _keep(self, z: np.ndarray) -> None:
        """Keep standardized rows (n, d), as ``rows_``."""

    @abstractmethod
    def _far(self, z: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        """Return how far standardized rows (m, d) are, (m,), at least 0."""


def judged_rows(n: int, random: np.random.RandomState) -> np.ndarray:
    """Return the numbers of at most 1,200 of n rows, in order."""
    return np.sort(random.permutation(n)[:MOST_JUDGED])


def distances(a: torch.Tensor, b: torch.Tensor, own: np.ndarray | None) -> torch.Tensor:
    """Return the distances (m, n) of rows; infinite from each to itself where `own` says which."""
    found = torch.cdist(a, b)
    if own is not None:
        found[torch.arange(len(a)), torch.from_numpy(own)] = torch.inf
    return found
