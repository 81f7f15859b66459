"""Every bad call has its error: the parameter, the rule and the value, at fit and not before."""

import inspect
import re

import numpy as np
import pytest
import torch

import skebm.objectives
from skebm import (
    BoundsEBM,
    EnergyDensity,
    HybridCDDensity,
    NCEDensity,
    ScoreMatchingDensity,
    SteinEBM,
    USPDensity,
)
from skebm.bases import Kernel, Mixture, TorchDistribution
from skebm.energies import MLP
from skebm.networks import ConvGenerator, Critic, MLPGenerator
from skebm.objectives import (
    ChainStart,
    EnergyStep,
    GeneratorEntropy,
    Optimization,
    ScoreMatching,
    UpperBound,
)
from skebm.partition import AIS, ImportanceSampling, Quadrature
from skebm.samplers import MALA, Langevin, SampleBank, SupportPartition

X = np.random.RandomState(0).randn(40, 4)
NAN = np.where(np.arange(4) == 1, np.nan, X)

SHARED = {
    "base": "gaussian",
    "max_iter": 1,
    "energy": MLP(hidden_sizes=(4,), n_frequencies=2),
    "log_partition": ImportanceSampling(n_samples=256, max_samples=256),
    "validation_fraction": 0,
    "random_state": 0,
}
GENERATOR = MLPGenerator((6,), input_scale=1.0, linear_skip=True)  # starts without folds
ESTIMATORS = {
    BoundsEBM: {"generator": GENERATOR, "refine": 1, "n_restarts": 1},
    EnergyDensity: {},
    HybridCDDensity: {"n_steps": 1},
    NCEDensity: {},
    ScoreMatchingDensity: {},
    SteinEBM: {"critic": Critic((4,)), "critic_steps": 1},
    USPDensity: {"method": "ps-usp", "n_points": 99, "repulsion": SupportPartition(n_inner=1)},
}


def tiny(cls, **params):
    return cls(**{**SHARED, **ESTIMATORS[cls], **params})


class Typo:
    """Not a component of anything."""

    def __repr__(self):
        return "Typo()"


def batch_norm(shape):
    return torch.nn.Sequential(
        torch.nn.Linear(shape, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
    )


def noise(value, **params):
    return ChainStart(noise=value, **params)


FLAG, NUMBER, WHOLE = "must be one of [True, False]", "must be a number", "must be an integer"
NORMAL = TorchDistribution(torch.distributions.Normal(0.0, 1.0))
BANK = ChainStart("persistent", bank=SampleBank(size=9))
KINKED = MLP((4,), "leaky_relu")
COPIES = {"noise": "conditional"}
LEVELS, SLICED = {"method": "multi-level"}, {"method": "sliced"}
VARIATIONAL = {"bound": "zero-centered-gp", "entropy": "variational"}

# (estimator, parameter, bad value, error, what the message says, other parameters)
CALLS = [
    # shared by all estimators
    (HybridCDDensity, "energy", "mpl", ValueError, "must be one of ['conv', 'ica', 'mlp', 'rbm'"),
    (HybridCDDensity, "energy", 3, TypeError, "or an instance of EnergyComponent, got 3"),
    (HybridCDDensity, "energy", None, TypeError, "must be one of"),
    (HybridCDDensity, "energy", MLP(()), TypeError, "hidden_sizes must be a nonempty tuple"),
    (
        HybridCDDensity,
        "energy",
        lambda d: "a module",
        TypeError,
        "torch.nn.Module, got one that returns 'a module'",
    ),
    (HybridCDDensity, "energy", batch_norm, ValueError, "BatchNorm1d at '1'"),
    (HybridCDDensity, "energy", lambda d: torch.nn.Linear(d, 1), ValueError, "(3, 1)"),
    (HybridCDDensity, "base", "gausian", ValueError, "must be one of ['gaussian', 'kernel'"),
    (HybridCDDensity, "base", Typo(), TypeError, "instance of BaseComponent, got Typo()"),
    (HybridCDDensity, "base", Mixture, TypeError, "instance of BaseComponent, got <class"),
    (HybridCDDensity, "base", Kernel(n_centers=0), ValueError, "n_centers must be"),
    (
        HybridCDDensity,
        "base",
        TorchDistribution(Typo()),
        TypeError,
        "log_prob and sample, got Typo()",
    ),
    (HybridCDDensity, "base", NORMAL, ValueError, "shape (n,)"),
    (HybridCDDensity, "standardize", "yes", ValueError, "must be one of [True, False, 'affine']"),
    (HybridCDDensity, "standardize", None, TypeError, "must be one of [True, False, 'affine']"),
    (HybridCDDensity, "data_noise", -0.1, ValueError, f"{NUMBER} >= 0, got -0.1. Or use 'auto'"),
    (HybridCDDensity, "data_noise", "automatic", TypeError, f"{NUMBER} >= 0, got 'automatic'"),
    (HybridCDDensity, "max_iter", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (HybridCDDensity, "max_iter", 10.0, TypeError, f"{WHOLE} >= 1, got 10.0"),
    (HybridCDDensity, "batch_size", -4, ValueError, f"{WHOLE} >= 1, got -4"),
    (HybridCDDensity, "batch_size", None, TypeError, f"{WHOLE} >= 1, got None"),
    (HybridCDDensity, "learning_rate", 0.0, ValueError, f"{NUMBER} > 0, got 0.0"),
    (HybridCDDensity, "learning_rate", "fast", TypeError, f"{NUMBER} > 0, got 'fast'"),
    (HybridCDDensity, "optimizer", "adamax", ValueError, "must be one of ['adam', 'sgd']"),
    (HybridCDDensity, "optimizer", Optimization(schedule="x"), ValueError, "schedule must be"),
    (HybridCDDensity, "optimizer", Optimization(averaging="no"), ValueError, "averaging must be"),
    (HybridCDDensity, "optimizer", None, TypeError, "instance of Optimization, got None"),
    (HybridCDDensity, "validation_fraction", 1.0, ValueError, ">= 0 and <= 0.9, got 1.0"),
    (HybridCDDensity, "validation_fraction", -0.1, ValueError, ">= 0 and <= 0.9, got -0.1"),
    (HybridCDDensity, "validation_fraction", None, TypeError, f"{NUMBER} >= 0"),
    (HybridCDDensity, "n_iter_no_change", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (HybridCDDensity, "n_iter_no_change", 2.0, TypeError, f"{WHOLE} >= 1, got 2.0"),
    (HybridCDDensity, "tol", -1.0, ValueError, f"{NUMBER} >= 0, got -1.0"),
    (HybridCDDensity, "log_partition", "exact", ValueError, "must be one of ['ais', 'auto', 'imp"),
    (HybridCDDensity, "log_partition", 1.0, TypeError, "instance of PartitionMethod, got 1.0"),
    (HybridCDDensity, "log_partition", AIS(n_chains=0), ValueError, "n_chains must be"),
    (HybridCDDensity, "log_partition", Quadrature(), ValueError, "above 3 columns"),
    (HybridCDDensity, "contamination", 0.6, ValueError, "> 0 and <= 0.5, got 0.6. Or use 'auto'"),
    (HybridCDDensity, "contamination", 0.0, ValueError, "> 0 and <= 0.5, got 0.0"),
    (HybridCDDensity, "contamination", "some", TypeError, NUMBER),
    (HybridCDDensity, "image_shape", (1, 2, 3), ValueError, "4 columns of X, got (1, 2, 3)"),
    (HybridCDDensity, "image_shape", (2, 2), TypeError, "(channels, height, width), got (2, 2)"),
    (HybridCDDensity, "image_shape", 4, TypeError, "(channels, height, width), got 4"),
    (HybridCDDensity, "image_shape", (1, 2, 2.0), TypeError, f"{WHOLE} >= 1, got 2.0"),
    (HybridCDDensity, "image_shape", (1, -2, -2), ValueError, f"{WHOLE} >= 1, got -2"),
    (HybridCDDensity, "device", "gpu", ValueError, "'auto', 'cpu', 'cuda'"),
    (HybridCDDensity, "device", 1.5, ValueError, "1.5"),
    (HybridCDDensity, "checkpoint_dir", 3, TypeError, "must be a path or None, got 3"),
    (HybridCDDensity, "warm_start", "no", ValueError, f"{FLAG}, got 'no'"),
    (HybridCDDensity, "verbose", -1, ValueError, f"{NUMBER} >= 0, got -1"),
    (HybridCDDensity, "verbose", "loud", TypeError, f"{NUMBER} >= 0, got 'loud'"),
    (HybridCDDensity, "random_state", "seed", ValueError, "'seed'"),  # scikit-learn's own words
    # contrastive divergence
    (HybridCDDensity, "init", "nois", ValueError, "must be one of ['data', 'hybrid', 'noise', 'p"),
    (HybridCDDensity, "init", None, TypeError, "instance of ChainStart, got None"),
    (HybridCDDensity, "init", ChainStart("x"), ValueError, "must be one of ['data', 'hybrid'"),
    (HybridCDDensity, "init", ChainStart(noise_share=0), ValueError, "noise_share must be"),
    (HybridCDDensity, "init", BANK, ValueError, "bank_size must be at least the 256 rows of a"),
    (HybridCDDensity, "init", noise("gauss"), ValueError, "got 'gauss'. Or pass an array of rows"),
    (HybridCDDensity, "init", noise(None), TypeError, "noise must be one of"),
    (HybridCDDensity, "init", noise("base"), ValueError, "without a base", {"base": None}),
    (HybridCDDensity, "init", noise(np.zeros((5, 3))), ValueError, "4 columns of X, got shape (5,"),
    (HybridCDDensity, "init", noise(NAN), ValueError, "noise contains NaN"),
    (HybridCDDensity, "init", noise(X[0]), ValueError, "Expected 2D array, got 1D"),
    (HybridCDDensity, "init", noise(X[:0]), ValueError, "minimum of 1 is required"),
    (HybridCDDensity, "init", noise("normal", noise_scale=0), ValueError, "noise_scale must be"),
    (HybridCDDensity, "cd_weight", -1.5, ValueError, f"{NUMBER} >= 0, got -1.5"),
    (HybridCDDensity, "cd_weight", "25", TypeError, f"{NUMBER} >= 0, got '25'"),
    (HybridCDDensity, "cd_weight", np.inf, ValueError, f"{NUMBER} >= 0, got inf"),
    (HybridCDDensity, "sampler", "hmcc", ValueError, "must be one of ['hmc', 'langevin', 'mala'"),
    (HybridCDDensity, "sampler", Typo(), TypeError, "instance of Sampler, got Typo()"),
    (HybridCDDensity, "sampler", MALA, TypeError, "instance of Sampler, got <class"),
    (HybridCDDensity, "sampler", Langevin(noise_std=-0.1), ValueError, "noise_std must be"),
    (HybridCDDensity, "n_steps", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (HybridCDDensity, "n_steps", 1.5, TypeError, f"{WHOLE} >= 1, got 1.5"),
    (HybridCDDensity, "n_steps", True, TypeError, f"{WHOLE} >= 1, got True"),
    (HybridCDDensity, "step_size", 0.0, ValueError, "> 0, got 0.0. Or use 'auto' or 'adaptive'"),
    (HybridCDDensity, "step_size", "adaptiv", TypeError, f"{NUMBER} > 0, got 'adaptiv'"),
    (HybridCDDensity, "step_size", EnergyStep(scale=-1), ValueError, "scale must be"),
    (HybridCDDensity, "temperature", 0, ValueError, f"{NUMBER} > 0, got 0"),
    (HybridCDDensity, "temperature", "hot", TypeError, f"{NUMBER} > 0, got 'hot'"),
    (HybridCDDensity, "temperature", np.nan, ValueError, f"{NUMBER} > 0, got nan"),
    (HybridCDDensity, "refine", "no", ValueError, f"{FLAG}, got 'no'"),
    # points that partition the support
    (USPDensity, "method", "snis", ValueError, "'importance', 'ps-usp', 'usp'"),
    (USPDensity, "method", None, TypeError, "must be one of"),
    (USPDensity, "base", None, ValueError, "got None", {"method": "importance"}),
    (USPDensity, "n_points", 1, ValueError, f"{WHOLE} >= 2, got 1"),
    (USPDensity, "n_points", 10.0, TypeError, f"{WHOLE} >= 2, got 10.0"),
    (USPDensity, "n_points", 1, ValueError, f"{WHOLE} >= 2, got 1", {"method": "importance"}),
    (USPDensity, "epsilon", 0.0, ValueError, f"{NUMBER} > 0, got 0.0"),
    (USPDensity, "epsilon", "automatic", TypeError, f"{NUMBER} > 0, got 'automatic'"),
    (USPDensity, "epsilon", np.inf, ValueError, f"{NUMBER} > 0, got inf"),
    (USPDensity, "repulsion", "strong", ValueError, "must be one of ['auto']"),
    (USPDensity, "repulsion", None, TypeError, "instance of SupportPartition, got None"),
    (USPDensity, "repulsion", SupportPartition(n_active=None), TypeError, "n_active must be"),
    (USPDensity, "n_integration", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (USPDensity, "n_integration", "all", TypeError, f"{WHOLE} >= 1, got 'all'"),
    (USPDensity, "domain", 3.0, TypeError, "must be a pair (low, high), got 3.0"),
    (USPDensity, "domain", (0, 1, 2), TypeError, "must be a pair (low, high), got (0, 1, 2)"),
    (USPDensity, "domain", ("a", "b"), ValueError, "must hold numbers for 4 columns, got ('a', "),
    (USPDensity, "domain", ([0, 0], [1, 1]), ValueError, "4 columns, got ([0, 0], [1, 1])"),
    (USPDensity, "domain", (1, -1), ValueError, "must have finite low < high, got (1, -1)"),
    (USPDensity, "domain", (-np.inf, 1), ValueError, "must have finite low < high, got (-inf, 1)"),
    (USPDensity, "init", "noise", ValueError, "['data', 'uniform'], got 'noise'. Or pass an array"),
    (USPDensity, "init", None, TypeError, "must be one of ['data', 'uniform'], got None"),
    (USPDensity, "init", np.zeros((5, 3)), ValueError, "4 columns of X, got shape (5, 3). Give"),
    (USPDensity, "init", NAN, ValueError, "contains NaN"),
    # score matching
    (ScoreMatchingDensity, "method", "dsm", ValueError, "'denoising', 'multi-level', 'exact'"),
    (ScoreMatchingDensity, "method", None, TypeError, "must be one of"),
    (ScoreMatchingDensity, "noise_std", 0.0, ValueError, f"{NUMBER} > 0, got 0.0"),
    (ScoreMatchingDensity, "noise_std", "auto", TypeError, f"{NUMBER} > 0, got 'auto'"),
    (ScoreMatchingDensity, "n_levels", 0, ValueError, f"{WHOLE} >= 1, got 0", LEVELS),
    (ScoreMatchingDensity, "n_levels", 2.0, TypeError, f"{WHOLE} >= 1, got 2.0", LEVELS),
    (ScoreMatchingDensity, "max_noise_std", 0.05, ValueError, ">= 0.1, got 0.05", LEVELS),
    (ScoreMatchingDensity, "max_noise_std", "wide", TypeError, NUMBER, LEVELS),
    (ScoreMatchingDensity, "n_projections", 0, ValueError, f"{WHOLE} >= 1, got 0", SLICED),
    (ScoreMatchingDensity, "n_projections", "d", TypeError, WHOLE, SLICED),
    (ScoreMatchingDensity, "projections", "sphere", ValueError, "'gaussian', 'radema", SLICED),
    (ScoreMatchingDensity, "energy", KINKED, ValueError, "twice differentiable", SLICED),
    # noise contrastive
    (NCEDensity, "noise", "data", ValueError, "must be one of ['base', 'conditional', 'gaussian'"),
    (NCEDensity, "noise", None, TypeError, "instance of BaseComponent, got None"),
    (NCEDensity, "noise", Kernel(n_centers=0), ValueError, "n_centers must be"),
    (NCEDensity, "noise", "base", ValueError, "without a base", {"base": None}),
    (NCEDensity, "noise_ratio", 0, ValueError, f"{NUMBER} > 0, got 0"),
    (NCEDensity, "noise_ratio", "all", TypeError, f"{NUMBER} > 0, got 'all'"),
    (NCEDensity, "noise_ratio", 0.5, ValueError, ">= 1, got 0.5. It is a number of copies", COPIES),
    (NCEDensity, "noise_ratio", 1.5, ValueError, "must be a whole number, got 1.5", COPIES),
    (NCEDensity, "noise_std", 0.0, ValueError, f"{NUMBER} > 0, got 0.0", COPIES),
    (NCEDensity, "noise_std", None, TypeError, f"{NUMBER} > 0, got None", COPIES),
    # learned Stein discrepancy
    (SteinEBM, "critic", "mlp", ValueError, "must be one of ['auto'] or an instance of Critic"),
    (SteinEBM, "critic", Critic, TypeError, "instance of Critic, got <class"),
    (SteinEBM, "critic", Critic(()), TypeError, "hidden_sizes must be"),
    (SteinEBM, "critic_steps", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (SteinEBM, "critic_steps", 2.5, TypeError, f"{WHOLE} >= 1, got 2.5"),
    (SteinEBM, "l2", 0.0, ValueError, f"{NUMBER} > 0, got 0.0"),
    (SteinEBM, "l2", None, TypeError, f"{NUMBER} > 0, got None"),
    (SteinEBM, "energy_l2", -0.001, ValueError, f"{NUMBER} >= 0, got -0.001"),
    (SteinEBM, "energy_l2", None, TypeError, f"{NUMBER} >= 0, got None"),
    (SteinEBM, "learn_base", "no", ValueError, f"{FLAG}, got 'no'"),
    (SteinEBM, "calibrate", None, TypeError, f"{FLAG}, got None"),
    # bidirectional bounds
    (BoundsEBM, "bound", "wgan", ValueError, "['bidirectional', 'wgan-0gp', 'wgan-gp', 'zero-"),
    (BoundsEBM, "bound", None, TypeError, "instance of UpperBound, got None"),
    (BoundsEBM, "bound", UpperBound(exponent=0.5), ValueError, "exponent must be"),
    (BoundsEBM, "entropy", "exact", ValueError, "must be one of ['hutchinson', 'logdet'"),
    (BoundsEBM, "entropy", "variational", ValueError, "Use bound='zero-centered-gp'"),
    (BoundsEBM, "entropy", 1, TypeError, "instance of GeneratorEntropy, got 1"),
    (BoundsEBM, "entropy", GeneratorEntropy(weight=-1), ValueError, "weight must be"),
    (BoundsEBM, "generator", "mpl", ValueError, "must be one of ['conv', 'mlp', 'residual']"),
    (BoundsEBM, "generator", MLPGenerator, TypeError, "GeneratorComponent, got <class"),
    (BoundsEBM, "generator", MLPGenerator(latent_dim=0), ValueError, "latent_dim must be"),
    (BoundsEBM, "generator", MLPGenerator(latent_dim=5), ValueError, "4 values of a row, got 5"),
    (BoundsEBM, "generator", MLPGenerator(observation_noise=-1), ValueError, "observation_noise m"),
    (
        BoundsEBM,
        "generator",
        MLPGenerator(observation_noise=0),
        ValueError,
        "observation_noise must be > 0 with entropy='variational', got 0. Use 'auto'.",
        VARIATIONAL,
    ),
    (BoundsEBM, "generator", MLPGenerator(learning_rate=0.0), ValueError, "learning_rate must be"),
    (BoundsEBM, "generator", MLPGenerator(betas=(0.5,)), TypeError, "betas must be two numbers"),
    (BoundsEBM, "generator", ConvGenerator(), ValueError, "(4,)"),
    (BoundsEBM, "margin", -1.0, ValueError, f"{NUMBER} >= 0, got -1.0"),
    (BoundsEBM, "margin", "auto", TypeError, f"{NUMBER} >= 0, got 'auto'"),
    (BoundsEBM, "penalty_weight", -0.5, ValueError, f"{NUMBER} >= 0, got -0.5. Or use 'auto'"),
    (BoundsEBM, "penalty_weight", "big", TypeError, f"{NUMBER} >= 0, got 'big'"),
    (BoundsEBM, "n_restarts", 0, ValueError, f"{WHOLE} >= 1, got 0"),
    (BoundsEBM, "n_restarts", True, TypeError, f"{WHOLE} >= 1, got True"),
    (BoundsEBM, "refine", -1, ValueError, f"{WHOLE} >= 0, got -1"),
    (BoundsEBM, "refine", "no", TypeError, f"{WHOLE} >= 0, got 'no'. Or True or False."),
    (BoundsEBM, "refine", 9.0, TypeError, f"{WHOLE} >= 0, got 9.0"),
    # any principle
    (EnergyDensity, "objective", "nce", TypeError, "must be an Objective or None, got 'nce'"),
    (EnergyDensity, "objective", ScoreMatching("dsm"), ValueError, "method must be one of"),
    (EnergyDensity, "temperature", 0, ValueError, f"{NUMBER} > 0, got 0"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0].__name__}-{call[1]}")
@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_a_bad_parameter_is_named_at_fit(call):
    cls, key, value, error, says, *beside = call
    est = tiny(cls, **{key: value}, **dict(*beside))  # construction never complains
    assert est.get_params(deep=False)[key] is value
    with pytest.raises(error, match=re.escape(says)) as caught:
        est.fit(X)
    assert type(caught.value) is error
    if says.startswith("must"):
        assert str(caught.value).startswith(f"{key} {says}")


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::skebm.exceptions.SupportWarning")
def test_the_table_s_estimator_is_sound_without_its_fault(cls):
    assert np.isfinite(tiny(cls).fit(X).score_samples(X)).all()


def test_a_bad_parameter_that_only_a_kept_energy_would_need_is_named_too():
    est = tiny(HybridCDDensity, log_partition="typo", validation_fraction=0.2, learning_rate=1e-12)
    with pytest.raises(ValueError, match="log_partition must be one of .*got 'typo'"):
        est.fit(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"energy__width": 1}, "Invalid parameter 'width'"),
        ({"base": "typo", "base__n_centers": 4}, "base must be one of .*got 'typo'"),
        ({"sampler": "langevin", "sampler__friction": 1.0}, "parameter 'friction'.*Langevin"),
        ({"init": "noise", "init__share": 1.0}, "parameter 'share'.*ChainStart"),
    ],
)
def test_set_params_refuses_unknown_names(params, message):
    with pytest.raises(ValueError, match=message):
        tiny(HybridCDDensity, energy="mlp").set_params(**params)


# -- names of version 0.1 --------------------------------------------------------------------------

ALL = "averaging eval_every weight_decay"
OLD = {
    BoundsEBM: "betas entropy_weight fold_penalty generator_betas generator_learning_rate "
    "latent_dim n_lobpcg observation_noise penalty_exponent probe refine_iter",
    HybridCDDensity: "bank_size noise_share noise_std refresh refresh_rate start_noise start_scale",
    NCEDensity: "",
    ScoreMatchingDensity: "",
    SteinEBM: "betas critic_learning_rate trace",
    USPDensity: "combine n_active n_inner n_maximize n_neighbors n_repel step_maximize step_repel "
    "weights",
}
PLACES = (skebm.objectives, skebm.samplers, skebm.networks, skebm)


@pytest.mark.parametrize(
    ("cls", "old"),
    [(cls, old) for cls, names in OLD.items() for old in (names + " " + ALL).split()],
)
def test_a_name_of_version_0_1_has_its_remedy(cls, old):
    """One that works: the components that it names have the parameters that it names."""
    message = f"{old} must be left out of {cls.__name__}, got 3. Since version 0.2 it is "
    with pytest.raises(TypeError, match=re.escape(message)) as caught:
        cls(**{old: 3})
    remedy = str(caught.value).removeprefix(message)
    if old == "eval_every":
        assert remedy == "25, without a parameter."
    elif old == "refine_iter":
        assert remedy == "refine=..., a number of updates." and "refine" in cls().get_params()
    else:
        component = re.findall(r"(\w+)\(", remedy)[-1]
        (parameter,) = re.findall(r"(\w+)=\.\.\.", remedy)
        found = next(getattr(place, component) for place in PLACES if hasattr(place, component))
        assert parameter in inspect.signature(found).parameters
        assert remedy.split("=")[0] in cls().get_params() or remedy.startswith("EnergyDensity(")
