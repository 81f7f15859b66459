"""Gaussian mixture base, fitted by scikit-learn, evaluated and differentiated in torch."""

from __future__ import annotations

__all__ = ["Mixture", "MixtureBase", "repeat_by_weight"]

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from skebm._components import check_number
from skebm._warn import warn
from skebm.bases._base import LEAST, Base, BaseComponent, log_sum_exp
from skebm.bases._conditional import Components
from skebm.data import copy_groups, spacing, systematic_rows
from skebm.exceptions import DataDegeneracyWarning

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 36, 44, 52, 64)
SHRINKAGES = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
LEAST_GAIN = 0.01  # held-out nats that a component has to bring: below, the energy does better
MOST_SELECTION_ROWS, MOST_ROWS = 10_000, 20_000  # of a second selection, of the last fit
ROUGHEST_TOL, ROUGH_TOL, TOL = 2e-2, 5e-3, 1e-3  # gains of an EM step that stop it, nats: on the
# way to a number of components, in the scan, in the last fit
APART = 0.8  # standard deviations from a component to its halves
N_FOLDS_FROM = ((1000, 1), (400, 2), (0, 4))  # rows, folds
HALF = 0.5  # of a row: responsibilities are not whole
PATIENCE = 3  # candidates without gain before the scan stops
FEWEST_ROWS = 20  # below: half shrunk, one component by "auto"; there is nothing to select on
LARGEST_FLOOR, SMALLEST_FLOOR = 1e-8, 1e-14  # of variances, standardized units squared
RESOLVED, RESOLVED_OF_COPIES = 1e-3, 0.1  # smallest width, of the distance of neighbors
LARGEST_FLOOR_TRIED = 1e-3  # where components lose rank
AT_THE_FLOOR, MUCH = 2.0, 0.1  # times the floor; share of the mass that is worth a warning
N_FOLDS, LEAST_LEFT, TINY = 5, 0.05, 1e-300  # of what is left of a variance without a fold
MANY_COLUMNS = 32  # from which components without covariances are computed as such
SHARP = 1e3  # inverse of a width below which float32 is too coarse


class Shape(NamedTuple):
    """Of a mixture: weights (k,), means (k, d) and covariances (k, d, d)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @classmethod
    def whole(cls, rows: np.ndarray) -> Shape:
        """Return one component: the moments of all rows."""
        covariance = np.atleast_2d(np.cov(rows.T, bias=True))
        return cls(np.ones(1), rows.mean(axis=0)[None], covariance[None])

    def split(self, k: int) -> Shape:
        """Return k components: again and again the heaviest in two, along its longest axis."""
        weights, means, covariances = (list(part) for part in self)
        while len(weights) < k:
            i = int(np.argmax(weights))
            values, vectors = np.linalg.eigh(covariances[i])
            step = APART * np.sqrt(values[-1].clip(min=0)) * vectors[:, -1]
            weights[i] /= 2
            covariances[i] = covariances[i] - np.outer(step, step)
            weights.append(weights[i])
            covariances.append(covariances[i])
            means.append(means[i] + step)
            means[i] = means[i] - step
        return Shape(np.array(weights), np.array(means), np.array(covariances))

    def fitted(self, rows: np.ndarray, floor: float, tol: float) -> Shape:
        """Return where EM goes from here, with a higher floor where a component loses rank."""
        if len(self.weights) == 1:
            whole = Shape.whole(rows)  # with the floor, as EM has it
            return whole._replace(covariances=whole.covariances + floor * np.eye(rows.shape[1]))
        from sklearn.mixture import GaussianMixture

        highest = max(LARGEST_FLOOR_TRIED, rows.var(axis=0).max())
        while True:
            values, vectors = np.linalg.eigh(self.covariances)
            values = (values + floor).clip(min=np.maximum(floor, 1e-12 * values[:, -1:]))
            mixture = GaussianMixture(
                len(self.weights),
                tol=tol,
                reg_covar=floor,
                weights_init=self.weights / self.weights.sum(),
                means_init=self.means,
                precisions_init=(vectors / values[:, None]) @ vectors.transpose(0, 2, 1),
            )
            try:
                with warnings.catch_warnings():
                    # an unfinished EM still gives a density to judge
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    mixture.fit(rows)
                return Shape(mixture.weights_, mixture.means_, _without_spikes(mixture, rows))
            except ValueError:  # a component's covariance lost rank
                if floor >= highest:
                    raise
                floor *= 100

    @classmethod
    def union(cls, shapes: list[Shape]) -> Shape:
        """Return the mean density of mixtures."""
        weights, means, covariances = (np.concatenate(part) for part in zip(*shapes, strict=True))
        return cls(weights / len(shapes), means, covariances)

    def shrunk(self, shrinkage: float) -> Shape:
        """Return covariances drawn toward the diagonal of their average."""
        target = np.diag(np.einsum("k,kjj->j", self.weights, self.covariances))
        return self._replace(covariances=(1 - shrinkage) * self.covariances + shrinkage * target)


class Mixture(BaseComponent):
    r"""Mixture of Gaussians with full, shrunk covariances.

    scikit-learn's ``GaussianMixture`` is fitted for a growing number of components, each time from
    the last one with its heaviest components split along their longest axes; each is shrunk,
    :math:`\Sigma_k \leftarrow (1 - a) \Sigma_k + a\, \mathrm{diag}(\bar\Sigma)` with
    :math:`\bar\Sigma` the average within-component covariance, and the pair of component number and
    a with the best held-out likelihood goes on from there on at most 20,000 rows.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        A fixed number (at most half the rows), or a scan up to `max_components` that stops after
        three candidates without a gain of 0.01 nats per component.
    max_components : int, default=30
        Upper end of the scan; also bounded by rows / (columns + 1).
    max_selection_rows : int, default=2000
        Rows used for selection; where there are more, up to 10,000 decide whether it goes on from
        there.
    n_folds : int, default=1
        Above 1, the mean density of that many mixtures, each grown without one of as many parts of
        the rows: one mixture again, with their components side by side. It is likelier on unseen
        rows, takes that many times as long to evaluate, and an energy meets rows that part of it
        has not seen. A single Gaussian stays one.

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
        max_selection_rows: int = 2000,
        n_folds: int = 1,
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.max_selection_rows = max_selection_rows
        self.n_folds = n_folds

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> MixtureBase:
        """Fit to standardized rows (n, d)."""
        if self.n_components != "auto":
            check_number("n_components", self.n_components, low=1, integer=True)
        check_number("max_components", self.max_components, low=1, integer=True)
        check_number("max_selection_rows", self.max_selection_rows, low=2, integer=True)
        check_number("n_folds", self.n_folds, low=1, integer=True)
        rows = repeat_by_weight(x, weight, rng).double().cpu().numpy()
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        random_state = np.random.RandomState(seed)
        floor = _floor(rows)
        start, shrinkage = self._select(rows, floor, random_state)
        if len(rows) > MOST_ROWS:
            rows = rows[random_state.permutation(len(rows))[:MOST_ROWS]]
        k = len(start.weights)
        if self.n_folds == 1 or k == 1:
            shapes = [start.fitted(rows, floor, TOL)]
        else:
            parts = _without_folds(rows, self.n_folds, random_state)
            shapes = [self._grown(p, k, floor).fitted(p, floor, ROUGH_TOL) for p in parts]
        shapes = [shape.shrunk(shrinkage) for shape in shapes]
        base = MixtureBase.from_moments(*Shape.union(shapes), x.device, floor=floor)
        base.floor = floor
        return base

    def _select(
        self, rows: np.ndarray, floor: float, random_state: np.random.RandomState
    ) -> tuple[Shape, float]:
        """Return the likeliest mixture of unseen rows, where the last fit starts, and its a."""
        if len(rows) < FEWEST_ROWS:
            k = 1 if self.n_components == "auto" else min(int(self.n_components), len(rows) // 2)
            return Shape.whole(rows).split(k), 0.5
        sizes, folds = self._sizes(*rows.shape), _folds(rows, self.max_selection_rows, random_state)
        found = self._scan(rows, folds, sizes, floor, PATIENCE)
        k = len(found[0].weights)
        if self.n_components == "auto" and k > 1 and len(rows) > self.max_selection_rows:
            folds = _folds(rows, MOST_SELECTION_ROWS, random_state)  # more rows bear more of them
            found = self._scan(rows, folds, [size for size in sizes if size >= k], floor, 2)
        return found

    def _scan(
        self, rows: np.ndarray, folds: list[tuple], sizes: list[int], floor: float, patience: int
    ) -> tuple[Shape, float]:
        """Return the likeliest mixture of these sizes, until so many have brought nothing."""
        shapes = [self._grown(rows[train], sizes[0], floor) for train, _ in folds]
        best, best_value, best_k, losses = (shapes[0], 0.5), -math.inf, 0, 0
        for k in sizes:
            shapes = [
                shape.split(min(k, len(train))).fitted(rows[train], floor, ROUGH_TOL)
                for shape, (train, _) in zip(shapes, folds, strict=True)
            ]
            values = np.array(
                [
                    _held_out(rows[test], shape, floor)
                    for shape, (_, test) in zip(shapes, folds, strict=True)
                ]
            )
            i = int(values.mean(0).argmax())
            value, losses = values.mean(0)[i], losses + 1
            if self.n_components != "auto" or value > best_value + LEAST_GAIN * (k - best_k):
                best = shapes[int(values[:, i].argmax())], SHRINKAGES[i]
                best_value, best_k, losses = value, k, 0
            if losses == patience:
                break
        return best

    def _grown(self, rows: np.ndarray, k: int, floor: float) -> Shape:
        """Return a rough mixture of k components of at most `max_selection_rows` rows."""
        some = rows[: self.max_selection_rows]
        shape = Shape.whole(some)
        for size in [2**i for i in range(1, k.bit_length()) if 2**i < k] + [k] * (k > 1):
            shape = shape.split(min(size, len(some))).fitted(some, floor, ROUGHEST_TOL)
        return shape

    def _sizes(self, n: int, d: int) -> list[int]:
        """Return the numbers of components that a mixture of n rows grows through."""
        if self.n_components == "auto":
            most = min(self.max_components, max(1, n // (d + 1)))
            return [k for k in CANDIDATES if k <= most]
        k = min(int(self.n_components), n // 2)
        return [i for i in CANDIDATES if i < k] + [k]


def _floor(rows: np.ndarray) -> float:
    """Return the least variance of a component: far below the distance of neighbors.

    Copies make components of no width likely, so that the floor is higher with them.
    """
    resolved = RESOLVED if copy_groups(rows) is None else RESOLVED_OF_COPIES
    return float(np.clip((resolved * spacing(rows)) ** 2, SMALLEST_FLOOR, LARGEST_FLOOR))


def _folds(rows: np.ndarray, most: int, random_state: np.random.RandomState) -> list[tuple]:
    """One 75/25 split where rows abound, else two or four folds of all; copies stay together."""
    order = random_state.permutation(len(rows))[:most]
    group = copy_groups(rows[order])
    if group is None or group.max() < FEWEST_ROWS:  # of so few different ones none can be spared
        parts = np.array_split(order, 4)
    else:
        parts = [order[group % 4 == i] for i in range(4)]
    pairs = [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(4)]
    return pairs[: next(n for rows_from, n in N_FOLDS_FROM if len(order) >= rows_from)]


def _without_folds(
    rows: np.ndarray, n_folds: int, random_state: np.random.RandomState
) -> list[np.ndarray]:
    """Return the rows without each of so many folds in turn, in random order; copies together."""
    order, group = random_state.permutation(len(rows)), copy_groups(rows)
    fold = (order if group is None else group[order]) % n_folds
    parts = [rows[order[fold != i]] for i in range(n_folds)]
    return [part for part in parts if len(part)]  # of one row and its copies there are no folds


def _held_out(rows: np.ndarray, shape: Shape, floor: float) -> np.ndarray:
    """Mean log density of rows for each shrinkage.

    In units of the average within-component variances, shrinking draws every eigenvalue toward 1:
    one decomposition of each component serves all shrinkages.
    """
    scale = np.sqrt(np.einsum("k,kjj->j", shape.weights, shape.covariances).clip(min=floor))
    values, vectors = np.linalg.eigh(shape.covariances / np.outer(scale, scale))
    least = np.maximum(floor / (scale @ scale) * len(scale), 1e-12 * values[:, -1:])
    a = np.array(SHRINKAGES)[:, None, None]
    drawn = (1 - a) * values.clip(min=least) + a  # (a, k, d)
    const = np.log(shape.weights) - 0.5 * np.log(2 * math.pi * drawn).sum(-1) - np.log(scale).sum()
    joint = np.empty((len(SHRINKAGES), len(values), len(rows)))
    for k, mean in enumerate(shape.means):
        u = ((rows - mean) / scale) @ vectors[k]
        joint[:, k] = const[:, k, None] - 0.5 * (1 / drawn[:, k]) @ np.square(u).T
    return logsumexp(joint, axis=1).mean(1)


def _without_spikes(mixture: GaussianMixture, rows: np.ndarray) -> np.ndarray:
    """Return the covariances; components of no more rows than d have that of all the others.

    Copies count once: what they share with no other row has no width.
    """
    n_rows, group = mixture.weights_ * len(rows), copy_groups(rows)
    if group is not None:
        n_rows = mixture.predict_proba(rows).T @ (1 / np.bincount(group)[group])
    few = n_rows < rows.shape[1] + 1 + HALF
    if not few.any() or few.all():
        return mixture.covariances_
    share = mixture.weights_ * ~few
    pooled = np.einsum("k,kij->ij", share / share.sum(), mixture.covariances_)
    return np.where(few[:, None, None], pooled, mixture.covariances_)


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

    _derived = ("_wide", "_slim", "_shift", "_constant", "_spread")
    floor = LARGEST_FLOOR  # the least variance that a fit could give a component
    log_weights: torch.Tensor
    means: torch.Tensor
    factors: torch.Tensor
    _nominal: torch.Tensor

    def __init__(
        self, log_weights: torch.Tensor, means: torch.Tensor, factors: torch.Tensor
    ) -> None:
        super().__init__()
        self.n_features = means.shape[1]
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("means", means)
        self.register_buffer("factors", factors)
        # narrow components are in double where all else, and what is drawn, is not
        self.register_buffer(
            "_nominal", factors.new_empty(0, dtype=torch.float32), persistent=False
        )
        self._derive()

    def _derive(self) -> None:
        """Lay the factors out so that one matrix product whitens for every component.

        In many columns none is needed where a fit has shrunk all covariances to their diagonals.
        """
        k, d = self.means.shape
        diagonals = self.factors.diagonal(dim1=-2, dim2=-1)
        many = d > MANY_COLUMNS and not self.factors.is_meta
        alone = many and self.factors.equal(diagonals.diag_embed())
        self._slim = diagonals.contiguous() if alone else None
        self._wide = self.factors.permute(1, 0, 2).reshape(d, k * d).contiguous()
        self._shift = torch.einsum("kj,kjl->kl", self.means, self.factors).reshape(-1)
        log_det = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._constant = self.log_weights + log_det - 0.5 * d * math.log(2 * math.pi)
        self._spread: torch.Tensor | None = None  # the factors' inverses, once rows are drawn

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
        if self._slim is not None:
            y = (x[:, None] - self.means) * self._slim
        else:
            y = torch.addmm(self._shift, x, self._wide, beta=-1).unflatten(1, self.means.shape)
        return y, self._constant - 0.5 * y.square().sum(-1)

    def _across(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `_parts` does, rows along the last axis: (k, d, n) and (k, n).

        Sums over columns and components then add whole vectors.
        """
        rows = x.to(self.means.dtype).T
        if self._slim is not None:
            y = (rows - self.means[:, :, None]).mul_(self._slim[:, :, None])
        else:
            y = torch.addmm(self._shift[:, None], self._wide.T, rows, beta=-1)
            y = y.unflatten(0, self.means.shape)
        return y, self._constant[:, None] - 0.5 * y.square().sum(1)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return log_sum_exp(self._across(x)[1]).to(x.dtype)

    def components(self) -> Components:
        """Return its components."""
        return Components(self.log_weights.double(), self.means.double(), self.factors.double())

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
        if self._slim is not None:
            pulled = (y * self._slim[:, :, None]).sum(0)
        else:
            pulled = self._wide @ y.flatten(0, 1)
        score = pulled.T.contiguous().neg_()
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
        component = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=rng)
        order = component.argsort(stable=True)
        z = torch.empty(n, self.n_features, device=self.means.device, dtype=self.means.dtype)
        parts = z.normal_(generator=rng).split(
            component.bincount(minlength=len(self.means)).tolist()
        )
        out = torch.empty_like(z)
        if self._slim is not None:
            of_each = zip(self.means, parts, self._slim, strict=True)
            moved = [mean + part / slim for mean, part, slim in of_each]
        else:
            if self._spread is None:
                self._spread = torch.linalg.inv(self.factors.double()).to(z)
            moved = [torch.addmm(*of) for of in zip(self.means, parts, self._spread, strict=True)]
        out[order] = torch.cat(moved)
        return out.to(self._nominal.dtype)

    def warn_if_blurred(self) -> None:
        """Warn where components that hold much of the mass are as narrow as they may be."""
        floor = self.floor
        factors = self.factors.double()
        width = 1 / torch.linalg.eigvalsh(factors @ factors.mT)[:, -1].sqrt()
        share = float(self.log_weights.double().exp()[width**2 < AT_THE_FLOOR * floor].sum())
        if share > MUCH:
            warn(
                f"Rows lie closer than {math.sqrt(floor):.1g} standard deviations to a line or "
                "plane, which is the narrowest that the mixture resolves. What is that narrow is "
                "blurred; leave out columns that others determine.",
                DataDegeneracyWarning,
            )


def _regular(covariances: torch.Tensor, floor: float) -> torch.Tensor:
    """Add to the diagonal what the floor and a Cholesky factor need."""
    values = torch.linalg.eigvalsh(covariances)
    lift = ((values[:, -1] * 1e-12).clamp(min=floor) - values[:, 0]).clamp(min=0)
    return covariances + lift[:, None, None] * torch.eye(covariances.shape[1], dtype=torch.float64)
