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


def moved(module):
    """The module in float64 and eval mode, with parameters and statistics away from their start.

    A batch normalization at its start would hide a factor that is missing.
    """
    with torch.no_grad():
        for i, tensor in enumerate([*module.parameters(), *module.buffers()]):
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.2, generator=gen(i))
                tensor.mul_(0.6).view(-1)[::2].neg_() if tensor.ndim > 1 else None
    return module.double().eval()
