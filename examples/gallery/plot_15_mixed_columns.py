"""
Text, counts, amounts and holes
===============================

A data frame goes into ``fit`` as it is; flags, reasons, samples and filled cells have its types.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skebm.ood import NoveltyDetector, reasons

rng = np.random.RandomState(0)
n = 800
plan = rng.choice(["basic", "family", "pro"], n, p=[0.5, 0.3, 0.2])
level = pd.Series(plan).map({"basic": 2.0, "family": 3.0, "pro": 4.5}).to_numpy()
table = pd.DataFrame(
    {
        "plan": plan,
        "age": np.clip(rng.normal(40, 12, n).round(), 18, 90).astype(int),
        "paid": np.where(rng.uniform(size=n) < 0.3, 0.0, np.exp(rng.normal(level, 0.4))).round(2),
        "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.randint(0, 700, n), unit="D"),
    }
)
table.loc[5, ["plan", "paid"]] = ["basic", 120.0]  # much for that plan
table.loc[6, "plan"] = None
detector = NoveltyDetector(random_state=0).fit(table)

# %%
print(reasons(detector, table[5:6])[0][0])
print(detector.estimator_.conditional_mean(table[6:7]))
drawn = detector.estimator_.sample(800, random_state=0)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharex=True, sharey=True, layout="constrained")
for ax, rows, title in zip(axes, (table, drawn), ("table", "samples"), strict=True):
    for name, color in zip(("basic", "family", "pro"), ("C0", "C1", "C2"), strict=True):
        some = rows[rows["plan"] == name]
        ax.scatter(some["age"], some["paid"] + 1, s=4, color=color, label=name)
    ax.set(title=title, yscale="log", xlabel="age")
axes[0].set_ylabel("paid + 1")
axes[0].legend()
assert set(drawn["plan"]) <= {"basic", "family", "pro"} and (drawn["paid"] >= 0).all()
