"""Docstrings here may describe several parameters at once, `low, high: the ends.`; the reference wants each alone."""

import re
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^( *)(?:Args|Arguments|Attributes):\n((?:\1 +.*\n?|\s*\n)*)", re.M)
SEVERAL = re.compile(r"^( +)(\w+(?:, \*{0,2}\w+)+)(: .*\n?(?:\1 +.*\n?)*)", re.M)


def parted(text: str) -> str:
    """A docstring in which each parameter has an entry of its own."""

    def each(entry: re.Match[str]) -> str:
        ended = entry[3] if entry[3].endswith("\n") else entry[3] + "\n"
        return "".join(f"{entry[1]}{name}{ended}" for name in entry[2].split(", "))

    return SECTION.sub(lambda section: SEVERAL.sub(each, section[0]), text)


class Parted(Extension):
    """Does it to every object that is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = parted(obj.docstring.value)
