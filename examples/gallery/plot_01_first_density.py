"""
A first density
===============

One ``fit`` gives a normalized log density, an error bar on log Z, and samples.
"""

from skebm import USPDensity
from skebm.datasets import two_moons
from skebm.plots import DensityDisplay

truth = two_moons()
X = truth.sample(1500, random_state=0)
est = USPDensity(base="gaussian", max_iter=600, random_state=0).fit(X)

# %%
# Lines are log densities in nats, dots are rows of the table, crosses draws of the model.
display = DensityDisplay.from_estimator(est, X[:300], n_samples=300, random_state=0)
log_z = est.log_partition_
display.ax_.set_title(f"log Z = {log_z.value:.3f} ± {log_z.stderr:.3f} nats")

# %%
# The truth is known here: how many nats a row is the model away from it?
fresh = truth.sample(2000, random_state=1)
gap = truth.log_density(fresh).mean() - est.score(fresh)
print(f"{gap:.2f} nats below the truth")
assert gap < 0.3
