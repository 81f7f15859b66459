"""Numbers that judge a fitted density."""

__all__ = ["ood_metrics"]

from skebm.metrics.ood import ood_metrics
