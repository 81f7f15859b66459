"""A proposal density for models without a base: a mixture with a wide Gaussian under it."""

from __future__ import annotations

__all__ = ["Defensive"]

import torch

from skebm._components import check_number
from skebm.bases._base import BaseComponent
from skebm.bases._far import far_rows
from skebm.bases.gaussian import Gaussian
from skebm.bases.mixture import Mixture, MixtureBase, repeat_by_weight

MOST_ROWS = 10_000  # for the mixture's last fit; more would not change a proposal


class Defensive(BaseComponent):
    r"""Mixture q = (1 - a) mixture + a wide Gaussian, for importance weights of a model near data.

    A model without a base is judged, normalized and sampled through such a proposal. The wide part
    keeps the weights :math:`e^{-U} / q` bounded where the model has mass beside the data.

    Parameters
    ----------
    wide_share : float, default=0.1
        a, the mass of the wide part (dimensionless).
    wide_scale : float, default=2.0
        Its standard deviations over those of the rows (dimensionless).
    max_components : int, default=30
        See `Mixture`.
    max_columns : int, default=32
        With more columns the mixture's part is one Gaussian.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad parameter.

    References
    ----------
    .. [1] T. Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture
       Distributions", Technometrics 37(2), 1995. Section 2.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Defensive
    >>> rng = torch.Generator().manual_seed(0)
    >>> base = Defensive().fit(torch.randn(300, 2, generator=rng), None, rng)
    >>> round(float(base.log_weights[-1].exp()), 3)
    0.1
    """

    def __init__(
        self,
        wide_share: float = 0.1,
        wide_scale: float = 2.0,
        max_components: int = 30,
        max_columns: int = 32,
    ) -> None:
        self.wide_share = wide_share
        self.wide_scale = wide_scale
        self.max_components = max_components
        self.max_columns = max_columns

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> MixtureBase:
        """Fit to standardized rows (n, d)."""
        check_number("wide_share", self.wide_share, low=0, high=0.99, open_low=True)
        check_number("wide_scale", self.wide_scale, low=0, open_low=True)
        far, _ = far_rows(x, weight)
        rows = repeat_by_weight(x[~far], None if weight is None else weight[~far], rng)
        order = torch.randperm(len(rows), generator=rng, device=rows.device)
        rows = rows[order[:MOST_ROWS]]
        wide = Gaussian().fit(rows, None, rng)
        near = wide
        if x.shape[1] <= self.max_columns:
            near = Mixture(max_components=self.max_components).fit(rows, None, rng)
        near_share = near.log_weights.double().exp() * (1 - self.wide_share)
        weights = torch.cat([near_share, near_share.new_tensor([self.wide_share])])
        means = torch.cat([near.means, wide.means])
        factors = torch.cat([near.factors, wide.factors / self.wide_scale])
        return MixtureBase((weights / weights.sum()).log().to(means), means, factors)
