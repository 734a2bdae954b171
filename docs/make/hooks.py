"""What the site needs beyond its pages: the reference, the examples, and formulas without a script.

Formulas are written as GitHub reads them, `$...$` in a line and a fence named `math` around a display. Here they become
MathML, which browsers draw themselves, so no script is loaded from another host and pages also work from disk.
"""

import html
import re
import runpy
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ornstein"
#: rooms in the order in which a reader meets them; what a person does not call has no page
ROOMS = ["core", "nets", "objectives", "samplers", "guidance", "likelihood", "energies", "discrete", "bridge"]
ROOMS += ["distill", "training", "data", "metrics", "experiment", "laws"]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)


def modules(room: str) -> list[str]:
    """The modules of a room, itself first."""
    names = sorted(path.stem for path in (SOURCE / room).glob("*.py") if not path.stem.startswith("_"))
    return [f"ornstein.{room}", *(f"ornstein.{room}.{name}" for name in names)]


def address(module: str) -> str:
    """Where the page of a module lies."""
    rest = module.removeprefix("ornstein.").replace(".", "/")
    return f"api/{rest}/index.md" if "/" not in rest else f"api/{rest}.md"


def on_config(config: Any) -> Any:
    """Put the examples and the reference at the end of the navigation."""
    config.nav.append({"Examples": ["examples.md", *(f"examples/{path.stem}.md" for path in EXAMPLES)]})
    pages: list[Any] = [{"ornstein": "api/index.md"}]
    for room in ROOMS:
        first, *others = modules(room)
        pages.append({room: [address(first), *({name.rpartition(".")[2]: address(name)} for name in others)]})
    pages.append({"errors": address("ornstein.errors")})
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference, and the examples to look at."""
    files.append(File.generated(config, "api/index.md", content="::: ornstein\n"))
    for name in [*(name for room in ROOMS for name in modules(room)), "ornstein.errors"]:
        files.append(File.generated(config, address(name), content=f"::: {name}\n"))
    cells = runpy.run_path(str(ROOT / "docs" / "make" / "notebooks.py"))["cells"]
    for path in EXAMPLES:
        parts = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells(path.read_text("utf-8"))]
        content = f"---\ntitle: {path.name}\n---\n\n" + "\n\n".join(parts) + "\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=content))
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The examples lie beside the docs in the repository, and within them on the site."""
    markdown = re.sub(r"\]\(\.\./(examples/\w+)\.py\)", r"](\1.md)", markdown)
    return markdown.replace("](../examples/", "](examples/")


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return FORMULA.sub(lambda found: drawn(found[2], found[1] == "div"), content)


def drawn(formula: str, display: bool) -> str:
    """One formula, without the marks around it."""
    source = html.unescape(formula).strip()
    source = source.removeprefix("\\[").removesuffix("\\]").removeprefix("\\(").removesuffix("\\)")
    made: str = convert(source, display="block" if display else "inline")
    made = made.replace("<mi>log</mi>", '<mi>log</mi><mspace width="0.17em"/>')  # or it sticks to what follows
    return f'<div class="formula">{made}</div>' if display else made
