"""What the benchmarks share: arguments, clocks, tables, a description of the machine, files and pictures.

Every script takes `--quick`: a run of a few seconds at sizes that show nothing, to check that it still works. A quick
run writes to runs/quick/, so that it never replaces figures that are quoted.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "docs" / "pictures"
#: the colour of ornstein in every picture, and a grey for what is drawn beside it
OURS_COLOUR, GREY = "#c44e21", "#555555"


def arguments(doc: str | None, quick: str = "a few seconds at small sizes") -> argparse.ArgumentParser:
    """A parser whose help is the script's own docstring, with `--quick`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick}; nothing to quote")
    return parser


def place(path: Path, quick: bool) -> Path:
    """Where to write a file that by default goes to `path`: a quick run has a folder of its own."""
    return Path("runs/quick") / path.name if quick else path


# Time -----------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes, by the wall clock or by another, such as `time.process_time`."""
    began = clock()
    work()
    return clock() - began


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of every call in every round, without the first `warm` rounds.

    Calls take turns in each round, so that the machine's other work affects all of them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm + rounds):
        for name, work in works.items():
            taken = seconds(work)
            if number >= warm:
                found[name].append(taken)
    return found


# What is said ---------------------------------------------------------------------------------------------------------


def heading(*columns: str, words: int = 1) -> str:
    """The first two lines of a table in Markdown: the first columns are text, the others are numbers."""
    return row(*columns) + "\n|" + "|".join("---" if i < words else "---:" for i in range(len(columns))) + "|"


def row(*cells: object) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(map(str, cells)) + " |"


def machine(threads: int) -> dict[str, Any]:
    """The processor, its bfloat16 instructions, threads, and torch's version."""
    import torch

    said: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            said.setdefault(key.strip(), value.strip())
    except OSError:  # a system that says it otherwise
        pass
    return {
        "cpu": said.get("model name") or platform.processor() or platform.machine(),
        "bfloat16": sorted({flag for flag in said.get("flags", "").split() if "bf16" in flag}),
        "threads": threads,
        "torch": torch.__version__,
    }


# Files ----------------------------------------------------------------------------------------------------------------


def kept(path: Path, otherwise: Any = None) -> Any:
    """What an earlier run wrote to the file, or `otherwise`."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else otherwise


def keep(path: Path, found: Any) -> None:
    """Write figures, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    beside.replace(path)


def pyplot() -> Any:
    """matplotlib.pyplot, set up to draw into files."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    return plt


def plain(axes: Iterable[Any]) -> None:
    """Axes without the top and right lines, which carry no information."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


def save_picture(figure: Any, path: Path, dpi: int = 130) -> None:
    """Write a figure and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    pyplot().close(figure)
