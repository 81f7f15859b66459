"""The settings of the paper BB, for `BoundsEBM.from_paper`."""

from __future__ import annotations

__all__ = ["paper_settings"]

from typing import Any

from sklearn.base import clone

from skebm._components import check_choice
from skebm.energies import MLP, Conv, Residual
from skebm.networks import ConvGenerator, MLPGenerator, ResidualGenerator
from skebm.objectives import GeneratorEntropy, Optimization

LEAKY: dict[str, Any] = {"activation": "leaky_relu", "negative_slope": 0.25}
LEAKY |= {"n_frequencies": 0, "input_scale": 1.0}
PAPER: dict[str, dict[str, Any]] = {
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


def paper_settings(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a row of Table 11, with changes; no component is shared."""
    check_choice("name", name, tuple(PAPER))
    row = {key: clone(value, safe=False) for key, value in PAPER[name].items()}
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
