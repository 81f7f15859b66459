"""Mixture of numbers and codes: Gaussians times independent categories in each component."""

from __future__ import annotations

__all__ = ["MixedBase", "MixedMixture"]

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from skebm.bases._base import Base, BaseComponent
from skebm.bases._conditional import TAIL_DOF, Codes, Components, Tails
from skebm.bases._far import far_rows
from skebm.bases.mixture import MOST_ROWS, Mixture, repeat_by_weight

SIZES = (1, 2, 3, 5, 8, 12, 18, 27)
ROWS_PER_COMPONENT, PATIENCE = 8, 2  # fewest; sizes without gain before the scan stops
N_STEPS, FEWEST_STEPS, ROUGH, FINE = 200, 5, 1e-3, 1e-4  # of EM; nats of gain that end it
LEAST_GAIN = 0.005  # held-out nats that a component has to bring
HELD_OUT_FROM = ((1000, 1), (0, 3))  # rows, folds of a quarter that choose
SMOOTHING = 1.0  # rows that a component's tables are worth beforehand
SHRINKAGE, LEAST_VARIANCE = 0.5, 1e-6  # rows per column that say what the average spread is
LEAST_SHARE, MOST_SHARE = 1e-3, 1e-2  # of the tails


class Shape(NamedTuple):
    """Of a mixture: log weights (k,), means (k, d), covariances (k, d, d), tables (k, L)."""

    log_weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    tables: np.ndarray


class Rows(NamedTuple):
    """Numbers (n, d), which of them are absent, and a column for each level (n, L)."""

    z: np.ndarray
    absent: np.ndarray
    hot: np.ndarray

    def take(self, some: np.ndarray) -> Rows:
        """Return some of them."""
        return Rows(self.z[some], self.absent[some], self.hot[some])


class MixedMixture(BaseComponent):
    r"""Mixture whose components are a Gaussian of the numbers times tables of the codes.

    .. math:: p_0(z, c) = \sum_k \pi_k N(z; \mu_k, \Sigma_k) \prod_j \theta_{kj}[c_j]

    Fitted by EM. Where a code says that a number does not exist, the component is that of the other
    numbers. Tables are drawn toward the overall frequencies by one row, covariances toward the
    average within-component variances by half a row for each column.

    Parameters
    ----------
    mixture : Mixture
        Its ``n_components``, ``max_components``, ``max_selection_rows`` and ``n_folds``.
    n_levels : tuple of int
        Of the codes, which are the last columns.
    absent : tuple of (int, int, int), default=()
        Number i does not exist where code j is below a.

    Notes
    -----
    Has marginals, conditionals and draws in closed form, but no gradient.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Mixture
    >>> from skebm.bases.mixed import MixedMixture
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.cat([torch.randn(200, 1, generator=rng), torch.arange(200.0)[:, None] % 2], 1)
    >>> base = MixedMixture(Mixture(2), (2,)).fit(x, None, rng)
    >>> base.log_prob(x[:3]).shape
    torch.Size([3])
    """

    def __init__(self, mixture: Mixture, n_levels: tuple = (), absent: tuple = ()) -> None:
        self.mixture = mixture
        self.n_levels = n_levels
        self.absent = absent

    def fit(self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator) -> MixedBase:
        """Fit to standardized rows (n, d); up to 2 % of them are left to the tails."""
        far, lost = far_rows(x[:, : x.shape[1] - len(self.n_levels)], weight)
        x, weight = x[~far], None if weight is None else weight[~far]
        repeated = repeat_by_weight(x, weight, rng).double().cpu()
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        random = np.random.RandomState(seed)
        rows = self._rows(repeated)
        k = self._size(rows, random)
        if len(rows.z) > MOST_ROWS:
            rows = rows.take(random.permutation(len(rows.z))[:MOST_ROWS])
        n_folds = self.mixture.n_folds if k > 1 and len(rows.z) >= 2 * self.mixture.n_folds else 1
        fold = random.permutation(len(rows.z)) % n_folds
        parts = [np.flatnonzero((fold != i) | (n_folds == 1)) for i in range(n_folds)]
        shapes = [fitted(rows.take(part), k, self._tables(), random, FINE) for part in parts]
        share = lost + min(max(1 / (len(rows.z) + 1), LEAST_SHARE), MOST_SHARE)
        return self._base(shapes, rows, share).to(x.device)

    def _rows(self, x: torch.Tensor) -> Rows:
        d = x.shape[1] - len(self.n_levels)
        codes = Codes(torch.empty(0), torch.empty(0), self.n_levels, self.absent)
        code = x[:, d:].long().numpy()
        hot = [code[:, [j]] == np.arange(n) for j, n in enumerate(self.n_levels)]
        return Rows(x[:, :d].numpy(), codes.is_absent(x, d).numpy(), np.concatenate(hot, 1) * 1.0)

    def _tables(self) -> list[slice]:
        ends = np.cumsum([0, *self.n_levels])
        return [slice(a, b) for a, b in itertools.pairwise(ends.tolist())]

    def _size(self, rows: Rows, random: np.random.RandomState) -> int:
        """Return the number of components that is likeliest on held-out rows."""
        n = len(rows.z)
        if self.mixture.n_components != "auto":
            return max(1, min(int(self.mixture.n_components), n // 2))
        order = random.permutation(n)[: self.mixture.max_selection_rows]
        n_folds = next(folds for least, folds in HELD_OUT_FROM if len(order) >= least)
        best, size, losses = -math.inf, 1, 0
        for k in SIZES:
            if k * ROWS_PER_COMPONENT > n or k > self.mixture.max_components or losses == PATIENCE:
                break
            value = 0.0
            for i in range(n_folds):
                out = np.arange(len(order)) % 4 == i
                shape = fitted(rows.take(order[~out]), k, self._tables(), random, ROUGH)
                joint = expected(rows.take(order[out]), shape)[0]
                value += logsumexp(joint, axis=1).mean() / n_folds
            losses += 1
            if value > best + LEAST_GAIN * (k - size):
                best, size, losses = value, k, 0
        return size

    def _base(self, shapes: list[Shape], rows: Rows, share: float) -> MixedBase:
        """Return the mean density of mixtures, with tails as wide as the rows under it."""
        log_weights, means, covariances, tables = map(np.concatenate, zip(*shapes, strict=True))
        d = means.shape[1]
        lower = np.linalg.cholesky(covariances)
        identity = np.eye(d)
        factors = [solve_triangular(part, identity, lower=True).T for part in lower] if d else []
        there = ~rows.absent
        count = there.sum(0).clip(min=1)
        location = np.where(there, rows.z, 0).sum(0) / count
        spread = np.where(there, (rows.z - location) ** 2, 0).sum(0) / count
        overall = rows.hot.mean(0)
        tail = [(overall[t] + 1 / (t.stop - t.start)) / 2 for t in self._tables()]
        return MixedBase(
            torch.from_numpy(log_weights - math.log(len(shapes)) + math.log1p(-share)),
            torch.from_numpy(means),
            torch.from_numpy(np.array(factors).reshape(len(means), d, d)),
            torch.from_numpy(np.log(tables)),
            torch.tensor(math.log(share), dtype=torch.float64),
            torch.from_numpy(location),
            torch.from_numpy(np.sqrt(np.where(spread > 0, spread, 1.0))),
            torch.from_numpy(np.log(np.concatenate(tail))),
            torch.tensor(self.n_levels),
            torch.tensor(self.absent, dtype=torch.long).reshape(-1, 3),
        )


class MixedBase(Base):
    """Fitted mixture of numbers and codes with heavy tails under it, in double precision.

    Parameters
    ----------
    log_weights, means, factors : Tensor of shape (k,), (k, d) and (k, d, d)
        Of the Gaussians, as in `Components`.
    log_tables : Tensor of shape (k, L)
        Log probabilities of the levels.
    log_tail_share, tail_location, tail_scale, log_tail : Tensor of shape (), (d,), (d,) and (L,)
        Of the tails: Student's t of the numbers, halfway to even probabilities of the codes.
    n_levels : Tensor of int of shape (c,)
        Of the codes.
    absent : Tensor of int of shape (m, 3)
        Number i does not exist where code j is below a.
    """

    has_gradient = False
    means: torch.Tensor
    _nominal: torch.Tensor
    _derived = ("_components",)

    def __init__(
        self,
        log_weights: torch.Tensor,
        means: torch.Tensor,
        factors: torch.Tensor,
        log_tables: torch.Tensor,
        log_tail_share: torch.Tensor,
        tail_location: torch.Tensor,
        tail_scale: torch.Tensor,
        log_tail: torch.Tensor,
        n_levels: torch.Tensor,
        absent: torch.Tensor,
    ) -> None:
        super().__init__()
        tensors = {name: value for name, value in locals().items() if torch.is_tensor(value)}
        for name, value in tensors.items():
            self.register_buffer(name, value)
        # what is drawn is not in double precision unless the model is
        self.register_buffer("_nominal", torch.empty(0), persistent=False)
        self.n_features = means.shape[1] + len(n_levels)
        self._derive()

    def _derive(self) -> None:
        self._components: Components | None = None

    def components(self) -> Components:
        """Return its components."""
        if self._components is None:
            b: dict[str, Any] = {
                n: t.double().cpu() if t.is_floating_point() else t.cpu()
                for n, t in self.named_buffers()
            }
            absent = tuple((int(i), int(j), int(a)) for i, j, a in b["absent"])
            codes = Codes(b["log_tables"], b["log_tail"], tuple(b["n_levels"].tolist()), absent)
            tails = Tails(b["log_tail_share"], b["tail_location"], b["tail_scale"])
            parts = (b["log_weights"], b["means"], b["factors"])
            self._components = Components(*parts, tails, codes)
        return self._components

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return self.components().log_prob(x.detach().cpu().double()).to(x)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Refuse: codes have no gradient.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("base must have a gradient here, got one of codes. Leave out code columns.")

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) exact, independent rows; numbers that do not exist are 0."""
        nothing = self.components().hiding(torch.ones(self.n_features, dtype=torch.bool))
        device, d = rng.device, self.n_features
        u = torch.rand(n, 1, generator=rng, device=device, dtype=torch.float64).cpu()
        noise = torch.empty(n, 1, d, 1 + TAIL_DOF, dtype=torch.float64, device=device)
        noise = noise.normal_(generator=rng).cpu()
        x = nothing.draw(noise.new_empty(n, 0), u, noise[..., 0], noise[..., 1:].square().sum(3))[
            :, 0
        ]
        codes = self.components().codes
        assert codes is not None
        k = self.means.shape[1]
        x[:, :k][codes.is_absent(x, k)] = 0.0
        return x.to(device, self._nominal.dtype)


def fitted(
    rows: Rows, k: int, tables: list[slice], random: np.random.RandomState, tol: float
) -> Shape:
    """Return a mixture of k components, of fewer different rows as many, by EM from k-means."""
    n, d = rows.z.shape
    overall = rows.hot.mean(0)
    for t in tables:  # half a row spread over the levels
        overall[t] = (overall[t] * n + 0.5 / (t.stop - t.start)) / (n + 0.5)
    share = np.ones((n, 1))
    start = np.hstack([np.where(rows.absent, 0, rows.z), rows.hot - overall])
    k = k if k == 1 else min(k, len(np.unique(start, axis=0)))
    if k > 1:
        from sklearn.cluster import KMeans  # slow to import

        seed = int(random.randint(2**31 - 1))
        label = KMeans(k, n_init=1, random_state=seed).fit_predict(start)
        share = 0.9 * np.eye(k)[label] + 0.1 / k
    filled = np.repeat(np.where(rows.absent, 0, rows.z)[:, None], k, axis=1)
    extra = np.einsum("nk,nd->kd", share, rows.absent)[:, :, None] * np.eye(d)
    last = -math.inf
    for step in range(N_STEPS):
        total = share.sum(0) + 1e-9
        means = np.einsum("nk,nkd->kd", share, filled) / total[:, None]
        off = (filled - means) * np.sqrt(share)[:, :, None]
        scatter = np.einsum("nkd,nke->kde", off, off, optimize=True) + extra
        average = np.einsum("kdd->d", scatter) / total.sum() + LEAST_VARIANCE
        prior = SHRINKAGE * (d + 2)
        covariances = (scatter + prior * np.diag(average)) / (total + prior)[:, None, None]
        log_weights = np.log((total + 1) / (total + 1).sum())
        theta = (share.T @ rows.hot + SMOOTHING * overall) / (total + SMOOTHING)[:, None]
        shape = Shape(log_weights, means, covariances, theta)
        joint, filled, extra_of = expected(rows, shape)
        value = logsumexp(joint, axis=1)
        share = np.exp(joint - value[:, None])
        extra = extra_of(share)
        if value.mean() - last < tol and step > FEWEST_STEPS:
            break
        last = value.mean()
    return shape


def expected(rows: Rows, shape: Shape) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return the log joint (n, k), numbers completed by each component, and what adds spread."""
    d, k = rows.z.shape[1], len(shape.means)
    joint = shape.log_weights + rows.hot @ np.log(shape.tables).T
    filled = np.repeat(rows.z[:, None], k, axis=1)
    patterns, at = np.unique(rows.absent, axis=0, return_inverse=True)
    at, left = at.reshape(-1), []
    for i, absent in enumerate(patterns):
        some, given = np.flatnonzero(at == i), ~absent
        covariance = shape.covariances[:, given][:, :, given]
        lower = np.linalg.cholesky(covariance)
        off = (rows.z[some][:, given][None] - shape.means[:, None, given]).transpose(0, 2, 1)
        white = np.linalg.solve(lower, off)  # (k, given, rows)
        log_det = np.log(np.einsum("kdd->kd", lower)).sum(1)
        norm = 0.5 * given.sum() * math.log(2 * math.pi) + log_det
        joint[some] -= (0.5 * np.square(white).sum(1) + norm[:, None]).T
        if absent.any():
            across = shape.covariances[:, given][:, :, absent]
            slope = np.linalg.solve(covariance, across)  # (k, given, absent)
            middle = shape.means[:, None, absent] + off.transpose(0, 2, 1) @ slope
            part = filled[some]
            part[:, :, absent] = middle.transpose(1, 0, 2)
            filled[some] = part
            rest = shape.covariances[:, absent][:, :, absent] - across.transpose(0, 2, 1) @ slope
            left.append((some, absent, rest))

    def extra_of(share: np.ndarray) -> np.ndarray:
        out = np.zeros((k, d, d))
        for some, absent, rest in left:
            where = np.ix_(np.arange(k), absent, absent)
            out[where] += share[some].sum(0)[:, None, None] * rest
        return out

    return joint, filled, extra_of
