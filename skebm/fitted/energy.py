"""The energy of a fitted density in a file: what built it, what it was wrapped in, its tensors."""

from __future__ import annotations

__all__ = ["EnergySource", "is_factory", "pack_energy", "unpack_energy"]

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from skebm._components import decode, encode
from skebm.bases.mixture import MixtureBase
from skebm.energies import EnergyComponent, Zero, build_energy
from skebm.energies.aliases import ENERGIES
from skebm.energies.bounded import Bounded, Limited
from skebm.energies.coded import Coded
from skebm.energies.learned_gaussian import LearnedGaussian
from skebm.energies.reweighted import Reweighted
from skebm.fitted.pack import Tensors, filled, within

WRAPPERS = {c.__name__: c for c in (Bounded, Coded, LearnedGaussian, Limited, Reweighted)}


class EnergySource(NamedTuple):
    """What an energy was built from, as it was at the fit.

    Parameters
    ----------
    energy : str, EnergyComponent or callable
        The alias, component or factory.
    shape : tuple of int
        Shape of a row.
    """

    energy: Any
    shape: tuple[int, ...]


def is_factory(energy: Any) -> bool:
    """Whether a user's function builds the energy, which no file can hold."""
    return callable(energy) and not isinstance(energy, EnergyComponent)


def pack_energy(energy: torch.nn.Module, source: EnergySource) -> tuple[dict[str, Any], Tensors]:
    """Return a plain header and the tensors."""
    factory, wrappers, inner = is_factory(source.energy), [], energy
    while type(inner).__name__ in WRAPPERS:
        wrappers.append(type(inner).__name__)
        inner = inner.module  # type: ignore[assignment]
    header = {
        "zero": isinstance(energy, Zero),
        "factory": factory,
        "component": None if factory else encode(source.energy),
        "shape": list(source.shape),
        "wrappers": wrappers,
    }
    return header, dict(energy.state_dict())


def unpack_energy(
    header: dict[str, Any],
    tensors: Tensors,
    device: torch.device,
    factory: Callable[[Any], torch.nn.Module] | None,
) -> tuple[torch.nn.Module, EnergySource]:
    """Invert `pack_energy`; `factory` is the user's function, where one built the energy."""
    if header["factory"] and factory is None:
        raise ValueError(
            "energy must be given: the saved model's energy was a callable, got None. "
            "Pass load(path, energy=...)."
        )
    built = factory if header["factory"] else decode(header["component"])
    source = EnergySource(built, tuple(header["shape"]))
    if header["zero"]:
        return Zero(), source
    module = _wrapped(header["wrappers"], tensors, source, device)
    filled(module, tensors)
    return module.requires_grad_(False).eval(), source


def _wrapped(
    wrappers: list[str], tensors: Tensors, source: EnergySource, device: torch.device
) -> torch.nn.Module:
    if not wrappers:
        rng = torch.Generator(device).manual_seed(0)
        return build_energy(source.energy, ENERGIES, source.shape, rng)
    inner = _wrapped(wrappers[1:], within(tensors, "module"), source, device)
    if wrappers[0] == "Bounded":
        return Bounded(inner, tensors["low"].clone(), tensors["high"].clone())
    if wrappers[0] == "Coded":
        return Coded(inner, *(tensors[n].clone() for n in ("low", "high", "n_levels", "absent")))
    if wrappers[0] == "Limited":
        return Limited(inner, tensors["limit"].clone())
    if wrappers[0] == "LearnedGaussian":
        return LearnedGaussian(inner, tensors["factor"], tensors["center"])
    return Reweighted(inner, MixtureBase(**within(tensors, "mixture")), tensors["lifts"])
