"""How a critic is trained, chosen and read."""

from __future__ import annotations

__all__ = ["CriticFit", "FittedCritic", "fit_critic"]

from copy import deepcopy
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from skebm._surroundings import own_settings
from skebm.data import Affine
from skebm.networks import CriticNetwork
from skebm.objectives._base import descend
from skebm.objectives._optimizers import Adam
from skebm.stein._scores import Rows, evaluate_score, standardized
from skebm.stein.settings import CriticSettings

RATE = 1e-3  # where the critic has no learning rate of its own
FEWEST = 2  # rows of a part of the split
BLOCK, DENSE_BLOCK = 4096, 256  # rows; the second where a dense Jacobian is multiplied out
NEW, EARLY = 0.02, 2  # share of the last update in the mean of critics, larger at the start
SPIKE, MEMORY = 5.0, 0.95  # gradients are clipped to SPIKE times their running norm
FAR = 20.0  # interquartile ranges from the quartiles at which a row that chooses stops counting
Part = tuple[torch.Tensor, torch.Tensor]  # rows and scores
TINY = 1e-6  # added to a standard deviation that divides, as in the authors' program


class CriticFit(NamedTuple):
    """A trained critic, its per-row Stein values on the test rows, and how training went."""

    critic: FittedCritic
    values: np.ndarray
    history: list[dict[str, float]]


class FittedCritic:
    """A trained critic as a function of rows in the units of X.

    With the standardized row :math:`z = (x - m) / s` and the network f, the critic is
    :math:`s f(z)`; its Stein values do not depend on the units.

    Parameters
    ----------
    network : CriticNetwork
        Map of standardized rows.
    standardizer : Affine
        The map to standardized units.

    Examples
    --------
    >>> from skebm.datasets import GaussianDensity
    >>> from skebm.stein import CriticSettings, learned_stein_discrepancy
    >>> density = GaussianDensity([[1.0]])
    >>> X = density.sample(200, random_state=0) + 1
    >>> critic = CriticSettings(max_iter=50)
    >>> result = learned_stein_discrepancy(density, X, critic=critic, random_state=0)
    >>> result.critic(X).shape, result.critic.stein_values(density, X).shape
    ((200, 1), (200,))
    """

    def __init__(self, network: CriticNetwork, standardizer: Affine) -> None:
        self.network = network
        self.standardizer = standardizer

    @own_settings()
    def __call__(self, X: Any) -> np.ndarray:
        """Return the critic's vectors.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n, d)
            Vectors, in units of X times 1 / (2 l2) nats.
        """
        X = check_array(X, dtype=np.float64, input_name="X")
        z = (X - self.standardizer.location) / self.standardizer.scale
        with torch.no_grad():
            value = torch.cat([self.network(part) for part in self._tensor(z).split(BLOCK)])
        return value.cpu().numpy().astype(np.float64) * self.standardizer.scale

    @own_settings()
    def stein_values(self, score: Any, X: Any) -> np.ndarray:
        """Return ``score(x) . f(x) + div f(x)`` of each row, with the exact divergence.

        Parameters
        ----------
        score : callable or fitted density
            The model, as in `learned_stein_discrepancy`.
        X : array-like of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Stein values; their mean over rows of the model itself is 0.
        """
        X, values = evaluate_score(score, X)
        z = (X - self.standardizer.location) / self.standardizer.scale
        values = values * self.standardizer.scale
        return self.stein_and_norm(self._tensor(z), self._tensor(values))[0].cpu().numpy()

    @torch.no_grad()
    def stein_and_norm(
        self, x: torch.Tensor, score: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Stein values and squared norms of the critic, (n,) each, in float64."""
        size = BLOCK if len(self.network.layers) <= 3 else DENSE_BLOCK
        values, norms = [], []
        for a, b in zip(x.split(size), score.split(size), strict=True):
            f, divergence = self.network.value_and_divergence(a)
            values.append(((f * b).sum(1) + divergence).double())
            norms.append(f.square().sum(1).double())
        return torch.cat(values), torch.cat(norms)

    def _tensor(self, z: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(z).to(next(self.network.parameters()).device, torch.float32)


@own_settings()
def fit_critic(
    table: tuple[np.ndarray, np.ndarray],
    settings: CriticSettings,
    power: bool,
    standardize: bool,
    rng: torch.Generator,
    name: str = "score",
) -> CriticFit:
    """Train on one part of the rows, choose on the second, evaluate on the third.

    With `power` the critic maximizes the mean of the Stein values over their standard deviation
    (Eq. 12), else the mean.
    """
    X, score = table
    parts = _split(len(X), settings.split, rng)
    rows = standardized(X, score, standardize, reference=parts[0], name=name)
    network = settings.network.build(X.shape[1], rng).to(rng.device)
    critic = FittedCritic(network, rows.standardizer)
    train, held_out, test = (_tensors(rows, part, rng) for part in parts)
    history = _train(critic, train, held_out, settings, power, rng)
    values = critic.stein_and_norm(*test)[0].cpu().numpy()
    return CriticFit(critic, values, history)


def _train(
    critic: FittedCritic,
    train: Part,
    held_out: Part,
    settings: CriticSettings,
    power: bool,
    rng: torch.Generator,
) -> list[dict[str, float]]:
    """Ascend; leave the critic as the mean of the last updates was at its best on held-out rows."""
    network, last = deepcopy(critic.network), settings.max_iter
    rate = settings.network.learning_rate or RATE
    decay = settings.weight_decay  # coupled, as published
    optimizer = Adam(network.parameters(), rate, weight_decay=decay, fused=True)
    history: list[dict[str, float]] = []
    best, best_statistic, n_worse = deepcopy(critic.network.state_dict()), -np.inf, 0
    typical: Any = np.inf  # norm of the gradient
    for iteration in range(last + 1):
        if iteration % settings.eval_every == 0 or iteration == last:
            row = _assess(critic, train, held_out, settings)
            history.append({"iteration": iteration, **row})
            n_worse += 1
            if row["statistic"] > best_statistic:
                best = deepcopy(critic.network.state_dict())
                best_statistic, n_worse = row["statistic"], 0
            if n_worse == settings.n_iter_no_change or iteration == last:
                break
        loss = _loss(network, *_batch(train, settings.batch_size, rng), settings.l2, power, rng)
        norm = descend(optimizer, loss, SPIKE * typical)
        assert norm is not None
        mean = MEMORY * typical + (1 - MEMORY) * norm.clamp(max=SPIKE * typical)
        typical = mean if iteration else norm
        network.constrain()
        _average(critic.network, network, max(EARLY / (EARLY + iteration), NEW))
    critic.network.load_state_dict(best)
    return history


@torch.no_grad()
def _average(mean: CriticNetwork, network: CriticNetwork, share: float) -> None:
    """Move a running mean of networks toward the last: single steps of Adam go to and fro."""
    for average, value in zip(mean.parameters(), network.parameters(), strict=True):
        average.lerp_(value, share)
    for kept, buffer in zip(mean.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


def _loss(
    network: CriticNetwork,
    x: torch.Tensor,
    score: torch.Tensor,
    l2: float,
    power: bool,
    rng: torch.Generator,
) -> torch.Tensor:
    """Eq. 11 less the penalty of Eq. 8, or the power of Eq. 12 less it; the sign turned."""
    f, divergence = network.value_and_divergence(x, rng)
    stein = (f * score).sum(1) + divergence
    gain = stein.mean()
    if power:
        gain = gain / (stein.std() + TINY)
    return l2 * f.square().sum(1).mean() - gain


def _assess(
    critic: FittedCritic, train: Part, held_out: Part, settings: CriticSettings
) -> dict[str, float]:
    """Exact Stein values: mean on (some) training rows, and the statistic that chooses."""
    fitted = critic.stein_and_norm(train[0][:BLOCK], train[1][:BLOCK])[0].mean()
    values, norms = critic.stein_and_norm(*held_out)
    mean, deviation = float(values.mean()), float(values.std())
    penalty = settings.l2 * float(norms.mean())
    by_rule = {
        "penalized": float(_bounded(values - settings.l2 * norms).mean()),
        "mean-sd": mean - deviation,
        "power": mean / (deviation + TINY),
    }
    return {
        "train": float(fitted),
        "validation": mean,
        "validation_sd": deviation,
        "penalty": penalty,
        "statistic": by_rule[settings.selection],
    }


def _bounded(values: torch.Tensor) -> torch.Tensor:
    """Keep values (n,) near their quartiles: no wrong row alone chooses, as none alone trains."""
    low, high = values.quantile(values.new_tensor([0.25, 0.75]))
    return values.clamp(low - FAR * (high - low), high + FAR * (high - low))


def _batch(rows: Part, size: int | None, rng: torch.Generator) -> Part:
    x, score = rows
    if size is None or size >= len(x):
        return rows
    chosen = torch.randint(len(x), (size,), generator=rng, device=x.device)
    return x[chosen], score[chosen]


def _split(n: int, shares: Any, rng: torch.Generator) -> list[np.ndarray]:
    """Permute the rows and cut them in three."""
    order = torch.randperm(n, generator=rng, device=rng.device).cpu().numpy()
    first, second = _cuts(n, shares)
    if min(first, second - first, n - second) < FEWEST:
        raise ValueError(
            f"X must have at least {_rows_needed(n, shares)} rows, for {FEWEST} in each part of "
            f"split={tuple(shares)}, got {n}. Give more rows or more even shares."
        )
    return [order[:first], order[first:second], order[second:]]


def _cuts(n: int, shares: Any) -> tuple[int, int]:
    return round(n * shares[0]), round(n * (shares[0] + shares[1]))


def _rows_needed(n: int, shares: Any) -> int:
    """Return a number of rows above n that suffices; the smallest unless shares are tiny."""
    enough = ceil((FEWEST + 1) / min(shares))  # rounding takes less than one row from a part
    low = max(n + 1, int(1 / min(shares)))
    for m in range(low, enough, max(1, (enough - low) // 1000)):
        first, second = _cuts(m, shares)
        if min(first, second - first, m - second) >= FEWEST:
            return m
    return enough


def _tensors(rows: Rows, part: np.ndarray, rng: torch.Generator) -> Part:
    x, score = (torch.from_numpy(a[part]).to(rng.device, torch.float32) for a in rows[:2])
    return x, score
