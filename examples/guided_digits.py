"""Digits of a class that you ask for, with guidance: the more guidance, the clearer and more alike they are.

    python examples/guided_digits.py                 # with a model that comes with ornstein; nothing is trained
    RUN=runs/digits python examples/guided_digits.py

It draws guided_digits.png.
"""

import os

import matplotlib.pyplot as plt
import torch
from sklearn.linear_model import LogisticRegression

import ornstein

RUN = os.environ.get("RUN", "digits")
EACH = int(os.environ.get("EACH", "50"))
SCALES = (0, 1, 2, 6)

# %% [markdown]
# In training, a conditional model sees most examples with their label and some without, so it can answer either way.
# Guidance moves from the answer without the label towards the answer with it, and beyond: scale 0 leaves the label out,
# scale 1 is the conditional model as it was trained, and a larger scale exaggerates what the label changes.

# %%
run = ornstein.load(RUN)
labels = torch.arange(10).repeat_interleave(EACH)
drawn = {}
for scale in SCALES:
    denoiser = ornstein.ClassifierFree(run.denoiser, scale=scale)
    x = ornstein.sample(
        denoiser,
        (len(labels), *run.shape),
        stepper="unipc-auto",
        steps=20,
        seed=0,
        condition=run.condition(len(labels), labels),
    )
    drawn[scale] = run.transform.inverse(x)  # from model space back to grey levels

# %%
figure, axes = plt.subplots(len(SCALES), 10, figsize=(8, 0.9 * len(SCALES)))
for row, scale in zip(axes, SCALES, strict=True):
    for digit, axis in enumerate(row):
        axis.imshow(drawn[scale][digit * EACH, 0], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"scale {scale}", rotation=0, ha="right", va="center")
for digit, axis in enumerate(axes[0]):
    axis.set_title(digit)
figure.savefig("guided_digits.png", dpi=150, bbox_inches="tight")

# %% [markdown]
# Two numbers show what guidance gains and what it costs: how often a classifier reads the digit that was asked for, and
# how much the digits of one class still differ from each other.

# %%
data = run.load_data()
judge = LogisticRegression(max_iter=2000).fit(data.train.flatten(1), data.train_labels)
for scale in SCALES:
    read = (torch.as_tensor(judge.predict(drawn[scale].flatten(1))) == labels).float().mean()
    spread = drawn[scale].reshape(10, EACH, -1).std(1).mean()
    print(f"scale {scale}: read as asked {read:.0%}, spread within a class {spread:.2f} grey levels")
