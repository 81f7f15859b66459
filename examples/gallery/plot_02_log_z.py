"""
log Z and its error
===================

A density is only normalized if log Z is known. Three ways to find it, with their error bars, for
one and the same energy: they agree.
"""

import matplotlib.pyplot as plt
import torch

from skebm import HybridCDDensity
from skebm.datasets import two_moons
from skebm.partition import AIS, ImportanceSampling, Quadrature

X = two_moons().sample(1000, random_state=0)
est = HybridCDDensity(base="gaussian", max_iter=150, random_state=0).fit(X)
model, base = est.density_.model, est.base_

# %%
# Quadrature works in up to two columns and is the reference. Importance sampling from the base
# takes as many draws as you give it, annealing as many chains.
methods = {"quadrature": Quadrature()}
methods |= {f"importance, {n:,} draws": ImportanceSampling(n, n) for n in (1000, 10_000, 100_000)}
methods |= {f"annealing, {n} chains": AIS(n_chains=n) for n in (64, 256)}
found = {
    name: method.estimate(model, base, torch.Generator().manual_seed(0))
    for name, method in methods.items()
}
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for i, result in enumerate(found.values()):
    ax.errorbar(result.value, -i, xerr=2 * result.stderr, fmt="o", capsize=4, color="tab:blue")
ax.axvline(found["quadrature"].value, color="gray", linestyle=":")
ax.set(yticks=[-i for i in range(len(found))], yticklabels=found, xlabel="log Z ± 2 errors, nats")

# %%
for result in found.values():
    off = abs(result.value - found["quadrature"].value)
    assert off < 4 * result.stderr + 0.02
