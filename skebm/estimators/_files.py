"""Save and load estimators without running code."""

from __future__ import annotations

__all__ = ["load_estimator", "save_estimator"]

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from skebm._components import decode, encode
from skebm.estimators._files_0_1 import loaded_0_1, params_0_1
from skebm.fitted import FittedDensity
from skebm.fitted.density import device_here
from skebm.fitted.energy import is_factory
from skebm.fitted.pack import Tensors, pack_all, prefixed, unpack_all, within

FORMAT = 2
TRANSIENT = ("density_", "sample_info_")  # written by itself; of the last call


def save_estimator(estimator: Any, path: str | Path) -> None:
    """Write a fitted estimator to one safetensors file with a JSON header."""
    from safetensors.torch import save_file

    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path must lie in an existing folder, got {str(path)!r}.")
    density, tensors = estimator.density_.pack()
    found = {k: v for k, v in vars(estimator).items() if k.endswith("_") and k not in TRANSIENT}
    names = found.pop("feature_names_in_", None)
    attributes, others = pack_all(found)
    header = {
        "format": FORMAT,
        "class": type(estimator).__name__,
        "versions": _versions(),
        "params": _params(estimator),
        "density": density,
        "attributes": attributes,
        "names": None if names is None else list(names),
    }
    tensors = prefixed(tensors, "density") | prefixed(others, "attributes")
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, str(path), metadata={"skebm": json.dumps(header)})


def load_estimator(cls: type, path: str | Path, energy: Any) -> Any:
    """Read what `save_estimator` wrote; no code from the file is run."""
    header, tensors = _read(path)
    if header["class"] != cls.__name__:
        raise ValueError(
            f"path must hold a {cls.__name__}, got a {header['class']}. Use {header['class']}.load."
        )
    _warn_of_drift(header["versions"])
    old = header["format"] == 1
    if old:
        params = params_0_1(header["class"], header["params"])
    else:
        params = {k: decode(v) for k, v in header["params"].items()}
    factory = header["factory"] if old else header["density"]["energy"]["factory"]
    estimator: Any = cls(**(params | {"energy": energy} if factory else params))
    device = device_here(estimator.device)
    if old:
        found = loaded_0_1(header, tensors, device, energy)
    else:
        found = unpack_all(header["attributes"], within(tensors, "attributes"))
        inner = within(tensors, "density")
        found["density_"] = FittedDensity.unpack(header["density"], inner, device, energy)
    if header["names"] is not None:
        found["feature_names_in_"] = np.array(header["names"], dtype=object)
    vars(estimator).update(found)
    return estimator


def _read(path: str | Path) -> tuple[dict[str, Any], Tensors]:
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
    return json.loads(metadata["skebm"]), tensors


def _params(estimator: Any) -> dict[str, Any]:
    params = estimator.get_params(deep=False)
    if is_factory(params["energy"]):
        params["energy"] = "mlp"
    if isinstance(params["random_state"], np.random.RandomState):
        params["random_state"] = None
    for name in ("device", "checkpoint_dir"):
        params[name] = None if params[name] is None else str(params[name])
    return {k: encode(v) for k, v in params.items()}


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
