"""Aliases and checks of the parameters that all estimators share."""

from __future__ import annotations

__all__ = ["ALIASES", "check_shared"]

import os
from typing import Any

import numpy as np

from skebm._components import check_choice, check_number, resolve
from skebm.bases import BaseComponent, Gaussian, Kernel, Mixture, Uniform
from skebm.energies import (
    MLP,
    Conv,
    EnergyComponent,
    GaussianBernoulliRBM,
    LinearICA,
    Reconstruction,
    Residual,
)
from skebm.networks import ConvGenerator, GeneratorComponent, MLPGenerator, ResidualGenerator
from skebm.partition import (
    AIS,
    Auto,
    ImportanceSampling,
    PartitionMethod,
    Quadrature,
    ReverseAIS,
)
from skebm.partition.quadrature import check_columns
from skebm.samplers import HMC, MALA, SGHMC, Langevin, Sampler

# parameter -> (aliases, kind of component)
ALIASES: dict[str, tuple[dict[str, type], type]] = {
    "energy": (
        {
            "conv": Conv,
            "ica": LinearICA,
            "mlp": MLP,
            "rbm": GaussianBernoulliRBM,
            "reconstruction": Reconstruction,
            "residual": Residual,
        },
        EnergyComponent,
    ),
    "base": (
        {"gaussian": Gaussian, "kernel": Kernel, "mixture": Mixture, "uniform": Uniform},
        BaseComponent,
    ),
    "generator": (
        {"conv": ConvGenerator, "mlp": MLPGenerator, "residual": ResidualGenerator},
        GeneratorComponent,
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


def check_shared(estimator: Any) -> None:
    """Check every shared parameter that is a number, a flag or a choice."""
    e = estimator
    for name, value in (("standardize", e.standardize), ("warm_start", e.warm_start)):
        check_choice(name, value, (True, False))
    if not (isinstance(e.data_noise, str) and e.data_noise == "auto"):
        check_number("data_noise", e.data_noise, low=0, remedy="Or use 'auto'.")
    check_number("max_iter", e.max_iter, low=1, integer=True)
    check_number("batch_size", e.batch_size, low=1, integer=True)
    check_number("learning_rate", e.learning_rate, low=0, open_low=True)
    check_number("weight_decay", e.weight_decay, low=0)
    check_number("validation_fraction", e.validation_fraction, low=0, high=0.9)
    check_number("eval_every", e.eval_every, low=1, integer=True)
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
    for name in ("base", "log_partition"):
        if getattr(e, name) is not None:
            resolve(getattr(e, name), *ALIASES[name], name)
    if e.log_partition == "quadrature" or isinstance(e.log_partition, Quadrature):
        check_columns(e.n_features_in_)
    if not callable(e.energy):
        resolve(e.energy, *ALIASES["energy"], "energy")
    _check_image_shape(e.image_shape, e.n_features_in_)


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
