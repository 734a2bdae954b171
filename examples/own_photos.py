"""A model of your own pictures: train it, draw new ones, and see that they are not copies.

    python examples/own_photos.py                       # without pictures of yours: handwritten digits, as PNG files
    PHOTOS=holiday python examples/own_photos.py        # a folder of yours

It draws own_photos.png.
"""

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from PIL import Image
from sklearn.datasets import load_digits

import ornstein

PHOTOS = os.environ.get("PHOTOS", "")
CHANGES: dict[str, Any] = {"steps": int(os.environ["STEPS"])} if "STEPS" in os.environ else {"minutes": 3}

# %% [markdown]
# A folder is all that you need: its contents decide the size, colours, network, batch and steps. Two or more
# sub-folders become classes. If you give no folder, this writes one of 1,797 digits, with a sub-folder for each digit.

# %%
if not PHOTOS:
    PHOTOS = "digits-as-pictures"
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = Path(PHOTOS, str(label), f"{i:04}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).save(file)

# %% [markdown]
# `minutes` sets the number of steps: a few are timed first. `model.save("runs/mine")` would keep the run.

# %%
model = ornstein.fit(PHOTOS, **CHANGES)
print(f"{model.run.experiment.training.steps:,} steps, classes: {', '.join(model.run.classes) or 'none'}")

# %% [markdown]
# Samples are bytes, like the pictures: (N, channels, height, width).

# %%
new = torch.as_tensor(model.sample(16, seed=0)).float()
data = model.run.load_data()
real = data.train.float()
distance = torch.cdist(new.flatten(1), real.flatten(1))
nearest = real[distance.argmin(1)]

figure, axes = plt.subplots(2, 16, figsize=(12, 1.9))
for column in range(16):
    for row, pictures in enumerate((new, nearest)):
        axes[row, column].imshow(pictures[column].permute(1, 2, 0).byte(), cmap="gray")
        axes[row, column].axis("off")
axes[0, 0].set_title("drawn", loc="left", fontsize=9)
axes[1, 0].set_title("the training picture nearest to each", loc="left", fontsize=9)
figure.savefig("own_photos.png", dpi=150, bbox_inches="tight")

# %% [markdown]
# Copies would be far closer to a training picture than held-out pictures are.

# %%
apart = torch.cdist(data.test.float().flatten(1), real.flatten(1)).min(1).values.median()
print(f"median distance to the nearest: drawn {distance.min(1).values.median():.0f}, held out {apart:.0f}")
