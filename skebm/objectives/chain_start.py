"""Where the chains of contrastive divergence start."""

from __future__ import annotations

__all__ = ["ChainStart"]

from typing import Any

import numpy as np
import torch

from skebm._components import Component, check_choice, check_number
from skebm.energies import Model
from skebm.samplers import SampleBank

SCHEMES = ("data", "hybrid", "noise", "persistent")
NOISES = ("auto", "base", "normal", "uniform")


class ChainStart(Component):
    """The scheme of contrastive divergence, what noise is, and the bank.

    Parameters
    ----------
    scheme : {"hybrid", "data", "noise", "persistent"}, default="hybrid"
        Chains start at the data, at noise, at both, or go on from update to update in a bank.
    noise : {"auto", "base", "normal", "uniform"} or array-like of shape (m, d), default="auto"
        What noise is: draws from the base, N(0, s^2 I) or uniform on [-s, s]^d in standardized
        space, or the given rows, drawn with replacement (in the units of X for an estimator,
        standardized for an objective); ``"auto"`` is the base where there is one, else
        ``"normal"``.
    noise_scale : float, default=1.0
        s, standardized units.
    noise_share : float, default=0.25
        With ``"hybrid"``, chains from noise per row of the batch (dimensionless): their bracket has
        the weight 1 against lambda, so fewer of them do. The paper has 1.
    bank : SampleBank, default=None
        For ``"persistent"``; None means ``SampleBank()``, which is never refreshed.

    Raises
    ------
    ValueError, TypeError
        From ``check``, on a bad parameter.

    Examples
    --------
    >>> from skebm.objectives import ChainStart
    >>> ChainStart("noise", noise="uniform")
    ChainStart(noise='uniform', scheme='noise')
    """

    def __init__(
        self,
        scheme: str = "hybrid",
        noise: Any = "auto",
        noise_scale: float = 1.0,
        noise_share: float = 0.25,
        bank: SampleBank | None = None,
    ) -> None:
        self.scheme = scheme
        self.noise = noise
        self.noise_scale = noise_scale
        self.noise_share = noise_share
        self.bank = bank

    def check(self, model: Model) -> None:
        """Check the parameters, for chains of this model."""
        check_choice("init", self.scheme, SCHEMES)
        check_number("noise_share", self.noise_share, low=0, high=1, open_low=True)
        check_number("noise_scale", self.noise_scale, low=0, open_low=True)
        if isinstance(self.noise, str) or np.ndim(self.noise) == 0:
            check_choice("noise", self.noise, NOISES, "Or pass an array of rows.")
        if isinstance(self.noise, str) and self.noise == "base" and model.base is None:
            raise ValueError(
                "noise must be 'normal' or 'uniform' without a base, got 'base'. Set a base."
            )
        if self.bank is not None and self.scheme != "persistent":
            raise ValueError(
                f"bank must be None with scheme={self.scheme!r}, got {self.bank!r}. A bank belongs "
                "to 'persistent'."
            )

    def draw(
        self, model: Model, shape: tuple[int, ...], n: int, rng: torch.Generator
    ) -> torch.Tensor:
        """Return n starts of noise, rows of this shape, standardized space."""
        if not isinstance(self.noise, str):
            source = torch.as_tensor(self.noise, dtype=torch.float32, device=rng.device)
            return source[torch.randint(len(source), (n,), generator=rng, device=rng.device)]
        if model.base is not None and self.noise in ("auto", "base"):
            return model.base.sample(n, rng)
        noise = torch.empty(n, *shape, device=rng.device)
        if self.noise == "uniform":
            return noise.uniform_(-self.noise_scale, self.noise_scale, generator=rng)
        return noise.normal_(generator=rng).mul_(self.noise_scale)
