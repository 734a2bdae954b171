"""What the site needs beyond its pages: a page of reference for each module, and formulas that need no script.

Formulas are written as GitHub reads them, `$...$` in a line and a fence named `math` around a display. Here they become
MathML, which browsers draw themselves: nothing is asked of another host, and a page read from the disk has them too.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parents[2] / "src" / "ornstein"
#: rooms in the order in which a reader meets them; what a person does not call has no page
ROOMS = ("core", "nets", "objectives", "samplers", "guidance", "likelihood", "energies", "discrete", "bridge", "distill")
ROOMS += ("training", "data", "metrics", "experiment", "laws")
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)


def modules(room: str) -> list[str]:
    """The modules of a room, itself first."""
    names = sorted(path.stem for path in (SOURCE / room).glob("*.py") if not path.stem.startswith("_"))
    return [f"ornstein.{room}", *(f"ornstein.{room}.{name}" for name in names)]


def on_config(config: Any) -> Any:
    """Put the reference at the end of the navigation."""
    pages: list[Any] = [{"ornstein": "api/index.md"}]
    for room in ROOMS:
        first, *others = modules(room)
        pages.append({room: [{room: address(first)}, *({name.rpartition(".")[2]: address(name)} for name in others)]})
    pages.append({"ornstein.errors": address("ornstein.errors")})
    config.nav.append({"Reference": pages})
    return config


def address(module: str) -> str:
    """Where the page of a module lies."""
    return "api/" + module.removeprefix("ornstein.").replace(".", "/") + ("/index" if module.count(".") == 1 else "") + ".md"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference."""
    files.append(File.generated(config, "api/index.md", content="::: ornstein\n"))
    for name in [*(name for room in ROOMS for name in modules(room)), "ornstein.errors"]:
        files.append(File.generated(config, address(name), content=f"::: {name}\n"))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return FORMULA.sub(lambda found: drawn(found[2], found[1] == "div"), content)


def drawn(formula: str, display: bool) -> str:
    """One formula, without the marks around it."""
    source = html.unescape(formula).strip()
    source = source.removeprefix("\\[").removesuffix("\\]").removeprefix("\\(").removesuffix("\\)")
    return convert(source, display="block" if display else "inline")
