"""Adapter for any torch distribution."""

from __future__ import annotations

__all__ = ["TorchDistribution"]

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from skebm.bases._base import Base, BaseComponent

BLOCK = 4096  # rows that are checked at once


class TorchDistribution(BaseComponent):
    """Use a distribution, or a normalizing flow's, as the base.

    Parameters
    ----------
    distribution : torch.distributions.Distribution, torch.nn.Module or callable
        An object with ``log_prob(x)`` (n, d) -> (n,), nats, and ``sample((n,))`` -> (n, d), in
        *standardized* space; a module that returns one when it is called without arguments (a flow
        of zuko); or a function that gets the standardized training rows and returns one or the
        other (train a flow there).

    Raises
    ------
    TypeError
        From ``fit``, if the object has no ``log_prob`` and ``sample``, or is a module that needs a
        context.
    ValueError
        From ``fit``, if its ``log_prob`` of n rows is not n finite numbers: of another shape, or
        where it does not cover all training rows.

    Notes
    -----
    A copy is used, in the precision and on the device of the rows, with every tensor in it; the
    score is taken by autograd. Rows outside its support have density 0. Draws fork torch's global
    generator and put it back. An estimator with this base pickles where the distribution, or the
    module, does; ``save`` refuses it.

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
        is_module = isinstance(distribution, torch.nn.Module | type)
        if callable(distribution) and not is_module and not hasattr(distribution, "log_prob"):
            distribution = distribution(x)
        _check_kind(distribution)
        base = TorchDistributionBase(copy.deepcopy(distribution), x.shape[1])
        base = base.to(device=x.device, dtype=x.dtype)
        _check_values(base, x)
        return base


class TorchDistributionBase(Base):
    """The distribution behind the `Base` contract."""

    distribution: Any

    def __init__(self, distribution: Any, n_features: int) -> None:
        super().__init__()
        vars(self)["distribution"] = distribution  # no part of the state: no file rebuilds it
        self.n_features, self.dtype = n_features, torch.float32
        if isinstance(distribution, torch.nn.Module):
            distribution.requires_grad_(False).eval()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Convert the distribution too, module or not, as ``double`` and ``to`` ask for."""
        self.dtype = fn(torch.zeros(0, dtype=self.dtype)).dtype
        if isinstance(self.distribution, torch.nn.Module):
            self.distribution._apply(fn)
        else:
            with _Converted(fn):
                vars(self)["distribution"] = copy.deepcopy(self.distribution)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""
        return self._log_prob(x)

    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,) and its gradient (n, d) by autograd."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            log_prob = self._log_prob(leaf)
            if not log_prob.requires_grad:  # of no row, or constant
                return log_prob, torch.zeros_like(x)
            (score,) = torch.autograd.grad(log_prob.sum(), leaf)
        return log_prob.detach(), score

    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) rows; torch's global generator is forked and put back."""
        seed = int(torch.randint(2**31, (1,), generator=rng, device=rng.device))
        devices = [rng.device] if rng.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(seed)
            return self._current().sample((n,)).to(rng.device, self.dtype)

    def _log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log density, minus infinity outside the support; torch itself would raise there."""
        distribution = self._current()
        try:
            inside = distribution.support.check(x.detach())
        except (AttributeError, NotImplementedError):
            return distribution.log_prob(x)
        if inside.shape != x.shape[:1]:
            return distribution.log_prob(x)
        if torch.compiler.is_compiling():  # nothing may branch on values
            return torch.where(inside, distribution.log_prob(x), -torch.inf)
        if inside.all():
            return distribution.log_prob(x)
        log_prob = torch.full_like(x[:, 0], -torch.inf)
        if inside.any():
            log_prob = log_prob.index_put((inside,), distribution.log_prob(x[inside]))
        return log_prob

    def _current(self) -> Any:
        """Return what has ``log_prob``: of a lazy module, what it is now."""
        lazy = not hasattr(self.distribution, "log_prob")
        return self.distribution() if lazy else self.distribution


def _check_kind(distribution: Any) -> None:
    found = distribution
    if isinstance(distribution, torch.nn.Module) and not hasattr(distribution, "log_prob"):
        try:
            found = distribution()
        except Exception as error:
            raise TypeError(
                "distribution must return a distribution when it is called without arguments, got "
                f"{type(distribution).__name__}, which raised {type(error).__name__}: {error}. "
                "Build the flow without context, or give a function of the rows."
            ) from error
    if isinstance(found, type) or not (hasattr(found, "log_prob") and hasattr(found, "sample")):
        raise TypeError(
            f"distribution must be an object with log_prob and sample, got {found!r}. Wrap "
            "it, or pass a torch.distributions object."
        )


@torch.no_grad()
def _check_values(base: TorchDistributionBase, x: torch.Tensor) -> None:
    n = len(x[:2])
    try:
        few = base.log_prob(x[:2])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"distribution must have a log_prob of rows of shape (n, {x.shape[1]}), got "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. Give one of "
            f"{x.shape[1]} columns."
        ) from error
    if few.shape != (n,):
        raise ValueError(
            f"distribution must have a log_prob of shape (n,), got {tuple(few.shape)} for {n} rows."
            " Wrap factorized distributions in Independent."
        )
    n_bad = sum(int((~base.log_prob(part).isfinite()).sum()) for part in x.split(BLOCK))
    if n_bad:
        raise ValueError(
            "distribution must have a finite log_prob at all training rows, got "
            f"{n_bad} of {len(x)} where it has none. Widen its support: rows are standardized, "
            f"here from {float(x.min()):.3g} to {float(x.max()):.3g}."
        )


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
