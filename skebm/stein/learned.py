"""The Stein discrepancy over neural critics."""

from __future__ import annotations

__all__ = ["FittedCritic", "LearnedSteinDiscrepancy", "learned_stein_discrepancy"]

from typing import Any, NamedTuple

from skebm.data import resolve_device, torch_generator
from skebm.networks import Critic
from skebm.stein._scores import read_table
from skebm.stein._training import FittedCritic, fit_critic
from skebm.stein.settings import DISCREPANCY, CriticSettings, resolve_critic


class LearnedSteinDiscrepancy(NamedTuple):
    """A learned Stein discrepancy with its error and its critic.

    Parameters
    ----------
    value : float
        Mean of the Stein values over the test rows, nats squared over l2 (see Notes of
        `learned_stein_discrepancy`).
    stderr : float
        Standard error of that mean, the critic taken as given; same unit.
    critic : FittedCritic
        The chosen critic, a function of rows in the units of X.
    history : list of dict
        One entry per evaluation: ``iteration``; ``train``, ``validation``, ``validation_sd``, mean
        and standard deviation of the Stein values over (at most 4096) training and all validation
        rows; ``penalty``, l2 times the mean squared norm; ``statistic``, what chooses the critic.
    """

    value: float
    stderr: float
    critic: FittedCritic
    history: list[dict[str, float]]

    def __repr__(self) -> str:
        return f"LearnedSteinDiscrepancy(value={self.value!r}, stderr={self.stderr!r})"


def learned_stein_discrepancy(
    score: Any,
    X: Any,
    *,
    critic: CriticSettings | Critic | None = None,
    standardize: bool = True,
    random_state: Any = None,
) -> LearnedSteinDiscrepancy:
    r"""Return how far rows are from a model, by the best critic that a network learns.

    .. math::
        \max_f\; E_p[s_q(x) \cdot f(x) + \mathrm{div} f(x)] - \lambda E_p |f(x)|^2

    with :math:`s_q` the model's score and p the law of the rows. The optimum is
    :math:`f^* = (s_q - s_p) / (2 \lambda)`, and the value at it, the penalty left out,
    :math:`E_p|s_q - s_p|^2 / (2 \lambda)`. No sample of the model and no normalizer are needed.

    Parameters
    ----------
    score : callable or fitted density
        The model: a function from (n, d) to (n, d), the gradient of its log density in nats per
        unit of X; a fitted estimator with ``score_function``; a fitted scikit-learn
        GaussianMixture or BayesianGaussianMixture; a density of `skebm.datasets`; or a Pipeline of
        column scalers and one of these.
    X : array-like of shape (n, d)
        Rows, independent draws from p; at least 17 with the default split.
    critic : CriticSettings or Critic, default=None
        The network and how it is trained, with the penalty :math:`\lambda`; a `Critic` alone is
        trained with the defaults of `CriticSettings`.
    standardize : bool, default=True
        Divide columns by their standard deviation over the training rows (and multiply scores), so
        that units do not matter. The discrepancy then is that of the standardized rows; with False
        it is in the units of X.
    random_state : int, RandomState instance or None, default=None
        Split, initial weights, batches and probes.

    Returns
    -------
    LearnedSteinDiscrepancy
        Value and standard error on the test rows, critic, history.

    Raises
    ------
    ValueError, TypeError
        If the score or a parameter is unfit; the message names it.

    Notes
    -----
    The critic is chosen by the penalized mean over the rows that choose, so for a model that no
    critic can tell from the rows the value is 0 but for chance. With few rows the optimum is
    approached from below.

    The value is no distance of probabilities: the score does not see the relative weights of modes
    that lie far apart, so a model with wrong weights, or one that lacks a mode which the rows do
    not visit, may have a value near 0. A small value may also mean that the critic did not find the
    difference.

    An update costs about 1.3 MFLOP per row at d = 50; evaluation goes in blocks of rows.

    References
    ----------
    .. [1] W. Grathwohl et al., "Cutting out the Middle-Man: Training and Evaluating Energy-Based
       Models without Sampling". Eq. 6 to 11, Alg. 1 and appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.networks import Critic
    >>> from skebm.stein import CriticSettings, learned_stein_discrepancy
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> critic = CriticSettings(Critic((32, 32), learning_rate=0.01), max_iter=100)
    >>> result = learned_stein_discrepancy(lambda x: 1 - x, X, critic=critic, random_state=0)
    >>> 1 < result.value < 2.5  # |(1, 1)|^2 / (2 l2) = 2 for N(0, I) against N(1, I)
    True
    """
    settings = resolve_critic(critic, DISCREPANCY)
    rng = torch_generator(random_state, resolve_device(settings.device))
    fit = fit_critic(read_table(score, X), settings, False, standardize, rng)
    stderr = fit.values.std(ddof=1) / len(fit.values) ** 0.5
    return LearnedSteinDiscrepancy(float(fit.values.mean()), float(stderr), fit.critic, fit.history)
