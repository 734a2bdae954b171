"""Runs at a glance: what each is, how long it was trained and how good it is, read without opening a network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ornstein.errors import InputError
from ornstein.experiment.folder import read_folder, read_metrics
from ornstein.experiment.wording import plainly, tones
from ornstein.files import read_text

#: pictures that training and evaluation leave, the newest samples first
PICTURES = {
    "samples/latest.png": "The newest samples that training drew",
    "evaluation.png": "Samples beside real data",
    "loss.png": "Training",
    "loss-by-noise.png": "Held-out error by noise level",
    "accuracy-by-noise.png": "Accuracy by noise level",
}


@dataclass(frozen=True)
class Measured:
    """A line of an evaluation: a figure beside what real data score in place of samples."""

    name: str
    plainly: str
    value: float
    floor: float
    verdict: str
    tone: str


@dataclass(frozen=True)
class Entry:
    """A run at a glance.

    Attributes:
        name: by which it is opened.
        folder: where it lies.
        kind: of its data.
        data: their name.
        count: of training examples.
        weights: of the network.
        steps: trained.
        minutes: of training, as its records tell.
        held_out: the newest held-out error, relative to a baseline at 1; None before the first.
        matching: the share of measures by which samples are as good as real data; None for a run not evaluated.
    """

    name: str
    folder: Path
    kind: str
    data: str
    count: int
    weights: int
    steps: int
    minutes: float
    held_out: float | None
    matching: float | None

    @property
    def pictures(self) -> dict[str, Path]:
        """What each picture is -> where it lies, of those that are there."""
        return {title: self.folder / name for name, title in PICTURES.items() if (self.folder / name).is_file()}


def entry(name: str, folder: Path) -> Entry:
    """A run at a glance.

    Raises:
        InputError: it cannot be read.
    """
    _, about = read_folder(folder)
    facts, records = about["data"], read_metrics(folder)
    checked = [record["held_out"] for record in records if record.get("held_out") is not None]
    lines = measures(folder)
    return Entry(
        name, folder, str(facts["kind"]), str(facts["name"]), int(facts["count"]), int(about["parameters"]),
        int(records[-1]["step"]) if records else 0, minutes(records), checked[-1] if checked else None,
        sum(line.tone == "good" for line in lines) / len(lines) if lines else None,
    )  # fmt: skip


def entries(places: Mapping[str, Path]) -> tuple[list[Entry], dict[str, str]]:
    """Runs at a glance, and of those that cannot be read why."""
    found, refused = [], {}
    for name, folder in places.items():
        try:
            found.append(entry(name, folder))
        except InputError as error:
            refused[name] = str(error)
    return found, refused


def minutes(records: list[dict[str, float]]) -> float:
    """Of training, from how many steps a second each record tells; pauses do not count."""
    total, before = 0.0, 0.0
    for record in records:
        if (rate := record.get("rate") or 0.0) > 0 and record["step"] > before:
            total += (record["step"] - before) / rate
        before = record["step"]
    return total / 60


def measures(folder: Path) -> list[Measured]:
    """The lines of a run's evaluation; [] of one that was not evaluated, or whose file is damaged."""
    path = folder / "evaluation.json"
    if not path.is_file():
        return []
    try:
        rows: dict[str, Any] = json.loads(read_text(path))["rows"]
        return [
            Measured(
                name,
                plainly(name),
                float(row["value"]),
                float(row["floor"]),
                str(row["verdict"]),
                tones().get(row["verdict"], ""),
            )
            for name, row in rows.items()
        ]
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        return []
