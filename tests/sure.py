"""What a test is sure of: how the command line answers, that what may be absent is there, that it was made once."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@dataclass
class Answer:
    """Of a call of the command line: its exit code, and what it said."""

    code: int
    out: str
    err: str


#: the fixture `cli`: `cli("train", "digits") -> Answer`
Cli = Callable[..., Answer]


def there(found: T | None) -> T:
    """What a type checker cannot know to be there."""
    assert found is not None
    return found


#: names the run of `conftest.run` to a pytest that a test starts
TRAINED = "ORNSTEIN_TESTS_RUN"


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all processes that share the tests of a session; they only read it."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
        if not made.exists():
            make(folder)
            made.touch()
    return folder
