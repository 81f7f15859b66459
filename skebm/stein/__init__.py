"""Train, test and compare unnormalized models through Stein discrepancies, without sampling."""

__all__ = [
    "CriticSettings",
    "FiniteSetSteinDiscrepancy",
    "FittedCritic",
    "GoodnessOfFit",
    "KernelSteinDiscrepancy",
    "LearnedSteinDiscrepancy",
    "ModelComparison",
    "compare_models",
    "finite_set_stein_discrepancy",
    "goodness_of_fit_test",
    "kernelized_stein_discrepancy",
    "learned_stein_discrepancy",
    "stein_score",
]

from skebm.stein.comparison import ModelComparison, compare_models
from skebm.stein.fssd import FiniteSetSteinDiscrepancy, finite_set_stein_discrepancy
from skebm.stein.goodness_of_fit import GoodnessOfFit, goodness_of_fit_test
from skebm.stein.kernel import KernelSteinDiscrepancy, kernelized_stein_discrepancy
from skebm.stein.learned import FittedCritic, LearnedSteinDiscrepancy, learned_stein_discrepancy
from skebm.stein.scorer import stein_score
from skebm.stein.settings import CriticSettings
