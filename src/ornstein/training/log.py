"""What a run leaves for plotting: `metrics.jsonl`, one JSON object per line, and TensorBoard's event files.

A line is appended and flushed at each write, so a run that dies loses nothing. On resuming from step k the lines of
step k and later are dropped before any is added: those steps are about to be logged again (`fit` gives the `Progress`
of the step it resumes from once more), and the file never holds a step twice.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ornstein.errors import InputError, shown
from ornstein.files import opened, replacing
from ornstein.training.checkpoint import on_disk


class Log:
    """Writes numbers by step.

    Arguments:
        folder: the run folder; made if it is not there.
        step: the step that the run starts or resumes from; what was logged at it or later is dropped.
        tensorboard: also write event files, into `folder`/tensorboard.
    """

    def __init__(self, folder: str | Path, step: int = 0, tensorboard: bool = True):
        folder = Path(folder)
        self.path = folder / "metrics.jsonl"
        self._board: Any = None
        with on_disk(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            # a new file, always: what lies there may be a link to somewhere else
            lines = _before(self.path, step) if step and self.path.is_file() else []
            with replacing(self.path) as part:
                part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with self._on_board():
                self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at `step`. A value that is not finite becomes null in the file, JSON having no NaN.

        Raises:
            InputError: the disk is full.
        """
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with on_disk(self.path):
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        if self._board is not None:
            with self._on_board():
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files.

        Raises:
            InputError: the disk is full.
        """
        with on_disk(self.path):
            self._file.close()
        if self._board is not None:
            with self._on_board():
                self._board.close()

    @contextmanager
    def _on_board(self) -> Iterator[None]:
        """TensorBoard writes in a thread of its own, whose failure comes at a later call, of any type."""
        try:
            yield
        except Exception as error:
            self._board = None
            raise InputError(
                f"{shown(self.path.with_name('tensorboard'))} could not be written ({error}); what was saved before is "
                "untouched."
            ) from None


def _before(path: Path, step: int) -> list[str]:
    """The whole lines of steps before `step`; a line that a dying process left half written is not one."""
    lines = []
    for line, row in read_lines(path):
        if row["step"] < step:
            lines.append(line)
    return lines


def read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a metrics.jsonl and what they say; one that a dying process left half written is passed over.

    Raises:
        InputError: no regular file.
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
