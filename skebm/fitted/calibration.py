"""Put the weights of a model's modes right, by maximum likelihood over a mixture's components."""

from __future__ import annotations

__all__ = ["Calibration", "calibrate"]

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from skebm._ranks import same
from skebm._warn import warn
from skebm.bases import Gaussian
from skebm.bases.mixture import CANDIDATES, PATIENCE, ROUGH_TOL, MixtureBase, Shape
from skebm.energies import Model
from skebm.energies.reweighted import Reweighted
from skebm.exceptions import NormalizationWarning
from skebm.partition._base import log_ratio

MOST_ROWS = 2000  # that choose and fit the mixture
MOST_COMPONENTS = 30
N_DRAWS = 32768
WIDE_SHARE, WIDE_SCALE = 0.1, 2.0
FEWEST_EFFECTIVE = 20  # draws per component: fewer would fit their noise
REGULARIZATION = 1e-6  # on variances, standardized units squared


class Calibration(NamedTuple):
    """What became of it."""

    energy: torch.nn.Module
    proposal: MixtureBase  # the mixture and a wide Gaussian: near the data, heavier outside
    gain: float  # nats per held-out row
    ess: float
    n_components: int


def calibrate(
    model: Model,
    rows: torch.Tensor,
    weight: torch.Tensor | None,
    held_out: torch.Tensor | None,
    rng: torch.Generator,
) -> Calibration | None:
    """Fit ``log q + a . r(x)``; None where one component is enough or draws do not reach.

    The mixture is chosen by the Bayesian information criterion. The normalizer is importance
    sampled from it with a wide Gaussian beside it, on the same draws for every a, so the log
    likelihood is concave in a. Kept only where it gains on held-out rows.
    """
    order = torch.randperm(len(rows), generator=rng, device=rows.device)
    chosen = rows[order[:MOST_ROWS]]
    mixture = same(_by_criterion(chosen), rows.device)
    wide = Gaussian(inflation=WIDE_SCALE).fit(chosen, None, rng)
    proposal = same(_defended(mixture, wide), rows.device)
    draws = proposal.sample(N_DRAWS, rng)
    log_weight = log_ratio(model, proposal, draws).double()
    log_weight -= log_weight.logsumexp(0)
    ess = same(float((-(2 * log_weight).logsumexp(0)).exp()))
    k = len(mixture.means)
    if not ess >= FEWEST_EFFECTIVE * k:
        warn(
            f"calibrate=True was left out: {N_DRAWS} draws from a mixture of {k} components are "
            f"worth {ess:.0f} of the model's. The weights of separated modes stay as training left "
            "them; use base='mixture' or more rows, or calibrate=False.",
            NormalizationWarning,
        )
        return None
    target = _mean_share(mixture, rows, weight)
    share = mixture.responsibilities(draws).double().cpu().numpy()
    log_w = log_weight.cpu().numpy()
    lifts = _maximize(target, share, log_w, len(rows))
    judged = target if held_out is None else _mean_share(mixture, held_out, None)
    gain = float(judged @ lifts - logsumexp(log_w + share @ lifts))
    lifts, gain = same((lifts, gain))
    energy = model.energy
    if k > 1 and gain > 0:
        lifted = torch.from_numpy(lifts * model.temperature).to(rows)
        energy = Reweighted(energy, mixture, lifted)
    return Calibration(energy, proposal, max(gain, 0.0), ess, k)


def _by_criterion(rows: torch.Tensor) -> MixtureBase:
    """Return the mixture with the lowest Bayesian information criterion."""
    n, d = rows.shape
    x, best_value, losses = rows.double().cpu().numpy(), math.inf, 0
    shape = best = Shape.whole(x)
    for k in [k for k in CANDIDATES if k <= min(MOST_COMPONENTS, max(1, n // (d + 1)))]:
        shape = shape.split(k).fitted(x, REGULARIZATION, ROUGH_TOL)
        likelihood = MixtureBase.from_moments(*shape, rows.device).log_prob(rows).double().sum()
        value = (k * (d + 1) * (d + 2) / 2 - 1) * math.log(n) - 2 * float(likelihood)
        losses += 1
        if value < best_value:
            best, best_value, losses = shape, value, 0
        if losses == PATIENCE:
            break
    return MixtureBase.from_moments(*best, rows.device)


def _defended(near: MixtureBase, wide: MixtureBase) -> MixtureBase:
    aside = near.means.new_tensor([WIDE_SHARE])
    share = torch.cat([near.log_weights.exp() * (1 - WIDE_SHARE), aside])
    return MixtureBase(
        share.log(),
        torch.cat([near.means, wide.means]),
        torch.cat([near.factors, wide.factors]),
    )


def _mean_share(
    mixture: MixtureBase, rows: torch.Tensor, weight: torch.Tensor | None
) -> np.ndarray:
    """Return each component's mean responsibility for rows (n, d) of these weights, (k,)."""
    share = mixture.responsibilities(rows).double().cpu().numpy()
    return np.average(share, axis=0, weights=None if weight is None else weight.cpu().numpy())


def _maximize(target: np.ndarray, share: np.ndarray, log_w: np.ndarray, n: int) -> np.ndarray:
    """Return a, (k,), with a faint pull toward 0 that fixes its free constant."""

    def loss(a: np.ndarray) -> tuple[float, np.ndarray]:
        tilted = log_w + share @ a
        log_z = logsumexp(tilted)
        slope = np.exp(tilted - log_z) @ share - target
        return log_z - target @ a + 0.5 * (a @ a) / n, slope + a / n

    return minimize(loss, np.zeros(len(target)), jac=True, method="L-BFGS-B").x
