"""Values as a plain header and tensors, so that files hold them and reading runs no code."""

from __future__ import annotations

__all__ = ["Packable", "filled", "pack", "prefixed", "unpack", "within"]

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from skebm._components import decode, defined, encode
from skebm.bases import Base
from skebm.bases.tails import Defended
from skebm.data import Schema, Transform

Tensors = dict[str, torch.Tensor]


class Packable(ABC):
    """A value that names its parts; ``type(self)(**parts)`` is another like it."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Return the constructor's arguments."""


def pack(value: Any) -> tuple[Any, Tensors]:
    """Return the header of a value, and its tensors.

    Raises
    ------
    TypeError
        If a part has no plain form.
    """
    if isinstance(value, torch.Tensor):
        return {"kind": "tensor"}, {"": value}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"kind": "array"}, {"": torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, Defended):
        value_parts = {
            n: getattr(value, n) for n in ("core", "tail_location", "tail_scale", "tail_share")
        }
        headers, tensors = pack_all(value_parts)
        return {"kind": "parts", "class": path(value), "parts": headers}, tensors
    if isinstance(value, Base):
        if not value.state_dict() or not type(value).__module__.startswith("skebm."):
            raise TypeError(
                f"base must be one of skebm's own to be saved, got {type(value).__name__}. "
                "Use pickle or joblib."
            )
        return {"kind": "base", "class": path(value)}, dict(value.state_dict())
    if isinstance(value, Transform | Packable | Schema):
        parts = value.state() if isinstance(value, Transform) else value.parts()
        headers, tensors = pack_all(parts)
        return {"kind": "parts", "class": path(value), "parts": headers}, tensors
    return {"kind": "plain", "value": encode(value)}, {}


def pack_all(values: Mapping[str, Any]) -> tuple[dict[str, Any], Tensors]:
    """Return the headers of named values, and their tensors under those names."""
    headers: dict[str, Any] = {}
    tensors: Tensors = {}
    for name, value in values.items():
        headers[name], inner = pack(value)
        tensors |= prefixed(inner, name)
    return headers, tensors


def unpack(header: Any, tensors: Tensors) -> Any:
    """Invert `pack`; only classes defined in skebm are ever built."""
    kind = header["kind"]
    if kind == "tensor":
        return tensors[""]
    if kind == "array":
        return tensors[""].numpy()
    if kind == "plain":
        return decode(header["value"])
    if kind == "base":
        return defined(header["class"], Base)(**tensors)
    cls = defined(header["class"], (Transform, Packable, Defended, Schema))
    return cls(**unpack_all(header["parts"], tensors))


def unpack_all(headers: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Invert `pack_all`."""
    return {name: unpack(header, within(tensors, name)) for name, header in headers.items()}


def prefixed(tensors: Tensors, name: str) -> Tensors:
    """Return tensors under a name."""
    return {f"{name}.{key}" if key else name: tensor for key, tensor in tensors.items()}


def within(tensors: Tensors, name: str) -> Tensors:
    """Return the tensors under a name, without it."""
    inner = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
    return inner | ({"": tensors[name]} if name in tensors else {})


def path(value: Any) -> tuple[str, str]:
    """Return where a value's class is defined."""
    return type(value).__module__, type(value).__name__


def filled(module: torch.nn.Module, tensors: Tensors) -> torch.nn.Module:
    """Put tensors into a module, which must have these names, shapes and dtypes."""
    for name, tensor in module.state_dict().items():
        if name in tensors and tensors[name].dtype != tensor.dtype:
            raise ValueError(
                f"{name} must be of {tensor.dtype}, got {tensors[name].dtype}. Save it anew."
            )
    module.load_state_dict(tensors)
    return module
