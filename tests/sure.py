"""What a test is sure of: how the command line answers, and that something which may be absent is there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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
