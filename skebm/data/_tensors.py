"""Devices and random generators."""

__all__ = ["resolve_device", "torch_generator"]

import numpy as np
import torch

from skebm._components import check_random_state


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device that `device` names; ``"auto"`` prefers CUDA, then the CPU.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"} or torch.device
        What the user asked for.

    Returns
    -------
    torch.device
        A device of this machine.

    Raises
    ------
    ValueError
        If the device does not exist here or the name is unknown.

    Examples
    --------
    >>> from skebm.data import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as error:
        why = _why_not(device)
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'mps' or a torch.device of this machine, got "
            f"{device!r}{why}. Use 'auto'."
        ) from error
    return resolved


def _why_not(device: object) -> str:
    """Return what a device of a known kind lacks here."""
    kind = str(device).split(":")[0]
    if kind == "cuda" and not torch.backends.cuda.is_built():
        return " where torch was built without CUDA"
    if kind == "cuda":
        return f" where torch finds {torch.cuda.device_count()} CUDA devices"
    return " where torch finds no such device" if kind == "mps" else ""


def torch_generator(
    random_state: int | np.random.RandomState | None, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Return a torch generator seeded from scikit-learn's ``random_state``.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        An int gives the same stream each time, an instance is advanced, None is fresh entropy.
        The global generators of numpy and torch are not touched.
    device : str or torch.device, default="cpu"
        Where the generator draws.

    Returns
    -------
    torch.Generator
        The seeded generator.

    Examples
    --------
    >>> import torch
    >>> from skebm.data import torch_generator
    >>> a, b = torch_generator(3), torch_generator(3)
    >>> bool(torch.rand(2, generator=a).equal(torch.rand(2, generator=b)))
    True
    """
    if random_state is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    else:
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    return torch.Generator(device=device).manual_seed(seed)
