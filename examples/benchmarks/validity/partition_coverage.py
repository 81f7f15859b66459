"""The standard errors of log Z are honest, and exp(score_samples) integrates to one.

Importance sampling and AIS are run with many seeds on Gaussian targets in 2 to 50 dimensions, whose
log Z is known, from the base N(0, I), and on a fitted 2-D model, whose log Z quadrature finds.
With z = (estimate - truth) / stderr, the standard deviation of z has to be in [0.7, 1.4] and no
stderr above 0.05 nats. Importance weights have a finite variance only where the target is narrower
than twice the base, and enough precision in 50 dimensions only close to it: the table has the range
of the target's variances and the length of its mean. AIS gets variances from 0.5 to 2 throughout.

Then exp(score_samples) of fitted models is integrated: on a grid in 2-D (within 1 %), in 10-D by
importance sampling from a proposal that the model has never seen (within 3 standard errors).

Run: python examples/benchmarks/validity/partition_coverage.py
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, ortho_group
from sklearn.mixture import GaussianMixture

from skebm import HybridCDDensity
from skebm.bases.mixture import MixtureBase
from skebm.datasets import checkerboard
from skebm.energies import Energy, Model
from skebm.partition import AIS, ImportanceSampling, Quadrature

sys.path.append(str(Path(__file__).parents[3]))
from examples.benchmarks._common import parse, plus_minus, print_table, print_title, yes

METHODS = {"importance": ImportanceSampling, "ais": AIS}
DIMENSIONS = (2, 5, 10, 20, 50)
# smallest and largest variance of the target, length of its mean
FAR = (0.5, 2.0, 1.0)
NEAR = {2: (0.5, 1.5, 1.0), 5: (0.5, 1.5, 1.0), 10: (0.7, 1.4, 1.0), 20: (0.7, 1.4, 0.7)}
NEAREST = (0.8, 1.25, 0.5)


class GaussianEnergy(Energy):
    """E such that exp(-E) N(0, I) is proportional to N(mean, covariance), peak of exp(-U) 1."""

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("precision", torch.from_numpy(np.linalg.inv(covariance)).float())
        self.constant = 0.5 * len(mean) * math.log(2 * math.pi)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value_and_gradient(x)[0]

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x - self.mean
        pulled = y @ self.precision
        value = 0.5 * (y * pulled).sum(-1) - 0.5 * x.square().sum(-1) - self.constant
        return value, pulled - x


def gaussian_case(d: int, low: float, high: float, length: float) -> tuple[Model, float]:
    """Return a model with base N(0, I) and its exact log Z."""
    rng = np.random.RandomState(d)
    axes = ortho_group.rvs(d, random_state=rng)
    variances = np.geomspace(low, high, d)
    direction = rng.randn(d)
    mean = length * direction / np.linalg.norm(direction)
    energy = GaussianEnergy(mean, (axes * variances) @ axes.T)
    base = MixtureBase.from_moments(np.ones(1), np.zeros((1, d)), np.eye(d)[None], "cpu")
    return Model(energy, base, 1.0), 0.5 * (d * math.log(2 * math.pi) + np.log(variances).sum())


def fitted_case(args) -> tuple[Model, float, float]:
    """Fit a checkerboard over a Gaussian base; log Z by quadrature on 1024^2 intervals.

    The third value is the change from 512^2 intervals.
    """
    X = checkerboard().sample(500 if args.smoke else 10_000, random_state=0)
    max_iter = 25 if args.smoke else 300
    est = HybridCDDensity(base="gaussian", max_iter=max_iter, random_state=0, log_partition=None)
    est.fit(X)
    model = Model(est.energy_, est.base_, est.temperature_)
    # a tolerance that is never reached refines the grid to the end
    truth = Quadrature(tol=1e-2 if args.smoke else 1e-12).estimate(
        model, model.base, torch.Generator().manual_seed(0)
    )
    return model, truth.value, truth.stderr


def coverage(case: str, name: str, model: Model, truth: float, n_seeds: int) -> list:
    """Estimate log Z with many seeds and return a row of the table."""
    start, z, stderr = time.perf_counter(), [], []
    for seed in range(n_seeds):
        rng = torch.Generator().manual_seed(seed)
        result = METHODS[name]().estimate(model, model.base, rng)
        z.append((result.value - truth) / result.stderr)
        stderr.append(result.stderr)
    seconds = (time.perf_counter() - start) / n_seeds
    spread = float(np.std(z, ddof=1))
    row = [case, name, f"{truth:.4f}", f"{np.mean(z):+.2f}", f"{spread:.2f}"]
    row += [f"{np.median(stderr):.4f}", f"{max(stderr):.4f}", f"{seconds:.2f}"]
    return [*row, "sd z 0.7-1.4, stderr <= 0.05", yes(0.7 <= spread <= 1.4 and max(stderr) <= 0.05)]


def grid_integral(args) -> list:
    """Integrate exp(score_samples) of a fitted 2-D model on a grid."""
    X = checkerboard().sample(500 if args.smoke else 10_000, random_state=1)
    est = HybridCDDensity(base="gaussian", max_iter=25 if args.smoke else 300, random_state=1)
    est.fit(X)
    n, half = (150 if args.smoke else 600), 16.0  # seven standard deviations each way
    axis = -half + 2 * half * (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    value = float(np.exp(logsumexp(est.score_samples(grid))) * (2 * half / n) ** 2)
    case = f"fitted 2-D, grid of {n} x {n}"
    return [
        case,
        "-",
        "1",
        f"{value - 1:+.4f}",
        *["-"] * 4,
        "within 0.01",
        yes(abs(value - 1) <= 0.01),
    ]


def bent_table(n: int, seed: int) -> np.ndarray:
    """Return n rows of five bent pairs of columns, mixed by a fixed matrix: (n, 10)."""
    rng = np.random.RandomState(seed)
    z = rng.randn(n, 10)
    z[:, 1::2] = 0.5 * z[:, 1::2] + 0.7 * (z[:, ::2] ** 2 - 1)
    return z @ (np.eye(10) + 0.3 * np.random.RandomState(0).randn(10, 10))


def proposal(X: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw from a widened mixture with one wide Gaussian; return rows and log densities."""
    mixture = GaussianMixture(8, random_state=seed).fit(X)
    means = [*mixture.means_, X.mean(0)]
    covariances = [*(1.5 * mixture.covariances_), 2.0 * np.cov(X, rowvar=False)]
    weights = np.array([*(0.7 * mixture.weights_), 0.3])
    rng = np.random.RandomState(seed)
    counts = rng.multinomial(n, weights)
    parts = [multivariate_normal(m, c) for m, c in zip(means, covariances, strict=True)]
    pairs = zip(parts, counts, strict=True)
    rows = np.concatenate([p.rvs(k, random_state=rng).reshape(k, -1) for p, k in pairs])
    return rows, logsumexp([p.logpdf(rows) for p in parts], axis=0, b=weights[:, None])


def independent_integral(base: str, args) -> list:
    """Integrate exp(score_samples) in 10-D; the error includes that of log Z."""
    X = bent_table(500 if args.smoke else 5_000, seed=0)
    est = HybridCDDensity(base=base, random_state=0)
    if args.smoke:
        est.set_params(max_iter=25, log_partition="importance")
    est.fit(X)
    rows, log_q = proposal(X, 2_000 if args.smoke else 200_000, seed=1)
    weight = np.exp(est.score_samples(rows) - log_q)
    value = float(weight.mean())
    stderr = math.hypot(float(weight.std() / len(weight) ** 0.5), est.log_partition_.stderr)
    case = f"fitted 10-D, {base} base"
    gap = [f"{plus_minus((value - 1, stderr))}", *["-"] * 4]
    met = yes(abs(value - 1) <= 3 * stderr)
    return [case, est.log_partition_.method, "1", *gap, "within 3 stderr", met]


def main() -> None:
    args = parse(__doc__, seeds=100)
    if args.smoke:
        args.seeds = 2
    print_title("log Z against the truth: z-scores over seeds, nats", args)
    rows = []
    for d in DIMENSIONS[:2] if args.smoke else DIMENSIONS:
        for name in METHODS:
            low, high, length = FAR if name == "ais" else NEAR.get(d, NEAREST)
            model, truth = gaussian_case(d, low, high, length)
            case = f"Gaussian {d}-D, variances {low}-{high}, |mean| {length}"
            rows.append(coverage(case, name, model, truth, args.seeds))
    model, truth, change = fitted_case(args)
    for name in METHODS:
        rows.append(coverage("checkerboard, Gaussian base", name, model, truth, args.seeds))
    rows.append(grid_integral(args))
    rows += [independent_integral(base, args) for base in ("gaussian", "mixture")]
    columns = ["case", "method", "truth", "mean z", "sd z", "median stderr", "max stderr"]
    print_table([*columns, "s each", "bar", "met"], rows)
    print(
        f"checkerboard: truth by quadrature, changed by {change:.1e} under the last halving. "
        "Last three rows: the integral of exp(score_samples) minus 1 in place of z."
    )


if __name__ == "__main__":
    main()
