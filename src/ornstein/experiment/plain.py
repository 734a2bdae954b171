"""YAML as plain data: the only place where it is read, so that it is always read safely.

Only names, numbers, lists and mappings are accepted. Refused, in one sentence: aliases (with them a few hundred bytes
make gigabytes), a key given twice (the second would silently win), values nested too deep, more text than a person
writes, and tags. A date stays a word, and 1e-3 is a number, as in YAML 1.2.
"""

import copy
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ornstein.errors import InputError, shown
from ornstein.files import read_text

#: bytes of an experiment, which takes two thousand; of what programs write, such as fitted solvers and class names
MOST, MOST_WRITTEN = 2**16, 2**21
_DEEPEST = 32


class _Refused(yaml.YAMLError):
    """What this house does not read of YAML."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without its traps."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(f"line {line} has an alias (*); write the value out")
        if getattr(event, "tag", None) is not None:
            raise _Refused(f"line {line} has a tag (!); leave it out")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Refused(f"line {line} is nested more than {_DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(f"line {key.start_mark.line + 1} has a key that is no word")
            if key.value in seen:
                raise _Refused(f"line {key.start_mark.line + 1} gives {key.value!r} a second time")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# numbers as in YAML 1.2: 1e-3 is one; 1:30 (ninety) and 010 (eight) are not
_NUMBERS = {
    "int": r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)",
    "float": r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN)",
}
_OURS = ("timestamp", "merge", *_NUMBERS)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rsplit(":", 1)[-1] not in _OURS]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})\\Z"), list("-+0123456789."))


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts quotes around words that we would take for numbers, as 1e3."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"(?:{_NUMBERS['float']})\\Z"), list("-+0123456789.")
)


def written(tree: Any, sort_keys: bool = False) -> str:
    """Plain data as text, from which `parsed` makes the same; a sentence in one line, so that it can be copied."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=sort_keys, width=math.inf)


@lru_cache(maxsize=64)
def _loaded(text: str) -> Any:
    """What a text says, kept: one command reads an experiment several times, and reading takes longer than copying."""
    return yaml.load(text, _Loader)


def parsed(text: str, name: str) -> Any:
    """The plain data that a text of YAML says.

    Args:
        text: the text.
        name: what to call it in an error.

    Raises:
        InputError: not YAML, or more than is read of it (see the module).
    """
    try:
        return copy.deepcopy(_loaded(text)) if len(text) <= MOST else yaml.load(text, _Loader)
    except _Refused as error:
        raise InputError(f"{name}: {error}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f", in line {mark.line + 1}, column {mark.column + 1}"
        raise InputError(f"{name} is not valid YAML: {shown(error.problem or error.context)}{where}.") from None
    except yaml.reader.ReaderError as error:
        line, character = text.count("\n", 0, error.position) + 1, f"{text[error.position]!a}"
        raise InputError(
            f"{name} is not valid YAML: line {line} has {character}, which is no character of text."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise InputError(f"{name} is not valid YAML: {shown(' '.join(str(error).split()))[:300]}.") from None


def read(path: Path, most: int = MOST) -> Any:
    """The plain data in a YAML file.

    Raises:
        InputError: not a regular file, too large, not text (an archive, a picture), not UTF-8, or as for `parsed`.
    """
    return parsed(read_text(path, most), shown(path))
