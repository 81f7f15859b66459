"""LSD Figure 8: linear ICA by five methods, 10 to 50 dimensions, and learning curves.

Test log likelihood of ``p(x) = prod_j p_s((x B)_j) |det B|``, exact whatever B is, beside the truth
and the paper's numbers, for logistic sources (the paper's table is theirs, though it names Laplace)
and for Laplace sources, where score matching is invalid. The true B has N(0, 1) entries and a
condition number below D; the paper's matrices were other draws, so compare gaps: "below truth" with
the paper's "below its ML".

Two starts. "random": rows as they are, B a random orthogonal matrix. "whitened": rows whitened
first, B the identity times the sources' standard deviation, which is the row "whitening alone": a
model with no rotation learnt. Whitening also makes the Gaussian noise of NCE that of a full
covariance; on rows as they are it is diagonal, as in the released code.

Three critics. "LSD, tied" is `TiedCritic`: the difference of the model's score and of a copy's, for
smooth energies. "LSD" has the shape of the answer, ``f(x) = x A + tanh(x V) U`` with 2 D hidden
units, since the score of a logistic source is ``-tanh(s / 2)``; "LSD, 300-300" is the paper's, with
Hutchinson's trace. NCE learns a log normalizer beside an energy that has log|det B| in it. CNCE is
shown at each noise of the paper's grid; the paper shows the best. With Laplace sources LSD's update
of B is off as well: scores jump where a source is 0, and the slope that autograd sees has no share
of a jump that moves. The last lines print it beside the true slope.

The table of training rows is drawn once, 100,000 of them (500,000 in ``--mode full``), where the
paper draws fresh ones at each step: B fitted to 100,000 rows by maximum likelihood is about
D^2 / 200,000 nats below the truth. ``--mode full`` takes 100,000 updates, from "random" with the
paper's optimizer (Adam 0.001, betas 0.5 and 0.9, no decay). Quick mode takes some thousand updates
with larger steps and a cosine decay, at D = 10, 20 and 50; all seeds of the whitened start at
D = 10 and one elsewhere; the random start and the 300-300 critic with logistic sources only.
``--only``, ``--dimensions`` and ``--starts`` choose rows of the table.

Results are kept in CSV files, and learning curves as they grow. To split the work over processes
give each some methods by ``--only`` and a file of its own by ``--part NAME``; ``--show`` prints and
draws what is in all files. The curves of methods that were stopped have a table of their own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skebm.bases import Gaussian
from skebm.data import ArrayTable
from skebm.datasets import ICADensity
from skebm.energies import LinearICA, Model
from skebm.energies.ica import ICAEnergy
from skebm.exceptions import ConvergenceError
from skebm.networks import Critic
from skebm.objectives import (
    ConditionalNoiseContrastive,
    ExactLikelihood,
    LearnedStein,
    NoiseContrastive,
    Objective,
    Optimization,
    ScoreMatching,
    TiedCritic,
)
from skebm.train import Settings, TrainState, train

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._paper import (
    Kept,
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)
from examples.papers.lsd._alone import Alone

DIMENSIONS = {"smoke": (3,), "quick": (10, 20, 50), "full": (10, 20, 30, 40, 50)}
ROWS = {"smoke": 1000, "quick": 100_000, "full": 500_000}
BATCH = {"smoke": 100, "quick": 1000, "full": 1000}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N_TEST, N_CURVE = 20_000, 40
SOURCES = {"logistic": np.pi / 3**0.5, "laplace": 2**0.5}  # standard deviations
STARTS = ("whitened", "random")
ALONE, ML = "whitening alone", "Max. Likelihood"
TIED, LSD, PLAIN_LSD = "LSD, tied", "LSD", "LSD, 300-300"
SM, NCE, CNCE = "Score Matching", "NCE", "CNCE"
NOISES = {"smoke": (0.1,), "quick": (0.1, 1.0), "full": (0.01, 0.1, 1.0, 10.0)}
PAPER = {
    ML: (-10.98, -18.48, -21.49, -23.43, -25.53),
    LSD: (-10.95, -18.37, -21.23, -25.14, -25.36),
    SM: (-11.13, -27.20, -21.48, np.nan, np.nan),
    NCE: (-10.92, -22.52, -30.33, -55.53, -73.62),
    CNCE: (-11.00, -18.77, -24.47, -37.64, -36.31),
}
BAR = (10, 0.05)  # LSD, logistic sources, whitened, in every seed
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the training, for the second table
FULL = argparse.Namespace(mode="full")
KEY = 5
COLUMNS = ["source", "D", "start", "method", "seed", "truth", "entropy", "test", "seconds"]


class Recipe(NamedTuple):
    """How a method is trained in quick mode up to a D: updates, steps of model and critic."""

    n_updates: int
    rate: float
    critic_rate: float = 0.01


# entries of B fall as D^(-1/2), and the noise of a batch hides more of what is left to learn
QUICK = {
    10: {
        TIED: Recipe(1500, 0.02, 0.02),
        LSD: Recipe(2500, 0.02),
        PLAIN_LSD: Recipe(1500, 0.01, 0.003),
        "others": Recipe(1500, 0.03),
    },
    20: {
        TIED: Recipe(2500, 0.02, 0.02),
        LSD: Recipe(2500, 0.01),
        PLAIN_LSD: Recipe(1500, 0.005, 0.003),
        "others": Recipe(4000, 0.02),
    },
    50: {
        TIED: Recipe(2500, 0.01, 0.02),
        LSD: Recipe(2500, 0.01),
        PLAIN_LSD: Recipe(1500, 0.005, 0.003),
        "others": Recipe(4000, 0.01),
    },
}


class Problem(NamedTuple):
    """Rows of one law, in the coordinates of a start, as tensors."""

    density: ICADensity
    x: torch.Tensor
    test: torch.Tensor
    truth: float  # mean log density of the test rows, nats
    log_volume: float  # log of |det| of the map to these coordinates


def problem(source: str, d: int, start: str, seed: int, args: argparse.Namespace) -> Problem:
    density = ICADensity.random(d, source, random_state=100 + seed)
    X = density.sample(ROWS[args.mode], random_state=seed)
    T = density.sample(N_TEST, random_state=5000 + seed)
    truth, log_volume = float(density.log_density(T).mean()), 0.0
    if start == "whitened":
        variances, axes = np.linalg.eigh(np.cov(X, rowvar=False))
        whitening = axes / np.sqrt(variances) @ axes.T
        X, T, log_volume = X @ whitening, T @ whitening, -0.5 * float(np.log(variances).sum())
    x, test = (torch.from_numpy(part).float().to(DEVICE) for part in (X, T))
    return Problem(density, x, test, truth, log_volume)


def generator(seed: int) -> torch.Generator:
    return torch.Generator(DEVICE).manual_seed(seed)


def recipe(method: str, start: str, d: int, args: argparse.Namespace) -> tuple[int, Any, float]:
    """Return updates, the optimizer of the model and the critic's learning rate."""
    recipes = QUICK[min(most for most in QUICK if most >= d)]
    n_updates, rate, critic_rate = recipes.get(method, recipes["others"])
    if args.mode == "full" and start == "random":
        paper = Optimization(1e-3, (0.5, 0.9), weight_decay=0.0, schedule="constant")
        return 100_000, paper, 1e-3
    if args.mode == "full":
        n_updates, rate, critic_rate = 100_000, 3e-3, 3e-3
    model = Optimization(rate, (0.5, 0.99), weight_decay=0.0)
    return (4 if args.smoke else n_updates), model, critic_rate


def objective(method: str, task: Problem, model: Any, critic_rate: float) -> Objective:
    """Return the training principle of a method."""
    d = task.x.shape[1]
    if method == ML:
        return ExactLikelihood(model)
    if method == SM:
        return ScoreMatching("sliced", optimization=model)
    if method == NCE:
        noise = Gaussian("diagonal").fit(task.x, None, generator(0))
        return NoiseContrastive(noise, optimization=model)
    if method.startswith(CNCE):
        noise_std = float(method.split()[-1])
        return ConditionalNoiseContrastive(noise_std, optimization=model)
    common: dict[str, Any] = {"max_norm": 1e3, "optimization": model}
    if method == PLAIN_LSD:
        plain = Critic(learning_rate=critic_rate, trace="gaussian")
        return LearnedStein(plain, critic_steps=1, l2=1.0, **common)
    if method == TIED:
        return LearnedStein(TiedCritic(critic_rate), critic_steps=2, l2=0.5, **common)
    shaped = Critic((2 * d,), "tanh", linear_skip=True, learning_rate=critic_rate)
    return LearnedStein(shaped, critic_steps=2, l2=0.1, **common)


def log_likelihood(energy: torch.nn.Module, task: Problem) -> float:
    """Return the mean over test rows, nats, in the units of the data."""
    with torch.no_grad():
        return task.log_volume - float(energy(task.test).double().mean())


def curve_file(source: str, d: int, start: str, method: str, args: argparse.Namespace) -> Path:
    """Return where the learning curve of seed 0 is kept."""
    slug = f"{source}_{d}_{start}_{method}".replace(",", "").replace(" ", "_")
    return args.output / f"lsd_ica_{args.mode}_{slug}.npy"


def one(source: str, d: int, start: str, method: str, seed: int, args: Any) -> list[float]:
    task = problem(source, d, start, seed, args)
    B = None if start == "random" else SOURCES[source] * np.eye(d)
    rng = generator(seed)
    energy = LinearICA(source, init=B).build((d,), rng)
    known = [task.truth, -task.density.entropy]
    if method == ALONE:
        return [*known, log_likelihood(energy, task), 0.0]
    n_updates, *steps = recipe(method, start, d, args)
    curve: list[list[float]] = []

    def note(state: TrainState) -> None:
        curve.append([state.iteration, task.truth - log_likelihood(state.model.energy, task)])
        if seed == 0:
            np.save(curve_file(source, d, start, method, args), np.array(curve))

    every = max(1, n_updates // N_CURVE)
    settings = Settings(n_updates, BATCH[args.mode], eval_every=every, average=False)
    begin = time.process_time()
    principle, table = objective(method, task, *steps), ArrayTable(task.x)
    model = Model(energy, None, 1.0)
    try:
        train(model, principle, table, settings=settings, rng=rng, callbacks=[note])
    except ConvergenceError:
        return [*known, float("nan"), time.process_time() - begin]
    seconds = time.process_time() - begin
    final = log_likelihood(energy, task)
    print(f"{source}, D = {d}, {start}, {method}: {task.truth - final:.3f} below, {seconds:.0f} s")
    return [*known, final, seconds]


def fits(args: argparse.Namespace) -> dict[str, tuple[Callable[[], Alone], Problem, int]]:
    """Return what `print_hours` asks; few rows do, a batch of them is what an update sees."""
    few, found = argparse.Namespace(mode="smoke"), {}
    for source in SOURCES:
        for key in tasks(source, args):
            _, d, start, method = key
            if method != ALONE and (args.only is None or method in args.only):
                n_fits = len(seeds(d, start, method, args))
                law = problem(source, d, start, 0, few)
                found[", ".join(map(str, key))] = (lambda k=key: alone(k, args)), law, n_fits
    return found


def alone(key: tuple[str, int, str, str], args: argparse.Namespace) -> Alone:
    """Return the training of a method, for its time."""
    source, d, start, method = key
    n_updates, *steps = recipe(method, start, d, args)

    def fit(task: Problem, n: int) -> None:
        rng = generator(0)
        model = Model(LinearICA(source).build((d,), rng), None, 1.0)
        settings = Settings(n, BATCH[args.mode], average=False)
        principle = objective(method, task, *steps)
        train(model, principle, ArrayTable(task.x), settings=settings, rng=rng)

    return Alone(fit, n_updates)


def methods(source: str, start: str, args: argparse.Namespace) -> list[str]:
    """Return the methods that are valid for a law, in the order of the table."""
    smooth = source == "logistic"
    plain = args.mode != "quick" or (smooth and start == "whitened")
    names = [ALONE] if start == "whitened" else []
    names += [ML, *([TIED] if smooth else []), LSD, *([PLAIN_LSD] if plain else [])]
    names += [*([SM] if smooth else []), NCE]
    return [*names, *(f"{CNCE} at {noise:g}" for noise in NOISES[args.mode])]


def refusal() -> str:
    """Return what score matching says of Laplace sources."""
    rng = torch.Generator().manual_seed(0)
    model = Model(LinearICA("laplace").build((2,), rng), None, 1.0)
    try:
        ScoreMatching("sliced").init(model, torch.zeros(4, 2), rng)
    except ValueError as error:
        return str(error)
    raise RuntimeError("score matching took sources with kinks")


def slopes(source: str, n: int) -> str:
    """Return d/da of the mean of s . f where a turns B, by autograd and by differences of a."""
    rng = torch.Generator().manual_seed(0)
    x = torch.from_numpy(ICADensity.random(2, source, random_state=0).sample(n, random_state=0))
    V, B = torch.empty(2, 2, 2, dtype=x.dtype).normal_(generator=rng)
    turn, f, step = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=x.dtype), torch.tanh(x @ V), 0.05
    low, high = (
        -ICAEnergy(torch.matrix_exp(a * turn) @ B, source).directional_derivative(x, f).detach()
        for a in (-step, step)
    )
    by_steps = (high - low) / (2 * step)
    energy = ICAEnergy(B.clone(), source)
    (-energy.directional_derivative(x, f).mean()).backward()
    by_autograd = float((energy.B.grad * (turn @ B)).sum())
    error = float(by_steps.std() / n**0.5)
    return f"{by_autograd:.3f} by autograd, {by_steps.mean():.3f} ± {error:.3f} by differences"


def paper_cells(source: str, d: int, method: str) -> list[str]:
    """Return the paper's log likelihood, and how far it is below its maximum likelihood."""
    name = method.split(" at ")[0].split(",")[0]
    if source != "logistic" or name not in PAPER or d not in DIMENSIONS["full"]:
        return ["-", "-"]
    i = DIMENSIONS["full"].index(d)
    value = PAPER[name][i]
    return ["NaN", "-"] if np.isnan(value) else [f"{value:.2f}", f"{PAPER[ML][i] - value:.2f}"]


def summary(key: tuple[str, int, str, str], rows: list[list[str]]) -> list[Any]:
    """Return a row of the table."""
    source, d, start, method = key
    truth, entropy, test, seconds = np.array([row[5:] for row in rows], dtype=float).T
    gap, met = truth - test, "-"
    if (source, d, start, method) == ("logistic", BAR[0], "whitened", LSD):
        met = "yes" if gap.max() <= BAR[1] else "NO"
    cells = [mean_std(test, 2), mean_std(gap), float(gap.max())]
    if np.isnan(gap).any():
        cells = [f"diverged in {np.isnan(gap).sum()}", "-", "-"]
    ends = [*paper_cells(source, d, method), f"{seconds.mean():.0f}", len(rows), met]
    return [d, start, method, f"{entropy.mean():.2f}", *cells, *ends]


def starts(source: str, args: argparse.Namespace) -> list[str]:
    few = args.mode == "quick" and source == "laplace"
    return [start for start in (STARTS[:1] if few else STARTS) if start in args.starts]


def dimensions(args: argparse.Namespace) -> list[int]:
    return [d for d in DIMENSIONS[args.mode] if args.dimensions is None or d in args.dimensions]


def seeds(d: int, start: str, method: str, args: argparse.Namespace) -> range:
    """Return all seeds, in quick mode one but where a bar or few updates want more."""
    all_of_them = args.mode != "quick" or (d == 10 and start == "whitened" and method != PLAIN_LSD)
    return range(args.seeds if all_of_them else 1)


def tasks(source: str, args: argparse.Namespace) -> Iterator[tuple[str, int, str, str]]:
    """Yield source, D, start and method of the rows of the table of one law."""
    for start in starts(source, args):
        for d in dimensions(args):
            for method in methods(source, start, args):
                yield source, d, start, method


def compute(args: argparse.Namespace, kept: Kept, found: list[list[str]]) -> None:
    """Train what is not in the files, and keep it in one of them."""
    done = {tuple(row[: kept.key]) for row in found}
    for source in SOURCES:
        for key in tasks(source, args):
            for seed in seeds(*key[1:], args):
                chosen = args.only is None or key[-1] in args.only
                if chosen and tuple(map(str, (*key, seed))) not in done:
                    kept.get([*key, seed], lambda k=key, s=seed: one(*k, s, args))


def read_all(args: argparse.Namespace) -> list[list[str]]:
    """Return the rows of the CSV files of all parts."""
    paths = sorted(args.output.glob(f"lsd_ica_{args.mode}*.csv"))
    return [row for path in paths for row in Kept(path, COLUMNS, KEY).rows]


def measured(source: str, found: list[list[str]], args: argparse.Namespace) -> list[list[Any]]:
    """Return the rows of the table of one law."""
    table = []
    for key in tasks(source, args):
        rows = [row for row in found if tuple(row[:4]) == tuple(map(str, key))]
        if rows:
            table.append(summary(key, rows))
    if source == "laplace":
        table.append(["-", "-", SM, "-", "invalid", *["-"] * 7])
    return table


def curve_rows(source: str, args: argparse.Namespace) -> list[list[Any]]:
    """Return the gaps of seed 0 at tenths of the training that is there."""
    rows = []
    for key in tasks(source, args):
        path = curve_file(*key, args)
        if path.exists():
            updates, gaps = np.load(path).T
            at = [round(share * (len(gaps) - 1)) for share in SHARES]
            cells = [f"{gaps[i]:.3f} ({updates[i]:.0f})" for i in at]
            rows.append([*key[1:], *cells])
    return rows


def draw(args: argparse.Namespace) -> None:
    """Figure 8, right: learning curves, a line of panels for each law and start that has some."""
    import matplotlib.pyplot as plt

    names = methods("logistic", "whitened", args)
    curves: dict[tuple[str, str], dict[tuple[int, str], np.ndarray]] = {}
    for source in SOURCES:
        for start in starts(source, args):
            paths = {
                (d, method): curve_file(source, d, start, method, args)
                for d in dimensions(args)
                for method in names
            }
            found = {key: np.load(path) for key, path in paths.items() if path.exists()}
            if found:
                curves[source, start] = found
    if not curves:
        return
    n_lines, n_panels = len(curves), len(dimensions(args))
    figure, axes = plt.subplots(
        n_lines, n_panels, figsize=(2 + 4.2 * n_panels, 3.2 * n_lines), sharey=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for ((source, start), found), line in zip(curves.items(), axes, strict=True):
        for d, ax in zip(dimensions(args), line, strict=True):
            for i, method in enumerate(names):
                if (d, method) in found:
                    updates, gap = found[d, method].T
                    (handles[method],) = ax.plot(updates, np.maximum(gap, 1e-4), f"C{i}")
            ax.set(yscale="log", title=f"{source} sources, {start}, D = {d}", xlabel="updates")
            ax.locator_params(axis="x", nbins=5)
        line[0].set_ylabel("nats below the truth")
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize=9)
    save_figure(figure, args, "lsd_figure_8.png")


def main() -> None:
    args = mode(
        __doc__,
        seeds={"smoke": 1, "quick": 3, "full": 5},
        only={"nargs": "+", "choices": methods("logistic", "whitened", FULL), "help": "(all)"},
        dimensions={"nargs": "+", "type": int, "choices": DIMENSIONS["full"], "help": "(all)"},
        starts={"nargs": "+", "choices": STARTS, "default": STARTS, "help": "(all)"},
        part={"default": "", "help": "name of a CSV file of its own"},
        show={"action": "store_true", "help": "print and draw what is there"},
    )
    if unknown := set(args.dimensions or ()).difference(DIMENSIONS[args.mode]):
        raise SystemExit(
            f"--dimensions must be among {DIMENSIONS[args.mode]} in mode {args.mode}, got "
            f"{sorted(unknown)}."
        )
    print_title("LSD Figure 8: linear ICA, test log likelihood in nats", args)
    if args.hours:
        return print_hours(fits(args), args)
    if not args.show:
        kept = Kept(args.output / f"lsd_ica_{args.mode}{args.part}.csv", COLUMNS, key=KEY)
        compute(args, kept, kept.rows if args.part else read_all(args))
    found = read_all(args)
    columns = ["D", "start", "method", "-entropy", "test", "below truth", "worst", "paper"]
    columns += ["below its ML", "CPU s", "seeds", "met"]
    for source in SOURCES:
        print(f"\n{source} sources, {ROWS[args.mode]} training rows")
        print_table(columns, measured(source, found, args))
        print("nats below the truth over the training of seed 0 (updates):")
        print_table(["D", "start", "method", *(f"{s:g}" for s in SHARES)], curve_rows(source, args))
        if source == "laplace":
            print(f"invalid: {refusal()}")
            for law in SOURCES:
                print(f"{law}: slope of LSD along a rotation {slopes(law, 10 * ROWS[args.mode])}")
    print(
        "mean ± sd over seeds, each with its own matrix; below truth: paired over the test rows. "
        f"met: LSD at D = {BAR[0]}, whitened, at most {BAR[1]} below the truth in every seed. CNCE "
        "at: standard deviation of its noise, in the units of the rows of each start."
    )
    draw(args)


if __name__ == "__main__":
    main()
