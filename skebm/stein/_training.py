"""How a critic is trained, chosen and read."""

from __future__ import annotations

__all__ = ["CriticFit", "CriticSettings", "FittedCritic", "fit_critic"]

from copy import deepcopy
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array

from skebm._components import check_choice, check_number
from skebm.data import Standardizer
from skebm.networks import Critic, CriticNetwork
from skebm.stein._scores import Rows, evaluate_score, standardized

TRACES = ("exact", "gaussian", "rademacher")
FEWEST = 2  # rows of a part of the split
BLOCK, DENSE_BLOCK = 4096, 256  # rows; the second where a dense Jacobian is multiplied out
SPIKE, MEMORY = 5.0, 0.95  # gradients are clipped to SPIKE times their running norm
TINY = 1e-6  # added to a standard deviation that divides, as in the authors' program


class CriticSettings(NamedTuple):
    """What `learned_stein_discrepancy` documents, and whether the power is maximized."""

    critic: Critic
    power: bool
    l2: float = 0.5
    trace: str = "exact"
    max_iter: int = 1000
    batch_size: int | None = 1000
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    eval_every: int = 25
    n_iter_no_change: int | None = 12
    standardize: bool = True

    def check(self) -> CriticSettings:
        """Raise on what is unfit, return self."""
        if not isinstance(self.critic, Critic):
            raise TypeError(
                f"critic must be a Critic or None, got {self.critic!r}. Use skebm.networks.Critic."
            )
        check_number("l2", self.l2, low=0, open_low=True)
        check_choice("trace", self.trace, TRACES)
        check_number("max_iter", self.max_iter, low=1, integer=True)
        if self.batch_size is not None:
            check_number("batch_size", self.batch_size, low=2, integer=True)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_number("eval_every", self.eval_every, low=1, integer=True)
        if self.n_iter_no_change is not None:
            check_number("n_iter_no_change", self.n_iter_no_change, low=1, integer=True)
        return self


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
    standardizer : Standardizer
        The map to standardized units.

    Examples
    --------
    >>> from skebm.datasets import GaussianDensity
    >>> from skebm.stein import learned_stein_discrepancy
    >>> density = GaussianDensity([[1.0]])
    >>> X = density.sample(200, random_state=0) + 1
    >>> result = learned_stein_discrepancy(density, X, max_iter=50, random_state=0)
    >>> result.critic(X).shape, result.critic.stein_values(density, X).shape
    ((200, 1), (200,))
    """

    def __init__(self, network: CriticNetwork, standardizer: Standardizer) -> None:
        self.network = network
        self.standardizer = standardizer

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
        return self._stein(self._tensor(z), self._tensor(values))[0].cpu().numpy()

    @torch.no_grad()
    def _stein(self, x: torch.Tensor, score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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


def fit_critic(
    X: np.ndarray,
    score: np.ndarray,
    settings: CriticSettings,
    rng: torch.Generator,
    name: str = "score",
) -> CriticFit:
    """Train on one part of the rows, choose on the second, evaluate on the third."""
    settings.check()
    parts = _split(len(X), settings.split, rng)
    rows = standardized(X, score, settings.standardize, reference=parts[0], name=name)
    network = settings.critic.build(X.shape[1], rng)
    critic = FittedCritic(network, rows.standardizer)
    train, held_out, test = (_tensors(rows, part, rng) for part in parts)
    history = _train(critic, train, held_out, settings, rng)
    values = critic._stein(*test)[0].cpu().numpy()
    return CriticFit(critic, values, history)


def _train(
    critic: FittedCritic,
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    settings: CriticSettings,
    rng: torch.Generator,
) -> list[dict[str, float]]:
    """Ascend; leave the network as it was at its best on the held-out rows."""
    network = critic.network
    optimizer = torch.optim.Adam(  # coupled weight decay, as published
        network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        foreach=True,
    )
    clip = _Clip()
    history: list[dict[str, float]] = []
    best, best_statistic, n_worse = deepcopy(network.state_dict()), -np.inf, 0
    for iteration in range(settings.max_iter + 1):
        if iteration % settings.eval_every == 0 or iteration == settings.max_iter:
            history.append({"iteration": iteration, **_assess(critic, train, held_out, settings)})
            statistic = history[-1]["statistic"]
            if statistic > best_statistic:
                best, best_statistic, n_worse = deepcopy(network.state_dict()), statistic, 0
            else:
                n_worse += 1
            if n_worse == settings.n_iter_no_change or iteration == settings.max_iter:
                break
        loss = _loss(network, *_batch(train, settings.batch_size, rng), settings, rng)
        optimizer.zero_grad()
        loss.backward()
        clip(network)
        optimizer.step()
        network.constrain()
    network.load_state_dict(best)
    return history


def _loss(
    network: CriticNetwork,
    x: torch.Tensor,
    score: torch.Tensor,
    settings: CriticSettings,
    rng: torch.Generator,
) -> torch.Tensor:
    """Eq. 11 less the penalty of Eq. 8, or the power of Eq. 12 less it; the sign turned."""
    f, divergence = network.value_and_divergence(x, _probes(x, settings.trace, rng), rng)
    stein = (f * score).sum(1) + divergence
    gain = stein.mean()
    if settings.power:
        gain = gain / (stein.std() + TINY)
    return settings.l2 * f.square().sum(1).mean() - gain


def _assess(
    critic: FittedCritic,
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    settings: CriticSettings,
) -> dict[str, float]:
    """Exact Stein values: mean on (some) training rows, and the statistic that chooses."""
    fitted = critic._stein(train[0][:BLOCK], train[1][:BLOCK])[0].mean()
    values, norms = critic._stein(*held_out)
    mean, deviation = float(values.mean()), float(values.std())
    statistic = mean / (deviation + TINY) if settings.power else mean - deviation
    return {
        "train": float(fitted),
        "validation": mean,
        "validation_sd": deviation,
        "penalty": settings.l2 * float(norms.mean()),
        "statistic": statistic,
    }


class _Clip:
    """Cut gradients whose norm jumps far above its running mean."""

    def __init__(self) -> None:
        self.typical: torch.Tensor | None = None

    @torch.no_grad()
    def __call__(self, network: CriticNetwork) -> None:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        typical = norm if self.typical is None else self.typical
        factor = (SPIKE * typical / norm).nan_to_num(nan=0.0, posinf=1.0).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        self.typical = MEMORY * typical + (1 - MEMORY) * norm.minimum(SPIKE * typical)


def _probes(x: torch.Tensor, trace: str, rng: torch.Generator) -> torch.Tensor | None:
    if trace == "exact":
        return None
    noise = torch.empty_like(x).normal_(generator=rng)
    return noise if trace == "gaussian" else torch.where(noise < 0, -1.0, 1.0)


def _batch(
    rows: tuple[torch.Tensor, torch.Tensor], size: int | None, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    x, score = rows
    if size is None or size >= len(x):
        return rows
    chosen = torch.randint(len(x), (size,), generator=rng, device=x.device)
    return x[chosen], score[chosen]


def _split(n: int, shares: Any, rng: torch.Generator) -> list[np.ndarray]:
    """Permute the rows and cut them in three."""
    if not isinstance(shares, tuple | list) or len(shares) != 3:
        raise TypeError(
            f"split must be three shares for training, validation and test, got {shares!r}."
        )
    for share in shares:
        check_number("split", share, low=0, high=1, open_low=True)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"split must sum to 1, got {shares!r}. Use (0.8, 0.1, 0.1), say.")
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


def _tensors(
    rows: Rows, part: np.ndarray, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    x, score = (torch.from_numpy(a[part]).to(rng.device, torch.float32) for a in rows[:2])
    return x, score
