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

# (ValueErrors, TypeErrors, what the rule says, the parameters); of a tuple the last may be at fault
BAD = [
    (
        [0],
        [2.5],
        "an integer >= 1",
        """AIS.max_levels AIS.n_steps ConditionalNoiseContrastive.n_noise
        DenoisingScoreMatching.n_levels GaussianBernoulliRBM.n_hidden GeneratorEntropy.n_lobpcg
        HMC.n_leapfrog Kernel.n_centers LearnedStein.critic_steps Mixture.max_components
        Mixture.n_components PartitionLikelihood.n_integration ProbabilisticPCA.n_components
        SampleBank.size ScoreMatching.n_projections SupportPartition.n_active""",
    ),
    (
        [0.0, -1, np.inf],
        ["big", None],
        "a number > 0",
        """AIS.max_spread ChainStart.noise_scale ConditionalNoiseContrastive.noise_std
        DenoisingScoreMatching.noise_std Gaussian.inflation HMC.mass HMC.step_size Kernel.bandwidth
        Langevin.step_size LearnedStein.l2 MALA.step_size MLP.input_scale MLPGenerator.input_scale
        MLPGenerator.learning_rate NoiseContrastive.ratio Optimization.learning_rate
        ProbabilisticPCA.inflation Quadrature.tol SGHMC.mass SGHMC.step_size
        SupportPartition.epsilon Uniform.shoulder""",
    ),
    (
        [-0.1],
        ["big"],
        "a number >= 0",
        """BidirectionalBounds.margin BidirectionalBounds.penalty_weight
        ContrastiveDivergence.cd_weight GeneratorEntropy.fold_penalty GeneratorEntropy.weight
        Langevin.noise_std Langevin.temperature LearnedStein.energy_l2
        MLPGenerator.observation_noise Optimization.weight_decay SGHMC.friction
        SupportPartition.step_maximize SupportPartition.step_repel Uniform.widening""",
    ),
    (
        [-1],
        [2.5],
        "an integer >= 0",
        """HMC.n_warmup MALA.n_warmup PartitionLikelihood.n_restarts SupportPartition.n_inner
        SupportPartition.n_neighbors""",
    ),
    (
        ["yes"],
        [None, 2],
        "False",
        """Conv.learn_gamma ConvGenerator.batch_norm Critic.linear_skip Critic.spectral_norm
        MLP.learn_gamma MLPGenerator.batch_norm MLPGenerator.linear_skip Optimization.averaging
        ResidualGenerator.batch_norm""",
    ),
    (
        [(4, 0)],
        [(), 5, (2.5,)],
        "",
        """Critic.hidden_sizes MLP.hidden_sizes MLPGenerator.hidden_sizes
        Reconstruction.hidden_sizes""",
    ),
    (
        [-0.1, 1.5],
        [None],
        "a number >= 0 and <= 1",
        """Conv.negative_slope MLP.negative_slope Reconstruction.negative_slope
        Residual.negative_slope""",
    ),
    (
        ["typo"],
        [3, None],
        "one of [",
        """ChainStart.scheme ContrastiveDivergence.start Conv.activation Conv.output
        ConvGenerator.output GeneratorEntropy.kind MLP.activation MLP.output
        MLPGenerator.activation MLPGenerator.output Optimization.schedule PartitionLikelihood.start
        Reconstruction.activation ResidualGenerator.output SGHMC.scheme SampleBank.refresh
        ScoreMatching.projections UpperBound.kind UpperBound.probe""",
    ),
    (
        [0.0, 1.5],
        ["all"],
        "> 0 and <",
        "ChainStart.noise_share HMC.target_accept MALA.target_accept",
    ),
    (["tied"], [None], "'spherical'", "Gaussian.covariance"),
    ([1], [9.5], "an integer >= 2", "Mixture.max_selection_rows"),
    ([], [3], "log_prob", "TorchDistribution.distribution"),
    ([(), (4, 0)], [5], "", "Conv.channels"),
    ([(3, 3)], [2.5], "", "Conv.kernel_sizes"),
    ([0], [1.5], "", "Conv.strides"),
    ([-1], [1.5], "", "Conv.paddings"),
    (["max"], [3], "one of", "Conv.pooling"),
    ([(4, 0)], [64], "", "Conv.hidden_sizes"),
    ([(4,)], [True], "", "Conv.attention"),
    ([(), (4, -1)], [3], "", "Residual.channels"),
    (["cauchy"], [3], "one of ['logistic', 'laplace']", "LinearICA.source"),
    ([(), (4, 0), (4,)], [5, (4, 2.5)], "", "ConvGenerator.channels ResidualGenerator.channels"),
    ([0, 3], [1.5], "", "MLPGenerator.latent_dim"),
    ([(0.5, 1.0)], [(0.5,)], "", "MLPGenerator.betas"),
    (["relu"], [3], "one of ['swish', 'tanh']", "Critic.activation"),
    ([1.0, -0.1], ["some"], "a number >= 0 and <= 0.99", "Critic.dropout"),
    ([0.0, -1], ["big"], "a number > 0", "Critic.weight_clip Critic.learning_rate"),
    (["hutchinson"], [3], "'rademacher'", "Critic.trace"),
    ([1.5], ["all"], "", "SampleBank.refresh_rate"),
    ([1], [2.5], "", "ImportanceSampling.n_samples"),
    ([1], [1.5], "", "ImportanceSampling.max_samples"),
    ([-1], ["small"], "", "ImportanceSampling.tol"),
    ([4], [8.5], "an integer", "AIS.n_chains"),
    ([2], ["all"], "", "AIS.min_ess"),
    ([-1], [1.5], "an integer", "ContrastiveDivergence.n_steps"),
    ([], ["mala"], "a Sampler", "ContrastiveDivergence.sampler"),
    ([1], [2.5], "an integer >= 2", "ImportanceLikelihood.n_points PartitionLikelihood.n_points"),
    ([(0.9, 1.0)], [0.9], "", "Optimization.betas"),
    (["dsm"], [None], "one of ['exact', 'sliced']", "ScoreMatching.method"),
    ([0.1], ["wide"], "a number >= 0.3", "DenoisingScoreMatching.max_noise_std"),
    (["voronoi"], [3], "one of ['plain', 'knn']", "PartitionLikelihood.weights"),
    ([0.5], ["big"], "a number >= 1", "UpperBound.exponent"),
]
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
    "What each kind is for."
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
    (*place.split("."), value, error, rule)
    for *values, rule, places in BAD
    for place in places.split()
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
    assert re.search(
        rf"\b{said} must .*{re.escape(rule)}(?![\d.]).* got ({told})", str(caught.value)
    )
