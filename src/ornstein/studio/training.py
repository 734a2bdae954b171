"""The training room: begin a run, watch it learn, pause it and go on; several in one plot.

A training is a process of its own that knows nothing of this page (`ornstein.experiment.background`). What is shown is
read from its folder (`ornstein.experiment.course`), so a page that was closed, or a studio that was restarted, finds it
as it is by then.
"""

import shlex
import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from ornstein.errors import InputError, lookup, shown
from ornstein.experiment import background
from ornstein.experiment.catalogue import tables
from ornstein.experiment.config import Experiment
from ornstein.experiment.course import PREPARING, TRAINING, Course, course
from ornstein.experiment.own import stem
from ornstein.studio import look
from ornstein.studio.frames import thumbnail
from ornstein.studio.state import Studio
from ornstein.studio.words import sentence

#: shown in place of a preset: your own file; in place of a method: the preset's
OWN, PRESET = "a file of my own", ""
#: trainings that are listed, and of those that are laid over each other; pixels of a picture's longer side
LISTED, OVERLAID, SIDE = 40, 6, 720
#: steps between two looks at what it has learned, of presets that are quick; of all others the preset's
LOOKS = {"digits": 200, "deblur": 200, "quantised-digits": 100}
#: what is read by `ornstein train FILE`
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".parquet", ".npy", ".npz", ".zip")


# Beginning and ending -------------------------------------------------------------------------------------------------


def begin(
    studio: Studio, data: str, file: str | None, name: str, method: str, steps: Any, looks: Any, seed: Any
) -> tuple[str, list[str]]:
    """Begin a training.

    Args:
        studio: whose runs folder it is put into.
        data: one of `background.at_hand()`; passed over where there is a file.
        file: a person's own, as `ornstein train` takes it.
        name: of the run; "" for that of the data.
        method: laid over the preset, "" for none.
        steps, looks, seed: of training; steps between two looks; 0 for the preset's.

    Returns:
        The run's name on the shelf, and the words after `ornstein`.

    Raises:
        InputError: what does not fit, or too many trainings at a time.
    """
    limits, changes = studio.limits, []
    if file is None:
        lookup(background.at_hand(), data, "data")
    elif not file.lower().endswith(SUFFIXES):
        raise InputError(f"file={shown(Path(file).name)!r} is of a kind that is not known; give {', '.join(SUFFIXES)}.")
    if method:
        changes.append(f"preset={lookup(dict.fromkeys(tables()['methods'], method), method, 'method')}")
    for key, value in (("steps", limits.whole(steps, "steps", limits.training, 0)),
                       ("validate_every", limits.whole(looks, "pictures every", limits.training, 0)),
                       ("seed", limits.whole(seed, "seed", 2**31 - 1, 0))):  # fmt: skip
        changes += [f"training.{key}={value}"] if value else []
    with studio.starting:
        going = [one.name for one in listed(studio) if one.state in (PREPARING, TRAINING)]
        if len(going) >= limits.trainings:
            raise InputError(f"{' and '.join(going)} train already, as many as the studio has at a time; pause one.")
        folder = _free(studio, stem(file) if file else data) if not name else studio.shelf.new(name)
        made = not folder.exists()
        try:
            source = data if file is None else str(background.give(folder, Path(file)))
            asked = Experiment.read(source, changes)
            if asked.training.steps > limits.training:
                raise InputError(f"{asked.training.steps:,} steps are more than the studio trains; up to "
                                 f"{limits.training:,} are fine.")  # fmt: skip
            limits.small(background.longest_side(asked), "the file")
            return str(folder), background.begin(source, changes, folder)
        except BaseException:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _free(studio: Studio, stem_: str) -> Path:
    """A folder for a run on data of this name, numbered where there is one already."""
    base = background.plainly(stem_)
    names = [base, *(f"{base}-{k}" for k in range(2, 1000))]
    return next(place for place in map(studio.shelf.new, names) if not place.exists())


def place(studio: Studio, name: str) -> Path:
    """The folder of a training.

    Raises:
        InputError: there is none of that name.
    """
    return lookup(studio.shelf.trainings(), name, "run")


def go_on(studio: Studio, name: str) -> list[str]:
    """Go on with a training; the words after `ornstein`.

    Raises:
        InputError: no such run, one that is in use, or too many trainings at a time.
    """
    folder = place(studio, name)
    with studio.starting:
        going = [one.name for one in listed(studio) if one.state in (PREPARING, TRAINING) and one.name != name]
        if len(going) >= studio.limits.trainings:
            raise InputError(f"{' and '.join(going)} train already, as many as the studio has at a time; pause one.")
        return background.resume(folder)


def listed(studio: Studio) -> list[Course]:
    """The newest trainings; what cannot be read is left out, the report tells why."""
    found = []
    for name, folder in list(studio.shelf.trainings().items())[:LISTED]:
        try:
            found.append(course(name, folder))
        except InputError:
            continue
    return found


# What is shown --------------------------------------------------------------------------------------------------------


def facts(one: Course) -> dict[str, Any]:
    """A training as a line of the list."""
    return {
        "name": one.name, "state": one.state, "said": one.said, "step": one.step, "steps": one.steps,
        "rate": float(f"{one.rate:.3g}"), "left": None if one.left is None else round(one.left),
    }  # fmt: skip


def curves(one: Course) -> dict[str, Any]:
    """Its curves, to five digits."""
    return {"name": one.name, "loss": _short(one.loss), "held_out": _short(one.held_out),
            "by_noise": {str(step): _short(levels) for step, levels in one.by_noise.items()}}  # fmt: skip


def _short(points: list[tuple[float, float]]) -> list[list[float]]:
    return [[float(f"{x:.6g}"), float(f"{y:.5g}")] for x, y in points]


def seen(studio: Studio, shown: Any, chosen: Any, step: Any, have: Any) -> dict[str, Any]:
    """All that the room shows.

    Args:
        studio: whose trainings.
        shown: names of those that are laid over each other; None for those that go on, or else the newest.
        chosen: the name of the one whose samples are shown; None for the first of them.
        step: of its samples; None for the newest.
        have: "name:step" of the picture that the page has already.
    """
    every = listed(studio)
    names = [one.name for one in every]
    if not isinstance(shown, list):
        shown = [one.name for one in every if one.state in (PREPARING, TRAINING)] or names[:1]
    on = [one for one in every if one.name in shown][:OVERLAID]
    one = next((one for one in on if one.name == chosen), on[0] if on else None)
    value: dict[str, Any] = {
        "runs": [facts(one) for one in every], "shown": [one.name for one in on],
        "curves": [curves(one) for one in on], "chosen": None,
    }  # fmt: skip
    if one is not None:
        drawn = step if step in one.pictures else max(one.pictures, default=None)
        path = None if drawn is None else one.picture(drawn)
        key = f"{one.name}:{drawn}"
        value["chosen"] = {
            "name": one.name, "pictures": one.pictures, "step": drawn, "key": key,
            "pixels": None if path is None or key == have else thumbnail(path, SIDE),
            "across": one.measure.across if one.measure else "", "share": bool(one.measure and one.measure.share),
            "found": one.measure.found if one.measure else "", "unit": one.measure.unit if one.measure else "",
        }  # fmt: skip
    return value


class Training:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, page: gr.Blocks, tab: Any) -> None:
        """Lay out the room."""
        look.introduction(
            "Training",
            "A network learns by a simple exercise: noise is added to an example, and it must say what the example "
            "was. High noise and low noise are different exercises. So watch the loss, the error at each level of "
            "noise, and the samples that it draws from the same noise as it learns. Training goes on when this page is "
            "closed, and can be resumed from the last checkpoint.",
            "methods",
        )
        known = background.at_hand()
        first = "digits"
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=290):
                data = gr.Dropdown([*known, OWN], value=first, label="Data", info=known[first], elem_id="train-data")
                file = gr.File(
                    label="A table, an array, or a zip of pictures", file_types=[".csv", ".gz", *SUFFIXES[2:]],
                    height=150, visible=False, elem_id="train-file",
                )  # fmt: skip
                name = gr.Textbox(
                    "", label="Name", info="Name of the run; by default that of the data.", elem_id="train-name"
                )
                steps = gr.Number(0, precision=0, label="Steps", info="0 for the preset's.", elem_id="train-steps")
                with gr.Accordion("More", open=False):
                    method = gr.Dropdown(
                        [("the preset's", PRESET), *tables()["methods"]], value=PRESET, label="Method",
                        info="What is learned, and how.", elem_id="train-method",
                    )  # fmt: skip
                    looks = gr.Number(
                        LOOKS.get(first, 0), precision=0, label="Pictures every", elem_id="train-looks",
                        info="Steps between two pictures, each of which takes a while; 0 for the preset's.",
                    )  # fmt: skip
                    seed = gr.Number(0, precision=0, label="Seed", elem_id="train-seed")
                go = gr.Button("Train", variant="primary", elem_id="train")
                terminal = gr.Textbox(
                    label="The same in the terminal", lines=1, buttons=["copy"], elem_id="train-terminal"
                )
            with gr.Column(scale=5, min_width=320):
                note = gr.HTML(look.note("Ready."), elem_id="train-note", padding=False)
                view = look.drawn_by("training", elem_id="trainings")
        private: dict[str, Any] = {**look.PRIVATE, "queue": False}
        data.change(self.of_data, [data], [data, file, looks], **private)
        method.change(self.of_method, [method], [method], **private)
        go.click(self.begin, [data, file, name, method, steps, looks, seed], [note, terminal], **private)
        tab.select(lambda: look.told(seen(self.studio, None, None, None, None)), None, [view], **private)
        view.tick(self.look, None, [view], trigger_mode="multiple", **private)
        for event, do in ((view.pause, self.on_pause), (view.play, self.on_play), (view.stop, self.on_stop)):
            event(do, None, [note], trigger_mode="multiple", **private)

    def of_data(self, name: str) -> list[Any]:
        """The controls as they fit the data."""
        line = background.at_hand().get(name, "Any file that `ornstein train FILE` takes; its kind decides the preset.")
        return [gr.update(info=line), gr.update(visible=name == OWN), LOOKS.get(name, 0)]

    def of_method(self, name: str) -> Any:
        """A line on what a method is."""
        return gr.update(info=tables()["methods"].get(name, "What is learned, and how."))

    def begin(
        self, data: str, file: str | None, name: str, method: str, steps: Any, looks: Any, seed: Any
    ) -> list[Any]:
        """Begin what the controls say."""
        try:
            if data == OWN and file is None:
                raise InputError(f"Give a file first: {', '.join(SUFFIXES)}.")
            given = file if data == OWN else None
            run, words = begin(self.studio, data, given, (name or "").strip(), method, steps, looks, seed)
            return [look.note(f"{run} begins.", "busy"), shlex.join(["ornstein", *words])]
        except Exception as error:
            return [look.note(sentence(error), "bad"), gr.skip()]

    def look(self, event: gr.EventData) -> str:
        """How things stand, for what the page shows."""
        asked = event._data if isinstance(event._data, dict) else {}
        return look.told(seen(self.studio, *(asked.get(key) for key in ("shown", "chosen", "step", "have"))))

    def on_pause(self, event: gr.EventData) -> str:
        """Pause a training."""
        return self._told(event, background.pause, "saves and ends")

    def on_stop(self, event: gr.EventData) -> str:
        """Stop a training."""
        return self._told(event, background.stop, "is stopped")

    def on_play(self, event: gr.EventData) -> str:
        """Go on with a training."""
        return self._told(event, lambda folder: go_on(self.studio, str(folder)), "goes on")

    def _told(self, event: gr.EventData, do: Any, what: str) -> str:
        try:
            name = str((event._data or {}).get("run", ""))
            do(place(self.studio, name))
            return look.note(f"{name} {what}.")
        except Exception as error:
            return look.note(sentence(error), "bad")
