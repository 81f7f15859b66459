"""Read the files that version 0.1 wrote."""

from __future__ import annotations

__all__ = ["loaded_0_1", "params_0_1"]

import math
from typing import Any

import numpy as np
import torch

from skebm._components import decode, defined
from skebm.bases import Base
from skebm.bases.mixture import MixtureBase
from skebm.data import Affine
from skebm.energies import Model
from skebm.fitted import Bound, FittedDensity, Trained
from skebm.fitted.draws import ByChains, ByGenerator, ByMoves, FromPoints
from skebm.fitted.energy import unpack_energy
from skebm.fitted.normalization import MOST_COLUMNS
from skebm.fitted.pack import Tensors, within
from skebm.networks import MLPGenerator
from skebm.objectives import (
    BidirectionalBounds,
    ChainStart,
    GeneratorEntropy,
    Optimization,
    UpperBound,
)
from skebm.partition import LogPartition
from skebm.samplers import Langevin, SampleBank, SupportInfo, SupportPartition

Values = dict[str, Any]
CHAIN = ("noise_share", "start_noise", "start_scale", "bank_size", "refresh_rate", "refresh")
REPULSION = "n_active n_neighbors n_inner n_maximize n_repel combine step_maximize step_repel"


def loaded_0_1(header: Values, tensors: Tensors, device: torch.device, factory: Any) -> Values:
    """Return the fitted attributes."""
    kept, fitted = within(tensors, "kept"), header["fitted"]
    energy = within(tensors, "energy")
    source = {"component": header["energy"], "wrappers": _wrappers(energy), **header}
    module, built = unpack_energy(source, energy, device, factory)
    base = _base(header["base"], within(tensors, "base"))
    proposal = _base(f"{MixtureBase.__module__}.MixtureBase", within(tensors, "proposal")) or base
    transform = Affine(**{k: v.numpy() for k, v in within(tensors, "standardizer").items()})
    near = base is not None or fitted["n_features_in_"] <= MOST_COLUMNS
    draws, extras = _READERS[header["class"]](header, kept, transform, near)
    values = header["log_partition"]
    density = FittedDensity(
        Model(module, base, fitted["temperature_"]),
        transform,
        proposal,
        values and LogPartition(*values),
        draws,
        source=built,
        device=torch.device("cpu"),
    ).to(device)
    plain = {k: fitted[k] for k in ("offset_", "n_iter_", "history_", "n_features_in_")}
    gain = header["gain"] and tuple(header["gain"])
    noise = tensors["data_noise"].numpy()
    return {**plain, "validation_gain_": gain, "data_noise_": noise, "density_": density, **extras}


def params_0_1(kind: str, params: Values) -> Values:
    """Return constructor parameters of today."""
    old = {k: decode(v) for k, v in params.items()}
    old.pop("eval_every")
    own = {"weight_decay": old.pop("weight_decay"), "averaging": old.pop("averaging", False)}
    if "betas" in old:
        own["betas"] = old.pop("betas")
    if not isinstance(old["optimizer"], Optimization):
        rate, method = old["learning_rate"], old["optimizer"]
        old["optimizer"] = Optimization(rate, method=method, **own)
    if kind == "HybridCDDensity":
        _chains(old)
    if kind == "USPDensity":
        old["repulsion"] = SupportPartition(
            old["epsilon"], *(old.pop(k) for k in REPULSION.split())
        )
        old.pop("weights")
    if kind == "SteinEBM":
        own = {"trace": old.pop("trace"), "learning_rate": old.pop("critic_learning_rate")}
        old["critic"] = "auto" if old["critic"] is None else old["critic"].with_params(**own)
    if kind == "BoundsEBM":
        old |= _game(old, old.pop("generator_learning_rate"), old.pop("generator_betas"))
        old["refine"] = old.pop("refine_iter") if old["refine"] else False
    return old


def _chains(old: Values) -> None:
    """Put what version 0.1 had flat into the start of the chains and the sampler."""
    share, noise, scale, size, rate, refresh = (old.pop(name) for name in CHAIN)
    scheme, fresh = old["init"].removesuffix("-refresh"), old["init"].endswith("-refresh")
    bank = SampleBank(size, rate if fresh else 0.0, refresh) if scheme == "persistent" else None
    old["init"] = ChainStart(scheme, noise, scale, share, bank)
    noise_std = old.pop("noise_std")
    if noise_std is not None:
        known = isinstance(old["sampler"], Langevin)
        sampler = old["sampler"] if known else Langevin()
        old["sampler"] = sampler.with_params(noise_std=noise_std)


def _game(old: Values, rate: float = 2e-3, betas: Any = None) -> Values:
    """Return what a game is told from what version 0.1 had flat."""
    generator = MLPGenerator() if old["generator"] in (None, "mlp") else old["generator"]
    own = {"latent_dim": old.pop("latent_dim"), "learning_rate": rate, "betas": betas}
    own["observation_noise"] = old.pop("observation_noise")
    bound = UpperBound(old["bound"], old.pop("penalty_exponent"), old.pop("probe"))
    how = (old.pop("entropy_weight"), old.pop("fold_penalty"), old.pop("n_lobpcg"))
    generator = generator.with_params(**own) if not isinstance(generator, str) else generator
    return {
        "bound": bound,
        "entropy": GeneratorEntropy(old["entropy"], *how),
        "generator": generator,
    }


def _wrappers(tensors: Tensors) -> list[str]:
    """Return what an energy was wrapped in, by the names of its tensors."""
    for name, marks in (
        ("Reweighted", {"lifts"}),
        ("Bounded", {"low", "high"}),
        ("LearnedGaussian", {"factor", "center", "log_scale"}),
    ):
        if marks <= tensors.keys():
            return [name, *_wrappers(within(tensors, "module"))]
    return []


def _base(where: str | None, tensors: Tensors) -> Any:
    if where is None or not tensors:
        return None
    return defined(where.rsplit(".", 1), Base)(**tensors)


def _by_chains(header: Values, kept: Tensors, transform: Affine, near: bool) -> Any:
    params = params_0_1(header["class"], header["params"])
    start = params["init"]
    if not isinstance(start.noise, str):
        start = start.with_params(noise=transform.forward(np.asarray(start.noise)))
    sampler = decode(header["sampler"])
    return ByChains(sampler, params["n_steps"], start, kept.get("bank"), near), {}


def _from_points(header: Values, kept: Tensors, transform: Affine, near: bool) -> Any:
    points, epsilon = transform.inverse(kept["points"]), float(kept["epsilon"])
    low, high = transform.inverse(kept["box"])
    extras = {
        "support_points_": points if math.isnan(epsilon) else np.clip(points, low, high),
        "support_weights_": kept["weights"].numpy(),
        "support_info_": SupportInfo(*kept["info"].tolist()),
        "epsilon_": epsilon,
        "domain_": (low, high),
    }
    return FromPoints(kept["points"], kept["weights"], near), extras


def _by_critic(header: Values, kept: Tensors, transform: Affine, near: bool) -> Any:
    critic, d = decode(header["played"]), header["fitted"]["n_features_in_"]
    extras = {
        "critic_network_": Trained(critic, (d,), **within(kept, "critic")),
        "calibration_": header["calibration"] and tuple(header["calibration"]),
    }
    return ByChains(Langevin(0.01), 1000, ChainStart(), by_weights=near), extras


def _by_generator(header: Values, kept: Tensors, transform: Affine, near: bool) -> Any:
    played = {k: decode(v) for k, v in header["played"]["params"].items() if "optim" not in k}
    game = BidirectionalBounds(**(played | _game(played)))
    d, state = header["fitted"]["n_features_in_"], within(kept, "generator")
    shape = (d,) if game.image_shape is None or game.maker.flat else tuple(game.image_shape)
    state = within(state, "module") if len(shape) > 1 else state
    trained = Trained(game.maker, (game.latents((d,)), shape), **state)
    names = {"lower": "lower_bound_", "surrogate": "upper_surrogate_", "cubo": "cubo_"}
    extras: Values = {n: Bound(*kept[f"report.{k}"].tolist()) for k, n in names.items()}
    extras |= {"game_": game, "fold_fraction_": float(kept["report.fold"][0])}
    return ByGenerator(trained, game.noise(), near and game.image_shape is None), extras


def _by_moves(header: Values, kept: Tensors, transform: Affine, near: bool) -> Any:
    learned = {"noise_log_partition_": float(kept["log_z"])} if "log_z" in kept else {}
    return ByMoves(near), learned


_READERS = {
    "BoundsEBM": _by_generator,
    "HybridCDDensity": _by_chains,
    "NCEDensity": _by_moves,
    "ScoreMatchingDensity": _by_moves,
    "SteinEBM": _by_critic,
    "USPDensity": _from_points,
}
