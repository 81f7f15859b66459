"""From a trained model to log Z."""

from __future__ import annotations

__all__ = ["MOST_COLUMNS", "choose_proposal", "estimate_log_partition"]

import warnings
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning

from skebm._components import resolve
from skebm.bases import Base, Defensive, Gaussian
from skebm.energies import Zero
from skebm.estimators._parameters import ALIASES
from skebm.estimators._preparation import Prepared
from skebm.estimators._reading import settle
from skebm.exceptions import NormalizationWarning
from skebm.partition import ImportanceSampling, LogPartition

PROPOSAL_ROWS = 4000
MOST_COLUMNS = Defensive().max_columns  # beyond, nothing fitted in seconds is near the model


def choose_proposal(estimator: Any, prepared: Prepared, rng: torch.Generator) -> Base:
    """Return the normalized density that log Z and samples are reached from.

    Without a base it is fitted to chains of the model that start at the data.
    """
    if estimator.base_ is not None:
        return estimator.base_
    rows = prepared.noised(rng)
    if estimator.n_features_in_ > MOST_COLUMNS:
        return Gaussian().fit(rows, prepared.weight, rng)
    order = torch.randperm(len(rows), generator=rng, device=rows.device)
    ends = settle(estimator._model(), rows[order[:PROPOSAL_ROWS]], rng)
    return Defensive().fit(ends, None, rng)


def estimate_log_partition(estimator: Any, rng: torch.Generator) -> LogPartition | None:
    """Estimate log Z as the estimator's ``log_partition`` says, and warn if it is vague."""
    chosen = estimator.log_partition
    automatic = isinstance(chosen, str) and chosen == "auto"
    if chosen is None:
        return None
    if isinstance(estimator.energy_, Zero) and estimator.base_ is not None:
        return LogPartition(0.0, 0.0, float("inf"), "exact")
    if automatic and estimator.image_shape is not None:
        return None
    method = resolve(chosen, *ALIASES["log_partition"], "log_partition")
    model, proposal = estimator._model(), estimator._proposal
    try:
        result = method.estimate(model, proposal, rng)
    except KeyboardInterrupt:
        result = ImportanceSampling(max_samples=16384).estimate(model, proposal, rng)
        warnings.warn(
            f"The estimate of log Z was interrupted; a short one has a standard error of "
            f"{result.stderr:.2g} nats. Fit again for a better one.",
            ConvergenceWarning,
            stacklevel=4,
        )
    if not result.trusted:
        warnings.warn(
            f"log Z is {result.value:.3f} with a standard error of {result.stderr:.2g} nats "
            f"(effective sample size {result.ess:.0f}, by {result.method}), which is too vague "
            "to compare models. Use a base nearer to the data, or AIS with more chains.",
            NormalizationWarning,
            stacklevel=4,
        )
    return result
