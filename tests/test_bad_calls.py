"""Every bad call has its error: the parameter, the rule and the value, at fit and not before."""

import re

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from skebm import (
    BoundsEBM,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from skebm.bases import Gaussian, Kernel, Mixture, TorchDistribution, Uniform
from skebm.energies import MLP
from skebm.networks import ConvGenerator, Critic, MLPGenerator
from skebm.objectives import EnergyStep, Optimization
from skebm.partition import AIS, ImportanceSampling, Quadrature
from skebm.samplers import HMC, MALA, SGHMC, Langevin

X = np.random.RandomState(0).randn(40, 4)
NAN, INF = X.copy(), X.copy()
NAN[3, 1], INF[3, 1] = np.nan, np.inf


SHARED = {
    "base": "gaussian",
    "max_iter": 1,
    "energy": MLP(hidden_sizes=(4,), n_frequencies=2),
    "log_partition": ImportanceSampling(n_samples=256, max_samples=256),
    "validation_fraction": 0,
    "random_state": 0,
}


def tiny(**params):
    return HybridCDDensity(**{**SHARED, "n_steps": 1, **params})


def tiny_usp(**params):
    return USPDensity(**{**SHARED, "method": "ps-usp", "n_points": 99, "n_inner": 1, **params})


def tiny_scores(**params):
    return ScoreMatchingDensity(**{**SHARED, **params})


def tiny_nce(**params):
    return NCEDensity(**{**SHARED, **params})


def tiny_stein(**params):
    return SteinEBM(**{**SHARED, "critic": Critic((4,)), "critic_steps": 1, **params})


GENERATOR = MLPGenerator((6,), input_scale=1.0, linear_skip=True)  # starts without folds


def tiny_bounds(**params):
    return BoundsEBM(**{**SHARED, "generator": GENERATOR, "refine_iter": 1, **params})


class Typo:
    """Not a component of anything."""

    def __repr__(self):
        return "Typo()"


def batch_norm(shape):
    return torch.nn.Sequential(
        torch.nn.Linear(shape, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
    )


# (parameters, error, fragments of the message: the name, the rule and the value)
PARAMETERS = [
    ({"init": "nois"}, ValueError, ["init", "'hybrid', 'data', 'noise', 'persistent'", "'nois'"]),
    ({"init": None}, TypeError, ["init", "one of", "None"]),
    ({"cd_weight": -1.5}, ValueError, ["cd_weight", ">= 0", "-1.5"]),
    ({"cd_weight": "25"}, TypeError, ["cd_weight", "a number", "'25'"]),
    ({"cd_weight": float("inf")}, ValueError, ["cd_weight", "inf"]),
    ({"noise_share": 0}, ValueError, ["noise_share", "> 0", "0"]),
    ({"noise_share": 1.5}, ValueError, ["noise_share", "<= 1", "1.5"]),
    ({"averaging": "no"}, ValueError, ["averaging", "[True, False]", "'no'"]),
    ({"sampler": "hmcc"}, ValueError, ["sampler", "'hmc', 'langevin', 'mala'", "'hmcc'"]),
    ({"sampler": Typo()}, TypeError, ["sampler", "instance of Sampler", "Typo()"]),
    ({"sampler": MALA}, TypeError, ["sampler", "instance of Sampler", "MALA"]),
    ({"sampler": Langevin(step_size=-1.0)}, ValueError, ["step_size", "> 0", "-1.0"]),
    ({"n_steps": 0}, ValueError, ["n_steps", "an integer >= 1", "0"]),
    ({"n_steps": 1.5}, TypeError, ["n_steps", "an integer >= 1", "1.5"]),
    ({"n_steps": True}, TypeError, ["n_steps", "an integer", "True"]),
    ({"step_size": 0.0}, ValueError, ["step_size", "> 0", "0.0", "'auto'"]),
    ({"step_size": "big"}, TypeError, ["step_size", "a number", "'big'"]),
    ({"step_size": "adaptiv"}, TypeError, ["step_size", "'auto' or 'adaptive'", "'adaptiv'"]),
    ({"step_size": EnergyStep(scale=-1)}, ValueError, ["scale", "> 0", "-1"]),
    ({"step_size": EnergyStep(largest=0)}, ValueError, ["largest", ">= 1e-06", "0"]),
    ({"noise_std": -0.1, "sampler": "langevin"}, ValueError, ["noise_std", ">= 0", "-0.1"]),
    ({"noise_std": 0.1}, ValueError, ["noise_std", "None with MALA", "0.1", "'langevin'"]),
    ({"bank_size": 0, "init": "persistent"}, ValueError, ["bank_size", ">= 1", "0"]),
    ({"bank_size": 9, "init": "persistent"}, ValueError, ["bank_size", "256 rows", "9"]),
    ({"refresh_rate": 1.5, "init": "persistent-refresh"}, ValueError, ["refresh_rate", "1.5"]),
    ({"refresh_rate": 0.1}, ValueError, ["refresh_rate", "init='hybrid'", "0.1", "persistent-r"]),
    ({"refresh_rate": 0.1, "init": "persistent"}, ValueError, ["refresh_rate", "0.1"]),
    ({"refresh": "chain"}, ValueError, ["refresh", "init='hybrid'", "'chain'"]),
    ({"refresh": "x", "init": "persistent-refresh"}, ValueError, ["refresh", "'iteration'", "'x'"]),
    ({"start_noise": "gauss"}, ValueError, ["noise", "'normal', 'uniform'", "'gauss'"]),
    ({"start_noise": "base", "base": None}, ValueError, ["noise", "without a base", "'base'"]),
    ({"start_scale": 0.0}, ValueError, ["noise_scale", "> 0", "0.0"]),
    ({"sampler": SGHMC(friction=-1.0)}, ValueError, ["friction", ">= 0", "-1.0"]),
    ({"sampler": SGHMC(mass=0)}, ValueError, ["mass", "> 0", "0"]),
    ({"sampler": HMC(n_leapfrog=0)}, ValueError, ["n_leapfrog", ">= 1", "0"]),
    ({"eval_every": 0}, ValueError, ["eval_every", ">= 1", "0"]),
    ({"optimizer": "adamax"}, ValueError, ["optimizer", "'adam', 'sgd'", "'adamax'"]),
    ({"optimizer": Optimization(schedule="x")}, ValueError, ["schedule", "'cosine'", "'x'"]),
    ({"temperature": 0}, ValueError, ["temperature", "> 0", "got 0"]),
    ({"temperature": -1.0}, ValueError, ["temperature", "> 0", "-1.0"]),
    ({"temperature": "hot"}, TypeError, ["temperature", "a number > 0", "'hot'"]),
    ({"temperature": None}, TypeError, ["temperature", "a number > 0", "None"]),
    ({"temperature": np.nan}, ValueError, ["temperature", "> 0", "nan"]),
    ({"energy": "mpl"}, ValueError, ["energy", "['conv', 'ica', 'mlp', 'rbm'", "'mpl'"]),
    ({"energy": 3}, TypeError, ["energy", "instance of EnergyComponent", "3"]),
    ({"energy": None}, TypeError, ["energy", "one of", "None"]),
    ({"energy": MLP(hidden_sizes=())}, TypeError, ["hidden_sizes", "nonempty tuple", "()"]),
    ({"energy": MLP(hidden_sizes=(4, 0))}, ValueError, ["hidden_sizes", ">= 1", "0"]),
    ({"energy": MLP(hidden_sizes=7)}, TypeError, ["hidden_sizes", "tuple", "7"]),
    ({"energy": MLP(activation="relu6")}, ValueError, ["activation", "'silu'", "'relu6'"]),
    ({"energy": MLP(output="cubic")}, ValueError, ["output", "'quadratic'", "'cubic'"]),
    ({"energy": MLP(n_frequencies=-1)}, ValueError, ["n_frequencies", ">= 0", "-1"]),
    ({"energy": lambda d: "a module"}, TypeError, ["energy", "torch.nn.Module", "'a module'"]),
    ({"energy": batch_norm}, ValueError, ["energy", "batch normalization", "BatchNorm1d at '1'"]),
    ({"energy": lambda d: torch.nn.Linear(d, 1)}, ValueError, ["energy", "(n, 4)", "(3, 1)"]),
    ({"base": "gausian"}, ValueError, ["base", "'gaussian', 'kernel'", "'gausian'"]),
    ({"base": Typo()}, TypeError, ["base", "instance of BaseComponent", "Typo()"]),
    ({"base": MLP()}, TypeError, ["base", "instance of BaseComponent", "MLP()"]),
    ({"base": Gaussian}, TypeError, ["base", "instance of BaseComponent", "Gaussian"]),
    ({"base": Kernel(n_centers=0)}, ValueError, ["n_centers", ">= 1", "0"]),
    ({"base": Kernel(bandwidth=-0.5)}, ValueError, ["bandwidth", "> 0", "-0.5"]),
    ({"base": Mixture(n_components=2.5)}, TypeError, ["n_components", "an integer", "2.5"]),
    ({"base": Uniform(widening=-1)}, ValueError, ["widening", ">= 0", "-1"]),
    ({"base": TorchDistribution(Typo())}, TypeError, ["distribution", "log_prob", "Typo()"]),
    (
        {"base": TorchDistribution(torch.distributions.Normal(0.0, 1.0))},
        ValueError,
        ["distribution", "shape (n,)", "for 2 rows"],
    ),
    ({"standardize": "yes"}, ValueError, ["standardize", "[True, False]", "'yes'"]),
    ({"standardize": None}, TypeError, ["standardize", "[True, False]", "None"]),
    ({"data_noise": -0.1}, ValueError, ["data_noise", ">= 0", "-0.1", "'auto'"]),
    ({"data_noise": "automatic"}, TypeError, ["data_noise", "a number", "'automatic'"]),
    ({"refine": "no"}, ValueError, ["refine", "[True, False]", "'no'"]),
    ({"max_iter": 0}, ValueError, ["max_iter", "an integer >= 1", "0"]),
    ({"max_iter": 10.0}, TypeError, ["max_iter", "an integer >= 1", "10.0"]),
    ({"batch_size": -4}, ValueError, ["batch_size", ">= 1", "-4"]),
    ({"batch_size": None}, TypeError, ["batch_size", "an integer", "None"]),
    ({"learning_rate": 0.0}, ValueError, ["learning_rate", "> 0", "0.0"]),
    ({"learning_rate": "fast"}, TypeError, ["learning_rate", "a number", "'fast'"]),
    ({"weight_decay": -1e-3}, ValueError, ["weight_decay", ">= 0", "-0.001"]),
    ({"validation_fraction": 1.0}, ValueError, ["validation_fraction", "<= 0.9", "1.0"]),
    ({"validation_fraction": -0.1}, ValueError, ["validation_fraction", ">= 0", "-0.1"]),
    ({"validation_fraction": None}, TypeError, ["validation_fraction", "a number", "None"]),
    ({"n_iter_no_change": 0}, ValueError, ["n_iter_no_change", ">= 1", "0"]),
    ({"n_iter_no_change": 2.0}, TypeError, ["n_iter_no_change", "an integer", "2.0"]),
    ({"tol": -1.0}, ValueError, ["tol", ">= 0", "-1.0"]),
    ({"log_partition": "exact"}, ValueError, ["log_partition", "'auto', 'importance'", "'exact'"]),
    ({"log_partition": 1.0}, TypeError, ["log_partition", "instance of PartitionMethod", "1.0"]),
    ({"log_partition": AIS(n_chains=0)}, ValueError, ["n_chains", ">= 8", "0"]),
    ({"log_partition": Quadrature()}, ValueError, ["3", "4"]),  # four columns are too many
    ({"contamination": 0.6}, ValueError, ["contamination", "> 0 and <= 0.5", "0.6", "'auto'"]),
    ({"contamination": 0.0}, ValueError, ["contamination", "> 0 and <= 0.5", "0.0"]),
    ({"contamination": "some"}, TypeError, ["contamination", "a number", "'some'"]),
    ({"image_shape": (1, 2, 3)}, ValueError, ["image_shape", "4 columns", "(1, 2, 3)"]),
    ({"image_shape": (2, 2)}, TypeError, ["image_shape", "(channels, height, width)", "(2, 2)"]),
    ({"image_shape": 4}, TypeError, ["image_shape", "(channels, height, width)", "4"]),
    ({"image_shape": (1, 2, 2.0)}, TypeError, ["image_shape", "an integer", "2.0"]),
    ({"image_shape": (1, -2, -2)}, ValueError, ["image_shape", ">= 1", "-2"]),
    ({"device": "gpu"}, ValueError, ["device", "'auto', 'cpu', 'cuda'", "'gpu'"]),
    ({"device": 1.5}, ValueError, ["device", "torch.device", "1.5"]),
    ({"checkpoint_dir": 3}, TypeError, ["checkpoint_dir", "3"]),
    ({"warm_start": "no"}, ValueError, ["warm_start", "[True, False]", "'no'"]),
    ({"verbose": -1}, ValueError, ["verbose", ">= 0", "-1"]),
    ({"verbose": "loud"}, TypeError, ["verbose", "a number", "'loud'"]),
    ({"random_state": "seed"}, ValueError, ["'seed'", "seed"]),  # scikit-learn's own words
]
PARAMETERS += [
    ({"start_noise": np.zeros((5, 3))}, ValueError, ["start_noise", "4 columns", "(5, 3)"]),
    ({"start_noise": NAN}, ValueError, ["start_noise", "NaN"]),
    ({"start_noise": X[0]}, ValueError, ["2D array", "1D"]),
    ({"start_noise": X[:0]}, ValueError, ["0 sample(s)", "minimum of 1"]),
    ({"start_noise": 3.0}, ValueError, ["2D array", "scalar"]),
    ({"start_noise": None}, TypeError, ["noise", "'normal', 'uniform'", "None"]),
]

ONE_WAY = {"combine": False}
USP_PARAMETERS = [
    ({"method": "snis"}, ValueError, ["method", "'importance', 'ps-usp', 'usp'", "'snis'"]),
    ({"method": None}, TypeError, ["method", "one of", "None"]),
    ({"method": "importance", "base": None}, ValueError, ["base", "importance", "None"]),
    ({"n_points": 1}, ValueError, ["n_points", "an integer >= 2", "1"]),
    ({"n_points": 10.0}, TypeError, ["n_points", "an integer", "10.0"]),
    ({"n_points": 1, "method": "importance"}, ValueError, ["n_points", ">= 2", "1"]),
    ({"n_active": 0}, ValueError, ["n_active", ">= 1", "0"]),
    ({"n_active": None}, TypeError, ["n_active", "an integer >= 1", "None"]),
    ({"n_neighbors": -1}, ValueError, ["n_neighbors", ">= 0", "-1", "'auto'"]),
    ({"n_neighbors": "all"}, TypeError, ["n_neighbors", "an integer", "'all'", "'auto'"]),
    ({"epsilon": 0.0}, ValueError, ["epsilon", "> 0", "0.0"]),
    ({"epsilon": "automatic"}, TypeError, ["epsilon", "a number", "'automatic'"]),
    ({"epsilon": np.inf}, ValueError, ["epsilon", "> 0", "inf"]),
    ({"n_inner": -1}, ValueError, ["n_inner", ">= 0", "-1"]),
    ({"n_inner": 2.5}, TypeError, ["n_inner", "an integer", "2.5"]),
    ({"n_maximize": 2}, ValueError, ["n_maximize", "1 with combine=True", "2", "combine=False"]),
    ({"n_maximize": -1, **ONE_WAY}, ValueError, ["n_maximize", ">= 0", "-1"]),
    ({"n_repel": 0}, ValueError, ["n_repel", "1 with combine=True", "0", "combine=False"]),
    ({"n_repel": "1", **ONE_WAY}, TypeError, ["n_repel", "an integer", "'1'"]),
    ({"combine": "no"}, ValueError, ["combine", "[True, False]", "'no'"]),
    ({"step_maximize": -0.5}, ValueError, ["step_maximize", ">= 0", "-0.5"]),
    ({"step_maximize": "auto"}, TypeError, ["step_maximize", "a number", "'auto'"]),
    ({"step_repel": -0.5}, ValueError, ["step_repel", ">= 0", "-0.5", "'auto'"]),
    ({"step_repel": "fast"}, TypeError, ["step_repel", "a number", "'fast'", "'auto'"]),
    ({"domain": 3.0}, TypeError, ["domain", "a pair (low, high)", "3.0"]),
    ({"domain": (0, 1, 2)}, TypeError, ["domain", "a pair (low, high)", "(0, 1, 2)"]),
    ({"domain": ("a", "b")}, ValueError, ["domain", "numbers for 4 columns", "('a', 'b')"]),
    ({"domain": ([0, 0], [1, 1])}, ValueError, ["domain", "4 columns", "([0, 0], [1, 1])"]),
    ({"domain": (1, -1)}, ValueError, ["domain", "finite low < high", "(1, -1)"]),
    ({"domain": (-np.inf, 1)}, ValueError, ["domain", "finite low < high", "(-inf, 1)"]),
    ({"init": "noise"}, ValueError, ["init", "'data', 'uniform'", "'noise'", "an array"]),
    ({"init": None}, TypeError, ["init", "'data', 'uniform'", "None"]),
    ({"init": np.zeros((5, 3))}, ValueError, ["init", "4 columns", "(5, 3)", "units of X"]),
    ({"init": NAN}, ValueError, ["init", "NaN"]),
    ({"n_integration": 0}, ValueError, ["n_integration", ">= 1", "0"]),
    ({"n_integration": "all"}, TypeError, ["n_integration", "an integer", "'all'"]),
    ({"weights": "voronoi"}, ValueError, ["weights", "'plain', 'knn'", "'voronoi'"]),
]
OF_CHAINS = set(HybridCDDensity().get_params()) - set(USPDensity().get_params())
# what all estimators have, but for init, which means another thing
SHARED_ROWS = [row for row in PARAMETERS if not set(row[0]) & (OF_CHAINS | {"init"})]
USP_PARAMETERS += SHARED_ROWS

LEVELS, SLICED, COPIES = {"method": "multi-level"}, {"method": "sliced"}, {"noise": "conditional"}
KINKED = {"energy": MLP((4,), "leaky_relu")}
SCORE_PARAMETERS = [
    ({"method": "dsm"}, ValueError, ["method", "'denoising', 'multi-level', 'exact'", "'dsm'"]),
    ({"method": None}, TypeError, ["method", "one of", "None"]),
    ({"noise_std": 0.0}, ValueError, ["noise_std", "> 0", "0.0"]),
    ({"noise_std": "auto"}, TypeError, ["noise_std", "a number", "'auto'"]),
    ({"noise_std": -0.1, **LEVELS}, ValueError, ["noise_std", "> 0", "-0.1"]),
    ({"n_levels": 0, **LEVELS}, ValueError, ["n_levels", "an integer >= 1", "0"]),
    ({"n_levels": 2.0, **LEVELS}, TypeError, ["n_levels", "an integer", "2.0"]),
    ({"max_noise_std": 0.05, **LEVELS}, ValueError, ["max_noise_std", ">= 0.1", "0.05"]),
    ({"max_noise_std": "wide", **LEVELS}, TypeError, ["max_noise_std", "a number", "'wide'"]),
    ({"n_projections": 0, **SLICED}, ValueError, ["n_projections", ">= 1", "0"]),
    ({"n_projections": "d", **SLICED}, TypeError, ["n_projections", "an integer", "'d'"]),
    ({"projections": "sphere", **SLICED}, ValueError, ["projections", "'gaussian'", "'sphere'"]),
    ({**KINKED, "method": "exact"}, ValueError, ["energy", "twice differentiable", "FeedForward"]),
    ({**KINKED, **SLICED}, ValueError, ["energy", "twice differentiable", "'silu'"]),
    *SHARED_ROWS,
]
NCE_PARAMETERS = [
    ({"noise": "data"}, ValueError, ["noise", "'base', 'conditional', 'gaussian'", "'data'"]),
    ({"noise": None}, TypeError, ["noise", "one of", "None"]),
    ({"noise": MLP()}, TypeError, ["noise", "instance of BaseComponent", "MLP()"]),
    ({"noise": Kernel(n_centers=0)}, ValueError, ["n_centers", ">= 1", "0"]),
    ({"noise": "base", "base": None}, ValueError, ["noise", "without a base", "None"]),
    ({"noise_ratio": 0}, ValueError, ["noise_ratio", "> 0", "0"]),
    ({"noise_ratio": "all"}, TypeError, ["noise_ratio", "a number", "'all'"]),
    ({"noise_ratio": 0.5, **COPIES}, ValueError, ["noise_ratio", ">= 1", "0.5", "copies"]),
    ({"noise_ratio": 1.5, **COPIES}, ValueError, ["noise_ratio", "a whole number", "1.5"]),
    ({"noise_std": 0.0, **COPIES}, ValueError, ["noise_std", "> 0", "0.0"]),
    ({"noise_std": None, **COPIES}, TypeError, ["noise_std", "a number", "None"]),
    *SHARED_ROWS,
]

STEIN_PARAMETERS = [
    ({"critic": "mlp"}, TypeError, ["critic", "a Critic or None", "'mlp'"]),
    ({"critic": Critic}, TypeError, ["critic", "a Critic or None", "class"]),
    ({"critic": Critic(())}, TypeError, ["hidden_sizes", "nonempty tuple", "()"]),
    ({"critic": Critic((4, 0))}, ValueError, ["hidden_sizes", ">= 1", "0"]),
    ({"critic": Critic((4,), "relu")}, ValueError, ["activation", "'swish', 'tanh'", "'relu'"]),
    ({"critic": Critic((4,), dropout=1.0)}, ValueError, ["dropout", "<= 0.99", "1.0"]),
    ({"critic": Critic((4,), weight_clip=0)}, ValueError, ["weight_clip", "> 0", "0"]),
    ({"critic_steps": 0}, ValueError, ["critic_steps", "an integer >= 1", "0"]),
    ({"critic_steps": 2.5}, TypeError, ["critic_steps", "an integer >= 1", "2.5"]),
    ({"l2": 0.0}, ValueError, ["l2", "> 0", "0.0"]),
    ({"l2": -1.0}, ValueError, ["l2", "> 0", "-1.0"]),
    ({"l2": "auto"}, TypeError, ["l2", "a number > 0", "'auto'"]),
    ({"l2": None}, TypeError, ["l2", "a number > 0", "None"]),
    ({"trace": "hutchinson"}, ValueError, ["trace", "'exact', 'gaussian'", "'hutchinson'"]),
    ({"trace": None}, TypeError, ["trace", "one of", "None"]),
    ({"energy_l2": -0.001}, ValueError, ["energy_l2", ">= 0", "-0.001"]),
    ({"energy_l2": None}, TypeError, ["energy_l2", "a number >= 0", "None"]),
    ({"learn_base": "no"}, ValueError, ["learn_base", "[True, False]", "'no'"]),
    ({"learn_base": None}, TypeError, ["learn_base", "[True, False]", "None"]),
    ({"calibrate": "auto"}, ValueError, ["calibrate", "[True, False]", "'auto'"]),
    ({"calibrate": None}, TypeError, ["calibrate", "[True, False]", "None"]),
    ({"averaging": None}, TypeError, ["averaging", "[True, False]", "None"]),
    ({"betas": 0.9}, TypeError, ["betas", "two numbers", "0.9"]),
    ({"betas": (0.5,)}, TypeError, ["betas", "two numbers", "(0.5,)"]),
    ({"betas": (0.5, 1.0)}, ValueError, ["betas", "below 1", "1.0"]),
    ({"betas": (-0.5, 0.9)}, ValueError, ["betas", ">= 0", "-0.5"]),
    ({"critic_learning_rate": 0.0}, ValueError, ["critic_learning_rate", "> 0", "0.0", "None"]),
    ({"critic_learning_rate": "x"}, TypeError, ["critic_learning_rate", "a number", "'x'"]),
    *SHARED_ROWS,
]

INFORMATION = {"bound": "zero-centered-gp", "entropy": "mutual-information"}
BOUNDS_PARAMETERS = [
    ({"bound": "wgan"}, ValueError, ["bound", "'wgan-gp', 'wgan-0gp'", "'wgan'"]),
    ({"bound": None}, TypeError, ["bound", "one of", "None"]),
    ({"entropy": "exact"}, ValueError, ["entropy", "'logdet', 'singular-value'", "'exact'"]),
    ({"entropy": "variational"}, ValueError, ["entropy", "'hutchinson'", "zero-centered-gp"]),
    ({"entropy": 1}, TypeError, ["entropy", "one of", "1"]),
    ({"generator": "mpl"}, ValueError, ["generator", "['conv', 'mlp', 'residual']", "'mpl'"]),
    ({"generator": MLPGenerator}, TypeError, ["generator", "instance of GeneratorComponent"]),
    ({"generator": None}, TypeError, ["generator", "one of", "None"]),
    ({"generator": MLP()}, TypeError, ["generator", "instance of GeneratorComponent", "MLP()"]),
    ({"generator": MLPGenerator(())}, TypeError, ["hidden_sizes", "nonempty tuple", "()"]),
    ({"generator": MLPGenerator((4, 0))}, ValueError, ["hidden_sizes", ">= 1", "0"]),
    ({"generator": MLPGenerator((4,), "relu")}, ValueError, ["activation", "'tanh'", "'relu'"]),
    ({"generator": MLPGenerator((4,), "tanh", 0)}, ValueError, ["input_scale", "> 0", "'auto'"]),
    ({"generator": ConvGenerator()}, ValueError, ["image", "(4,)"]),
    ({"latent_dim": 0}, ValueError, ["latent_dim", "an integer >= 1", "0"]),
    ({"latent_dim": 5}, ValueError, ["latent_dim", "4 values of a row", "5"]),
    ({"latent_dim": 2.0}, TypeError, ["latent_dim", "an integer", "2.0"]),
    ({"latent_dim": "auto"}, TypeError, ["latent_dim", "an integer", "'auto'"]),
    ({"observation_noise": -0.1}, ValueError, ["observation_noise", ">= 0", "-0.1", "'auto'"]),
    ({"observation_noise": None}, TypeError, ["observation_noise", "a number", "None", "'auto'"]),
    (
        {"observation_noise": 0.0, "bound": "zero-centered-gp", "entropy": "variational"},
        ValueError,
        ["observation_noise", "> 0", "0", "'auto'"],
    ),
    ({"margin": -1.0}, ValueError, ["margin", ">= 0", "-1.0"]),
    ({"margin": "auto"}, TypeError, ["margin", "a number", "'auto'"]),
    ({"penalty_weight": -0.5}, ValueError, ["penalty_weight", ">= 0", "-0.5", "'auto'"]),
    ({"penalty_weight": "big"}, TypeError, ["penalty_weight", "a number", "'big'", "'auto'"]),
    ({"penalty_weight": np.nan, **INFORMATION}, ValueError, ["penalty_weight", "nan"]),
    ({"penalty_exponent": 0.5}, ValueError, ["penalty_exponent", ">= 1", "0.5"]),
    ({"penalty_exponent": None}, TypeError, ["penalty_exponent", "a number", "None"]),
    ({"probe": "rademacher"}, ValueError, ["probe", "'gaussian', 'sphere'", "'rademacher'"]),
    ({"probe": None}, TypeError, ["probe", "one of", "None"]),
    ({"entropy_weight": -1}, ValueError, ["entropy_weight", ">= 0", "-1"]),
    ({"entropy_weight": "auto"}, TypeError, ["entropy_weight", "a number", "'auto'"]),
    ({"fold_penalty": -1.0}, ValueError, ["fold_penalty", ">= 0", "-1.0"]),
    ({"fold_penalty": None}, TypeError, ["fold_penalty", "a number", "None"]),
    ({"n_lobpcg": 0}, ValueError, ["n_lobpcg", "an integer >= 1", "0"]),
    ({"n_lobpcg": 2.5}, TypeError, ["n_lobpcg", "an integer", "2.5"]),
    ({"n_restarts": 0}, ValueError, ["n_restarts", "an integer >= 1", "0"]),
    ({"n_restarts": True}, TypeError, ["n_restarts", "an integer", "True"]),
    ({"refine": "no"}, ValueError, ["refine", "[True, False]", "'no'"]),
    ({"refine": None}, TypeError, ["refine", "[True, False]", "None"]),
    ({"refine_iter": 0}, ValueError, ["refine_iter", "an integer >= 1", "0"]),
    ({"refine_iter": 9.0}, TypeError, ["refine_iter", "an integer", "9.0"]),
    ({"betas": 0.9}, TypeError, ["betas", "two numbers", "0.9"]),
    ({"betas": (0.5, 1.0)}, ValueError, ["betas", "below 1", "1.0"]),
    ({"generator_betas": 0.5}, TypeError, ["generator_betas", "two numbers", "0.5"]),
    ({"generator_betas": (0.5,)}, TypeError, ["generator_betas", "two numbers", "(0.5,)"]),
    ({"generator_betas": (-0.5, 0.9)}, ValueError, ["generator_betas", "[0, 1)", "-0.5"]),
    ({"generator_learning_rate": 0.0}, ValueError, ["generator_learning_rate", "> 0", "0.0"]),
    ({"generator_learning_rate": "x"}, TypeError, ["generator_learning_rate", "number", "'x'"]),
    *[row for row in SHARED_ROWS if "averaging" not in row[0]],
]


def name(value):
    return str(value) if isinstance(value, dict) else None


def has(message, fragments):
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} not in {message!r}"


def refused(est, params, error, fragments):
    assert est.get_params(deep=False)[next(iter(params))] is next(iter(params.values()))
    with pytest.raises(error) as caught:
        est.fit(X)
    assert type(caught.value) is error
    has(str(caught.value), fragments)


@pytest.mark.parametrize(("params", "error", "fragments"), PARAMETERS)
def test_a_bad_parameter_is_named_at_fit(params, error, fragments):
    refused(tiny(**params), params, error, fragments)  # construction never complains


@pytest.mark.parametrize(("params", "error", "fragments"), USP_PARAMETERS)
@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_a_bad_parameter_of_usp_is_named_at_fit(params, error, fragments):
    refused(tiny_usp(**params), params, error, fragments)


@pytest.mark.parametrize(("params", "error", "fragments"), SCORE_PARAMETERS)
def test_a_bad_parameter_of_score_matching_is_named_at_fit(params, error, fragments):
    refused(tiny_scores(**params), params, error, fragments)


@pytest.mark.parametrize(("params", "error", "fragments"), NCE_PARAMETERS)
def test_a_bad_parameter_of_nce_is_named_at_fit(params, error, fragments):
    refused(tiny_nce(**params), params, error, fragments)


@pytest.mark.parametrize(("params", "error", "fragments"), STEIN_PARAMETERS)
def test_a_bad_parameter_of_stein_is_named_at_fit(params, error, fragments):
    refused(tiny_stein(**params), params, error, fragments)


@pytest.mark.parametrize(("params", "error", "fragments"), BOUNDS_PARAMETERS)
def test_a_bad_parameter_of_bounds_is_named_at_fit(params, error, fragments):
    refused(tiny_bounds(**params), params, error, fragments)


@pytest.mark.parametrize(
    ("estimator", "table"),
    [
        (HybridCDDensity, PARAMETERS),
        (USPDensity, USP_PARAMETERS),
        (ScoreMatchingDensity, SCORE_PARAMETERS),
        (NCEDensity, NCE_PARAMETERS),
        (SteinEBM, STEIN_PARAMETERS),
        (BoundsEBM, BOUNDS_PARAMETERS),
    ],
)
def test_every_parameter_is_in_the_table(estimator, table):
    tested = {key for params, *_ in table for key in params}
    assert tested == set(estimator().get_params())


@pytest.mark.parametrize(
    "estimator", [tiny, tiny_usp, tiny_scores, tiny_nce, tiny_stein, tiny_bounds]
)
def test_the_table_s_estimator_is_sound_without_its_fault(estimator):
    assert np.isfinite(estimator().fit(X).score_samples(X)).all()


@pytest.mark.parametrize("alias", ["log_partition", "sampler", "energy", "base"])
def test_an_unknown_alias_fails_before_training(alias, monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("trained before it looked")

    monkeypatch.setattr("skebm.estimators._base.train", train)
    with pytest.raises(ValueError, match=f"{alias} must be one of .*got 'typo'"):
        tiny(**{alias: "typo"}).fit(X)


def test_an_unknown_log_partition_fails_where_the_energy_is_dropped_too(monkeypatch):
    est = tiny(log_partition="typo", validation_fraction=0.2, learning_rate=1e-12)
    with pytest.raises(ValueError, match="log_partition must be one of .*got 'typo'"):
        est.fit(X)


TABLES = [
    (NAN, ValueError, "NaN"),
    (INF, ValueError, "infinity"),
    (X[:1], ValueError, "minimum of 2 is required"),
    (X[:0], ValueError, "minimum of 2 is required"),
    (X[:, :0], ValueError, "0 feature"),
    (X[0], ValueError, "Expected 2D array, got 1D"),
    (X[None], ValueError, "dim 3"),
    (X.astype(complex), ValueError, "Complex data not supported"),
    (np.array([["a", "b"], ["c", "d"]]), ValueError, "could not convert string"),
    (None, ValueError, "Expected 2D array"),
]


@pytest.mark.parametrize(("table", "error", "message"), TABLES, ids=lambda v: None)
def test_a_bad_table_is_refused(table, error, message):
    with pytest.raises(error, match=message):
        tiny().fit(table)


def test_a_sparse_table_is_refused():
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X)
    with pytest.raises(TypeError, match="[Ss]parse"):
        tiny().fit(sparse)


WEIGHTS = [
    (-np.ones(40), ValueError, "[Nn]egative values.*sample_weight"),
    (np.r_[-1e-9, np.ones(39)], ValueError, "[Nn]egative values.*sample_weight"),
    (np.ones(39), ValueError, r"sample_weight.shape == \(39,\)"),
    (np.ones((40, 1)), ValueError, "[Ss]ample weights must be 1D"),
    (np.zeros(40), ValueError, "sample_weight|[Ss]ample weights"),
    (np.r_[1.0, np.zeros(39)], ValueError, "sample_weight must be positive for at least 2 rows"),
    (np.r_[np.nan, np.ones(39)], ValueError, "sample_weight contains NaN"),
    (["a"] * 40, ValueError, "could not convert string"),
]


@pytest.mark.parametrize(("weight", "error", "message"), WEIGHTS, ids=lambda v: None)
def test_bad_weights_are_refused(weight, error, message):
    with pytest.raises(error, match=message):
        tiny().fit(X, sample_weight=weight)


READS = ["score_samples", "score", "decision_function", "predict", "energy_samples"]
READS += ["score_function"]


@pytest.fixture(scope="module")
def fitted():
    return tiny().fit(X)


@pytest.mark.parametrize("read", READS)
def test_reads_refuse_bad_rows(read, fitted):
    with pytest.raises(ValueError, match="3 features.*expecting 4"):
        getattr(fitted, read)(X[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        getattr(fitted, read)(NAN)
    with pytest.raises(ValueError, match="Expected 2D array"):
        getattr(fitted, read)(X[0])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        getattr(fitted, read)(X[:0])


@pytest.mark.parametrize("read", READS)
def test_reads_need_a_fit(read):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(tiny(), read)(X)


@pytest.mark.parametrize("failure", [{"energy": "typo"}, {"n_steps": 0}, {"temperature": 0}])
def test_a_failed_fit_leaves_an_unfitted_estimator(failure):
    est = tiny(**failure)
    with pytest.raises(ValueError, match="must be"):
        est.fit(X)
    with pytest.raises(NotFittedError):
        est.score_samples(X)
    with pytest.raises(NotFittedError):
        est.sample()


def test_sample_needs_a_fit():
    with pytest.raises(NotFittedError):
        tiny().sample(3)


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("5", TypeError), (None, TypeError)],
)
def test_sample_refuses_a_bad_number(n, error, fitted):
    with pytest.raises(
        error, match=rf"n_samples must be an integer >= 1, got {re.escape(repr(n))}"
    ):
        fitted.sample(n)


def test_sample_refuses_a_bad_seed(fitted):
    with pytest.raises(ValueError, match="'seed'"):
        fitted.sample(3, random_state="seed")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nonsense": 1}, "Invalid parameter 'nonsense'"),
        ({"energy__width": 1}, "Invalid parameter 'width'"),
        ({"base": "typo", "base__n_centers": 4}, "base must be one of .*got 'typo'"),
        ({"sampler": "langevin", "sampler__friction": 1.0}, "parameter 'friction'.*Langevin"),
    ],
)
def test_set_params_refuses_unknown_names(params, message):
    with pytest.raises(ValueError, match=message):
        tiny(energy="mlp").set_params(**params)


def test_the_constructor_refuses_unknown_names():
    with pytest.raises(TypeError, match="bandwidth"):
        HybridCDDensity(bandwidth=1.0)
