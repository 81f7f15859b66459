"""Random generators for tests: explicit, seeded, one line."""

import torch


def gen(seed, device="cpu"):
    """A fresh ``torch.Generator`` on ``device``, seeded with ``seed``."""
    return torch.Generator(device=device).manual_seed(seed)
