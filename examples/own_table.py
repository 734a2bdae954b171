"""A model of a table: draw new rows and rows that meet a condition, fill holes, find the oddest row.

    pip install "ornstein[tables]" pandas
    python examples/own_table.py                     # without a table of yours: 178 Italian wines
    TABLE=people.csv python examples/own_table.py    # yours; change the names of the columns below

It draws own_table.png.
"""

import os
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_wine

import ornstein

CHANGES: dict[str, Any] = {"steps": int(os.environ["STEPS"])} if "STEPS" in os.environ else {}

# %% [markdown]
# A data frame is all that you need: the contents of the cells decide what are words, numbers, dates and missing values.

# %%
if "TABLE" in os.environ:
    real = pd.read_csv(os.environ["TABLE"])
else:
    real = load_wine(as_frame=True).frame
    real["grower"] = real.pop("target").map(dict(enumerate("ABC")))

model = ornstein.fit(real, **CHANGES)
print(f"{len(real)} rows, {model.run.experiment.training.steps:,} steps")

# %% [markdown]
# Rows come back as a frame of the same kind, with the same columns and types.

# %%
new = model.sample(300, seed=0)
print(new.head(3).T)

# %%
across, up, by = ("alcohol", "color_intensity", "grower") if "grower" in real else real.columns[:3]
figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
for axis, title, rows in ((axes[0], "real", real), (axes[1], "drawn", new)):
    for kind, some in list(rows.groupby(by))[:6]:
        axis.scatter(some[across], some[up], s=12, label=f"{by} {kind}")
    axis.set(title=title, xlabel=across, ylabel=up)
axes[1].legend(fontsize=8)
figure.savefig("own_table.png", dpi=150, bbox_inches="tight")

# %% [markdown]
# Conditions can be on any columns, and are met exactly. Holes are filled given the rest of the row.

# %%
if "grower" in real:
    strong = model.sample(5, seed=0, where="grower=A, alcohol=13.5..14.5")
    print(strong[["grower", "alcohol", "proline"]])
    holes = real.iloc[::60].copy()
    holes["grower"] = None
    filled = model.impute(holes)["grower"]
    print("grown by", *real["grower"].iloc[::60], "- filled in:", *filled)

# %% [markdown]
# The log-likelihood of a row says how usual it is. The oddest one:

# %%
print(real.iloc[model.score_samples(real).argmin()])
