"""One writer: a process that trains, tunes or resumes in a run folder holds its lock, and no other writes there.

The lock is the operating system's (flock) on the file `.lock` in the folder, so it is released when the process that
holds it ends, however it ends. The file says which process that is, for the message that another one gets, and is
deleted by its holder. One left by a killed process locks nothing, and is taken over. Readers need no lock: files are
replaced whole.

On a file system without locks (some network ones), or a system without flock, work goes on without a lock.
"""

import json
import os
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ornstein import ranks
from ornstein.errors import InputError, shown
from ornstein.files import utf8

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
#: a link is not followed, a pipe not waited for
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Lock:
    """A run folder, held: made by `holding`.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: Path, handle: int):
        self.folder, self._handle = folder, handle
        _held.add(self)

    def check(self) -> None:
        """Check that the folder is still the one that is held.

        Raises:
            InputError: it was deleted, moved or replaced meanwhile, so that writing would go elsewhere.
        """
        if not _same(self._handle, self.folder / NAME):
            raise InputError(
                f"{shown(self.folder)} was deleted or moved while it was written to: nothing more is saved there."
            )

    def tell(self, note: str) -> None:
        """Say to others what is being done now, as the "note" of `held_by`."""
        _write(self._handle, {**_signature(self._handle), "note": note})

    def release(self) -> None:
        """Let others write there."""
        if self._handle < 0:
            return
        with suppress(OSError):
            if _same(self._handle, self.folder / NAME):
                (self.folder / NAME).unlink()
        self.leave()

    def leave(self) -> None:
        """Close the file in a forked process, while its parent keeps the lock."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _leave_all() -> None:
    for lock in list(_held):
        lock.leave()


# a child that outlives us must not hold what we held
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


@contextmanager
def holding(folder: "str | Path", doing: str) -> Iterator[Lock]:
    """Hold a run folder, which is made if absent, while the block runs.

    Args:
        folder: the run folder.
        doing: one word for others to read, such as "training".

    Raises:
        InputError: another process holds it, which the message names; or the folder cannot be made.
    """
    folder = Path(folder)
    utf8(folder, "folder")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _taken(folder)
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be written to: {error.strerror or error}.") from None
    lock = Lock(folder, handle)
    try:
        _sign(handle, doing)
        yield lock
    finally:
        lock.release()
        if made:
            with suppress(OSError):  # it holds something, as it should
                folder.rmdir()


def held_by(folder: "str | Path") -> dict[str, Any] | None:
    """The holder of a run folder: "doing", "process", "host", "processes", "since", "command", and "note" where it says
    what it is at; None if it is free.

    {} for a holder that has not signed, or whose signature cannot be read.
    """
    try:
        handle = os.open(Path(folder) / NAME, os.O_RDONLY | _FLAGS)
    except OSError:  # not there: nobody
        return None
    try:
        if fcntl is not None:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None  # a killed one left the file; closing it lets go of it
        return _signature(handle)
    except OSError:  # no locks here: what is signed is all there is to know
        return _signature(handle) or None
    finally:
        os.close(handle)


def _taken(folder: Path) -> int:
    """The locked file, open."""
    flags, looks = os.O_RDWR | os.O_CREAT | _FLAGS, 3
    while True:
        handle = os.open(folder / NAME, flags, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                if looks:  # whoever only asks who holds it (`held_by`) lets go at once
                    looks -= 1
                    time.sleep(0.01)
                    continue
                raise InputError(f"{shown(folder)} is in use: {_holder(handle)}.") from None
            finally:
                os.close(handle)
        except OSError:
            pass  # no locks here
        if _same(handle, folder / NAME):  # whoever held it may have deleted it between opening and locking
            return handle
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    try:
        there, here = os.stat(path, follow_symlinks=False), os.fstat(handle)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _sign(handle: int, doing: str) -> None:
    who = {
        "doing": doing,
        "process": os.getpid(),
        "processes": ranks.count(),
        "host": socket.gethostname(),
        "command": " ".join(sys.argv)[:300],
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    _write(handle, who)


def _write(handle: int, who: dict[str, Any]) -> None:
    with suppress(OSError):  # a full disk: the lock holds, unsigned
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)


def _signature(handle: int) -> dict[str, Any]:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return who if isinstance(who, dict) else {}


def _holder(handle: int) -> str:
    try:
        who = _signature(handle)
        place = "" if who["host"] == socket.gethostname() else f" on {who['host']}"
        said = f"{who['doing']} since {who['since']} by process {who['process']}{place} ({who['command']})"
    except KeyError:
        return "another process writes there; wait until it has ended"
    return f"{shown(said)}; wait until it has ended"
