"""Training in the background: each run in a process of its own, started like the command line.

`begin` starts `ornstein train ... --out FOLDER` in its own session, so that it outlives the process that started it;
its output goes to training.log in its folder. There is no list of runs: the folder's lock, which holds the number of
the process, says who trains, and the folder says how far it is (`course.py`). So a run started in a terminal can be
paused from a page, and one started from a page is found again after a restart.

Pausing is SIGTERM, which means the same as Ctrl-C: the step ends, everything is saved. Stopping does not wait for that.
Either way training can be resumed, bit for bit, from the last checkpoint.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ornstein.data import DATA, Source
from ornstein.data.array import Array, glance
from ornstein.errors import InputError, shown
from ornstein.experiment.config import Experiment, presets
from ornstein.experiment.course import LOG
from ornstein.experiment.folder import held_by, may_begin, read_experiment, read_folder
from ornstein.experiment.own import stem
from ornstein.files import regular, replacing

#: where a file that is given lies in the run folder
GIVEN = "uploaded"
#: how much lower than ours its priority is: whoever looks on is to be answered meanwhile
_NICE = 5
#: seconds that stopping waits for a save, and between two looks whether it has ended
_GRACE, _LOOK = 0.7, 0.05
#: a name that is a file's anywhere; what is no part of one
_PLAIN, _UNSAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), re.compile(r"[^A-Za-z0-9._-]+")


def must_be_name(name: str) -> str:
    """The name of a new run: a folder's, of letters, digits, dots, dashes and underscores.

    Raises:
        InputError: it is none.
    """
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise InputError(f"name={shown(name)!r} must be of up to 64 letters, digits, dots, dashes and underscores.")
    return name


def plainly(name: str) -> str:
    """The nearest name that `must_be_name` accepts."""
    return _UNSAFE.sub("-", name).strip(".-_")[:60] or "data"


def at_hand() -> dict[str, str]:
    """The presets whose data need no file and no network, each with its description."""
    found = {}
    for name, line in presets().items():
        with suppress(InputError):  # of a person's own data, which must be named
            data = Experiment.read(name).data
            if data.get("path") != "" and not any(DATA.get(word, Source).fetched for word in _words(data)):
                found[name] = line
    return found


def _words(tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from _words(value)
    elif isinstance(tree, str):
        yield tree


def give(folder: Path, file: Path) -> Path:
    """Put a file into the folder of a future run, where its training then finds it.

    Raises:
        InputError: it is no file, or the disk refuses.
    """
    name = regular(file, "file").name
    place = folder / GIVEN / f"{plainly(stem(name))}{name[len(stem(name)) :].lower()}"
    with replacing(place) as part:
        shutil.copyfile(file, part)
    return place


def longest_side(experiment: Experiment) -> int:
    """The longest axis, beside the channels, of the examples of an array; 0 of other data, which are resized or flat.

    Raises:
        InputError: the array cannot be read.
    """
    shape = glance(experiment.data)[1] if issubclass(DATA[experiment.data["name"]], Array) else ()
    return max(shape[1:], default=0)


def command(experiment: str, changes: Sequence[str], folder: Path) -> list[str]:
    """The words after `ornstein` that train an experiment into a folder."""
    return ["train", experiment, *changes, "--out", str(folder)]


def begin(experiment: str, changes: Sequence[str], folder: Path) -> list[str]:
    """Train an experiment into a folder, in a process of its own.

    Args:
        experiment, changes: as of `ornstein train`.
        folder: the run folder; made if it is not there.

    Returns:
        The words after `ornstein`.

    Raises:
        InputError: what the command line would refuse at once: an invalid experiment, a folder that holds a run or is
            in use.
    """
    Experiment.read(experiment, changes)
    if folder.exists():
        may_begin(folder)
    _must_be_free(folder)
    words = command(experiment, changes, folder)
    _start(words, folder)
    return words


def resume(folder: Path, changes: Sequence[str] = ()) -> list[str]:
    """Resume a run, in a process of its own: see `begin`.

    Raises:
        InputError: no run, one that is in use, or changes that are none.
    """
    read_folder(folder)
    read_experiment(folder, changes)
    _must_be_free(folder)
    words = ["train", *changes, "--resume", str(folder)]
    _start(words, folder)
    return words


def pause(folder: Path) -> None:
    """Ask the process that trains in a folder to end its step, save and end, as by Ctrl-C; does not wait for it.

    Raises:
        InputError: nobody does, or not one process of this machine.
    """
    _tell(_trainer(folder), signal.SIGTERM)


def stop(folder: Path) -> None:
    """End the process that trains in a folder within a second: it saves what it can, and leaves nothing half written.

    Raises:
        InputError: nobody does, or not one process of this machine.
    """
    process = _trainer(folder)
    _tell(process, signal.SIGTERM)
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        time.sleep(_LOOK)
        held = held_by(folder)
        if held is None or held.get("process") != process:
            return
    _tell(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _trainer(folder: Path) -> int:
    """The number of the process that trains in a folder."""
    held = held_by(folder)
    if held is None or held.get("doing") != "training":
        raise InputError(f"run='{shown(folder)}' is not being trained.")
    process = held.get("process")
    if held.get("host") != socket.gethostname() or held.get("processes", 1) != 1 or type(process) is not int:
        raise InputError(
            f"run='{shown(folder)}' is trained on another machine or by several processes: end it where it was begun."
        )
    return process


def _tell(process: int, what: signal.Signals) -> None:
    try:
        os.kill(process, what)
    except ProcessLookupError:
        pass  # it has ended by itself
    except PermissionError:
        raise InputError(f"process {process} trains for another user of this machine, who alone may end it.") from None


def _must_be_free(folder: Path) -> None:
    if held_by(folder) is not None:
        raise InputError(f"run='{shown(folder)}' is in use: wait until that has ended, or stop it.")


def _start(words: Sequence[str], folder: Path) -> None:
    """A process of its own, of lower priority, that says what it says in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (folder / LOG).unlink()  # that of an earlier one, or a link that leads elsewhere
    with open(folder / LOG, "xb") as log:
        # -P: what lies in the folder that we happen to be in is nobody's program, as with `ornstein` itself
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ornstein", *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    with suppress(AttributeError, OSError):  # not on every system
        os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICE))
    threading.Thread(target=process.wait, daemon=True).start()  # so that no dead process is left behind
