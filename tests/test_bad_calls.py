"""What a bad value of a parameter alone does not show: parts at fault, rows, remedies, old names.

That each parameter names its bad values at fit, and not before, is in ``contracts``.
"""

import inspect
import re

import numpy as np
import pytest
import torch

import skebm.objectives
from skebm.bases import Kernel
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
from skebm.partition import Quadrature
from skebm.samplers import SampleBank, SupportPartition
from tests import cases

pytestmark = cases.QUIET
X = np.random.RandomState(0).randn(40, 4)
NAN = np.where(np.arange(4) == 1, np.nan, X)


def batch_norm(shape):
    return torch.nn.Sequential(
        torch.nn.Linear(shape, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
    )


def noise(value, **params):
    return ChainStart(noise=value, **params)


BANK = ChainStart("persistent", bank=SampleBank(size=9))
KINKED = MLP((4,), "leaky_relu")
MANY_LATENTS = MLPGenerator(latent_dim=5)

# estimator -> (parameter, bad value, error, what the message says, other parameters)
CALLS = {
    "HybridCDDensity": [
        ("energy", MLP(()), TypeError, "hidden_sizes must be a nonempty tuple"),
        ("energy", batch_norm, ValueError, "BatchNorm1d at '1'"),
        ("base", Kernel(n_centers=0), ValueError, "n_centers must be"),
        ("data_noise", -0.1, ValueError, "got -0.1. Or use 'auto'"),
        ("optimizer", Optimization(schedule="x"), ValueError, "schedule must be"),
        ("log_partition", Quadrature(), ValueError, "above 3 columns"),
        ("contamination", 0.6, ValueError, "got 0.6. Or use 'auto'"),
        ("image_shape", (1, 2, 2.0), TypeError, "must be an integer >= 1, got 2.0"),
        ("image_shape", (1, -2, -2), ValueError, "must be an integer >= 1, got -2"),
        ("image_shape", (2, 2), TypeError, "must be (channels, height, width), got (2, 2)"),
        ("image_shape", (1, 2, 3), ValueError, "4 columns of X, got (1, 2, 3)"),
        ("init", ChainStart(noise_share=0), ValueError, "noise_share must be"),
        ("init", BANK, ValueError, "bank_size must be at least the 32 rows of a"),
        ("init", noise("gauss"), ValueError, "got 'gauss'. Or pass an array of rows"),
        ("init", noise(None), TypeError, "noise must be one of"),
        ("init", noise("base"), ValueError, "without a base", {"base": None}),
        ("init", noise(np.zeros((5, 3))), ValueError, "4 columns of X, got shape (5,"),
        ("init", noise(NAN), ValueError, "noise contains NaN"),
        ("init", noise(X[0]), ValueError, "Expected 2D array, got 1D"),
        ("init", noise(X[:0]), ValueError, "minimum of 1 is required"),
        ("step_size", 0.0, ValueError, "got 0.0. Or use 'auto' or 'adaptive'"),
        ("step_size", EnergyStep(scale=-1), ValueError, "scale must be"),
        ("refine", "no", ValueError, "must be one of [True, False], got 'no'"),
    ],
    "USPDensity": [
        ("n_points", 1, ValueError, "an integer >= 2, got 1", {"method": "importance"}),
        ("repulsion", SupportPartition(n_active=None), TypeError, "n_active must be"),
        ("domain", ("a", "b"), ValueError, "must hold numbers for 4 columns, got ('a', "),
        ("domain", (-np.inf, 1), ValueError, "must have finite low < high, got (-inf, 1)"),
        ("domain", (0, 1, 2), TypeError, "must be a pair (low, high), got (0, 1, 2)"),
        ("init", "noise", ValueError, "['data', 'uniform'], got 'noise'. Or pass an array"),
        ("init", NAN, ValueError, "contains NaN"),
    ],
    "ScoreMatchingDensity": [
        ("energy", KINKED, ValueError, "twice differentiable", {"method": "sliced"}),
    ],
    "NCEDensity": [
        ("noise", Kernel(n_centers=0), ValueError, "n_centers must be"),
        (
            "noise_ratio",
            0.5,
            ValueError,
            ">= 1, got 0.5. It is a number of",
            {"noise": "conditional"},
        ),
    ],
    "SteinEBM": [("critic", Critic(()), TypeError, "hidden_sizes must be")],
    "BoundsEBM": [
        ("bound", UpperBound(exponent=0.5), ValueError, "exponent must be"),
        ("entropy", "variational", ValueError, "Use bound='zero-centered-gp'"),
        ("entropy", GeneratorEntropy(weight=-1), ValueError, "weight must be"),
        ("generator", MANY_LATENTS, ValueError, "at most the 4 values of a row, got 5"),
        ("generator", ConvGenerator(), ValueError, "(4,)"),
        ("penalty_weight", -0.5, ValueError, "got -0.5. Or use 'auto'"),
        ("refine", -1, ValueError, "must be an integer >= 0, got -1"),
        ("refine", "no", TypeError, "must be an integer >= 0, got 'no'. Or True or False."),
    ],
    "EnergyDensity": [("objective", ScoreMatching("dsm"), ValueError, "method must be one of")],
}
FLAT = [(name, *call) for name, calls in CALLS.items() for call in calls]


@pytest.mark.parametrize("call", FLAT, ids=lambda call: f"{call[0]}-{call[1]}")
def test_a_bad_parameter_is_named_at_fit(call):
    name, key, value, error, says, *beside = call
    est = cases.tiny(name, **{key: value}, **dict(*beside))  # construction never complains
    with pytest.raises(error, match=re.escape(says)) as caught:
        est.fit(X)
    assert type(caught.value) is error
    if says.startswith("must"):
        assert str(caught.value).startswith(f"{key} {says}")


@cases.each
def test_the_table_s_estimator_is_sound_without_its_fault(name):
    assert np.isfinite(cases.tiny(name).fit(X).score_samples(X)).all()


def test_a_bad_parameter_that_only_a_kept_energy_would_need_is_named_too():
    params = {"log_partition": "typo", "validation_fraction": 0.2, "learning_rate": 1e-12}
    with pytest.raises(ValueError, match="log_partition must be one of .*got 'typo'"):
        cases.tiny("HybridCDDensity", **params).fit(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"base": "typo", "base__n_centers": 4}, "base must be one of .*got 'typo'"),
        ({"sampler": "langevin", "sampler__friction": 1.0}, "parameter 'friction'.*Langevin"),
        ({"init": "noise", "init__share": 1.0}, "parameter 'share'.*ChainStart"),
    ],
)
def test_set_params_refuses_unknown_names(params, message):
    with pytest.raises(ValueError, match=message):
        cases.tiny("HybridCDDensity").set_params(**params)


# -- names of version 0.1 --------------------------------------------------------------------------

ALL = "averaging eval_every weight_decay"
OLD = {
    "BoundsEBM": "betas entropy_weight fold_penalty generator_betas generator_learning_rate "
    "latent_dim n_lobpcg observation_noise penalty_exponent probe refine_iter",
    "HybridCDDensity": "bank_size noise_share noise_std refresh refresh_rate start_noise "
    "start_scale",
    "NCEDensity": "",
    "ScoreMatchingDensity": "",
    "SteinEBM": "betas critic_learning_rate trace",
    "USPDensity": "combine n_active n_inner n_maximize n_neighbors n_repel step_maximize "
    "step_repel weights",
}
PLACES = (skebm.objectives, skebm.samplers, skebm.networks, skebm)


@pytest.mark.parametrize(
    ("name", "old"),
    [(name, old) for name, names in OLD.items() for old in (names + " " + ALL).split()],
)
def test_a_name_of_version_0_1_has_its_remedy(name, old):
    """One that works: the components that it names have the parameters that it names."""
    cls = cases.CLASSES[name]
    message = f"{old} must be left out of {name}, got 3. Since version 0.2 it is "
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
