"""Densities of tables with codes that people could use instead, in the units of skebm's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import multivariate_normal
from sklearn.ensemble import RandomForestClassifier

from skebm.data import Marginal, Schema

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._peers import BestMixture

JITTERS, CLIP, TREES, LEAF, ROUNDS, PSEUDO = 8, 1e-6, 30, 5, 5, 0.1


class Peer:
    """A density of encoded rows; numbers that do not exist are drawn, their density taken off."""

    def __init__(self, schema: Schema, seed: int) -> None:
        self.schema, self.rng, self.k = schema, np.random.RandomState(seed), schema.n_numbers

    def spread(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows spread over cells, and the log density (n,) of what was drawn for them."""
        out, drawn = self.schema.spread(X, self.rng), np.zeros(len(X))
        for i, j, a in self.schema.absent:
            at = np.flatnonzero(X[:, self.k + j] < a)
            z = self.rng.normal(size=len(at))
            mean, sd = self.moments[:, i] if hasattr(self, "moments") else (0.0, 1.0)
            out[at, i] = mean + sd * z
            drawn[at] += -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - np.log(sd)
        return out, drawn

    def fit(self, X: np.ndarray) -> Peer:
        there = self.schema.spread(X, self.rng)[:, : self.k]
        self.moments = np.array([there.mean(0), there.std(0) + 1e-9]) if self.k else np.ones((2, 0))
        self.learn(self.spread(X)[0])
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Log density, a mean over points of the cells."""
        parts = []
        for _ in range(JITTERS):
            rows, drawn = self.spread(X)
            parts.append(self.log_density(rows) - drawn)
        return logsumexp(parts, axis=0) - np.log(JITTERS)


class Independent(Peer):
    """Columns by themselves: splines of the numbers, smoothed frequencies of the codes."""

    def learn(self, X: np.ndarray) -> None:
        self.marginal = Marginal.from_table(X[:, : self.k]) if self.k else None
        self.log_tables = [
            np.log((np.bincount(c.astype(int), minlength=n) + 0.5) / (len(c) + 0.5 * n))
            for c, n in zip(X[:, self.k :].T, self.schema.n_levels, strict=True)
        ]

    def log_density(self, X: np.ndarray) -> np.ndarray:
        out = np.zeros(len(X))
        if self.marginal is not None:
            u, slope = self.marginal.forward_and_log_slope(X[:, : self.k])
            out += slope - 0.5 * (u.numpy() ** 2 + np.log(2 * np.pi)).sum(1)
        for c, table in zip(X[:, self.k :].T, self.log_tables, strict=True):
            out += table[c.astype(int)]
        return out


class Copula(Independent):
    """A Gaussian copula over these columns, codes spread over their part of the unit interval."""

    def learn(self, X: np.ndarray) -> None:
        super().learn(X)
        u = np.concatenate([self.normal(X) for _ in range(JITTERS)])
        self.correlation = 0.999 * np.corrcoef(u.T) + 0.001 * np.eye(u.shape[1])

    def normal(self, X: np.ndarray) -> np.ndarray:
        parts = []
        if self.marginal is not None:
            parts.append(self.marginal.forward(X[:, : self.k]).double().numpy())
        for c, table in zip(X[:, self.k :].T, self.log_tables, strict=True):
            ends = np.r_[0, np.exp(table).cumsum()]
            low, high = ends[c.astype(int)], ends[c.astype(int) + 1]
            at = low + (high - low) * self.rng.uniform(size=len(c))
            parts.append(ndtri(at.clip(CLIP, 1 - CLIP))[:, None])
        return np.concatenate(parts, axis=1)

    def log_density(self, X: np.ndarray) -> np.ndarray:
        u = self.normal(X)
        joint = multivariate_normal(np.zeros(u.shape[1]), self.correlation).logpdf(u)
        alone = -0.5 * (u**2 + np.log(2 * np.pi)).sum(1)
        return super().log_density(X) + joint - alone


class Jittered(Peer):
    """scikit-learn's mixture, chosen by held-out rows, on codes spread over unit intervals."""

    def rows(self, X: np.ndarray) -> np.ndarray:
        out = X.copy()
        out[:, self.k :] += self.rng.uniform(size=out[:, self.k :].shape)
        return (out - self.center) / self.scale

    def learn(self, X: np.ndarray) -> None:
        self.center, self.scale = X.mean(0), X.std(0) + 1e-9
        self.scale[self.k :] = 1.0
        self.model = BestMixture("held-out").fit(self.rows(X))

    def log_density(self, X: np.ndarray) -> np.ndarray:
        return self.model.score_samples(self.rows(X)) - np.log(self.scale).sum()


class Forest(Peer):
    """Leaves of an adversarial random forest: independent columns within each, truncated normals.

    The idea of Watson, Blesch, Kapar and Wright (AISTATS 2023), not their code: forests tell rows
    from rows whose columns were shuffled within the leaves of the last one, until they cannot.
    """

    def learn(self, X: np.ndarray) -> None:
        shuffled = np.stack([self.rng.permutation(c) for c in X.T], axis=1)
        for _ in range(ROUNDS):
            forest = RandomForestClassifier(
                TREES, min_samples_leaf=LEAF, oob_score=True, random_state=self.rng
            )
            y = np.arange(2 * len(X)) < len(X)
            forest.fit(np.concatenate([X, shuffled]), y)
            if forest.oob_score_ <= 0.5:
                break
            leaves = forest.apply(X)
            tree = self.rng.randint(TREES, size=len(X))
            own = leaves[np.arange(len(X)), tree]
            shuffled = np.empty_like(X)
            for i, (t, leaf) in enumerate(zip(tree, own, strict=True)):
                inside = np.flatnonzero(leaves[:, t] == leaf)
                shuffled[i] = X[self.rng.choice(inside, X.shape[1]), np.arange(X.shape[1])]
        self.forest, self.X, self.leaves = forest, X, forest.apply(X)
        self.low, self.high = X.min(0), X.max(0)

    def log_density(self, X: np.ndarray) -> np.ndarray:
        """Mean over the trees of the leaf's share times the density within it."""
        leaves = self.forest.apply(X)
        values = np.full((TREES, len(X)), -np.inf)
        for t in range(TREES):
            bounds = self._bounds(self.forest.estimators_[t].tree_)
            for leaf in np.unique(leaves[:, t]):
                some, inside = leaves[:, t] == leaf, self.leaves[:, t] == leaf
                if inside.any():
                    values[t, some] = np.log(inside.mean()) + self._inside(
                        X[some], self.X[inside], *bounds[leaf]
                    )
        # a row beyond every leaf's support gets the least that a row can have
        return logsumexp(values, axis=0) - np.log(TREES)

    def _inside(
        self, X: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        out = np.zeros(len(X))
        for j in range(self.k):
            mean, sd = rows[:, j].mean(), max(rows[:, j].std(), 1e-3 * self.moments[1, j])
            a, b = ((end - mean) / sd for end in (low[j], high[j]))
            inside = ndtr(b) - ndtr(a) if a < 0 else ndtr(-a) - ndtr(-b)
            z = (X[:, j] - mean) / sd
            out += -0.5 * z**2 - np.log(sd * np.sqrt(2 * np.pi) * max(inside, 1e-300))
        for j, n in enumerate(self.schema.n_levels, self.k):
            counts = np.bincount(rows[:, j].astype(int), minlength=n) + PSEUDO
            out += np.log(counts / counts.sum())[X[:, j].astype(int)]
        return out

    def _bounds(self, tree) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return the box of each leaf; the outer ones go on without end."""
        d, found = self.X.shape[1], {}
        stack = [(0, np.full(d, -np.inf), np.full(d, np.inf))]
        while stack:
            node, low, high = stack.pop()
            left, right = tree.children_left[node], tree.children_right[node]
            if left < 0:
                found[node] = low, high
                continue
            j, at = tree.feature[node], tree.threshold[node]
            inner = high.copy(), low.copy()
            inner[0][j], inner[1][j] = at, at
            stack += [(left, low, inner[0]), (right, inner[1], high)]
        return found


PEERS = {
    "independent": Independent,
    "copula": Copula,
    "mixture": Jittered,
    "forest": Forest,
}
