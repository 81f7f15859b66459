"""Kernel density base with a bounded number of centers."""

from __future__ import annotations

__all__ = ["Kernel"]

import math

import numpy as np
import torch

from skebm._components import check_number
from skebm._warn import warn
from skebm.bases._base import LEAST, Base, BaseComponent
from skebm.bases._conditional import Components
from skebm.data import spacing, systematic_rows
from skebm.exceptions import DataDegeneracyWarning

BLOCK = 2048  # rows per (rows, centers) block
CACHED = 1 << 18  # terms of rows and centers at a time: they stay in a core's cache
EXACTLY = "donot_use_mm_for_euclid_dist"  # expanded squares would cancel
STEPS = 8  # bandwidths tried per factor of ten
STRIDE = 4  # of the first look
WIDEST, NARROWEST = 10.0, 0.1  # times the widest standard deviation, and the distance of neighbors
N_ASKED, N_JUDGED = 500, 1000  # rows that a metric, and the last bandwidths, are judged by
FEW = 128  # of these at a time: what each bandwidth reads stays in a core's cache
N_NEIGHBORS = 10  # whose differences make the local metric

N_COMPARED, N_CLOSE, CROWDED = 250, 5, 0.5  # rows and neighbors; how near these are, bandwidths
MUCH, LARGEST_GAIN = 0.5, 20.0  # nats: worth a warning; of one row at most


class Kernel(BaseComponent):
    r"""Gaussian kernels :math:`p_0(x) = \sum_i w_i N(x; c_i, h^2 \Sigma)` on training rows.

    Equal rows are one center with their joint weight, so that copies and weights are the same.

    Parameters
    ----------
    n_centers : int, default=2000
        At most that many training rows carry a kernel; more is slower and finer.
    bandwidth : float or "auto", default="auto"
        h in standardized units; with a number kernels are round, :math:`\Sigma = I`. ``"auto"``
        maximizes the leave-one-out log likelihood of the centers over h, from a tenth of the
        distance of neighbors to ten standard deviations, and over three shapes of determinant 1:
        round, that of the rows' covariance, and that of the differences of ten neighbors.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    Notes
    -----
    Density and score of n rows take ``4 n m d`` floating-point operations for m centers, in blocks
    of about 260,000 terms. Exponents are in double, for they are small differences of squares;
    exponentials are in the precision of the rows. Where training rows exceed `n_centers`, a
    systematic sample in proportion to the weights carries the kernels.

    References
    ----------
    .. [1] B. Silverman, "Density Estimation for Statistics and Data Analysis", 1986. Section 3.4.4.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Kernel
    >>> rng = torch.Generator().manual_seed(0)
    >>> base = Kernel().fit(torch.randn(200, 2, generator=rng), None, rng)
    >>> 0.1 < float(base.bandwidth) < 1
    True
    """

    def __init__(self, n_centers: int = 2000, bandwidth: float | str = "auto") -> None:
        self.n_centers = n_centers
        self.bandwidth = bandwidth

    def fit(self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator) -> KernelBase:
        """Fit to standardized rows (n, d)."""
        check_number("n_centers", self.n_centers, low=1, integer=True)
        if self.bandwidth != "auto":
            check_number("bandwidth", self.bandwidth, low=0, open_low=True)
        w = torch.ones(len(x), device=x.device) if weight is None else weight.float()
        x, w = x[w > 0], w[w > 0]
        if len(x) > self.n_centers:
            x, w = _subset(x, w, self.n_centers, rng)
        centers, log_weights = _merged(x, w)
        h, factor = self.bandwidth, None
        if h == "auto":
            h, factor = _choose(centers.double(), log_weights.double())
        base = KernelBase(centers, log_weights, torch.tensor(float(h), device=x.device), factor)
        base.chosen = self.bandwidth == "auto"
        return base


def _subset(
    x: torch.Tensor, w: torch.Tensor, m: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Systematic sample of m rows in proportion to w; a heavy row stays once, with its share."""
    rows, counts = systematic_rows(w, m, rng).unique(return_counts=True)
    return x[rows], counts.float()


def _merged(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the different rows, and the log of their shares of the weight."""
    rows, group = x.unique(dim=0, return_inverse=True)
    if len(rows) == len(x):
        return x.clone(), (w / w.sum()).log()
    joint = w.new_zeros(len(rows)).index_add_(0, group, w)
    return rows, (joint / joint.sum()).log()


def _choose(centers: torch.Tensor, log_weights: torch.Tensor) -> tuple[float, torch.Tensor | None]:
    """Return the bandwidth and the whitening factor of the likeliest kernels, left out one by one.

    Every fourth bandwidth is tried with each shape on some rows, then those around the best one on
    more.
    """
    if len(centers) < 3:
        return 1.0, None
    values: dict[tuple[float, str, int], tuple[torch.Tensor, torch.Tensor | None]] = {}
    for name, factor in _shapes(centers).items():
        y = centers if factor is None else centers @ factor
        lowest = _place(NARROWEST * spacing(y.cpu().numpy()))
        tried = [*range(_place(WIDEST * float(y.std(0).max())) + 1, lowest - STRIDE, -STRIDE)]
        found = _leave_one_out(y, log_weights, [_width(i) for i in tried], N_ASKED)
        values |= {(float(v), name, i): (y, factor) for v, i in zip(found, tried, strict=True)}
    best = max(values)
    y, factor = values[best]
    near = range(best[2] - STRIDE + 1, best[2] + STRIDE)
    found = _leave_one_out(y, log_weights, [_width(i) for i in near], N_JUDGED)
    return _width(near[int(found.argmax())]), None if factor is None else factor.float()


def _place(width: float) -> int:
    return math.floor(STEPS * math.log10(max(width, 1e-12)))


def _width(i: int) -> float:
    return 10 ** (i / STEPS)


def _shapes(centers: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """Return whitening factors of determinant 1; None is the identity."""
    n, d = centers.shape
    if d == 1:
        return {"round": None}
    from sklearn.neighbors import NearestNeighbors

    rows = centers.cpu().numpy()
    whole = _whitening(rows - rows.mean(0))
    y = rows @ whole
    asked = y[:: -(-n // N_ASKED)]
    k = min(N_NEIGHBORS, n - 1)
    index = NearestNeighbors(n_neighbors=k + 1).fit(y).kneighbors(asked, return_distance=False)
    local = whole @ _whitening((y[index[:, 1:]] - asked[:, None]).reshape(-1, d))
    shapes: dict[str, torch.Tensor | None] = {"round": None}
    for name, factor in (("whole", whole), ("local", local)):
        factor /= np.exp(np.linalg.slogdet(factor)[1] / d)
        shapes[name] = torch.from_numpy(factor).to(centers)
    return shapes


def _whitening(differences: np.ndarray) -> np.ndarray:
    """Return W (d, d) with W W' the inverse of the differences' shrunk second moments."""
    from sklearn.covariance import OAS

    covariance = OAS(assume_centered=True).fit(differences).covariance_
    values, vectors = np.linalg.eigh(covariance)
    floor = np.finfo(np.float32).eps ** 2 * values[-1] + np.finfo(float).tiny
    return vectors / np.sqrt(values.clip(min=floor))


def _leave_one_out(
    centers: torch.Tensor, log_weights: torch.Tensor, bandwidths: list[float], most: int
) -> torch.Tensor:
    """Return the log likelihood of each bandwidth up to a constant, nats per row.

    It is that of at most so many of the rows, under the kernels of all others.
    """
    n, d = centers.shape
    total = -d * torch.tensor(bandwidths, device=centers.device, dtype=torch.float64).log()
    asked = torch.arange(0, n, -(-n // most), device=centers.device)
    share = log_weights[asked].softmax(0)
    centers, log_weights = centers - centers.mean(0), log_weights.float()
    for rows, weight in zip(asked.split(FEW), share.split(FEW), strict=True):
        d2 = torch.cdist(centers[rows], centers, compute_mode=EXACTLY).square_().float()
        d2[torch.arange(len(rows)), rows] = math.inf
        for i, h in enumerate(bandwidths):
            value = torch.add(log_weights, d2, alpha=-0.5 / h**2).logsumexp(1)
            total[i] += (weight * value).sum()
    return total


class KernelBase(Base):
    """Fitted kernels: ``centers`` (m, d), ``log_weights`` (m,), ``bandwidth`` ().

    ``factor`` (d, d) of determinant 1 maps rows to where kernels are round; None changes nothing.
    """

    chosen = False  # whether the bandwidth is that of the fit, not of the user
    centers: torch.Tensor
    log_weights: torch.Tensor
    bandwidth: torch.Tensor
    factor: torch.Tensor | None

    def __init__(
        self,
        centers: torch.Tensor,
        log_weights: torch.Tensor,
        bandwidth: torch.Tensor,
        factor: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.n_features = centers.shape[1]
        self.register_buffer("centers", centers)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("bandwidth", bandwidth)
        self.register_buffer("factor", factor)
        self._derive()

    _derived = ("_middle", "_width", "_turn", "_spread", "_round_centers", "_bias", "_norm")

    def _derive(self) -> None:
        """Put the centers into bandwidths, in double, with what their exponents start from."""
        double = torch.float32 if self.centers.device.type == "mps" else torch.float64
        self._middle = self.centers.to(double).mean(0)  # far from 0 expanded squares would cancel
        self._width = self.bandwidth.to(double)
        self._turn = None if self.factor is None else self.factor.to(double)
        self._spread = None if self._turn is None else torch.linalg.inv(self._turn)
        self._round_centers = self._round(self.centers)
        self._bias = self.log_weights.to(double) - 0.5 * self._round_centers.square().sum(-1)
        norm = 0.5 * math.log(2 * math.pi) + self._width.log()
        self._norm = -self.n_features * norm

    @property
    def in_double(self) -> bool:
        """Whether densities are computed in double: expanded squared distances have to be."""
        return self._middle.dtype == torch.float64

    @property
    def inverse_width(self) -> float:
        """One over the bandwidth in the kernels' narrowest direction, or near it."""
        steepest = 1.0 if self.factor is None else float(self.factor.abs().max())
        return steepest / float(self.bandwidth)

    def _joint(self, y: torch.Tensor) -> torch.Tensor:
        """Log weight plus log kernel of each center, up to the norm of y: (n, m)."""
        return torch.addmm(self._bias, y, self._round_centers.T)

    def _constant(self, y: torch.Tensor) -> torch.Tensor:
        return self._norm - 0.5 * y.square().sum(-1)

    def _round(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows in bandwidths; in double, for expanded squared distances are differences."""
        y = (x.to(self._middle.dtype) - self._middle) / self._width
        return y if self._turn is None else y @ self._turn

    def _shares(self, y: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each center's part in rows y, relative to the largest: (n, m), and its log."""
        joint = self._joint(y)
        top = joint.detach().amax(1, keepdim=True)  # its gradient cancels
        shift = top.clamp(min=torch.finfo(top.dtype).min)
        return joint.sub_(shift).to(dtype).clamp_(min=LEAST).exp_(), top[:, 0]

    def _blocks(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if torch.compiler.is_compiling():  # the number of rows is open
            return (x,)
        return x.split(max(1, CACHED // len(self.centers)))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        out = []
        for block in self._blocks(x):
            y = self._round(block)
            share, top = self._shares(y, x.dtype)
            out.append(share.sum(1).log_() + (top + self._constant(y)))
        return torch.cat(out).to(x.dtype)

    def components(self) -> Components:
        """Return a component for each center, all of one shape."""
        d = self.n_features
        turn = torch.eye(d, dtype=torch.float64) if self.factor is None else self.factor.double()
        factor = turn / self.bandwidth.double()
        return Components(self.log_weights.double(), self.centers.double(), factor[None])

    def log_prob_left_out(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return log p0 of rows (n, d), each without the center at its place."""
        out = []
        for block in self._blocks(x):
            y = self._round(block)
            joint = self._joint(y)
            nearest = torch.cdist(y, self._round_centers, compute_mode=EXACTLY).argmin(1)
            own = (self.centers[nearest] == block).all(1)
            at, row = nearest[own], torch.arange(len(block), device=x.device)[own]
            joint[row, at] = -math.inf
            value = joint.logsumexp(1) + self._constant(y)
            value[own] -= (-self.log_weights[at].double().exp()).log1p()
            out.append(value)
        return torch.cat(out).to(x.dtype) if out else x.new_empty(0)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d)."""
        values, scores = [], []
        centers = self._round_centers.to(x.dtype)
        for block in self._blocks(x):
            y = self._round(block)
            share, top = self._shares(y, x.dtype)
            total = share.sum(1)
            values.append(total.log() + (top + self._constant(y)))
            mean = (share @ centers).div_(total[:, None])
            pull = (mean - y) / self._width
            scores.append(pull if self._turn is None else pull @ self._turn.T)
        return torch.cat(values).to(x.dtype), torch.cat(scores).to(x.dtype)

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows."""
        rows = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=rng)
        centers = self.centers[rows]
        noise = torch.empty_like(centers).normal_(generator=rng)
        if self._spread is not None:
            noise = noise @ self._spread.to(noise)
        return centers + self.bandwidth * noise

    def warn_if_blurred(self) -> None:
        """Warn where a bandwidth that suits most rows is far too wide for many."""
        loss = self._blur() if self.chosen and len(self.centers) > N_CLOSE else 0.0
        if loss > MUCH:
            warn(
                "Some rows lie far closer together than others: kernels of one bandwidth blur "
                f"them and lose about {loss:.2g} nats per row. Use base='mixture', or take "
                "logarithms of skewed columns.",
                DataDegeneracyWarning,
            )

    def _blur(self) -> float:
        """Return what crowded centers would gain by a density of their neighbors, nats per row.

        It is that of the mass of five neighbors in their ball (Kozachenko and Leonenko), where
        these are within half a bandwidth; elsewhere kernels do no worse.
        """
        y, log_weights = self._round(self.centers), self.log_weights.double()
        asked = torch.arange(0, len(y), -(-len(y) // N_COMPARED), device=y.device)
        d2 = torch.cdist(y[asked], y, compute_mode=EXACTLY).square_()
        d2[torch.arange(len(asked)), asked] = math.inf
        squares, near = d2.topk(N_CLOSE, largest=False)
        mass = log_weights[near].exp()
        mass = mass.sum(1) - 0.5 * mass[:, -1]
        d = self.n_features
        ball = 0.5 * d * math.log(math.pi) - math.lgamma(d / 2 + 1)
        of_neighbors = mass.log() - ball - 0.5 * d * squares[:, -1].log()
        of_kernels = (log_weights - 0.5 * d2).logsumexp(1) - 0.5 * d * math.log(2 * math.pi)
        gain = (of_neighbors - of_kernels).nan_to_num(0.0).clamp(max=LARGEST_GAIN)
        crowded = squares[:, -1] < CROWDED**2
        return float(log_weights[asked].softmax(0) @ (gain * crowded))
