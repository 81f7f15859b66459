"""What the papers state of their settings, for ``from_paper`` of the estimators."""

from __future__ import annotations

__all__ = ["bounds_settings", "paper_settings"]

from typing import Any

from sklearn.base import clone

from skebm._components import check_choice
from skebm.bases import Gaussian
from skebm.energies import MLP, Conv, Residual
from skebm.networks import ConvGenerator, Critic, MLPGenerator, ResidualGenerator
from skebm.objectives import ChainStart, GeneratorEntropy, Optimization
from skebm.samplers import SupportPartition

LEAKY: dict[str, Any] = {"activation": "leaky_relu", "negative_slope": 0.25}
LEAKY |= {"n_frequencies": 0, "input_scale": 1.0}
BB: dict[str, dict[str, Any]] = {
    "toy": {
        "energy": MLP((100, 100), **LEAKY),
        "generator": MLPGenerator.toy(),
        "learning_rate": 2e-4,
        "betas": (0.0, 0.9),
        "batch_size": 200,
        "max_iter": 150_000,
    },
    "mnist": {
        "energy": MLP((2000, 1000, 500, 250, 250), **LEAKY),
        "generator": MLPGenerator.mnist().with_params(latent_dim=128),
        "learning_rate": 2e-4,
        "betas": (0.0, 0.9),
        "max_iter": 1000,  # in the place of the paper's epochs
        "batch_size": 64,
    },
    "cifar10": {
        "energy": Conv.dcgan(),
        "generator": ConvGenerator(latent_dim=128),
        "learning_rate": 5e-5,
        "betas": (0.0, 0.999),
        "batch_size": 64,
        "max_iter": 200_000,
    },
    "animeface": {
        "energy": Residual(),
        "generator": ResidualGenerator(latent_dim=128),
        "learning_rate": 5e-5,
        "betas": (0.0, 0.999),
        "batch_size": 64,
        "max_iter": 100_000,
    },
}
PLAIN: dict[str, Any] = {"schedule": "constant", "weight_decay": 0.0, "averaging": False}
PLAIN_MLP: dict[str, Any] = {"n_frequencies": 0, "input_scale": 1.0}
USP: dict[str, dict[str, Any]] = {
    "six-modes": {
        "method": "ps-usp",
        "base": "uniform",
        "domain": (-2.0, 2.0),  # Omega is not stated
        "n_points": 5000,  # also n_s: all are in the sum
        "epsilon": 0.05,
        "repulsion": SupportPartition(n_active=1000, n_inner=50),
        "energy": MLP((512,) * 4, "leaky_relu", negative_slope=0.2, **PLAIN_MLP),
        "optimizer": Optimization(1e-3, method="sgd", **PLAIN),
        "batch_size": 1000,
        "standardize": False,
        "data_noise": 0.0,
        "validation_fraction": 0,
        "max_iter": 20_000,  # the paper: until convergence
    },
    "fashion-mnist": {
        "method": "ps-usp",
        "base": None,
        "n_points": 50_000,
        "n_integration": 625,
        "epsilon": 10.0,
        "repulsion": SupportPartition(n_active=125, n_inner=100),
        "energy": Conv(
            (32, 64, 128), activation="leaky_relu", negative_slope=0.4, strides=1, pooling="average"
        ),
        "image_shape": (1, 28, 28),
        "optimizer": Optimization(1e-3, (0.9, 0.999), **PLAIN),
        "batch_size": 125,
        "data_noise": 0.0,
        "validation_fraction": 0,
        "max_iter": 24_000,  # 50 epochs of 60,000 images
    },
}
HCD: dict[str, dict[str, Any]] = {
    "rings": {
        "init": ChainStart("hybrid", noise_share=1.0),
        "sampler": "langevin",
        "step_size": "adaptive",
        "temperature": 0.005,
        "n_steps": 500,  # stated for images
        "base": None,
        "refine": False,
        "energy": MLP.pointwise(output="quadratic"),
        "standardize": False,
        "data_noise": 0.0,
        "validation_fraction": 0,
        "max_iter": 10_000,
        "batch_size": 100,  # not stated, nor is the rate
        "optimizer": Optimization(1e-3, (0.9, 0.999), **PLAIN),
    },
}
LSD: dict[str, dict[str, Any]] = {
    "toy": {
        "energy": MLP((300, 300), **PLAIN_MLP),
        "base": Gaussian("diagonal"),
        "learn_base": True,
        "critic": Critic((300, 300), trace="gaussian"),
        "critic_steps": 5,
        "l2": 10.0,  # of the released code, as is the batch
        "energy_l2": 0.0,
        "optimizer": Optimization(1e-3, (0.5, 0.9), **PLAIN),
        "max_iter": 1667,  # 10,000 iterations count the critic's
        "batch_size": 100,
        "data_noise": 0.0,
        "validation_fraction": 0,
        "n_iter_no_change": None,
        "calibrate": False,
    },
}


def paper_settings(
    paper: dict[str, dict[str, Any]], name: str, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return parameters of one of a paper's models, with changes; no component is shared."""
    check_choice("name", name, tuple(paper))
    return {key: clone(value, safe=False) for key, value in paper[name].items()} | changes


def bounds_settings(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a row of BB's Table 11, with changes."""
    row = paper_settings(BB, name, {})
    betas = row.pop("betas")
    shared: dict[str, Any] = {
        "entropy": GeneratorEntropy("singular-value", fold_penalty=0.0, n_lobpcg=2),
        "margin": 1.0,
        "n_restarts": 1,
        "n_iter_no_change": None,
        "refine": False,
        "base": None,
    }
    settings = shared | row | changes
    if "optimizer" not in changes:
        settings["optimizer"] = Optimization(
            settings["learning_rate"], betas, weight_decay=0.0, schedule="constant"
        )
    if "generator" not in changes:
        rate = settings["learning_rate"]
        settings["generator"] = settings["generator"].with_params(learning_rate=rate)
    return settings
