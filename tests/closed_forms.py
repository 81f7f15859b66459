"""The page of truths: closed forms, and how an estimate is held against one."""

import math
from itertools import product

import numpy as np
import torch
from scipy.linalg import solve_discrete_lyapunov
from scipy.special import erf, i0e, i1e, logsumexp

from skebm.bases.mixture import MixtureBase
from tests.generators import randn

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


def sghmc_covariance(eta, friction, mass, k, scheme="symplectic"):
    """Stationary covariance of (x, r) on U = k x^2 / 2: the discrete Lyapunov equation."""
    keep, s = 1 - eta * friction / mass, math.sqrt(2 * eta * friction)
    momentum = np.array([-eta * k, keep])  # r' as a combination of (x, r)
    moving, noise = (momentum, s) if scheme == "symplectic" else (np.array([0.0, 1.0]), 0.0)
    step = np.array([np.array([1.0, 0.0]) + eta / mass * moving, momentum])
    by = np.array([[eta / mass * noise], [s]])
    assert abs(np.linalg.eigvals(step)).max() < 1, "diverges"
    return solve_discrete_lyapunov(step, by @ by.T)


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


def autograd_jacobian(network, x):
    """Row by row, through the forward pass alone: (n, outputs, inputs)."""
    jacobian = torch.autograd.functional.jacobian
    return torch.stack([jacobian(lambda r: network(r[None]).flatten(), row) for row in x])


# -- differences -----------------------------------------------------------------------------------


def slope(function, tensor, direction, step=1e-6):
    """Central difference of a scalar function along a direction of a tensor, changed in place."""
    ends = []
    with torch.no_grad():
        for change in (step, -step):
            tensor += change * direction
            ends.append(function())
            tensor -= change * direction
    return (ends[0] - ends[1]) / (2 * step)


def assert_slopes(function, tensors, rtol=1e-5, least=1e-3):
    """The gradient of a scalar function is that of differences, for each tensor; some move it."""
    gradients = torch.autograd.grad(function(), tensors, allow_unused=True, materialize_grads=True)
    for i, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
        direction = randn(*tensor.shape, seed=20 + i)
        expected = slope(function, tensor, direction)
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=rtol, atol=1e-7)
    assert max(g.abs().max() for g in gradients) > least


# -- divergences, boxes, rings ---------------------------------------------------------------------


def gaussian_kl(mean_p, cov_p, mean_q, cov_q):
    """KL(p || q) of two Gaussians, nats."""
    shift, solved = np.subtract(mean_q, mean_p), np.linalg.solve(cov_q, cov_p)
    square = shift @ np.linalg.solve(cov_q, shift)
    return 0.5 * (np.trace(solved) + square - len(shift) - np.linalg.slogdet(solved)[1])


def normal_box_mass(low, high, means, scales):
    """Mass in a box of each Gaussian with independent columns, shape (k,)."""
    left, right = ((side - np.asarray(means)) / (math.sqrt(2) * scales) for side in (low, high))
    return np.prod(0.5 * (erf(right) - erf(left)), axis=-1)


def rice_mean(radius, s):
    """Mean length of a vector of that length plus N(0, s^2 I) in the plane."""
    half = radius**2 / (4 * s**2)
    return s * math.sqrt(math.pi / 2) * ((1 + 2 * half) * i0e(half) + 2 * half * i1e(half))


# -- series ----------------------------------------------------------------------------------------


def ar1(rho, n, m, rng):
    """Stationary series x_t = rho x_{t-1} + e_t with e ~ N(0, 1), shape (n, m)."""
    x = rng.normal(size=(n, m))
    x[0] /= math.sqrt(1 - rho**2)
    for t in range(1, n):
        x[t] += rho * x[t - 1]
    return x


def ar1_time(rho):
    """Draws per independent draw: 1 + 2 sum of rho^t."""
    return (1 + rho) / (1 - rho)


def half_chains(draws):
    half = len(draws) // 2
    return np.concatenate([draws[:half], draws[len(draws) - half :]], axis=1)


def normal_overlap(shift):
    """Area under both densities N(0, 1) and N(shift, 1)."""
    return 1 - erf(shift / math.sqrt(8))


# -- restricted Boltzmann machines and linear ICA: algorithms.md 3.5 and 3.6 -----------------------


def rbm_mixture(B, b, c):
    """Signs (2^h, h), means (2^h, d) and masses (2^h,) of its unit Gaussians, and log Z."""
    signs = np.array(list(product([-1.0, 1.0], repeat=len(c))))
    means = signs @ np.transpose(B) / 2 + b
    log_mass = signs @ c + np.square(means).sum(1) / 2
    log_z = logsumexp(log_mass)
    return signs, means, np.exp(log_mass - log_z), log_z + gaussian_log_z(len(b))


ICA_CEILINGS = {"logistic": -11.952, "laplace": -8.884}  # D = 10; 16,587 matrices, error 0.0065
