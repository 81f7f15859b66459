"""Save and load without running code; pickle without needing the device."""

from __future__ import annotations

__all__ = ["Persistent"]

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from skebm._components import decode, encode
from skebm.bases import Base
from skebm.data import Standardizer
from skebm.energies import EnergyComponent, Zero, build_energy
from skebm.estimators._parameters import ALIASES
from skebm.partition import LogPartition

FORMAT = 1


class Persistent:
    """Mixin: ``save``, ``load`` and device-free pickles for estimators."""

    def save(self, path):
        """Write the fitted estimator to one file: tensors and a JSON header, no pickle.

        Parameters
        ----------
        path : str or Path
            File to write (safetensors format).

        Raises
        ------
        TypeError
            If the base wraps a torch distribution or a parameter has no plain form.
        """
        from safetensors.torch import save_file

        if self.base_ is not None and not _rebuildable(self.base_):
            raise TypeError(
                f"base must be one of skebm's own to be saved, got {type(self.base_).__name__}. "
                "Use pickle or joblib."
            )
        tensors = {f"energy.{k}": v for k, v in self.energy_.state_dict().items()}
        for part in ("base", "proposal"):
            module = self.base_ if part == "base" else self._proposal
            if module is not None and not (part == "proposal" and module is self.base_):
                tensors |= {f"{part}.{k}": v for k, v in module.state_dict().items()}
        for name in ("location", "scale"):
            tensors[f"standardizer.{name}"] = torch.from_numpy(getattr(self._standardizer, name))
        tensors["data_noise"] = torch.from_numpy(self.data_noise_)
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(tensors, str(path), metadata={"skebm": json.dumps(self._header())})

    @classmethod
    def load(cls, path, energy=None):
        """Read an estimator that `save` wrote; no code from the file is run.

        Parameters
        ----------
        path : str or Path
            File to read.
        energy : callable, optional
            The factory, for a model whose energy was a callable.

        Returns
        -------
        estimator
            Fitted, on the device that its ``device`` parameter names here.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no saved estimator of this class, or its energy factory is missing.
        """
        from safetensors import safe_open

        if not Path(path).exists():
            raise FileNotFoundError(f"path must be an existing file, got {str(path)!r}.")
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        if "skebm" not in metadata:
            raise ValueError(f"path must be a file that save wrote, got {str(path)!r}.")
        header = json.loads(metadata["skebm"])
        if header["class"] != cls.__name__:
            raise ValueError(
                f"path must hold a {cls.__name__}, got a {header['class']}. "
                f"Use {header['class']}.load."
            )
        _warn_of_drift(header["versions"])
        return cls._rebuild(header, tensors, energy)

    def _header(self) -> dict[str, Any]:
        params, factory = self.get_params(deep=False), False
        if callable(params["energy"]) and not isinstance(params["energy"], EnergyComponent):
            params["energy"], factory = "mlp", True
        if isinstance(params["random_state"], np.random.RandomState):
            params["random_state"] = None
        for name in ("device", "checkpoint_dir"):
            params[name] = None if params[name] is None else str(params[name])
        return {
            "format": FORMAT,
            "class": type(self).__name__,
            "versions": _versions(),
            "params": {k: encode(v) for k, v in params.items()},
            "factory": factory,
            "zero": isinstance(self.energy_, Zero),
            "base": None if self.base_ is None else _class_path(self.base_),
            "log_partition": None if self.log_partition_ is None else list(self.log_partition_),
            "fitted": {
                "offset_": self.offset_,
                "n_iter_": self.n_iter_,
                "history_": self.history_,
                "validation_gain_": self.validation_gain_,
                "n_features_in_": self.n_features_in_,
                "feature_names_in_": list(getattr(self, "feature_names_in_", [])) or None,
            },
        }

    @classmethod
    def _rebuild(cls, header: dict[str, Any], tensors: dict[str, torch.Tensor], energy: Any):
        params = {k: decode(v) for k, v in header["params"].items()}
        if header["factory"] and energy is None and not header["zero"]:
            raise ValueError(
                "energy must be given: the saved model's energy was a callable, got None. "
                "Pass load(path, energy=...)."
            )
        if header["factory"]:
            params["energy"] = energy
        self = cls(**params)
        fitted = dict(header["fitted"])
        names = fitted.pop("feature_names_in_")
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        for name, value in fitted.items():
            setattr(self, name, tuple(value) if name == "validation_gain_" and value else value)
        self.device_ = _device_here(self.device)
        self._standardizer = Standardizer(
            tensors["standardizer.location"].numpy(), tensors["standardizer.scale"].numpy()
        )
        self.data_noise_ = tensors["data_noise"].numpy()
        self.base_ = _rebuild_base(header["base"], _part(tensors, "base."), self.device_)
        proposal = _part(tensors, "proposal.")
        gaussian = "skebm.bases.mixture.MixtureBase"
        self._proposal = self.base_ or _rebuild_base(gaussian, proposal, self.device_)
        self.energy_ = self._rebuild_energy(header["zero"], _part(tensors, "energy."))
        values = header["log_partition"]
        self.log_partition_ = None if values is None else LogPartition(*values)
        return self

    def _rebuild_energy(self, zero: bool, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
        if zero:
            return Zero()
        generator = torch.Generator(self.device_).manual_seed(0)
        aliases = ALIASES["energy"][0]
        module = build_energy(self.energy, aliases, self._energy_shape(), generator)
        module.load_state_dict(tensors)
        return module.requires_grad_(False).eval()

    def __getstate__(self):
        state = dict(super().__getstate__())
        device = state.get("device_")
        if device is not None and device.type != "cpu":  # copies: the estimator keeps its device
            import copy

            for name in ("energy_", "base_", "_proposal"):
                state[name] = copy.deepcopy(state[name]).cpu() if state[name] is not None else None
            state.pop("_train_state", None)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        device = getattr(self, "device_", None)
        if device is not None and device.type != "cpu":
            self.device_ = _device_here(device)
            for name in ("energy_", "base_", "_proposal"):
                module = getattr(self, name)
                if module is not None:
                    module.to(self.device_)


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
    from skebm.data import resolve_device

    try:
        return resolve_device(device)
    except ValueError:
        warnings.warn(
            f"The estimator was fitted on {device}, which this machine lacks; it runs on the CPU.",
            UserWarning,
            stacklevel=3,
        )
        return torch.device("cpu")


def _class_path(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__name__}"


def _rebuildable(base: Base) -> bool:
    return bool(base.state_dict()) and type(base).__module__.startswith("skebm.")


def _rebuild_base(
    path: str | None, tensors: dict[str, torch.Tensor], device: torch.device
) -> Base | None:
    if path is None:
        return None
    module, name = path.rsplit(".", 1)
    if not module.startswith("skebm.bases."):
        raise ValueError(f"the file names a base outside skebm: {path}.")
    cls = getattr(importlib.import_module(module), name)
    return cls(**{k: v.to(device) for k, v in tensors.items()})


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
