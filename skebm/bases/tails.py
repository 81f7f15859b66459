"""Heavy tails under a base: what a row far from all that was seen costs stays finite."""

from __future__ import annotations

__all__ = ["Defended", "fit_defended"]


import dataclasses

import torch

from skebm.bases._base import Base, BaseComponent
from skebm.bases._conditional import TAIL_DOF as DOF
from skebm.bases._conditional import TAIL_NORM as LOG_NORM
from skebm.bases._conditional import Components, Tails
from skebm.bases._far import FAR, far_rows
from skebm.bases.mixed import MixedMixture
from skebm.bases.torch_distribution import TorchDistribution
from skebm.bases.uniform import Uniform

LEAST_SHARE, MOST_SHARE = 1e-3, 1e-2  # of the tails, beside the rows that they stand for


class Defended(Base):
    r"""A base with heavy tails, :math:`(1 - a) p_0(x) + a \prod_j t_3((x_j - m_j) / s_j) / s_j`.

    Columns of the tails are independent, so a row with one odd value pays for that value alone:
    four times the log of its distance. Whatever else is asked of it, the inner base answers.

    Parameters
    ----------
    core : Base
        The inner base.
    tail_location, tail_scale : Tensor of shape (d,)
        m and s, standardized units.
    tail_share : Tensor of shape ()
        a, dimensionless.

    References
    ----------
    .. [1] T. Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
       Distributions", Technometrics 37(2), 1995. Section 2.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Gaussian
    >>> from skebm.bases.tails import fit_defended
    >>> rng = torch.Generator().manual_seed(0)
    >>> base = fit_defended(Gaussian(), torch.randn(200, 1, generator=rng), None, rng)
    >>> float(base.log_prob(torch.tensor([[1000.0]]))) > -40
    True
    """

    core: Base
    tail_location: torch.Tensor
    tail_scale: torch.Tensor
    tail_share: torch.Tensor

    def __init__(
        self,
        core: Base,
        tail_location: torch.Tensor,
        tail_scale: torch.Tensor,
        tail_share: torch.Tensor,
    ) -> None:
        super().__init__()
        self.n_features = core.n_features
        self.core = core
        self.register_buffer("tail_location", tail_location)
        self.register_buffer("tail_scale", tail_scale)
        self.register_buffer("tail_share", tail_share)
        self._derive()

    _derived = ("_log_core_share", "_log_tail_share")

    def _derive(self) -> None:
        """Set the logs of both shares, that of the tails with the norm of their density."""
        self._log_core_share = (-self.tail_share).log1p()
        norm = self.n_features * LOG_NORM - self.tail_scale.log().sum()
        self._log_tail_share = norm + self.tail_share.log()

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("core"), name)

    @property
    def in_double(self) -> bool:
        """Whether the core is computed in double."""
        return self.core.in_double

    @property
    def inverse_width(self) -> float:
        """The larger of that of the inner base and of the tails."""
        return max(self.core.inverse_width, 1 / float(self.tail_scale.min()))

    @property
    def near(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the inner base stands for the rows: lows and highs, each (d,)."""
        return (
            self.tail_location - FAR * self.tail_scale,
            self.tail_location + FAR * self.tail_scale,
        )

    def components(self) -> Components:
        """Return those of the inner base, and the tails."""
        core, share = self.core.components(), self.tail_share.double()
        tails = Tails(share.log(), self.tail_location.double(), self.tail_scale.double())
        return dataclasses.replace(core.weighted(torch.log1p(-share)), tails=tails)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        near, far = self._parts(x, self.core.log_prob(x))
        return torch.logaddexp(near, far)

    def log_prob_left_out(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return log p0 of rows (n, d), each as if the inner base had not seen it."""
        return torch.logaddexp(*self._parts(x, self.core.log_prob_left_out(x, weight)))

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d)."""
        log_prob, score = self.core.log_prob_and_score(x)
        near, far = self._parts(x, log_prob)
        of_tails = (near - far).sigmoid().neg_().add_(1)[:, None]
        branches = x.device.type == "cpu" and not torch.compiler.is_compiling()
        if branches and not of_tails.any():  # in many columns, of most rows
            return torch.logaddexp(near, far), score
        y = (x - self.tail_location) / self.tail_scale
        pull = -(DOF + 1) * y / (DOF + y.square()) / self.tail_scale
        mixed = torch.where(of_tails < 1, (1 - of_tails) * score, 0)  # far out it overflows
        return torch.logaddexp(near, far), torch.addcmul(mixed, of_tails, pull)

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) exact, independent rows."""
        out = self.core.sample(n, rng)
        rows = torch.rand(n, generator=rng, device=rng.device) < self.tail_share.to(rng.device)
        shape = (int(rows.sum()), self.n_features)
        z = out.new_empty(shape).normal_(generator=rng)
        squares = out.new_empty(*shape, DOF).normal_(generator=rng).square_().sum(-1)
        out[rows] = (self.tail_location + self.tail_scale * z * (DOF / squares).sqrt()).to(
            out.dtype
        )
        return out

    def _parts(self, x: torch.Tensor, near: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log joint of row and inner base, and that of row and tails."""
        y = (x - self.tail_location) / self.tail_scale
        bend = (y.square() / DOF).log1p().sum(-1)
        return near + self._log_core_share, self._log_tail_share - 0.5 * (DOF + 1) * bend


def fit_defended(
    component: BaseComponent, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
) -> Base:
    """Fit a base to standardized rows (n, d), with tails as wide as they are.

    Up to 2 % of the rows are left to the tails where they are more than 50 trimmed standard
    deviations out. The tails' share is theirs and that of one unseen row more. A uniform base,
    whose box is what it is asked for, and a known distribution stay as they are.
    """
    if isinstance(component, MixedMixture | TorchDistribution | Uniform):
        return component.fit(x, weight, rng)  # the first has tails of its own
    far, lost = far_rows(x, weight)
    x, weight = x[~far], None if weight is None else weight[~far]
    core = component.fit(x, weight, rng)
    core.warn_if_blurred()
    share = lost + min(max(1 / (len(x) + 1), LEAST_SHARE), MOST_SHARE)
    w = torch.ones_like(x[:, 0]) if weight is None else weight.to(x)
    mean = (w / w.sum()) @ x
    std = ((w / w.sum()) @ (x - mean).square()).sqrt()
    scale = torch.where(std > 0, std, 1.0)
    return Defended(core, mean, scale, torch.tensor(share, device=x.device))
