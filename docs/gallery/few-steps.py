"""A student of few calls, made of the model of digits that comes with the package; both draw from the same noise."""

import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from style import INK, save

from ornstein.experiment.run import Run
from ornstein.experiment.students import student_of
from ornstein.experiment.train import train
from ornstein.metrics import EnergyDistance

torch.set_num_threads(1)
CALLS, DIGITS = (4, 2, 1), torch.arange(10).repeat(100)

teacher = Run.load("digits")
data = teacher.load_data()
rows = {"30 calls": teacher.draw(1000, seed=0, label=DIGITS)}
with tempfile.TemporaryDirectory() as place:
    short = ["training.steps=250", "training.warmup=30", "training.validate_every=250", "training.snapshot_every=0"]
    for moment in train(student_of("digits", "consistency", CALLS, changes=short), Path(place) / "run", draws=False):
        print(f"step {moment.progress.step}: loss {moment.progress.loss:.4f}")
    student = Run.load(Path(place) / "run")
    for name, run in (("student", student), ("teacher", teacher)):
        for calls in CALLS:
            rows[f"{name}, {calls}"] = run.draw(1000, seed=0, label=DIGITS, steps=calls)

real, dice = teacher.transform.forward(data.test), torch.Generator()
print(f"training images: {EnergyDistance()(teacher.transform.forward(data.train[:1000]), real, dice):.4f}")
figure, axes = plt.subplots(len(rows), 1, figsize=(10.6, 5.9))
for axis, (name, drawn) in zip(axes, rows.items(), strict=True):
    print(f"{name}: energy distance to held-out images {EnergyDistance()(drawn, real, dice):.4f}")
    framed = torch.nn.functional.pad(teacher.transform.pictures(drawn[:10])[:, 0], (0, 1), value=1.0)
    axis.imshow(framed.permute(1, 0, 2).flatten(1), cmap="gray", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[], anchor="E")  # the space beside the pictures is for the names
    axis.spines[:].set_visible(False)
    axis.set_ylabel(name, rotation=0, ha="right", va="center", color=INK, size=9)
save(figure)
