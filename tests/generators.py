"""Random numbers for tests: explicit, seeded, one line."""

import torch


def gen(seed, device="cpu"):
    """A fresh ``torch.Generator`` on ``device``, seeded with ``seed``."""
    return torch.Generator(device=device).manual_seed(seed)


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=gen(seed))


def randomized(module, scale=0.7, seed=0):
    """The module with every parameter nonzero."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * randn(*p.shape, seed=seed + p.numel(), dtype=p.dtype))
    return module
