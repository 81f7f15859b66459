"""The page of truths: closed forms, and how an estimate is held against one."""

import math

import numpy as np
import torch

from skebm.bases.mixture import MixtureBase

# -- an estimate against its truth: near in units of its own error, and that error small -----------


def assert_estimate(value, stderr, truth, largest_stderr, z=4):
    assert 0 <= stderr <= largest_stderr, f"too vague: {value} +- {stderr}"
    assert abs(value - truth) <= z * stderr, f"{value} +- {stderr} against {truth}"


def assert_mean(values, truth, largest_stderr, z=4):
    values = np.asarray(values, dtype=np.float64)
    stderr = values.std() / math.sqrt(len(values))
    assert_estimate(values.mean(), stderr, truth, largest_stderr, z)


def assert_variance(values, truth, largest_stderr, z=4):
    """Independent values; `largest_stderr` is relative to the truth."""
    values = np.asarray(values, dtype=np.float64)
    assert_mean((values - values.mean()) ** 2 / truth, 1.0, largest_stderr, z)


# -- Gaussians -------------------------------------------------------------------------------------


def gaussian_log_z(d, precision=1.0):
    """Log of the integral of exp(-precision |x|^2 / 2) over d dimensions."""
    return 0.5 * d * math.log(2 * math.pi / precision)


def tilted_log_z(d, k):
    """Log of the integral of exp(-k |x|^2 / 2) N(x; 0, I)."""
    return -0.5 * d * math.log1p(k)


def gaussian_entropy(cov):
    cov = np.atleast_2d(cov)
    return 0.5 * (len(cov) * math.log(2 * math.pi * math.e) + np.linalg.slogdet(cov)[1])


class Quadratic(torch.nn.Module):
    """E = k |x - m|^2 / 2, so exp(-E/T) is N(m, T/k I); k is a parameter."""

    def __init__(self, k=1.0, mean=0.0):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(float(k)))
        self.mean = mean

    def forward(self, x):
        return 0.5 * self.k * (x - self.mean).square().sum(-1)


def normal_base(d, scale=1.0, mean=0.0):
    """The base N(mean, scale^2 I)."""
    means, cov = np.full((1, d), mean), scale**2 * np.eye(d)[None]
    return MixtureBase.from_moments(np.ones(1), means, cov, "cpu")


def quadratic(x):
    """The target of N(0, I): U and score."""
    return 0.5 * x.square().sum(-1), -x


# -- chains ----------------------------------------------------------------------------------------


def langevin_variance(a, b, s=1.0):
    """Stationary variance of x <- x - a x / s^2 + b z: algorithms.md 0.3."""
    return b**2 / (1 - (1 - a / s**2) ** 2)


def mala_acceptance(eps, x, z):
    """Acceptance probability on N(0, 1) of the proposal x - eps x + sqrt(2 eps) z."""
    y = x - eps * x + math.sqrt(2 * eps) * z
    return np.minimum(1, np.exp(eps * (x**2 - y**2) / 4))  # log ratio: eps (|s(x)|^2-|s(y)|^2)/4


# -- grids -----------------------------------------------------------------------------------------


def grid(low, high, n, d):
    """Midpoints (n^d, d) and the cell's volume, float64."""
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n * (high - low) + low
    return torch.cartesian_prod(*[axis] * d).reshape(-1, d), ((high - low) / n) ** d


def autograd_score(log_prob, x):
    leaf = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(log_prob(leaf).sum(), leaf)[0]
