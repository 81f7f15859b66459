"""A component stores any value; a bad one is named, with its rule, where the component is used."""

import re

import numpy as np
import pytest
import torch

from skebm.energies import MLP, Model
from skebm.objectives import (
    BidirectionalBounds,
    ChainStart,
    ContrastiveDivergence,
    ImportanceLikelihood,
    LearnedStein,
    Optimization,
    PartitionLikelihood,
)
from skebm.samplers import run
from tests import cases
from tests.closed_forms import Quadratic, normal_base, quadratic
from tests.generators import gen

pytestmark = cases.QUIET
FLAT, IMAGE = (2,), (1, 8, 8)
X = torch.randn(300, 2, generator=gen(1))

WHOLE = ([0], [2.5], "an integer >= 1")
POSITIVE = ([0.0, -1, np.inf], ["big", None], "a number > 0")
NUMBER = ([-0.1], ["big"], "a number >= 0")
COUNT = ([-1], [2.5], "an integer >= 0")
FLAG = (["yes"], [None, 2], "False")
SIZES = ([(4, 0)], [(), 5, (2.5,)], "")  # the last of a tuple is told where it is at fault
SLOPE = ([-0.1, 1.5], [None], "a number >= 0 and <= 1")
ALIAS = (["typo"], [3, None], "one of [")
SHARE = ([0.0, 1.5], ["all"], "> 0 and <")
GENERATOR = {"channels": ([(), (4, 0), (4,)], [5, (4, 2.5)], ""), "batch_norm": FLAG}
GENERATOR |= {"output": ALIAS}

# component -> parameter -> (ValueErrors, TypeErrors, what the rule says)
BAD = {
    "Gaussian": {"covariance": (["tied"], [None], "'spherical'"), "inflation": POSITIVE},
    "Mixture": {
        "n_components": WHOLE,
        "max_components": WHOLE,
        "max_selection_rows": ([1], [9.5], "an integer >= 2"),
    },
    "Kernel": {"n_centers": WHOLE, "bandwidth": POSITIVE},
    "ProbabilisticPCA": {"n_components": WHOLE, "inflation": POSITIVE},
    "Uniform": {"widening": NUMBER, "shoulder": POSITIVE},
    "TorchDistribution": {"distribution": ([], [3], "log_prob")},
    "MLP": {
        "hidden_sizes": SIZES,
        "activation": ALIAS,
        "negative_slope": SLOPE,
        "output": ALIAS,
        "input_scale": POSITIVE,
        "learn_gamma": FLAG,
    },
    "Reconstruction": {"hidden_sizes": SIZES, "activation": ALIAS, "negative_slope": SLOPE},
    "Conv": {
        "channels": ([(), (4, 0)], [5], ""),
        "kernel_sizes": ([(3, 3)], [2.5], ""),
        "strides": ([0], [1.5], ""),
        "paddings": ([-1], [1.5], ""),
        "pooling": (["max"], [3], "one of"),
        "hidden_sizes": ([(4, 0)], [64], ""),
        "activation": ALIAS,
        "negative_slope": SLOPE,
        "output": ALIAS,
        "attention": ([(4,)], [True], ""),
        "learn_gamma": FLAG,
    },
    "Residual": {"channels": ([(), (4, -1)], [3], ""), "negative_slope": SLOPE},
    "GaussianBernoulliRBM": {"n_hidden": WHOLE},
    "LinearICA": {"source": (["cauchy"], [3], "one of ['logistic', 'laplace']")},
    "ConvGenerator": GENERATOR,
    "ResidualGenerator": GENERATOR,
    "MLPGenerator": {
        "hidden_sizes": SIZES,
        "activation": ALIAS,
        "input_scale": POSITIVE,
        "linear_skip": FLAG,
        "batch_norm": FLAG,
        "output": ALIAS,
        "latent_dim": ([0, 3], [1.5], ""),
        "observation_noise": NUMBER,
        "learning_rate": POSITIVE,
        "betas": ([(0.5, 1.0)], [(0.5,)], ""),
    },
    "Critic": {
        "hidden_sizes": SIZES,
        "activation": (["relu"], [3], "one of ['swish', 'tanh']"),
        "linear_skip": FLAG,
        "dropout": ([1.0, -0.1], ["some"], "a number >= 0 and <= 0.99"),
        "spectral_norm": FLAG,
        "weight_clip": ([0.0, -1], ["big"], "a number > 0"),
        "learning_rate": ([0.0, -1], ["big"], "a number > 0"),
        "trace": (["hutchinson"], [3], "'rademacher'"),
    },
    "Langevin": {"step_size": POSITIVE, "temperature": NUMBER, "noise_std": NUMBER},
    "MALA": {"step_size": POSITIVE, "n_warmup": COUNT, "target_accept": SHARE},
    "HMC": {
        "step_size": POSITIVE,
        "n_leapfrog": WHOLE,
        "mass": POSITIVE,
        "n_warmup": COUNT,
        "target_accept": SHARE,
    },
    "SGHMC": {
        "step_size": POSITIVE,
        "friction": NUMBER,
        "mass": POSITIVE,
        "scheme": (["leapfrog"], [3], "one of"),
    },
    "SampleBank": {"size": WHOLE, "refresh_rate": ([1.5], ["all"], ""), "refresh": ALIAS},
    "SupportPartition": {
        "epsilon": POSITIVE,
        "n_active": WHOLE,
        "n_neighbors": COUNT,
        "n_inner": COUNT,
        "step_maximize": NUMBER,
        "step_repel": NUMBER,
    },
    "Quadrature": {"tol": POSITIVE},
    "ImportanceSampling": {
        "n_samples": ([1], [2.5], ""),
        "max_samples": ([1], [1.5], ""),
        "tol": ([-1], ["small"], ""),
    },
    "AIS": {
        "n_chains": ([4], [8.5], "an integer >= "),
        "n_steps": WHOLE,
        "max_spread": POSITIVE,
        "min_ess": ([2], ["all"], ""),
        "max_levels": WHOLE,
    },
    "ContrastiveDivergence": {
        "start": ALIAS,
        "cd_weight": NUMBER,
        "n_steps": ([-1], [1.5], "an integer"),
        "sampler": ([], ["mala"], "a Sampler"),
    },
    "ChainStart": {"scheme": ALIAS, "noise_share": SHARE, "noise_scale": POSITIVE},
    "ImportanceLikelihood": {"n_points": ([1], [2.5], "an integer >= 2")},
    "Optimization": {
        "learning_rate": POSITIVE,
        "betas": ([(0.9, 1.0)], [0.9], ""),
        "weight_decay": NUMBER,
        "schedule": ALIAS,
        "averaging": FLAG,
    },
    "ScoreMatching": {
        "method": (["dsm"], [None], "one of ['exact', 'sliced']"),
        "n_projections": WHOLE,
        "projections": (["sphere"], [3], "one of"),
    },
    "DenoisingScoreMatching": {
        "noise_std": POSITIVE,
        "n_levels": WHOLE,
        "max_noise_std": ([0.1], ["wide"], "a number >= 0.3"),
    },
    "NoiseContrastive": {"ratio": POSITIVE},
    "ConditionalNoiseContrastive": {"noise_std": POSITIVE, "n_noise": WHOLE},
    "PartitionLikelihood": {
        "n_points": ([1], [2.5], "an integer >= 2"),
        "start": ALIAS,
        "weights": (["voronoi"], [3], "one of ['plain', 'knn']"),
        "n_integration": WHOLE,
    },
    "LearnedStein": {"critic_steps": WHOLE, "l2": POSITIVE, "energy_l2": NUMBER},
    "BidirectionalBounds": {"penalty_weight": NUMBER, "margin": NUMBER},
    "UpperBound": {
        "kind": (["upper"], [None], "one of"),
        "probe": (["cube"], [None], "one of"),
        "exponent": ([0.5], ["big"], "a number >= 1"),
    },
    "GeneratorEntropy": {
        "kind": (["exact"], [None], "one of"),
        "weight": NUMBER,
        "fold_penalty": NUMBER,
        "n_lobpcg": WHOLE,
    },
}
SAID = {  # where the error has the name that an estimator gives it
    ("ChainStart", "scheme"): "init",
    ("ContrastiveDivergence", "start"): "init",
    ("GeneratorEntropy", "kind"): "entropy",
    ("PartitionLikelihood", "start"): "init",
    ("SampleBank", "size"): "bank_size",
    ("UpperBound", "kind"): "bound",
}
PLAIN = {"Optimization": Optimization()}  # the case has no betas
WITHIN = {  # the objective that a part is used in
    "ChainStart": ContrastiveDivergence,
    "Critic": LearnedStein,
    "GeneratorEntropy": lambda part: BidirectionalBounds(entropy=part),
    "MLPGenerator": lambda part: BidirectionalBounds(generator=part),
    "Optimization": lambda part: ImportanceLikelihood(optimization=part),
    "SampleBank": lambda part: ContrastiveDivergence(ChainStart("persistent", bank=part)),
    "SupportPartition": lambda part: PartitionLikelihood(30, part),
    "UpperBound": BidirectionalBounds,
}


def use(name, component):
    """What each kind is for."""
    if name in cases.OBJECTIVES or name in WITHIN:
        objective = WITHIN.get(name, lambda part: part)(component)
        energy = MLP((4,)).build(FLAT, gen(0))
        return objective.init(Model(energy, normal_base(2), 1.0), X, gen(0))
    if name in cases.BASES:
        return component.fit(X, None, gen(0))
    if name in cases.SAMPLERS:
        return run(component, quadratic, X, 1, gen(0))
    if name in cases.PARTITIONS:
        return component.estimate(Model(Quadratic(), None, 1.0), normal_base(1), gen(0))
    if "Generator" in name:
        return component.build(5, IMAGE, gen(0))
    return component.build(IMAGE if name in ("Conv", "Residual") else FLAT, gen(0))


VALUES = [
    (name, key, value, error, rule)
    for name, rows in BAD.items()
    for key, (*values, rule) in rows.items()
    for error, several in zip((ValueError, TypeError), values, strict=True)
    for value in several
]


@pytest.mark.parametrize(("name", "key", "value", "error", "rule"), VALUES, ids=str)
def test_a_bad_value_is_named_where_it_is_used(name, key, value, error, rule):
    component = (cases.COMPONENTS | PLAIN)[name].with_params(**{key: value})
    with pytest.raises(error) as caught:
        use(name, component)
    parts = [value, *value[-1:]] if isinstance(value, tuple) else [value]
    told = "|".join(re.escape(repr(part)) for part in parts)
    said = SAID.get((name, key), key)
    assert re.search(rf"\b{said} must .*{re.escape(rule)}.* got ({told})", str(caught.value))
