"""Judge a model on held-out rows: its log likelihood, by importance weights from fixed draws."""

from __future__ import annotations

__all__ = ["HeldOutLikelihood", "held_out_given"]

import math

import torch

from skebm.bases import Base, Defensive
from skebm.energies import Model
from skebm.objectives import HeldOut
from skebm.objectives.importance_likelihood import relative_log_prob
from skebm.partition._base import LogPartition, from_log_weights
from skebm.partition.auto import exact_log_partition

N_REFERENCE = 8192
BLOCK = 4096  # rows at a time: convolutions of all of them would not fit
FEWEST_EFFECTIVE = 50  # effective draws below which log Z, and so the value, means nothing


class HeldOutLikelihood:
    """The mean log density of rows under a model whose energy changes.

    Parameters
    ----------
    model : Model
        Its base is where draws come from, unless there is a proposal.
    rows : Tensor of shape (n, ...)
        Training rows, to find a proposal near them where the model has no base. Above 32 columns no
        density that is fitted in seconds is near: then nothing can be judged, unless the energy
        knows its log Z.
    rng : torch.Generator
        Source of randomness.
    proposal : Base, optional
        Normalized density near the model, to be drawn from in place of the base.

    Examples
    --------
    >>> import torch
    >>> from skebm.bases import Gaussian
    >>> from skebm.energies import Model, Zero
    >>> from skebm.train import HeldOutLikelihood
    >>> rng = torch.Generator().manual_seed(0)
    >>> x = torch.randn(100, 1, generator=rng)
    >>> model = Model(Zero(), Gaussian().fit(x, None, rng), 1.0)
    >>> HeldOutLikelihood(model, x, rng)(model, x).gain
    0.0
    """

    def __init__(
        self, model: Model, rows: torch.Tensor, rng: torch.Generator, proposal: Base | None = None
    ) -> None:
        self._rows: torch.Tensor | None = None
        self._of_base = 0.0
        near = proposal or _near(model, rows, rng)
        source = model.base if near is None else near
        self._draws = None if source is None else source.sample(N_REFERENCE, rng)
        self._known = None  # log q - log p0 at the draws, which no energy changes
        if near is not None and self._draws is not None:
            self._known = relative_log_prob(near, model.base, self._draws)

    @torch.no_grad()
    def __call__(self, model: Model, rows: torch.Tensor) -> HeldOut | None:
        """Judge rows (n, ...); None where log Z is neither known nor to be had from draws."""
        log_z = exact_log_partition(model)
        if log_z is None and self._draws is not None:
            log_z = self._log_partition(model, self._draws)
        if log_z is None:
            return None
        if rows is not self._rows:  # no energy changes what its base says of them
            self._rows, self._of_base = rows, mean_of_base(model, rows)
        return held_out_given(model, log_z, rows, self._of_base)

    def _log_partition(self, model: Model, draws: torch.Tensor) -> LogPartition:
        blocks = draws.split(BLOCK)
        log_weight = -torch.cat([model.energy(block) for block in blocks]) / model.temperature
        return from_log_weights(
            log_weight if self._known is None else log_weight - self._known, "importance"
        )


@torch.no_grad()
def held_out_given(
    model: Model, log_z: LogPartition, rows: torch.Tensor, of_base: float | None = None
) -> HeldOut:
    """Return the mean log density of rows (n, ...) under this log Z; `of_base` is the base's.

    No row gains more on a base than the next best one: a single row far out must not make an
    energy.
    """
    lift = -(model.energy(rows) / model.temperature).double()
    if len(lift) > 2 and model.base is not None:
        lift = lift.clamp(max=float(lift.topk(2).values[1]))
    gain = float(lift.mean()) - log_z.value
    spread = float(lift.var()) / len(lift) if len(lift) > 1 else math.inf
    stderr = math.sqrt(spread + log_z.stderr**2)
    base = mean_of_base(model, rows) if of_base is None else of_base
    trusted = math.isfinite(gain) and log_z.ess >= FEWEST_EFFECTIVE
    value = base + gain - log_z.stderr if trusted else -math.inf
    return HeldOut(value, gain if trusted else -math.inf, stderr, log_z.ess)


def mean_of_base(model: Model, rows: torch.Tensor) -> float:
    """Return the mean of log p0 at rows (n, ...), nats; 0 without a base."""
    return 0.0 if model.base is None else float(model.base.log_prob(rows).double().mean())


def _near(model: Model, rows: torch.Tensor, rng: torch.Generator) -> Base | None:
    """Return a density fitted to rows (n, d), for models that have none of their own."""
    if exact_log_partition(model) is not None or model.base is not None:
        return None
    if rows.dim() > 2 or rows.shape[1] > Defensive().max_columns:
        return None
    return Defensive().fit(rows, None, rng)
