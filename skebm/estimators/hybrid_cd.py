"""HybridCDDensity: contrastive divergence from data and from noise, over a base density."""

from __future__ import annotations

__all__ = ["HybridCDDensity"]

from skebm._components import check_choice, check_number, resolve
from skebm.estimators._base import EnergyDensity
from skebm.estimators._parameters import ALIASES
from skebm.objectives import (
    ContrastiveDivergence,
    ImportanceLikelihood,
    Objective,
    Optimization,
)
from skebm.objectives.contrastive_divergence import STARTS
from skebm.samplers import MALA

START_STEP = 0.05  # of the adapted step, standardized units squared


class HybridCDDensity(EnergyDensity):
    r"""Energy-based density :math:`p(x) = e^{-E(x)/T} p_0(x) / Z` by hybrid contrastive divergence.

    Short Markov chains start at the data and at noise; training lowers the energy of the data and
    raises it where the chains end. The base :math:`p_0` is fitted first, so that training starts as
    good as a classical model, and the energy is kept only where it improves on the base.

    Parameters
    ----------
    init : {"hybrid", "data", "noise"}, default="hybrid"
        Where training chains start: at the data (contrastive divergence), at noise, or both.
    cd_weight : float, default=25.0
        lambda (dimensionless): weight of the data-started bracket in ``"hybrid"``; larger favors
        the density near data, smaller favors generation from noise.
    sampler : {"mala", "langevin"} or Sampler, default="mala"
        Chains in training.
    n_steps : int, default=10
        Steps per chain and update.
    step_size : float or "auto", default="auto"
        Step eps that multiplies the gradient of E, standardized units squared; ``"auto"`` keeps a
        sampler instance's own, adapts MALA's to its `target_accept` and is 0.01 for Langevin.
    temperature : float, default=1.0
        T (dimensionless); the density is exp(-E/T).
    energy : {"mlp"}, energy component or callable, default="mlp"
        The energy; a callable gets the number of columns (or the image shape) and returns a new
        ``torch.nn.Module`` that maps (n, n_features) to (n,) nats, without batch normalization.
        ``energy__hidden_sizes`` works in ``set_params``.
    base : {"mixture", "gaussian", "kernel", "uniform"}, base component or None, default="mixture"
        The normalized reference density; None means p0 = 1, which needs an energy that grows (such
        as ``MLP(output="quadratic")``).
    standardize : bool, default=True
        Shift and scale each column; undone in everything returned.
    data_noise : float or "auto", default="auto"
        Standard deviation of Gaussian noise on training rows, standardized units; ``"auto"`` adds
        none unless columns are constant, repeat values or depend on others, and then says so.
    refine : bool, default=True
        After the chains, take up to `max_iter` updates of importance likelihood with the base as
        proposal; needs a base and is skipped without one.
    max_iter : int, default=600
        Energy updates of each phase.
    batch_size : int, default=256
        Rows per update, drawn with replacement.
    learning_rate : float, default=0.002
        Adam's step (dimensionless), with half a cosine of decay to 0.
    weight_decay : float, default=0.01
        Decoupled decay of the energy's weights; larger stays nearer to the base.
    validation_fraction : float, default=0.1
        Share of the rows held out to judge progress. Below 20 rows none are, and the model is its
        base; with 0 the energy is trained unjudged and its parameters are averaged.
    n_iter_no_change : int or None, default=12
        Validations (25 updates each) without a gain of `tol` after which training stops.
    tol : float, default=0.0
        Smallest gain in held-out log likelihood that counts, nats per row.
    log_partition : {"auto", "quadrature", "importance", "ais"}, instance or None, default="auto"
        How log Z is estimated; None leaves ``score_samples`` unnormalized.
    contamination : float or "auto", default="auto"
        ``"auto"``: ``offset_`` is the 5 % quantile of held-out scores (with fewer than 40 of them
        the lower of theirs and all rows'), moved up if needed so that at least one row of X is
        flagged (none where all score alike). A float in (0, 0.5]: that fraction of the training
        rows is flagged.
    image_shape : tuple of int, optional
        (channels, height, width) of flattened rows; one global affine map to [-1, 1] then replaces
        the scaling of columns, and ``log_partition="auto"`` means None.
    device : str or torch.device, default="auto"
        ``"auto"`` takes CUDA where it is there, else the CPU.
    checkpoint_dir : str or Path, optional
        Folder for the training state; an interrupted fit of the same parameters and rows goes on.
    warm_start : bool, default=False
        Continue from the last fit, with its scaling and base, for `max_iter` more updates.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seed. The same seed, machine and thread count give the same bits.

    Attributes
    ----------
    energy_ : torch.nn.Module
        E on standardized space, nats. `Zero` where training did not improve on the base.
    base_ : Base or None
        The fitted base density on standardized space.
    log_partition_ : LogPartition or None
        log Z in nats, in standardized space, with standard error, effective sample size and method.
    offset_ : float
        Threshold on ``score_samples``, nats.
    history_ : list of dict
        One row per 25 updates, those of `refine` after those of the chains: losses and brackets
        (nats), acceptance, step size, held-out log likelihood (nats per row, standardized space),
        its gain over the base and standard error.
    n_iter_ : int
        Updates made by contrastive divergence.
    validation_gain_ : tuple of float or None
        Held-out gain over the base and its standard error, nats per row.
    data_noise_ : ndarray of shape (n_features,)
        Noise per column, standardized units.
    temperature_ : float
        T.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Column names, where X had them.

    Raises
    ------
    ValueError, TypeError
        From ``fit``, on a bad table or parameter.
    ConvergenceError
        From ``fit``, if training diverges in spite of three smaller learning rates.

    Notes
    -----
    ``score`` is the mean log density per row (nats), as for GaussianMixture. One update takes
    `n_steps` gradients of two batches; scoring n rows takes one forward pass of base and energy.
    Validation rows are not used for training, so that thresholds and the comparison with the base
    are honest. Deviations from the paper: a base density; MALA instead of unadjusted chains; noise
    chains start at base draws (at N(0, I) where ``base=None``), one for four rows; Adam with
    decoupled weight decay; `refine`. The paper's setting is ``base=None, refine=False,
    sampler=Langevin(step_size)`` with a `temperature`.

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

    def __init__(
        self,
        *,
        init="hybrid",
        cd_weight=25.0,
        sampler="mala",
        n_steps=10,
        step_size="auto",
        temperature=1.0,
        energy="mlp",
        base="mixture",
        standardize=True,
        data_noise="auto",
        refine=True,
        max_iter=600,
        batch_size=256,
        learning_rate=2e-3,
        weight_decay=0.01,
        validation_fraction=0.1,
        n_iter_no_change=12,
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
        self.weight_decay = weight_decay
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

    def _objectives(self, optimization: Optimization) -> list[Objective]:
        phases: list[Objective] = [self._chains(optimization)]
        if self.refine and self.base is not None:
            phases.append(ImportanceLikelihood(optimization=optimization))
        return phases

    def _chains(self, optimization: Optimization) -> Objective:
        check_choice("init", self.init, STARTS)
        check_number("cd_weight", self.cd_weight, low=0)
        check_number("n_steps", self.n_steps, low=1, integer=True)
        check_choice("refine", self.refine, (True, False))
        check_number("temperature", self.temperature, low=0, open_low=True)
        automatic = isinstance(self.step_size, str) and self.step_size == "auto"
        if not automatic:
            remedy = "Or use 'auto'."
            check_number("step_size", self.step_size, low=0, open_low=True, remedy=remedy)
        sampler = resolve(self.sampler, *ALIASES["sampler"], "sampler")
        if not automatic:
            params = {**sampler.get_params(deep=False), "step_size": float(self.step_size)}
            sampler = type(sampler)(**params)
        elif isinstance(sampler, MALA) and isinstance(self.sampler, str):
            sampler = MALA(START_STEP)
        return ContrastiveDivergence(
            start=self.init,
            cd_weight=self.cd_weight,
            sampler=sampler,
            n_steps=self.n_steps,
            adapt_step=automatic,
            optimization=optimization,
        )
