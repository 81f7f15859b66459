"""Parameter objects: what the constructor stores, nothing else.

A component (base, energy, sampler, objective, partition method) keeps the parameters that it was
given, verbatim. That is all scikit-learn's ``BaseEstimator`` needs to give ``get_params``,
``set_params`` with double underscores, ``clone`` and a readable ``repr``.
"""

from __future__ import annotations

__all__ = [
    "Component",
    "as_finite",
    "as_table",
    "check_choice",
    "check_number",
    "check_random_state",
    "decode",
    "defined",
    "encode",
    "resolve",
]

import importlib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sklearn.utils
from sklearn.base import BaseEstimator
from sklearn.utils import check_array

from skebm._tables import naming_columns


class Component(BaseEstimator):
    """Base class of every parameter object."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        mine, theirs = self.get_params(deep=False), other.get_params(deep=False)
        return all(_same(value, theirs[name]) for name, value in mine.items())

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_params())))

    def with_params(self, **params: Any) -> Any:
        """Return a copy with some parameters replaced."""
        return type(self)(**{**self.get_params(deep=False), **params})


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(_same(i, j) for i, j in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return a is b or a == b


def resolve(value: Any, choices: Mapping[str, Callable[[], Any]], kind: type, name: str) -> Any:
    """Return the component that an alias or an instance stands for.

    Parameters
    ----------
    value : str or Component
        An alias (a key of `choices`) or an instance of `kind`.
    choices : dict of str to callable
        Aliases and the classes (or functions) that make what they stand for.
    kind : type
        What an instance has to be.
    name : str
        Parameter name, for the error message.

    Returns
    -------
    Component
        An instance of `kind`.

    Raises
    ------
    ValueError
        If a string is no alias.
    TypeError
        If the value is neither a string nor an instance of `kind`.
    """
    if isinstance(value, kind):
        return value
    error = ValueError if isinstance(value, str) else TypeError
    if isinstance(value, str) and value in choices:
        return choices[value]()
    raise error(
        f"{name} must be one of {sorted(choices)} or an instance of {kind.__name__}, got "
        f"{_and_remedy(value)}"
    )


def _and_remedy(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}. Write {value.__name__}(), an instance."
    return f"{value!r}. Use an alias or build the component yourself."


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    integer: bool = False,
    remedy: str = "",
) -> None:
    """Raise the house's error unless `value` is a number in the given range."""
    kind = numbers.Integral if integer else numbers.Real
    noun = "an integer" if integer else "a number"
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'>' if open_low else '>='} {low:g}")
    if high < math.inf:
        bounds.append(f"<= {high:g}")
    rule = " ".join([noun, " and ".join(bounds)]).strip()
    remedy = f" {remedy}" if remedy else ""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {rule}, got {value!r}.{remedy}")
    number = float(value)
    inside = (number > low if open_low else number >= low) and number <= high
    if not inside or not math.isfinite(number):
        raise ValueError(f"{name} must be {rule}, got {value!r}.{remedy}")


def check_choice(name: str, value: Any, choices: tuple, remedy: str = "") -> None:
    """Raise the house's error unless `value` is one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        error = ValueError if isinstance(value, str) else TypeError
        remedy = f" {remedy}" if remedy else ""
        raise error(f"{name} must be one of {list(choices)}, got {value!r}.{remedy}")


def check_random_state(random_state: Any) -> np.random.RandomState:
    """Return what scikit-learn makes of a ``random_state``; raise the house's error on others."""
    try:
        return sklearn.utils.check_random_state(random_state)
    except ValueError as error:
        raise ValueError(
            f"random_state must be an int from 0 to 2**32 - 1, a RandomState or None, got "
            f"{random_state!r:.60}. Give the seed itself."
        ) from error


def as_finite(name: str, value: Any) -> np.ndarray:
    """Return a copy of `value` as a float64 array; raise the house's error if it is not finite."""
    array = np.array(value, dtype=np.float64)
    n_bad = array.size - np.count_nonzero(np.isfinite(array))
    if n_bad:
        raise ValueError(f"{name} must be finite, got {n_bad} non-finite values. Remove them.")
    return array


def as_table(name: str, X: Any, n_features: int, remedy: str) -> np.ndarray:
    """Return finite float64 rows (n, n_features); raise the house's error on other columns."""
    with naming_columns(X, name):
        X = check_array(X, dtype=np.float64, input_name=name)
    if X.shape[1] != n_features:
        raise ValueError(f"{name} must have {n_features} columns, got {X.shape[1]}. {remedy}")
    return X


def encode(value: Any) -> Any:
    """Turn a parameter into plain JSON values; components become their class and parameters.

    Raises
    ------
    TypeError
        If a value (a callable, say) has no JSON form.
    """
    if isinstance(value, Component):
        cls = type(value)
        if not cls.__module__.startswith("skebm."):
            raise TypeError(f"{cls.__name__} is not part of skebm, so load could not find it.")
        params = {k: encode(v) for k, v in value.get_params(deep=False).items()}
        return {"component": [cls.__module__, cls.__name__], "params": params}
    if isinstance(value, tuple) and type(value).__module__.startswith("skebm."):
        named = [type(value).__module__, type(value).__name__]
        return {"named": named, "values": [encode(v) for v in value]}
    if isinstance(value, tuple):
        return {"tuple": [encode(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": {k: encode(v) for k, v in value.items()}}
    if isinstance(value, list):
        return [encode(v) for v in value]
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, np.bool_):
        return bool(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{value!r} has no plain form.")


def decode(value: Any) -> Any:
    """Invert `encode`. Only components and named tuples defined in skebm are ever built."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"])
    if "tuple" in value:
        return tuple(decode(v) for v in value["tuple"])
    if "dict" in value:
        return {k: decode(v) for k, v in value["dict"].items()}
    if "named" in value:
        return defined(value["named"], tuple)(*(decode(v) for v in value["values"]))
    params = {k: decode(v) for k, v in value["params"].items()}
    return defined(value["component"], Component)(**params)


def defined(where: Sequence[str], kind: Any) -> Any:
    """Return the class of this module and name, which has to be of skebm and of this kind."""
    module, name = where
    if not module.startswith("skebm."):
        raise ValueError(f"the file names a class outside skebm: {module}.{name}.")
    cls = getattr(importlib.import_module(module), name, None)
    if not (inspect.isclass(cls) and issubclass(cls, kind)):
        raise ValueError(f"the file names {module}.{name}, which is no part of skebm.")
    return cls
