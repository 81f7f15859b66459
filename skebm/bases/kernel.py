"""Kernel density base with a bounded number of centers."""

from __future__ import annotations

__all__ = ["Kernel"]

import math

import torch

from skebm._components import check_number
from skebm.bases._base import Base, BaseComponent
from skebm.data import systematic_rows

BLOCK = 2048  # rows per (rows, centers) block
GRID = torch.logspace(-2, 1, 25).tolist()  # bandwidths, standardized units
STRIDE = 4


class Kernel(BaseComponent):
    r"""Gaussian kernels :math:`p_0(x) = \sum_i w_i N(x; c_i, h^2 I)` on training rows.

    Parameters
    ----------
    n_centers : int, default=2000
        At most that many training rows carry a kernel; more is slower and finer.
    bandwidth : float or "auto", default="auto"
        h in standardized units; ``"auto"`` maximizes the leave-one-out log likelihood of the
        centers over 25 values between 0.01 and 10, of which 14 are tried.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    Notes
    -----
    Density and score of n rows take ``4 n m d`` floating-point operations for m centers, in blocks
    of 2048 rows. Where training rows exceed `n_centers`, a systematic sample in proportion to the
    weights carries the kernels.

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
        centers, log_weights = x.clone(), (w / w.sum()).log()
        h = self.bandwidth
        if h == "auto":
            h = _leave_one_out_bandwidth(centers, log_weights)
        return KernelBase(centers, log_weights, torch.tensor(float(h), device=x.device))


def _subset(
    x: torch.Tensor, w: torch.Tensor, m: int, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Systematic sample of m rows in proportion to w; a heavy row stays once, with its share."""
    rows, counts = systematic_rows(w, m, rng).unique(return_counts=True)
    return x[rows], counts.float()


def _leave_one_out_bandwidth(centers: torch.Tensor, log_weights: torch.Tensor) -> float:
    """Return the best value of every fourth of the grid, then the best of those around it."""
    if len(centers) < 3:
        return 1.0
    tried = range(0, len(GRID), STRIDE)
    values = _leave_one_out(centers, log_weights, [GRID[i] for i in tried])
    best = tried[int(values.argmax())]
    near = range(max(best - STRIDE + 1, 0), min(best + STRIDE, len(GRID)))
    values = _leave_one_out(centers, log_weights, [GRID[i] for i in near])
    return GRID[near[int(values.argmax())]]


def _leave_one_out(
    centers: torch.Tensor, log_weights: torch.Tensor, bandwidths: list[float]
) -> torch.Tensor:
    """Return the log likelihood of each bandwidth up to a constant, nats per row."""
    n, d = centers.shape
    total = -d * torch.tensor(bandwidths, device=centers.device).log()
    for start in range(0, n, BLOCK):
        block = centers[start : start + BLOCK]
        d2 = torch.cdist(block, centers).square_()
        d2[torch.arange(len(block)), torch.arange(start, start + len(block))] = math.inf
        weight = log_weights[start : start + BLOCK].exp()
        for i, h in enumerate(bandwidths):
            value = (log_weights - d2 / (2 * h * h)).logsumexp(1)
            total[i] += (weight * value).sum()
    return total


class KernelBase(Base):
    """Fitted kernels: ``centers`` (m, d), ``log_weights`` (m,), ``bandwidth`` ()."""

    centers: torch.Tensor
    log_weights: torch.Tensor
    bandwidth: torch.Tensor
    _middle: torch.Tensor  # what distances are expanded around: far from 0 they would cancel

    def __init__(
        self, centers: torch.Tensor, log_weights: torch.Tensor, bandwidth: torch.Tensor
    ) -> None:
        super().__init__()
        self.n_features = centers.shape[1]
        self.register_buffer("centers", centers)
        self.register_buffer("log_weights", log_weights)
        self.register_buffer("bandwidth", bandwidth)
        self.register_buffer("_middle", centers.mean(0), persistent=False)

    def _joint(self, x: torch.Tensor) -> torch.Tensor:
        """Log weight plus log kernel of each center, up to the norm of x: (n, m)."""
        c, h2 = self._around_middle(self.centers), self.bandwidth.double().square()
        bias = self.log_weights - 0.5 * c.square().sum(-1) / h2
        return torch.addmm(bias, self._around_middle(x) / h2, c.T)

    def _constant(self, x: torch.Tensor) -> torch.Tensor:
        h = self.bandwidth.double()
        norm = 0.5 * self.n_features * math.log(2 * math.pi) + self.n_features * h.log()
        return -norm - 0.5 * (self._around_middle(x) / h).square().sum(-1)

    def _around_middle(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows in double precision: expanded squared distances are small differences."""
        return x.double() - self._middle.double()

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        out = [self._joint(b).logsumexp(1) + self._constant(b) for b in x.split(BLOCK)]
        return torch.cat(out).to(x.dtype) if out else x.new_empty(0)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d)."""
        values, scores = [], []
        for block in x.split(BLOCK):
            joint = self._joint(block)
            value = joint.logsumexp(1)
            mean = (joint - value[:, None]).exp_() @ self._around_middle(self.centers)
            values.append(value + self._constant(block))
            scores.append((mean - self._around_middle(block)) / self.bandwidth.double().square())
        return torch.cat(values).to(x.dtype), torch.cat(scores).to(x.dtype)

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows."""
        rows = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=rng)
        centers = self.centers[rows]
        return centers + self.bandwidth * torch.empty_like(centers).normal_(generator=rng)
