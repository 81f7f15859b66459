"""The parameters that all estimators share: each one's text, aliases and check, once."""

from __future__ import annotations

__all__ = ["ALIASES", "check_shared", "documented", "resolved"]

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
from skebm.partition import (
    AIS,
    Auto,
    ImportanceSampling,
    PartitionMethod,
    Quadrature,
    ReverseAIS,
)
from skebm.partition.quadrature import check_columns
from skebm.samplers import (
    HMC,
    MALA,
    SGHMC,
    Langevin,
    SampleBank,
    Sampler,
    SupportPartition,
)

REFRESH_RATE = 0.05  # of the bank that init="persistent-refresh" stands for
STARTS: dict[str, Callable[[], ChainStart]] = {
    "data": functools.partial(ChainStart, "data"),
    "hybrid": functools.partial(ChainStart, "hybrid"),
    "noise": functools.partial(ChainStart, "noise"),
    "persistent": lambda: ChainStart("persistent", bank=SampleBank()),
    "persistent-refresh": lambda: ChainStart(
        "persistent", bank=SampleBank(refresh_rate=REFRESH_RATE)
    ),
}

# parameter -> (what an alias stands for, kind of component)
ALIASES: dict[str, tuple[dict[str, Any], type]] = {
    "critic": ({"auto": functools.partial(Critic, (128, 128), input_scale=4.0)}, Critic),
    "energy": (ENERGIES, EnergyComponent),
    "base": (
        {"gaussian": Gaussian, "kernel": Kernel, "mixture": Mixture, "uniform": Uniform},
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
        {"auto": functools.partial(SupportPartition, n_active=200, n_inner=10)},
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

PARAMETERS = {
    "energy": """{"mlp", "conv", "residual", "reconstruction", "ica", "rbm"}, component or callable
        The energy, ``DEFAULT`` by default; ``"conv"`` and ``"residual"`` need `image_shape`;
        ``"ica"`` and ``"rbm"`` (`LinearICA`, `GaussianBernoulliRBM`) suit ``base=None``. A callable
        gets the number of columns (or the image shape) and returns a new ``torch.nn.Module`` that
        maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.""",
    "base": """{"mixture", "gaussian", "kernel", "uniform"}, base component or None, default=DEFAULT
        The normalized reference density p0. All but None have full support; None means p0 = 1,
        which has no normalizer unless the energy grows (such as ``MLP(output="quadratic")``).""",
    "standardize": """{True, "affine", False}, default=DEFAULT
        Shift and scale each column; undone in everything returned. True is ``"affine"``.""",
    "data_noise": """float or "auto", default=DEFAULT
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.""",
    "max_iter": """int, default=DEFAULT
        Energy updates.""",
    "batch_size": """int, default=DEFAULT
        Rows per update, drawn with replacement.""",
    "learning_rate": """float, default=DEFAULT
        Step of the optimizer (dimensionless), with half a cosine of decay to 0.""",
    "optimizer": """{"adam", "sgd"} or Optimization, default=DEFAULT
        Adam, plain gradient descent, or all settings in one: an `Optimization` brings its own
        learning rate, decay of weights and rate, and averaging.""",
    "validation_fraction": """float, default=DEFAULT
        Share of the rows held out to judge progress. Below 20 rows none are, and the model is its
        base; with 0 the energy is trained unjudged and its parameters are averaged.""",
    "n_iter_no_change": """int or None, default=DEFAULT
        Validations, one every 25 updates, without a gain of `tol` after which training stops.""",
    "tol": """float, default=DEFAULT
        Smallest gain in held-out log likelihood that counts, nats per row.""",
    "log_partition": """{"auto", "quadrature", "importance", "ais", "reverse-ais"}, instance or None
        How log Z is estimated, by default ``DEFAULT``; None leaves ``score_samples``
        unnormalized.""",
    "contamination": """float or "auto", default=DEFAULT
        ``"auto"``: ``offset_`` is the 5 % quantile of held-out scores (with fewer than 40 of them
        the lower of theirs and all rows'), moved up if needed so that at least one row of X is
        flagged (none where more than 5 % of the rows share the lowest score, as in tables of few
        values). A float in (0, 0.5]: that fraction of the training rows, by weight, is flagged.""",
    "image_shape": """tuple of int, optional
        (channels, height, width) of flattened rows; one global affine map to [-1, 1] then replaces
        the scaling of columns, and ``log_partition="auto"`` means None.""",
    "device": """str or torch.device, default=DEFAULT
        ``"auto"`` takes CUDA where it is there, else the CPU.""",
    "checkpoint_dir": """str or Path, optional
        Folder for the training state; an interrupted fit of the same parameters and rows goes
        on.""",
    "warm_start": """bool, default=DEFAULT
        Continue from the last fit, with its scaling and base, for `max_iter` more updates; the
        networks must be the same.""",
    "verbose": """int, default=DEFAULT
        1 shows a progress bar.""",
    "random_state": """int, RandomState instance or None, default=DEFAULT
        Seed. The same seed, machine and thread count give the same bits.""",
}

ATTRIBUTES = {
    "density_": """FittedDensity
        The density, which diagnostics, plots and tests read.""",
    "energy_": """torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.""",
    "base_": """Base or None
        The fitted base density on standardized space.""",
    "log_partition_": """LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and
        method.""",
    "offset_": """float
        Threshold on ``score_samples``, nats.""",
    "history_": """list of dict
        One row per 25 updates: loss and data energy (nats), held-out log likelihood (nats per row,
        standardized space), its gain over the base and standard error.""",
    "n_iter_": """int
        Updates made.""",
    "validation_gain_": """tuple of float or None
        Held-out gain over the base and its standard error, nats per row.""",
    "data_noise_": """ndarray of shape (n_features,)
        Noise per column, standardized units.""",
    "temperature_": """float
        T, dimensionless.""",
    "n_features_in_": """int
        Columns seen in ``fit``.""",
    "feature_names_in_": """ndarray of str
        Column names, where X had them.""",
}

RAISES = """ValueError, TypeError
        From ``fit``, on a bad table or parameter.
    ConvergenceError
        From ``fit``, if training diverges in spite of three smaller learning rates."""


def documented(cls: type) -> type:
    """Add what is shared to an estimator's docstring, and remedies for names of version 0.1.

    Parameters come in the order of the signature, with its defaults; what the class says itself
    stands.
    """
    init: Any = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)
    if cls.__doc__ is not None:
        defaults = {k: p.default for k, p in signature.parameters.items() if k != "self"}
        texts = {k: v.replace("DEFAULT", _written(defaults.get(k))) for k, v in PARAMETERS.items()}
        doc = _filled(cls.__doc__, "Parameters", texts, list(defaults))
        doc = _filled(doc, "Attributes", ATTRIBUTES, None)
        if "    Raises\n" not in doc:
            after = "    Warns\n" if "    Warns\n" in doc else "    Notes\n"
            doc = doc.replace(after, f"    Raises\n    ------\n    {RAISES}\n\n{after}", 1)
        cls.__doc__ = doc
    cls.__init__ = _with_remedies(init, MOVED | getattr(cls, "moved", {}))  # type: ignore[misc]
    return cls


def check_shared(estimator: Any, n_features: int) -> None:
    """Check every shared parameter that is a number, a flag or a choice."""
    e = estimator
    check_choice("standardize", e.standardize, (True, False, "affine"))
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


def _written(default: Any) -> str:
    return f'"{default}"' if isinstance(default, str) else repr(default)


def _filled(doc: str, title: str, shared: dict[str, str], order: list[str] | None) -> str:
    """Return a docstring whose section of this title has the shared entries too."""
    rule = "-" * len(title)
    start = doc.index(f"    {title}\n    {rule}\n") + len(f"    {title}\n    {rule}\n")
    end = re.compile(r"\n    [A-Z][a-z]+\n    -{3,}\n").search(doc, start)
    assert end is not None  # examples stand at the end of every docstring
    body = doc[start : end.start()].strip("\n")
    own = dict(re.findall(r"^    (\w+) : (.*(?:\n(?:        .*)?)*)", body, flags=re.M))
    own = {name: text.rstrip("\n") for name, text in own.items()}
    names = list(own) + [name for name in shared if name not in own] if order is None else order
    entries = "\n".join(f"    {name} : {own.get(name) or shared[name]}" for name in names)
    return f"{doc[:start]}{entries}\n{doc[end.start() :]}"


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
