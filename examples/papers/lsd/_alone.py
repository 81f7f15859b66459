"""What `print_hours` asks of an estimator, for a critic or a model that is trained by hand."""

from __future__ import annotations

__all__ = ["Alone"]

from collections.abc import Callable
from typing import Any


class Alone:
    """A training of so many updates.

    Parameters
    ----------
    train : callable
        Takes rows, or what else it is trained on, and a number of updates.
    max_iter : int
        Updates of the mode.
    """

    checkpoint_dir = None

    def __init__(self, train: Callable[[Any, int], Any], max_iter: int) -> None:
        self.train = train
        self.max_iter = max_iter

    def set_params(self, max_iter: int, verbose: int) -> None:
        self.max_iter = max_iter

    def fit(self, X: Any) -> None:
        self.train(X, self.max_iter)
