"""BB Figure 2: densities of two toys by bidirectional bounds and by the paper's baselines.

25 Gaussians and a swiss roll; the paper shows pictures without numbers. "ours" is BoundsEBM over a
Gaussian base with its default networks and learning rates; "paper" has the settings of Tables 6 and
11: perceptrons of 100-100 with parametric ReLU, batch normalization in the generator, Adam (0, 0.9)
with step 0.0002, batches of 200, d log s_1, margin 1, no base, columns as they are. "BB, refined"
goes on by importance likelihood, which the paper has not. MEG, VERA, EBM-0GP and WGAN-0GP have
the same networks, rates, rows and updates; bound and entropy differ, and with them the weight of
the penalty (0.01 at zero-centred ones, 0.001 in the released code), VERA's noise and the push
against folds. VERA's entropy has weight 1, where the paper's section 5.4 has 0.0001; the released
toy energy has a scale layer more. Each batch of the released code has 8 rows of each of the 25
modes; here rows are drawn at random from a table.

The pictures of the paper are tempered: its code shows exp(-0.1 E), normalized on the square from -4
to 4. Here the upper row of each pair shows the model's density, at temperature 1, and the lower one
its tenth root, labelled as tempered, both normalized on that square; each picture is brightest at
its own maximum, or at the truth's where that is lower (temperature 1). The gap (truth minus model,
nats per row) is that of the density at temperature 1.

``--mode quick`` has 5,000 updates, ``--mode full`` the paper's 150,000, from more rows and with
checkpoints, so that a run that was stopped goes on within a fit. ``--updates`` takes another
number; ``--densities``, ``--settings`` and ``--models`` choose. Each fit has a file of its own in
the output folder, so that processes can run beside each other; ``--read`` prints what is there.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from skebm import BoundsEBM
from skebm.exceptions import ConvergenceError, GeneratorWarning, NormalizationWarning

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks.validity.bounds_25 import BASELINES, BB, REFINED, cases, modes
from examples.papers._paper import (
    mean_std,
    mode,
    print_hours,
    print_table,
    print_title,
    save_figure,
)
from examples.papers.bb._beside import OPTIONS, own_file, seeds_of, slug

ROWS = {"smoke": 60, "quick": 10_000, "full": 100_000}
UPDATES = {"smoke": 3, "quick": 5000, "full": 150_000}
CELLS = {"smoke": 200, "quick": 1000, "full": 1000}
HALF = 4.0  # of the paper's square
TEMPERING = 0.1
PIXELS = 200
NEARER = 2.2  # half the side of the pictures of the 25 Gaussians at temperature 1
N_TEST = 10_000
OURS, PAPER = "ours", "paper"
MODELS: dict[str, dict[str, Any]] = {**BASELINES, BB: {}, REFINED: {"refine": True}}
KEY = 4  # columns that name a row
COLUMNS = ["density", "settings", "model", "seed", "gap", "stderr", "modes", "share", "fold"]
COLUMNS += ["updates", "seconds", "notes"]


class Critic(torch.nn.Module):
    """Table 6's energy."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        first, second, last = (
            torch.nn.Linear(*sizes) for sizes in ((n_features, 100), (100, 100), (100, 1))
        )
        self.layers = torch.nn.Sequential(first, torch.nn.PReLU(), second, torch.nn.PReLU(), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[:, 0]


def table_6(n_features: int) -> torch.nn.Module:
    return Critic(n_features)


def estimator(settings: str, model: str, seed: int, args: argparse.Namespace) -> BoundsEBM:
    """Return our estimator, or one with all that the paper states."""
    shared = {"max_iter": args.updates or UPDATES[args.mode], "random_state": seed}
    if args.mode == "full":
        shared["checkpoint_dir"] = args.output / "checkpoints"
    if args.smoke:
        shared["n_restarts"] = 1
    if settings == OURS:
        own = {"base": "gaussian", "refine": False} | MODELS[model] | shared
        own["refine"] = 3 if own["refine"] and args.smoke else own["refine"]
        return BoundsEBM(**own)
    stated = {"energy": table_6, "standardize": False, "log_partition": None}
    return BoundsEBM.from_paper("toy", **(stated | MODELS[model] | shared))


def panels(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Return settings and models; the paper does not refine."""
    names = [BB] if args.smoke else list(MODELS)
    pairs = [(s, m) for s in (OURS, PAPER) for m in names if s == OURS or m != REFINED]
    return [(s, m) for s, m in pairs if s in args.settings and m in args.models]


def names(args: argparse.Namespace) -> list[str]:
    return args.densities[: 1 if args.smoke else None]


def stem(args: argparse.Namespace) -> str:
    """Return how files of a mode begin, and of a number of updates that is not the mode's."""
    own = f"_{args.updates}" if args.updates else ""
    return f"bb_figure_2_{args.mode}{own}"


def saved(density: str, settings: str, model: str, args: argparse.Namespace) -> Path:
    """Return the file of the pictures of seed 0."""
    return args.output / f"{stem(args)}_{slug(density, settings, model)}.npz"


def midpoints(args: argparse.Namespace) -> np.ndarray:
    cells = CELLS[args.mode]
    axis = HALF * (2 * (np.arange(cells) + 0.5) / cells - 1)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)


def picture(values: np.ndarray) -> np.ndarray:
    """Return the density, averaged over pixels, from unnormalized log densities on the square."""
    cells = round(len(values) ** 0.5)
    log_mass = values - logsumexp(values)
    block = cells // PIXELS
    mass = np.exp(log_mass).reshape(PIXELS, block, PIXELS, block).sum((1, 3))
    return mass / (2 * HALF / PIXELS) ** 2


def fitted(est: BoundsEBM, X: np.ndarray) -> tuple[float, str]:
    """Fit; return the seconds and what the generator is warned of."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est.fit(X)
    folds = any(issubclass(w.category, GeneratorWarning) for w in caught)
    return time.perf_counter() - start, "generator warns" if folds else "-"


def one(density: str, settings: str, model: str, seed: int, args: argparse.Namespace) -> list:
    case = cases()[density]
    X = case.density.sample(ROWS[args.mode], random_state=seed)
    T = case.density.sample(N_TEST, random_state=5000 + seed)
    est = estimator(settings, model, seed, args)
    try:
        seconds, notes = fitted(est, X)
    except ConvergenceError:  # allowed: loud, and without a model
        return [float("nan")] * 5 + [0, float("nan"), "ConvergenceError"]
    values = est.score_samples(midpoints(args))
    log_z = logsumexp(values) + 2 * np.log(2 * HALF / CELLS[args.mode])
    gap = case.density.log_density(T) - est.score_samples(T) + log_z
    if seed == 0:
        pictures = {"density": picture(values), "tempered": picture(TEMPERING * values)}
        np.savez(saved(density, settings, model, args), **pictures)
    found = modes(case, est.sample(N_TEST, random_state=seed, method="generator"))
    print(f"{density}, {settings}, {model}, seed {seed}: {seconds:.0f} s", flush=True)
    stderr = float(gap.std(ddof=1) / len(gap) ** 0.5)
    return [float(gap.mean()), stderr, *found, est.fold_fraction_, est.n_iter_, seconds, notes]


def draw(density: str, args: argparse.Namespace) -> None:
    """Data and densities, each pair of rows at temperature 1 and tempered."""
    import matplotlib.pyplot as plt

    case = cases()[density]
    shown = [(s, m) for s, m in panels(args) if saved(density, s, m, args).exists()]
    if not shown:
        return
    rows, columns = (list(dict.fromkeys(kind)) for kind in zip(*shown, strict=True))
    size = (2 * len(rows), 1 + len(columns))
    figure, axes = plt.subplots(*size, figsize=(2.1 * size[1], 2.3 * size[0]), squeeze=False)
    truth = case.density.log_density(midpoints(args))
    half = HALF if case.centers is None else NEARER
    for i, settings in enumerate(rows):
        upper, lower = axes[2 * i], axes[2 * i + 1]
        upper[0].plot(*case.density.sample(3000, random_state=0).T, ".", markersize=0.7)
        _finish(upper[0], "data", half)
        upper[0].set_ylabel(f"{settings}: density, T = 1", fontsize=8)
        _show(lower[0], "truth", picture(TEMPERING * truth), HALF)
        lower[0].set_ylabel(f"{settings}: tempered, T = {1 / TEMPERING:g}", fontsize=8)
        for j, model in enumerate(columns, 1):
            if (settings, model) not in shown:
                upper[j].axis("off")
                lower[j].axis("off")
                continue
            found, top = np.load(saved(density, settings, model, args)), picture(truth).max()
            _show(upper[j], model, found["density"], half, top)
            _show(lower[j], model, found["tempered"], HALF)
    save_figure(figure, args, f"{stem(args)}_{slug(density)}.png")
    plt.close(figure)


def _show(ax: Any, title: str, values: np.ndarray, half: float, top: float = np.inf) -> None:
    """Show a density, brightest at its own largest value or at `top`."""
    bright = min(values.max(), top)
    ax.imshow(values, origin="lower", extent=(-HALF, HALF) * 2, vmin=0, vmax=bright)
    _finish(ax, title, half)


def _finish(ax: Any, title: str, half: float) -> None:
    ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], aspect="equal")
    ax.set_title(title, fontsize=8)


def summary(density: str, settings: str, model: str, rows: list[list[str]]) -> list[Any]:
    """Return a row of the table, means over seeds."""
    values = np.array([row[4:-1] for row in rows], dtype=float)
    gap, _, n_modes, share, fold, updates, seconds = values.T
    stderr = f" ± {values[0, 1]:.3f}" if len(rows) == 1 else ""
    near = ["-", "-"]
    if cases()[density].centers is not None:
        near = [mean_std(n_modes, 1), mean_std(share)]
    notes = ", ".join(sorted({row[-1] for row in rows} - {"-"})) or "-"
    ends = [f"{updates.mean():.0f}", f"{seconds.mean():.0f}", len(rows), notes, "a picture"]
    return [density, settings, model, mean_std(gap) + stderr, *near, mean_std(fold), *ends]


def arguments() -> argparse.Namespace:
    return mode(
        __doc__,
        seeds={"smoke": 1, "quick": 1, "full": 3},
        densities={"nargs": "+", "choices": list(cases()), "default": list(cases())},
        settings={"nargs": "+", "choices": (OURS, PAPER), "default": [OURS, PAPER]},
        models={"nargs": "+", "choices": list(MODELS), "default": list(MODELS)},
        **OPTIONS,
    )


def main() -> None:
    args = arguments()
    for category in (NormalizationWarning, ConvergenceWarning):
        warnings.simplefilter("ignore", category)  # all densities are normalized on the square
    print_title("BB Figure 2: toy densities, nats", args)
    if args.hours:
        return print_hours(
            {
                f"{n}, {settings}, {model}": (
                    lambda k=settings, m=model: estimator(k, m, 0, args),
                    cases()[n].density.sample(ROWS[args.mode], random_state=0),
                    args.seeds,
                )
                for n in names(args)
                for settings, model in panels(args)
            },
            args,
        )
    table = []
    for name in names(args):
        for settings, model in panels(args):
            kept = own_file(stem(args), [name, settings, model], COLUMNS, KEY, args)
            if kept is None:
                continue
            rows = [
                kept.get(
                    [name, settings, model, seed],
                    lambda n=name, k=settings, m=model, s=seed: one(n, k, m, s, args),
                )
                for seed in seeds_of(kept, args)
            ]
            table.append(summary(name, settings, model, rows))
    columns = ["density", "settings", "model", "gap", "modes", "share near", "folded"]
    print_table([*columns, "updates", "seconds", "seeds", "notes", "paper"], table)
    print(
        f"gap: truth minus model per row over {N_TEST} new rows, the model at temperature 1 and "
        "normalized on the square from -4 to 4; ± standard error for one seed, else sd over seeds. "
        "modes, share near: of the generator's rows, within 4 standard deviations of a center."
    )
    for name in {row[0]: None for row in table}:
        draw(name, args)


if __name__ == "__main__":
    main()
