"""Gaussian mixture base, fitted by scikit-learn, evaluated and differentiated in torch."""

from __future__ import annotations

__all__ = ["Mixture", "MixtureBase", "repeat_by_weight"]

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skebm._components import check_number
from skebm.bases._base import LEAST, Base, BaseComponent, log_sum_exp
from skebm.data import copy_groups, spacing, systematic_rows
from skebm.exceptions import DataDegeneracyWarning

CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 44, 52, 64)
SHRINKAGES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
LEAST_GAIN = 0.01  # held-out nats that a component has to bring: below, the energy does better
N_TRIED, N_FINAL = 2, 3  # starts in the scan and of the last fit: one in four may end badly
HALF = 0.5  # of a row: responsibilities are not whole
PULLED, EMPTY = 3.0, 1e-6  # standard deviations; share of all rows in each cluster of the start
PATIENCE = 3  # candidates without gain before the scan stops
FEWEST_ROWS = 20  # below: half shrunk, one component by "auto"; there is nothing to select on
LARGEST_FLOOR, SMALLEST_FLOOR = 1e-8, 1e-14  # of variances, standardized units squared
RESOLVED, RESOLVED_OF_COPIES = 1e-3, 0.1  # smallest width, of the distance of neighbors
LARGEST_FLOOR_TRIED = 1e-3  # where components lose rank
AT_THE_FLOOR, MUCH = 2.0, 0.1  # times the floor; share of the mass that is worth a warning
N_FOLDS, LEAST_LEFT, TINY = 5, 0.05, 1e-300  # of what is left of a variance without a fold
SHARP = 1e3  # inverse of a width below which float32 is too coarse


class Mixture(BaseComponent):
    r"""Mixture of Gaussians with full, shrunk covariances.

    scikit-learn's ``GaussianMixture`` is fitted for a growing number of components; each candidate
    is shrunk, :math:`\Sigma_k \leftarrow (1 - a) \Sigma_k + a\, \mathrm{diag}(\bar\Sigma)` with
    :math:`\bar\Sigma` the average within-component covariance, and the pair of component number and
    a with the best held-out likelihood is refitted on all rows, the best of three starts (two in
    the scan).

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        A fixed number (at most half the rows), or a scan up to `max_components` that stops after
        three candidates without a gain of 0.01 nats per component.
    max_components : int, default=30
        Upper end of the scan; also bounded by rows / (columns + 1).
    max_selection_rows : int, default=4000
        Rows used for selection; the final fit sees all rows.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    Notes
    -----
    Density and score of n rows take ``4 n k d^2`` floating-point operations in two matrix products,
    without a Python loop over components. Weighted rows are repeated in proportion to their weights
    (systematic resampling), because scikit-learn's mixture takes none.

    References
    ----------
    .. [1] C. Bishop, "Pattern Recognition and Machine Learning", 2006. Section 9.2.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Mixture
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randn(300, 2, generator=rng)
    >>> base = Mixture(n_components=2).fit(x, None, rng)
    >>> base.means.shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        n_components: int | str = "auto",
        max_components: int = 30,
        max_selection_rows: int = 4000,
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.max_selection_rows = max_selection_rows

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> MixtureBase:
        """Fit to standardized rows (n, d)."""
        if self.n_components != "auto":
            check_number("n_components", self.n_components, low=1, integer=True)
        check_number("max_components", self.max_components, low=1, integer=True)
        check_number("max_selection_rows", self.max_selection_rows, low=2, integer=True)
        rows = repeat_by_weight(x, weight, rng).double().cpu().numpy()
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        random_state = np.random.RandomState(seed)
        floor = _floor(rows)
        n_components, shrinkage = self._select(rows, floor, random_state)
        moments = _fit_moments(rows, n_components, floor, random_state, N_FINAL)
        base = MixtureBase.from_moments(*_shrink(*moments, shrinkage), x.device, floor=floor)
        base.floor = floor
        return base

    def _select(
        self, rows: np.ndarray, floor: float, random_state: np.random.RandomState
    ) -> tuple[int, float]:
        n, d = rows.shape
        if n < FEWEST_ROWS:
            return 1 if self.n_components == "auto" else min(int(self.n_components), n // 2), 0.5
        if self.n_components == "auto":
            most = min(self.max_components, max(1, n // (d + 1)))
            candidates = [k for k in CANDIDATES if k <= most]
        else:
            candidates = [min(int(self.n_components), n // 2)]
        folds = _folds(rows, self.max_selection_rows, random_state)
        best, best_value, losses = (candidates[0], 0.5), -math.inf, 0
        for k in candidates:
            values = np.mean(
                [_held_out(rows, fold, k, floor, random_state) for fold in folds], axis=0
            )
            if values.max() > best_value + LEAST_GAIN * (k - best[0]):
                best, best_value = (k, SHRINKAGES[int(values.argmax())]), values.max()
                losses = 0
            else:
                losses += 1
            if losses == PATIENCE:
                break
        return best


def _floor(rows: np.ndarray) -> float:
    """Return the least variance of a component: far below the distance of neighbors.

    Copies make components of no width likely, so that the floor is higher with them.
    """
    resolved = RESOLVED if copy_groups(rows) is None else RESOLVED_OF_COPIES
    return float(np.clip((resolved * spacing(rows)) ** 2, SMALLEST_FLOOR, LARGEST_FLOOR))


def _folds(rows: np.ndarray, most: int, random_state: np.random.RandomState) -> list[tuple]:
    """One 75/25 split where rows abound, else four folds of all rows; copies stay together."""
    order = random_state.permutation(len(rows))[:most]
    group = copy_groups(rows[order])
    if group is None or group.max() < FEWEST_ROWS:  # of so few different ones none can be spared
        parts = np.array_split(order, 4)
    else:
        parts = [order[group % 4 == i] for i in range(4)]
    pairs = [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(4)]
    return pairs[:1] if len(order) >= 1000 else pairs


def _held_out(
    rows: np.ndarray, fold: tuple, k: int, floor: float, random_state: np.random.RandomState
) -> np.ndarray:
    """Mean held-out log density for each shrinkage."""
    train, test = (rows[part] for part in fold)
    moments = _fit_moments(train, min(k, len(train)), floor, random_state, N_TRIED)
    x = torch.from_numpy(test)
    tried = [
        MixtureBase.from_moments(*_shrink(*moments, a), "cpu", torch.float64, floor=floor)
        for a in SHRINKAGES
    ]
    return np.array([mixture.log_prob(x).mean() for mixture in tried])


def _fit_moments(
    rows: np.ndarray, k: int, floor: float, random_state: np.random.RandomState, n_init: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, means and covariances of the best of several fits."""
    fits = [_fit_mixture(rows, k, floor, random_state) for _ in range(n_init if k > 1 else 1)]
    best = max(fits, key=lambda mixture: mixture.lower_bound_)
    return best.weights_, best.means_, _without_spikes(best, *rows.shape)


def _without_spikes(mixture: GaussianMixture, n: int, d: int) -> np.ndarray:
    """Return the covariances; components of no more rows than d have that of all the others."""
    few = mixture.weights_ * n < d + 1 + HALF
    if not few.any() or few.all():
        return mixture.covariances_
    share = mixture.weights_ * ~few
    pooled = np.einsum("k,kij->ij", share / share.sum(), mixture.covariances_)
    return np.where(few[:, None, None], pooled, mixture.covariances_)


def _fit_mixture(
    rows: np.ndarray, k: int, floor: float, random_state: np.random.RandomState
) -> GaussianMixture:
    highest = max(LARGEST_FLOOR_TRIED, rows.var(axis=0).max())
    with warnings.catch_warnings():
        # an unfinished EM, or k-means on copied rows, still gives a density to judge
        warnings.simplefilter("ignore", ConvergenceWarning)
        while True:
            start = _start(rows, k, floor, random_state)
            mixture = GaussianMixture(k, reg_covar=floor, random_state=random_state, **start)
            try:
                return mixture.fit(rows)
            except ValueError:  # a component's covariance lost rank
                if floor >= highest:
                    raise
                floor *= 100


def _start(
    rows: np.ndarray, k: int, floor: float, random_state: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Return where EM starts: at k-means of rows pulled in, or a few far ones take the centers."""
    if k == 1:
        return {}
    std = rows.std(axis=0)
    near = ((rows - rows.mean(axis=0)) / np.where(std > 0, std, 1)).clip(-PULLED, PULLED)
    labels = KMeans(k, n_init=1, random_state=random_state).fit_predict(near)
    share = np.eye(k)[labels] + EMPTY  # a cluster without rows starts as all of them
    total = share.sum(axis=0)
    means = share.T @ rows / total[:, None]
    precisions = np.empty((k, rows.shape[1], rows.shape[1]))
    for i in range(k):
        centered = rows - means[i]
        values, vectors = np.linalg.eigh((share[:, i] * centered.T) @ centered / total[i])
        values = (values + floor).clip(min=max(floor, 1e-12 * values[-1]))
        precisions[i] = (vectors / values) @ vectors.T
    weights = total / total.sum()
    return {"weights_init": weights, "means_init": means, "precisions_init": precisions}


def _shrink(
    weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, shrinkage: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    target = np.diag(np.einsum("k,kjj->j", weights, covariances))
    return weights, means, (1 - shrinkage) * covariances + shrinkage * target


def repeat_by_weight(
    x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
) -> torch.Tensor:
    """Return n rows, each repeated in proportion to its weight (systematic resampling)."""
    if weight is None:
        return x
    return x[systematic_rows(weight, len(x), rng)]


class Moments(NamedTuple):
    """Of rows that components share: weight (k,), mean (k, d) and covariance (k, d, d)."""

    weight: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor


def _moments(y: torch.Tensor, share: torch.Tensor) -> Moments:
    """Return the moments of rows (n, k, d), each component's by its share (n, k) of them."""
    total = share.sum(0).clamp(min=TINY)
    mean = torch.einsum("nk,nkd->kd", share, y) / total[:, None]
    centered = y - mean
    covariance = torch.einsum("nk,nkd,nke->kde", share, centered, centered) / total[:, None, None]
    return Moments(total / total.sum(), mean, covariance)


class MixtureBase(Base):
    """Fitted mixture: ``log_weights`` (k,), ``means`` (k, d), ``factors`` (k, d, d).

    ``factors[k]`` is the upper triangular L with ``inverse(covariance) = L @ L.T``.
    """

    floor = LARGEST_FLOOR  # the least variance that a fit could give a component
    log_weights: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor

    def __init__(
        self, log_weights: torch.Tensor, means: torch.Tensor, factors: torch.Tensor
    ) -> None:
        super().__init__()
        self.n_features = means.shape[1]
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("means", means)
        self.register_buffer("factors", factors)
        self._derive()

    def _derive(self) -> None:
        """Lay the factors out so that one matrix product whitens for every component."""
        k, d = self.means.shape
        self._wide = self.factors.permute(1, 0, 2).reshape(d, k * d).contiguous()
        self._shift = torch.einsum("kj,kjl->kl", self.means, self.factors).reshape(-1)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._constant = self.log_weights + log_det - 0.5 * d * math.log(2 * math.pi)

    @classmethod
    def from_moments(
        cls,
        weights: np.ndarray,
        means: np.ndarray,
        covariances: np.ndarray,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        *,
        floor: float = LARGEST_FLOOR,
    ) -> MixtureBase:
        """Build from weights (k,), means (k, d), covariances (k, d, d) and their least variance."""
        lower = torch.linalg.cholesky(_regular(torch.from_numpy(covariances), floor))
        identity = torch.eye(means.shape[1], dtype=torch.float64).expand_as(lower)
        factors = torch.linalg.solve_triangular(lower, identity, upper=False).mT.contiguous()
        tensors = torch.from_numpy(np.log(weights)), torch.from_numpy(means), factors
        if factors.abs().max() > SHARP and torch.device(device).type != "mps":
            dtype = torch.float64
        return cls(*(t.to(device, dtype) for t in tensors))

    @property
    def inverse_width(self) -> float:
        """One over the least standard deviation of a component, or near it."""
        return float(self.factors.abs().max())

    def _parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whitened distances (n, k, d) and the log joint of row and component."""
        x = x.to(self.means.dtype)  # double where components are narrow
        y = torch.addmm(self._shift, x, self._wide, beta=-1).unflatten(1, self.means.shape)
        return y, self._constant - 0.5 * y.square().sum(-1)

    def _across(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `_parts` does, rows along the last axis: (k, d, n) and (k, n).

        Sums over columns and components then add whole vectors.
        """
        rows = x.to(self.means.dtype).T
        y = torch.addmm(self._shift[:, None], self._wide.T, rows, beta=-1)
        y = y.unflatten(0, self.means.shape)
        return y, self._constant[:, None] - 0.5 * y.square().sum(1)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return log_sum_exp(self._across(x)[1]).to(x.dtype)

    def log_prob_left_out(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return log p0 of rows (n, d), a fifth at a time, after one step of EM without them."""
        y, joint = (part.double() for part in self._parts(x))
        share = joint.softmax(1)
        if weight is not None:
            share = share * (weight.double() / weight.double().mean())[:, None]
        fold = torch.arange(len(x), device=x.device) % N_FOLDS
        out = joint.new_empty(len(x))
        everything = _moments(y, share)
        for i in range(N_FOLDS):
            rows = fold == i
            without = _moments(y[~rows], share[~rows])
            out[rows] = self._after(y[rows], everything, without)
        return out.to(x.dtype)

    def _after(self, y: torch.Tensor, old: Moments, new: Moments) -> torch.Tensor:
        """Return log p0 at whitened distances (n, k, d) once the moments of rows have changed.

        The change is what the fit, shrunk as it may be, is thought to have followed.
        """
        change = new.covariance - old.covariance
        values, vectors = torch.linalg.eigh(change)
        values = (1 + values).clamp(min=LEAST_LEFT)
        u = torch.einsum("nkd,kde->nke", y - (new.mean - old.mean), vectors)
        quadratic = (u.square() / values).sum(-1)
        weights = self._constant + (new.weight / old.weight).log()
        return (weights - 0.5 * (quadratic + values.log().sum(-1))).logsumexp(1)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d)."""
        y, joint = self._across(x)
        log_prob = log_sum_exp(joint)
        y *= (joint - log_prob).clamp_(min=LEAST).exp_()[:, None]  # responsibilities
        score = (self._wide @ y.flatten(0, 1)).T.contiguous().neg_()
        return log_prob.to(x.dtype), score.to(x.dtype)

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """Return each component's share of each row, (n, k)."""
        return self._parts(x)[1].softmax(1).to(x.dtype)

    def averaged(self, x: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values (k,) averaged by responsibility (n,), and the average's gradient (n, d)."""
        y, joint = self._parts(x)
        share, values = joint.softmax(1), values.to(joint.dtype)
        mean = share @ values
        y *= (share * (values - mean[:, None]))[:, :, None]
        return mean.to(x.dtype), -(y.flatten(1) @ self._wide.T).to(x.dtype)

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows."""
        k, d = self.means.shape
        component = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=rng)
        z = torch.empty(n, d, device=self.means.device, dtype=self.means.dtype)
        z.normal_(generator=rng)
        scale = torch.linalg.inv(self.factors.double()).to(z.dtype)
        out = torch.empty_like(z)
        for i in range(k):  # (n, k, d) at once would not fit wide tables
            rows = component == i
            out[rows] = self.means[i] + z[rows] @ scale[i]
        return out.float()

    def warn_if_narrow(self) -> None:
        """Warn where components that hold much of the mass are as narrow as they may be."""
        floor = self.floor
        width = 1 / torch.linalg.matrix_norm(self.factors.double(), 2)
        share = float(self.log_weights.double().exp()[width**2 < AT_THE_FLOOR * floor].sum())
        if share > MUCH and floor < LARGEST_FLOOR:
            warnings.warn(
                f"Rows lie closer than {math.sqrt(floor):.1g} standard deviations to a line or "
                "plane, which is the narrowest that the mixture resolves. What is that narrow is "
                "blurred; leave out columns that others determine.",
                DataDegeneracyWarning,
                stacklevel=2,
            )


def _regular(covariances: torch.Tensor, floor: float) -> torch.Tensor:
    """Add to the diagonal what the floor and a Cholesky factor need."""
    values = torch.linalg.eigvalsh(covariances)
    lift = ((values[:, -1] * 1e-12).clamp(min=floor) - values[:, 0]).clamp(min=0)
    return covariances + lift[:, None, None] * torch.eye(covariances.shape[1], dtype=torch.float64)
