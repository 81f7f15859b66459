"""Each estimator, detector and component once, tiny: what the contracts run over.

Whatever has a constructor is built here, behind a name, so a parameter that moves is changed once.
"""

import io
import pickle
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.base import clone

import skebm
from skebm import bases, energies, networks, objectives, ood, partition, plots, samplers
from skebm._components import Component
from skebm.bases import BaseComponent, Gaussian, Kernel, Mixture
from skebm.energies import MLP
from skebm.networks import Critic, MLPGenerator
from skebm.partition import ImportanceSampling, PartitionMethod
from skebm.samplers import MALA

# few draws, few points and few updates are what tiny means
QUIET = [
    pytest.mark.filterwarnings("ignore::skebm.exceptions.NormalizationWarning"),
    pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning"),
    pytest.mark.filterwarnings("ignore::skebm.exceptions.GeneratorWarning"),
    pytest.mark.filterwarnings("ignore::skebm.exceptions.CalibrationWarning"),
]


def table(n=120, seed=0):
    """Rows (n, 2) of skewed, correlated columns in unlike units."""
    rng = np.random.RandomState(seed)
    return (rng.gamma(3.0, size=(n, 2)) @ [[1.0, 0.5], [0.0, 1.0]]) * [1.0, 40.0] + [0.0, -300.0]


class _Bits(pickle.Pickler):
    def reducer_override(self, value):
        if isinstance(value, torch.Generator):
            value = value.get_state()
        if isinstance(value, torch.Tensor):  # torch's own pickles name addresses
            flags = (value.dtype, value.requires_grad, list(value.shape))
            return str, (repr(flags) + value.detach().cpu().numpy().tobytes().hex(),)
        return NotImplemented


def bits(est):
    """Return everything that an estimator holds as bytes, but for how its last draws went."""
    buffer = io.BytesIO()
    _Bits(buffer).dump({k: v for k, v in vars(est).items() if k != "sample_info_"})
    return buffer.getvalue()


# -- estimators ------------------------------------------------------------------------------------

ENERGY = MLP((6,), n_frequencies=3)
LOG_Z = ImportanceSampling(n_samples=512, max_samples=512)
SHARED = {
    "base": "gaussian",
    "max_iter": 4,
    "batch_size": 32,
    "energy": ENERGY,
    "log_partition": LOG_Z,
    "validation_fraction": 0,  # nothing held out: the trained energy is always kept
    "random_state": 0,
}
GENERATOR = MLPGenerator((6,), input_scale=1.0, linear_skip=True)  # starts without folds
OWN = {
    skebm.HybridCDDensity: {"n_steps": 1},
    skebm.USPDensity: {"method": "ps-usp", "n_points": 50},
    skebm.ScoreMatchingDensity: {},
    skebm.NCEDensity: {},
    skebm.SteinEBM: {"critic": Critic((6,)), "critic_steps": 1},
    skebm.BoundsEBM: {"generator": GENERATOR},
    skebm.EnergyDensity: {},
}
CLASSES = {cls.__name__: cls for cls in OWN}
each = pytest.mark.parametrize("name", CLASSES)


def lasting(name, n):
    """The parameters for n updates in each phase of a training."""
    return {"max_iter": n} | ({"refine": n} if name == "BoundsEBM" else {})


def tiny(name, **params):
    """An estimator that is fitted in a few hundredths of a second, with components of its own."""
    cls = CLASSES[name]
    chosen = {**SHARED, **lasting(name, SHARED["max_iter"]), **OWN[cls], **params}
    return cls(**{k: clone(v) if isinstance(v, Component) else v for k, v in chosen.items()})


@cache
def fitted(name):
    """The estimator fitted to `table()`, shared by all tests of a process: never changed."""
    return tiny(name).fit(table())


def factory(n_features):
    """A callable energy that pickles."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Flatten(0)
    )


# ways to be fitted that a copy or a file has to keep
VARIANTS = {
    "HybridCDDensity": {
        "mixture base": {"base": Mixture(n_components=2)},
        "kernel base": {"base": Kernel(n_centers=50), "temperature": 2.0, "standardize": False},
        "no base": {"base": None, "energy": MLP((6,), n_frequencies=0, output="quadratic")},
        "noise": {"data_noise": 0.2},
        "reconstruction": {"energy": energies.Reconstruction((6, 4), negative_slope=0.3)},
        "unnormalized": {"log_partition": None},
        "persistent": {"init": "persistent", "sampler": MALA(step_size=0.02)},
        "dropped": {"validation_fraction": np.float32(0.25), "max_iter": np.int64(5)},
    },
    "USPDensity": {
        "box": {"base": "uniform", "domain": (-400.0, 900.0)},
        "places": {"method": "usp", "init": table(20), "domain": np.array([[-9, -400], [30, 900]])},
        "importance": {"method": "importance", "base": "uniform", "domain": ([-9, -400], 900.0)},
        "images": {"image_shape": (1, 1, 2)},
    },
    "ScoreMatchingDensity": {
        method: {"method": method} for method in ("denoising", "multi-level", "exact", "sliced")
    },
    "NCEDensity": {
        str(noise): {"noise": noise}
        for noise in ("mixture", "uniform", "conditional", Kernel(n_centers=40))
    },
    "SteinEBM": {
        "diagonal": {"base": Gaussian("diagonal", 1.5), "critic": Critic((4, 3), "tanh", True)},
        "uniform base": {"base": "uniform"},
        "components": {"base": None, "energy": energies.LinearICA(), "log_partition": "auto"},
        "machine": {
            "base": None,
            "energy": energies.GaussianBernoulliRBM(3),
            "log_partition": "auto",
        },
    },
    "BoundsEBM": {
        "no base": {"base": None, "energy": MLP((6,), n_frequencies=0, output="quadratic")},
        "batch norm": {"generator": MLPGenerator((6,), "prelu", 1.0, True, True)},
        "critic": {"bound": "wgan-0gp"},
    },
}
each_variant = pytest.mark.parametrize(
    ("name", "variant"), [(name, v) for name, ways in VARIANTS.items() for v in ["plain", *ways]]
)


@cache
def fitted_as(name, variant):
    """The estimator fitted in one of its ways; never changed."""
    return (
        fitted(name) if variant == "plain" else tiny(name, **VARIANTS[name][variant]).fit(table())
    )


# what is in the units of X, and what in nats of a density there (its sign under a change of units)
PLACES = {"USPDensity": ["support_points_", "domain_"]}
NATS = {"BoundsEBM": {"lower_bound_": -1, "upper_surrogate_": -1, "cubo_": -1}}


# -- parameters ------------------------------------------------------------------------------------


class Change(NamedTuple):
    """Another value of a parameter, what of `footprint` it moves, and what it needs beside it."""

    value: Any
    moves: str
    context: dict = {}


def footprint(est, X):
    """Return everything that a fit leaves to be seen, each as plain values."""
    return {
        "energy": est.energy_samples(X).tolist(),
        "scores": est.score_samples(X).tolist(),
        "offset": est.offset_,
        "draws": est.sample(5, random_state=0).tolist(),
        "log_z": est.log_partition_,
        "noise": est.data_noise_.tolist(),
        "n_iter": est.n_iter_,
        "rows": len(est.history_),
        "judged": [row.get("validation_gain") for row in est.history_],
        "history": [{k: repr(v) for k, v in row.items()} for row in est.history_],
    }


# an energy that gains on a base too wide, from validation to validation
PATIENT = {
    "base": Gaussian("diagonal", inflation=2.0),
    "max_iter": 100,
    "validation_fraction": 0.3,
    "learning_rate": 1e-3,
}
CHANGES = {
    "energy": Change(MLP((7,), n_frequencies=3), "energy"),
    "base": Change("kernel", "scores"),
    "standardize": Change(False, "energy"),
    "data_noise": Change(0.3, "noise energy"),
    "max_iter": Change(7, "n_iter energy"),
    "batch_size": Change(16, "energy"),
    "learning_rate": Change(0.05, "energy"),
    "validation_fraction": Change(0.3, "judged"),
    "n_iter_no_change": Change(1, "rows", {**PATIENT, "tol": 1.0, "n_iter_no_change": None}),
    "tol": Change(1.0, "rows", {**PATIENT, "n_iter_no_change": 2, "random_state": 4}),
    "log_partition": Change(ImportanceSampling(256, 256), "log_z scores"),
    "contamination": Change(0.25, "offset"),
    "image_shape": Change((1, 1, 2), "energy"),
    "random_state": Change(1, "energy draws"),
    "init": Change("data", "energy"),
    "cd_weight": Change(1.0, "energy"),
    "sampler": Change("langevin", "energy"),
    "n_steps": Change(2, "energy"),
    "step_size": Change(0.3, "energy"),
    "temperature": Change(2.0, "scores"),
    "method": Change("importance", "energy"),
    "n_points": Change(60, "energy"),
    "epsilon": Change(0.9, "energy"),
    "domain": Change((-400.0, 900.0), "energy"),
    "noise": Change("mixture", "energy"),
    "noise_ratio": Change(4.0, "energy"),
    "noise_std": Change(0.6, "energy"),
    "critic": Change(Critic((7,)), "energy"),
    "critic_steps": Change(2, "energy"),
    "l2": Change(0.1, "energy"),
    "bound": Change("zero-centered-gp", "energy"),
    "entropy": Change("singular-value", "energy"),
    "generator": Change(MLPGenerator((7,), input_scale=1.0, linear_skip=True), "energy"),
    "penalty_weight": Change(5.0, "energy"),
    "optimizer": Change("sgd", "energy"),
    "refine": Change(False, "energy"),
    "margin": Change(100.0, "energy", {"penalty_weight": 5.0}),
    "repulsion": Change(samplers.SupportPartition(n_active=50, n_inner=1), "energy"),
    "n_integration": Change(20, "energy"),
    "energy_l2": Change(5.0, "energy"),
    "learn_base": Change(False, "energy"),
    "calibrate": Change(False, "energy", {"base": "uniform"}),
    "n_levels": Change(2, "energy", {"method": "multi-level"}),
    "max_noise_std": Change(3.0, "energy", {"method": "multi-level"}),
    "n_projections": Change(3, "energy", {"method": "sliced"}),
    "projections": Change("gaussian", "energy", {"method": "sliced"}),
    "objective": Change(objectives.NoiseContrastive(), "energy"),
}
CHANGES_OF = {  # where one class differs
    ("USPDensity", "init"): Change("uniform", "energy"),
    # of moved points twice as many validations count
    ("USPDensity", "tol"): Change(
        1.0, "rows", {**PATIENT, "n_iter_no_change": 1, "random_state": 4}
    ),
    ("ScoreMatchingDensity", "method"): Change("sliced", "energy"),
    ("NCEDensity", "noise_std"): Change(0.6, "energy", {"noise": "conditional"}),
}


def change_of(name, key):
    """Return how a parameter of an estimator is changed, None where nothing is known of it."""
    change = CHANGES_OF.get((name, key), CHANGES.get(key))
    if change is None or "max_iter" not in change.context:
        return change
    return change._replace(context=change.context | lasting(name, change.context["max_iter"]))


# parameters that must not change a fit: another value, and why
KEPT = {
    "columns": ({}, "of an array: all are continuous anyway"),
    "n_restarts": (3, "another training is made only where a generator folds"),
    "device": ("cpu", "where it runs"),
    "checkpoint_dir": ("here", "where an interrupted fit is found again"),
    "warm_start": (True, "what the next fit does"),
    "verbose": (1, "what is printed"),
}

# parameter -> bad values, which the error names: (ValueErrors, TypeErrors, the rule they break)
NUMBER = [-1.5], ["many"], "a number >= 0"
COUNT = [0], [1.5, 10.0, True, None], "an integer >= 1"
POSITIVE = [0.0, -1.0, np.nan], ["x", None], "a number > 0"
BAD = {
    "energy": (["mpl"], [3, None], "one of ['conv', 'ica', 'mlp', 'rbm'"),
    "base": (["gausian"], [3, MLP(), Gaussian], "one of ['gaussian', 'kernel'"),
    "columns": ([], ["yes", 3], "'auto' or a dict"),
    "standardize": (["yes"], [3, None], "one of ['auto', 'affine', 'marginal', True, False]"),
    "data_noise": ([-0.1], ["automatic"], "a number >= 0"),
    "max_iter": COUNT,
    "batch_size": ([0, -4], [None], "an integer >= 1"),
    "learning_rate": POSITIVE,
    "validation_fraction": ([1.0, -0.1], [None], "a number >= 0 and <= 0.9"),
    "n_iter_no_change": ([0], [1.5, True], "an integer >= 1"),
    "tol": NUMBER,
    "log_partition": (["exact"], [1.0], "one of ['ais', 'auto', 'imp"),
    "contamination": ([0.6, 0.0], ["some"], "a number > 0 and <= 0.5"),
    "image_shape": ([(1, 2, 3)], [(2, 2), 4]),
    "device": (["gpu", 1.5], [], "'auto', 'cpu', 'cuda'"),
    "checkpoint_dir": ([], [3], "a path or None"),
    "warm_start": (["no"], [], "one of [True, False]"),
    "verbose": ([-1], ["loud"], "a number >= 0"),
    "random_state": (["seed"], []),
    "init": (["nois"], [None], "one of ['data', "),
    "cd_weight": ([-1.5, np.inf], ["25"], "a number >= 0"),
    "sampler": (["hmcc"], [MALA, MLP()], "one of ['hmc', 'langevin', 'mala'"),
    "n_steps": COUNT,
    "step_size": ([0.0, -1.0], ["big"], "a number > 0"),
    "temperature": POSITIVE,
    "method": (["snis"], [None], "one of ["),
    "n_points": ([1], [10.0], "an integer >= 2"),
    "epsilon": ([0.0, np.inf], ["automatic"], "a number > 0"),
    "domain": ([(1.0, -1.0), (0.0, np.nan), ([0.0] * 3, 1.0)], [3.0, (1, 2, 3)]),
    "noise": (["data"], [None, MLP()], "one of ['base', 'conditional', 'gaussian'"),
    "noise_ratio": ([0], ["all"], "a number > 0"),
    "noise_std": ([-0.1, 0.0], ["big", None], "a number > 0"),
    "critic": (["mlp"], [Critic], "one of ['auto'] or an instance of Critic"),
    "critic_steps": COUNT,
    "l2": POSITIVE,
    "bound": (["wgan"], [None], "one of ['bidirectional', 'wgan-0gp', 'wgan-gp', 'zero-"),
    "entropy": (["exact"], [1], "one of ['hutchinson', 'logdet'"),
    "generator": (["mpl"], [MLPGenerator, None, MLP()], "one of ['conv', 'mlp', 'residual']"),
    "penalty_weight": ([-0.5], ["big"], "a number >= 0"),
    "optimizer": (["adamw"], [None], "one of ['adam', 'sgd'] or an instance of Optimization"),
    "refine": ([], [2.5]),
    "margin": NUMBER,
    "n_restarts": COUNT,
    "repulsion": (["none"], [samplers.SupportPartition, None], "one of ['auto'] or an instance"),
    "n_integration": ([0], ["all"], "an integer >= 1"),
    "energy_l2": NUMBER,
    "learn_base": (["no"], [3], "one of [True, False]"),
    "calibrate": (["no"], [3, None], "one of [True, False]"),
    "n_levels": COUNT,
    "max_noise_std": ([0.01], ["big"], "a number >= 0.1"),
    "n_projections": COUNT,
    "projections": (["normal"], [1], "one of ['gaussian', 'radema"),
    "objective": ([], ["nce", objectives.NoiseContrastive, 3], "an Objective or None"),
}
BESIDE = {  # what it takes to be looked at
    ("ScoreMatchingDensity", "n_levels"): {"method": "multi-level"},
    ("ScoreMatchingDensity", "max_noise_std"): {"method": "multi-level"},
    ("ScoreMatchingDensity", "n_projections"): {"method": "sliced"},
    ("ScoreMatchingDensity", "projections"): {"method": "sliced"},
    ("NCEDensity", "noise_std"): {"noise": "conditional"},
}
REFUSED = {  # sound alone, but not together: the parameters, and what the error says
    "HybridCDDensity": [
        ({"energy": lambda d: "a module"}, "energy must .*torch.nn.Module, got .*'a module'"),
        ({"energy": lambda d: torch.nn.Linear(d, 1)}, r"energy must .*\(n, 2\).* got .*\(3, 1\)"),
        ({"log_partition": partition.AIS(n_chains=0)}, "n_chains must be .* got 0"),
        ({"sampler": samplers.SGHMC(mass=0)}, "mass must be .* got 0"),
    ],
    "USPDensity": [
        ({"method": "importance", "base": None}, "base must .*importance.* got None"),
        ({"init": np.zeros((5, 3))}, r"init must have the 2 columns of X, got shape \(5, 3\)"),
    ],
    "NCEDensity": [
        ({"noise": "base", "base": None}, "noise must .* got None"),
        ({"noise": "conditional", "noise_ratio": 1.5}, "noise_ratio must be a whole .* got 1.5"),
    ],
    "BoundsEBM": [({"entropy": "variational"}, "entropy must .*zero-centered-gp")],
}


# -- what fails ------------------------------------------------------------------------------------


class FaultyBase(BaseComponent):
    """Raises when it is fitted."""

    def __init__(self, error):
        self.error = error

    def fit(self, x, weight, rng):
        raise type(self.error)(*self.error.args)  # another one, which keeps no trace of this raise


class FaultyPartition(PartitionMethod):
    """Raises when log Z is asked for."""

    def __init__(self, error):
        self.error = error

    def estimate(self, model, proposal, rng):
        raise type(self.error)(*self.error.args)  # another one, which keeps no trace of this raise


class Calls:
    """Forward passes of `Watched` energies; the one numbered `stop_at` raises."""

    count, stop_at, error = 0, 0, KeyboardInterrupt


class Watched(torch.nn.Module):
    """A small energy whose forward passes are counted in `Calls`."""

    def __init__(self, n_features):
        super().__init__()
        self.inner = factory(n_features)

    def forward(self, x):
        Calls.count += 1
        if Calls.count == Calls.stop_at:
            raise Calls.error
        return self.inner(x)


class Diverging(Watched):
    """An energy that is not a number once it has been looked at a few times."""

    def forward(self, x):
        Calls.count += 1
        return self.inner(x) * (float("nan") if Calls.count > 3 else 1.0)


# -- detectors -------------------------------------------------------------------------------------


def detectors(inner):
    """Every detector over an estimator."""
    return {
        "ConformalNoveltyDetector": ood.ConformalNoveltyDetector(inner, alpha=0.1, random_state=0),
        "EnsembleDensity": ood.EnsembleDensity(
            inner, n_estimators=2, max_samples=0.5, random_state=0
        ),
        "LikelihoodRatioDetector": ood.LikelihoodRatioDetector(inner, random_state=0),
        "NoveltyDetector": ood.NoveltyDetector(inner, random_state=0),
        "ScoreNormDetector": ood.ScoreNormDetector(inner, random_state=0),
        "ThresholdDetector": ood.ThresholdDetector(inner, random_state=0),
        "TypicalityDetector": ood.TypicalityDetector(inner, n_bootstrap=50, random_state=0),
    }


DETECTORS = sorted(detectors(None))
LOCAL = {"KernelScoreDetector", "LocalMahalanobisDetector", "NeighborDistanceDetector"}  # without
each_detector = pytest.mark.parametrize("name", DETECTORS)
each_outlier_detector = pytest.mark.parametrize("name", [*CLASSES, *DETECTORS])


def build(name, **params):
    """An estimator, or a detector over a tiny one."""
    if name in CLASSES:
        return tiny(name, **params)
    return detectors(tiny("HybridCDDensity"))[name].set_params(**params)


@cache
def detected(name):
    """The estimator or detector fitted to `table()`; never changed."""
    return fitted(name) if name in CLASSES else clone(build(name)).fit(table())


# -- components ------------------------------------------------------------------------------------

BASES = {
    "Defensive": bases.Defensive(max_components=2),
    "Gaussian": Gaussian("diagonal", inflation=1.2),
    "Kernel": Kernel(n_centers=30, bandwidth=0.2),
    "Mixture": Mixture(n_components=2),
    "ProbabilisticPCA": bases.ProbabilisticPCA(n_components=1),
    "TorchDistribution": bases.TorchDistribution(
        torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1)
    ),
    "Uniform": bases.Uniform(widening=0.2),
}
ENERGIES = {
    "Conv": energies.Conv((3,), hidden_sizes=(3,)),
    "GaussianBernoulliRBM": energies.GaussianBernoulliRBM(3),
    "LinearICA": energies.LinearICA(),
    "MLP": MLP((6, 5), output="quadratic"),
    "Reconstruction": energies.Reconstruction((6, 4), negative_slope=0.3),
    "Residual": energies.Residual((3, 4)),
}
SAMPLERS = {
    "Gibbs": samplers.Gibbs(),
    "HMC": samplers.HMC(n_leapfrog=2),
    "Langevin": samplers.Langevin(0.05, noise_std=0.1),
    "MALA": MALA(0.05, n_warmup=5),
    "SGHMC": samplers.SGHMC(friction=0.5),
    "SampleBank": samplers.SampleBank(64),
    "SupportPartition": samplers.SupportPartition(0.5),
}
PARTITIONS = {
    "AIS": partition.AIS(n_chains=16),
    "Auto": partition.Auto(),
    "ImportanceSampling": LOG_Z,
    "Quadrature": partition.Quadrature(domain=((-9.0, -9.0), (9.0, 9.0))),
    "ReverseAIS": partition.ReverseAIS(n_chains=16),
}
OBJECTIVES = {
    "BidirectionalBounds": objectives.BidirectionalBounds(generator=GENERATOR),
    "ChainStart": objectives.ChainStart("noise", noise="uniform"),
    "GeneratorEntropy": objectives.GeneratorEntropy("singular-value", n_lobpcg=3),
    "UpperBound": objectives.UpperBound("wgan-gp", 3.0),
    "ConditionalNoiseContrastive": objectives.ConditionalNoiseContrastive(0.3, 2),
    "ContrastiveDivergence": objectives.ContrastiveDivergence(
        sampler=samplers.Langevin(0.05),
        n_steps=1,
        optimization=objectives.Optimization(betas=(0.1, 0.2)),
    ),
    "DenoisingScoreMatching": objectives.DenoisingScoreMatching(0.3, 2),
    "EnergyStep": objectives.EnergyStep(scale=1e-3),
    "ExactLikelihood": objectives.ExactLikelihood(),
    "ImportanceLikelihood": objectives.ImportanceLikelihood(n_points=30),
    "LearnedStein": objectives.LearnedStein(Critic((6,)), 1),
    "TiedCritic": objectives.TiedCritic(1e-3),
    "NoiseContrastive": objectives.NoiseContrastive(ratio=2.0),
    "Optimization": objectives.Optimization(1e-2, method="sgd"),
    "PartitionLikelihood": objectives.PartitionLikelihood(30, samplers.SupportPartition(0.5)),
    "ScoreMatching": objectives.ScoreMatching("sliced"),
}
NETWORKS = {
    "ConvGenerator": networks.ConvGenerator((4, 3)),
    "Critic": Critic((6,), "tanh"),
    "MLPGenerator": GENERATOR,
    "ResidualGenerator": networks.ResidualGenerator(),
}
COMPONENTS = BASES | ENERGIES | SAMPLERS | PARTITIONS | OBJECTIVES | NETWORKS
each_component = pytest.mark.parametrize("name", COMPONENTS)


# -- displays --------------------------------------------------------------------------------------

FAR = 3 * table()
DISPLAYS = {  # what `from_estimator` gets beside a fitted estimator
    "ChainDisplay": lambda est: {"n_chains": 4, "n_steps": 6, "record_every": 2},
    "ConditionalDisplay": lambda est: {"row": table(1)[0], "column": 1, "grid_resolution": 15},
    "DensityDisplay": lambda est: {"X": table(), "grid_resolution": 9},
    "DensityPairsDisplay": lambda est: {"X": table(), "grid_resolution": 7},
    "EnergyHistogramDisplay": lambda est: {"X": table(), "samples": est.sample(9, random_state=0)},
    "HistoryDisplay": lambda est: {},
    "OODPrecisionRecallDisplay": lambda est: {"X_in": table(), "X_out": FAR},
    "OODRocDisplay": lambda est: {"X_in": table(), "X_out": FAR},
    "PValueHistogramDisplay": lambda est: {"X_in": table()},
    "ScoreHistogramDisplay": lambda est: {"X_in": table(), "X_out": FAR},
}


def display(name, est):
    """Return a display of a fitted estimator, or of a detector that has p-values."""
    shown = detected("ConformalNoveltyDetector") if name == "PValueHistogramDisplay" else est
    return getattr(plots, name).from_estimator(shown, **DISPLAYS[name](est))
