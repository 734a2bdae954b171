"""Pictures from words: a model of captioned pictures, asked also for words that no caption has together.

    python examples/text_to_emoji.py                       # without data: coloured shapes, drawn and captioned here
    ORNSTEIN_DATA=data python examples/text_to_emoji.py    # emoji, if data/emoji32.npz exists; half an hour

It draws text_to_emoji.png.
"""

import csv
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

import ornstein

EMOJI = Path(os.environ.get("ORNSTEIN_DATA", "."), "emoji32.npz").is_file() and "STEPS" not in os.environ
CHANGES: dict[str, Any] = {"steps": int(os.environ["STEPS"])} if "STEPS" in os.environ else {"minutes": 4}

# %% [markdown]
# Your own pictures are read the same way, from a folder that contains a file of two columns, `file` and `caption`.
# This makes such a folder: six shapes in six colours, 20 pictures of each pair. Six of the 36 pairs are left out, to be
# asked for later.

# %%
COLOURS = {"red": "#d62728", "blue": "#1f5fd0", "green": "#2ca02c", "yellow": "#ecc419", "purple": "#8e44ad",
           "black": "#222222"}  # fmt: skip
CORNERS = {"triangle": 3, "square": 4, "star": 5, "hexagon": 6}
SHAPES = ["circle", "ring", *CORNERS]
UNSEEN = [f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]


def shape(name: str, colour: str, dice: np.random.Generator) -> Image.Image:
    """A shape of about 20 pixels on 24 by 24, drawn four times as large."""
    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    (x, y), r = dice.uniform(42, 54, 2), dice.uniform(30, 38)
    if name in CORNERS:
        count, start = CORNERS[name], -np.pi / (4 if name == "square" else 2)
        inner = [r, 0.45 * r] if name == "star" else [r]
        turns = start + 2 * np.pi * np.arange(count * len(inner)) / (count * len(inner))
        draw.polygon([(x + inner[i % len(inner)] * np.cos(a), y + inner[i % len(inner)] * np.sin(a))
                      for i, a in enumerate(turns)], colour)  # fmt: skip
    else:
        draw.ellipse((x - r, y - r, x + r, y + r), None if name == "ring" else colour, colour, int(0.4 * r))
    return image.resize((24, 24), Image.Resampling.BOX)


SOURCE = "emoji" if EMOJI else "shapes"
if not EMOJI:
    folder, dice = Path(SOURCE), np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    told = [("file", "caption")]
    for caption in [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]:
        for i in range(20 * (caption not in UNSEEN)):
            colour, name = caption.split()
            told.append((f"{caption.replace(' ', '-')}-{i:02}.png", f"a {caption}"))
            shape(name, COLOURS[colour], dice).save(folder / told[-1][0])
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(told)
    CHANGES["data.captions"] = "captions.csv"

# %% [markdown]
# The captions give the vocabulary, and the network learns what the words mean along with everything else. Nothing is
# downloaded.

# %%
run = ornstein.fit(SOURCE, folder=f"runs/{SOURCE}-from-words", **({} if EMOJI else CHANGES)).run
print(f"{run.experiment.training.steps:,} steps, {len(run.conditions['text'].classes)} words")

# %% [markdown]
# `text=` takes one text for all samples, or one for each. In the terminal: `ornstein sample RUN --text "red star"`.

# %%
ASKED = ["red heart", "green apple", "cat face", "blue apple", "purple car", "crying moon"] if EMOJI else UNSEEN
with torch.no_grad():
    drawn = [run.sample(len(ASKED), text=ASKED, seed=seed) for seed in range(3)]
figure, axes = plt.subplots(3, len(ASKED), figsize=(9, 5), layout="constrained")
for row, pictures in zip(axes, drawn, strict=True):
    for axis, picture, text in zip(row, pictures, ASKED, strict=True):
        axis.imshow(picture.permute(1, 2, 0))
        axis.axis("off")
        if row is axes[0]:
            axis.set_title(text, fontsize=10)
figure.savefig("text_to_emoji.png", dpi=150)
print(f"asked for: {', '.join(ASKED)}")
