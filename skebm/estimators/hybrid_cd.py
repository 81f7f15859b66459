"""HybridCDDensity: contrastive divergence from data, noise or a bank, over a base density."""

from __future__ import annotations

__all__ = ["HybridCDDensity"]

from typing import Any, Self

import numpy as np
import torch

from skebm._components import check_choice, check_number
from skebm.data import Table, Transform
from skebm.estimators._base import DensityEstimator
from skebm.estimators._papers import HCD, paper_settings
from skebm.estimators._run import Learned, Run, places
from skebm.estimators._shared import documented, resolved
from skebm.fitted.draws import ByChains
from skebm.objectives import (
    ChainStart,
    ContrastiveDivergence,
    EnergyStep,
    ImportanceLikelihood,
    Objective,
)
from skebm.samplers import MALA, Sampler

START_STEP = 0.05  # of the adapted step, standardized units squared


@documented
class HybridCDDensity(DensityEstimator):
    r"""Energy-based density :math:`p(x) = e^{-E(x)/T} p_0(x) / Z` by hybrid contrastive divergence.

    Short Markov chains start at the data and at noise; training lowers the energy of the data and
    raises it where the chains end. The base :math:`p_0` is fitted first, so that training starts as
    good as a classical model, and the energy is kept only where it improves on the base.

    Parameters
    ----------
    init : {"hybrid", "data", "noise", "persistent", "persistent-refresh"} or ChainStart
        Where training chains start, ``"hybrid"`` by default: at the data (contrastive divergence),
        at noise, at both, or in a bank of 60,000 chains that go on from update to update, with
        ``"persistent-refresh"`` some of them (0.05) started afresh. A `ChainStart` says what noise
        is and how large the bank: ``init__bank__size`` works in ``set_params``.
    cd_weight : float, default=25.0
        lambda (dimensionless): weight of the data-started bracket in ``"hybrid"``; larger favors
        the density near data, smaller favors generation from noise.
    sampler : {"mala", "langevin", "sghmc", "hmc"} or Sampler, default="mala"
        Chains in training.
    n_steps : int, default=5
        Steps per chain and update.
    step_size : float, "auto", "adaptive" or EnergyStep, default="auto"
        Step eps that multiplies the gradient of E, standardized units squared (for HMC and SGHMC a
        time, standardized units). ``"auto"`` keeps a sampler instance's own, adapts that of MALA
        and HMC to their `target_accept` and is 0.01 for the others; ``"adaptive"`` is the paper's
        0.0005 / mean|E(x)| at most 0.05, an `EnergyStep`.
    temperature : float, default=1.0
        T (dimensionless); the density is exp(-E/T).
    refine : bool, default=True
        After the chains, take up to `max_iter` updates of importance likelihood with the base as
        proposal; needs a base and is skipped without one.
    max_iter : int, default=400
        Energy updates of each phase.

    Attributes
    ----------
    history_ : list of dict
        One row per 25 updates, those of `refine` after those of the chains: losses and
        brackets (nats), acceptance, step size and force (mean norm of the gradient of U = E/T - log
        p0 where chains end), share of chains that flew apart and were left out (``lost_chains``),
        held-out log likelihood (nats per row, standardized space), its gain
        over the base and standard error.
    n_iter_ : int
        Updates made by contrastive divergence.
    sampler_ : Sampler
        The training sampler with its last step size, stated for the potential U.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. One update takes
    `n_steps` gradients of two batches; scoring n rows takes one forward pass of base and energy.
    Validation rows are not used for training, so that thresholds and the comparison with the base
    are honest. Deviations from the paper: a base density; MALA instead of unadjusted chains; noise
    chains start at base draws (at N(0, I) where ``base=None``), one for four rows; Adam with
    decoupled weight decay; `refine`. `from_paper` has the paper's settings. Without a base the
    model is judged, normalized and sampled through a mixture fitted near it (`Defensive`).

    References
    ----------
    .. [1] A. Abdulsalam and J. G. Makin, "Revisiting Contrastive Divergence for Density Estimation
       and Sample Generation". Eq. 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import HybridCDDensity
    >>> X = np.random.RandomState(0).randn(200, 2)
    >>> est = HybridCDDensity(max_iter=25, random_state=0).fit(X)
    >>> est.score_samples(X[:3]).shape
    (3,)
    >>> est.predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    moved = {
        "bank_size": "init=ChainStart('persistent', bank=SampleBank(size=...))",
        "noise_share": "init=ChainStart(noise_share=...)",
        "noise_std": "sampler=Langevin(noise_std=...)",
        "refresh": "init=ChainStart('persistent', bank=SampleBank(refresh=...))",
        "refresh_rate": "init=ChainStart('persistent', bank=SampleBank(refresh_rate=...))",
        "start_noise": "init=ChainStart(noise=...)",
        "start_scale": "init=ChainStart(noise_scale=...)",
    }

    def __init__(
        self,
        *,
        init="hybrid",
        cd_weight=25.0,
        sampler="mala",
        n_steps=5,
        step_size="auto",
        temperature=1.0,
        energy="mlp",
        base="mixture",
        standardize="auto",
        data_noise="auto",
        refine=True,
        max_iter=400,
        batch_size=256,
        learning_rate=8e-3,
        optimizer="adam",
        validation_fraction=0.1,
        n_iter_no_change=6,
        tol=0.0,
        log_partition="auto",
        contamination="auto",
        image_shape=None,
        device="auto",
        checkpoint_dir=None,
        warm_start=False,
        verbose=0,
        random_state=None,
    ):
        self.init = init
        self.cd_weight = cd_weight
        self.sampler = sampler
        self.n_steps = n_steps
        self.step_size = step_size
        self.temperature = temperature
        self.energy = energy
        self.base = base
        self.standardize = standardize
        self.data_noise = data_noise
        self.refine = refine
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.log_partition = log_partition
        self.contamination = contamination
        self.image_shape = image_shape
        self.device = device
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def from_paper(cls, name: str, **changes: Any) -> Self:
        """Return an estimator with the paper's settings.

        Parameters
        ----------
        name : {"rings"}
            Three rings in ten dimensions, section 3; ``init="data"`` and the like make its other
            schemes (with ``step_size=0.05`` those of persistent chains).
        **changes : dict
            Parameters that replace the paper's.

        Returns
        -------
        HybridCDDensity
            Unfitted: unadjusted chains at temperature 0.005, of the adaptive step, no base. The
            paper has a convolutional network of four layers, here it is a perceptron; it states
            neither rate, batch, the weight of the data term nor, for the rings, the number of
            steps.

        Raises
        ------
        ValueError
            If there are no such settings.

        Examples
        --------
        >>> from skebm import HybridCDDensity
        >>> HybridCDDensity.from_paper("rings").temperature
        0.005
        """
        return cls(**paper_settings(HCD, name, changes))

    @property
    def bank_(self) -> np.ndarray:
        """Rows of the bank of the persistent inits, ndarray (bank_size, n_features), units of X."""
        density = self._fitted()
        if density.draws.bank is None:
            raise AttributeError(
                f"bank_ needs init='persistent' or 'persistent-refresh', got {self.init!r}."
            )
        return density.transform.inverse(density.draws.bank)

    @property
    def sampler_(self) -> Any:
        """The training sampler with its last step size, stated for the potential U."""
        return self._fitted().draws.sampler

    def _learn(self, table: Table, transform: Transform, run: Run) -> Learned:
        check_choice("refine", self.refine, (True, False))
        check_number("n_steps", self.n_steps, low=1, integer=True)
        start = resolved(self, "init")
        noise = places("noise", start.noise, transform, run.device)
        if isinstance(noise, torch.Tensor):
            noise = noise.cpu().numpy()  # which a file can hold
        start = start.with_params(noise=noise)
        chains = self._chains(start, run)
        phases: list[Objective] = [chains]
        if self.refine and self.base is not None:
            phases.append(ImportanceLikelihood(optimization=run.optimization))
        learned = run.train(run.model(table), phases, table)
        model, state = learned.model, learned.states[0].objective
        draws = ByChains(
            chains.current_sampler(model, state),
            self.n_steps,
            start,
            state.buffers.get("bank"),
            run.is_near(model),
        )
        return learned._replace(draws=draws)

    def _chains(self, start: ChainStart, run: Run) -> ContrastiveDivergence:
        sampler, energy_step, automatic = self._chosen_sampler()
        return ContrastiveDivergence(
            start, self.cd_weight, sampler, self.n_steps, automatic, energy_step, run.optimization
        )

    def _chosen_sampler(self) -> tuple[Sampler, EnergyStep | None, bool]:
        """Return the sampler, what sets its step from energies, and whether acceptance does."""
        sampler, step = resolved(self, "sampler"), self.step_size
        if isinstance(step, EnergyStep):
            return sampler, step, False
        if isinstance(step, str) and step == "adaptive":
            return sampler, EnergyStep(), False
        if isinstance(step, str) and step == "auto":
            if isinstance(sampler, MALA) and isinstance(self.sampler, str):
                sampler = MALA(START_STEP)
            return sampler, None, True
        remedy = "Or use 'auto' or 'adaptive'."
        check_number("step_size", step, low=0, open_low=True, remedy=remedy)
        return sampler.with_params(step_size=float(step)), None, False
