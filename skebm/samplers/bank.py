"""The bank of persistent chains."""

from __future__ import annotations

__all__ = ["SampleBank"]

from collections.abc import Callable

import torch

from skebm._components import Component, check_choice, check_number

Noise = Callable[[int], torch.Tensor]
PER = ("iteration", "chain")


class SampleBank(Component):
    """Chains that are kept from update to update, some of them started afresh from noise.

    Parameters
    ----------
    size : int, default=60000
        Rows of the bank; larger forgets older energies more slowly.
    refresh_rate : float, default=0.0
        Probability of a fresh start from noise (dimensionless), per update or per chain.
    refresh : {"iteration", "chain"}, default="iteration"
        ``"iteration"``: with that probability all chains of an update start from noise, as in the
        paper's methods section; ``"chain"``: each on its own, as in its results section.

    Raises
    ------
    ValueError, TypeError
        From ``init``, on a bad parameter; from ``draw``, if more rows are asked for than there are.

    Notes
    -----
    ``draw`` chooses rows without replacement. Ends are written back to the rows that were drawn,
    fresh starts too; where an end is not finite the row stays as it was. Memory: ``size * d``
    float32.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Section 3.

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import SampleBank
    >>> rng = torch.Generator().manual_seed(0)
    >>> bank = SampleBank(size=6)
    >>> points = bank.init(lambda n: torch.zeros(n, 2))
    >>> rows, starts = bank.draw(points, 3, lambda n: torch.randn(n, 2), rng)
    >>> bank.write(points, rows, starts + 1)
    >>> int(points.sum())
    6
    """

    def __init__(
        self, size: int = 60_000, refresh_rate: float = 0.0, refresh: str = "iteration"
    ) -> None:
        self.size = size
        self.refresh_rate = refresh_rate
        self.refresh = refresh

    def init(self, noise: Noise) -> torch.Tensor:
        """Return the bank (size, d), all noise."""
        check_number("bank_size", self.size, low=1, integer=True)
        check_number("refresh_rate", self.refresh_rate, low=0, high=1)
        check_choice("refresh", self.refresh, PER)
        return noise(self.size)

    def draw(
        self, points: torch.Tensor, n: int, noise: Noise, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row numbers (n,) and where their chains start (n, d)."""
        if n > len(points):
            raise ValueError(
                f"bank_size must be at least the {n} rows of a batch, got {len(points)}. "
                "Raise it or lower batch_size."
            )
        device = points.device
        rows = torch.randperm(len(points), generator=rng, device=device)[:n]
        starts = points[rows]
        if self.refresh_rate == 0:
            return rows, starts
        coins = torch.rand(n if self.refresh == "chain" else 1, generator=rng, device=device).view(
            -1, *[1] * (points.dim() - 1)
        )
        return rows, torch.where(coins < self.refresh_rate, noise(n), starts)

    def write(self, points: torch.Tensor, rows: torch.Tensor, ends: torch.Tensor) -> None:
        """Put the ends (n, d) of the chains back into their rows, in place."""
        sound = ends.flatten(1).isfinite().all(1).view(-1, *[1] * (ends.dim() - 1))
        points[rows] = torch.where(sound, ends, points[rows])
