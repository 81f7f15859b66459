"""Chains of a fitted estimator, recorded as they move."""

from __future__ import annotations

__all__ = ["Chains", "run_chains"]

from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data
from tqdm import tqdm

from skebm._components import check_choice, check_number, resolve
from skebm._surroundings import own_settings
from skebm._warn import warn
from skebm.data import torch_generator
from skebm.fitted import FittedDensity
from skebm.inside import check_energy_model
from skebm.samplers import HMC, MALA, SGHMC, Langevin, Sampler, run

SAMPLERS: dict[str, type] = {"langevin": Langevin, "mala": MALA, "hmc": HMC, "sghmc": SGHMC}
STARTS = ("noise", "bank")


class Chains(NamedTuple):
    """Records of n chains; the first record is their start.

    Parameters
    ----------
    positions : ndarray of shape (n_records, n, d)
        Where the chains stood, in the units of X.
    energy : ndarray of shape (n_records, n)
        Potential U = E/T - log p0 that the chains sample: minus the unnormalized log density in
        standardized space, nats.
    model_energy : ndarray of shape (n_records, n)
        Energy E alone, nats: what ``energy_samples`` returns.
    steps : ndarray of int of shape (n_records,)
        Steps taken up to each record, 0 first.
    acceptance : ndarray of shape (n_records,)
        Mean acceptance probability since the last record (dimensionless); 1 for chains without a
        Metropolis test, nan at the start.
    step_size : ndarray of shape (n_records,)
        Step size of the step that follows, in the sampler's own unit.
    drift_to_noise : ndarray of shape (n_records,)
        Norm of drift over norm of noise in the Langevin step (adjusted or not) that follows, root
        mean square over chains (dimensionless); nan for other samplers.
    force : ndarray of shape (n_records,)
        Mean over chains of the norm of the gradient of U, nats per standardized unit.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm.diagnostics import Chains
    >>> one = np.ones(2)
    >>> chains = Chains(np.zeros((2, 5, 3)), *np.zeros((2, 2, 5)), np.array([0, 10]), *[one] * 4)
    >>> chains.positions[-1].shape
    (5, 3)
    """

    positions: np.ndarray
    energy: np.ndarray
    model_energy: np.ndarray
    steps: np.ndarray
    acceptance: np.ndarray
    step_size: np.ndarray
    drift_to_noise: np.ndarray
    force: np.ndarray


@own_settings()
def run_chains(
    estimator: Any,
    init: Any = "noise",
    *,
    sampler: Sampler | str | None = None,
    n_chains: int = 100,
    n_steps: int = 1000,
    record_every: int = 10,
    random_state: int | np.random.RandomState | None = None,
    progress: bool = False,
) -> Chains:
    """Run Markov chains on a fitted density and record what they do.

    Parameters
    ----------
    estimator : object
        A fitted estimator of this package.
    init : {"noise", "bank"} or array-like of shape (n, d), default="noise"
        Where chains start: at the noise that training starts from, at rows of the bank of
        persistent chains, or at these rows in the units of X (held-out rows, say), one chain each.
    sampler : Sampler or {"langevin", "mala", "hmc", "sghmc"}, default=None
        The algorithm; its step size multiplies the gradient of U. None takes the sampler that
        training ended with (``sampler_``) where there is one, otherwise
        ``MALA(0.05, n_warmup=200)``.
    n_chains : int, default=100
        Chains; an array as `init` has its own number.
    n_steps : int, default=1000
        Steps of each chain, a sampler's warm-up included: its step size moves during the first
        ``n_warmup`` steps and stays afterwards.
    record_every : int, default=10
        Steps between records; the last step is always recorded.
    random_state : int, RandomState instance or None, default=None
        None takes the estimator's own ``random_state``.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    Chains
        The records.

    Raises
    ------
    ValueError, TypeError
        If `init` is no start that the estimator has, holds nan, or has the wrong columns, or a
        count or the sampler is unfit.
    NotFittedError
        If the estimator is not fitted.

    Warns
    -----
    ConvergenceWarning
        If Ctrl-C ended the run (what was recorded is returned), or chains ran off to values that
        are not finite.

    Notes
    -----
    The cost is that of the steps plus one gradient and one energy per record; memory is
    ``n_records * n * d`` doubles. In a Langevin step of size a, drift over noise is
    ``sqrt(a / 2)`` times the norm of the score over ``sqrt(d)``, so on N(0, s^2 I) it settles at
    ``sqrt(a / 2) / s``: it stops changing when the two balance, which for small steps is below 1.

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Fig. 9.
    .. [2] M. Bunino, "On the difficulty of training MCMC-Based Maximum Likelihood Learning of
       Energy-Based Models". Section 3.2.

    Examples
    --------
    >>> from skebm import HybridCDDensity
    >>> from skebm.datasets import two_moons
    >>> from skebm.diagnostics import run_chains
    >>> X = two_moons().sample(200, random_state=0)
    >>> fitted = HybridCDDensity(max_iter=5, random_state=0).fit(X)
    >>> chains = run_chains(fitted, X[:20], sampler="mala", n_steps=50)
    >>> chains.positions.shape
    (6, 20, 2)
    """
    check_energy_model(estimator)
    for name, value, low in (("n_chains", n_chains, 1), ("n_steps", n_steps, 0)):
        check_number(name, value, low=low, integer=True)
    check_number("record_every", record_every, low=1, integer=True)
    chosen = _sampler(estimator, sampler)
    seed = estimator.random_state if random_state is None else random_state
    rng = torch_generator(seed, estimator.density_.device)
    start = _start(estimator, init, n_chains, rng)
    recorder = _Recorder(estimator, chosen)
    with torch.no_grad(), tqdm(total=n_steps, disable=not progress, desc="chains") as bar:
        state = chosen.init(recorder.target, start)
        recorder.add(0, state, np.nan)
        try:
            for done in range(0, n_steps, record_every):
                length = min(record_every, n_steps - done)
                state, info = run(chosen, recorder.target, start, length, rng, state=state)
                recorder.add(done + length, state, float(info.acceptance))
                bar.update(length)
        except KeyboardInterrupt:
            _warn(
                f"Interrupted after {recorder.rows[-1][3]} of {n_steps} steps. Run on from the "
                "last positions with init=chains.positions[-1]."
            )
    chains = recorder.chains()
    n_lost = np.count_nonzero(~np.isfinite(chains.positions[-1]).all(axis=1))
    if n_lost:
        _warn(
            f"{n_lost} of {len(start)} chains are not finite after {chains.steps[-1]} steps of "
            f"{chosen}. Lower its step_size, or use sampler='mala'."
        )
    return chains


class _Recorder:
    """Rows in the order of the fields of `Chains`."""

    def __init__(self, estimator: Any, sampler: Sampler) -> None:
        density: FittedDensity = estimator.density_
        self.model = density.model
        self.target = self.model.potential_and_score
        self.inverse, self.sampler = density.transform.inverse, sampler
        self.rows: list[tuple] = []

    def add(self, step: int, state: Any, acceptance: float) -> None:
        energy, score = self.target(state.x)
        norm = score.flatten(1).norm(dim=1)
        size = float(state.log_step.exp()) if hasattr(state, "log_step") else self.sampler.step_size
        drift = size * float(norm.square().mean().sqrt())
        noise = _noise_std(self.sampler, size) * score[0].numel() ** 0.5
        self.rows.append(
            (
                self.inverse(state.x),
                energy.cpu().numpy(),
                self.model.energy(state.x).cpu().numpy(),
                step,
                acceptance,
                size,
                drift / noise if noise else np.inf,
                float(norm.mean()),
            )
        )

    def chains(self) -> Chains:
        chains = Chains(*(np.asarray(column) for column in zip(*self.rows, strict=True)))
        return chains._replace(
            energy=chains.energy.astype(np.float64),
            model_energy=chains.model_energy.astype(np.float64),
        )


def _sampler(estimator: Any, sampler: Any) -> Sampler:
    if sampler is None:
        sampler = getattr(estimator, "sampler_", None) or MALA(0.05, n_warmup=200)
    return resolve(sampler, SAMPLERS, Sampler, "sampler")


def _start(estimator: Any, init: Any, n: int, rng: torch.Generator) -> torch.Tensor:
    """Return where the chains start (n, d), standardized space."""
    if not isinstance(init, str):
        rows = validate_data(estimator, init, dtype=np.float64, reset=False)
        return estimator.density_.standardized(rows)
    check_choice("init", init, STARTS, remedy="Or pass rows in the units of X.")
    if init == "noise":
        return estimator.density_.noise(n, rng)
    bank = getattr(estimator.density_.draws, "bank", None)
    if bank is None:
        raise ValueError(
            f"init must be 'noise' or rows where there is no bank, got 'bank' for {estimator!r}. "
            "Fit with init='persistent' to have one."
        )
    check_number("n_chains", n, high=len(bank), remedy="The bank has no more rows.")
    rows = torch.randperm(len(bank), generator=rng, device=rng.device)[:n]
    return bank[rows.to(bank.device)].to(rng.device)


def _noise_std(sampler: Sampler, step_size: float) -> float:
    """Standard deviation of the noise of one Langevin step; nan for other samplers."""
    if isinstance(sampler, Langevin):
        return sampler.noise_scale
    return (2 * step_size) ** 0.5 if isinstance(sampler, MALA) else np.nan


def _warn(message: str) -> None:
    warn(message, ConvergenceWarning)
