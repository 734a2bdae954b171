"""A run trained by another run: `ornstein distill RUN --method progressive --steps 1,2,4`.

The student is a run like any other, on the teacher's data, clock and network. It starts from the average of the weights
that the teacher draws with, and stores them, so the teacher may be deleted once it has started; `start` in its
experiment.yaml names the teacher.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ornstein.data import Known
from ornstein.distill import DISTILLATIONS
from ornstein.errors import InputError, lookup, shown
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_folder
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.packaged import place
from ornstein.experiment.start import beginning
from ornstein.experiment.taught import MOST
from ornstein.nets import NETS

#: the names of the methods to users -> the objective
METHODS = {
    "endpoint": "endpoint",
    "progressive": "progressive",
    "consistency": "consistency",
    "reflow": "rectified",
    "moments": "moments",
}
#: the default number of training steps, at most
STEPS = 2000


def numbers_of_calls(said: str) -> list[int]:
    """Whole numbers separated by commas, as 1,2,4.

    Raises:
        InputError: something else, or numbers out of range.
    """
    words = [word.strip() for word in said.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= MOST for word in words):
        raise InputError(f"steps={shown(said)!r} must be whole numbers from 1 to {MOST} with commas between, as 1,2,4.")
    return [int(word) for word in words]


def student_of(
    run: "str | Path", method: str, calls: Sequence[int], scale: float = 1.0, changes: Iterable[str] = ()
) -> Experiment:
    """The experiment of a student.

    Args:
        run: the teacher's folder, or the name of a packaged model.
        method: a key of `METHODS`.
        calls: the numbers of network calls in which it is to draw.
        scale: of the teacher's guidance, which the student then has built in; 1 for none.
        changes: to the student's experiment, each `path=value`.

    Raises:
        InputError: no run there, or one that is not a denoiser of complete data; an unknown method, or numbers of calls
            that it cannot train for; guidance without anything to guide to; unknown changes.
    """
    lookup(METHODS, method, "method")
    folder = Path(os.path.abspath(place(Path(run).expanduser())))
    before, about = read_folder(folder)
    assert before.learner is not None
    if not LEARNERS[before.learner["name"]].teaches:
        able = ", ".join(name for name, entry in LEARNERS.items() if entry.teaches)
        raise InputError(
            f"run='{shown(folder)}' cannot be distilled: its learner is {before.learner['name']!r}; students are made "
            f"of runs whose learner is {able}."
        )
    if about["data"].get("missing"):
        raise InputError(f"run='{shown(folder)}' cannot be distilled: its data have cells missing.")
    if scale != 1 and not Known.of_facts(about["data"]):
        raise InputError(
            f"scale={scale:g} guides a teacher to what it is given, and run='{shown(folder)}' is given nothing."
        )
    tree = beginning(folder, before)
    lessons = {"name": METHODS[method], "scale": float(scale)}
    stepper = DISTILLATIONS[METHODS[method]].stepper
    fields = {field.name for field in dataclasses.fields(NETS[tree["net"]["name"]])}
    training = tree["training"]
    tree |= {
        "net": {**tree["net"], **({"dropout": 0.0} if "dropout" in fields else {})},  # lessons never run out
        "objective": lessons,
        "learner": {"name": "student", "calls": sorted(set(calls))},
        "training": {
            **training,
            "steps": min(STEPS, training["steps"]),
            "minutes": None,
            "decay": "cosine",
            "warmup": min(100, training["warmup"]),
            "validate_every": max(1, min(STEPS, training["steps"]) // 4),
        },
        "sampling": {**tree["sampling"], "stepper": {"name": stepper}, "steps": max(calls), "grid": None},
        "reasons": {"start": f"{shown(folder)}, whose student this is and whose weights it begins with"},
    }
    return Experiment.read(tree, changes)
