"""A bridge: one cloud of points carried into another and back, without being told which point goes where.

    python examples/bridge.py

It draws bridge.png.
"""

import os
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.collections import LineCollection

import ornstein
from ornstein.experiment.translate import carry

CHANGES: dict[str, Any] = {"steps": int(os.environ["STEPS"])} if "STEPS" in os.environ else {}

# %% [markdown]
# The preset `bridge` leads from two moons to eight Gaussians, by flow matching on the optimal pairs of each batch. With
# `**{"data.source": A, "data.target": B}` it takes any two data sets of the same shape: folders, files or names.

# %%
run = ornstein.fit("bridge", **CHANGES).run
data = run.load_data()
print(f"{run.experiment.training.steps:,} steps")

# %% [markdown]
# This carries held-out points of the source to the target. The same network also leads back, so the points can return,
# and end near the place where they began.

# %%
start = data.test_condition[:1000].parts["source"]
there = carry(run, start, film=True, steps=20)
back = carry(run, there.samples, back=True, steps=20)
print(f"sent there and back, a point ends {(back.samples - start).norm(dim=1).median():.3f} from where it began,")
print(f"having gone {(there.samples - start).norm(dim=1).median():.3f} in between (medians)")

# %%
target = data.transform.forward(data.test[:1000])
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, sharey=True)
ways = torch.stack(there.frames, dim=1)  # of the first rows
axes[0].add_collection(LineCollection(list(ways.numpy()), lw=0.5, color="0.6"))
for axis, title, clouds in (
    (axes[0], "the way", ((start[: len(ways)], "source"), (there.samples[: len(ways)], "where they arrive"))),
    (axes[1], "what arrives", ((there.samples, "carried"),)),
    (axes[2], "the target", ((target, "held-out points"),)),
):
    for points, label in clouds:
        axis.scatter(*points.T.numpy(), s=4, label=label)
    axis.set(title=title, xlabel="first coordinate", aspect="equal")
    axis.legend(fontsize=8, loc="upper right")
axes[0].set_ylabel("second coordinate")
figure.savefig("bridge.png", dpi=150, bbox_inches="tight")
