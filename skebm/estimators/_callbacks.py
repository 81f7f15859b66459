"""scikit-learn's own callbacks, where this version of scikit-learn has them (1.9 and later)."""

from __future__ import annotations

__all__ = ["CallbackSupportMixin", "FitTask", "with_callbacks"]

from collections.abc import Callable
from functools import partial
from typing import Any

from skebm.train import TrainState

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9: fit runs without callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's mixin."""

    def with_callbacks(method: Callable) -> Callable:
        """Return the method as it is."""
        return method


class FitTask:
    """One fit as a scikit-learn task, with a subtask per validation.

    ``rebuild``, once there, returns what an estimator would hold had training stopped at a state.
    """

    rebuild: Callable[[TrainState], dict[str, Any]] | None = None

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self.estimator, self.context = estimator, None
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.about = {"X": X, "y": y, "metadata": metadata}
        if hasattr(estimator, "_skl_callbacks"):
            self.context = estimator._init_callback_context(max_subtasks=None)
            self.context.call_on_fit_task_begin(estimator=estimator, **self.about)

    def on_validation(self, state: TrainState) -> bool:
        """Tell the callbacks that another stretch of updates is done; return whether to stop."""
        if self.context is None:
            return False
        part = self.context.subcontext(task_name="validation")
        part.call_on_fit_task_begin(estimator=self.estimator, **self.about)
        now = None if self.rebuild is None else partial(self.rebuild, state)
        return part.call_on_fit_task_end(
            estimator=self.estimator, **self.about, reconstruction_attributes=now
        )

    def end(self, found: dict[str, Any]) -> None:
        """Tell the callbacks that the fit is done, and what it found."""
        if self.context is not None:
            self.context.call_on_fit_task_end(
                estimator=self.estimator, **self.about, reconstruction_attributes=found
            )
