"""The parameters that all estimators share: each one's text, aliases and check, once."""

from __future__ import annotations

__all__ = ["ALIASES", "check_shared", "documented", "optimization_of", "resolved"]

import functools
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from skebm._components import check_choice, check_number, resolve
from skebm.bases import BaseComponent, Gaussian, Kernel, Mixture, Uniform
from skebm.energies import EnergyComponent
from skebm.energies.aliases import ENERGIES
from skebm.networks import (
    ConvGenerator,
    Critic,
    GeneratorComponent,
    MLPGenerator,
    ResidualGenerator,
)
from skebm.objectives import ChainStart, GeneratorEntropy, Optimization, UpperBound
from skebm.objectives.game_settings import BOUNDS, ENTROPIES
from skebm.partition import AIS, Auto, ImportanceSampling, PartitionMethod, Quadrature, ReverseAIS
from skebm.partition.quadrature import check_columns
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank, Sampler, SupportPartition


def _banked(refresh_rate: float) -> ChainStart:
    return ChainStart("persistent", bank=SampleBank(refresh_rate=refresh_rate))


BANKS = {"persistent": 0.0, "persistent-refresh": 0.05}  # how often a chain starts afresh
STARTS: dict[str, Callable[[], ChainStart]] = {
    **{name: functools.partial(ChainStart, name) for name in ("data", "hybrid", "noise")},
    **{name: functools.partial(_banked, rate) for name, rate in BANKS.items()},
}

# parameter -> (what an alias stands for, kind of component)
ALIASES: dict[str, tuple[dict[str, Any], type]] = {
    "critic": ({"auto": functools.partial(Critic, (128, 128), input_scale=4.0)}, Critic),
    "energy": (ENERGIES, EnergyComponent),
    "base": (
        {
            "gaussian": Gaussian,
            "kernel": Kernel,
            "mixture": Mixture,
            "uniform": Uniform,
            "union": functools.partial(Mixture, n_folds=5),
        },
        BaseComponent,
    ),
    "bound": ({kind: functools.partial(UpperBound, kind) for kind in BOUNDS}, UpperBound),
    "entropy": (
        {kind: functools.partial(GeneratorEntropy, kind) for kind in ENTROPIES},
        GeneratorEntropy,
    ),
    "generator": (
        {"conv": ConvGenerator, "mlp": MLPGenerator, "residual": ResidualGenerator},
        GeneratorComponent,
    ),
    "init": (STARTS, ChainStart),
    "optimizer": (
        {"adam": Optimization, "sgd": functools.partial(Optimization, method="sgd")},
        Optimization,
    ),
    "repulsion": (
        {"auto": functools.partial(SupportPartition, n_inner=4)},
        SupportPartition,
    ),
    "sampler": ({"hmc": HMC, "langevin": Langevin, "mala": MALA, "sghmc": SGHMC}, Sampler),
    "log_partition": (
        {
            "ais": AIS,
            "auto": Auto,
            "importance": ImportanceSampling,
            "quadrature": Quadrature,
            "reverse-ais": ReverseAIS,
        },
        PartitionMethod,
    ),
}

MOVED = {  # name in version 0.1 -> where it is now, for all estimators
    "averaging": "optimizer=Optimization(averaging=...)",
    "betas": "optimizer=Optimization(betas=...)",
    "eval_every": "25, without a parameter",
    "weight_decay": "optimizer=Optimization(weight_decay=...)",
}


def documented(cls: type) -> type:
    """Add what is shared to an estimator's docstring, and remedies for names of version 0.1.

    Parameters come in the order of the signature, with its defaults; what the class says itself
    stands.
    """
    init: Any = cls.__init__  # type: ignore[misc]
    shared = cls.__mro__[1].__doc__
    if cls.__doc__ is not None and shared is not None:
        defaults = {k: p.default for k, p in inspect.signature(init).parameters.items()}
        texts = {k: _with_default(v, defaults.get(k)) for k, v in _entries(shared, "Parameters")}
        doc = _filled(cls.__doc__, "Parameters", texts, [k for k in defaults if k != "self"])
        doc = _filled(doc, "Attributes", dict(_entries(shared, "Attributes")), None)
        if "    Raises\n" not in doc:
            after = "    Warns\n" if "    Warns\n" in doc else "    Notes\n"
            doc = doc.replace(
                after, shared[shared.index("    Raises\n") :].rstrip() + f"\n\n{after}", 1
            )
        cls.__doc__ = doc
    cls.__init__ = _with_remedies(init, MOVED | getattr(cls, "moved", {}))  # type: ignore[misc]
    return cls


def check_shared(estimator: Any, n_features: int) -> None:
    """Check every shared parameter that is a number, a flag or a choice."""
    e = estimator
    check_choice("standardize", e.standardize, ("auto", "affine", "marginal", True, False))
    check_choice("warm_start", e.warm_start, (True, False))
    if not (isinstance(e.data_noise, str) and e.data_noise == "auto"):
        check_number("data_noise", e.data_noise, low=0, remedy="Or use 'auto'.")
    check_number("max_iter", e.max_iter, low=1, integer=True)
    check_number("batch_size", e.batch_size, low=1, integer=True)
    check_number("learning_rate", e.learning_rate, low=0, open_low=True)
    check_number("validation_fraction", e.validation_fraction, low=0, high=0.9)
    if e.n_iter_no_change is not None:
        check_number("n_iter_no_change", e.n_iter_no_change, low=1, integer=True)
    check_number("tol", e.tol, low=0)
    check_number("temperature", getattr(e, "temperature", 1.0), low=0, open_low=True)
    check_number("verbose", int(e.verbose) if isinstance(e.verbose, bool) else e.verbose, low=0)
    if not (isinstance(e.contamination, str) and e.contamination == "auto"):
        remedy = "Or use 'auto'."
        check_number(
            "contamination", e.contamination, low=0, high=0.5, open_low=True, remedy=remedy
        )
    if e.checkpoint_dir is not None and not isinstance(e.checkpoint_dir, str | os.PathLike):
        raise TypeError(f"checkpoint_dir must be a path or None, got {e.checkpoint_dir!r}.")
    for name in ("base", "log_partition", "optimizer"):
        if getattr(e, name) is not None or name == "optimizer":
            resolved(e, name)
    if e.log_partition == "quadrature" or isinstance(e.log_partition, Quadrature):
        check_columns(n_features)
    if not callable(e.energy):
        resolved(e, "energy")
    _check_image_shape(e.image_shape, n_features)


def resolved(estimator: Any, name: str) -> Any:
    """Return the component that a parameter stands for."""
    return resolve(getattr(estimator, name), *ALIASES[name], name)


def optimization_of(estimator: Any) -> Optimization:
    """Return the optimizer's settings: those of an instance, else the estimator's own."""
    chosen = resolved(estimator, "optimizer")
    if chosen is estimator.optimizer:
        return chosen
    own = estimator.optimizer_defaults
    return chosen.with_params(learning_rate=estimator.learning_rate, **own)


def _check_image_shape(shape: Any, n_features: int) -> None:
    if shape is None:
        return
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise TypeError(f"image_shape must be (channels, height, width), got {shape!r}.")
    for size in shape:
        check_number("image_shape", size, low=1, integer=True)
    if int(np.prod(shape)) != n_features:
        raise ValueError(
            f"image_shape must multiply to the {n_features} columns of X, got {tuple(shape)}. "
            "Flatten images row by row, channels first."
        )


def _section(doc: str, title: str) -> tuple[int, int]:
    """Return where the body of a section stands in a docstring."""
    head = f"    {title}\n    {'-' * len(title)}\n"
    start = doc.index(head) + len(head)
    end = re.compile(r"\n    [A-Z][a-z]+\n    -{3,}\n").search(doc, start)
    assert end is not None  # neither is ever the last
    return start, end.start()


def _entries(doc: str, title: str) -> list[tuple[str, str]]:
    start, end = _section(doc, title)
    found = re.findall(r"^    (\w+) : (.*(?:\n(?:        .*)?)*)", doc[start:end], flags=re.M)
    return [(name, text.rstrip("\n")) for name, text in found]


def _with_default(text: str, default: Any) -> str:
    """Return a parameter's text with its default behind the type."""
    kind, _, rest = text.partition("\n")
    if kind.endswith("optional"):
        return text
    written = f'"{default}"' if isinstance(default, str) else repr(default)
    return f"{kind}, default={written}\n{rest}"


def _filled(doc: str, title: str, shared: dict[str, str], order: list[str] | None) -> str:
    """Return a docstring whose section of this title has the shared entries too."""
    start, end = _section(doc, title)
    both = dict(_entries(doc, title))
    both |= {name: text for name, text in shared.items() if name not in both}
    names = list(both) if order is None else order
    return doc[:start] + "\n".join(f"    {n} : {both[n]}" for n in names) + "\n" + doc[end:]


def _with_remedies(init: Callable[..., None], moved: dict[str, str]) -> Callable[..., None]:
    """Return a constructor that tells where a parameter of version 0.1 has gone."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **params: Any) -> None:
        for name in params.keys() & moved.keys():
            raise TypeError(
                f"{name} must be left out of {type(self).__name__}, got {params[name]!r}. "
                f"Since version 0.2 it is {moved[name]}."
            )
        init(self, *args, **params)

    return checked
