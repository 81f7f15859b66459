"""Rows so far from all others that a base leaves them to its tails."""

from __future__ import annotations

__all__ = ["FAR", "far_rows"]

import numpy as np
import torch

from skebm.data import trimmed_moments

FAR = 50.0  # trimmed standard deviations beyond which a row is left to the tails
FEW = 0.02  # share of the weight up to which they can be


def far_rows(x: torch.Tensor, weight: torch.Tensor | None) -> tuple[torch.Tensor, float]:
    """Return which of the rows (n, d) tails stand for, and their share of the weight."""
    if not x.shape[1]:  # of codes alone
        return torch.zeros(len(x), dtype=torch.bool, device=x.device), 0.0
    rows, w = x.double().cpu().numpy(), None if weight is None else weight.double().cpu().numpy()
    mean, std = trimmed_moments(rows, w)
    far = (np.abs(rows - mean) > FAR * np.where(std > 0, std, np.inf)).any(1)
    share = float(np.average(far, weights=w))
    if share > FEW:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device), 0.0
    return torch.from_numpy(far).to(x.device), share
