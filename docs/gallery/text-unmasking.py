"""A passage of text that is unmasked one character at a time, wherever the model is surest."""

import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.layout_engine import ConstrainedLayoutEngine
from style import BLUE, GREY, INK, ORANGE, PURPLE, RED, save

from ornstein.discrete import TOKEN_STEPPERS
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.texts import must_be_tokens
from ornstein.experiment.train import train

torch.set_num_threads(1)
WIDE, SEED, DOT = 52, 1, "#c3cad6"

if sys.argv[1:]:  # a run of any text
    run = Run.load(sys.argv[1])
else:  # on the manual that comes with Python
    with tempfile.TemporaryDirectory() as folder:
        manual = "".join(letter for letter in "\n\n".join(topics.values()) if letter.isascii())
        Path(folder, "manual.txt").write_text(manual, "utf-8")
        changes = [f"data.path={folder}/manual.txt", "training.steps=1200", "training.precision=float32",
                   "training.threads=1", "training.validate_every=100000"]  # fmt: skip
        for _ in train(Experiment.read("text", changes), f"{folder}/run", draws=False):
            pass
        run = Run.load(f"{folder}/run")

classes, tokens = must_be_tokens(run), run.shape[0]
states = list(run.trajectory(1, stepper=TOKEN_STEPPERS["confidence"](), steps=tokens, seed=SEED))
known = torch.cat([classes.categories.known(state.x) for state in states])
moment = known.int().argmax(0)  # the number of characters that stood there when each came, itself included
codes, text = classes.inverse(states[-1].x)[0].long(), classes.texts(states[-1].x)[0]
answers = torch.stack([state.x0.reshape(tokens, classes.count) for state in states])
sure = answers[moment - 1, torch.arange(tokens), codes]
order = moment.argsort()
print(f"{text}\n{float((sure > 0.5).float().mean()):.0%} of the characters were likelier than not")
for part, name in ((order, "all"), (order[-tokens // 4 :], "the last quarter")):
    print(f"{name}: {-float(sure[part].log2().mean()):.2f} bits a character")

places, row, column = [], 0, 0
for letter in text:  # where each character stands, with lines broken as they will be in the end
    row, column = (row + 1, 0) if column == WIDE else (row, column)
    places.append((row, column))
    row, column = (row + 1, 0) if letter == "\n" else (row, column + 1)

figure, axes = plt.subplots(3, 2, figsize=(8.6, 5.54), layout=ConstrainedLayoutEngine(hspace=0.06, wspace=0.03))


def passage(panel: Any, title: str, shown: list[str], colours: list[Any]) -> None:
    """The passage, character by character."""
    panel.set(xlim=(-0.5, WIDE), ylim=(row + 0.6, -0.6), title=title)
    panel.axis("off")
    for (line, place), letter, colour in zip(places, shown, colours, strict=True):
        panel.text(place, line, letter, family="monospace", size=8.6, color=colour, ha="center", va="center")


stages = [0, tokens // 16, tokens // 4, tokens // 2, 3 * tokens // 4]
for panel, (before, now) in zip(axes.flat, pairwise(stages), strict=False):
    there = moment <= now
    shown = [c if k else "·" for c, k in zip(text, there.tolist(), strict=True)]
    fresh = [DOT if m > now else ORANGE if m > before else INK for m in moment.tolist()]
    passage(panel, f"{now} of {tokens}", shown, fresh)

for panel, title, values, colours in (
    (axes[2, 0], "when each came, from dark to orange", moment / tokens, (INK, BLUE, PURPLE, ORANGE)),
    (axes[2, 1], "how sure the model was, from red to dark", sure, (RED, GREY, INK)),
):
    palette = LinearSegmentedColormap.from_list(title, colours)
    passage(panel, title, list(text), [palette(value) for value in values.tolist()])
save(figure)
