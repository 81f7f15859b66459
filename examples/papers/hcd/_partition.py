"""Whether there is a log Z, and what it is where models have mass far from the data.

The pointwise perceptron f is linear on pieces, so f(x) / |x| has a limit along each ray. Where
these limits have both signs, {f = 0} reaches to infinity, and the integral of exp(-f^2 / (2T))
along it is infinite: there is no log Z. Times a uniform density on a box there always is.
"""

from __future__ import annotations

__all__ = ["Annealing", "both_signs_far_out", "box", "mean_log_density", "wide"]

from typing import NamedTuple

import numpy as np
import torch

from skebm.bases import Base, Defensive
from skebm.bases.mixture import MixtureBase
from skebm.bases.uniform import UniformBase
from skebm.energies import Energy, Model
from skebm.partition import AIS, LogPartition
from skebm.partition._base import widened

WIDE = 10.0  # standard deviation, in each column, of where annealing starts
FAR = 1e6  # times which a direction is far out: constants of f no longer matter
SHOULDER = 0.001  # of a box, as a share of its width
LONGEST, SHORTEST = 0.1, 1e-4  # steps of the ascent, radians


class Annealing(NamedTuple):
    """How often, how long and how finely: starts far out, then starts near the chains' ends."""

    n_directions: int
    n_ascent: int
    rough: AIS
    fine: AIS


def wide(n_features: int) -> Base:
    """Return N(0, 100 I)."""
    return MixtureBase.from_moments(
        np.ones(1), np.zeros((1, n_features)), WIDE**2 * np.eye(n_features)[None], "cpu"
    )


def box(n_features: int, half: float) -> Base:
    """Return the uniform density on [-half, half] in each column, with thin shoulders."""
    high = torch.full((n_features,), half)
    return UniformBase(-high, high, 2 * SHOULDER * high)


def both_signs_far_out(
    network: Energy, n_features: int, annealing: Annealing, rng: torch.Generator
) -> tuple[float, float]:
    """Return the least and the largest f(x) / |x| that ascent on a far sphere finds.

    Of different signs they prove that log Z is infinite; of one, they prove nothing.
    """
    found = []
    for sign in (-1.0, 1.0):
        u = torch.randn(annealing.n_directions, n_features, generator=rng)
        u /= u.norm(dim=1, keepdim=True)
        for i in range(annealing.n_ascent):
            slope = sign * network.value_and_gradient(FAR * u)[1]
            slope -= (slope * u).sum(1, keepdim=True) * u
            step = LONGEST * (SHORTEST / LONGEST) ** (i / annealing.n_ascent)
            u += step * slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-9)
            u /= u.norm(dim=1, keepdim=True)
        value = network.value_and_gradient(FAR * u)[0] / FAR
        found.append(float(sign * (sign * value).max()))
    return found[0], found[1]


def mean_log_density(
    model: Model, start: Base, x: torch.Tensor, annealing: Annealing, rng: torch.Generator
) -> tuple[float, LogPartition]:
    """Return the mean log density of rows (n, d), nats, and log Z.

    Chains are annealed from `start`, then others from a mixture fitted to where those ended; the
    error of the second estimate is widened where the first one says something else.
    """
    rough = annealing.rough.anneal(model, start, rng)
    near = Defensive().fit(rough.x, None, rng)
    log_z = widened(annealing.fine.estimate(model, near, rng), rough.result)
    return -float(model.potential(x).double().mean()) - log_z.value, log_z
