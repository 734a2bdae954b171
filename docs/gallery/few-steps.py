"""A student of few calls is made of the carried model of digits, and both draw from the same noise."""

import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from style import INK, save

from ornstein.experiment.run import Run
from ornstein.experiment.students import student_of
from ornstein.experiment.train import train

torch.set_num_threads(1)
CALLS, DIGITS = (4, 2, 1), torch.arange(10).repeat(30)

teacher = Run.load("digits")
with tempfile.TemporaryDirectory() as place:
    short = ["training.steps=250", "training.warmup=30", "training.validate_every=250", "training.snapshot_every=0"]
    for moment in train(student_of("digits", "progressive", CALLS, changes=short), Path(place) / "run", draws=False):
        print(f"step {moment.progress.step}: loss {moment.progress.loss:.4f}")
    student = Run.load(Path(place) / "run")

    rows = {"teacher, 30 calls": teacher.draw(300, seed=0, label=DIGITS)}
    for calls in CALLS:
        rows[f"student, {calls} call{'s' * (calls > 1)}"] = student.draw(300, seed=0, label=DIGITS, steps=calls)
    for calls in CALLS:
        rows[f"teacher, {calls} call{'s' * (calls > 1)}"] = teacher.draw(300, seed=0, label=DIGITS, steps=calls)

ends = next(iter(rows.values()))
figure, axes = plt.subplots(len(rows), 1, figsize=(9.6, 7.2))
for axis, (name, drawn) in zip(axes, rows.items(), strict=True):
    apart = float((drawn - ends).flatten(1).norm(dim=1).mean())
    print(f"{name}: {apart:.2f} from where the teacher's 30 calls take the same noise")
    wide = torch.nn.functional.pad(teacher.transform.pictures(drawn[:10])[:, 0], (0, 1), value=1.0)
    axis.imshow(wide.permute(1, 0, 2).flatten(1), cmap="gray", vmin=float(wide.min()), vmax=float(wide.max()))
    axis.set_axis_off()
    axis.text(-1.5, 3.5, name, ha="right", va="center", color=INK, size=11)
    axis.text(91, 3.5, f"{apart:.2f}", ha="left", va="center", color=INK, size=11)
spread = float((ends - ends.mean(0)).flatten(1).norm(dim=1).mean())
print(f"samples lie {spread:.2f} from their mean")
axes[0].set_title("distance", loc="right", size=10)
save(figure)
