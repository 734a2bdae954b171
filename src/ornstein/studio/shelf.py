"""The shelf: the runs that a page may open, by the names that it may open them by, and nothing else.

A page names a run; the shelf looks the name up among those it has found itself. What a page says is never a path, so
no page leads out of the runs folder; nor does a link that lies in it.
"""

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from ornstein.errors import InputError, lookup, shown
from ornstein.experiment import packaged
from ornstein.experiment.background import must_be_name
from ornstein.experiment.course import LOG
from ornstein.experiment.folder import ABOUT
from ornstein.experiment.run import Run

#: runs that are listed, and models that are kept in memory
MOST, KEPT = 500, 4


class Shelf:
    """Runs in a folder, and the models that ornstein carries.

    Args:
        root: the runs folder; one that is not there yet is an empty one. Or a single run.

    Raises:
        InputError: it is a file.
    """

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise InputError(f"runs='{shown(root)}' is not a folder; give the one that contains your runs.")
        self.root = root
        self._open: OrderedDict[str, tuple[Any, Run]] = OrderedDict()
        self._lock = threading.Lock()

    def places(self) -> dict[str, Path]:
        """Every run by its name: the path that the command line takes, newest first; then the carried ones."""
        runs = self._lying(ABOUT)
        return runs | {name: packaged.HOME / name for name in packaged.names() if name not in runs}

    def trainings(self) -> dict[str, Path]:
        """Every run in the runs folder by its name, newest first, with those that have only begun and have no facts."""
        return self._lying(LOG, ABOUT)

    def _lying(self, *names: str) -> dict[str, Path]:
        """The folders in ours that hold a file of one of these names, up to two deep, newest first."""
        home, found = self.root.resolve(), []
        for name in names:
            for place in (self.root / name, *self.root.glob(f"*/{name}"), *self.root.glob(f"*/*/{name}")):
                with suppress(OSError):  # gone meanwhile
                    if place.is_file() and place.resolve().is_relative_to(home):
                        found.append((-place.stat().st_mtime, place.parent))
        return dict(list({str(folder): folder for _, folder in sorted(found)}.items())[:MOST])

    def new(self, name: str) -> Path:
        """The folder that a run of this name is to have.

        Raises:
            InputError: a name that is none, or that leads out of ours.
        """
        place = self.root / must_be_name(name)
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise InputError(f"name={name!r} is a link or a file in {shown(self.root)}; give another.")
        return place

    def names(self) -> list[str]:
        """Of those that have been saved at least once, and so can be opened."""
        return [name for name, place in self.places().items() if any(place.glob("*.safetensors"))]

    def place(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            InputError: no run of that name is on the shelf.
        """
        return lookup(self.places(), name, "run")

    def open(self, name: str) -> Run:
        """The run, to draw from; of several that are opened the latest are kept.

        Raises:
            InputError: no such run, or one that cannot be opened.
        """
        folder = self.place(name)
        written = tuple(sorted((p.name, p.stat().st_mtime_ns) for p in folder.glob("*.safetensors")))
        with self._lock:
            kept = self._open.get(name)
            if kept is not None and kept[0] == written:
                self._open.move_to_end(name)
                return kept[1]
        run = Run.load(folder).drawing()
        with self._lock:
            self._open[name] = (written, run)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return run
