"""The two halves of a base: parameters that fit, and the fitted density."""

from __future__ import annotations

__all__ = ["Base", "BaseComponent"]

from abc import abstractmethod

import torch

from skebm._components import Component


class Base(torch.nn.Module):
    """A normalized density in standardized space; its tensors are buffers, never trained.

    ``cls(**tensors)`` with the tensors of ``state_dict()`` rebuilds it, which is how a saved
    estimator gets it back.
    """

    n_features: int

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

    def warn_if_blurred(self) -> None:
        """Warn where the rows are much narrower than what it was fitted with."""

    def log_prob_left_out(self, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Return log p0 of the rows (n, d) that it was fitted to, each as if it had not been there.

        Bases that cannot tell return `log_prob`.
        """
        return self.log_prob(x)


class BaseComponent(Component):
    """Parameters of a base; ``fit`` makes the density."""

    @abstractmethod
    def fit(self, x: torch.Tensor, weight: torch.Tensor | None, rng: torch.Generator) -> Base:
        """Fit to standardized rows (n, d) with optional weights (n,)."""
