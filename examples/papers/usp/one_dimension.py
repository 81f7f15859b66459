"""USP Figures 1, 2 and 3: what short-run Langevin learns of two modes, and what a sum learns.

Two Gaussians of standard deviation 0.05 at -0.5 and 0.5. Four ways to fit the same reconstruction
energy: short-run Langevin (SRLMC) from noise and from a replay buffer, importance sampling from the
uniform density (section 4.1), and points that partition the support (PS-USP, section 5.1, which the
paper does not show here). Gaps to the entropy bound, masses and widths of the modes, what lies out
of the distribution, and Propositions 1 to 3 in numbers. ``--mode full`` takes the paper's network
(4 x 512), 5,000 updates of gradient descent at 0.01 and batches of 1,000.

``--mode quick`` has a network of 4 x 64, Adam, 500 rows a batch, 800 updates of the chains and
1,000 of the others, and a buffer of 4,000, so that each entry is drawn 100 times, as in the paper;
two seeds of the chains, three of the others, one for each further rho.

Short-run densities are unnormalized in the paper; here all are normalized on a grid over (-1, 1),
and the gap is the expected held-out negative log likelihood less the entropy. Proposition 3 asks
for chains that converge. Forty steps from noise do not: for a Gaussian mode the exact stationary
exponent of these very chains is printed beside the limit 1/rho. The paper does not say which of
alpha and beta moves with rho; here alpha stays. PS-USP starts at uniform points; a further row
starts at the data, as the estimator does by default.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import chi2, ks_2samp, ncx2

from skebm import HybridCDDensity, USPDensity
from skebm.datasets import two_modes_1d
from skebm.diagnostics import run_chains
from skebm.energies import Reconstruction
from skebm.metrics import ood_metrics
from skebm.objectives import ChainStart, Optimization
from skebm.samplers import Langevin, SampleBank, SupportPartition, run

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._paper import Kept, mode, print_hours, print_table, print_title, save_figure

TRUTH = two_modes_1d()
SD = 0.05
ALPHA, RHO, STEPS, REFRESH = 1e-3, 10.0, 40, 0.05
RHOS = (1.0, 10.0, 100.0)
GRID = np.linspace(-1, 1, 8001)
FROM_MODE = np.minimum(np.abs(GRID - 0.5), np.abs(GRID + 0.5)) / SD  # in standard deviations
SUPPORT, OOD = FROM_MODE <= 2.5, FROM_MODE > 4
UPDATES = {"smoke": 20, "quick": 800, "full": 5000}  # of short-run Langevin
SUMS = {"smoke": 40, "quick": 1000, "full": 5000}  # of the others
SWEEP = {"smoke": 10, "quick": 500, "full": 5000}  # for each further rho of Figure 2
BATCH = {"smoke": 100, "quick": 500, "full": 1000}
BANK = {"smoke": 500, "quick": 4000, "full": 50_000}
CHAINS = {"smoke": 200, "quick": 10_000, "full": 10_000}
SHORT, BUFFER, IMPORTANCE, PARTITION = "SRLMC", "SRLMC + buffer", "importance", "PS-USP"
FROM_DATA = "PS-USP from data"
FIGURE_1 = (SHORT, BUFFER, IMPORTANCE, PARTITION)
METHODS = (*FIGURE_1, FROM_DATA)
BARS = {IMPORTANCE: 0.02, PARTITION: 0.05}  # nats above the entropy
PAPER = {
    SHORT: "unequal, wide modes; samples = data",
    BUFFER: "the same, mirrored",
    IMPORTANCE: "correct masses and widths",
    PARTITION: "-",
    FROM_DATA: "-",
}
COLUMNS = ["method", "rho", "seed", "gap", "mass left", "mass right", "width left", "width right"]
COLUMNS += ["slope left", "slope right", "OOD share", "fpr95", "samples right"]
COLUMNS += ["samples sd left", "samples sd right", "K-S to data", "norm first", "norm last"]
COLUMNS += ["seconds"]
LOOKS = (
    1,
    10,
    50,
    100,
    200,
    400,
    600,
    800,
    1500,
    3000,
    5000,
)  # updates at which the buffer is kept
NORMS: list[float] = []
BUFFERS: dict[int, np.ndarray] = {}


class Watched(Optimization):
    """Optimizer settings that also note the norm of every gradient in `NORMS`."""

    def build(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = super().build(module)
        NORMS.clear(), BUFFERS.clear()
        optimizer.register_step_pre_hook(note_norm)
        return optimizer


def note_norm(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    NORMS.append(float(torch.stack([g.norm() for g in gradients]).norm()))


class WatchedBank(SampleBank):
    """A bank that also keeps in `BUFFERS` what it held after the updates of `LOOKS`."""

    def write(self, points: torch.Tensor, rows: torch.Tensor, ends: torch.Tensor) -> None:
        super().write(points, rows, ends)
        if len(NORMS) in LOOKS:
            BUFFERS[len(NORMS)] = points[:, 0].cpu().numpy().copy()


def shared(rate: float, max_iter: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what all methods have in common: energy, optimizer, lengths, nothing held out."""
    full = args.mode == "full"
    plain = Watched(0.01, weight_decay=0.0, method="sgd", schedule="constant", averaging=False)
    adam = Watched(rate, weight_decay=0.0, averaging=False)
    return {
        "energy": Reconstruction.paper() if full else Reconstruction((64,) * 4),
        "optimizer": plain if full else adam,
        "max_iter": max_iter,
        "batch_size": BATCH[args.mode],
        "standardize": False,
        "data_noise": 0.0,
        "validation_fraction": 0,
        "random_state": seed,
    }


def short_run(method: str, rho: float, seed: int, args: argparse.Namespace) -> HybridCDDensity:
    """Return maximum likelihood with short-run Langevin, Eqs. 5 and 6."""
    start = ChainStart("noise", "uniform")
    if method == BUFFER:
        bank = WatchedBank(BANK[args.mode], REFRESH, "chain")
        start = ChainStart("persistent", "uniform", bank=bank)
    length = UPDATES if rho == RHO else SWEEP
    return HybridCDDensity(
        init=start,
        sampler=Langevin.from_alpha_beta(ALPHA, ALPHA / rho),
        n_steps=STEPS,
        base=None,
        refine=False,
        log_partition=None,
        **shared(2e-3, length[args.mode], seed, args),
    )


def summed(method: str, seed: int, args: argparse.Namespace) -> USPDensity:
    """Return maximum likelihood with the sum of Eq. 10 over uniform or partitioning points."""
    full, n = args.mode == "full", 100 if args.smoke else 500
    sizes: dict[str, Any] = {"n_points": 2 * n}
    if method != IMPORTANCE:
        active, inner = (1000, 50) if full else (n // 5, 10)
        sizes = {
            "n_points": 5000 if full else n,
            "init": "data" if method == FROM_DATA else "uniform",
        }
        sizes["repulsion"] = SupportPartition(n_active=active, n_inner=inner)
    return USPDensity(
        method="importance" if method == IMPORTANCE else "ps-usp",
        base="uniform",
        domain=(-1.0, 1.0),
        **sizes,
        **shared(5e-3, SUMS[args.mode], seed, args),
    )


def estimator(method: str, rho: float, seed: int, args: argparse.Namespace) -> Any:
    """Return a method with the settings of the mode."""
    if method in (SHORT, BUFFER):
        return short_run(method, rho, seed, args)
    return summed(method, seed, args)


def log_density_on_grid(est: Any) -> np.ndarray:
    """Return the model's own log density on the grid, normalized there."""
    values = -est.energy_samples(GRID[:, None])
    values -= values.max()
    return values - np.log(np.trapezoid(np.exp(values), GRID))


def halves(log_q: np.ndarray) -> list[list[float]]:
    """Return mass, width over the data's, and exponent of p, each left and right of 0."""
    q, log_p = np.exp(log_q), TRUTH.log_density(GRID[:, None])
    masses, widths, slopes = [], [], []
    for side, center in ((GRID < 0, -0.5), (GRID >= 0, 0.5)):
        mass, x = q[side] / q.sum(), GRID[side]
        masses.append(mass.sum())
        mean = mass @ x / mass.sum()
        widths.append((mass @ (x - mean) ** 2 / mass.sum()) ** 0.5 / SD)
        near = np.abs(GRID - center) <= 2.5 * SD
        slopes.append(np.polyfit(log_p[near], log_q[near], 1)[0])
    return [masses, widths, slopes]


def draws(est: Any, args: argparse.Namespace, **chains: Any) -> np.ndarray:
    """Return samples as in training: short chains, or for a sum `sample`."""
    n = CHAINS[args.mode]
    if isinstance(est, USPDensity):
        return est.sample(n, random_state=1)[:, 0]
    if est.init.bank is not None:
        chains = {"init": "bank", "n_chains": min(n, est.init.bank.size), **chains}
    chains = {"n_chains": n, "random_state": 1, **chains}
    return run_chains(est, n_steps=STEPS, record_every=STEPS, **chains).positions[-1][:, 0]


def uniform(low: float, high: float, args: argparse.Namespace) -> np.ndarray:
    """Return starts, uniform between two places (n, 1)."""
    return np.random.RandomState(3).uniform(low, high, (CHAINS[args.mode], 1))


def spread(x: np.ndarray) -> list[float]:
    """Return the standard deviations of the samples left and right of 0, over the data's."""
    return [float(part.std() / SD) for part in (x[x < 0], x[x >= 0])]


def measure(est: Any, seed: int, args: argparse.Namespace) -> list[float]:
    """Return the columns of the table but for the gradient norms."""
    log_q = log_density_on_grid(est)
    log_p = TRUTH.log_density(GRID[:, None])
    gap = -np.trapezoid(np.exp(log_p) * log_q, GRID) - TRUTH.entropy
    masses, widths, slopes = halves(log_q)
    above = (log_q[OOD] > np.median(log_q[SUPPORT])).mean()
    new = TRUTH.sample(CHAINS[args.mode], random_state=1000 + seed)
    outside = -est.energy_samples(GRID[OOD][:, None])
    accepted = ood_metrics(-est.energy_samples(new), outside)["fpr95"]
    samples = draws(est, args)
    distance = ks_2samp(samples, new[:, 0]).statistic
    row = [gap, *masses, *widths, *slopes, above, accepted, (samples >= 0).mean()]
    return [float(v) for v in [*row, *spread(samples), distance]]


def saved(method: str, rho: float, args: argparse.Namespace) -> Any:
    """Return the file of the fit of seed 0, for the pictures of a run that goes on."""
    return args.output / f"usp_one_dimension_{args.mode}_{method.replace(' ', '_')}_{rho:g}.pickle"


def one(method: str, rho: float, seed: int, args: argparse.Namespace) -> list[float]:
    start = time.perf_counter()
    rows = 2000 if args.smoke else 20_000
    X = TRUTH.sample(rows, random_state=seed)
    est = estimator(method, rho, seed, args).fit(X)
    seconds, norms = time.perf_counter() - start, np.array(NORMS)
    if seed == 0:
        saved(method, rho, args).write_bytes(pickle.dumps((est, norms, dict(BUFFERS))))
    tenth = max(1, len(norms) // 10)
    ends = [float(norms[:tenth].mean()), float(norms[-tenth:].mean())]
    return [*measure(est, seed, args), *ends, seconds]


def fitted(args: argparse.Namespace, method: str, rho: float = RHO) -> tuple[Any, np.ndarray, dict]:
    """Return the fit of seed 0, the norms of its gradients, and its buffers by update."""
    return pickle.loads(saved(method, rho, args).read_bytes())


def chain_variance(curvature: float, rho: float, n_calls: np.ndarray) -> np.ndarray:
    """Return the exact variance of chains on curvature x^2 / 2 after calls of 40 steps.

    From uniform starts on an interval of length 1 around the mode, alpha as in the paper.
    """
    contraction = 1 - ALPHA / 2 * curvature
    left = contraction ** (2 * STEPS * n_calls)
    return left / 12 + ALPHA / rho * (1 - left) / (1 - contraction**2)


def expected_slope(method: str, rho: float = RHO) -> float:
    """Return the exponent of p at which these chains end with the variance of a mode of the data.

    Chains of the buffer have run for a geometric number of calls.
    """
    n_calls = np.arange(1, 400) if method == BUFFER else np.ones(1)
    share = (1 - REFRESH) ** n_calls
    share = share / share.sum()

    def excess(curvature: float) -> float:
        return float(share @ chain_variance(curvature, rho, n_calls)) - SD**2

    return brentq(excess, 1.0, 2 / ALPHA - 1e-6) * SD**2


def reproduced(row: dict[str, float]) -> bool:
    """Whether a short-run fit is the paper's: right samples, unequal modes, too wide."""
    unequal = max(row["mass left"], row["mass right"]) >= 0.6
    wide = min(row["width left"], row["width right"]) >= 1.5
    sample = [row["samples sd left"], row["samples sd right"], 2 * row["samples right"]]
    return unequal and wide and all(abs(v - 1) <= 0.2 for v in sample)


def yes(flag: bool) -> str:
    return "yes" if flag else "NO"


def as_numbers(row: list[str]) -> dict[str, float]:
    return dict(zip(COLUMNS[3:], map(float, row[3:]), strict=True))


def table_1(results: dict[str, list[list[str]]]) -> None:
    """Print Figure 1 in numbers, one line per fit."""
    first, second = [], []
    for method, rows in results.items():
        for row in rows:
            v = as_numbers(row)
            bar = BARS.get(method)
            met = "-" if method == FROM_DATA else yes(v["gap"] <= bar if bar else reproduced(v))
            label = [method, row[2]]
            masses = f"{v['mass left']:.3f} {v['mass right']:.3f}"
            widths = f"{v['width left']:.2f} {v['width right']:.2f}"
            cells = [f"{v['gap']:.4f}", f"{bar:g}" if bar else "-", masses, widths]
            out = [f"{v['OOD share']:.3f}", f"{v['fpr95']:.3f}"]
            first.append([*label, *cells, *out, PAPER[method], f"{v['seconds']:.0f}", met])
            sides = f"{1 - v['samples right']:.3f} {v['samples right']:.3f}"
            sds = f"{v['samples sd left']:.2f} {v['samples sd right']:.2f}"
            norms = [f"{v['norm first']:.2g}", f"{v['norm last']:.2g}"]
            second.append([*label, sides, sds, f"{v['K-S to data']:.3f}", *norms])
    print(f"\nUSP Figure 1: the model's density on (-1, 1); entropy {TRUTH.entropy:.4f} nats")
    columns = ["method", "seed", "gap (nats)", "bar", "masses", "widths / 0.05", "OOD share"]
    print_table([*columns, "fpr95", "paper", "fit s", "met"], first)
    print(
        "OOD share: of (-1, 1) farther than 4 sd from both modes, what has a higher density than "
        "half of the support (2.5 sd); paper: 'a significant portion' for SRLMC. met: gap within "
        "the bar; SRLMC: samples right (masses and sd within 20 %) although one mode has 0.6 of "
        "the model's mass or more and both are at least 1.5 times too wide."
    )
    print("\nUSP Figure 1: samples (paper: SRLMC's are the data) and gradient norms")
    columns = ["method", "seed", "samples' masses", "samples' sd / 0.05", "K-S to data"]
    print_table([*columns, "norm, first tenth", "last tenth"], second)


def histogram(ax: Any, x: np.ndarray, **style: Any) -> None:
    style = {"histtype": "stepfilled", **style}
    ax.hist(x, bins=100, range=(-1, 1), density=True, **style)


def figure_1(args: argparse.Namespace) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 4, figsize=(18, 14))
    data = np.exp(TRUTH.log_density(GRID[:, None]))
    for i, (ax, method) in enumerate(zip(axes, FIGURE_1, strict=True)):
        est, norms, _ = fitted(args, method)
        log_q = log_density_on_grid(est)
        ax[0].semilogy(1 + np.arange(len(norms)), norms, linewidth=0.6)
        ax[0].set_ylabel(f"({'abcd'[i]}) {method}", fontsize=13)
        ax[1].boxplot([log_q[SUPPORT], log_q[OOD]], widths=0.6, showfliers=False)
        ax[1].set_xticks([1, 2], ["data support", "OOD"])
        histogram(ax[2], draws(est, args), alpha=0.4, label="samples")
        ax[2].plot(GRID, data, "k", linewidth=1.2, label="data p")
        ax[2].plot(GRID, np.exp(log_q), "C3", linewidth=1.2, label="model q")
        ax[2].set_ylim(0, None)
        ax[3].plot(GRID, -est.energy_samples(GRID[:, None]))
        ax[3].set_xlabel("x" if i == 3 else "")
    for ax, title in zip(axes[0], ["gradient norm", "log q", "densities", "-E(x)"], strict=True):
        ax.set_title(title, fontsize=13)
    axes[0, 2].legend()
    axes[3, 0].set_xlabel("update")
    save_figure(figure, args, "usp_figure_1.png")


def rhos(args: argparse.Namespace) -> tuple[float, ...]:
    return RHOS[:2] if args.smoke else RHOS


def figure_2(args: argparse.Namespace) -> None:
    """Basins, and how rho sharpens samples and widens what is learnt."""
    import matplotlib.pyplot as plt

    est, *_ = fitted(args, SHORT)
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.4))
    rows = []
    for low, high in ((-1, 0), (0, 1)):
        x = draws(est, args, init=uniform(low, high, args))
        histogram(axes[0], x, alpha=0.5, label=f"q0 = U({low}, {high})")
        rows.append([f"U({low}, {high})", f"{((x >= 0) == (high > 0)).mean():.3f}", "mostly"])
    print("\nUSP Figure 2, left: chains of SRLMC that end on the side where they start")
    print_table(["q0", "share", "paper"], rows)
    slope, rows = np.mean(halves(log_density_on_grid(est))[2]), []
    for rho in rhos(args):
        sampler = Langevin.from_alpha_beta(ALPHA, ALPHA / rho)
        x = draws(est, args, init=uniform(-1, 1, args), sampler=sampler)
        histogram(axes[1], x, histtype="step", label=f"rho = {rho:g}")
        exact = chain_variance(slope / SD**2, rho, np.ones(1))[0] ** 0.5 / SD
        rows.append([f"{rho:g}", " ".join(f"{v:.2f}" for v in spread(x)), f"{exact:.2f}"])
    print("\nUSP Figure 2, middle: sd / 0.05 of samples on that energy (paper: falls with rho)")
    print_table(["rho", "left, right", "Gaussian mode, exact"], rows)
    for rho in rhos(args):
        log_q = log_density_on_grid(fitted(args, SHORT, rho)[0])
        axes[2].plot(GRID, np.exp(log_q), label=f"trained with rho = {rho:g}")
    axes[2].plot(GRID, np.exp(TRUTH.log_density(GRID[:, None])), "k:", label="data")
    titles = ["samples by start", "samples by rho", "density learnt by rho"]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        ax.legend(fontsize=9)
    save_figure(figure, args, "usp_figure_2.png")


def table_2(results: dict[tuple[str, float], list[list[str]]]) -> None:
    """Print the exponents that short-run Langevin learns."""
    rows = []
    for (method, rho), found in results.items():
        for row in found:
            v, slope = as_numbers(row), expected_slope(method, rho)
            slopes = f"{v['slope left']:.3f} {v['slope right']:.3f}"
            widths = f"{v['width left']:.2f} {v['width right']:.2f}"
            ends = [f"{1 / rho:g}", widths, f"{slope**-0.5:.2f}", f"{rho**0.5:.2f}"]
            rows.append([method, f"{rho:g}", row[2], slopes, f"{slope:.3f}", *ends])
    print("\nUSP Figure 2, right, and Proposition 3: log q against log p within 2.5 sd of a mode")
    columns = ["method", "rho", "seed", "slopes", "these chains, exact", "paper: 1/rho"]
    print_table([*columns, "widths / 0.05", "these chains, exact", "paper: sqrt(rho)"], rows)
    print(
        "exact: exponent at which these chains end with the data's variance on a Gaussian mode "
        "(40 steps from noise, or from the buffer, where 5 % of the chains are that young; endless "
        "chains: 1.13, 0.101, 0.0100 for rho = 1, 10, 100). Widths of the model: within x < 0 and "
        "x > 0, where a uniform density has 5.8."
    )


def figure_3(args: argparse.Namespace) -> None:
    """The buffer becomes the data, and chains from it stay in their mode."""
    import matplotlib.pyplot as plt

    est, norms, buffers = fitted(args, BUFFER)
    bank = est.bank_[:, 0]
    buffers[len(norms)] = bank
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.2))
    buffer_over_training(buffers, axes)
    rows = []
    for name, side in (("left", bank < 0), ("right", bank >= 0)):
        x = draws(est, args, init=bank[side][:, None])
        moved = ((x < 0) != (name == "left")).mean()
        rows.append([name, int(side.sum()), f"{moved:.4f}", "stays"])
        histogram(axes[2], x, alpha=0.5, label=f"from the {name} mode")
    print("\nUSP Figure 3b: chains from entries of the buffer that change sides")
    print_table(["entries", "chains", "share", "paper"], rows)
    axes[2].set_title("40 steps from the buffer")
    axes[2].legend(loc="upper center", fontsize=9)
    save_figure(figure, args, "usp_figure_3.png")


def buffer_over_training(buffers: dict[int, np.ndarray], axes: Any) -> None:
    """Figure 3a: print and draw how the buffer comes to the data's distribution."""
    data, again = (TRUTH.sample(len(buffers[1]), random_state=k)[:, 0] for k in (7, 8))
    distances, rows = [], []
    for update, bank in buffers.items():
        distances.append(ks_2samp(bank, data).statistic)
        masses = f"{(bank < 0).mean():.3f} {(bank >= 0).mean():.3f}"
        sds = " ".join(f"{v:.2f}" for v in spread(bank))
        rows.append([update, masses, sds, f"{distances[-1]:.3f}"])
    between = ks_2samp(again, data).statistic
    print("\nUSP Figure 3a: the buffer over training (paper: converges to the data's distribution)")
    print_table(["update", "masses", "sd / 0.05", "K-S to data"], rows)
    print(f"K-S distance of two samples of the data of that size: {between:.3f}")
    updates = list(buffers)
    for k in sorted({0, len(updates) // 4, len(updates) // 2, len(updates) - 1}):
        label = f"after {updates[k]} updates"
        histogram(axes[0], buffers[updates[k]], histtype="step", label=label)
    histogram(axes[0], data, alpha=0.25, color="k", label="data")
    axes[0].set_title("buffer")
    axes[0].legend(loc="upper center", fontsize=9)
    axes[1].loglog(updates, distances, "o-")
    axes[1].axhline(between, color="k", linestyle=":", label="two samples of the data")
    axes[1].set_title("K-S distance of buffer and data")
    axes[1].set_xlabel("update")
    axes[1].legend(fontsize=9)


def proposition_1(args: argparse.Namespace) -> None:
    """Count norms near sqrt(d (sigma^2 + mu^2)), within 5 %."""
    rng, n, rows = np.random.RandomState(0), 100 if args.smoke else 1000, []
    for d in (10, 100, 1000, 10_000):
        bounds = d * np.array([0.95, 1.05]) ** 2
        x = rng.standard_normal((n, d))
        for name, square, second, exact in (
            ("N(0, 1)", (x**2).sum(1), 1.0, chi2(d).cdf),
            ("N(1, 1)", ((1 + x) ** 2).sum(1), 2.0, ncx2(d, d).cdf),
            ("U(-1, 1)", (rng.uniform(-1, 1, (n, d)) ** 2).sum(1), 1 / 3, None),
        ):
            inside = (square > second * bounds[0]) & (square < second * bounds[1])
            share, cells = inside.mean(), ["-", "-", "-"]
            if exact is not None:
                p = float(np.diff(exact(second * bounds))[0])
                z = (share - p) / max((p * (1 - p) / n) ** 0.5, 1 / n)
                cells = [f"{p:.4f}", f"{z:+.1f}", yes(abs(z) <= 4)]
            rows.append([name, d, f"{share:.3f}", *cells, "-> 1"])
    print("\nUSP Proposition 1: share of norms within 5 % of sqrt(d (sigma^2 + mu^2))")
    print_table(["components", "d", "share", "exact", "z", "met", "paper"], rows)


def moments(x: np.ndarray, exact: float) -> tuple[float, float, str]:
    """Return the mean of squares, its z-score against the exact value, and the verdict."""
    squares = x**2
    z = (squares.mean() - exact) / (squares.std() / len(x) ** 0.5)
    return float(squares.mean()), float(z), yes(abs(z) <= 4)


def proposition_2(args: argparse.Namespace) -> None:
    """Compare the variance of modified Langevin on a Gaussian energy with s^2 / rho."""
    n, rows = 2000 if args.smoke else 20_000, []
    rng = torch.Generator().manual_seed(0)

    def target(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.square().sum(1) / (2 * SD**2), -x / SD**2

    for alpha in (ALPHA, ALPHA / 10):
        for rho in RHOS:
            start = torch.randn(n, 1, generator=rng, dtype=torch.float64) * SD / rho**0.5
            sampler = Langevin.from_alpha_beta(alpha, alpha / rho)
            state, _ = run(sampler, target, start, round(0.1 / alpha), rng)
            exact = alpha / rho / (1 - (1 - alpha / 2 / SD**2) ** 2)
            value, z, met = moments(state.x.numpy()[:, 0], exact)
            cells = [f"{value:.4e}", f"{exact:.4e}", f"{z:+.1f}", met, f"{SD**2 / rho:.4e}"]
            rows.append([f"{alpha:g}", f"{rho:g}", *cells])
    print(f"\nUSP Proposition 2: variance of chains on E = x^2 / (2 s^2), s = {SD}")
    print_table(["alpha", "rho", "variance", "exact", "z", "met", "paper: s^2/rho"], rows)
    print("exact: with this step size; the paper's value is its limit for small steps.")


def proposition_3(args: argparse.Namespace) -> None:
    """Chains on E = -log(p) / rho with alpha / beta = rho leave the data as they are."""
    n, rows = 2000 if args.smoke else 10_000, []
    rng = torch.Generator().manual_seed(1)
    for rho in RHOS:

        def target(x: torch.Tensor, rho: float = rho) -> tuple[torch.Tensor, torch.Tensor]:
            log_p, score = TRUTH.log_density(x.numpy()), TRUTH.score(x.numpy())
            return -torch.from_numpy(log_p) / rho, torch.from_numpy(score) / rho

        start = TRUTH.sample(n, random_state=0)
        sampler = Langevin.from_alpha_beta(ALPHA, ALPHA / rho)
        n_steps = 20 if args.smoke else round(100 * max(1.0, rho / 10))
        state, _ = run(sampler, target, torch.from_numpy(start), n_steps, rng)
        x = state.x.numpy()[:, 0]
        contraction = 1 - ALPHA / 2 / (rho * SD**2)
        left = contraction ** (2 * n_steps)
        exact = left * SD**2 + ALPHA / rho * (1 - left) / (1 - contraction**2)
        value, z, met = moments(np.where(x < 0, x + 0.5, x - 0.5), exact)
        cells = [f"{value:.4e}", f"{exact:.4e}", f"{z:+.1f}", met, f"{SD**2:.4e}"]
        rows.append([f"{rho:g}", n_steps, *cells])
    print("\nUSP Proposition 3: variance within the modes of chains on q = p^(1/rho) from the data")
    print_table(["rho", "steps", "variance", "exact", "z", "met", "paper: as the data"], rows)


def hours(n_seeds: dict[str, int], args: argparse.Namespace) -> None:
    """Print how long the fits of all methods take, and those of Figure 2's further exponents."""
    X = TRUTH.sample(2000 if args.smoke else 20_000, random_state=0)
    fits = {
        method: (lambda m=method: estimator(m, RHO, 0, args), X, n_seeds.get(method, args.seeds))
        for method in args.methods
    }
    further = [rho for rho in rhos(args) if rho != RHO]
    if further:
        swept = (lambda: estimator(SHORT, further[0], 0, args), X, len(further))
        fits[f"{SHORT}, further rho"] = swept
    print_hours(fits, args)


def main() -> None:
    some = {"nargs": "+", "choices": METHODS, "default": METHODS}
    some["help"] = "methods to run (all); figures 1 and 2 need all, figure 3 the buffer"
    args = mode(__doc__, seeds={"smoke": 1, "quick": 3, "full": 3}, methods=some)
    print_title("USP: two modes in one dimension", args)
    few = 2 if args.mode == "quick" else args.seeds
    n_seeds = {SHORT: few, BUFFER: few, FROM_DATA: 0 if args.smoke else 1}
    if args.hours:
        return hours(n_seeds, args)
    kept = Kept(args.output / f"usp_one_dimension_{args.mode}.csv", COLUMNS, key=3)

    def rows(method: str, rho: float, n_seeds: int) -> list[list[str]]:
        return [
            kept.get([method, f"{rho:g}", s], lambda s=s: one(method, rho, s, args))
            for s in range(min(n_seeds, args.seeds))
        ]

    results = {m: rows(m, RHO, n_seeds.get(m, args.seeds)) for m in args.methods}
    table_1(results)
    if set(args.methods) == set(METHODS):
        proposition_1(args)
        proposition_2(args)
        proposition_3(args)
        figure_1(args)
        swept = {(SHORT, rho): rows(SHORT, rho, 1) for rho in rhos(args) if rho != RHO}
        table_2({(m, RHO): results[m] for m in (SHORT, BUFFER)} | swept)
        figure_2(args)
    if BUFFER in args.methods:
        figure_3(args)


if __name__ == "__main__":
    main()
