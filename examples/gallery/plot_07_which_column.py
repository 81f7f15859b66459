"""
Which value is odd?
===================

A joint density tells which value of a row is hard to reconcile with the others, and what was to be
expected in its place.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

from skebm import USPDensity
from skebm.ood import feature_contributions, reasons

table = load_wine(as_frame=True).data
est = USPDensity(max_iter=200, random_state=0).fit(table.to_numpy())
row = table.to_numpy()[:1].copy()
row[0, 0], row[0, 9] = 11.2, 1.5  # alcohol and color intensity of another wine

# %%
gains = feature_contributions(est, row)[0]
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.barh(table.columns, gains, color=np.where(gains > 3, "tab:red", "tab:blue"))
ax.set_xlabel("what the log density would gain by another value, nats")

# %%
for reason in reasons(est, row, n_columns=2)[0]:
    print(f"{table.columns[reason.column]}: {reason}")
assert {0, 9} & set(np.argsort(-gains)[:2])
