"""The Stein discrepancy over neural critics."""

from __future__ import annotations

__all__ = ["FittedCritic", "LearnedSteinDiscrepancy", "learned_stein_discrepancy"]

from typing import Any, NamedTuple

from skebm.data import resolve_device, torch_generator
from skebm.networks import Critic
from skebm.stein._scores import read_table
from skebm.stein._training import CriticSettings, FittedCritic, fit_critic


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
    l2: float = 0.5,
    critic: Critic | None = None,
    trace: str = "exact",
    max_iter: int = 1000,
    batch_size: int | None = 1000,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    eval_every: int = 25,
    n_iter_no_change: int | None = 12,
    standardize: bool = True,
    device: Any = "cpu",
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
        Rows, independent draws from p; at least 18 with the default `split`.
    l2 : float, default=0.5
        The penalty :math:`\lambda` (dimensionless, above 0); value and critic scale with 1 / l2.
    critic : Critic, default=None
        The network; None means ``Critic()``, two hidden layers of 300.
    trace : {"exact", "gaussian", "rademacher"}, default="exact"
        The divergence in training; the others are Hutchinson's estimate with one probe a row.
        What is reported always uses the exact one.
    max_iter : int, default=1000
        Updates of the critic at most.
    batch_size : int, default=1000
        Rows per update, drawn with replacement; None means all training rows each time.
    learning_rate : float, default=1e-3
        Adam's step (dimensionless).
    weight_decay : float, default=0.0
        Adam's coupled decay; larger regularizes more.
    split : tuple of three floats, default=(0.8, 0.1, 0.1)
        Shares of rows that train, choose and evaluate the critic.
    eval_every : int, default=25
        Updates between evaluations on the validation rows.
    n_iter_no_change : int, default=12
        Stop after this many evaluations without a better one; None never stops early.
    standardize : bool, default=True
        Divide columns by their standard deviation over the training rows (and multiply scores), so
        that units do not matter. The discrepancy then is that of the standardized rows; with False
        it is in the units of X.
    device : {"cpu", "cuda", "auto"} or torch.device, default="cpu"
        Where the critic is trained.
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
    The chosen critic has the largest mean less standard deviation of the Stein values over the
    validation rows [1]_: the mean alone goes on growing while a critic overfits. Where the model is
    so near that no critic has a mean above its standard deviation, that rule prefers a small critic
    and the value stays near 0. With few rows the optimum is approached from below in any case.

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
    >>> from skebm.stein import learned_stein_discrepancy
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> settings = {"critic": Critic((32, 32)), "learning_rate": 0.01, "max_iter": 100}
    >>> result = learned_stein_discrepancy(lambda x: 1 - x, X, random_state=0, **settings)
    >>> 1 < result.value < 2.5  # |(1, 1)|^2 / (2 l2) = 2 for N(0, I) against N(1, I)
    True
    """
    settings = CriticSettings(
        critic=Critic() if critic is None else critic,
        power=False,
        l2=l2,
        trace=trace,
        max_iter=max_iter,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        split=split,
        eval_every=eval_every,
        n_iter_no_change=n_iter_no_change,
        standardize=standardize,
    ).check()
    rng = torch_generator(random_state, resolve_device(device))
    fit = fit_critic(*read_table(score, X), settings, rng)
    stderr = fit.values.std(ddof=1) / len(fit.values) ** 0.5
    return LearnedSteinDiscrepancy(float(fit.values.mean()), float(stderr), fit.critic, fit.history)
