"""Save and load without running code; pickle without needing the device."""

from __future__ import annotations

__all__ = ["load_estimator", "place", "portable_state", "save_estimator"]

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from skebm._components import decode, encode
from skebm.bases import Base
from skebm.bases.mixture import MixtureBase
from skebm.data import Standardizer, resolve_device
from skebm.energies import EnergyComponent, Zero, build_energy
from skebm.energies.reweighted import Reweighted
from skebm.estimators._parameters import ALIASES
from skebm.partition import LogPartition

FORMAT = 1
GAUSSIAN = "skebm.bases.mixture.MixtureBase"  # what a proposal is that is not the base
MODULES = ("energy_", "base_", "_proposal")
PLAIN = (
    "offset_",
    "n_iter_",
    "history_",
    "n_features_in_",
    "temperature_",
)  # fitted values that JSON holds


def save_estimator(estimator: Any, path: str | Path) -> None:
    """Write a fitted estimator to one safetensors file with a JSON header."""
    from safetensors.torch import save_file

    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path must lie in an existing folder, got {str(path)!r}.")
    base, standardizer = estimator.base_, estimator._standardizer
    if base is not None and not _rebuildable(base):
        raise TypeError(
            f"base must be one of skebm's own to be saved, got {type(base).__name__}. "
            "Use pickle or joblib."
        )
    parts = {"energy": estimator.energy_, "base": base, "proposal": estimator._proposal}
    if base is estimator._proposal:
        del parts["proposal"]
    tensors = {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }
    tensors["standardizer.location"] = torch.from_numpy(standardizer.location)
    tensors["standardizer.scale"] = torch.from_numpy(standardizer.scale)
    tensors["data_noise"] = torch.from_numpy(estimator.data_noise_)
    tensors |= {f"kept.{name}": tensor for name, tensor in estimator._kept.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, str(path), metadata={"skebm": json.dumps(_header(estimator))})


def load_estimator(cls: type, path: str | Path, energy: Any) -> Any:
    """Read what `save_estimator` wrote; no code from the file is run."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path must be an existing file, got {str(path)!r}.")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"path must be a file that save wrote, got {str(path)!r}.") from error
    if "skebm" not in metadata:
        raise ValueError(f"path must be a file that save wrote, got {str(path)!r}.")
    header = json.loads(metadata["skebm"])
    if header["class"] != cls.__name__:
        raise ValueError(
            f"path must hold a {cls.__name__}, got a {header['class']}. Use {header['class']}.load."
        )
    _warn_of_drift(header["versions"])
    if header["factory"] and energy is None:
        raise ValueError(
            "energy must be given: the saved model's energy was a callable, got None. "
            "Pass load(path, energy=...)."
        )
    return _rebuild(cls, header, tensors, energy)


def portable_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator's ``__dict__`` with its modules copied to the CPU, for pickle."""
    device = state.get("device_")
    if device is None or device.type == "cpu":
        return state
    on_cpu = {k: copy.deepcopy(state[k]).cpu() for k in MODULES if state[k] is not None}
    return {k: v for k, v in state.items() if k != "_train_states"} | on_cpu


def place(estimator: Any) -> None:
    """Move an unpickled estimator to its device, or to the CPU where that is missing."""
    device = getattr(estimator, "device_", None)
    if device is None or device.type == "cpu":
        return
    estimator.device_ = _device_here(device)
    for name in MODULES:
        module = getattr(estimator, name)
        if module is not None:
            module.to(estimator.device_)


def _header(estimator: Any) -> dict[str, Any]:
    params, (energy, shape) = estimator.get_params(deep=False), estimator._built
    factory = _is_factory(energy)
    if _is_factory(params["energy"]):
        params["energy"] = "mlp"
    if isinstance(params["random_state"], np.random.RandomState):
        params["random_state"] = None
    for name in ("device", "checkpoint_dir"):
        params[name] = None if params[name] is None else str(params[name])
    log_partition = estimator.log_partition_
    return {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "versions": _versions(),
        "params": {k: encode(v) for k, v in params.items()},
        "factory": factory,
        "energy": None if factory else encode(energy),  # as fitted, whatever was set since
        "shape": list(shape),
        "zero": isinstance(estimator.energy_, Zero),
        "base": None if estimator.base_ is None else _path(type(estimator.base_)),
        "log_partition": None if log_partition is None else list(log_partition),
        "gain": estimator.validation_gain_,
        "sampler": encode(getattr(estimator, "sampler_", None)),
        "played": encode(getattr(estimator, "_played", None)),
        "names": list(getattr(estimator, "feature_names_in_", [])) or None,
        "fitted": {name: getattr(estimator, name) for name in PLAIN},
    } | ({"calibration": estimator.calibration_} if hasattr(estimator, "calibration_") else {})


def _rebuild(
    cls: type, header: dict[str, Any], tensors: dict[str, torch.Tensor], energy: Any
) -> Any:
    params = {k: decode(v) for k, v in header["params"].items()}
    built = energy if header["factory"] else decode(header["energy"])
    if header["factory"]:
        params["energy"] = energy
    estimator: Any = cls(**params)
    estimator._built = (built, tuple(header["shape"]))
    for name, value in header["fitted"].items():
        setattr(estimator, name, value)
    if header["names"] is not None:
        estimator.feature_names_in_ = np.array(header["names"], dtype=object)
    estimator.validation_gain_ = header["gain"] and tuple(header["gain"])
    if "calibration" in header:
        estimator.calibration_ = header["calibration"] and tuple(header["calibration"])
    estimator.device_ = device = _device_here(estimator.device)
    estimator._standardizer = Standardizer(
        tensors["standardizer.location"].numpy(), tensors["standardizer.scale"].numpy()
    )
    estimator.data_noise_ = tensors["data_noise"].numpy()
    estimator.sampler_ = decode(header.get("sampler"))
    if header.get("played") is not None:
        estimator._played = decode(header["played"])
    estimator._kept = _part(tensors, "kept.")
    estimator.base_ = _rebuild_base(header["base"], _part(tensors, "base."), device)
    proposal = _part(tensors, "proposal.")
    estimator._proposal = _rebuild_base(GAUSSIAN, proposal, device) if proposal else estimator.base_
    estimator.energy_ = _rebuild_energy(estimator, header["zero"], _part(tensors, "energy."))
    values = header["log_partition"]
    estimator.log_partition_ = None if values is None else LogPartition(*values)
    return estimator


def _rebuild_energy(
    estimator: Any, zero: bool, tensors: dict[str, torch.Tensor]
) -> torch.nn.Module:
    if zero:
        return Zero()
    rng = torch.Generator(estimator.device_).manual_seed(0)
    energy, shape = estimator._built
    module = build_energy(energy, ALIASES["energy"][0], shape, rng)
    module = estimator._wrapped(module, estimator.base_)
    if "lifts" in tensors:  # calibrated afterwards
        mixture = MixtureBase(**_part(tensors, "mixture."))
        module = Reweighted(module, mixture, tensors["lifts"]).to(estimator.device_)
    module.load_state_dict(tensors)
    return module.requires_grad_(False).eval()


def _is_factory(energy: Any) -> bool:
    return callable(energy) and not isinstance(energy, EnergyComponent)


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__.split("+")[0], "sklearn": sklearn.__version__}


def _warn_of_drift(saved: dict[str, str]) -> None:
    here = _versions()
    drift = [f"{k} {v} -> {here[k]}" for k, v in saved.items() if v != here[k]]
    if drift:
        warnings.warn(
            f"The estimator was saved under other versions ({', '.join(drift)}). Compare its "
            "score_samples on known rows before you rely on it.",
            UserWarning,
            stacklevel=3,
        )


def _device_here(device: Any) -> torch.device:
    try:
        return resolve_device(device)
    except ValueError:
        warnings.warn(
            f"The estimator was fitted on {device}, which this machine lacks; it runs on the CPU.",
            UserWarning,
            stacklevel=3,
        )
        return torch.device("cpu")


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__name__}"


def _rebuildable(base: Base) -> bool:
    return bool(base.state_dict()) and type(base).__module__.startswith("skebm.")


def _rebuild_base(
    path: str | None, tensors: dict[str, torch.Tensor], device: torch.device
) -> Base | None:
    if path is None:
        return None
    known = {_path(cls): cls for cls in Base.__subclasses__()}
    if path not in known or not path.startswith("skebm."):
        raise ValueError(f"path must name a base of skebm, got {path!r} in the file.")
    return known[path](**{k: v.to(device) for k, v in tensors.items()})


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
