"""Detectors and densities that users would pick instead, each with ``score_samples``."""

from __future__ import annotations

__all__ = [
    "BANDWIDTHS",
    "AutoEncoder",
    "BestKernelDensity",
    "BestMixture",
    "Copulas",
    "DiffusionTime",
    "FifthNeighbor",
    "Flow",
    "Outlyingness",
    "is_installed",
]

import copy
import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, train_test_split
from sklearn.neighbors import KernelDensity, NearestNeighbors

BANDWIDTHS = np.logspace(-2, 1, 13)
FEW, MANY = tuple(range(1, 11)), (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30)
MOST_CHOOSING = 2000  # rows that choose a bandwidth
CHECK_EVERY, PATIENCE = 100, 5  # of flows


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class FifthNeighbor(BaseEstimator):
    """Minus the distance to the fifth neighbor among the training rows."""

    def fit(self, X: np.ndarray) -> FifthNeighbor:
        self.neighbors_ = NearestNeighbors(n_neighbors=5).fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return -self.neighbors_.kneighbors(X)[0][:, -1]


class DiffusionTime(BaseEstimator):
    """Minus the mean diffusion time of a row given its neighbors, without a network.

    Livernoche, Jain, Hezaveh and Ravanbakhsh, "On Diffusion Modeling for Anomaly Detection", ICLR
    2024, Eq. 5: given k neighbors at distances r_i the noise that took a row from them to where it
    is has an inverse gamma posterior, whose mean grows with their mean square.
    """

    def __init__(self, n_neighbors: int = 5) -> None:
        self.n_neighbors = n_neighbors

    def fit(self, X: np.ndarray) -> DiffusionTime:
        self.neighbors_ = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(X))).fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        square = self.neighbors_.kneighbors(X)[0] ** 2
        return -square.mean(1) / 2 / max(X.shape[1] / 2 - 1, 0.5)


class BestKernelDensity(BaseEstimator):
    """KernelDensity with the bandwidth that scores best in five-fold cross-validation."""

    def fit(self, X: np.ndarray) -> BestKernelDensity:
        score, rows = np.zeros(len(BANDWIDTHS)), X
        if len(X) > MOST_CHOOSING:
            rows = X[np.random.RandomState(0).permutation(len(X))[:MOST_CHOOSING]]
        for part, rest in KFold(5, shuffle=True, random_state=0).split(rows):
            square = cdist(rows[rest], rows[part], "sqeuclidean")
            for i, h in enumerate(BANDWIDTHS):
                log_sum = logsumexp(-0.5 * square / h**2, axis=1)
                score[i] += (log_sum - np.log(len(part)) - X.shape[1] * np.log(h)).sum()
        best = BANDWIDTHS[score.argmax()]
        self.density_ = KernelDensity(bandwidth=best, rtol=1e-4).fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return self.density_.score_samples(X)


class BestMixture(BaseEstimator):
    """GaussianMixture; components by the Bayesian information criterion, or on a tenth held out."""

    def __init__(self, criterion: str = "bic", random_state: int = 0) -> None:
        self.criterion = criterion
        self.random_state = random_state

    def fit(self, X: np.ndarray) -> BestMixture:
        by_bic, losses, best = self.criterion == "bic", 0, -math.inf
        rows, judges = X, X
        if not by_bic:
            rows, judges = train_test_split(X, test_size=0.1, random_state=self.random_state)
        for k in FEW if by_bic else MANY:
            if k > len(rows) or losses == 3 + (not by_bic):
                break
            mixture = GaussianMixture(
                k, reg_covar=1e-4 if by_bic else 1e-6, random_state=self.random_state
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(rows)
            value = -mixture.bic(X) if by_bic else mixture.score(judges)
            losses = 0 if value > best else losses + 1
            if value > best:
                self.mixture_, best = mixture, value
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return self.mixture_.score_samples(X)


class Outlyingness(BaseEstimator):
    """Any outlier detector of scikit-learn, by its ``decision_function``."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def fit(self, X: np.ndarray) -> Outlyingness:
        self.detector_ = clone(self.detector).fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return self.detector_.decision_function(X)


class Copulas(BaseEstimator):
    """Minus the outlier score of PyOD's ECOD, by the tails of the columns."""

    def fit(self, X: np.ndarray) -> Copulas:
        from pyod.models.ecod import ECOD

        self.detector_ = ECOD().fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return -self.detector_.decision_function(X)


class AutoEncoder(BaseEstimator):
    """Minus PyOD's reconstruction error, at its defaults."""

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def fit(self, X: np.ndarray) -> AutoEncoder:
        from pyod.models.auto_encoder import AutoEncoder as Reconstruction

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.detector_ = Reconstruction(random_state=self.random_state, verbose=0)
            self.detector_.fit(X)
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        return -self.detector_.decision_function(X)


class Flow(BaseEstimator):
    """A normalizing flow of zuko, stopped early on a tenth of the rows; float32."""

    def __init__(self, kind: str = "MAF", max_iter: int = 2000, random_state: int = 0) -> None:
        self.kind = kind
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: np.ndarray) -> Flow:
        import zuko

        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            n_columns = X.shape[1]
            kinds = {"MAF": zuko.flows.MAF, "NSF": zuko.flows.NSF}
            self.flow_ = kinds[self.kind](n_columns, transforms=3, hidden_features=(64, 64))
            parts = train_test_split(X, test_size=0.1, random_state=self.random_state)
            rows, judges = (torch.from_numpy(part).float() for part in parts)
            self._descend(rows, judges)
        return self

    def _descend(self, rows: torch.Tensor, judges: torch.Tensor) -> None:
        optimizer = torch.optim.Adam(self.flow_.parameters(), lr=1e-3)
        best, waited, kept = -math.inf, 0, copy.deepcopy(self.flow_.state_dict())
        for update in range(1, self.max_iter + 1):
            batch = rows[torch.randint(len(rows), (256,))]
            optimizer.zero_grad()
            (-self.flow_().log_prob(batch).mean()).backward()
            torch.nn.utils.clip_grad_norm_(self.flow_.parameters(), 100.0)
            optimizer.step()
            if update % CHECK_EVERY:
                continue
            with torch.no_grad():
                value = float(self.flow_().log_prob(judges).mean())
            waited = 0 if value > best else waited + 1
            if value > best:
                best, kept = value, copy.deepcopy(self.flow_.state_dict())
            if waited == PATIENCE:
                break
        self.flow_.load_state_dict(kept)

    @torch.no_grad()
    def score_samples(self, X: np.ndarray) -> np.ndarray:
        blocks = torch.from_numpy(X).float().split(4096)
        score = torch.cat([self.flow_().log_prob(block) for block in blocks]).double()
        return torch.nan_to_num(score, nan=-1e30, neginf=-1e30).numpy()
