"""HCD Figures 2, 5, 6, 8 and 9 on the rings: what five ways to start chains learn.

Three rings in ten dimensions, seven of them a hundredth thin. For each scheme the model's own
density (held-out log likelihood with the error of log Z, grid KL on the slice through the other
eight dimensions) and what its chains generate from noise (mean exact log density of the samples,
ring masses), in six settings:

- *safe*: one step of 0.002 for all, at the paper's temperature;
- *paper*: the paper's steps, 0.05 for chains from noise and from a bank, adaptive for the others;
- *blurred*: the same on rows with Gaussian noise of 0.03, that of the code HCD builds on;
- *preconditioned*: standardized columns, in which no direction is thin, at temperature 1, with a
  perceptron beside a learned diagonal quadratic; SGHMC of 100 steps, from noise alone;
- *adjusted*: the same with Hamiltonian Monte Carlo, 4 steps of 5 gradients, batches of 200, and
  three times the rate;
- *longer*: that with more updates and a small bank, the persistent scheme alone.

In the first three f of the energy f^2 / 2 is linear far out. Where it has both signs there, the
integral of exp(-E / T) is infinite and the likelihood minus infinity; where it has one, log Z is
reached by chains that are annealed from N(0, 100 I), and others from where those ended, since such
models have their mass far from the data. On the box [-4.5, 4.5]^10 the same energy always has a
likelihood, which ``--box`` finds alike; the ridges of noise-started and hybrid training are so thin
that chains of one step for all directions would need many minutes there.

The last three are settings of our own. The paper's step 0.05 at T = 0.005 cannot sample the true
density: in the thin dimensions its linear factor is 1 - 0.05 * 50 = -1.5, so chains on the exact
energy diverge, and no energy has chains as thin as the data (`thin_direction`). ``--mode full``
takes the paper's 10,000 updates, of the 500 steps that it states for images. Deviations: pointwise
perceptron with quadratic output (the paper: a four-layer ConvNet on the same ten numbers), Adam,
batches of 100, no noise on the data: the paper states none of these. Parameters are averaged over
the second half of the updates, and the hybrid has one chain from noise for four from data. A bank
has as many rows for each draw as the paper's 60,000 for 10,000 updates of 100. Models and results
are kept in the output folder, so that a run that was stopped goes on where it was; seconds are of
the processor. ``--settings`` names some of the settings; ``--only`` trains some schemes and draws
nothing, so that several processes can share the work; ``--read`` prints the tables of what is kept.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity
from skebm.data import ArrayTable, torch_generator
from skebm.datasets import RingsDensity
from skebm.diagnostics import force_correlation, run_chains
from skebm.energies import MLP, Energy, EnergyComponent, Model
from skebm.exceptions import CheckpointWarning, ConvergenceError, NormalizationWarning
from skebm.metrics import grid_kl, mode_masses
from skebm.objectives import ChainStart, ContrastiveDivergence, Optimization
from skebm.partition import AIS
from skebm.plots import ChainDisplay, EnergyHistogramDisplay
from skebm.samplers import HMC, MALA, SGHMC, Langevin, SampleBank
from skebm.train import Settings, train

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._paper import (
    LOSS_SPANS,
    Kept,
    loss_curves,
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)
from examples.papers.hcd._partition import (
    Annealing,
    both_signs_far_out,
    box,
    mean_log_density,
    wide,
)

SCHEMES = ("data", "noise", "persistent", "persistent-refresh", "hybrid")
ONLY = {"preconditioned": ("noise",), "longer": ("persistent",)}  # of the schemes
ONE_SEED = ("paper", "blurred")
OWN = ("preconditioned", "adjusted", "longer")  # settings of our own
SAFE, PAPER_STEP, TEMPERATURE, REFRESH = 0.002, 0.05, 0.005, 0.05
BLUR = 0.03  # sd of the noise on rows in the code that HCD builds on
BANK_SHARE = 0.06  # rows of the bank per draw: the paper's 60,000 for 10,000 updates of 100
SMALL_BANK = 4000  # rows, that keep up with a high rate
TITLES = {
    "safe": "common step 0.002",
    "paper": "steps of the paper",
    "blurred": f"steps of the paper, rows with noise of {BLUR}",
    "preconditioned": "standardized columns, SGHMC at T = 1",
    "adjusted": "standardized columns, adjusted chains at T = 1",
    "longer": "adjusted chains, more updates, a small bank",
}


class Size(NamedTuple):
    """What a mode takes; updates of the plain settings and of the last three, and their steps."""

    n_rows: int
    max_iter: tuple[int, int, int, int]
    n_steps: tuple[int, int, int, int]
    learning_rate: float  # of the plain settings
    n_long: int  # steps of long chains
    log_partition: AIS  # of our own settings
    annealing: Annealing  # of the plain ones


SHORT, USUAL, LONG = (AIS(n, max_levels=m) for n, m in ((64, 100), (1024, 1000), (4096, 8000)))
BRIEF = Annealing(20, 10, AIS(64, max_levels=20), AIS(64, max_levels=20))
PATIENT = Annealing(
    500,
    1000,
    AIS(256, n_steps=30, max_spread=0.002, min_ess=0.0, max_levels=1000),
    AIS(1024, n_steps=30, max_spread=0.002, min_ess=0.0, max_levels=1000),
)
SIZES = {
    "smoke": Size(500, (75,) * 4, (5, 5, 2, 2), 3e-4, 100, SHORT, BRIEF),
    "quick": Size(20_000, (800, 2500, 3000, 5000), (50, 100, 4, 4), 3e-4, 5000, USUAL, PATIENT),
    "full": Size(60_000, (10_000,) * 4, (500, 100, 4, 4), 1e-4, 50_000, LONG, PATIENT),
}
HALF = 4.5  # of the side of the box, in all columns
BOX = ([-HALF, -HALF], [HALF, HALF])
RADII = np.array([[1.0], [2.0], [3.0]])
VAGUE = 0.05  # nats: no verdict on a likelihood whose log Z is less certain
LIKELIHOOD = ["log likelihood", "stderr"]
BOXED = ["in the box", "stderr in the box", "seconds of log Z"]
REST = ["grid KL", "of samples", "ring 1", "ring 2", "ring 3", "off rings", "seconds"]


class PlusDiagonal(EnergyComponent):
    """An energy and a learned diagonal quadratic, 1/2 |x|^2 at the start.

    Parameters
    ----------
    energy : EnergyComponent
        What is learnt beside it.
    """

    def __init__(self, energy: EnergyComponent) -> None:
        self.energy = energy

    def build(self, shape: tuple[int, ...], rng: torch.Generator) -> torch.nn.Module:
        """Return a fresh module for rows of ``shape[0]`` columns."""
        return DiagonalBeside(self.energy.build(shape, rng), shape[0], rng.device)


class DiagonalBeside(Energy):
    """``E(x) + 1/2 sum_j exp(l_j) x_j^2``, the derivatives by the sum rule."""

    def __init__(self, energy: Energy, n_features: int, device: torch.device) -> None:
        super().__init__()
        self.energy = energy
        self.log_diagonal = torch.nn.Parameter(torch.zeros(n_features, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, d) to (n,)."""
        return self.energy(x) + 0.5 * x.square() @ self.log_diagonal.exp()

    @torch.no_grad()
    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the energy (n,) and its gradient (n, d)."""
        value, gradient = self.energy.value_and_gradient(x)
        pull = x * self.log_diagonal.exp()
        return value + 0.5 * (pull * x).sum(1), gradient + pull


def rings(setting: str) -> RingsDensity:
    """Return the density of the rows, in closed form with noise on them too."""
    if setting != "blurred":
        return RingsDensity()
    return RingsDensity(wide=float(np.hypot(0.1, BLUR)), narrow=float(np.hypot(0.01, BLUR)))


def thin_direction(
    sd: float, step: float = PAPER_STEP, temperature: float = TEMPERATURE
) -> tuple[float, float]:
    """Return the curvature k at which chains are as wide as the data, and their factor 1 - step k.

    On k x^2 / 2 a chain of Eq. 9 has the variance ``2 T / (k (2 - step k))``, at least
    ``2 step T`` (at k = 1 / step). A learnt k stands still where that is sd^2; below the bound it
    grows until chains diverge, at k = 2 / step, and the answer is nan.
    """
    inside = 1 - 2 * step * temperature / sd**2
    k = (1 - inside**0.5) / step if inside >= 0 else float("nan")
    return k, 1 - step * k


def thin_directions() -> None:
    """Print which directions the paper's step can learn."""
    least = (2 * PAPER_STEP * TEMPERATURE) ** 0.5
    print(f"\nStep {PAPER_STEP} at T = {TEMPERATURE}: chains are at least {least:.4f} wide")
    rows = []
    for name, sd in {
        "thin": 0.01,
        "thin, noise of 0.03": np.hypot(0.01, BLUR),
        "wide": 0.1,
    }.items():
        k, factor = thin_direction(sd)
        learnt = ["none", "-"] if np.isnan(k) else [f"{k:.2f}", f"{factor:.2f}"]
        exact = TEMPERATURE / sd**2
        rows.append([name, f"{sd:.4f}", f"{exact:.2f}", f"{1 - PAPER_STEP * exact:.2f}", *learnt])
    columns = ["direction", "sd of data", "exact curvature", "factor there"]
    print_table([*columns, "fixed point of training", "factor there"], rows)


def estimator(scheme: str, setting: str, seed: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return a scheme in one of the settings."""
    size = SIZES[args.mode]
    if setting in OWN:
        own = _preconditioned(setting, size)
    else:
        own = _plain(scheme, setting, size)
    start = ChainStart(scheme.removesuffix("-refresh"))
    if start.scheme == "persistent":
        n_draws = own["max_iter"] * own["batch_size"]
        rows = max(own["batch_size"], round(BANK_SHARE * n_draws))
        rows = SMALL_BANK if setting == "longer" else rows
        fresh = REFRESH if scheme.endswith("-refresh") else 0.0
        start = start.with_params(bank=SampleBank(rows, fresh))
    return HybridCDDensity(
        init=start,
        base=None,
        refine=False,
        data_noise=0.0,
        validation_fraction=0,
        log_partition=size.log_partition if setting in OWN else None,
        checkpoint_dir=args.output / "hcd_rings_models",
        random_state=seed,
        **own,
    )


def _plain(scheme: str, setting: str, size: Size) -> dict[str, Any]:
    step: float | str = SAFE if setting == "safe" else PAPER_STEP
    adaptive = setting != "safe" and scheme in ("data", "hybrid")
    return {
        "sampler": "langevin",
        "step_size": "adaptive" if adaptive else step,
        "temperature": TEMPERATURE,
        "n_steps": size.n_steps[0],
        "energy": MLP.pointwise(output="quadratic"),
        "standardize": False,
        "max_iter": size.max_iter[0],
        "batch_size": 100,
        "optimizer": Optimization(size.learning_rate, betas=(0.9, 0.999), weight_decay=0.0),
    }


def _preconditioned(setting: str, size: Size) -> dict[str, Any]:
    which, adjusted = 1 + OWN.index(setting), setting != "preconditioned"
    return {
        "sampler": HMC() if adjusted else SGHMC(),
        "step_size": 0.05,  # not adapted: it would shrink with the steepest place of E
        "n_steps": size.n_steps[which],
        "energy": PlusDiagonal(MLP((64, 64, 64), n_frequencies=0, input_scale=5.0)),
        "standardize": True,
        "max_iter": size.max_iter[which],
        "batch_size": 200 if adjusted else 100,
        "optimizer": Optimization(1e-2 if adjusted else 3e-3, weight_decay=0.0),
    }


def slice_of(est: Any):
    """Return the log density on the X-Y plane, the other coordinates at 0."""
    return lambda xy: est.score_samples(np.column_stack([xy, np.zeros((len(xy), 8))]))


def columns_of(setting: str) -> list[str]:
    """Return what is kept of a fit."""
    found = LIKELIHOOD if setting in OWN else LIKELIHOOD + BOXED
    return ["setting", "scheme", "seed", *found, *REST]


def measure(est: HybridCDDensity, setting: str, seed: int, args: argparse.Namespace) -> list[float]:
    """Return likelihood, its error, KL on the slice, quality and ring masses of samples."""
    density = rings(setting)
    new = density.sample(5000, random_state=1000 + seed)
    if setting in OWN:
        found = [est.score(new), est.log_partition_.stderr]
    else:
        found = plain_likelihoods(est, new, args)
    # the slice has the shape of the marginal, which is normalized
    kl = grid_kl(density.log_marginal, slice_of(est), BOX, n_grid=60 if args.smoke else 200)
    n = 100 if args.smoke else 1000
    chains = run_chains(est, "noise", n_chains=n, n_steps=est.n_steps, random_state=seed)
    samples = chains.positions[-1]
    samples = samples[np.isfinite(samples).all(1)]
    if not len(samples):
        return [*found, kl.kl, *[float("nan")] * 5]
    lengths = np.linalg.norm(samples[:, :2], axis=1)
    masses = mode_masses(lengths[:, None], RADII, radius=0.3)
    exact = float(density.log_density(samples).mean())
    return [*found, kl.kl, exact, *masses.masses, masses.unassigned]


def plain_likelihoods(
    est: HybridCDDensity, new: np.ndarray, args: argparse.Namespace
) -> list[float]:
    """Return the log likelihood of new rows and its error, both again in the box, and seconds.

    Minus infinity, without an error, where log Z is infinite; nan in the box without ``--box``.
    """
    start, annealing = time.process_time(), SIZES[args.mode].annealing
    rng, x = torch_generator(est.random_state), torch.from_numpy(new).float()
    d = x.shape[1]
    model = Model(copy.deepcopy(est.energy_).cpu(), None, est.temperature_)
    least, most = both_signs_far_out(model.energy.network, d, annealing, rng)
    found = [-np.inf, 0.0]
    if least * most > 0:
        value, log_z = mean_log_density(model, wide(d), x, annealing, rng)
        found = [value, log_z.stderr]
    boxed = [np.nan, np.nan]
    if args.box:
        inside = box(d, HALF)
        value, log_z = mean_log_density(model._replace(base=inside), inside, x, annealing, rng)
        boxed = [value, log_z.stderr]
    name = f"{est.init.scheme} seed {est.random_state}"
    print(f"{name}: f(x) / |x| far out from {least:.4f} to {most:.4f}", flush=True)
    return [*found, *boxed, time.process_time() - start]


def fitted(
    setting: str, scheme: str, seed: int, args: argparse.Namespace
) -> HybridCDDensity | None:
    """Return a model, trained now or read, or None where training diverged."""
    X = rings(setting).sample(SIZES[args.mode].n_rows, random_state=seed)
    try:
        return estimator(scheme, setting, seed, args).fit(X)
    except ConvergenceError as error:
        print(f"{setting} {scheme} seed {seed}: {error}", flush=True)
        return None


def one(setting: str, scheme: str, seed: int, args: argparse.Namespace) -> list[float]:
    start = time.process_time()
    est = fitted(setting, scheme, seed, args)
    seconds = time.process_time() - start
    if est is None:
        return [float("nan")] * (len(columns_of(setting)) - 3)
    if seed == 0:
        FITTED[setting, scheme] = est
    return [*measure(est, setting, seed, args), seconds]


FITTED: dict[tuple[str, str], HybridCDDensity] = {}  # for the figures


def first(
    setting: str, results: dict[str, list[list[str]]], args: argparse.Namespace
) -> dict[str, HybridCDDensity]:
    """Return the models of seed 0 that did not diverge, of this run or read."""
    names = [scheme for scheme, rows in results.items() if rows[0][3] != "nan"]
    models = {
        scheme: FITTED.get((setting, scheme)) or fitted(setting, scheme, 0, args)
        for scheme in names
    }
    return {scheme: est for scheme, est in models.items() if est is not None}


def table(setting: str, results: dict[str, list[list[str]]]) -> None:
    """Print Figure 2 in numbers."""
    density, plain = rings(setting), setting not in OWN
    rows = []
    for scheme, found in results.items():
        values = np.array([row[3:] for row in found], dtype=float)
        values = values[~np.isnan(values[:, 0])]
        if not len(values):
            rows.append([scheme, "diverged", *["-"] * (9 if plain else 7)])
            continue
        likelihood, stderr, *boxed, kl, exact, one, two, three, off, seconds = values.T
        cells = [with_seeds(likelihood, 2), f"{stderr.max():.3f}"]
        if plain:
            tried = not np.isnan(boxed[0]).all()
            cells += [with_seeds(boxed[0], 2), f"{boxed[1].max():.3f}"] if tried else ["-", "-"]
        sure = ~(np.column_stack([stderr, *boxed[1:2]]) > VAGUE).any(1)
        cells += [f"{sure.sum()} of {len(sure)}", with_seeds(kl, 3), with_seeds(exact, 1)]
        lost = len(found) - len(values)
        name = f"{scheme} ({lost} of {len(found)} diverged)" if lost else scheme
        masses = " ".join(f"{r.mean():.2f}" for r in (one, two, three))
        rows.append([name, *cells, masses, f"{off.mean():.2f}", f"{seconds.mean():.0f}"])
    new = density.sample(5000, random_state=1000)
    truth = f"{density.log_density(new).mean():.2f}"
    more = ["-", "-"] if plain else []
    alone, *rest = gaussian(density, new)
    rows.append(["one Gaussian", alone, *more, *rest])
    rows.append(["truth", truth, *more, "-", "-", "0.000", truth, "0.33 0.33 0.33", "0.00", "-"])
    print(f"\nHCD Figure 2, {TITLES[setting]}")
    columns = ["scheme", "held-out log likelihood", "stderr of log Z"]
    columns += [f"in [-{HALF}, {HALF}]^10", "stderr"] if plain else []
    columns += ["below 0.05", "KL on slice", "exact log density of samples", "rings", "off"]
    print_table([*columns, "CPU s"], rows)


def with_seeds(values: np.ndarray, digits: int) -> str:
    """Write mean and standard deviation over seeds, and the values themselves."""
    alone = ", ".join(f"{v:.{digits}f}" for v in values)
    if len(values) == 1 or not np.isfinite(values).all():
        return alone
    return f"{mean_std(values, digits)} ({alone})"


def gaussian(density: RingsDensity, new: np.ndarray) -> list[str]:
    """Return the cells of a Gaussian with the columns' means and widths."""
    model = GaussianMixture(1, covariance_type="diag", random_state=0).fit(
        density.sample(20_000, random_state=0)
    )
    kl = grid_kl(density.log_marginal, slice_of(model), BOX, n_grid=200).kl
    exact = density.log_density(model.sample(1000)[0]).mean()
    return [f"{model.score(new):.2f}", "-", "-", f"{kl:.3f}", f"{exact:.1f}", "-", "-", "-"]


def figure_2(setting: str, models: dict[str, HybridCDDensity], args: argparse.Namespace) -> None:
    """Draw samples from noise above, the model's density on the slice below."""
    import matplotlib.pyplot as plt

    axis = np.linspace(-4, 4, 160)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    figure, axes = plt.subplots(2, len(models) + 1, figsize=(2.5 * len(models) + 2.5, 5))
    density = rings(setting)
    panels: dict[str, Any] = {"truth": (density.sample(2000, random_state=0), density.log_marginal)}
    for scheme, est in models.items():
        chains = run_chains(est, "noise", n_chains=2000, n_steps=est.n_steps, random_state=0)
        panels[scheme] = (chains.positions[-1], slice_of(est))
    for (above, below), (name, (samples, log_density)) in zip(axes.T, panels.items(), strict=True):
        above.plot(*samples[:, :2].T, ",", alpha=0.6)
        above.set(title=name, xlim=(-4, 4), ylim=(-4, 4))
        values = log_density(grid)
        below.imshow(np.exp(values - values.max()).reshape(160, 160), origin="lower")
        for ax in (above, below):
            ax.set_xticks([]), ax.set_yticks([])
    axes[0, 0].set_ylabel("samples"), axes[1, 0].set_ylabel("density on the slice")
    save_figure(figure, args, f"hcd_figure_2_{setting}.png")


def figures_5_and_9(
    setting: str, models: dict[str, HybridCDDensity], args: argparse.Namespace
) -> None:
    """Compare energies of held-out rows with those of short and of long chains."""
    import matplotlib.pyplot as plt

    n_long = SIZES[args.mode].n_long // (5 if setting == "adjusted" else 1)  # gradients alike
    held_out = rings(setting).sample(1000, random_state=5)
    figure, axes = plt.subplots(2, len(models), figsize=(3.4 * len(models), 6.4), squeeze=False)
    rows = []
    for (histogram, trace), (scheme, est) in zip(axes.T, models.items(), strict=True):
        every = max(1, n_long // 200)
        n = 20 if args.smoke else 300
        chains = run_chains(
            est, "noise", n_chains=n, n_steps=n_long, record_every=every, random_state=0
        )
        data = est.energy_samples(held_out)
        short = int(np.searchsorted(chains.steps, est.n_steps))
        ends = chains.model_energy[-1][np.isfinite(chains.model_energy[-1])]
        display = EnergyHistogramDisplay.from_predictions(data, ends)
        display.plot(ax=histogram)
        histogram.set_title(scheme)
        histogram.locator_params(axis="x", nbins=3)  # energies of -100,000 would overlap
        ChainDisplay.from_chains(chains, kind="model_energy").plot(ax=trace)
        exact = rings(setting).log_density
        quality = [exact(chains.positions[i]).mean() for i in (short, -1)]
        at = [float(np.nanmean(chains.model_energy[i])) for i in (short, -1)]
        rows.append([scheme, float(data.mean()), *at, display.overlap_, *map(float, quality)])
    n_short = next(iter(models.values())).n_steps
    print(f"\nHCD Figures 5 and 9, {TITLES[setting]}: {n_short} and {n_long} steps from noise")
    columns = ["scheme", "E held-out", "E short", "E long", "overlap (long)"]
    print_table([*columns, "exact log density, short", "long"], rows)
    save_figure(figure, args, f"hcd_figures_5_9_{setting}.png")


def figure_6(setting: str, models: dict[str, HybridCDDensity], args: argparse.Namespace) -> None:
    """Follow noise and signal of the computational loss over training."""
    figure, rows = loss_curves({scheme: est.history_ for scheme, est in models.items()})
    print(f"\nHCD Figure 6, {TITLES[setting]}: the loss in three thirds of the training")
    print("(paper: persistent has the largest sd and least SNR, data the smallest sd)")
    print_table(["scheme", "bracket", *LOSS_SPANS], rows)
    save_figure(figure, args, f"hcd_figure_6_{setting}.png")


def history_of(est: HybridCDDensity, args: argparse.Namespace) -> list[dict[str, float]]:
    """Train once more by the same settings; return a row for each update, not for 25."""
    rng = torch_generator(est.random_state)
    X = rings("safe").sample(SIZES[args.mode].n_rows, random_state=0)
    x = torch.from_numpy(X).float()
    objective = ContrastiveDivergence(
        est.init,
        sampler=Langevin(SAFE),
        n_steps=est.n_steps,
        adapt_step=False,
        optimization=est.optimizer,
    )
    return train(
        Model(est.energy.build((x.shape[1],), rng), None, TEMPERATURE),
        objective,
        ArrayTable(x),
        settings=Settings(est.max_iter, est.batch_size, eval_every=1),
        rng=rng,
    ).history


def appendix_3(models: dict[str, HybridCDDensity], args: argparse.Namespace) -> None:
    """Relate the computational loss to the force, update by update, at the common step."""
    rows = []
    for scheme, est in models.items():
        history = history_of(est, args)
        late = history[len(history) // 2 :]
        for name in ("cd", "noise", "bank"):
            if f"{name}_bracket" in late[-1]:
                lag = force_correlation(late, max_lag=3, key=f"{name}_bracket")
                rows.append([scheme, name, " ".join(f"{c:+.2f}" for c in lag.correlation)])
    print("\nHCD A.3 (paper: positive at lag 0, negative at 2 and 3)")
    print_table(["scheme", "bracket", "correlation with force, lags 0-3"], rows)


def figure_8(setting: str, est: HybridCDDensity, args: argparse.Namespace) -> None:
    """Run Metropolis-adjusted chains: step adapted to acceptance 0.67 while warming up, frozen."""
    import matplotlib.pyplot as plt

    n_steps = SIZES[args.mode].n_long
    step = est.sampler_.step_size if setting == "safe" else 0.01
    chains = run_chains(
        est,
        "noise",
        sampler=MALA(step, n_warmup=n_steps // 5),
        n_chains=20 if args.smoke else 300,
        n_steps=n_steps,
        record_every=max(1, n_steps // 100),
        random_state=0,
    )
    frozen = chains.acceptance[len(chains.acceptance) // 4 :]
    exact = rings(setting).log_density(chains.positions[-1]).mean()
    print(
        f"\nHCD Figure 8, {TITLES[setting]}, hybrid: {n_steps} adjusted steps, acceptance after "
        f"warm-up {frozen.mean():.3f} (target 0.67), step {chains.step_size[-1]:.2e} of U, "
        f"exact log density {exact:.1f}"
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    ChainDisplay.from_chains(chains, kind="acceptance").plot(ax=axes[0])
    axes[0].axhline(0.67, color="k", linewidth=0.6)
    axes[1].plot(*chains.positions[-1][:, :2].T, ".", markersize=3)
    axes[1].set(title=f"after {n_steps} adjusted steps", aspect="equal")
    save_figure(figure, args, f"hcd_figure_8_{setting}.png")


def schemes_of(setting: str, smoke: bool = False) -> tuple[str, ...]:
    """Return the schemes that are trained in a setting."""
    return ONLY.get(setting, ("data", "hybrid") if smoke else SCHEMES)


def chosen_schemes(setting: str, args: argparse.Namespace) -> list[str]:
    """Return those of a setting's schemes that this call is about."""
    schemes = schemes_of(setting, args.smoke)
    return [c for c in schemes if not args.only or f"{setting}/{c}" in args.only]


def of_seeds(setting: str, scheme: str, args: argparse.Namespace) -> list[list[str]]:
    """Return a row for each seed, trained now or from the scheme's file."""
    path = args.output / f"hcd_rings_{args.mode}_{setting}_{scheme}.csv"
    kept = Kept(path, columns_of(setting), key=3)
    if args.read:
        return kept.rows
    seeds = range(1 if setting in ONE_SEED else args.seeds)
    return [
        kept.get([setting, scheme, s], lambda s=s: one(setting, scheme, s, args)) for s in seeds
    ]


def fits(args: argparse.Namespace) -> dict[str, tuple[Callable[[], Any], np.ndarray, int]]:
    """Return what `print_hours` times."""
    named = {}
    for setting in args.settings:
        X = rings(setting).sample(SIZES[args.mode].n_rows, random_state=0)
        for scheme in chosen_schemes(setting, args):
            est = estimator(scheme, setting, 0, args).set_params(log_partition=None)
            times = 1 if setting in ONE_SEED else args.seeds
            named[f"{setting}/{scheme}"] = (partial(clone, est), X, times)
    return named


def main() -> None:
    names = [f"{setting}/{scheme}" for setting in TITLES for scheme in schemes_of(setting)]
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 3, "full": 3},
        settings={"nargs": "+", "choices": list(TITLES), "default": list(TITLES), "help": "which"},
        box={"action": "store_true", "help": "likelihoods in the box too; a minute each or more"},
        only={"nargs": "+", "choices": names, "help": "settings and schemes; draws nothing"},
        read={"action": "store_true", "help": "print the tables of what is kept, no more"},
    )
    warnings.simplefilter("ignore", NormalizationWarning)  # errors of log Z are in the table
    warnings.simplefilter("ignore", CheckpointWarning)  # models are read again on purpose
    print_title("HCD: rings in ten dimensions", args)
    if args.hours:
        return print_hours(fits(args), args)
    thin_directions()
    for setting in args.settings:
        results = {
            scheme: of_seeds(setting, scheme, args) for scheme in chosen_schemes(setting, args)
        }
        results = {scheme: rows for scheme, rows in results.items() if rows}
        if args.only or not results:
            continue
        table(setting, results)
        if args.read:
            continue
        models = first(setting, results, args)
        if models:
            figure_2(setting, models, args)
        if setting in ("safe", "adjusted") and "hybrid" in models:
            figures_5_and_9(setting, models, args)
            figure_6(setting, models, args)
            figure_8(setting, models["hybrid"], args)
        if setting == "safe":
            appendix_3(models, args)


if __name__ == "__main__":
    main()
