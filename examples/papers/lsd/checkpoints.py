"""LSD Figure 7: checkpoints of likelihood models, ranked without their normalizers.

A mixture of diagonal Gaussians trained by EM, and where zuko is installed a flow of affine
couplings (RealNVP) trained by Adam, are kept at seven times of their training. On held-out images:
bits per dimension, the learned Stein discrepancy (LSD, lambda = 0.5) and the objective of score
matching, E[|s|^2 / 2 + div s], both of which see the model's score alone. Rank correlation of
either with bits per dimension over the checkpoints; 1 means that it orders them as likelihood does.
The critic's three parts (80/10/10 %) are all rows that the bits are computed on.

"LSD" is the package's value on the last tenth, of the snapshot whose mean of Stein values less
penalty is best on the tenth that chooses. "LSD, mean - sd" is the published rule (Alg. 1), from the
same critics: the mean on the tenth that chooses, of the snapshot whose mean less standard deviation
is best there. Where a few rows have large Stein values no snapshot but the first may have a mean
above its sd, and that value is near 0 whatever the model.

The paper has Glow flows on MNIST at 28 x 28, 2.0 to 1.8 bits, and a picture without numbers. Here
the images are MNIST averaged to 7 x 7 and rounded (10,000 train, 10,000 are held out) from the
folder named by SKEBM_DATA, else scikit-learn's 8 x 8 digits (900 and 897); noise is added and the
logit taken (B.6.2), columns are standardized. ``--mode full`` has the paper's critic (2 x 1000,
100 passes with batches of 128, one snapshot a pass) in place of 2 x 300 and 600 updates. The
density of such rows jumps between gray levels, so that its own score, and the optimal critic, are
no functions; the critic is a smooth one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm.datasets import Dequantize, Logit
from skebm.metrics import bits_per_dim
from skebm.networks import Critic
from skebm.stein import CriticSettings, learned_stein_discrepancy

sys.path.append(str(Path(__file__).parents[3]))
from examples.papers._images import pooled
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

L2 = 0.5
SPLIT = (0.8, 0.1, 0.1)  # Alg. 1
MIXTURE, FLOW = "mixture, EM steps", "flow, updates"
TIMES = {
    MIXTURE: {"smoke": (1, 2, 4), "quick": (1, 2, 3, 5, 8, 14, 20)},
    FLOW: {"smoke": (5, 10), "quick": (5, 20, 60, 150, 300, 500, 700)},
}
MOST_COMPONENTS, ROWS_PER_COMPONENT = 20, 150
BLOCK = 1000  # rows whose second derivatives are computed at once
LEAST = 0.9  # rank correlation
BITS, LSD, BY_SD, MATCHING = "bits per dim", "LSD", "LSD, mean - sd", "score matching"
MEASURES = (BITS, LSD, BY_SD, MATCHING)
PAPER = {LSD: "-", BY_SD: "tracks likelihood", MATCHING: "not highly correlated"}
COLUMNS = ["model", "seed", "time", *(f"{m}{end}" for m in MEASURES for end in ("", " stderr"))]
COLUMNS += ["seconds"]


class Images(NamedTuple):
    """Integers (n, d), the number of gray levels and a name."""

    name: str
    levels: int
    train: np.ndarray
    held_out: np.ndarray


class Checkpoint:
    """A density with a torch log density; what it gives is in nats and standardized units."""

    def __init__(self, log_prob: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.log_prob = log_prob

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([self.log_prob(x).numpy() for x in blocks(X)])

    def score_function(self, X: np.ndarray) -> np.ndarray:
        scores = [self._score(x.requires_grad_(), False) for x in blocks(X)]
        return np.concatenate([s.numpy() for s in scores])

    def score_matching(self, X: np.ndarray) -> np.ndarray:
        """Return |s|^2 / 2 + div s of each row, the divergence exact."""
        return np.concatenate([self._score_matching(x.requires_grad_()) for x in blocks(X)])

    def _score(self, x: torch.Tensor, create_graph: bool) -> torch.Tensor:
        return torch.autograd.grad(self.log_prob(x).sum(), x, create_graph=create_graph)[0]

    def _score_matching(self, x: torch.Tensor) -> np.ndarray:
        score = self._score(x, create_graph=True)
        values = score.detach().square().sum(1) / 2
        for j in range(x.shape[1]):
            values += torch.autograd.grad(score[:, j].sum(), x, retain_graph=True)[0][:, j]
        return values.numpy()


def blocks(X: np.ndarray) -> list[torch.Tensor]:
    return [x.clone() for x in torch.from_numpy(np.asarray(X)).float().split(BLOCK)]


@lru_cache(maxsize=1)
def images(smoke: bool) -> Images:
    """Read MNIST at 7 x 7, or digits where SKEBM_DATA is unset."""
    folder = os.environ.get("SKEBM_DATA")
    if smoke or not folder:
        X = np.random.RandomState(0).permutation(load_digits().data)
        n = 300 if smoke else 900
        return Images("digits, 8 x 8", 17, X[:n], X[900 : 900 + 3 * n])
    parts = []
    for name in ("mnist_train10k", "mnist_test"):
        with np.load(Path(folder) / "images" / f"{name}.npz") as file:
            parts.append(np.floor(pooled(file["X"], 4)))
    return Images("MNIST, 7 x 7", 256, *parts)


@lru_cache(maxsize=2)
def prepared(smoke: bool) -> tuple[Pipeline, np.ndarray, np.ndarray]:
    """Return the fitted map to standardized logits, and training and held-out rows there."""
    data = images(smoke)
    steps = make_pipeline(Dequantize(data.levels, random_state=0), Logit(), StandardScaler())
    train = steps.fit_transform(data.train)
    return steps, train, steps.transform(data.held_out)


def mixtures(X: np.ndarray, times: tuple[int, ...], seed: int) -> dict[int, Checkpoint]:
    """Return the mixture after the given numbers of EM steps from random rows."""
    est = GaussianMixture(
        min(MOST_COMPONENTS, len(X) // ROWS_PER_COMPONENT),
        covariance_type="diag",
        reg_covar=1e-3,
        max_iter=1,
        init_params="random_from_data",
        warm_start=True,
        random_state=seed,
    )
    found = {}
    for step in range(1, max(times) + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            est.fit(X)
        if step in times:
            found[step] = Checkpoint(mixture_log_prob(est))
    return found


def mixture_log_prob(est: GaussianMixture) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the log density of a mixture as it is now."""
    arrays = (est.weights_, est.means_, est.covariances_)
    weights, means, variances = (torch.from_numpy(a).float() for a in arrays)
    parts = torch.distributions.Independent(torch.distributions.Normal(means, variances.sqrt()), 1)
    mixing = torch.distributions.Categorical(weights)
    return torch.distributions.MixtureSameFamily(mixing, parts, validate_args=False).log_prob


def flows(X: np.ndarray, times: tuple[int, ...], seed: int) -> dict[int, Checkpoint]:
    """Return the flow after the given numbers of updates."""
    import zuko

    settings = {"transforms": 6, "hidden_features": (128, 128), "activation": torch.nn.SiLU}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = zuko.flows.NICE(X.shape[1], **settings)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    x, found = torch.from_numpy(X).float(), {}
    for step in range(1, max(times) + 1):
        batch = x[torch.randint(len(x), (256,), generator=rng)]
        optimizer.zero_grad()
        (-flow().log_prob(batch).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 100.0)
        optimizer.step()
        if step in times:
            found[step] = Checkpoint(deepcopy(flow).requires_grad_(False)().log_prob)
    return found


@lru_cache(maxsize=1)
def trained(model: str, seed: int, mode_name: str) -> dict[int, Checkpoint]:
    """Return the checkpoints of one training."""
    train = prepared(mode_name == "smoke")[1]
    times = times_of(model, mode_name)
    return (mixtures if model == MIXTURE else flows)(train, times, seed)


def times_of(model: str, mode_name: str) -> tuple[int, ...]:
    return TIMES[model]["smoke" if mode_name == "smoke" else "quick"]


def critic_settings(n: int, mode_name: str) -> CriticSettings:
    """Return how the critic is trained on n held-out rows."""
    short = CriticSettings(l2=L2, n_iter_no_change=None, batch_size=500, split=SPLIT)
    if mode_name != "full":
        return short.with_params(max_iter=20 if mode_name == "smoke" else 600)
    a_pass = max(1, round(0.8 * n / 128))
    schedule = {"max_iter": 100 * a_pass, "eval_every": a_pass}
    return short.with_params(network=Critic((1000, 1000)), batch_size=128, **schedule)


def one(model: str, seed: int, at: int, mode_name: str) -> list[float]:
    """Return the columns of one checkpoint."""
    steps, _, held_out = prepared(mode_name == "smoke")
    checkpoint = trained(model, seed, mode_name)[at]
    model_of_images = Pipeline([*steps.steps, ("model", checkpoint)])
    bits = bits_per_dim(model_of_images, images(mode_name == "smoke").held_out)
    start = time.process_time()
    critic = critic_settings(len(held_out), mode_name)
    lsd = learned_stein_discrepancy(checkpoint, held_out, critic=critic, random_state=seed)
    seconds = time.process_time() - start
    best = max(lsd.history, key=lambda row: row["validation"] - row["validation_sd"])
    by_sd = [best["validation"], best["validation_sd"] / (SPLIT[1] * len(held_out)) ** 0.5]
    matching = checkpoint.score_matching(held_out).astype(np.float64)
    error = matching.std(ddof=1) / len(matching) ** 0.5
    values = [*bits, lsd.value, lsd.stderr, *by_sd, matching.mean(), error, seconds]
    print(f"{model} {at}, seed {seed}: {seconds:.0f} s", flush=True)
    return [float(v) for v in values]


def alone(model: str, args: argparse.Namespace) -> Alone:
    """Return the training of the critic of the first checkpoint, for its time."""
    _, train, held_out = prepared(args.smoke)
    first = times_of(model, args.mode)[:1]
    (checkpoint,) = (mixtures if model == MIXTURE else flows)(train, first, 0).values()
    critic = critic_settings(len(held_out), args.mode)

    def fit(_: None, n: int) -> None:
        short = critic.with_params(max_iter=n)
        learned_stein_discrepancy(checkpoint, held_out, critic=short, random_state=0)

    return Alone(fit, critic.max_iter)


def draw(results: dict[str, list[np.ndarray]], args: argparse.Namespace) -> None:
    """Figure 7: the measures over the training of seed 0."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(results), len(MEASURES), figsize=(15, 3.2 * len(results)), squeeze=False
    )
    for line, (model, found) in zip(axes, results.items(), strict=True):
        at = times_of(model, args.mode)
        for i, (ax, name) in enumerate(zip(line, MEASURES, strict=True)):
            ax.errorbar(at, found[0][:, 2 * i], found[0][:, 2 * i + 1], marker="o", markersize=3)
            ax.set(title=name, xlabel=model, xscale="log")
    save_figure(figure, args, "lsd_figure_7.png")


def checkpoint_rows(results: dict[str, list[np.ndarray]], args: argparse.Namespace) -> list[list]:
    """Return the rows of the first table, of seed 0."""
    rows = []
    for model, found in results.items():
        for at, values in zip(times_of(model, args.mode), found[0], strict=True):
            pairs = zip(values[:-1].reshape(-1, 2), (3, 2, 2, 1), strict=True)
            cells = [f"{v:.{k}f} ± {e:.{k}f}" for (v, e), k in pairs]
            rows.append([model, at, *cells, f"{values[-1]:.0f}"])
    return rows


def correlation_rows(results: dict[str, list[np.ndarray]]) -> list[list]:
    """Return the rows of the second table: rank correlations with bits per dimension."""
    rows = []
    for model, found in results.items():
        for i, name in enumerate(PAPER, 1):
            values = [float(spearmanr(v[:, 0], v[:, 2 * i]).statistic) for v in found]
            met = ("yes" if np.mean(values) >= LEAST else "NO") if name == LSD else "-"
            rows.append([model, name, mean_std(values), len(values), PAPER[name], met])
    return rows


def main() -> None:
    args = mode(__doc__, seeds={"smoke": 1, "quick": 1, "full": 3})
    data = images(args.smoke)
    n, m = len(data.train), len(data.held_out)
    print_title(f"LSD Figure 7: checkpoints on {data.name}, {n} train, {m} held out", args)
    kinds = tuple(TIMES) if find_spec("zuko") else (MIXTURE,)
    if args.hours:
        n_fits = args.seeds * len(times_of(MIXTURE, args.mode))
        fits = {model: (partial(alone, model, args), None, n_fits) for model in kinds}
        return print_hours(fits, args)
    path = args.output / f"lsd_checkpoints_{args.mode}_{data.train.shape[1]}.csv"
    kept = Kept(path, COLUMNS, key=3)
    results = {}
    for model in kinds:
        results[model] = [
            np.array(
                [
                    kept.get([model, s, t], lambda m=model, s=s, t=t: one(m, s, t, args.mode))[3:]
                    for t in times_of(model, args.mode)
                ],
                dtype=float,
            )
            for s in range(args.seeds)
        ]
    print_table(["model", "at", *MEASURES, "LSD CPU s"], checkpoint_rows(results, args))
    print("seed 0; ± standard errors over rows.\n")
    columns = ["model", "measure", "rank correlation", "seeds", "paper", "met"]
    print_table(columns, correlation_rows(results))
    print(
        f"with bits per dimension over {len(times_of(MIXTURE, args.mode))} checkpoints; met: at "
        f"least {LEAST} on average. The flow needs zuko."
    )
    draw(results, args)


if __name__ == "__main__":
    main()
