"""What the rooms of one studio share."""

import asyncio
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ornstein.experiment.run import Run
from ornstein.studio.desk import Desk
from ornstein.studio.limits import Limits
from ornstein.studio.shelf import Shelf

#: seconds after which files made for a page are deleted
KEPT = 1800


@dataclass(frozen=True, eq=False)
class Studio:
    """A studio: the runs, the line of jobs, the limits, and where files for pages are made.

    Attributes:
        shelf: the runs.
        desk: whose job is next.
        limits: of one job.
        files: a folder of its own.
        starting: held by who begins a training, so that no two count those that there are at once.
    """

    shelf: Shelf
    desk: Desk = field(default_factory=Desk)
    limits: Limits = field(default_factory=Limits)
    files: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ornstein-studio-")))
    starting: Any = field(default_factory=threading.Lock)

    def place(self) -> Path:
        """A new folder for files made for a page, whose name nobody guesses; those of long ago are deleted."""
        for old in self.files.glob("made-*"):
            if old.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="made-", dir=self.files))

    async def open(self, name: str) -> Run:
        """A run by its name, opened in a thread, so that other pages are answered meanwhile; see `Shelf.open`."""
        return await asyncio.to_thread(self.shelf.open, name)

    def halt(self, request: gr.Request) -> None:
        """Stop all that a page has asked for."""
        self.desk.leave(str(request.session_hash))
