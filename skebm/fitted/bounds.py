"""Bounds of the mean negative log likelihood through a generator, and whether it folds."""

from __future__ import annotations

__all__ = ["Bound", "Bounds", "GeneratorReport", "report_generator"]

import math
from typing import NamedTuple

import torch

from skebm.bases import Base
from skebm.energies import Model
from skebm.networks import half_log_det, log_volume, value_and_jacobian
from skebm.networks._evaluating import evaluating
from skebm.networks.jacobian import MOST_EXACT, flat_rows
from skebm.objectives import BidirectionalBounds
from skebm.objectives._generator_entropy import minority, noisy_log_density, orientation
from skebm.objectives.bidirectional_bounds import FLOOR
from skebm.partition._base import from_log_weights, log_ratio

N_LATENTS = 16384
N_ITERATED = 1024  # latents where singular values are iterated for, and of images
N_CHECKED = 256  # latents where only the rank is looked at, and the fewest
N_COLUMNS = 1 << 17  # of Jacobians behind a report: fewer latents where they are long
MOST_DENSE = 512  # latents of a square generator up to which its Jacobian is formed
N_CENTERS = 8192  # fresh latents behind one log density of a noisy generator
BLOCK = 4096  # rows of a proposal at a time
COLUMNS_AT_ONCE, IMAGE_COLUMNS = 1 << 15, 1 << 12  # of Jacobians


class Bound(NamedTuple):
    """A bound of the mean negative log likelihood, in the units of X.

    Parameters
    ----------
    value : float
        nats per row; nan where it does not exist.
    stderr : float
        Its standard error from rows and latents, nats; nan for one row.
    ess : float
        Effective number of the generator's rows behind it; for the lower bound and the surrogate
        all of them.

    Examples
    --------
    >>> from skebm.fitted import Bound
    >>> Bound(1.5, 0.01, 16384.0).value
    1.5
    """

    value: float
    stderr: float
    ess: float


class Bounds(NamedTuple):
    """Bounds of the mean negative log likelihood of some rows, and an estimate beside.

    Parameters
    ----------
    lower_bound : Bound
        Valid where the generator is injective.
    upper_surrogate : Bound
        The paper's upper objective, no bound.
    cubo : Bound
        Upper bound by the second moment of importance weights: the larger of that from the
        generator and, where there is one, that from a density fitted to rows. Its effective size
        cannot see a mode that neither of them meets.
    ais : Bound
        The negative log likelihood with log Z by annealed importance sampling that starts near the
        data and the generator; an estimate, no bound, and ess is the chains' effective number.
    fold_fraction : float
        Share of folded latents; above 0 the lower bound is in doubt.

    Examples
    --------
    >>> from skebm.fitted import Bound, Bounds
    >>> b = Bound(1.0, 0.1, 10.0)
    >>> Bounds(b, b, b, b, 0.0).ais.value
    1.0
    """

    lower_bound: Bound
    upper_surrogate: Bound
    cubo: Bound
    ais: Bound
    fold_fraction: float


NO_BOUND = Bound(math.nan, math.nan, 0.0)


class GeneratorReport(NamedTuple):
    """What was found; log densities in standardized space plus a shift into the units of X."""

    lower: Bound
    surrogate: Bound
    cubo: Bound
    fold: float
    degenerate: float  # share of latents with a singular value below the floor


class _Draws(NamedTuple):
    potential: torch.Tensor  # (n,) U at generated rows
    volume: torch.Tensor  # (n,) the entropy's Jacobian term
    penalty: torch.Tensor  # (n,)
    latent: torch.Tensor  # (n, d)
    folded: torch.Tensor | None
    flat: torch.Tensor  # (n,) whether a singular value is below the floor


def report_generator(
    model: Model,
    objective: BidirectionalBounds,
    network: torch.nn.Module,
    n_features: int,
    at_rows: torch.Tensor,
    rng: torch.Generator,
    proposal: Base | None = None,
) -> GeneratorReport:
    """Evaluate bounds, given the negative log densities but for log Z of held-out rows (m,).

    A generator that misses a mode has even weights and a second moment that is too small: it is
    compared with that of a `proposal` which knows the rows.
    """
    latent_dim = objective.latents((n_features,))
    square = latent_dim == n_features
    exact = latent_dim <= MOST_EXACT or (square and latent_dim <= MOST_DENSE)
    dense = square or objective.noise() > 0  # a density among all rows
    many = N_ITERATED
    if exact and objective.image_shape is None:
        many = min(N_LATENTS, max(N_COLUMNS // latent_dim, N_CHECKED))
    n = many if dense else N_CHECKED
    draws = _draw(model, objective, network, latent_dim, n, exact, rng)
    fold = math.nan if draws.folded is None else float(draws.folded.double().mean())
    degenerate = float(draws.flat.double().mean())
    if not dense:
        return GeneratorReport(NO_BOUND, NO_BOUND, NO_BOUND, fold, degenerate)
    if square:
        entropy = draws.volume - _log_prior(draws.latent)
    else:
        entropy = -_noisy(network, objective.noise(), latent_dim, len(draws.volume), rng)
    gain = entropy.double() - draws.potential
    lower = _mean_bound(at_rows, gain)
    surrogate, cubo = NO_BOUND, NO_BOUND
    if square:
        if objective.upper.kind == "bidirectional":
            penalty = objective.weight(latent_dim) * float(draws.penalty.double().mean())
            surrogate = lower._replace(value=lower.value + max(penalty - objective.margin, 0.0))
        if exact and degenerate == 0 and objective.noise() == 0:
            weights = [-draws.potential + draws.volume - _log_prior(draws.latent)]
            if proposal is not None:
                x = proposal.sample(N_LATENTS, rng)
                weights += [torch.cat([log_ratio(model, proposal, b) for b in x.split(BLOCK)])]
            bounds = [_second_moment(at_rows, log_weight) for log_weight in weights]
            cubo = max(bounds, key=lambda bound: bound.value)
    return GeneratorReport(lower, surrogate, cubo, fold, degenerate)


def _draw(
    model: Model,
    objective: BidirectionalBounds,
    network: torch.nn.Module,
    d: int,
    n: int,
    exact: bool,
    rng: torch.Generator,
) -> _Draws:
    z = torch.empty(n, d, device=rng.device).normal_(generator=rng)
    noise, square = objective.noise(), False
    columns = COLUMNS_AT_ONCE if objective.image_shape is None else IMAGE_COLUMNS
    parts: list[tuple[torch.Tensor, ...]] = []
    with evaluating(network):
        for block in z.split(max(columns // d, 1)):
            with torch.no_grad():
                if exact:
                    x, jacobian = value_and_jacobian(network, block)
                    volume, flat = half_log_det(jacobian), flat_rows(jacobian, 1.001 * FLOOR)
                    square = jacobian.shape[1] == d
                else:
                    x = network(block)
                    volume = log_volume(
                        network, block, "singular-value", n_iter=objective.spread.n_lobpcg, rng=rng
                    )
                    flat = (volume / d).exp() < 1.001 * FLOOR  # floored values round
                signs = orientation(jacobian) if square else torch.zeros_like(flat)
                x = x + noise * torch.empty_like(x).normal_(generator=rng)
                potential = model.potential(x)
            penalty = torch.zeros_like(potential)
            if objective.upper.kind == "bidirectional":
                penalty = objective.penalty_terms(model, network, block, rng).detach()
            parts.append((potential, volume, penalty, flat, signs))
    potential, volume, penalty, flat, signs = (torch.cat(p) for p in zip(*parts, strict=True))
    rarer = minority(signs) if square else None
    return _Draws(potential.double(), volume.double(), penalty, z, rarer, flat)


def _log_prior(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * (z.double().square() + math.log(2 * math.pi)).sum(1)


def _noisy(
    network: torch.nn.Module, noise: float, d: int, n: int, rng: torch.Generator
) -> torch.Tensor:
    """Return upper estimates of the log density of a noisy generator at n of its rows."""
    with torch.no_grad(), evaluating(network):
        z = torch.empty(n + N_CENTERS, d, device=rng.device).normal_(generator=rng)
        means = torch.cat([network(block) for block in z.split(4096)])
        own, centers = means[:n], means[n:]
        x = own + noise * torch.empty_like(own).normal_(generator=rng)
        blocks = zip(x.split(1024), own.split(1024), strict=True)
        return torch.cat([noisy_log_density(centers, a, b, noise) for a, b in blocks])


def _spread(at_rows: torch.Tensor) -> float:
    """Return the squared standard error of the rows' mean, nan for one."""
    return float(at_rows.var()) / len(at_rows) if len(at_rows) > 1 else math.nan


def _mean_bound(at_rows: torch.Tensor, gain: torch.Tensor) -> Bound:
    spread = float(gain.var()) / len(gain) + _spread(at_rows)
    value = float(at_rows.mean()) + float(gain.mean())
    return Bound(value, math.sqrt(spread), float(len(gain)))


def _second_moment(at_rows: torch.Tensor, log_weight: torch.Tensor) -> Bound:
    """Return the bound by half the log second moment of exp(-U) / q."""
    second = from_log_weights(2 * log_weight.double(), "importance")
    spread = 0.25 * second.stderr**2 + _spread(at_rows)
    return Bound(float(at_rows.mean()) + 0.5 * second.value, math.sqrt(spread), second.ess)
