"""Save and load estimators and detectors without running code."""

from __future__ import annotations

__all__ = ["Saved"]

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch.utils._python_dispatch import TorchDispatchMode

from skebm._components import Component, check_number, decode, defined, encode
from skebm._disk import replacing
from skebm._surroundings import own_settings
from skebm._warn import warn
from skebm.estimators._files_0_1 import loaded_0_1, params_0_1
from skebm.fitted import FittedDensity
from skebm.fitted.density import device_here
from skebm.fitted.energy import is_factory
from skebm.fitted.pack import Tensors, pack, prefixed, unpack, within

FORMAT = 2
# written by itself; of the last call; scikit-learn's and the state of the training
TRANSIENT = ("density_", "sample_info_", "_warm", "_metadata_request")
UNSEALED = "0" * 64
SEAL = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # JSON inside of JSON
Header = dict[str, Any]

SITE = "https://skebm.github.io/skebm"


class Saved(BaseEstimator):
    """An estimator that a file can hold."""

    # where scikit-learn's HTML picture of an estimator leads
    _doc_link_module = "skebm"
    _doc_link_template = f"{SITE}/reference/generated/{{place}}.{{estimator_name}}.html"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        place = ".".join(type(self).__module__.split(".")[:2]).removesuffix(".estimators")
        return {"place": place, "estimator_name": type(self).__name__}

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file: tensors and a JSON header, no pickle.

        Parameters
        ----------
        path : str or Path
            File to write, in safetensors format. It is replaced at once when the new one is whole.

        Raises
        ------
        TypeError
            If a part has no plain form: a base that wraps a torch distribution, a detector's inner
            estimator that is not of skebm, a callable. joblib keeps those.
        FileNotFoundError, IsADirectoryError
            If the folder does not exist, or `path` is one.

        Notes
        -----
        The state of the training is not written: after `load` a fit with ``warm_start=True`` begins
        anew. Pickle keeps it. The file has a checksum and the mode that the umask says.
        """
        check_is_fitted(self)
        if Path(path).is_dir():
            raise IsADirectoryError(f"path must be a file, got the folder {str(path)!r}.")
        if not Path(path).parent.is_dir():
            raise FileNotFoundError(f"path must lie in an existing folder, got {str(path)!r}.")
        data = _written(self)
        with replacing(path) as file:
            file.write(data)

    @classmethod
    def load(cls, path: str | Path, energy: Any = None) -> Self:
        """Read an estimator that `save` wrote; no code from the file is run.

        Parameters
        ----------
        path : str or Path
            File to read. It is not needed afterwards.
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
            If the file is no saved estimator of this class, is damaged, or its energy factory is
            missing.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"path must be an existing file, got {str(path)!r}.")
        data = Path(path).read_bytes()
        with _refusing(path):
            header, tensors = _parsed(data)
        with _refusing(path, ValueError):  # those say themselves what is wrong
            return _read(cls, header, tensors, energy)


# -- writing ---------------------------------------------------------------------------------------


def _written(estimator: Saved) -> bytes:
    """Return the file of an estimator."""
    from safetensors.torch import save

    pool = _Pool()
    header, tensors = pool.contents(estimator)
    about = {"sha256": UNSEALED, "format": FORMAT, "versions": _versions()}
    header = {**about, **header, "estimators": pool.headers}
    tensors |= pool.tensors
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    data = save(tensors, metadata={"skebm": json.dumps(header)})
    return _with_seal(data, hashlib.sha256(data).hexdigest())


def _with_seal(data: bytes, seal: str) -> bytes:
    return SEAL.sub(rf'\\"sha256\\": \\"{seal}\\"'.encode(), data, count=1)


class _Pool:
    """The estimators inside of another, each of them once."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.tensors: Tensors = {}
        self.numbers: dict[int, int] = {}

    def contents(self, estimator: Saved) -> tuple[Header, Tensors]:
        """Return the header of an estimator, and its tensors."""
        params = estimator.get_params(deep=False)
        inner = {
            k: self.number(v)
            for k, v in params.items()
            if isinstance(v, BaseEstimator) and not isinstance(v, Component)
        }
        found = {
            k: v
            for k, v in vars(estimator).items()
            if (k.endswith("_") or k.startswith("_"))
            and k not in TRANSIENT
            and "callback" not in k  # of scikit-learn's, which a running fit has more of
        }
        names = found.pop("feature_names_in_", None)
        density, tensors = None, dict[str, torch.Tensor]()
        if hasattr(estimator, "density_"):
            density, others = estimator.density_.pack()
            tensors |= prefixed(others, "density")
        header: Header = {
            "class": type(estimator).__name__,
            "module": type(estimator).__module__,
            "params": _params({k: v for k, v in params.items() if k not in inner}),
            "inner": inner,
            "attributes": {},
            "names": None if names is None else list(names),
            "density": density,
        }
        for name, value in found.items():
            header["attributes"][name], others = self.packed(value)
            tensors |= prefixed(others, f"attributes.{name}")
        return header, tensors

    def number(self, estimator: Any) -> int:
        """Return an inner estimator's number."""
        if not isinstance(estimator, Saved):
            raise TypeError(
                f"estimator must be one of skebm's to be saved, got {type(estimator).__name__}. "
                "Use joblib.dump, and joblib.load on files that you trust."
            )
        if id(estimator) not in self.numbers:
            header, tensors = self.contents(estimator)
            n = self.numbers[id(estimator)] = len(self.headers)
            self.headers.append(header)
            self.tensors |= prefixed(tensors, f"estimators.{n}")
        return self.numbers[id(estimator)]

    def packed(self, value: Any) -> tuple[Header, Tensors]:
        """Return the header of a fitted attribute, and its tensors."""
        if isinstance(value, BaseEstimator) and not isinstance(value, Component):
            return {"kind": "estimator", "number": self.number(value)}, {}
        if isinstance(value, list | tuple) and any(map(_has_parts, value)):
            parts = [self.packed(v) for v in value]
            of = None if isinstance(value, list) else [type(value).__module__, type(value).__name__]
            header = {"kind": "series", "of": of, "items": [header for header, _ in parts]}
            tensors = [prefixed(tensors, str(i)) for i, (_, tensors) in enumerate(parts)]
            return header, {k: v for part in tensors for k, v in part.items()}
        return pack(value)


def _has_parts(value: Any) -> bool:
    return isinstance(value, BaseEstimator | np.ndarray | list | tuple)


def _params(params: dict[str, Any]) -> dict[str, Any]:
    if is_factory(params.get("energy")):
        params["energy"] = "mlp"
    if isinstance(params["random_state"], np.random.RandomState):
        params["random_state"] = None
    for name in {"device", "checkpoint_dir"} & params.keys():
        params[name] = None if params[name] is None else str(params[name])
    return {k: _encoded(k, v) for k, v in params.items()}


def _encoded(name: str, value: Any) -> Any:
    try:
        return encode(value)
    except TypeError as error:
        raise TypeError(
            f"{name} must have a plain form to be saved, got {value!r}. Use joblib.dump, and "
            "joblib.load on files that you trust."
        ) from error


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__.split("+")[0], "sklearn": sklearn.__version__}


# -- reading ---------------------------------------------------------------------------------------


@contextmanager
def _refusing(path: str | Path, *passed: type[Exception]) -> Iterator[None]:
    """Turn whatever a damaged file runs into to a ValueError."""
    kept: tuple[type[Exception], ...] = (*passed, Warning)
    try:
        yield
    except kept:
        raise
    except Exception as error:
        raise ValueError(
            f"path must be a file that save wrote, got {str(path)!r} "
            f"({type(error).__name__}: {error})."
        ) from error


def _read(cls: type, header: Header, tensors: Tensors, energy: Any) -> Any:
    """Return the estimator that a header and tensors describe."""
    if header["class"] != cls.__name__:
        raise ValueError(
            f"path must hold a {cls.__name__}, got a {header['class']}. Use {header['class']}.load."
        )
    _warn_of_drift(header["versions"])
    inner: list[Any] = []
    with own_settings():
        with _Budget(sum(tensor.numel() for tensor in tensors.values())):
            if header["format"] == 1:
                estimator = _of_0_1(cls, header, tensors, energy)
            else:
                for i, part in enumerate(header["estimators"]):
                    kind = defined([part["module"], part["class"]], Saved)
                    own = within(tensors, f"estimators.{i}")
                    inner.append(_rebuilt(kind, part, own, inner, energy))
                estimator = _rebuilt(cls, header, tensors, inner, energy)
        for each in (*inner, estimator):
            _check(each)
    return estimator


def _parsed(data: bytes) -> tuple[Header, Tensors]:
    """Return the header and the tensors, copies of what the file holds."""
    from safetensors.torch import load

    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8:end])["__metadata__"]["skebm"])
    seal = SEAL.search(data, 0, end)
    if seal and hashlib.sha256(_with_seal(data, UNSEALED)).hexdigest() != seal[1].decode():
        raise ValueError("its checksum is another, so it was changed or damaged")
    if header["format"] not in (1, FORMAT):
        raise ValueError(f"its format is {header['format']!r}, this version knows 1 and {FORMAT}")
    if not seal and ("sha256" in header or header["format"] != 1):
        raise ValueError("it has no checksum")
    return header, load(data)


class _Budget(TorchDispatchMode):
    """Refuses what takes more memory than the file's own tensors justify, before it is taken."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = 1_000_000 + 16 * n  # numbers: each is initialized, copied and checked

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        for size in args[:2]:
            if isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
                self._take(math.prod(size))
        if args and func in (torch.ops.aten.eye.default, torch.ops.aten.arange.default):
            self._take(int(args[0]) ** (2 if func is torch.ops.aten.eye.default else 1))
        return func(*args, **(kwargs or {}))

    def _take(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise ValueError(
                f"path must be a file that save wrote, got one whose header asks for {n} numbers "
                "that it does not hold."
            )


def _rebuilt(cls: Any, header: Header, tensors: Tensors, inner: list[Any], energy: Any) -> Any:
    """Return the estimator of a header; `inner` are those that it may contain."""
    params = {k: decode(v) for k, v in header["params"].items()}
    params |= {name: inner[number] for name, number in header["inner"].items()}
    density = header["density"]
    if density and density["energy"]["factory"]:
        params["energy"] = energy
    estimator = cls(**params)
    of = within(tensors, "attributes")
    found = {k: _unpacked(v, within(of, k), inner) for k, v in header["attributes"].items()}
    if density:
        own, device = within(tensors, "density"), device_here(estimator.device)
        _check_finite(own)
        found["density_"] = FittedDensity.unpack(density, own, device, energy)
    return _filled(estimator, found, header["names"])


def _of_0_1(cls: Any, header: Header, tensors: Tensors, energy: Any) -> Any:
    """Return the estimator of a file of version 0.1."""
    params = params_0_1(header["class"], header["params"])
    estimator = cls(**(params | {"energy": energy} if header["factory"] else params))
    found = loaded_0_1(header, tensors, device_here(estimator.device), energy)
    return _filled(estimator, found, header["names"])


def _filled(estimator: Any, found: dict[str, Any], names: list[str] | None) -> Any:
    if names is not None:
        found["feature_names_in_"] = np.array(names, dtype=object)
    vars(estimator).update(found)
    return estimator


def _unpacked(header: Header, tensors: Tensors, inner: list[Any]) -> Any:
    if header["kind"] == "estimator":
        return inner[header["number"]]
    if header["kind"] != "series":
        return unpack(header, tensors)
    items = [_unpacked(h, within(tensors, str(i)), inner) for i, h in enumerate(header["items"])]
    if header["of"] is None:
        return items
    return tuple(items) if header["of"][0] == "builtins" else defined(header["of"], tuple)(*items)


def _check_finite(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"path must be a file of finite numbers, got others in {name}.")


def _check(estimator: Any) -> None:
    """Raise unless the parts of an estimator fit together."""
    if not hasattr(estimator, "offset_"):
        return  # a detector's own, which it fits copies of
    check_number("offset_", estimator.offset_)
    n, names = estimator.n_features_in_, getattr(estimator, "feature_names_in_", None)
    if hasattr(estimator, "density_"):
        density = estimator.density_
        row = density.transform.inverse(torch.zeros(1, density.n_features))
        density.log_density(row)
        schema = getattr(estimator, "schema_", None)
        n_encoded = n if schema is None else schema.n_encoded
        if density.n_features != n_encoded:
            raise ValueError(f"path must be a file of {n} columns, got {density.n_features}.")
    if names is not None and len(names) != n:
        raise ValueError(f"path must be a file of {n} columns, got {len(names)} names.")


def _warn_of_drift(saved: dict[str, str]) -> None:
    here = _versions()
    drift = [f"{k} {v} -> {here[k]}" for k, v in saved.items() if v != here[k]]
    if drift:
        warn(
            f"The estimator was saved under other versions ({', '.join(drift)}). Compare its "
            "score_samples on known rows before you rely on it.",
            UserWarning,
        )
