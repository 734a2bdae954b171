"""The figures of a run for plotting: `metrics.jsonl`, one JSON object per line, TensorBoard's event files, trackers.

A line is appended and flushed at each write, so a run that dies loses nothing. On resuming from step k the lines of
step k and later are dropped before any is added: those steps are about to be logged again (`fit` gives the `Progress`
of the step it resumes from once more), and the file never holds a step twice.
"""

import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ornstein.files import opened, replacing
from ornstein.training.checkpoint import on_disk
from ornstein.training.trackers import Tracker


class Log:
    """Writes numbers by step.

    Arguments:
        folder: the run folder; made if it is not there.
        step: the step that the run starts or resumes from; what was logged at it or later is dropped.
        tensorboard: also write event files, into `folder`/tensorboard.
        trackers: trackers that have begun, which are sent the same figures.
    """

    def __init__(self, folder: str | Path, step: int = 0, tensorboard: bool = True, trackers: Sequence[Tracker] = ()):
        folder = Path(folder)
        self._trackers = trackers
        self.path = folder / "metrics.jsonl"
        with on_disk(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            # a new file, always: what lies there may be a link to somewhere else
            lines = _before(self.path, step) if step and self.path.is_file() else []
            with replacing(self.path) as part:
                part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
            self._board = _Board(folder / "tensorboard", step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at `step`. A value that is not finite becomes null in the file, since JSON has no NaN.

        Raises:
            InputError: the disk is full.
        """
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with on_disk(self.path):
            self._file.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")
            self._file.flush()
            if self._board is not None:
                self._board.write(step, values)
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Flush and close the files.

        Raises:
            InputError: the disk is full.
        """
        with on_disk(self.path):
            self._file.close()
            if self._board is not None:
                self._board.close()


class _Board:
    """An event file of TensorBoard: a record for each moment, on its way to the disk when `write` returns.

    torch's own writer hands records to a thread, which tells of a full disk by a traceback and whenever it likes.

    Arguments:
        folder: made if it is not there; a run that goes on adds a file.
        step: what was logged at it or later no longer counts.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._event = Event
        self._file = open(folder / name, "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        self._add(step=step, session_log=SessionLog(status=SessionLog.START))
        self._file.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers at a step."""
        numbers = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._add(step=step, summary={"value": numbers})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


def _before(path: Path, step: int) -> list[str]:
    """The whole lines of steps before `step`; a line that a dying process left half written is not one."""
    lines = []
    for line, row in read_lines(path):
        if row["step"] < step:
            lines.append(line)
    return lines


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a metrics.jsonl and what they say; a line left half written by a dying process is skipped.

    Raises:
        InputError: not a regular file.
    """
    with opened(path) as stream:
        content = stream.read().decode("utf-8", "replace")
    found = []
    for line in content.split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            found.append((line, row))
    return found
