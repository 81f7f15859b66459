"""What a generator's update adds for its entropy: by the Jacobian, information or a posterior."""

from __future__ import annotations

__all__ = [
    "EntropyTerm",
    "information_term",
    "jacobian_term",
    "logdet_term",
    "minority",
    "noisy_log_density",
    "orientation",
    "posterior_term",
]

import math
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

from skebm.networks import FeedForward, half_log_det, singular_values, value_and_jacobian
from skebm.networks.jacobian import log_volume

STEEPEST = 5.0  # nats above the mean volume up to which the push grows in proportion
SHOWN = 8  # rows whose singular values are followed, above two latent dimensions
SHOWN_COLUMNS = 256  # of Jacobians that are formed to be followed alone
N_POSTERIOR = 20  # latents behind one score of the generator's density: VERA's


class EntropyTerm(NamedTuple):
    """What to add to a generator's loss, and what it saw."""

    loss: torch.Tensor  # () minus the entropy, or what has its gradient
    volume: torch.Tensor  # (m,) log volumes, nats; without a graph
    fold: torch.Tensor  # () share of latents whose determinant has the rarer sign
    smallest: torch.Tensor  # (k,) smallest singular values of some rows; without a graph
    share: torch.Tensor  # (m,) of each latent's volume in m times minus the loss


@torch.no_grad()
def orientation(jacobian: torch.Tensor) -> torch.Tensor:
    """Return which square Jacobians (n, d, d) have a negative determinant, (n,)."""
    if jacobian.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(1))
        return a * d < b * c
    return torch.linalg.slogdet(jacobian).sign < 0


def minority(flags: torch.Tensor) -> torch.Tensor:
    """Return the flags (n,), or their opposite where most are set."""
    return flags if flags.double().mean() <= 0.5 else ~flags


def jacobian_term(
    generator: torch.nn.Module,
    z: torch.Tensor,
    method: str,
    n_iter: int,
    fold_penalty: float,
    rng: torch.Generator,
) -> EntropyTerm:
    """Return minus the mean log volume (Eq. 9 or 11), and a push against folds.

    A latent whose Jacobian has the rarer orientation earns no entropy; its volume is pushed through
    zero instead, in proportion to its size over the batch's geometric mean (the gradient of -size;
    the term itself is its linearization).
    """
    none, d = z.new_zeros(()), z.shape[1]
    if method != "logdet":
        volume = log_volume(generator, z, method, n_iter=n_iter, rng=rng)
        smallest = (volume.detach() / d).exp()  # of "singular-value"
        if method == "hutchinson":
            smallest = _followed(value_and_jacobian(generator, z[: max(SHOWN_COLUMNS // d, 1)])[1])
        return EntropyTerm(-volume.mean(), volume.detach(), none, smallest, torch.ones_like(volume))
    return logdet_term(value_and_jacobian(generator, z)[1], fold_penalty)


def logdet_term(jacobian: torch.Tensor, fold_penalty: float) -> EntropyTerm:
    """Return that of ``"logdet"``, from Jacobians (m, D, d) with a graph."""
    volume, smallest = half_log_det(jacobian), _followed(jacobian)
    share, fold = torch.ones_like(volume), volume.new_zeros(())
    if jacobian.shape[1] == jacobian.shape[2]:
        rarer = minority(orientation(jacobian))
        fold = rarer.to(volume.dtype).mean()
        if fold_penalty:
            excess = (volume - volume.mean()).detach().clamp(max=STEEPEST)
            share = torch.where(rarer, -fold_penalty * excess.exp(), share)
    return EntropyTerm(-(share * volume).mean(), volume.detach(), fold, smallest, share)


def _followed(jacobian: torch.Tensor) -> torch.Tensor:
    """Return the smallest singular value of each matrix, of the first alone where that is dear."""
    shown = jacobian if jacobian.shape[-1] <= 2 else jacobian[:SHOWN]
    return singular_values(shown.detach())[:, 0]


def information_term(statistics: FeedForward, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return minus the Jensen-Shannon estimate of the information between rows and latents.

    For a generator without noise it moves as the entropy does. The pairs of the product of the
    marginals are the batch's, shifted by one.
    """
    together = statistics(torch.cat([x, z], 1))
    apart = statistics(torch.cat([x, z.roll(1, 0)], 1))
    return softplus(-together).mean() + softplus(apart).mean()


def posterior_term(
    generator: torch.nn.Module,
    log_width: torch.Tensor,
    x: torch.Tensor,
    z: torch.Tensor,
    noise: float,
    rng: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a loss with the gradient of minus the entropy, and minus the posterior's bound.

    The score of the noisy generator's density at x (n, D) is the posterior mean of that of
    N(x; G(z'), noise^2), with latents z' from N(z, width^2) and importance weights. The width
    maximizes the evidence bound.
    """
    n, d = z.shape
    spread = torch.empty(n, N_POSTERIOR, d, device=z.device).normal_(generator=rng)
    with torch.no_grad():
        near = z[:, None] + log_width.exp() * spread
        means = generator(near.flatten(0, 1)).view(n, N_POSTERIOR, -1)
        away = means - x.detach()[:, None]
        log_weight = (
            -0.5 * near.square().sum(2)
            - 0.5 * away.square().sum(2) / noise**2
            + 0.5 * spread.square().sum(2)
        )
        weight = log_weight.softmax(1)
        score = torch.einsum("nk,nkD->nD", weight, away) / noise**2
    entropy_loss = (score * x).sum(1).mean()
    near = z + log_width.exp() * spread[:, 0]
    away = generator(near) - x.detach()
    evidence = -0.5 * near.square().sum(1) - 0.5 * away.square().sum(1) / noise**2
    width_loss = -(evidence.mean() + log_width.expand(d).sum())
    return entropy_loss, width_loss


def noisy_log_density(
    centers: torch.Tensor, x: torch.Tensor, own: torch.Tensor, noise: float
) -> torch.Tensor:
    r"""Return an upper estimate of the log density of a noisy generator at its own rows x (n, D).

    :math:`\log \frac{1}{K+1} \sum_k N(x; G(z_k), \sigma^2 I)` over K `centers` (K, D) from fresh
    latents and the one, `own` (n, D), that the row came from: on average at least the log density.
    """
    d2 = torch.cdist(x, centers).square()
    mine = (x - own).square().sum(1, keepdim=True)
    joint = torch.cat([mine, d2], 1).div(-2 * noise**2)
    constant = 0.5 * x.shape[1] * math.log(2 * math.pi * noise**2)
    return joint.logsumexp(1) - math.log(joint.shape[1]) - constant
