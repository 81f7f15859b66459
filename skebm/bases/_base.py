"""The two halves of a base: parameters that fit, and the fitted density."""

from __future__ import annotations

__all__ = ["Base", "BaseComponent", "log_sum_exp"]

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from skebm._components import Component
from skebm.bases._conditional import Components

LEAST = -80.0  # log of a share that adds nothing; exponentials of less are slow, and denormal soon


class Base(torch.nn.Module):
    """A normalized density in standardized space; its tensors are buffers, never trained.

    ``cls(**tensors)`` with the tensors of ``state_dict()`` rebuilds it, which is how a saved
    estimator gets it back.
    """

    n_features: int
    has_gradient = True

    _derived: tuple[str, ...] = ()

    def _derive(self) -> None:
        """Set what follows from the buffers alone, once for all evaluations: `_derived`."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._derived}

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._derive()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._derive()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._derive()

    @property
    def in_double(self) -> bool:
        """Whether densities are computed in double, whatever rows come in."""
        return False

    @property
    def inverse_width(self) -> float:
        """One over the least width that the density has, standardized units."""
        return 1.0

    @abstractmethod
    def log_prob_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p0(x) (n,), nats, and its gradient (n, d)."""

    @abstractmethod
    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Return log p0(x), shape (n,), nats."""

    @abstractmethod
    def sample(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """Draw (n, d) exact, independent rows."""

    def components(self) -> Components:
        """Return the density as Gaussian components, of which any columns can be given.

        Raises
        ------
        TypeError
            If it has none.
        """
        name = type(self).__name__.removesuffix("Base")
        raise TypeError(
            f"base must have conditional densities for rows with missing values, got {name}. Use "
            "'union', 'mixture', 'kernel' or 'gaussian'."
        )

    def warn_if_blurred(self) -> None:
        """Warn where the rows are much narrower than what it was fitted with."""

    def log_prob_left_out(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return log p0 of the rows (n, d) that it was fitted to, each as if it had not been there.

        Bases that cannot tell return `log_prob`.
        """
        return self.log_prob(x)


def log_sum_exp(joint: torch.Tensor) -> torch.Tensor:
    """Return the log of sums of exponentials along the first axis, minus infinity of none."""
    top = joint.detach().amax(0)  # its gradient cancels
    shift = top.clamp(min=torch.finfo(top.dtype).min)  # differences of infinities are none
    return (joint - shift).clamp_(min=LEAST).exp_().sum(0).log_().add_(top)


class BaseComponent(Component):
    """Parameters of a base; ``fit`` makes the density."""

    @abstractmethod
    def fit(self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator) -> Base:
        """Fit to standardized rows (n, d) with optional weights (n,)."""
