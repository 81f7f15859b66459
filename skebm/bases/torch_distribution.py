"""Adapter for any torch distribution."""

from __future__ import annotations

__all__ = ["TorchDistribution"]

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from skebm.bases._base import Base, BaseComponent


class TorchDistribution(BaseComponent):
    """Use a distribution, or a normalizing flow's, as the base.

    Parameters
    ----------
    distribution : torch.distributions.Distribution or callable
        An object with ``log_prob(x)`` (n, d) -> (n,), nats, and ``sample((n,))`` -> (n, d), in
        *standardized* space; or a callable that gets the standardized training rows and returns one
        (train a flow there).

    Raises
    ------
    TypeError
        From ``fit``, if the object has no ``log_prob`` and ``sample``.
    ValueError
        From ``fit``, if its ``log_prob`` of n rows is not n finite numbers.

    Notes
    -----
    The score is taken by autograd. ``double()`` and ``to()`` convert a copy of the distribution,
    with every tensor in it. Draws fork torch's global generator and put it back. An
    estimator with this base pickles where the distribution does; ``save`` refuses it.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Independent, Normal
    >>> from skebm.bases import TorchDistribution
    >>> normal = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    >>> base = TorchDistribution(normal).fit(torch.zeros(5, 2), None, torch.Generator())
    >>> base.log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution

    def fit(
        self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator
    ) -> TorchDistributionBase:
        """Check the distribution against standardized rows (n, d); weights do not matter."""
        distribution = self.distribution
        if callable(distribution) and not hasattr(distribution, "log_prob"):
            distribution = distribution(x)
        if not (hasattr(distribution, "log_prob") and hasattr(distribution, "sample")):
            raise TypeError(
                "distribution must be an object with log_prob and sample, got "
                f"{distribution!r}. Wrap it, or pass a torch.distributions object."
            )
        with torch.no_grad():
            value = distribution.log_prob(x[:2])
        if value.shape != (len(x[:2]),) or not value.isfinite().all():
            raise ValueError(
                "distribution must have a finite log_prob of shape (n,) on training rows, got "
                f"{value} for {len(x[:2])} rows. Wrap factorized distributions in Independent."
            )
        return TorchDistributionBase(distribution, x.shape[1])


class TorchDistributionBase(Base):
    """The distribution behind the `Base` contract."""

    def __init__(self, distribution: Any, n_features: int) -> None:
        super().__init__()
        self.distribution = distribution
        self.n_features = n_features

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Convert the distribution too where it is no module, as ``double`` and ``to`` ask for."""
        if not isinstance(self.distribution, torch.nn.Module):
            with _Converted(fn):
                self.distribution = copy.deepcopy(self.distribution)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return self.distribution.log_prob(x)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d) by autograd."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            log_prob = self.distribution.log_prob(leaf)
            (score,) = torch.autograd.grad(log_prob.sum(), leaf)
        return log_prob.detach(), score

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows; torch's global generator is forked and put back."""
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        devices = [rng.device] if rng.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            return self.distribution.sample((n,)).to(rng.device)


class _Converted(TorchFunctionMode):
    """Deep copies inside hold ``fn(tensor)`` in place of each tensor, and of each parameter."""

    def __init__(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        copies = (torch.Tensor.__deepcopy__, torch.Tensor.clone)  # parameters clone their data
        return self.fn(args[0].detach()) if func in copies else func(*args, **(kwargs or {}))
